//! One entry of the log for many refusals: the first opens it, their count closes it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::identity::Identity;
use crate::time::{Instant, Now};

/// Groups limiter refusals by identity and interval, so that a flood cannot flood the log.
#[derive(Debug)]
pub struct RefusalWindow {
    interval: Duration,
    identities_max: usize,
    open: HashMap<Identity, Count>,
    /// In the order of opening; all last equally long, so also in the order of closing.
    order: VecDeque<(Instant, Identity)>,
    beyond_count: u64,
}

#[derive(Debug)]
struct Count {
    since: Now,
    count: u64,
}

/// What to do about one refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It opens an interval: it gets an entry of its own.
    First,
    /// It is counted in an open one, or (past `identities_max`) among those of nobody.
    Counted,
}

impl RefusalWindow {
    /// Intervals of `interval` each, at most `identities_max` open at once.
    pub fn new(interval: Duration, identities_max: usize) -> Self {
        let (open, order) = (HashMap::new(), VecDeque::new());
        Self { interval, identities_max, open, order, beyond_count: 0 }
    }

    /// Notes a refusal of something that `identity` wanted.
    pub fn note(&mut self, now: Now, identity: &Identity) -> Note {
        if let Some(open) = self.open.get_mut(identity) {
            open.count = open.count.saturating_add(1);
            return Note::Counted;
        }
        if self.open.len() >= self.identities_max {
            self.beyond_count = self.beyond_count.saturating_add(1);
            return Note::Counted;
        }
        self.open.insert(identity.clone(), Count { since: now, count: 0 });
        self.order.push_back((now.instant.after(self.interval), identity.clone()));
        Note::First
    }

    /// Closes the intervals that are over. Returns those with more refusals than the one that
    /// opened them: whose, how many more, and since when.
    pub fn due(&mut self, now: Now) -> Vec<(Identity, u64, Now)> {
        let mut due = Vec::new();
        while let Some((end, _)) = self.order.front()
            && *end <= now.instant
            && let Some((_, identity)) = self.order.pop_front()
        {
            let closed = self.open.remove(&identity).filter(|closed| closed.count > 0);
            due.extend(closed.map(|closed| (identity, closed.count, closed.since)));
        }
        due
    }

    /// When the next interval is over.
    pub fn next_due(&self) -> Option<Instant> {
        self.order.front().map(|(end, _)| *end)
    }

    /// How many refusals belonged to no interval, because all that may be were open.
    pub fn beyond_count(&self) -> u64 {
        self.beyond_count
    }
}

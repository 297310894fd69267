//! Every timer of the core, in one ordered set.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// What a timer is for. `C` names a connection, `S` a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer<C, S> {
    /// When a connection should have sent its CONNECT.
    ConnectDeadline(C),
    /// When a connection may have been silent for one and a half times its Keep Alive.
    /// [MQTT-3.1.2-22]
    KeepAlive(C),
    /// When the certificate of a connection may have come to its end.
    CertificateEnd(C),
    /// When a connection that was slowed may be read again.
    Unpause(C),
    /// When a session without a connection comes to its end.
    SessionExpiry(S),
    /// When a delayed Will is due.
    WillDelay(S),
    /// When an interval of counted refusals closes.
    RefusalsDue,
    /// When a session's walk through the retained messages goes on.
    RetainedWalk(S),
    /// When retained messages are looked through for expired ones.
    RetainedExpiry,
    /// When the broker publishes what it says of itself.
    SysDue,
}

/// Timers by time, each set at most once, so that there are never more than a few for each
/// connection and session. A timer that has lost its meaning may fire: who handles it looks again
/// at what it names.
#[derive(Debug)]
pub struct Timers<C, S> {
    by_time: BTreeSet<(Instant, Timer<C, S>)>,
    times: BTreeMap<Timer<C, S>, Instant>,
}

impl<C: Ord + Copy, S: Ord + Copy> Timers<C, S> {
    /// No timer.
    pub fn new() -> Self {
        Self { by_time: BTreeSet::new(), times: BTreeMap::new() }
    }

    /// Fires `timer` at `at`, and no longer at the time it was set for before.
    pub fn set(&mut self, at: Instant, timer: Timer<C, S>) {
        if let Some(before) = self.times.insert(timer, at) {
            self.by_time.remove(&(before, timer));
        }
        self.by_time.insert((at, timer));
    }

    /// Does not fire `timer`.
    pub fn clear(&mut self, timer: Timer<C, S>) {
        if let Some(at) = self.times.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Whether `timer` is set.
    pub fn is_set(&self, timer: Timer<C, S>) -> bool {
        self.times.contains_key(&timer)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one that is due at `now`, the earliest first.
    pub fn pop_due(&mut self, now: Instant) -> Option<Timer<C, S>> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.times.remove(&timer);
        Some(timer)
    }
}

impl<C: Ord + Copy, S: Ord + Copy> Default for Timers<C, S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_set_once_and_the_earliest_fires_first() {
        let at = Instant::from_nanos;
        let mut timers: Timers<u8, u8> = Timers::new();
        timers.set(at(5), Timer::KeepAlive(1));
        timers.set(at(3), Timer::SessionExpiry(1));
        timers.set(at(9), Timer::KeepAlive(1));
        timers.set(at(4), Timer::Unpause(1));
        timers.clear(Timer::Unpause(1));
        assert!(!timers.is_set(Timer::Unpause(1)));
        assert_eq!((timers.next(), timers.pop_due(at(2))), (Some(at(3)), None));
        assert_eq!(timers.pop_due(at(8)), Some(Timer::SessionExpiry(1)));
        assert_eq!(timers.pop_due(at(8)), None);
        assert_eq!(timers.pop_due(at(9)), Some(Timer::KeepAlive(1)));
        assert_eq!(timers.next(), None);
    }
}

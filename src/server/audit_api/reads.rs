//! Who reads how often: the pace of an identity, and which of its reads have an entry of their own.
//!
//! A mirror asks for thousands of tiles, and every entry makes another one: so the first read of an
//! identity in ten seconds has an entry, and a second entry counts the others when the interval ends,
//! as refusals by limits do. The same for reads that are denied, by reason. Time is an argument. The
//! invariant: rows are bounded, and every read is in an entry or in a count that will be in one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::answer::Denial;
use crate::identity::Identity;
use crate::time::Instant;

/// How long reads share an entry.
const READS_SHARED: Duration = Duration::from_secs(10);
/// Identities with a row at once.
const READERS_MAX: usize = 1_024;

type Key = (Identity, Option<&'static str>);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It opens an interval: it needs an entry before it is answered.
    First,
    /// It is counted in one.
    Counted,
    /// It came too soon; whether that opens an interval.
    TooMany {
        /// So that it needs an entry of its own.
        is_first: bool,
    },
    /// There are too many readers.
    NoRoom,
}

/// The readers of the last seconds.
#[derive(Debug)]
pub(super) struct Reads {
    per_second: u64,
    paces: BTreeMap<Identity, Instant>,
    intervals: BTreeMap<Key, Interval>,
}

#[derive(Debug)]
struct Interval {
    ends: Instant,
    more: u64,
}

impl Reads {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self { per_second, paces: BTreeMap::new(), intervals: BTreeMap::new() }
    }

    /// Counts one request of `identity`, which is denied for `why` unless that is `None`.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        identity: &Identity,
        why: Option<&'static str>,
    ) -> Admitted {
        if !self.paces.contains_key(identity) && self.paces.len() >= READERS_MAX {
            return Admitted::NoRoom;
        }
        if !self.is_in_pace(now, identity) {
            let is_first = self.count(now, (identity.clone(), Some(Denial::TooMany.name())));
            return Admitted::TooMany { is_first };
        }
        let is_first = self.count(now, (identity.clone(), why));
        if is_first { Admitted::First } else { Admitted::Counted }
    }

    /// The intervals that have ended with more reads than their first.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<(Identity, Option<&'static str>, u64)> {
        self.paces.retain(|_, next| *next > now);
        let ended = self.intervals.extract_if(.., |_, interval| interval.ends <= now);
        let counted = ended.filter(|(_, interval)| interval.more > 0);
        counted.map(|((identity, why), interval)| (identity, why, interval.more)).collect()
    }

    /// Whether the reads of an identity keep to so many a second, as many at once.
    fn is_in_pace(&mut self, now: Instant, identity: &Identity) -> bool {
        let step = Duration::from_nanos(1_000_000_000 / self.per_second);
        let next = self.paces.get(identity).copied().unwrap_or(now).max(now);
        let after = next.after(step);
        let is_in_pace = after.since(now) <= Duration::from_secs(1);
        self.paces.insert(identity.clone(), if is_in_pace { after } else { next });
        is_in_pace
    }

    /// Counts one; whether it is the first of an interval.
    fn count(&mut self, now: Instant, key: Key) -> bool {
        if let Some(interval) = self.intervals.get_mut(&key) {
            interval.more += 1;
            return false;
        }
        let ends = now.after(READS_SHARED);
        self.intervals.insert(key, Interval { ends, more: 0 });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str) -> Identity {
        Identity::parse(&format!("spiffe://p/auditor/{name}"), "p").unwrap()
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_millis(milliseconds))
    }

    #[test]
    fn the_first_read_of_an_interval_has_an_entry_and_the_others_are_counted() {
        let mut reads = Reads::new(10);
        let (one, other) = (identity("one"), identity("other"));
        assert_eq!(reads.admit(at(0), &one, None), Admitted::First);
        assert_eq!(reads.admit(at(1), &one, None), Admitted::Counted);
        assert_eq!(reads.admit(at(2), &one, Some("audit.origin")), Admitted::First);
        assert_eq!(reads.admit(at(3), &other, None), Admitted::First);
        assert!(reads.ended(at(9_999)).is_empty());
        assert_eq!(reads.ended(at(10_003)), [(one.clone(), None, 1)]);
        assert_eq!(reads.admit(at(10_004), &one, None), Admitted::First);
    }

    #[test]
    fn a_pace_has_a_bound_and_comes_back() {
        let mut reads = Reads::new(5);
        let one = identity("one");
        let admitted: Vec<_> = (0..7).map(|_| reads.admit(at(0), &one, None)).collect();
        assert_eq!(admitted[4], Admitted::Counted, "at the bound");
        assert_eq!(admitted[5], Admitted::TooMany { is_first: true }, "one past it");
        assert_eq!(admitted[6], Admitted::TooMany { is_first: false });
        assert_eq!(reads.admit(at(200), &one, None), Admitted::Counted);
        assert_eq!(reads.admit(at(201), &one, None), Admitted::TooMany { is_first: false });
        let ended = reads.ended(at(20_000));
        assert_eq!(ended, [(one.clone(), None, 5), (one, Some("audit.rate"), 2)]);
    }

    #[test]
    fn readers_are_bounded_and_those_that_rest_make_room() {
        let mut reads = Reads::new(1);
        for n in 0..READERS_MAX {
            assert_eq!(reads.admit(at(0), &identity(&n.to_string()), None), Admitted::First);
        }
        assert_eq!(reads.admit(at(0), &identity("more"), None), Admitted::NoRoom);
        reads.ended(at(1_000));
        assert_eq!(reads.admit(at(1_000), &identity("more"), None), Admitted::First);
    }
}

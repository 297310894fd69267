//! Which signed messages of a device were seen: the replay window of level A2.
//!
//! ```text
//!  epoch ── below the highest: refused ── higher: begins anew
//!  seq      above the highest ──► fresh, and a gap if numbers were left out
//!           within the 64 up to the highest, not seen ──► fresh, late
//!           seen, same C ──► a resend: answered as before
//!           seen, another C ──► a conflict
//!           older ──► cannot be told from one that was used: refused
//! ```
//!
//! One window belongs to one identity, whatever connections and Client Identifiers it uses, and
//! lives as long as the log: the broker writes down what it enters, and a replay enters it again.
//! The invariant: one `(epoch, seq)` of one identity is entered once.

use std::collections::{BTreeMap, VecDeque};

use crate::identity::Identity;
use crate::refusal::StatementRefusal;

/// Numbers that a window holds, the highest among them.
pub const WINDOW_NUMBERS: u64 = 64;

/// What names a signed message of a device: never its signature, of which there can be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The boot counter.
    pub epoch: u64,
    /// The number in it.
    pub seq: u64,
}

/// A message that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub seq: u64,
    /// The commitment that was signed.
    pub c: [u8; 32],
    /// Index of its entry, once that is on disk.
    pub index: Option<u64>,
}

/// What a window says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// It was never seen.
    Fresh {
        /// Numbers between it and the highest before it.
        missing: u64,
        /// Whether a higher one came before it.
        late: bool,
    },
    /// It is one that was entered.
    Resend {
        /// Index of the entry of the first, if that is on disk.
        first: Option<u64>,
    },
}

/// The messages of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    epoch: u64,
    /// By number, the highest last; never empty.
    seen: VecDeque<Seen>,
}

impl Window {
    /// A window that has seen `seen`, which must be sorted; none of nothing, or of too many.
    pub fn restored(epoch: u64, seen: Vec<Seen>) -> Option<Self> {
        let (first, last) = (seen.first()?.seq, seen.last()?.seq);
        let sorted = seen.is_sorted_by(|one, two| one.seq < two.seq);
        let fits = last - first.min(last) < WINDOW_NUMBERS;
        (sorted && fits).then(|| Self { epoch, seen: seen.into() })
    }

    /// The epoch that it is of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it remembers, by number.
    pub fn seen(&self) -> impl ExactSizeIterator<Item = &Seen> {
        self.seen.iter()
    }

    fn highest(&self) -> u64 {
        self.seen.back().map_or(0, |seen| seen.seq)
    }

    fn judge(&self, at: Sequence, c: &[u8; 32]) -> Result<Sighting, StatementRefusal> {
        if at.epoch < self.epoch {
            return Err(StatementRefusal::Epoch);
        }
        if at.epoch > self.epoch {
            return Ok(Sighting::Fresh { missing: 0, late: false });
        }
        let highest = self.highest();
        if let Some(ahead) = at.seq.checked_sub(highest).filter(|ahead| *ahead > 0) {
            return Ok(Sighting::Fresh { missing: ahead - 1, late: false });
        }
        if highest - at.seq >= WINDOW_NUMBERS {
            return Err(StatementRefusal::Replay);
        }
        match self.seen.iter().find(|seen| seen.seq == at.seq) {
            None => Ok(Sighting::Fresh { missing: 0, late: true }),
            Some(seen) if seen.c == *c => Ok(Sighting::Resend { first: seen.index }),
            Some(_) => Err(StatementRefusal::Conflict),
        }
    }

    fn enter(&mut self, at: Sequence, seen: Seen) {
        if at.epoch > self.epoch {
            self.epoch = at.epoch;
            self.seen.clear();
        }
        let place = self.seen.partition_point(|known| known.seq < at.seq);
        let is_known = self.seen.get(place).is_some_and(|known| known.seq == at.seq);
        if is_known || at.epoch < self.epoch {
            return;
        }
        self.seen.insert(place, seen);
        let oldest = self.highest().saturating_sub(WINDOW_NUMBERS - 1);
        while self.seen.front().is_some_and(|known| known.seq < oldest) {
            self.seen.pop_front();
        }
    }
}

/// The windows of every device that has signed.
#[derive(Debug, Default)]
pub struct Windows {
    by_identity: BTreeMap<Identity, Window>,
}

impl Windows {
    /// What is known of a message whose signature is good.
    ///
    /// # Errors
    /// [`StatementRefusal::Epoch`], [`StatementRefusal::Replay`], [`StatementRefusal::Conflict`];
    /// [`StatementRefusal::Signers`] if it would be the first of more than `signers_max` devices.
    pub fn judge(
        &self,
        identity: &Identity,
        at: Sequence,
        c: &[u8; 32],
        signers_max: u32,
    ) -> Result<Sighting, StatementRefusal> {
        match self.by_identity.get(identity) {
            Some(window) => window.judge(at, c),
            None if self.by_identity.len() >= signers_max as usize => {
                Err(StatementRefusal::Signers)
            }
            None => Ok(Sighting::Fresh { missing: 0, late: false }),
        }
    }

    /// Enters a message that was judged fresh.
    pub fn enter(&mut self, identity: &Identity, at: Sequence, c: [u8; 32], index: Option<u64>) {
        let seen = Seen { seq: at.seq, c, index };
        match self.by_identity.get_mut(identity) {
            Some(window) => window.enter(at, seen),
            None => {
                let window = Window { epoch: at.epoch, seen: VecDeque::from([seen]) };
                self.by_identity.insert(identity.clone(), window);
            }
        }
    }

    /// The entry of a message is on disk at `index`.
    pub fn place(&mut self, identity: &Identity, at: Sequence, index: u64) {
        let Some(window) = self.by_identity.get_mut(identity) else { return };
        if window.epoch == at.epoch
            && let Some(seen) = window.seen.iter_mut().find(|seen| seen.seq == at.seq)
        {
            seen.index = Some(index);
        }
    }

    /// Takes back what a snapshot holds.
    pub fn restore(&mut self, identity: Identity, window: Window) {
        self.by_identity.insert(identity, window);
    }

    /// Every window, in the order of the identities.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &Window)> {
        self.by_identity.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::Role;

    fn press() -> Identity {
        Identity::new("p", Role::Device, "press-7", "i").unwrap()
    }

    fn at(epoch: u64, seq: u64) -> Sequence {
        Sequence { epoch, seq }
    }

    /// Judges and, if it is fresh, enters.
    fn see(windows: &mut Windows, at: Sequence, c: u8) -> Result<Sighting, StatementRefusal> {
        let sighting = windows.judge(&press(), at, &[c; 32], 2)?;
        if let Sighting::Fresh { .. } = sighting {
            windows.enter(&press(), at, [c; 32], Some(u64::from(c)));
        }
        Ok(sighting)
    }

    #[test]
    fn the_whole_table() {
        let mut windows = Windows::default();
        let history = [
            (2, 5, 1),
            (2, 6, 2),
            (2, 6, 2),
            (2, 6, 3),
            (2, 9, 4),
            (2, 8, 5),
            (2, 8, 5),
            (2, 4, 6),
            (2, 72, 7),
            (2, 9, 4),
            (2, 8, 5),
            (1, 99, 8),
            (3, 1, 9),
            (3, 1, 9),
            (2, 73, 10),
            (3, u64::MAX, 11),
            (3, u64::MAX, 11),
            (3, 2, 12),
            (4, 0, 13),
        ];
        let rows = history.map(|(epoch, seq, c)| {
            format!("{epoch}.{seq} C{c}: {:?}", see(&mut windows, at(epoch, seq), c))
        });
        insta::assert_snapshot!(rows.join("\n"), @r"
        2.5 C1: Ok(Fresh { missing: 0, late: false })
        2.6 C2: Ok(Fresh { missing: 0, late: false })
        2.6 C2: Ok(Resend { first: Some(2) })
        2.6 C3: Err(Conflict)
        2.9 C4: Ok(Fresh { missing: 2, late: false })
        2.8 C5: Ok(Fresh { missing: 0, late: true })
        2.8 C5: Ok(Resend { first: Some(5) })
        2.4 C6: Ok(Fresh { missing: 0, late: true })
        2.72 C7: Ok(Fresh { missing: 62, late: false })
        2.9 C4: Ok(Resend { first: Some(4) })
        2.8 C5: Err(Replay)
        1.99 C8: Err(Epoch)
        3.1 C9: Ok(Fresh { missing: 0, late: false })
        3.1 C9: Ok(Resend { first: Some(9) })
        2.73 C10: Err(Epoch)
        3.18446744073709551615 C11: Ok(Fresh { missing: 18446744073709551613, late: false })
        3.18446744073709551615 C11: Ok(Resend { first: Some(11) })
        3.2 C12: Err(Replay)
        4.0 C13: Ok(Fresh { missing: 0, late: false })
        ");
    }

    #[test]
    fn one_device_more_than_the_bound_is_refused_and_those_known_go_on() {
        let mut windows = Windows::default();
        let named = |name: &str| Identity::new("p", Role::Device, name, "i").unwrap();
        for name in ["a", "b"] {
            assert!(windows.judge(&named(name), at(1, 1), &[0; 32], 2).is_ok());
            windows.enter(&named(name), at(1, 1), [0; 32], None);
        }
        let judged = |name: &str, seq| windows.judge(&named(name), at(1, seq), &[0; 32], 2);
        assert_eq!(judged("c", 1), Err(StatementRefusal::Signers));
        assert!(judged("a", 2).is_ok());
    }

    #[test]
    fn an_index_is_known_once_it_is_on_disk() {
        let mut windows = Windows::default();
        windows.enter(&press(), at(1, 1), [0; 32], None);
        let first = |windows: &Windows| windows.judge(&press(), at(1, 1), &[0; 32], 2);
        assert_eq!(first(&windows), Ok(Sighting::Resend { first: None }));
        windows.place(&press(), at(2, 1), 7);
        windows.place(&press(), at(1, 1), 8);
        assert_eq!(first(&windows), Ok(Sighting::Resend { first: Some(8) }));
    }

    #[test]
    fn only_a_window_can_be_restored() {
        let seen = |seqs: &[u64]| {
            seqs.iter().map(|seq| Seen { seq: *seq, c: [0; 32], index: None }).collect::<Vec<_>>()
        };
        assert!(Window::restored(1, seen(&[3, 66])).is_some());
        for bad in [&[][..], &[3, 67], &[3, 3], &[4, 3]] {
            assert_eq!(Window::restored(1, seen(bad)), None, "{bad:?}");
        }
    }

    proptest! {
        /// Against a model that forgets nothing: what is fresh was never entered, what was entered
        /// is a resend or a conflict or too old, and a window is what it is restored from.
        #[test]
        fn it_says_what_a_longer_memory_says(
            history in prop::collection::vec((0_u64..3, 0_u64..200, 0_u8..2), 0..300),
        ) {
            let (mut windows, mut all) = (Windows::default(), BTreeMap::new());
            let (mut epoch, mut highest) = (0, None);
            for (of, seq, c) in history {
                let judged = see(&mut windows, at(of, seq), c);
                if of > epoch {
                    epoch = of;
                    highest = None;
                }
                let before = highest.unwrap_or(0);
                let expected = match all.get(&(of, seq)) {
                    _ if of < epoch && highest.is_some() => Err(StatementRefusal::Epoch),
                    _ if highest.is_some() && before >= seq + 64 => Err(StatementRefusal::Replay),
                    Some((known, index)) if *known == c => {
                        Ok(Sighting::Resend { first: Some(*index) })
                    }
                    Some(_) => Err(StatementRefusal::Conflict),
                    None if highest.is_none() => Ok(Sighting::Fresh { missing: 0, late: false }),
                    None if seq > before => {
                        Ok(Sighting::Fresh { missing: seq - before - 1, late: false })
                    }
                    None => Ok(Sighting::Fresh { missing: 0, late: true }),
                };
                if of == epoch || highest.is_some() {
                    prop_assert_eq!(judged, expected);
                }
                if let Ok(Sighting::Fresh { .. }) = judged {
                    all.insert((of, seq), (c, u64::from(c)));
                    epoch = of;
                    highest = Some(highest.map_or(seq, |known: u64| known.max(seq)));
                }
                for (_, window) in windows.iter() {
                    let seen: Vec<Seen> = window.seen().copied().collect();
                    let again = Window::restored(window.epoch(), seen);
                    prop_assert_eq!(again.as_ref(), Some(window));
                }
            }
        }
    }
}

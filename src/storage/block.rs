//! What the query index keeps of a block of entries, collected while the entries pass.
//!
//! No database and no file: [`super::index`] writes what is collected here. The writer's tree
//! thread collects from memory what it hashes anyway, so that following a log costs neither a
//! read of what was just written nor a parse of it. The invariant: a block that is handed on
//! with its postings has those of every entry in it; one that began before this process did is
//! handed on without any, to be read from the segments.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::facts::Facts;
use super::log::Place;
use super::posting::Field;

/// Entries of one block.
pub const BLOCK_ENTRIES: u64 = 8192;
/// Entries of a block whose batch is found by one place.
pub(super) const STRETCH_ENTRIES: usize = 128;
/// Stretches of a block.
pub(super) const STRETCHES: usize = 64;
/// Finished blocks that may wait for the checkpoint that covers them. What comes on top is read
/// from the segments.
const FINISHED_BLOCKS_MAX: usize = 16;
/// Values of one field that one block lists. With more, it is looked through for any value of it.
const VALUES_MAX: usize = 4096;
/// Longest value that is listed, in bytes.
const VALUE_BYTES_MAX: usize = 256;

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// Where the batch of the first entry of each stretch stands.
    pub(super) places: Vec<Place>,
    pub(super) earliest: u64,
    pub(super) latest: u64,
    /// Bytes of the entries.
    pub(super) entry_bytes: u64,
    /// Bytes of the payloads, as the entries state them.
    pub(super) payload_bytes: u64,
    /// In the order of [`Field::ALL`].
    pub(super) values: [Values; Field::ALL.len()],
    pub(super) entries: u64,
}

/// The values of one field that occur in a block, each with the entries that have it.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) lists: HashMap<String, Vec<u16>, RandomState>,
    /// Whether there are values that are not listed.
    pub(super) is_open: bool,
}

/// A block that is whole and signed.
#[derive(Debug)]
pub(super) struct FilledBlock {
    /// Counts the blocks of the log, from 0.
    pub(super) number: u64,
    /// Its postings, unless it began before the collecting did.
    pub(super) filling: Option<Filling>,
}

/// Collects the postings of entries that pass in order.
#[derive(Debug)]
pub(super) struct Collector {
    next_index: u64,
    /// `None` while a block passes whose beginning was not seen.
    filling: Option<Filling>,
    finished: Vec<FilledBlock>,
}

impl Collector {
    /// Collects from entry `next_index` on.
    pub(super) fn new(next_index: u64) -> Self {
        let filling = next_index.is_multiple_of(BLOCK_ENTRIES).then(Filling::default);
        Self { next_index, filling, finished: Vec::new() }
    }

    /// Takes the next entry, which stands in the batch at `batch`.
    pub(super) fn add(&mut self, json: &[u8], batch: Place) {
        if let Some(filling) = &mut self.filling {
            filling.add(json, batch);
        }
        self.next_index += 1;
        if self.next_index.is_multiple_of(BLOCK_ENTRIES) {
            let filling = self.filling.replace(Filling::default());
            if self.finished.len() < FINISHED_BLOCKS_MAX {
                let number = (self.next_index / BLOCK_ENTRIES).saturating_sub(1);
                self.finished.push(FilledBlock { number, filling });
            }
        }
    }

    /// The blocks that were finished since the last call.
    pub(super) fn finished(&mut self) -> impl Iterator<Item = FilledBlock> {
        self.finished.drain(..)
    }
}

impl Filling {
    /// Adds the next entry, which stands in the batch at `batch`.
    pub(super) fn add(&mut self, json: &[u8], batch: Place) {
        let entry = u16::try_from(self.entries).unwrap_or(u16::MAX);
        if usize::from(entry).is_multiple_of(STRETCH_ENTRIES) {
            self.places.push(batch);
        }
        self.entries += 1;
        self.entry_bytes += json.len() as u64;
        // An entry that does not read is found by no query, and by `verify`.
        let Some(facts) = Facts::read(json) else { return };
        self.earliest = if self.latest == 0 { facts.t } else { self.earliest.min(facts.t) };
        self.latest = self.latest.max(facts.t);
        self.payload_bytes = self.payload_bytes.saturating_add(facts.len.unwrap_or(0));
        for (field, values) in Field::ALL.into_iter().zip(&mut self.values) {
            if let Some(value) = field.of(&facts) {
                values.add(value, entry);
            }
        }
    }
}

impl Values {
    fn add(&mut self, value: &str, entry: u16) {
        if let Some(list) = self.lists.get_mut(value) {
            list.push(entry);
        } else if self.lists.len() < VALUES_MAX && value.len() <= VALUE_BYTES_MAX {
            self.lists.insert(value.to_owned(), vec![entry]);
        } else {
            self.is_open = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &[u8] =
        br#"{"v":1,"type":"publish.refused","t":7,"who":"device/press-7","why":"limit.rate","len":3}"#;

    fn lists(filling: &Filling, field: Field) -> &Values {
        let place = Field::ALL.iter().position(|other| *other == field).unwrap();
        &filling.values[place]
    }

    #[test]
    fn a_block_whose_beginning_was_not_seen_has_no_postings() {
        let mut collector = Collector::new(BLOCK_ENTRIES - 1);
        let place = |offset| Place { segment: 3, offset };
        collector.add(ENTRY, place(10));
        for index in 0..BLOCK_ENTRIES {
            collector.add(ENTRY, place(20 + index / 100));
        }
        let finished: Vec<FilledBlock> = collector.finished().collect();
        let [first, second] = &finished[..] else { panic!("two blocks") };
        assert!(first.number == 0 && first.filling.is_none());
        let filling = second.filling.as_ref().unwrap();
        assert_eq!((second.number, filling.entries), (1, BLOCK_ENTRIES));
        assert_eq!((filling.places.len(), filling.places[1]), (STRETCHES, place(21)));
        assert_eq!(filling.payload_bytes, 3 * BLOCK_ENTRIES);
        assert_eq!(filling.entry_bytes, ENTRY.len() as u64 * BLOCK_ENTRIES);
        for (field, value) in [
            (Field::Who, "device/press-7"),
            (Field::Kind, "publish.refused"),
            (Field::Why, "limit.rate"),
        ] {
            let list = &lists(filling, field).lists[value];
            assert!(list.iter().copied().eq(0..8192), "{field:?}");
        }
        assert!(lists(filling, Field::Topic).lists.is_empty());
        assert_eq!(collector.finished().count(), 0);
    }

    #[test]
    fn finished_blocks_wait_in_bounded_number() {
        let mut collector = Collector::new(1);
        let bound = u64::try_from(FINISHED_BLOCKS_MAX).unwrap();
        for _ in 0..(bound + 2) * BLOCK_ENTRIES {
            collector.add(b"", Place::default());
        }
        assert_eq!(collector.finished().count(), FINISHED_BLOCKS_MAX);
    }

    #[test]
    fn a_field_with_too_many_values_or_one_too_long_is_open() {
        let topics = |topics: &[String]| {
            let mut filling = Filling::default();
            for topic in topics {
                let entry = format!(r#"{{"type":"publish","t":1,"topic":"{topic}"}}"#);
                filling.add(entry.as_bytes(), Place::default());
            }
            let topics = lists(&filling, Field::Topic);
            assert!(!lists(&filling, Field::Kind).is_open);
            (topics.lists.len(), topics.is_open)
        };
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(topics(&many(VALUES_MAX)), (VALUES_MAX, false));
        assert_eq!(topics(&many(VALUES_MAX + 1)), (VALUES_MAX, true));
        assert_eq!(topics(&["x".repeat(VALUE_BYTES_MAX)]), (1, false));
        assert_eq!(topics(&["x".repeat(VALUE_BYTES_MAX + 1)]), (0, true));
    }
}

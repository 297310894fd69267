//! What the query index keeps of a block of entries, collected while the entries pass.
//!
//! No database and no file: [`super::index`] writes what is collected here. The writer's tree
//! thread collects from memory what it hashes anyway, so that following a log costs neither a
//! read of what was just written nor a parse of it. The invariant: a block that is handed on
//! with its postings has those of every entry in it; one that began before this process did is
//! handed on without any, to be read from the segments.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::log::Place;
use super::query::Facts;

/// Entries of one block.
pub const BLOCK_ENTRIES: u64 = 8192;
/// Finished blocks that may wait for the checkpoint that covers them. What comes on top is read
/// from the segments.
const FINISHED_BLOCKS_MAX: usize = 16;

/// A block that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    pub(super) place: Option<Place>,
    pub(super) earliest: u64,
    pub(super) latest: u64,
    /// Who, type and result, as in [`super::index`]'s fields.
    pub(super) values: [BTreeSet<String>; 3],
    pub(super) entries: u64,
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

/// The values of one entry that the index knows.
#[derive(Debug, PartialEq, Eq)]
struct Posted<'a> {
    t: u64,
    /// Who, type and result.
    values: [Option<Cow<'a, str>>; 3],
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
        self.place = self.place.or(Some(batch));
        self.entries += 1;
        // An entry that does not read is found by no query, and by `verify`.
        let Some(posted) = Posted::read(json).or_else(|| Posted::parse(json)) else { return };
        self.earliest = if self.latest == 0 { posted.t } else { self.earliest.min(posted.t) };
        self.latest = self.latest.max(posted.t);
        for (values, value) in self.values.iter_mut().zip(posted.values) {
            if let Some(value) = value
                && !values.contains(value.as_ref())
            {
                values.insert(value.into_owned());
            }
        }
    }
}

impl<'a> Posted<'a> {
    /// Reads an entry as [`crate::evidence::EntryWriter`] begins one; `None` if it begins
    /// in any other way, which is for [`Self::parse`].
    fn read(json: &'a [u8]) -> Option<Self> {
        const RESULT: &[u8] = br#","result":""#;
        let (kind, rest) = plain(json.strip_prefix(br#"{"v":1,"type":""#)?)?;
        let rest = rest.strip_prefix(br#","t":"#)?;
        let (t, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == b',')?)?;
        let t = std::str::from_utf8(t).ok()?.parse().ok()?;
        let (_, rest) = plain(rest.strip_prefix(br#","node":""#)?)?;
        let (_, rest) = plain(rest.strip_prefix(br#","id":""#)?)?;
        let (who, rest) = plain(rest.strip_prefix(br#","who":""#)?)?;
        // A quote within a string stands behind a backslash, and an entry holds no further
        // object: nothing but the field itself can look like this.
        let result = match rest.windows(RESULT.len()).position(|window| window == RESULT) {
            Some(at) => Some(plain(rest.get(at + RESULT.len()..)?)?.0),
            None => None,
        };
        Some(Self { t, values: [Some(who), Some(kind), result].map(|v| v.map(Cow::Borrowed)) })
    }

    /// Reads any entry.
    fn parse(json: &'a [u8]) -> Option<Self> {
        let Facts { kind, t, who, result, .. } = serde_json::from_slice(json).ok()?;
        Some(Self { t, values: [who, Some(kind), result] })
    }
}

/// The rest of a string that needs no escape, and what follows it.
fn plain(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(text).ok()?, rest.strip_prefix(b"\"")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::evidence::{Decision, EntryType, EntryWriter};
    use crate::identity::Identity;
    use crate::time::UnixNanos;

    fn written(
        node: &str,
        topic: &str,
        decision: Option<Decision>,
        is_result_last: bool,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let who = Identity::parse("spiffe://p/device/press-7", "p").unwrap();
        let kind = EntryType::PublishRefused;
        let entry = EntryWriter::begin(&mut out, kind, UnixNanos::new(u64::MAX), node, "r-1");
        let decide = |entry: EntryWriter<'_>| match decision {
            Some(decision) => entry.decision(decision).finish(),
            None => entry.finish(),
        };
        if is_result_last {
            decide(entry.who(&who).text("topic", topic));
        } else if let Some(decision) = decision {
            entry.who(&who).decision(decision).text("topic", topic).finish();
        } else {
            entry.who(&who).flag("dup", true).text("topic", topic).finish();
        }
        out
    }

    #[test]
    fn a_written_entry_reads_alike_both_ways() {
        let hostile = [
            "plant/press-7/temp",
            r#","result":"deny"#,
            r#"x","result":"deny","y":""#,
            r#"\","result":"deny"#,
            r#"\\","result":"deny"#,
            "\u{1}\u{7f}\u{e9}\u{1f980},",
            "",
        ];
        for topic in hostile {
            for decision in [None, Some(Decision::Allow), Some(Decision::Deny)] {
                for is_result_last in [false, true] {
                    let json = written("plant", topic, decision, is_result_last);
                    let read = Posted::read(&json).expect("as it was written");
                    assert_eq!(Some(&read), Posted::parse(&json).as_ref(), "{topic:?}");
                    assert_eq!(read.values[2].as_deref(), decision.map(Decision::as_str));
                }
            }
        }
    }

    #[test]
    fn what_was_written_otherwise_is_left_to_the_parser() {
        let mut start = Vec::new();
        EntryWriter::begin(&mut start, EntryType::Start, UnixNanos::new(1), "p", "r-0").finish();
        for json in [
            &written(r#"a "plant""#, "x", None, false)[..],
            &start[..],
            br#"{"v":2,"type":"x","t":1,"node":"n","id":"i","who":"a"}"#,
            br#"{"v":1,"type":"x","t":-1,"node":"n","id":"i","who":"a"}"#,
            br#"{"v":1,"type":"x","t":1,"node":"n","id":"i","who":"\u0061"}"#,
            b"",
        ] {
            assert_eq!(Posted::read(json), None);
        }
        assert!(Posted::parse(&start).is_some());
    }

    proptest! {
        #[test]
        fn no_topic_and_no_node_changes_what_is_read(
            node in ".{0,8}", topic in r#"[\\",:a-z\PC]{0,24}"#, is_result_last: bool,
        ) {
            let json = written(&node, &topic, Some(Decision::Allow), is_result_last);
            let parsed = Posted::parse(&json);
            prop_assert!(parsed.is_some());
            if let Some(read) = Posted::read(&json) {
                prop_assert_eq!(Some(read), parsed);
            }
        }
    }

    #[test]
    fn a_block_whose_beginning_was_not_seen_has_no_postings() {
        let json = written("plant", "x", Some(Decision::Allow), false);
        let mut collector = Collector::new(BLOCK_ENTRIES - 1);
        let place = |offset| Place { segment: 3, offset };
        collector.add(&json, place(10));
        for index in 0..BLOCK_ENTRIES {
            collector.add(&json, place(20 + index / 100));
        }
        let finished: Vec<FilledBlock> = collector.finished().collect();
        let [first, second] = &finished[..] else { panic!("two blocks") };
        assert!(first.number == 0 && first.filling.is_none());
        let filling = second.filling.as_ref().unwrap();
        assert_eq!((second.number, filling.entries), (1, BLOCK_ENTRIES));
        assert_eq!(filling.place, Some(place(20)));
        let values = filling.values.each_ref().map(|set| set.first().unwrap().as_str());
        assert_eq!(values, ["device/press-7", "publish.refused", "allow"]);
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
}

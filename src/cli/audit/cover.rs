//! Whether a device has signed for a message since it was recorded: the `cover` entry over it.
//!
//! An entry is never changed, so one that was A0 says so for ever. What makes it A1 is a later entry
//! of the same device that names its number. Reads, and trusts what the broker checked before it
//! wrote that entry; how to check it without the broker is in `docs/evidence.md`.

use std::ops::ControlFlow;

use serde_json::Value;

use crate::storage::index::IndexFault;
use crate::storage::{Disk, Entry, Index, Order, Query, Reader, search};

/// Covers of one device that are looked at: those of its epoch stand close behind the message.
const COVERS_MAX: usize = 10_000;

/// The index of the `cover` entry over `entry`, if there is one; `None` too for what is no linked
/// message.
pub(in crate::cli) fn cover_of<D: Disk>(
    reader: &Reader<D>,
    index: Option<&Index>,
    entry: &Entry,
) -> Result<Option<u64>, IndexFault> {
    let fields: Value = serde_json::from_slice(&entry.json).unwrap_or_default();
    let number = |fields: &Value, name: &str| fields.get(name).and_then(Value::as_u64);
    let is_asserted = fields.get("sig").is_none();
    let who = fields.get("who").and_then(Value::as_str);
    let (Some(who), Some(epoch), Some(seq), true) =
        (who, number(&fields, "epoch"), number(&fields, "seq"), is_asserted)
    else {
        return Ok(None);
    };
    let query = Query {
        who: Some(who.to_owned()),
        kind: Some("cover".to_owned()),
        after: Some(entry.index),
        order: Order::OldestFirst,
        limit: COVERS_MAX,
        ..Query::default()
    };
    let mut covered = None;
    search(reader, index, &query, &mut |found| {
        let cover: Value = serde_json::from_slice(&found.json).unwrap_or_default();
        let range = number(&cover, "first").zip(number(&cover, "last"));
        let of_epoch = number(&cover, "epoch");
        if of_epoch == Some(epoch)
            && range.is_some_and(|(first, last)| (first..=last).contains(&seq))
        {
            covered = Some(found.index);
            return ControlFlow::Break(());
        }
        // A later epoch covers nothing of an older one.
        if of_epoch > Some(epoch) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Batch, BatchId, EntryType, EntryWriter, LogKey, RecordKind};
    use crate::storage::{Log, LogOptions, RealDisk, Until};
    use crate::time::UnixNanos;

    /// Type, device, epoch, and the numbers of one entry.
    type Line = (EntryType, &'static str, u64, &'static [(&'static str, u64)]);

    #[test]
    fn a_message_has_the_cover_that_names_its_number_in_its_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let key = LogKey::from_seed("n/log", &[7; 32]).unwrap();
        let verifier = key.verifier().clone();
        let options =
            LogOptions { verifier: verifier.clone(), segment_bytes: 1 << 20, tiles: false };
        let (mut log, _) = Log::open(RealDisk::new(dir.path()), options, &mut |_| {}).unwrap();
        let (message, cover) = (EntryType::Publish, EntryType::Cover);
        let lines: [Line; 9] = [
            (cover, "device/a", 1, &[("first", 1), ("last", 9)]),
            (message, "device/a", 1, &[("seq", 1)]),
            (message, "device/a", 1, &[("seq", 2)]),
            (message, "device/b", 1, &[("seq", 1)]),
            (message, "device/a", 1, &[("seq", 3)]),
            (cover, "device/a", 1, &[("first", 1), ("last", 2)]),
            (message, "device/a", 2, &[("seq", 3)]),
            (cover, "device/a", 2, &[("first", 3), ("last", 3)]),
            (cover, "device/a", 1, &[("first", 3), ("last", 3)]),
        ];
        for (number, (kind, who, epoch, numbers)) in (0..).zip(lines) {
            let mut batch = Batch::default();
            batch.push(RecordKind::Entry, None, |out| {
                let entry = EntryWriter::begin(out, kind, UnixNanos::new(number), "n", "d");
                let entry = entry.plain("who", who).number("epoch", epoch);
                numbers
                    .iter()
                    .fold(entry, |entry, (name, value)| entry.number(name, *value))
                    .finish();
            });
            log.append(&[(BatchId { shard: 0, number }, batch)]).unwrap();
        }
        let reader = Reader::open(RealDisk::new(dir.path()), &verifier, Until::Written).unwrap();
        let covers: Vec<Option<u64>> = (0..9)
            .map(|index| cover_of(&reader, None, &reader.entry(index).unwrap().unwrap()).unwrap())
            .collect();
        let none = None;
        // The last is not found: a newer epoch stands before it.
        assert_eq!(covers, [none, Some(5), Some(5), none, none, none, Some(7), none, none]);
    }
}

//! A log at rest under any change of its bytes, and the texts that leave it.
//!
//! An input is either a text (first byte even): a signed note, a tlog-proof, a verifier key; or (odd)
//! changes to the files of a small log: file, place, number of bytes, and the bytes. Invariants:
//! nothing panics; what was read as a text is written as that text again; a log that verifies to its
//! end starts; what a reader gives below the checkpoint of a log that verifies is what was written.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use avow::evidence::{Batch, BatchId, Checkpoint, LogKey, RecordKind, TlogProof, VerifierKey};
use avow::storage::verify::verify_disk;
use avow::storage::{Log, LogOptions, Reader, Until};

use super::disk::SimDisk;

const ORIGIN: &str = "plant.example/log";
const APPENDS: u64 = 6;
/// Bytes before those of one change: file, place (3), number.
const CHANGE_HEAD_BYTES: usize = 5;

type Files = BTreeMap<String, Vec<u8>>;

fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).expect("a seed")
}

fn options() -> LogOptions {
    LogOptions { verifier: key().verifier().clone(), segment_bytes: 1024, tiles: false }
}

fn entry(index: u64) -> Vec<u8> {
    format!(r#"{{"v":1,"type":"disconnect","t":{index},"node":"plant","id":"x-{index}"}}"#)
        .into_bytes()
}

/// The log as it was written.
fn clean() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new(1);
        let opened = Log::open(disk.clone(), options(), &mut |_| {});
        let (mut log, mut recovery) = opened.expect("a new log");
        for append in 0..APPENDS {
            let mut batch = Batch::default();
            for index in append * 3..append * 3 + 3 {
                batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&entry(index)));
                recovery.integrate(&entry(index)).expect("a tree");
            }
            log.append(&[(BatchId { shard: 0, number: append }, batch)]).expect("a disk");
            if append % 2 == 1 {
                recovery.sign(&key()).expect("a checkpoint");
            }
        }
        let names = disk.files("").into_iter().map(|(name, _)| name);
        names.map(|name| (name.clone(), disk.bytes(&name).unwrap_or_default())).collect()
    })
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    match data.split_first() {
        Some((kind, text)) if kind % 2 == 0 => read_text(text),
        Some((_, changes)) => change(changes),
        None => {}
    }
}

fn read_text(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(proof) = text.parse::<TlogProof>() {
        assert_eq!(proof.to_string().parse::<TlogProof>().ok(), Some(proof.clone()));
        assert!(proof.verify(b"{}", key().verifier()).is_err(), "an entry that is in no log");
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(checkpoint) = Checkpoint::open(text, key().verifier()) {
        assert!(text.starts_with(&checkpoint.to_string()));
    }
}

fn change(mut changes: &[u8]) {
    let mut files = clean().clone();
    while let Some((head, rest)) = changes.split_at_checked(CHANGE_HEAD_BYTES) {
        let count = usize::from(head[4]).min(rest.len());
        let (bytes, rest) = rest.split_at(count);
        let file = usize::from(head[0]) % files.len();
        let place = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        if let Some(there) = files.values_mut().nth(file) {
            match place % (there.len() + 1) {
                place if count == 0 => there.truncate(place),
                place => {
                    let end = (place + count).min(there.len());
                    there[place..end].copy_from_slice(&bytes[..end - place]);
                }
            }
        }
        changes = rest;
    }
    judge(&SimDisk::of_files(&files));
}

fn judge(disk: &SimDisk) {
    let verified = verify_disk(disk, key().verifier(), &mut |_| {});
    let reader = Reader::open(disk.clone(), key().verifier(), Until::Checkpoint);
    let read = reader.as_ref().map(|reader| reader.entries(0).take(1_000).collect::<Vec<_>>());
    if let (Ok(report), Ok(read)) = (&verified, read) {
        let signed = reader.ok().and_then(|reader| Some(reader.checkpoint()?.tree_size));
        assert!(signed.unwrap_or_default() <= report.signed_entries);
        for (index, found) in (0..signed.unwrap_or_default()).zip(read) {
            assert_eq!(found.expect("a log that verifies can be read").json, entry(index));
        }
    }
    let is_whole = verified.is_ok_and(|report| report.tail_defect.is_none());
    let started = Log::open(disk.clone(), options(), &mut |_| {});
    assert!(started.is_ok() || !is_whole, "it verifies and does not start: {:?}", started.err());
}

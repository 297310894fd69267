//! Whatever is changed in a log that is at rest, verification names the place.

use avow::evidence::tree::leaf_hash;
use avow::storage::{Damage, StorageFault, Until, VerifyFault, VerifyReport};

use crate::world::World;

/// A log of several segments, all of it signed but the last few entries.
pub(crate) fn at_rest(segment_bytes: u64, appends: u32) -> World {
    let mut world = World::new(1);
    world.segment_bytes = segment_bytes;
    let (mut up, _) = world.open().unwrap();
    for append in 0..appends {
        world.append(&mut up).unwrap();
        if append % 5 == 4 {
            world.checkpoint(&mut up).unwrap();
        }
    }
    world.append(&mut up).unwrap();
    world
}

fn segments(world: &World) -> Vec<(String, usize)> {
    let files = world.disk.files("segments/");
    assert!(files.len() >= 3, "the log has several segments");
    files
}

/// Asserts that the defect is named: as a failure, or as one of the tail.
fn assert_named(
    verified: Result<VerifyReport, VerifyFault>,
    path: &str,
    offset: usize,
    clean: &VerifyReport,
) {
    let defect = match verified {
        Err(VerifyFault::Defect(defect)) => defect,
        Err(VerifyFault::Fault(fault)) => panic!("{path} byte {offset}: {fault}"),
        Ok(report) => {
            assert_eq!(report.signed_entries, clean.signed_entries);
            report.tail_defect.unwrap_or_else(|| panic!("{path} byte {offset}: unseen"))
        }
    };
    assert_eq!(defect.file, path, "byte {offset}: {defect}");
    assert!(defect.offset <= offset as u64, "byte {offset}: {defect}");
}

#[test]
fn f04_every_flipped_byte_is_found_where_it_is() {
    let world = at_rest(2048, 7);
    let clean = world.verify().unwrap();
    assert_eq!(clean.tail_defect, None);
    assert!(clean.unsigned_tail_entries > 0 && clean.signed_entries > 10);
    for (path, length) in segments(&world) {
        for offset in 0..length {
            let bits = 1 << (offset % 8);
            world.disk.flip(&path, offset, bits);
            assert_named(world.verify(), &path, offset, &clean);
            world.disk.flip(&path, offset, bits);
        }
    }
    assert_eq!(world.verify().unwrap(), clean);
}

#[test]
fn f04_flipped_bytes_of_a_larger_log_are_found() {
    let mut world = at_rest(64 << 10, 200);
    let clean = world.verify().unwrap();
    for (path, length) in segments(&world) {
        for _ in 0..150 {
            let offset = world.random.below(length as u64) as usize;
            world.disk.flip(&path, offset, 0x80);
            assert_named(world.verify(), &path, offset, &clean);
            world.disk.flip(&path, offset, 0x80);
        }
    }
}

#[test]
fn f04_a_truncated_or_missing_segment_is_found() {
    let world = at_rest(4096, 20);
    let clean = world.verify().unwrap();
    let files = segments(&world);
    for (path, length) in &files {
        let whole = world.disk.bytes(path).unwrap();
        for kept in [0, 1, 127, 128, 129, length / 2, length - 1] {
            world.disk.replace(path, whole[..kept].to_vec());
            let verified = world.verify();
            // Nothing left of the last segment looks like one that was never begun: then the
            // entries are missing.
            let is_named = match &verified {
                Err(VerifyFault::Defect(_)) => true,
                Ok(report) => {
                    report.tail_defect.is_some()
                        || report.unsigned_tail_entries < clean.unsigned_tail_entries
                }
                Err(VerifyFault::Fault(_)) => false,
            };
            assert!(is_named, "{path} cut to {kept}: {verified:?}");
            world.disk.replace(path, whole.clone());
        }
    }
    for (path, _) in files.iter().take(files.len() - 1) {
        use avow::storage::Disk as _;
        let world = at_rest(4096, 20);
        world.disk.remove(path).unwrap();
        let Err(VerifyFault::Defect(defect)) = world.verify() else { panic!("{path} unseen") };
        assert_eq!((defect.file.as_str(), defect.damage), (path.as_str(), Damage::Missing));
    }
}

#[test]
fn f04_an_old_segment_in_the_place_of_a_newer_one_is_found() {
    let world = at_rest(4096, 20);
    let files = segments(&world);
    let old = world.disk.bytes(&files[0].0).unwrap();
    world.disk.replace(&files[1].0, old);
    let Err(VerifyFault::Defect(defect)) = world.verify() else { panic!("unseen") };
    assert_eq!((defect.file, defect.damage), (files[1].0.clone(), Damage::SegmentNumber));
}

#[test]
fn every_flipped_byte_of_the_checkpoints_is_found() {
    let world = at_rest(4096, 12);
    for path in ["history", "checkpoint"] {
        for offset in 0..world.disk.bytes(path).unwrap().len() {
            world.disk.flip(path, offset, 4);
            assert!(world.verify().is_err(), "{path}, byte {offset}");
            world.disk.flip(path, offset, 4);
        }
    }
}

#[test]
fn a_start_refuses_damage_below_the_checkpoint_and_cuts_a_torn_tail() {
    let mut world = at_rest(4096, 9);
    let files = segments(&world);
    world.disk.flip(&files[0].0, 300, 1);
    let Err(StorageFault::Corrupt(defect)) = world.open().map(|_| ()) else { panic!("started") };
    assert_eq!(defect.file, files[0].0);
    world.disk.flip(&files[0].0, 300, 1);
    // The last batch stands at the end of the last segment, past the checkpoint.
    let (last, _) = files.last().unwrap();
    let used = world.disk.bytes(last).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    world.disk.flip(last, used, 1);
    let before = world.promised.len();
    let (up, found) = world.open().unwrap();
    assert!(found.len() < before && world.promised.starts_with(&found));
    drop(up);
    world.promised = found;
    world.restart().unwrap();
}

#[test]
fn a_start_refuses_a_log_that_its_checkpoint_does_not_fit() {
    use avow::storage::Disk as _;
    let mut world = at_rest(4096, 20);
    let (mut up, _) = world.open().unwrap();
    world.checkpoint(&mut up).unwrap();
    drop(up);
    let refusal = |world: &World| match world.open().map(|_| ()) {
        Err(StorageFault::Corrupt(defect)) => defect.damage,
        other => panic!("{other:?}"),
    };
    // The checkpoints of another log under the same key: its entries differ.
    let mut other = World::new(77);
    let (mut up, _) = other.open().unwrap();
    other.append(&mut up).unwrap();
    other.checkpoint(&mut up).unwrap();
    let ours = ["history", "checkpoint"].map(|file| (file, world.disk.bytes(file).unwrap()));
    for (file, _) in &ours {
        world.disk.replace(file, other.disk.bytes(file).unwrap());
    }
    assert_eq!(refusal(&world), Damage::Root);
    assert!(matches!(world.verify(), Err(VerifyFault::Defect(d)) if d.damage == Damage::Root));
    for (file, bytes) in ours {
        world.disk.replace(file, bytes);
    }
    // The last segment is lost, and signed entries with it.
    let files = segments(&world);
    world.disk.remove(&files.last().unwrap().0).unwrap();
    assert_eq!(refusal(&world), Damage::EntriesMissing);
    let verified = world.verify();
    assert!(matches!(verified, Err(VerifyFault::Defect(d)) if d.damage == Damage::EntriesMissing));
}

#[test]
fn a_reader_gives_what_was_written_and_proofs_hold() {
    let world = at_rest(4096, 9);
    let entries: Vec<_> = world.promised.iter().filter(|(is_entry, ..)| *is_entry).collect();
    let reader = world.reader(Until::Written);
    let read: Vec<_> = reader.entries(0).map(Result::unwrap).collect();
    assert_eq!(read.len(), entries.len());
    for ((_, head, payload), (index, entry)) in entries.iter().zip((0..).zip(&read)) {
        assert_eq!((entry.index, &entry.json), (index, head));
        assert_eq!(entry.body.as_ref().map(|body| body.payload.to_vec()), *payload);
        assert_eq!(reader.entry(index).unwrap().as_ref(), Some(entry));
        let hinted = reader.entries_at(index, Some(entry.batch)).next().unwrap().unwrap();
        assert_eq!(hinted, *entry);
    }
    let signed = world.reader(Until::Checkpoint);
    let size = signed.checkpoint().unwrap().tree_size;
    assert_eq!(signed.entries(0).count() as u64, size);
    assert_eq!(signed.leaf_hashes(u64::MAX).unwrap().len() as u64, size);
    for entry in read.iter().take(size as usize) {
        let proof = signed.prove(entry.index).unwrap();
        assert_eq!(proof.verify(&entry.json, world.key.verifier()).unwrap().tree_size, size);
    }
    assert!(signed.prove(size).is_err());
    assert_eq!(leaf_hash(&read[0].json), signed.leaf_hashes(1).unwrap()[0]);
}

//! An erasure that is cut short at every operation of the disk: the next start finishes it, or nothing
//! of it has happened; what was not to be erased is whole, and everything verifies.

use avow::evidence::erasure::{ERASE_ACT, ERASE_BEGIN_ACT, Erasure, IndexRanges};
use avow::evidence::tree::leaf_hash;
use avow::evidence::{Batch, BatchId, EntryType, EntryWriter, RecordKind};
use avow::storage::{Log, LogOptions, StorageFault, erasure};
use avow::time::UnixNanos;

use crate::disk::{Accident, Kept, SimDisk};
use crate::world::{Up, World};

const APPENDS: usize = 12;

/// A log with bodies in several segments, and the indices of every second one; a file beside it that
/// stands for a snapshot.
fn begun() -> (World, Up, IndexRanges) {
    let mut world = World::new(11);
    world.segment_bytes = 4096;
    let (mut up, _) = world.open().unwrap();
    for _ in 0..APPENDS {
        world.append(&mut up).unwrap();
    }
    world.checkpoint(&mut up).unwrap();
    let entries = world.promised.iter().filter(|(is_entry, ..)| *is_entry);
    let with_body = (0..).zip(entries).filter(|(_, (_, _, body))| body.is_some());
    let indices: Vec<u64> = with_body.map(|(index, _)| index).step_by(2).collect();
    assert!(indices.len() > 5 && world.disk.files("segments").len() > 2);
    (world, up, IndexRanges::of(indices))
}

fn record(up: &mut Up, act: &str, indices: &IndexRanges) -> Result<(), StorageFault> {
    let kind = EntryType::of_act(act);
    let mut head = Vec::new();
    EntryWriter::begin(&mut head, kind, UnixNanos::new(1), "n", "d")
        .plain("act", act)
        .text("subject", "device/a")
        .text("indices", &indices.to_string())
        .text("reason", "r")
        .finish();
    let mut batch = Batch::default();
    batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&head));
    up.log.append(&[(BatchId { shard: 9, number: 0 }, batch)])?;
    up.tree.push(leaf_hash(&head));
    Ok(())
}

/// What the command does; whether its beginning is on disk.
fn erase(up: &mut Up, disk: &SimDisk, ranges: &IndexRanges) -> (bool, Result<(), StorageFault>) {
    if let Err(fault) = record(up, ERASE_BEGIN_ACT, ranges) {
        return (false, Err(fault));
    }
    let rest = (|| {
        erasure::erase(disk, ranges)?;
        record(up, ERASE_ACT, ranges)?;
        erasure::end_journal(disk)
    })();
    (true, rest)
}

/// What a start does with an erasure that is unfinished.
fn restart(world: &World) -> Result<(Up, Vec<Erasure>), StorageFault> {
    let verifier = world.key.verifier().clone();
    let options = LogOptions { verifier, segment_bytes: world.segment_bytes, tiles: false };
    let (log, recovery) = Log::open(world.disk.clone(), options, &mut |_| {})?;
    let unfinished = recovery.unfinished_erasures;
    let mut up = Up { log, checkpoints: recovery.checkpoints, tree: recovery.tree };
    for erasure in &unfinished {
        erasure::erase(&world.disk, &erasure.indices)?;
        record(&mut up, ERASE_ACT, &erasure.indices)?;
    }
    erasure::end_journal(&world.disk)?;
    Ok((up, unfinished))
}

/// The bodies that are there.
fn there(disk: &SimDisk) -> Vec<u64> {
    let mut there = Vec::new();
    erasure::bodies(disk, u64::MAX, &mut |found| there.push(found.owner)).unwrap();
    there
}

/// Tries one point; whether the erasure came past it.
fn try_point(operation: u64, accident: Accident, kept: Option<Kept>) -> bool {
    let (mut world, mut up, ranges) = begun();
    let at = format!("operation {operation}, {accident:?}, {kept:?}");
    let before = there(&world.disk);
    world.disk.plan(None, operation, accident);
    let (is_begun, ended) = erase(&mut up, &world.disk, &ranges);
    let is_past = ended.is_ok();
    if is_past && kept.is_none() {
        // Nothing befell it.
        return true;
    }
    if let Some(kept) = kept {
        world.disk.crash_keeping(kept);
    }
    let (mut up, unfinished) = restart(&world).unwrap_or_else(|fault| panic!("{at}: {fault}"));
    let left = there(&world.disk);
    let is_done = !left.iter().any(|index| ranges.contains(*index));
    assert!(is_done || !is_begun, "{at}: {left:?} are left of {ranges}");
    let wanted: Vec<u64> =
        before.iter().copied().filter(|index| !(is_done && ranges.contains(*index))).collect();
    assert_eq!(left, wanted, "{at}");
    assert!(unfinished.len() <= 1, "{at}");
    assert_eq!(world.disk.bytes("erasing"), None, "{at}");
    world.checkpoint(&mut up).unwrap();
    let report = world.verify().unwrap_or_else(|fault| panic!("{at}: {fault}"));
    assert_eq!((report.tail_defect, report.unfinished_erasures), (None, 0), "{at}");
    assert_eq!(report.erased_bodies, if is_done { ranges.len() } else { 0 }, "{at}");
    // What was done is on disk, and not only in memory.
    world.disk.crash_keeping(Kept::ALL[0]);
    assert_eq!(there(&world.disk), wanted, "{at}: after one more crash");
    is_past
}

#[test]
fn an_erasure_that_is_cut_short_anywhere_is_finished_by_the_next_start() {
    let mut points = 0;
    for operation in 0.. {
        let mut is_past = false;
        for kept in Kept::ALL {
            is_past = try_point(operation, Accident::PowerLoss, Some(kept));
            points += 1;
        }
        for accident in [Accident::Eio, Accident::EioButDone] {
            try_point(operation, accident, None);
            try_point(operation, accident, Some(Kept::ALL[0]));
            points += 2;
        }
        if is_past {
            break;
        }
    }
    assert!(points > 200, "{points} points");
}

#[test]
fn bodies_of_zeroes_that_no_entry_accounts_for_are_found_where_they_are() {
    let (world, _up, ranges) = begun();
    // Erased, and nothing was recorded; the journal makes up for nothing.
    erasure::erase(&world.disk, &ranges).unwrap();
    let fault = world.verify().unwrap_err().to_string();
    assert!(fault.contains("no entry says so"), "{fault}");
    let first = ranges.first().unwrap();
    assert!(fault.contains("segments/00000000.seg") && fault.contains(&format!("entry {first}:")));
    assert!(world.open().is_err(), "a start refuses as well");
    // One more than was recorded.
    let (world, mut up, ranges) = begun();
    let fewer = IndexRanges::of_ranges(ranges.ranges().iter().copied().skip(1));
    record(&mut up, ERASE_ACT, &fewer).unwrap();
    erasure::erase(&world.disk, &ranges).unwrap();
    assert!(world.verify().unwrap_err().to_string().contains(&format!("entry {first}:")));
}

//! The writer's threads and the index, on a real directory.
#![expect(clippy::disallowed_methods, reason = "waits for threads and breaks files")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use avow::evidence::{Batch, BatchId, LogKey, RecordKind, Synced};
use avow::mqtt::TopicFilter;
use avow::storage::writer::Rejected;
use avow::storage::{
    BLOCK_ENTRIES, Disk, Found, Index, IndexFeed, IndexState, Log, LogOptions, Order, Outcome,
    Query, Reader, RealDisk, RebuildCause, StorageFault, Until, Writer, WriterHooks, WriterOptions,
    find, search, verify,
};
use avow::time::UnixNanos;

use crate::disk::{Accident, Kept, Op, SimDisk};
use crate::world::ORIGIN;

type Released = Receiver<Result<Vec<Synced>, StorageFault>>;

fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).unwrap()
}

fn start<D: Disk>(
    disk: D,
    options: WriterOptions,
    feed: Option<IndexFeed<D>>,
) -> (Writer, Released) {
    let log =
        LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20, tiles: true };
    let (log, recovery) = Log::open(disk, log, &mut |_| {}).unwrap();
    let (released, synced) = channel();
    let hooks = WriterHooks {
        released: Box::new(move |outcome| released.send(outcome).unwrap()),
        observed: Box::new(|_| {}),
        unprepared: Box::new(|_| {}),
    };
    (Writer::start(log, recovery, key(), options, hooks, feed).unwrap(), synced)
}

/// The entry that anybody can predict from its index: of three devices, a rare one and an operator.
fn entry(index: u64) -> String {
    let t = 1_000 + index;
    if index.is_multiple_of(2_999) {
        let act = "certificate.issue";
        return format!(
            r#"{{"v":1,"type":"admin","t":{t},"act":"{act}","subject":"device/press-1"}}"#
        );
    }
    let device = match index % 997 {
        0 => "rare".to_owned(),
        _ => (index % 3).to_string(),
    };
    let level = if index.is_multiple_of(503) { "A2" } else { "A0" };
    let decided = match index % 7 {
        0 if index.is_multiple_of(2) => r#""result":"deny","why":"limit.rate""#,
        0 => r#""result":"deny","why":"policy.no_rule""#,
        _ => r#""result":"allow""#,
    };
    let kind = if index.is_multiple_of(7) { "publish.refused" } else { "publish" };
    format!(
        r#"{{"v":1,"type":"{kind}","t":{t},"who":"device/press-{device}","lvl":"{level}",{decided},"topic":"plant/press-{device}/temp/{spot}"}}"#,
        spot = index % 41
    )
}

fn batch(first: u64, entries: u64) -> Batch {
    let mut batch = Batch::default();
    for index in first..first + entries {
        batch.push(RecordKind::Entry, None, |head| head.extend_from_slice(entry(index).as_bytes()));
    }
    batch
}

/// Submits `entries` entries in batches of up to 100 and waits until all are released.
fn fill(writer: &Writer, released: &Released, first: u64, entries: u64) {
    let mut submitted = 0;
    let mut number = 0;
    while submitted < entries {
        let count = (entries - submitted).min(100);
        writer.submit(BatchId { shard: 1, number }, batch(first + submitted, count)).unwrap();
        (submitted, number) = (submitted + count, number + 1);
    }
    let (mut expected, mut index) = (0, first);
    while expected < number {
        for synced in released.recv_timeout(Duration::from_secs(20)).unwrap().unwrap() {
            assert_eq!(synced.batch(), BatchId { shard: 1, number: expected });
            assert_eq!(synced.first_index(), index);
            (expected, index) = (expected + 1, index + 100);
        }
    }
}

fn filled(dir: &Path, entries: u64) {
    let (writer, released) = start(RealDisk::new(dir), WriterOptions::default(), None);
    fill(&writer, &released, 0, entries);
    writer.stop().unwrap();
}

fn reader(dir: &Path, until: Until) -> Reader<RealDisk> {
    Reader::open(RealDisk::new(dir), key().verifier(), until).unwrap()
}

#[test]
fn every_batch_is_released_in_order_and_a_stopped_log_is_signed_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 23_345);
    filled_again(dir.path());
    let report = verify(dir.path(), key().verifier(), &mut |_| {}).unwrap();
    assert_eq!((report.signed_entries, report.unsigned_tail_entries), (23_445, 0));
    assert!(report.segments > 1 && report.tail_defect.is_none());
}

fn filled_again(dir: &Path) {
    let (writer, released) = start(RealDisk::new(dir), WriterOptions::default(), None);
    fill(&writer, &released, 23_345, 100);
    writer.stop().unwrap();
}

#[test]
fn a_checkpoint_follows_within_its_interval_and_the_log_verifies_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        WriterOptions { checkpoint_interval: Duration::from_millis(50), ..Default::default() };
    let (writer, released) = start(RealDisk::new(dir.path()), options, None);
    fill(&writer, &released, 0, 10);
    let begun = Instant::now();
    while reader(dir.path(), Until::Checkpoint).checkpoint().map_or(0, |c| c.tree_size) < 10 {
        assert!(begun.elapsed() < Duration::from_secs(5), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(5));
    }
    for round in 0..20 {
        fill(&writer, &released, 10 + round * 100, 100);
        verify(dir.path(), key().verifier(), &mut |_| {}).unwrap();
    }
    writer.stop().unwrap();
}

#[test]
fn the_queue_has_a_bound_and_a_failed_log_releases_nothing_more() {
    let disk = SimDisk::new(1);
    let options = WriterOptions { queue_records_max: 10, ..Default::default() };
    let (writer, released) = start(disk.clone(), options, None);
    // A batch above the bound passes alone.
    writer.submit(BatchId { shard: 0, number: 0 }, batch(0, 11)).unwrap();
    released.recv_timeout(Duration::from_secs(5)).unwrap().unwrap();
    // The accident may befall the thread that makes the next segment; then the writer gets
    // another one.
    let fault = (1..).find_map(|number| {
        disk.plan(Some(Op::Sync), 0, Accident::Eio);
        writer.submit(BatchId { shard: 0, number }, batch(10 + number, 1)).unwrap();
        released.recv_timeout(Duration::from_secs(5)).unwrap().err()
    });
    let fault = fault.unwrap();
    assert!(matches!(fault, StorageFault::Io { .. }), "{fault}");
    let rejected = writer.submit(BatchId { shard: 0, number: 999 }, batch(12, 1));
    assert!(matches!(rejected, Err(Rejected::Closed(_))));
    assert!(matches!(writer.stop(), Err(StorageFault::Poisoned)));
    assert!(released.try_recv().is_err());
}

#[test]
fn a_full_queue_takes_no_more_until_the_next_release() {
    let log =
        LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20, tiles: true };
    let (log, recovery) = Log::open(SimDisk::new(2), log, &mut |_| {}).unwrap();
    let (in_hook, entered) = channel();
    let (go_on, gate) = channel::<()>();
    let hooks = WriterHooks {
        released: Box::new(move |outcome| {
            in_hook.send(outcome.unwrap().len()).unwrap();
            let _ = gate.recv();
        }),
        observed: Box::new(|_| {}),
        unprepared: Box::new(|_| {}),
    };
    let options = WriterOptions { queue_records_max: 10, ..Default::default() };
    let writer = Writer::start(log, recovery, key(), options, hooks, None).unwrap();
    let id = |number| BatchId { shard: 0, number };
    writer.submit(id(0), batch(0, 1)).unwrap();
    entered.recv_timeout(Duration::from_secs(5)).unwrap();
    // The writer waits in the callback: what comes now stays in the queue, up to its bound.
    writer.submit(id(1), batch(1, 4)).unwrap();
    writer.submit(id(2), batch(5, 6)).unwrap();
    assert_eq!(writer.backlog().0, 10);
    let Err(Rejected::Full(again)) = writer.submit(id(3), batch(11, 1)) else {
        panic!("one past the bound")
    };
    go_on.send(()).unwrap();
    assert_eq!(entered.recv_timeout(Duration::from_secs(5)).unwrap(), 2);
    writer.submit(id(3), again).unwrap();
    drop(go_on);
    writer.stop().unwrap();
}

/// The index stands on a disk of its own that loses nothing, the log on one that loses whatever it
/// may: the index must not know more than the log that is left.
#[test]
fn the_index_never_speaks_of_entries_that_a_power_loss_took() {
    let mut blocks_seen = 0;
    for seed in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(seed);
        let at_checkpoint =
            || Reader::open(disk.clone(), key().verifier(), Until::Checkpoint).unwrap();
        // Not only dropped: its threads would write beside those of the next.
        start(disk.clone(), WriterOptions::default(), None).0.stop().unwrap();
        let (index, _) = Index::open(dir.path(), &at_checkpoint()).unwrap();
        let feed = IndexFeed::new(index.clone(), at_checkpoint(), key().verifier().clone());
        let checkpoint_interval = Duration::from_millis(1);
        let options = WriterOptions { checkpoint_interval, ..WriterOptions::default() };
        let (writer, released) = start(disk.clone(), options, Some(feed));
        fill(&writer, &released, 0, BLOCK_ENTRIES);
        disk.plan(None, 3 + seed * 40, Accident::PowerLoss);
        let promised = fill_until_it_fails(&writer, &released, BLOCK_ENTRIES);
        writer.stop().unwrap_err();
        disk.crash_keeping(Kept::Nothing);
        let log =
            LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20, tiles: true };
        let (log, recovery) = Log::open(disk.clone(), log, &mut |_| {}).unwrap();
        let signed = recovery.checkpoints.newest().map_or(0, |newest| newest.tree_size);
        let (applied, left) = (index.applied_upto().unwrap(), log.next_index());
        assert!(left >= promised, "seed {seed}: {promised} entries promised, {left} left");
        assert!(applied <= signed, "seed {seed}: {applied} in the index, {signed} signed");
        blocks_seen += applied / BLOCK_ENTRIES;
    }
    assert!(blocks_seen > 24, "only {blocks_seen} blocks reached an index: the test tests little");
}

/// Submits one batch of 1,000 after the other until the log fails; the entries promised before.
fn fill_until_it_fails(writer: &Writer, released: &Released, first: u64) -> u64 {
    let mut entries = first;
    for number in 0.. {
        let taken = writer.submit(BatchId { shard: 2, number }, batch(entries, 1_000));
        let released = released.recv_timeout(Duration::from_secs(20));
        match (taken, released) {
            (Ok(()), Ok(Ok(_))) => entries += 1_000,
            (_, Ok(Err(_)) | Err(_)) | (Err(_), _) => break,
        }
    }
    entries
}

/// Queries of every kind, and of kinds together.
fn queries() -> Vec<Query> {
    let text = |text: &str| Some(text.to_owned());
    let filter = |filter: &str| Some(TopicFilter::parse(filter).unwrap());
    let at = |index: u64| Some(UnixNanos::new(1_000 + index));
    let all = Query::default();
    vec![
        all.clone(),
        Query { who: text("device/press-1"), ..all.clone() },
        Query { who: text("device/press-rare"), ..all.clone() },
        Query { who: text("device/press-rare"), outcome: Some(Outcome::Deny), ..all.clone() },
        Query { who: text("device/press-1"), why: text("limit.*"), ..all.clone() },
        Query { who: text("device/nobody"), until: at(0), ..all.clone() },
        Query { about: text("device/press-1"), kind: text("admin"), ..all.clone() },
        Query { about: text("device/press-1"), level: text("A2"), ..all.clone() },
        Query { kind: text("admin"), ..all.clone() },
        Query { why: text("policy.no_rule"), since: at(BLOCK_ENTRIES - 100), ..all.clone() },
        Query { topic: filter("plant/press-2/#"), until: at(2 * BLOCK_ENTRIES), ..all.clone() },
        Query { topic: filter("plant/+/temp/7"), level: text("A2"), ..all.clone() },
        Query { topic: filter("plant/press-rare/temp/3"), ..all.clone() },
        Query { topic: filter("none/#"), ..all.clone() },
        Query { since: at(2_000), until: at(2_100), ..all.clone() },
        Query { since: at(2 * BLOCK_ENTRIES + 800), ..all.clone() },
        Query { after: Some(BLOCK_ENTRIES - 3), before: Some(BLOCK_ENTRIES + 3), ..all.clone() },
        Query { level: text("A2"), before: Some(600), ..all.clone() },
        Query { after: Some(2 * BLOCK_ENTRIES + 100), why: text("limit.rate"), ..all },
    ]
}

/// What `index` answers to [`queries`], in every order and at some limits.
fn answers(reader: &Reader<RealDisk>, index: Option<&Index>) -> Vec<(Query, Vec<Found>)> {
    let mut answers = Vec::new();
    for query in queries() {
        for (order, limit) in [(Order::NewestFirst, 3), (Order::OldestFirst, 10_000)] {
            let query = Query { order, limit, ..query.clone() };
            let found = find(reader, index, &query).unwrap();
            answers.push((query, found));
        }
    }
    answers
}

#[test]
fn the_index_answers_as_a_scan_of_everything_would_also_when_built_again() {
    const ENTRIES: u64 = 2 * BLOCK_ENTRIES + 900;
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), ENTRIES);
    let reader = reader(dir.path(), Until::Checkpoint);
    let (index, state) = Index::open(dir.path(), &reader).unwrap();
    assert_eq!((state, index.applied_upto().unwrap()), (IndexState::Created, 2 * BLOCK_ENTRIES));
    let indexed = answers(&reader, Some(&index));
    for (query, found) in &indexed {
        let mut expected: Vec<u64> =
            (0..ENTRIES).filter(|index| query.fits(*index, entry(*index).as_bytes())).collect();
        if query.order == Order::NewestFirst {
            expected.reverse();
        }
        expected.truncate(query.limit);
        assert!(found.iter().map(|found| found.index).eq(expected), "{query:?}");
        assert!(found.iter().all(|found| found.json == entry(found.index).as_bytes()));
    }
    let empty = indexed.iter().filter(|(_, found)| found.is_empty());
    assert_eq!(empty.count(), 4, "all queries but two find something");

    index.refill(&reader).unwrap();
    assert_eq!(answers(&reader, Some(&index)), indexed, "after a refill");
    drop(index);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (index, state) = Index::open(dir.path(), &reader).unwrap();
    assert_eq!(state, IndexState::Created);
    assert_eq!(answers(&reader, Some(&index)), indexed, "after the directory was deleted");
    drop(index);
    let index = Index::rebuild(dir.path(), &reader).unwrap();
    assert_eq!(answers(&reader, Some(&index)), indexed, "after a rebuild");
    assert_eq!(answers(&reader, None), indexed, "without an index");
}

#[test]
fn an_index_that_is_emptied_under_a_search_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3 * BLOCK_ENTRIES);
    let reader = reader(dir.path(), Until::Checkpoint);
    let (index, _) = Index::open(dir.path(), &reader).unwrap();
    let rare =
        Query { who: Some("device/press-rare".to_owned()), limit: 1_000, ..Query::default() };
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let query = Query { order, ..rare.clone() };
        let whole = find(&reader, Some(&index), &query).unwrap();
        assert_eq!(whole.len(), 24);
        let mut found = Vec::new();
        search(&reader, Some(&index), &query, &mut |one| {
            if found.is_empty() {
                index.refill(&reader).unwrap();
            }
            found.push(one);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(found, whole);
    }
}

#[test]
fn an_index_follows_the_writer_and_heals_itself() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), BLOCK_ENTRIES + 500);
    let (index, _) = Index::open(dir.path(), &reader(dir.path(), Until::Checkpoint)).unwrap();
    let feed = reader(dir.path(), Until::Checkpoint);
    let feed = IndexFeed::new(index.clone(), feed, key().verifier().clone());
    let (writer, released) = start(RealDisk::new(dir.path()), WriterOptions::default(), Some(feed));
    // The second block began before the writer did, the third it sees whole.
    fill(&writer, &released, BLOCK_ENTRIES + 500, 2 * BLOCK_ENTRIES);
    let begun = Instant::now();
    while index.applied_upto().unwrap() < 3 * BLOCK_ENTRIES {
        assert!(begun.elapsed() < Duration::from_secs(20), "the index does not follow");
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.stop().unwrap();
    assert_eq!(index.applied_upto().unwrap(), 3 * BLOCK_ENTRIES);
    drop(index);
    let at_end = reader(dir.path(), Until::Checkpoint);
    let (index, state) = Index::open(dir.path(), &at_end).unwrap();
    assert_eq!(state, IndexState::Used);
    let (from, to) = (2 * BLOCK_ENTRIES, 3 * BLOCK_ENTRIES);
    let (since, until) = (Some(UnixNanos::new(1_000 + from)), Some(UnixNanos::new(1_000 + to)));
    let in_third = Query { since, until, limit: 10_000, ..Query::default() };
    let found = find(&at_end, Some(&index), &in_third).unwrap();
    assert!(found.iter().map(|entry| entry.index).eq((from..to).rev()), "{}", found.len());
    drop(index);

    // A file that is no sled database.
    let db = dir.path().join("index/db");
    std::fs::write(dir.path().join("index/conf"), b"nonsense").unwrap();
    std::fs::write(&db, vec![0x5A; 4096]).unwrap();
    let (index, state) = Index::open(dir.path(), &at_end).unwrap();
    assert_eq!(state, IndexState::Rebuilt(RebuildCause::DoesNotOpen));
    assert_eq!(index.applied_upto().unwrap(), 3 * BLOCK_ENTRIES);
    drop(index);

    // The index of a log that had more entries, or of another log.
    let behind = reader(dir.path(), Until::Synced(BLOCK_ENTRIES + 100));
    let (index, state) = Index::open(dir.path(), &behind).unwrap();
    assert_eq!(state, IndexState::Rebuilt(RebuildCause::Ahead));
    assert_eq!(index.applied_upto().unwrap(), BLOCK_ENTRIES);
    drop(index);
    std::fs::remove_dir_all(dir.path().join("segments")).unwrap();
    std::fs::remove_file(dir.path().join("history")).unwrap();
    std::fs::remove_file(dir.path().join("checkpoint")).unwrap();
    filled(dir.path(), 2 * BLOCK_ENTRIES);
    let (_, state) = Index::open(dir.path(), &reader(dir.path(), Until::Checkpoint)).unwrap();
    assert_eq!(state, IndexState::Rebuilt(RebuildCause::OtherLog));
}

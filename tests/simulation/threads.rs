//! The writer's threads and the index, on a real directory.
#![expect(clippy::disallowed_methods, reason = "waits for threads and breaks files")]

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use avow::evidence::{Batch, BatchId, LogKey, RecordKind, Synced};
use avow::mqtt::TopicFilter;
use avow::storage::writer::Rejected;
use avow::storage::{
    BLOCK_ENTRIES, Disk, Index, IndexFeed, IndexState, Log, LogOptions, Order, Outcome, Query,
    Reader, RealDisk, RebuildCause, StorageFault, Until, Writer, WriterHooks, WriterOptions,
    verify,
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
    let log = LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20 };
    let (log, recovery) = Log::open(disk, log, &mut |_| {}).unwrap();
    let (released, synced) = channel();
    let hooks = WriterHooks {
        released: Box::new(move |outcome| released.send(outcome).unwrap()),
        observed: Box::new(|_| {}),
    };
    (Writer::start(log, recovery, key(), options, hooks, feed).unwrap(), synced)
}

/// The entry that anybody can predict from its index.
fn entry(index: u64) -> String {
    let (device, kind, result) = match index % 7 {
        0 => (index % 3, "publish.refused", "deny"),
        _ => (index % 3, "publish", "allow"),
    };
    format!(
        r#"{{"v":1,"type":"{kind}","t":{t},"who":"device/press-{device}","result":"{result}","topic":"plant/press-{device}/temp"}}"#,
        t = 1_000 + index
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
    filled(dir.path(), 12_345);
    filled_again(dir.path());
    let report = verify(dir.path(), key().verifier(), &mut |_| {}).unwrap();
    assert_eq!((report.signed_entries, report.unsigned_tail_entries), (12_445, 0));
    assert!(report.segments > 1 && report.tail_defect.is_none());
}

fn filled_again(dir: &Path) {
    let (writer, released) = start(RealDisk::new(dir), WriterOptions::default(), None);
    fill(&writer, &released, 12_345, 100);
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
    let log = LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20 };
    let (log, recovery) = Log::open(SimDisk::new(2), log, &mut |_| {}).unwrap();
    let (in_hook, entered) = channel();
    let (go_on, gate) = channel::<()>();
    let hooks = WriterHooks {
        released: Box::new(move |outcome| {
            in_hook.send(outcome.unwrap().len()).unwrap();
            let _ = gate.recv();
        }),
        observed: Box::new(|_| {}),
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
        drop(start(disk.clone(), WriterOptions::default(), None));
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
        let log = LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 20 };
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

/// The indices that a scan of everything finds.
fn expected(query: &Query, entries: u64) -> Vec<u64> {
    let fits = |index: &u64| {
        query.who.as_ref().is_none_or(|who| *who == format!("device/press-{}", index % 3))
            && query.outcome.is_none_or(|o| (o == Outcome::Deny) == index.is_multiple_of(7))
            && query.topic.as_ref().is_none_or(|_| index % 3 == 2)
            && query.since.is_none_or(|since| 1_000 + index >= since.as_nanos())
            && query.until.is_none_or(|until| 1_000 + index < until.as_nanos())
    };
    let mut found: Vec<u64> = (0..entries).filter(fits).collect();
    if query.order == Order::NewestFirst {
        found.reverse();
    }
    found.truncate(query.limit);
    found
}

#[test]
fn the_index_answers_as_a_scan_of_everything_would() {
    const ENTRIES: u64 = 2 * BLOCK_ENTRIES + 900;
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), ENTRIES);
    let reader = reader(dir.path(), Until::Checkpoint);
    let (index, state) = Index::open(dir.path(), &reader).unwrap();
    assert_eq!((state, index.applied_upto().unwrap()), (IndexState::Created, 2 * BLOCK_ENTRIES));
    let who = Some("device/press-1".to_owned());
    let topic = Some(TopicFilter::parse("plant/press-2/+").unwrap());
    let at = |index: u64| Some(UnixNanos::new(1_000 + index));
    let queries = [
        Query { who: who.clone(), ..Query::default() },
        Query {
            who,
            outcome: Some(Outcome::Deny),
            since: at(BLOCK_ENTRIES - 100),
            ..Query::default()
        },
        Query { topic, until: at(2 * BLOCK_ENTRIES + 400), ..Query::default() },
        Query { since: at(2_000), until: at(2_100), ..Query::default() },
        Query { since: at(2 * BLOCK_ENTRIES + 800), ..Query::default() },
        Query { who: Some("device/nobody".into()), until: at(0), ..Query::default() },
    ];
    for query in queries {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            for limit in [0, 1, 50, 10_000] {
                let query = Query { order, limit, ..query.clone() };
                let found = index.query(&reader, &query).unwrap();
                let indices: Vec<u64> = found.iter().map(|entry| entry.index).collect();
                assert_eq!(indices, expected(&query, ENTRIES), "{query:?}");
                assert!(found.iter().all(|found| found.json == entry(found.index).as_bytes()));
            }
        }
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
    let found = index.query(&at_end, &in_third).unwrap();
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

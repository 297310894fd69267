//! The threads around the log: one writes, one keeps the tree and signs, one feeds the index,
//! one makes the next segment.
//!
//! ```text
//! submit ─► queue ─► avow-writer ─ append, fdatasync ─► released(Vec<Synced>)
//!                        └─► avow-tree ─ leaf hashes, checkpoint within the interval
//!                                └─► avow-index ─ signed blocks of the query index
//! ```
//!
//! Nothing is decided here but when to stop: at the first fault of any thread but the index, the
//! fault is handed to the callback, and nothing is released after it. The invariant: what a
//! checkpoint covers was synced before it was hashed.
#![expect(clippy::disallowed_methods, reason = "owns threads and paces checkpoints")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::block::{Collector, FilledBlock};
use super::disk::Disk;
use super::fault::StorageFault;
use super::index::IndexFeed;
use super::log::{AppendCost, Log, Place};
use super::recovery::Recovery;
use crate::evidence::{Batch, BatchId, LogKey, RecordKind, Synced};

/// Appends that may wait to be hashed before the writer waits for the tree.
const INTEGRATE_APPENDS_MAX: usize = 64;
/// Blocks that may wait for the index before it has to read them from the segments.
const INDEX_BLOCKS_MAX: usize = 16;

/// Bounds of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Records that may wait to be written. As many again may be in the write itself.
    pub queue_records_max: usize,
    /// Bytes of heads and bodies that may wait to be written.
    pub queue_bytes_max: usize,
    /// Longest time from a new entry to the checkpoint that covers it.
    pub checkpoint_interval: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_records_max: 65_536,
            queue_bytes_max: 32 << 20,
            checkpoint_interval: Duration::from_millis(800),
        }
    }
}

type Released = dyn Fn(Result<Vec<Synced>, StorageFault>) + Send;
type ObservedHook = dyn Fn(Observed) + Send;

/// What the writer calls, from its own threads.
pub struct WriterHooks {
    /// With every append that is on disk, and once with the fault that ended the log.
    pub released: Box<Released>,
    /// After every append, for histograms.
    pub observed: Box<ObservedHook>,
    /// When the next segment could not be made ahead, mostly for want of space. The log goes on
    /// until the present one is full, and asks once more then.
    pub unprepared: Box<dyn Fn(&StorageFault) + Send>,
}

/// One append, as telemetry wants it.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// Batches in it.
    pub batches: usize,
    /// Records in it.
    pub records: usize,
    /// Bytes and durations.
    pub cost: AppendCost,
}

/// Counters since the start. Each is monotonic.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Appends, each with one `fdatasync`.
    pub appends: AtomicU64,
    /// Batches.
    pub batches: AtomicU64,
    /// Records.
    pub records: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Nanoseconds in `fdatasync`.
    pub sync_nanos: AtomicU64,
    /// Entries on disk: what [`super::Until::Synced`] takes.
    pub synced_entries: AtomicU64,
    /// Entries covered by the newest checkpoint.
    pub signed_entries: AtomicU64,
    /// Checkpoints signed since the start.
    pub checkpoints: AtomicU64,
    /// Segments that could not be made ahead.
    pub segments_unprepared: AtomicU64,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub enum Rejected {
    /// The queue is full: stop reading sockets, and try again after the next release.
    Full(Batch),
    /// The writer is stopping or has failed.
    Closed(Batch),
}

/// The running writer.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    index_stop: Option<Arc<AtomicBool>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    options: WriterOptions,
    stats: WriterStats,
}

#[derive(Debug, Default)]
struct Queue {
    batches: Vec<(BatchId, Batch)>,
    records: usize,
    bytes: usize,
    is_stopping: bool,
    /// Set by the thread that failed, taken by the writer, which tells.
    fault: Option<StorageFault>,
    has_failed: bool,
}

impl Writer {
    /// Starts the threads over a log that was just opened.
    pub fn start<D: Disk>(
        mut log: Log<D>,
        recovery: Recovery<D>,
        key: LogKey,
        options: WriterOptions,
        hooks: WriterHooks,
        index: Option<IndexFeed<D>>,
    ) -> Result<Self, StorageFault> {
        let stats = WriterStats::default();
        stats.synced_entries.store(log.next_index(), Ordering::Release);
        let signed = recovery.checkpoints.newest().map_or(0, |newest| newest.tree_size);
        stats.signed_entries.store(signed, Ordering::Release);
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), options, stats });
        let mut threads = Vec::new();
        let mut index_stop = None;
        let mut collecting = None;
        if let Some(mut feed) = index {
            index_stop = Some(feed.stop_flag());
            let (to_index, blocks) = sync_channel(INDEX_BLOCKS_MAX);
            collecting =
                Some(Collecting { blocks: Collector::new(recovery.tree.tree_size()), to_index });
            threads.push(spawn("index", move || {
                blocks.iter().for_each(|block| feed.take(block));
                feed.flush();
            })?);
        }
        let (to_tree, integrated) = sync_channel(INTEGRATE_APPENDS_MAX);
        let mut integrator = Integrator { shared: shared.clone(), recovery, key, collecting };
        threads.push(spawn("tree", move || {
            let shared = integrator.shared.clone();
            let ran = catch_unwind(AssertUnwindSafe(|| integrator.run(&integrated)));
            let ran = ran.unwrap_or(Err(StorageFault::Panicked { thread: "tree" }));
            if let Err(fault) = ran {
                shared.fail(fault);
            }
        })?);
        let WriterHooks { released, observed, unprepared } = hooks;
        let of_segments = shared.clone();
        threads.push(log.prepare_ahead(move |fault| {
            of_segments.stats.segments_unprepared.fetch_add(1, Ordering::Relaxed);
            unprepared(fault);
        })?);
        let of_writer = shared.clone();
        threads.push(spawn("writer", move || {
            let run = || write(&of_writer, &mut log, (&*released, &*observed), &to_tree);
            let ran = catch_unwind(AssertUnwindSafe(run));
            let ran = ran.unwrap_or(Err(StorageFault::Panicked { thread: "writer" }));
            if let Err(fault) = ran {
                of_writer.close();
                released(Err(fault));
            }
        })?);
        Ok(Self { shared, index_stop, threads })
    }

    /// Queues a batch. Every batch taken is named in one call of `released`, in order, unless
    /// the log fails.
    pub fn submit(&self, id: BatchId, batch: Batch) -> Result<(), Rejected> {
        let options = &self.shared.options;
        let mut queue = self.shared.queue();
        if queue.is_stopping || queue.has_failed {
            return Err(Rejected::Closed(batch));
        }
        // A batch that alone exceeds the bound passes when nothing else waits.
        let is_full = queue.records + batch.len() > options.queue_records_max
            || queue.bytes + batch.bytes() > options.queue_bytes_max;
        if is_full && !queue.batches.is_empty() {
            return Err(Rejected::Full(batch));
        }
        queue.records += batch.len();
        queue.bytes += batch.bytes();
        let was_empty = queue.batches.is_empty();
        queue.batches.push((id, batch));
        drop(queue);
        if was_empty {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Records and bytes that wait to be written.
    pub fn backlog(&self) -> (usize, usize) {
        let queue = self.shared.queue();
        (queue.records, queue.bytes)
    }

    /// The counters.
    pub fn stats(&self) -> &WriterStats {
        &self.shared.stats
    }

    /// Writes what is queued, signs a final checkpoint and ends the threads.
    ///
    /// # Errors
    /// [`StorageFault::Poisoned`] if the log failed; the fault itself went to `released`.
    pub fn stop(mut self) -> Result<(), StorageFault> {
        self.shared.stop();
        if let Some(stop) = &self.index_stop {
            stop.store(true, Ordering::Relaxed);
        }
        let panicked = self.threads.drain(..).rev().any(|thread| thread.join().is_err());
        let mut queue = self.shared.queue();
        match queue.fault.take() {
            Some(fault) => Err(fault),
            None if queue.has_failed || panicked => Err(StorageFault::Poisoned),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    /// The threads end by themselves, later; [`Writer::stop`] waits for them.
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nobody panics while holding the lock, and the numbers in it are always whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.queue().is_stopping = true;
        self.wake.notify_all();
    }

    fn close(&self) {
        self.queue().has_failed = true;
    }

    /// Hands a fault to the writer thread, which tells the callback.
    fn fail(&self, fault: StorageFault) {
        let mut queue = self.queue();
        queue.has_failed = true;
        queue.fault = Some(fault);
        drop(queue);
        self.wake.notify_all();
    }

    /// Everything that is queued, once there is something; `None` when it is time to end.
    fn take(&self) -> Result<Option<Vec<(BatchId, Batch)>>, StorageFault> {
        let mut queue = self.queue();
        loop {
            if let Some(fault) = queue.fault.take() {
                return Err(fault);
            }
            if !queue.batches.is_empty() {
                (queue.records, queue.bytes) = (0, 0);
                return Ok(Some(std::mem::take(&mut queue.batches)));
            }
            if queue.is_stopping {
                return Ok(None);
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The writer's loop: the previous sync is the batching window, there is no timer.
fn write<D: Disk>(
    shared: &Shared,
    log: &mut Log<D>,
    (released, observed): (&Released, &ObservedHook),
    to_tree: &SyncSender<Appended>,
) -> Result<(), StorageFault> {
    while let Some(batches) = shared.take()? {
        let synced = log.append(&batches)?;
        let cost = log.last_cost();
        let records = batches.iter().map(|(_, batch)| batch.len()).sum();
        let stats = &shared.stats;
        stats.synced_entries.store(log.next_index(), Ordering::Release);
        stats.appends.fetch_add(1, Ordering::Relaxed);
        stats.batches.fetch_add(batches.len() as u64, Ordering::Relaxed);
        stats.records.fetch_add(records as u64, Ordering::Relaxed);
        stats.bytes.fetch_add(cost.bytes as u64, Ordering::Relaxed);
        let nanos = u64::try_from(cost.sync.as_nanos()).unwrap_or(u64::MAX);
        stats.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        released(Ok(synced));
        observed(Observed { batches: batches.len(), records, cost });
        // The tree's thread ends early only when it failed, and then left its fault behind.
        if to_tree.send(Appended { place: log.last_place(), batches }).is_err() {
            let fault = shared.queue().fault.take();
            return Err(fault.unwrap_or(StorageFault::ThreadGone { thread: "tree" }));
        }
    }
    Ok(())
}

/// What one append put on disk, and where.
struct Appended {
    place: Place,
    batches: Vec<(BatchId, Batch)>,
}

/// Collects for the index.
struct Collecting {
    blocks: Collector,
    to_index: SyncSender<FilledBlock>,
}

/// Keeps the tree over what is on disk, and signs it.
struct Integrator<D: Disk> {
    shared: Arc<Shared>,
    /// The log as the start found it, and all that came since.
    recovery: Recovery<D>,
    key: LogKey,
    collecting: Option<Collecting>,
}

impl<D: Disk> Integrator<D> {
    fn run(&mut self, appended: &Receiver<Appended>) -> Result<(), StorageFault> {
        let interval = self.shared.options.checkpoint_interval;
        // What recovery found unsigned is signed at once.
        self.sign()?;
        let mut due: Option<Instant> = None;
        loop {
            let wait = due.map_or(Duration::MAX, |due| due.duration_since(Instant::now()));
            let received = if due.is_some() {
                appended.recv_timeout(wait)
            } else {
                appended.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match received {
                Ok(appended) => {
                    self.integrate(&appended)?;
                    due = due.or_else(|| Instant::now().checked_add(interval));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.sign()?;
                    return self.recovery.finish();
                }
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                self.sign()?;
                due = None;
            }
        }
    }

    fn integrate(&mut self, appended: &Appended) -> Result<(), StorageFault> {
        for (_, batch) in &appended.batches {
            let entries = batch.iter().filter(|record| record.kind == RecordKind::Entry);
            for entry in entries {
                self.recovery.integrate(entry.head)?;
                if let Some(collecting) = &mut self.collecting {
                    collecting.blocks.add(entry.head, appended.place);
                }
            }
        }
        Ok(())
    }

    /// Signs the tree, if it grew. All of it is on disk: batches arrive here after their sync.
    fn sign(&mut self) -> Result<(), StorageFault> {
        if !self.recovery.sign(&self.key)? {
            return Ok(());
        }
        let tree_size = self.recovery.tree.tree_size();
        self.shared.stats.signed_entries.store(tree_size, Ordering::Release);
        self.shared.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        // The index never speaks of entries that no checkpoint covers.
        if let Some(Collecting { blocks, to_index }) = &mut self.collecting {
            for block in blocks.finished() {
                // What does not fit, the index reads from the segments when the next one comes.
                let _ = to_index.try_send(block);
            }
        }
        Ok(())
    }
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StorageFault> {
    let thread = std::thread::Builder::new().name(format!("avow-{name}")).spawn(work);
    thread.map_err(|_| StorageFault::ThreadGone { thread: name })
}

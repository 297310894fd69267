//! The seam between the shards and the writer.
//!
//! Shards give batches and forget them; the writer tells the shards what is on disk, or that
//! nothing more will be. Both directions are calls that do not block.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::message::{Message, Shards};
use super::shutdown::{Fault, FaultSender};
use crate::broker::Histogram;
use crate::evidence::{Batch, BatchId, Synced};
use crate::storage::writer::{Observed, Rejected};
use crate::storage::{StorageFault, Writer, WriterHooks};

/// Starts the writer, which answers through the [`WriterEvents`].
pub type StartWriter = Box<dyn FnOnce(WriterEvents) -> Result<RunningWriter, Fault> + Send>;

/// Queues one batch at the writer, without blocking.
pub type Submit = Arc<dyn Fn(BatchId, Batch) -> Submitted + Send + Sync>;

/// What became of a batch that was given to the writer.
#[derive(Debug)]
pub enum Submitted {
    /// It will be written.
    Taken,
    /// Too much waits already: sockets must not be read, and it is given again after the next
    /// release.
    Full(Batch),
    /// The writer has ended.
    Ended,
}

/// A writer that runs.
pub struct RunningWriter {
    /// Queues one batch.
    pub submit: Submit,
    /// Waits until everything queued is on disk, publishes the final checkpoint, ends the thread.
    pub stop: Box<dyn FnOnce() -> Result<(), Fault> + Send>,
    /// What it measured so far.
    pub stats: Arc<dyn Fn() -> WriterStats + Send + Sync>,
}

/// What the writer measured since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Durations of `fdatasync`.
    pub sync: Histogram,
    /// Batches of the core that were written.
    pub batches: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Entries covered by the newest checkpoint.
    pub signed_entries: u64,
    /// Checkpoints signed since the start.
    pub checkpoints: u64,
    /// Segments that could not be made ahead.
    pub segments_unprepared: u64,
}

/// Durations of `fdatasync` since the start. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SyncDurations(Arc<Mutex<Histogram>>);

impl SyncDurations {
    fn lock(&self) -> MutexGuard<'_, Histogram> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningWriter {
    /// The server's view of a writer that was started with [`WriterEvents::hooks`].
    pub fn new(writer: Writer, durations: SyncDurations) -> Self {
        // Taken out by the stop; the last numbers stay.
        let writer = Arc::new(Mutex::new((Some(writer), WriterStats::default())));
        let (submitting, stopping) = (Arc::clone(&writer), Arc::clone(&writer));
        let submit = move |id, batch| match lock(&submitting).0.as_ref() {
            None => Submitted::Ended,
            Some(writer) => match writer.submit(id, batch) {
                Ok(()) => Submitted::Taken,
                Err(Rejected::Full(batch)) => Submitted::Full(batch),
                Err(Rejected::Closed(_)) => Submitted::Ended,
            },
        };
        let kept = durations.clone();
        let stop = move || {
            let taken = lock(&stopping).0.take();
            let Some(writer) = taken else { return Ok(()) };
            lock(&stopping).1 = stats_of(&writer, &kept);
            writer.stop().map_err(|fault| Fault::Writer(fault.to_string()))
        };
        let stats = move || match &*lock(&writer) {
            (Some(writer), _) => stats_of(writer, &durations),
            (None, last) => last.clone(),
        };
        Self { submit: Arc::new(submit), stop: Box::new(stop), stats: Arc::new(stats) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stats_of(writer: &Writer, durations: &SyncDurations) -> WriterStats {
    let stats = writer.stats();
    WriterStats {
        sync: durations.lock().clone(),
        batches: stats.batches.load(Ordering::Relaxed),
        bytes: stats.bytes.load(Ordering::Relaxed),
        entries: stats.synced_entries.load(Ordering::Acquire),
        signed_entries: stats.signed_entries.load(Ordering::Acquire),
        checkpoints: stats.checkpoints.load(Ordering::Relaxed),
        segments_unprepared: stats.segments_unprepared.load(Ordering::Relaxed),
    }
}

/// How the writer answers, from its own thread.
#[derive(Clone)]
pub struct WriterEvents {
    pub(super) shards: Shards,
    pub(super) faults: FaultSender,
}

impl WriterEvents {
    /// What [`Writer::start`] calls, and where the durations of its syncs are kept.
    pub fn hooks(&self) -> (WriterHooks, SyncDurations) {
        let events = self.clone();
        let released = move |released: Result<Vec<Synced>, StorageFault>| match released {
            Ok(synced) => events.synced(synced),
            Err(fault) => events.failed(fault.to_string()),
        };
        let durations = SyncDurations::default();
        let kept = durations.clone();
        let observed = move |observed: Observed| kept.lock().observe(observed.cost.sync);
        let unprepared = |fault: &StorageFault| {
            tracing::error!(
                %fault,
                "the next segment of the log is not made; when the present one is full and there \
                 is still no space, the broker stops"
            );
        };
        let hooks = WriterHooks {
            released: Box::new(released),
            observed: Box::new(observed),
            unprepared: Box::new(unprepared),
        };
        (hooks, durations)
    }

    /// These batches are on disk, in this order.
    pub fn synced(&self, synced: Vec<Synced>) {
        let shared = self.shards.count() > 1;
        if !shared {
            return self.shards.send(0, Message::Sequenced(synced));
        }
        let mut by_shard = (0..self.shards.count()).map(|_| Vec::new()).collect::<Vec<_>>();
        for token in synced {
            if let Some(list) = by_shard.get_mut(usize::from(token.batch().shard)) {
                list.push(token);
            }
        }
        for (shard, list) in by_shard.into_iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            self.shards.send(shard, Message::Sequenced(list));
        }
    }

    /// The disk failed, or the writer itself: the process must stop, and nothing that is not on
    /// disk may be acknowledged.
    pub fn failed(&self, what: String) {
        self.faults.send(Fault::Writer(what));
    }
}

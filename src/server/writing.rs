//! The seam between the shards and the writer.
//!
//! Shards give batches and forget them; the writer tells the shards what is on disk, or that
//! nothing more will be. Both directions are calls that do not block.

use std::sync::Arc;

use super::message::{Message, Shards};
use super::shutdown::{Fault, FaultSender};
use crate::evidence::{Batch, BatchId, Synced};

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
    pub sync: crate::broker::Histogram,
    /// Batches of the core that were written.
    pub batches: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// Entries in the log.
    pub entries: u64,
}

/// How the writer answers, from its own thread.
#[derive(Clone)]
pub struct WriterEvents {
    pub(super) shards: Shards,
    pub(super) faults: FaultSender,
}

impl WriterEvents {
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

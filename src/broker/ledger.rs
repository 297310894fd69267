//! The open batch, the batches on their way to the disk, and what waits for each.
//!
//! The invariant of the whole broker lives here: an effect that a peer can see stands behind the
//! batch that records its reason, and is handed out only against that batch's [`Synced`].

use std::collections::VecDeque;

use super::effect::Effect;
use crate::evidence::{Batch, BatchId, Body, RecordKind, Synced};

/// Batches and effects, in order.
#[derive(Debug)]
pub(super) struct Ledger {
    shard: u16,
    next_number: u64,
    open: Batch,
    /// Entries in it; its other records are changes of state.
    open_entries: u64,
    open_effects: Vec<Effect>,
    pending: VecDeque<Pending>,
    pending_records: usize,
    pending_bytes: usize,
}

#[derive(Debug)]
struct Pending {
    id: BatchId,
    /// Records, and effects that came later without one.
    records: usize,
    bytes: usize,
    effects: Vec<Effect>,
}

/// What closing the open batch asks for.
#[derive(Debug)]
pub(super) enum Closed {
    /// Nothing was recorded and nothing waits.
    Nothing,
    /// Bring this batch to disk.
    Sequence(BatchId, Batch),
    /// Effects without a record of their own, behind which nothing waits for the disk either.
    Release(Vec<Effect>),
}

impl Ledger {
    pub(super) fn new(shard: u16) -> Self {
        Self {
            shard,
            next_number: 0,
            open: Batch::default(),
            open_entries: 0,
            open_effects: Vec::new(),
            pending: VecDeque::new(),
            pending_records: 0,
            pending_bytes: 0,
        }
    }

    /// Appends one entry to the open batch; returns its place among the entries in it.
    pub(super) fn record(&mut self, body: Option<Body>, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let offset = self.open_entries;
        self.open_entries += 1;
        self.open.push(RecordKind::Entry, body, write);
        offset
    }

    /// The bytes of an entry of the open batch, by its place.
    pub(super) fn head_of(&self, offset: u64) -> Option<&[u8]> {
        let last = self.open_entries.checked_sub(1)?;
        self.open.entry_before(last.checked_sub(offset)?)
    }

    /// Appends one change of state to the open batch.
    pub(super) fn note(&mut self, body: Option<Body>, write: impl FnOnce(&mut Vec<u8>)) {
        self.open.push(RecordKind::State, body, write);
    }

    /// Number of the open batch, or of the next one.
    pub(super) fn open_number(&self) -> u64 {
        self.next_number
    }

    /// Whether something was recorded since the last batch was closed.
    pub(super) fn has_records(&self) -> bool {
        !self.open.is_empty()
    }

    /// Lets `effect` wait for the open batch, behind what waits already.
    pub(super) fn wait(&mut self, effect: Effect) {
        self.open_effects.push(effect);
    }

    /// Closes the open batch.
    pub(super) fn close(&mut self) -> Closed {
        let effects = std::mem::take(&mut self.open_effects);
        if self.open.is_empty() {
            // Answers leave in the order of the requests: behind earlier ones that still wait.
            return match self.pending.back_mut() {
                _ if effects.is_empty() => Closed::Nothing,
                Some(last) => {
                    // Answers without a record wait too, and count like records.
                    last.records += effects.len();
                    self.pending_records += effects.len();
                    last.effects.extend(effects);
                    Closed::Nothing
                }
                None => Closed::Release(effects),
            };
        }
        let batch = std::mem::take(&mut self.open);
        self.open_entries = 0;
        let id = BatchId { shard: self.shard, number: self.next_number };
        self.next_number += 1;
        let (records, bytes) = (batch.len(), batch.bytes());
        self.pending_records += records;
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { id, records, bytes, effects });
        Closed::Sequence(id, batch)
    }

    /// What waited for the batch that `synced` proves.
    ///
    /// # Panics
    ///
    /// If it is not the oldest one on its way: the writer has lost or reordered a batch, and to go
    /// on would acknowledge what is not on disk. A Fault: the process must stop.
    pub(super) fn release(&mut self, synced: &Synced) -> Vec<Effect> {
        let pending = self.pending.pop_front();
        assert_eq!(
            pending.as_ref().map(|pending| pending.id),
            Some(synced.batch()),
            "the writer answered for a batch that is not the oldest one on its way"
        );
        let Some(pending) = pending else { return Vec::new() };
        self.pending_records -= pending.records;
        self.pending_bytes -= pending.bytes;
        pending.effects
    }

    /// Records and bytes that are not yet on disk.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let open = self.open.len().max(self.open_effects.len());
        (self.pending_records + open, self.pending_bytes + self.open.bytes())
    }
}

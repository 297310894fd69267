//! The query index: which blocks of 8,192 entries mention a name, a type or a result.
//!
//! sled holds it because it may be lost: it is a view of the segments. While the log is written
//! it takes whole blocks that [`super::block`] collected in passing; whatever it has not, it
//! reads from the segments; and whenever it does not open, is that of another log or disagrees,
//! it is deleted and filled again. One row per *block*, with the numbers of the values that occur
//! in it ([`super::posting`]), keeps it nearly free: a query reads the blocks that qualify, and
//! the entries decide. The invariant: an answer holds only entries that were read from the log, in
//! order.
#![expect(clippy::disallowed_methods, reason = "deletes the directory of a broken index")]

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{BLOCK_ENTRIES, FilledBlock, Filling};
use super::disk::Disk;
use super::fault::{Doing, StorageFault};
use super::log::Place;
use super::posting::{
    BLOCK_PREFIX, Block, Field, META_KEY, Meta, block_key, block_number, value_key, value_number,
};
use super::query::{Order, Outcome, Query};
use super::reader::{Entry, Reader, Until};
use crate::evidence::VerifierKey;

/// Most entries that one query answers with.
pub const QUERY_ENTRIES_MAX: usize = 10_000;
/// The directory of the index, within the log's.
pub const INDEX_DIR: &str = "index";

/// What sled keeps of the index in memory, in bytes, beside its own tables.
const CACHE_BYTES: u64 = 1 << 20;
/// Blocks between two syncs of the index. A crash costs the next start the reading of as many.
const FLUSH_BLOCKS: u64 = 8;

/// The index. Clones are the same index; one process at a time may have it open.
#[derive(Clone, Debug)]
pub struct Index {
    db: sled::Db,
    /// Held by whoever fills the index: blocks are added one after the other.
    filling: Arc<Mutex<()>>,
}

/// What opening the index came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// There was none, and it was filled.
    Created,
    /// It was there and goes on.
    Used,
    /// It was there, was of no use, and was filled again.
    Rebuilt(RebuildCause),
}

/// Why an index was of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildCause {
    /// sled could not open it.
    DoesNotOpen,
    /// It has another format, or is that of another log.
    OtherLog,
    /// It speaks of more entries than there are.
    Ahead,
    /// A block does not stand where it says.
    Misplaced,
    /// Somebody asked.
    Asked,
}

impl fmt::Display for RebuildCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DoesNotOpen => "it does not open",
            Self::OtherLog => "it is of another log or format",
            Self::Ahead => "it speaks of more entries than there are",
            Self::Misplaced => "a block does not stand where it says",
            Self::Asked => "it was asked for",
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexFault {
    /// sled failed. Stop, and start again: a broken index is rebuilt then.
    #[error("the query index failed: {0}; `avow audit reindex` builds it again")]
    Sled(#[from] sled::Error),
    /// sled panicked over its files.
    #[error("the query index is damaged; `avow audit reindex` builds it again")]
    Damaged,
    /// Another process has it open: ask the running broker.
    #[error("the query index is in use by another process")]
    InUse,
    /// The log cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageFault),
}

/// Keeps an index up with a log that is being written; the writer's index thread owns it.
#[derive(Debug)]
pub struct IndexFeed<D: Disk> {
    index: Index,
    reader: Reader<D>,
    verifier: VerifierKey,
    has_failed: bool,
    unflushed_blocks: u64,
    is_stopping: Arc<AtomicBool>,
}

impl Index {
    /// Opens the index of the log in the directory `log_dir`, rebuilding it if it is of no use,
    /// and brings it up to the end of `reader`.
    pub fn open<D: Disk>(
        log_dir: &Path,
        reader: &Reader<D>,
    ) -> Result<(Self, IndexState), IndexFault> {
        let path = log_dir.join(INDEX_DIR);
        let was_there = path.exists();
        let cause = match open_sled(&path) {
            Ok(db) => {
                let index = Self::over(db);
                match index.misfit(reader)? {
                    None => {
                        index.catch_up(reader)?;
                        let state = if was_there { IndexState::Used } else { IndexState::Created };
                        return Ok((index, state));
                    }
                    Some(cause) => cause,
                }
            }
            Err(IndexFault::InUse) => return Err(IndexFault::InUse),
            Err(_) => RebuildCause::DoesNotOpen,
        };
        Ok((Self::rebuild(log_dir, reader)?, IndexState::Rebuilt(cause)))
    }

    /// Deletes the index and fills it again from the log.
    pub fn rebuild<D: Disk>(log_dir: &Path, reader: &Reader<D>) -> Result<Self, IndexFault> {
        let path = log_dir.join(INDEX_DIR);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StorageFault::io(Doing::Write, INDEX_DIR)(error).into());
            }
            _ => {}
        }
        let index = Self::over(open_sled(&path)?);
        index.catch_up(reader)?;
        Ok(index)
    }

    fn over(db: sled::Db) -> Self {
        Self { db, filling: Arc::default() }
    }

    /// Empties the index and fills it again from the log, while it is open and may be asked:
    /// until it is full again, queries read more of the log instead.
    pub fn refill<D: Disk>(&self, reader: &Reader<D>) -> Result<(), IndexFault> {
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // A crash in here leaves an index that lags, which the next start fills.
        self.db.clear()?;
        drop(filling);
        self.catch_up(reader)
    }

    /// Number of entries whose blocks are in the index, a multiple of [`BLOCK_ENTRIES`].
    pub fn applied_upto(&self) -> Result<u64, IndexFault> {
        Ok(self.meta()?.map_or(0, |meta| meta.applied))
    }

    /// Adds every complete block below the end of `reader`.
    pub fn catch_up<D: Disk>(&self, reader: &Reader<D>) -> Result<(), IndexFault> {
        self.fill(reader, &AtomicBool::new(false))
    }

    fn fill<D: Disk>(&self, reader: &Reader<D>, stop: &AtomicBool) -> Result<(), IndexFault> {
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = self.applied_upto()?;
        let hint = applied
            .checked_div(BLOCK_ENTRIES)
            .and_then(|block| block.checked_sub(1))
            .map(|block| self.block(block))
            .transpose()?
            .flatten();
        let mut filling = Filling::default();
        let mut failed = Ok(());
        let log = reader.identity()?;
        let visited =
            reader.visit(applied, u64::MAX, hint.map(|block| block.place), &mut |entry| {
                filling.add(entry.json, entry.batch);
                if filling.entries < BLOCK_ENTRIES {
                    return ControlFlow::Continue(());
                }
                let full = std::mem::take(&mut filling);
                failed = self.apply(full, entry.index / BLOCK_ENTRIES, log);
                let goes_on = failed.is_ok() && !stop.load(Ordering::Relaxed);
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        failed?;
        visited?;
        if self.applied_upto()? > applied {
            self.db.flush()?;
        }
        Ok(())
    }

    /// The entries that fit `query`, in the order it asks for.
    pub fn query<D: Disk>(
        &self,
        reader: &Reader<D>,
        query: &Query,
    ) -> Result<Vec<Entry>, IndexFault> {
        let limit = query.limit.min(QUERY_ENTRIES_MAX);
        let applied = self.applied_upto()?;
        let blocks = self.candidates(query, applied / BLOCK_ENTRIES)?;
        let mut found = Vec::new();
        match query.order {
            Order::OldestFirst => {
                for block in blocks {
                    let room = limit.saturating_sub(found.len());
                    found.extend(self.in_block(reader, query, block)?.into_iter().take(room));
                    if found.len() >= limit {
                        return Ok(found);
                    }
                }
                let tail = Scope { from: applied, to: u64::MAX, hint: None };
                let room = limit.saturating_sub(found.len());
                found.extend(scan(reader, query, tail, Some(room), None)?);
            }
            Order::NewestFirst => {
                let hint = self.last_place(applied)?;
                let tail = Scope { from: applied, to: u64::MAX, hint };
                found.extend(scan(reader, query, tail, None, Some(limit))?.into_iter().rev());
                for block in blocks.into_iter().rev() {
                    let room = limit.saturating_sub(found.len());
                    if room == 0 {
                        break;
                    }
                    let entries = self.in_block(reader, query, block)?;
                    found.extend(entries.into_iter().rev().take(room));
                }
            }
        }
        Ok(found)
    }

    /// Why this index cannot be that of the log.
    fn misfit<D: Disk>(&self, reader: &Reader<D>) -> Result<Option<RebuildCause>, IndexFault> {
        let Ok(meta) = self.meta() else { return Ok(Some(RebuildCause::DoesNotOpen)) };
        let Some(meta) = meta else {
            return Ok((!self.db.is_empty()).then_some(RebuildCause::OtherLog));
        };
        if meta.log != reader.identity()? {
            return Ok(Some(RebuildCause::OtherLog));
        }
        let Some(last) = meta.applied.checked_sub(1) else { return Ok(None) };
        if reader.entry(last)?.is_none() {
            return Ok(Some(RebuildCause::Ahead));
        }
        let first = last / BLOCK_ENTRIES * BLOCK_ENTRIES;
        let Ok(Some(block)) = self.block(last / BLOCK_ENTRIES) else {
            return Ok(Some(RebuildCause::Misplaced));
        };
        let stands = reader.entry(first)?.is_some_and(|entry| entry.batch == block.place);
        Ok((!stands).then_some(RebuildCause::Misplaced))
    }

    /// Adds the next block; `false` if another one is the next.
    fn append(&self, filled: Filling, block: u64, log: [u8; 8]) -> Result<bool, IndexFault> {
        let _filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let is_next = self.applied_upto()? == block * BLOCK_ENTRIES;
        if is_next {
            self.apply(filled, block, log)?;
        }
        Ok(is_next)
    }

    /// Adds one block and moves `applied_upto` past it, in one step.
    fn apply(&self, filled: Filling, block: u64, log: [u8; 8]) -> Result<(), IndexFault> {
        let mut batch = sled::Batch::default();
        let mut numbers = self.meta()?.map_or(0, |meta| meta.numbers);
        let mut values = Vec::new();
        for (field, texts) in Field::ALL.into_iter().zip(&filled.values) {
            for text in texts {
                let key = value_key(field, text);
                if let Some(known) = self.db.get(&key)?.and_then(|bytes| value_number(&bytes)) {
                    values.push(known);
                    continue;
                }
                batch.insert(key, &numbers.to_be_bytes());
                values.push(numbers);
                numbers = numbers.checked_add(1).ok_or(IndexFault::Damaged)?;
            }
        }
        values.sort_unstable();
        let place = filled.place.unwrap_or_default();
        let (earliest, latest) = (filled.earliest, filled.latest);
        batch.insert(block_key(block), Block { place, earliest, latest, values }.encode());
        let applied = (block + 1) * BLOCK_ENTRIES;
        batch.insert(META_KEY, Meta { applied, log, numbers }.encode());
        // A crash here loses blocks that the next start reads from the segments again.
        Ok(self.db.apply_batch(batch)?)
    }

    /// The blocks that may hold what the query looks for, in order.
    fn candidates(&self, query: &Query, blocks: u64) -> Result<Vec<u64>, IndexFault> {
        let result = query.outcome.map(Outcome::as_str);
        let wanted = [
            (Field::Who, query.who.as_deref()),
            (Field::Kind, query.kind.as_deref()),
            (Field::Result, result),
        ];
        let mut numbers = Vec::new();
        for (field, text) in wanted {
            let Some(text) = text else { continue };
            match self.db.get(value_key(field, text))?.and_then(|bytes| value_number(&bytes)) {
                Some(number) => numbers.push(number),
                // It occurs in no block.
                None => return Ok(Vec::new()),
            }
        }
        let is_in_time = |block: &Block| {
            query.since.is_none_or(|since| block.latest >= since.as_nanos())
                && query.until.is_none_or(|until| block.earliest < until.as_nanos())
        };
        let mut kept = Vec::new();
        for row in self.db.scan_prefix(BLOCK_PREFIX) {
            let (key, row) = row?;
            let Some(number) = block_number(&key).filter(|number| *number < blocks) else {
                continue;
            };
            // A row that does not read hides no entry: its block is looked through.
            let qualifies = |block: &Block| block.holds(&numbers) && is_in_time(block);
            if Block::decode(&row).is_none_or(|block| qualifies(&block)) {
                kept.push(number);
            }
        }
        Ok(kept)
    }

    fn in_block<D: Disk>(
        &self,
        reader: &Reader<D>,
        query: &Query,
        block: u64,
    ) -> Result<Vec<Entry>, IndexFault> {
        let from = block * BLOCK_ENTRIES;
        let hint = self.block(block)?.map(|block| block.place);
        scan(reader, query, Scope { from, to: from + BLOCK_ENTRIES, hint }, None, None)
    }

    fn last_place(&self, applied: u64) -> Result<Option<Place>, IndexFault> {
        let Some(last) = (applied / BLOCK_ENTRIES).checked_sub(1) else { return Ok(None) };
        Ok(self.block(last)?.map(|block| block.place))
    }

    fn meta(&self) -> Result<Option<Meta>, IndexFault> {
        Ok(self.db.get(META_KEY)?.and_then(|bytes| Meta::decode(&bytes)))
    }

    fn block(&self, number: u64) -> Result<Option<Block>, IndexFault> {
        Ok(self.db.get(block_key(number))?.and_then(|bytes| Block::decode(&bytes)))
    }
}

impl<D: Disk> IndexFeed<D> {
    /// Feeds `index`, where need be through `reader`, which sees the log whose checkpoints
    /// `verifier` opens.
    pub fn new(index: Index, reader: Reader<D>, verifier: VerifierKey) -> Self {
        let is_stopping = Arc::default();
        Self { index, reader, verifier, has_failed: false, unflushed_blocks: 0, is_stopping }
    }

    /// Brings the index up to the end of `block`. After a failure it lags, which costs queries
    /// time and no entry, until the next start.
    pub(super) fn take(&mut self, block: FilledBlock) {
        if !self.has_failed {
            self.has_failed = self.try_take(block).is_err();
        }
    }

    /// Syncs the index.
    pub(super) fn flush(&mut self) {
        if !self.has_failed && self.unflushed_blocks > 0 {
            self.has_failed = self.index.db.flush().is_err();
            self.unflushed_blocks = 0;
        }
    }

    /// Set it, and reading what the index missed ends after the block it is at: a stopping broker
    /// does not wait for the index, which goes on from there at the next start.
    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        self.is_stopping.clone()
    }

    fn try_take(&mut self, block: FilledBlock) -> Result<(), IndexFault> {
        let FilledBlock { number, filling } = block;
        let is_added = match filling {
            Some(filling) => self.index.append(filling, number, self.reader.identity()?)?,
            None => false,
        };
        let upto = (number + 1) * BLOCK_ENTRIES;
        if is_added {
            self.unflushed_blocks += 1;
            if self.unflushed_blocks >= FLUSH_BLOCKS {
                self.flush();
            }
        } else if self.index.applied_upto()? < upto {
            // The log was begun before this process, or blocks came faster than they were taken.
            self.reader.set_until(Until::Synced(upto));
            self.reader.refresh(&self.verifier)?;
            self.index.fill(&self.reader, &self.is_stopping)?;
        }
        Ok(())
    }
}

/// A stretch of the log.
#[derive(Clone, Copy, Debug)]
struct Scope {
    from: u64,
    to: u64,
    hint: Option<Place>,
}

/// The entries that fit `query`, in the order it asks for, without an index: reads the whole log.
pub fn search<D: Disk>(reader: &Reader<D>, query: &Query) -> Result<Vec<Entry>, IndexFault> {
    let limit = Some(query.limit.min(QUERY_ENTRIES_MAX));
    let scope = Scope { from: 0, to: u64::MAX, hint: None };
    match query.order {
        Order::OldestFirst => scan(reader, query, scope, limit, None),
        Order::NewestFirst => {
            let mut found = scan(reader, query, scope, None, limit)?;
            found.reverse();
            Ok(found)
        }
    }
}

/// The entries of a stretch that fit: the first so many, or the last so many.
fn scan<D: Disk>(
    reader: &Reader<D>,
    query: &Query,
    scope: Scope,
    first: Option<usize>,
    last: Option<usize>,
) -> Result<Vec<Entry>, IndexFault> {
    let mut found = VecDeque::new();
    reader.visit(scope.from, scope.to, scope.hint, &mut |entry| {
        if first.is_some_and(|first| found.len() >= first) {
            return ControlFlow::Break(());
        }
        if query.fits(entry.json) {
            found.push_back(entry.to_owned());
            if last.is_some_and(|last| found.len() > last) {
                found.pop_front();
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found.into())
}

/// Opens sled quietly: a small cache, no flusher of its own. It may panic over damaged files.
fn open_sled(path: &Path) -> Result<sled::Db, IndexFault> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .print_profile_on_drop(false);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Err(_) => Err(IndexFault::Damaged),
        // sled has no kind of its own for a lock that somebody else holds.
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock") => {
            Err(IndexFault::InUse)
        }
        Ok(opened) => Ok(opened?),
    }
}

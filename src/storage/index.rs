//! The query index: in which blocks of 8,192 entries a name, a type, a result, a reason, a level or a
//! topic occurs, and where in the block, if it is rare there. [`super::search`] asks it.
//!
//! sled holds it because it may be lost: it is a view of the segments. While the log is written
//! it takes whole blocks that [`super::block`] collected in passing; whatever it has not, it
//! reads from the segments; and whenever it does not open, is that of another log or disagrees,
//! it is deleted and filled again. Two rows per *block*, with the numbers of the values that occur
//! in it ([`super::posting`]), keep it nearly free. The invariant: a block that is in the index hides
//! no entry: a value that occurs in it stands in its rows, or its field is marked as open.
#![expect(clippy::disallowed_methods, reason = "deletes the directory of a broken index")]

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::block::{BLOCK_ENTRIES, FilledBlock, Filling};
use super::disk::Disk;
use super::fault::{Doing, StorageFault};
use super::log::Place;
use super::posting::{
    Block, Field, META_KEY, Meta, NUMBERS_END, block_key, encode_block, encode_postings,
    postings_key, value_key, value_number,
};
use super::reader::{Reader, Until};
use crate::evidence::VerifierKey;

/// The directory of the index, within the log's.
pub const INDEX_DIR: &str = "index";

/// What sled keeps of the index in memory, in bytes, beside its own tables.
const CACHE_BYTES: u64 = 1 << 20;
/// Blocks between two syncs of the index. A crash costs the next start the reading of as many.
const FLUSH_BLOCKS: u64 = 8;

/// The index. Clones are the same index; one process at a time may have it open.
#[derive(Clone, Debug)]
pub struct Index {
    pub(super) db: sled::Db,
    /// Held by whoever fills the index: blocks are added one after the other.
    filling: Arc<Mutex<()>>,
    /// Counts how often it was emptied: what was looked up before holds no longer.
    pub(super) emptied: Arc<AtomicU64>,
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
    /// There are as many different values as numbers for them.
    #[error("the query index is full; the entries past its end are searched without it")]
    Full,
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
        Self { db, filling: Arc::default(), emptied: Arc::default() }
    }

    /// Empties the index and fills it again from the log, while it is open and may be asked:
    /// until it is full again, queries read more of the log instead.
    pub fn refill<D: Disk>(&self, reader: &Reader<D>) -> Result<(), IndexFault> {
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        // A crash in here leaves an index that lags, which the next start fills.
        self.emptied.fetch_add(1, Ordering::SeqCst);
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
            .map(|block| self.place(block))
            .transpose()?
            .flatten();
        let mut filling = Filling::default();
        let mut failed = Ok(());
        let log = reader.identity()?;
        let visited = reader.visit(applied, u64::MAX, hint, &mut |entry| {
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
        let Ok(Some(place)) = self.place(last / BLOCK_ENTRIES) else {
            return Ok(Some(RebuildCause::Misplaced));
        };
        let stands = reader.entry(first)?.is_some_and(|entry| entry.batch == place);
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
        let mut lists: Vec<(u32, &[u16])> = Vec::new();
        for (field, values) in Field::ALL.into_iter().zip(&filled.values) {
            for (text, list) in &values.lists {
                let key = value_key(field, text);
                if let Some(known) = self.db.get(&key)?.and_then(|bytes| value_number(&bytes)) {
                    lists.push((known, list));
                    continue;
                }
                if numbers >= NUMBERS_END {
                    return Err(IndexFault::Full);
                }
                batch.insert(key, &numbers.to_be_bytes());
                lists.push((numbers, list));
                numbers += 1;
            }
            if values.is_open {
                lists.push((field.open_number(), &[]));
            }
        }
        lists.sort_unstable_by_key(|(number, _)| *number);
        let values: Vec<u32> = lists.iter().map(|(number, _)| *number).collect();
        let place = filled.places.first().copied().unwrap_or_default();
        let row = encode_block(place, filled.earliest, filled.latest, &values);
        batch.insert(block_key(block), row);
        let bytes = (filled.entry_bytes, filled.payload_bytes);
        let lists = lists.into_iter().map(|(_, list)| list);
        batch.insert(postings_key(block), encode_postings(bytes, &filled.places, lists));
        let applied = (block + 1) * BLOCK_ENTRIES;
        batch.insert(META_KEY, Meta { applied, log, numbers }.encode());
        // A crash here loses blocks that the next start reads from the segments again.
        Ok(self.db.apply_batch(batch)?)
    }

    fn meta(&self) -> Result<Option<Meta>, IndexFault> {
        Ok(self.db.get(META_KEY)?.and_then(|bytes| Meta::decode(&bytes)))
    }

    /// Where block `number` begins.
    fn place(&self, number: u64) -> Result<Option<Place>, IndexFault> {
        let row = self.db.get(block_key(number))?;
        Ok(row.and_then(|row| Block::decode(&row).map(|block| block.place)))
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

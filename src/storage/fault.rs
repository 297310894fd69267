//! Everything that can go wrong with the log, sorted so that whoever hears of it knows what to
//! do: stop and restart, restore a copy, or mend the disk.
//!
//! The invariant: a defect always names the file, the byte and the entry it was found at.

use std::fmt;
use std::io;

use crate::evidence::checkpoint::NoteError;

/// What is wrong with some bytes of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The segment header does not have our magic, version or checksum.
    #[error("the segment header is damaged")]
    SegmentHeader,
    /// The segment belongs to a log with another origin.
    #[error("the segment belongs to another log")]
    OtherLog,
    /// The segment's own number is not the number in its name.
    #[error("the segment stands under another number than its own")]
    SegmentNumber,
    /// The segment does not continue the one before it: an old copy, or one is missing.
    #[error("the segment does not continue the one before it")]
    SegmentLink,
    /// The segment ends before the batch that the next one continues.
    #[error("batches are missing at the end of the segment: the next one continues a later one")]
    SegmentEnd,
    /// The file is shorter or longer than its header says.
    #[error("the segment file does not have the length its header states")]
    FileLength,
    /// A segment file is not there.
    #[error("the segment file is missing")]
    Missing,
    /// Neither a batch nor zeroes.
    #[error("neither a batch nor the zeroes of unused space")]
    NotABatch,
    /// The batch header does not have its checksum.
    #[error("the batch header is damaged")]
    BatchHeader,
    /// The batch does not continue the one before it.
    #[error("the batch does not continue the one before it")]
    BatchLink,
    /// The records do not fill the batch as its header says.
    #[error("the records do not fit their batch")]
    RecordLength,
    /// The record does not have its checksum.
    #[error("the record does not have its CRC32C")]
    RecordCrc,
    /// A byte between records is not zero.
    #[error("a padding byte is not zero")]
    Padding,
    /// The batch trailer is damaged or missing.
    #[error("the batch trailer is damaged")]
    BatchTrailer,
    /// The entry is not the JSON object it should be, or has a body and no commitment.
    #[error("the entry states no commitment for its body")]
    NoCommitment,
    /// The entry is longer than an entry bundle can say.
    #[error("the entry is longer than 65,535 bytes")]
    EntryLength,
    /// The body is not the one its commitment was made for.
    #[error("the body does not fit its commitment")]
    Commitment,
    /// The body is zeroes, and no entry says that it was erased.
    #[error("the body was erased, and no entry says so")]
    Unerased,
    /// A byte past the last batch is not zero.
    #[error("a byte of unused space is not zero")]
    UnusedSpace,
    /// A record of the checkpoint history is damaged.
    #[error("a record of the checkpoint history is damaged")]
    History,
    /// The signature of a checkpoint of the history does not hold.
    #[error("a checkpoint of the history does not have its signature")]
    HistorySignature,
    /// A checkpoint of the history has another root than the entries give.
    #[error("the entries do not give the root hash of a signed checkpoint")]
    Root,
    /// An older checkpoint has another root than the entries give.
    #[error("the entries do not give the root hash of an older signed checkpoint")]
    NotAPrefix,
    /// A tile or entry bundle is not there.
    #[error("the tile is missing")]
    TileMissing,
    /// A tile does not hold as many hashes as its name says.
    #[error("the tile is not as long as its width")]
    TileLength,
    /// An entry bundle does not hold as many entries as its name says.
    #[error("the entry bundle does not hold as many entries as its width")]
    Bundle,
    /// A hash of a tile is not the one that the level below gives.
    #[error("the hash is not the one that the entries, or the tiles of the level below, give")]
    TileHash,
    /// A checkpoint speaks of more entries than there are.
    #[error("a signed checkpoint covers more entries than are left")]
    EntriesMissing,
}

/// Damage and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// The file, relative to the log's directory.
    pub file: String,
    /// The first byte of what is damaged, from the start of the file.
    pub offset: u64,
    /// Index of the entry that stands there or would have been next.
    pub index: u64,
    /// What is wrong.
    pub damage: Damage,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, index, damage } = self;
        write!(f, "{file}, byte {offset}, entry {index}: {damage}")
    }
}

/// What was being done when the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Opening a file or listing a directory.
    Open,
    /// Reading.
    Read,
    /// Making a new segment.
    Prepare,
    /// Writing.
    Write,
    /// Making what was written durable.
    Sync,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Prepare => "make",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// Why the log cannot go on, or cannot start. After any of them nothing is acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum StorageFault {
    /// The disk failed. A failed sync is never tried again: the kernel may have dropped the very
    /// pages that failed, so that a second sync would succeed and mean nothing.
    #[error("cannot {doing} `{file}`: {source}; mend the disk and start again")]
    Io {
        /// What was being done.
        doing: Doing,
        /// The file, relative to the log's directory.
        file: String,
        /// The system's error.
        source: io::Error,
    },
    /// An earlier call failed, so that nobody knows what is on disk; only a restart tells.
    #[error("the log failed before and is closed until the next start")]
    Poisoned,
    /// The log is damaged below what was promised.
    #[error(
        "the log is damaged: {0}; keep the directory as evidence and restore it from a copy, \
         or start a new log in another directory"
    )]
    Corrupt(Defect),
    /// The newest checkpoint is not believed.
    #[error("the file `{file}` is not a checkpoint of this log: {source}")]
    Checkpoint {
        /// The file, relative to the log's directory.
        file: &'static str,
        /// Why.
        source: NoteError,
    },
    /// Somebody else wrote a checkpoint: two writers, or a copy brought back.
    #[error("the file `checkpoint` was changed by somebody else; is another broker running here?")]
    CheckpointChanged,
    /// A second root at one size, or a smaller tree after a larger one, would have been signed.
    #[error("refused to sign a checkpoint at size {new} after one at size {signed}")]
    CheckpointOrder {
        /// The size signed before.
        signed: u64,
        /// The size that was to be signed.
        new: u64,
    },
    /// A batch whose entry has a body but states no commitment, or that exceeds the format.
    #[error("a batch cannot be written: {0}")]
    Unwritable(Damage),
    /// A thread of the log panicked.
    #[error("the {thread} thread of the log panicked")]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
    /// A thread of the log could not be started, or is gone.
    #[error("the {thread} thread of the log is gone")]
    ThreadGone {
        /// Its name.
        thread: &'static str,
    },
}

impl StorageFault {
    /// Whether it says that the log is not what was written: damaged, or tampered with. Everything
    /// else is about the machine.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Checkpoint { .. } | Self::CheckpointOrder { .. })
    }

    /// Whether it says that there is no space left. More may be made while the broker runs.
    pub(super) fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }

    /// The closure that turns a system's error into a fault of `file`.
    pub(crate) fn io(doing: Doing, file: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { doing, file: file.to_owned(), source }
    }
}

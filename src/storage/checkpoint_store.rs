//! The checkpoints of the log: the newest one in `checkpoint`, a signed note as everyone reads
//! it, and every one that was ever signed in `history`.
//!
//! ```text
//! history   one record of 112 bytes per checkpoint, appended and synced before it is published
//! record    tree size 8 | root hash 32 | signature 64 | key id 4 | CRC32C 4
//! ```
//!
//! The signed note of a record is rebuilt from its numbers, since the note's text follows from
//! them. A file of its own, and not a record in the segments, so that signing never waits for
//! the writer and the writer never for a signature. The invariant: sizes only grow, so that two
//! roots at one size, the one fault that cannot be undone, cannot be signed.

use crc32c::crc32c;

use super::disk::{Disk, DiskFile};
use super::fault::{Damage, Defect, Doing, StorageFault};
use crate::evidence::checkpoint::{NoteError, SIGNATURE_BYTES};
use crate::evidence::tree::HASH_BYTES;
use crate::evidence::{Checkpoint, LogKey, VerifierKey};

/// The newest checkpoint, within the log's directory.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// Every checkpoint ever signed, within the log's directory.
pub const HISTORY_FILE: &str = "history";
/// Length of a record of the history, in bytes.
pub const HISTORY_RECORD_BYTES: usize = 112;

const CHECKPOINT_TMP: &str = "checkpoint.tmp";
const CHECKPOINT_BYTES_MAX: usize = 64 << 10;

/// One signed checkpoint, as the history keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// By which key.
    pub key_id: [u8; 4],
    /// The signature over its text.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The two files, open for the one signer.
#[derive(Debug)]
pub struct CheckpointStore<D: Disk> {
    disk: D,
    verifier: VerifierKey,
    history: D::File,
    history_bytes: u64,
    newest: Option<Checkpoint>,
    published: Option<String>,
}

impl<D: Disk> CheckpointStore<D> {
    /// Opens both files, and publishes what was signed but not published when the broker died.
    pub fn open(disk: D, verifier: VerifierKey) -> Result<Self, StorageFault> {
        let history = open_or_create(&disk, HISTORY_FILE)?;
        let published = read_published(&disk)?;
        let mut store = Self { disk, verifier, history, history_bytes: 0, newest: None, published };
        let last = store.find_last()?;
        let note = store.published.as_deref();
        let published = note.map(|note| Checkpoint::open(note, &store.verifier)).transpose();
        let published = published
            .map_err(|source| StorageFault::Checkpoint { file: CHECKPOINT_FILE, source })?;
        match (last, published) {
            (None, None) => {}
            (Some(last), published) if published.as_ref() == Some(&last.checkpoint) => {
                store.newest = published;
            }
            // The history is synced first, so it may be ahead by one and never behind.
            (Some(last), published)
                if published.as_ref().is_none_or(|p| p.tree_size < last.checkpoint.tree_size) =>
            {
                store.newest = Some(last.checkpoint.clone());
                store.replace(store.verifier.note(&last.checkpoint, &last.signature))?;
            }
            (_, published) => {
                let index = published.map_or(0, |checkpoint| checkpoint.tree_size);
                return Err(store.damaged(index));
            }
        }
        Ok(store)
    }

    /// The newest checkpoint that was signed.
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// Visits the sizes of all checkpoints of more than `size` entries, newest first.
    pub(super) fn visit_sizes(
        &self,
        size: u64,
        visit: &mut dyn FnMut(u64),
    ) -> Result<(), StorageFault> {
        let records = History::open(&self.history, self.verifier.name())?;
        for number in (0..self.history_bytes / HISTORY_RECORD_BYTES as u64).rev() {
            let signed = records.read(number)?.ok_or_else(|| self.damaged(0))?;
            if signed.checkpoint.tree_size <= size {
                break;
            }
            visit(signed.checkpoint.tree_size);
        }
        Ok(())
    }

    /// Signs `checkpoint`, keeps it and publishes it. Everything it covers must be on disk.
    pub fn publish(&mut self, key: &LogKey, checkpoint: Checkpoint) -> Result<(), StorageFault> {
        if let Some(signed) = &self.newest {
            if *signed == checkpoint {
                return Ok(());
            }
            if checkpoint.tree_size <= signed.tree_size {
                let (signed, new) = (signed.tree_size, checkpoint.tree_size);
                return Err(StorageFault::CheckpointOrder { signed, new });
            }
        }
        let signature = key.signature(&checkpoint);
        let note = key.verifier().note(&checkpoint, &signature);
        let record = encode(&SignedCheckpoint {
            checkpoint: checkpoint.clone(),
            key_id: key.verifier().id(),
            signature,
        });
        // A crash before the sync returns leaves a torn record or none: nobody has seen the
        // checkpoint, and the next start signs another, over a tree that contains this one.
        let file = HISTORY_FILE;
        self.history
            .write_at(&record, self.history_bytes)
            .map_err(StorageFault::io(Doing::Write, file))?;
        self.history.sync_data().map_err(StorageFault::io(Doing::Sync, file))?;
        self.history_bytes += HISTORY_RECORD_BYTES as u64;
        self.newest = Some(checkpoint);
        // A crash here leaves the history one ahead of `checkpoint`: the next start publishes it.
        if read_published(&self.disk)? != self.published {
            return Err(StorageFault::CheckpointChanged);
        }
        self.replace(note)
    }

    /// Puts `note` in the place of the published checkpoint.
    fn replace(&mut self, note: String) -> Result<(), StorageFault> {
        // A crash before the rename leaves the old checkpoint and a stray file; after it, either
        // of the two. Both are signed, and the history has both.
        let tmp = CHECKPOINT_TMP;
        let file = self.disk.create(tmp).map_err(StorageFault::io(Doing::Open, tmp))?;
        file.write_at(note.as_bytes(), 0).map_err(StorageFault::io(Doing::Write, tmp))?;
        file.sync_data().map_err(StorageFault::io(Doing::Sync, tmp))?;
        let renamed = self.disk.rename(tmp, CHECKPOINT_FILE);
        renamed.map_err(StorageFault::io(Doing::Write, CHECKPOINT_FILE))?;
        // A crash before this sync may bring the old checkpoint back; the history knows.
        self.disk.sync_dir("").map_err(StorageFault::io(Doing::Sync, CHECKPOINT_FILE))?;
        self.published = Some(note);
        Ok(())
    }

    /// The last record of the history; sets the place where the next one goes.
    fn find_last(&mut self) -> Result<Option<SignedCheckpoint>, StorageFault> {
        let records = History::open(&self.history, self.verifier.name())?;
        let mut count = records.count;
        let mut last = None;
        while count > 0 && last.is_none() {
            count -= 1;
            last = records.read(count)?;
            // Only the very last record can be torn; what is left of it is overwritten next.
            if last.is_none() && count + 1 < records.count {
                return Err(self.damaged(0));
            }
        }
        let Some(last) = last else { return Ok(None) };
        let offset = count * HISTORY_RECORD_BYTES as u64;
        let signed = self.verifier.verify(&last.checkpoint, &last.signature);
        signed.map_err(|source| StorageFault::Checkpoint { file: HISTORY_FILE, source })?;
        if last.key_id != self.verifier.id() {
            let source = NoteError::UnknownKey;
            return Err(StorageFault::Checkpoint { file: HISTORY_FILE, source });
        }
        // A sync that failed may have left the record in memory only, and clean; written again,
        // it is either on disk or the start fails. A crash meanwhile writes what was there.
        let record = encode(&last);
        let file = HISTORY_FILE;
        self.history.write_at(&record, offset).map_err(StorageFault::io(Doing::Write, file))?;
        self.history.sync_data().map_err(StorageFault::io(Doing::Sync, file))?;
        self.history_bytes = offset + HISTORY_RECORD_BYTES as u64;
        Ok(Some(last))
    }

    fn damaged(&self, index: u64) -> StorageFault {
        let (file, offset) = (HISTORY_FILE.to_owned(), self.history_bytes);
        StorageFault::Corrupt(Defect { file, offset, index, damage: Damage::History })
    }
}

/// The published checkpoint, verbatim; `None` if there is none yet.
pub(super) fn read_published<D: Disk>(disk: &D) -> Result<Option<String>, StorageFault> {
    let file = match disk.open(CHECKPOINT_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(StorageFault::io(Doing::Open, CHECKPOINT_FILE))?,
    };
    let mut bytes = vec![0; CHECKPOINT_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0);
    bytes.truncate(read.map_err(StorageFault::io(Doing::Read, CHECKPOINT_FILE))?);
    let malformed =
        StorageFault::Checkpoint { file: CHECKPOINT_FILE, source: NoteError::Malformed };
    String::from_utf8(bytes).map(Some).map_err(|_| malformed)
}

/// The history, for reading.
pub(super) struct History<'a, F> {
    file: &'a F,
    origin: &'a str,
    /// Number of whole records; the last may be torn.
    pub(super) count: u64,
}

impl<'a, F: DiskFile> History<'a, F> {
    /// The history in `file`, of the log called `origin`.
    pub(super) fn open(file: &'a F, origin: &'a str) -> Result<Self, StorageFault> {
        let bytes = file.byte_len().map_err(StorageFault::io(Doing::Open, HISTORY_FILE))?;
        Ok(Self { file, origin, count: bytes / HISTORY_RECORD_BYTES as u64 })
    }

    /// Record `number`; `None` if its checksum does not hold.
    pub(super) fn read(&self, number: u64) -> Result<Option<SignedCheckpoint>, StorageFault> {
        let mut record = [0; HISTORY_RECORD_BYTES];
        let read = self.file.read_at(&mut record, number * HISTORY_RECORD_BYTES as u64);
        read.map_err(StorageFault::io(Doing::Read, HISTORY_FILE))?;
        Ok(decode(&record, self.origin))
    }
}

fn encode(signed: &SignedCheckpoint) -> Vec<u8> {
    let mut record = Vec::with_capacity(HISTORY_RECORD_BYTES);
    record.extend_from_slice(&signed.checkpoint.tree_size.to_le_bytes());
    record.extend_from_slice(&signed.checkpoint.root_hash);
    record.extend_from_slice(&signed.signature);
    record.extend_from_slice(&signed.key_id);
    record.extend_from_slice(&crc32c(&record).to_le_bytes());
    record
}

fn decode(record: &[u8; HISTORY_RECORD_BYTES], origin: &str) -> Option<SignedCheckpoint> {
    let (covered, crc) = record.split_last_chunk()?;
    let (size, rest) = covered.split_first_chunk()?;
    let (root_hash, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
    let (signature, rest) = rest.split_first_chunk()?;
    let key_id = *rest.first_chunk()?;
    let checkpoint = Checkpoint {
        origin: origin.to_owned(),
        tree_size: u64::from_le_bytes(*size),
        root_hash: *root_hash,
    };
    let is_whole = crc32c(covered) == u32::from_le_bytes(*crc) && checkpoint.tree_size > 0;
    is_whole.then_some(SignedCheckpoint { checkpoint, key_id, signature: *signature })
}

fn open_or_create<D: Disk>(disk: &D, path: &str) -> Result<D::File, StorageFault> {
    match disk.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => return opened.map_err(StorageFault::io(Doing::Open, path)),
    }
    // A crash before the directory is synced leaves no file, and the next start makes it.
    let file = disk.create(path).map_err(StorageFault::io(Doing::Open, path))?;
    disk.sync_dir("").map_err(StorageFault::io(Doing::Sync, path))?;
    Ok(file)
}

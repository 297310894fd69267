//! The newest checkpoint with the cosignatures that were collected for it.
//!
//! ```text
//! DIR/witness/checkpoint    a signed note: the log's own signature first, then the witnesses'
//! ```
//!
//! A file beside `checkpoint`, and not more lines in it: `checkpoint` is the signer's, who compares
//! and swaps it with every second's new size, and a witness takes longer than that. The invariant:
//! what stands there was published in `checkpoint` before, so it never speaks of entries that are
//! not on disk.

use super::disk::{Disk, DiskFile};
use super::fault::{Doing, StorageFault};
use super::reader::Reader;
use crate::evidence::checkpoint::NoteError;
use crate::evidence::{Checkpoint, VerifierKey};

/// The directory of what witnesses gave, within the log's.
pub const WITNESS_DIR: &str = "witness";
/// The newest cosigned checkpoint, within the log's directory.
pub const COSIGNED_FILE: &str = "witness/checkpoint";
/// Longest note, in bytes: as many signature lines as may be, each with its name.
pub const COSIGNED_BYTES_MAX: usize = 64 << 10;

const COSIGNED_TMP: &str = "witness/checkpoint.tmp";

/// The cosigned checkpoint, verbatim and unchecked; `None` if there is none.
///
/// # Errors
/// If the disk refuses, or it is no text.
pub fn read_cosigned<D: Disk>(disk: &D) -> Result<Option<String>, StorageFault> {
    let file = match disk.open(COSIGNED_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(StorageFault::io(Doing::Open, COSIGNED_FILE))?,
    };
    let mut bytes = vec![0; COSIGNED_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0);
    bytes.truncate(read.map_err(StorageFault::io(Doing::Read, COSIGNED_FILE))?);
    let malformed = StorageFault::Checkpoint { file: COSIGNED_FILE, source: NoteError::Malformed };
    String::from_utf8(bytes).map(Some).map_err(|_| malformed)
}

impl<D: Disk> Reader<D> {
    /// The cosigned checkpoint and its note; `None` if there is none. Whose cosignatures it has is
    /// not looked at.
    ///
    /// # Errors
    /// If the disk refuses, or it is not a checkpoint that `verifier`'s key signed.
    pub fn cosigned(
        &self,
        verifier: &VerifierKey,
    ) -> Result<Option<(String, Checkpoint)>, StorageFault> {
        let Some(note) = read_cosigned(self.disk())? else { return Ok(None) };
        let opened = Checkpoint::open(&note, verifier);
        let checkpoint =
            opened.map_err(|source| StorageFault::Checkpoint { file: COSIGNED_FILE, source })?;
        Ok(Some((note, checkpoint)))
    }
}

/// Puts `note` in the place of the cosigned checkpoint.
///
/// # Errors
/// If the disk refuses.
pub fn publish_cosigned<D: Disk>(disk: &D, note: &str) -> Result<(), StorageFault> {
    // A crash before the directory is durable leaves no cosigned checkpoint: witnesses are asked
    // again, and say from which size.
    disk.create_dir(WITNESS_DIR).map_err(StorageFault::io(Doing::Open, WITNESS_DIR))?;
    // A crash before the rename leaves the old note and a stray file; after it, either note. Both
    // are cosigned, and neither is all that the witnesses know.
    let file = disk.create(COSIGNED_TMP).map_err(StorageFault::io(Doing::Open, COSIGNED_TMP))?;
    file.write_at(note.as_bytes(), 0).map_err(StorageFault::io(Doing::Write, COSIGNED_TMP))?;
    file.sync_data().map_err(StorageFault::io(Doing::Sync, COSIGNED_TMP))?;
    let renamed = disk.rename(COSIGNED_TMP, COSIGNED_FILE);
    renamed.map_err(StorageFault::io(Doing::Write, COSIGNED_FILE))?;
    disk.sync_dir(WITNESS_DIR).map_err(StorageFault::io(Doing::Sync, COSIGNED_FILE))
}

//! What a witness keeps: of each log, the signed note of the checkpoint that it cosigned last.
//!
//! ```text
//! DIR/cosigned/<SHA-256 of the origin, hex>    the note, verbatim, as the log signed it
//! ```
//!
//! The note is its own checksum: it is believed only under a key of its log. One [`KnownLog`] is
//! one writer, by `&mut`, so that what is checked is what is replaced. The invariant: no
//! cosignature leaves [`KnownLog::cosign`] whose checkpoint a power loss could take back, because
//! a witness that forgets would sign the other side of a fork.

use aws_lc_rs::digest::{SHA256, digest};

use super::disk::{Disk, DiskFile};
use super::fault::{Doing, StorageFault};
use crate::evidence::witness::{
    AddCheckpoint, Consistent, Kept, REQUEST_BYTES_MAX, WitnessRefusal,
};
use crate::evidence::{Checkpoint, VerifierKey, WitnessKey};

/// The directory of the notes, within that of the witness.
pub const COSIGNED_DIR: &str = "cosigned";

/// Why a witness cannot go on. Never the fault of whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFault {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// What was kept is not a note of its log.
    #[error(
        "{file}: not a checkpoint that a key of {origin} signed; if the log changed its key, keep \
         the old one in `logs` beside the new one"
    )]
    Damaged {
        /// The file.
        file: String,
        /// The log.
        origin: String,
    },
    /// An earlier failure leaves open what is on disk.
    #[error("a write failed, and what is on disk is not known: restart the witness")]
    Poisoned,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum NoCosignature {
    /// The request does not deserve one.
    #[error(transparent)]
    Refused(#[from] WitnessRefusal),
    /// The witness cannot give one.
    #[error(transparent)]
    Fault(#[from] WitnessFault),
}

/// One log as a witness knows it.
#[derive(Debug)]
pub struct KnownLog<D: Disk> {
    disk: D,
    file: String,
    keys: Vec<VerifierKey>,
    newest: Option<Checkpoint>,
    is_poisoned: bool,
}

impl<D: Disk> KnownLog<D> {
    /// Opens what is kept of the log with these keys, which all have its origin as their name.
    ///
    /// # Errors
    /// [`WitnessFault::Damaged`] if what is kept is not believed: the witness must not begin anew.
    pub fn open(disk: D, origin: &str, keys: Vec<VerifierKey>) -> Result<Self, WitnessFault> {
        // A crash before the directory's name is durable leaves no state and no cosignature.
        disk.create_dir(COSIGNED_DIR).map_err(StorageFault::io(Doing::Open, COSIGNED_DIR))?;
        let hash = digest(&SHA256, origin.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = format!("{COSIGNED_DIR}/{hex}");
        let mut log = Self { disk, file, keys, newest: None, is_poisoned: false };
        if let Some(note) = log.read()? {
            let opened = log.keys.iter().find_map(|key| Checkpoint::open(&note, key).ok());
            let (file, origin) = (log.file.clone(), origin.to_owned());
            log.newest = Some(opened.ok_or(WitnessFault::Damaged { file, origin })?);
            // The process before this one may have ended between the rename and its sync: written
            // again, the note is on disk or the start fails. A crash meanwhile leaves this note.
            log.replace(&note)?;
        }
        Ok(log)
    }

    /// The checkpoint that was cosigned last.
    pub fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// Judges `request`, keeps its checkpoint, and cosigns it as of `unix_seconds`: the signature
    /// line, with its line end.
    ///
    /// # Errors
    /// [`NoCosignature`]; nothing was signed then.
    pub fn cosign(
        &mut self,
        request: &AddCheckpoint,
        key: &WitnessKey,
        unix_seconds: u64,
    ) -> Result<String, NoCosignature> {
        if self.is_poisoned {
            return Err(WitnessFault::Poisoned.into());
        }
        let consistent = request.judge(&self.keys, self.newest.as_ref())?;
        // A crash before this returns: nobody has a cosignature. The disk has the old checkpoint
        // or the new one, and each of them is contained in whatever is cosigned next.
        let kept = self.keep(&consistent)?;
        // A crash here: the new checkpoint is kept and was never cosigned. The log hears the new
        // size when it asks again, and asks from there.
        Ok(key.cosign(&kept, unix_seconds))
    }

    fn keep<'n>(&mut self, consistent: &Consistent<'n>) -> Result<Kept<'n>, WitnessFault> {
        // The same checkpoint again is on disk already: a new time is all that is asked for.
        if self.newest.as_ref() != Some(consistent.checkpoint()) {
            // From here until all is on disk, the memory does not know what the disk has.
            self.is_poisoned = true;
            self.replace(consistent.note())?;
            self.newest = Some(consistent.checkpoint().clone());
            self.is_poisoned = false;
        }
        Ok(Kept::assertion(consistent))
    }

    fn replace(&self, note: &str) -> Result<(), StorageFault> {
        let tmp = format!("{}.tmp", self.file);
        // A crash before the rename leaves the old note and a stray file, which the next one
        // overwrites.
        let file = self.disk.create(&tmp).map_err(StorageFault::io(Doing::Open, &tmp))?;
        file.write_at(note.as_bytes(), 0).map_err(StorageFault::io(Doing::Write, &tmp))?;
        file.sync_data().map_err(StorageFault::io(Doing::Sync, &tmp))?;
        let renamed = self.disk.rename(&tmp, &self.file);
        renamed.map_err(StorageFault::io(Doing::Write, &self.file))?;
        // A crash before this sync may bring the old note back, and nothing is signed yet.
        self.disk.sync_dir(COSIGNED_DIR).map_err(StorageFault::io(Doing::Sync, &self.file))
    }

    fn read(&self) -> Result<Option<String>, StorageFault> {
        let file = match self.disk.open(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StorageFault::io(Doing::Open, &self.file))?,
        };
        let mut bytes = vec![0; REQUEST_BYTES_MAX];
        let read = file.read_at(&mut bytes, 0);
        bytes.truncate(read.map_err(StorageFault::io(Doing::Read, &self.file))?);
        // What is not UTF-8 is no note, and is refused as one.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

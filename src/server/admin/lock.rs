//! The lock on a directory.
//!
//! An exclusive `flock` on `DIR/lock`: the system drops it with the process, however that ends,
//! so there is no stale lock to clean up. The process id in the file is for people only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The lock's name in its directory.
const LOCK_NAME: &str = "lock";

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "{} is in use by {}: stop that process first, or let it do the work (commands reach a \
         running broker by themselves)",
        directory.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Its process id, if it could be read.
        holder: Option<u32>,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Ownership of a directory, until dropped.
#[derive(Debug)]
pub struct Lock {
    directory: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock of `directory`, at once or not at all.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process has it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(LOCK_NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = read_pid(&mut file);
                return Err(LockError::Held { directory: directory.to_owned(), holder });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), _file: file })
    }

    /// Whether somebody holds the lock of `directory` now.
    ///
    /// # Errors
    /// [`LockError::Io`].
    pub fn is_held(directory: &Path) -> Result<bool, LockError> {
        let path = directory.join(LOCK_NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = match OpenOptions::new().read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        // Shared, so that two who look at once do not see each other.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The process id in the file: at most ten digits are looked at.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(10).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!Lock::is_held(directory.path()).unwrap());
        let lock = Lock::acquire(directory.path()).unwrap();
        assert!(Lock::is_held(directory.path()).unwrap());
        match Lock::acquire(directory.path()).unwrap_err() {
            LockError::Held { holder, .. } => assert_eq!(holder, Some(std::process::id())),
            LockError::Io { .. } => panic!("held, not failed"),
        }
        drop(lock);
        assert!(!Lock::is_held(directory.path()).unwrap());
        Lock::acquire(directory.path()).unwrap();
    }
}

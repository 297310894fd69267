//! `DIR/lock`: one process at a time writes a broker's log.
//!
//! The kernel holds the lock for as long as the file is open, so a crash leaves none behind. The
//! invariant: whoever has a [`DirLock`] is alone with the log of that directory.
#![expect(clippy::disallowed_methods, reason = "the command line locks a file")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::files::{FileFault, io};

/// Name of the lock within the directory.
pub(super) const FILE_NAME: &str = "lock";

/// The lock, until it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum LockFault {
    /// Somebody has it.
    #[error("a broker is running on {}", .0.display())]
    #[diagnostic(help("stop it first; `device add` and `audit` work while it serves"))]
    Held(PathBuf),
    /// The file does not open.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileFault),
}

impl DirLock {
    /// Takes the lock of `dir`; does not wait.
    pub(super) fn take(dir: &Path) -> Result<Self, LockFault> {
        let path = dir.join(FILE_NAME);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(Errno::WOULDBLOCK) => Err(LockFault::Held(dir.to_owned())),
            Err(error) => Err(io("lock", &path)(error.into()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_it_and_dropping_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::take(dir.path()).unwrap();
        assert!(matches!(DirLock::take(dir.path()), Err(LockFault::Held(_))));
        drop(lock);
        assert!(DirLock::take(dir.path()).is_ok());
    }
}

//! New files and directories, made so that nothing is overwritten and no key is ever readable by
//! others.
//!
//! The invariant: a file that this module made was not there before.
#![expect(clippy::disallowed_methods, reason = "the command line makes files")]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Largest file that the command line reads whole, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why a file cannot be had or made.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum FileFault {
    /// It is there already.
    #[error("{} exists already; nothing was overwritten", .0.display())]
    #[diagnostic(help("choose another directory, or move it away"))]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Larger than any file of its kind.
    #[error("{} is larger than 4 MiB", .0.display())]
    TooLarge(PathBuf),
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The owner alone: keys.
    Private,
    /// Everybody who can enter the directory.
    Public,
}

/// Checks that none of `paths` is there, so that nothing is half made.
pub(super) fn require_absent<'p>(
    paths: impl IntoIterator<Item = &'p PathBuf>,
) -> Result<(), FileFault> {
    for path in paths {
        // A dangling link counts as there: writing would follow it.
        if path.symlink_metadata().is_ok() {
            return Err(FileFault::Exists(path.clone()));
        }
    }
    Ok(())
}

/// Makes a directory that its owner alone may enter, and those above it. One that is there is
/// left as it is.
pub(super) fn create_dir(path: &Path) -> Result<(), FileFault> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("create", path))
}

/// Makes a file and brings it to disk; refuses if there is one.
pub(super) fn create(path: &Path, access: Access, content: &[u8]) -> Result<(), FileFault> {
    let mode = match access {
        Access::Private => 0o600,
        Access::Public => 0o644,
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => FileFault::Exists(path.to_owned()),
        _ => io("create", path)(source),
    })?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io("write", path))
}

/// Reads a small file as text.
pub(super) fn read(path: &Path) -> Result<String, FileFault> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let bytes = read.map_err(io("read", path))?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(FileFault::TooLarge(path.to_owned()));
    }
    Ok(text)
}

/// Reads a small file.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, FileFault> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let length = read.map_err(io("read", path))?;
    if length as u64 > FILE_BYTES_MAX {
        Err(FileFault::TooLarge(path.to_owned()))
    } else {
        Ok(bytes)
    }
}

/// Reads a small file as text; `None` if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, FileFault> {
    match read(path) {
        Err(FileFault::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// As [`create`], in place of a file that is there.
pub(super) fn replace(path: &Path, access: Access, content: &[u8]) -> Result<(), FileFault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io("replace", path)(error)),
        _ => create(path, access, content),
    }
}

/// The directories in `path`, by name; none if it cannot be listed.
pub(super) fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|at| at.is_dir()).collect();
    found.sort();
    found
}

/// For [`Result::map_err`] of a call of the system.
pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileFault {
    let path = path.to_owned();
    move |source| FileFault::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_the_owners_alone_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_dir(&inner).unwrap();
        assert_eq!((mode(&inner), mode(inner.parent().unwrap())), (0o700, 0o700));
        let key = inner.join("key.pem");
        create(&key, Access::Private, b"one").unwrap();
        assert_eq!(mode(&key), 0o600);
        assert!(matches!(create(&key, Access::Private, b"two"), Err(FileFault::Exists(_))));
        assert_eq!(read(&key).unwrap(), "one");
        assert!(matches!(require_absent([&key]), Err(FileFault::Exists(path)) if path == key));
    }

    #[test]
    fn a_link_to_nowhere_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(require_absent([&link]).is_err());
        assert!(create(&link, Access::Public, b"x").is_err());
        assert!(!target.exists());
    }
}

//! The disk as the log sees it: a directory of files with positional reads and writes, and two
//! kinds of sync.
//!
//! It knows nothing of segments. The invariant: what was written is durable only after
//! [`DiskFile::sync_data`] of its file, and a name only after [`Disk::sync_dir`] of its
//! directory; nothing here syncs by itself. `tests/simulation/disk.rs` holds the second
//! implementation, which forgets everything else at a crash.
#![expect(clippy::disallowed_methods, reason = "this is the shell's door to the file system")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A directory of files. Paths are relative to it, with `/` between their parts. Clones see the
/// same directory.
pub trait Disk: Clone + std::fmt::Debug + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> io::Result<Self::File>;
    /// Creates an empty file, or empties the one that is there.
    fn create(&self, path: &str) -> io::Result<Self::File>;
    /// Creates a directory, if it is not there, and makes its name durable.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Creates a directory and those above it, as far as they are not there. Nothing is durable.
    fn make_dir(&self, path: &str) -> io::Result<()>;
    /// Takes an empty directory away.
    fn remove_dir(&self, path: &str) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a file away.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable. `""` is the directory itself.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Bytes that may still be written, as far as the file system says; without a bound where it
    /// does not.
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
    /// Makes all that was written so far durable, content and names, in one go. For what may be
    /// lost: it also waits for whatever others wrote to the same file system.
    fn sync_all(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: std::fmt::Debug + Send + 'static {
    /// Fills `bytes` from `offset`; the number that was there, less than asked only at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the content and length of the file durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn byte_len(&self) -> io::Result<u64>;
}

/// A directory of the operating system's file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The directory `root`, which must exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the directory is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Disk for RealDisk {
    type File = File;

    fn open(&self, path: &str) -> io::Result<File> {
        // A reader may lack the right to write, and must not need it.
        let path = self.root.join(path);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path),
            opened => opened,
        }
    }

    fn create(&self, path: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.open(self.root.join(path))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(path))?;
        self.sync_dir("")
    }

    fn make_dir(&self, path: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(path))
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        std::fs::remove_dir(self.root.join(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(path))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let directory = File::open(self.root.join(path))?;
        rustix::fs::fsync(&directory).map_err(io::Error::from)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let about = rustix::fs::statvfs(&self.root).map_err(io::Error::from)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn sync_all(&self) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.root)?).map_err(io::Error::from)
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        rustix::fs::fdatasync(self).map_err(io::Error::from)
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

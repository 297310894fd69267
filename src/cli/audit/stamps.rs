//! Time-stamps on disk, beside the log.
//!
//! ```text
//! DIR/timestamps/<entries>-<hash>.checkpoint    the note that was stamped, verbatim
//!                                .tsq           the request
//!                                .tsr           the authority's reply, once it is attached
//!                                .ca.pem        the CA that it was believed under
//! ```
//!
//! The names are made here alone. The invariant: a `.tsr` stands there only beside the note that it
//! was verified over.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use crate::cli::CliFailure;
use crate::cli::files::{self, FileFault};
use crate::cli::plant::hex;
use crate::evidence::timestamp::{Stamped, TimeStamp, TimestampError};
use crate::evidence::{Checkpoint, VerifierKey};
use crate::server::tls::{Pem, certificates};

/// The directory, within the log's.
const STAMPS_DIR: &str = "timestamps";
/// Most time-stamps of one log that are looked at.
const STAMPS_MAX: usize = 10_000;

/// The files of one stamp, by what they have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StampFiles(PathBuf);

impl StampFiles {
    /// Those of a stamp over `note`, a checkpoint of this size.
    pub(super) fn of(log: &Path, entries: u64, note: &str) -> Self {
        let hash = crate::cli::plant::sha256(note.as_bytes());
        let hash: String = hex(hash.as_ref()).chars().take(16).collect();
        Self(directory(log).join(format!("{entries}-{hash}")))
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.with("checkpoint")
    }
    pub(super) fn request(&self) -> PathBuf {
        self.with("tsq")
    }
    pub(super) fn reply(&self) -> PathBuf {
        self.with("tsr")
    }
    pub(super) fn ca(&self) -> PathBuf {
        self.with("ca.pem")
    }

    fn with(&self, ending: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!(".{ending}"));
        path.into()
    }

    /// The checkpoint that is stamped, which must be one of this log.
    pub(super) fn open(&self, key: &VerifierKey) -> Result<(String, Checkpoint), CliFailure> {
        let path = self.checkpoint();
        let note = files::read(&path)?;
        let checkpoint =
            Checkpoint::open(&note, key).map_err(|source| StampFailure::Note { path, source })?;
        Ok((note, checkpoint))
    }

    /// Verifies the reply that is there, under `ca`.
    pub(super) fn verify(&self, note: &str, ca: &Path) -> Result<Stamped, CliFailure> {
        let path = self.reply();
        let reply = files::read_bytes(&path)?;
        let anchors = anchors(ca)?;
        let stamped = TimeStamp::parse(&reply)
            .and_then(|stamp| stamp.verify(note.as_bytes(), &anchors))
            .map_err(|source| StampFailure::Stamp { path, source });
        Ok(stamped?)
    }
}

/// Why a time-stamp cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StampFailure {
    /// There is nothing to stamp.
    #[error("there is no checkpoint yet")]
    #[diagnostic(help("a broker that has served once leaves one"))]
    NoCheckpoint,
    /// A note that is not this log's.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("it is not a checkpoint that this log's key signed"))]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::evidence::checkpoint::NoteError,
    },
    /// The stamp is over none of the notes that are there.
    #[error("{} is over no checkpoint that was asked for here", .0.display())]
    #[diagnostic(help(
        "`avow audit timestamp request` makes the request, and keeps what it is over"
    ))]
    Unasked(PathBuf),
    /// The stamp does not hold.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help(
        "`openssl ts -verify -in FILE.tsr -data FILE.checkpoint -CAfile CA.pem` looks at it too"
    ))]
    Stamp {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TimestampError,
    },
    /// No anchors.
    #[error("{} holds no certificate in PEM", .0.display())]
    #[diagnostic(help("name the CA of the time-stamping authority"))]
    Anchors(PathBuf),
    /// More stamps than are looked at.
    #[error("there are more than {STAMPS_MAX} time-stamps in {}", .0.display())]
    #[diagnostic(help("move the older ones elsewhere: each verifies by itself"))]
    TooMany(PathBuf),
}

impl StampFailure {
    /// 1 if something does not hold, 2 if it cannot be done.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Note { .. } | Self::Stamp { .. } => 1,
            Self::NoCheckpoint | Self::Unasked(_) | Self::Anchors(_) | Self::TooMany(_) => 2,
        }
    }
}

/// Where they are.
pub(super) fn directory(log: &Path) -> PathBuf {
    log.join(STAMPS_DIR)
}

/// Every stamp that was asked for, by name.
pub(super) fn all(log: &Path) -> Result<Vec<StampFiles>, CliFailure> {
    let directory = directory(log);
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(files::io("list", &directory))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(files::io("list", &directory))?.path();
        if path.extension().is_some_and(|ending| ending == "checkpoint") {
            found.push(StampFiles(path.with_extension("")));
        }
        if found.len() > STAMPS_MAX {
            return Err(StampFailure::TooMany(directory).into());
        }
    }
    found.sort();
    Ok(found)
}

/// The certificates in a file.
pub(super) fn anchors(path: &Path) -> Result<Vec<CertificateDer<'static>>, CliFailure> {
    let text = files::read(path)?;
    let file = path.display().to_string();
    let read = certificates(Pem { file: &file, text: &text });
    Ok(read.map_err(|_| StampFailure::Anchors(path.to_owned()))?)
}

/// Whether a file is there.
pub(super) fn is_there(path: &Path) -> Result<bool, FileFault> {
    path.try_exists().map_err(files::io("look at", path))
}

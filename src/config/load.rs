//! The one place of this room that opens files.
#![expect(clippy::disallowed_methods, reason = "this is the shell's part of the room")]

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Config, ConfigProblem, FILE_NAME, Secret};
use crate::source::SourceErrors;

/// Largest `avow.toml`, and largest secret, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum LoadError {
    /// The file does not open or read.
    #[error("cannot read {}", path.display())]
    #[diagnostic(help(
        "`avow init DIR` makes a broker's directory; `--dir DIR` or AVOW_DIR names it"
    ))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than a configuration can be.
    #[error("{} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// What is in it does not hold.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Problems(#[from] SourceErrors<ConfigProblem>),
}

/// Why a secret cannot be had. Never holds the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file does not open or read.
    #[error("cannot read the secret in {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The variable is not set, or not text.
    #[error("the environment variable {0} is not set, or is not UTF-8")]
    Env(String),
}

/// Reads `avow.toml` of the broker's directory `dir`.
///
/// # Errors
/// See [`LoadError`].
pub fn load(dir: &Path) -> Result<Config, LoadError> {
    let path = dir.join(FILE_NAME);
    let text = read_bounded(&path).map_err(|source| LoadError::Read { path: path.clone(), source });
    let text = text?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path });
    }
    Ok(Config::parse(&text, &path.display().to_string(), dir)?)
}

impl Secret {
    /// Reads the secret as text: the whole file, or the value of the variable.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::File(path) => read_bounded(path)
                .map_err(|source| SecretError::File { path: path.clone(), source }),
            Self::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone())),
        }
    }
}

/// At most one byte more than the bound, so that the caller sees the excess.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

//! The command line's end of the admin socket. Blocking: a command has nothing else to do.

#![expect(clippy::disallowed_methods, reason = "a command waits for the broker")]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::{Lock, LockError};
use super::protocol::Request;
use super::{LINE_BYTES_MAX, SOCKET_NAME};

/// Attempts to reach a broker that holds the lock and does not listen yet.
const ATTEMPTS: u32 = 30;
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);

/// Why a running broker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The lock could not be looked at.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Somebody holds the lock, but does not answer.
    #[error(
        "{} is in use, but nobody answers at its admin.sock: {source}",
        directory.display()
    )]
    Unreachable {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the broker broke off: {0}")]
    Io(#[from] io::Error),
    /// The broker says no.
    #[error("{0}")]
    Refused(String),
    /// What it said is no answer.
    #[error("the broker's answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
}

/// A conversation with a running broker.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Reaches the broker that serves `directory`; `None` if nobody holds its lock.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if the lock is held by something that does not answer.
    pub fn connect(directory: &Path) -> Result<Option<Self>, ClientError> {
        let path = directory.join(SOCKET_NAME);
        for attempt in 1.. {
            if !Lock::is_held(directory)? {
                return Ok(None);
            }
            match UnixStream::connect(&path) {
                Ok(stream) => return Ok(Some(Self { reader: BufReader::new(stream) })),
                Err(source) if attempt >= ATTEMPTS => {
                    return Err(ClientError::Unreachable {
                        directory: directory.to_owned(),
                        source,
                    });
                }
                Err(_) => std::thread::sleep(ATTEMPT_EVERY),
            }
        }
        Ok(None)
    }

    /// Sends `request` and calls `line` with every line of the answer, until it ends or `line`
    /// fails.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the broker's words; an error of `line` as [`ClientError::Io`].
    pub fn ask(
        &mut self,
        request: &Request,
        mut line: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut bytes = serde_json::to_vec(request)?;
        bytes.push(b'\n');
        self.reader.get_mut().write_all(&bytes)?;
        let mut answer = String::new();
        loop {
            answer.clear();
            let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
            if self.reader.by_ref().take(most).read_line(&mut answer)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let text = answer.trim_end();
            match last_word(text)? {
                None => line(text)?,
                Some(Last { end: Some(true), .. }) => return Ok(()),
                Some(Last { error, .. }) => {
                    return Err(ClientError::Refused(error.unwrap_or_default()));
                }
            }
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    end: Option<bool>,
    error: Option<String>,
}

/// The end of an answer, if `line` is one. Answers themselves never begin like this.
fn last_word(line: &str) -> Result<Option<Last>, serde_json::Error> {
    let is_last = line.starts_with("{\"end\":") || line.starts_with("{\"error\":");
    is_last.then(|| serde_json::from_str(line)).transpose()
}

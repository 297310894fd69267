//! The broker's end of the admin socket.

#![expect(clippy::disallowed_methods, reason = "threads and files of the admin socket")]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::lock::Lock;
use super::protocol::{EraseRequest, LogRequest, RecordRequest, Request};
use super::{CLIENTS_MAX, REQUEST_BYTES_MAX, SOCKET_NAME};
use crate::broker::Administration;
use crate::server::{Handle, Running};

/// How long a client may take to send its request or to take an answer.
const CLIENT_STALL_MAX: Duration = Duration::from_secs(30);
/// How often a follower looks whether its client or the broker has gone.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Answers a reading of the log: calls [`Answers::line`] for each line, on a thread where it may
/// take its time. An error is text for the operator.
pub type AnswerLog =
    Arc<dyn Fn(&LogRequest, &mut Answers<'_>) -> Result<(), AdminError> + Send + Sync>;

/// Erases bodies, through the broker that it is given, and says in one line what was erased.
pub type AnswerErase =
    Arc<dyn Fn(&EraseRequest, &Handle, &mut Answers<'_>) -> Result<(), AdminError> + Send + Sync>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The client has gone, or the broker stops.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The request is none.
    #[error(transparent)]
    Request(#[from] super::RequestError),
    /// The broker does not answer.
    #[error(transparent)]
    NotServing(#[from] crate::server::NotServing),
    /// Reading the log failed, or there is nothing to find; the text is for the operator.
    #[error("{0}")]
    Log(String),
}

/// There is nobody to answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone or the broker stops")]
pub struct Gone;

/// What the admin socket is made of.
pub struct AdminOptions<'a> {
    /// Proof that the directory is ours.
    pub lock: &'a Lock,
    /// The server to ask.
    pub server: &'a Running,
    /// Reads the log.
    pub log: AnswerLog,
    /// Erases bodies.
    pub erase: AnswerErase,
}

/// An admin socket that serves until dropped.
#[derive(Debug)]
pub struct Admin {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Makes the socket of the directory that `lock` holds, and serves it.
    ///
    /// # Errors
    /// If the system refuses; a path of more than about 100 bytes is one reason.
    pub fn start(options: AdminOptions<'_>) -> io::Result<Self> {
        let service = Service {
            handle: options.server.handle(),
            listen: options.server.local_addr().to_string(),
            log: options.log,
            erase: options.erase,
        };
        Self::serve(options.lock.directory(), Arc::new(service))
    }

    fn serve(directory: &Path, service: Arc<Service>) -> io::Result<Self> {
        let (listener, path) = bind(directory)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("avow-admin".to_owned())
            .spawn(move || accept(&listener, &service, &stop))?;
        Ok(Self { path, stopping, thread: Some(thread) })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the thread out of `accept`.
        let woken = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Makes the socket where nobody else can reach it before it has its rights, then moves it into
/// place over one that a killed broker has left.
fn bind(directory: &Path) -> io::Result<(UnixListener, PathBuf)> {
    let path = directory.join(SOCKET_NAME);
    let private = directory.join(format!(".{SOCKET_NAME}.{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new().mode(0o700).create(&private)?;
    let unplaced = private.join("s");
    let listener = UnixListener::bind(&unplaced)?;
    std::fs::set_permissions(&unplaced, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unplaced, &path)?;
    std::fs::remove_dir(&private)?;
    Ok((listener, path))
}

fn accept(listener: &UnixListener, service: &Arc<Service>, stopping: &Arc<AtomicBool>) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(mut stream) = stream else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        if clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::AcqRel);
            let _ = writeln!(stream, "{}", json!({ "error": "too many clients; try again" }));
            continue;
        }
        let place = Place(Arc::clone(&clients));
        let (service, stopping) = (Arc::clone(service), Arc::clone(stopping));
        let client = std::thread::Builder::new().name("avow-admin-client".to_owned());
        let spawned = client.spawn(move || {
            let _place = place;
            // An error is the client's going.
            let _ = converse(&stream, &service, &stopping);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "an admin client could not be served");
        }
    }
}

/// A place among the clients.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Answers one client's requests, one after the other.
fn converse(stream: &UnixStream, service: &Service, stopping: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_STALL_MAX))?;
    stream.set_write_timeout(Some(CLIENT_STALL_MAX))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(REQUEST_BYTES_MAX).unwrap_or(u64::MAX) + 2;
        if reader.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut answers = Answers { stream, stopping, unsent: Vec::new() };
        let answered = Request::parse(line.trim_ascii_end())
            .map_err(AdminError::from)
            .and_then(|request| service.answer(request, &mut answers));
        let last = match answered {
            Ok(()) => json!({ "end": true }),
            Err(AdminError::Gone(Gone)) => return Ok(()),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let sent = answers.line(&last.to_string()).and_then(|()| answers.flush());
        if sent.is_err() || line.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
    }
}

/// Where a request's answers go.
#[derive(Debug)]
pub struct Answers<'a> {
    stream: &'a UnixStream,
    stopping: &'a AtomicBool,
    unsent: Vec<u8>,
}

impl Answers<'_> {
    /// Sends one line: a JSON value without line breaks.
    ///
    /// # Errors
    /// [`Gone`]: give up then.
    pub fn line(&mut self, json: &str) -> Result<(), Gone> {
        const UNSENT_BYTES_MAX: usize = 32 * 1024;
        self.unsent.extend_from_slice(json.as_bytes());
        self.unsent.push(b'\n');
        if self.unsent.len() > UNSENT_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Waits for `duration`, having sent what was given: for those who follow.
    ///
    /// # Errors
    /// [`Gone`]: give up then.
    pub fn wait(&mut self, duration: Duration) -> Result<(), Gone> {
        self.flush()?;
        let mut left = duration;
        while !left.is_zero() {
            let step = left.min(LOOK_EVERY);
            std::thread::sleep(step);
            left = left.saturating_sub(step);
            self.look()?;
        }
        Ok(())
    }

    /// Whether somebody is still there. A client says nothing while it waits for an answer.
    fn look(&self) -> Result<(), Gone> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Gone);
        }
        self.stream.set_nonblocking(true).map_err(|_| Gone)?;
        let mut stream = self.stream;
        let seen = stream.read(&mut [0]);
        self.stream.set_nonblocking(false).map_err(|_| Gone)?;
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(_) | Err(_) => Err(Gone),
        }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let mut stream = self.stream;
        let sent = stream.write_all(&self.unsent).map_err(|_| Gone);
        self.unsent.clear();
        sent
    }
}

/// What answers requests.
struct Service {
    handle: Handle,
    listen: String,
    log: AnswerLog,
    erase: AnswerErase,
}

impl Service {
    fn answer(&self, request: Request, answers: &mut Answers<'_>) -> Result<(), AdminError> {
        match request {
            Request::Status => answers.line(&self.status()?)?,
            Request::Record(request) => {
                let index = self.handle.record(Administration::try_from(request)?)?;
                answers.line(&json!({ "index": index }).to_string())?;
            }
            // What it leaves in the log, it records itself: a request may name a person.
            Request::Erase(request) => (self.erase)(&request, &self.handle, answers)?,
            Request::Log(request) => {
                self.record_read(&request)?;
                (self.log)(&request, answers)?;
            }
        }
        Ok(())
    }

    /// Who reads the log leaves a trace in it, before the first line is shown.
    fn record_read(&self, request: &LogRequest) -> Result<(), AdminError> {
        let mut text = serde_json::to_string(request).unwrap_or_default();
        text.truncate(text.floor_char_boundary(512));
        let record = RecordRequest {
            act: request.act().to_owned(),
            subject: "admin".to_owned(),
            facts: vec![("request".to_owned(), text)],
        };
        self.handle.record(Administration::try_from(record)?)?;
        Ok(())
    }

    fn status(&self) -> Result<String, AdminError> {
        let snapshot = self.handle.snapshot()?;
        let (counters, writer) = (&snapshot.counters, self.handle.writer_stats());
        let refusals = counters.refusals.iter().map(|(reason, n)| (reason.name(), *n));
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "listen": self.listen,
            "stopping": snapshot.stopping,
            "backlogged": snapshot.backlogged,
            "connections": counters.connections_live,
            "sessions": counters.sessions_live,
            "subscriptions": counters.subscriptions_live,
            "retained": counters.retained_live,
            "connects": counters.connects,
            "connects_refused": counters.connects_refused,
            "handshakes_refused": counters.handshakes_refused,
            "publishes_received": counters.publishes_received,
            "publishes_recorded": counters.publishes_recorded,
            "publishes_quarantined": counters.publishes_quarantined,
            "publishes_flagged": counters.publishes_flagged,
            "deliveries": counters.deliveries,
            "violations": counters.violations,
            "refusals": refusals.collect::<std::collections::BTreeMap<_, _>>(),
            "entries": writer.entries,
            "entries_signed": writer.signed_entries,
            "log_bytes": writer.bytes,
            "witnesses": self.handle.witnesses().rows(),
        });
        Ok(status.to_string())
    }
}

#[cfg(test)]
mod tests;

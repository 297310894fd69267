//! How a server ends: by request, or by a fault of its own.
//!
//! By request (a signal, [`Stopper::stop`]): the acceptor takes no more, each shard tells its
//! sessions and waits until their end is on disk, the writer publishes its last checkpoint. By a
//! fault: whoever finds it says so here, and the process stops without acknowledging anything
//! more; what is on disk is recovered at the next start.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use super::message::{Message, Shards};

/// Something of ours failed, and the process must stop before it lies.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The core of a shard panicked.
    #[error("the core of shard {shard} panicked: {message}")]
    CorePanicked {
        /// The shard.
        shard: u16,
        /// What it said.
        message: String,
    },
    /// A thread of the shell panicked.
    #[error("the {thread} thread panicked: {message}")]
    ThreadPanicked {
        /// The thread.
        thread: &'static str,
        /// What it said.
        message: String,
    },
    /// The log cannot be written.
    #[error("the log cannot be written: {0}")]
    Writer(String),
    /// The system refused what the server cannot do without.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The listener's address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Metrics would be served to the network without being asked to.
    #[error(
        "the metrics address {0} is not a loopback address; there is neither TLS nor login on it: \
         set `allow_non_loopback = true` if that is meant"
    )]
    MetricsExposed(std::net::SocketAddr),
}

impl Fault {
    /// The exit code of a process that ends with this fault: 70 (`EX_SOFTWARE`), or 2 if it could
    /// not start as it was told to.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CorePanicked { .. } | Self::ThreadPanicked { .. } | Self::Writer(_) => 70,
            Self::System { .. } => 70,
            Self::Listen { .. } | Self::MetricsExposed(_) => 2,
        }
    }

    /// For [`Result::map_err`] of a system call.
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}

/// What a thread that ends tells [`super::Running::wait`].
#[derive(Debug)]
pub(super) enum Ended {
    /// A shard has stopped as it was asked to.
    Shard,
    /// A fault.
    Fault(Fault),
}

/// Where faults are told.
#[derive(Clone, Debug)]
pub(super) struct FaultSender {
    ended: Sender<Ended>,
    faulted: Arc<AtomicBool>,
}

impl FaultSender {
    pub(super) fn channel() -> (Self, Receiver<Ended>) {
        let (ended, receiver) = std::sync::mpsc::channel();
        (Self { ended, faulted: Arc::default() }, receiver)
    }

    /// Tells that the process must stop.
    pub(super) fn send(&self, fault: Fault) {
        self.faulted.store(true, Ordering::Release);
        tracing::error!(fault = %fault, "stopping: a fault of the broker");
        let _ = self.ended.send(Ended::Fault(fault));
    }

    /// Tells that a shard has stopped in order.
    pub(super) fn shard_stopped(&self) {
        let _ = self.ended.send(Ended::Shard);
    }

    /// Whether a fault was told.
    pub(super) fn has_faulted(&self) -> bool {
        self.faulted.load(Ordering::Acquire)
    }
}

/// Stops a server. Cheap to clone.
#[derive(Clone)]
pub struct Stopper {
    pub(super) stopping: Arc<tokio::sync::watch::Sender<bool>>,
    pub(super) shards: Shards,
}

impl Stopper {
    pub(super) fn new(shards: Shards) -> Self {
        Self { stopping: Arc::new(tokio::sync::watch::Sender::new(false)), shards }
    }

    /// Asks the server to stop; [`super::Running::wait`] returns once it has. Asking again does
    /// nothing.
    pub fn stop(&self) {
        if self.stopping.send_replace(true) {
            return;
        }
        for shard in 0..self.shards.count() {
            self.shards.send(shard, Message::Stop);
        }
    }

    /// Whether it was asked to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when the server is asked to stop.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the sender is gone, and we hold one.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Stops the server at the first SIGTERM or SIGINT. Must run inside a runtime.
pub(super) async fn stop_at_signal(stopper: Stopper) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be handled: SIGTERM will end the process at once");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stopper.stopped() => return,
    }
    stopper.stop();
}

/// The text of a panic.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Raises the limit of open files to what the system allows; the limit that holds now.
///
/// # Errors
/// If the system refuses.
pub fn raise_open_files() -> Result<Option<u64>, Fault> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(limit.current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|errno| Fault::system("raise the limit of open files")(errno.into()))?;
    Ok(limit.maximum)
}

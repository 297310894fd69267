//! The shell: what touches sockets, TLS, threads and the clock, around a core that touches none
//! of them.
//!
//! ```text
//! acceptor thread        shard thread(s)                       writer thread
//! accept, bounds, TLS ─► connection tasks ─► Broker ─ batch ─► write, fdatasync
//!                          ▲                   │ ▲ ▲                │
//!                          └──── one write ◄───┘ │ └──── Synced ◄───┘
//!                                   signature ─► └─ Verified ◄─ verifier thread(s)
//! ```
//!
//! A [`Server`] runs until it is asked to stop or has a [`Fault`]. It decides nothing about
//! messages: that is the core's. It listens before there is a core, and answers Server busy until
//! then. Invariants: a shard is handed only connections that have an identity, and nothing leaves a
//! shard that its core did not ask for.

pub mod admin;
pub mod audit_api;
mod busy;
mod clock;
mod connection;
mod entrance;
mod handle;
mod handshake;
mod link;
mod listener;
mod message;
mod options;
mod proxy;
mod shard;
mod shutdown;
mod socket;
#[cfg(test)]
mod testing;
pub mod tls;
mod transport;
mod upgrade;
mod verifying;
mod websocket;
pub mod witness;
mod writing;

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

pub use clock::Clock;
pub use handle::{Handle, NotServing};
pub use listener::HandshakeStats;
pub use message::ShardSnapshot;
pub use options::{
    Bounds, Core, MakeBroker, MetricsOptions, ProxyOptions, ProxyVersion, ServerOptions,
    WebSocketOptions,
};
pub use shutdown::{Fault, Stopper, raise_open_files};
pub use writing::{
    RunningWriter, StartWriter, Submit, Submitted, SyncDurations, WriterEvents, WriterStats,
};

use entrance::{Entrance, Surroundings};
use listener::AcceptorParts;
use message::{Message, Shards};
use shard::ShardParts;
use shutdown::{Ended, FaultSender, panic_message};
use tokio::sync::mpsc::UnboundedReceiver;
use verifying::Verifiers;

/// A server; see [`Server::open`].
#[derive(Debug)]
pub struct Server;

/// A server that listens and has no core yet: every CONNECT is answered with Server busy. Dropping it
/// ends that.
pub struct Starting {
    bound: Bound,
    go: Go,
    ended: Receiver<Ended>,
    acceptor: JoinHandle<()>,
    clock: Clock,
    bounds: Bounds,
    shards: Shards,
    messages: Vec<UnboundedReceiver<Message>>,
    stopper: Stopper,
    faults: FaultSender,
    handshakes: Arc<HandshakeStats>,
}

/// A server that runs. Dropping it does not stop it: call [`Self::stop`] and [`Self::wait`].
pub struct Running {
    bound: Bound,
    handle: Handle,
    ended: Receiver<Ended>,
    shards: Vec<JoinHandle<()>>,
    verifiers: Verifiers,
    acceptor: JoinHandle<()>,
    stop_writer: Box<dyn FnOnce() -> Result<(), Fault> + Send>,
}

impl Server {
    /// Binds every listener and answers there, for as long as it takes to read the log. Call
    /// [`Starting::serve`] then.
    ///
    /// # Errors
    /// If an address cannot be used, or a thread or a runtime not be started.
    pub fn open(options: ServerOptions) -> Result<Starting, Fault> {
        let ServerOptions { shards: count, bounds, clock, .. } = options;
        let (faults, ended) = FaultSender::channel();
        let (shards, messages) = Shards::channels(count);
        let stopper = Stopper::new(shards.clone());
        let handshakes = Arc::new(HandshakeStats::default());
        let parts = AcceptorParts {
            address_limiter: options.address_limiter,
            bounds,
            clock,
            shards: shards.clone(),
            stats: Arc::clone(&handshakes),
        };
        let around = Surroundings { issuers: options.issuers, bounds, clock };
        let websocket = options
            .websocket
            .map(|options| (options.listen, Entrance::websocket(around.clone(), options)));
        let acceptor = Acceptor {
            mqtt: (options.listen, Entrance::mqtt(around, options.tls, options.proxy)),
            websocket,
            metrics: options.metrics,
            handle_signals: options.handle_signals,
            stopper: stopper.clone(),
            parts,
        };
        let (acceptor, bound, go) = acceptor.spawn(&faults)?;
        Ok(Starting {
            bound,
            go,
            ended,
            acceptor,
            clock,
            bounds,
            shards,
            messages,
            stopper,
            faults,
            handshakes,
        })
    }

    /// [`Self::open`] and [`Starting::serve`], where there is nothing to wait for.
    ///
    /// # Errors
    /// Those of both.
    pub fn start(options: ServerOptions, core: Core) -> Result<Running, Fault> {
        Self::open(options)?.serve(core)
    }
}

impl Starting {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.bound.mqtt
    }

    /// Where it serves `/metrics` and `/healthz`, if it does.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.bound.metrics
    }

    /// Starts the writer and the shards, and lets clients in. Nobody is refused in between.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started, or the writer not.
    pub fn serve(self, core: Core) -> Result<Running, Fault> {
        let Self { bound, go, ended, acceptor, clock, bounds, .. } = self;
        let Self { shards, messages, stopper, faults, handshakes, .. } = self;
        let events = writing::WriterEvents { shards: shards.clone(), faults: faults.clone() };
        let writer = (core.writer)(events)?;
        let count = bounds.verify_threads.unwrap_or_else(verifying::default_threads);
        let verifiers = Verifiers::start(count, &shards, &faults)?;
        let mut threads = Vec::new();
        for (number, messages) in (0..).zip(messages) {
            let parts = ShardParts {
                number,
                clock,
                bounds,
                broker: Arc::clone(&core.broker),
                messages,
                submit: Arc::clone(&writer.submit),
                verifiers: verifiers.queue(),
                faults: faults.clone(),
            };
            threads.push(spawn("avow-shard", &faults, move || shard::run(parts))?);
        }
        let handle = Handle::new(shards, stopper, faults, writer.stats, handshakes);
        // The acceptor answers Server busy until it hears this.
        let _ = go.send(handle.clone());
        let (shards, stop_writer) = (threads, writer.stop);
        Ok(Running { bound, handle, ended, shards, verifiers, acceptor, stop_writer })
    }
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.bound.mqtt
    }

    /// Where it serves MQTT over WebSocket, if it does.
    pub fn websocket_addr(&self) -> Option<SocketAddr> {
        self.bound.websocket
    }

    /// Where it serves `/metrics` and `/healthz`, if it does.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.bound.metrics
    }

    /// A way to ask and tell the server from anywhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Asks the server to stop.
    pub fn stop(&self) {
        self.handle.stopper().stop();
    }

    /// Returns when the server has stopped as it was asked to: every session's end is on disk and
    /// the last checkpoint is published.
    ///
    /// # Errors
    /// Whatever [`Fault`] ended it. Exit at once then, with [`Fault::exit_code`]: threads may still
    /// run, and nothing that is not on disk was acknowledged.
    pub fn wait(self) -> Result<(), Fault> {
        let Self { handle, ended, shards, verifiers, acceptor, stop_writer, .. } = self;
        for _ in 0..shards.len() {
            match ended.recv() {
                Ok(Ended::Shard) => {}
                Ok(Ended::Fault(fault)) => {
                    handle.stopper().stop();
                    return Err(fault);
                }
                // The handle holds a sender, so this does not happen.
                Err(_) => break,
            }
        }
        for shard in shards {
            // Its panics were caught and told.
            let _ = shard.join();
        }
        verifiers.stop();
        stop_writer()?;
        let _ = acceptor.join();
        Ok(())
    }
}

/// What the acceptor's thread is made of.
struct Acceptor {
    mqtt: (SocketAddr, Entrance),
    websocket: Option<(SocketAddr, Entrance)>,
    metrics: Option<MetricsOptions>,
    handle_signals: bool,
    stopper: Stopper,
    parts: AcceptorParts,
}

/// Addresses as they were bound.
#[derive(Clone, Copy, Debug)]
struct Bound {
    mqtt: SocketAddr,
    websocket: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

type Go = tokio::sync::oneshot::Sender<Handle>;

impl Acceptor {
    /// Starts the thread and waits until it has bound its addresses. It lets clients in once it is
    /// told to go.
    fn spawn(self, faults: &FaultSender) -> Result<(JoinHandle<()>, Bound, Go), Fault> {
        if let Some(metrics) = self.metrics
            && !(metrics.allow_non_loopback || metrics.listen.ip().is_loopback())
        {
            return Err(Fault::MetricsExposed(metrics.listen));
        }
        let (go, told) = tokio::sync::oneshot::channel();
        let (bound_sender, bound) = sync_channel(1);
        let thread = spawn("avow-acceptor", faults, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .map_err(Fault::system("start the acceptor's runtime"));
            match runtime {
                Ok(runtime) => runtime.block_on(self.run(&bound_sender, told)),
                Err(fault) => {
                    let _ = bound_sender.send(Err(fault));
                }
            }
        })?;
        let bound = bound.recv().unwrap_or_else(|_| {
            let message = "it ended before it was bound".to_owned();
            Err(Fault::ThreadPanicked { thread: "avow-acceptor", message })
        })?;
        Ok((thread, bound, go))
    }

    async fn run(
        self,
        bound_sender: &std::sync::mpsc::SyncSender<Result<Bound, Fault>>,
        told: tokio::sync::oneshot::Receiver<Handle>,
    ) {
        let listening = async {
            let mqtt = bind(self.mqtt.0).await?;
            let websocket = match &self.websocket {
                Some((address, _)) => Some(bind(*address).await?),
                None => None,
            };
            let metrics = match self.metrics {
                Some(metrics) => Some(bind(metrics.listen).await?),
                None => None,
            };
            Ok((mqtt, websocket, metrics))
        };
        let (mqtt, websocket, metrics) = match listening.await {
            Ok(listening) => listening,
            Err(fault) => {
                let _ = bound_sender.send(Err(fault));
                return;
            }
        };
        let _ = bound_sender.send(Ok(Bound {
            mqtt: mqtt.1,
            websocket: websocket.as_ref().map(|(_, address)| *address),
            metrics: metrics.as_ref().map(|(_, address)| *address),
        }));
        let handle = Arc::new(OnceLock::new());
        let serving = metrics.map(|(listener, _)| {
            let stopper = self.stopper.clone();
            let stopped = async move { stopper.stopped().await };
            let source = handle::health_source(Arc::clone(&handle));
            tokio::task::spawn_local(crate::telemetry::serve(listener, source, stopped))
        });
        // An error means that the start failed: nobody to serve.
        let (stopper, handle_signals) = (self.stopper.clone(), self.handle_signals);
        let started = async move {
            let told = told.await.ok()?;
            if handle_signals {
                // Until here a signal ends the process at once: there is nothing to stop.
                drop(tokio::task::spawn_local(shutdown::stop_at_signal(stopper)));
            }
            let _ = handle.set(told);
            Some(())
        };
        let mqtt = (mqtt.0, self.mqtt.1);
        let websocket = websocket
            .zip(self.websocket)
            .map(|((listener, _), (_, entrance))| (listener, entrance));
        listener::accept(mqtt, websocket, self.parts, self.stopper, started).await;
        drop(serving);
    }
}

#[expect(clippy::disallowed_methods, reason = "the server's listening sockets")]
async fn bind(address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), Fault> {
    let failed = |source| Fault::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Starts a thread whose panic is a fault.
fn spawn(
    name: &'static str,
    faults: &FaultSender,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Fault> {
    let faults = faults.clone();
    let guarded = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let message = panic_message(&*panic);
            faults.send(Fault::ThreadPanicked { thread: name, message });
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(Fault::system("start a thread"))
}

#[cfg(test)]
mod tests;

//! The read API: the log's checkpoint and tiles over HTTPS, for auditors alone.
//!
//! What C2SP tlog-tiles calls a log's prefix, as static files: `/checkpoint`, `/tile/<L>/<N>` and
//! `/tile/entries/<N>`, and `/witness/checkpoint` beside them. A thread of its own serves it, so that a
//! reader costs no shard anything. A reader shows a certificate with the role `auditor`; everybody
//! else is answered 403, and so is whoever names an Origin: browsers send certificates by themselves,
//! and no page has business here. Bounded: connections, their life, headers, the time of each,
//! requests of an identity per second, identities that are remembered. The invariant: nothing is sent
//! before an entry that tells of it, or of the interval that it belongs to, is on disk.
#![expect(clippy::disallowed_methods, reason = "serves sockets")]

mod answer;
mod reads;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

use self::answer::{Answer, Denial, judge};
use self::reads::{Admitted, Reads};
use super::handshake::{self, Refused};
use super::{Clock, Handle};
use crate::broker::Administration;
use crate::identity::{Identity, Issuers};

/// Longest life of a connection, TLS handshake included: a certificate that was revoked or ran out is
/// believed no longer than that.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Longest time for a handshake, and to send the header of a request.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// Largest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How often intervals are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a read API is made of.
pub struct AuditApiOptions {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// TLS as [`super::tls::websocket_config`] makes it, with client certificates required.
    pub tls: Arc<rustls::ServerConfig>,
    /// Whom `tls` trusts.
    pub issuers: Arc<Issuers>,
    /// The directory of the log.
    pub directory: PathBuf,
    /// The process's clock.
    pub clock: Clock,
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Requests of one identity per second; as many may come at once.
    pub requests_per_second: u32,
}

/// A read API that serves until dropped.
#[derive(Debug)]
pub struct AuditApi {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AuditApi {
    /// Binds the address and serves; entries go to the broker behind `handle`.
    ///
    /// # Errors
    /// If the address cannot be used, or the system gives no thread.
    pub fn start(options: AuditApiOptions, handle: Handle) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = super::witness::runtime()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("avow-audit-api".to_owned());
        let thread = thread.spawn(move || {
            let served = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                let api = Arc::new(Api::new(options, handle));
                tokio::select! {
                    _ = stopped => {}
                    () = api.accept(listener) => {}
                    () = api.close_intervals() => {}
                }
                io::Result::Ok(())
            });
            if let Err(error) = served {
                tracing::error!(%error, "the log is served to auditors no more");
            }
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AuditApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It holds nothing that must be written: a panic in it was told on standard error.
            let _ = thread.join();
        }
    }
}

struct Api {
    options: AuditApiOptions,
    handle: Handle,
    tls: TlsAcceptor,
    places: Arc<Semaphore>,
    reads: Mutex<Reads>,
}

impl Api {
    fn new(options: AuditApiOptions, handle: Handle) -> Self {
        let tls = TlsAcceptor::from(Arc::clone(&options.tls));
        let places = Arc::new(Semaphore::new(options.connections_max));
        let reads = Mutex::new(Reads::new(options.requests_per_second));
        Self { options, handle, tls, places, reads }
    }

    async fn accept(self: &Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let api = Arc::clone(self);
            tokio::spawn(async move {
                let _place = place;
                // What ends early or late is the peer's loss.
                let _ = tokio::time::timeout(CONNECTION_MAX, api.connection(stream, peer)).await;
            });
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let shaken = tokio::time::timeout(HEADER_MAX, self.tls.accept(stream)).await;
        let entered = shaken.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                Refused::TIMED_OUT
            } else {
                Refused::of(&error)
            }
        });
        let identified = entered.and_then(|stream| {
            let now = self.options.clock.now();
            let issuers = &self.options.issuers;
            let facts = handshake::establish(stream.get_ref().1, peer, issuers, now)?;
            let facts = handshake::certified(facts)?;
            let identity = facts.identity().cloned().ok_or(Refused::FAILED)?;
            Ok((stream, identity))
        });
        let (stream, identity) = match identified {
            Ok(identified) => identified,
            Err(refused) => return self.handle.tell_refused(peer, refused.reason),
        };
        let service = service_fn(move |request| {
            let (api, identity) = (Arc::clone(&self), identity.clone());
            async move { Ok::<_, Infallible>(api.respond(&request, identity).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of an auditor ended early");
        }
    }

    /// Judges a request, records it or its interval, and only then answers.
    async fn respond(
        self: &Arc<Self>,
        request: &Request<Incoming>,
        identity: Identity,
    ) -> Response<Full<Bytes>> {
        let now = self.options.clock.instant();
        let judged = judge(request, &identity);
        let why = judged.as_ref().err().map(|denial| denial.name());
        let admitted = self.reads().admit(now, &identity, why);
        let judged = match admitted {
            Admitted::First | Admitted::Counted => judged,
            Admitted::TooMany { .. } => Err(Denial::TooMany),
            Admitted::NoRoom => return Answer::unavailable().response(),
        };
        if matches!(admitted, Admitted::First | Admitted::TooMany { is_first: true }) {
            let path = request.uri().path();
            let path = path.get(..path.floor_char_boundary(256)).unwrap_or_default();
            let asked = ("request", format!("{} {path}", request.method()));
            let why = judged.as_ref().err().map(|denial| denial.name());
            let api = Arc::clone(self);
            let record = move || api.record(&identity, why, vec![asked]);
            if !tokio::task::spawn_blocking(record).await.unwrap_or(false) {
                return Answer::unavailable().response();
            }
        }
        let directory = self.options.directory.clone();
        match judged {
            Ok(file) => {
                let read = tokio::task::spawn_blocking(move || file.read(&directory)).await;
                read.unwrap_or_else(|_| Answer::unavailable()).response()
            }
            Err(denial) => Answer::denied(denial).response(),
        }
    }

    /// Records reads of one identity; whether that is on disk.
    fn record(
        &self,
        identity: &Identity,
        why: Option<&'static str>,
        mut facts: Vec<(&'static str, String)>,
    ) -> bool {
        let result = if why.is_some() { "deny" } else { "allow" };
        facts.push(("result", result.to_owned()));
        facts.extend(why.map(|why| ("why", why.to_owned())));
        let subject = format!("{}/{}", identity.role().as_str(), identity.name());
        let read = Administration { ticket: 0, act: "log.read", subject, facts };
        let recorded = self.handle.record(read);
        if let Err(error) = &recorded {
            tracing::warn!(%error, "a reading was not recorded, and not answered");
        }
        recorded.is_ok()
    }

    /// Records what was counted in intervals that have ended.
    async fn close_intervals(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let ended = self.reads().ended(self.options.clock.instant());
            for (identity, why, more) in ended {
                let api = Arc::clone(self);
                let facts = vec![("reads", more.to_string())];
                let record = move || api.record(&identity, why, facts);
                // A broker that does not answer was told of in the log of the process.
                let _ = tokio::task::spawn_blocking(record).await;
            }
        }
    }

    fn reads(&self) -> std::sync::MutexGuard<'_, Reads> {
        // Nobody panics while holding the lock, and each row is whole at any time.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

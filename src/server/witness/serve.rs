//! A witness that serves `POST /add-checkpoint`.
//!
//! Plain HTTP, or TLS without client certificates: whoever asks is known by the log's signature
//! alone. Bounds: connections, their life, the header and the body of a request. The invariant: a
//! body reaches the disk only after its signature held.
#![expect(clippy::disallowed_methods, reason = "serves sockets")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::evidence::witness::{
    ADD_CHECKPOINT, AddCheckpoint, REQUEST_BYTES_MAX, SIZE_CONTENT_TYPE, WitnessRefusal, size_body,
};
use crate::evidence::witness_policy::PolicyLog;
use crate::evidence::{VerifierKey, WitnessKey};
use crate::server::Clock;
use crate::storage::RealDisk;
use crate::storage::witness_store::{KnownLog, NoCosignature, WitnessFault};

/// Connections at once; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest life of a connection, TLS handshake included.
pub const CONNECTION_MAX: Duration = Duration::from_secs(30);
/// Longest time to send the header of a request.
pub const HEADER_MAX: Duration = Duration::from_secs(10);
/// Largest header of a request, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 << 10;

const TEXT: &str = "text/plain; charset=utf-8";

/// Why a witness does not serve.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFrontFault {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// What it keeps cannot be read.
    #[error(transparent)]
    State(#[from] WitnessFault),
}

/// A witness: its key, and the logs that it knows.
#[derive(Debug)]
pub struct Witness {
    key: WitnessKey,
    clock: Clock,
    logs: BTreeMap<String, Mutex<KnownLog<RealDisk>>>,
}

/// What is answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Witness {
    /// Opens what `disk` keeps of each of `logs`. Several keys of one origin are one log.
    ///
    /// # Errors
    /// [`WitnessFault`], if what is kept of one of them is not believed.
    pub fn open(
        disk: &RealDisk,
        key: WitnessKey,
        logs: &[PolicyLog],
        clock: Clock,
    ) -> Result<Self, WitnessFault> {
        let mut keys = BTreeMap::<String, Vec<VerifierKey>>::new();
        for log in logs {
            keys.entry(log.key.name().to_owned()).or_default().push(log.key.clone());
        }
        let logs = keys.into_iter().map(|(origin, keys)| {
            let known = KnownLog::open(disk.clone(), &origin, keys)?;
            tracing::info!(
                origin,
                cosigned_entries = known.newest().map_or(0, |newest| newest.tree_size),
                "a log is known"
            );
            Ok((origin, Mutex::new(known)))
        });
        Ok(Self { key, clock, logs: logs.collect::<Result<_, WitnessFault>>()? })
    }

    /// Answers one request. Blocks for the disk.
    fn answer(&self, body: &[u8]) -> Answer {
        match self.cosign(body) {
            Ok(line) => Answer { status: 200, content_type: TEXT, body: line },
            Err(NoCosignature::Refused(WitnessRefusal::OtherSize { known })) => {
                Answer { status: 409, content_type: SIZE_CONTENT_TYPE, body: size_body(known) }
            }
            Err(NoCosignature::Refused(refusal)) => {
                let body = format!("{refusal}\n");
                Answer { status: refusal.status(), content_type: TEXT, body }
            }
            Err(NoCosignature::Fault(fault)) => {
                tracing::error!(%fault, "nothing is cosigned");
                Answer { status: 500, content_type: TEXT, body: "the witness failed\n".to_owned() }
            }
        }
    }

    fn cosign(&self, body: &[u8]) -> Result<String, NoCosignature> {
        let text = std::str::from_utf8(body).map_err(|_| WitnessRefusal::Malformed)?;
        let request: AddCheckpoint = text.parse()?;
        let log = self.logs.get(request.origin()?).ok_or(WitnessRefusal::UnknownLog)?;
        // A panic in there leaves a poisoned log behind, which signs nothing more.
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let known = log.newest().map_or(0, |newest| newest.tree_size);
        let cosigned = log.cosign(&request, &self.key, self.clock.now().unix.as_seconds());
        let size = log.newest().map_or(0, |newest| newest.tree_size);
        let origin = request.origin()?;
        match &cosigned {
            Ok(_) => tracing::debug!(origin, size, "cosigned"),
            // The log's own key has signed two trees.
            Err(NoCosignature::Refused(
                refusal @ (WitnessRefusal::OtherRoot | WitnessRefusal::Inconsistent(_)),
            )) => tracing::warn!(origin, known, %refusal, "a fork was refused"),
            Err(other) => tracing::debug!(origin, known, %other, "refused"),
        }
        cosigned
    }
}

/// Serves `witness` on `listener` until `stopped` is ready, over TLS if there is an acceptor.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    witness: Arc<Witness>,
    stopped: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stopped);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            () = &mut stopped => return,
            next = next => match next {
                Some(next) => next,
                None => return,
            },
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, witness) = (tls.clone(), Arc::clone(&witness));
        tokio::spawn(async move {
            let _place = place;
            // What ends early or late is the peer's loss.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection(stream, tls, witness)).await;
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, witness: Arc<Witness>) {
    match tls {
        None => requests(stream, witness).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                requests(stream, witness).await;
            }
        }
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, witness: Arc<Witness>) {
    let service = service_fn(move |request| {
        let witness = Arc::clone(&witness);
        async move { Ok::<_, Infallible>(respond(request, witness).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn respond(request: Request<Incoming>, witness: Arc<Witness>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path.strip_prefix('/') != Some(ADD_CHECKPOINT) {
        return response(Answer { status: 404, content_type: TEXT, body: String::new() });
    }
    if request.method() != Method::POST {
        return response(Answer { status: 405, content_type: TEXT, body: String::new() });
    }
    let Ok(body) = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await else {
        return response(Answer { status: 413, content_type: TEXT, body: String::new() });
    };
    let body = body.to_bytes();
    let answered = tokio::task::spawn_blocking(move || witness.answer(&body)).await;
    response(answered.unwrap_or_else(|_| {
        tracing::error!("the answer to a request panicked");
        Answer { status: 500, content_type: TEXT, body: String::new() }
    }))
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = hyper::header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

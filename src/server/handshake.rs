//! What follows a TLS handshake: who the peer is, and what the log will say of the connection.
//!
//! The verifier inside the handshake has already refused strangers; this second look makes the
//! facts, by the same decision ([`crate::identity::identify`]). No sockets are read here.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::socket::Handshaken;
use super::tls::{HandshakeFailure, TlsFacts};
use crate::broker::{Certified, ConnectionFacts};
use crate::identity::{Issuers, identify};
use crate::time::Now;

/// Why a connection got no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its stable name.
    pub(super) reason: &'static str,
}

impl Refused {
    /// The deadline from accept to CONNECT has passed.
    pub(super) const TIMED_OUT: Self = Self { reason: "io.timed_out" };
    /// The socket failed.
    pub(super) const FAILED: Self = Self { reason: "io.failed" };

    /// The reason behind what the handshake returned.
    pub(super) fn of(error: &io::Error) -> Self {
        Self { reason: HandshakeFailure::of(error).name() }
    }
}

/// Establishes who is at the other end of `stream`, and takes it out of this thread's reactor.
pub(super) fn establish(
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    issuers: &Issuers,
    now: Now,
) -> Result<(ConnectionFacts, Handshaken), Refused> {
    let (_, tls) = stream.get_ref();
    let certificates = tls.peer_certificates().unwrap_or_default();
    let certificate = identify(certificates, issuers, now.unix)
        .map_err(|refusal| Refused { reason: refusal.name() })?;
    let session = TlsFacts::of(tls).map_err(|_| Refused { reason: "tls.failed" })?;
    let facts = ConnectionFacts {
        certificate: Some(Certified::from(&certificate)),
        peer,
        tls_version: match session.version {
            rustls::ProtocolVersion::TLSv1_2 => "1.2",
            _ => "1.3",
        },
        tls_suite: session.suite.as_str().unwrap_or("unknown").to_owned(),
        exporter_sha256: session.exporter_hash,
    };
    let handshaken = Handshaken::detach(stream).map_err(|_| Refused::FAILED)?;
    Ok((facts, handshaken))
}

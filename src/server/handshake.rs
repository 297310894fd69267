//! What follows a TLS handshake: who the peer is, and what the log will say of the connection.
//!
//! The verifier inside the handshake has already refused strangers; this second look makes the
//! facts, by the same decision ([`crate::identity::identify`]). No sockets are read here.

use std::io;
use std::net::SocketAddr;

use rustls::ServerConnection;

use super::proxy::ProxyRefusal;
use super::tls::{HandshakeFailure, TlsFacts};
use super::upgrade::UpgradeRefusal;
use crate::broker::{Certified, ConnectionFacts};
use crate::identity::{CertificateRefusal, Issuers, identify};
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

impl From<ProxyRefusal> for Refused {
    fn from(refusal: ProxyRefusal) -> Self {
        Self { reason: refusal.name() }
    }
}

impl From<UpgradeRefusal> for Refused {
    fn from(refusal: UpgradeRefusal) -> Self {
        Self { reason: refusal.name() }
    }
}

/// Establishes who is at the other end of `tls`, whose address is `peer`, and what the log will say
/// of it. Without a certificate nobody is anybody yet: whether that may be is for the caller to say,
/// and then a token in CONNECT must name it.
pub(super) fn establish(
    tls: &ServerConnection,
    peer: SocketAddr,
    issuers: &Issuers,
    now: Now,
) -> Result<ConnectionFacts, Refused> {
    let certificates = tls.peer_certificates().unwrap_or_default();
    let certificate = match certificates {
        [] => None,
        _ => {
            let facts = identify(certificates, issuers, now.unix)
                .map_err(|refusal| Refused { reason: refusal.name() })?;
            Some(Certified::from(&facts))
        }
    };
    let session = TlsFacts::of(tls).map_err(|_| Refused { reason: "tls.failed" })?;
    Ok(ConnectionFacts {
        certificate,
        peer,
        tls_version: match session.version {
            rustls::ProtocolVersion::TLSv1_2 => "1.2",
            _ => "1.3",
        },
        tls_suite: session.suite.as_str().unwrap_or("unknown").to_owned(),
        exporter_sha256: session.exporter_hash,
    })
}

/// The facts of a peer on a listener where nothing but a certificate names it.
pub(super) fn certified(facts: ConnectionFacts) -> Result<ConnectionFacts, Refused> {
    match facts.certificate {
        Some(_) => Ok(facts),
        None => Err(Refused { reason: CertificateRefusal::NoCertificate.name() }),
    }
}

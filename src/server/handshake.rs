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
use crate::broker::ConnectionFacts;
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

/// Who TLS says is there.
#[derive(Debug)]
pub(super) enum Peer {
    /// Whoever the certificate names.
    Named(Box<ConnectionFacts>),
    /// A peer without a certificate, where the listener lets it come so far. It has no identity,
    /// and so no shard and no session; a credential in CONNECT would have to make it one.
    Nameless,
}

impl Peer {
    /// The facts of a peer on a listener where nothing but a certificate names it.
    pub(super) fn named(self) -> Result<ConnectionFacts, Refused> {
        match self {
            Self::Named(facts) => Ok(*facts),
            Self::Nameless => Err(Refused { reason: CertificateRefusal::NoCertificate.name() }),
        }
    }
}

/// Establishes who is at the other end of `tls`, whose address is `peer`.
pub(super) fn establish(
    tls: &ServerConnection,
    peer: SocketAddr,
    issuers: &Issuers,
    now: Now,
) -> Result<Peer, Refused> {
    let certificates = tls.peer_certificates().unwrap_or_default();
    if certificates.is_empty() {
        return Ok(Peer::Nameless);
    }
    let certificate = identify(certificates, issuers, now.unix)
        .map_err(|refusal| Refused { reason: refusal.name() })?;
    let session = TlsFacts::of(tls).map_err(|_| Refused { reason: "tls.failed" })?;
    Ok(Peer::Named(Box::new(ConnectionFacts {
        identity: certificate.identity().clone(),
        x5t: *certificate.x5t(),
        spki_sha256: *certificate.spki_sha256(),
        issuer_name: certificate.issuer_name().to_owned(),
        serial: certificate.serial().to_owned(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        peer,
        tls_version: match session.version {
            rustls::ProtocolVersion::TLSv1_2 => "1.2",
            _ => "1.3",
        },
        tls_suite: session.suite.as_str().unwrap_or("unknown").to_owned(),
        exporter_sha256: session.exporter_hash,
    })))
}

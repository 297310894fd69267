//! TLS as Avow speaks it: one configuration for its listeners, one for its own clients.
//!
//! rustls on aws-lc-rs, the provider built here and named explicitly, so that no other crate's
//! process default can change it. TLS 1.3 is preferred; 1.2 only with ECDHE, an AEAD and the
//! extended master secret (RFC 7627), without which an exporter would not be bound to the
//! handshake. Every client shows a certificate ([`crate::identity::verifier`]), except where a
//! WebSocket listener is told that it need not.
//!
//! Resumption is off, and so is early data: rustls does not run the client verifier when a
//! session resumes, so a ticket would outlive the revocation or the expiry of its certificate.
//! Invariant: each connection is a full handshake, and a certificate in it is judged at that
//! moment. MQTT and WebSocket listeners share no protocol name, so that a client of one cannot be
//! led to the other.
//!
//! Not here: sockets, deadlines, who the peer is. RFC 8446, RFC 5246, RFC 5705 (exporters).

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::crypto::{self, CryptoProvider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{
    CipherSuite, ClientConfig, ConnectionCommon, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{AvowClientVerifier, CertificateRefusal, Issuers};

/// The label of the exporter whose output names a connection in the log.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-avow-connection";

/// The ALPN name of MQTT. Clients that offer no protocol at all are accepted too.
pub const ALPN_MQTT: &[u8] = b"mqtt";

/// The ALPN name of what a WebSocket begins as. Clients that offer no protocol are accepted too.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// Whether a client of a WebSocket listener must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It must.
    Required,
    /// It is asked for one and may do without. Chromium is not among those who do: it gives up a
    /// WebSocket that is asked for a certificate which its user has not chosen before.
    Optional,
    /// It is not asked.
    None,
}

/// The cipher suites, best first: every one has forward secrecy and an AEAD.
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The versions, best first.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// The content of a PEM file, with the name that errors give it.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// Why TLS cannot be configured, or a connection not be described.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file is not PEM.
    #[error("{file}: not PEM: {source}")]
    Pem {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{file}: holds no certificate (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate {
        /// The file.
        file: String,
    },
    /// A file holds no private key.
    #[error("{file}: holds no private key (`-----BEGIN PRIVATE KEY-----`)")]
    NoPrivateKey {
        /// The file.
        file: String,
    },
    /// A certificate cannot be a trust anchor.
    #[error("{file}: certificate {number} cannot be a trust anchor: {source}")]
    Anchor {
        /// The file.
        file: String,
        /// Which one, counted from 1.
        number: usize,
        /// Why not.
        source: rustls::Error,
    },
    /// Certificate and key do not make a credential.
    #[error("{certificate_file} and {key_file} do not belong together{}", beyond_that(source))]
    Credential {
        /// The certificate's file.
        certificate_file: String,
        /// The key's file.
        key_file: String,
        /// Why not.
        source: rustls::Error,
    },
    /// The trust anchors make no verifier.
    #[error("{file}: {source}")]
    Verifier {
        /// The file.
        file: String,
        /// Why not.
        source: rustls::server::VerifierBuilderError,
    },
    /// The provider does not support what is configured here.
    #[error("the TLS provider: {0}")]
    Provider(#[source] rustls::Error),
    /// The handshake is not complete, so there is nothing to describe.
    #[error("the handshake is not complete")]
    NotEstablished,
}

/// What rustls says, unless it says the same again.
fn beyond_that(source: &rustls::Error) -> String {
    match source {
        rustls::Error::InconsistentKeys(_) => String::new(),
        other => format!(": {other}"),
    }
}

/// The configuration of a listener that shows `chain` (end entity first) with `key`, and accepts
/// the clients that `issuers` vouch for.
///
/// # Errors
/// A [`TlsFault`] that names the file.
pub fn server_config(
    chain: Pem<'_>,
    key: Pem<'_>,
    issuers: Arc<Issuers>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    server_config_at(chain, key, issuers, Arc::new(DefaultTimeProvider))
}

/// As [`server_config`], of a WebSocket listener.
///
/// # Errors
/// A [`TlsFault`] that names the file.
pub fn websocket_config(
    chain: Pem<'_>,
    key: Pem<'_>,
    issuers: Arc<Issuers>,
    client_certificate: ClientCertificate,
) -> Result<Arc<ServerConfig>, TlsFault> {
    let time = Arc::new(DefaultTimeProvider);
    websocket_config_at(chain, key, issuers, client_certificate, time)
}

pub(super) fn server_config_at(
    chain: Pem<'_>,
    key: Pem<'_>,
    issuers: Arc<Issuers>,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    listener_config(chain, key, Arc::new(AvowClientVerifier::new(issuers)), ALPN_MQTT, time)
}

pub(super) fn websocket_config_at(
    chain: Pem<'_>,
    key: Pem<'_>,
    issuers: Arc<Issuers>,
    client_certificate: ClientCertificate,
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    let verifier: Arc<dyn ClientCertVerifier> = match client_certificate {
        ClientCertificate::Required => Arc::new(AvowClientVerifier::new(issuers)),
        ClientCertificate::Optional => Arc::new(AvowClientVerifier::optional(issuers)),
        ClientCertificate::None => WebPkiClientVerifier::no_client_auth(),
    };
    listener_config(chain, key, verifier, ALPN_HTTP, time)
}

/// The configuration of a server that asks for no certificate: `chain` (end entity first) with `key`.
///
/// # Errors
/// A [`TlsFault`] that names the file.
pub fn https_server_config(chain: Pem<'_>, key: Pem<'_>) -> Result<Arc<ServerConfig>, TlsFault> {
    let time = Arc::new(DefaultTimeProvider);
    listener_config(chain, key, WebPkiClientVerifier::no_client_auth(), ALPN_HTTP, time)
}

fn listener_config(
    chain: Pem<'_>,
    key: Pem<'_>,
    verifier: Arc<dyn ClientCertVerifier>,
    protocol: &[u8],
    time: Arc<dyn TimeProvider>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    let mut config = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&VERSIONS)
        .map_err(TlsFault::Provider)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(chain)?, private_key(key)?)
        .map_err(|source| TlsFault::Credential {
            certificate_file: chain.file.to_owned(),
            key_file: key.file.to_owned(),
            source,
        })?;
    // Nothing to resume from, in either version: no tickets, no session ids. `ticketer` is left
    // at its default, which makes no tickets.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.require_ems = true;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// The configuration of a client that trusts the CAs in `ca` and shows `chain` with `key`.
///
/// # Errors
/// A [`TlsFault`] that names the file.
pub fn client_config(
    ca: Pem<'_>,
    chain: Pem<'_>,
    key: Pem<'_>,
) -> Result<Arc<ClientConfig>, TlsFault> {
    let time = Arc::new(DefaultTimeProvider);
    client_config_at(ca, Some((chain, key)), &VERSIONS, time).map(Arc::new)
}

/// The configuration of an HTTPS client that trusts the CAs in `ca` and shows nothing.
///
/// # Errors
/// A [`TlsFault`] that names the file.
pub fn https_client_config(ca: Pem<'_>) -> Result<Arc<ClientConfig>, TlsFault> {
    let mut config = client_config_at(ca, None, &VERSIONS, Arc::new(DefaultTimeProvider))?;
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    Ok(Arc::new(config))
}

pub(super) fn client_config_at(
    ca: Pem<'_>,
    credential: Option<(Pem<'_>, Pem<'_>)>,
    versions: &[&'static SupportedProtocolVersion],
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, TlsFault> {
    let mut roots = RootCertStore::empty();
    for (number, der) in (1..).zip(certificates(ca)?) {
        let file = || ca.file.to_owned();
        roots.add(der).map_err(|source| TlsFault::Anchor { file: file(), number, source })?;
    }
    let provider = provider();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| TlsFault::Verifier { file: ca.file.to_owned(), source })?;
    let builder = ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(versions)
        .map_err(TlsFault::Provider)?
        .with_webpki_verifier(verifier);
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|source| TlsFault::Credential {
                certificate_file: chain.file.to_owned(),
                key_file: key.file.to_owned(),
                source,
            })?,
    };
    config.resumption = Resumption::disabled();
    config.require_ems = true;
    config.alpn_protocols = vec![ALPN_MQTT.to_vec()];
    Ok(config)
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// [`TlsFault::Pem`], [`TlsFault::NoCertificate`].
pub fn certificates(pem: Pem<'_>) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let file = || pem.file.to_owned();
    let certificates = CertificateDer::pem_slice_iter(pem.text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsFault::Pem { file: file(), source })?;
    if certificates.is_empty() {
        return Err(TlsFault::NoCertificate { file: file() });
    }
    Ok(certificates)
}

/// The first private key in a PEM file.
fn private_key(pem: Pem<'_>) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let file = pem.file.to_owned();
    PrivateKeyDer::from_pem_slice(pem.text.as_bytes()).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsFault::NoPrivateKey { file },
        source => TlsFault::Pem { file, source },
    })
}

/// aws-lc-rs with our cipher suites; its key exchange groups begin with X25519MLKEM768.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = CIPHER_SUITES.to_vec();
    Arc::new(CryptoProvider { cipher_suites, ..crypto::aws_lc_rs::default_provider() })
}

/// What the log says about a connection's TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version of the protocol.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// SHA-256 of 32 bytes exported under [`EXPORTER_LABEL`] without a context: both ends can
    /// compute it, nobody else can, and it never repeats.
    pub exporter_hash: [u8; 32],
}

impl TlsFacts {
    /// The facts of a connection whose handshake is complete; of either side.
    ///
    /// # Errors
    /// [`TlsFault::NotEstablished`] before the handshake is complete.
    pub fn of<Side>(connection: &ConnectionCommon<Side>) -> Result<Self, TlsFault> {
        let established = !connection.is_handshaking();
        let (true, Some(version), Some(suite)) =
            (established, connection.protocol_version(), connection.negotiated_cipher_suite())
        else {
            return Err(TlsFault::NotEstablished);
        };
        let exported = connection
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .map_err(|_| TlsFault::NotEstablished)?;
        let exporter_hash =
            digest(&SHA256, &exported).as_ref().try_into().map_err(|_| TlsFault::NotEstablished)?;
        Ok(Self { version, suite: suite.suite(), exporter_hash })
    }
}

/// Why a handshake did not complete: what the acceptor counts and records.
#[derive(Debug)]
pub enum HandshakeFailure {
    /// The client's certificate was refused.
    Certificate(CertificateRefusal),
    /// The peer broke TLS, or shares no version, suite or group with us.
    Tls(rustls::Error),
    /// The connection ended or failed.
    Io(io::ErrorKind),
}

impl HandshakeFailure {
    /// The failure behind what `tokio_rustls`'s acceptor returned.
    pub fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            None => Self::Io(error.kind()),
            Some(tls) => match CertificateRefusal::of(tls) {
                Some(refusal) => Self::Certificate(refusal),
                None => Self::Tls(tls.clone()),
            },
        }
    }

    /// Its stable name: `certificate.reason`, `tls.reason` or `io.reason`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Certificate(refusal) => refusal.name(),
            Self::Tls(error) => match error {
                rustls::Error::PeerIncompatible(_) => "tls.incompatible",
                rustls::Error::NoApplicationProtocol => "tls.application_protocol",
                rustls::Error::AlertReceived(_) => "tls.alert_received",
                rustls::Error::PeerMisbehaved(_)
                | rustls::Error::InappropriateMessage { .. }
                | rustls::Error::InappropriateHandshakeMessage { .. } => "tls.misbehaved",
                rustls::Error::InvalidMessage(_) => "tls.malformed",
                rustls::Error::DecryptError | rustls::Error::PeerSentOversizedRecord => {
                    "tls.record"
                }
                // rustls's enum is open.
                _ => "tls.failed",
            },
            Self::Io(io::ErrorKind::UnexpectedEof) => "io.closed",
            Self::Io(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "io.reset",
            Self::Io(io::ErrorKind::TimedOut) => "io.timed_out",
            Self::Io(_) => "io.failed",
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(refusal) => refusal.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Io(kind) => kind.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;

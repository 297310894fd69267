//! Everything that can happen to a [`super::Broker`].

use std::net::SocketAddr;
use std::sync::Arc;

use crate::evidence::erasure::IndexRanges;
use crate::evidence::{PseudonymKey, Synced, Verified};
use crate::identity::{CertificateFacts, CertificationPath, DeviceKey, Identity};
use crate::mqtt::{Packet, ProtocolVersion, Violation};
use crate::time::{Instant, UnixNanos};

/// Names one Network Connection for as long as the process runs; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the shell knows of a Network Connection once its handshake is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// What its certificate says. Absent where the listener lets a client come without one: then a
    /// token in CONNECT must name it.
    pub certificate: Option<Certified>,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// `1.2` or `1.3`.
    pub tls_version: &'static str,
    /// Name of the cipher suite.
    pub tls_suite: String,
    /// SHA-256 of exported keying material: names this very TLS session.
    pub exporter_sha256: [u8; 32],
}

/// What a verified client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Who it is.
    pub identity: Identity,
    /// SHA-256 of the DER of the end entity certificate.
    pub x5t: [u8; 32],
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Its key, if statements can be signed with it.
    pub key: Option<DeviceKey>,
    /// Distinguished name of its issuer, as text.
    pub issuer_name: String,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// Start of its validity.
    pub not_before: UnixNanos,
    /// End of its validity: the session ends then.
    pub not_after: UnixNanos,
    /// The certificate and those that vouched for it, for the `cert` entry. Absent where nobody
    /// has them, as in a simulation: then there is no such entry.
    pub path: Option<Arc<CertificationPath>>,
}

impl From<&CertificateFacts> for Certified {
    fn from(facts: &CertificateFacts) -> Self {
        Self {
            identity: facts.identity().clone(),
            x5t: *facts.x5t(),
            spki_sha256: *facts.spki_sha256(),
            key: facts.key().cloned(),
            issuer_name: facts.issuer_name().to_owned(),
            serial: facts.serial().to_owned(),
            not_before: facts.not_before(),
            not_after: facts.not_after(),
            path: Some(Arc::clone(facts.path())),
        }
    }
}

impl ConnectionFacts {
    /// Who the handshake says it is.
    pub fn identity(&self) -> Option<&Identity> {
        self.certificate.as_ref().map(|certified| &certified.identity)
    }
}

/// One event. The shell hands them over in the order they happened.
#[derive(Debug)]
pub enum Input {
    /// When a handshake is done, and whoever has a certificate has an identity. The CONNECT packet must follow
    /// before `connect_deadline`.
    Opened {
        /// The connection.
        connection: ConnectionId,
        /// What is known of it.
        facts: Arc<ConnectionFacts>,
        /// When it is closed unless CONNECT has come.
        connect_deadline: Instant,
    },
    /// When packets were decoded, in order. The shell sends CONNECT alone and reads no further
    /// until [`super::Output::Resume`].
    Packets {
        /// The connection.
        connection: ConnectionId,
        /// The packets.
        packets: Vec<Packet>,
    },
    /// When the bytes after the last packet are no packet. Nothing more comes from it.
    Violated {
        /// The connection.
        connection: ConnectionId,
        /// What was wrong.
        violation: Violation,
        /// The protocol version, as far as the decoder knew it.
        version: Option<ProtocolVersion>,
    },
    /// When the Network Connection is gone. The last input of a connection.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// How it ended.
        cause: CloseCause,
    },
    /// When `bytes` of deliveries were handed to the socket: room for as many more.
    Written {
        /// The connection.
        connection: ConnectionId,
        /// Bytes of [`super::Output::Deliver`] among what was written.
        bytes: usize,
    },
    /// When [`super::Broker::handle_timeout`] follows: what the sockets have carried since the
    /// start, as Control Packets.
    Carried {
        /// Bytes received.
        received_bytes: u64,
        /// Bytes sent.
        sent_bytes: u64,
    },
    /// When the writer has a batch on disk. Batches come back in the order they were given.
    Sequenced(Synced),
    /// When the signature of a message was looked at: answers [`super::Output::Verify`].
    Verified {
        /// The connection, which may be gone.
        connection: ConnectionId,
        /// What [`crate::evidence::VerifyJob::run`] said.
        verified: Verified,
    },
    /// When a handshake was refused before there was an identity.
    HandshakeRefused {
        /// Address of the peer.
        peer: SocketAddr,
        /// Stable name of the reason, `certificate.…` or `tls.…`.
        reason: &'static str,
    },
    /// When clients were refused while there was no broker yet, because the log was being read.
    /// Before every input of a connection.
    StartRefused {
        /// How many CONNECT packets; more than 0.
        count: u64,
        /// When the first came.
        since: UnixNanos,
    },
    /// When pseudonyms are to be made with another key from now on.
    PseudonymKey(Arc<PseudonymKey>),
    /// When the wall clock is found to have been set: it does not show what it should by the clock
    /// that nobody can set. Before every input that has the new time.
    ClockStepped {
        /// What it should show now.
        expected: UnixNanos,
    },
    /// When bodies are to be erased: the broker forgets them, and records that it begins. Once that
    /// is on disk, nothing more that holds them comes from here.
    Erase {
        /// Indices of the entries that they belong to.
        ranges: Arc<IndexRanges>,
        /// What is recorded.
        administration: Administration,
    },
    /// When an operator did something that must stand in the log.
    Administered(Administration),
    /// When the shell wants to stop: every session is told, a `stop` entry is written, and
    /// [`super::Output::Stopped`] follows once that is on disk.
    Stop,
}

/// Why, in the entry of [`Input::StartRefused`].
pub const SERVER_STARTING: &str = "server.starting";

/// How a Network Connection ended, as the shell saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed it.
    Peer,
    /// Reading or writing failed.
    Transport,
    /// The peer broke the framing around its packets: a WebSocket of text, or none.
    Framing,
    /// We closed it, after [`super::Output::Close`].
    Ours,
    /// The connection's own task failed.
    TaskFailed,
}

/// An operator's act, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administration {
    /// Chosen by the shell; given back in [`super::Output::Administered`] once it is on disk.
    pub ticket: u64,
    /// Stable name of the act, such as `certificate.issue`.
    pub act: &'static str,
    /// Who or what it was done to, such as `device/press-7`.
    pub subject: String,
    /// Facts, in order, as names and values.
    pub facts: Vec<(&'static str, String)>,
}

//! `avow.toml` to checked values: every one with a unit, bounds and a safe default.
//!
//! Parsing is pure; [`load`] alone opens a file. The file is read to its end and every problem in
//! it is reported at once, with file, line, caret and fix. The invariant: a [`Config`] that exists
//! is consistent, and nothing in it is unlimited. Policy, schemas and certificates are named here
//! and read by their own rooms.

mod audit_api;
mod limits;
mod listen;
mod load;
mod place;
mod privacy;
mod problem;
mod section;
mod sections;
mod server;
#[cfg(test)]
mod tests;
mod tokens;
mod value;
mod witness;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use audit_api::AuditApiConfig;
pub use load::{LoadError, SecretError, load};
pub use place::Setting;
pub use privacy::Privacy;
pub use problem::ConfigProblem;
pub use tokens::{TokenKeyConfig, Tokens};
pub use value::{Secret, format_bytes, format_duration, parse_bytes, parse_duration};
pub use witness::WitnessConfig;

use crate::broker::About;
use crate::identity::Role;
use crate::limits::{LimitsConfig, Network};
use crate::session::Bounds;
use crate::source::{Problems, SourceErrors};

/// Name of the configuration file within the directory of a broker.
pub const FILE_NAME: &str = "avow.toml";

/// Everything `avow.toml` says. Paths are already relative to the directory it stands in.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the broker.
    pub dir: PathBuf,
    /// `[node]`.
    pub node: Node,
    /// `[listen]`.
    pub listen: Listen,
    /// `[tls]`.
    pub tls: Tls,
    /// Each `[[issuer]]`; at least one.
    pub issuers: Vec<IssuerConfig>,
    /// `[token]`, and each `[[token_key]]`.
    pub tokens: Tokens,
    /// `[files]`.
    pub files: Files,
    /// `[metrics]`; absent turns it off.
    pub metrics: Option<Metrics>,
    /// `[audit_api]`; absent turns it off.
    pub audit_api: Option<AuditApiConfig>,
    /// `[mqtt]` and `[session]`.
    pub bounds: Bounds,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `[evidence]`.
    pub evidence: Evidence,
    /// `[privacy]`.
    pub privacy: Privacy,
    /// `[server]`.
    pub about: About,
    /// `[log]`.
    pub log: Log,
    /// What was read, to point into.
    text: place::FileText,
}

/// What this broker is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name: stands in every log entry.
    pub name: String,
    /// The trust domain that it issues names in.
    pub trust_domain: String,
}

/// Where Network Connections come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address of MQTT over TLS.
    pub mqtt: SocketAddr,
    /// Most TLS handshakes under way at once.
    pub handshakes_max: u32,
    /// Time from accept to a whole CONNECT packet.
    pub connect_timeout: Duration,
    /// Most Network Connections at once.
    pub connections_max: u32,
    /// The proxies before it; none: the address of a socket is that of its client.
    pub proxy: Option<Proxy>,
    /// `[listen.websocket]`; absent turns it off.
    pub websocket: Option<WebSocketListen>,
}

/// Where browsers come in: MQTT over WebSocket over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketListen {
    /// Its address.
    pub address: SocketAddr,
    /// The one path that is served.
    pub path: String,
    /// The Origins of the pages that may connect, in the form that browsers write.
    pub origins: Vec<String>,
    /// Whether a client that names no Origin may connect.
    pub allow_no_origin: bool,
    /// Whether a client must show a certificate.
    pub client_certificate: ClientCertificate,
    /// Longest WebSocket message, in bytes; not below the longest packet.
    pub message_bytes_max: u32,
    /// The proxies before it; none: the address of a socket is that of its client.
    pub proxy: Option<Proxy>,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It must.
    Required,
    /// It is asked for one and may do without.
    Optional,
    /// It is not asked.
    None,
}

/// Proxies that tell whose connections they carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// How they tell.
    pub protocol: ProxyProtocol,
    /// Who they are; at least one block, and never everybody.
    pub trusted: Vec<Network>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How the broker proves itself to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM: the server certificate, then its issuers.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: Secret,
}

/// Someone whose certificates are accepted, and the names it may give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Its id: part of every identity that it vouches for.
    pub id: String,
    /// PEM: its trust anchors.
    pub anchors: PathBuf,
    /// The trust domain that it may name.
    pub trust_domain: String,
    /// The roles that it may name; at least one.
    pub roles: Vec<Role>,
    /// What the names must begin with; empty: any name.
    pub name_prefix: String,
}

/// The other files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The policy.
    pub policy: PathBuf,
    /// The directory of schemas.
    pub schemas: PathBuf,
}

/// Prometheus metrics and the health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Their address.
    pub address: SocketAddr,
}

/// The log of evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Name of the log in its checkpoints.
    pub origin: String,
    /// The directory of its segments.
    pub directory: PathBuf,
    /// PEM: the Ed25519 key that signs checkpoints.
    pub key: Secret,
    /// PEM: the Ed25519 key that signs receipts.
    pub receipt_key: Secret,
    /// Size of one segment, in bytes.
    pub segment_bytes: u64,
    /// Whether the log is kept as C2SP tiles beside its segments.
    pub tiles: bool,
    /// Longest time between an entry and the checkpoint that covers it.
    pub checkpoint_interval: Duration,
    /// Most bytes waiting for the disk; then sockets are not read.
    pub backlog_bytes_max: u64,
    /// Most entries waiting for the disk; then sockets are not read.
    pub backlog_entries_max: u32,
    /// What happens when evidence cannot be written.
    pub on_evidence_failure: OnEvidenceFailure,
    /// How far the time of a device's statement may be from ours.
    pub device_clock_tolerance: Duration,
    /// How long a message may wait for the signature over its batch.
    pub cover_within: Duration,
    /// Most messages that wait for such a signature.
    pub links_max: u32,
    /// Most devices that may sign their messages.
    pub signers_max: u32,
    /// Threads that check signatures; none: as many as suit the machine.
    pub verify_threads: Option<usize>,
    /// `[evidence.witness]`; absent: nobody is asked.
    pub witness: Option<WitnessConfig>,
}

/// What happens when evidence cannot be written. There is one answer; it stands in the file so
/// that nobody has to guess it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEvidenceFailure {
    /// Nothing is acknowledged, the broker stops.
    Refuse,
}

/// The log of the process: what operators read. No payload and no key ever stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Form of a line.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The least severe level that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Faults only.
    Error,
    /// … and what an operator should look at.
    Warn,
    /// … and what happens to connections.
    Info,
    /// … and details.
    Debug,
}

impl LogLevel {
    /// As it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl Config {
    /// Reads the text of a file called `file_name` that stands in `dir`.
    ///
    /// # Errors
    /// Every problem of the file, up to [`crate::source::PROBLEMS_MAX`].
    pub fn parse(
        text: &str,
        file_name: &str,
        dir: &Path,
    ) -> Result<Self, SourceErrors<ConfigProblem>> {
        let mut problems = Problems::of(file_name, text);
        let table = problems.parse_toml(text);
        // What a broken syntax leaves over would only bring up problems that are none.
        let mut ignored = Problems::of(file_name, text);
        let broken = !problems.is_empty();
        let found = if broken { &mut ignored } else { &mut problems };
        let config = sections::read(&table, dir, place::FileText::new(file_name, text), found);
        problems.finish(config)
    }
}

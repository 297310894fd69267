//! `avow pub` and `avow sub`: a small MQTT client with mosquitto's short flags.
//!
//! It speaks through our codec over mutual TLS and has no session of its own: no automatic
//! reconnect, no store. What a broker refuses is said with its Reason Code and Reason String, and
//! the exit code is 1.

mod arguments;
mod connection;
mod publish;
mod receipt;
mod subscribe;

pub(super) use publish::{PublishArguments, run as publish};
pub(super) use subscribe::{SubscribeArguments, run as subscribe};

use std::path::PathBuf;

use crate::cli::files::FileFault;
use crate::cli::show::escape;
use crate::mqtt::{ReasonCode, TopicError, Violation};
use crate::server::tls::TlsFault;

/// Why a client gives up.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ClientFailure {
    /// A flag or a file that cannot be used.
    #[error("{0}")]
    Usage(&'static str),
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A `connect.json` that is none.
    #[error("{} is not a connect.json", path.display())]
    ConnectJson {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Certificate, key or anchors cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// Where the receipt should be stored.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Receipt(#[from] FileFault),
    /// A topic that is none.
    #[error("`{}` is not a topic to {doing}: {source}", escape(topic))]
    Topic {
        /// The text.
        topic: String,
        /// `publish to` or `subscribe to`.
        doing: &'static str,
        /// Why.
        source: TopicError,
    },
    /// No connection to the broker.
    #[error("cannot connect to {host}:{port}")]
    #[diagnostic(help("is the broker running? `avow --dir DIR serve` starts it"))]
    Unreachable {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {host} failed")]
    #[diagnostic(help(
        "the server certificate must name this host and chain to ca.pem; the client certificate \
         must come from an issuer of the broker and be valid now"
    ))]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The broker said no.
    #[error("{what} refused: {reason} (0x{:02x}){}", reason.as_u8(), said(text))]
    Refused {
        /// What was refused.
        what: String,
        /// Its Reason Code.
        reason: ReasonCode,
        /// Its Reason String.
        text: Option<String>,
    },
    /// The broker ended the connection.
    #[error("the broker closed the connection")]
    #[diagnostic(help(
        "before CONNACK: the certificate was refused; after a 3.x PUBLISH: it was refused. The \
         reason stands in the log: `avow audit tail`"
    ))]
    Closed(#[source] Option<std::io::Error>),
    /// What came back is not MQTT.
    #[error("the broker broke the protocol")]
    Violation(#[from] Violation),
    /// A packet that cannot be sent.
    #[error("the packet cannot be encoded")]
    Encode(#[from] crate::mqtt::EncodeError),
    /// No answer in time.
    #[error("no {0} within 10 s")]
    Silent(&'static str),
    /// Fewer messages than asked for.
    #[error("{received} of {wanted} messages before the timeout")]
    TooFew {
        /// Messages that came.
        received: u64,
        /// Messages that were asked for.
        wanted: u64,
    },
}

fn said(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(": {}", escape(text))).unwrap_or_default()
}

impl ClientFailure {
    /// Whether the answer was no (exit 1), rather than none (exit 2).
    pub(super) fn is_denial(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Closed(_) | Self::TooFew { .. })
    }
}

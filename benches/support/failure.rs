//! Why a bench did not end with figures.

use std::io;

use avow::identity::authority::AuthorityFault;
use avow::identity::profile::ProfileFault;

/// Why a bench did not end with figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("certificates: {0}")]
    Authority(#[from] AuthorityFault),
    #[error("certificate profiles: {0}")]
    Profile(#[from] ProfileFault),
    #[error("a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("a statement: {0}")]
    Statement(#[from] avow_signer::SignError),
    #[error("the PEM in {0} is not what it should be")]
    Pem(&'static str),
    #[error("{program} {verb} failed: {stderr}")]
    Command { program: String, verb: &'static str, stderr: String },
    #[error("{0} did not listen in time; its last words: {1}")]
    NotListening(&'static str, String),
    #[error("{0} ended during the run; its last words: {1}")]
    Ended(&'static str, String),
    #[error("the shipped configuration has no field `{0}`")]
    NoField(&'static str),
    #[error("the broker answered {0} with Reason Code {1:#04x}")]
    Refused(&'static str, u8),
    #[error("the broker sent what no client expects: {0}")]
    Unexpected(&'static str),
    #[error("the broker closed a connection of ours")]
    Closed,
    #[error("usage: {0}")]
    Usage(&'static str),
    #[error(
        "{broker}: {acknowledged} of {published} publishes acknowledged, {delivered} of \
         {expected} deliveries seen"
    )]
    Lost { broker: &'static str, published: u64, acknowledged: u64, delivered: u64, expected: u64 },
    #[error("/proc says something else than expected")]
    Proc,
    #[error("audit verify of {0} messages failed: {1}")]
    Audit(u64, String),
}

/// Names what was tried when `source` came back.
pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Io { what, source }
}

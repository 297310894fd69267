//! Why a verb could not be carried out, and with which exit code that ends.

use std::io::IsTerminal as _;

use miette::{GraphicalReportHandler, GraphicalTheme};

use crate::cli::audit::answer::AnswerFault;
use crate::cli::client::ClientFailure;
use crate::cli::files::FileFault;
use crate::config::{LoadError, SecretError};
use crate::evidence::checkpoint::KeyError;
use crate::identity::authority::AuthorityFault;
use crate::identity::profile::{END_ENTITY_DAYS_MAX, ProfileFault};
use crate::identity::{IssuerFault, NameError};
use crate::policy::PolicyError;
use crate::schema::SchemaError;
use crate::server::admin::{ClientError, LockError};
use crate::server::tls::TlsFault;
use crate::storage::index::IndexFault;
use crate::storage::{StorageFault, VerifyFault};
use crate::telemetry::InitError;

/// Why a verb failed. Rendered once, at the edge.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CliFailure {
    /// The configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] LoadError),
    /// The policy.
    #[error("the policy does not hold")]
    #[diagnostic(transparent)]
    Policy(#[from] PolicyError),
    /// A file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileFault),
    /// The lock of the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The running broker.
    #[error(transparent)]
    Admin(#[from] ClientError),
    /// An answer of the running broker that is not understood.
    #[error("the broker answered something that is not understood")]
    Answer,
    /// The schemas.
    #[error("the schemas do not hold")]
    #[diagnostic(transparent)]
    Schema(#[from] SchemaError),
    /// An issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerFault),
    /// The log of the process.
    #[error(transparent)]
    Telemetry(#[from] InitError),
    /// The server could not start, or ended by a fault.
    #[error(transparent)]
    Server(#[from] crate::server::Fault),
    /// A record of the log that sessions cannot be restored from.
    #[error("entry {index} of the log, or a record next to it, cannot be replayed")]
    #[diagnostic(help("the log is whole, but a newer Avow has written it, or this one has a bug"))]
    Replay {
        /// Index of the entry, or of the next one.
        index: u64,
        /// What is wrong with it.
        source: crate::broker::BadRecord,
    },
    /// The demo.
    #[cfg(feature = "demo")]
    #[error(transparent)]
    Demo(#[from] crate::cli::demo::DemoFault),
    /// The system gave no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// `pub` or `sub`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Client(#[from] ClientFailure),
    /// The CA.
    #[error(transparent)]
    Authority(#[from] AuthorityFault),
    /// A certificate profile.
    #[error(transparent)]
    Profile(#[from] ProfileFault),
    /// A lifetime that no profile may give.
    #[error("--days {0} is outside 1..={END_ENTITY_DAYS_MAX}")]
    #[diagnostic(help("short lives limit what a stolen key is good for; the profile says 30"))]
    Days(u32),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The log key.
    #[error("the log key: {0}")]
    Key(#[from] KeyError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Certificates for TLS.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The log.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The log does not verify, or could not be read.
    #[error(transparent)]
    Verify(#[from] VerifyFault),
    /// The log could not be read as asked.
    #[error(transparent)]
    Read(#[from] AnswerFault),
    /// The query index.
    #[error(transparent)]
    Index(#[from] IndexFault),
    /// No such entry.
    #[error("there is no entry {0} in the log")]
    #[diagnostic(help("`avow audit tail` shows the newest ones"))]
    NoEntry(u64),
    /// A point in time that cannot be read.
    #[error("`{0}` is not a time")]
    #[diagnostic(help("write 2026-11-22T10:00:00Z, or 10m, 2h, 7d for that long ago"))]
    Time(String),
    /// An address that cannot be listened on.
    #[error("`{0}` is not an address and a port")]
    #[diagnostic(help("write 127.0.0.1:8883, 0.0.0.0:8883 or [::]:8883"))]
    Address(String),
}

impl CliFailure {
    /// 1 if the answer is no, 2 if there is none.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(failure) if failure.is_denial() => 1,
            Self::Verify(VerifyFault::Defect(_)) | Self::NoEntry(_) => 1,
            Self::Read(AnswerFault::NoEntry(_) | AnswerFault::Proof(_)) => 1,
            Self::Storage(fault)
            | Self::Verify(VerifyFault::Fault(fault))
            | Self::Index(IndexFault::Storage(fault))
            | Self::Read(
                AnswerFault::Storage(fault) | AnswerFault::Index(IndexFault::Storage(fault)),
            ) if fault.is_damage() => 1,
            Self::Server(fault) => fault.exit_code(),
            #[cfg(feature = "demo")]
            Self::Demo(_) => 2,
            Self::Config(_)
            | Self::Policy(_)
            | Self::File(_)
            | Self::Lock(_)
            | Self::Admin(_)
            | Self::Answer
            | Self::Schema(_)
            | Self::Issuer(_)
            | Self::Telemetry(_)
            | Self::Randomness
            | Self::Replay { .. }
            | Self::Client(_)
            | Self::Authority(_)
            | Self::Profile(_)
            | Self::Days(_)
            | Self::Name(_)
            | Self::Key(_)
            | Self::Secret(_)
            | Self::Tls(_)
            | Self::Storage(_)
            | Self::Verify(_)
            | Self::Read(_)
            | Self::Index(_)
            | Self::Time(_)
            | Self::Address(_) => 2,
        }
    }
}

/// Renders a failure on standard error: colours only for a terminal, and only if NO_COLOR is not
/// set.
pub fn report(failure: &CliFailure) {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !is_plain;
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        // A decision id that is broken in two can be neither copied nor searched for.
        .with_wrap_lines(false);
    match handler.render_report(&mut text, failure) {
        Ok(()) => eprint!("{text}"),
        Err(_) => eprintln!("{failure}"),
    }
}

//! Why a verb could not be carried out, and with which exit code that ends.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal as _;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use crate::cli::audit::answer::AnswerFault;
use crate::cli::audit::check_proof::CheckProofFailure;
use crate::cli::audit::stamps::StampFailure;
use crate::cli::audit::witnessed::NotWitnessed;
use crate::cli::client::ClientFailure;
use crate::cli::files::FileFault;
use crate::cli::receipt::ReceiptFailure;
use crate::cli::setting::SettingError;
use crate::cli::witness::WitnessFailure;
use crate::cli::witnesses::WitnessesProblem;
use crate::config::LoadError;
use crate::evidence::checkpoint::{KeyError, NoteError};
use crate::evidence::witness_policy::PolicyProblem;
use crate::identity::authority::AuthorityFault;
use crate::identity::grants::GrantsError;
use crate::identity::profile::{END_ENTITY_DAYS_MAX, ProfileFault};
use crate::identity::token::TokenKeyFault;
use crate::identity::{IssuerFault, NameError};
use crate::policy::PolicyError;
use crate::refusal::TokenRefusal;
use crate::schema::SchemaError;
use crate::server::admin::{ClientError, LockError};
use crate::source::SourceErrors;
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
    #[diagnostic(help("{}", lock_help(_0)))]
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
    #[error("--days {0} is outside 1 to {END_ENTITY_DAYS_MAX}")]
    #[diagnostic(help("short lives limit what a stolen key is good for; the profile says 30"))]
    Days(u32),
    /// A proof that cannot be checked.
    #[error(transparent)]
    #[diagnostic(transparent)]
    CheckProof(#[from] CheckProofFailure),
    /// Too few witnesses.
    #[error(transparent)]
    #[diagnostic(transparent)]
    NotWitnessed(#[from] NotWitnessed),
    /// A time-stamp.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Stamp(#[from] StampFailure),
    /// `avow witness`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Witness(#[from] WitnessFailure),
    /// A policy of witnesses, or a list of logs.
    #[error(transparent)]
    #[diagnostic(transparent)]
    WitnessPolicy(#[from] SourceErrors<PolicyProblem>),
    /// What `[evidence.witness]` comes to.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Witnesses(#[from] SourceErrors<WitnessesProblem>),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// See [`ReceiptFailure`].
    #[error(transparent)]
    #[diagnostic(transparent)]
    Receipt(#[from] ReceiptFailure),
    /// The log key.
    #[error("the log key: {0}")]
    Key(#[from] KeyError),
    /// A file that holds no verifier key.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help(
        "the log's own stands in DIR/log.vkey, and beside what `audit prove --out` wrote"
    ))]
    VerifierKey {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// What `avow.toml` names.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Setting(#[from] SettingError),
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
    /// An entry that nothing signed covers yet.
    #[error(
        "entry {index} is not covered by a checkpoint yet: the newest covers {covered} entries"
    )]
    #[diagnostic(help(
        "a running broker signs one at the latest {} after an entry (`checkpoint_interval`): ask \
         again then; `avow audit show {index}` shows it now",
        crate::config::format_duration(*interval)
    ))]
    NotCovered {
        /// The entry.
        index: u64,
        /// How many entries are covered.
        covered: u64,
        /// The longest time from an entry to its checkpoint.
        interval: std::time::Duration,
    },
    /// A checkpoint that somebody kept.
    #[error("{} is not a checkpoint of this log: {source}", path.display())]
    #[diagnostic(help("give the signed note as it was published, with its signature lines"))]
    KeptCheckpoint {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: NoteError,
    },
    /// An issuer that is not configured.
    #[error("`{id}` is not the id of an [[issuer]] in avow.toml")]
    #[diagnostic(help("the issuers are {}", known.join(", ")))]
    UnknownIssuer {
        /// What was asked for.
        id: String,
        /// The ids that there are.
        known: Vec<String>,
    },
    /// Roles or variables that no token can grant.
    #[error(transparent)]
    Grants(#[from] GrantsError),
    /// A variable that would never stand in a topic.
    #[error("the value of `{0}` is empty, or has `+`, `#` or `/` in it")]
    #[diagnostic(help("such a value never stands in a topic: give one level of it"))]
    TokenVariable(String),
    /// No key of tokens to sign with.
    #[error("{}", no_token_key(_0.as_deref()))]
    #[diagnostic(help(
        "write a [[token_key]] with `signing_key = \"file:…\"` into avow.toml; where others make \
         the tokens, they sign there"
    ))]
    NoTokenKey(Option<String>),
    /// A token that this broker would refuse.
    #[error("this broker would refuse the token: {0}")]
    #[diagnostic(help(
        "its [[token_key]] in avow.toml says which names and lifetimes it may give"
    ))]
    Token(#[from] TokenRefusal),
    /// The keys of tokens.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyFault),
    /// Standard input.
    #[error("cannot read standard input: {0}")]
    Stdin(std::io::Error),
    /// Keys of pseudonyms, and what they are asked for.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Privacy(#[from] crate::cli::privacy::PrivacyFault),
    /// A point in time that cannot be read.
    #[error("`{0}` is not a time")]
    #[diagnostic(help("write 2026-11-22T10:00:00Z, or 10m, 2h, 7d for that long ago"))]
    Time(String),
    /// An address that cannot be listened on.
    #[error("`{0}` is not an address and a port")]
    #[diagnostic(help("write 127.0.0.1:8883, 0.0.0.0:8883 or [::]:8883"))]
    Address(String),
}

fn no_token_key(kid: Option<&str>) -> String {
    match kid {
        Some(kid) => format!("there is no [[token_key]] `{kid}` with a signing_key"),
        None => "there is no [[token_key]] with a signing_key".to_owned(),
    }
}

fn lock_help(fault: &LockError) -> &'static str {
    match fault {
        LockError::Held { .. } => {
            "a log has one writer at a time; verbs that only read it work beside a broker"
        }
        LockError::Io { .. } => {
            "this verb writes in the directory, so it must be writable for the user that runs \
             `avow`; every `audit` verb but `reindex` works in one that is not"
        }
    }
}

impl CliFailure {
    /// 1 if the answer is no, 2 if there is none.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(failure) if failure.is_denial() => 1,
            Self::Verify(VerifyFault::Defect(_)) | Self::NoEntry(_) => 1,
            Self::NotWitnessed(_) => 1,
            Self::NotCovered { .. } | Self::Read(AnswerFault::Proof(_)) => 1,
            Self::Storage(fault)
            | Self::Verify(VerifyFault::Fault(fault))
            | Self::Index(IndexFault::Storage(fault))
            | Self::Read(
                AnswerFault::Storage(fault) | AnswerFault::Index(IndexFault::Storage(fault)),
            ) if fault.is_damage() => 1,
            Self::Server(fault) => fault.exit_code(),
            Self::Witness(failure) => failure.exit_code(),
            Self::Stamp(failure) => failure.exit_code(),
            #[cfg(feature = "demo")]
            Self::Demo(_) => 2,
            Self::Config(_)
            | Self::Receipt(_)
            | Self::Policy(_)
            | Self::WitnessPolicy(_)
            | Self::CheckProof(_)
            | Self::Witnesses(_)
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
            | Self::Grants(_)
            | Self::TokenVariable(_)
            | Self::NoTokenKey(_)
            | Self::Token(_)
            | Self::TokenKey(_)
            | Self::Stdin(_)
            | Self::Name(_)
            | Self::Key(_)
            | Self::VerifierKey { .. }
            | Self::KeptCheckpoint { .. }
            | Self::Setting(_)
            | Self::Storage(_)
            | Self::Verify(_)
            | Self::Read(_)
            | Self::Index(_)
            | Self::UnknownIssuer { .. }
            | Self::Privacy(_)
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
    eprint!("{}", render(failure, theme));
}

/// Each problem of a file with its line, or else the failure and what caused it.
fn render(failure: &CliFailure, theme: GraphicalTheme) -> String {
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        // A decision id that is broken in two can be neither copied nor searched for.
        .with_wrap_lines(false);
    let mut text = String::new();
    let rendered = match failure.related() {
        Some(mut problems) => {
            problems.try_for_each(|problem| handler.render_report(&mut text, problem))
        }
        None => handler.render_report(&mut text, &Told::of(failure)),
    };
    if rendered.is_err() { format!("{failure}\n") } else { text }
}

/// A failure and its causes, each said once: many a message has its cause in it already.
#[derive(Debug)]
struct Told {
    text: String,
    help: Option<String>,
    cause: Option<Box<Told>>,
}

impl Told {
    fn of(failure: &CliFailure) -> Self {
        let help = failure.help().map(|help| help.to_string());
        let text = failure.to_string();
        let cause = Self::cause(failure.source(), &text);
        Self { text, help, cause }
    }

    /// The first of `source` and its causes that `said` does not say.
    fn cause(mut source: Option<&dyn Error>, said: &str) -> Option<Box<Self>> {
        while let Some(error) = source {
            let text = error.to_string();
            if !said.contains(&text) {
                let cause = Self::cause(error.source(), &text);
                return Some(Box::new(Self { text, help: None, cause }));
            }
            source = error.source();
        }
        None
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &dyn Error)
    }
}

impl Diagnostic for Told {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: impl Into<CliFailure>) -> String {
        render(&failure.into(), GraphicalTheme::unicode_nocolor())
    }

    #[test]
    fn a_cause_is_said_once() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let in_it = crate::server::Fault::System { doing: "begin", source: missing() };
        insta::assert_snapshot!(told(in_it), @"  × cannot begin: entity not found");
        let below = FileFault::Io { doing: "read", path: "/d/x".into(), source: missing() };
        insta::assert_snapshot!(told(below), @r"
          × cannot read /d/x
          ╰─▶ entity not found
        ");
    }

    #[test]
    fn a_problem_of_a_file_is_said_once_and_with_its_line() {
        let text = "[node]\nname = \"a b\"\n";
        let dir = std::path::Path::new("/d");
        let errors = crate::config::Config::parse(text, "avow.toml", dir).unwrap_err();
        let text = told(LoadError::from(errors));
        assert_eq!(text.matches("`a b` is not").count(), 1, "{text}");
        assert!(text.contains("avow.toml:2:8"), "{text}");
    }
}

//! What is wrong with a thing that `avow.toml` names, at the line that names it.
//!
//! A missing file, a port that is taken, a log that another key signed: the value reads well, and
//! its use fails. Every such problem says the file, the line, the field and the fix. Whatever
//! `avow.toml` does not name is not said here.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::CliFailure;
use super::files::{self, FileFault};
use crate::config::{Config, Secret, SecretError, Setting};
use crate::evidence::checkpoint::{KeyError, NoteError};
use crate::evidence::receipt::ReceiptError;
use crate::evidence::{Checkpoint, LogKey, VerifierKey};
use crate::identity::IssuerFault;
use crate::identity::token::{SignFault, TokenKeyFault};
use crate::server::Fault;
use crate::server::tls::TlsFault;
use crate::source::SourceErrors;
use crate::storage::StorageFault;
use crate::storage::checkpoint_store::CHECKPOINT_FILE;

/// One problem, with its place.
pub(super) type SettingError = SourceErrors<SettingProblem>;

/// What can be wrong with what a field names.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SettingProblem {
    /// A file that cannot be had.
    #[error("`{field}`: {fault}{}", because(fault))]
    #[diagnostic(help(
        "put it there, readable for the user that runs `avow`, or write another path (a relative \
         one begins at the directory of avow.toml)"
    ))]
    File {
        /// The field.
        field: &'static str,
        /// Why it cannot be had.
        fault: FileFault,
    },
    /// A secret that cannot be had.
    #[error("`{field}`: {fault}")]
    #[diagnostic(help("{}", secret_help(fault)))]
    Secret {
        /// The field.
        field: &'static str,
        /// Why it cannot be had.
        fault: SecretError,
    },
    /// Certificates or keys that TLS cannot use.
    #[error("`{field}`: {fault}")]
    #[diagnostic(help("{}", tls_help(fault)))]
    Tls {
        /// The field.
        field: &'static str,
        /// Why not.
        fault: TlsFault,
    },
    /// Trust anchors that no issuer can have.
    #[error("`anchors`: {0}")]
    #[diagnostic(help("name a PEM file with the certificates of the CAs that sign its clients"))]
    Issuer(IssuerFault),
    /// A CA that two issuers trust, so that neither is bound by it.
    #[error(
        "`anchors`: issuer `{second}` trusts a CA that issuer `{first}` (line {line}) trusts too"
    )]
    #[diagnostic(help(
        "take the certificate out of one of the two files: whoever has this CA could choose which \
         of the issuers its clients come from"
    ))]
    SharedAnchor {
        /// The issuer that stands first.
        first: String,
        /// The line of its `anchors`.
        line: usize,
        /// The issuer that stands second, where the problem is told.
        second: String,
    },
    /// A key that verifies no tokens.
    #[error("`public_key`: {0}")]
    #[diagnostic(help(
        "name a PEM file that begins `-----BEGIN PUBLIC KEY-----` with a key for `algorithm`, as \
         `avow init` makes one"
    ))]
    TokenKey(TokenKeyFault),
    /// A key of tokens that stands there twice, so that neither is bound by what it may name.
    #[error("`public_key`: key `{second}` is the same as key `{first}` (line {line})")]
    #[diagnostic(help(
        "remove one of the two [[token_key]], or make a key of its own for it: whoever signs with \
         this one could choose by `kid` what it may name"
    ))]
    SharedTokenKey {
        /// The `kid` of the one that stands first.
        first: String,
        /// The line of its `public_key`.
        line: usize,
        /// The `kid` of the one that stands second, where the problem is told.
        second: String,
    },
    /// A key that signs no tokens.
    #[error("`signing_key`: {0}")]
    #[diagnostic(help(
        "name a PEM file with the private half of `public_key` in PKCS#8, as `avow init` makes one"
    ))]
    SigningKey(SignFault),
    /// A key that signs no log.
    #[error("`key`: {0}")]
    #[diagnostic(help("it is a PEM file with an Ed25519 key in PKCS#8, as `avow init` makes one"))]
    NoLogKey(KeyError),
    /// There is no key for receipts: the directory was made before there were any.
    #[error("`receipt_key`: {} is not there", path.display())]
    #[diagnostic(help("`avow --dir {} audit receipt-key` makes it", dir.display()))]
    ReceiptKeyMissing {
        /// The file.
        path: PathBuf,
        /// The broker's directory.
        dir: PathBuf,
    },
    /// A key that signs no receipts.
    #[error("`receipt_key`: {0}")]
    #[diagnostic(help("it is a PEM file with an Ed25519 key in PKCS#8, as `avow init` makes one"))]
    NoReceiptKey(ReceiptError),
    /// The log has another name.
    #[error("`origin` is `{configured}`, but {} says `{written}`", witness.display())]
    #[diagnostic(help(
        "write `origin = \"{written}\"`; to begin another log, name another `directory` and write \
         into log.vkey: {verifier}"
    ))]
    Origin {
        /// What the configuration says, or comes to.
        configured: String,
        /// What the log says.
        written: String,
        /// The file that says it.
        witness: PathBuf,
        /// The verifier key that the configuration comes to.
        verifier: VerifierKey,
    },
    /// Another key signed the log.
    #[error("`key` is not the key of this log: {} is of another one", witness.display())]
    #[diagnostic(help(
        "put back the key that the log began with; to begin another log, name another `directory` \
         and write into log.vkey: {verifier}"
    ))]
    LogKey {
        /// The file that says so.
        witness: PathBuf,
        /// The verifier key that the configuration comes to.
        verifier: VerifierKey,
    },
    /// The disk refuses the directory of the log.
    #[error("the log in {}: {fault}", directory.display())]
    #[diagnostic(help("`directory` names it: it must be writable for the user that runs `avow`"))]
    Log {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        fault: StorageFault,
    },
    /// An address that cannot be listened on.
    #[error("`{field}`: cannot listen on {address}: {source}")]
    #[diagnostic(help("{}", listen_help(field, source)))]
    Listen {
        /// The field.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

fn because(fault: &FileFault) -> String {
    match fault {
        FileFault::Io { source, .. } => format!(": {source}"),
        FileFault::Exists(_) | FileFault::TooLarge(_) => String::new(),
    }
}

fn secret_help(fault: &SecretError) -> String {
    match fault {
        SecretError::File { .. } => "put the file there, readable for the user that runs `avow`, \
                                     or write another \"file:PATH\" or \"env:NAME\""
            .to_owned(),
        SecretError::Env(name) => {
            format!("set {name} where `avow` runs, or write \"file:PATH\" and put the secret there")
        }
    }
}

fn tls_help(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::Credential { .. } => {
            "name the key that the first certificate of `certificate` was issued for"
        }
        _ => "name a PEM file: `avow init` in another directory makes a set to look at",
    }
}

fn listen_help(field: &str, source: &io::Error) -> String {
    match source.kind() {
        ErrorKind::AddrInUse => {
            format!("another program listens there: stop it, or write another port in `{field}`")
        }
        ErrorKind::PermissionDenied => format!(
            "ports below 1024 need a privilege (CAP_NET_BIND_SERVICE): give it, or write a higher \
             port in `{field}`"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("no interface of this machine has it: write one of its addresses in `{field}`")
        }
        _ => format!("write another address in `{field}`"),
    }
}

/// Reads the file at `path`, which `setting` names.
pub(super) fn read(config: &Config, setting: Setting, path: &Path) -> Result<String, SettingError> {
    let field = setting.field();
    files::read(path)
        .map_err(|fault| config.problem_at(setting, SettingProblem::File { field, fault }))
}

/// Reads a secret, which `setting` names.
pub(super) fn read_secret(
    config: &Config,
    setting: Setting,
    secret: &Secret,
) -> Result<String, SettingError> {
    let field = setting.field();
    secret
        .read()
        .map_err(|fault| config.problem_at(setting, SettingProblem::Secret { field, fault }))
}

/// Checks that the log which is there, and `DIR/log.vkey`, are of `key` and of its name.
pub(super) fn check_log_key(config: &Config, key: &LogKey) -> Result<(), SettingError> {
    let ours = key.verifier();
    let checkpoint = config.evidence.directory.join(CHECKPOINT_FILE);
    // A file that is damaged or does not read is the log's own matter, not the configuration's.
    if let Ok(note) = files::read(&checkpoint) {
        let origin = note.lines().next().unwrap_or_default();
        let is_ours = Checkpoint::open(&note, ours).err() != Some(NoteError::UnknownKey);
        judge(config, ours, origin, is_ours, checkpoint)?;
    }
    let witness = super::plant::Layout(&config.dir).verifier_key();
    let known = files::read(&witness).ok().and_then(|text| text.trim().parse::<VerifierKey>().ok());
    match known {
        Some(known) => judge(config, ours, known.name(), known == *ours, witness),
        None => Ok(()),
    }
}

fn judge(
    config: &Config,
    ours: &VerifierKey,
    origin: &str,
    is_ours: bool,
    witness: PathBuf,
) -> Result<(), SettingError> {
    if origin != ours.name() && !origin.is_empty() {
        let written: String = origin.chars().take(255).flat_map(char::escape_debug).collect();
        let configured = ours.name().to_owned();
        let verifier = ours.clone();
        let problem = SettingProblem::Origin { configured, written, witness, verifier };
        return Err(config.problem_at(Setting::Origin, problem));
    }
    if !is_ours {
        let problem = SettingProblem::LogKey { witness, verifier: ours.clone() };
        return Err(config.problem_at(Setting::LogKey, problem));
    }
    Ok(())
}

/// For [`Result::map_err`] of putting the issuers together: a CA that two of them trust stands at the
/// second.
pub(super) fn of_issuers(config: &Config) -> impl FnOnce(IssuerFault) -> CliFailure {
    |fault| {
        let IssuerFault::SharedAnchor { first, second } = fault else { return fault.into() };
        let number = |id: &str| config.issuers.iter().position(|issuer| issuer.id == id);
        let [one, other] = [&first, &second].map(|id| Setting::Anchors(number(id).unwrap_or(0)));
        let line = config.line_of(one);
        let problem = SettingProblem::SharedAnchor { first, line, second };
        config.problem_at(other, problem).into()
    }
}

/// For [`Result::map_err`] of putting the keys of tokens together: likewise.
pub(super) fn of_token_keys(config: &Config) -> impl FnOnce(TokenKeyFault) -> CliFailure {
    |fault| {
        let TokenKeyFault::Shared { first, second } = fault else { return fault.into() };
        let number = |kid: &str| config.tokens.keys.iter().position(|key| key.kid == kid);
        let [one, other] = [&first, &second].map(|kid| Setting::TokenKey(number(kid).unwrap_or(0)));
        let line = config.line_of(one);
        let problem = SettingProblem::SharedTokenKey { first, line, second };
        config.problem_at(other, problem).into()
    }
}

/// For [`Result::map_err`] of opening the log: what its disk refuses stands at the line that names
/// its directory.
pub(super) fn of_log(config: &Config) -> impl FnOnce(StorageFault) -> CliFailure {
    |fault| match fault {
        fault @ StorageFault::Io { .. } => {
            let directory = config.evidence.directory.clone();
            let problem = SettingProblem::Log { directory, fault };
            config.problem_at(Setting::LogDirectory, problem).into()
        }
        fault => fault.into(),
    }
}

/// For [`Result::map_err`] of starting the server: an address that cannot be listened on stands at
/// the line that names it.
pub(super) fn of_server(config: &Config) -> impl FnOnce(Fault) -> CliFailure {
    |fault| match fault {
        Fault::Listen { address, source } => {
            let of_api = config.audit_api.as_ref().map(|api| api.address);
            let setting = match address {
                _ if address == config.listen.mqtt => Setting::Listen,
                _ if Some(address) == of_api => Setting::AuditApi,
                _ => Setting::Metrics,
            };
            let problem = SettingProblem::Listen { field: setting.field(), address, source };
            config.problem_at(setting, problem).into()
        }
        fault => fault.into(),
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests;

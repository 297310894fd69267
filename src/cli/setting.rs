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
    /// A key that verifies no tokens.
    #[error("`public_key`: {0}")]
    #[diagnostic(help(
        "name a PEM file that begins `-----BEGIN PUBLIC KEY-----` with a key for `algorithm`, as \
         `avow init` makes one"
    ))]
    TokenKey(TokenKeyFault),
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
            let is_mqtt = address == config.listen.mqtt;
            let setting = if is_mqtt { Setting::Listen } else { Setting::Metrics };
            let problem = SettingProblem::Listen { field: setting.field(), address, source };
            config.problem_at(setting, problem).into()
        }
        fault => fault.into(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests break files")]
pub(in crate::cli) mod tests {
    use super::*;
    use crate::cli::plant::Plan;
    use crate::cli::record::{Recorder, log_key};

    /// A broker's directory, whose log has one signed entry.
    pub(in crate::cli) fn plant() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            name: "mill".to_owned(),
            trust_domain: "mill.example".to_owned(),
            hosts: Vec::new(),
            listen: "127.0.0.1:8883".to_owned(),
            metrics: "127.0.0.1:9464".to_owned(),
        };
        plan.make(dir.path(), crate::cli::unix_now()).unwrap();
        let mut recorder = Recorder::open(&crate::config::load(dir.path()).unwrap()).unwrap();
        recorder.record("note", "x", &[]).unwrap();
        recorder.close().unwrap();
        dir
    }

    /// The configuration with `from` replaced by `to`, and the line of the latter, from 1.
    fn changed(dir: &Path, from: &str, to: &str) -> (Config, usize) {
        let path = dir.join("avow.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no {from}");
        let text = text.replacen(from, to, 1);
        std::fs::write(&path, &text).unwrap();
        let line = text.lines().position(|line| line.contains(to)).unwrap() + 1;
        (crate::config::load(dir).unwrap(), line)
    }

    /// What `failed` says, which must be a problem of `line`.
    fn said<T>(failed: Result<T, CliFailure>, line: usize) -> String {
        let Err(CliFailure::Setting(errors)) = failed else { panic!("not a setting") };
        assert_eq!(errors.iter().next().unwrap().line(), line, "{errors}");
        errors.plain()
    }

    #[test]
    fn another_origin_or_key_than_the_log_s_is_told_with_line_field_and_fix() {
        let dir = plant();
        let (config, line) = changed(dir.path(), "\"mill.example/mill\"", "\"mill.example/b\"");
        let text = said(log_key(&config), line);
        assert!(text.contains("`origin` is `mill.example/b`"), "{text}");
        assert!(text.contains("write `origin = \"mill.example/mill\"`"), "{text}");
        assert!(said(Recorder::open(&config).map(|_| ()), line).contains("checkpoint"));

        let dir = plant();
        let other = plant();
        let key = other.path().join("certs/log.key").display().to_string();
        let to = format!("file:{key}");
        let (config, line) = changed(dir.path(), "file:certs/log.key", &to);
        let text = said(log_key(&config), line);
        assert!(text.contains("`key` is not the key of this log"), "{text}");
        assert!(text.contains("put back the key"), "{text}");
        // A new log needs its verifier key beside it too.
        let (config, _) = changed(dir.path(), "directory = \"log\"", "directory = \"new\"");
        let text = said(log_key(&config), line);
        assert!(text.contains("log.vkey"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_told_at_the_line_that_names_it() {
        let dir = plant();
        let (config, line) = changed(dir.path(), "file:certs/log.key", "env:AVOW_NO_SUCH");
        let text = said(log_key(&config), line);
        assert!(text.contains("set AVOW_NO_SUCH where `avow` runs"), "{text}");
        let (config, line) = changed(dir.path(), "\"policy.toml\"", "\"polcy.toml\"");
        let text = said(crate::cli::policy::of(&config), line);
        assert!(text.contains("polcy.toml") && text.contains("No such file"), "{text}");
        let load = |config: &Config| crate::cli::check::load_tls(config).map(|_| ());
        let (config, line) = changed(dir.path(), "file:certs/server.key", "file:certs/ca.pem");
        let text = said(load(&config), line);
        assert!(text.contains("holds no private key") && !text.contains("File("), "{text}");
        let (config, line) = changed(dir.path(), "\"certs/server.pem\"", "\"certs/none.pem\"");
        assert!(said(load(&config), line).contains("certs/none.pem"));
    }

    #[test]
    fn a_port_that_is_taken_is_told_at_its_line() {
        let dir = plant();
        let (config, line) = changed(dir.path(), "127.0.0.1:9464", "127.0.0.1:9465");
        let address = config.metrics.as_ref().unwrap().address;
        let source = io::Error::from(ErrorKind::AddrInUse);
        let failed: Result<(), _> = Err(of_server(&config)(Fault::Listen { address, source }));
        let text = said(failed, line);
        assert!(text.contains("write another port in `address`"), "{text}");
    }
}

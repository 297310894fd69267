//! `avow witness`: a small witness for logs, its key and its server.
//!
//! ```text
//! DIR/witness.key    PEM, 0600: its key                DIR/logs        log <vkey> lines: whom it serves
//! DIR/witness.vkey   what others know it by            DIR/cosigned/   what it cosigned last
//! ```
//!
//! It knows nothing of MQTT and of entries: it sees sizes and root hashes. The invariant: one
//! process at a time serves a directory, because two would each sign its own side of a fork.
#![expect(clippy::disallowed_methods, reason = "binds the listener of a witness")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use super::files::{self, Access, create, create_dir, require_absent};
use super::plant::pem;
use super::{Answer, CliFailure, show};
use crate::evidence::checkpoint::KeyError;
use crate::evidence::witness_policy::{PolicyLog, parse_logs};
use crate::evidence::{VerifierKey, WitnessKey, WitnessVerifierKey};
use crate::server::Clock;
use crate::server::admin::Lock;
use crate::server::tls::{Pem, TlsFault, https_server_config};
use crate::server::witness::{Witness, WitnessFrontFault, serve};
use crate::storage::RealDisk;
use crate::storage::witness_store::WitnessFault;
use crate::telemetry::{self, Format};

#[derive(Debug, Subcommand)]
pub(super) enum WitnessVerb {
    /// Make the directory of a witness, with a new key, and print its verifier key
    Init(InitArguments),
    /// Cosign checkpoints until SIGINT or SIGTERM
    Serve(ServeArguments),
}

#[derive(Args, Debug)]
pub(super) struct InitArguments {
    /// Directory to make; what is in it is never overwritten
    #[arg(id = "target", value_name = "DIR")]
    dir: PathBuf,
    /// Name of the witness: like a URL without its scheme, such as witness.example/1
    #[arg(long)]
    name: String,
    /// Verifier key of a log to witness, or a file that holds it; may be repeated
    #[arg(long, value_name = "VKEY|FILE")]
    log: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct ServeArguments {
    /// Directory of the witness
    #[arg(id = "target", value_name = "DIR")]
    dir: PathBuf,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8088", value_name = "ADDRESS")]
    listen: String,
    /// PEM of the certificate to serve TLS with, and of its issuing CA
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM of its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve plain HTTP beyond this machine: something in front of it speaks TLS
    #[arg(long, conflicts_with = "tls_cert")]
    plain: bool,
    /// Write the lines of the process as JSON
    #[arg(long)]
    json: bool,
}

/// Why a witness cannot be had.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum WitnessFailure {
    /// The list of logs names none.
    #[error("{} names no log", .0.display())]
    #[diagnostic(help("write the line of the log's log.vkey into it: log NAME+…"))]
    NoLogs(PathBuf),
    /// A log that is none.
    #[error("`{0}` is neither a verifier key nor a file that holds one")]
    #[diagnostic(help("a broker's stands in DIR/log.vkey"))]
    Log(String),
    /// A key file that cannot be used.
    #[error("{}: {source}", path.display())]
    #[diagnostic(help("`avow witness init` makes witness.key and witness.vkey"))]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The two key files are of two keys.
    #[error("witness.key is not the key that {} is of", .0.display())]
    #[diagnostic(help("put back the pair that `avow witness init` made"))]
    OtherKey(PathBuf),
    /// Plain HTTP to the network.
    #[error("{0} is not a loopback address, and there is no TLS")]
    #[diagnostic(help(
        "give --tls-cert and --tls-key; if something in front of it speaks TLS, say --plain"
    ))]
    Plain(SocketAddr),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The listener, or what it keeps.
    #[error(transparent)]
    Front(#[from] WitnessFrontFault),
    /// The system.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl WitnessFailure {
    /// 1 if what it keeps is not what it kept, 2 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Front(WitnessFrontFault::State(WitnessFault::Damaged { .. })) => 1,
            Self::NoLogs(_)
            | Self::Log(_)
            | Self::Key { .. }
            | Self::OtherKey(_)
            | Self::Plain(_)
            | Self::Tls(_)
            | Self::Front(_)
            | Self::System(_) => 2,
        }
    }
}

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn key(&self) -> PathBuf {
        self.0.join("witness.key")
    }
    fn verifier(&self) -> PathBuf {
        self.0.join("witness.vkey")
    }
    fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
}

pub(super) fn run(verb: &WitnessVerb) -> Result<Answer, CliFailure> {
    match verb {
        WitnessVerb::Init(arguments) => init(arguments),
        WitnessVerb::Serve(arguments) => serve_until_stopped(arguments),
    }
}

fn init(arguments: &InitArguments) -> Result<Answer, CliFailure> {
    let key = WitnessKey::generate(&arguments.name)?;
    let mut logs =
        String::from("# Whose checkpoints are cosigned: log VKEY, as in DIR/log.vkey.\n");
    for log in &arguments.log {
        logs += &format!("log {}\n", log_key(log)?);
    }
    let files = Files(&arguments.dir);
    require_absent(&[files.key(), files.verifier(), files.logs()])?;
    parse_logs(&files.logs().display().to_string(), &logs)?;
    create_dir(&arguments.dir)?;
    create(&files.key(), Access::Private, pem("PRIVATE KEY", &key.to_pkcs8()?).as_bytes())?;
    create(&files.verifier(), Access::Public, format!("{}\n", key.verifier()).as_bytes())?;
    create(&files.logs(), Access::Public, logs.as_bytes())?;
    show::line(&key.verifier().to_string());
    Ok(Answer::Yes)
}

/// A verifier key, as it is or in a file.
fn log_key(text: &str) -> Result<VerifierKey, CliFailure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let none = || WitnessFailure::Log(text.to_owned());
    let read = files::read(Path::new(text)).map_err(|_| none())?;
    Ok(read.trim().parse().map_err(|_| none())?)
}

fn serve_until_stopped(arguments: &ServeArguments) -> Result<Answer, CliFailure> {
    let dir = &arguments.dir;
    let Ok(listen) = arguments.listen.parse::<SocketAddr>() else {
        return Err(CliFailure::Address(arguments.listen.clone()));
    };
    let tls = acceptor(arguments)?;
    if tls.is_none() && !listen.ip().is_loopback() && !arguments.plain {
        return Err(WitnessFailure::Plain(listen).into());
    }
    let key = load_key(dir)?;
    let logs = load_logs(dir)?;
    let _lock = Lock::acquire(dir)?;
    let format = if arguments.json { Format::Json } else { Format::Text };
    let _lines = telemetry::init(format, "info")?;
    let verifier = key.verifier().to_string();
    let witness = Witness::open(&RealDisk::new(dir), key, &logs, Clock::start())
        .map_err(|fault| WitnessFailure::Front(fault.into()))?;
    let runtime = crate::server::witness::runtime().map_err(WitnessFailure::System)?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await;
        let listener =
            listener.map_err(|source| WitnessFrontFault::Listen { address: listen, source })?;
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let address = listener.local_addr()?;
        tracing::info!(listen = %address, tls = tls.is_some(), witness = verifier, "ready");
        let stopped = async {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        };
        serve(listener, tls, Arc::new(witness), stopped).await;
        Ok::<(), WitnessFailure>(())
    });
    served?;
    Ok(Answer::Yes)
}

fn acceptor(arguments: &ServeArguments) -> Result<Option<TlsAcceptor>, CliFailure> {
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else {
        return Ok(None);
    };
    let (chain_text, key_text) = (files::read(certificate)?, files::read(key)?);
    let (chain_name, key_name) = (certificate.display().to_string(), key.display().to_string());
    let chain = Pem { file: &chain_name, text: &chain_text };
    let key = Pem { file: &key_name, text: &key_text };
    let config = https_server_config(chain, key).map_err(WitnessFailure::Tls)?;
    Ok(Some(TlsAcceptor::from(config)))
}

fn load_key(dir: &Path) -> Result<WitnessKey, CliFailure> {
    let (key_path, path) = (Files(dir).key(), Files(dir).verifier());
    let text = files::read(&path)?;
    let verifier: WitnessVerifierKey =
        text.trim().parse().map_err(|source| WitnessFailure::Key { path: path.clone(), source })?;
    let pem = files::read(&key_path)?;
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Private);
    let key = der.and_then(|der| WitnessKey::from_pkcs8(verifier.name(), der.secret_der()));
    let key = key.map_err(|source| WitnessFailure::Key { path: key_path, source })?;
    if *key.verifier() != verifier {
        return Err(WitnessFailure::OtherKey(path).into());
    }
    Ok(key)
}

fn load_logs(dir: &Path) -> Result<Vec<PolicyLog>, CliFailure> {
    let path = Files(dir).logs();
    let logs = parse_logs(&path.display().to_string(), &files::read(&path)?)?;
    if logs.is_empty() { Err(WitnessFailure::NoLogs(path).into()) } else { Ok(logs) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests look at what was written")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::evidence::LogKey;

    fn make(dir: &Path, log: &[&str]) -> Result<Answer, CliFailure> {
        let log = log.iter().map(|log| (*log).to_owned()).collect();
        init(&InitArguments { dir: dir.to_owned(), name: "w.example/1".to_owned(), log })
    }

    #[test]
    fn a_new_witness_has_a_private_key_and_knows_its_logs() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("w");
        let log = LogKey::from_seed("plant.example/log", &[7; 32]).unwrap();
        let file = scratch.path().join("log.vkey");
        let other = LogKey::from_seed("other/log", &[8; 32]).unwrap().verifier().to_string();
        std::fs::write(&file, format!("{}\n", log.verifier())).unwrap();
        make(&dir, &[file.to_str().unwrap(), &other]).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.join("witness.key")), 0o600);
        let origins: Vec<_> =
            load_logs(&dir).unwrap().iter().map(|log| log.key.name().to_owned()).collect();
        assert_eq!(origins, ["plant.example/log", "other/log"]);
        assert_eq!(load_key(&dir).unwrap().verifier().name(), "w.example/1");
        let again = make(&dir, &[]).unwrap_err();
        assert_eq!(again.exit_code(), 2);
        assert!(again.to_string().contains("exists already"), "{again}");
    }

    #[test]
    fn what_is_wrong_with_its_files_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("w");
        assert!(matches!(
            make(&dir, &["nowhere"]).unwrap_err(),
            CliFailure::Witness(WitnessFailure::Log(_))
        ));
        assert!(!dir.exists(), "nothing is half made");
        make(&dir, &[]).unwrap();
        assert!(load_logs(&dir).unwrap_err().to_string().contains("names no log"));
        let second = scratch.path().join("x");
        make(&second, &[]).unwrap();
        std::fs::copy(second.join("witness.key"), dir.join("witness.key")).unwrap();
        assert!(load_key(&dir).unwrap_err().to_string().contains("is not the key"));
        std::fs::write(dir.join("witness.vkey"), "w.example/1+00000000+AA==\n").unwrap();
        assert!(load_key(&dir).unwrap_err().to_string().contains("cosignature/v1"));
    }
}

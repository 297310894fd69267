//! The flags that `pub` and `sub` share, and the connection they describe.
#![expect(clippy::disallowed_methods, reason = "the command line reads files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::ClientFailure;
use crate::cli::bundle::ConnectFile;
use crate::mqtt::{ProtocolVersion, UserProperty};
use crate::server::tls::{Pem, client_config};

/// How to reach the broker and as whom.
#[derive(Args, Debug)]
pub(in crate::cli) struct ConnectionArguments {
    /// connect.json of a bundle: host, port and credentials in one flag
    #[arg(long, value_name = "FILE")]
    connect: Option<PathBuf>,
    /// Host to connect to [default: localhost]
    #[arg(short = 'h', long, value_name = "HOST")]
    host: Option<String>,
    /// Port to connect to [default: 8883]
    #[arg(short, long, value_name = "PORT")]
    port: Option<u16>,
    /// Client Identifier [default: the certificate's name and a random suffix]
    #[arg(short, long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Protocol version
    #[arg(short = 'V', long, value_enum, default_value = "mqttv5")]
    protocol_version: Version,
    /// PEM of the CA that the broker's certificate must chain to
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,
    /// PEM of the client certificate and its issuing CA
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// PEM of its private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// User Name
    #[arg(short, long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD", requires = "username")]
    pub(super) password: Option<String>,
    /// Keep Alive in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) keepalive: u16,
    /// Do not ask for a clean session
    #[arg(short = 'c', long)]
    pub(super) disable_clean_session: bool,
    /// Session Expiry Interval in seconds (5.0)
    #[arg(short = 'x', long, value_name = "SECONDS")]
    pub(super) session_expiry_interval: Option<u32>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Protocol versions, as mosquitto names them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    #[value(name = "mqttv31", alias = "31")]
    V31,
    #[value(name = "mqttv311", alias = "311")]
    V311,
    #[value(name = "mqttv5", alias = "5")]
    V5,
}

/// A broker, and who connects to it.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) version: ProtocolVersion,
    pub(super) client_id: String,
    /// The name in our certificate.
    pub(super) name: Option<String>,
    /// What CONNECT says besides (5.0).
    pub(super) user_properties: Vec<UserProperty>,
    pub(super) tls: Arc<ClientConfig>,
}

impl Target {
    /// What a command that speaks to it runs on.
    pub(super) fn runtime(&self) -> Result<tokio::runtime::Runtime, ClientFailure> {
        crate::cli::runtime().map_err(|source| ClientFailure::Unreachable {
            host: self.host.clone(),
            port: self.port,
            source,
        })
    }
}

impl ConnectionArguments {
    /// Reads the files and fills in what was not said. `verb` stands in the Client Identifier.
    pub(super) fn target(&self, verb: &str) -> Result<Target, ClientFailure> {
        let file = self.connect.as_deref().map(read_connect).transpose()?;
        let beside = self.connect.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let pick = |flag: &Option<PathBuf>, of: fn(&ConnectFile) -> &String| {
            flag.clone().or_else(|| file.as_ref().map(|file| beside.join(of(file))))
        };
        let missing = "give --connect FILE, or --cafile, --cert and --key: every client shows a \
                       certificate";
        let usage = ClientFailure::Usage(missing);
        let paths = (
            pick(&self.cafile, |file| &file.ca),
            pick(&self.cert, |file| &file.cert),
            pick(&self.key, |file| &file.key),
        );
        let (Some(ca), Some(cert), Some(key)) = paths else { return Err(usage) };
        let texts = (read(&ca)?, read(&cert)?, read(&key)?);
        let names = [&ca, &cert, &key].map(|path| path.display().to_string());
        let [ca, cert, key] = &names;
        let tls = client_config(
            Pem { file: ca, text: &texts.0 },
            Pem { file: cert, text: &texts.1 },
            Pem { file: key, text: &texts.2 },
        )?;
        let version = match self.protocol_version {
            Version::V31 => ProtocolVersion::V3_1,
            Version::V311 => ProtocolVersion::V3_1_1,
            Version::V5 => ProtocolVersion::V5,
        };
        let host = self.host.clone().or_else(|| file.as_ref().map(|file| file.host.clone()));
        let port = self.port.or_else(|| file.as_ref().map(|file| file.port));
        let name = name_in(&texts.1);
        let shown = name.as_deref().unwrap_or("avow");
        let random = || format!("{shown}-{verb}-{:08x}", random_u32());
        Ok(Target {
            host: host.unwrap_or_else(|| "localhost".to_owned()),
            port: port.unwrap_or(8883),
            version,
            client_id: self.id.clone().unwrap_or_else(random),
            name,
            user_properties: Vec::new(),
            tls,
        })
    }
}

/// The last segment of the URI name in the first certificate of `pem`: our own certificate, so
/// nothing rests on it but the default Client Identifier.
fn name_in(pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.rsplit('/').next().map(str::to_owned),
        _ => None,
    })
}

fn read_connect(path: &Path) -> Result<ConnectFile, ClientFailure> {
    let text = read(path)?;
    serde_json::from_str(&text)
        .map_err(|source| ClientFailure::ConnectJson { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, ClientFailure> {
    std::fs::read_to_string(path)
        .map_err(|source| ClientFailure::File { path: path.to_owned(), source })
}

fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the identifier is still valid, only not unique.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

//! The files of a broker's directory, and the credentials issued from it.
//!
//! `init` and the demo make a directory, `device add` issues from one. The invariant: a
//! certificate is handed out only after its entry stands in the log; [`super::record`] sees to
//! that.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::CliFailure;
use super::files::{self, Access, create, create_dir, require_absent};
use crate::config::{Config, FILE_NAME, Setting};
use crate::evidence::LogKey;
use crate::identity::authority::{Authority, Credential, create_root};
use crate::identity::profile::{Profile, ProfileKind, Profiles};
use crate::identity::token::TokenKeyPair;
use crate::identity::{Identity, Role};
use crate::time::UnixNanos;

/// Every kind of profile, whose files `init` copies into `DIR/certs`.
const KINDS: [ProfileKind; 7] = [
    ProfileKind::Root,
    ProfileKind::Issuing,
    ProfileKind::Server,
    ProfileKind::Client(Role::Device),
    ProfileKind::Client(Role::Dashboard),
    ProfileKind::Client(Role::Operator),
    ProfileKind::Client(Role::Auditor),
];

const CONFIG: &str = include_str!("../../config/avow.toml");
const POLICY: &str = include_str!("../../config/policy.toml");
/// The shipped schemas, by file name.
const SCHEMAS: [(&str, &str); 3] = [
    ("registry.toml", include_str!("../../config/schemas/registry.toml")),
    ("status.schema.json", include_str!("../../config/schemas/status.schema.json")),
    ("telemetry.schema.json", include_str!("../../config/schemas/telemetry.schema.json")),
];

/// What a new broker is called and where it listens.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) trust_domain: String,
    /// DNS names and addresses for the server certificate, besides its profile's.
    pub(super) hosts: Vec<String>,
    pub(super) listen: String,
    pub(super) metrics: String,
}

/// A certificate that was issued, for the log.
pub(super) struct Issued {
    pub(super) subject: String,
    pub(super) credential: Credential,
    pub(super) facts: Vec<(&'static str, String)>,
}

/// Paths in a broker's directory that the configuration does not name.
pub(super) struct Layout<'a>(pub(super) &'a Path);

impl Layout<'_> {
    pub(super) fn certs(&self) -> PathBuf {
        self.0.join("certs")
    }
    pub(super) fn ca_certificate(&self) -> PathBuf {
        self.0.join("certs/ca.pem")
    }
    pub(super) fn issuing_certificate(&self) -> PathBuf {
        self.0.join("certs/issuing.pem")
    }
    pub(super) fn issuing_key(&self) -> PathBuf {
        self.0.join("certs/issuing.key")
    }
    pub(super) fn verifier_key(&self) -> PathBuf {
        self.0.join("log.vkey")
    }
    pub(super) fn receipt_verifier(&self) -> PathBuf {
        self.0.join("certs/receipt.pub")
    }
    pub(super) fn clients(&self) -> PathBuf {
        self.0.join("clients")
    }
}

impl Plan {
    /// Makes the directory of a new broker, without clients.
    ///
    /// # Errors
    /// If anything it would make is there, and nothing is made then.
    pub(super) fn make(&self, dir: &Path, now: UnixNanos) -> Result<Vec<Issued>, CliFailure> {
        let files = self.files(dir, now)?;
        let paths: Vec<_> = files.files.iter().map(|(path, ..)| path.clone()).collect();
        require_absent(paths.iter().chain([&dir.join("log")]))?;
        create_dir(dir)?;
        for name in ["certs", "schemas", "log", "clients"] {
            create_dir(&dir.join(name))?;
        }
        for (path, access, content) in &files.files {
            create(path, *access, content.as_bytes())?;
        }
        Ok(files.issued)
    }

    fn files(&self, dir: &Path, now: UnixNanos) -> Result<Files, CliFailure> {
        let profiles = Profiles::shipped()?;
        let common_name = |what: &str| {
            let name: String = self.name.chars().take(40).collect();
            format!("{name} {what}")
        };
        let root = create_root(&profiles.root, &common_name("root CA"), now)?;
        let authority = Authority::load(&root.certificate_pem, &root.key_pem)?;
        let issuing =
            authority.create_issuing(&profiles.issuing, &common_name("issuing CA"), now)?;
        let authority = Authority::load(&issuing.certificate_pem, &issuing.key_pem)?;
        let server = authority.issue_server(&profiles.server, &self.hosts, now)?;
        let key = LogKey::generate(&self.origin())?;
        let token_key = TokenKeyPair::generate().ok_or(CliFailure::Randomness)?;
        let receipt_key = super::receipt::generate()?;
        let layout = Layout(dir);
        let certs = layout.certs();
        let mut files = vec![
            (dir.join(FILE_NAME), Access::Public, self.config()),
            (dir.join("policy.toml"), Access::Public, POLICY.to_owned()),
            (layout.ca_certificate(), Access::Public, root.certificate_pem.clone()),
            (certs.join("ca.key"), Access::Private, root.key_pem.clone()),
            (layout.issuing_certificate(), Access::Public, issuing.certificate_pem.clone()),
            (layout.issuing_key(), Access::Private, issuing.key_pem.clone()),
            (certs.join("server.pem"), Access::Public, server.certificate_pem.clone()),
            (certs.join("server.key"), Access::Private, server.key_pem.clone()),
            (certs.join("log.key"), Access::Private, pem("PRIVATE KEY", &key.to_pkcs8()?)),
            (certs.join("token.pub"), Access::Public, token_key.public_pem),
            (certs.join("token.key"), Access::Private, token_key.private_pem),
            (certs.join("receipt.key"), Access::Private, receipt_key.private_pem),
            (layout.receipt_verifier(), Access::Public, receipt_key.public_pem),
            (layout.verifier_key(), Access::Public, format!("{}\n", key.verifier())),
        ];
        for kind in KINDS {
            let path = certs.join(kind.file_name());
            files.push((path, Access::Public, kind.shipped_text().to_owned()));
        }
        for (name, text) in SCHEMAS {
            files.push((dir.join("schemas").join(name), Access::Public, text.to_owned()));
        }
        let issued = [("ca/root", root), ("ca/issuing", issuing), ("server", server)];
        let issued =
            issued.map(|(subject, credential)| Issued::new(subject.to_owned(), credential));
        Ok(Files { files, issued: issued.into() })
    }

    fn origin(&self) -> String {
        format!("{}/{}", self.trust_domain, self.name)
    }

    /// The shipped configuration with this plan's names in it.
    fn config(&self) -> String {
        // In one pass over marks, so that no name is replaced within another.
        CONFIG
            .replace("plant.example", "\u{1}")
            .replace("plant-1", "\u{2}")
            .replace("127.0.0.1:8883", "\u{3}")
            .replace("127.0.0.1:9464", "\u{4}")
            .replace('\u{1}', &self.trust_domain)
            .replace('\u{2}', &self.name)
            .replace('\u{3}', &self.listen)
            .replace('\u{4}', &self.metrics)
    }
}

struct Files {
    files: Vec<(PathBuf, Access, String)>,
    issued: Vec<Issued>,
}

impl Issued {
    fn new(subject: String, credential: Credential) -> Self {
        let mut facts = Vec::new();
        if let Ok(der) = CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes()) {
            facts.push(("x5t", base64url(sha256(&der).as_ref())));
            if let Ok((_, certificate)) = X509Certificate::from_der(&der) {
                let spki = sha256(certificate.public_key().raw);
                facts.push(("spki_sha256", base64url(spki.as_ref())));
                facts.push(("serial", hex(certificate.raw_serial())));
                let end = certificate.validity().not_after.timestamp();
                facts.push(("not_after", end.to_string()));
            }
        }
        Self { subject, credential, facts }
    }
}

/// Issues from the CA in a broker's directory.
pub(super) struct IssuingDesk {
    authority: Authority,
    ca_pem: String,
    dir: PathBuf,
    trust_domain: String,
    host: String,
    port: u16,
}

impl IssuingDesk {
    /// Opens the issuing CA of `config`'s directory.
    pub(super) fn open(config: &Config) -> Result<Self, CliFailure> {
        let layout = Layout(&config.dir);
        let certificate = files::read(&layout.issuing_certificate())?;
        let key = files::read(&layout.issuing_key())?;
        let server = super::setting::read(config, Setting::Certificate, &config.tls.certificate)?;
        Ok(Self {
            authority: Authority::load(&certificate, &key)?,
            ca_pem: files::read(&layout.ca_certificate())?,
            dir: config.dir.clone(),
            trust_domain: config.node.trust_domain.clone(),
            host: first_host(&server).unwrap_or_else(|| "localhost".to_owned()),
            port: config.listen.mqtt.port(),
        })
    }

    /// PEM of the trust anchor for clients.
    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The host that the server certificate names first.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The port that the broker listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The SPIFFE ID of `name` in `role`.
    pub(super) fn identity(&self, role: Role, name: &str) -> Result<Identity, CliFailure> {
        Ok(Identity::new(&self.trust_domain, role, name, "")?)
    }

    /// Issues a certificate for `name` in `role`, by the profile in `DIR/certs` or the shipped
    /// one.
    pub(super) fn issue(
        &self,
        role: Role,
        name: &str,
        days: Option<u32>,
        now: UnixNanos,
    ) -> Result<Issued, CliFailure> {
        let kind = ProfileKind::Client(role);
        let path = self.dir.join("certs").join(kind.file_name());
        let mut profile = match files::read_if_there(&path)? {
            Some(text) => Profile::parse(kind, &path.display().to_string(), &text)?,
            None => Profile::shipped(kind)?,
        };
        if let Some(days) = days {
            profile = profile.with_validity_days(days).ok_or(CliFailure::Days(days))?;
        }
        let credential = self.authority.issue_client(&profile, &self.trust_domain, name, now)?;
        Ok(Issued::new(format!("{}/{name}", role.as_str()), credential))
    }
}

/// The first DNS name or address in the first certificate of `pem`.
fn first_host(pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).ok().map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).ok().map(std::net::IpAddr::from);
            v4.or(v6).map(|address| address.to_string())
        }
        _ => None,
    })
}

/// The PEM file of `der`.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

pub(super) fn sha256(bytes: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
}

/// Bytes as entries hold hashes: base64url without padding.
pub(super) fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

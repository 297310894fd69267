//! Certificates for a run: from the authority of a broker's directory, or from one made for it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use avow::identity::authority::{Authority, Credential, create_root};
use avow::identity::profile::Profiles;
use avow::identity::{KeyKind, Role};
use avow::time::UnixNanos;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;

use super::failure::{Failure, io};

const TRUST_DOMAIN: &str = "plant.example";

/// A client's certificate, and its key, for whoever signs with it.
pub(crate) struct Issued {
    pub(crate) credential: Credential,
    pub(crate) certificate_der: Vec<u8>,
    pub(crate) key: KeyPair,
}

/// A new key.
pub(crate) fn new_key(kind: KeyKind) -> Result<KeyPair, Failure> {
    Ok(KeyPair::generate_for(match kind {
        KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
    })?)
}

/// An authority that issues ECDSA P-256 certificates to clients, and the anchor they trust.
pub(crate) struct Pki {
    profiles: Profiles,
    authority: Authority,
    ca_pem: String,
    /// Certificate and key of the issuing CA.
    issuing: (String, String),
    now: UnixNanos,
}

impl Pki {
    /// A new authority.
    pub(crate) fn create() -> Result<Self, Failure> {
        let (profiles, now) = (Profiles::shipped()?, unix_now());
        let root = create_root(&profiles.root, "bench root CA", now)?;
        let authority = Authority::load(&root.certificate_pem, &root.key_pem)?;
        let issuing = authority.create_issuing(&profiles.issuing, "bench issuing CA", now)?;
        let authority = Authority::load(&issuing.certificate_pem, &issuing.key_pem)?;
        let issuing = (issuing.certificate_pem, issuing.key_pem);
        Ok(Self { profiles, authority, ca_pem: root.certificate_pem, issuing, now })
    }

    /// The authority that `avow init` made in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            fs::read_to_string(dir.join("certs").join(name)).map_err(io("read avow's certificates"))
        };
        let issuing = (read("issuing.pem")?, read("issuing.key")?);
        Ok(Self {
            profiles: Profiles::shipped()?,
            authority: Authority::load(&issuing.0, &issuing.1)?,
            ca_pem: read("ca.pem")?,
            issuing,
            now: unix_now(),
        })
    }

    /// PEM of the trust anchor.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for a server on this machine.
    pub(crate) fn server(&self) -> Result<Credential, Failure> {
        Ok(self.authority.issue_server(&self.profiles.server, &[], self.now)?)
    }

    /// TLS 1.3 with a new certificate for `name`; nothing is resumed.
    pub(crate) fn client(&self, role: Role, name: &str) -> Result<Arc<ClientConfig>, Failure> {
        let profile = self.profiles.client(role);
        self.connect_as(&self.authority.issue_client(profile, TRUST_DOMAIN, name, self.now)?)
    }

    /// A certificate for the device `name`, with a key of this kind.
    pub(crate) fn issue(&self, kind: KeyKind, name: &str) -> Result<Issued, Failure> {
        let uri = format!("spiffe://{TRUST_DOMAIN}/device/{name}");
        let now = i64::try_from(self.now.as_seconds()).unwrap_or(i64::MAX);
        let day = |days: i64| {
            OffsetDateTime::from_unix_timestamp(now + days * 86_400).map_err(|_| Failure::Proc)
        };
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (day(-1)?, day(1)?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        let (certificate, ca_key) = &self.issuing;
        let ca = rcgen::Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(ca_key)?)?;
        let key = new_key(kind)?;
        let signed = params.signed_by(&key, &ca)?;
        let certificate_pem = format!("{}{certificate}", signed.pem());
        let credential = Credential { certificate_pem, key_pem: key.serialize_pem() };
        Ok(Issued { credential, certificate_der: signed.der().to_vec(), key })
    }

    /// TLS 1.3 with this certificate; nothing is resumed.
    pub(crate) fn connect_as(&self, issued: &Credential) -> Result<Arc<ClientConfig>, Failure> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(issued.certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|_| Failure::Pem("a client certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
            .map_err(|_| Failure::Pem("a client key"))?;
        let anchor = CertificateDer::from_pem_slice(self.ca_pem.as_bytes())
            .map_err(|_| Failure::Pem("the anchor"))?;
        let mut anchors = RootCertStore::empty();
        anchors.add(anchor)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(anchors)
            .with_client_auth_cert(chain, key)?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

pub(crate) fn unix_now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos::new(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

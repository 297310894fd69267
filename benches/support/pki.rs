//! Certificates for a run: from the authority of a broker's directory, or from one made for it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use avow::identity::Role;
use avow::identity::authority::{Authority, Credential, create_root};
use avow::identity::profile::Profiles;
use avow::time::UnixNanos;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::failure::{Failure, io};

const TRUST_DOMAIN: &str = "plant.example";

/// An authority that issues ECDSA P-256 certificates to clients, and the anchor they trust.
pub(crate) struct Pki {
    profiles: Profiles,
    authority: Authority,
    ca_pem: String,
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
        Ok(Self { profiles, authority, ca_pem: root.certificate_pem, now })
    }

    /// The authority that `avow init` made in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            fs::read_to_string(dir.join("certs").join(name)).map_err(io("read avow's certificates"))
        };
        Ok(Self {
            profiles: Profiles::shipped()?,
            authority: Authority::load(&read("issuing.pem")?, &read("issuing.key")?)?,
            ca_pem: read("ca.pem")?,
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
        let issued = self.authority.issue_client(profile, TRUST_DOMAIN, name, self.now)?;
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

fn unix_now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixNanos::new(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

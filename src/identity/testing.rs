//! A small PKI for tests: made by [`super::authority`] where its certificates are right, and by
//! rcgen directly where they must be wrong.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use super::authority::{Authority, Credential, create_root};
use super::issuer::{Issuer, Issuers};
use super::name::Role;
use super::profile::Profiles;
use crate::time::UnixNanos;

/// When tests take place: some moment in November 2026.
pub(crate) const NOW: UnixNanos = UnixNanos::from_seconds(1_795_000_000);

/// Seconds in a day.
pub(crate) const DAY: u64 = 86_400;

/// [`NOW`], moved by days.
pub(crate) fn days_from_now(days: i64) -> UnixNanos {
    UnixNanos::from_seconds(NOW.as_seconds().checked_add_signed(days * DAY as i64).unwrap())
}

/// A root CA and an issuing CA below it, for the trust domain `plant.example`.
pub(crate) struct Plant {
    pub(crate) profiles: Profiles,
    pub(crate) root: Credential,
    pub(crate) issuing: Credential,
    pub(crate) authority: Authority,
}

impl Plant {
    /// A plant whose CAs bear `name`; each call makes other keys.
    pub(crate) fn new(name: &str) -> Self {
        let profiles = Profiles::shipped().unwrap();
        let root = create_root(&profiles.root, &format!("{name} root"), NOW).unwrap();
        let issuing = Authority::load(&root.certificate_pem, &root.key_pem)
            .unwrap()
            .create_issuing(&profiles.issuing, &format!("{name} issuing"), NOW)
            .unwrap();
        let authority = Authority::load(&issuing.certificate_pem, &issuing.key_pem).unwrap();
        Self { profiles, root, issuing, authority }
    }

    /// A right certificate.
    pub(crate) fn client(&self, role: Role, name: &str) -> Credential {
        self.authority.issue_client(self.profiles.client(role), "plant.example", name, NOW).unwrap()
    }

    /// The broker's certificate.
    pub(crate) fn server(&self) -> Credential {
        self.authority.issue_server(&self.profiles.server, &[], NOW).unwrap()
    }

    /// A device's certificate, made wrong by `change`, and signed all the same.
    pub(crate) fn odd(&self, change: impl FnOnce(&mut CertificateParams)) -> Credential {
        let mut params = CertificateParams::default();
        params.not_before = date(days_from_now(-1));
        params.not_after = date(days_from_now(1));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri("spiffe://plant.example/device/press-7")];
        change(&mut params);
        let ca_key = KeyPair::from_pem(&self.issuing.key_pem).unwrap();
        let ca = rcgen::Issuer::from_ca_cert_pem(&self.issuing.certificate_pem, ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        Credential {
            certificate_pem: format!("{}{}", certificate.pem(), self.issuing.certificate_pem),
            key_pem: key.serialize_pem(),
        }
    }

    /// This plant as an issuer, anchored in its root.
    pub(crate) fn issuer(&self, id: &str, roles: &[Role]) -> Issuer {
        Issuer::new(id, "plant.example", roles, "", &ders(&self.root)).unwrap()
    }

    /// This plant as the only issuer, of every role.
    pub(crate) fn issuers(&self) -> Issuers {
        Issuers::new(vec![self.issuer("plant", &Role::ALL)]).unwrap()
    }
}

/// The certificates of a credential.
pub(crate) fn ders(credential: &Credential) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(credential.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

/// A URI subjectAltName.
pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A time as rcgen takes it.
pub(crate) fn date(time: UnixNanos) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.as_seconds().try_into().unwrap()).unwrap()
}

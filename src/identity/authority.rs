//! Our own CA: makes the root, the issuing CA, and the certificates below them.
//!
//! Used by the command line (`init`, `device add`) and by tests, never by the core: it draws keys
//! and serial numbers from the operating system's randomness, by aws-lc-rs. It reads no clock
//! (`now` is an argument) and no file; it gives PEM, and writing it with the right mode is the
//! caller's. Invariant: nothing is issued past the notAfter of the CA that signs it, nor by a CA
//! whose key does not belong to its certificate.
//!
//! Not here: revocation lists, signing requests. RFC 5280 sections 4.1 and 4.2.

use std::fmt;
use std::net::IpAddr;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;

use super::certificate;
use super::name::{Identity, NameError};
use super::profile::{ExtendedKeyUsage, HOSTS_MAX, KeyUsage, Profile, ProfileKind};
use crate::time::UnixNanos;

/// Longest common name, in bytes (the X.520 upper bound is 64 characters).
pub const COMMON_NAME_BYTES_MAX: usize = 64;

/// A certificate with its private key.
pub struct Credential {
    /// The certificate in PEM; for an end entity, followed by the issuing CA's.
    pub certificate_pem: String,
    /// The private key in PEM (PKCS#8).
    pub key_pem: String,
}

/// A CA that can sign.
pub struct Authority {
    certificate_pem: String,
    not_after: UnixNanos,
    issuer: rcgen::Issuer<'static, KeyPair>,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityFault {
    /// The CA's certificate is not PEM, not a certificate, or not a CA's.
    #[error("the CA certificate is not the PEM of a CA that may sign certificates")]
    NotCa,
    /// The CA's private key is not PKCS#8 PEM of a kind that can sign.
    #[error("the CA key cannot be read: {0}")]
    Key(#[source] rcgen::Error),
    /// The CA's private key belongs to another certificate.
    #[error("the CA key does not belong to the CA certificate")]
    KeyMismatch,
    /// The CA is past its own notAfter.
    #[error("the CA certificate expired; renew the CA first")]
    CaExpired,
    /// The profile is of another kind.
    #[error("a {0:?} profile cannot issue this kind of certificate")]
    Profile(ProfileKind),
    /// The name of a CA is empty or too long.
    #[error("the name `{0}` must be 1 to {COMMON_NAME_BYTES_MAX} bytes without control characters")]
    CommonName(String),
    /// The name of a client is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A host is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Host(String),
    /// No host, or too many.
    #[error("a server certificate names 1 to {HOSTS_MAX} hosts, not {0}")]
    HostCount(usize),
    /// A time that certificates cannot express.
    #[error("the validity leaves the range of dates in certificates")]
    Time,
    /// The operating system gave no randomness.
    #[error("no randomness for a serial number")]
    Randomness,
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Issue(#[source] rcgen::Error),
}

impl fmt::Debug for Credential {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Makes a root CA called `common_name`, self-signed.
///
/// # Errors
/// [`AuthorityFault::Profile`] unless `profile` is a root's, and the faults of issuing.
pub fn create_root(
    profile: &Profile,
    common_name: &str,
    now: UnixNanos,
) -> Result<Credential, AuthorityFault> {
    require(profile, ProfileKind::Root)?;
    let params = params(profile, common_name, Vec::new(), now, None)?;
    let key = new_key()?;
    let certificate = params.self_signed(&key).map_err(AuthorityFault::Issue)?;
    Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

impl Authority {
    /// The CA whose certificate and key these are. Of several certificates, the first counts.
    ///
    /// # Errors
    /// [`AuthorityFault::NotCa`], [`AuthorityFault::Key`], [`AuthorityFault::KeyMismatch`].
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityFault> {
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| AuthorityFault::NotCa)?;
        let parsed = certificate::parse(&der).map_err(|_| AuthorityFault::NotCa)?;
        let is_ca = certificate::is_ca(&parsed).map_err(|_| AuthorityFault::NotCa)?;
        let usage = parsed.key_usage().map_err(|_| AuthorityFault::NotCa)?;
        if !is_ca || !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Err(AuthorityFault::NotCa);
        }
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityFault::Key)?;
        if key.subject_public_key_info() != parsed.public_key().raw {
            return Err(AuthorityFault::KeyMismatch);
        }
        let not_after = certificate::nanos(parsed.validity().not_after);
        let issuer =
            rcgen::Issuer::from_ca_cert_der(&der, key).map_err(|_| AuthorityFault::NotCa)?;
        // Only the CA's own certificate: a chain in the file is not ours to hand on.
        let certificate_pem = first_certificate(certificate_pem).ok_or(AuthorityFault::NotCa)?;
        Ok(Self { certificate_pem, not_after, issuer })
    }

    /// Makes an issuing CA called `common_name` below this one. Its `certificate_pem` is its own
    /// certificate alone.
    ///
    /// # Errors
    /// [`AuthorityFault::Profile`] unless `profile` is an issuing CA's, and the faults of issuing.
    pub fn create_issuing(
        &self,
        profile: &Profile,
        common_name: &str,
        now: UnixNanos,
    ) -> Result<Credential, AuthorityFault> {
        require(profile, ProfileKind::Issuing)?;
        let params = params(profile, common_name, Vec::new(), now, Some(self.not_after))?;
        let (certificate, key) = self.sign(&params)?;
        Ok(Credential { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a server certificate for the hosts of `profile` and for `hosts`: DNS names without
    /// wildcards, and IP addresses.
    ///
    /// # Errors
    /// [`AuthorityFault::Host`], [`AuthorityFault::HostCount`], [`AuthorityFault::Profile`], and
    /// the faults of issuing.
    pub fn issue_server(
        &self,
        profile: &Profile,
        hosts: &[String],
        now: UnixNanos,
    ) -> Result<Credential, AuthorityFault> {
        require(profile, ProfileKind::Server)?;
        let mut names: Vec<&str> = Vec::new();
        for host in hosts.iter().chain(&profile.text.hosts) {
            if !names.contains(&host.as_str()) {
                names.push(host);
            }
        }
        if !(1..=HOSTS_MAX).contains(&names.len()) {
            return Err(AuthorityFault::HostCount(names.len()));
        }
        let sans = names.iter().map(|host| host_san(host)).collect::<Result<_, _>>()?;
        let first: &str = names.first().copied().unwrap_or_default();
        let params = params(profile, clip(first), sans, now, Some(self.not_after))?;
        self.issue(&params)
    }

    /// Issues a client certificate for `name` in `trust_domain`, in the role of `profile`.
    ///
    /// # Errors
    /// [`AuthorityFault::Name`], [`AuthorityFault::Profile`], and the faults of issuing.
    pub fn issue_client(
        &self,
        profile: &Profile,
        trust_domain: &str,
        name: &str,
        now: UnixNanos,
    ) -> Result<Credential, AuthorityFault> {
        let ProfileKind::Client(role) = profile.kind else {
            return Err(AuthorityFault::Profile(profile.kind));
        };
        let identity = Identity::new(trust_domain, role, name, "")?;
        let uri = identity.uri().try_into().map_err(AuthorityFault::Issue)?;
        // The common name is for people; nothing here reads it.
        let sans = vec![SanType::URI(uri)];
        let params = params(profile, clip(name), sans, now, Some(self.not_after))?;
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<Credential, AuthorityFault> {
        let (certificate, key) = self.sign(params)?;
        let certificate_pem = format!("{}{}", certificate.pem(), self.certificate_pem);
        Ok(Credential { certificate_pem, key_pem: key.serialize_pem() })
    }

    fn sign(&self, params: &CertificateParams) -> Result<(Certificate, KeyPair), AuthorityFault> {
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(AuthorityFault::Issue)?;
        Ok((certificate, key))
    }
}

fn require(profile: &Profile, kind: ProfileKind) -> Result<(), AuthorityFault> {
    if profile.kind == kind { Ok(()) } else { Err(AuthorityFault::Profile(profile.kind)) }
}

/// What a certificate by `profile` says, cut at `end`, the notAfter of its CA.
fn params(
    profile: &Profile,
    common_name: &str,
    subject_alt_names: Vec<SanType>,
    now: UnixNanos,
    end: Option<UnixNanos>,
) -> Result<CertificateParams, AuthorityFault> {
    let bytes = 1..=COMMON_NAME_BYTES_MAX;
    if !bytes.contains(&common_name.len()) || common_name.chars().any(char::is_control) {
        return Err(AuthorityFault::CommonName(common_name.escape_debug().to_string()));
    }
    let seconds = now.as_seconds();
    let mut not_after = seconds.saturating_add(u64::from(profile.text.validity_days) * 86_400);
    if let Some(end) = end.map(UnixNanos::as_seconds) {
        if end <= seconds {
            return Err(AuthorityFault::CaExpired);
        }
        not_after = not_after.min(end);
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names = subject_alt_names;
    params.serial_number = Some(serial_number()?);
    params.not_before = date(seconds.saturating_sub(u64::from(profile.text.backdate_seconds)))?;
    params.not_after = date(not_after)?;
    params.is_ca = match profile.text.path_length {
        Some(length) => IsCa::Ca(BasicConstraints::Constrained(length)),
        None => IsCa::ExplicitNoCa,
    };
    params.use_authority_key_identifier_extension = true;
    params.key_usages = profile.text.key_usage.iter().copied().map(key_usage).collect();
    let purposes = profile.text.extended_key_usage.iter().copied();
    params.extended_key_usages = purposes.map(extended_key_usage).collect();
    Ok(params)
}

const fn key_usage(usage: KeyUsage) -> KeyUsagePurpose {
    match usage {
        KeyUsage::DigitalSignature => KeyUsagePurpose::DigitalSignature,
        KeyUsage::KeyCertSign => KeyUsagePurpose::KeyCertSign,
        KeyUsage::CrlSign => KeyUsagePurpose::CrlSign,
    }
}

const fn extended_key_usage(usage: ExtendedKeyUsage) -> ExtendedKeyUsagePurpose {
    match usage {
        ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

fn host_san(host: &str) -> Result<SanType, AuthorityFault> {
    let fault = || AuthorityFault::Host(host.escape_debug().to_string());
    match ServerName::try_from(host) {
        Ok(ServerName::IpAddress(ip)) => Ok(SanType::IpAddress(IpAddr::from(ip))),
        Ok(_) => Ok(SanType::DnsName(host.try_into().map_err(|_| fault())?)),
        Err(_) => Err(fault()),
    }
}

fn new_key() -> Result<KeyPair, AuthorityFault> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityFault::Issue)
}

/// 128 bits, of which the first two are `01`: positive, never zero, always sixteen bytes.
fn serial_number() -> Result<SerialNumber, AuthorityFault> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuthorityFault::Randomness)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(seconds: u64) -> Result<OffsetDateTime, AuthorityFault> {
    let seconds = i64::try_from(seconds).map_err(|_| AuthorityFault::Time)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityFault::Time)
}

/// The beginning of an ASCII name, as long as a common name may be.
fn clip(name: &str) -> &str {
    name.get(..COMMON_NAME_BYTES_MAX).unwrap_or(name)
}

/// The first certificate of a PEM text, without what stands around it.
fn first_certificate(text: &str) -> Option<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let (_, after) = text.split_once(BEGIN)?;
    let (body, _) = after.split_once(END)?;
    Some(format!("{BEGIN}{body}{END}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::name::Role;
    use crate::identity::testing::{NOW, Plant, days_from_now, ders};

    #[test]
    fn a_chain_leads_from_the_end_entity_to_the_issuing_ca() {
        let plant = Plant::new("a");
        let client = ders(&plant.client(Role::Device, "a"));
        assert_eq!(client.len(), 2);
        assert_eq!(client.last(), ders(&plant.issuing).first());
        assert_eq!(ders(&plant.root).len(), 1);
    }

    #[test]
    fn nothing_outlives_the_ca_that_signed_it() {
        let plant = Plant::new("a");
        let profile = plant.profiles.client(Role::Device);
        let issue = |now| plant.authority.issue_client(profile, "plant.example", "a", now);
        let late = ders(&issue(days_from_now(720)).unwrap());
        let parsed = certificate::parse(&late[0]).unwrap();
        assert_eq!(certificate::nanos(parsed.validity().not_after), days_from_now(730));
        assert!(matches!(issue(days_from_now(730)), Err(AuthorityFault::CaExpired)));
    }

    #[test]
    fn serial_numbers_are_sixteen_bytes_and_differ() {
        let one = serial_number().unwrap();
        assert_eq!(one.len(), 16);
        assert_ne!(one, serial_number().unwrap());
    }

    #[test]
    fn a_ca_needs_its_own_key() {
        let (one, other) = (Plant::new("a"), Plant::new("a"));
        let load = |certificate: &Credential, key: &Credential| {
            Authority::load(&certificate.certificate_pem, &key.key_pem)
        };
        let mixed = load(&one.issuing, &other.issuing);
        assert!(matches!(mixed, Err(AuthorityFault::KeyMismatch)));
        let client = one.client(Role::Device, "a");
        assert!(matches!(load(&client, &client), Err(AuthorityFault::NotCa)));
        assert!(matches!(Authority::load("", ""), Err(AuthorityFault::NotCa)));
        let keyless = Authority::load(&one.issuing.certificate_pem, "");
        assert!(matches!(keyless, Err(AuthorityFault::Key(_))));
    }

    #[test]
    fn a_server_is_named_by_hosts_and_nothing_else() {
        let plant = Plant::new("a");
        let issue = |host: &str| {
            plant.authority.issue_server(&plant.profiles.server, &[host.to_owned()], NOW)
        };
        for good in ["broker.plant.example", "192.0.2.1", "2001:db8::1", "localhost"] {
            assert!(issue(good).is_ok(), "{good}");
        }
        for bad in ["", "*.plant.example", "a b", "spiffe://a/device/b", "é"] {
            assert!(matches!(issue(bad), Err(AuthorityFault::Host(_))), "{bad}");
        }
    }

    #[test]
    fn a_profile_issues_its_own_kind_only() {
        let plant = Plant::new("a");
        let as_client = plant.authority.issue_client(&plant.profiles.server, "p", "a", NOW);
        assert!(matches!(as_client, Err(AuthorityFault::Profile(ProfileKind::Server))));
        let as_server = plant.authority.issue_server(&plant.profiles.device, &[], NOW);
        assert!(matches!(as_server, Err(AuthorityFault::Profile(_))));
        assert!(create_root(&plant.profiles.issuing, "a", NOW).is_err());
    }

    #[test]
    fn names_are_checked_before_they_are_signed() {
        let plant = Plant::new("a");
        let profile = &plant.profiles.device;
        for bad in ["", "a/b", "#", "é", ".."] {
            let issued = plant.authority.issue_client(profile, "plant.example", bad, NOW);
            assert!(matches!(issued, Err(AuthorityFault::Name(_))), "{bad}");
        }
        let long = "a".repeat(128);
        assert!(plant.authority.issue_client(profile, "plant.example", &long, NOW).is_ok());
        assert!(create_root(&plant.profiles.root, "", NOW).is_err());
        assert!(create_root(&plant.profiles.root, "a\u{1b}[31m", NOW).is_err());
    }

    #[test]
    fn a_credential_does_not_show_its_key() {
        let shown = format!("{:?}", Plant::new("a").root);
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}

//! What an end entity certificate says, read strictly.
//!
//! This reads one certificate and decides nothing about trust: that its certification path ends
//! in a configured anchor is checked before, in [`super::issuer`], and that the issuer may name
//! what it names after, in [`super::verifier`], the only caller. Invariant: a [`CertificateFacts`]
//! comes from a certificate that passed all three.
//!
//! RFC 5280 sections 4.1 (fields) and 4.2.1 (extensions). An extension that appears twice or does
//! not parse refuses the certificate, because two readers could understand it differently.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

use super::key::DeviceKey;
use super::name::Identity;
use super::path::CertificationPath;
use super::refusal::{CertificateRefusal, quote};
use crate::time::UnixNanos;

/// What a verified client certificate says: the head of the line. Cheap to clone.
///
/// Made only by [`super::verifier::identify`], so it is the proof that the peer's certificate
/// passed every check, at the time given there.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateFacts(Arc<Facts>);

#[derive(PartialEq, Eq)]
struct Facts {
    identity: Identity,
    x5t: [u8; 32],
    spki_sha256: [u8; 32],
    key: Option<DeviceKey>,
    issuer_name: Box<str>,
    serial: Box<str>,
    not_before: UnixNanos,
    not_after: UnixNanos,
    path: Arc<CertificationPath>,
}

impl CertificateFacts {
    /// Who the peer is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// SHA-256 of the certificate's DER: which certificate it was.
    pub fn x5t(&self) -> &[u8; 32] {
        &self.0.x5t
    }

    /// SHA-256 of its SubjectPublicKeyInfo: which key it was, across renewals.
    pub fn spki_sha256(&self) -> &[u8; 32] {
        &self.0.spki_sha256
    }

    /// Its key, if statements can be signed with it.
    pub fn key(&self) -> Option<&DeviceKey> {
        self.0.key.as_ref()
    }

    /// The distinguished name of its issuer, escaped and cut to 96 characters; for people.
    pub fn issuer_name(&self) -> &str {
        &self.0.issuer_name
    }

    /// Its serial number, in lower-case hexadecimal without leading zero bytes.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// From when on it is valid, in whole seconds.
    pub fn not_before(&self) -> UnixNanos {
        self.0.not_before
    }

    /// Until when it is valid, in whole seconds; a session ends with it.
    pub fn not_after(&self) -> UnixNanos {
        self.0.not_after
    }

    /// The certificate itself, and those that vouched for it.
    pub fn path(&self) -> &Arc<CertificationPath> {
        &self.0.path
    }
}

impl fmt::Debug for CertificateFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFacts")
            .field("identity", &self.0.identity)
            .field("serial", &self.0.serial)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

/// Reads `der` as a client's end entity certificate that the issuer `issuer_id` vouches for, by
/// `path`.
///
/// # Errors
/// The first [`CertificateRefusal`] of: its encoding, version, CA flag, key usages, name.
pub(super) fn read(
    der: &CertificateDer<'_>,
    issuer_id: &str,
    path: CertificationPath,
) -> Result<CertificateFacts, CertificateRefusal> {
    let certificate = parse(der)?;
    if certificate.version() != X509Version::V3 {
        return Err(CertificateRefusal::NotVersion3);
    }
    if is_ca(&certificate)? {
        return Err(CertificateRefusal::IsCa);
    }
    check_usages(&certificate)?;
    let identity = Identity::parse(uri_san(&certificate)?, issuer_id)?;
    Ok(CertificateFacts(Arc::new(Facts {
        identity,
        x5t: sha256(der),
        spki_sha256: sha256(certificate.public_key().raw),
        key: DeviceKey::of(certificate.public_key()),
        issuer_name: quote(&certificate.issuer().to_string()),
        serial: hex_without_leading_zeros(certificate.raw_serial()),
        not_before: nanos(certificate.validity().not_before),
        not_after: nanos(certificate.validity().not_after),
        path: Arc::new(path),
    })))
}

/// Parses `der`, all of it.
pub(super) fn parse<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, CertificateRefusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateRefusal::NotParsable),
    }
}

/// Whether the certificate is a CA's. Read by hand: the parser's own `is_ca` takes a
/// basicConstraints that does not parse, or that appears twice, for an absent one.
pub(super) fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, CertificateRefusal> {
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS)
        .map_err(|_| CertificateRefusal::NotParsable)?;
    match extension.map(|extension| extension.parsed_extension()) {
        None => Ok(false),
        Some(ParsedExtension::BasicConstraints(constraints)) => Ok(constraints.ca),
        Some(_) => Err(CertificateRefusal::NotParsable),
    }
}

/// Checks what the key may be used for. webpki accepts a certificate without extendedKeyUsage and
/// does not look at an end entity's keyUsage; here both must be present and say so.
fn check_usages(certificate: &X509Certificate<'_>) -> Result<(), CertificateRefusal> {
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| CertificateRefusal::NotParsable)?
        .ok_or(CertificateRefusal::NoExtendedKeyUsage)?;
    if !extended.value.client_auth {
        return Err(CertificateRefusal::NoClientAuth);
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| CertificateRefusal::NotParsable)?
        .ok_or(CertificateRefusal::NoKeyUsage)?;
    if !usage.value.digital_signature() {
        return Err(CertificateRefusal::NoDigitalSignature);
    }
    Ok(())
}

/// The one URI subjectAltName. DNS names, addresses and the rest may stand beside it and mean
/// nothing.
fn uri_san<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, CertificateRefusal> {
    /// The context tag of uniformResourceIdentifier in GeneralName (RFC 5280, 4.2.1.6).
    const URI_TAG: u32 = 6;

    let names = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateRefusal::NotParsable)?
        .ok_or(CertificateRefusal::NoUriSan)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Ok(*uri)),
        // The parser's way to say that the text of a name is not UTF-8.
        GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => {
            Some(Err(CertificateRefusal::UriSanNotUtf8))
        }
        _ => None,
    });
    let uri = uris.next().ok_or(CertificateRefusal::NoUriSan)?;
    match uris.count() {
        0 => uri,
        more => Err(CertificateRefusal::SeveralUriSans { count: more.saturating_add(1) }),
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    // The digest has exactly these 32 bytes; a zip cannot panic.
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

fn hex_without_leading_zeros(bytes: &[u8]) -> Box<str> {
    let mut hex = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes.iter().skip_while(|byte| **byte == 0) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into_boxed_str()
}

/// A certificate's time as ours; what lies before 1970 is 1970.
pub(super) fn nanos(time: ASN1Time) -> UnixNanos {
    UnixNanos::from_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CustomExtension, IsCa};

    use super::*;
    use crate::identity::testing::{NOW, Plant, ders};
    use crate::identity::{Role, identify};

    fn name(read: Result<CertificateFacts, CertificateRefusal>) -> Result<(), &'static str> {
        read.map(|_| ()).map_err(|refusal| refusal.name())
    }

    fn read_alone(der: &CertificateDer<'_>) -> Result<CertificateFacts, CertificateRefusal> {
        read(der, "x", CertificationPath::of(der, &[], &[]))
    }

    #[test]
    fn a_cas_certificate_is_refused_without_webpkis_help() {
        let plant = Plant::new("a");
        let ca = plant.odd(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(name(read_alone(&ders(&ca)[0])), Err("certificate.is_ca"));
    }

    #[test]
    fn basic_constraints_that_can_be_read_two_ways() {
        let plant = Plant::new("a");
        let with = |ders_of: &[&[u8]]| {
            let credential = plant.odd(|p| {
                p.is_ca = IsCa::NoCa;
                for der in ders_of {
                    let oid = [2, 5, 29, 19];
                    let extension = CustomExtension::from_oid_content(&oid, der.to_vec());
                    p.custom_extensions.push(extension);
                }
            });
            name(read_alone(&ders(&credential)[0]))
        };
        let (not_ca, ca) = ([0x30, 0], [0x30, 3, 1, 1, 0xff]);
        assert_eq!(with(&[]), Ok(()));
        assert_eq!(with(&[&not_ca]), Ok(()));
        assert_eq!(with(&[&ca]), Err("certificate.is_ca"));
        assert_eq!(with(&[&not_ca, &ca]), Err("certificate.not_parsable"));
        assert_eq!(with(&[&[0x04, 0]]), Err("certificate.not_parsable"));
    }

    #[test]
    fn bytes_after_the_certificate() {
        let plant = Plant::new("a");
        let mut der = ders(&plant.client(Role::Device, "a"))[0].to_vec();
        der.push(0);
        assert_eq!(name(read_alone(&der.into())), Err("certificate.not_parsable"));
    }

    #[test]
    fn a_serial_number_is_hexadecimal() {
        assert_eq!(&*hex_without_leading_zeros(&[0, 0, 0x0a, 0, 0xff]), "0a00ff");
        assert_eq!(&*hex_without_leading_zeros(&[0]), "");
    }

    proptest! {
        #[test]
        fn no_bit_of_a_certificate_can_change(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let plant = Plant::new("a");
            let mut path = ders(&plant.client(Role::Device, "a"));
            let mut der = path[0].to_vec();
            let at = at.index(der.len());
            der[at] ^= 1 << bit;
            path[0] = der.into();
            prop_assert!(identify(&path, &plant.issuers(), NOW).is_err());
            // Nor does the reader panic where no signature protects it.
            let _ = read_alone(&path[0]);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(read_alone(&bytes.into()).is_err());
        }
    }
}

//! The public key of a certificate, as far as its holder can sign statements with it.
//!
//! It judges no certificate. The invariant: a [`DeviceKey`] is one of the two kinds that a statement
//! may be signed with; whether its bytes are a point is seen when it first verifies.

use std::fmt;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use x509_parser::der_parser::oid;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What a key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA with P-256 and SHA-256.
    P256,
    /// Ed25519.
    Ed25519,
}

/// A key that verifies statements. Cheap to clone; read once, however often it verifies.
#[derive(Clone)]
pub struct DeviceKey(Arc<Inner>);

struct Inner {
    kind: KeyKind,
    bytes: Box<[u8]>,
    parsed: OnceLock<Option<ParsedPublicKey>>,
}

impl DeviceKey {
    /// The key whose encoding is `bytes`: an uncompressed point of P-256, or 32 bytes of Ed25519.
    pub fn new(kind: KeyKind, bytes: &[u8]) -> Self {
        Self(Arc::new(Inner { kind, bytes: bytes.into(), parsed: OnceLock::new() }))
    }

    /// The key of a certificate; none if it is of another kind.
    pub(super) fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let algorithm = &key.algorithm.algorithm;
        let curve = || key.algorithm.parameters.as_ref()?.as_oid().ok();
        let kind = if *algorithm == oid!(1.3.101.112) {
            KeyKind::Ed25519
        } else if *algorithm == oid!(1.2.840.10045.2.1) && curve()? == oid!(1.2.840.10045.3.1.7) {
            KeyKind::P256
        } else {
            return None;
        };
        Some(Self::new(kind, &key.subject_public_key.data))
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        self.0.kind
    }

    /// Whether `signature` (64 bytes) is its holder's, of `message`. A key that is none verifies
    /// nothing.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let parsed = self.0.parsed.get_or_init(|| match self.0.kind {
            KeyKind::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0.bytes).ok(),
            KeyKind::Ed25519 => ParsedPublicKey::new(&ED25519, &self.0.bytes).ok(),
        });
        parsed.as_ref().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl PartialEq for DeviceKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind == other.0.kind && self.0.bytes == other.0.bytes
    }
}

impl Eq for DeviceKey {}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.0.kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::certificate::parse;
    use crate::identity::name::Role;
    use crate::identity::testing::{Plant, ders};

    #[test]
    fn the_key_of_a_certificate_of_ours_can_verify() {
        let plant = Plant::new("p");
        let der = ders(&plant.client(Role::Device, "press-7")).swap_remove(0);
        let certificate = parse(&der).unwrap();
        let key = DeviceKey::of(certificate.public_key()).unwrap();
        assert_eq!(key.kind(), KeyKind::P256);
        assert!(!key.verifies(b"m", &[1; 64]));
    }

    #[test]
    fn what_is_no_point_verifies_nothing() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            for bytes in [&[][..], &[4; 65], &[0; 32], &[255; 31]] {
                assert!(!DeviceKey::new(kind, bytes).verifies(b"m", &[0; 64]), "{kind:?}");
            }
        }
    }
}

//! The key that signs: the one of the device's own certificate.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};

/// A private key, read from its PKCS #8 form (DER). A device whose key is in a secure element has
/// none of these: it lets the element sign [`crate::Unsigned::to_be_signed`].
#[derive(Debug)]
pub struct SigningKey(Kind);

#[derive(Debug)]
enum Kind {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// How a statement is signed: `alg` of its protected header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256; the signature is `r ‖ s`, 64 bytes.
    Es256,
    /// Ed25519; the signature has 64 bytes.
    Ed25519,
}

impl Algorithm {
    /// Its number in COSE (RFC 9053): −7 or −8.
    pub const fn number(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::Ed25519 => -8,
        }
    }
}

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The bytes are no key that can sign.
    #[error("this is no private key of P-256 or Ed25519 in PKCS #8 (DER)")]
    Key,
    /// The cryptographic library failed: no randomness, as a rule.
    #[error("the signature could not be made")]
    Signing,
    /// A device signs a number once: see [`crate::Signer::restart`].
    #[error("the last sequence number of this epoch was used")]
    SequenceEnded,
    /// A batch has a bound: cover it first.
    #[error("the batch is full, and must be covered before it goes on")]
    Uncovered,
}

impl SigningKey {
    /// Reads a key of P-256 or Ed25519.
    ///
    /// # Errors
    /// [`SignError::Key`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SignError> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(Self(Kind::P256(pair)));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| SignError::Key)?;
        Ok(Self(Kind::Ed25519(pair)))
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Kind::P256(_) => Algorithm::Es256,
            Kind::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Signs `message`: 64 bytes.
    ///
    /// # Errors
    /// [`SignError::Signing`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.0 {
            Kind::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError::Signing),
            Kind::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

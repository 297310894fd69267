//! Making tokens: for the command line, never for the core. Signatures of ECDSA use randomness.

use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use super::{TokenAlgorithm, TokenKeySpec};
use crate::identity::grants::Grants;
use crate::time::UnixNanos;

/// Signs tokens of one key.
pub struct TokenSigner {
    header: Header,
    issuer: Box<str>,
    audience: Box<str>,
    key: EncodingKey,
}

/// What a new token shall say, besides what its key says.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// Whom it names: `sub`.
    pub name: &'a str,
    /// Its own name: `jti`.
    pub jti: &'a str,
    /// `nbf` and `iat`.
    pub issued: UnixNanos,
    /// From `iat` to `exp`, in seconds.
    pub lifetime_seconds: u64,
    /// Roles and topic variables.
    pub grants: &'a Grants,
}

/// A new key of tokens, for ES256: what every library of tokens verifies.
pub struct TokenKeyPair {
    /// PEM: the public half (SubjectPublicKeyInfo).
    pub public_pem: String,
    /// PEM: the private half (PKCS#8).
    pub private_pem: String,
}

impl TokenKeyPair {
    /// Makes a key; `None` if the system gives no randomness.
    pub fn generate() -> Option<Self> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok()?;
        Some(Self { public_pem: pair.public_key_pem(), private_pem: pair.serialize_pem() })
    }
}

/// Why a token could not be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignFault {
    /// Keys of this algorithm sign elsewhere.
    #[error("{0} is verified here, but not signed with: use ES256, ES384 or EdDSA")]
    Algorithm(&'static str),
    /// The file holds no private key.
    #[error("it holds no private key in PKCS#8 (`BEGIN PRIVATE KEY`)")]
    NotPem,
    /// The key signs nothing of this algorithm.
    #[error("it is not a key for {0}")]
    OtherAlgorithm(&'static str),
}

impl TokenSigner {
    /// A signer for the key that `spec` describes, whose private half is `private_key_pem`. That
    /// the halves belong together shows when the token is verified.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn new(spec: &TokenKeySpec<'_>, private_key_pem: &str) -> Result<Self, SignFault> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(private_key_pem.as_bytes())
            .map_err(|_| SignFault::NotPem)?;
        let der = der.secret_pkcs8_der();
        let key = match spec.algorithm {
            TokenAlgorithm::Es256 | TokenAlgorithm::Es384 => EncodingKey::from_ec_der(der),
            TokenAlgorithm::EdDsa => EncodingKey::from_ed_der(der),
            TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => {
                return Err(SignFault::Algorithm(spec.algorithm.as_str()));
            }
        };
        let mut header = Header::new(spec.algorithm.library());
        header.kid = Some(spec.kid.to_owned());
        Ok(Self { header, issuer: spec.issuer.into(), audience: spec.audience.into(), key })
    }

    /// Signs. Nothing is judged: verify the token before handing it out.
    ///
    /// # Errors
    /// [`SignFault::OtherAlgorithm`].
    pub fn sign(&self, new: &NewToken<'_>) -> Result<String, SignFault> {
        let issued = new.issued.as_seconds();
        let mut claims = json!({
            "iss": self.issuer,
            "sub": new.name,
            "aud": self.audience,
            "exp": issued.saturating_add(new.lifetime_seconds),
            "nbf": issued,
            "iat": issued,
            "jti": new.jti,
        });
        if let Some(claims) = claims.as_object_mut() {
            let roles: Vec<Value> = new.grants.roles().map(Value::from).collect();
            let variables: Map<String, Value> = new
                .grants
                .variables()
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect();
            if !roles.is_empty() {
                claims.insert("roles".to_owned(), roles.into());
            }
            if !variables.is_empty() {
                claims.insert("vars".to_owned(), variables.into());
            }
        }
        let other = |_| SignFault::OtherAlgorithm(algorithm_name(&self.header));
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(other)
    }
}

fn algorithm_name(header: &Header) -> &'static str {
    let known = TokenAlgorithm::ALL.into_iter().find(|known| known.library() == header.alg);
    known.map_or("this algorithm", TokenAlgorithm::as_str)
}

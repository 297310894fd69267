//! One key of tokens: which algorithm it has, whose it is, and what its tokens may name.

use std::sync::Arc;

use aws_lc_rs::signature as verification;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::TOKEN_ISSUER_PREFIX;
use crate::identity::name::{Identity, NAME_BYTES_MAX, Role, check_name, check_trust_domain};
use crate::refusal::TokenRefusal;

/// Most keys of one broker.
pub const TOKEN_KEYS_MAX: usize = 16;
/// The longest lifetime that a key may be configured to give, in seconds: a day.
pub const TOKEN_LIFETIME_SECONDS_MAX: u64 = 86_400;
/// Longest issuer (`iss`) and audience (`aud`), in bytes.
pub const AUDIENCE_BYTES_MAX: usize = 128;

/// How a key signs. No symmetric algorithm is in the list: a secret that verifies could also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSA, PKCS#1 v1.5, with SHA-256; 2048 to 8192 bits.
    Rs256,
    /// RSA, PSS, with SHA-256; 2048 to 8192 bits.
    Ps256,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [Self::Es256, Self::Es384, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// Its name in a header and in the configuration (RFC 7518, 3.1; RFC 8037).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
        }
    }

    pub(super) const fn library(self) -> Algorithm {
        match self {
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
        }
    }

    /// The object identifier of its keys, and of their curve where one is named.
    const fn key_type(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Es256 => ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")),
            Self::Es384 => ("1.2.840.10045.2.1", Some("1.3.132.0.34")),
            Self::EdDsa => ("1.3.101.112", None),
            Self::Rs256 | Self::Ps256 => ("1.2.840.113549.1.1.1", None),
        }
    }

    /// Whether `key`, as the algorithm's own encoding has it, can verify anything.
    fn takes(self, key: &[u8]) -> bool {
        let algorithm: &'static dyn verification::VerificationAlgorithm = match self {
            Self::Es256 => &verification::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &verification::ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &verification::ED25519,
            Self::Rs256 => &verification::RSA_PKCS1_2048_8192_SHA256,
            Self::Ps256 => &verification::RSA_PSS_2048_8192_SHA256,
        };
        verification::ParsedPublicKey::new(algorithm, key).is_ok()
    }
}

/// What a key is configured to be.
#[derive(Clone, Copy, Debug)]
pub struct TokenKeySpec<'a> {
    /// Its name, `kid` of the header: 1 to 128 of `A-Z a-z 0-9 . - _`.
    pub kid: &'a str,
    /// How it signs.
    pub algorithm: TokenAlgorithm,
    /// `iss` of its tokens: 1 to [`AUDIENCE_BYTES_MAX`] printable ASCII characters.
    pub issuer: &'a str,
    /// `aud` that its tokens must name: likewise.
    pub audience: &'a str,
    /// The trust domain that it may name.
    pub trust_domain: &'a str,
    /// The one role that it may name.
    pub role: Role,
    /// What the names must begin with; empty: any name.
    pub name_prefix: &'a str,
    /// The longest lifetime of its tokens, in seconds; up to [`TOKEN_LIFETIME_SECONDS_MAX`].
    pub lifetime_seconds_max: u64,
    /// PEM of its public key (SubjectPublicKeyInfo).
    pub public_key_pem: &'a str,
}

/// A key of tokens.
#[derive(Debug)]
pub struct TokenKey {
    kid: Arc<str>,
    algorithm: TokenAlgorithm,
    issuer: Box<str>,
    audience: Box<str>,
    trust_domain: Box<str>,
    role: Role,
    name_prefix: Box<str>,
    identity_issuer: Box<str>,
    lifetime_seconds_max: u64,
    /// The key in the algorithm's own encoding, and the library's.
    public_key: Box<[u8]>,
    key: DecodingKey,
    validation: Validation,
}

/// Why something is no key of tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyFault {
    /// More keys than the bound.
    #[error("{0} keys of tokens, more than {TOKEN_KEYS_MAX}")]
    Count(usize),
    /// Two keys of one name.
    #[error("two keys are called `{0}`")]
    KidTwice(String),
    /// One key under two names: whoever signs with it could choose what it may name.
    #[error("the keys `{first}` and `{second}` are the same; give each a key of its own")]
    Shared {
        /// The `kid` of one.
        first: String,
        /// The `kid` of the other.
        second: String,
    },
    /// A `kid`, issuer, audience, trust domain or name prefix of another form.
    #[error("`{0}` is out of form")]
    Form(&'static str),
    /// A device is named by its certificate alone.
    #[error("a token cannot name a device")]
    Device,
    /// A lifetime of nothing, or longer than the bound.
    #[error("a lifetime must be 1 to {TOKEN_LIFETIME_SECONDS_MAX} seconds")]
    Lifetime,
    /// The file holds no public key.
    #[error("it holds no public key in PEM (`BEGIN PUBLIC KEY`)")]
    NotPem,
    /// The key is of another kind than its algorithm.
    #[error("it is not a key for {0}")]
    OtherAlgorithm(&'static str),
}

impl TokenKey {
    /// The key that `spec` describes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(spec: &TokenKeySpec<'_>) -> Result<Self, TokenKeyFault> {
        let printable = |text: &str| {
            (1..=AUDIENCE_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let prefix_fits = spec.name_prefix.len() < NAME_BYTES_MAX
            && check_name(&format!("{}x", spec.name_prefix)).is_ok();
        let forms = [
            ("kid", check_name(spec.kid).is_ok()),
            ("issuer", printable(spec.issuer)),
            ("audience", printable(spec.audience)),
            ("trust_domain", check_trust_domain(spec.trust_domain).is_ok()),
            ("name_prefix", prefix_fits),
        ];
        if let Some((field, _)) = forms.into_iter().find(|(_, holds)| !holds) {
            return Err(TokenKeyFault::Form(field));
        }
        if spec.role == Role::Device {
            return Err(TokenKeyFault::Device);
        }
        if !(1..=TOKEN_LIFETIME_SECONDS_MAX).contains(&spec.lifetime_seconds_max) {
            return Err(TokenKeyFault::Lifetime);
        }
        let public_key = read_public_key(spec.public_key_pem, spec.algorithm)?;
        Ok(Self {
            kid: spec.kid.into(),
            algorithm: spec.algorithm,
            issuer: spec.issuer.into(),
            audience: spec.audience.into(),
            trust_domain: spec.trust_domain.into(),
            role: spec.role,
            name_prefix: spec.name_prefix.into(),
            identity_issuer: format!("{TOKEN_ISSUER_PREFIX}{}", spec.issuer).into(),
            lifetime_seconds_max: spec.lifetime_seconds_max,
            key: decoding_key(&public_key, spec.algorithm),
            public_key,
            validation: signature_only(spec.algorithm),
        })
    }

    /// Its name.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn shared_kid(&self) -> Arc<str> {
        Arc::clone(&self.kid)
    }

    /// Whether both verify the same signatures, if by different schemes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.public_key == other.public_key
    }

    pub(super) fn algorithm(&self) -> TokenAlgorithm {
        self.algorithm
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn audience(&self) -> &str {
        &self.audience
    }

    pub(super) fn lifetime_seconds_max(&self) -> u64 {
        self.lifetime_seconds_max
    }

    /// The identity that this key calls `sub`.
    pub(super) fn name(&self, sub: &str) -> Result<Identity, TokenRefusal> {
        if !sub.starts_with(&*self.name_prefix) {
            return Err(TokenRefusal::Subject);
        }
        Identity::new(&self.trust_domain, self.role, sub, &self.identity_issuer)
            .map_err(|_| TokenRefusal::Subject)
    }

    /// Checks the signature of `token`, and then parses its claims; their meaning is not judged.
    pub(super) fn decode<T: DeserializeOwned>(
        &self,
        token: &[u8],
    ) -> Result<T, jsonwebtoken::errors::Error> {
        Ok(jsonwebtoken::decode(token, &self.key, &self.validation)?.claims)
    }
}

/// What the library checks: the algorithm and the signature. Its checks of claims are off, because
/// they read the system's clock and pass over claims that do not parse; [`super`] has its own.
fn signature_only(algorithm: TokenAlgorithm) -> Validation {
    let mut validation = Validation::new(algorithm.library());
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// The public key in the algorithm's own encoding.
fn read_public_key(pem: &str, algorithm: TokenAlgorithm) -> Result<Box<[u8]>, TokenKeyFault> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| TokenKeyFault::NotPem)?;
    let Ok(([], info)) = SubjectPublicKeyInfo::from_der(&der) else {
        return Err(TokenKeyFault::NotPem);
    };
    let (kind, curve) = algorithm.key_type();
    let parameters = info.algorithm.parameters.as_ref();
    // The NULL of RSA would be read as an empty identifier.
    let named = parameters.filter(|any| any.tag() == Tag::Oid).and_then(|any| any.as_oid().ok());
    let named = named.map(|oid| oid.to_id_string());
    let is_kind = info.algorithm.algorithm.to_id_string() == kind && named.as_deref() == curve;
    let key = &info.subject_public_key.data;
    if !is_kind || !algorithm.takes(key) {
        return Err(TokenKeyFault::OtherAlgorithm(algorithm.as_str()));
    }
    Ok(key.as_ref().into())
}

fn decoding_key(key: &[u8], algorithm: TokenAlgorithm) -> DecodingKey {
    match algorithm {
        TokenAlgorithm::Es256 | TokenAlgorithm::Es384 => DecodingKey::from_ec_der(key),
        TokenAlgorithm::EdDsa => DecodingKey::from_ed_der(key),
        TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => DecodingKey::from_rsa_der(key),
    }
}

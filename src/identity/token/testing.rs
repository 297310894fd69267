//! Keys and tokens for tests: right ones by [`super::sign`], wrong ones by the library itself.

use jsonwebtoken::{EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::Value;

use super::{NewToken, TokenAlgorithm, TokenKey, TokenKeySpec, TokenKeys, TokenSigner};
use crate::identity::Role;
use crate::identity::grants::Grants;
use crate::time::UnixNanos;

/// What stands before the key itself (PKCS#1) in the PKCS#8 of an RSA key of 2048 bits. The library
/// signs with the former only.
const PKCS8_OF_RSA_2048_BYTES: usize = 26;

/// A key pair and what it is configured to be.
pub(crate) struct Mint {
    pair: KeyPair,
    pub(crate) public_key_pem: String,
    pub(crate) role: Role,
    pub(crate) algorithm: TokenAlgorithm,
}

impl Mint {
    /// An ES256 key for dashboards, called `k1`, of issuer `idp`, for audience `plant-1`.
    pub(crate) fn new() -> Self {
        Self::of(TokenAlgorithm::Es256)
    }

    pub(crate) fn of(algorithm: TokenAlgorithm) -> Self {
        let kind = match algorithm {
            TokenAlgorithm::Es256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            TokenAlgorithm::Es384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            TokenAlgorithm::EdDsa => &rcgen::PKCS_ED25519,
            TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let public_key_pem = pair.public_key_pem();
        Self { pair, public_key_pem, role: Role::Dashboard, algorithm }
    }

    pub(crate) fn spec(&self) -> TokenKeySpec<'_> {
        TokenKeySpec {
            kid: "k1",
            algorithm: self.algorithm,
            issuer: "idp",
            audience: "plant-1",
            trust_domain: "plant.example",
            role: self.role,
            name_prefix: "",
            lifetime_seconds_max: 900,
            public_key_pem: &self.public_key_pem,
        }
    }

    pub(crate) fn keys(&self) -> TokenKeys {
        TokenKeys::new(vec![TokenKey::new(&self.spec()).unwrap()], 4096, 5).unwrap()
    }

    pub(crate) fn private_key_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// A right token for `name`.
    pub(crate) fn token(&self, name: &str, issued: UnixNanos, seconds: u64) -> String {
        self.token_with(name, issued, seconds, Grants::NONE)
    }

    pub(crate) fn token_with(
        &self,
        name: &str,
        issued: UnixNanos,
        lifetime_seconds: u64,
        grants: &Grants,
    ) -> String {
        let signer = TokenSigner::new(&self.spec(), &self.private_key_pem()).unwrap();
        signer.sign(&NewToken { name, jti: "j-1", issued, lifetime_seconds, grants }).unwrap()
    }

    /// Whatever `header` and `claims` say, signed by this key as `header` says.
    pub(crate) fn forge(&self, header: &Header, claims: &Value) -> String {
        let der = self.pair.serialize_der();
        let key = match self.algorithm {
            TokenAlgorithm::Es256 | TokenAlgorithm::Es384 => EncodingKey::from_ec_der(&der),
            TokenAlgorithm::EdDsa => EncodingKey::from_ed_der(&der),
            TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => {
                EncodingKey::from_rsa_der(&der[PKCS8_OF_RSA_2048_BYTES..])
            }
        };
        jsonwebtoken::encode(header, claims, &key).unwrap()
    }

    /// The public key in the algorithm's own encoding.
    pub(crate) fn public_key(&self) -> &[u8] {
        self.pair.der_bytes()
    }
}

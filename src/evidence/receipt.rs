//! Receipts: what the broker promises to whoever asked for one when it published.
//!
//! A receipt says that the log called `origin` has the leaf `leaf_hash` at `index`. A log that has
//! another leaf there, or none although its checkpoint covers the index, has broken a promise that
//! anybody can check who holds the receipt and the public half of the receipt key. It does not say
//! that anybody received the message. Bytes: `docs/receipts.md`.
//!
//! Pure: Ed25519 needs no randomness to sign. The invariant: a [`Receipt`] that came out of
//! [`ReceiptVerifier::open`] has exactly one encoding, which was given, and which the key signed.
//! RFC 9052 (COSE_Sign1), RFC 9596 (`typ`).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use coset::cbor::value::Value;
use coset::{
    CborSerializable as _, CoseSign1, CoseSign1Builder, Header, HeaderBuilder, ProtectedHeader,
    TaggedCborSerializable as _, iana,
};

use super::tree::Hash;
use crate::mqtt::TopicName;
use crate::policy::RECEIPTS_ROOT;
use crate::time::UnixNanos;

/// `typ` of a receipt.
pub const RECEIPT_TYPE: &str = "application/avow-receipt+cose";
/// Content type of what is signed.
pub const RECEIPT_CONTENT_TYPE: &str = "application/avow-receipt+cbor";
/// Name of the User Property that a receipt comes in, base64url without padding; and by which a client
/// asks for one, on CONNECT or PUBLISH.
pub const RECEIPT_PROPERTY: &str = "avow-receipt";
/// Longest receipt that is read, in bytes: the longest origin, and room.
pub const RECEIPT_BYTES_MAX: usize = 1024;
/// Longest `cti` that a receipt repeats, in bytes.
pub const CTI_BYTES_MAX: usize = 64;

/// Header label of `typ` (RFC 9596).
const LABEL_TYP: i64 = 16;
/// Bytes of a key id: the beginning of the SHA-256 of the public key.
const KEY_ID_BYTES: usize = 8;
const PUBLIC_KEY_BYTES: usize = 32;
/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_BEGIN: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The name of the log.
    pub origin: String,
    /// Where the entry stands in it.
    pub index: u64,
    /// The leaf hash of the entry.
    pub leaf_hash: Hash,
    /// Time of the entry, by the broker's clock.
    pub time: UnixNanos,
    /// Level of the entry: `A0`, `A1` or `A2`.
    pub level: String,
    /// The `cti` of the device's statement, if there is one.
    pub cti: Option<Vec<u8>>,
}

/// The key that signs receipts. It is neither the TLS key nor the log's.
pub struct ReceiptKey {
    pair: Ed25519KeyPair,
    verifier: ReceiptVerifier,
}

/// What signs the receipts of one log.
#[derive(Debug)]
pub struct ReceiptSigner {
    origin: Box<str>,
    key: ReceiptKey,
}

/// The public half of a [`ReceiptKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptVerifier {
    public: [u8; PUBLIC_KEY_BYTES],
}

/// Why a receipt, or a key of receipts, is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The bytes are no receipt, or not in the one form that a receipt has.
    #[error("this is not a receipt")]
    Malformed,
    /// It names another key.
    #[error("the receipt was signed by another key")]
    OtherKey,
    /// The signature does not fit.
    #[error("the signature does not fit the receipt")]
    BadSignature,
    /// The private key is not an Ed25519 key in PKCS#8.
    #[error("this is not an Ed25519 private key")]
    PrivateKey,
    /// The public key is not an Ed25519 key as SubjectPublicKeyInfo.
    #[error("this is not an Ed25519 public key")]
    PublicKey,
    /// The operating system gave no randomness, or the library refused.
    #[error("the cryptographic library failed to make a key")]
    Library,
}

/// Where the receipts of the client `client_id` of the identity called `name` go. Characters of the
/// identifier that no level of a topic can have, and `%`, are written as `%` and two hexadecimal
/// digits. `None` if that is too long for a topic.
pub fn receipt_topic(name: &str, client_id: &str) -> Option<TopicName> {
    let mut topic = format!("{RECEIPTS_ROOT}/{name}/");
    for character in client_id.chars() {
        match character {
            '/' => topic.push_str("%2F"),
            '+' => topic.push_str("%2B"),
            '#' => topic.push_str("%23"),
            '%' => topic.push_str("%25"),
            other => topic.push(other),
        }
    }
    TopicName::parse(&topic).ok()
}

impl ReceiptKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`ReceiptError::Library`].
    pub fn generate() -> Result<Self, ReceiptError> {
        Self::new(Ed25519KeyPair::generate().map_err(|_| ReceiptError::Library)?)
    }

    /// Reads a key from PKCS#8 (DER).
    ///
    /// # Errors
    /// [`ReceiptError::PrivateKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, ReceiptError> {
        Self::new(Ed25519KeyPair::from_pkcs8(der).map_err(|_| ReceiptError::PrivateKey)?)
    }

    /// Makes the key of a 32-byte seed (RFC 8032).
    ///
    /// # Errors
    /// [`ReceiptError::PrivateKey`].
    pub fn from_seed(seed: &[u8]) -> Result<Self, ReceiptError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Self::new(pair.map_err(|_| ReceiptError::PrivateKey)?)
    }

    /// The private key in PKCS#8 (DER), to be kept in a file that nobody else reads.
    ///
    /// # Errors
    /// [`ReceiptError::Library`].
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, ReceiptError> {
        Ok(self.pair.to_pkcs8v1().map_err(|_| ReceiptError::Library)?.as_ref().to_vec())
    }

    /// The public half.
    pub fn verifier(&self) -> &ReceiptVerifier {
        &self.verifier
    }

    /// The bytes of `receipt`, signed. Deterministic: the same receipt gets the same bytes.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`] if it has no encoding, which no receipt of ours brings about.
    pub fn sign(&self, receipt: &Receipt) -> Result<Vec<u8>, ReceiptError> {
        let signed = CoseSign1Builder::new()
            .protected(self.verifier.header())
            .payload(receipt.encode()?)
            .create_signature(&[], |tbs| self.pair.sign(tbs).as_ref().to_vec())
            .build();
        signed.to_tagged_vec().map_err(|_| ReceiptError::Malformed)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, ReceiptError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| ReceiptError::Library)?;
        Ok(Self { verifier: ReceiptVerifier { public }, pair })
    }
}

impl ReceiptSigner {
    /// Signs with `key` for the log called `origin`.
    pub fn new(origin: &str, key: ReceiptKey) -> Self {
        Self { origin: origin.into(), key }
    }

    /// The name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key.
    pub fn key(&self) -> &ReceiptKey {
        &self.key
    }
}

impl ReceiptVerifier {
    /// Reads a key from a SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    /// [`ReceiptError::PublicKey`].
    pub fn from_spki(der: &[u8]) -> Result<Self, ReceiptError> {
        let public = der.strip_prefix(&SPKI_BEGIN).and_then(|key| key.try_into().ok());
        public.map(|public| Self { public }).ok_or(ReceiptError::PublicKey)
    }

    /// The key as SubjectPublicKeyInfo (DER): what `openssl pkey -pubin` reads.
    pub fn to_spki(&self) -> Vec<u8> {
        [&SPKI_BEGIN[..], &self.public].concat()
    }

    /// Reads a receipt that this key signed.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`], [`ReceiptError::OtherKey`], [`ReceiptError::BadSignature`].
    pub fn open(&self, bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let malformed = ReceiptError::Malformed;
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(malformed);
        }
        let signed = CoseSign1::from_tagged_slice(bytes).map_err(|_| malformed)?;
        let receipt = Receipt::decode(signed.payload.as_deref().ok_or(malformed)?)?;
        let mut expected = self.header();
        let is_ours = signed.protected.header.key_id == expected.key_id;
        // Anything else in the one form is malformed, whoever signed it.
        expected.key_id.clone_from(&signed.protected.header.key_id);
        let again = CoseSign1 {
            protected: ProtectedHeader { original_data: None, header: expected },
            unprotected: Header::default(),
            payload: Some(receipt.encode()?),
            signature: signed.signature.clone(),
        };
        if !again.to_tagged_vec().is_ok_and(|again| again == bytes) {
            return Err(malformed);
        }
        if !is_ours {
            return Err(ReceiptError::OtherKey);
        }
        signed.verify_signature(&[], |signature, tbs| {
            let key = UnparsedPublicKey::new(&ED25519, &self.public);
            key.verify(tbs, signature).map_err(|_| ReceiptError::BadSignature)
        })?;
        Ok(receipt)
    }

    /// The protected header of every receipt of this key.
    fn header(&self) -> Header {
        let key_id = digest(&SHA256, &self.public);
        HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .content_type(RECEIPT_CONTENT_TYPE.to_owned())
            .key_id(key_id.as_ref().get(..KEY_ID_BYTES).unwrap_or_default().to_vec())
            .value(LABEL_TYP, Value::from(RECEIPT_TYPE))
            .build()
    }
}

impl Receipt {
    /// The map that is signed, its keys ascending.
    fn encode(&self) -> Result<Vec<u8>, ReceiptError> {
        let mut fields = vec![
            (Value::from(1), Value::from(self.origin.as_str())),
            (Value::from(2), Value::from(self.index)),
            (Value::from(3), Value::from(&self.leaf_hash[..])),
            (Value::from(4), Value::from(self.time.as_nanos())),
            (Value::from(5), Value::from(self.level.as_str())),
        ];
        fields.extend(self.cti.as_deref().map(|cti| (Value::from(6), Value::from(cti))));
        Value::Map(fields).to_vec().map_err(|_| ReceiptError::Malformed)
    }

    /// Reads what [`Self::encode`] writes; whoever calls it holds the bytes against that again.
    fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let value = Value::from_slice(bytes).map_err(|_| ReceiptError::Malformed)?;
        let fields = value.into_map().map_err(|_| ReceiptError::Malformed)?;
        let mut values = fields.into_iter().map(|(_, value)| value);
        let mut next = || values.next().ok_or(ReceiptError::Malformed);
        let number = |value: Value| {
            let number = value.into_integer().map_err(|_| ReceiptError::Malformed)?;
            u64::try_from(number).map_err(|_| ReceiptError::Malformed)
        };
        let text = |value: Value| value.into_text().map_err(|_| ReceiptError::Malformed);
        let origin = text(next()?)?;
        let index = number(next()?)?;
        let leaf_hash = next()?.into_bytes().ok().and_then(|hash| hash.try_into().ok());
        let leaf_hash = leaf_hash.ok_or(ReceiptError::Malformed)?;
        let time = UnixNanos::new(number(next()?)?);
        let level = text(next()?)?;
        let cti = next().ok().map(Value::into_bytes).transpose();
        let cti = cti.map_err(|_| ReceiptError::Malformed)?;
        Ok(Self { origin, index, leaf_hash, time, level, cti })
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiptKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use coset::Label;

    use super::*;

    fn receipt(cti: Option<&[u8]>) -> Receipt {
        Receipt {
            origin: "plant.example/plant-1".to_owned(),
            index: 1_234,
            leaf_hash: [0xab; 32],
            time: UnixNanos::new(1_795_000_000_123_456_789),
            level: "A2".to_owned(),
            cti: cti.map(<[u8]>::to_vec),
        }
    }

    fn key() -> ReceiptKey {
        ReceiptKey::from_seed(&[9; 32]).unwrap()
    }

    /// The vector of `docs/receipts.md`.
    #[test]
    fn a_receipt_has_these_bytes() {
        let bytes = key().sign(&receipt(Some(&[1, 2, 3, 4]))).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let document = include_str!("../../docs/receipts.md");
        assert!(document.replace(['\n', ' '], "").contains(&hex), "{hex}");
        let spki: String =
            key().verifier().to_spki().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(document.replace(['\n', ' '], "").contains(&spki), "{spki}");
    }

    #[test]
    fn what_was_signed_opens_and_nothing_that_differs_in_a_bit_does() {
        for cti in [None, Some(&[7; CTI_BYTES_MAX][..])] {
            let bytes = key().sign(&receipt(cti)).unwrap();
            assert!(bytes.len() <= RECEIPT_BYTES_MAX);
            assert_eq!(key().verifier().open(&bytes), Ok(receipt(cti)));
            for at in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[at / 8] ^= 1 << (at % 8);
                assert!(key().verifier().open(&bytes).is_err(), "bit {at}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(key().verifier().open(&longer), Err(ReceiptError::Malformed));
        }
    }

    #[test]
    fn another_form_of_what_was_signed_is_no_receipt() {
        let bytes = key().sign(&receipt(None)).unwrap();
        let mut signed = CoseSign1::from_tagged_slice(&bytes).unwrap();
        signed.unprotected.rest.push((Label::Int(99), Value::from(1)));
        let open = |bytes: &[u8]| key().verifier().open(bytes);
        assert_eq!(open(&signed.to_tagged_vec().unwrap()), Err(ReceiptError::Malformed));
        let signed = CoseSign1::from_tagged_slice(&bytes).unwrap();
        assert_eq!(open(&signed.to_vec().unwrap()), Err(ReceiptError::Malformed), "untagged");
        // Signed by us, and not as a receipt: `typ` and content type keep the two apart.
        let other = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).build())
            .payload(receipt(None).encode().unwrap())
            .create_signature(&[], |tbs| key().pair.sign(tbs).as_ref().to_vec())
            .build();
        assert_eq!(open(&other.to_tagged_vec().unwrap()), Err(ReceiptError::Malformed));
    }

    #[test]
    fn a_receipt_of_another_key_is_told_from_a_false_one() {
        let other = ReceiptKey::generate().unwrap();
        let bytes = other.sign(&receipt(None)).unwrap();
        assert_eq!(key().verifier().open(&bytes), Err(ReceiptError::OtherKey));
        let again = ReceiptKey::from_pkcs8(&other.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.verifier(), other.verifier());
        let spki = other.verifier().to_spki();
        assert_eq!(ReceiptVerifier::from_spki(&spki).unwrap().open(&bytes), Ok(receipt(None)));
        assert_eq!(ReceiptVerifier::from_spki(&spki[1..]), Err(ReceiptError::PublicKey));
        assert!(matches!(ReceiptKey::from_pkcs8(&[1, 2]), Err(ReceiptError::PrivateKey)));
    }
}

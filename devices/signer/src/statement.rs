//! The statement itself, byte by byte as `WIRE.md` says.
//!
//! It decides nothing: given the same fields it makes the same bytes. The invariant: every map is
//! written in the order of its encoded keys, so that a statement has exactly one encoding.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cbor::{Cbor, TAG_SIGN1};
use crate::key::Algorithm;

/// `typ` of a statement about one message.
pub const MESSAGE_TYPE: &str = "application/avow-message+cose";
/// Bytes of the salt in front of the payload.
pub const SALT_BYTES: usize = 16;
/// Bytes of `cti`, as [`crate::Signer`] makes it.
pub const CTI_BYTES: usize = 16;

/// SHA-256 among the algorithms of COSE (RFC 9054).
pub(crate) const ALG_SHA256: i64 = -16;
/// `application/octet-stream` among the content formats of CoAP: salt and payload are bytes.
const OCTET_STREAM: i64 = 42;
/// Header label of the salt, and of an embedded payload; both unprotected.
const LABEL_SALT: i64 = -65_537;
const LABEL_PAYLOAD: i64 = -65_538;
/// Private claims.
pub(crate) const CLAIM_EPOCH: i64 = -65_537;
const CLAIM_SEQ: i64 = -65_538;
const CLAIM_MANNER: i64 = -65_539;

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The whole Topic Name; never an alias.
    pub topic: &'a str,
    /// The Application Message.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
}

/// What a statement says beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// `iss`: the URI subjectAltName of the device's certificate.
    pub identity: &'a str,
    /// SHA-256 of the DER of that certificate.
    pub certificate_sha256: &'a [u8; 32],
    /// `aud`: the origin of the broker's log.
    pub audience: &'a str,
    /// `iat`: seconds since 1970 by the device's clock.
    pub issued_at: u64,
    /// `cti`: a nonce, 8 to 32 bytes.
    pub cti: &'a [u8],
    /// The boot counter: a device that has lost its place counts it up, and begins at any `seq`.
    pub epoch: u64,
    /// The number of the message in its epoch; each is given once.
    pub seq: u64,
}

/// A statement that wants to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    protected: Vec<u8>,
    commitment: [u8; 32],
    salt: [u8; SALT_BYTES],
}

/// A signed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    unsigned: Unsigned,
    signature: Vec<u8>,
}

impl Unsigned {
    /// States `claims` of `message`. `salt` must be fresh randomness: it hides the payload from
    /// whoever has the log alone.
    pub fn new(
        algorithm: Algorithm,
        claims: &Claims<'_>,
        message: &Message<'_>,
        salt: [u8; SALT_BYTES],
    ) -> Self {
        let commitment = commitment(&salt, message.payload);
        Self { protected: protected(algorithm, claims, message), commitment, salt }
    }

    /// The bytes to sign: `Sig_structure` of RFC 9052, section 4.4.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut cbor = Cbor::default();
        cbor.array(4).text("Signature1").bytes(&self.protected).bytes(&[]).bytes(&self.commitment);
        cbor.0
    }

    /// The statement with its signature, which is 64 bytes: `r ‖ s` for ES256, never DER.
    pub fn signed(self, signature: Vec<u8>) -> Signed {
        Signed { unsigned: self, signature }
    }
}

impl Signed {
    /// The COSE_Sign1 object.
    pub fn object(&self) -> Vec<u8> {
        self.write(None)
    }

    /// The value of the user property [`crate::STATEMENT_PROPERTY`]: the object in base64url,
    /// without padding.
    pub fn property(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.object())
    }

    /// The object with the payload in it: what a client of MQTT 3.1.1, which has no properties,
    /// publishes in place of the payload. `payload` must be the one that was signed.
    pub fn embedding(&self, payload: &[u8]) -> Vec<u8> {
        self.write(Some(payload))
    }

    fn write(&self, payload: Option<&[u8]>) -> Vec<u8> {
        let Unsigned { protected, commitment, salt } = &self.unsigned;
        let mut cbor = Cbor::default();
        cbor.tag(TAG_SIGN1).array(4).bytes(protected);
        cbor.map(1 + u64::from(payload.is_some())).integer(LABEL_SALT).bytes(salt);
        if let Some(payload) = payload {
            cbor.integer(LABEL_PAYLOAD).bytes(payload);
        }
        cbor.bytes(commitment).bytes(&self.signature);
        cbor.0
    }
}

/// C: what is signed in place of the payload.
pub(crate) fn commitment(salt: &[u8; SALT_BYTES], payload: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(payload);
    let mut commitment = [0; 32];
    commitment.copy_from_slice(context.finish().as_ref());
    commitment
}

/// QoS + 4 × RETAIN.
pub(crate) fn manner(message: &Message<'_>) -> u8 {
    message.qos | u8::from(message.retain) << 2
}

fn protected(algorithm: Algorithm, claims: &Claims<'_>, message: &Message<'_>) -> Vec<u8> {
    let mut cbor = Cbor::default();
    cbor.map(6);
    cbor.integer(1).integer(algorithm.number());
    cbor.integer(15).map(8);
    cbor.integer(1).text(claims.identity);
    cbor.integer(2).text(message.topic);
    cbor.integer(3).text(claims.audience);
    cbor.integer(6).unsigned(claims.issued_at);
    cbor.integer(7).bytes(claims.cti);
    cbor.integer(CLAIM_EPOCH).unsigned(claims.epoch);
    cbor.integer(CLAIM_SEQ).unsigned(claims.seq);
    cbor.integer(CLAIM_MANNER).unsigned(manner(message).into());
    cbor.integer(16).text(MESSAGE_TYPE);
    cbor.integer(34).array(2).integer(ALG_SHA256).bytes(claims.certificate_sha256);
    cbor.integer(258).integer(ALG_SHA256);
    cbor.integer(259).integer(OCTET_STREAM);
    cbor.0
}

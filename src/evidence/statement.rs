//! A device's statement about one message (level A2): what it says, and what it must say to carry
//! the message that it came with.
//!
//! The bytes are those of `devices/signer/WIRE.md`: a COSE_Sign1 object (RFC 9052) over a hash
//! envelope (RFC 9995) with CWT claims (RFC 9597). Only its one deterministic encoding is read, so
//! that two readers cannot understand it differently. What the signature is worth is seen
//! elsewhere, off the threads of sockets ([`VerifyJob`]); whether the message is new is
//! [`super::window`]'s. The invariant: a [`Statement`] that was bound says the same as the PUBLISH
//! and the connection do.

mod cbor;
mod cover;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use self::cbor::Reader;
pub use self::cover::{COVER_TYPE, Cover};
use super::{SALT_BYTES, commitment};
use crate::identity::{DeviceKey, KeyKind};
use crate::mqtt::QoS;
use crate::refusal::StatementRefusal as R;

/// Name of the user property that carries a statement.
pub const STATEMENT_PROPERTY: &str = "avow-statement";
/// Longest statement, in bytes, beside a payload that it embeds.
pub const STATEMENT_BYTES_MAX: usize = 8_192;
/// `typ` of a statement about one message.
pub const MESSAGE_TYPE: &str = "application/avow-message+cose";

/// Bytes of a signature, of either algorithm.
pub const DEVICE_SIGNATURE_BYTES: usize = 64;

/// Bytes of `cti`.
const CTI_BYTES: std::ops::RangeInclusive<usize> = 8..=32;
/// Tag of a COSE_Sign1 object.
const TAG_SIGN1: u64 = 18;
const ALG_ES256: i64 = -7;
const ALG_EDDSA: i64 = -8;
const ALG_SHA256: i64 = -16;
const OCTET_STREAM: i64 = 42;
const LABEL_SALT: i64 = -65_537;
const LABEL_PAYLOAD: i64 = -65_538;

/// A statement, read and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    protected: Bytes,
    signature: [u8; DEVICE_SIGNATURE_BYTES],
    salt: [u8; SALT_BYTES],
    commitment: [u8; 32],
    embedded: Option<Bytes>,
    kind: KeyKind,
    x5t: [u8; 32],
    claims: Claims,
}

/// The claims of a statement. The texts are the device's, compared before they are used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claims {
    issuer: Bytes,
    subject: Bytes,
    audience: Bytes,
    issued_at: u64,
    cti: Bytes,
    epoch: u64,
    seq: u64,
    manner: u64,
}

/// What a statement must say: the connection and the PUBLISH that it came with.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The SPIFFE ID of the connection.
    pub identity: &'a str,
    /// SHA-256 of the certificate of the connection, and its key; none if it came without one.
    pub certificate: Option<(&'a [u8; 32], &'a DeviceKey)>,
    /// The origin of our log.
    pub audience: &'a str,
    /// The whole Topic Name.
    pub topic: &'a str,
    /// QoS of the PUBLISH.
    pub qos: QoS,
    /// RETAIN of the PUBLISH.
    pub retain: bool,
    /// The Application Message.
    pub payload: &'a [u8],
}

impl Statement {
    /// Reads the value of the user property.
    ///
    /// # Errors
    /// Why it is none: [`R::TooLong`], and as [`Self::parse`].
    pub fn parse_property(value: &str) -> Result<Self, R> {
        if value.len() > STATEMENT_BYTES_MAX.div_ceil(3) * 4 {
            return Err(R::TooLong);
        }
        let object = URL_SAFE_NO_PAD.decode(value).map_err(|_| R::Malformed)?;
        let statement = Self::parse(&object.into())?;
        // Who has properties needs no second copy of the payload.
        if statement.embedded.is_some() { Err(R::Label) } else { Ok(statement) }
    }

    /// Reads a COSE_Sign1 object that embeds its payload: all that a client without properties
    /// sends.
    ///
    /// # Errors
    /// As [`Self::parse`]; [`R::Label`] if it embeds nothing.
    pub fn parse_embedding(object: &Bytes) -> Result<(Self, Bytes), R> {
        let mut statement = Self::parse(object)?;
        let payload = statement.embedded.take().ok_or(R::Label)?;
        Ok((statement, payload))
    }

    /// Reads a COSE_Sign1 object.
    ///
    /// # Errors
    /// [`R::Malformed`], [`R::TooLong`], [`R::Label`], [`R::Type`], [`R::Algorithm`].
    pub fn parse(object: &Bytes) -> Result<Self, R> {
        let mut r = Reader::new(object);
        let begins = r.tag() == Some(TAG_SIGN1) && r.array() == Some(4);
        let protected = r.bytes().filter(|_| begins).ok_or(R::Malformed)?;
        let (salt, embedded) = read_unprotected(&mut r)?;
        let embedded_bytes = embedded.as_ref().map_or(0, Bytes::len);
        if object.len().saturating_sub(embedded_bytes) > STATEMENT_BYTES_MAX {
            return Err(R::TooLong);
        }
        let commitment = r.array_of().ok_or(R::Malformed)?;
        let signature = r.array_of().filter(|_| r.is_at_end()).ok_or(R::Malformed)?;
        let (kind, x5t, claims) = read_protected(&protected)?;
        Ok(Self { protected, signature, salt, commitment, embedded, kind, x5t, claims })
    }

    /// Holds the statement against what it came with. What is left to see is the signature.
    ///
    /// # Errors
    /// The first that differs.
    pub fn bind(&self, binding: &Binding<'_>) -> Result<(), R> {
        let claims = &self.claims;
        let Some((x5t, key)) = binding.certificate else { return Err(R::Certificate) };
        if self.x5t != *x5t {
            return Err(R::Certificate);
        }
        if self.kind != key.kind() {
            return Err(R::Algorithm);
        }
        if claims.issuer != binding.identity {
            return Err(R::Issuer);
        }
        if claims.audience != binding.audience {
            return Err(R::Audience);
        }
        if claims.subject != binding.topic {
            return Err(R::Topic);
        }
        if claims.manner != (binding.qos as u64 | u64::from(binding.retain) << 2) {
            return Err(R::Manner);
        }
        if commitment(&self.salt, binding.payload) != self.commitment {
            return Err(R::Commitment);
        }
        Ok(())
    }

    /// The bytes that are signed: `Sig_structure` of RFC 9052, section 4.4.
    pub fn to_be_signed(&self) -> Vec<u8> {
        sig_structure(&self.protected, &self.commitment)
    }

    /// The work of checking the signature under `key`. `ticket` comes back with the verdict.
    pub(super) fn verify_job(&self, ticket: u64, key: &DeviceKey) -> VerifyJob {
        let (message, signature) = (self.to_be_signed(), self.signature);
        VerifyJob { ticket, key: key.clone(), message, signature }
    }

    /// The protected header, as it was signed.
    pub fn protected(&self) -> &[u8] {
        &self.protected
    }

    /// The signature: `r ‖ s`, or that of Ed25519. Never an identifier: another one may be as good.
    pub fn signature(&self) -> &[u8; DEVICE_SIGNATURE_BYTES] {
        &self.signature
    }

    /// The salt, for the body beside the entry.
    pub fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// C: the SHA-256 of salt and payload.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// When the device says that it signed, in seconds since 1970.
    pub fn issued_at(&self) -> u64 {
        self.claims.issued_at
    }

    /// The nonce.
    pub fn cti(&self) -> &[u8] {
        &self.claims.cti
    }

    /// The boot counter.
    pub fn epoch(&self) -> u64 {
        self.claims.epoch
    }

    /// The number of the message in its epoch.
    pub fn seq(&self) -> u64 {
        self.claims.seq
    }
}

/// One signature to be checked: some ten microseconds of work without any state, for whatever thread
/// has the time.
#[derive(Clone, Debug)]
pub struct VerifyJob {
    ticket: u64,
    key: DeviceKey,
    message: Vec<u8>,
    signature: [u8; DEVICE_SIGNATURE_BYTES],
}

/// What came of a [`VerifyJob`]. Made only by [`VerifyJob::run`].
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    ticket: u64,
    is_good: bool,
}

impl VerifyJob {
    /// Checks the signature.
    pub fn run(self) -> Verified {
        let is_good = self.key.verifies(&self.message, &self.signature);
        Verified { ticket: self.ticket, is_good }
    }
}

impl Verified {
    /// Whose verdict it is.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether the key had signed.
    pub(super) fn is_good(&self) -> bool {
        self.is_good
    }
}

/// The unprotected header: the salt, and the payload where there is one. Keys stand in the order of
/// their encoding, so that none stands twice.
fn read_unprotected(r: &mut Reader<'_>) -> Result<([u8; SALT_BYTES], Option<Bytes>), R> {
    let pairs = r.map().ok_or(R::Malformed)?;
    if !(1..=2).contains(&pairs) || r.label().ok_or(R::Malformed)? != LABEL_SALT {
        return Err(R::Label);
    }
    let salt = r.array_of().ok_or(R::Malformed)?;
    if pairs == 1 {
        return Ok((salt, None));
    }
    if r.label().ok_or(R::Malformed)? != LABEL_PAYLOAD {
        return Err(R::Label);
    }
    Ok((salt, Some(r.bytes().ok_or(R::Malformed)?)))
}

/// The protected header. Its labels are a closed list in a fixed order: what is unknown, critical
/// or not, could change what was meant.
fn read_protected(protected: &Bytes) -> Result<(KeyKind, [u8; 32], Claims), R> {
    let mut r = Reader::new(protected);
    expect_pairs(&mut r, 6)?;
    let kind = read_algorithm(&mut r)?;
    expect_label(&mut r, 15)?;
    let claims = read_claims(&mut r)?;
    expect_label(&mut r, 16)?;
    if r.text().ok_or(R::Malformed)? != MESSAGE_TYPE {
        return Err(R::Type);
    }
    let x5t = read_x5t(&mut r)?;
    for (label, value) in [(258, ALG_SHA256), (259, OCTET_STREAM)] {
        expect_label(&mut r, label)?;
        if r.label().ok_or(R::Malformed)? != value {
            return Err(R::Type);
        }
    }
    if r.is_at_end() { Ok((kind, x5t, claims)) } else { Err(R::Malformed) }
}

fn read_algorithm(r: &mut Reader<'_>) -> Result<KeyKind, R> {
    expect_label(r, 1)?;
    match r.label().ok_or(R::Malformed)? {
        ALG_ES256 => Ok(KeyKind::P256),
        ALG_EDDSA => Ok(KeyKind::Ed25519),
        _ => Err(R::Algorithm),
    }
}

/// The SHA-256 of the certificate.
fn read_x5t(r: &mut Reader<'_>) -> Result<[u8; 32], R> {
    expect_label(r, 34)?;
    if r.array().ok_or(R::Malformed)? != 2 {
        return Err(R::Malformed);
    }
    if r.label().ok_or(R::Malformed)? != ALG_SHA256 {
        return Err(R::Type);
    }
    r.array_of().ok_or(R::Malformed)
}

/// `Sig_structure` of RFC 9052, section 4.4, over a payload of 32 bytes.
fn sig_structure(protected: &[u8], payload: &[u8; 32]) -> Vec<u8> {
    const BEGIN: &[u8] = b"\x84\x6ASignature1";
    let length = protected.len();
    let mut out = Vec::with_capacity(BEGIN.len() + length + 38);
    out.extend_from_slice(BEGIN);
    // The head of the protected header, a bstr. It was read from one, so it is short.
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=23), _) => out.push(0x40 | length),
        (Ok(length), _) => out.extend_from_slice(&[0x58, length]),
        (Err(_), length) => {
            out.push(0x59);
            out.extend_from_slice(&length.unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(protected);
    // Nothing is added from outside, and the payload is a bstr of 32.
    out.extend_from_slice(&[0x40, 0x58, 32]);
    out.extend_from_slice(payload);
    out
}

fn read_claims(r: &mut Reader<'_>) -> Result<Claims, R> {
    expect_pairs(r, 8)?;
    let mut text = |label| {
        expect_label(r, label)?;
        r.text().ok_or(R::Malformed)
    };
    let (issuer, subject, audience) = (text(1)?, text(2)?, text(3)?);
    let issued_at = read_number(r, 6)?;
    expect_label(r, 7)?;
    let cti = r.bytes().filter(|cti| CTI_BYTES.contains(&cti.len())).ok_or(R::Malformed)?;
    let (epoch, seq) = (read_number(r, -65_537)?, read_number(r, -65_538)?);
    let manner = read_number(r, -65_539)?;
    Ok(Claims { issuer, subject, audience, issued_at, cti, epoch, seq, manner })
}

fn read_number(r: &mut Reader<'_>, label: i64) -> Result<u64, R> {
    expect_label(r, label)?;
    r.unsigned().ok_or(R::Malformed)
}

fn expect_label(r: &mut Reader<'_>, wanted: i64) -> Result<(), R> {
    let found = r.label().ok_or(R::Malformed)?;
    if found == wanted { Ok(()) } else { Err(R::Label) }
}

fn expect_pairs(r: &mut Reader<'_>, wanted: u64) -> Result<(), R> {
    let found = r.map().ok_or(R::Malformed)?;
    if found == wanted { Ok(()) } else { Err(R::Label) }
}

#[cfg(test)]
pub(crate) mod tests;

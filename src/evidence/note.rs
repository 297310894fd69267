//! C2SP signed-note v1.0.0: a text, an empty line, and signature lines of keys that have names.
//!
//! Only form and arithmetic, shared by the key of a log ([`super::checkpoint`]) and the keys of
//! witnesses ([`super::cosignature`]); what a signature means is theirs. The invariant: the id of
//! a key follows from its name, its type and its bytes, so that one signature line names one key.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{KeyError, NoteError, ORIGIN_BYTES_MAX, SIGNATURE_BYTES, SIGNATURES_MAX};

/// Length of an Ed25519 public key, in bytes.
pub(super) const PUBLIC_KEY_BYTES: usize = 32;
/// Length of a key id, in bytes.
pub(super) const KEY_ID_BYTES: usize = 4;

const SIGNATURE_LINE_START: &str = "\u{2014} ";

/// What the signatures of a key are over, as the byte that stands before the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureType {
    /// The text of a note: the log itself.
    Ed25519,
    /// The text of a checkpoint, and the time: a witness.
    Cosignature,
}

impl SignatureType {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A public key and its name.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PublicKey {
    kind: SignatureType,
    name: String,
    id: [u8; KEY_ID_BYTES],
    public: [u8; PUBLIC_KEY_BYTES],
}

/// A private key and its name.
pub(super) struct PrivateKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// One line under a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignatureLine<'a> {
    name: &'a str,
    id: [u8; KEY_ID_BYTES],
    /// What follows the key id.
    pub(super) signature: Vec<u8>,
}

impl PublicKey {
    /// The key `public` of this type, under the name `name`.
    pub(super) fn new(
        kind: SignatureType,
        name: &str,
        public: [u8; PUBLIC_KEY_BYTES],
    ) -> Result<Self, KeyError> {
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > ORIGIN_BYTES_MAX || name.contains(forbidden) {
            return Err(KeyError::Name);
        }
        let mut bytes = name.as_bytes().to_vec();
        bytes.extend_from_slice(&[b'\n', kind.byte()]);
        bytes.extend_from_slice(&public);
        let hash = digest(&SHA256, &bytes);
        let id = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Ok(Self { kind, name: name.to_owned(), id, public })
    }

    /// Reads `<name>+<key id in hex>+<base64 of type and key>`; `None` if it is no key of this
    /// type, or its id is not that of its key.
    pub(super) fn parse(kind: SignatureType, text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = STANDARD.decode(key).ok()?;
        let (first, public) = key.split_first()?;
        let made = Self::new(kind, name, public.try_into().ok()?).ok()?;
        let id = (id.len() == 8).then(|| u32::from_str_radix(id, 16).ok())??;
        (*first == kind.byte() && id == u32::from_be_bytes(made.id)).then_some(made)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> [u8; KEY_ID_BYTES] {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// Whether this key is the one that `line` names.
    pub(super) fn is_named_by(&self, line: &SignatureLine<'_>) -> bool {
        line.name == self.name && line.id == self.id
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .map_err(|_| NoteError::BadSignature)
    }

    /// The signature line of this key, with its line end.
    pub(super) fn line(&self, signature: &[u8]) -> String {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(signature);
        format!("{SIGNATURE_LINE_START}{} {}\n", self.name, STANDARD.encode(bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        f.write_char('+')?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        let mut key = vec![self.kind.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "+{}", STANDARD.encode(key))
    }
}

impl PrivateKey {
    pub(super) fn generate(kind: SignatureType, name: &str) -> Result<Self, KeyError> {
        Self::new(kind, name, Ed25519KeyPair::generate().map_err(|_| KeyError::Library)?)
    }

    pub(super) fn from_pkcs8(
        kind: SignatureType,
        name: &str,
        der: &[u8],
    ) -> Result<Self, KeyError> {
        Self::new(kind, name, Ed25519KeyPair::from_pkcs8(der).map_err(|_| KeyError::Private)?)
    }

    pub(super) fn from_seed(
        kind: SignatureType,
        name: &str,
        seed: &[u8],
    ) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Private)?;
        Self::new(kind, name, pair)
    }

    /// PKCS#8 (DER).
    pub(super) fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.pair.to_pkcs8v1().map_err(|_| KeyError::Library)?.as_ref().to_vec())
    }

    /// The 32 bytes that all of it follows from.
    pub(super) fn to_seed(&self) -> Result<Vec<u8>, KeyError> {
        let seed = self.pair.seed().map_err(|_| KeyError::Library)?;
        Ok(seed.as_be_bytes().map_err(|_| KeyError::Library)?.as_ref().to_vec())
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Ed25519 is deterministic: the same message gets the same signature.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        let made = self.pair.sign(message);
        signature.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }

    fn new(kind: SignatureType, name: &str, pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Library)?;
        Ok(Self { public: PublicKey::new(kind, name, public)?, pair })
    }
}

/// Splits a note into its text, the last line end included, and its signature lines, of which
/// there is at least one. Nothing is verified.
pub(super) fn split(note: &str) -> Result<(&str, Vec<SignatureLine<'_>>), NoteError> {
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, rest) = note.split_at_checked(at + 1).ok_or(NoteError::Malformed)?;
    if has_controls(text) {
        return Err(NoteError::Malformed);
    }
    Ok((text, lines(rest.strip_prefix('\n').ok_or(NoteError::Malformed)?)?))
}

/// Reads one or more signature lines, each with its line end.
pub(super) fn lines(text: &str) -> Result<Vec<SignatureLine<'_>>, NoteError> {
    let body = text.strip_suffix('\n').filter(|_| !has_controls(text));
    let lines = body.ok_or(NoteError::Malformed)?.split('\n');
    let read: Vec<_> = lines.take(SIGNATURES_MAX + 1).map(parse_line).collect::<Result<_, _>>()?;
    if read.len() > SIGNATURES_MAX { Err(NoteError::Malformed) } else { Ok(read) }
}

fn has_controls(text: &str) -> bool {
    text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}

fn parse_line(line: &str) -> Result<SignatureLine<'_>, NoteError> {
    let line = line.strip_prefix(SIGNATURE_LINE_START).ok_or(NoteError::Malformed)?;
    let (name, signature) = line.split_once(' ').ok_or(NoteError::Malformed)?;
    let signature = STANDARD.decode(signature).map_err(|_| NoteError::Malformed)?;
    let (id, signature) = signature.split_first_chunk().ok_or(NoteError::Malformed)?;
    if name.is_empty() || signature.is_empty() {
        return Err(NoteError::Malformed);
    }
    Ok(SignatureLine { name, id: *id, signature: signature.to_vec() })
}

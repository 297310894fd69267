//! A device that signs batches: a hash chain over its messages, and one signature over its head.
//!
//! ```text
//!  message ─► C = SHA-256(salt ‖ payload) ─► link = SHA-256(1 ‖ seq ‖ manner ‖ topic ‖ C) ─► property
//!  head    = SHA-256(2 ‖ head ‖ link)                                 state: 32 bytes and two numbers
//!  every N messages or T seconds ─► COSE_Sign1 over the head, first and last seq ─► topic `$cover`
//! ```
//!
//! The bytes are described in `BATCH.md`. The invariant: a number is given once, and a cover names
//! exactly the numbers that went into its head.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cbor::{Cbor, TAG_SIGN1};
use crate::key::{Algorithm, SignError, SigningKey};
use crate::signer::SignerOptions;
use crate::statement::{
    ALG_SHA256, CLAIM_EPOCH, CTI_BYTES, Message, SALT_BYTES, commitment, manner,
};

/// `typ` of a statement about a batch.
pub const COVER_TYPE: &str = "application/avow-cover+cose";
/// Name of the MQTT 5.0 user property that links a message into a batch.
pub const LINK_PROPERTY: &str = "avow-link";
/// The topic that a cover is published on, with QoS 1.
pub const COVER_TOPIC: &str = "$cover";
/// Most messages of one batch.
pub const BATCH_MESSAGES_MAX: u64 = 1_024;

const CLAIM_FIRST: i64 = -65_540;
const CLAIM_LAST: i64 = -65_541;

/// When a batch is to be covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBounds {
    /// After so many messages, at most [`BATCH_MESSAGES_MAX`].
    pub messages: u64,
    /// After so many seconds, counted from its first message.
    pub seconds: u64,
}

/// What goes into the user property [`LINK_PROPERTY`] of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The boot counter.
    pub epoch: u64,
    /// The number of the message in its epoch.
    pub seq: u64,
    /// Hides the payload from whoever has the log alone.
    pub salt: [u8; SALT_BYTES],
}

impl Link {
    /// The value of the property: epoch, seq and salt, 32 bytes in base64url without padding.
    pub fn property(&self) -> String {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.salt);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the message adds to the chain.
    pub fn digest(&self, message: &Message<'_>) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&[1]);
        context.update(&self.seq.to_be_bytes());
        context.update(&[manner(message)]);
        text(&mut context, message.topic);
        context.update(&commitment(&self.salt, message.payload));
        finish(context)
    }
}

/// The head of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head([u8; 32]);

impl Head {
    /// The head before the first message of a batch.
    pub fn begin(identity: &str, audience: &str, epoch: u64, first: u64) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(&epoch.to_be_bytes());
        context.update(&first.to_be_bytes());
        text(&mut context, identity);
        text(&mut context, audience);
        Self(finish(context))
    }

    /// The head behind one more message.
    #[must_use]
    pub fn behind(self, link: &[u8; 32]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[2]);
        context.update(&self.0);
        context.update(link);
        Self(finish(context))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a statement about a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoverClaims<'a> {
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
    /// The boot counter.
    pub epoch: u64,
    /// The number of the first message of the batch.
    pub first: u64,
    /// The number of its last.
    pub last: u64,
}

/// A statement about a batch that wants to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedCover {
    protected: Vec<u8>,
    head: Head,
}

impl UnsignedCover {
    /// States `claims` of the chain that ends with `head`.
    pub fn new(algorithm: Algorithm, claims: &CoverClaims<'_>, head: Head) -> Self {
        let mut cbor = Cbor::default();
        cbor.map(4);
        cbor.integer(1).integer(algorithm.number());
        cbor.integer(15).map(7);
        cbor.integer(1).text(claims.identity);
        cbor.integer(3).text(claims.audience);
        cbor.integer(6).unsigned(claims.issued_at);
        cbor.integer(7).bytes(claims.cti);
        cbor.integer(CLAIM_EPOCH).unsigned(claims.epoch);
        cbor.integer(CLAIM_FIRST).unsigned(claims.first);
        cbor.integer(CLAIM_LAST).unsigned(claims.last);
        cbor.integer(16).text(COVER_TYPE);
        cbor.integer(34).array(2).integer(ALG_SHA256).bytes(claims.certificate_sha256);
        Self { protected: cbor.0, head }
    }

    /// The bytes to sign: `Sig_structure` of RFC 9052, section 4.4.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut cbor = Cbor::default();
        cbor.array(4).text("Signature1").bytes(&self.protected).bytes(&[]).bytes(&self.head.0);
        cbor.0
    }

    /// The COSE_Sign1 object: the payload of the PUBLISH on [`COVER_TOPIC`]. `signature` is 64
    /// bytes: `r ‖ s` for ES256, never DER.
    pub fn signed(&self, signature: &[u8]) -> Vec<u8> {
        let mut cbor = Cbor::default();
        cbor.tag(TAG_SIGN1).array(4).bytes(&self.protected).map(0);
        cbor.bytes(&self.head.0).bytes(signature);
        cbor.0
    }
}

/// Links messages and signs for them in batches. The first number is 1.
#[derive(Debug)]
pub struct BatchSigner {
    key: SigningKey,
    certificate_sha256: [u8; 32],
    identity: String,
    audience: String,
    epoch: u64,
    last_seq: u64,
    bounds: BatchBounds,
    open: Option<Open>,
}

/// A batch with at least one message.
#[derive(Debug)]
struct Open {
    first: u64,
    head: Head,
    since_seconds: u64,
}

impl BatchSigner {
    /// A signer that has linked nothing in its epoch.
    pub fn new(options: SignerOptions<'_>, bounds: BatchBounds) -> Self {
        let SignerOptions { key, certificate_der, identity, audience, epoch } = options;
        let mut context = Context::new(&SHA256);
        context.update(certificate_der);
        Self {
            key,
            certificate_sha256: finish(context),
            identity: identity.to_owned(),
            audience: audience.to_owned(),
            epoch,
            last_seq: 0,
            bounds,
            open: None,
        }
    }

    /// Links `message` at `now_seconds` since 1970. It must be published before the next one is
    /// linked, and sent again as it is.
    ///
    /// # Errors
    /// [`SignError::Uncovered`] if the batch is full, [`SignError::SequenceEnded`] after 2⁶⁴ − 1
    /// messages, [`SignError::Signing`] without randomness. Then nothing is linked.
    pub fn link(&mut self, message: &Message<'_>, now_seconds: u64) -> Result<Link, SignError> {
        let seq = self.last_seq.checked_add(1).ok_or(SignError::SequenceEnded)?;
        if self.open.as_ref().is_some_and(|open| seq - open.first >= BATCH_MESSAGES_MAX) {
            return Err(SignError::Uncovered);
        }
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| SignError::Signing)?;
        let link = Link { epoch: self.epoch, seq, salt };
        let (identity, audience) = (&self.identity, &self.audience);
        let open = self.open.get_or_insert_with(|| Open {
            first: seq,
            head: Head::begin(identity, audience, link.epoch, seq),
            since_seconds: now_seconds,
        });
        open.head = open.head.behind(&link.digest(message));
        self.last_seq = seq;
        Ok(link)
    }

    /// Whether the batch should be covered now.
    pub fn is_due(&self, now_seconds: u64) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let messages = self.last_seq - open.first + 1;
            let seconds = now_seconds.saturating_sub(open.since_seconds);
            messages >= self.bounds.messages.min(BATCH_MESSAGES_MAX)
                || seconds >= self.bounds.seconds
        })
    }

    /// Signs for what was linked since the last cover, at `now_seconds`; `None` if nothing was. The
    /// result is to be published on [`COVER_TOPIC`] behind the last message of the batch. If the
    /// broker refuses it, the batch stays uncovered: it cannot be signed for again.
    ///
    /// # Errors
    /// [`SignError::Signing`]: the batch is as it was.
    pub fn cover(&mut self, now_seconds: u64) -> Result<Option<Vec<u8>>, SignError> {
        let Some(open) = &self.open else { return Ok(None) };
        let mut cti = [0; CTI_BYTES];
        rand::fill(&mut cti).map_err(|_| SignError::Signing)?;
        let claims = CoverClaims {
            identity: &self.identity,
            certificate_sha256: &self.certificate_sha256,
            audience: &self.audience,
            issued_at: now_seconds,
            cti: &cti,
            epoch: self.epoch,
            first: open.first,
            last: self.last_seq,
        };
        let unsigned = UnsignedCover::new(self.key.algorithm(), &claims, open.head);
        let signature = self.key.sign(&unsigned.to_be_signed())?;
        self.open = None;
        Ok(Some(unsigned.signed(&signature)))
    }

    /// Begins `epoch`, which must be higher than the one before, with number 1. What was linked and
    /// not covered stays so.
    pub fn restart(&mut self, epoch: u64) {
        (self.epoch, self.last_seq, self.open) = (epoch, 0, None);
    }

    /// The number of the last message linked in this epoch; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

/// A text with its length before it, in two bytes.
fn text(context: &mut Context, text: &str) {
    // Topic Names and identities of MQTT have at most 65,535 bytes.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    context.update(&length.to_be_bytes());
    context.update(text.as_bytes());
}

fn finish(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

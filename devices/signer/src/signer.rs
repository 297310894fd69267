//! A device that signs: its key, its place in the sequence.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;

use crate::key::{SignError, SigningKey};
use crate::statement::{CTI_BYTES, Claims, Message, SALT_BYTES, Signed, Unsigned};

/// What a [`Signer`] is made with.
#[derive(Debug)]
pub struct SignerOptions<'a> {
    /// The key of the certificate that the device connects with.
    pub key: SigningKey,
    /// That certificate, in DER.
    pub certificate_der: &'a [u8],
    /// Its URI subjectAltName.
    pub identity: &'a str,
    /// The origin of the broker's log (`[evidence] origin`).
    pub audience: &'a str,
    /// The boot counter. It must be higher than at every earlier start, or the broker takes what
    /// follows for a replay.
    pub epoch: u64,
}

/// Signs messages with rising sequence numbers, the first of which is 1.
#[derive(Debug)]
pub struct Signer {
    key: SigningKey,
    certificate_sha256: [u8; 32],
    identity: String,
    audience: String,
    epoch: u64,
    last_seq: u64,
}

impl Signer {
    /// A signer that has signed nothing in its epoch.
    pub fn new(options: SignerOptions<'_>) -> Self {
        let SignerOptions { key, certificate_der, identity, audience, epoch } = options;
        let mut certificate_sha256 = [0; 32];
        certificate_sha256.copy_from_slice(digest(&SHA256, certificate_der).as_ref());
        Self {
            key,
            certificate_sha256,
            identity: identity.to_owned(),
            audience: audience.to_owned(),
            epoch,
            last_seq: 0,
        }
    }

    /// Signs `message` at `now_seconds` since 1970. A resend of the same message must carry the
    /// same statement, not a new one: the broker knows it by that.
    ///
    /// # Errors
    /// [`SignError::Signing`], and [`SignError::SequenceEnded`] after 2⁶⁴ − 1 messages.
    pub fn sign(&mut self, message: &Message<'_>, now_seconds: u64) -> Result<Signed, SignError> {
        let (mut salt, mut cti) = ([0; SALT_BYTES], [0; CTI_BYTES]);
        rand::fill(&mut salt).map_err(|_| SignError::Signing)?;
        rand::fill(&mut cti).map_err(|_| SignError::Signing)?;
        let seq = self.last_seq.checked_add(1).ok_or(SignError::SequenceEnded)?;
        let claims = Claims {
            identity: &self.identity,
            certificate_sha256: &self.certificate_sha256,
            audience: &self.audience,
            issued_at: now_seconds,
            cti: &cti,
            epoch: self.epoch,
            seq,
        };
        let unsigned = Unsigned::new(self.key.algorithm(), &claims, message, salt);
        let signature = self.key.sign(&unsigned.to_be_signed())?;
        // Only what is signed has a number: a failure leaves no gap.
        self.last_seq = seq;
        Ok(unsigned.signed(signature))
    }

    /// Begins `epoch`, which must be higher than the one before, with sequence number 1.
    pub fn restart(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.last_seq = 0;
    }

    /// The number of the last message signed in this epoch; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }
}

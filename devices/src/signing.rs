//! A device that signs each message or batches of them, and what a thief of its messages could try.

use avow_signer::{
    BatchBounds, BatchSigner, COVER_TOPIC, Message as Signable, SignError, Signed, Signer,
    SignerOptions, SigningKey,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::{Credentials, Message, Qos, Stated};
use crate::profile::Sign;

/// Messages of a batch.
pub const BATCH_MESSAGES: u64 = 5;
/// Longest time from the first message of a batch to its cover, in seconds.
const BATCH_SECONDS: u64 = 5;

/// What a device that signs must know of the broker and of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// The trust domain in its identity.
    pub trust_domain: String,
    /// The origin of the broker's log.
    pub origin: String,
}

/// Why a device cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// Its certificate cannot be read.
    #[error("its certificate is no PEM")]
    Certificate,
    /// Its key cannot be read, or is of a kind that signs no statements.
    #[error("its key: {0}")]
    Key(#[from] SignError),
}

/// The device now, and as it was before its last restart.
#[derive(Debug)]
pub(crate) struct Signers {
    current: Signer,
    earlier: Signer,
    batch: BatchSigner,
}

impl Signers {
    /// The device called `name`; a real one counts `epoch` up in flash.
    pub(crate) fn new(
        credentials: &Credentials,
        name: &str,
        signing: &Signing,
        epoch: u64,
    ) -> Result<Self, SigningError> {
        let certificate = CertificateDer::from_pem_slice(&credentials.cert_pem)
            .map_err(|_| SigningError::Certificate)?;
        let identity = format!("spiffe://{}/device/{name}", signing.trust_domain);
        let options = |epoch| {
            let key = PrivateKeyDer::from_pem_slice(&credentials.key_pem);
            let key = key.map_err(|_| SignError::Key)?;
            Ok::<_, SignError>(SignerOptions {
                key: SigningKey::from_pkcs8(key.secret_der())?,
                certificate_der: &certificate,
                identity: &identity,
                audience: &signing.origin,
                epoch,
            })
        };
        let bounds = BatchBounds { messages: BATCH_MESSAGES, seconds: BATCH_SECONDS };
        Ok(Self {
            current: Signer::new(options(epoch)?),
            earlier: Signer::new(options(epoch.saturating_sub(1))?),
            batch: BatchSigner::new(options(epoch)?, bounds),
        })
    }

    /// Gives `message` its statement; false if there is nothing to be sent yet.
    pub(crate) fn state(&mut self, sign: Sign, message: &mut Message, now_seconds: u64) -> bool {
        // What was recorded before a restart is only old once something newer was said.
        if sign == Sign::Replayed && self.current.last_seq() == 0 {
            return false;
        }
        let signer = match sign {
            Sign::Good | Sign::Forged => &mut self.current,
            Sign::Replayed => &mut self.earlier,
            Sign::Batched => {
                let Ok(link) = self.batch.link(&signable(message), now_seconds) else {
                    return false;
                };
                message.statement = Some(Stated::Link(link.property()));
                return true;
            }
        };
        let Ok(signed) = statement(signer, message, now_seconds) else { return false };
        message.statement = Some(Stated::Statement(signed.property()));
        if sign == Sign::Forged {
            // Still good JSON, and still not what was signed.
            message.payload.push(b' ');
        }
        true
    }

    /// What is to be published for the messages that were linked, if that is due.
    pub(crate) fn cover(&mut self, now_seconds: u64) -> Option<Message> {
        if !self.batch.is_due(now_seconds) {
            return None;
        }
        let payload = self.batch.cover(now_seconds).ok()??;
        let (topic, qos) = (COVER_TOPIC.to_owned(), Qos::AtLeastOnce);
        Some(Message { topic, payload, qos, retain: false, statement: None })
    }
}

fn statement(
    signer: &mut Signer,
    message: &Message,
    now_seconds: u64,
) -> Result<Signed, SignError> {
    signer.sign(&signable(message), now_seconds)
}

fn signable(message: &Message) -> Signable<'_> {
    let (qos, retain) = (message.qos as u8, message.retain);
    Signable { topic: &message.topic, payload: &message.payload, qos, retain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Qos;

    fn signers() -> Signers {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let credentials = Credentials {
            ca_pem: Vec::new(),
            cert_pem: params.self_signed(&key).unwrap().pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        };
        let signing = Signing { trust_domain: "p".to_owned(), origin: "p/p".to_owned() };
        Signers::new(&credentials, "s", &signing, 7).unwrap()
    }

    fn message() -> Message {
        let (topic, payload) = ("plant/s/signed/x".to_owned(), b"{}".to_vec());
        Message { topic, payload, qos: Qos::AtLeastOnce, retain: false, statement: None }
    }

    #[test]
    fn a_forger_changes_what_was_signed_and_a_replayer_waits_for_something_newer() {
        let mut signers = signers();
        let mut replayed = message();
        assert!(!signers.state(Sign::Replayed, &mut replayed, 1));
        let mut good = message();
        assert!(signers.state(Sign::Good, &mut good, 1));
        assert_eq!((good.payload.as_slice(), good.statement.is_some()), (&b"{}"[..], true));
        assert!(signers.state(Sign::Replayed, &mut replayed, 1));
        let mut forged = message();
        assert!(signers.state(Sign::Forged, &mut forged, 1));
        assert_ne!(forged.payload, b"{}");
    }

    #[test]
    fn a_batch_is_covered_when_it_has_its_messages_or_its_time_is_over() {
        let mut signers = signers();
        for (count, at, due) in [(4, 10, false), (1, 10, true), (1, 20, false), (0, 25, true)] {
            for _ in 0..count {
                let mut linked = message();
                assert!(signers.state(Sign::Batched, &mut linked, at));
                assert!(matches!(linked.statement, Some(Stated::Link(_))));
            }
            let cover = signers.cover(at);
            assert_eq!(cover.map(|cover| cover.topic), due.then(|| "$cover".to_owned()));
        }
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        let credentials =
            Credentials { ca_pem: Vec::new(), cert_pem: Vec::new(), key_pem: Vec::new() };
        let signing = Signing { trust_domain: "p".to_owned(), origin: "p/p".to_owned() };
        let none = Signers::new(&credentials, "s", &signing, 1).map(drop);
        assert_eq!(none, Err(SigningError::Certificate));
    }
}

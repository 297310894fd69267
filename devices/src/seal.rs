//! End-to-end encryption between one device and the dashboard: AES-256-GCM, nonce before the
//! ciphertext, the Topic Name as associated data.
//!
//! A key lives for one run of the plant and leaves no process, so random 96-bit nonces are enough.
//! How a real fleet distributes such keys is not this crate's subject.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

/// The key could not be made or used: the operating system's randomness or the library failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AES-256-GCM failed")]
pub struct SealError;

/// A key that one device and the dashboard share.
pub(crate) struct SealKey(RandomizedNonceKey);

impl SealKey {
    pub(crate) fn generate() -> Result<Self, SealError> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| SealError)?;
        Ok(Self(RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| SealError)?))
    }

    /// Encrypts `plaintext` for `topic`.
    pub(crate) fn seal(&self, topic: &str, plaintext: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let mut body = plaintext;
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(topic.as_bytes()), &mut body)
            .map_err(|_| SealError)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Decrypts what [`Self::seal`] made for the same topic; `None` for anything else.
    pub(crate) fn open(&self, topic: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let aad = Aad::from(topic.as_bytes());
        let plaintext = self.0.open_in_place(nonce, aad, &mut body).ok()?;
        Some(plaintext.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_topic_and_bytes_open() {
        let key = SealKey::generate().unwrap();
        let sealed = key.seal("plant/m/sealed/energy", b"{}".to_vec()).unwrap();
        assert_eq!(key.open("plant/m/sealed/energy", &sealed).as_deref(), Some(&b"{}"[..]));
        assert_eq!(key.open("plant/n/sealed/energy", &sealed), None);
        let other = SealKey::generate().unwrap();
        assert_eq!(other.open("plant/m/sealed/energy", &sealed), None);
        for index in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert_eq!(key.open("plant/m/sealed/energy", &damaged), None, "byte {index}");
        }
        assert_eq!(key.open("plant/m/sealed/energy", &sealed[..5]), None);
    }
}

//! C2SP tlog-cosignature v1: a witness says that it saw a checkpoint, when, and that no larger
//! tree it saw of that log contradicts it. Ed25519, signature type 0x04.
//!
//! Only keys, texts and signatures; what a witness checks before it signs is
//! [`super::witness`]'s, and how many witnesses a proof needs is [`super::witness_policy`]'s. The
//! invariant: a time that comes out of [`WitnessVerifierKey::cosigned_at`] was signed by that
//! witness, over that very text.

use std::fmt;
use std::str::FromStr;

use super::checkpoint::{KeyError, NoteError, SIGNATURE_BYTES};
use super::note::{self, PUBLIC_KEY_BYTES, PrivateKey, PublicKey, SignatureLine, SignatureType};
use super::witness::Kept;

/// Latest time that a cosignature may name, in seconds since 1970.
pub const COSIGNATURE_SECONDS_MAX: u64 = i64::MAX.unsigned_abs();

/// The key of a witness.
pub struct WitnessKey {
    key: PrivateKey,
    verifier: WitnessVerifierKey,
}

/// The public half of a [`WitnessKey`], with the name of the witness. Its text form is that of a
/// log's [`super::VerifierKey`], with another type.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessVerifierKey(PublicKey);

impl WitnessKey {
    /// Makes a new key for the witness called `name`.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        PrivateKey::generate(SignatureType::Cosignature, name).map(Self::new)
    }

    /// Reads a key from PKCS#8 (DER).
    pub fn from_pkcs8(name: &str, der: &[u8]) -> Result<Self, KeyError> {
        PrivateKey::from_pkcs8(SignatureType::Cosignature, name, der).map(Self::new)
    }

    /// Makes the key of a 32-byte seed (RFC 8032).
    pub fn from_seed(name: &str, seed: &[u8]) -> Result<Self, KeyError> {
        PrivateKey::from_seed(SignatureType::Cosignature, name, seed).map(Self::new)
    }

    /// The private key in PKCS#8 (DER), to be kept in a file that nobody else reads.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        self.key.to_pkcs8()
    }

    /// The public half.
    pub fn verifier(&self) -> &WitnessVerifierKey {
        &self.verifier
    }

    /// The signature line, with its line end, that says: as of this time (in seconds since 1970, at
    /// most [`COSIGNATURE_SECONDS_MAX`]), this is the largest checkpoint that was seen of its log.
    pub fn cosign(&self, kept: &Kept<'_>, unix_seconds: u64) -> String {
        self.cosign_text(kept.text(), unix_seconds)
    }

    /// For tests, and for [`Self::cosign`]: what was not kept must not be signed.
    pub(super) fn cosign_text(&self, text: &str, unix_seconds: u64) -> String {
        let seconds = unix_seconds.min(COSIGNATURE_SECONDS_MAX);
        let mut signature = seconds.to_be_bytes().to_vec();
        signature.extend_from_slice(&self.key.sign(message(text, seconds).as_bytes()));
        self.verifier.0.line(&signature)
    }

    fn new(key: PrivateKey) -> Self {
        Self { verifier: WitnessVerifierKey(key.public().clone()), key }
    }
}

impl WitnessVerifierKey {
    /// The Ed25519 key `public` under the name `name`.
    pub fn new(name: &str, public: [u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        PublicKey::new(SignatureType::Cosignature, name, public).map(Self)
    }

    /// The name of the witness, as it stands in its signature lines.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The public key itself. Two names over one key are one witness.
    pub fn public(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.0.bytes()
    }

    /// When this witness cosigned `note`, in seconds since 1970: the latest time, if it did so
    /// several times; `None` if it did not.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] if a line that names this key does not fit.
    pub fn cosigned_at(&self, note: &str) -> Result<Option<u64>, NoteError> {
        let (text, lines) = note::split(note)?;
        Ok(self.newest(text, &lines)?.map(|(seconds, _)| seconds))
    }

    /// Finds this witness's cosignature of `text` among the signature lines that it answered with.
    /// The line, with its line end, and its time in seconds since 1970.
    ///
    /// # Errors
    /// [`NoteError::UnknownKey`] if there is none, [`NoteError::BadSignature`] if one is false,
    /// [`NoteError::Malformed`] if these are no signature lines.
    pub fn cosignature(&self, text: &str, answer: &str) -> Result<(String, u64), NoteError> {
        let lines = note::lines(answer)?;
        let (seconds, line) = self.newest(text, &lines)?.ok_or(NoteError::UnknownKey)?;
        Ok((self.0.line(&line.signature), seconds))
    }

    fn newest<'l, 'a>(
        &self,
        text: &str,
        lines: &'l [SignatureLine<'a>],
    ) -> Result<Option<(u64, &'l SignatureLine<'a>)>, NoteError> {
        let mut newest = None;
        for line in lines.iter().filter(|line| self.0.is_named_by(line)) {
            let (time, signature) =
                line.signature.split_first_chunk().ok_or(NoteError::Malformed)?;
            let seconds = u64::from_be_bytes(*time);
            if signature.len() != SIGNATURE_BYTES || seconds > COSIGNATURE_SECONDS_MAX {
                return Err(NoteError::BadSignature);
            }
            self.0.verify(message(text, seconds).as_bytes(), signature)?;
            if newest.is_none_or(|(latest, _)| latest < seconds) {
                newest = Some((seconds, line));
            }
        }
        Ok(newest)
    }
}

impl fmt::Display for WitnessVerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for WitnessVerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        PublicKey::parse(SignatureType::Cosignature, text).map(Self).ok_or(KeyError::Witness)
    }
}

impl fmt::Debug for WitnessVerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessVerifierKey({self})")
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKey(for {})", self.verifier)
    }
}

/// What is signed.
fn message(text: &str, unix_seconds: u64) -> String {
    format!("cosignature/v1\ntime {unix_seconds}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Checkpoint, LogKey};

    fn log() -> LogKey {
        LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
    }

    fn witness(name: &str, seed: u8) -> WitnessKey {
        WitnessKey::from_seed(name, &[seed; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "plant.example/log".into(), tree_size: 42, root_hash: [9; 32] }
    }

    #[test]
    fn published_keys_read() {
        // Of github.com/transparency-dev/formats: one of type 0x04, and one of type 0x01.
        let witness = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        assert_eq!(witness.parse::<WitnessVerifierKey>().unwrap().to_string(), witness);
        let log = "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6";
        assert_eq!(log.parse::<WitnessVerifierKey>().unwrap_err(), KeyError::Witness);
        assert!(log.parse::<super::super::VerifierKey>().is_ok());
        assert_eq!(witness.parse::<super::super::VerifierKey>().unwrap_err(), KeyError::Verifier);
    }

    #[test]
    fn the_published_example_has_the_published_form() {
        // The example of tlog-cosignature; its key is not published, so the time alone is checked.
        let line = "\u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHe\
            olMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
        let lines = note::lines(line).unwrap();
        let (time, signature) = lines[0].signature.split_first_chunk().unwrap();
        assert_eq!((u64::from_be_bytes(*time), signature.len()), (1_679_315_147, SIGNATURE_BYTES));
        assert_eq!(
            message("example.com/behind-the-sofa\n", 1_679_315_147),
            "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n"
        );
    }

    #[test]
    fn a_cosigned_note_opens_for_log_and_witness_and_no_changed_byte_does() {
        let (log, witness) = (log(), witness("witness.example/w1", 8));
        let line = witness.cosign_text(&checkpoint().to_string(), 1_679_315_147);
        let note = format!("{}{line}", log.sign(&checkpoint()));
        insta::assert_snapshot!(note, @r"
        plant.example/log
        42
        CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=

        — plant.example/log KGc5OVDfgMGwAYZn4sn1wMMH3DMigG9iPLDJr18QK9IYxEfjahS86jkMUr5TAK26sIIojy8Wsn03G7Oh6pxn4mpKiwE=
        — witness.example/w1 /qOxhwAAAABkGFDLT8U/I+vPREYAY/sUhVsMMvaPEU2c3Uidw8pS2uRs3e/JgedsV4xuDs+jdzDPFaxYlPKukbTZmmc4VNyGq0DOBw==
        ");
        assert_eq!(Checkpoint::open(&note, log.verifier()), Ok(checkpoint()));
        assert_eq!(witness.verifier().cosigned_at(&note), Ok(Some(1_679_315_147)));
        for place in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let is_believed = Checkpoint::open(&text, log.verifier()).is_ok()
                && matches!(witness.verifier().cosigned_at(&text), Ok(Some(_)));
            assert!(!is_believed, "byte {place}");
        }
    }

    #[test]
    fn a_signature_of_the_log_is_no_cosignature() {
        // One key pair, two types: neither signature stands for the other.
        let note = log().sign(&checkpoint());
        let same = witness("plant.example/log", 7);
        assert_ne!(same.verifier().0.id(), log().verifier().id());
        assert_eq!(same.verifier().cosigned_at(&note), Ok(None));
    }

    #[test]
    fn of_an_answer_the_newest_line_of_the_witness_is_taken() {
        let text = checkpoint().to_string();
        let (ours, other) = (witness("w/1", 1), witness("w/2", 2));
        let answer =
            [ours.cosign_text(&text, 5), other.cosign_text(&text, 9), ours.cosign_text(&text, 7)]
                .concat();
        let taken = ours.verifier().cosignature(&text, &answer).unwrap();
        assert_eq!(taken, (ours.cosign_text(&text, 7), 7));
        let third = witness("w/3", 3);
        let taken = third.verifier().cosignature(&text, &answer);
        assert_eq!(taken, Err(NoteError::UnknownKey));
        let forged = answer.replace("w/2", "w/1");
        assert!(ours.verifier().cosignature(&text, &forged).is_ok(), "another key id: ignored");
        let of_other_text = ours.cosign_text("another\n1\n", 7);
        let taken = ours.verifier().cosignature(&text, &of_other_text);
        assert_eq!(taken, Err(NoteError::BadSignature));
        for bad in ["", "\n", "<html>\n", answer.trim_end()] {
            let taken = ours.verifier().cosignature(&text, bad);
            assert_eq!(taken, Err(NoteError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn the_latest_time_that_a_cosignature_may_name() {
        let (text, key) = (checkpoint().to_string(), witness("w/1", 1));
        let latest = key.cosign_text(&text, u64::MAX);
        let taken = key.verifier().cosignature(&text, &latest).unwrap();
        assert_eq!(taken.1, COSIGNATURE_SECONDS_MAX);
        let later = COSIGNATURE_SECONDS_MAX + 1;
        let mut signature = later.to_be_bytes().to_vec();
        signature.extend_from_slice(&key.key.sign(message(&text, later).as_bytes()));
        let line = key.verifier().0.line(&signature);
        assert_eq!(key.verifier().cosignature(&text, &line), Err(NoteError::BadSignature));
    }
}

//! Checkpoints: C2SP tlog-checkpoint v1.0.0 as C2SP signed-note v1.0.0, signed with Ed25519
//! (signature type 0x01).
//!
//! Only text and signatures; when a checkpoint may be signed, and that no two differ at one
//! size, is kept by [`crate::storage`]. The invariant: a [`Checkpoint`] that came out of
//! [`Checkpoint::open`] was signed by the key it was opened with.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::note::{self, KEY_ID_BYTES, PUBLIC_KEY_BYTES, PrivateKey, PublicKey, SignatureType};
use super::tree::{HASH_BYTES, Hash};

/// Length of an Ed25519 signature, in bytes.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest origin, in bytes.
pub const ORIGIN_BYTES_MAX: usize = 255;
/// Most signature lines that a note may have; the specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 64;

/// The key that signs the checkpoints of one log. It is neither the TLS key nor the receipt key.
pub struct LogKey {
    key: PrivateKey,
    verifier: VerifierKey,
}

/// The public half of a [`LogKey`], with the name of its log. Its text form is
/// `<name>+<key id in hex>+<base64 of type and key>`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey(PublicKey);

/// What a log says about itself at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log; also the name of the key that signs it.
    pub origin: String,
    /// Number of leaves.
    pub tree_size: u64,
    /// Root hash of the tree over them.
    pub root_hash: Hash,
}

/// Why a key is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The name is empty, too long, or has a space, a `+` or a control character.
    #[error("the name of a key has 1 to 255 bytes, without spaces, `+` and control characters")]
    Name,
    /// The private key is not an Ed25519 key in PKCS#8, or not 32 bytes.
    #[error("this is not an Ed25519 private key")]
    Private,
    /// The text of a verifier key is malformed, or its key id is not that of its key.
    #[error("this is not a verifier key `<name>+<key id>+<base64>` of type Ed25519")]
    Verifier,
    /// The same, where a witness's key is wanted.
    #[error("this is not a witness's verifier key `<name>+<key id>+<base64>` (cosignature/v1)")]
    Witness,
    /// The operating system gave no randomness, or the library refused.
    #[error("the cryptographic library failed to make a key")]
    Library,
}

/// Why a note is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a text, an empty line and signature lines.
    #[error("this is not a signed note")]
    Malformed,
    /// No signature of the expected key stands under it.
    #[error("the note is not signed by the expected key")]
    UnknownKey,
    /// A signature of the expected key does not fit the text.
    #[error("the signature does not fit the note")]
    BadSignature,
    /// The text is not a checkpoint.
    #[error("the signed text is not a checkpoint")]
    NotACheckpoint,
    /// It is the checkpoint of another log.
    #[error("the checkpoint is that of another log")]
    OtherOrigin,
}

impl LogKey {
    /// Makes a new key for the log called `origin`.
    pub fn generate(origin: &str) -> Result<Self, KeyError> {
        PrivateKey::generate(SignatureType::Ed25519, origin).map(Self::new)
    }

    /// Reads a key from PKCS#8 (DER).
    pub fn from_pkcs8(origin: &str, der: &[u8]) -> Result<Self, KeyError> {
        PrivateKey::from_pkcs8(SignatureType::Ed25519, origin, der).map(Self::new)
    }

    /// Makes the key of a 32-byte seed (RFC 8032).
    pub fn from_seed(origin: &str, seed: &[u8]) -> Result<Self, KeyError> {
        PrivateKey::from_seed(SignatureType::Ed25519, origin, seed).map(Self::new)
    }

    /// The private key in PKCS#8 (DER), to be kept in a file that nobody else reads.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        self.key.to_pkcs8()
    }

    /// The 32-byte seed.
    pub fn to_seed(&self) -> Result<Vec<u8>, KeyError> {
        self.key.to_seed()
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The signature over the text of `checkpoint`. Ed25519 is deterministic: the same
    /// checkpoint gets the same signature.
    pub fn signature(&self, checkpoint: &Checkpoint) -> [u8; SIGNATURE_BYTES] {
        self.key.sign(checkpoint.to_string().as_bytes())
    }

    /// The signed note of `checkpoint`.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        self.verifier.note(checkpoint, &self.signature(checkpoint))
    }

    fn new(key: PrivateKey) -> Self {
        Self { verifier: VerifierKey(key.public().clone()), key }
    }
}

impl VerifierKey {
    /// The Ed25519 key `public` under the name `name`.
    pub fn new(name: &str, public: [u8; PUBLIC_KEY_BYTES]) -> Result<Self, KeyError> {
        PublicKey::new(SignatureType::Ed25519, name, public).map(Self)
    }

    /// The name: the origin of the log.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The key id: the first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key)`.
    pub fn id(&self) -> [u8; KEY_ID_BYTES] {
        self.0.id()
    }

    /// Checks a signature over the text of `checkpoint`.
    pub fn verify(
        &self,
        checkpoint: &Checkpoint,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), NoteError> {
        self.0.verify(checkpoint.to_string().as_bytes(), signature)
    }

    /// The signed note of `checkpoint` under a signature made before.
    pub fn note(&self, checkpoint: &Checkpoint, signature: &[u8; SIGNATURE_BYTES]) -> String {
        format!("{checkpoint}\n{}", self.0.line(signature))
    }

    /// Takes the text out of a signed note, if this key signed it. Signatures of other keys are
    /// ignored; a false one of this key rejects the note.
    pub fn open_note<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, lines) = note::split(note)?;
        let mut is_signed = false;
        for line in lines.iter().filter(|line| self.0.is_named_by(line)) {
            self.0.verify(text.as_bytes(), &line.signature)?;
            is_signed = true;
        }
        if is_signed { Ok(text) } else { Err(NoteError::UnknownKey) }
    }
}

impl Checkpoint {
    /// Reads a signed note and checks it: signed by `key`, a checkpoint, of the log that `key`
    /// belongs to.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let checkpoint: Self = key.open_note(note)?.parse()?;
        if checkpoint.origin == key.name() { Ok(checkpoint) } else { Err(NoteError::OtherOrigin) }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.tree_size, STANDARD.encode(self.root_hash))
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let lines = text.strip_suffix('\n').ok_or(NoteError::NotACheckpoint)?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::NotACheckpoint);
        };
        // Extension lines are allowed and ignored, but must not be empty.
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(NoteError::NotACheckpoint);
        }
        let tree_size = parse_decimal(size).ok_or(NoteError::NotACheckpoint)?;
        let root_hash = parse_hash(root).ok_or(NoteError::NotACheckpoint)?;
        Ok(Self { origin: origin.to_owned(), tree_size, root_hash })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        PublicKey::parse(SignatureType::Ed25519, text).map(Self).ok_or(KeyError::Verifier)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey(for {})", self.verifier)
    }
}

/// Reads an ASCII decimal without leading zeroes.
pub(super) fn parse_decimal(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_canonical)
}

/// Reads the base64 of one hash.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    let bytes: [u8; HASH_BYTES] = STANDARD.decode(text).ok()?.try_into().ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Go package `sumdb/note`, which signed-note describes.
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZIn\
        NIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> LogKey {
        LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "plant.example/log".into(), tree_size: 42, root_hash: [9; 32] }
    }

    #[test]
    fn the_published_note_opens_and_an_altered_one_does_not() {
        let key: VerifierKey = KEY.parse().unwrap();
        assert_eq!(key.to_string(), KEY);
        assert!(key.open_note(NOTE).unwrap().ends_with("what your problem is.\n"));
        assert_eq!(key.open_note(&NOTE.replace("think", "thank")), Err(NoteError::BadSignature));
    }

    #[test]
    fn a_published_note_with_two_signatures_opens_with_either_key() {
        const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
        const SIGNATURE: &str = "\u{2014} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/\
            5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
        let both = format!("{NOTE}{SIGNATURE}");
        let [peter, enoch] = [KEY, ENOCH].map(|key| key.parse::<VerifierKey>().unwrap());
        let text = peter.open_note(&both).unwrap();
        assert_eq!(enoch.open_note(&both), Ok(text));
        assert_eq!(enoch.open_note(NOTE), Err(NoteError::UnknownKey));
        // The key is that of 32 zero bytes.
        let zeroes = LogKey::from_seed("EnochRoot", &[0; 32]).unwrap();
        assert_eq!(zeroes.verifier(), &enoch);
        // What the tests of the same package call malformed.
        let signatures = both[text.len()..].trim_start();
        for bad in [
            text.to_owned(),
            format!("{text}\n"),
            both.trim_end().to_owned(),
            format!("\u{1}{both}"),
            format!("{both}Unexpected line.\n"),
            format!("{text}\n{}", signatures.repeat(33)),
        ] {
            assert_eq!(peter.open_note(&bad), Err(NoteError::Malformed), "{bad}");
        }
        let name = both.replacen("\u{2014} PeterNeumann", "\u{2014} Bad Name", 1);
        assert_eq!(peter.open_note(&name), Err(NoteError::Malformed));
    }

    /// A checkpoint of the Go checksum database, whose origin is not the name of its key.
    #[test]
    fn a_published_checkpoint_opens() {
        let key: VerifierKey =
            "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8".parse().unwrap();
        let note = "go.sum database tree\n63096908\n8lHrQPRYe4KT4WQ9/Qk8/taKnD6IRHbFgfN7vQE2Y54=\n\n\
            \u{2014} sum.golang.org Az3gri/oVBN1jAhNZ/iS+W31psFAWRT20/GyrhpU6taFwulQGetBkH5S7wpGXdS9\
            35jiIGiUUAXBVHzT/P6fYhqAmAk=\n";
        let checkpoint: Checkpoint = key.open_note(note).unwrap().parse().unwrap();
        assert_eq!(checkpoint.origin, "go.sum database tree");
        assert_eq!(checkpoint.tree_size, 63_096_908);
        assert_eq!(Checkpoint::open(note, &key), Err(NoteError::OtherOrigin));
    }

    #[test]
    fn a_second_published_note_opens() {
        let key: VerifierKey =
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
                .parse()
                .unwrap();
        let note = "This is an example message.\n\n\u{2014} example.com/foo \
            Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72\
            IneyaQM=\n";
        assert_eq!(key.open_note(note), Ok("This is an example message.\n"));
    }

    #[test]
    fn a_checkpoint_opens_as_it_was_signed() {
        let note = key().sign(&checkpoint());
        insta::assert_snapshot!(note, @r"
        plant.example/log
        42
        CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=

        — plant.example/log KGc5OVDfgMGwAYZn4sn1wMMH3DMigG9iPLDJr18QK9IYxEfjahS86jkMUr5TAK26sIIojy8Wsn03G7Oh6pxn4mpKiwE=
        ");
        assert_eq!(Checkpoint::open(&note, key().verifier()), Ok(checkpoint()));
        let again = LogKey::from_pkcs8("plant.example/log", &key().to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.sign(&checkpoint()), note);
        assert_eq!(key().to_seed().unwrap(), [7; 32]);
    }

    #[test]
    fn no_changed_byte_is_believed() {
        let note = key().sign(&checkpoint());
        for place in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(Checkpoint::open(&text, key().verifier()).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn others_signatures_are_ignored_and_other_logs_refused() {
        let other = LogKey::from_seed("plant.example/log", &[8; 32]).unwrap();
        let note = other.sign(&checkpoint());
        assert_eq!(Checkpoint::open(&note, key().verifier()), Err(NoteError::UnknownKey));
        let ours = key().sign(&checkpoint());
        let line = note.lines().last().unwrap();
        let both = format!("{ours}{line}\n");
        assert_eq!(Checkpoint::open(&both, key().verifier()), Ok(checkpoint()));
        let elsewhere = Checkpoint { origin: "elsewhere".into(), ..checkpoint() };
        let note = key().sign(&elsewhere);
        assert_eq!(Checkpoint::open(&note, key().verifier()), Err(NoteError::OtherOrigin));
    }

    #[test]
    fn names_and_numbers_have_one_form() {
        assert_eq!(LogKey::generate("a b").unwrap_err(), KeyError::Name);
        assert_eq!(LogKey::generate("a+b").unwrap_err(), KeyError::Name);
        assert!(VerifierKey::new(&"n".repeat(255), [0; 32]).is_ok());
        assert!(VerifierKey::new(&"n".repeat(256), [0; 32]).is_err());
        assert!(KEY.replace("c74f", "c74e").parse::<VerifierKey>().is_err());
        assert_eq!(parse_decimal("0"), Some(0));
        assert_eq!(parse_decimal("07"), None);
        assert_eq!(parse_decimal("+7"), None);
    }
}

//! C2SP tlog-witness: what a log asks of a witness, and what a witness checks before it signs.
//!
//! ```text
//! old <size>            the size that the witness cosigned last
//! <hash>…               the proof that the new tree contains that one
//!                       an empty line
//! <signed note>         the new checkpoint
//! ```
//!
//! It keeps nothing and signs nothing by itself: a [`Consistent`] checkpoint becomes a [`Kept`] one
//! in [`crate::storage::witness_store`], and only a [`Kept`] one is cosigned. The invariant: of
//! what one witness keeps, each checkpoint contains the one before it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, VerifierKey, parse_decimal, parse_hash};
use super::note::split;
use super::tree::{Hash, ProofError, empty_root, verify_consistency};

/// Last part of the path that a witness serves.
pub const ADD_CHECKPOINT: &str = "add-checkpoint";
/// Content type of an answer that names the size that a witness knows.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";
/// Most hashes of the proof in a request.
pub const REQUEST_HASHES_MAX: usize = 63;
/// Longest request, in bytes: the longest proof, and a note with many signatures.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;

/// A request to cosign a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the tree that the witness is taken to know.
    pub old_size: u64,
    /// The consistency proof from it to the new tree.
    pub proof: Vec<Hash>,
    /// The signed note of the new checkpoint.
    pub note: String,
}

/// Why a witness does not cosign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessRefusal {
    /// It is no request.
    #[error("this is not a request to add a checkpoint")]
    Malformed,
    /// The old tree is larger than the new one.
    #[error("the old size is larger than the checkpoint")]
    OldAboveNew,
    /// Nobody told the witness about this log.
    #[error("this witness does not know the log")]
    UnknownLog,
    /// The checkpoint is not signed by a key of the log.
    #[error("the checkpoint is not signed by a key that this witness trusts for its log")]
    NotSigned,
    /// The witness knows another size.
    #[error("this witness last cosigned size {known}")]
    OtherSize {
        /// The size that it knows; 0 if none.
        known: u64,
    },
    /// Another tree of the same size: the log forked.
    #[error("another tree of this size was cosigned")]
    OtherRoot,
    /// The new tree does not contain the old one, or the proof does not show it.
    #[error("the new tree is not shown to contain the old one: {0}")]
    Inconsistent(ProofError),
}

/// A checkpoint that contains the one before it, not yet kept.
#[derive(Debug)]
pub struct Consistent<'n> {
    checkpoint: Checkpoint,
    note: &'n str,
    text: &'n str,
}

/// A checkpoint that is on the witness's disk. Only such a one is cosigned.
#[derive(Debug)]
pub struct Kept<'n> {
    text: &'n str,
}

impl WitnessRefusal {
    /// The HTTP status that says so.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::OldAboveNew => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::OtherSize { .. } | Self::OtherRoot => 409,
            Self::Inconsistent(_) => 422,
        }
    }
}

impl AddCheckpoint {
    /// The origin that the checkpoint names, which nothing vouches for yet.
    ///
    /// # Errors
    /// [`WitnessRefusal::Malformed`] if there is no note.
    pub fn origin(&self) -> Result<&str, WitnessRefusal> {
        let (text, _) = split(&self.note).map_err(|_| WitnessRefusal::Malformed)?;
        text.split('\n').next().ok_or(WitnessRefusal::Malformed)
    }

    /// Checks that the checkpoint may be cosigned: one of `keys`, those of its origin, signed it,
    /// and it contains `known`, the one that was cosigned last.
    ///
    /// # Errors
    /// The first check that fails, in the order of the specification.
    pub fn judge(
        &self,
        keys: &[VerifierKey],
        known: Option<&Checkpoint>,
    ) -> Result<Consistent<'_>, WitnessRefusal> {
        let note = self.note.as_str();
        let (text, _) = split(note).map_err(|_| WitnessRefusal::Malformed)?;
        if keys.is_empty() {
            return Err(WitnessRefusal::UnknownLog);
        }
        let new = keys.iter().find_map(|key| Checkpoint::open(note, key).ok());
        let new = new.ok_or(WitnessRefusal::NotSigned)?;
        if self.old_size > new.tree_size {
            return Err(WitnessRefusal::OldAboveNew);
        }
        let (known_size, known_root) =
            known.map_or((0, empty_root()), |known| (known.tree_size, known.root_hash));
        if self.old_size != known_size {
            return Err(WitnessRefusal::OtherSize { known: known_size });
        }
        if new.tree_size == known_size && new.root_hash != known_root {
            return Err(WitnessRefusal::OtherRoot);
        }
        let (size, root) = (new.tree_size, &new.root_hash);
        verify_consistency(known_size, &known_root, size, root, &self.proof)
            .map_err(WitnessRefusal::Inconsistent)?;
        Ok(Consistent { checkpoint: new, note, text })
    }
}

impl<'n> Consistent<'n> {
    /// What it says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Its signed note, to be kept.
    pub fn note(&self) -> &'n str {
        self.note
    }
}

impl<'n> Kept<'n> {
    /// States that the note of `consistent` is on disk, in the place of the one before it.
    pub(crate) fn assertion(consistent: &Consistent<'n>) -> Self {
        Self { text: consistent.text }
    }

    /// The text that is cosigned.
    pub fn text(&self) -> &'n str {
        self.text
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for AddCheckpoint {
    type Err = WitnessRefusal;

    fn from_str(text: &str) -> Result<Self, WitnessRefusal> {
        let (head, note) = text.split_once("\n\n").ok_or(WitnessRefusal::Malformed)?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_decimal)
            .ok_or(WitnessRefusal::Malformed)?;
        let proof: Option<Vec<Hash>> = lines.take(REQUEST_HASHES_MAX + 1).map(parse_hash).collect();
        let proof = proof
            .filter(|proof| proof.len() <= REQUEST_HASHES_MAX)
            .ok_or(WitnessRefusal::Malformed)?;
        Ok(Self { old_size, proof, note: note.to_owned() })
    }
}

/// The body of an answer that names the size that a witness knows.
pub fn size_body(size: u64) -> String {
    format!("{size}\n")
}

/// Reads [`size_body`].
pub fn parse_size_body(body: &str) -> Option<u64> {
    parse_decimal(body.strip_suffix('\n')?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::LogKey;
    use crate::evidence::tree::{consistency_proof, leaf_hash, root_of};

    fn log() -> LogKey {
        LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
    }

    /// A tree whose leaves from `fork` on are others.
    fn leaves(size: u64, fork: u64) -> Vec<Hash> {
        (0..size).map(|n| leaf_hash(&[u8::from(n >= fork), n.to_be_bytes()[7]])).collect()
    }

    fn checkpoint(leaves: &[Hash]) -> Checkpoint {
        let (tree_size, root_hash) = (leaves.len() as u64, root_of(leaves));
        Checkpoint { origin: "plant.example/log".into(), tree_size, root_hash }
    }

    fn request(old_size: u64, leaves: &[Hash]) -> AddCheckpoint {
        let proof = consistency_proof(old_size, leaves).unwrap_or_default();
        AddCheckpoint { old_size, proof, note: log().sign(&checkpoint(leaves)) }
    }

    fn judged(request: &AddCheckpoint, known: Option<&Checkpoint>) -> Result<u64, WitnessRefusal> {
        let keys = [log().verifier().clone()];
        request.judge(&keys, known).map(|consistent| consistent.checkpoint().tree_size)
    }

    const HONEST: u64 = u64::MAX;

    #[test]
    fn a_request_survives_its_text() {
        let made = request(3, &leaves(7, HONEST));
        insta::assert_snapshot!(made, @r"
        old 3
        ZdJ6SN/vQG249fQ3Qjv6X5yD13v8EvihS4zj7eWJL7U=
        8xsrbvSN/1gOymM9Cgz7Fa23w728Kh2Wah4Q6q7608Q=
        MZ3SVAAnani0NafA+Hr73CmzqAKZFaOFtrMCyTIyHjE=
        FRISP4FRx+laSCOiNQ+f0ZVkKBL2Swb8X6cGnw/YP2M=

        plant.example/log
        7
        6Z37uqjibWf8uHUD+2rhDS8m5CLiEhq2dvYw4Flbu5U=

        — plant.example/log KGc5OSKuHqekRjr5PtXaSHh1kp2xHyf/TgXmVGfjr3Zs8SjSJrehwX4sq+zTFzHtiDa+5SPzIJ5OSwbmsFVzL27Ynww=
        ");
        assert_eq!(made.to_string().parse(), Ok(made.clone()));
        let first = request(0, &leaves(7, HONEST));
        assert!(first.to_string().starts_with("old 0\n\nplant.example/log\n7\n"));
        assert_eq!(first.to_string().parse(), Ok(first));
        let text = made.to_string();
        for (from, to) in [("old 3", "old 03"), ("old 3", "Old 3"), ("\n\n", "\n"), ("=\n", "\n")] {
            let bad = text.replacen(from, to, 1);
            assert_eq!(bad.parse::<AddCheckpoint>(), Err(WitnessRefusal::Malformed), "{to:?}");
        }
    }

    #[test]
    fn the_published_example_reads() {
        let text = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
            jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
            /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\nexample.com/behind-the-sofa\n20852163\n\
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URY\
            N7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let read: AddCheckpoint = text.parse().unwrap();
        assert_eq!((read.old_size, read.proof.len()), (20_852_014, 4));
        assert_eq!(read.origin(), Ok("example.com/behind-the-sofa"));
        assert_eq!(read.to_string(), text);
    }

    #[test]
    fn as_many_hashes_as_may_be_sent_and_one_more() {
        let mut many = request(3, &leaves(7, HONEST));
        many.proof = vec![[1; 32]; REQUEST_HASHES_MAX];
        assert!(many.to_string().parse::<AddCheckpoint>().is_ok());
        many.proof.push([1; 32]);
        assert!(many.to_string().parse::<AddCheckpoint>().is_err());
    }

    #[test]
    fn a_log_that_grows_is_cosigned_and_a_fork_never() {
        let honest = |size| leaves(size, HONEST);
        for known_size in 0..=9 {
            let known = checkpoint(&honest(known_size));
            let known = (known_size > 0).then_some(&known);
            for size in known_size..=9 {
                assert_eq!(judged(&request(known_size, &honest(size)), known), Ok(size));
                // A tree that differs below what is known.
                for fork in 0..known_size {
                    let forked = judged(&request(known_size, &leaves(size, fork)), known);
                    let same_size = forked == Err(WitnessRefusal::OtherRoot);
                    let inconsistent = matches!(forked, Err(WitnessRefusal::Inconsistent(_)));
                    let (is_same, refused) = (size == known_size, same_size || inconsistent);
                    assert!(refused && same_size == is_same, "{known_size} {size} {forked:?}");
                }
            }
        }
    }

    #[test]
    fn each_refusal_has_its_status() {
        let (five, seven) = (leaves(5, HONEST), leaves(7, HONEST));
        let known = checkpoint(&five);
        let good = request(5, &seven);
        let case = |request: &AddCheckpoint, known: Option<&Checkpoint>, status| {
            assert_eq!(judged(request, known).unwrap_err().status(), status, "{request}");
        };
        // Smaller than what is known, whatever it says of the old size.
        case(&request(3, &leaves(4, HONEST)), Some(&known), 409);
        case(&AddCheckpoint { old_size: 5, ..request(3, &leaves(4, HONEST)) }, Some(&known), 400);
        let other = judged(&request(0, &seven), Some(&known));
        assert_eq!(other, Err(WitnessRefusal::OtherSize { known: 5 }));
        case(&request(0, &seven), Some(&known), 409);
        case(&good, None, 409);
        case(&AddCheckpoint { old_size: 8, ..good.clone() }, Some(&known), 400);
        case(&AddCheckpoint { proof: Vec::new(), ..good.clone() }, Some(&known), 422);
        // Without anything known there is nothing to prove.
        case(&AddCheckpoint { proof: vec![[1; 32]], ..request(0, &seven) }, None, 422);
        // A tree without leaves has one root alone.
        let empty = Checkpoint { tree_size: 0, ..known.clone() };
        let empty = AddCheckpoint { old_size: 0, proof: vec![], note: log().sign(&empty) };
        assert_eq!(judged(&empty, None), Err(WitnessRefusal::OtherRoot));
        // Whose signature it is.
        let other = LogKey::from_seed("plant.example/log", &[8; 32]).unwrap();
        let note = other.sign(&checkpoint(&seven));
        case(&AddCheckpoint { note, ..good.clone() }, Some(&known), 403);
        let both = [other.verifier().clone(), log().verifier().clone()];
        assert!(good.judge(&both, Some(&known)).is_ok(), "any key that is trusted for the log");
        assert_eq!(good.judge(&[], None).unwrap_err().status(), 404);
        let note = "no note".to_owned();
        case(&AddCheckpoint { note, ..good }, Some(&known), 400);
    }

    #[test]
    fn a_size_has_one_form() {
        assert_eq!(parse_size_body(&size_body(42)), Some(42));
        for bad in ["42", "042\n", "42\n\n", "-1\n", "\n", "size\n"] {
            assert_eq!(parse_size_body(bad), None, "{bad:?}");
        }
    }
}

//! C2SP tlog-proof@v1: one entry's inclusion in a checkpointed tree, as a text that can be
//! checked offline with the log's verifier key alone.
//!
//! It makes no claim about the entry's content. The invariant: [`TlogProof::verify`] answers
//! with a [`Checkpoint`] only if the log signed a tree with that entry at that index.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::checkpoint::{Checkpoint, NoteError, VerifierKey, parse_decimal, parse_hash};
use super::tree::{Hash, PROOF_HASHES_MAX, ProofError, leaf_hash, verify_inclusion};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// An inclusion proof with the checkpoint it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// Index of the entry, from 0.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub hashes: Vec<Hash>,
    /// The signed note of the checkpoint, verbatim.
    pub checkpoint: String,
}

/// Why a proof is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// It does not have the form of tlog-proof@v1.
    #[error("this is not a proof of the form c2sp.org/tlog-proof@v1")]
    Malformed,
    /// Its checkpoint is not believed.
    #[error("the checkpoint of the proof: {0}")]
    Note(#[from] NoteError),
    /// It does not lead from the entry to the root of its checkpoint.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl TlogProof {
    /// Checks that `entry` stands at [`Self::index`] of the log that `key` belongs to, and
    /// answers with the checkpoint that covers it.
    pub fn verify(&self, entry: &[u8], key: &VerifierKey) -> Result<Checkpoint, TlogProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        let leaf = leaf_hash(entry);
        let (size, root) = (checkpoint.tree_size, &checkpoint.root_hash);
        verify_inclusion(&leaf, self.index, size, &self.hashes, root)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nindex {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    /// Reads the text; extra data is allowed and left out, because nothing authenticates it.
    fn from_str(text: &str) -> Result<Self, TlogProofError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::Malformed)?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(TlogProofError::Malformed);
        }
        if let Some(extra) = lines.next_if(|line| line.starts_with("extra ")) {
            let data = extra.strip_prefix("extra ").unwrap_or_default();
            STANDARD.decode(data).map_err(|_| TlogProofError::Malformed)?;
        }
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_decimal)
            .ok_or(TlogProofError::Malformed)?;
        let hashes: Option<Vec<Hash>> = lines.take(PROOF_HASHES_MAX + 1).map(parse_hash).collect();
        let hashes = hashes
            .filter(|hashes| hashes.len() <= PROOF_HASHES_MAX)
            .ok_or(TlogProofError::Malformed)?;
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::checkpoint::LogKey;
    use crate::evidence::tree::{inclusion_proof, root_of};

    fn key() -> LogKey {
        LogKey::from_seed("plant.example/log", &[7; 32]).unwrap()
    }

    fn proof_of(index: u64) -> TlogProof {
        let leaves: Vec<Hash> = (0..5u8).map(|i| leaf_hash(&[i])).collect();
        let checkpoint = Checkpoint {
            origin: "plant.example/log".into(),
            tree_size: 5,
            root_hash: root_of(&leaves),
        };
        let hashes = inclusion_proof(index, &leaves).unwrap();
        TlogProof { index, hashes, checkpoint: key().sign(&checkpoint) }
    }

    #[test]
    fn a_proof_survives_its_text_and_holds_for_its_entry_only() {
        insta::assert_snapshot!(proof_of(4), @r"
        c2sp.org/tlog-proof@v1
        index 4
        m81RJAr0AFFo8DMSG6hb5abtTw5qX6wmIGZym4+/3ss=

        plant.example/log
        5
        uFW0LWww9bCH4FJmeD+9bjlPe5JgE8yqZ3AKiwxaWW8=

        — plant.example/log KGc5OXffwGFXTRQqkzIN1ApuoVOkyoNv0lVQ1yq4xORS91FJ+Q9aYSYTiTjBLUqNeIdCWNdPZBXJ3IekopLrghROMAI=
        ");
        for index in 0..5u8 {
            let read: TlogProof = proof_of(index.into()).to_string().parse().unwrap();
            assert_eq!(read, proof_of(index.into()));
            assert_eq!(read.verify(&[index], key().verifier()).unwrap().tree_size, 5);
            assert_eq!(
                read.verify(&[index + 1], key().verifier()),
                Err(TlogProofError::Proof(ProofError::RootMismatch))
            );
        }
    }

    #[test]
    fn a_one_entry_log_has_a_proof_without_hashes() {
        let root_hash = leaf_hash(b"only");
        let checkpoint = Checkpoint { origin: "plant.example/log".into(), tree_size: 1, root_hash };
        let proof = TlogProof { index: 0, hashes: vec![], checkpoint: key().sign(&checkpoint) };
        let read: TlogProof = proof.to_string().parse().unwrap();
        assert_eq!(read.verify(b"only", key().verifier()), Ok(checkpoint));
    }

    #[test]
    fn extra_data_is_skipped_and_other_forms_are_refused() {
        let text = proof_of(3).to_string();
        let extra = text.replacen("index", "extra YWJj\nindex", 1);
        assert_eq!(extra.parse::<TlogProof>().unwrap(), proof_of(3));
        for (from, to) in [("@v1", "@v2"), ("index 3", "index 03"), ("index 3\n", "")] {
            let bad = text.replacen(from, to, 1);
            assert_eq!(bad.parse::<TlogProof>(), Err(TlogProofError::Malformed), "{to}");
        }
    }
}

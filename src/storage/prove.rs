//! Proofs for those who read the log: that an entry is in it, and that it only grew.
//!
//! Both come from the tiles, in as many reads as the tree is high. Where there are none, or where
//! they do not lead to the signed root, the whole log is read instead. The invariant: a proof that
//! leaves this module leads to the root of the published checkpoint.

use super::disk::Disk;
use super::fault::StorageFault;
use super::reader::Reader;
use super::tiles::read_hashes;
use crate::evidence::tile_proof::TileTree;
use crate::evidence::tree::{
    Hash, consistency_proof, inclusion_proof, root_of, verify_consistency, verify_inclusion,
};
use crate::evidence::{Checkpoint, TlogProof};

/// That the tree of one size is a prefix of the tree of another: RFC 9162 section 2.1.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Leaves of the older tree.
    pub old_size: u64,
    /// Its root hash.
    pub old_root: Hash,
    /// Leaves of the newer tree.
    pub new_size: u64,
    /// Its root hash.
    pub new_root: Hash,
    /// The proof.
    pub hashes: Vec<Hash>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// No checkpoint covers the entry yet, or there is no such entry.
    #[error("entry {index} is not covered by a checkpoint yet: the newest covers {tree_size}")]
    NotCovered {
        /// The entry asked for.
        index: u64,
        /// Entries that are covered.
        tree_size: u64,
    },
    /// The sizes are not those of a tree and a later one that a checkpoint covers.
    #[error(
        "there is no proof from size {old_size} to size {new_size}: the first is not larger than \
         the second, and the second not larger than {tree_size}, which the newest checkpoint covers"
    )]
    NoSuchSizes {
        /// The older size asked for.
        old_size: u64,
        /// The newer size asked for.
        new_size: u64,
        /// Entries that are covered.
        tree_size: u64,
    },
    /// The entries do not give the root of the checkpoint.
    #[error("the entries do not give the signed root hash; `avow audit verify` names the place")]
    RootMismatch,
    /// The log cannot be read.
    #[error(transparent)]
    Fault(#[from] StorageFault),
}

/// Why the tiles give no proof: the segments do then.
enum NoTiles {
    /// They are not there, or not the right ones.
    Useless,
    /// The disk failed.
    Fault(StorageFault),
}

impl<D: Disk> Reader<D> {
    /// The proof that entry `index` is in the published checkpoint, as C2SP tlog-proof@v1.
    ///
    /// # Errors
    /// If no checkpoint covers it, or the log is not what was signed.
    pub fn prove(&self, index: u64) -> Result<TlogProof, ProveError> {
        let tree_size = self.checkpoint().map_or(0, |checkpoint| checkpoint.tree_size);
        let not_covered = ProveError::NotCovered { index, tree_size };
        let (Some(checkpoint), Some(note)) = (self.checkpoint(), self.note()) else {
            return Err(not_covered);
        };
        self.prove_under(index, note, checkpoint)
    }

    /// As [`Self::prove`], under an earlier checkpoint of this log and its signed note.
    ///
    /// # Errors
    /// Likewise.
    pub fn prove_under(
        &self,
        index: u64,
        note: &str,
        checkpoint: &Checkpoint,
    ) -> Result<TlogProof, ProveError> {
        let tree_size = checkpoint.tree_size;
        let not_covered = ProveError::NotCovered { index, tree_size };
        if index >= tree_size {
            return Err(not_covered);
        }
        let hashes = match self.inclusion_from_tiles(index, checkpoint) {
            Ok(hashes) => hashes,
            Err(NoTiles::Fault(fault)) => return Err(fault.into()),
            Err(NoTiles::Useless) => {
                let leaves = self.signed_leaves(checkpoint)?;
                inclusion_proof(index, &leaves).ok_or(not_covered)?
            }
        };
        Ok(TlogProof { index, hashes, checkpoint: note.to_owned() })
    }

    /// The proof that the first `old_size` entries are still the first of the first `new_size`.
    ///
    /// # Errors
    /// If no checkpoint covers `new_size` entries, or the log is not what was signed.
    pub fn prove_consistency(
        &self,
        old_size: u64,
        new_size: u64,
    ) -> Result<ConsistencyProof, ProveError> {
        let tree_size = self.checkpoint().map_or(0, |checkpoint| checkpoint.tree_size);
        let no_such = ProveError::NoSuchSizes { old_size, new_size, tree_size };
        let Some(checkpoint) = self.checkpoint() else { return Err(no_such) };
        if old_size > new_size || new_size > tree_size {
            return Err(no_such);
        }
        match self.consistency_from_tiles(old_size, new_size, checkpoint) {
            Ok(proof) => return Ok(proof),
            Err(NoTiles::Fault(fault)) => return Err(fault.into()),
            Err(NoTiles::Useless) => {}
        }
        let leaves = self.signed_leaves(checkpoint)?;
        let first = |size: u64| {
            let first = leaves.get(..usize::try_from(size).unwrap_or(usize::MAX));
            first.ok_or(ProveError::RootMismatch)
        };
        let hashes = consistency_proof(old_size, first(new_size)?).ok_or(no_such)?;
        let (old_root, new_root) = (root_of(first(old_size)?), root_of(first(new_size)?));
        Ok(ConsistencyProof { old_size, old_root, new_size, new_root, hashes })
    }

    fn inclusion_from_tiles(&self, index: u64, signed: &Checkpoint) -> Result<Vec<Hash>, NoTiles> {
        let mut fetch = |tile| read_hashes(self.disk(), tile)?.ok_or(NoTiles::Useless);
        let mut tree = TileTree::new(signed.tree_size, &mut fetch);
        let leaf = tree.leaf(index)?.ok_or(NoTiles::Useless)?;
        let hashes = tree.inclusion_proof(index, signed.tree_size)?.ok_or(NoTiles::Useless)?;
        let held = verify_inclusion(&leaf, index, signed.tree_size, &hashes, &signed.root_hash);
        held.map(|()| hashes).map_err(|_| NoTiles::Useless)
    }

    fn consistency_from_tiles(
        &self,
        old_size: u64,
        new_size: u64,
        signed: &Checkpoint,
    ) -> Result<ConsistencyProof, NoTiles> {
        let mut fetch = |tile| read_hashes(self.disk(), tile)?.ok_or(NoTiles::Useless);
        let mut tree = TileTree::new(signed.tree_size, &mut fetch);
        let old_root = tree.root(old_size)?.ok_or(NoTiles::Useless)?;
        let new_root = tree.root(new_size)?.ok_or(NoTiles::Useless)?;
        // What was derived from tiles is believed only as far as it leads to what was signed.
        let mut leads = |old, old_root: &Hash, new, new_root: &Hash| {
            let hashes = tree.consistency_proof(old, new)?.ok_or(NoTiles::Useless)?;
            let held = verify_consistency(old, old_root, new, new_root, &hashes);
            held.map(|()| hashes).map_err(|_| NoTiles::Useless)
        };
        leads(new_size, &new_root, signed.tree_size, &signed.root_hash)?;
        let hashes = leads(old_size, &old_root, new_size, &new_root)?;
        Ok(ConsistencyProof { old_size, old_root, new_size, new_root, hashes })
    }

    /// The leaf hashes of every entry that `signed` covers: reads the whole log below it.
    fn signed_leaves(&self, signed: &Checkpoint) -> Result<Vec<Hash>, ProveError> {
        let leaves = self.leaf_hashes(signed.tree_size)?;
        let is_signed =
            leaves.len() as u64 == signed.tree_size && root_of(&leaves) == signed.root_hash;
        is_signed.then_some(leaves).ok_or(ProveError::RootMismatch)
    }
}

impl From<StorageFault> for NoTiles {
    fn from(fault: StorageFault) -> Self {
        Self::Fault(fault)
    }
}

//! The Merkle tree of RFC 6962 / RFC 9162 over SHA-256: hashes, roots and proofs.
//!
//! Pure arithmetic over leaf hashes; where the leaves are kept is not its business. The
//! invariant: a proof that [`verify_inclusion`] or [`verify_consistency`] accepts was made from
//! the very tree that has that root, or SHA-256 is broken. RFC 9162 section 2.1.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// Length of a hash, in bytes.
pub const HASH_BYTES: usize = 32;
/// Most hashes a proof can have: trees have fewer than 2^64 leaves, and a consistency proof has
/// one hash more than its path.
pub const PROOF_HASHES_MAX: usize = 65;

/// A SHA-256 hash: of a leaf, of a node, or of the whole tree.
pub type Hash = [u8; HASH_BYTES];

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index does not stand in a tree of that size, or the older tree is the larger one.
    #[error("the proof speaks of a place outside the tree")]
    OutOfRange,
    /// Too few or too many hashes.
    #[error("the proof has the wrong number of hashes for its tree")]
    WrongLength,
    /// The hashes lead to another root.
    #[error("the proof leads to another root hash")]
    RootMismatch,
}

/// Hash of one log entry: `SHA-256(0x00 ‖ entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    prefixed(&[0x00], entry, &[])
}

/// Hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    prefixed(&[0x01], left, right)
}

/// Root hash of the tree without leaves: `SHA-256()`.
pub fn empty_root() -> Hash {
    to_hash(digest(&SHA256, &[]).as_ref())
}

/// The right edge of a growing tree: the roots of its complete subtrees, largest first. It is
/// all that is needed to append and to know the root, and it has at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    tree_size: u64,
    subtrees: Vec<Hash>,
}

impl Frontier {
    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_observed(leaf, &mut |_, _| {});
    }

    /// Appends a leaf, and tells of every subtree that it completes: its height, from 1, and its
    /// hash.
    pub fn push_observed(&mut self, leaf: Hash, completed: &mut impl FnMut(u32, &Hash)) {
        let mut hash = leaf;
        let mut height = 0;
        let mut carry = self.tree_size;
        while carry & 1 == 1 {
            // One complete subtree stands for every bit of the size, so there is one to take.
            let Some(left) = self.subtrees.pop() else { break };
            hash = node_hash(&left, &hash);
            height += 1;
            completed(height, &hash);
            carry >>= 1;
        }
        self.subtrees.push(hash);
        self.tree_size += 1;
    }

    /// The root hash at the present size.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(smallest) = subtrees.next() else { return empty_root() };
        subtrees.fold(*smallest, |right, left| node_hash(left, &right))
    }

    /// Number of leaves.
    pub fn tree_size(&self) -> u64 {
        self.tree_size
    }
}

/// The root hash over `leaves`.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

/// The inclusion proof of leaf `index` in the tree over `leaves`, from the leaf's sibling to the
/// root's child (RFC 9162 section 2.1.3.1). `None` if there is no such leaf.
pub fn inclusion_proof(index: u64, leaves: &[Hash]) -> Option<Vec<Hash>> {
    let mut index = usize::try_from(index).ok().filter(|index| *index < leaves.len())?;
    let mut proof = Vec::new();
    let mut rest = leaves;
    while rest.len() > 1 {
        let (left, right) = split(rest)?;
        if index < left.len() {
            proof.push(root_of(right));
            rest = left;
        } else {
            proof.push(root_of(left));
            index -= left.len();
            rest = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The proof that the tree over the first `old_size` of `leaves` is a prefix of the tree over
/// all of them (RFC 9162 section 2.1.4.1). `None` if `old_size` is larger than the tree; empty
/// if it is zero or the whole tree.
pub fn consistency_proof(old_size: u64, leaves: &[Hash]) -> Option<Vec<Hash>> {
    let mut old = usize::try_from(old_size).ok().filter(|old| *old <= leaves.len())?;
    if old == 0 {
        return Some(Vec::new());
    }
    let mut proof = Vec::new();
    let mut rest = leaves;
    let mut is_whole_old_tree = true;
    while old < rest.len() {
        let (left, right) = split(rest)?;
        if old <= left.len() {
            proof.push(root_of(right));
            rest = left;
        } else {
            proof.push(root_of(left));
            old -= left.len();
            rest = right;
            is_whole_old_tree = false;
        }
    }
    if !is_whole_old_tree {
        proof.push(root_of(rest));
    }
    proof.reverse();
    Some(proof)
}

/// Checks that `leaf` stands at `index` of the tree of `tree_size` leaves that has `root`
/// (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    tree_size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= tree_size {
        return Err(ProofError::OutOfRange);
    }
    let (mut node, mut last) = (index, tree_size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            (node, last) = skip_even(node, last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::WrongLength);
    }
    if hash == *root { Ok(()) } else { Err(ProofError::RootMismatch) }
}

/// Checks that the tree of `old_size` leaves with `old_root` is a prefix of the tree of
/// `new_size` leaves with `new_root` (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::OutOfRange);
    }
    if old_size == 0 || old_size == new_size {
        let expected = if old_size == 0 { empty_root() } else { *new_root };
        return match (proof.is_empty(), *old_root == expected) {
            (false, _) => Err(ProofError::WrongLength),
            (true, false) => Err(ProofError::RootMismatch),
            (true, true) => Ok(()),
        };
    }
    // A complete old tree is itself a node of the new one, and the proof leaves it out.
    let (start, path) = if old_size.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, path) = proof.split_first().ok_or(ProofError::WrongLength)?;
        (*first, path)
    };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut old_hash, mut new_hash) = (start, start);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            (node, last) = skip_even(node, last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::WrongLength);
    }
    if old_hash == *old_root && new_hash == *new_root {
        Ok(())
    } else {
        Err(ProofError::RootMismatch)
    }
}

/// Climbs the levels on which a right-edge node has no sibling.
fn skip_even(mut node: u64, mut last: u64) -> (u64, u64) {
    while node & 1 == 0 && node != 0 {
        (node, last) = (node >> 1, last >> 1);
    }
    (node, last)
}

/// The largest power of two smaller than `leaves`; `leaves` is at least 2.
pub(super) fn split_point(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// `leaves` where RFC 9162 divides them; there are at least two.
fn split(leaves: &[Hash]) -> Option<(&[Hash], &[Hash])> {
    leaves.split_at_checked(usize::try_from(split_point(leaves.len() as u64)).ok()?)
}

fn prefixed(prefix: &[u8], first: &[u8], second: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(prefix);
    context.update(first);
    context.update(second);
    to_hash(context.finish().as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; HASH_BYTES];
    hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2::Sha256;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    /// The leaves of the Certificate Transparency reference implementation.
    fn published_leaves() -> Vec<Hash> {
        let leaves = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        leaves.iter().map(|leaf| leaf_hash(&hex(leaf))).collect()
    }

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    #[test]
    fn published_roots() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        assert_eq!(
            empty_root().to_vec(),
            hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        );
        for (size, root) in (1..).zip(roots) {
            assert_eq!(root_of(&published_leaves()[..size]).to_vec(), hex(root), "size {size}");
        }
    }

    #[test]
    fn published_proofs() {
        let all = published_leaves();
        let inclusion: Vec<Vec<u8>> =
            inclusion_proof(0, &all).unwrap().iter().map(|hash| hash.to_vec()).collect();
        assert_eq!(
            inclusion,
            [
                hex("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"),
                hex("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"),
                hex("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
            ]
        );
        let consistency: Vec<Vec<u8>> =
            consistency_proof(6, &all).unwrap().iter().map(|hash| hash.to_vec()).collect();
        assert_eq!(
            consistency,
            [
                hex("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"),
                hex("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"),
                hex("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ]
        );
    }

    #[test]
    fn an_independent_implementation_gives_the_same_roots_and_proofs() {
        let all = leaves(40);
        let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for size in 1..=40u64 {
            oracle.push((size - 1).to_be_bytes().to_vec());
            let ours = &all[..usize::try_from(size).unwrap()];
            assert_eq!(root_of(ours).as_slice(), oracle.root().as_bytes().as_slice());
            for index in 0..size {
                let theirs = oracle.prove_inclusion(usize::try_from(index).unwrap());
                assert_eq!(inclusion_proof(index, ours).unwrap().concat(), theirs.as_bytes());
            }
            for old in 1..size {
                let theirs = oracle.prove_consistency(usize::try_from(size - old).unwrap());
                assert_eq!(consistency_proof(old, ours).unwrap().concat(), theirs.as_bytes());
            }
        }
    }

    #[test]
    fn every_proof_verifies_and_no_altered_one_does() {
        let all = leaves(33);
        for size in 1..=33u64 {
            let tree = &all[..usize::try_from(size).unwrap()];
            let root = root_of(tree);
            for index in 0..size {
                let leaf = all[usize::try_from(index).unwrap()];
                let proof = inclusion_proof(index, tree).unwrap();
                assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
                altered(&proof, |bad| {
                    assert!(verify_inclusion(&leaf, index, size, bad, &root).is_err());
                });
                assert!(verify_inclusion(&leaf, size, size, &proof, &root).is_err());
            }
            for old in 0..=size {
                let old_root = root_of(&all[..usize::try_from(old).unwrap()]);
                let proof = consistency_proof(old, tree).unwrap();
                assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()));
                altered(&proof, |bad| {
                    assert!(verify_consistency(old, &old_root, size, &root, bad).is_err());
                });
                let other = leaf_hash(b"another root");
                assert!(verify_consistency(old, &other, size, &root, &proof).is_err());
            }
        }
        assert_eq!(inclusion_proof(33, &all), None);
        assert_eq!(consistency_proof(34, &all), None);
    }

    /// `proof` with one bit changed in each hash, one hash less, and one more.
    fn altered(proof: &[Hash], mut check: impl FnMut(&[Hash])) {
        for place in 0..proof.len() {
            let mut bad = proof.to_vec();
            bad[place][31] ^= 1;
            check(&bad);
        }
        if let Some((_, shorter)) = proof.split_last() {
            check(shorter);
        }
        check(&[proof, &[leaf_hash(b"one more")]].concat());
    }
}

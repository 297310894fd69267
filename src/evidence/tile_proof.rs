//! Roots and proofs from tiles, in as many reads as the tree is high.
//!
//! Whoever has the tiles hands over a function that gives one; nothing here believes them: a proof
//! from false tiles does not lead to the signed root, which its maker has to check. RFC 9162
//! section 2.1, over the tiles of C2SP tlog-tiles.

use std::collections::BTreeMap;

use super::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileKind};
use super::tree::{Hash, empty_root, node_hash, root_of, split_point};

/// The tree of one size, seen through its tiles. It keeps what it fetched.
pub struct TileTree<'f, E> {
    size: u64,
    fetch: &'f mut dyn FnMut(Tile) -> Result<Vec<Hash>, E>,
    fetched: BTreeMap<Tile, Vec<Hash>>,
}

impl<'f, E> TileTree<'f, E> {
    /// The tree of `size` leaves; `fetch` gives the hashes of a tile, as many as it is wide.
    pub fn new(size: u64, fetch: &'f mut dyn FnMut(Tile) -> Result<Vec<Hash>, E>) -> Self {
        Self { size, fetch, fetched: BTreeMap::new() }
    }

    /// The leaf hash at `index`; `None` if the tree does not reach it.
    pub fn leaf(&mut self, index: u64) -> Result<Option<Hash>, E> {
        if index < self.size { self.subtree(0, index).map(Some) } else { Ok(None) }
    }

    /// The root hash of the first `size` leaves; `None` if there are fewer.
    pub fn root(&mut self, size: u64) -> Result<Option<Hash>, E> {
        if size <= self.size { self.range(0, size).map(Some) } else { Ok(None) }
    }

    /// The inclusion proof of leaf `index` in the tree of the first `size` leaves (RFC 9162 section
    /// 2.1.3.1); `None` if there is no such leaf.
    pub fn inclusion_proof(&mut self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, E> {
        if index >= size || size > self.size {
            return Ok(None);
        }
        let (mut from, mut to) = (0, size);
        let mut proof = Vec::new();
        while to - from > 1 {
            let middle = from + split_point(to - from);
            if index < middle {
                proof.push(self.range(middle, to)?);
                to = middle;
            } else {
                proof.push(self.range(from, middle)?);
                from = middle;
            }
        }
        proof.reverse();
        Ok(Some(proof))
    }

    /// The proof that the tree of the first `old` leaves is a prefix of that of the first `new`
    /// (RFC 9162 section 2.1.4.1); `None` unless `old <= new <= size`.
    pub fn consistency_proof(&mut self, old: u64, new: u64) -> Result<Option<Vec<Hash>>, E> {
        if old > new || new > self.size {
            return Ok(None);
        }
        if old == 0 {
            return Ok(Some(Vec::new()));
        }
        let (mut from, mut to) = (0, new);
        let mut proof = Vec::new();
        while old < to {
            let middle = from + split_point(to - from);
            if old <= middle {
                proof.push(self.range(middle, to)?);
                to = middle;
            } else {
                proof.push(self.range(from, middle)?);
                from = middle;
            }
        }
        // The whole old tree is left out: whoever checks has its root.
        if from > 0 {
            proof.push(self.range(from, to)?);
        }
        proof.reverse();
        Ok(Some(proof))
    }

    /// The hash over the leaves `from..to`, where `from` is a multiple of the largest power of two
    /// that fits: its complete subtrees, largest first, as in [`super::tree::Frontier`].
    fn range(&mut self, from: u64, to: u64) -> Result<Hash, E> {
        let mut subtrees = Vec::new();
        let mut at = from;
        while at < to {
            let height = (to - at).ilog2();
            subtrees.push(self.subtree(height, at >> height)?);
            at += 1 << height;
        }
        let mut subtrees = subtrees.into_iter().rev();
        let Some(smallest) = subtrees.next() else { return Ok(empty_root()) };
        Ok(subtrees.fold(smallest, |right, left| node_hash(&left, &right)))
    }

    /// The hash of the complete subtree over the leaves `index * 2^height ..`, from the tile that
    /// has its parts.
    fn subtree(&mut self, height: u32, index: u64) -> Result<Hash, E> {
        let within = height % TILE_HEIGHT;
        let level = u8::try_from(height / TILE_HEIGHT).unwrap_or(u8::MAX);
        let first = index << within;
        let width = u64::from(TILE_WIDTH);
        let kind = TileKind::Hashes(level);
        let Some(tile) = Tile::in_tree(kind, first / width, self.size) else {
            return Ok(empty_root());
        };
        if !self.fetched.contains_key(&tile) {
            let hashes = (self.fetch)(tile)?;
            self.fetched.insert(tile, hashes);
        }
        let hashes = self.fetched.get(&tile).map(Vec::as_slice).unwrap_or_default();
        let start = usize::try_from(first % width).unwrap_or(usize::MAX);
        // A tile that is too short gives another hash, and the proof does not lead to the root.
        let parts = hashes.get(start..start.saturating_add(1 << within)).unwrap_or_default();
        Ok(root_of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tile::{EntryTooLong, TileEdge, hashes_of};
    use crate::evidence::tree::{Frontier, consistency_proof, inclusion_proof, leaf_hash};

    /// The tiles of the first `size` numbers, by name, and their leaf hashes.
    fn tiles(size: u64) -> (BTreeMap<Tile, Vec<Hash>>, Vec<Hash>) {
        let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
        let mut tiles = BTreeMap::new();
        let mut leaves = Vec::new();
        let mut take = |tile: Tile, bytes: &[u8]| {
            if let Some(hashes) = hashes_of(bytes, tile.width) {
                tiles.insert(tile, hashes.to_vec());
            }
            Ok::<(), EntryTooLong>(())
        };
        for number in 0..size {
            leaves.push(leaf_hash(&number.to_be_bytes()));
            edge.push(&mut tree, &number.to_be_bytes(), &mut take).unwrap();
        }
        edge.partial().for_each(|(tile, bytes)| take(tile, bytes).unwrap());
        (tiles, leaves)
    }

    /// What the tree of all numbers below `size` answers.
    fn with<T>(size: u64, ask: impl FnOnce(&mut TileTree<'_, ()>, &[Hash]) -> T) -> T {
        let (tiles, leaves) = tiles(size);
        let mut fetch = |tile: Tile| Ok(tiles[&tile].clone());
        ask(&mut TileTree::new(size, &mut fetch), &leaves)
    }

    #[test]
    fn tiles_give_the_proofs_that_the_leaves_give() {
        for size in [1_u64, 2, 255, 256, 257, 511, 512, 700] {
            with(size, |tree, leaves| {
                for part in [1, 2, 3, size / 2, size - size / 3, size - 1, size] {
                    let part = part.clamp(1, size);
                    let first = &leaves[..part as usize];
                    assert_eq!(tree.root(part), Ok(Some(root_of(first))), "{part} of {size}");
                    for index in [0, 1, part / 2, part - 1] {
                        let expected = inclusion_proof(index, first);
                        assert_eq!(tree.inclusion_proof(index, part), Ok(expected));
                    }
                    for old in [0, 1, part / 3, part / 2, part - 1, part] {
                        let expected = consistency_proof(old, first);
                        assert_eq!(tree.consistency_proof(old, part), Ok(expected));
                    }
                }
                assert_eq!(tree.leaf(size - 1), Ok(leaves.last().copied()));
                assert_eq!(tree.leaf(size), Ok(None));
                assert_eq!(tree.root(size + 1), Ok(None));
                assert_eq!(tree.inclusion_proof(size, size), Ok(None));
                assert_eq!(tree.inclusion_proof(0, size + 1), Ok(None));
                assert_eq!(tree.consistency_proof(2, 1), Ok(None));
            });
        }
        with(0, |tree, _| assert_eq!(tree.root(0), Ok(Some(empty_root()))));
    }

    #[test]
    fn a_large_tree_is_read_in_few_tiles() {
        const SIZE: u64 = 66_000;
        let (tiles, leaves) = tiles(SIZE);
        let mut reads = 0;
        let mut fetch = |tile: Tile| {
            reads += 1;
            Ok::<_, ()>(tiles[&tile].clone())
        };
        let mut tree = TileTree::new(SIZE, &mut fetch);
        let proof = tree.inclusion_proof(40_000, SIZE).unwrap().unwrap();
        assert_eq!(Some(proof), inclusion_proof(40_000, &leaves));
        assert!(reads <= 5, "{reads} tiles");
    }

    #[test]
    fn a_short_tile_gives_no_root_and_a_failing_one_its_failure() {
        let root = with(700, |tree, _| tree.root(700)).unwrap();
        let mut short = |_: Tile| Ok::<_, ()>(vec![[0; 32]; 3]);
        assert_ne!(TileTree::new(700, &mut short).root(700).unwrap(), root);
        let mut failing = |tile: Tile| Err(tile.path());
        let failed = TileTree::new(700, &mut failing).leaf(300);
        assert_eq!(failed, Err("tile/0/001".to_owned()));
    }
}

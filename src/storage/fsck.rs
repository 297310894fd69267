//! Compares the tiles with the segments, whose view they are, and writes them again.
//!
//! It never writes to a segment, the history or the checkpoint: if those are damaged, there is no
//! view to be made of them, and [`super::verify`] says where. Comparing reads only and may be done
//! while the log is written; mending wants the log for itself. The invariant: after
//! [`mend_tiles`] returned, the tiles of the newest checkpoint are those of its entries.

use std::ops::ControlFlow;

use super::disk::Disk;
use super::fault::{Damage, Defect, StorageFault};
use super::reader::{Reader, Until};
use super::tiles::{build, read_tile};
use crate::evidence::VerifierKey;
use crate::evidence::tile::{Tile, TileEdge, TileKind};
use crate::evidence::tree::Frontier;

/// Differences that are named; all are counted.
const NAMED_MAX: usize = 100;

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TilesCheck {
    /// Entries that the newest checkpoint covers: those whose tiles were compared.
    pub entries: u64,
    /// Tiles and bundles that were compared.
    pub tiles: u64,
    /// How many of them are missing or differ.
    pub differing: u64,
    /// The first hundred of those, each with its first entry.
    pub named: Vec<Defect>,
}

/// Compares the tiles of the newest checkpoint with the entries.
///
/// # Errors
/// If the log cannot be read, or does not give the signed root: then no view of it is right.
pub fn check_tiles<D: Disk>(disk: &D, key: &VerifierKey) -> Result<TilesCheck, StorageFault> {
    let reader = Reader::open(disk.clone(), key, Until::Checkpoint)?;
    let mut check = TilesCheck::default();
    let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
    let mut compared = Ok(());
    reader.visit(0, u64::MAX, None, &mut |entry| {
        compared = edge
            .push(&mut tree, entry.json, &mut |tile, expected| check.compare(disk, tile, expected));
        if compared.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    compared?;
    for (tile, expected) in edge.partial() {
        check.compare(disk, tile, expected)?;
    }
    check.entries = tree.tree_size();
    require_signed(&reader, &tree)?;
    Ok(check)
}

/// Writes every tile of the newest checkpoint that is missing or differs; how many there were.
///
/// # Errors
/// If the disk fails, or the log does not give the signed root.
pub fn mend_tiles<D: Disk>(disk: &D, key: &VerifierKey) -> Result<u64, StorageFault> {
    let reader = Reader::open(disk.clone(), key, Until::Checkpoint)?;
    // A crash anywhere leaves some of them as they were, for the next attempt or start.
    let (mut tiles, tree) = build(disk.clone(), &reader)?;
    require_signed(&reader, &tree)?;
    tiles.write_partial()?;
    tiles.sync_now(&tree)?;
    Ok(tiles.written())
}

/// The segments must give the signed root: otherwise it is they that are wrong.
fn require_signed<D: Disk>(reader: &Reader<D>, tree: &Frontier) -> Result<(), StorageFault> {
    let Some(signed) = reader.checkpoint() else { return Ok(()) };
    if signed.tree_size == tree.tree_size() && signed.root_hash == tree.root() {
        return Ok(());
    }
    Err(StorageFault::Corrupt(Defect {
        file: super::checkpoint_store::CHECKPOINT_FILE.to_owned(),
        offset: 0,
        index: tree.tree_size(),
        damage: Damage::Root,
    }))
}

impl TilesCheck {
    fn compare<D: Disk>(
        &mut self,
        disk: &D,
        tile: Tile,
        expected: &[u8],
    ) -> Result<(), StorageFault> {
        self.tiles += 1;
        let (damage, offset, file) = match read_tile(disk, tile)? {
            None => (Damage::TileMissing, 0, tile.path()),
            // Of a full tile that stands for a partial one, the beginning is compared.
            Some((there, bytes)) if there == tile || bytes.len() >= expected.len() => {
                let found = bytes.get(..expected.len()).unwrap_or(&bytes);
                if found == expected && (there != tile || bytes.len() == expected.len()) {
                    return Ok(());
                }
                let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
                let damage = match tile.kind {
                    _ if bytes.len() != expected.len() => Damage::TileLength,
                    TileKind::Entries => Damage::Bundle,
                    TileKind::Hashes(_) => Damage::TileHash,
                };
                (damage, same as u64, there.path())
            }
            Some((there, bytes)) => (Damage::TileLength, bytes.len() as u64, there.path()),
        };
        self.differing += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Defect { file, offset, index: tile.start(), damage });
        }
        Ok(())
    }
}

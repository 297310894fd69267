//! Verifies a log from its public form alone: a checkpoint, tiles and entry bundles, in a directory
//! or in a copy of one that was fetched from elsewhere.
//!
//! No segment, no history and no body is read, so nothing of ours is needed but the verifier key.
//! The invariant: if it answers with a report, the entries hash to every tile and to the root that
//! the checkpoint signs.

use super::checkpoint_store::CHECKPOINT_FILE;
use super::disk::{Disk, RealDisk};
use super::fault::{Damage, Defect, StorageFault};
use super::tiles::read_tile;
use super::verify::{VerifyFault, VerifyProgress, published};
use crate::evidence::tile::{TILE_WIDTH, Tile, TileEdge, TileKind, entries_of};
use crate::evidence::tree::{Frontier, HASH_BYTES};
use crate::evidence::{Checkpoint, VerifierKey};

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TilesReport {
    /// The checkpoint: the validated range is the entries below its size.
    pub checkpoint: Checkpoint,
    /// Tiles and bundles that were read and compared.
    pub tiles: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Verifies the log whose tiles are in the directory `dir`; see [`verify_tiles_on`].
pub fn verify_tiles(
    dir: &std::path::Path,
    key: &VerifierKey,
    older: Option<&Checkpoint>,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Option<TilesReport>, VerifyFault> {
    verify_tiles_on(&RealDisk::new(dir), key, older, progress)
}

/// Verifies a log from its tiles, calling `progress` after every bundle. `older`, a checkpoint from
/// another time, must be a prefix. `None` if there is no checkpoint.
///
/// # Errors
/// At the first tile that is missing or does not fit.
pub fn verify_tiles_on<D: Disk>(
    disk: &D,
    key: &VerifierKey,
    older: Option<&Checkpoint>,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<Option<TilesReport>, VerifyFault> {
    let Some(checkpoint) = published(disk, key)? else { return Ok(None) };
    if older.is_some_and(|older| older.tree_size > checkpoint.tree_size) {
        return Err(defect(CHECKPOINT_FILE, 0, checkpoint.tree_size, Damage::EntriesMissing).into());
    }
    let size = checkpoint.tree_size;
    let report = TilesReport { checkpoint, tiles: 0, bytes: 0 };
    let mut walk =
        Walk { disk, report, older, edge: TileEdge::default(), tree: Frontier::default() };
    walk.check_older()?;
    let bundles = Tile::all_in(size).take_while(|tile| tile.kind == TileKind::Entries);
    for bundle in bundles {
        walk.bundle(&bundle)?;
        let (entries, bytes) = (walk.tree.tree_size(), walk.report.bytes);
        progress(VerifyProgress { entries, signed_entries: size, bytes });
    }
    walk.partial_tiles()?;
    if walk.tree.root() != walk.report.checkpoint.root_hash {
        return Err(defect(CHECKPOINT_FILE, 0, size, Damage::Root).into());
    }
    Ok(Some(walk.report))
}

struct Walk<'a, D: Disk> {
    disk: &'a D,
    report: TilesReport,
    older: Option<&'a Checkpoint>,
    edge: TileEdge,
    tree: Frontier,
}

impl<D: Disk> Walk<'_, D> {
    /// Hashes the entries of a bundle, and compares the tiles that they fill.
    fn bundle(&mut self, bundle: &Tile) -> Result<(), VerifyFault> {
        let first = self.tree.tree_size();
        let (there, bytes) = self.read(bundle)?;
        let bad = |damage| defect(&there.path(), 0, first, damage);
        let entries = entries_of(&bytes, there.width).map_err(|_| bad(Damage::Bundle))?;
        for entry in entries.into_iter().take(usize::from(bundle.width)) {
            let mut full = Vec::new();
            let mut take = |tile: Tile, bytes: &[u8]| {
                if tile.kind != TileKind::Entries {
                    full.push((tile, bytes.to_vec()));
                }
                Ok::<(), StorageFault>(())
            };
            self.edge.push(&mut self.tree, entry, &mut take)?;
            for (tile, expected) in full {
                self.compare(tile, &expected)?;
            }
            self.check_older()?;
        }
        Ok(())
    }

    /// Compares the tiles that are not full at the end.
    fn partial_tiles(&mut self) -> Result<(), VerifyFault> {
        let partial: Vec<_> = self.edge.partial().map(|(tile, it)| (tile, it.to_vec())).collect();
        let hashes = partial.iter().filter(|(tile, _)| tile.kind != TileKind::Entries);
        hashes.into_iter().try_for_each(|(tile, expected)| self.compare(*tile, expected))
    }

    /// Compares a tile of hashes with what the level below gives.
    fn compare(&mut self, tile: Tile, expected: &[u8]) -> Result<(), VerifyFault> {
        let (there, bytes) = self.read(&tile)?;
        let first = tile.start();
        if bytes.len() != usize::from(there.width) * HASH_BYTES {
            return Err(defect(&there.path(), 0, first, Damage::TileLength).into());
        }
        let hashes = bytes.chunks(HASH_BYTES).zip(expected.chunks(HASH_BYTES));
        match (0_u64..).zip(hashes).find(|(_, (found, expected))| found != expected) {
            None => Ok(()),
            Some((place, _)) => {
                let span = tile.full_span() / u64::from(TILE_WIDTH);
                let index = first.saturating_add(place.saturating_mul(span));
                let offset = place * HASH_BYTES as u64;
                Err(defect(&there.path(), offset, index, Damage::TileHash).into())
            }
        }
    }

    /// The bytes of a tile, and which one they are of: the full one, if the partial one is gone.
    fn read(&mut self, tile: &Tile) -> Result<(Tile, Vec<u8>), VerifyFault> {
        let first = tile.start();
        let read = read_tile(self.disk, *tile)?;
        let found = read.ok_or_else(|| defect(&tile.path(), 0, first, Damage::TileMissing))?;
        self.report.tiles += 1;
        self.report.bytes += found.1.len() as u64;
        Ok(found)
    }

    fn check_older(&self) -> Result<(), VerifyFault> {
        match self.older.filter(|older| older.tree_size == self.tree.tree_size()) {
            Some(older) if older.root_hash != self.tree.root() => {
                Err(defect(CHECKPOINT_FILE, 0, older.tree_size, Damage::NotAPrefix).into())
            }
            _ => Ok(()),
        }
    }
}

fn defect(file: &str, offset: u64, index: u64, damage: Damage) -> Defect {
    Defect { file: file.to_owned(), offset, index, damage }
}

//! The tiles beside the log: those of every published checkpoint are there and right, whatever
//! happened to them before.

use std::collections::BTreeMap;

use avow::evidence::tile::{EntryTooLong, Tile, TileEdge};
use avow::evidence::tree::{Frontier, leaf_hash, root_of, verify_consistency};
use avow::evidence::{Batch, BatchId, Checkpoint, LogKey, RecordKind};
use avow::storage::{
    Disk, DiskFile, Log, LogOptions, ProveError, Reader, RealDisk, Recovery, StorageFault, Until,
};

use crate::disk::{Accident, SimDisk};
use crate::world::ORIGIN;

/// A log that is up.
struct Up<D: Disk> {
    log: Log<D>,
    recovery: Recovery<D>,
}

fn key() -> LogKey {
    LogKey::from_seed(ORIGIN, &[7; 32]).unwrap()
}

fn entry(index: u64) -> Vec<u8> {
    format!(r#"{{"v":1,"type":"note","t":{index}}}"#).into_bytes()
}

fn open<D: Disk>(disk: &D, tiles: bool) -> Result<Up<D>, StorageFault> {
    let options = LogOptions { verifier: key().verifier().clone(), segment_bytes: 1 << 16, tiles };
    let (log, recovery) = Log::open(disk.clone(), options, &mut |_| {})?;
    Ok(Up { log, recovery })
}

impl<D: Disk> Up<D> {
    /// Appends so many entries, and signs.
    fn grow(&mut self, entries: u64) -> Result<(), StorageFault> {
        self.append(entries)?;
        self.recovery.sign(&key()).map(|_| ())
    }

    fn append(&mut self, entries: u64) -> Result<(), StorageFault> {
        let first = self.log.next_index();
        let mut batch = Batch::default();
        for index in first..first + entries {
            batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&entry(index)));
        }
        self.log.append(&[(BatchId { shard: 0, number: first }, batch)])?;
        (first..first + entries).try_for_each(|index| self.recovery.integrate(&entry(index)))
    }
}

fn signed_size<D: Disk>(disk: &D) -> u64 {
    reader(disk).checkpoint().map_or(0, |signed: &Checkpoint| signed.tree_size)
}

fn reader<D: Disk>(disk: &D) -> Reader<D> {
    Reader::open(disk.clone(), key().verifier(), Until::Checkpoint).unwrap()
}

fn bytes<D: Disk>(disk: &D, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; file.byte_len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// What every tile of a log of `size` entries must hold.
fn expected(size: u64) -> BTreeMap<Tile, Vec<u8>> {
    let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
    let mut tiles = BTreeMap::new();
    for index in 0..size {
        let mut take = |tile: Tile, bytes: &[u8]| {
            tiles.insert(tile, bytes.to_vec());
            Ok::<(), EntryTooLong>(())
        };
        edge.push(&mut tree, &entry(index), &mut take).unwrap();
    }
    tiles.extend(edge.partial().map(|(tile, bytes)| (tile, bytes.to_vec())));
    assert!(tiles.keys().copied().eq({
        let mut all: Vec<Tile> = Tile::all_in(size).collect();
        all.sort_unstable();
        all
    }));
    tiles
}

#[track_caller]
fn assert_tiles<D: Disk>(disk: &D, what: &str) {
    for (tile, expected) in expected(signed_size(disk)) {
        let path = tile.path();
        let is_right = match (bytes(disk, &path), bytes(disk, &tile.full().path())) {
            (Some(found), _) => found == expected,
            // Entries that nobody signed yet filled the place.
            (None, full) => full.is_some_and(|full| full.starts_with(&expected)),
        };
        assert!(is_right, "{what}: {path} is missing or wrong");
    }
}

#[test]
fn the_tiles_of_every_checkpoint_are_there_until_they_are_full() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path());
    let mut up = open(&disk, true).unwrap();
    for entries in [1, 99, 155, 1, 1, 255, 3, 700] {
        up.grow(entries).unwrap();
        assert_tiles(&disk, "as it grows");
    }
    assert_eq!(signed_size(&disk), 1215);
    // Of an earlier checkpoint whose place is not full, and of those whose place is.
    assert!(bytes(&disk, "tile/1/000.p/1").is_some() && bytes(&disk, "tile/1/000.p/2").is_some());
    let partial = |path: &str| dir.path().join(path).exists();
    assert!(!partial("tile/0/000.p") && !partial("tile/entries/000.p") && !partial("tile/0/001.p"));
    drop(up);
    // A restart finds those that were there, and takes them away in time.
    let mut up = open(&disk, true).unwrap();
    assert_eq!(up.recovery.tiles.as_ref().unwrap().written(), 0);
    assert!(partial("tile/0/004.p/191"));
    up.grow(100).unwrap();
    assert!(!partial("tile/0/004.p") && partial("tile/0/005.p/35"));
    assert_tiles(&disk, "after a restart");
}

#[test]
fn a_log_without_tiles_gets_them_at_the_next_start() {
    let disk = SimDisk::new(1);
    let mut up = open(&disk, false).unwrap();
    up.grow(900).unwrap();
    up.append(10).unwrap();
    assert!(disk.files("tile/").is_empty());
    drop(up);
    let mut up = open(&disk, true).unwrap();
    assert_tiles(&disk, "at the start");
    up.recovery.sign(&key()).unwrap();
    assert_tiles(&disk, "with the tail signed");
    assert_eq!(signed_size(&disk), 910);
}

#[test]
fn whatever_a_crash_did_to_the_tiles_a_start_mends() {
    let mut crashes = 0;
    for seed in 0..4 {
        for point in (seed..).step_by(3) {
            let disk = SimDisk::new(seed * 1000 + point);
            let mut up = open(&disk, true).unwrap();
            up.grow(250).unwrap();
            disk.plan(None, point, Accident::PowerLoss);
            let grown = [4, 3, 2, 300, 1].iter().try_for_each(|entries| up.grow(*entries));
            if grown.is_ok() {
                break;
            }
            crashes += 1;
            let before = signed_size(&disk);
            drop(up);
            disk.crash();
            let mut up = open(&disk, true).unwrap();
            let what = format!("seed {seed}, point {point}");
            assert!(signed_size(&disk) >= before.min(250), "{what}");
            assert_tiles(&disk, &what);
            up.grow(400).unwrap();
            assert_tiles(&disk, &what);
        }
    }
    assert!(crashes > 60, "{crashes} crashes");
}

#[test]
fn a_tile_that_cannot_be_written_ends_the_log_before_its_checkpoint() {
    for accident in [Accident::Eio, Accident::EioButDone, Accident::Enospc] {
        let disk = SimDisk::new(7);
        let mut up = open(&disk, true).unwrap();
        up.grow(100).unwrap();
        up.append(10).unwrap();
        disk.plan(None, 0, accident);
        assert!(matches!(up.recovery.sign(&key()), Err(StorageFault::Io { .. })));
        assert_eq!(signed_size(&disk), 100);
        drop(up);
        disk.crash();
        open(&disk, true).unwrap().recovery.sign(&key()).unwrap();
        assert_tiles(&disk, "after the disk was mended");
        assert_eq!(signed_size(&disk), 110);
    }
}

#[test]
fn what_is_below_the_mark_is_not_compared_and_a_foreign_mark_is_not_believed() {
    const SIZE: u64 = 66_000;
    let filled = |seed, size| {
        let disk = SimDisk::new(seed);
        let mut up = open(&disk, true).unwrap();
        up.grow(size).unwrap();
        up.recovery.finish().unwrap();
        disk
    };
    let (disk, shorter) = (filled(1, SIZE), filled(2, SIZE - 1));
    disk.crash();
    assert_tiles(&disk, "synced with the mark");
    // Of a start, too little lies past the mark to compare a full tile.
    let path = "tile/0/003";
    disk.flip(path, 9, 1);
    let written = |up: &Up<SimDisk>| up.recovery.tiles.as_ref().unwrap().written();
    assert_eq!(written(&open(&disk, true).unwrap()), 0);
    // A proof is made from the entries then: what the tiles give does not lead to the root.
    let proof = reader(&disk).prove(800).unwrap();
    assert!(proof.verify(&entry(800), key().verifier()).is_ok());
    let mark = disk.bytes("tiles.synced").unwrap();
    for wrong in [shorter.bytes("tiles.synced").unwrap(), mark[..51].to_vec(), Vec::new(), {
        let mut wrong = mark.clone();
        wrong[20] ^= 1;
        wrong
    }] {
        disk.replace("tiles.synced", wrong.clone());
        let up = open(&disk, true).unwrap();
        // The mark of the shorter log is true of this one as well.
        let is_true = wrong == shorter.bytes("tiles.synced").unwrap();
        assert_eq!(written(&up), u64::from(!is_true), "{wrong:?}");
        if !is_true {
            assert_tiles(&disk, "compared");
            disk.flip(path, 9, 1);
        }
    }
    // That of a longer one is not, nor that of a log with other entries.
    let longer = filled(3, SIZE + 5).bytes("tiles.synced").unwrap();
    disk.replace("tiles.synced", longer);
    assert_eq!(written(&open(&disk, true).unwrap()), 1);
    assert_tiles(&disk, "compared");
}

#[test]
fn proofs_are_the_same_with_tiles_and_without() {
    let (with, without) = (SimDisk::new(1), SimDisk::new(2));
    for (disk, tiles) in [(&with, true), (&without, false)] {
        let mut up = open(disk, tiles).unwrap();
        up.grow(300).unwrap();
        up.grow(401).unwrap();
    }
    let [with, without] = [&with, &without].map(reader);
    for index in [0, 255, 256, 511, 512, 700] {
        let proof = with.prove(index).unwrap();
        assert_eq!(proof, without.prove(index).unwrap());
        assert_eq!(proof.verify(&entry(index), key().verifier()).unwrap().tree_size, 701);
    }
    let leaves: Vec<_> = (0..701).map(|index| leaf_hash(&entry(index))).collect();
    for (old, new) in [(0, 0), (0, 701), (1, 256), (255, 700), (300, 701), (701, 701)] {
        let proof = with.prove_consistency(old, new).unwrap();
        assert_eq!(proof, without.prove_consistency(old, new).unwrap());
        assert_eq!(proof.old_root, root_of(&leaves[..old as usize]));
        assert_eq!(proof.new_root, root_of(&leaves[..new as usize]));
        let (old_root, new_root) = (&proof.old_root, &proof.new_root);
        assert_eq!(verify_consistency(old, old_root, new, new_root, &proof.hashes), Ok(()));
    }
    for reader in [&with, &without] {
        assert!(matches!(reader.prove(701), Err(ProveError::NotCovered { tree_size: 701, .. })));
        for (old, new) in [(2, 1), (0, 702), (702, 702)] {
            let refused = reader.prove_consistency(old, new);
            assert!(matches!(refused, Err(ProveError::NoSuchSizes { .. })));
        }
    }
}

#[test]
fn a_proof_is_made_from_few_tiles_and_no_segment() {
    let disk = SimDisk::new(1);
    open(&disk, true).unwrap().grow(70_000).unwrap();
    let reader = reader(&disk);
    // Where the entries were, there is nothing left to read.
    for (path, length) in disk.files("segments/") {
        disk.replace(&path, vec![0; length]);
    }
    let proof = reader.prove(43_210).unwrap();
    assert!(proof.verify(&entry(43_210), key().verifier()).is_ok());
    assert!(reader.prove_consistency(12_345, 70_000).is_ok());
}

//! What a start makes of the files it finds: reads everything, cuts a torn last batch, and
//! refuses to go on over damage to what was promised.
//!
//! One append is one batch, and the next begins only when the sync of the one before returned.
//! So at most the last batch can be torn, and it was never acknowledged. Damage anywhere else,
//! or below the newest checkpoint, or with a whole batch behind it, is corruption. The
//! invariant: when [`recover`] succeeds, the disk holds exactly the batches that were visited,
//! then zeroes, and the newest checkpoint is a prefix of their tree.

use super::checkpoint_store::CheckpointStore;
use super::disk::{Disk, DiskFile};
use super::erasure::Coverage;
use super::fault::{Damage, Defect, Doing, StorageFault};
use super::log::LogOptions;
use super::reader::{Reader, Until};
use super::scan::{
    Expected, SEGMENTS_DIR, ScanFault, SegmentScan, Span, segment_numbers, segment_path,
};
use super::segment::{
    BodyView, Link, Marker, SEGMENT_HEADER_BYTES, SegmentHeader, first_nonzero, records,
};
use super::tiles::{Tiles, build};
use crate::evidence::erasure::Erasure;
use crate::evidence::tree::{Frontier, leaf_hash};
use crate::evidence::{Checkpoint, LogKey, RecordKind};

/// One record found in the log, for whoever rebuilds a view from it.
#[derive(Clone, Copy, Debug)]
pub struct Recovered<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// Its index, if it is an entry; otherwise that of the next entry.
    pub index: u64,
    /// The entry or the change of state.
    pub head: &'a [u8],
    /// Its body, which fits its commitment.
    pub body: Option<BodyView<'a>>,
    /// How much of the log's segments lies before it, from 0 to 1.
    pub progress: f64,
}

/// What was found.
#[derive(Debug)]
pub struct Recovery<D: Disk> {
    /// The tree over every entry.
    pub tree: Frontier,
    /// The checkpoints, ready for the next.
    pub checkpoints: CheckpointStore<D>,
    /// The tiles of the tree, if they are kept.
    pub tiles: Option<Tiles<D>>,
    /// The torn last batch that was cut, if there was one.
    pub cut: Option<Defect>,
    /// Number of records visited.
    pub records: u64,
    /// Erasures that began and are not done: a crash was faster.
    pub unfinished_erasures: Vec<Erasure>,
}

impl<D: Disk> Recovery<D> {
    /// Number of entries that no checkpoint covers yet.
    pub fn unsigned_tail_entries(&self) -> u64 {
        let signed = self.checkpoints.newest().map_or(0, |checkpoint| checkpoint.tree_size);
        self.tree.tree_size().saturating_sub(signed)
    }

    /// Takes an entry that is on disk into the tree and the tiles.
    ///
    /// # Errors
    /// If a tile cannot be written.
    pub fn integrate(&mut self, entry: &[u8]) -> Result<(), StorageFault> {
        match &mut self.tiles {
            Some(tiles) => tiles.push(&mut self.tree, entry),
            None => {
                self.tree.push(leaf_hash(entry));
                Ok(())
            }
        }
    }

    /// Signs the tree, if it grew since it was signed, and publishes its checkpoint; whether it
    /// did. Everything in it is on disk.
    ///
    /// # Errors
    /// If the disk fails, or the checkpoint must not be signed.
    pub fn sign(&mut self, key: &LogKey) -> Result<bool, StorageFault> {
        let tree_size = self.tree.tree_size();
        if self.checkpoints.newest().map_or(0, |newest| newest.tree_size) == tree_size {
            return Ok(false);
        }
        // A crash between the two leaves tiles of a size that nobody signed, which are true.
        if let Some(tiles) = &mut self.tiles {
            tiles.write_partial()?;
        }
        let origin = key.verifier().name().to_owned();
        let root_hash = self.tree.root();
        self.checkpoints.publish(key, Checkpoint { origin, tree_size, root_hash })?;
        Ok(true)
    }

    /// Ends in order, after the last signature: brings the tiles to disk, if that is worth it.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(&mut self) -> Result<(), StorageFault> {
        self.tiles.as_mut().map_or(Ok(()), |tiles| tiles.sync(&self.tree))
    }
}

impl<D: Disk> Recovery<D> {
    /// Makes the tiles those of the log that was just read, up to its newest checkpoint.
    fn settle_tiles(&mut self, disk: &D, options: &LogOptions) -> Result<(), StorageFault> {
        let Some(mut tiles) = self.tiles.take() else { return Ok(()) };
        let size = self.tree.tree_size();
        if tiles.is_distrusted() {
            let reader = Reader::open(disk.clone(), &options.verifier, Until::Synced(size))?;
            tiles = build(disk.clone(), &reader)?.0;
        }
        tiles.compared(&self.checkpoints)?;
        if self.unsigned_tail_entries() == 0 {
            tiles.sync(&self.tree)?;
        }
        self.tiles = Some(tiles);
        Ok(())
    }
}

/// Where the next batch goes.
#[derive(Debug)]
pub(super) struct Tail<F> {
    /// The segment that is being written, if there is one yet.
    pub(super) active: Option<Active<F>>,
    /// The number of the segment after it.
    pub(super) next_number: u64,
    /// Index of the next entry.
    pub(super) next_index: u64,
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active<F> {
    pub(super) file: F,
    pub(super) path: String,
    pub(super) marker: Marker,
    /// Length of the file.
    pub(super) bytes: u64,
    /// First byte past the last batch.
    pub(super) offset: u64,
    /// Number of batches.
    pub(super) batches: u32,
    /// Checksum of the last batch.
    pub(super) crc: u32,
}

impl<F> Active<F> {
    /// What the next segment must repeat.
    pub(super) fn link(&self) -> Link {
        Link { marker: self.marker, end: self.offset, crc: self.crc }
    }
}

/// Reads the whole log, visiting each record in order.
pub(super) fn recover<D: Disk>(
    disk: &D,
    options: &LogOptions,
    visit: &mut dyn FnMut(Recovered<'_>),
) -> Result<(Recovery<D>, Tail<D::File>), StorageFault> {
    let checkpoints = CheckpointStore::open(disk.clone(), options.verifier.clone())?;
    let numbers = segment_numbers(disk)?;
    check_numbers(&numbers)?;
    let used = drop_unused(disk, &numbers)?;
    let expected =
        Expected { origin: options.origin_hash(), first_index: 0, link: Link::default() };
    let tiles = options.tiles.then(|| Tiles::open(disk.clone())).transpose()?;
    let recovery = Recovery {
        tree: Frontier::default(),
        checkpoints,
        tiles,
        cut: None,
        records: 0,
        unfinished_erasures: Vec::new(),
    };
    let coverage = Coverage::new(disk)?;
    let mut walk = Walk { recovery, expected, last_number: used.checked_sub(1), coverage, visit };
    let mut active = None;
    for number in 0..used {
        active = Some(walk.segment(disk, number)?);
    }
    let Walk { mut recovery, expected, coverage, .. } = walk;
    recovery.unfinished_erasures = coverage.finish().map_err(StorageFault::Corrupt)?;
    if let Some(signed) = recovery.checkpoints.newest()
        && signed.tree_size > expected.first_index
    {
        return Err(StorageFault::Corrupt(Defect {
            file: used.checked_sub(1).map_or(SEGMENTS_DIR.to_owned(), segment_path),
            offset: active.as_ref().map_or(0, |active| active.offset),
            index: expected.first_index,
            damage: Damage::EntriesMissing,
        }));
    }
    recovery.settle_tiles(disk, options)?;
    let tail = Tail { active, next_number: used, next_index: expected.first_index };
    Ok((recovery, tail))
}

/// Segments are numbered from 0 without gaps, the one made ahead included.
fn check_numbers(numbers: &[u64]) -> Result<(), StorageFault> {
    for (expected, number) in (0..).zip(numbers) {
        if expected != *number {
            let file = segment_path(expected);
            let damage = Damage::Missing;
            return Err(StorageFault::Corrupt(Defect { file, offset: 0, index: 0, damage }));
        }
    }
    Ok(())
}

/// Takes away a last segment that was made ahead and never begun; the number of those in use.
fn drop_unused<D: Disk>(disk: &D, numbers: &[u64]) -> Result<u64, StorageFault> {
    let count = numbers.len() as u64;
    let Some(last) = numbers.last() else { return Ok(0) };
    if !is_unused(disk, *last)? {
        return Ok(count);
    }
    // A crash before the directory is synced brings the file back, still unused.
    let path = segment_path(*last);
    disk.remove(&path).map_err(StorageFault::io(Doing::Write, &path))?;
    disk.sync_dir(SEGMENTS_DIR).map_err(StorageFault::io(Doing::Sync, SEGMENTS_DIR))?;
    Ok(count - 1)
}

/// Whether segment `number` has a whole header. A look at the header alone: what is behind it may be
/// long, and is the writer's.
pub(super) fn is_begun<D: Disk>(disk: &D, number: u64) -> Result<bool, StorageFault> {
    let path = segment_path(number);
    let file = disk.open(&path).map_err(StorageFault::io(Doing::Open, &path))?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut header, 0).map_err(StorageFault::io(Doing::Read, &path))?;
    Ok(SegmentHeader::decode(&header).is_ok())
}

/// Whether segment `number` was never begun: its header is synced before the first batch is
/// written, so without a whole header there must be nothing behind it.
pub(super) fn is_unused<D: Disk>(disk: &D, number: u64) -> Result<bool, StorageFault> {
    if is_begun(disk, number)? {
        return Ok(false);
    }
    let path = segment_path(number);
    let file = disk.open(&path).map_err(StorageFault::io(Doing::Open, &path))?;
    let mut chunk = vec![0; 1 << 20];
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    loop {
        let read = file.read_at(&mut chunk, offset);
        let count = read.map_err(StorageFault::io(Doing::Read, &path))?;
        if chunk.get(..count).and_then(first_nonzero).is_some() {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
        offset += count as u64;
    }
}

struct Walk<'a, D: Disk> {
    recovery: Recovery<D>,
    expected: Expected,
    last_number: Option<u64>,
    coverage: Coverage,
    visit: &'a mut dyn FnMut(Recovered<'_>),
}

impl<D: Disk> Walk<'_, D> {
    fn segment(&mut self, disk: &D, number: u64) -> Result<Active<D::File>, StorageFault> {
        let mut scan = SegmentScan::open(disk, number, Some(&self.expected))?;
        let mut last = None;
        loop {
            match self.batch(&mut scan, number) {
                Ok(Some(span)) => last = Some(span),
                Ok(None) => break,
                Err(ScanFault::Disk(fault)) => return Err(fault),
                Err(ScanFault::Defect(defect)) => {
                    self.cut_or_refuse(&mut scan, number, defect)?;
                    break;
                }
            }
        }
        if self.last_number == Some(number) {
            write_again(&mut scan, last.as_ref())?;
        }
        self.expected.first_index = scan.next_index();
        self.expected.link = scan.link();
        Ok(Active {
            path: scan.path().to_owned(),
            marker: scan.header().marker,
            bytes: scan.header().bytes,
            offset: scan.offset(),
            batches: scan.batches(),
            crc: scan.link().crc,
            file: scan.into_file(),
        })
    }

    /// Checks one batch, bodies included, and visits its records.
    fn batch(
        &mut self,
        scan: &mut SegmentScan<D::File>,
        number: u64,
    ) -> Result<Option<Span>, ScanFault> {
        let Some(span) = scan.peek()? else {
            return match scan.unused_space_defect()? {
                Some(defect) => Err(ScanFault::Defect(defect)),
                None => Ok(None),
            };
        };
        let is_last = self.last_number == Some(number) && !scan.is_followed(&span)?;
        if let Some(defect) = self.coverage.take(scan, &span, is_last)? {
            return Err(ScanFault::Defect(defect));
        }
        let mut index = span.header.first_index;
        let inside = scan.offset() as f64 / scan.header().bytes.max(1) as f64;
        let segments = self.last_number.map_or(1, |last| last + 1);
        let progress = (number as f64 + inside) / segments as f64;
        for record in records(scan.bytes(&span)?) {
            let (kind, head, body) = (record.kind, &*record.head, record.body);
            (self.visit)(Recovered { kind, index, head, body, progress });
            self.recovery.records += 1;
            if kind == RecordKind::Entry {
                self.recovery.integrate(head)?;
                index += 1;
                self.check_root()?;
            }
        }
        scan.advance(&span.header, span.crc);
        Ok(Some(span))
    }

    /// At the size of the newest checkpoint, the entries must give its root.
    fn check_root(&self) -> Result<(), StorageFault> {
        let tree = &self.recovery.tree;
        match self.recovery.checkpoints.newest() {
            Some(signed)
                if signed.tree_size == tree.tree_size() && signed.root_hash != tree.root() =>
            {
                Err(StorageFault::Corrupt(Defect {
                    file: super::checkpoint_store::CHECKPOINT_FILE.to_owned(),
                    offset: 0,
                    index: signed.tree_size,
                    damage: Damage::Root,
                }))
            }
            _ => Ok(()),
        }
    }

    /// Decides between a torn last batch, which is replaced by zeroes, and corruption.
    fn cut_or_refuse(
        &mut self,
        scan: &mut SegmentScan<D::File>,
        number: u64,
        defect: Defect,
    ) -> Result<(), StorageFault> {
        let signed = self.recovery.checkpoints.newest().map_or(0, |newest| newest.tree_size);
        let is_last = self.last_number == Some(number);
        if !is_last || scan.next_index() < signed || scan.whole_batch_follows()? {
            return Err(StorageFault::Corrupt(defect));
        }
        // A crash while this is written leaves less of the torn batch, which the next start cuts
        // again. No append happens before the sync: old bytes behind a new batch would look like
        // damage.
        let zeroes = vec![0; 1 << 20];
        let (mut offset, end) = (scan.offset(), scan.header().bytes);
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeroes.len());
            let chunk = zeroes.get(..length).unwrap_or_default();
            let written = scan.file().write_at(chunk, offset);
            written.map_err(StorageFault::io(Doing::Write, scan.path()))?;
            offset += length as u64;
        }
        scan.file().sync_data().map_err(StorageFault::io(Doing::Sync, scan.path()))?;
        scan.forget();
        self.recovery.cut = Some(defect);
        Ok(())
    }
}

/// Writes the end of the log once more and syncs it. A sync that failed before this start may
/// have left the last batch in the kernel's memory only, marked clean: it reads well and is not
/// on disk. A crash meanwhile replaces bytes by the same bytes.
fn write_again<F: DiskFile>(
    scan: &mut SegmentScan<F>,
    last: Option<&Span>,
) -> Result<(), StorageFault> {
    let (bytes, offset) = match last {
        Some(span) => (scan.bytes(span)?.to_vec(), span.offset),
        None => (scan.header().encode().to_vec(), 0),
    };
    let written = scan.file().write_at(&bytes, offset);
    written.map_err(StorageFault::io(Doing::Write, scan.path()))?;
    scan.file().sync_data().map_err(StorageFault::io(Doing::Sync, scan.path()))
}

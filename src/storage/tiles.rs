//! The tiles of the log on disk: a view of the segments in the form that others read, C2SP
//! tlog-tiles.
//!
//! ```text
//! tile/<L>/<N>       full tiles, and below `.p/` those of checkpointed sizes that are not full
//! tile/entries/<N>   entry bundles, likewise
//! tiles.synced       below which size all of them are on disk: one record of 52 bytes
//! record             magic 8 | size 8 | root hash 32 | CRC32C 4
//! ```
//!
//! They hold nothing that the segments do not hold, so nothing waits for them to reach the disk:
//! the thread that hashes the entries writes them without a sync. A start compares what lies past
//! `tiles.synced` with the entries that it reads anyway, and writes what differs. A tile that
//! cannot be written ends the log all the same, for the sake of the invariant: while the broker
//! runs, the tiles of a size stand before the checkpoint of that size is published.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;

use crc32c::crc32c;

use super::checkpoint_store::CheckpointStore;
use super::disk::{Disk, DiskFile};
use super::fault::{Damage, Doing, StorageFault};
use super::reader::Reader;
use crate::evidence::tile::{ENTRY_BYTES_MAX, EntryTooLong, Tile, TileEdge, hashes_of};
use crate::evidence::tree::{Frontier, Hash};

/// Below which size all tiles are on disk, within the log's directory.
pub const TILES_MARK_FILE: &str = "tiles.synced";
/// Entries past the mark that a start or a stop moves it for. Fewer are compared again by the next
/// start, which costs it as many reads as there are tiles.
const SYNC_ENTRIES: u64 = 65_536;

const MARK_TMP: &str = "tiles.synced.tmp";
const MARK_MAGIC: [u8; 8] = *b"AVOWTILE";
const MARK_BYTES: usize = 52;

/// The tiles, open for whoever integrates entries.
#[derive(Debug)]
pub struct Tiles<D: Disk> {
    edge: TileEdge,
    files: TileFiles<D>,
    mark: Option<Mark>,
    /// Whether the mark turned out to be that of another log.
    is_marked_wrong: bool,
}

/// A size below which every full tile is on disk, and what tells its tree from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    size: u64,
    root: Hash,
}

/// Where tiles are written.
#[derive(Debug)]
struct TileFiles<D: Disk> {
    disk: D,
    /// Whether a file may be there already, and right.
    compares: bool,
    /// Full tiles that end at or before this size are on disk.
    synced: u64,
    /// The partial tiles that are there of places that are not full yet.
    partial: Vec<Tile>,
    /// A directory that is there.
    directory: String,
    written: u64,
}

impl From<EntryTooLong> for StorageFault {
    fn from(_: EntryTooLong) -> Self {
        Self::Unwritable(Damage::EntryLength)
    }
}

impl<D: Disk> Tiles<D> {
    /// Opens the tiles in `disk`, before the first entry is read.
    pub(super) fn open(disk: D) -> Result<Self, StorageFault> {
        let mark = read_mark(&disk)?;
        Ok(Self::marked(disk, mark))
    }

    /// Opens the tiles as if nothing were known of them.
    pub(super) fn distrust(disk: D) -> Self {
        Self::marked(disk, None)
    }

    fn marked(disk: D, mark: Option<Mark>) -> Self {
        let files = TileFiles {
            disk,
            compares: true,
            synced: mark.map_or(0, |mark| mark.size),
            partial: Vec::new(),
            directory: String::new(),
            written: 0,
        };
        Self { edge: TileEdge::default(), files, mark, is_marked_wrong: false }
    }

    /// Appends an entry to `tree` and writes the tiles that it fills.
    pub(super) fn push(&mut self, tree: &mut Frontier, entry: &[u8]) -> Result<(), StorageFault> {
        let files = &mut self.files;
        self.edge.push(tree, entry, &mut |tile, bytes| files.put_full(tile, bytes))?;
        if let Some(mark) = self.mark.filter(|mark| mark.size == tree.tree_size()) {
            self.is_marked_wrong |= mark.root != tree.root();
        }
        Ok(())
    }

    /// Writes the tiles that are not full, as a checkpoint of the present size needs them.
    pub(super) fn write_partial(&mut self) -> Result<(), StorageFault> {
        for (tile, bytes) in self.edge.partial() {
            self.files.put_partial(tile, bytes)?;
        }
        Ok(())
    }

    /// Whether the tiles before the mark may be those of another log: then all are to be compared.
    pub(super) fn is_distrusted(&self) -> bool {
        self.is_marked_wrong || self.mark.is_some_and(|mark| mark.size > self.edge.size())
    }

    /// Ends the comparing: every entry of the log was pushed. Of the tiles that `checkpoints` asked
    /// for since the mark, those whose places are not full are compared too. From now on files are
    /// written unseen.
    pub(super) fn compared(
        &mut self,
        checkpoints: &CheckpointStore<D>,
    ) -> Result<(), StorageFault> {
        let mut wanted = BTreeSet::new();
        checkpoints.visit_sizes(self.files.synced, &mut |size| {
            wanted.extend(Tile::partial_in(size).filter(|tile| self.edge.bytes_of(tile).is_some()));
        })?;
        for tile in wanted {
            let bytes = self.edge.bytes_of(&tile).unwrap_or_default();
            self.files.put_partial(tile, bytes)?;
        }
        self.files.compares = false;
        self.files.find_partial(self.edge.size())
    }

    /// Moves the mark to the signed `tree`, if enough lies between.
    pub(super) fn sync(&mut self, tree: &Frontier) -> Result<(), StorageFault> {
        let size = tree.tree_size();
        let marked = self.mark.map_or(0, |mark| mark.size);
        if size < marked.saturating_add(SYNC_ENTRIES) || size != self.edge.size() {
            return Ok(());
        }
        self.sync_now(tree)
    }

    /// Moves the mark to the signed `tree`, all of whose tiles were written.
    pub(super) fn sync_now(&mut self, tree: &Frontier) -> Result<(), StorageFault> {
        let size = tree.tree_size();
        let disk = &self.files.disk;
        // A crash before this returns leaves the old mark: the next start compares once more.
        disk.sync_all().map_err(StorageFault::io(Doing::Sync, "tile"))?;
        let mark = Mark { size, root: tree.root() };
        write_mark(disk, &mark)?;
        self.mark = Some(mark);
        Ok(())
    }

    /// Number of tiles that were written.
    pub fn written(&self) -> u64 {
        self.files.written
    }
}

/// Compares every full tile with the entries that `reader` has, and writes those that differ; the
/// tiles, and the tree over those entries.
pub(super) fn build<D: Disk>(
    disk: D,
    reader: &Reader<D>,
) -> Result<(Tiles<D>, Frontier), StorageFault> {
    let (mut tiles, mut tree) = (Tiles::distrust(disk), Frontier::default());
    let mut pushed = Ok(());
    reader.visit(0, u64::MAX, None, &mut |entry| {
        pushed = tiles.push(&mut tree, entry.json);
        if pushed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    pushed?;
    Ok((tiles, tree))
}

impl<D: Disk> TileFiles<D> {
    fn put_full(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StorageFault> {
        if tile.end() <= self.synced {
            return Ok(());
        }
        // A crash leaves any part of the file: the next start writes it again.
        self.put(tile, bytes)?;
        let directory = tile.partial_dir();
        let has_partial = self.partial.iter().any(|partial| partial.full() == tile);
        if !has_partial && !self.compares {
            return Ok(());
        }
        // Whoever asks for a partial tile takes the full one. A crash in between leaves partial
        // tiles that nobody needs; a start that passes here again takes them away.
        for name in list(&self.disk, &directory)? {
            let path = format!("{directory}/{name}");
            self.disk.remove(&path).map_err(StorageFault::io(Doing::Write, &path))?;
        }
        match self.disk.remove_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StorageFault::io(Doing::Write, &directory)(error));
            }
            _ => {}
        }
        self.partial.retain(|partial| partial.full() != tile);
        Ok(())
    }

    fn put_partial(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StorageFault> {
        // A crash leaves any part of the file, and perhaps the checkpoint: the next start writes
        // the tiles of that size again before it serves anybody.
        self.put(tile, bytes)?;
        self.partial.push(tile);
        Ok(())
    }

    fn put(&mut self, tile: Tile, bytes: &[u8]) -> Result<(), StorageFault> {
        let path = tile.path();
        if self.compares && read(&self.disk, &path)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if directory != self.directory {
            let made = self.disk.make_dir(directory);
            made.map_err(StorageFault::io(Doing::Write, directory))?;
            directory.clone_into(&mut self.directory);
        }
        let file = self.disk.create(&path).map_err(StorageFault::io(Doing::Write, &path))?;
        file.write_at(bytes, 0).map_err(StorageFault::io(Doing::Write, &path))?;
        self.written += 1;
        Ok(())
    }

    /// Looks which partial tiles are there of the places that are not full at `size`.
    fn find_partial(&mut self, size: u64) -> Result<(), StorageFault> {
        self.partial.clear();
        for tile in Tile::partial_in(size) {
            let directory = tile.partial_dir();
            let names = list(&self.disk, &directory)?;
            let tiles = names.iter().map(|name| Tile::parse(&format!("{directory}/{name}")));
            self.partial.extend(tiles.flatten());
        }
        Ok(())
    }
}

/// The bytes of a tile, and of which: of the full one, if it is partial and went when its place was
/// full. `None` if neither is there.
pub(super) fn read_tile<D: Disk>(
    disk: &D,
    tile: Tile,
) -> Result<Option<(Tile, Vec<u8>)>, StorageFault> {
    for there in [tile, tile.full()] {
        if let Some(bytes) = read(disk, &there.path())? {
            return Ok(Some((there, bytes)));
        }
    }
    Ok(None)
}

/// The hashes of a tile; `None` if it is not there, or not as long as it should be.
pub(super) fn read_hashes<D: Disk>(
    disk: &D,
    tile: Tile,
) -> Result<Option<Vec<Hash>>, StorageFault> {
    let Some((there, bytes)) = read_tile(disk, tile)? else { return Ok(None) };
    let hashes = hashes_of(&bytes, there.width).unwrap_or_default();
    Ok(hashes.get(..usize::from(tile.width)).map(<[Hash]>::to_vec))
}

/// The whole of a small file; `None` if it is not there.
pub(super) fn read<D: Disk>(disk: &D, path: &str) -> Result<Option<Vec<u8>>, StorageFault> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(StorageFault::io(Doing::Open, path))?,
    };
    let length = file.byte_len().map_err(StorageFault::io(Doing::Read, path))?;
    // No tile is longer than a bundle of the longest entries.
    const BYTES_MAX: usize = 256 * (2 + ENTRY_BYTES_MAX) + 1;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(BYTES_MAX)];
    let count = file.read_at(&mut bytes, 0).map_err(StorageFault::io(Doing::Read, path))?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

/// The names in a directory; none if it is not there.
fn list<D: Disk>(disk: &D, path: &str) -> Result<Vec<String>, StorageFault> {
    match disk.list(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(StorageFault::io(Doing::Open, path)),
    }
}

fn read_mark<D: Disk>(disk: &D) -> Result<Option<Mark>, StorageFault> {
    // A mark that does not read is none: everything is compared.
    Ok(read(disk, TILES_MARK_FILE)?.as_deref().and_then(decode_mark))
}

fn decode_mark(bytes: &[u8]) -> Option<Mark> {
    let bytes: &[u8; MARK_BYTES] = bytes.try_into().ok()?;
    let (covered, crc) = bytes.split_last_chunk()?;
    let (magic, rest) = covered.split_first_chunk::<8>()?;
    let (size, root) = rest.split_first_chunk()?;
    let is_ours = *magic == MARK_MAGIC && crc32c(covered) == u32::from_le_bytes(*crc);
    let mark = Mark { size: u64::from_le_bytes(*size), root: root.try_into().ok()? };
    is_ours.then_some(mark)
}

fn write_mark<D: Disk>(disk: &D, mark: &Mark) -> Result<(), StorageFault> {
    let mut bytes = MARK_MAGIC.to_vec();
    bytes.extend_from_slice(&mark.size.to_le_bytes());
    bytes.extend_from_slice(&mark.root);
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    let io = |doing| StorageFault::io(doing, TILES_MARK_FILE);
    // A crash anywhere here leaves the old mark or the new one; both are true.
    let file = disk.create(MARK_TMP).map_err(io(Doing::Write))?;
    file.write_at(&bytes, 0).map_err(io(Doing::Write))?;
    file.sync_data().map_err(io(Doing::Sync))?;
    disk.rename(MARK_TMP, TILES_MARK_FILE).map_err(io(Doing::Write))?;
    disk.sync_dir("").map_err(io(Doing::Sync))
}

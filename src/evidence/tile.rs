//! The tiles of C2SP tlog-tiles: how a tree and its entries are cut into files that never change.
//!
//! A tile holds up to 256 consecutive hashes of one level, and level `l` has one hash for every
//! `256^l` entries; an entry bundle holds the entries of one tile of level 0. Which files a size
//! has, what they are called and what stands in them is said here; where they are kept is
//! [`crate::storage`]'s business. The invariant: what [`TileEdge`] gives out depends on the entries
//! alone, so that two who have the same log have the same tiles, byte for byte.

use super::tree::{Frontier, HASH_BYTES, Hash, leaf_hash};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of the tree that one level of tiles spans.
pub(super) const TILE_HEIGHT: u32 = 8;
/// Longest entry that a bundle can hold, in bytes: its length stands in two bytes.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Entries, each behind its length.
    Entries,
    /// Hashes of this level; those of level 0 are leaf hashes.
    Hashes(u8),
}

/// Names one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: TileKind,
    /// Its number within its level, from 0.
    pub index: u64,
    /// How many hashes or entries it holds, 1 to [`TILE_WIDTH`]; a full one has them all.
    pub width: u16,
}

/// What takes a tile and its bytes.
pub type TakeTile<'f, E> = dyn FnMut(Tile, &[u8]) -> Result<(), E> + 'f;

/// An entry that no bundle can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {0} bytes is longer than the 65,535 bytes of an entry bundle's item")]
pub struct EntryTooLong(pub usize);

/// Bytes that are no entry bundle of the width they should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the entry bundle is cut short, or has too much in it")]
pub struct BadBundle;

impl TileKind {
    /// How many of its items a tree of `size` leaves has.
    fn items(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0),
        }
    }
}

impl Tile {
    /// The tile at `index` of a tree of `size` leaves, as wide as the tree makes it; `None` if the
    /// tree does not reach it.
    pub fn in_tree(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let items = kind.items(size).checked_sub(before)?;
        let width = u16::try_from(items.min(u64::from(TILE_WIDTH))).ok()?;
        (width > 0).then_some(Self { kind, index, width })
    }

    /// The tiles that are not full in a tree of `size` leaves: one for each level at most, and the
    /// entry bundle.
    pub fn partial_in(size: u64) -> impl Iterator<Item = Self> {
        kinds(size).filter_map(move |kind| {
            let index = kind.items(size) / u64::from(TILE_WIDTH);
            Self::in_tree(kind, index, size)
        })
    }

    /// Every tile of a tree of `size` leaves, the bundles first, then level by level.
    pub fn all_in(size: u64) -> impl Iterator<Item = Self> {
        kinds(size).flat_map(move |kind| {
            let count = kind.items(size).div_ceil(u64::from(TILE_WIDTH));
            (0..count).filter_map(move |index| Self::in_tree(kind, index, size))
        })
    }

    /// Whether no further entry can change it.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The first entry that it spans.
    pub fn start(&self) -> u64 {
        self.index.saturating_mul(self.full_span())
    }

    /// The first entry behind all that a full tile of this place spans.
    pub fn end(&self) -> u64 {
        self.index.saturating_add(1).saturating_mul(self.full_span())
    }

    /// How many entries a full tile of this place spans.
    pub fn full_span(&self) -> u64 {
        let height = match self.kind {
            TileKind::Entries => TILE_HEIGHT,
            TileKind::Hashes(level) => TILE_HEIGHT * (u32::from(level) + 1),
        };
        1_u64.checked_shl(height).unwrap_or(u64::MAX)
    }

    /// The same place with all its items.
    pub fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// The path below the log's prefix: `tile/<L>/<N>` or `tile/entries/<N>`, with `.p/<W>` behind
    /// it unless it is full. `N` stands in groups of three digits, all but the last behind an `x`.
    pub fn path(&self) -> String {
        let mut path = self.full_path();
        if !self.is_full() {
            path.push_str(".p/");
            path.push_str(&self.width.to_string());
        }
        path
    }

    /// The directory of the partial tiles of this place.
    pub fn partial_dir(&self) -> String {
        self.full_path() + ".p"
    }

    /// Reads a path. `None` unless it is exactly the path of a tile.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok().filter(|level| *level < 64)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok()?),
            None => (rest, TILE_WIDTH),
        };
        let mut index = 0_u64;
        for group in number.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { kind, index, width };
        // Whatever else `parse` lets through, a path has one form.
        ((1..=TILE_WIDTH).contains(&width) && tile.path() == path).then_some(tile)
    }

    fn full_path(&self) -> String {
        let mut path = match self.kind {
            TileKind::Entries => "tile/entries".to_owned(),
            TileKind::Hashes(level) => format!("tile/{level}"),
        };
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            let mark = if groups.is_empty() { "" } else { "x" };
            path.push_str(&format!("/{mark}{group:03}"));
        }
        path
    }
}

/// The bundle, and every level that a tree of `size` leaves reaches.
fn kinds(size: u64) -> impl Iterator<Item = TileKind> {
    let levels = (0..8).map(TileKind::Hashes).take_while(move |kind| kind.items(size) > 0);
    std::iter::once(TileKind::Entries).chain(levels)
}

/// The hashes in the bytes of a tile; `None` unless there are exactly `width` of them.
pub fn hashes_of(bytes: &[u8], width: u16) -> Option<&[Hash]> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (rest.is_empty() && hashes.len() == usize::from(width)).then_some(hashes)
}

/// The entries in the bytes of a bundle.
///
/// # Errors
/// Unless there are exactly `width` of them and nothing else.
pub fn entries_of(bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, BadBundle> {
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut rest = bytes;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, behind) = behind.split_at_checked(length).ok_or(BadBundle)?;
        entries.push(entry);
        rest = behind;
    }
    let is_whole = rest.is_empty() && entries.len() == usize::from(width);
    is_whole.then_some(entries).ok_or(BadBundle)
}

/// The right edge of the tiles of a growing log: what stands in the tiles that are not full yet.
/// It takes at most 256 entries and 256 hashes of each level.
#[derive(Clone, Debug, Default)]
pub struct TileEdge {
    size: u64,
    /// The hashes of the last tile of each level, as bytes.
    levels: Vec<Vec<u8>>,
    bundle: Vec<u8>,
    /// Where each entry of the bundle ends.
    ends: Vec<usize>,
}

impl TileEdge {
    /// Appends `entry` to the tree and to the tiles, and hands over every tile that it fills: the
    /// bundle, then level by level.
    ///
    /// # Errors
    /// What `full` answers; the edge has the entry then nevertheless.
    pub fn push<E: From<EntryTooLong>>(
        &mut self,
        tree: &mut Frontier,
        entry: &[u8],
        full: &mut TakeTile<'_, E>,
    ) -> Result<(), E> {
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong(entry.len()))?;
        self.bundle.extend_from_slice(&length.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.ends.push(self.bundle.len());
        let leaf = leaf_hash(entry);
        self.push_hash(0, &leaf);
        tree.push_observed(leaf, &mut |height, hash| {
            if height.is_multiple_of(TILE_HEIGHT) {
                self.push_hash(height / TILE_HEIGHT, hash);
            }
        });
        self.size += 1;
        self.give_full(full)
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of the tiles that are not full, each with its name.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[u8])> {
        Tile::partial_in(self.size).filter_map(|tile| Some((tile, self.bytes_of(&tile)?)))
    }

    /// What stands in a tile, of this size of the tree or an earlier one, whose place is not full;
    /// `None` if its place is, or not begun so far.
    pub fn bytes_of(&self, tile: &Tile) -> Option<&[u8]> {
        let held = Tile::in_tree(tile.kind, tile.index, self.size)?;
        if held.is_full() || held.width < tile.width {
            return None;
        }
        match tile.kind {
            TileKind::Entries => {
                let end = self.ends.get(usize::from(tile.width).checked_sub(1)?)?;
                self.bundle.get(..*end)
            }
            TileKind::Hashes(level) => {
                self.levels.get(usize::from(level))?.get(..usize::from(tile.width) * HASH_BYTES)
            }
        }
    }

    fn push_hash(&mut self, level: u32, hash: &Hash) {
        let level = level as usize;
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Vec::new());
        }
        if let Some(hashes) = self.levels.get_mut(level) {
            hashes.extend_from_slice(hash);
        }
    }

    fn give_full<E>(&mut self, full: &mut TakeTile<'_, E>) -> Result<(), E> {
        let name = |kind: TileKind| {
            let index = (kind.items(self.size) / u64::from(TILE_WIDTH)).saturating_sub(1);
            Tile { kind, index, width: TILE_WIDTH }
        };
        let mut given = Ok(());
        if self.ends.len() == usize::from(TILE_WIDTH) {
            given = full(name(TileKind::Entries), &self.bundle);
            self.bundle.clear();
            self.ends.clear();
        }
        for (level, hashes) in (0..).zip(&mut self.levels) {
            if hashes.len() < usize::from(TILE_WIDTH) * HASH_BYTES {
                break;
            }
            given = given.and_then(|()| full(name(TileKind::Hashes(level)), hashes));
            hashes.clear();
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tree::root_of;

    #[test]
    fn published_paths() {
        // The examples of tlog-tiles, and those in the tests of its implementations in Go.
        for (kind, index, width, path) in [
            (TileKind::Hashes(0), 0, 256, "tile/0/000"),
            (TileKind::Hashes(0), 0, 255, "tile/0/000.p/255"),
            (TileKind::Hashes(1), 0, 256, "tile/1/000"),
            (TileKind::Hashes(15), 455_667, 256, "tile/15/x455/667"),
            (TileKind::Hashes(3), 1_234_067, 256, "tile/3/x001/x234/067"),
            (TileKind::Hashes(15), 123_456_789, 41, "tile/15/x123/x456/789.p/41"),
            (TileKind::Entries, 1, 1, "tile/entries/001.p/1"),
            (TileKind::Entries, 1_000_000, 256, "tile/entries/x001/x000/000"),
            (TileKind::Entries, 12_123_456_789, 256, "tile/entries/x012/x123/x456/789"),
        ] {
            let tile = Tile { kind, index, width };
            assert_eq!(tile.path(), path);
            assert_eq!(Tile::parse(path), Some(tile));
        }
        for path in [
            "tile/0/0",
            "tile/0/x000/001",
            "tile/0/0001",
            "tile/00/000",
            "tile/64/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/07",
            "tile/0/+12",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/../000",
            "tile/-1/000",
            "tile/entry/000",
            "checkpoint",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn the_tiles_of_a_size_are_those_that_the_specification_counts() {
        let count = |size: u64, kind: TileKind| {
            let all: Vec<Tile> = Tile::all_in(size).filter(|tile| tile.kind == kind).collect();
            let full = all.iter().filter(|tile| tile.is_full()).count();
            (full, all.iter().find(|tile| !tile.is_full()).map(|tile| tile.width))
        };
        assert_eq!(count(70_000, TileKind::Hashes(0)), (273, Some(112)));
        assert_eq!(count(70_000, TileKind::Entries), (273, Some(112)));
        assert_eq!(count(70_000, TileKind::Hashes(1)), (1, Some(17)));
        assert_eq!(count(70_000, TileKind::Hashes(2)), (0, Some(1)));
        assert_eq!(count(70_000, TileKind::Hashes(3)), (0, None));
        assert_eq!(count(256, TileKind::Hashes(0)), (1, None));
        assert_eq!(count(256, TileKind::Hashes(1)), (0, Some(1)));
        assert_eq!(Tile::all_in(0).count(), 0);
        assert_eq!(Tile::partial_in(256).count(), 1);
    }

    fn entry(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    #[test]
    fn a_growing_edge_gives_the_tiles_of_every_size() {
        const SIZE: u64 = 66_000;
        let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
        let mut leaves = Vec::new();
        let mut full = Vec::new();
        for index in 0..SIZE {
            leaves.push(leaf_hash(&entry(index)));
            let mut take = |tile: Tile, bytes: &[u8]| {
                full.push((tile, bytes.to_vec()));
                Ok::<(), EntryTooLong>(())
            };
            edge.push(&mut tree, &entry(index), &mut take).unwrap();
        }
        assert_eq!((tree.root(), edge.size()), (root_of(&leaves), SIZE));
        full.extend(edge.partial().map(|(tile, bytes)| (tile, bytes.to_vec())));
        let mut names: Vec<Tile> = full.iter().map(|(tile, _)| *tile).collect();
        names.sort_unstable();
        let mut expected: Vec<Tile> = Tile::all_in(SIZE).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for (tile, bytes) in &full {
            match tile.kind {
                TileKind::Entries => {
                    let first = tile.index * 256;
                    let entries = entries_of(bytes, tile.width).unwrap();
                    assert!((first..).zip(entries).all(|(index, read)| read == entry(index)));
                }
                TileKind::Hashes(level) => {
                    let span = 256_usize.pow(level.into());
                    let first = tile.index as usize * 256;
                    let hashes = hashes_of(bytes, tile.width).unwrap();
                    for (place, hash) in (first..).zip(hashes) {
                        assert_eq!(*hash, root_of(&leaves[place * span..(place + 1) * span]));
                    }
                }
            }
        }
        // What stood in them before, as long as they are the last.
        let earlier: Vec<_> = Tile::partial_in(SIZE - 3).collect();
        assert!(earlier.len() == 4 && earlier.iter().all(|tile| edge.bytes_of(tile).is_some()));
        let entries = entries_of(edge.bytes_of(&earlier[0]).unwrap(), earlier[0].width).unwrap();
        assert_eq!(*entries.last().unwrap(), entry(SIZE - 4));
        let gone = Tile::partial_in(65_536 + 255).filter(|tile| edge.bytes_of(tile).is_none());
        assert_eq!(
            gone.map(|tile| tile.path()).collect::<Vec<_>>(),
            ["tile/entries/256.p/255", "tile/0/256.p/255",]
        );
    }

    #[test]
    fn an_entry_fits_a_bundle_up_to_its_bound() {
        let push = |length: usize| {
            let (mut edge, mut tree) = (TileEdge::default(), Frontier::default());
            let given = edge.push(&mut tree, &vec![b'x'; length], &mut |_, _| Ok(()));
            given.map(|()| edge.partial().next().map(|(_, bytes)| bytes.len()))
        };
        assert_eq!(push(ENTRY_BYTES_MAX), Ok(Some(ENTRY_BYTES_MAX + 2)));
        assert_eq!(push(ENTRY_BYTES_MAX + 1), Err(EntryTooLong(ENTRY_BYTES_MAX + 1)));
    }

    #[test]
    fn a_bundle_that_is_cut_or_longer_is_none() {
        let bytes = b"\x00\x03one\x00\x00\x00\x05three";
        assert_eq!(entries_of(bytes, 3), Ok(vec![&b"one"[..], b"", b"three"]));
        for width in [0, 2, 4] {
            assert_eq!(entries_of(bytes, width), Err(BadBundle));
        }
        for length in 0..bytes.len() {
            assert_eq!(entries_of(&bytes[..length], 3), Err(BadBundle));
        }
        assert_eq!(hashes_of(&[0; 64], 2).map(<[Hash]>::len), Some(2));
        assert_eq!(hashes_of(&[0; 64], 1), None);
        assert_eq!(hashes_of(&[0; 63], 2), None);
    }
}

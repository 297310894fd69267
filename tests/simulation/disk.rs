//! A disk that forgets: at a crash, whatever was not synced is kept, lost, torn or reordered, sector
//! by sector, as the seed says or as the test names it. It can lie, too: a sync that answers well
//! and did nothing. Everything that happens on it follows from its seed and its test.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use avow::storage::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// What happens at the operation that a plan names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accident {
    /// The power goes off in the middle of it.
    PowerLoss,
    /// The power goes off before anything of it is done.
    PowerLossBefore,
    /// The power goes off when all of it is done, and nobody was told.
    PowerLossAfter,
    /// It fails; of what was to be written, nothing is kept.
    Eio,
    /// It fails; what was to be written or synced is nevertheless on disk.
    EioButDone,
    /// There is no space left.
    Enospc,
}

/// What is left of what was not synced when the power went, of files and of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    Nothing,
    /// All of it: the cache was written a moment before.
    Everything,
    /// The lengths of the files and their names, but zeroes for what was written.
    NamesAndLengths,
    /// What was written, but no name.
    ContentOnly,
    /// The sectors that stand first in each file, and the older half of the names.
    First,
    /// The sectors that stand last in each file: written out of order.
    Last,
    /// The first half of every sector: each is torn.
    Torn,
    /// Sectors written more than once, as they were after the first time.
    Stale,
}

impl Kept {
    pub(crate) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Everything,
        Self::NamesAndLengths,
        Self::ContentOnly,
        Self::First,
        Self::Last,
        Self::Torn,
        Self::Stale,
    ];
}

/// The kinds of operation an accident can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Write,
    Sync,
    Other,
}

#[derive(Debug)]
struct State {
    random: Random,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that no sync made durable yet, in order.
    pending: Vec<(String, Option<usize>)>,
    plan: Option<(Option<Op>, u64, Accident)>,
    operations: u64,
    is_off: bool,
    /// Files (by what their names begin with) whose syncs answer well and do nothing.
    lies_about: Option<String>,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Sectors that were not synced, and what stood there after the first of several writes.
    dirty: BTreeMap<usize, Option<Vec<u8>>>,
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed ^ 0xD15C),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            plan: None,
            operations: 0,
            is_off: false,
            lies_about: None,
        })))
    }

    /// A disk with these files on it, all of them synced.
    pub(crate) fn of_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::new(0);
        let mut state = disk.state();
        for (name, bytes) in files {
            let inode = state.inodes.len();
            let (durable, cached) = (bytes.clone(), bytes.clone());
            state.inodes.push(Inode { durable, cached, ..Inode::default() });
            state.names.insert(name.clone(), inode);
        }
        state.durable_names = state.names.clone();
        drop(state);
        disk
    }

    /// Lets `accident` happen at the operation after the next `count` ones of kind `op` (or of
    /// any kind).
    pub(crate) fn plan(&self, op: Option<Op>, count: u64, accident: Accident) {
        self.state().plan = Some((op, count, accident));
    }

    /// Takes the sync out: it answers well and does nothing.
    pub(crate) fn take_sync_out(&self) {
        self.lie_about("");
    }

    /// Lets every sync of files (and of directories) whose names begin so answer well and do
    /// nothing.
    pub(crate) fn lie_about(&self, beginning: &str) {
        self.state().lies_about = Some(beginning.to_owned());
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Power off and on again; chance says what is left.
    pub(crate) fn crash(&self) {
        let mut state = self.state();
        let names = state.pending.len() as u64 + 1;
        let kept = state.random.below(names) as usize;
        let luck = state.random.below(5);
        let State { random, inodes, .. } = &mut *state;
        for inode in inodes.iter_mut() {
            inode.crash(&mut |_, sector| sector.by_chance(random, luck));
        }
        state.begin_again(kept);
    }

    /// Power off and on again, with `kept` of what was not synced.
    pub(crate) fn crash_keeping(&self, kept: Kept) {
        let mut state = self.state();
        let names = state.pending.len();
        let names = match kept {
            Kept::Nothing | Kept::ContentOnly => 0,
            Kept::First => names / 2,
            Kept::Everything | Kept::NamesAndLengths | Kept::Last | Kept::Torn | Kept::Stale => {
                names
            }
        };
        for inode in &mut state.inodes {
            if kept == Kept::NamesAndLengths {
                let length = inode.durable.len().max(inode.cached.len());
                inode.durable.resize(length, 0);
            }
            let half = inode.dirty.len() / 2;
            inode.crash(&mut |place, sector| match kept {
                Kept::Nothing | Kept::NamesAndLengths => Fate::Lost,
                Kept::Everything | Kept::ContentOnly => Fate::Kept(sector.bytes),
                Kept::First if place < half => Fate::Kept(sector.bytes),
                Kept::Last if place >= half => Fate::Kept(sector.bytes),
                Kept::First | Kept::Last => Fate::Lost,
                Kept::Torn => Fate::Kept(sector.bytes / 2),
                Kept::Stale => Fate::Stale,
            });
        }
        state.begin_again(names);
    }

    /// The files under `directory`, with their lengths.
    pub(crate) fn files(&self, directory: &str) -> Vec<(String, usize)> {
        let state = self.state();
        let under = state.names.iter().filter(|(name, _)| name.starts_with(directory));
        under.map(|(name, inode)| (name.clone(), state.inodes[*inode].cached.len())).collect()
    }

    pub(crate) fn flip(&self, path: &str, offset: usize, bits: u8) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode].cached[offset] ^= bits;
    }

    pub(crate) fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|inode| state.inodes[*inode].cached.clone())
    }

    pub(crate) fn replace(&self, path: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode].cached = bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let stale = self.cached.get(sector * SECTOR_BYTES..).unwrap_or_default();
            let stale = stale.get(..SECTOR_BYTES).unwrap_or(stale);
            let seen = self.dirty.get_mut(&sector);
            match seen {
                Some(first @ None) => *first = Some(stale.to_vec()),
                Some(Some(_)) => {}
                None => {
                    self.dirty.insert(sector, None);
                }
            }
        }
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
        self.dirty.clear();
    }

    /// Each unsynced sector has the fate that `fate` gives it; it is told the sector's place among
    /// the unsynced ones.
    fn crash(&mut self, fate: &mut dyn FnMut(usize, Sector) -> Fate) {
        for (place, (sector, first)) in std::mem::take(&mut self.dirty).into_iter().enumerate() {
            let start = sector * SECTOR_BYTES;
            let bytes = (start + SECTOR_BYTES).min(self.cached.len()) - start;
            let content = match (fate(place, Sector { bytes }), &first) {
                (Fate::Lost, _) => continue,
                (Fate::Kept(count), _) => &self.cached[start..start + count],
                (Fate::Stale, None) => &self.cached[start..start + bytes],
                (Fate::Stale, Some(first)) => first,
            };
            let end = start + content.len();
            if self.durable.len() < end && !content.is_empty() {
                self.durable.resize(end, 0);
            }
            if let Some(there) = self.durable.get_mut(start..end) {
                there.copy_from_slice(content);
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

/// A sector that was not synced.
#[derive(Clone, Copy)]
struct Sector {
    bytes: usize,
}

/// What becomes of it.
enum Fate {
    Lost,
    /// As many of its first bytes are new.
    Kept(usize),
    /// It is as it was after the first of several writes.
    Stale,
}

impl Sector {
    /// Kept, lost, or torn; `luck` sets how many of each.
    fn by_chance(self, random: &mut Random, luck: u64) -> Fate {
        match (luck, random.below(8)) {
            (0, _) => Fate::Lost,
            (1, _) => Fate::Kept(self.bytes),
            (_, 0) => Fate::Kept(random.below(self.bytes as u64 + 1) as usize),
            (_, chance) if chance < luck + 1 => Fate::Kept(self.bytes),
            _ => Fate::Lost,
        }
    }
}

impl State {
    /// Counts an operation; the accident that befalls it.
    fn operation(&mut self, op: Op) -> io::Result<Option<Accident>> {
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        let Some((wanted, count, accident)) = &mut self.plan else { return Ok(None) };
        if wanted.is_some_and(|wanted| wanted != op) {
            return Ok(None);
        }
        if *count > 0 {
            *count -= 1;
            return Ok(None);
        }
        let accident = *accident;
        self.plan = None;
        self.is_off = accident.takes_power();
        Ok(Some(accident))
    }

    /// Counts a change of names, and makes it unless an accident prevents that.
    fn change_names(&mut self, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let accident = self.operation(Op::Other)?;
        if accident.is_none_or(Accident::is_done) {
            change(self);
        }
        accident.map_or(Ok(()), |accident| Err(accident.error()))
    }

    /// The power is back: of the changes of names the first `kept` are there, since a journal
    /// keeps their order.
    fn begin_again(&mut self, kept: usize) {
        for (name, inode) in self.pending.drain(..).take(kept) {
            match inode {
                Some(inode) => self.durable_names.insert(name, inode),
                None => self.durable_names.remove(&name),
            };
        }
        self.names = self.durable_names.clone();
        self.plan = None;
        self.is_off = false;
    }

    fn is_lied_about(&self, path: &str) -> bool {
        self.lies_about.as_ref().is_some_and(|beginning| path.starts_with(beginning.as_str()))
    }

    fn rename_entry(&mut self, name: &str, inode: Option<usize>) {
        match inode {
            Some(inode) => self.names.insert(name.to_owned(), inode),
            None => self.names.remove(name),
        };
        self.pending.push((name.to_owned(), inode));
    }
}

impl Accident {
    fn error(self) -> io::Error {
        match self {
            Self::PowerLoss | Self::PowerLossBefore | Self::PowerLossAfter => {
                io::Error::other("the power is off")
            }
            Self::Eio | Self::EioButDone => io::Error::from_raw_os_error(5),
            Self::Enospc => io::Error::from_raw_os_error(28),
        }
    }

    fn takes_power(self) -> bool {
        matches!(self, Self::PowerLoss | Self::PowerLossBefore | Self::PowerLossAfter)
    }

    /// Whether the operation that it befalls is done nevertheless.
    fn is_done(self) -> bool {
        matches!(self, Self::PowerLossAfter | Self::EioButDone)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &str) -> io::Result<SimFile> {
        let state = self.state();
        let inode = state.names.get(path).copied();
        let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn create(&self, path: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.change_names(|state| {
            state.inodes.push(Inode::default());
            state.rename_entry(path, Some(inode));
        })?;
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn create_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn make_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state();
        let accident = state.operation(Op::Sync)?;
        if state.lies_about.is_none() && accident.is_none_or(Accident::is_done) {
            state.inodes.iter_mut().for_each(Inode::sync);
            state.pending.clear();
            state.durable_names = state.names.clone();
        }
        accident.map_or(Ok(()), |accident| Err(accident.error()))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let prefix = format!("{path}/");
        let names = state.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.get(from).copied();
        let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.change_names(|state| {
            // One step of the journal: never both names, never neither.
            state.rename_entry(to, Some(inode));
            state.names.remove(from);
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.state().change_names(|state| state.rename_entry(path, None))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.state().change_names(|state| {
            if !state.is_lied_about(path) {
                state.pending.clear();
                state.durable_names = state.names.clone();
            }
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.inodes[self.inode].cached;
        let start = content.len().min(offset as usize);
        let count = bytes.len().min(content.len() - start);
        bytes[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let accident = state.operation(Op::Write)?;
        let kept = match accident {
            Some(Accident::PowerLoss) => state.random.below(bytes.len() as u64 + 1) as usize,
            Some(accident) if !accident.is_done() => 0,
            None | Some(_) => bytes.len(),
        };
        state.inodes[self.inode].write(&bytes[..kept], offset as usize);
        accident.map_or(Ok(()), |accident| Err(accident.error()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let accident = state.operation(Op::Sync)?;
        let mut names = state.names.iter().filter(|(_, inode)| **inode == self.inode);
        let is_lie = names.any(|(name, _)| state.is_lied_about(name));
        let inode = &mut state.inodes[self.inode];
        match accident {
            None if is_lie => {}
            None | Some(Accident::EioButDone | Accident::PowerLossAfter) => inode.sync(),
            // What Linux does: the pages are marked clean, and never written.
            Some(Accident::Eio | Accident::Enospc) => inode.dirty.clear(),
            Some(Accident::PowerLoss | Accident::PowerLossBefore) => {}
        }
        accident.map_or(Ok(()), |accident| Err(accident.error()))
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cached.len() as u64)
    }
}

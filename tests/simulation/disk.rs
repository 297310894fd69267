//! A disk that forgets: at a crash, whatever was not synced is kept, lost or torn, sector by
//! sector, as the seed says. Everything that happens on it follows from its seed.

use std::collections::{BTreeMap, BTreeSet};
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
    /// It fails; of what was to be written, nothing is kept.
    Eio,
    /// It fails; what was to be written or synced is nevertheless on disk.
    EioButDone,
    /// There is no space left.
    Enospc,
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
    sync_is_noop: bool,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    dirty: BTreeSet<usize>,
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
            sync_is_noop: false,
        })))
    }

    /// Lets `accident` happen at the operation after the next `count` ones of kind `op` (or of
    /// any kind).
    pub(crate) fn plan(&self, op: Option<Op>, count: u64, accident: Accident) {
        self.state().plan = Some((op, count, accident));
    }

    /// Takes the sync out: it answers well and does nothing.
    pub(crate) fn take_sync_out(&self) {
        self.state().sync_is_noop = true;
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Power off and on again.
    pub(crate) fn crash(&self) {
        let mut state = self.state();
        let State { random, inodes, pending, durable_names, .. } = &mut *state;
        // A journal keeps the order of names.
        let kept = random.below(pending.len() as u64 + 1) as usize;
        for (name, inode) in pending.drain(..).take(kept) {
            match inode {
                Some(inode) => durable_names.insert(name, inode),
                None => durable_names.remove(&name),
            };
        }
        let luck = random.below(5);
        for inode in inodes.iter_mut() {
            inode.crash(random, luck);
        }
        state.names = state.durable_names.clone();
        state.plan = None;
        state.is_off = false;
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
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
        self.dirty.clear();
    }

    /// Each unsynced sector is kept, lost, or torn; `luck` sets how many of each.
    fn crash(&mut self, random: &mut Random, luck: u64) {
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let whole = (start + SECTOR_BYTES).min(self.cached.len());
            let end = match (luck, random.below(8)) {
                (0, _) => start,
                (1, _) => whole,
                (_, 0) => start + random.below((whole - start) as u64 + 1) as usize,
                (_, chance) if chance < luck + 1 => whole,
                _ => start,
            };
            if end > start {
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[start..end].copy_from_slice(&self.cached[start..end]);
            }
        }
        self.cached.clone_from(&self.durable);
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
        self.is_off = accident == Accident::PowerLoss;
        Ok(Some(accident))
    }

    fn rename_entry(&mut self, name: &str, inode: Option<usize>) {
        match inode {
            Some(inode) => self.names.insert(name.to_owned(), inode),
            None => self.names.remove(name),
        };
        self.pending.push((name.to_owned(), inode));
    }
}

fn error_of(accident: Accident) -> io::Error {
    match accident {
        Accident::PowerLoss => io::Error::other("the power is off"),
        Accident::Eio | Accident::EioButDone => io::Error::from_raw_os_error(5),
        Accident::Enospc => io::Error::from_raw_os_error(28),
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
        if let Some(accident) = state.operation(Op::Other)? {
            return Err(error_of(accident));
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.rename_entry(path, Some(inode));
        Ok(SimFile { disk: self.clone(), inode })
    }

    fn create_dir(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let state = self.state();
        let prefix = format!("{path}/");
        let names = state.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        if let Some(accident) = state.operation(Op::Other)? {
            return Err(error_of(accident));
        }
        let inode = state.names.get(from).copied();
        let inode = inode.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        // One step of the journal: never both names, never neither.
        state.rename_entry(to, Some(inode));
        state.names.remove(from);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        if let Some(accident) = state.operation(Op::Other)? {
            return Err(error_of(accident));
        }
        state.rename_entry(path, None);
        Ok(())
    }

    fn sync_dir(&self, _path: &str) -> io::Result<()> {
        let mut state = self.state();
        if let Some(accident) = state.operation(Op::Other)? {
            return Err(error_of(accident));
        }
        if !state.sync_is_noop {
            state.pending.clear();
            state.durable_names = state.names.clone();
        }
        Ok(())
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
            None | Some(Accident::EioButDone) => bytes.len(),
            Some(Accident::PowerLoss) => state.random.below(bytes.len() as u64 + 1) as usize,
            Some(Accident::Eio | Accident::Enospc) => 0,
        };
        state.inodes[self.inode].write(&bytes[..kept], offset as usize);
        accident.map_or(Ok(()), |accident| Err(error_of(accident)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let accident = state.operation(Op::Sync)?;
        let is_noop = state.sync_is_noop;
        let inode = &mut state.inodes[self.inode];
        match accident {
            None if is_noop => {}
            None | Some(Accident::EioButDone) => inode.sync(),
            // What Linux does: the pages are marked clean, and never written.
            Some(Accident::Eio | Accident::Enospc) => inode.dirty.clear(),
            Some(Accident::PowerLoss) => {}
        }
        accident.map_or(Ok(()), |accident| Err(error_of(accident)))
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cached.len() as u64)
    }
}

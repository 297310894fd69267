//! The durable log: appends batches, one write and one `fdatasync` for all that are given.
//!
//! No queue and no thread (those are [`super::writer`]'s), no tree and no checkpoint. The
//! invariant: a [`Synced`] leaves this module only after the sync of its bytes returned, and
//! after any failure none leaves it at all.
#![expect(clippy::disallowed_methods, reason = "times its own syncs")]

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use super::disk::{Disk, DiskFile};
use super::fault::{Damage, Doing, StorageFault};
use super::recovery::{Active, Recovered, Recovery, Tail, recover};
use super::scan::{SEGMENTS_DIR, segment_path};
use super::segment::{BatchBuffer, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::evidence::{Batch, BatchId, Synced, VerifierKey};

/// Default length of a segment, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Shortest segment that a configuration may ask for, in bytes. The format itself takes less.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// Space that must be left when a segment is made ahead, in bytes: for checkpoints and views, and
/// so that whoever is told has time to make more.
pub const FREE_BYTES_MIN: u64 = 8 << 20;

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The key that its checkpoints are signed with; its name is the origin of the log.
    pub verifier: VerifierKey,
    /// Length of a new segment, in bytes. A batch that is longer gets a longer segment.
    pub segment_bytes: u64,
    /// Whether the tiles are kept beside the segments: see [`super::tiles`].
    pub tiles: bool,
}

impl LogOptions {
    /// What a segment header has in place of the origin.
    pub(super) fn origin_hash(&self) -> [u8; 32] {
        digest(&SHA256, self.verifier.name().as_bytes())
            .as_ref()
            .first_chunk()
            .copied()
            .unwrap_or_default()
    }
}

/// What the last append cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppendCost {
    /// Bytes written.
    pub bytes: usize,
    /// Time in `write`.
    pub write: Duration,
    /// Time in `fdatasync`.
    pub sync: Duration,
}

/// Where a batch was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the segment.
    pub segment: u64,
    /// The first byte in its file.
    pub offset: u64,
}

/// The log, open for the one writer.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    tail: Tail<D::File>,
    ahead: Ahead<D::File>,
    buffer: BatchBuffer,
    cost: AppendCost,
    place: Place,
    is_poisoned: bool,
}

/// A segment of zeroes, synced, waiting for its header.
#[derive(Debug)]
struct Prepared<F> {
    file: F,
    number: u64,
    bytes: u64,
}

/// Who makes the next segment.
#[derive(Debug)]
enum Ahead<F> {
    /// The append that needs it.
    Inline,
    /// A thread, while the present segment fills.
    Thread { orders: SyncSender<u64>, ready: Receiver<Result<Prepared<F>, StorageFault>> },
}

impl<D: Disk> Log<D> {
    /// Opens the log in `disk`, making it if there is none, and visits every record in it.
    ///
    /// # Errors
    /// If the disk fails, or what is there cannot be what was promised.
    pub fn open(
        disk: D,
        options: LogOptions,
        visit: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<(Self, Recovery<D>), StorageFault> {
        let made = disk.create_dir(SEGMENTS_DIR);
        made.map_err(StorageFault::io(Doing::Open, SEGMENTS_DIR))?;
        let (recovery, tail) = recover(&disk, &options, visit)?;
        let log = Self {
            disk,
            options,
            tail,
            ahead: Ahead::Inline,
            buffer: BatchBuffer::default(),
            cost: AppendCost::default(),
            place: Place::default(),
            is_poisoned: false,
        };
        Ok((log, recovery))
    }

    /// Appends `batches` as one: either all of them are on disk afterwards, or the log is closed.
    ///
    /// # Errors
    /// If the disk fails. Nobody knows then what is on it, so that every later call fails too.
    pub fn append(&mut self, batches: &[(BatchId, Batch)]) -> Result<Vec<Synced>, StorageFault> {
        if self.is_poisoned {
            return Err(StorageFault::Poisoned);
        }
        let appended = self.append_once(batches);
        self.is_poisoned = appended.is_err();
        appended
    }

    /// Index of the next entry: the number of entries on disk.
    pub fn next_index(&self) -> u64 {
        self.tail.next_index
    }

    /// What the last append cost.
    pub fn last_cost(&self) -> AppendCost {
        self.cost
    }

    /// Where the last append was put.
    pub fn last_place(&self) -> Place {
        self.place
    }

    /// What the log was opened with.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Has every further segment made by a thread of its own, while the one before fills. The
    /// thread ends with the log. `failed` hears at once of a segment that could not be made: the
    /// log goes on until it needs that.
    pub(super) fn prepare_ahead(
        &mut self,
        failed: impl Fn(&StorageFault) + Send + 'static,
    ) -> Result<JoinHandle<()>, StorageFault> {
        let (orders, ordered) = sync_channel::<u64>(1);
        let (done, ready) = sync_channel(1);
        let (disk, bytes) = (self.disk.clone(), self.options.segment_bytes);
        let work = move || {
            while let Ok(number) = ordered.recv() {
                let prepared = prepare_leaving_space(&disk, number, bytes);
                if let Err(fault) = &prepared {
                    failed(fault);
                }
                if done.send(prepared).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("avow-segment".into()).spawn(work);
        let thread = thread.map_err(|_| StorageFault::ThreadGone { thread: "segment" })?;
        // If the thread is gone, the rotation that needs the segment says so.
        let _ = orders.send(self.tail.next_number);
        self.ahead = Ahead::Thread { orders, ready };
        Ok(thread)
    }

    fn append_once(&mut self, batches: &[(BatchId, Batch)]) -> Result<Vec<Synced>, StorageFault> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        self.buffer.clear();
        let mut entries = Vec::with_capacity(batches.len());
        for (_, batch) in batches {
            entries.push(self.buffer.push(batch).map_err(StorageFault::Unwritable)?);
        }
        let needed = self.buffer.sealed_bytes() as u64;
        let fits = |active: &Active<D::File>| active.bytes - active.offset >= needed;
        if !self.tail.active.as_ref().is_some_and(fits) {
            self.rotate(needed)?;
        }
        let place = self.end();
        let Some(active) = &mut self.tail.active else { return Err(StorageFault::Poisoned) };
        let first_index = self.tail.next_index;
        let (bytes, crc) = self.buffer.seal(active.marker, first_index, active.batches, active.crc);
        // A crash before the sync returns leaves any part of the batch, or all of it. Nothing of
        // it was acknowledged; the next start cuts what is not whole.
        let begun = Instant::now();
        let written = active.file.write_at(bytes, active.offset);
        written.map_err(StorageFault::io(Doing::Write, &active.path))?;
        let written_at = Instant::now();
        active.file.sync_data().map_err(StorageFault::io(Doing::Sync, &active.path))?;
        // From here the batch is on disk, and a crash loses nothing that is acknowledged.
        self.cost = AppendCost {
            bytes: bytes.len(),
            write: written_at.duration_since(begun),
            sync: written_at.elapsed(),
        };
        self.place = place;
        active.offset += needed;
        active.batches += 1;
        active.crc = crc;
        self.tail.next_index += u64::from(self.buffer.entries());
        let mut index = first_index;
        let synced = batches.iter().zip(entries).map(|((id, _), entries)| {
            let first = index;
            index += u64::from(entries);
            Synced::assertion(*id, first)
        });
        Ok(synced.collect())
    }

    /// Begins the next segment, long enough for a batch of `needed` bytes.
    fn rotate(&mut self, needed: u64) -> Result<(), StorageFault> {
        let number = self.tail.next_number;
        let path = segment_path(number);
        let prepared = match &self.ahead {
            Ahead::Inline => prepare(&self.disk, number, self.options.segment_bytes)?,
            Ahead::Thread { ready, .. } => {
                match ready.recv().map_err(|_| StorageFault::ThreadGone { thread: "segment" })? {
                    // Space may have been made since, and what was to be left is left now. This is
                    // another file, written anew: no sync that failed is tried again.
                    Err(fault) if fault.is_full() => {
                        prepare(&self.disk, number, self.options.segment_bytes)?
                    }
                    prepared => prepared?,
                }
            }
        };
        let Prepared { file, number: prepared_number, mut bytes } = prepared;
        if prepared_number != number {
            return Err(StorageFault::ThreadGone { thread: "segment" });
        }
        let needed = SEGMENT_HEADER_BYTES as u64 + needed;
        if needed > bytes {
            // A rare long batch: its segment is made longer. A crash leaves an unused segment, if the
            // length is on disk before a header that states it: a whole header in a file that is too
            // short would be damage.
            let needed = needed.next_multiple_of(4096);
            let filled = fill_with_zeroes(&file, bytes, needed).and_then(|()| file.sync_data());
            filled.map_err(StorageFault::io(Doing::Prepare, &path))?;
            bytes = needed;
        }
        let link = self.tail.active.as_ref().map(Active::link).unwrap_or_default();
        let mut marker = [0; 8];
        let filled = aws_lc_rs::rand::fill(&mut marker);
        filled.map_err(|_| StorageFault::Unwritable(Damage::SegmentHeader))?;
        // Zeroes mean unused space, so the marker must not be zero.
        marker[0] |= 1;
        let header = SegmentHeader {
            number,
            bytes,
            marker,
            origin: self.options.origin_hash(),
            first_index: self.tail.next_index,
            link,
        };
        // A crash before the sync returns leaves a segment without a whole header and with
        // nothing behind it: unused, and taken away at the next start. That is why the header
        // does not travel with the first batch.
        file.write_at(&header.encode(), 0).map_err(StorageFault::io(Doing::Write, &path))?;
        file.sync_data().map_err(StorageFault::io(Doing::Sync, &path))?;
        let offset = SEGMENT_HEADER_BYTES as u64;
        self.tail.active = Some(Active { file, path, marker, bytes, offset, batches: 0, crc: 0 });
        self.tail.next_number = number + 1;
        if let Ahead::Thread { orders, .. } = &self.ahead {
            // If the thread is gone, the rotation that needs the segment says so.
            let _ = orders.send(number + 1);
        }
        Ok(())
    }

    /// Where the next batch would go.
    pub fn end(&self) -> Place {
        Place {
            segment: self.tail.next_number.saturating_sub(1),
            offset: self.tail.active.as_ref().map_or(0, |active| active.offset),
        }
    }
}

/// As [`prepare`], if enough space is left afterwards.
fn prepare_leaving_space<D: Disk>(
    disk: &D,
    number: u64,
    bytes: u64,
) -> Result<Prepared<D::File>, StorageFault> {
    let path = segment_path(number);
    let free = disk.free_bytes().map_err(StorageFault::io(Doing::Prepare, &path))?;
    if free < bytes.saturating_add(FREE_BYTES_MIN) {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        return Err(StorageFault::io(Doing::Prepare, &path)(full));
    }
    prepare(disk, number, bytes)
}

/// Makes a segment of zeroes and syncs it and its name, so that later syncs have neither length
/// nor allocation to write.
fn prepare<D: Disk>(disk: &D, number: u64, bytes: u64) -> Result<Prepared<D::File>, StorageFault> {
    let prepared = fill_segment(disk, number, bytes);
    if prepared.as_ref().is_err_and(StorageFault::is_full) {
        // A part of a segment would keep the space from whoever needs less. A crash brings the file
        // back, unused; if it cannot be removed, the next start does that.
        let _ = disk.remove(&segment_path(number));
    }
    prepared
}

fn fill_segment<D: Disk>(
    disk: &D,
    number: u64,
    bytes: u64,
) -> Result<Prepared<D::File>, StorageFault> {
    let path = segment_path(number);
    // A crash anywhere here leaves zeroes, fewer zeroes or no file: unused, and taken away.
    let file = disk.create(&path).map_err(StorageFault::io(Doing::Prepare, &path))?;
    let filled = fill_with_zeroes(&file, 0, bytes);
    filled.map_err(StorageFault::io(Doing::Prepare, &path))?;
    let synced = file.sync_data().and_then(|()| disk.sync_dir(SEGMENTS_DIR));
    synced.map_err(StorageFault::io(Doing::Prepare, &path))?;
    Ok(Prepared { file, number, bytes })
}

/// A part of the program, so that making a segment takes no memory.
static ZEROES: [u8; 128 << 10] = [0; 128 << 10];

fn fill_with_zeroes<F: DiskFile>(file: &F, from: u64, to: u64) -> std::io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = usize::try_from(to - offset).unwrap_or(usize::MAX).min(ZEROES.len());
        file.write_at(ZEROES.get(..length).unwrap_or_default(), offset)?;
        offset += length as u64;
    }
    Ok(())
}

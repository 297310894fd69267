//! Snapshots of Session State, so that a start need not replay the whole log.
//!
//! ```text
//! state/snapshot-<segment>   header 128 | record | record | … | trailer 48
//! header   magic 8 | version 4 | zero 4 | origin 32 | segment 8 | records 8 | link 20 | zeroes | CRC32C 4
//! record   head length 4 | payload length + 1, or 0 4 | properties length 4 | CRC32C 4 | the three
//! trailer  0xFFFFFFFF 4 | zero 4 | records 8 | SHA-256 of everything before it 32
//! ```
//!
//! A snapshot stands at the end of a segment that is complete, and is made by replaying the one
//! before it and the segments since, beside the running broker, which does not notice. It is a view:
//! whatever is wrong with one, an older one or the log itself says the same. The invariant: a
//! snapshot is used only if every byte of it is what was written, and the segment behind it goes on
//! from the very batch it ends with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use crc32c::{crc32c, crc32c_append};

use super::disk::{Disk, DiskFile};
use super::fault::{Doing, StorageFault};
use super::log::LogOptions;
use super::record::Cursor;
use super::recovery::is_begun;
use super::scan::{ScanFault, SegmentScan, segment_numbers};
use super::segment::{Link, SegmentHeader, records};
use crate::broker::{BadRecord, LogBody, LogRecord, Replay};
use crate::evidence::RecordKind;

const DIR: &str = "state";
const TEMPORARY: &str = "state/next";
const MAGIC: [u8; 8] = *b"AVOWSNP1";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 128;
const RECORD_HEADER_BYTES: usize = 16;
const TRAILER_BYTES: usize = 48;
/// Longest record, in bytes: anything longer is damage.
const RECORD_BYTES_MAX: u32 = 1 << 30;
const BUFFER_BYTES: usize = 1 << 20;
/// Snapshots that are kept: one to use, and one for when that is damaged.
const KEPT: usize = 2;
/// How often the thread looks for a complete segment.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where in the log a snapshot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPlace {
    /// The last segment that it covers.
    pub segment: u64,
    /// Records of the log that it covers, entries and others.
    pub records: u64,
    /// How that segment ends, as the next one repeats it.
    link: Link,
}

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The log, or the snapshot before.
    #[error(transparent)]
    Record(#[from] BadRecord),
}

impl From<ScanFault> for SnapshotFault {
    fn from(fault: ScanFault) -> Self {
        Self::Storage(fault.into())
    }
}

/// Applies the newest snapshot that fits the log to an empty replay of `make`; where that stands in
/// the log, and the names of those that were of no use. Without any, the replay is empty.
///
/// # Errors
/// If the disk fails.
pub fn restore<D: Disk>(
    disk: &D,
    options: &LogOptions,
    make: &dyn Fn() -> Replay,
) -> Result<(Replay, Option<SnapshotPlace>, Vec<String>), StorageFault> {
    let mut useless = Vec::new();
    disk.create_dir(DIR).map_err(StorageFault::io(Doing::Open, DIR))?;
    for segment in snapshots(disk)?.into_iter().rev() {
        let path = snapshot_path(segment);
        let file = disk.open(&path).map_err(StorageFault::io(Doing::Open, &path))?;
        let checked = check(&file, &path, options)?;
        let goes_on = |place: &SnapshotPlace| goes_on_from(disk, place);
        if let Some(place) = checked.filter(|place| place.segment == segment).filter(goes_on) {
            let mut replay = make();
            let mut apply = |head: &[u8], body: LogBody<'_>| {
                // Its last record says where it stands.
                let (kind, index) = (RecordKind::State, replay.position());
                replay.apply(LogRecord { kind, index, head, body })
            };
            if visit(&file, &path, &mut apply)? {
                return Ok((replay, Some(place), useless));
            }
        }
        useless.push(path);
    }
    Ok((make(), None, useless))
}

/// Makes a snapshot at the end of the last complete segment, unless there is one; its place.
///
/// # Errors
/// If the disk fails or the log cannot be read. What was there before stays.
pub fn take<D: Disk>(
    disk: &D,
    options: &LogOptions,
    make: &dyn Fn() -> Replay,
) -> Result<Option<SnapshotPlace>, SnapshotFault> {
    let _one = lock();
    let Some(last) = last_complete(disk)? else { return Ok(None) };
    if snapshots(disk).is_ok_and(|there| there.last() == Some(&last)) {
        return Ok(None);
    }
    let (mut replay, before, _) = restore(disk, options, make)?;
    let mut counted = before.map_or(0, |place| place.records);
    let mut link = Link::default();
    for segment in before.map_or(0, |place| place.segment + 1)..=last {
        let mut scan = SegmentScan::open(disk, segment, None)?;
        while let Some(span) = scan.peek()? {
            let mut index = span.header.first_index;
            for record in records(scan.bytes(&span)?) {
                let body = record.body.filter(|body| !body.is_erased());
                let body = body.map(|body| (body.payload, body.properties));
                replay.apply(LogRecord { kind: record.kind, index, head: &record.head, body })?;
                index += u64::from(record.kind == RecordKind::Entry);
                counted += 1;
            }
            scan.advance(&span.header, span.crc);
        }
        link = scan.link();
    }
    let place = SnapshotPlace { segment: last, records: counted, link };
    write(disk, options, &place, &replay)?;
    Ok(Some(place))
}

/// One at a time: nobody erases while a snapshot is taken. A process has the directory to itself.
pub(super) fn lock() -> MutexGuard<'static, ()> {
    static TAKING: Mutex<()> = Mutex::new(());
    // Nothing is guarded that a panic could leave half done.
    TAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes every snapshot away and leaves none of its bytes: they hold bodies. The next is made of the
/// log.
///
/// # Errors
/// If the disk fails.
pub(super) fn erase_all<D: Disk>(disk: &D) -> Result<(), StorageFault> {
    let zeroes = vec![0; BUFFER_BYTES];
    disk.create_dir(DIR).map_err(StorageFault::io(Doing::Open, DIR))?;
    for name in disk.list(DIR).map_err(StorageFault::io(Doing::Open, DIR))? {
        let path = format!("{DIR}/{name}");
        let file = disk.open(&path).map_err(StorageFault::io(Doing::Open, &path))?;
        let (mut offset, end) = (0, file.byte_len().map_err(StorageFault::io(Doing::Read, &path))?);
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeroes.len());
            let written = file.write_at(zeroes.get(..length).unwrap_or_default(), offset);
            written.map_err(StorageFault::io(Doing::Write, &path))?;
            offset += length as u64;
        }
        // A crash here leaves a snapshot that is none: it is not used, and another one is.
        file.sync_data().map_err(StorageFault::io(Doing::Sync, &path))?;
        disk.remove(&path).map_err(StorageFault::io(Doing::Write, &path))?;
    }
    disk.sync_dir(DIR).map_err(StorageFault::io(Doing::Sync, DIR))
}

/// A thread that takes snapshots as segments fill; it ends when this is dropped.
#[derive(Debug)]
pub struct Snapshots {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Starts the thread `avow-snapshot`. `told` hears of every snapshot, and of every failure.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start<D: Disk>(
        disk: D,
        options: LogOptions,
        make: impl Fn() -> Replay + Send + 'static,
        told: impl Fn(Result<SnapshotPlace, SnapshotFault>) + Send + 'static,
    ) -> Result<Self, StorageFault> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let work = move || {
            while !is_over.load(Ordering::Relaxed) {
                if let Some(taken) = take(&disk, &options, &make).transpose() {
                    let failed = taken.is_err();
                    told(taken);
                    if failed {
                        // The log has all of it; the next start reads that.
                        return;
                    }
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("avow-snapshot".into()).spawn(work);
        let thread = thread.map_err(|_| StorageFault::ThreadGone { thread: "snapshot" })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn snapshot_path(segment: u64) -> String {
    format!("{DIR}/snapshot-{segment:08}")
}

/// The segments at whose end there are snapshots, in order.
fn snapshots<D: Disk>(disk: &D) -> Result<Vec<u64>, StorageFault> {
    let names = disk.list(DIR).map_err(StorageFault::io(Doing::Open, DIR))?;
    let number = |name: &String| name.strip_prefix("snapshot-").and_then(|it| it.parse().ok());
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The last segment that another one follows: nothing more is written to it.
fn last_complete<D: Disk>(disk: &D) -> Result<Option<u64>, StorageFault> {
    let numbers = segment_numbers(disk)?;
    for number in numbers.into_iter().rev() {
        if is_begun(disk, number)? {
            return Ok(number.checked_sub(1));
        }
    }
    Ok(None)
}

/// Whether the segment behind `place` repeats what the snapshot knows of the one before it.
fn goes_on_from<D: Disk>(disk: &D, place: &SnapshotPlace) -> bool {
    SegmentScan::open(disk, place.segment + 1, None)
        .is_ok_and(|scan| SegmentHeader::clone(scan.header()).link == place.link)
}

/// Writes a snapshot beside the others, gives it its name, and takes away what is too old.
fn write<D: Disk>(
    disk: &D,
    options: &LogOptions,
    place: &SnapshotPlace,
    replay: &Replay,
) -> Result<(), StorageFault> {
    // A crash before the rename leaves a file that nobody reads, and the next snapshot replaces.
    let file = disk.create(TEMPORARY).map_err(StorageFault::io(Doing::Write, TEMPORARY))?;
    let mut out = Output { file, buffer: Vec::new(), written: 0, hash: Context::new(&SHA256) };
    out.put(&encode_header(options, place))?;
    let mut count = 0_u64;
    let mut failed = None;
    replay.image(&mut |head, body| {
        count += 1;
        if failed.is_none() {
            failed = out.record(head, body).err();
        }
    });
    if let Some(fault) = failed {
        return Err(fault);
    }
    let mut trailer = Vec::with_capacity(TRAILER_BYTES);
    trailer.extend_from_slice(&u32::MAX.to_le_bytes());
    trailer.extend_from_slice(&[0; 4]);
    trailer.extend_from_slice(&count.to_le_bytes());
    out.put(&trailer)?;
    let file = out.finish()?;
    // The content before the name: a name over less than all of it would be damage.
    file.sync_data().map_err(StorageFault::io(Doing::Sync, TEMPORARY))?;
    let path = snapshot_path(place.segment);
    disk.rename(TEMPORARY, &path).map_err(StorageFault::io(Doing::Write, &path))?;
    // A crash before this returns leaves the older snapshots, which are still there.
    disk.sync_dir(DIR).map_err(StorageFault::io(Doing::Sync, DIR))?;
    let mut there = snapshots(disk)?;
    there.truncate(there.len().saturating_sub(KEPT));
    for old in there {
        // A crash meanwhile brings some of them back, and the next snapshot takes them away.
        let path = snapshot_path(old);
        disk.remove(&path).map_err(StorageFault::io(Doing::Write, &path))?;
    }
    Ok(())
}

fn encode_header(options: &LogOptions, place: &SnapshotPlace) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&options.origin_hash());
    bytes.extend_from_slice(&place.segment.to_le_bytes());
    bytes.extend_from_slice(&place.records.to_le_bytes());
    bytes.extend_from_slice(&place.link.marker);
    bytes.extend_from_slice(&place.link.end.to_le_bytes());
    bytes.extend_from_slice(&place.link.crc.to_le_bytes());
    bytes.resize(HEADER_BYTES - 4, 0);
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    bytes
}

fn decode_header(bytes: &[u8], options: &LogOptions) -> Option<SnapshotPlace> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    let mut cursor = Cursor(covered);
    let is_ours = crc32c(covered) == u32::from_le_bytes(*crc)
        && cursor.take::<8>()? == MAGIC
        && cursor.u32()? == VERSION
        && cursor.u32()? == 0
        && cursor.take::<32>()? == options.origin_hash();
    let place = SnapshotPlace {
        segment: cursor.u64()?,
        records: cursor.u64()?,
        link: Link { marker: cursor.take()?, end: cursor.u64()?, crc: cursor.u32()? },
    };
    is_ours.then_some(place)
}

/// What takes the records of a snapshot.
type Take<'a> = dyn FnMut(&[u8], LogBody<'_>) -> Result<(), BadRecord> + 'a;
/// The lengths before a record and its checksum, as bytes and as numbers.
type Lengths = ([u8; RECORD_HEADER_BYTES], [u32; 4]);

/// Writes a file from its beginning to its end.
struct Output<F> {
    file: F,
    buffer: Vec<u8>,
    written: u64,
    hash: Context,
}

impl<F: DiskFile> Output<F> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageFault> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StorageFault> {
        let written = self.file.write_at(&self.buffer, self.written);
        written.map_err(StorageFault::io(Doing::Write, TEMPORARY))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn record(&mut self, head: &[u8], body: Option<(&[u8], &[u8])>) -> Result<(), StorageFault> {
        let (payload, properties) = body.unwrap_or_default();
        let payload_length = body.map_or(0, |_| payload.len() as u32 + 1);
        let mut lengths = Vec::with_capacity(RECORD_HEADER_BYTES);
        for length in [head.len() as u32, payload_length, properties.len() as u32] {
            lengths.extend_from_slice(&length.to_le_bytes());
        }
        let crc = [head, payload, properties]
            .iter()
            .fold(crc32c(&lengths), |crc, part| crc32c_append(crc, part));
        lengths.extend_from_slice(&crc.to_le_bytes());
        self.put(&lengths)?;
        self.put(head)?;
        self.put(payload)?;
        self.put(properties)
    }

    fn finish(mut self) -> Result<F, StorageFault> {
        let hash = self.hash.clone().finish();
        self.buffer.extend_from_slice(hash.as_ref());
        self.flush()?;
        Ok(self.file)
    }
}

/// Reads a file from its beginning to its end.
struct Input<'a, F> {
    file: &'a F,
    path: &'a str,
    buffer: Vec<u8>,
    /// First byte of the buffer that was not taken, and the place in the file behind the buffer.
    at: usize,
    offset: u64,
}

impl<'a, F: DiskFile> Input<'a, F> {
    fn new(file: &'a F, path: &'a str) -> Self {
        Self { file, path, buffer: Vec::new(), at: 0, offset: 0 }
    }

    /// The next `count` bytes; `None` if the file is shorter.
    fn take(&mut self, count: usize) -> Result<Option<&[u8]>, StorageFault> {
        while self.buffer.len() - self.at < count {
            self.buffer.drain(..self.at);
            self.at = 0;
            let had = self.buffer.len();
            self.buffer.resize(had + BUFFER_BYTES, 0);
            let Some(room) = self.buffer.get_mut(had..) else { return Ok(None) };
            let read = self.file.read_at(room, self.offset);
            let read = read.map_err(StorageFault::io(Doing::Read, self.path))?;
            self.buffer.truncate(had + read);
            self.offset += read as u64;
            if read == 0 {
                return Ok(None);
            }
        }
        self.at += count;
        Ok(self.buffer.get(self.at - count..self.at))
    }

    /// The lengths of the next record and its checksum; no length where the trailer begins.
    fn lengths(&mut self) -> Result<Option<Lengths>, StorageFault> {
        let Some(bytes) = self.take(RECORD_HEADER_BYTES)?.and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let bytes: [u8; RECORD_HEADER_BYTES] = *bytes;
        let mut cursor = Cursor(&bytes);
        let mut lengths = [0; 4];
        for length in &mut lengths {
            *length = cursor.u32().unwrap_or(u32::MAX);
        }
        Ok(Some((bytes, lengths)))
    }
}

/// Checks every byte; where the snapshot stands, if all are what was written.
fn check<F: DiskFile>(
    file: &F,
    path: &str,
    options: &LogOptions,
) -> Result<Option<SnapshotPlace>, StorageFault> {
    let mut input = Input::new(file, path);
    let mut hash = Context::new(&SHA256);
    let Some(header) = input.take(HEADER_BYTES)? else { return Ok(None) };
    hash.update(header);
    let Some(place) = decode_header(header, options) else { return Ok(None) };
    let mut count = 0_u64;
    loop {
        let Some((bytes, [head, payload, properties, crc])) = input.lengths()? else {
            return Ok(None);
        };
        hash.update(&bytes);
        if head == u32::MAX {
            // The number of records stands where another has two lengths.
            let counted = u64::from(properties) | u64::from(crc) << 32;
            let expected = hash.finish();
            let stated = input.take(32)?;
            let is_whole = counted == count && stated == Some(expected.as_ref());
            let is_end = input.take(1)?.is_none();
            return Ok((is_whole && is_end).then_some(place));
        }
        if [head, payload, properties].iter().any(|length| *length > RECORD_BYTES_MAX) {
            return Ok(None);
        }
        let length = (head + payload.saturating_sub(1) + properties) as usize;
        let Some(record) = input.take(length)? else { return Ok(None) };
        hash.update(record);
        let lengths = bytes.get(..RECORD_HEADER_BYTES - 4).unwrap_or_default();
        if crc32c_append(crc32c(lengths), record) != crc {
            return Ok(None);
        }
        count += 1;
    }
}

/// Shows every record of a file that was checked, until one is not taken; whether all were.
fn visit<F: DiskFile>(file: &F, path: &str, take: &mut Take<'_>) -> Result<bool, StorageFault> {
    let mut input = Input::new(file, path);
    input.take(HEADER_BYTES)?;
    while let Some((_, [head, payload, properties, _])) = input.lengths()? {
        if head == u32::MAX {
            return Ok(true);
        }
        let body_bytes = payload.saturating_sub(1);
        let Some(bytes) = input.take((head + body_bytes + properties) as usize)? else { break };
        let Some((head, body)) = bytes.split_at_checked(head as usize) else { break };
        let Some(body) = body.split_at_checked(body_bytes as usize) else { break };
        let body = (payload > 0).then_some(body);
        if take(head, body).is_err() {
            return Ok(false);
        }
    }
    Ok(false)
}

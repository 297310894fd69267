//! Erasing bodies in place, and telling an erasure from tampering.
//!
//! ```text
//! DIR/erasing   the ranges that are being erased, as entries write them; gone when it is done
//! ```
//!
//! A body of zeroes is legal if an entry says that it was erased, or that its erasure began
//! ([`Erasure`]); a body that is neither whole nor zeroes only while `erasing` names it as well: that is
//! what a crash leaves. Who may erase, and the entries, are [`crate::cli`]'s. The invariant: when
//! [`erase`] has returned, no file of the log's directory holds a byte of what it was asked to erase.

use super::disk::{Disk, DiskFile};
use super::fault::{Damage, Defect, Doing, StorageFault};
use super::recovery::is_begun;
use super::scan::{ScanFault, SegmentScan, Span, segment_numbers, segment_path};
use super::segment::{BodyView, RecordView, records};
use super::snapshot;
use crate::broker::owner_of_body;
use crate::evidence::RecordKind;
use crate::evidence::erasure::{Erasure, IndexRanges};

const JOURNAL_FILE: &str = "erasing";
const JOURNAL_NEXT_FILE: &str = "erasing.next";
/// Longest journal, in bytes: larger than any list of ranges that fits in memory otherwise.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Bodies that were replaced by zeroes.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Replaces the bodies of these entries by zeroes, wherever they stand: in the segments, and in the
/// snapshots, which are taken away and made again of the log. Their entries of [`Erasure`] must be on
/// disk, and whatever the broker holds of them must be gone from it. May run beside the writer. To
/// erase what is erased already does nothing, so it can be done again after a crash.
///
/// # Errors
/// If the disk fails. The journal stays: the next start must do it again.
pub fn erase<D: Disk>(disk: &D, ranges: &IndexRanges) -> Result<Erased, StorageFault> {
    // No snapshot is taken meanwhile: it would hold what was read before.
    let _none = snapshot::lock();
    begin_journal(disk, ranges)?;
    let mut erased = Erased::default();
    for number in segments_from(disk, ranges.first().unwrap_or(u64::MAX))? {
        erase_in_segment(disk, number, ranges, &mut erased)?;
    }
    // A crash here leaves snapshots with what is gone from the segments: the entry and the journal
    // are there, and the next start does all of this again.
    snapshot::erase_all(disk)?;
    Ok(erased)
}

/// A body that is there: whose, and what.
#[derive(Clone, Copy, Debug)]
pub struct FoundBody<'a> {
    /// The entry that it belongs to.
    pub owner: u64,
    /// The entry that states it; absent where it is that of a Will or of a message in a State record.
    pub entry: Option<&'a [u8]>,
    /// The body.
    pub body: BodyView<'a>,
}

/// Visits every body that is there, of the first `upto` entries.
///
/// # Errors
/// If the disk fails, or the log is damaged.
pub fn bodies<D: Disk>(
    disk: &D,
    upto: u64,
    visit: &mut dyn FnMut(FoundBody<'_>),
) -> Result<(), StorageFault> {
    for number in segments_from(disk, 0)? {
        let mut scan = SegmentScan::open(disk, number, None)?;
        while scan.next_index() < upto {
            let Some(span) = scan.peek()? else { break };
            let mut next = span.header.first_index;
            for record in records(scan.bytes(&span)?) {
                let is_entry = record.kind == RecordKind::Entry;
                if let (Some(body), Some(owner)) = (record.body, owner(&record, next))
                    && owner < upto
                    && !body.is_erased()
                {
                    visit(FoundBody { owner, entry: is_entry.then_some(&*record.head), body });
                }
                next += u64::from(is_entry);
            }
            scan.advance(&span.header, span.crc);
        }
    }
    Ok(())
}

/// Says that the erasure is done: its last entry is on disk.
///
/// # Errors
/// If the disk fails.
pub fn end_journal<D: Disk>(disk: &D) -> Result<(), StorageFault> {
    match disk.remove(JOURNAL_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(StorageFault::io(Doing::Write, JOURNAL_FILE))?,
    }
    // A crash before this returns brings the journal back: the next erasure replaces it, and what it
    // allows is zeroes already.
    disk.sync_dir("").map_err(StorageFault::io(Doing::Sync, JOURNAL_FILE))
}

fn begin_journal<D: Disk>(disk: &D, ranges: &IndexRanges) -> Result<(), StorageFault> {
    // What an earlier erasure left unfinished is still allowed.
    let before = read_journal(disk)?;
    let both = before.ranges().iter().chain(ranges.ranges()).copied();
    let text = format!("{}\n", IndexRanges::of_ranges(both));
    let failed = |doing| StorageFault::io(doing, JOURNAL_FILE);
    let file = disk.create(JOURNAL_NEXT_FILE).map_err(failed(Doing::Write))?;
    file.write_at(text.as_bytes(), 0).map_err(failed(Doing::Write))?;
    file.sync_data().map_err(failed(Doing::Sync))?;
    // A crash before the name is on disk leaves no journal: nothing was erased yet.
    disk.rename(JOURNAL_NEXT_FILE, JOURNAL_FILE).map_err(failed(Doing::Write))?;
    disk.sync_dir("").map_err(failed(Doing::Sync))
}

/// What the journal allows; nothing if there is none, or if it does not read.
fn read_journal<D: Disk>(disk: &D) -> Result<IndexRanges, StorageFault> {
    let failed = |doing| StorageFault::io(doing, JOURNAL_FILE);
    let file = match disk.open(JOURNAL_FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Default::default()),
        opened => opened.map_err(failed(Doing::Open))?,
    };
    let bytes = file.byte_len().map_err(failed(Doing::Read))?.min(JOURNAL_BYTES_MAX);
    let mut text = vec![0; usize::try_from(bytes).unwrap_or_default()];
    let read = file.read_at(&mut text, 0).map_err(failed(Doing::Read))?;
    text.truncate(read);
    let text = std::str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n'));
    Ok(text.and_then(IndexRanges::parse).unwrap_or_default())
}

/// The segments that may hold a body of entry `first` or of a later one.
fn segments_from<D: Disk>(disk: &D, first: u64) -> Result<Vec<u64>, StorageFault> {
    let mut numbers = Vec::new();
    for number in segment_numbers(disk)? {
        if !is_begun(disk, number)? {
            continue;
        }
        if SegmentScan::open(disk, number, None)?.header().first_index <= first {
            numbers.clear();
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn erase_in_segment<D: Disk>(
    disk: &D,
    number: u64,
    ranges: &IndexRanges,
    erased: &mut Erased,
) -> Result<(), StorageFault> {
    let mut scan = SegmentScan::open(disk, number, None)?;
    let path = segment_path(number);
    let mut found = Vec::new();
    loop {
        let span = match scan.peek() {
            Ok(Some(span)) => span,
            Ok(None) => break,
            Err(ScanFault::Disk(fault)) => return Err(fault),
            // A batch that is being written, or damage that others find.
            Err(ScanFault::Defect(_)) => break,
        };
        let mut next = span.header.first_index;
        for record in records(scan.bytes(&span)?) {
            if let Some((place, bytes)) = record.body_span()
                && owner(&record, next).is_some_and(|owner| ranges.contains(owner))
            {
                // Zeroes that are there already may be in the kernel's memory only, of an attempt that
                // failed: they are written again.
                found.push((span.offset + place as u64, bytes));
                if !record.body.is_some_and(|body| body.is_erased()) {
                    erased.bodies += 1;
                    erased.bytes += bytes as u64;
                }
            }
            next += u64::from(record.kind == RecordKind::Entry);
        }
        scan.advance(&span.header, span.crc);
    }
    if found.is_empty() {
        return Ok(());
    }
    let file = scan.into_file();
    for (offset, bytes) in found {
        // A crash before the sync returns leaves bodies whole, of zeroes, or of both: the journal
        // allows that, and the next start does it again. What stands around them is written as it is.
        let written = file.write_at(&vec![0; bytes], offset);
        written.map_err(StorageFault::io(Doing::Write, &path))?;
    }
    file.sync_data().map_err(StorageFault::io(Doing::Sync, &path))
}

/// The entry that a record's body belongs to; `next` is the index of this entry, or of the next.
fn owner(record: &RecordView<'_>, next: u64) -> Option<u64> {
    match record.kind {
        RecordKind::Entry => Some(next),
        RecordKind::State => owner_of_body(&record.head, next),
    }
}

/// Which bodies are not what was written, and which entries say so: for whoever reads all of a log.
#[derive(Debug)]
pub(super) struct Coverage {
    journal: IndexRanges,
    /// Bodies of zeroes or of less, and where they stand. Neighbours share one.
    missing: Vec<Missing>,
    covered: Vec<(u64, u64)>,
    unfinished: Vec<Erasure>,
    /// Bodies that were erased.
    pub(super) erased: u64,
}

#[derive(Debug)]
struct Missing {
    first: u64,
    last: u64,
    place: Defect,
}

impl Coverage {
    /// Of a log of which nothing was read yet.
    pub(super) fn new<D: Disk>(disk: &D) -> Result<Self, StorageFault> {
        Ok(Self {
            journal: read_journal(disk)?,
            missing: Vec::new(),
            covered: Vec::new(),
            unfinished: Vec::new(),
            erased: 0,
        })
    }

    /// Takes a batch that was peeked; what is wrong with its bodies. An erased body with nothing
    /// behind it (`is_last`) is one that was never written: the entry of an erasure comes later.
    pub(super) fn take<F: DiskFile>(
        &mut self,
        scan: &mut SegmentScan<F>,
        span: &Span,
        is_last: bool,
    ) -> Result<Option<Defect>, StorageFault> {
        let file = scan.path().to_owned();
        let bytes = scan.bytes(span)?;
        let mut next = span.header.first_index;
        let mut missing = Vec::new();
        for record in records(bytes) {
            if record.body.is_some() {
                let is_erased = record.body.is_some_and(|body| body.is_erased());
                let owner = owner(&record, next);
                let allowed = owner.is_some_and(|owner| self.journal.contains(owner));
                let offset = span.offset + record.offset as u64;
                let defect = |damage| Defect { file: file.clone(), offset, index: next, damage };
                match record.check_body() {
                    Ok(()) if is_erased && is_last && !allowed => {
                        return Ok(Some(defect(Damage::Commitment)));
                    }
                    Ok(()) if !is_erased => {}
                    Err(damage) if !allowed => return Ok(Some(defect(damage))),
                    Ok(()) | Err(_) => match owner {
                        Some(owner) => missing.push((owner, defect(Damage::Unerased))),
                        None => return Ok(Some(defect(Damage::Unerased))),
                    },
                }
            }
            next += u64::from(record.kind == RecordKind::Entry);
        }
        self.erased += missing.len() as u64;
        for (owner, place) in missing {
            match self.missing.last_mut() {
                Some(before) if owner == before.last || owner == before.last.saturating_add(1) => {
                    before.last = owner;
                }
                _ => self.missing.push(Missing { first: owner, last: owner, place }),
            }
        }
        for record in records(bytes).filter(|record| record.kind == RecordKind::Entry) {
            if let Some(erasure) = Erasure::read(&record.head) {
                self.note(erasure);
            }
        }
        Ok(None)
    }

    fn note(&mut self, erasure: Erasure) {
        self.covered.extend_from_slice(erasure.indices.ranges());
        if !erasure.is_done {
            return self.unfinished.push(erasure);
        }
        let is_it = |begun: &Erasure| begun.indices == erasure.indices;
        if let Some(at) = self.unfinished.iter().position(is_it) {
            self.unfinished.remove(at);
        }
    }

    /// At the end of the log: the erasures that began and are not done, or the first body that no
    /// entry accounts for.
    pub(super) fn finish(self) -> Result<Vec<Erasure>, Defect> {
        let covered = IndexRanges::of_ranges(self.covered);
        let accounts = |missing: &Missing| {
            (missing.first..=missing.last).find(|index| !covered.contains(*index))
        };
        for missing in self.missing {
            if let Some(index) = accounts(&missing) {
                return Err(Defect { index, ..missing.place });
            }
        }
        Ok(self.unfinished)
    }
}

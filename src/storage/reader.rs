//! Reads the log without touching it, also while it is being written.
//!
//! It checks form (every CRC), not truth: whether the entries are what was signed is for
//! [`super::verify`]. The invariant: an entry it gives stands below the end it was opened with:
//! the published checkpoint, a size that the writer has synced, or the last whole batch.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::checkpoint_store::{CHECKPOINT_FILE, read_published};
use super::disk::Disk;
use super::fault::{Damage, Defect, StorageFault};
use super::log::Place;
use super::scan::{SEGMENTS_DIR, ScanFault, SegmentScan, segment_numbers};
use super::segment::{BodyView, records};
use crate::evidence::checkpoint::NoteError;
use crate::evidence::tree::{Hash, leaf_hash};
use crate::evidence::{Body, Checkpoint, RecordKind, VerifierKey};

/// Where reading stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At the size of the published checkpoint.
    Checkpoint,
    /// At a number of entries that the writer says is on disk.
    Synced(u64),
    /// At the last whole batch. While the log is being written, that batch may not be synced.
    Written,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// The bytes that are hashed: one JSON object.
    pub json: Vec<u8>,
    /// What its commitment covers.
    pub body: Option<Body>,
    /// Where the record stands.
    pub place: Place,
    /// Where its batch stands: what [`Reader::entries_at`] takes as a hint.
    pub batch: Place,
}

/// One entry, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct EntryView<'a> {
    /// Its index.
    pub index: u64,
    /// The bytes that are hashed: one JSON object.
    pub json: &'a [u8],
    /// What its commitment covers.
    pub body: Option<BodyView<'a>>,
    /// Where the record stands.
    pub place: Place,
    /// Where its batch stands.
    pub batch: Place,
}

/// The log, open for reading.
#[derive(Clone, Debug)]
pub struct Reader<D: Disk> {
    disk: D,
    until: Until,
    note: Option<String>,
    checkpoint: Option<Checkpoint>,
    first_indices: Vec<(u64, u64)>,
}

impl<D: Disk> Reader<D> {
    /// Opens the log in `disk`; its checkpoint, if there is one, must be signed by `verifier`.
    pub fn open(disk: D, verifier: &VerifierKey, until: Until) -> Result<Self, StorageFault> {
        let (note, checkpoint, first_indices) = (None, None, Vec::new());
        let mut reader = Self { disk, until, note, checkpoint, first_indices };
        reader.refresh(verifier)?;
        Ok(reader)
    }

    /// Sees what was published or begun since.
    pub fn refresh(&mut self, verifier: &VerifierKey) -> Result<(), StorageFault> {
        self.note = read_published(&self.disk)?;
        let opened = self.note.as_deref().map(|note| Checkpoint::open(note, verifier)).transpose();
        self.checkpoint = opened.map_err(|source: NoteError| StorageFault::Checkpoint {
            file: CHECKPOINT_FILE,
            source,
        })?;
        let known = self.first_indices.last().map(|(number, _)| *number);
        for number in segment_numbers(&self.disk)? {
            if known.is_some_and(|known| number <= known) {
                continue;
            }
            // The segment made ahead has no header yet.
            if let Some(scan) = self.segment(number)? {
                self.first_indices.push((number, scan.header().first_index));
            }
        }
        Ok(())
    }

    /// Changes where reading stops.
    pub fn set_until(&mut self, until: Until) {
        self.until = until;
    }

    /// The disk that is read.
    pub(super) fn disk(&self) -> &D {
        &self.disk
    }

    /// The published checkpoint.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Its signed note, verbatim.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The entries from `index` on, in order. An error is the last thing that it gives.
    pub fn entries(&self, index: u64) -> Entries<'_, D> {
        self.entries_at(index, None)
    }

    /// As [`Self::entries`], beginning to look at a batch that is known to stand before them.
    pub fn entries_at(&self, index: u64, hint: Option<Place>) -> Entries<'_, D> {
        Entries { walk: Walk::new(self, index, hint), batch: VecDeque::new(), is_done: false }
    }

    /// Entry `index`, if it is below the end.
    pub fn entry(&self, index: u64) -> Result<Option<Entry>, StorageFault> {
        self.entries(index).next().transpose()
    }

    /// Visits the entries from `from` up to `to`, without copying them, until `visit` breaks.
    pub fn visit(
        &self,
        from: u64,
        to: u64,
        hint: Option<Place>,
        visit: &mut dyn FnMut(EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageFault> {
        let mut walk = Walk::new(self, from, hint);
        let mut is_broken = false;
        while !is_broken {
            let more = walk.batch(&mut |entry| {
                is_broken = is_broken || entry.index >= to || visit(entry).is_break();
            })?;
            is_broken = is_broken || !more;
        }
        Ok(())
    }

    /// The leaf hashes of the first `up_to` entries, or of as many as there are below the end.
    pub fn leaf_hashes(&self, up_to: u64) -> Result<Vec<Hash>, StorageFault> {
        let mut leaves = Vec::new();
        self.visit(0, up_to, None, &mut |entry| {
            leaves.push(leaf_hash(entry.json));
            ControlFlow::Continue(())
        })?;
        Ok(leaves)
    }

    /// What tells this log from every other: the marker of its first segment; zeroes while
    /// there is none.
    pub(super) fn identity(&self) -> Result<[u8; 8], StorageFault> {
        Ok(self.segment(0)?.map_or([0; 8], |scan| scan.header().marker))
    }

    /// First index past the end, as far as it is known without reading.
    fn end(&self) -> u64 {
        match self.until {
            Until::Checkpoint => self.checkpoint.as_ref().map_or(0, |signed| signed.tree_size),
            Until::Synced(size) => size,
            Until::Written => u64::MAX,
        }
    }

    /// The segment that entry `index` stands in, as far as is known.
    fn segment_of(&self, index: u64) -> u64 {
        let after = self.first_indices.partition_point(|(_, first)| *first <= index);
        let entry = after.checked_sub(1).and_then(|place| self.first_indices.get(place));
        entry.map_or(0, |(number, _)| *number)
    }

    /// Opens a segment; `None` if it is not there or not begun yet.
    fn segment(&self, number: u64) -> Result<Option<SegmentScan<D::File>>, StorageFault> {
        match SegmentScan::open(&self.disk, number, None) {
            Ok(scan) => Ok(Some(scan)),
            Err(ScanFault::Disk(fault)) => Err(fault),
            Err(ScanFault::Defect(defect)) => match defect.damage {
                Damage::Missing => Ok(None),
                Damage::SegmentHeader if super::recovery::is_unused(&self.disk, number)? => {
                    Ok(None)
                }
                _ => Err(StorageFault::Corrupt(defect)),
            },
        }
    }
}

/// The entries of a log, in order.
#[derive(Debug)]
pub struct Entries<'a, D: Disk> {
    walk: Walk<'a, D>,
    batch: VecDeque<Entry>,
    is_done: bool,
}

impl<D: Disk> Iterator for Entries<'_, D> {
    type Item = Result<Entry, StorageFault>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.batch.is_empty() && !self.is_done {
            let batch = &mut self.batch;
            match self.walk.batch(&mut |entry| batch.push_back(entry.to_owned())) {
                Ok(more) => self.is_done = !more,
                Err(fault) => {
                    self.is_done = true;
                    return Some(Err(fault));
                }
            }
        }
        self.batch.pop_front().map(Ok)
    }
}

impl EntryView<'_> {
    /// A copy.
    pub fn to_owned(self) -> Entry {
        let Self { index, json, body, place, batch } = self;
        let body = body.map(|body| Body {
            salt: *body.salt,
            payload: Bytes::copy_from_slice(body.payload),
            properties: Bytes::copy_from_slice(body.properties),
        });
        Entry { index, json: json.to_vec(), body, place, batch }
    }
}

/// A place in the log.
#[derive(Debug)]
struct Walk<'a, D: Disk> {
    reader: &'a Reader<D>,
    /// The first entry that is wanted.
    from: u64,
    number: u64,
    hint: Option<Place>,
    scan: Option<SegmentScan<D::File>>,
}

impl<'a, D: Disk> Walk<'a, D> {
    fn new(reader: &'a Reader<D>, from: u64, hint: Option<Place>) -> Self {
        let number = hint.map_or_else(|| reader.segment_of(from), |hint| hint.segment);
        Self { reader, from, number, hint, scan: None }
    }

    /// Visits the wanted entries of the next batch; `false` if nothing can follow.
    fn batch(&mut self, visit: &mut dyn FnMut(EntryView<'_>)) -> Result<bool, StorageFault> {
        let end = self.reader.end();
        self.open()?;
        let (from, number) = (self.from, self.number);
        let Some(scan) = &mut self.scan else { return self.at_end(end) };
        if scan.next_index() >= end {
            return Ok(false);
        }
        let header = match scan.peek_header() {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.scan = None;
                self.number += 1;
                return Ok(true);
            }
            Err(fault) => return self.unfinished(fault),
        };
        let last = header.first_index + u64::from(header.entries);
        if last <= from {
            scan.skip(&header)?;
            return Ok(true);
        }
        let span = match scan.peek() {
            Ok(Some(span)) => span,
            Ok(None) => return Ok(false),
            Err(fault) => return self.unfinished(fault),
        };
        let batch = Place { segment: number, offset: span.offset };
        let mut index = header.first_index;
        for record in records(scan.bytes(&span)?) {
            if record.kind != RecordKind::Entry {
                continue;
            }
            if index >= from && index < end {
                let offset = span.offset + record.offset as u64;
                let place = Place { segment: number, offset };
                visit(EntryView { index, json: &record.head, body: record.body, place, batch });
            }
            index += 1;
        }
        scan.advance(&span.header, span.crc);
        Ok(last < end)
    }

    /// Opens the present segment, if it is not open, where the hint says.
    fn open(&mut self) -> Result<(), StorageFault> {
        if self.scan.is_none() {
            self.scan = self.reader.segment(self.number)?;
            if let (Some(scan), Some(hint)) = (&mut self.scan, self.hint.take()) {
                // A hint that leads nowhere, or too far, is not followed.
                let is_led = hint.segment == self.number && scan.jump(hint.offset)?.is_some();
                if !is_led || scan.next_index() > self.from {
                    self.number = self.reader.segment_of(self.from);
                    self.scan = self.reader.segment(self.number)?;
                }
            }
        }
        Ok(())
    }

    /// No further segment: right, unless entries were promised.
    fn at_end(&self, end: u64) -> Result<bool, StorageFault> {
        let is_promised = matches!(self.reader.until, Until::Checkpoint) && end > 0;
        let missing = is_promised && self.number == 0;
        if !missing {
            return Ok(false);
        }
        let file = SEGMENTS_DIR.to_owned();
        Err(StorageFault::Corrupt(Defect { file, offset: 0, index: 0, damage: Damage::Missing }))
    }

    /// Past what was promised, a batch that is not whole is one that is being written.
    fn unfinished(&self, fault: ScanFault) -> Result<bool, StorageFault> {
        match (fault, self.reader.until) {
            (ScanFault::Defect(_), Until::Written) => Ok(false),
            (fault, _) => Err(fault.into()),
        }
    }
}

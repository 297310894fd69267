//! Walks one segment file, batch by batch: the one reader that recovery, verification and every
//! query share.
//!
//! It judges form only; what damage means (a torn tail, corruption) is for its caller to say.
//! The invariant: a batch it hands out has been checked to its last byte, bodies excepted, and
//! continues the batch before it.

use super::disk::{Disk, DiskFile};
use super::fault::{Damage, Defect, Doing, StorageFault};
use super::segment::{
    BATCH_HEADER_BYTES, BatchHeader, Link, SEGMENT_HEADER_BYTES, SegmentHeader, check_batch,
    first_nonzero,
};

/// The directory of the segments, within the log's.
pub(super) const SEGMENTS_DIR: &str = "segments";

const READ_AHEAD_BYTES: usize = 256 << 10;

/// The file of segment `number`.
pub(super) fn segment_path(number: u64) -> String {
    format!("{SEGMENTS_DIR}/{number:08}.seg")
}

/// The numbers of the segments that are there, in order. Other files are none of ours.
pub(super) fn segment_numbers<D: Disk>(disk: &D) -> Result<Vec<u64>, StorageFault> {
    let names = disk.list(SEGMENTS_DIR).map_err(StorageFault::io(Doing::Open, SEGMENTS_DIR))?;
    let number = |name: &String| name.strip_suffix(".seg").and_then(|name| name.parse().ok());
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A damaged place, or a disk that failed.
#[derive(Debug)]
pub(super) enum ScanFault {
    /// The bytes are wrong.
    Defect(Defect),
    /// The disk failed.
    Disk(StorageFault),
}

impl From<StorageFault> for ScanFault {
    fn from(fault: StorageFault) -> Self {
        Self::Disk(fault)
    }
}

impl From<ScanFault> for StorageFault {
    fn from(fault: ScanFault) -> Self {
        match fault {
            ScanFault::Defect(defect) => Self::Corrupt(defect),
            ScanFault::Disk(fault) => fault,
        }
    }
}

/// What a segment must say about itself to be the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// SHA-256 of the origin of the log.
    pub(super) origin: [u8; 32],
    /// Index of its first entry.
    pub(super) first_index: u64,
    /// Where the one before ended.
    pub(super) link: Link,
}

/// A batch that was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Its header.
    pub(super) header: BatchHeader,
    /// Its first byte in the file.
    pub(super) offset: u64,
    /// Its checksum.
    pub(super) crc: u32,
}

/// A place in a segment, with what is known of the batches before it.
#[derive(Debug)]
pub(super) struct SegmentScan<F> {
    file: F,
    path: String,
    header: SegmentHeader,
    file_bytes: u64,
    offset: u64,
    batches: u32,
    previous_crc: u32,
    next_index: u64,
    window: Window,
}

impl<F: DiskFile> SegmentScan<F> {
    /// Opens segment `number`. With `expected`, it must continue the segment before it; without,
    /// it must only be whole.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        number: u64,
        expected: Option<&Expected>,
    ) -> Result<Self, ScanFault> {
        let path = segment_path(number);
        let index = expected.map_or(0, |expected| expected.first_index);
        let defect = |offset, damage| {
            ScanFault::Defect(Defect { file: segment_path(number), offset, index, damage })
        };
        let file = match disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(defect(0, Damage::Missing));
            }
            opened => opened.map_err(StorageFault::io(Doing::Open, &path))?,
        };
        let file_bytes = file.byte_len().map_err(StorageFault::io(Doing::Open, &path))?;
        let mut window = Window { file_bytes, ..Window::default() };
        let bytes = window.read(&file, &path, 0, SEGMENT_HEADER_BYTES)?;
        let header = SegmentHeader::decode(bytes).map_err(|damage| defect(0, damage))?;
        if header.number != number {
            return Err(defect(0, Damage::SegmentNumber));
        }
        if let Some(expected) = expected {
            if header.origin != expected.origin {
                return Err(defect(0, Damage::OtherLog));
            }
            if let Some(end) = lost_end(&header, expected) {
                return Err(ScanFault::Defect(end));
            }
            if header.link != expected.link || header.first_index != expected.first_index {
                return Err(defect(0, Damage::SegmentLink));
            }
        }
        if file_bytes != header.bytes {
            return Err(defect(file_bytes.min(header.bytes), Damage::FileLength));
        }
        let next_index = header.first_index;
        let offset = SEGMENT_HEADER_BYTES as u64;
        let (batches, previous_crc) = (0, 0);
        Ok(Self {
            file,
            path,
            header,
            file_bytes,
            offset,
            batches,
            previous_crc,
            next_index,
            window,
        })
    }

    /// The batch at the present place, checked; `None` where unused space begins. The place
    /// moves only by [`Self::advance`].
    pub(super) fn peek(&mut self) -> Result<Option<Span>, ScanFault> {
        let Some(header) = self.peek_header()? else { return Ok(None) };
        let (offset, next_index) = (self.offset, self.next_index);
        let bytes = self.window.read(&self.file, &self.path, offset, header.bytes as usize)?;
        match check_batch(&header, bytes) {
            Ok(crc) => Ok(Some(Span { header, offset, crc })),
            Err(bad) => Err(ScanFault::Defect(Defect {
                file: self.path.clone(),
                offset: offset + bad.offset as u64,
                index: next_index + bad.entries_before,
                damage: bad.damage,
            })),
        }
    }

    /// The header of the batch at the present place, which continues the one before; `None`
    /// where unused space begins.
    pub(super) fn peek_header(&mut self) -> Result<Option<BatchHeader>, ScanFault> {
        let left = self.file_bytes.saturating_sub(self.offset);
        if left < BATCH_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.window.read(&self.file, &self.path, self.offset, BATCH_HEADER_BYTES)?;
        if bytes.first_chunk() == Some(&[0; 8]) {
            return Ok(None);
        }
        let header = BatchHeader::decode(bytes, &self.header.marker);
        let header = header.map_err(|damage| self.defect_here(damage))?;
        let is_next = header.first_index == self.next_index
            && header.number == self.batches
            && header.previous_crc == self.previous_crc;
        if !is_next {
            return Err(self.defect_here(Damage::BatchLink));
        }
        if u64::from(header.bytes) > left {
            return Err(self.defect_here(Damage::BatchHeader));
        }
        Ok(Some(header))
    }

    /// The bytes of a batch that was peeked.
    pub(super) fn bytes(&mut self, span: &Span) -> Result<&[u8], StorageFault> {
        self.window.read(&self.file, &self.path, span.offset, span.header.bytes as usize)
    }

    /// Whether something that may be a batch stands behind one that was peeked.
    pub(super) fn is_followed(&mut self, span: &Span) -> Result<bool, StorageFault> {
        let behind = span.offset + u64::from(span.header.bytes);
        let bytes = self.window.read(&self.file, &self.path, behind, 8)?;
        Ok(bytes.first_chunk() == Some(&self.header.marker))
    }

    /// Goes past a batch that was peeked.
    pub(super) fn advance(&mut self, header: &BatchHeader, crc: u32) {
        self.offset += u64::from(header.bytes);
        self.batches += 1;
        self.previous_crc = crc;
        self.next_index += u64::from(header.entries);
    }

    /// Goes past a batch of which only the header was peeked; its checksum is read from its
    /// trailer.
    pub(super) fn skip(&mut self, header: &BatchHeader) -> Result<(), StorageFault> {
        let mut crc = [0; 4];
        let place = self.offset + u64::from(header.bytes) - 8;
        self.file.read_at(&mut crc, place).map_err(StorageFault::io(Doing::Read, &self.path))?;
        self.advance(header, u32::from_le_bytes(crc));
        Ok(())
    }

    /// Starts in the middle, at the batch that stands at `offset`: for readers that were told
    /// the place by the index, and check nothing before it. `None` if there is no batch.
    pub(super) fn jump(&mut self, offset: u64) -> Result<Option<()>, StorageFault> {
        let bytes = self.window.read(&self.file, &self.path, offset, BATCH_HEADER_BYTES)?;
        let Ok(header) = BatchHeader::decode(bytes, &self.header.marker) else { return Ok(None) };
        self.offset = offset;
        self.batches = header.number;
        self.previous_crc = header.previous_crc;
        self.next_index = header.first_index;
        Ok(Some(()))
    }

    /// The first byte of unused space that is not zero.
    pub(super) fn unused_space_defect(&mut self) -> Result<Option<Defect>, StorageFault> {
        let mut offset = self.offset;
        while offset < self.file_bytes {
            let length = usize::try_from(self.file_bytes - offset).unwrap_or(usize::MAX);
            let length = length.min(READ_AHEAD_BYTES);
            let bytes = self.window.read(&self.file, &self.path, offset, length)?;
            if let Some(place) = first_nonzero(bytes) {
                return Ok(Some(Defect {
                    file: self.path.clone(),
                    offset: offset + place as u64,
                    index: self.next_index,
                    damage: Damage::UnusedSpace,
                }));
            }
            offset += length as u64;
        }
        Ok(None)
    }

    /// Looks for a whole batch anywhere past the present place: if one follows damage, the
    /// damage is no torn tail.
    pub(super) fn whole_batch_follows(&mut self) -> Result<bool, StorageFault> {
        let marker = self.header.marker;
        let mut offset = self.offset + 8;
        while offset + (BATCH_HEADER_BYTES as u64) <= self.file_bytes {
            let left = usize::try_from(self.file_bytes - offset).unwrap_or(usize::MAX);
            let bytes =
                self.window.read(&self.file, &self.path, offset, left.min(READ_AHEAD_BYTES))?;
            let (words, _) = bytes.as_chunks::<8>();
            let word_count = words.len() as u64;
            let Some(place) = words.iter().position(|word| *word == marker) else {
                offset += word_count * 8;
                continue;
            };
            offset += place as u64 * 8;
            if self.is_whole_batch(offset)? {
                return Ok(true);
            }
            offset += 8;
        }
        Ok(false)
    }

    fn is_whole_batch(&mut self, offset: u64) -> Result<bool, StorageFault> {
        let bytes = self.window.read(&self.file, &self.path, offset, BATCH_HEADER_BYTES)?;
        let Ok(header) = BatchHeader::decode(bytes, &self.header.marker) else { return Ok(false) };
        if u64::from(header.bytes) > self.file_bytes - offset {
            return Ok(false);
        }
        let bytes = self.window.read(&self.file, &self.path, offset, header.bytes as usize)?;
        Ok(check_batch(&header, bytes).is_ok())
    }

    /// Forgets what was read, because the file was or may have been written.
    pub(super) fn forget(&mut self) {
        self.window.bytes.clear();
    }

    /// The header of the segment.
    pub(super) fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The present place.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of batches before the present place.
    pub(super) fn batches(&self) -> u32 {
        self.batches
    }

    /// Index of the next entry at the present place.
    pub(super) fn next_index(&self) -> u64 {
        self.next_index
    }

    /// The name of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The file.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Gives the file away.
    pub(super) fn into_file(self) -> F {
        self.file
    }

    /// What the next segment must repeat.
    pub(super) fn link(&self) -> Link {
        Link { marker: self.header.marker, end: self.offset, crc: self.previous_crc }
    }

    /// Damage at the present place.
    pub(super) fn defect_here(&self, damage: Damage) -> ScanFault {
        ScanFault::Defect(Defect {
            file: self.path.clone(),
            offset: self.offset,
            index: self.next_index,
            damage,
        })
    }
}

/// Damage to the segment before `header`, if that one was cut: the rest of it ended further on.
fn lost_end(header: &SegmentHeader, expected: &Expected) -> Option<Defect> {
    let Link { marker, end, .. } = expected.link;
    let is_cut = header.link.marker == marker && header.link.end > end;
    let before = header.number.checked_sub(1).filter(|_| is_cut)?;
    Some(Defect {
        file: segment_path(before),
        offset: end,
        index: expected.first_index,
        damage: Damage::SegmentEnd,
    })
}

/// A piece of a file in memory.
#[derive(Debug, Default)]
struct Window {
    /// Length of the file: reading ahead stops there.
    file_bytes: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The `length` bytes at `offset`, or as many as the file has.
    fn read<F: DiskFile>(
        &mut self,
        file: &F,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<&[u8], StorageFault> {
        let skipped = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let held = skipped
            .filter(|skip| skip.checked_add(length).is_some_and(|end| end <= self.bytes.len()));
        let skip = if let Some(skip) = held {
            skip
        } else {
            let left = self.file_bytes.saturating_sub(offset);
            let ahead = usize::try_from(left).unwrap_or(usize::MAX).min(READ_AHEAD_BYTES);
            self.bytes.resize(length.max(ahead), 0);
            let read = file.read_at(&mut self.bytes, offset);
            let count = read.map_err(StorageFault::io(Doing::Read, path))?;
            self.bytes.truncate(count);
            self.start = offset;
            0
        };
        let end = skip.saturating_add(length).min(self.bytes.len());
        Ok(self.bytes.get(skip..end).unwrap_or_default())
    }
}

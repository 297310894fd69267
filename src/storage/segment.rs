//! The format of a segment file: how batches of records become bytes and are read back.
//!
//! ```text
//! segment  header 128 | batch | batch | … | zeroes up to the stated length
//! batch    header 40  | record | record | … | trailer 16          one append, one fdatasync
//! record   header 16  | head | … | salt 16 ‖ payload ‖ properties | zeroes to 8   (`record.rs`)
//! ```
//!
//! All numbers are little-endian. No file is touched here. The invariants: every byte of a batch
//! is covered, either by a CRC32C, or by being zero, or (bodies, so that they can be erased in
//! place) by the commitments that stand in the JSON of its entry or, for State records, before the
//! body. A batch begins with the marker of its segment, eight
//! random bytes that no payload can know, and ends with their complement, so that a search for
//! whole batches past a damaged one cannot be misled. Each batch and each segment repeats the
//! checksum of the one before it.

use crc32c::{crc32c, crc32c_append};

use super::fault::Damage;
use super::pack::pack;
use super::record::{
    ALIGNMENT, Cursor, FLAG_BODY, FLAG_COMMITMENT, FLAG_PACKED, FLAG_PROPERTIES, KIND_ENTRY,
    KIND_STATE, Records, commitment_of_all, states_commitments,
};
pub use super::record::{BodyView, RecordView, commitment_of, records};
use crate::evidence::tile::ENTRY_BYTES_MAX;
use crate::evidence::{Batch, RecordKind, RecordRef};

/// Length of the segment header, in bytes.
pub const SEGMENT_HEADER_BYTES: usize = 128;
/// Length of a batch header, in bytes.
pub const BATCH_HEADER_BYTES: usize = 40;
/// Length of a batch trailer, in bytes.
pub const BATCH_TRAILER_BYTES: usize = 16;
/// Longest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 8] = *b"AVOWSEG1";
const VERSION: u32 = 1;

/// Eight random bytes that begin every batch of one segment.
pub type Marker = [u8; 8];

/// Where the segment before ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Marker of the segment before; zeroes in the first one.
    pub marker: Marker,
    /// First byte past its last batch.
    pub end: u64,
    /// Checksum of its last batch.
    pub crc: u32,
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number in its name, from 0 without gaps.
    pub number: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Begins every batch.
    pub marker: Marker,
    /// SHA-256 of the origin of the log.
    pub origin: [u8; 32],
    /// Index of the first entry.
    pub first_index: u64,
    /// The segment before.
    pub link: Link,
}

/// What stands at the start of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The marker of the segment.
    pub marker: Marker,
    /// Length with header and trailer, a multiple of 8.
    pub bytes: u32,
    /// Number of records.
    pub records: u32,
    /// Index of the first entry, or of the next one if there is none.
    pub first_index: u64,
    /// Number of entries among the records.
    pub entries: u32,
    /// Counts the batches of the segment, from 0.
    pub number: u32,
    /// Checksum of the batch before in the segment; 0 in the first.
    pub previous_crc: u32,
    crc: u32,
}

/// Damage within a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBatch {
    /// From the start of the batch, in bytes.
    pub offset: usize,
    /// Entries of the batch before that place.
    pub entries_before: u64,
    /// What is wrong.
    pub damage: Damage,
}

/// Records on their way into a batch; the buffer is used again and again.
#[derive(Debug, Default)]
pub struct BatchBuffer {
    bytes: Vec<u8>,
    records: u32,
    entries: u32,
    crc_of_crcs: u32,
    /// The entry that is being pushed, packed.
    packed: Vec<u8>,
}

impl SegmentHeader {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.marker);
        bytes.extend_from_slice(&self.origin);
        bytes.extend_from_slice(&self.first_index.to_le_bytes());
        bytes.extend_from_slice(&self.link.marker);
        bytes.extend_from_slice(&self.link.end.to_le_bytes());
        bytes.extend_from_slice(&self.link.crc.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes.first_chunk().copied().unwrap_or([0; SEGMENT_HEADER_BYTES])
    }

    /// Reads a header. Its checksum covers everything, so that there is one kind of damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        Self::decode_fields(bytes).ok_or(Damage::SegmentHeader)
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let (covered, crc) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?.split_last_chunk()?;
        let mut cursor = Cursor(covered);
        let is_ours = crc32c(covered) == u32::from_le_bytes(*crc)
            && cursor.take::<8>()? == MAGIC
            && cursor.u32()? == VERSION
            && cursor.u32()? == 0;
        let header = Self {
            number: cursor.u64()?,
            bytes: cursor.u64()?,
            marker: cursor.take()?,
            origin: cursor.take()?,
            first_index: cursor.u64()?,
            link: Link { marker: cursor.take()?, end: cursor.u64()?, crc: cursor.u32()? },
        };
        is_ours.then_some(header)
    }
}

impl BatchHeader {
    fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES);
        bytes.extend_from_slice(&self.marker);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.first_index.to_le_bytes());
        bytes.extend_from_slice(&self.entries.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.previous_crc.to_le_bytes());
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes.first_chunk().copied().unwrap_or([0; BATCH_HEADER_BYTES])
    }

    /// Reads a batch header that begins with `marker`.
    pub fn decode(bytes: &[u8], marker: &Marker) -> Result<Self, Damage> {
        let bytes = bytes.first_chunk::<BATCH_HEADER_BYTES>().ok_or(Damage::NotABatch)?;
        if !bytes.starts_with(marker) {
            return Err(Damage::NotABatch);
        }
        let header = Self::decode_fields(bytes).ok_or(Damage::BatchHeader)?;
        let shortest = BATCH_HEADER_BYTES + BATCH_TRAILER_BYTES;
        let length = header.bytes as usize;
        if length < shortest || length > BATCH_BYTES_MAX || !length.is_multiple_of(ALIGNMENT) {
            return Err(Damage::BatchHeader);
        }
        Ok(header)
    }

    fn decode_fields(bytes: &[u8; BATCH_HEADER_BYTES]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let header = Self {
            marker: cursor.take()?,
            bytes: cursor.u32()?,
            records: cursor.u32()?,
            first_index: cursor.u64()?,
            entries: cursor.u32()?,
            number: cursor.u32()?,
            previous_crc: cursor.u32()?,
            crc: cursor.u32()?,
        };
        let covered = bytes.get(..BATCH_HEADER_BYTES - 4)?;
        (crc32c(covered) == header.crc).then_some(header)
    }
}

impl BatchBuffer {
    /// Forgets what is in it, keeps its memory, and gives back what a rare huge batch took.
    pub fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.bytes.resize(BATCH_HEADER_BYTES, 0);
        (self.records, self.entries, self.crc_of_crcs) = (0, 0, 0);
    }

    /// Appends the records of `batch`; the number of entries among them.
    pub fn push(&mut self, batch: &Batch) -> Result<u32, Damage> {
        let entries_before = self.entries;
        for record in batch.iter() {
            self.push_record(record)?;
        }
        Ok(self.entries - entries_before)
    }

    fn push_record(&mut self, record: RecordRef<'_>) -> Result<(), Damage> {
        let (kind, mut flags) = match record.kind {
            RecordKind::Entry => (KIND_ENTRY, 0),
            RecordKind::State => (KIND_STATE, 0),
        };
        if record.kind == RecordKind::Entry && record.head.len() > ENTRY_BYTES_MAX {
            return Err(Damage::EntryLength);
        }
        let mut covered = Vec::new();
        let mut body_bytes = 0;
        if let Some(body) = record.body {
            flags |= FLAG_BODY;
            body_bytes = body.bytes();
            let has_properties = !body.properties.is_empty();
            match record.kind {
                RecordKind::Entry if !states_commitments(record.head, has_properties) => {
                    return Err(Damage::NoCommitment);
                }
                RecordKind::Entry => {}
                RecordKind::State => {
                    flags |= FLAG_COMMITMENT;
                    let (salt, payload) = (&body.salt, &body.payload);
                    let commitment = commitment_of_all(salt, payload, &body.properties);
                    covered.extend_from_slice(&commitment);
                }
            }
            if has_properties {
                flags |= FLAG_PROPERTIES;
                covered.extend_from_slice(&(body.properties.len() as u32).to_le_bytes());
            }
        }
        let mut stored = record.head;
        if record.kind == RecordKind::Entry && pack(record.head, &mut self.packed) {
            flags |= FLAG_PACKED;
            stored = &self.packed;
        }
        if self.bytes.len() + stored.len() + body_bytes > BATCH_BYTES_MAX - 1024 {
            return Err(Damage::RecordLength);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[kind, flags, 0, 0]);
        self.bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(body_bytes as u32).to_le_bytes());
        let mut crc = crc32c(self.bytes.get(start..).unwrap_or_default());
        crc = crc32c_append(crc, stored);
        crc = crc32c_append(crc, &covered);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(stored);
        self.bytes.extend_from_slice(&covered);
        if let Some(body) = record.body {
            self.bytes.extend_from_slice(&body.salt);
            self.bytes.extend_from_slice(&body.payload);
            self.bytes.extend_from_slice(&body.properties);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.crc_of_crcs = crc32c_append(self.crc_of_crcs, &crc.to_le_bytes());
        self.records += 1;
        self.entries += u32::from(record.kind == RecordKind::Entry);
        Ok(())
    }

    /// Length of the batch once it is sealed, in bytes.
    pub fn sealed_bytes(&self) -> usize {
        self.bytes.len() + BATCH_TRAILER_BYTES
    }

    /// Number of entries.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Writes header and trailer around the records: the bytes of the batch and its checksum.
    pub fn seal(
        &mut self,
        marker: Marker,
        first_index: u64,
        number: u32,
        previous_crc: u32,
    ) -> (&[u8], u32) {
        let bytes = self.sealed_bytes() as u32;
        let (records, entries) = (self.records, self.entries);
        let mut header = BatchHeader {
            marker,
            bytes,
            records,
            first_index,
            entries,
            number,
            previous_crc,
            crc: 0,
        };
        let encoded = header.encode();
        header.crc = encoded.last_chunk().map_or(0, |crc| u32::from_le_bytes(*crc));
        self.bytes.iter_mut().zip(encoded).for_each(|(to, from)| *to = from);
        let (trailer, crc) = encode_trailer(&header, self.crc_of_crcs);
        self.bytes.extend_from_slice(&trailer);
        (&self.bytes, crc)
    }
}

/// Checks every byte of a batch but its bodies; its checksum, for the next batch to repeat.
/// `bytes` is the batch from its header to its trailer.
pub fn check_batch(header: &BatchHeader, bytes: &[u8]) -> Result<u32, BadBatch> {
    let mut records = Records::of(bytes);
    let (mut count, mut entries, mut crc_of_crcs) = (0u32, 0u64, 0);
    while !records.is_done() {
        let offset = records.offset;
        let bad = |damage| BadBatch { offset, entries_before: entries, damage };
        let record = records.read().map_err(bad)?;
        if record.actual_crc() != record.crc {
            return Err(bad(Damage::RecordCrc));
        }
        if !records.padding_is_zero(&record) {
            return Err(bad(Damage::Padding));
        }
        count = count.saturating_add(1);
        entries += u64::from(record.kind == RecordKind::Entry);
        crc_of_crcs = crc32c_append(crc_of_crcs, &record.crc.to_le_bytes());
    }
    let offset = records.offset;
    let bad = |damage| BadBatch { offset, entries_before: entries, damage };
    if count != header.records || entries != u64::from(header.entries) {
        return Err(bad(Damage::RecordLength));
    }
    let (trailer, crc) = encode_trailer(header, crc_of_crcs);
    if bytes.get(offset..) == Some(&trailer) { Ok(crc) } else { Err(bad(Damage::BatchTrailer)) }
}

/// Whether all of `bytes` are zero; the place of the first that is not.
pub fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let clean = chunks.iter().take_while(|chunk| **chunk == [0; 64]).count();
    let start = clean * 64;
    if clean == chunks.len() && rest.iter().all(|byte| *byte == 0) {
        return None;
    }
    bytes.iter().skip(start).position(|byte| *byte != 0).map(|place| start + place)
}

fn encode_trailer(header: &BatchHeader, crc_of_crcs: u32) -> ([u8; BATCH_TRAILER_BYTES], u32) {
    let crc = crc32c_append(crc32c(&header.crc.to_le_bytes()), &crc_of_crcs.to_le_bytes());
    let complement = (!u64::from_le_bytes(header.marker)).to_le_bytes();
    let mut trailer = [0; BATCH_TRAILER_BYTES];
    let parts = complement.into_iter().chain(crc.to_le_bytes()).chain(header.bytes.to_le_bytes());
    trailer.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    (trailer, crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Body, SALT_BYTES};
    use bytes::Bytes;

    const PLAIN: Body = Body {
        salt: [3; SALT_BYTES],
        payload: Bytes::from_static(b"21.5"),
        properties: Bytes::new(),
    };
    const WITH_PROPERTIES: Body = Body {
        salt: [4; SALT_BYTES],
        payload: Bytes::from_static(b"21.5"),
        properties: Bytes::from_static(&[1, 1, 1]),
    };

    fn text(commitment: [u8; 32]) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(commitment)
    }

    /// An entry that states the commitments of `body`.
    fn entry(body: &Body) -> String {
        let c = text(commitment_of(&body.salt, &body.payload));
        match body.properties.is_empty() {
            true => format!(r#"{{"v":1,"c":"{c}"}}"#),
            false => {
                let props = text(commitment_of(&body.salt, &body.properties));
                format!(r#"{{"v":1,"c":"{c}","props":"{props}"}}"#)
            }
        }
    }

    fn buffer(batch: &Batch) -> BatchBuffer {
        let mut buffer = BatchBuffer::default();
        buffer.clear();
        buffer.push(batch).unwrap();
        buffer
    }

    fn sealed() -> Vec<u8> {
        let mut batch = Batch::default();
        for body in [PLAIN, WITH_PROPERTIES] {
            let json = entry(&body);
            batch.push(RecordKind::Entry, Some(body.clone()), |head| {
                head.extend_from_slice(json.as_bytes());
            });
            batch.push(RecordKind::State, Some(body), |head| head.extend_from_slice(b"retain"));
        }
        batch.push(RecordKind::State, None, |head| head.extend_from_slice(b""));
        let mut buffer = buffer(&batch);
        assert_eq!(buffer.entries(), 2);
        buffer.seal([7; 8], 5, 0, 0).0.to_vec()
    }

    fn accepted(bytes: &[u8]) -> bool {
        let Ok(header) = BatchHeader::decode(bytes, &[7; 8]) else { return false };
        header.bytes as usize == bytes.len()
            && (header.first_index, header.number, header.previous_crc) == (5, 0, 0)
            && check_batch(&header, bytes).is_ok()
            && records(bytes).all(|record| record.check_body().is_ok())
    }

    #[test]
    fn a_batch_reads_back_and_no_bit_of_it_can_change() {
        let batch = sealed();
        assert!(accepted(&batch));
        assert_eq!(records(&batch).count(), 5);
        let bodies: Vec<_> = records(&batch).filter_map(|record| record.body).collect();
        for (read, written) in bodies.iter().zip([PLAIN, PLAIN, WITH_PROPERTIES, WITH_PROPERTIES]) {
            assert_eq!(read.salt, &written.salt);
            assert_eq!((read.payload, read.properties), (&*written.payload, &*written.properties));
        }
        for place in 0..batch.len() {
            for bit in 0..8 {
                let mut bad = batch.clone();
                bad[place] ^= 1 << bit;
                assert!(!accepted(&bad), "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_segment_header_reads_back_and_no_bit_of_it_can_change() {
        let header = SegmentHeader {
            number: 3,
            bytes: 64 << 20,
            marker: [1; 8],
            origin: [2; 32],
            first_index: 77,
            link: Link { marker: [4; 8], end: 4096, crc: 5 },
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for place in 0..bytes.len() {
            let mut bad = bytes;
            bad[place] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {place}");
        }
    }

    /// The bytes of both kinds of body, with what stands around them.
    #[test]
    fn a_body_without_properties_costs_no_byte_for_them() {
        let record_of = |body: Body| {
            let mut batch = Batch::default();
            let head = entry(&body);
            batch.push(RecordKind::Entry, Some(body), |out| out.extend_from_slice(head.as_bytes()));
            let bytes = buffer(&batch).bytes.split_off(BATCH_HEADER_BYTES);
            let stored = usize::from(bytes[4]);
            assert!(stored < head.len(), "an entry is packed");
            (bytes.split_at(16).0.to_vec(), bytes.split_at(16 + stored).1.to_vec())
        };
        let (header, behind_head) = record_of(PLAIN);
        assert_eq!(header[..12], [1, 9, 0, 0, 51, 0, 0, 0, 20, 0, 0, 0]);
        assert_eq!(behind_head[..20], [&[3; 16][..], b"21.5"].concat());
        let (header, behind_head) = record_of(WITH_PROPERTIES);
        assert_eq!(header[..12], [1, 13, 0, 0, 95, 0, 0, 0, 23, 0, 0, 0]);
        let expected = [&[3, 0, 0, 0][..], &[4; 16], b"21.5", &[1, 1, 1]].concat();
        assert_eq!(behind_head[..27], expected);
    }

    #[test]
    fn an_entry_with_a_body_must_state_its_commitments() {
        for (body, head) in [
            (PLAIN, r#"{"topic":"\"c\":\"x"}"#),
            (WITH_PROPERTIES, r#"{"topic":"\"props\":\"x","c":""}"#),
        ] {
            let mut batch = Batch::default();
            batch.push(RecordKind::Entry, Some(body), |out| out.extend_from_slice(head.as_bytes()));
            let mut buffer = BatchBuffer::default();
            buffer.clear();
            assert_eq!(buffer.push(&batch), Err(Damage::NoCommitment));
        }
    }

    #[test]
    fn the_first_nonzero_byte_is_found_wherever_it_is() {
        for length in [1usize, 63, 64, 65, 200] {
            assert_eq!(first_nonzero(&vec![0; length]), None);
            for place in 0..length {
                let mut bytes = vec![0; length];
                bytes[place] = 1;
                assert_eq!(first_nonzero(&bytes), Some(place));
            }
        }
    }
}

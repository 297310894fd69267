//! What the core hands to the writer: records that must reach the disk together.

use bytes::Bytes;

/// Length of the salt of a commitment, in bytes.
pub const SALT_BYTES: usize = 16;

/// Names one batch of one shard; the writer gives it back in its [`super::Synced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// The shard that made the batch.
    pub shard: u16,
    /// Counts the batches of that shard, from 0, without gaps.
    pub number: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// A log entry: one JSON object, a leaf of the tree, numbered by the sequencer.
    Entry,
    /// A change of Session State or of a retained message: durable, ordered with the entries,
    /// but no leaf.
    State,
}

/// The part of a record that stands outside the tree and can be erased in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The salt of the commitments in the entry: `c = SHA-256(salt ‖ payload)` and, if there are
    /// properties, `props = SHA-256(salt ‖ properties)`.
    pub salt: [u8; SALT_BYTES],
    /// The Application Message.
    pub payload: Bytes,
    /// What goes to subscribers beside it, as [`crate::mqtt::encode_forwarded`] writes it; empty
    /// in nearly every message.
    pub properties: Bytes,
}

impl Body {
    /// Bytes of it on disk.
    pub fn bytes(&self) -> usize {
        SALT_BYTES + self.payload.len() + self.properties.len()
    }

    /// Whether it was erased: replaced by zeroes. No salt is.
    pub fn is_erased(&self) -> bool {
        is_erased(&self.salt, &self.payload, &self.properties)
    }
}

/// Whether the parts of a body are all zeroes: then it was erased. No salt is by chance.
pub fn is_erased(salt: &[u8; SALT_BYTES], payload: &[u8], properties: &[u8]) -> bool {
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    is_zero(salt) && is_zero(payload) && is_zero(properties)
}

/// One record of a batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The bytes that are hashed and covered by the record's CRC.
    pub head: &'a [u8],
    /// What is covered by its commitment alone.
    pub body: Option<&'a Body>,
}

/// Records in order, their heads in one buffer.
#[derive(Debug, Default)]
pub struct Batch {
    heads: Vec<u8>,
    records: Vec<(RecordKind, usize, Option<Body>)>,
    body_bytes: usize,
}

impl Batch {
    /// Appends one record, whose head is what `write` appends to the buffer.
    pub fn push(&mut self, kind: RecordKind, body: Option<Body>, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.heads);
        self.body_bytes += body.as_ref().map_or(0, Body::bytes);
        self.records.push((kind, self.heads.len(), body));
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let starts = std::iter::once(0).chain(self.records.iter().map(|(_, end, _)| *end));
        self.records.iter().zip(starts).map(|((kind, end, body), start)| RecordRef {
            kind: *kind,
            head: self.heads.get(start..*end).unwrap_or_default(),
            body: body.as_ref(),
        })
    }

    /// The head of the entry that has `after` entries behind it.
    pub fn entry_before(&self, after: u64) -> Option<&[u8]> {
        let after = usize::try_from(after).ok()?;
        let mut entries = self
            .records
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, (kind, ..))| *kind == RecordKind::Entry);
        let (at, (_, end, _)) = entries.nth(after)?;
        let start = at.checked_sub(1).and_then(|before| self.records.get(before));
        self.heads.get(start.map_or(0, |(_, start, _)| *start)..*end)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of heads and bodies: what the backlog bound counts.
    pub fn bytes(&self) -> usize {
        self.heads.len() + self.body_bytes
    }
}

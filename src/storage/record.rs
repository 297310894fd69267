//! One record of a batch: where its parts lie, and what covers each of them.
//!
//! ```text
//! record   kind 1 | flags 1 | zero 2 | head length 4 | body length 4 | CRC32C 4
//!          | head | commitment 32 (State with a body only) | properties length 4 (if flagged)
//!          | salt 16 ‖ payload ‖ properties | zeroes to 8
//!
//! flags    1 it has a body | 2 a commitment stands before that | 4 properties stand in it
//!          | 8 the head is an entry in the form of `pack.rs`
//! ```
//!
//! The CRC covers everything before the body but itself. The body is covered by commitments
//! alone, so that it can be erased in place: by those in the JSON of an entry (`c` of the payload,
//! `props` of the properties), or, for State records, by the one before the body, which is of all
//! behind the salt. Properties are those of the Application Message, in the encoding of
//! [`crate::mqtt::encode_forwarded`]; a record without any has neither the flag nor the length. The
//! invariant: no length is trusted, and a view lies within its batch.

use std::borrow::Cow;

use aws_lc_rs::digest::{Context, SHA256};
use crc32c::{crc32c, crc32c_append};

use super::fault::Damage;
use super::pack::unpack;
use super::segment::{BATCH_HEADER_BYTES, BATCH_TRAILER_BYTES};
use crate::evidence::{RecordKind, SALT_BYTES, is_erased};

/// Length of a record header, in bytes.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// Length of a commitment, in bytes.
pub(super) const COMMITMENT_BYTES: usize = 32;

pub(super) const ALIGNMENT: usize = 8;
pub(super) const KIND_ENTRY: u8 = 1;
pub(super) const KIND_STATE: u8 = 2;
pub(super) const FLAG_BODY: u8 = 1;
pub(super) const FLAG_COMMITMENT: u8 = 2;
pub(super) const FLAG_PROPERTIES: u8 = 4;
pub(super) const FLAG_PACKED: u8 = 8;
/// Length of the length of the properties, in bytes.
pub(super) const PROPERTIES_LENGTH_BYTES: usize = 4;

/// One record, as it stands in a batch.
#[derive(Clone, Debug)]
pub struct RecordView<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// From the start of the batch, in bytes.
    pub offset: usize,
    /// The entry or the change of state. Of an entry, the bytes that are hashed.
    pub head: Cow<'a, [u8]>,
    /// What the commitment covers.
    pub body: Option<BodyView<'a>>,
    /// The head as it stands in the batch, and whether it is packed there.
    stored: (&'a [u8], bool),
    commitment: Option<&'a [u8; COMMITMENT_BYTES]>,
    pub(super) crc: u32,
}

/// The body of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyView<'a> {
    /// The salt of the commitment.
    pub salt: &'a [u8; SALT_BYTES],
    /// The Application Message.
    pub payload: &'a [u8],
    /// Its properties; mostly empty.
    pub properties: &'a [u8],
}

impl BodyView<'_> {
    /// Whether it was erased: replaced by zeroes.
    pub fn is_erased(&self) -> bool {
        is_erased(self.salt, self.payload, self.properties)
    }

    fn bytes(&self) -> usize {
        SALT_BYTES + self.payload.len() + self.properties.len()
    }
}

/// The records of a batch that [`check_batch`] accepted.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = RecordView<'_>> {
    let mut records = Records::of(bytes);
    std::iter::from_fn(move || if records.is_done() { None } else { records.read().ok() })
}

/// `SHA-256(salt ‖ payload)`: what an entry states in place of a payload, or of properties.
pub fn commitment_of(salt: &[u8; SALT_BYTES], payload: &[u8]) -> [u8; COMMITMENT_BYTES] {
    commitment_of_all(salt, payload, &[])
}

/// `SHA-256(salt ‖ payload ‖ properties)`: what stands before the body of a State record.
pub(super) fn commitment_of_all(
    salt: &[u8; SALT_BYTES],
    payload: &[u8],
    properties: &[u8],
) -> [u8; COMMITMENT_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(payload);
    context.update(properties);
    context.finish().as_ref().first_chunk().copied().unwrap_or([0; COMMITMENT_BYTES])
}

impl RecordView<'_> {
    /// Where the body stands, from the start of the batch, and how long it is, both in bytes.
    pub fn body_span(&self) -> Option<(usize, usize)> {
        let body = self.body?;
        let properties = if body.properties.is_empty() { 0 } else { PROPERTIES_LENGTH_BYTES };
        let commitment = self.commitment.map_or(0, |commitment| commitment.len());
        let before = RECORD_HEADER_BYTES + self.stored.0.len() + commitment + properties;
        Some((self.offset + before, body.bytes()))
    }

    /// Checks the body against its commitments; without a body there is nothing to check. One that
    /// was erased fits: whether an entry says so, [`super::erasure`] asks.
    pub fn check_body(&self) -> Result<(), Damage> {
        let Some(BodyView { salt, payload, properties }) = self.body else { return Ok(()) };
        if is_erased(salt, payload, properties) {
            return Ok(());
        }
        let fits = match (self.commitment, self.kind) {
            (Some(stated), _) => commitment_of_all(salt, payload, properties) == *stated,
            (None, RecordKind::Entry) => {
                let stated = Stated::of(&self.head).ok_or(Damage::NoCommitment)?;
                let props = (!properties.is_empty()).then(|| commitment_of(salt, properties));
                commitment_of(salt, payload) == stated.c && props == stated.props
            }
            (None, RecordKind::State) => return Err(Damage::NoCommitment),
        };
        if fits { Ok(()) } else { Err(Damage::Commitment) }
    }

    /// The checksum that the record should have.
    pub(super) fn actual_crc(&self) -> u32 {
        let body_bytes = self.body.map_or(0, |body| body.bytes()) as u32;
        let properties_bytes = self.body.map_or(0, |body| body.properties.len()) as u32;
        let (kind, mut flags) = match self.kind {
            RecordKind::Entry => (KIND_ENTRY, 0),
            RecordKind::State => (KIND_STATE, 0),
        };
        flags |= if self.body.is_some() { FLAG_BODY } else { 0 };
        flags |= if self.commitment.is_some() { FLAG_COMMITMENT } else { 0 };
        flags |= if properties_bytes > 0 { FLAG_PROPERTIES } else { 0 };
        let (stored, is_packed) = self.stored;
        flags |= if is_packed { FLAG_PACKED } else { 0 };
        let mut crc = crc32c(&[kind, flags, 0, 0]);
        crc = crc32c_append(crc, &(stored.len() as u32).to_le_bytes());
        crc = crc32c_append(crc, &body_bytes.to_le_bytes());
        crc = crc32c_append(crc, stored);
        if let Some(commitment) = self.commitment {
            crc = crc32c_append(crc, commitment);
        }
        match properties_bytes {
            0 => crc,
            bytes => crc32c_append(crc, &bytes.to_le_bytes()),
        }
    }
}

/// Walks the records of a batch; trusts no length.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    pub(super) offset: usize,
    end: usize,
}

impl<'a> Records<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let end = bytes.len().saturating_sub(BATCH_TRAILER_BYTES);
        Self { bytes, offset: BATCH_HEADER_BYTES, end }
    }

    pub(super) fn is_done(&self) -> bool {
        self.offset >= self.end
    }

    /// The record at the present place; goes past it and its padding.
    pub(super) fn read(&mut self) -> Result<RecordView<'a>, Damage> {
        self.read_fields().ok_or(Damage::RecordLength)
    }

    fn read_fields(&mut self) -> Option<RecordView<'a>> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..self.end)?;
        let mut cursor = Cursor(rest);
        let [kind, flags, zero_a, zero_b] = cursor.take()?;
        let kind = match kind {
            KIND_ENTRY => RecordKind::Entry,
            KIND_STATE => RecordKind::State,
            _ => return None,
        };
        if flags & !(FLAG_BODY | FLAG_COMMITMENT | FLAG_PROPERTIES | FLAG_PACKED) != 0
            || zero_a != 0
            || zero_b != 0
        {
            return None;
        }
        let head_bytes = cursor.u32()? as usize;
        let body_bytes = cursor.u32()? as usize;
        let crc = cursor.u32()?;
        let stored = cursor.slice(head_bytes)?;
        let is_packed = flags & FLAG_PACKED != 0;
        let head = match (is_packed, kind) {
            (false, _) => Cow::Borrowed(stored),
            (true, RecordKind::Entry) => Cow::Owned(unpack(stored)?),
            (true, RecordKind::State) => return None,
        };
        let commitment = match flags & FLAG_COMMITMENT != 0 {
            true => Some(cursor.slice(COMMITMENT_BYTES)?.first_chunk()?),
            false => None,
        };
        let properties_bytes = match flags & FLAG_PROPERTIES != 0 {
            // None has no flag either, so that there is one way to say so.
            true => Some(cursor.u32()? as usize).filter(|bytes| *bytes > 0)?,
            false => 0,
        };
        let body = match (flags & FLAG_BODY != 0, body_bytes + properties_bytes) {
            (false, 0) => None,
            (false, _) => return None,
            (true, _) => {
                let (salt, rest) = cursor.slice(body_bytes)?.split_first_chunk()?;
                let payload_bytes = rest.len().checked_sub(properties_bytes)?;
                let (payload, properties) = rest.split_at_checked(payload_bytes)?;
                Some(BodyView { salt, payload, properties })
            }
        };
        let used = rest.len() - cursor.0.len();
        self.offset = offset + used.next_multiple_of(ALIGNMENT);
        (self.offset <= self.end).then_some(())?;
        let stored = (stored, is_packed);
        Some(RecordView { kind, offset, head, stored, body, commitment, crc })
    }

    /// Whether only zeroes stand between `record` and the next.
    pub(super) fn padding_is_zero(&self, record: &RecordView<'_>) -> bool {
        let used = RECORD_HEADER_BYTES
            + record.stored.0.len()
            + record.commitment.map_or(0, |commitment| commitment.len())
            + record.body.map_or(0, |body| match body.properties.len() {
                0 => body.bytes(),
                _ => PROPERTIES_LENGTH_BYTES + body.bytes(),
            });
        let padding = self.bytes.get(record.offset + used..self.offset);
        padding.is_some_and(|padding| padding.iter().all(|byte| *byte == 0))
    }
}

/// The commitments that the JSON of an entry states.
struct Stated {
    c: [u8; COMMITMENT_BYTES],
    props: Option<[u8; COMMITMENT_BYTES]>,
}

impl Stated {
    fn of(json: &[u8]) -> Option<Self> {
        use std::borrow::Cow;
        #[derive(serde::Deserialize)]
        struct Committed<'a> {
            #[serde(borrow)]
            c: Cow<'a, str>,
            #[serde(borrow, default)]
            props: Option<Cow<'a, str>>,
        }
        let entry: Committed<'_> = serde_json::from_slice(json).ok()?;
        let props = match entry.props {
            Some(text) => Some(decode_commitment(&text)?),
            None => None,
        };
        Some(Self { c: decode_commitment(&entry.c)?, props })
    }
}

fn decode_commitment(text: &str) -> Option<[u8; COMMITMENT_BYTES]> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut commitment = [0; COMMITMENT_BYTES];
    let length = URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut commitment).ok()?;
    (length == COMMITMENT_BYTES).then_some(commitment)
}

/// A quick look, for the writer: whether the commitments of a body stand in the entry at all. A
/// quotation mark inside a JSON string is escaped, so that no topic can imitate a field.
pub(super) fn states_commitments(json: &[u8], has_properties: bool) -> bool {
    let states = |field: &[u8]| json.windows(field.len()).rev().any(|window| window == field);
    states(b"\"c\":\"") && (!has_properties || states(b"\"props\":\""))
}

/// Takes numbers off the front of some bytes.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

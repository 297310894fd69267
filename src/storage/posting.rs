//! What stands in the query index, in bytes: a row for each block and a number for each value.
//!
//! ```text
//! m                → format 4 | entries applied 8 | log 8 | numbers given 4
//! b ‖ block 8      → segment 8 | offset 8 | earliest 8 | latest 8 | numbers of its values 4 each
//! v ‖ field ‖ text → number 4
//! ```
//!
//! Numbers are big-endian; those of a block ascend. A block is one row at the end of the table,
//! so that filling the index touches one page and not one for each name: what an index that grows
//! costs in memory is what it writes to. No database in here. The invariant: bytes that are not
//! of this form decode to nothing, and the index is then built again.

use super::log::Place;

/// Where [`Meta`] stands.
pub(super) const META_KEY: &[u8] = b"m";
/// What the key of every block begins with.
pub(super) const BLOCK_PREFIX: &[u8] = b"b";

/// Differs from format to format and from one length of a block to another.
const FORMAT: u32 = 3;

/// How far the index has come, and over which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Entries whose blocks are in the index.
    pub(super) applied: u64,
    /// Names the log.
    pub(super) log: [u8; 8],
    /// Numbers given to values: the next one.
    pub(super) numbers: u32,
}

/// One block: where it stands, which times it spans, which values occur in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the batch of its first entry stands.
    pub(super) place: Place,
    /// Earliest time of an entry, in nanoseconds since 1970.
    pub(super) earliest: u64,
    /// Latest time of an entry.
    pub(super) latest: u64,
    /// Numbers of the values, ascending.
    pub(super) values: Vec<u32>,
}

/// The kinds of value that have numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// Who.
    Who,
    /// The type of entry.
    Kind,
    /// What was decided.
    Result,
}

impl Field {
    /// In the order of [`super::block::Filling::values`].
    pub(super) const ALL: [Self; 3] = [Self::Who, Self::Kind, Self::Result];
}

/// Where the number of `text` stands.
pub(super) fn value_key(field: Field, text: &str) -> Vec<u8> {
    let field = match field {
        Field::Who => b'w',
        Field::Kind => b'k',
        Field::Result => b'r',
    };
    [&[b'v', field], text.as_bytes()].concat()
}

/// Where block `number` stands.
pub(super) fn block_key(number: u64) -> Vec<u8> {
    [BLOCK_PREFIX, &number.to_be_bytes()].concat()
}

/// The block that stands at `key`.
pub(super) fn block_number(key: &[u8]) -> Option<u64> {
    key.strip_prefix(BLOCK_PREFIX)?.try_into().ok().map(u64::from_be_bytes)
}

/// The number of a value.
pub(super) fn value_number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

impl Meta {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = FORMAT.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.applied.to_be_bytes());
        bytes.extend_from_slice(&self.log);
        bytes.extend_from_slice(&self.numbers.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first_chunk()?;
        let (applied, rest) = rest.split_first_chunk()?;
        let (log, rest) = rest.split_first_chunk()?;
        let meta =
            Self { applied: u64::from_be_bytes(*applied), log: *log, numbers: value_number(rest)? };
        (u32::from_be_bytes(*format) == FORMAT).then_some(meta)
    }
}

impl Block {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Place { segment, offset } = self.place;
        let mut bytes = Vec::with_capacity(32 + 4 * self.values.len());
        for number in [segment, offset, self.earliest, self.latest] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for value in &self.values {
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, values) = bytes.split_at_checked(32)?;
        let (numbers, []) = numbers.as_chunks::<8>() else { return None };
        let &[segment, offset, earliest, latest] = numbers else { return None };
        let (values, []) = values.as_chunks::<4>() else { return None };
        Some(Self {
            place: Place {
                segment: u64::from_be_bytes(segment),
                offset: u64::from_be_bytes(offset),
            },
            earliest: u64::from_be_bytes(earliest),
            latest: u64::from_be_bytes(latest),
            values: values.iter().copied().map(u32::from_be_bytes).collect(),
        })
    }

    /// Whether every one of `numbers` occurs in it.
    pub(super) fn holds(&self, numbers: &[u32]) -> bool {
        numbers.iter().all(|number| self.values.binary_search(number).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_decode_to_what_was_encoded_and_nothing_else_does() {
        let meta = Meta { applied: 16_384, log: *b"log-name", numbers: 7 };
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        let mut older = meta.encode();
        older[3] = 2;
        assert_eq!(Meta::decode(&older), None);
        let place = Place { segment: 1, offset: 2 };
        let block = Block { place, earliest: 3, latest: 4, values: vec![1, 5, 9] };
        let bytes = block.encode();
        assert_eq!(Block::decode(&bytes), Some(block.clone()));
        for cut in [0, 31, 33, bytes.len() - 1] {
            assert_eq!(Block::decode(&bytes[..cut]), None, "{cut}");
        }
        assert!(block.holds(&[1, 9]) && !block.holds(&[1, 2]) && block.holds(&[]));
        assert_eq!(block_number(&block_key(77)), Some(77));
        assert_eq!(block_number(META_KEY), None);
    }
}

//! What stands in the query index, in bytes: two rows for each block and a number for each value.
//!
//! ```text
//! m                → format 4 | entries applied 8 | log 8 | numbers given 4
//! b ‖ block 8      → segment 8 | offset 8 | earliest 8 | latest 8 | numbers of its values 4 each
//! p ‖ block 8      → bytes of entries 8 | of payloads 8 | 64 × (segment 8 | offset 8) | postings
//! v ‖ field ‖ text → number 4
//! posting          = entries that have the value | length of the list in bytes | list
//! list             = for each of these entries its distance from the one before, from 0; empty
//!                    where more than LISTED_MAX have it: those are found by reading the block
//! ```
//!
//! Numbers are big-endian, those of a posting LEB128; the numbers of a block ascend, and its postings
//! stand in the same order. Both rows stand at the end of their part of the table, so that filling
//! the index touches two pages and not one for each name: what an index that grows costs in memory is
//! what it writes to. No database in here. The invariant: bytes that are not of this form decode to
//! nothing, and the index is then built again, or the block looked through.

use super::block::{STRETCH_ENTRIES, STRETCHES};
use super::facts::Facts;
use super::log::Place;

/// Where [`Meta`] stands.
pub(super) const META_KEY: &[u8] = b"m";
/// Most entries of a block that a posting lists.
pub(super) const LISTED_MAX: usize = 512;

/// Differs from format to format and from one length of a block to another.
const FORMAT: u32 = 4;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// Where the batch of its first entry stands.
    pub(super) place: Place,
    /// Earliest time of an entry, in nanoseconds since 1970.
    pub(super) earliest: u64,
    /// Latest time of an entry.
    pub(super) latest: u64,
    /// Numbers of the values, ascending.
    values: &'a [[u8; 4]],
}

/// Where in a block its values occur.
#[derive(Clone, Copy, Debug)]
pub(super) struct Postings<'a> {
    places: &'a [u8],
    lists: &'a [u8],
}

/// Where one value occurs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Posting {
    /// How many entries have it.
    pub(super) count: u64,
    /// Which, counted from the beginning of the block; `None` if they are too many to list.
    pub(super) entries: Option<Vec<u16>>,
}

/// The kinds of value that have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Who.
    Who,
    /// The type of entry.
    Kind,
    /// What was decided.
    Result,
    /// Why.
    Why,
    /// The level of evidence.
    Level,
    /// The Topic Name.
    Topic,
    /// What an operator's act was about.
    Subject,
}

impl Field {
    /// In the order of [`super::block::Filling::values`].
    pub(super) const ALL: [Self; 7] =
        [Self::Who, Self::Kind, Self::Result, Self::Why, Self::Level, Self::Topic, Self::Subject];

    /// The value of the field in an entry.
    pub(super) fn of<'f>(self, facts: &'f Facts<'_>) -> Option<&'f str> {
        match self {
            Self::Who => facts.who.as_deref(),
            Self::Kind => Some(&facts.kind),
            Self::Result => facts.result.as_deref(),
            Self::Why => facts.why.as_deref(),
            Self::Level => facts.lvl.as_deref(),
            Self::Topic => facts.topic.as_deref(),
            Self::Subject => facts.subject.as_deref(),
        }
    }

    /// The number that a block has instead of those of its values, where some are not listed: it may
    /// hold any value of the field.
    pub(super) const fn open_number(self) -> u32 {
        u32::MAX - self as u32
    }
}

/// The first number that no value is given.
pub(super) const NUMBERS_END: u32 = u32::MAX - 16;

/// Where the number of `text` stands.
pub(super) fn value_key(field: Field, text: &str) -> Vec<u8> {
    let field = match field {
        Field::Who => b'w',
        Field::Kind => b'k',
        Field::Result => b'r',
        Field::Why => b'y',
        Field::Level => b'l',
        Field::Topic => b't',
        Field::Subject => b's',
    };
    [&[b'v', field], text.as_bytes()].concat()
}

/// The text of a value whose number stands at `key`.
pub(super) fn value_text(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(2..)?).ok()
}

/// Where block `number` stands.
pub(super) fn block_key(number: u64) -> Vec<u8> {
    [&b"b"[..], &number.to_be_bytes()].concat()
}

/// Where the postings of block `number` stand.
pub(super) fn postings_key(number: u64) -> Vec<u8> {
    [&b"p"[..], &number.to_be_bytes()].concat()
}

/// The number of a value.
pub(super) fn value_number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
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

/// The row of a block; `values` ascend.
pub(super) fn encode_block(place: Place, earliest: u64, latest: u64, values: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32 + 4 * values.len());
    for number in [place.segment, place.offset, earliest, latest] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    for value in values {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    bytes
}

impl<'a> Block<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
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
            values,
        })
    }

    /// The numbers of the values, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.values.iter().map(|number| u32::from_be_bytes(*number))
    }

    /// Where among the values `number` stands.
    pub(super) fn position(&self, number: u32) -> Option<usize> {
        // Big-endian bytes compare as the numbers do.
        self.values.binary_search(&number.to_be_bytes()).ok()
    }
}

/// The row of a block's postings: `lists` in the order of its values, `places` of its stretches.
pub(super) fn encode_postings<'l>(
    (entry_bytes, payload_bytes): (u64, u64),
    places: &[Place],
    lists: impl Iterator<Item = &'l [u16]>,
) -> Vec<u8> {
    let mut bytes = entry_bytes.to_be_bytes().to_vec();
    bytes.extend_from_slice(&payload_bytes.to_be_bytes());
    let last = places.last().copied().unwrap_or_default();
    for stretch in 0..STRETCHES {
        let place = places.get(stretch).copied().unwrap_or(last);
        bytes.extend_from_slice(&place.segment.to_be_bytes());
        bytes.extend_from_slice(&place.offset.to_be_bytes());
    }
    let mut list = Vec::new();
    for entries in lists {
        list.clear();
        if entries.len() <= LISTED_MAX {
            let mut before = 0;
            for entry in entries {
                push_varint(&mut list, u64::from(entry - before));
                before = *entry;
            }
        }
        push_varint(&mut bytes, entries.len() as u64);
        push_varint(&mut bytes, list.len() as u64);
        bytes.extend_from_slice(&list);
    }
    bytes
}

impl<'a> Postings<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (_, rest) = bytes.split_at_checked(16)?;
        let (places, lists) = rest.split_at_checked(16 * STRETCHES)?;
        Some(Self { places, lists })
    }

    /// Where the batch stands that holds the first entry of the stretch of entry `entry`, or an
    /// earlier batch.
    pub(super) fn place_before(&self, entry: u16) -> Option<Place> {
        let (places, _) = self.places.as_chunks::<16>();
        let place = places.get(usize::from(entry) / STRETCH_ENTRIES)?;
        let (segment, offset) = place.split_first_chunk()?;
        let offset = u64::from_be_bytes(offset.try_into().ok()?);
        Some(Place { segment: u64::from_be_bytes(*segment), offset })
    }

    /// The postings, in the order of the block's values; ends early where the bytes are none.
    pub(super) fn each(&self) -> impl Iterator<Item = Posting> + use<'a> {
        self.raw().map(|(count, list)| Posting { count, entries: read_list(count, list) })
    }

    /// The one at the place `at` among the block's values.
    pub(super) fn at(&self, at: usize) -> Option<Posting> {
        let (count, list) = self.raw().nth(at)?;
        Some(Posting { count, entries: read_list(count, list) })
    }

    fn raw(&self) -> impl Iterator<Item = (u64, &'a [u8])> + use<'a> {
        let mut rest = self.lists;
        std::iter::from_fn(move || {
            let count = take_varint(&mut rest)?;
            let length = usize::try_from(take_varint(&mut rest)?).ok()?;
            let (list, after) = rest.split_at_checked(length)?;
            rest = after;
            Some((count, list))
        })
    }
}

fn read_list(count: u64, mut list: &[u8]) -> Option<Vec<u16>> {
    if count > LISTED_MAX as u64 {
        return None;
    }
    let mut entries = Vec::new();
    let mut at = 0_u64;
    while !list.is_empty() {
        at = at.checked_add(take_varint(&mut list)?)?;
        entries.push(u16::try_from(at).ok()?);
    }
    (entries.len() as u64 == count).then_some(entries)
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..=28).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_decode_to_what_was_encoded_and_nothing_else_does() {
        let meta = Meta { applied: 16_384, log: *b"log-name", numbers: 7 };
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
        let mut older = meta.encode();
        older[3] = 3;
        assert_eq!(Meta::decode(&older), None);
        let place = Place { segment: 1, offset: 2 };
        let bytes = encode_block(place, 3, 4, &[1, 5, 900]);
        let block = Block::decode(&bytes).unwrap();
        assert_eq!((block.place, block.earliest, block.latest), (place, 3, 4));
        assert_eq!(block.numbers().collect::<Vec<_>>(), [1, 5, 900]);
        for cut in [0, 31, 33, bytes.len() - 1] {
            assert_eq!(Block::decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!([1, 5, 900].map(|n| block.position(n)), [Some(0), Some(1), Some(2)]);
        assert_eq!((block.position(2), block.position(901)), (None, None));
        assert!(block_key(255) < block_key(256), "in the order of the log");
        assert_eq!(value_text(&value_key(Field::Topic, "a/é")), Some("a/é"));
    }

    #[test]
    fn postings_list_what_is_rare_and_count_what_is_not() {
        let places = [Place { segment: 0, offset: 128 }, Place { segment: 1, offset: 1 << 40 }];
        let rare = [0, 1, 300, 8191];
        let frequent: Vec<u16> = (0..=512).collect();
        let most: Vec<u16> = (0..512).map(|n| n * 16).collect();
        let lists = [&rare[..], &frequent[..], &[], &most[..]];
        let bytes = encode_postings((9, 10), &places, lists.into_iter());
        let postings = Postings::decode(&bytes).unwrap();
        assert_eq!(postings.place_before(127), Some(places[0]));
        assert_eq!(postings.place_before(128), Some(places[1]));
        assert_eq!(postings.place_before(8191), Some(places[1]), "the last that is known");
        let all: Vec<Posting> = postings.each().collect();
        assert_eq!(all[0], Posting { count: 4, entries: Some(rare.to_vec()) });
        assert_eq!(all[1], Posting { count: 513, entries: None });
        assert_eq!(all[2], Posting { count: 0, entries: Some(Vec::new()) });
        assert_eq!(all[3], Posting { count: 512, entries: Some(most) });
        assert_eq!((postings.at(3).as_ref(), postings.at(4)), (all.get(3), None));
        assert!(Postings::decode(&bytes[..16 * 64 + 15]).is_none());
        let cut = Postings::decode(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((cut.each().count(), cut.at(3)), (3, None));
    }
}

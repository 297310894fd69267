//! Which bodies were erased, as entries say it.
//!
//! ```text
//! {"type":"admin",  …,"act":"erase.begin","subject":"device/press-7","indices":"5-9,12","reason":"…"}
//! {"type":"erased", …,"act":"body.erase", "subject":"device/press-7","indices":"5-9,12","reason":"…"}
//! ```
//!
//! The first stands on disk before anything is erased, the second when nothing of it is left. A body
//! belongs to the entry that commits to it; that of a Will to the `connect` entry it came with, until
//! it is published. The invariant: ranges ascend, and none touches the next.

use std::borrow::Cow;
use std::fmt;

/// Longest list of ranges in one entry, in bytes: an entry has at most 65,535.
pub const INDICES_TEXT_BYTES_MAX: usize = 32 * 1024;
/// The act of the entry before.
pub const ERASE_BEGIN_ACT: &str = "erase.begin";
/// The act of the entry after.
pub const ERASE_ACT: &str = "body.erase";

/// Indices of entries, as ranges with both ends in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRanges(Vec<(u64, u64)>);

/// What an entry says of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whether it is done; if not, it begins.
    pub is_done: bool,
    /// Whose bodies: a peer, a pseudonym of a subject, or indices.
    pub subject: String,
    /// Which.
    pub indices: IndexRanges,
    /// Why.
    pub reason: String,
}

impl IndexRanges {
    /// These indices, in any order.
    pub fn of(indices: impl IntoIterator<Item = u64>) -> Self {
        Self::of_ranges(indices.into_iter().map(|index| (index, index)))
    }

    /// These ranges, in any order.
    pub fn of_ranges(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// Reads what [`fmt::Display`] writes: `5-9,12`. `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_plain)
        };
        let range = |text: &str| match text.split_once('-') {
            Some((first, last)) => Some((number(first)?, number(last)?)),
            None => number(text).map(|index| (index, index)),
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let read = Self::of_ranges(ranges?);
        (read.to_string() == text).then_some(read)
    }

    /// Whether `index` is among them.
    pub fn contains(&self, index: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        let range = after.checked_sub(1).and_then(|before| self.0.get(before));
        range.is_some_and(|(_, last)| index <= *last)
    }

    /// The smallest.
    pub fn first(&self) -> Option<u64> {
        self.0.first().map(|(first, _)| *first)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many they are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// In parts, each of which fits one entry.
    pub fn parts(&self) -> Vec<Self> {
        // A range is two numbers of at most twenty digits, a `-` and a `,`.
        const RANGES_MAX: usize = INDICES_TEXT_BYTES_MAX / 42;
        self.0.chunks(RANGES_MAX).map(|ranges| Self(ranges.to_vec())).collect()
    }
}

impl fmt::Display for IndexRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Erasure {
    /// What `json` says of one; `None` if it is another entry.
    pub fn read(json: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            act: Cow<'a, str>,
            #[serde(borrow)]
            subject: Cow<'a, str>,
            #[serde(borrow)]
            indices: Cow<'a, str>,
            #[serde(borrow, default)]
            reason: Cow<'a, str>,
        }
        // Most entries are messages: a look that costs little. Texts of peers are escaped.
        const BEGINNINGS: [&[u8]; 2] = [br#"{"v":1,"type":"admin""#, br#"{"v":1,"type":"erased""#];
        BEGINNINGS.iter().any(|begin| json.starts_with(begin)).then_some(())?;
        let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
        let is_done = match &*fields.act {
            ERASE_ACT => true,
            ERASE_BEGIN_ACT => false,
            _ => return None,
        };
        Some(Self {
            is_done,
            subject: fields.subject.into_owned(),
            indices: IndexRanges::parse(&fields.indices)?,
            reason: fields.reason.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_and_read_back() {
        let ranges = IndexRanges::of([9, 5, 6, 12, 7, 8, 12]);
        assert_eq!((ranges.to_string().as_str(), ranges.len()), ("5-9,12", 6));
        assert_eq!(IndexRanges::parse("5-9,12"), Some(ranges.clone()));
        let held: Vec<u64> = (0..20).filter(|index| ranges.contains(*index)).collect();
        assert_eq!(held, [5, 6, 7, 8, 9, 12]);
        for bad in ["", "5-", "9-5", "5,6", "5-9,9", "12,5", "+5", "5 ", "5-5", "a"] {
            assert_eq!(IndexRanges::parse(bad), None, "{bad}");
        }
        assert!(!IndexRanges::default().contains(0) && IndexRanges::default().is_empty());
        let all = IndexRanges::of([u64::MAX, u64::MAX - 1]);
        assert!(all.contains(u64::MAX) && !all.contains(u64::MAX - 2));
    }

    #[test]
    fn a_part_fits_an_entry_and_none_is_lost() {
        let far = u64::MAX - 20_000;
        let ranges = IndexRanges::of((0..5_000).map(|step| far + 3 * step));
        let parts = ranges.parts();
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| part.to_string().len() <= INDICES_TEXT_BYTES_MAX));
        let together = parts.iter().flat_map(|part| part.ranges().to_vec());
        assert_eq!(IndexRanges::of_ranges(together), ranges);
    }

    #[test]
    fn an_entry_says_which_and_why() {
        let json = br#"{"v":1,"type":"erased","t":1,"node":"n","id":"i","act":"body.erase","subject":"device/a","indices":"3","reason":"r"}"#;
        let read = Erasure::read(json).unwrap();
        assert!(read.is_done && read.indices.contains(3) && read.reason == "r");
        let begin = String::from_utf8_lossy(json).replace("erased", "admin");
        let begin = begin.replace("body.erase", "erase.begin");
        assert!(!Erasure::read(begin.as_bytes()).unwrap().is_done);
        for other in ["publish", "query"] {
            let json = String::from_utf8_lossy(json).replace("erased", other);
            assert_eq!(Erasure::read(json.as_bytes()), None, "{other}");
        }
    }
}

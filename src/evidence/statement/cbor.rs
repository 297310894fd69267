//! Reads the few forms of CBOR (RFC 8949) that a statement is made of, and no others.
//!
//! Only the deterministic encoding of section 4.2.1 is read: the shortest heads, definite lengths.
//! The order of keys is the caller's to check, who knows the labels. The invariant: nothing is
//! allocated, no length is trusted, nothing recurses, and what is not there is `None`.

use bytes::Bytes;

/// What is left of some bytes.
pub(super) struct Reader<'a> {
    whole: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// All of `whole`.
    pub(super) fn new(whole: &'a Bytes) -> Self {
        Self { whole, rest: whole }
    }

    /// Whether everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// An unsigned number (major type 0).
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        self.of_major(0)
    }

    /// A label: a number of either sign that fits.
    pub(super) fn label(&mut self) -> Option<i64> {
        match self.head()? {
            (0, value) => i64::try_from(value).ok(),
            // -1 is 0 of major type 1, -2 is 1, …
            (1, value) => i64::try_from(value).ok()?.checked_neg()?.checked_sub(1),
            _ => None,
        }
    }

    /// A byte string, sharing the bytes that it stands in.
    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let length = self.of_major(2)?;
        self.take(length)
    }

    /// A byte string of exactly `N` bytes.
    pub(super) fn array_of<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes()?.as_ref().try_into().ok()
    }

    /// A text string. That it is UTF-8 is not looked at: whoever compares it with a text knows.
    pub(super) fn text(&mut self) -> Option<Bytes> {
        let length = self.of_major(3)?;
        self.take(length)
    }

    /// The head of an array: how many items follow.
    pub(super) fn array(&mut self) -> Option<u64> {
        self.of_major(4)
    }

    /// The head of a map: how many pairs follow.
    pub(super) fn map(&mut self) -> Option<u64> {
        self.of_major(5)
    }

    /// A tag; what it tags follows.
    pub(super) fn tag(&mut self) -> Option<u64> {
        self.of_major(6)
    }

    fn of_major(&mut self, wanted: u8) -> Option<u64> {
        let (major, argument) = self.head()?;
        (major == wanted).then_some(argument)
    }

    fn take(&mut self, length: u64) -> Option<Bytes> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(self.whole.slice_ref(taken))
    }

    /// Major type and argument, which must be as short as it can be.
    fn head(&mut self) -> Option<(u8, u64)> {
        let (first, rest) = self.rest.split_first()?;
        let (major, info) = (first >> 5, first & 0x1F);
        let (length, least) = match info {
            0..=23 => {
                self.rest = rest;
                return Some((major, info.into()));
            }
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            // Reserved, or of no definite length.
            _ => return None,
        };
        let (bytes, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        let argument = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        (argument >= least).then_some((major, argument))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(bytes: &[u8], read: fn(&mut Reader<'_>) -> Option<T>) -> Option<T> {
        let whole = Bytes::copy_from_slice(bytes);
        let mut reader = Reader::new(&whole);
        let value = read(&mut reader)?;
        reader.is_at_end().then_some(value)
    }

    /// Appendix A of RFC 8949.
    #[test]
    fn the_examples_of_the_rfc() {
        let unsigned = |bytes: &[u8]| read(bytes, |r| r.unsigned());
        assert_eq!(unsigned(&[0x17]), Some(23));
        assert_eq!(unsigned(&[0x18, 0x18]), Some(24));
        assert_eq!(unsigned(&[0x19, 0x03, 0xe8]), Some(1000));
        assert_eq!(unsigned(&[0x1a, 0x00, 0x0f, 0x42, 0x40]), Some(1_000_000));
        assert_eq!(unsigned(&[0x1b, 255, 255, 255, 255, 255, 255, 255, 255]), Some(u64::MAX));
        let label = |bytes: &[u8]| read(bytes, |r| r.label());
        assert_eq!(label(&[0x39, 0x03, 0xe7]), Some(-1000));
        assert_eq!(label(&[0x3b, 127, 255, 255, 255, 255, 255, 255, 255]), Some(i64::MIN));
        assert_eq!(label(&[0x3b, 128, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(read(&[0x44, 1, 2, 3, 4], |r| r.bytes()).as_deref(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(read(b"\x64IETF", |r| r.text()).as_deref(), Some(&b"IETF"[..]));
    }

    #[test]
    fn other_forms_are_not_read() {
        let unsigned = |bytes: &[u8]| read(bytes, |r| r.unsigned());
        // Longer than need be, reserved, indefinite, cut short, of another type.
        for bad in [&[0x18, 0x17][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1c], &[0x1f]] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
        for bad in [&[][..], &[0x18], &[0x1b, 1, 2], &[0x20]] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
        for bad in [
            &[0x42, 1][..],
            &[0x5f, 0x41, 1, 0xff],
            &[0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert_eq!(read(bad, |r| r.bytes()), None, "{bad:?}");
        }
    }
}

//! The few forms of CBOR (RFC 8949) that a statement is made of, in their deterministic encoding
//! (section 4.2.1): the shortest heads, definite lengths. Keys of maps come out in the order they
//! are written, so whoever writes a map keeps the order of the encoded keys.

/// Tag of a COSE_Sign1 object (RFC 9052, section 2).
pub(crate) const TAG_SIGN1: u64 = 18;

/// Appends CBOR to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Cbor(pub(crate) Vec<u8>);

impl Cbor {
    /// A whole number.
    pub(crate) fn integer(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(0, value),
            // -1 is 0 of major type 1, -2 is 1, …
            Err(_) => self.head(1, value.unsigned_abs() - 1),
        }
    }

    /// A whole number that may be larger than an `i64`.
    pub(crate) fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64).raw(value)
    }

    /// A text string.
    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64).raw(value.as_bytes())
    }

    /// The head of an array of `count` items; the items follow.
    pub(crate) fn array(&mut self, count: u64) -> &mut Self {
        self.head(4, count)
    }

    /// The head of a map of `count` pairs; the pairs follow.
    pub(crate) fn map(&mut self, count: u64) -> &mut Self {
        self.head(5, count)
    }

    /// A tag; what it tags follows.
    pub(crate) fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(6, tag)
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Major type and argument, as short as they can be.
    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let major = major << 5;
        let bytes = argument.to_be_bytes();
        let (info, length) = match argument {
            0..=23 => (argument.to_le_bytes()[0], 0),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        self.0.push(major | info);
        let [.., last] = bytes;
        match length {
            0 => self,
            1 => self.raw(&[last]),
            _ => self.raw(bytes.get(bytes.len() - length..).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix A of RFC 8949.
    #[test]
    fn the_examples_of_the_rfc() {
        let of = |write: &dyn Fn(&mut Cbor)| {
            let mut cbor = Cbor::default();
            write(&mut cbor);
            cbor.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let integer = |value| {
            of(&|cbor| {
                cbor.integer(value);
            })
        };
        let numbers = [0, 23, 24, 100, 1000, 1_000_000, 1_000_000_000_000, -1, -100, -1000];
        let encoded = [
            "00",
            "17",
            "1818",
            "1864",
            "1903e8",
            "1a000f4240",
            "1b000000e8d4a51000",
            "20",
            "3863",
            "3903e7",
        ];
        assert_eq!(numbers.map(integer), encoded);
        assert_eq!(
            of(&|cbor| {
                cbor.unsigned(u64::MAX);
            }),
            "1bffffffffffffffff"
        );
        assert_eq!(
            of(&|cbor| {
                cbor.bytes(&[1, 2, 3, 4]);
            }),
            "4401020304"
        );
        assert_eq!(
            of(&|cbor| {
                cbor.text("IETF");
            }),
            "6449455446"
        );
        assert_eq!(
            of(&|cbor| {
                cbor.array(2).integer(1).integer(2);
            }),
            "820102"
        );
        assert_eq!(
            of(&|cbor| {
                cbor.map(1).integer(1).text("a");
            }),
            "a1016161"
        );
        assert_eq!(
            of(&|cbor| {
                cbor.tag(18).array(0);
            }),
            "d280"
        );
    }
}

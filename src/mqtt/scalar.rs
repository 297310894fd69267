//! Integers, strings and binary data (5.0, section 1.5): a bounds-checked [`Reader`], and a
//! [`Sink`] that either counts or writes.
//!
//! Knows no packets. Invariant: no input makes the reader panic or read past its slice.

use super::{EncodeError, PacketId, Violation};

/// The largest value of a Variable Byte Integer, and so of a Remaining Length.
pub(super) const VARIABLE_MAX: usize = 268_435_455;

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that every byte was read.
    pub(super) const fn end(&self) -> Result<(), Violation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Violation::TRAILING) }
    }

    /// All that is left.
    pub(super) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Violation::CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Violation::CUT_SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Violation> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Violation> {
        // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
        PacketId::new(self.u16()?).ok_or(Violation::PACKET_ID_ZERO)
    }

    /// A Variable Byte Integer.
    pub(super) fn variable(&mut self) -> Result<u32, Violation> {
        let (value, len) = parse_variable(self.rest)?.ok_or(Violation::CUT_SHORT)?;
        self.bytes(len)?;
        Ok(value)
    }

    /// A reader of the next part, whose length in bytes stands before it as a Variable Byte
    /// Integer.
    pub(super) fn section(&mut self) -> Result<Reader<'a>, Violation> {
        let len = self.variable()?;
        let len = usize::try_from(len).map_err(|_| Violation::CUT_SHORT)?;
        self.bytes(len).map(Reader::new)
    }

    /// Binary Data.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// A UTF-8 Encoded String.
    pub(super) fn text(&mut self) -> Result<&'a str, Violation> {
        parse_text(self.binary()?)
    }

    /// A string that names something (topic, filter, client, user), so without control
    /// characters: section 1.5.4 lets a receiver refuse them, and here they would reach logs,
    /// terminals and rules. In free text, such as a Reason String, they may stand.
    pub(super) fn name(&mut self) -> Result<&'a str, Violation> {
        let bytes = self.binary()?;
        if is_printable_ascii(bytes) {
            return std::str::from_utf8(bytes).map_err(|_| Violation::NOT_UTF8);
        }
        let text = parse_text(bytes)?;
        if text.chars().any(char::is_control) { Err(Violation::CONTROL) } else { Ok(text) }
    }
}

/// The Variable Byte Integer that `bytes` begins with and its length in bytes; `None` if `bytes`
/// ends inside it.
pub(super) fn parse_variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Violation> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1] A last byte of zero adds nothing: the one before could have ended it.
            if byte == 0 && index > 0 {
                return Err(Violation::VARIABLE_NOT_MINIMAL);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Violation::VARIABLE_TOO_LONG) }
}

/// The text of a UTF-8 Encoded String.
fn parse_text(bytes: &[u8]) -> Result<&str, Violation> {
    // [MQTT-1.5.4-1]; `from_utf8` refuses surrogates. [MQTT-1.5.4-3]: a BOM stays.
    let text = std::str::from_utf8(bytes).map_err(|_| Violation::NOT_UTF8)?;
    // [MQTT-1.5.4-2]
    if bytes.contains(&0) { Err(Violation::NULL) } else { Ok(text) }
}

/// Whether nothing else needs to be looked for, as in nearly every name. Without an early exit, so
/// that many bytes are looked at in one step.
fn is_printable_ascii(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |so_far, byte| so_far & (0x20..0x7F).contains(byte))
}

/// Where fields are written to. Both implementations are walked by the same code, so that a
/// length can not disagree with what is written.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A Variable Byte Integer, in its shortest form. [MQTT-1.5.5-1]
    fn variable(&mut self, value: usize) -> Result<(), EncodeError> {
        if value > VARIABLE_MAX {
            return Err(EncodeError::TooLong);
        }
        let mut rest = value;
        while rest > 0x7F {
            self.u8((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
        Ok(())
    }

    /// Binary Data: at most 65,535 bytes.
    fn binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.u16(u16::try_from(bytes.len()).map_err(|_| EncodeError::TooLong)?);
        self.bytes(bytes);
        Ok(())
    }

    /// A UTF-8 Encoded String: at most 65,535 bytes.
    fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.binary(text.as_bytes())
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts bytes instead of writing them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn variable_byte_integers_at_their_borders() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            out.variable(value).unwrap();
            assert_eq!(out, bytes);
            assert_eq!(parse_variable(bytes).unwrap(), Some((value as u32, bytes.len())));
        }
        assert_eq!(Vec::new().variable(VARIABLE_MAX + 1), Err(EncodeError::TooLong));
    }

    #[test]
    fn variable_byte_integers_are_minimal_and_of_four_bytes() {
        for bytes in [&[0x80, 0x00][..], &[0x81, 0x00], &[0xFF, 0x80, 0x00], &[0x80, 0x80, 0x80, 0]]
        {
            assert_eq!(parse_variable(bytes), Err(Violation::VARIABLE_NOT_MINIMAL));
        }
        // Refused at the fourth byte, without waiting for a fifth.
        assert_eq!(parse_variable(&[0x80; 4]), Err(Violation::VARIABLE_TOO_LONG));
        assert_eq!(parse_variable(&[0xFF; 5]), Err(Violation::VARIABLE_TOO_LONG));
        assert_eq!(parse_variable(&[0x80; 3]), Ok(None));
        assert_eq!(parse_variable(&[]), Ok(None));
    }

    #[test]
    fn strings_are_utf8_without_null() {
        let text = |bytes: &[u8]| Reader::new(bytes).text().map(str::to_owned);
        assert_eq!(text(b"\x00\x02\xC3\xA9").unwrap(), "é");
        assert_eq!(text(b"\x00\x03\xEF\xBB\xBF").unwrap(), "\u{FEFF}");
        assert_eq!(text(b"\x00\x01\x00"), Err(Violation::NULL));
        assert_eq!(text(b"\x00\x03\xED\xA0\x80"), Err(Violation::NOT_UTF8));
        assert_eq!(text(b"\x00\x02\xC0\x80"), Err(Violation::NOT_UTF8));
        assert_eq!(text(b"\x00\x02a"), Err(Violation::CUT_SHORT));
        assert_eq!(text(b"\x00"), Err(Violation::CUT_SHORT));
    }

    #[test]
    fn names_hold_no_control_characters_but_texts_may() {
        for bytes in [&b"\x00\x01\n"[..], b"\x00\x01\x7F", b"\x00\x02\xC2\x85"] {
            assert_eq!(Reader::new(bytes).name(), Err(Violation::CONTROL));
            assert!(Reader::new(bytes).text().is_ok());
        }
        assert_eq!(Reader::new(b"\x00\x03\xE2\x82\xAC").name(), Ok("€"));
    }

    proptest! {
        #[test]
        fn a_length_is_what_is_written(parts in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let (mut length, mut out) = (Length::default(), Vec::new());
            for part in &parts {
                length.binary(part).unwrap();
                length.variable(part.len()).unwrap();
                out.binary(part).unwrap();
                out.variable(part.len()).unwrap();
            }
            prop_assert_eq!(length.0, out.len());
        }

        #[test]
        fn what_parses_is_what_would_be_written(bytes in any::<[u8; 4]>()) {
            if let Ok(Some((value, len))) = parse_variable(&bytes) {
                let mut out = Vec::new();
                out.variable(value as usize).unwrap();
                prop_assert_eq!(&out[..], &bytes[..len]);
            }
        }
    }
}

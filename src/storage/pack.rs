//! Entries in fewer bytes: what nearly every entry says is stored as one byte.
//!
//! The JSON of an entry has no control characters, because JSON escapes them. So the bytes 0x01 to
//! 0x1F are free, and each stands for one of [`PHRASES`]. Nothing is hashed or shown in this form: the
//! leaf of the tree is the entry's JSON, and a CRC covers what is stored. The table is part of the
//! format of a segment: it may be added to, never changed. The invariant: [`unpack`] gives back what
//! [`pack`] was given, whatever that was.

use memchr::memchr3;

/// Longest entry that is given back, in bytes: anything longer is damage.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// What the bytes from 0x01 on stand for, in order.
const PHRASES: [&[u8]; 31] = [
    br#"{"v":1,"type":"publish","t":"#,
    br#"{"v":1,"type":""#,
    br#"","t":"#,
    br#","node":""#,
    br#"","id":""#,
    br#"","who":"device/"#,
    br#"","who":""#,
    br#"","conn":"#,
    br#","n":"#,
    br#","lvl":"A0","result":"allow""#,
    br#","lvl":""#,
    br#","result":"allow""#,
    br#","result":"deny","why":""#,
    br#","schema":""#,
    br#"","rule":""#,
    br#","rule":""#,
    br#"","topic":""#,
    br#"","qos":1"#,
    br#"","qos":"#,
    br#","retain":true"#,
    br#","dup":true"#,
    br#","pid":"#,
    br#","ct":"application/json""#,
    br#","len":"#,
    br#","c":""#,
    br#"","props":""#,
    br#","flags":[""#,
    br#"","by":""#,
    br#"","code":"#,
    br#"","peer":""#,
    br#""}"#,
];

/// Writes `entry` into `out`, in fewer bytes; `false` if it has bytes that JSON would escape, and is
/// to be stored as it is.
pub(super) fn pack(entry: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut rest = entry;
    while let Some(place) = memchr3(b'{', b'"', b',', rest) {
        let (plain, from_here) = rest.split_at_checked(place).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let phrase = candidates(from_here).iter().find_map(|code| {
            let phrase = phrase(*code)?;
            from_here.strip_prefix(phrase).map(|behind| (*code, behind))
        });
        rest = match (phrase, from_here.split_first()) {
            (Some((code, behind)), _) => {
                out.push(code);
                behind
            }
            (None, Some((byte, behind))) => {
                out.push(*byte);
                behind
            }
            (None, None) => break,
        };
    }
    out.extend_from_slice(rest);
    !entry.iter().any(|byte| *byte < 0x20)
}

/// The entry that was stored as `packed`; `None` if none was.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut entry = Vec::with_capacity(packed.len() * 2);
    let mut rest = packed;
    while let Some(place) = rest.iter().position(|byte| *byte < 0x20) {
        let (plain, from_here) = rest.split_at_checked(place)?;
        let (code, behind) = from_here.split_first()?;
        entry.extend_from_slice(plain);
        entry.extend_from_slice(phrase(*code)?);
        if entry.len() > ENTRY_BYTES_MAX {
            return None;
        }
        rest = behind;
    }
    entry.extend_from_slice(rest);
    Some(entry)
}

fn phrase(code: u8) -> Option<&'static [u8]> {
    PHRASES.get(usize::from(code).checked_sub(1)?).copied()
}

/// The codes of the phrases that may stand here, the longest first: told by the first letter of a
/// name, so that most places cost one look.
fn candidates(from_here: &[u8]) -> &'static [u8] {
    match from_here {
        [b'{', ..] => &[0x01, 0x02],
        [b'"', b'}', ..] => &[0x1F],
        [b'"', b',', b'"', letter, ..] => match letter {
            b't' => &[0x11, 0x03],
            b'i' => &[0x05],
            b'w' => &[0x06, 0x07],
            b'c' => &[0x08, 0x1D],
            b'r' => &[0x0F],
            b'q' => &[0x12, 0x13],
            b'p' => &[0x1A, 0x1E],
            b'b' => &[0x1C],
            _ => &[],
        },
        [b',', b'"', letter, ..] => match letter {
            b'n' => &[0x04, 0x09],
            b'l' => &[0x0A, 0x0B, 0x18],
            b'r' => &[0x0D, 0x0C, 0x14, 0x10],
            b's' => &[0x0E],
            b'd' => &[0x15],
            b'p' => &[0x16],
            b'c' => &[0x17, 0x19],
            b'f' => &[0x1B],
            _ => &[],
        },
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"v":1,"type":"publish","t":1796036974520230162,"node":"plant","id":"9zv7px-a","who":"device/press-7","conn":14,"n":1,"lvl":"A0","result":"allow","schema":"telemetry","rule":"device-telemetry","topic":"plant/press-7/telemetry/temperature","qos":1,"pid":1,"len":54,"c":"F8H6JzrC1y54kKfNsig_8jm4BhfgQzfvZIxHW-OWUao"}"#;

    fn packed(entry: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0xFF];
        pack(entry, &mut out).then_some(out)
    }

    #[test]
    fn a_plain_publish_as_it_is_stored() {
        let stored = packed(PLAIN.as_bytes()).unwrap();
        insta::assert_snapshot!(stored.escape_ascii(), @r"\x011796036974520230162\x04plant\x059zv7px-a\x06press-7\x0814\t1\n\x0etelemetry\x0fdevice-telemetry\x11plant/press-7/telemetry/temperature\x12\x161\x1854\x19F8H6JzrC1y54kKfNsig_8jm4BhfgQzfvZIxHW-OWUao\x1f");
        assert_eq!(unpack(&stored).unwrap(), PLAIN.as_bytes());
        assert!(stored.len() < PLAIN.len() - 140, "{} of {}", stored.len(), PLAIN.len());
    }

    #[test]
    fn every_phrase_is_one_byte_and_comes_back() {
        for (code, phrase) in (1..).zip(PHRASES) {
            assert_eq!(packed(phrase), Some(vec![code]), "{}", phrase.escape_ascii());
            assert_eq!(unpack(&[code]).unwrap(), phrase);
            // One byte less is no phrase, but may hold a shorter one.
            let cut = &phrase[..phrase.len() - 1];
            assert_eq!(unpack(&packed(cut).unwrap()).unwrap(), cut);
        }
    }

    #[test]
    fn whatever_is_packed_comes_back_and_control_characters_are_left_alone() {
        for place in 0..PLAIN.len() {
            for byte in [b'"', b',', b'{', 0x1F, 0x20, 0x7F, 0xFF, 0] {
                let mut entry = PLAIN.as_bytes().to_vec();
                entry[place] = byte;
                match packed(&entry) {
                    Some(stored) => assert_eq!(unpack(&stored).unwrap(), entry),
                    None => assert!(byte < 0x20),
                }
                let (start, end) = entry.split_at(place);
                for part in [start, end] {
                    if let Some(stored) = packed(part) {
                        assert_eq!(unpack(&stored).unwrap(), part);
                    }
                }
            }
        }
        assert_eq!(unpack(&[0]), None);
        assert_eq!(unpack(&vec![1; ENTRY_BYTES_MAX / 28 + 1]), None, "past the bound");
        assert!(unpack(&vec![1; ENTRY_BYTES_MAX / 28]).is_some(), "at the bound");
    }
}

//! What a device signed, as other people's tools read it: the statement, the bytes that were signed, and
//! the signature in the form of openssl.
//!
//! Made of the entry alone, and of the salt beside it while there is one. The bytes are those of
//! `devices/signer/WIRE.md`. Nothing is verified here: whoever holds the bundle does that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::bundle::{Bundle, is_erased};
use crate::storage::Entry;

const NAMES: [&str; 3] = ["statement.cose", "statement.tbs", "statement.sig.der"];
/// The first pair of a protected header that says EdDSA: its labels ascend, and 1 is `alg`.
const ALG_EDDSA: [u8; 2] = [0x01, 0x27];
/// The unprotected header of a statement: one pair, label -65537, the salt.
const SALT_LABEL: [u8; 6] = [0xa1, 0x3a, 0x00, 0x01, 0x00, 0x00];

/// Adds the files of a statement, if the entry has one.
pub(super) fn add(bundle: &mut Bundle, fields: &Value, entry: &Entry) {
    let bytes = |name: &str| fields.get(name).and_then(Value::as_str).and_then(decoded);
    let (Some(protected), Some(signature), Some(c)) =
        (bytes("protected"), bytes("sig"), bytes("c"))
    else {
        return bundle.lacks(&NAMES, "unsigned");
    };
    let salt = entry.body.as_ref().filter(|_| !is_erased(entry)).map(|body| body.salt);
    let header = match salt {
        Some(salt) => [&SALT_LABEL[..], &bstr(&salt)].concat(),
        None => vec![0xa0],
    };
    let (protected_bytes, c) = (bstr(&protected), bstr(&c));
    let cose = [&[0xd2, 0x84][..], &protected_bytes, &header, &c, &bstr(&signature)].concat();
    let tbs = [b"\x84\x6aSignature1", &protected_bytes[..], &[0x40], &c].concat();
    let is_eddsa = protected.get(1..3) == Some(&ALG_EDDSA[..]);
    bundle.add("statement.cose", cose);
    bundle.add("statement.tbs", tbs);
    bundle.add("statement.sig.der", if is_eddsa { signature } else { der_of(&signature) });
}

/// base64url without padding, as entries hold bytes.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A byte string of CBOR, shorter than 64 KiB as everything in an entry is.
fn bstr(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..24 => vec![0x40 | low],
        24..256 => vec![0x58, low],
        256.. => vec![0x59, high, low],
    };
    [head, bytes.to_vec()].concat()
}

/// `r ‖ s` as the SEQUENCE of two INTEGERs that openssl takes (RFC 3279, 2.2.3).
fn der_of(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let body = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap_or(u8::MAX)], body].concat()
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeroes = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeroes..).filter(|digits| !digits.is_empty()).unwrap_or(&[0]);
    let sign = digits.first().filter(|first| **first & 0x80 != 0).map(|_| 0);
    let digits: Vec<u8> = sign.into_iter().chain(digits.iter().copied()).collect();
    [vec![0x02, u8::try_from(digits.len()).unwrap_or(u8::MAX)], digits].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_in_der_has_the_shortest_integers_that_are_positive() {
        let signature = [&[0; 30][..], &[0x80, 1], &[0; 31], &[0x7f]].concat();
        assert_eq!(der_of(&signature), [0x30, 8, 2, 3, 0, 0x80, 1, 2, 1, 0x7f]);
        assert_eq!(der_of(&[0; 64]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(der_of(&[0xff; 64]).len(), 2 + 2 * (2 + 33));
    }

    #[test]
    fn a_byte_string_has_the_shortest_head() {
        for (length, head) in [(23, vec![0x57]), (24, vec![0x58, 24]), (256, vec![0x59, 1, 0])] {
            assert_eq!(bstr(&vec![7; length])[..head.len()], head);
        }
    }
}

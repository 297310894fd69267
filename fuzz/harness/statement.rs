//! A statement has one encoding: what was read is written again as the bytes that were read.
//!
//! An input is a COSE_Sign1 object, or the value of the user property that carries one. Invariants:
//! nothing panics; of an object that is read, the parts in their places give the object back; what
//! is signed holds protected header and commitment; a property is its object in base64url.

use avow::evidence::Statement;
use bytes::Bytes;

/// The head of a byte string.
fn head(length: usize) -> Vec<u8> {
    let length = u64::try_from(length).expect("a length");
    let bytes = length.to_be_bytes();
    match length {
        0..=23 => vec![0x40 | bytes[7]],
        24..=0xff => vec![0x58, bytes[7]],
        0x100..=0xffff => vec![0x59, bytes[6], bytes[7]],
        0x1_0000..=0xffff_ffff => [&[0x5a], &bytes[4..]].concat(),
        _ => [&[0x5b], &bytes[..]].concat(),
    }
}

fn written(statement: &Statement, payload: Option<&[u8]>) -> Vec<u8> {
    let protected = statement.protected();
    let mut out = vec![0xd2, 0x84];
    out.extend([&head(protected.len()), protected].concat());
    out.push(if payload.is_some() { 0xa2 } else { 0xa1 });
    out.extend([&[0x3a, 0, 1, 0, 0, 0x50][..], statement.salt()].concat());
    if let Some(payload) = payload {
        out.extend([&[0x3a, 0, 1, 0, 1][..], &head(payload.len()), payload].concat());
    }
    out.extend(
        [&[0x58, 32][..], statement.commitment(), &[0x58, 64], statement.signature()].concat(),
    );
    out
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let object = Bytes::copy_from_slice(data);
    let read = Statement::parse(&object);
    let embedding = Statement::parse_embedding(&object);
    match (&read, &embedding) {
        (Err(one), Err(other)) => assert_eq!(one, other),
        (Ok(statement), Err(_)) => assert_eq!(written(statement, None), data),
        (Ok(_), Ok((statement, payload))) => assert_eq!(written(statement, Some(payload)), data),
        (Err(why), Ok(_)) => panic!("embedded, and not read: {why:?}"),
    }
    if let Ok(statement) = &read {
        let signed = statement.to_be_signed();
        assert!(
            signed.starts_with(b"\x84\x6aSignature1") && signed.ends_with(statement.commitment())
        );
        let protected = statement.protected();
        assert!(signed.windows(protected.len()).any(|window| window == protected));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(statement) = Statement::parse_property(text)
    {
        // Four characters for each three bytes: nothing else can stand in it.
        let object = written(&statement, None);
        assert_eq!(text.len(), (object.len() * 4).div_ceil(3));
        assert_eq!(Statement::parse(&object.into()), Ok(statement));
    }
}

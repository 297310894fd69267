//! `WIRE.md` against this crate: its bytes are what comes out here, and what somebody else's COSE
//! reads. They were made by `sign.py`, which shares no code with either.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use avow_signer::{
    Algorithm, Claims, MESSAGE_TYPE, Message, Signed, Signer, SignerOptions, SigningKey, Unsigned,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use coset::{CborSerializable as _, CoseSign1, Label, TaggedCborSerializable as _, cbor::Value};

const WIRE: &str = include_str!("../WIRE.md");

/// What the block with this heading holds, on one line.
fn block(heading: &str) -> String {
    let Some((_, rest)) = WIRE.split_once(&format!("\n```{heading}\n")) else {
        panic!("WIRE.md has no block `{heading}`")
    };
    rest.split_once("\n```").unwrap().0.replace('\n', "")
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |c: char| u8::try_from(c.to_digit(16).unwrap()).unwrap();
    let digits: Vec<u8> = text.chars().map(digit).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

const PAYLOAD: &[u8] = br#"{"t":21.5}"#;

/// RFC 8032, section 7.1, test 1, in PKCS #8.
fn ed25519() -> SigningKey {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    SigningKey::from_pkcs8(&hex(&format!("302e020100300506032b657004220420{seed}"))).unwrap()
}

fn example(algorithm: Algorithm) -> Unsigned {
    let x5t = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"avow example certificate");
    let claims = Claims {
        identity: "spiffe://plant.example/device/press-7",
        certificate_sha256: x5t.as_ref().try_into().unwrap(),
        audience: "plant.example/plant-1",
        issued_at: 1_800_000_000,
        cti: &hex("404142434445464748494a4b4c4d4e4f"),
        epoch: 41,
        seq: 7,
    };
    let topic = "plant/press-7/telemetry/torque";
    let message = Message { topic, payload: PAYLOAD, qos: 1, retain: false };
    let salt = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
    Unsigned::new(algorithm, &claims, &message, salt)
}

fn signed() -> Signed {
    let unsigned = example(Algorithm::Ed25519);
    let signature = ed25519().sign(&unsigned.to_be_signed()).unwrap();
    unsigned.signed(signature)
}

#[test]
fn the_example_is_made_byte_by_byte() {
    assert_eq!(signed().object(), hex(&block("hex ed25519")));
    assert_eq!(signed().property(), block("text property"));
    assert_eq!(signed().embedding(PAYLOAD), hex(&block("hex embedding")));
}

#[test]
fn the_example_of_es256_is_good_under_its_key() {
    let object = hex(&block("hex es256"));
    let (_, signature) = object.split_at(object.len() - 64);
    let unsigned = example(Algorithm::Es256);
    assert_eq!(unsigned.clone().signed(signature.to_vec()).object(), object);
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, hex(&block("hex es256-key")));
    key.verify(&unsigned.to_be_signed(), signature).unwrap();
    assert!(key.verify(&example(Algorithm::Ed25519).to_be_signed(), signature).is_err());
}

#[test]
fn somebody_elses_cose_reads_it() {
    let object = hex(&block("hex ed25519"));
    let sign1 = CoseSign1::from_tagged_slice(&object).unwrap();
    assert_eq!(sign1.tbs_data(b""), example(Algorithm::Ed25519).to_be_signed());
    assert_eq!(sign1.payload, Some(hex(&block("hex C"))));
    let header = &sign1.protected.header;
    assert_eq!(header.alg, Some(coset::Algorithm::Assigned(coset::iana::Algorithm::EdDSA)));
    assert_eq!(header.content_type, None);
    let other = |label| header.rest.iter().find(|(known, _)| *known == Label::Int(label));
    assert_eq!(other(16).unwrap().1, Value::from(MESSAGE_TYPE));
    assert_eq!(other(258).unwrap().1, Value::from(-16));
    let claims = coset::cwt::ClaimsSet::from_slice(&other(15).unwrap().1.clone().to_vec().unwrap());
    let claims = claims.unwrap();
    assert_eq!(claims.issuer.as_deref(), Some("spiffe://plant.example/device/press-7"));
    assert_eq!(claims.subject.as_deref(), Some("plant/press-7/telemetry/torque"));
    assert_eq!(claims.rest.len(), 3);
}

#[test]
fn a_signer_numbers_what_it_signs() {
    let mut signer = Signer::new(SignerOptions {
        key: ed25519(),
        certificate_der: b"certificate",
        identity: "spiffe://plant.example/device/press-7",
        audience: "plant.example/plant-1",
        epoch: 2,
    });
    let message = Message { topic: "a", payload: b"x", qos: 0, retain: true };
    assert_eq!(signer.last_seq(), 0);
    let (one, two) = (signer.sign(&message, 5).unwrap(), signer.sign(&message, 5).unwrap());
    assert_eq!(signer.last_seq(), 2);
    // Another salt, another nonce, another number.
    assert_ne!(one.object(), two.object());
    signer.restart(3);
    assert_eq!(signer.last_seq(), 0);
}

#[test]
fn what_is_no_key_is_refused() {
    assert!(SigningKey::from_pkcs8(b"").is_err());
    assert!(SigningKey::from_pkcs8(&hex("302e0201003005")).is_err());
}

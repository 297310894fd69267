//! `BATCH.md` against this crate, and the batch signer's table.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use avow_signer::{
    Algorithm, BATCH_MESSAGES_MAX, BatchBounds, BatchSigner, COVER_TYPE, CoverClaims, Head, Link,
    Message, SignError, SignerOptions, SigningKey, UnsignedCover,
};
use aws_lc_rs::signature::{ED25519, KeyPair as _, UnparsedPublicKey};
use coset::{CoseSign1, Label, TaggedCborSerializable as _, cbor::Value};

const WIRE: &str = include_str!("../BATCH.md");
const IDENTITY: &str = "spiffe://plant.example/device/press-7";
const AUDIENCE: &str = "plant.example/plant-1";
const TOPIC: &str = "plant/press-7/telemetry/torque";

fn block(heading: &str) -> String {
    let Some((_, rest)) = WIRE.split_once(&format!("\n```{heading}\n")) else {
        panic!("BATCH.md has no block `{heading}`")
    };
    rest.split_once("\n```").unwrap().0.replace('\n', "")
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |c: char| u8::try_from(c.to_digit(16).unwrap()).unwrap();
    let digits: Vec<u8> = text.chars().map(digit).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

/// RFC 8032, section 7.1, test 1, in PKCS #8.
fn ed25519_der() -> Vec<u8> {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    hex(&format!("302e020100300506032b657004220420{seed}"))
}

fn signer(bounds: BatchBounds) -> BatchSigner {
    let options = SignerOptions {
        key: SigningKey::from_pkcs8(&ed25519_der()).unwrap(),
        certificate_der: b"avow example certificate",
        identity: IDENTITY,
        audience: AUDIENCE,
        epoch: 41,
    };
    BatchSigner::new(options, bounds)
}

const ONE: Message<'_> = Message { topic: TOPIC, payload: br#"{"t":21.5}"#, qos: 1, retain: false };
const TWO: Message<'_> = Message { topic: TOPIC, payload: br#"{"t":21.6}"#, qos: 0, retain: true };

#[test]
fn the_example_is_made_byte_by_byte() {
    let salt = |from: u8| std::array::from_fn(|at| from + u8::try_from(at).unwrap());
    let one = Link { epoch: 41, seq: 1, salt: salt(0) };
    let two = Link { epoch: 41, seq: 2, salt: salt(16) };
    assert_eq!([one.property(), two.property()], [block("text link-1"), block("text link-2")]);
    let links = [one.digest(&ONE), two.digest(&TWO)];
    assert_eq!(links.concat(), hex(&(block("hex link-1-digest") + &block("hex link-2-digest"))));
    let begun = Head::begin(IDENTITY, AUDIENCE, 41, 1);
    let heads = [begun, begun.behind(&links[0]), begun.behind(&links[0]).behind(&links[1])];
    for (at, head) in heads.iter().enumerate() {
        assert_eq!(head.as_bytes()[..], hex(&block(&format!("hex head-{at}"))));
    }
    let x5t = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"avow example certificate");
    let claims = CoverClaims {
        identity: IDENTITY,
        certificate_sha256: x5t.as_ref().try_into().unwrap(),
        audience: AUDIENCE,
        issued_at: 1_800_000_060,
        cti: &hex("404142434445464748494a4b4c4d4e4f"),
        epoch: 41,
        first: 1,
        last: 2,
    };
    let unsigned = UnsignedCover::new(Algorithm::Ed25519, &claims, heads[2]);
    let key = SigningKey::from_pkcs8(&ed25519_der()).unwrap();
    let object = unsigned.signed(&key.sign(&unsigned.to_be_signed()).unwrap());
    assert_eq!(object, hex(&block("hex cover")));
    let sign1 = CoseSign1::from_tagged_slice(&object).unwrap();
    assert_eq!(sign1.tbs_data(b""), unsigned.to_be_signed());
    let typ = sign1.protected.header.rest.iter().find(|(label, _)| *label == Label::Int(16));
    assert_eq!(typ.unwrap().1, Value::from(COVER_TYPE));
}

/// The head and the numbers that a cover is over, if its signature is good.
fn read(cover: &[u8]) -> (Vec<u8>, Vec<Value>) {
    let sign1 = CoseSign1::from_tagged_slice(cover).unwrap();
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ed25519_der());
    let key = UnparsedPublicKey::new(&ED25519, pair.unwrap().public_key().as_ref().to_vec());
    key.verify(&sign1.tbs_data(b""), &sign1.signature).unwrap();
    let rest = &sign1.protected.header.rest;
    let claims = &rest.iter().find(|(label, _)| *label == Label::Int(15)).unwrap().1;
    let claims = claims.as_map().unwrap();
    let claim =
        |label: i64| claims.iter().find(|(key, _)| *key == Value::from(label)).unwrap().1.clone();
    (sign1.payload.unwrap(), [-65537, -65540, -65541].map(claim).to_vec())
}

#[test]
fn a_cover_is_over_what_was_linked_since_the_one_before() {
    let mut signer = signer(BatchBounds { messages: 3, seconds: 10 });
    for (first, count) in [(1, 2), (3, 1)] {
        let mut head = Head::begin(IDENTITY, AUDIENCE, 41, first);
        for seq in first..first + count {
            let link = signer.link(&ONE, 5).unwrap();
            assert_eq!((link.epoch, link.seq), (41, seq));
            head = head.behind(&link.digest(&ONE));
        }
        let (covered, numbers) = read(&signer.cover(6).unwrap().unwrap());
        assert_eq!(covered, head.as_bytes());
        assert_eq!(numbers, [41, first, first + count - 1].map(Value::from));
    }
}

fn link(signer: &mut BatchSigner, count: u64) {
    for _ in 0..count {
        signer.link(&ONE, 100).unwrap();
    }
}

/// Every event in every state: what it gives, and the state behind it.
#[test]
fn the_whole_table() {
    let state = |signer: &BatchSigner, now| {
        format!("seq {}, due {}", signer.last_seq(), signer.is_due(now))
    };
    let bounds = BatchBounds { messages: 2, seconds: 10 };
    type Prepare = fn(&mut BatchSigner);
    let states: [(&str, Prepare); 4] = [
        ("nothing linked", |_| {}),
        ("one linked", |signer| link(signer, 1)),
        ("as many as a batch has", |signer| link(signer, 2)),
        ("as many as fit", |signer| link(signer, BATCH_MESSAGES_MAX)),
    ];
    let mut table = String::new();
    for (name, prepare) in states {
        for event in ["link", "cover", "restart", "109s", "110s"] {
            let mut signer = signer(bounds);
            prepare(&mut signer);
            let (said, now) = match event {
                "link" => (signer.link(&TWO, 105).map(|it| it.seq.to_string()), 105),
                "cover" => {
                    let numbers = |cover: Vec<u8>| format!("{:?}", read(&cover).1);
                    let covered = signer.cover(105);
                    (covered.map(|it| it.map_or("nothing".to_owned(), numbers)), 105)
                }
                "restart" => {
                    signer.restart(42);
                    (Ok("restarted".to_owned()), 105)
                }
                "109s" => (Ok("waits".to_owned()), 109),
                _ => (Ok("waits".to_owned()), 110),
            };
            let said = said.unwrap_or_else(|error: SignError| format!("{error:?}"));
            table.push_str(&format!("{name} | {event} | {said} | {}\n", state(&signer, now)));
        }
    }
    insta::assert_snapshot!(table);
}

use avow_signer::{Algorithm, Message, Signed, SigningKey, Unsigned};
use proptest::prelude::*;

use super::*;

const WIRE: &str = include_str!("../../../devices/signer/WIRE.md");

/// What the block of `WIRE.md` with this heading holds, on one line.
fn block(heading: &str) -> String {
    let (_, rest) = WIRE.split_once(&format!("\n```{heading}\n")).unwrap();
    rest.split_once("\n```").unwrap().0.replace('\n', "")
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

pub(super) fn x5t() -> [u8; 32] {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"avow example certificate");
    hash.as_ref().try_into().unwrap()
}

/// The public key of RFC 8032, 7.1, test 1.
pub(super) fn ed25519() -> DeviceKey {
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    DeviceKey::new(KeyKind::Ed25519, &hex(public))
}

fn binding<'a>(x5t: &'a [u8; 32], key: &'a DeviceKey) -> Binding<'a> {
    Binding {
        identity: "spiffe://plant.example/device/press-7",
        certificate: Some((x5t, key)),
        audience: "plant.example/plant-1",
        topic: "plant/press-7/telemetry/torque",
        qos: QoS::AtLeastOnce,
        retain: false,
        payload: br#"{"t":21.5}"#,
    }
}

fn is_signed(statement: &Statement, key: &DeviceKey) -> bool {
    statement.verify_job(7, key).run() == Verified { ticket: 7, is_good: true }
}

#[test]
fn the_examples_of_the_wire_are_read_bound_and_verified() {
    let p256 = DeviceKey::new(KeyKind::P256, &hex(&block("hex es256-key")));
    for (name, key) in [("hex ed25519", ed25519()), ("hex es256", p256)] {
        let statement = Statement::parse(&hex(&block(name)).into()).unwrap();
        assert_eq!(statement.bind(&binding(&x5t(), &key)), Ok(()), "{name}");
        assert!(is_signed(&statement, &key), "{name}");
        assert_eq!((statement.epoch(), statement.seq()), (41, 7));
        assert_eq!(statement.issued_at(), 1_800_000_000);
        assert_eq!(statement.commitment()[..], hex(&block("hex C")));
        assert_eq!(statement.salt()[..], hex("000102030405060708090a0b0c0d0e0f"));
        let other = Verified { ticket: 7, is_good: false };
        let mut bent = statement.clone();
        bent.signature[63] ^= 1;
        assert_eq!(bent.verify_job(7, &key).run(), other, "{name}");
    }
    let of_property = Statement::parse_property(&block("text property")).unwrap();
    let of_object = Statement::parse(&hex(&block("hex ed25519")).into()).unwrap();
    assert_eq!(of_property, of_object);
    let embedding = hex(&block("hex embedding")).into();
    let (statement, payload) = Statement::parse_embedding(&embedding).unwrap();
    assert_eq!((statement, &payload[..]), (of_object, &br#"{"t":21.5}"#[..]));
}

#[test]
fn whatever_differs_from_the_connection_or_the_publish_is_its_own_refusal() {
    let statement = Statement::parse(&hex(&block("hex ed25519")).into()).unwrap();
    let (x5t, key) = (x5t(), ed25519());
    let p256 = DeviceKey::new(KeyKind::P256, &[]);
    let right = binding(&x5t, &key);
    let rows = [
        (Binding { certificate: None, ..right }, R::Certificate),
        (Binding { certificate: Some((&[9; 32], &key)), ..right }, R::Certificate),
        (Binding { certificate: Some((&x5t, &p256)), ..right }, R::Algorithm),
        (Binding { identity: "spiffe://plant.example/device/press-8", ..right }, R::Issuer),
        (Binding { audience: "plant.example/plant-2", ..right }, R::Audience),
        (Binding { topic: "plant/press-7/telemetry/torqu", ..right }, R::Topic),
        (Binding { qos: QoS::AtMostOnce, ..right }, R::Manner),
        (Binding { retain: true, ..right }, R::Manner),
        (Binding { payload: br#"{"t":21.6}"#, ..right }, R::Commitment),
    ];
    for (wrong, refusal) in rows {
        assert_eq!(statement.bind(&wrong), Err(refusal), "{wrong:?}");
    }
    assert_eq!(statement.bind(&right), Ok(()));
}

/// A statement whose protected header is `protected`.
fn object(protected: &[u8]) -> Bytes {
    let example = hex(&block("hex ed25519"));
    let rest = &example[example.len() - 123..];
    let head = match u8::try_from(protected.len()) {
        Ok(length @ 0..=23) => vec![0x40 | length],
        Ok(length) => vec![0x58, length],
        Err(_) => [&[0x59][..], &u16::try_from(protected.len()).unwrap().to_be_bytes()].concat(),
    };
    [&[0xd2, 0x84][..], &head, protected, rest].concat().into()
}

/// The protected header of the example in parts: label by label, value by value.
fn header() -> Vec<(Vec<u8>, Vec<u8>)> {
    let example = Statement::parse(&hex(&block("hex ed25519")).into()).unwrap();
    let bytes = example.protected();
    let mut parts = Vec::new();
    let starts = [(1, 1), (3, 1), (144, 1), (176, 2), (214, 3), (218, 3)];
    let ends = [3, 144, 176, 214, 218, bytes.len()];
    for ((start, label), end) in starts.into_iter().zip(ends) {
        parts.push((bytes[start..start + label].to_vec(), bytes[start + label..end].to_vec()));
    }
    parts
}

fn joined(parts: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0xa0 | u8::try_from(parts.len()).unwrap()];
    parts.iter().for_each(|(label, value)| bytes.extend([&label[..], value].concat()));
    bytes
}

#[test]
fn only_the_labels_that_are_known_may_stand_there_and_each_once() {
    let whole = header();
    assert!(Statement::parse(&object(&joined(&whole))).is_ok(), "{whole:02x?}");
    let refused = |parts: &[(Vec<u8>, Vec<u8>)]| Statement::parse(&object(&joined(parts)));
    for at in 0..whole.len() {
        let mut less = whole.clone();
        less.remove(at);
        assert_eq!(refused(&less), Err(R::Label), "without {at}");
        let mut twice = whole.clone();
        twice.insert(at, whole[at].clone());
        assert_eq!(refused(&twice), Err(R::Label), "twice {at}");
        let mut replaced = whole.clone();
        replaced[at] = whole[(at + 1) % whole.len()].clone();
        assert_eq!(refused(&replaced), Err(R::Label), "another in place of {at}");
    }
    // Content type, which a hash envelope forbids; crit, known or not; and a label of nobody's.
    for (label, value) in [("03", "182a"), ("02", "810f"), ("02", "811863"), ("1863", "00")] {
        for at in 0..=whole.len() {
            let mut more = whole.clone();
            more.insert(at, (hex(label), hex(value)));
            assert_eq!(refused(&more), Err(R::Label), "{label} at {at}");
        }
    }
    let mut swapped = whole;
    swapped.swap(2, 3);
    assert_eq!(refused(&swapped), Err(R::Label));
}

#[test]
fn other_values_have_refusals_of_their_own() {
    let change = |at: usize, value: &str| {
        let mut parts = header();
        parts[at].1 = hex(value);
        Statement::parse(&object(&joined(&parts))).map(drop)
    };
    // ES384; a text.
    assert_eq!(change(0, "3822"), Err(R::Algorithm));
    assert_eq!(change(0, "6165"), Err(R::Malformed));
    assert_eq!(change(2, "6161"), Err(R::Type));
    assert_eq!(change(2, "182a"), Err(R::Malformed));
    // x5t by SHA-512, of too few bytes, of three parts.
    assert_eq!(change(3, "82382b40"), Err(R::Type));
    assert_eq!(change(3, "822f4101"), Err(R::Malformed));
    assert_eq!(change(3, "832f4000"), Err(R::Malformed));
    assert_eq!(change(4, "382b"), Err(R::Type));
    assert_eq!(change(5, "00"), Err(R::Type));
    assert_eq!(change(1, "a0"), Err(R::Label));
}

#[test]
fn what_stands_around_the_header_is_read_as_strictly() {
    let example = hex(&block("hex ed25519"));
    let parse = |bytes: &[u8]| Statement::parse(&Bytes::copy_from_slice(bytes)).map(drop);
    assert_eq!(parse(&example), Ok(()));
    assert_eq!(parse(&example[1..]), Err(R::Malformed), "untagged");
    assert_eq!(parse(&[&example[..], &[0]].concat()), Err(R::Malformed), "more behind it");
    for cut in 0..example.len() {
        assert!(parse(&example[..cut]).is_err(), "{cut}");
    }
    let salt = example.len() - 123;
    let with = |at: usize, byte: u8| {
        let mut bytes = example.clone();
        bytes[at] = byte;
        parse(&bytes)
    };
    assert_eq!(with(salt, 0xa0), Err(R::Label), "no salt");
    assert_eq!(with(salt + 5, 1), Err(R::Label), "another label");
    let embedding = hex(&block("hex embedding"));
    let as_property = URL_SAFE_NO_PAD.encode(&embedding);
    assert_eq!(Statement::parse_property(&as_property).map(drop), Err(R::Label));
    let plain = Statement::parse_embedding(&example.into()).map(drop);
    assert_eq!(plain, Err(R::Label), "nothing embedded");
}

#[test]
fn the_bound_counts_everything_but_an_embedded_payload() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let der = hex(&format!("302e020100300506032b657004220420{seed}"));
    let key = SigningKey::from_pkcs8(&der).unwrap();
    let sign = |topic: &str, payload: &[u8]| -> Signed {
        let claims = avow_signer::Claims {
            identity: "spiffe://p/device/a",
            certificate_sha256: &[0; 32],
            audience: "p/p",
            issued_at: 0,
            cti: &[0; 8],
            epoch: 0,
            seq: 0,
        };
        let message = Message { topic, payload, qos: 0, retain: false };
        let unsigned = Unsigned::new(Algorithm::Ed25519, &claims, &message, [0; 16]);
        let signature = key.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.signed(signature)
    };
    let short = sign("a", b"").object().len();
    // Heads of three bytes in place of one and two.
    let longest = "a".repeat(STATEMENT_BYTES_MAX - short - 2);
    let object = sign(&longest, b"").object();
    assert_eq!(object.len(), STATEMENT_BYTES_MAX);
    let statement = Statement::parse(&object.into()).unwrap();
    assert!(is_signed(&statement, &ed25519()));
    let signed = sign(&format!("{longest}a"), b"");
    assert_eq!(Statement::parse(&signed.object().into()).map(drop), Err(R::TooLong));
    assert_eq!(Statement::parse_property(&"A".repeat(20_000)).map(drop), Err(R::TooLong));
    let large = vec![7; 100_000];
    let embedding = sign("a", &large).embedding(&large).into();
    assert_eq!(Statement::parse_embedding(&embedding).unwrap().1, large);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Statement::parse(&bytes.into());
    }

    /// Any one change is refused, or says something else, or is not signed.
    #[test]
    fn no_change_of_a_byte_goes_unseen(at in 0_usize..350, bit in 0_u8..8) {
        let mut bytes = hex(&block("hex ed25519"));
        bytes[at] ^= 1 << bit;
        let (x5t, key) = (x5t(), ed25519());
        let seen = match Statement::parse(&bytes.into()) {
            Err(_) => true,
            Ok(statement) => {
                statement.bind(&binding(&x5t, &key)).is_err() || !is_signed(&statement, &key)
            }
        };
        prop_assert!(seen);
    }

    #[test]
    fn what_a_signer_makes_is_read_as_it_was_meant(
        topic in "[a-z/]{1,300}",
        payload in prop::collection::vec(any::<u8>(), 0..300),
        (issued_at, epoch, seq) in any::<(u64, u64, u64)>(),
        cti in prop::collection::vec(any::<u8>(), 8..=32),
        (qos, retain) in (0_u8..3, any::<bool>()),
    ) {
        let claims = avow_signer::Claims {
            identity: "spiffe://p/device/a",
            certificate_sha256: &[5; 32],
            audience: "p/p",
            issued_at,
            cti: &cti,
            epoch,
            seq,
        };
        let message = Message { topic: &topic, payload: &payload, qos, retain };
        let unsigned = Unsigned::new(Algorithm::Es256, &claims, &message, [6; 16]);
        let signed = unsigned.clone().signed(vec![8; 64]);
        let statement = Statement::parse_property(&signed.property()).unwrap();
        prop_assert_eq!(statement.to_be_signed(), unsigned.to_be_signed());
        let said = (statement.issued_at(), statement.epoch(), statement.seq(), statement.cti());
        prop_assert_eq!(said, (issued_at, epoch, seq, &cti[..]));
        let (embedding, taken) = Statement::parse_embedding(&signed.embedding(&payload).into()).unwrap();
        prop_assert_eq!((embedding, &taken[..]), (statement.clone(), &payload[..]));
        let key = DeviceKey::new(KeyKind::P256, &[]);
        let bound = statement.bind(&Binding {
            identity: "spiffe://p/device/a",
            certificate: Some((&[5; 32], &key)),
            audience: "p/p",
            topic: &topic,
            qos: QoS::from_bits(qos).unwrap(),
            retain,
            payload: &payload,
        });
        prop_assert_eq!(bound, Ok(()));
    }
}

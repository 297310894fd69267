//! The bytes that break a rule and the Violation they must cause: rows A01 to A19 of the abuse
//! catalogue, as far as a codec alone can show them.

use avow::mqtt::{Decoded, Decoder, Packet, ProtocolVersion, ReasonCode, Violation};

use crate::packets::{PACKET_BYTES_MAX, connected};
use ProtocolVersion::{V3_1, V3_1_1, V5};
use ReasonCode as R;

/// A rule that no single statement says.
pub(crate) const NONE: &str = "";

pub(crate) fn server() -> Decoder {
    Decoder::server(PACKET_BYTES_MAX)
}

fn violation(mut decoder: Decoder, bytes: &[u8]) -> Violation {
    match decoder.decode(bytes) {
        Err(violation) => violation,
        Ok(found) => panic!("{bytes:02X?} gave {found:?}"),
    }
}

#[track_caller]
pub(crate) fn check(decoder: &Decoder, table: &[(&[u8], ReasonCode, &str)]) {
    for (bytes, reason, statement) in table {
        let violation = violation(decoder.clone(), bytes);
        let found = (violation.reason, violation.statement.unwrap_or(NONE));
        assert_eq!(found, (*reason, *statement), "{bytes:02X?}: {violation}");
    }
}

#[track_caller]
pub(crate) fn accept(decoder: &Decoder, table: &[&[u8]]) {
    for bytes in table {
        match decoder.clone().decode(bytes) {
            Ok(Decoded::Packet { consumed, .. }) => assert_eq!(consumed, bytes.len()),
            other => panic!("{bytes:02X?} gave {other:?}"),
        }
    }
}

/// A packet of less than 128 bytes.
pub(crate) fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = vec![first, u8::try_from(body.len()).unwrap()];
    assert!(body.len() < 128);
    bytes.extend(body);
    bytes
}

/// A CONNECT with these Connect Flags and this after the Keep Alive.
pub(crate) fn connect(version: ProtocolVersion, flags: u8, rest: &[u8]) -> Vec<u8> {
    let start: &[u8] = match version {
        V3_1 => b"\x00\x06MQIsdp\x03",
        V3_1_1 => b"\x00\x04MQTT\x04",
        V5 => b"\x00\x04MQTT\x05",
    };
    packet(0x10, &[start, &[flags, 0, 60], rest])
}

/// A 5.0 CONNECT with these properties.
fn connect_with(properties: &[u8]) -> Vec<u8> {
    let len = [u8::try_from(properties.len()).unwrap()];
    connect(V5, 2, &[&len, properties, b"\x00\x01c"].concat())
}

/// A 5.0 PUBLISH of QoS 0 to `t` with these properties.
fn publish_with(properties: &[u8]) -> Vec<u8> {
    packet(0x30, &[b"\x00\x01t", &[u8::try_from(properties.len()).unwrap()], properties])
}

#[test]
fn a01_remaining_length_of_five_bytes_then_smuggled_commands() {
    let bytes = b"\x30\x80\x80\x80\x80\x01\xE0\x00";
    check(&connected(V5), &[(bytes, R::MalformedPacket, NONE)]);
    check(&connected(V3_1_1), &[(bytes, R::MalformedPacket, NONE)]);
    check(&server(), &[(b"\x10\xFF\xFF\xFF\xFF", R::MalformedPacket, NONE)]);
}

#[test]
fn a02_property_length_of_five_bytes() {
    let bytes = packet(0x30, &[b"\x00\x01t", b"\x80\x80\x80\x80\x01"]);
    check(&connected(V5), &[(&bytes, R::MalformedPacket, NONE)]);
}

#[test]
fn a03_non_minimal_variable_byte_integer() {
    let s = "MQTT-1.5.5-1";
    for version in [V3_1, V3_1_1, V5] {
        check(&connected(version), &[(b"\xC0\x80\x00", R::MalformedPacket, s)]);
    }
    check(
        &connected(V5),
        &[
            (&packet(0x30, &[b"\x00\x01t", b"\x80\x00"]), R::MalformedPacket, s),
            (&packet(0x30, &[b"\x00\x01t", b"\x03\x81\x00\x01"]), R::MalformedPacket, s),
            (
                &packet(0x82, &[b"\x00\x01\x03\x0B\x81\x00", b"\x00\x01t\x00"]),
                R::MalformedPacket,
                s,
            ),
        ],
    );
}

#[test]
fn a04_huge_remaining_length_before_connect() {
    let table: &[(&[u8], ReasonCode, &str)] =
        &[(b"\x10\xFF\xFF\xFF\x7F", R::PacketTooLarge, "MQTT-3.2.2-15")];
    check(&server(), table);
    check(&connected(V5), &[(b"\x30\xFF\xFF\xFF\x7F", R::PacketTooLarge, "MQTT-3.2.2-15")]);
    // At the bound, and one past it.
    let needed = |bytes: &[u8]| Decoder::server(130).decode(bytes);
    assert_eq!(needed(b"\x10\x7F"), Ok(Decoded::Incomplete { needed: 129 }));
    assert_eq!(needed(b"\x10\x80"), Ok(Decoded::Incomplete { needed: 3 }));
    assert!(needed(b"\x10\x80\x01").is_err());
    assert_eq!(
        Decoder::server(131).decode(b"\x10\x80\x01"),
        Ok(Decoded::Incomplete { needed: 131 })
    );
}

#[test]
fn a05_first_packet_is_not_connect() {
    for first in (0x00..=0xFF_u8).filter(|first| first >> 4 != 1) {
        // The first byte is enough: no length is read, nothing is buffered.
        check(&server(), &[(&[first], R::ProtocolError, "MQTT-3.1.0-1")]);
    }
}

#[test]
fn a06_remaining_length_shorter_than_the_topic() {
    for version in [V3_1, V3_1_1, V5] {
        check(&connected(version), &[(b"\x30\x04\x00\x09to", R::MalformedPacket, NONE)]);
    }
    check(&connected(V5), &[(b"\x30\x00", R::MalformedPacket, NONE)]);
}

#[test]
fn a08_subscribe_cut_before_its_options() {
    check(&connected(V3_1_1), &[(b"\x82\x05\x00\x01\x00\x01t", R::MalformedPacket, NONE)]);
    check(&connected(V5), &[(b"\x82\x06\x00\x01\x00\x00\x01t", R::MalformedPacket, NONE)]);
    check(&connected(V5), &[(b"\x82\x05\x00\x01\x00\x00\x00", R::MalformedPacket, NONE)]);
    check(&connected(V5), &[(b"\xA2\x04\x00\x01\x00\x00", R::MalformedPacket, NONE)]);
    // An empty filter is readable: SUBACK refuses it.
    accept(&connected(V5), &[b"\x82\x06\x00\x01\x00\x00\x00\x00", b"\xA2\x05\x00\x01\x00\x00\x00"]);
}

#[test]
fn a09_publish_cut_before_its_packet_identifier() {
    for first in [0x32, 0x34] {
        for version in [V3_1_1, V5] {
            let bytes = [first, 0x04, 0, 1, b't', 0];
            check(&connected(version), &[(&bytes, R::MalformedPacket, NONE)]);
        }
    }
}

#[test]
fn a10_empty_topic_without_alias() {
    check(&connected(V5), &[(b"\x30\x03\x00\x00\x00", R::ProtocolError, NONE)]);
    check(&connected(V3_1_1), &[(b"\x30\x02\x00\x00", R::TopicNameInvalid, "MQTT-4.7.3-1")]);
    accept(&connected(V5), &[b"\x30\x06\x00\x00\x03\x23\x00\x01"]);
}

#[test]
fn a11_packet_identifier_zero() {
    let s = "MQTT-2.2.1-3";
    for version in [V3_1, V3_1_1, V5] {
        let table: Vec<Vec<u8>> = [0x40, 0x50, 0x62, 0x70, 0x82, 0xA2]
            .into_iter()
            .map(|first| packet(first, &[b"\x00\x00", b"\x00\x00\x01t\x00"]))
            .chain([packet(0x32, &[b"\x00\x01t", b"\x00\x00\x00"])])
            .collect();
        for bytes in table {
            check(&connected(version), &[(&bytes, R::ProtocolError, s)]);
        }
        let client = Decoder::client(version, PACKET_BYTES_MAX);
        check(&client, &[(b"\x90\x04\x00\x00\x00\x00", R::ProtocolError, s)]);
        check(&client, &[(b"\xB0\x02\x00\x00", R::ProtocolError, s)]);
    }
}

#[test]
fn a12_reserved_flags_by_packet_type() {
    let allowed = |first: u8, version| match (first >> 4, first & 0x0F) {
        (6 | 8 | 10, flags) => flags == 2 || (version == V3_1 && flags == 0b1010),
        (3, flags) => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
        (_, flags) => flags == 0,
    };
    for version in [V3_1, V3_1_1, V5] {
        for first in 0x30..=0xEF_u8 {
            // Types that only a server sends are refused for that.
            if matches!(first >> 4, 9 | 11 | 13) {
                continue;
            }
            let refused = connected(version).decode(&[first]).is_err();
            assert_eq!(refused, !allowed(first, version), "{first:02X} in {version:?}");
        }
    }
    check(
        &connected(V5),
        &[
            (&[0x41], R::MalformedPacket, "MQTT-2.1.3-1"),
            (&[0x60], R::MalformedPacket, "MQTT-3.6.1-1"),
            (&[0x80], R::MalformedPacket, "MQTT-3.8.1-1"),
            (&[0xA0], R::MalformedPacket, "MQTT-3.10.1-1"),
            (&[0xE1], R::MalformedPacket, "MQTT-3.14.1-1"),
            (&[0xF1], R::MalformedPacket, "MQTT-3.15.1-1"),
        ],
    );
    check(&server(), &[(&[0x11], R::MalformedPacket, "MQTT-2.1.3-1")]);
}

#[test]
fn a12_qos_3_and_dup_with_qos_0() {
    for version in [V3_1, V3_1_1, V5] {
        check(
            &connected(version),
            &[
                (&[0x36], R::MalformedPacket, "MQTT-3.3.1-4"),
                (&[0x38], R::MalformedPacket, "MQTT-3.3.1-2"),
            ],
        );
    }
}

#[test]
fn a12_types_0_and_15() {
    for version in [V3_1, V3_1_1, V5] {
        check(&connected(version), &[(&[0x00], R::MalformedPacket, NONE)]);
    }
    for version in [V3_1, V3_1_1] {
        check(&connected(version), &[(&[0xF0], R::MalformedPacket, NONE)]);
        let client = Decoder::client(version, PACKET_BYTES_MAX);
        check(&client, &[(&[0xF0], R::MalformedPacket, NONE)]);
    }
}

#[test]
fn a13_packets_only_a_server_sends() {
    for version in [V3_1, V3_1_1, V5] {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            check(&connected(version), &[(&[first], R::ProtocolError, NONE)]);
        }
        for first in [0x10, 0x82, 0xA2, 0xC0] {
            let client = Decoder::client(version, PACKET_BYTES_MAX);
            check(&client, &[(&[first], R::ProtocolError, NONE)]);
        }
    }
    let client = Decoder::client(V3_1_1, PACKET_BYTES_MAX);
    check(&client, &[(&[0xE0], R::ProtocolError, NONE)]);
}

#[test]
fn a14_second_connect() {
    for version in [V3_1, V3_1_1, V5] {
        check(&connected(version), &[(&[0x10], R::ProtocolError, "MQTT-3.1.0-2")]);
    }
}

#[test]
fn a14_publish_pipelined_behind_connect_is_the_next_packet() {
    let first = connect(V5, 2, b"\x00\x00\x01c");
    let stream = [&first[..], &publish_with(b"")].concat();
    let mut decoder = server();
    let Ok(Decoded::Packet { packet: Packet::Connect(_), consumed }) = decoder.decode(&stream)
    else {
        panic!("no CONNECT")
    };
    assert_eq!(consumed, first.len());
    let next = decoder.decode(&stream[consumed..]);
    assert!(matches!(next, Ok(Decoded::Packet { packet: Packet::Publish(_), .. })));
}

#[test]
fn a15_ill_formed_utf8_null_and_control_characters() {
    type Place = fn(&[u8]) -> (Decoder, Vec<u8>);
    let places: [Place; 7] = [
        |text| (connected(V5), packet(0x30, &[text, b"\x00"])),
        |text| (connected(V3_1_1), packet(0x30, &[text])),
        |text| (connected(V5), packet(0x82, &[b"\x00\x01\x00", text, b"\x00"])),
        |text| (connected(V3_1), packet(0xA2, &[b"\x00\x01", text])),
        |text| (server(), connect(V5, 2, &[b"\x00", text].concat())),
        |text| (server(), connect(V5, 0x82, &[b"\x00\x00\x01c", text].concat())),
        |text| {
            let rest = [b"\x00\x00\x01c\x00", text, b"\x00\x00"].concat();
            (server(), connect(V5, 0b110, &rest))
        },
    ];
    for place in places {
        for (text, statement) in [
            (&b"\x00\x02\xC3\x28"[..], "MQTT-1.5.4-1"),
            (b"\x00\x03\xED\xA0\x80", "MQTT-1.5.4-1"),
            (b"\x00\x02\xC0\x80", "MQTT-1.5.4-1"),
            (b"\x00\x03a\x00b", "MQTT-1.5.4-2"),
            (b"\x00\x01\x1B", NONE),
            (b"\x00\x01\x7F", NONE),
            (b"\x00\x02\xC2\x9B", NONE),
        ] {
            let (decoder, bytes) = place(text);
            check(&decoder, &[(&bytes, R::MalformedPacket, statement)]);
        }
    }
    // Free text may hold line breaks, but nothing ill-formed.
    accept(&connected(V5), &[&publish_with(b"\x26\x00\x01a\x00\x01\n")]);
    let bytes = publish_with(b"\x26\x00\x01a\x00\x01\x00");
    check(&connected(V5), &[(&bytes, R::MalformedPacket, "MQTT-1.5.4-2")]);
}

#[test]
fn a16_malformed_disconnect() {
    check(
        &connected(V5),
        &[
            (b"\xE0\x01\x8E", R::MalformedPacket, "MQTT-3.14.2-1"),
            (b"\xE0\x01\x87", R::MalformedPacket, "MQTT-3.14.2-1"),
            (b"\xE0\x01\x01", R::MalformedPacket, "MQTT-3.14.2-1"),
            (b"\xE0\x02\x00\x01", R::MalformedPacket, NONE),
            (b"\xE0\x03\x00\x00\x00", R::MalformedPacket, NONE),
            (b"\xE0\x06\x00\x04\x1C\x00\x01s", R::ProtocolError, NONE),
        ],
    );
    check(&connected(V3_1_1), &[(b"\xE0\x01\x00", R::MalformedPacket, NONE)]);
    accept(&connected(V5), &[b"\xE0\x00", b"\xE0\x01\x04", b"\xE0\x02\x00\x00"]);
    let client = Decoder::client(V5, PACKET_BYTES_MAX);
    let expiry = b"\xE0\x07\x8E\x05\x11\x00\x00\x00\x01";
    check(&client, &[(expiry, R::ProtocolError, "MQTT-3.14.2-2")]);
    check(&client, &[(b"\xE0\x01\x04", R::MalformedPacket, "MQTT-3.14.2-1")]);
}

#[test]
fn a16_malformed_auth() {
    check(
        &connected(V5),
        &[
            (b"\xF0\x00", R::MalformedPacket, "MQTT-3.15.2-1"),
            (b"\xF0\x02\x18\x00", R::ProtocolError, NONE),
            (b"\xF0\x06\x00\x04\x15\x00\x01m", R::MalformedPacket, "MQTT-3.15.2-1"),
            (b"\xF0\x06\x17\x04\x15\x00\x01m", R::MalformedPacket, "MQTT-3.15.2-1"),
            (b"\xF0\x01\x18", R::MalformedPacket, NONE),
            (b"\xF0\x06\x18\x04\x16\x00\x01d", R::ProtocolError, NONE),
        ],
    );
    accept(&connected(V5), &[b"\xF0\x06\x19\x04\x15\x00\x01m"]);
    accept(
        &Decoder::client(V5, PACKET_BYTES_MAX),
        &[b"\xF0\x00", b"\xF0\x06\x00\x04\x15\x00\x01m"],
    );
}

#[test]
fn a17_duplicate_properties() {
    for twice in [
        &b"\x11\x00\x00\x00\x01"[..],
        b"\x21\x00\x01",
        b"\x27\x00\x00\x00\x01",
        b"\x22\x00\x01",
        b"\x19\x01",
        b"\x17\x01",
        b"\x15\x00\x01m",
    ] {
        accept(&server(), &[&connect_with(twice)]);
        check(&server(), &[(&connect_with(&twice.repeat(2)), R::ProtocolError, NONE)]);
    }
    for twice in [
        &b"\x01\x01"[..],
        b"\x02\x00\x00\x00\x01",
        b"\x23\x00\x01",
        b"\x08\x00\x01r",
        b"\x09\x00\x01d",
        b"\x03\x00\x01c",
    ] {
        accept(&connected(V5), &[&publish_with(twice)]);
        check(&connected(V5), &[(&publish_with(&twice.repeat(2)), R::ProtocolError, NONE)]);
    }
    let identifiers = packet(0x82, &[b"\x00\x01\x04\x0B\x01\x0B\x02", b"\x00\x01t\x00"]);
    check(&connected(V5), &[(&identifiers, R::ProtocolError, NONE)]);
    accept(&connected(V5), &[&publish_with(&b"\x26\x00\x01a\x00\x01b".repeat(2))]);
}

#[test]
fn a17_unknown_and_misplaced_properties() {
    let ours: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
    for id in 0..=0x7F_u8 {
        // Subscription Identifier has its own rule, below.
        if ours.contains(&id) || id == 0x0B {
            continue;
        }
        let bytes = publish_with(&[id, 0, 0, 0, 0]);
        check(&connected(V5), &[(&bytes, R::MalformedPacket, NONE)]);
    }
    check(
        &connected(V5),
        &[
            (&publish_with(b"\x80\x01\x00"), R::MalformedPacket, NONE),
            (&publish_with(b"\x0B\x01"), R::ProtocolError, "MQTT-3.3.4-6"),
            (b"\x40\x07\x00\x01\x00\x03\x23\x00\x01", R::MalformedPacket, NONE),
            (b"\x82\x0A\x00\x01\x03\x23\x00\x01\x00\x01t\x00", R::MalformedPacket, NONE),
            (b"\xA2\x08\x00\x01\x02\x0B\x01\x00\x01t", R::MalformedPacket, NONE),
        ],
    );
    check(&server(), &[(&connect_with(b"\x23\x00\x01"), R::MalformedPacket, NONE)]);
    // A Topic Alias in a Will.
    let will = connect(V5, 0b110, b"\x00\x00\x01c\x03\x23\x00\x01\x00\x01t\x00\x00");
    check(&server(), &[(&will, R::MalformedPacket, NONE)]);
}

#[test]
fn a17_property_values_out_of_bounds() {
    check(
        &server(),
        &[
            (&connect_with(b"\x21\x00\x00"), R::ProtocolError, NONE),
            (&connect_with(b"\x27\x00\x00\x00\x00"), R::ProtocolError, NONE),
            (&connect_with(b"\x17\x02"), R::ProtocolError, NONE),
            (&connect_with(b"\x19\x02"), R::ProtocolError, NONE),
            (&connect_with(b"\x16\x00\x01d"), R::ProtocolError, NONE),
            (&connect_with(b"\x11\x00\x00\x00"), R::MalformedPacket, NONE),
        ],
    );
    check(
        &connected(V5),
        &[
            (&publish_with(b"\x01\x02"), R::ProtocolError, NONE),
            (&publish_with(b"\x23\x00\x00"), R::TopicAliasInvalid, "MQTT-3.3.2-8"),
            (&publish_with(b"\x02\x00\x00"), R::MalformedPacket, NONE),
            (b"\x82\x09\x00\x01\x02\x0B\x00\x00\x01t\x00", R::ProtocolError, NONE),
        ],
    );
    let client = Decoder::client(V5, PACKET_BYTES_MAX);
    for value in [&b"\x24\x02"[..], b"\x25\x02", b"\x28\x02", b"\x29\x02", b"\x2A\x02"] {
        let bytes = packet(0x20, &[b"\x00\x00\x02", value]);
        check(&client, &[(&bytes, R::ProtocolError, NONE)]);
    }
}

#[test]
fn a17_property_length_past_the_packet_or_inside_a_property() {
    check(
        &connected(V5),
        &[
            (b"\x30\x04\x00\x01t\x01", R::MalformedPacket, NONE),
            // The value would reach past its section into the payload.
            (b"\x30\x07\x00\x01t\x01\x01\x01\x00", R::MalformedPacket, NONE),
        ],
    );
}

#[test]
fn a19_wildcards_in_topics_that_are_published_to() {
    let s = "MQTT-3.3.2-2";
    for version in [V3_1, V3_1_1, V5] {
        check(
            &connected(version),
            &[
                (b"\x30\x05\x00\x02t+\x00", R::TopicNameInvalid, s),
                (b"\x30\x05\x00\x02t#\x00", R::TopicNameInvalid, s),
            ],
        );
    }
    for response in [&b"\x08\x00\x01+"[..], b"\x08\x00\x03a/#", b"\x08\x00\x00"] {
        let bytes = publish_with(response);
        check(&connected(V5), &[(&bytes, R::ProtocolError, "MQTT-3.3.2-14")]);
    }
    let will = connect(V5, 0b110, b"\x00\x00\x01c\x00\x00\x01#\x00\x00");
    check(&server(), &[(&will, R::TopicNameInvalid, s)]);
    let will = connect(V3_1_1, 0b110, b"\x00\x01c\x00\x00\x00\x00");
    check(&server(), &[(&will, R::TopicNameInvalid, "MQTT-4.7.3-1")]);
}

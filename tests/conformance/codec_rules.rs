//! The rules of each packet that the abuse catalogue does not name: the bytes that break one, and
//! those that just keep it.

use avow::mqtt::{Decoder, ProtocolVersion, ReasonCode};

use crate::codec_vectors::{NONE, accept, check, connect, packet, server};
use crate::packets::{PACKET_BYTES_MAX, connected};
use ProtocolVersion::{V3_1, V3_1_1, V5};
use ReasonCode as R;

#[test]
fn connect_protocol_name_and_level() {
    let connect = |name: &[u8], level| packet(0x10, &[name, &[level, 2, 0, 0], b"\x00\x01c"]);
    for (name, level, answer) in [
        (&b"\x00\x04MQTT"[..], 0, V3_1_1),
        (b"\x00\x04MQTT", 3, V3_1_1),
        (b"\x00\x04MQTT", 6, V5),
        (b"\x00\x04MQTT", 0x84, V3_1_1),
        (b"\x00\x04MQTT", 0xFF, V5),
        (b"\x00\x06MQIsdp", 4, V3_1),
    ] {
        let mut decoder = server();
        let violation = decoder.decode(&connect(name, level)).unwrap_err();
        assert_eq!(violation.reason, R::UnsupportedProtocolVersion);
        assert_eq!(violation.statement, Some("MQTT-3.1.2-2"));
        assert_eq!(decoder.version(), Some(answer));
    }
    for name in [&b"\x00\x04mqtt"[..], b"\x00\x00", b"\x00\x05MQTT5", b"\x00\x02\xFF\xFF"] {
        check(&server(), &[(&connect(name, 4), R::ProtocolError, "MQTT-3.1.2-1")]);
    }
    check(&server(), &[(b"\x10\x00", R::MalformedPacket, NONE)]);
}

#[test]
fn connect_that_breaks_a_rule_still_tells_its_version() {
    for version in [V3_1, V3_1_1, V5] {
        let mut decoder = server();
        let first = decoder.decode(&connect(version, 0x03, b"\x00\x00\x01c")).unwrap_err();
        assert_eq!(first.statement, Some("MQTT-3.1.2-3"));
        assert_eq!(decoder.version(), Some(version));
        // There is no next packet behind a violation.
        assert_eq!(decoder.decode(&connect(version, 0x02, b"\x00\x00\x01c")), Err(first));
    }
}

#[test]
fn connect_flags() {
    for version in [V3_1, V3_1_1, V5] {
        let m = R::MalformedPacket;
        for (flags, statement) in [
            (0b0000_0001, "MQTT-3.1.2-3"),
            (0b0000_1000, "MQTT-3.1.2-11"),
            (0b0001_1000, "MQTT-3.1.2-11"),
            (0b0010_0000, "MQTT-3.1.2-13"),
            (0b0001_1100, "MQTT-3.1.2-12"),
        ] {
            let rest = b"\x00\x01c\x00\x00\x01t\x00\x00";
            check(&server(), &[(&connect(version, flags, rest), m, statement)]);
        }
    }
    let statement = "MQTT-3.1.2-22 (3.1.1)";
    for version in [V3_1, V3_1_1] {
        let alone = connect(version, 0x42, b"\x00\x01c\x00\x01p");
        check(&server(), &[(&alone, R::MalformedPacket, statement)]);
    }
    accept(&server(), &[&connect(V5, 0x42, b"\x00\x00\x01c\x00\x01p")]);
}

#[test]
fn connect_fields_missing_or_left_over() {
    for (flags, rest) in [
        (0x02, &b""[..]),
        (0x02, b"\x00\x02c"),
        (0x82, b"\x00\x01c"),
        (0xC2, b"\x00\x01c\x00\x01u"),
        (0x06, b"\x00\x01c\x00\x01t"),
        (0x02, b"\x00\x01c\x00\x01u"),
    ] {
        check(&server(), &[(&connect(V3_1_1, flags, rest), R::MalformedPacket, NONE)]);
    }
    // 3.1 lets the Remaining Length overrule the User Name and Password flags, 3.1.1 does not.
    accept(
        &server(),
        &[&connect(V3_1, 0xC2, b"\x00\x01c"), &connect(V3_1, 0xC2, b"\x00\x01c\0\x01u")],
    );
}

#[test]
fn client_identifier_by_version() {
    let empty = connect(V3_1, 2, b"\x00\x00");
    check(&server(), &[(&empty, R::ClientIdentifierNotValid, NONE)]);
    let of_24 = [&b"\x00\x18"[..], &[b'c'; 24]].concat();
    accept(&server(), &[&connect(V3_1, 2, &of_24)]);
    // Whether the broker assigns one is its own affair.
    accept(&server(), &[&connect(V3_1_1, 0, b"\x00\x00"), &connect(V5, 0, b"\x00\x00\x00")]);
}

#[test]
fn subscribe_without_filter_and_with_reserved_options() {
    check(
        &connected(V5),
        &[
            (b"\x82\x03\x00\x01\x00", R::ProtocolError, "MQTT-3.8.3-2"),
            (b"\xA2\x03\x00\x01\x00", R::ProtocolError, "MQTT-3.10.3-2"),
            (b"\x82\x07\x00\x01\x00\x00\x01t\x40", R::MalformedPacket, "MQTT-3.8.3-5"),
            (b"\x82\x07\x00\x01\x00\x00\x01t\x80", R::MalformedPacket, "MQTT-3.8.3-5"),
            (b"\x82\x07\x00\x01\x00\x00\x01t\x03", R::ProtocolError, NONE),
            (b"\x82\x07\x00\x01\x00\x00\x01t\x30", R::ProtocolError, NONE),
            (&shared(0x04), R::ProtocolError, "MQTT-3.8.3-4"),
        ],
    );
    accept(&connected(V5), &[&shared(0x00), b"\x82\x07\x00\x01\x00\x00\x01t\x2E"]);
    for version in [V3_1, V3_1_1] {
        check(
            &connected(version),
            &[
                (b"\x82\x02\x00\x01", R::ProtocolError, "MQTT-3.8.3-2"),
                (b"\xA2\x02\x00\x01", R::ProtocolError, "MQTT-3.10.3-2"),
                (b"\x82\x06\x00\x01\x00\x01t\x04", R::MalformedPacket, "MQTT-3.8.3-5"),
                (b"\x82\x06\x00\x01\x00\x01t\x03", R::ProtocolError, NONE),
            ],
        );
    }
}

fn shared(options: u8) -> Vec<u8> {
    packet(0x82, &[b"\x00\x01\x00", b"\x00\x0A$share/g/t", &[options]])
}

#[test]
fn reason_codes_by_packet() {
    let server = connected(V5);
    let client = Decoder::client(V5, PACKET_BYTES_MAX);
    let received: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let released: &[u8] = &[0x00, 0x92];
    let suback: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    let unsuback: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    let connack: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
        0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    type Case<'a> = (&'a Decoder, u8, &'a [u8], &'a [u8], &'a str);
    let cases: [Case<'_>; 7] = [
        (&server, 0x40, b"\x00\x01", received, "MQTT-3.4.2-1"),
        (&server, 0x50, b"\x00\x01", received, "MQTT-3.5.2-1"),
        (&server, 0x62, b"\x00\x01", released, "MQTT-3.6.2-1"),
        (&server, 0x70, b"\x00\x01", released, "MQTT-3.7.2-1"),
        (&client, 0x90, b"\x00\x01\x00", suback, "MQTT-3.9.3-2"),
        (&client, 0xB0, b"\x00\x01\x00", unsuback, "MQTT-3.11.3-2"),
        (&client, 0x20, b"\x00", connack, "MQTT-3.2.2-8"),
    ];
    for (decoder, first, before, allowed, statement) in cases {
        for code in 0..=0xFF_u8 {
            let after: &[u8] = if first == 0x20 { b"\x00" } else { b"" };
            let bytes = packet(first, &[before, &[code], after]);
            if allowed.contains(&code) {
                accept(decoder, &[&bytes]);
            } else {
                check(decoder, &[(&bytes, R::MalformedPacket, statement)]);
            }
        }
    }
}

#[test]
fn server_packets_of_3_x() {
    for version in [V3_1, V3_1_1] {
        let client = Decoder::client(version, PACKET_BYTES_MAX);
        for code in 0..=0xFF_u8 {
            let connack = client.clone().decode(&[0x20, 2, 0, code]);
            assert_eq!(connack.is_ok(), code <= 5, "{code}");
            let suback = client.clone().decode(&[0x90, 3, 0, 1, code]);
            assert_eq!(suback.is_ok(), matches!(code, 0..=2 | 0x80), "{code}");
        }
        check(&client, &[(b"\xB0\x03\x00\x01\x00", R::MalformedPacket, NONE)]);
        check(&client, &[(b"\x90\x02\x00\x01", R::ProtocolError, "MQTT-3.8.4-6")]);
    }
    let client = Decoder::client(V3_1_1, PACKET_BYTES_MAX);
    check(
        &client,
        &[
            (b"\x20\x02\x02\x00", R::MalformedPacket, "MQTT-3.2.2-1"),
            (b"\x20\x02\x01\x05", R::ProtocolError, "MQTT-3.2.2-6"),
        ],
    );
}

#[test]
fn bytes_after_the_last_field() {
    for version in [V3_1, V3_1_1] {
        for first in [0x40, 0x50, 0x62, 0x70] {
            let bytes = [first, 3, 0, 1, 0];
            check(&connected(version), &[(&bytes, R::MalformedPacket, NONE)]);
        }
    }
    for version in [V3_1, V3_1_1, V5] {
        check(&connected(version), &[(b"\xC0\x01\x00", R::MalformedPacket, NONE)]);
    }
    check(&connected(V5), &[(b"\x40\x05\x00\x01\x00\x00\x00", R::MalformedPacket, NONE)]);
}

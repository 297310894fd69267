//! What a connected client must not send: the bytes, the Reason Code that 5.0 is told, the end.

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// Bytes that end a connection, with the Reason Code of the DISCONNECT in 5.0.
type Row = (Vec<u8>, u8);

/// Sends each row on a connection of its own.
#[track_caller]
fn all_refused(site: &Site, version: Version, rows: &[Row]) {
    for (bytes, reason) in rows {
        let mut client = Client::clean(site, "a", version);
        client.send(bytes);
        // [MQTT-4.13.1-1], [MQTT-4.13.2-1]; [MQTT-4.8.0-1] of 3.1.1
        let told = if version == V5 { vec![disconnect(*reason)] } else { vec![] };
        assert_eq!(client.until_closed(), told, "{version:?}: {bytes:02x?}");
    }
}

#[test]
fn ill_formed_utf_8_and_null_characters() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let none = properties(version, b"");
        for text in [&b"\xC3\x28"[..], b"\xED\xA0\x80", b"\xC0\x80", b"t\x00a"] {
            let text = field(text);
            let rows = [
                (packet(0x30, &[&text, &none]), 0x81),
                (packet(0x82, &[b"\x00\x01", &none, &text, b"\x00"]), 0x81),
                (packet(0xA2, &[b"\x00\x01", &none, &text]), 0x81),
            ];
            all_refused(&site, version, &rows);
        }
    }
}

#[test]
fn ill_formed_strings_in_properties() {
    let site = Site::new();
    let bad = field(b"\xED\xA0\x80");
    let good = field("x");
    let rows: Vec<Row> = [
        [b"\x26", &bad[..], &good].concat(),
        [b"\x26", &good[..], &bad].concat(),
        [b"\x26", &good[..], &field(b"\x00")].concat(),
        // Response Topic and Content Type.
        [b"\x08", &bad[..]].concat(),
        [b"\x03", &bad[..]].concat(),
    ]
    .iter()
    .map(|props| (publish(V5, 0x30, "t/a", 0, props, b""), 0x81))
    .collect();
    all_refused(&site, V5, &rows);
}

#[test]
fn variable_byte_integers_that_are_longer_than_needed() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        all_refused(&site, version, &[(b"\xC0\x80\x00".to_vec(), 0x81)]);
    }
    // A Property Length and a Subscription Identifier.
    let rows = [
        (packet(0x30, &[&field("t/a"), b"\x80\x00"]), 0x81),
        (packet(0x82, &[b"\x00\x01\x03\x0B\x81\x00", &field("t/a"), b"\x00"]), 0x81),
    ];
    all_refused(&site, V5, &rows);
}

#[test]
fn reserved_flags() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let with_flags = |mut packet: Vec<u8>, flags: u8| {
            packet[0] = (packet[0] & 0xF0) | flags;
            (packet, 0x81)
        };
        let mut rows = Vec::new();
        for flags in [0x01, 0x02, 0x08] {
            rows.push(with_flags(PINGREQ.to_vec(), flags));
            rows.push(with_flags(ack(0x40, 1), flags));
            rows.push(with_flags(ack(0x50, 1), flags));
            rows.push(with_flags(ack(0x70, 1), flags));
            rows.push(with_flags(GOODBYE.to_vec(), flags));
        }
        for flags in [0x00, 0x03, 0x0A] {
            rows.push(with_flags(ack(0x62, 1), flags));
            rows.push(with_flags(subscribe(version, 1, "t/a", 0), flags));
            rows.push(with_flags(unsubscribe(version, 1, &["t/a"]), flags));
        }
        all_refused(&site, version, &rows);
    }
    all_refused(&site, V5, &[(b"\xF1\x06\x19\x04\x15\x00\x01m".to_vec(), 0x81)]);
}

#[test]
fn packet_identifier_0() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let none = properties(version, b"");
        let rows = [
            (packet(0x32, &[&field("t/a"), b"\x00\x00", &none]), 0x82),
            (packet(0x34, &[&field("t/a"), b"\x00\x00", &none]), 0x82),
            (subscribe(version, 0, "t/a", 0), 0x82),
            (unsubscribe(version, 0, &["t/a"]), 0x82),
            (ack(0x40, 0), 0x82),
            (ack(0x62, 0), 0x82),
        ];
        all_refused(&site, version, &rows);
    }
}

#[test]
fn publish_with_qos_3_or_dup_of_qos_0() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let rows = [
            (publish(version, 0x36, "t/a", 1, b"", b"x"), 0x81),
            (publish(version, 0x38, "t/a", 0, b"", b"x"), 0x81),
        ];
        all_refused(&site, version, &rows);
    }
}

#[test]
fn topic_names_that_are_none() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        for topic in ["t/+", "t/#", "#", "+", "t/a+"] {
            all_refused(&site, version, &[(publish(version, 0x30, topic, 0, b"", b"x"), 0x90)]);
        }
        // Without a Topic Alias there must be a Topic Name.
        all_refused(&site, version, &[(publish(version, 0x30, "", 0, b"", b"x"), 0x82)]);
        // The topic comes first: a packet without one ends inside it.
        all_refused(&site, version, &[(packet(0x30, &[]), 0x81)]);
    }
    for response in ["t/+", "#"] {
        let props = [b"\x08", &field(response)[..]].concat();
        all_refused(&site, V5, &[(publish(V5, 0x30, "t/a", 0, &props, b""), 0x82)]);
    }
}

#[test]
fn topic_aliases_of_0_and_above_the_maximum() {
    let site = Site::with(|bounds| bounds.topic_alias_maximum = 2);
    let rows = [
        (publish(V5, 0x30, "t/a", 0, b"\x23\x00\x00", b""), 0x94),
        (publish(V5, 0x30, "t/a", 0, b"\x23\x00\x03", b""), 0x94),
    ];
    all_refused(&site, V5, &rows);
    // Where none is announced, none may come.
    let site = Site::with(|bounds| bounds.topic_alias_maximum = 0);
    all_refused(&site, V5, &[(publish(V5, 0x30, "t/a", 0, b"\x23\x00\x01", b""), 0x94)]);
}

#[test]
fn a_subscription_identifier_in_a_clients_publish() {
    let site = Site::new();
    all_refused(&site, V5, &[(publish(V5, 0x30, "t/a", 0, b"\x0B\x01", b""), 0x82)]);
}

#[test]
fn subscribe_and_unsubscribe_without_a_filter() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let rows = [
            (subscribe_with(version, 1, b"", &[]), 0x82),
            (unsubscribe(version, 1, &[]), 0x82),
            // A filter without its options.
            (packet(0x82, &[b"\x00\x01", &properties(version, b""), &field("t/a")]), 0x81),
        ];
        all_refused(&site, version, &rows);
    }
}

#[test]
fn subscription_options_that_are_reserved() {
    let site = Site::new();
    for options in [0x04, 0x10, 0x80, 0xFC, 0x03] {
        all_refused(&site, V3_1_1, &[(subscribe(V3_1_1, 1, "t/a", options), 0)]);
    }
    let rows = [
        (subscribe(V5, 1, "t/a", 0x40), 0x81),
        (subscribe(V5, 1, "t/a", 0x80), 0x81),
        (subscribe(V5, 1, "t/a", 0x03), 0x82),
        (subscribe(V5, 1, "t/a", 0x30), 0x82),
        // No Local on a Shared Subscription.
        (subscribe(V5, 1, "$share/g/t/a", 0x04), 0x82),
    ];
    all_refused(&site, V5, &rows);
}

#[test]
fn a_second_connect_and_packets_that_only_a_server_sends() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let rows = [
            (connect(version, CLEAN, b"", &[&field("a")]), 0x82),
            (connack(false, 0), 0x82),
            (suback(version, 1, &[0]), 0x82),
            (unsuback(version, 1, &[0]), 0x82),
            (PINGRESP.to_vec(), 0x82),
            (b"\x00\x00".to_vec(), 0x81),
        ];
        all_refused(&site, version, &rows);
    }
}

#[test]
fn what_comes_before_connect_is_answered_with_nothing() {
    let site = Site::new();
    let first = [
        PINGREQ.to_vec(),
        publish(V3_1_1, 0x30, "t/a", 0, b"", b"x"),
        subscribe(V5, 1, "t/a", 0),
        b"\xF0\x06\x18\x04\x15\x00\x01m".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for bytes in first {
        let mut client = Client::open(&site, "a", V5);
        assert_eq!(client.ask(&bytes), CLOSED, "{bytes:02x?}");
    }
}

#[test]
fn reason_codes_that_a_packet_does_not_have() {
    let site = Site::new();
    let rows: Vec<Row> = [
        ack_reason(0x40, 1, 0x92),
        ack_reason(0x50, 1, 0x8F),
        ack_reason(0x62, 1, 0x10),
        ack_reason(0x70, 1, 0x80),
        disconnect(0x8E),
        disconnect(0x01),
        // AUTH with Success is the server's.
        b"\xF0\x06\x00\x04\x15\x00\x01m".to_vec(),
    ]
    .map(|bytes| (bytes, 0x81))
    .to_vec();
    all_refused(&site, V5, &rows);
}

#[test]
fn auth_where_no_method_was_agreed_on() {
    let site = Site::new();
    for reason in [0x18, 0x19] {
        let bytes = packet(0xF0, &[&[reason], b"\x04\x15\x00\x01m"]);
        all_refused(&site, V5, &[(bytes, 0x82)]);
    }
}

#[test]
fn a_packet_larger_than_the_maximum_of_connack() {
    let site = Site::new();
    // The fixed header is enough: the rest is never waited for.
    all_refused(&site, V5, &[(b"\x30\xFF\xFF\xFF\x7F".to_vec(), 0x95)]);
    all_refused(&site, V3_1_1, &[(b"\x30\xFF\xFF\xFF\x7F".to_vec(), 0)]);
}

#[test]
fn more_unacknowledged_messages_than_the_receive_maximum() {
    let site = Site::with(|bounds| bounds.receive_maximum = 2);
    let mut client = Client::clean(&site, "a", V5);
    for id in 1..=3 {
        client.send(&publish(V5, 0x34, "t/a", id, b"", b"x"));
    }
    assert_eq!(client.until_closed(), [ack(0x50, 1), ack(0x50, 2), disconnect(0x93)]);
}

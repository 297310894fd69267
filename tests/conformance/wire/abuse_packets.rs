//! How brokers have been broken by packets: the rows A01 to A19 and D01 to D03 of the abuse
//! catalogue, over mutual TLS.
//!
//! Each row ends its own connection with the right Reason Code, or is answered; it leaves one entry
//! in the log; whoever keeps the rules is served all the while.

use serde_json::Value;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// Bytes that end a connection, with the Reason Code of the DISCONNECT in 5.0.
type Row = (Vec<u8>, u8);

/// Entries of connections that a violation ended.
fn violations(entries: &[Value]) -> Vec<u64> {
    let broken = |entry: &&Value| entry["type"] == "disconnect" && entry["how"] == "violation";
    entries.iter().filter(broken).map(|entry| entry["code"].as_u64().unwrap()).collect()
}

/// Sends each row on a connection of its own, while somebody else is served.
#[track_caller]
fn ends(rows: &[(Version, Vec<Row>)]) {
    let mut site = Site::new();
    let mut honest = Client::clean(&site, "honest", V5);
    let mut codes = Vec::new();
    for (version, rows) in rows {
        for (bytes, reason) in rows {
            let mut client = Client::clean(&site, "a", *version);
            client.send(bytes);
            let told = if *version == V5 { vec![disconnect(*reason)] } else { vec![] };
            assert_eq!(client.until_closed(), told, "{version:?}: {bytes:02x?}");
            assert_eq!(honest.ask(PINGREQ), PINGRESP);
            codes.push(u64::from(*reason));
        }
    }
    drop(honest);
    assert_eq!(violations(&site.entries()), codes);
}

/// Opens one connection for each, before CONNECT: closed without a word, recorded once and counted.
#[track_caller]
fn closed_before_connect(rows: &[Vec<u8>]) {
    let mut site = Site::new();
    let mut honest = Client::clean(&site, "honest", V5);
    for bytes in rows {
        let mut client = Client::open(&site, "a", V5);
        client.send(bytes);
        assert_eq!(client.next(), CLOSED, "{bytes:02x?}");
        assert_eq!(honest.ask(PINGREQ), PINGRESP);
    }
    drop(honest);
    let entries = site.entries();
    let refused: Vec<&Value> =
        entries.iter().filter(|entry| entry["type"] == "connect.refused").collect();
    // The first one has an entry; those that follow are counted when their interval closes.
    let first = refused.first().unwrap();
    assert!(first["count"].is_null(), "{first}");
    assert!(refused.len() <= 2, "{refused:#?}");
    let count: u64 = refused.iter().map(|entry| entry["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(count, rows.len() as u64, "{refused:#?}");
}

fn row(bytes: &[u8], reason: u8) -> Row {
    (bytes.to_vec(), reason)
}

#[test]
fn a01_remaining_length_of_five_bytes_then_smuggled_commands() {
    let smuggled = publish(V5, 0x30, "t/smuggled", 0, b"", b"x");
    let bytes = [&b"\x30\x80\x80\x80\x80\x01"[..], &smuggled].concat();
    ends(&[(V5, vec![row(&bytes, 0x81)]), (V3_1_1, vec![row(&bytes, 0x81)])]);
    closed_before_connect(&[b"\x10\xFF\xFF\xFF\xFF\x01".to_vec()]);
}

#[test]
fn a02_property_length_of_five_bytes() {
    let bytes = packet(0x30, &[&field("t"), b"\x80\x80\x80\x80\x01"]);
    let subscribe = packet(0x82, &[b"\x00\x01\xFF\xFF\xFF\xFF\x7F", &field("t"), b"\x00"]);
    ends(&[(V5, vec![row(&bytes, 0x81), row(&subscribe, 0x81)])]);
}

#[test]
fn a03_non_minimal_variable_byte_integers() {
    ends(&[
        (
            V5,
            vec![row(b"\xC0\x80\x00", 0x81), row(&packet(0x30, &[&field("t"), b"\x80\x00"]), 0x81)],
        ),
        (V3_1_1, vec![row(b"\xC0\x80\x80\x00", 0x81)]),
    ]);
}

#[test]
fn a04_huge_remaining_length_trickled_before_connect() {
    let site = Site::new();
    let mut honest = Client::clean(&site, "honest", V5);
    // 256 MiB are announced: the connection ends with the last byte of the length.
    let mut huge = Client::open(&site, "a", V5);
    for byte in b"\x10\xFF\xFF\xFF\x7F" {
        huge.send(&[*byte]);
    }
    assert_eq!(huge.next(), CLOSED);
    // What may be announced before CONNECT is bounded too, and its body may come slowly.
    let packet = connect(V5, CLEAN, b"", &[&field("b")]);
    let mut slow = Client::open(&site, "b", V5);
    for byte in packet {
        slow.send(&[byte]);
        assert_eq!(honest.ask(PINGREQ), PINGRESP);
    }
    assert_eq!(slow.next()[3], 0);
    let mut beyond = Client::open(&site, "c", V5);
    beyond.send(b"\x10\x80\x80\x02");
    assert_eq!(beyond.next(), CLOSED, "32 KiB of CONNECT and no more");
}

#[test]
fn a05_first_packet_is_100_mb_and_not_connect() {
    let others = (0x0..=0xF_u8).filter(|kind| *kind != 1);
    let rows: Vec<Vec<u8>> = others.map(|kind| vec![kind << 4, 0x80, 0xC2, 0xD7, 0x2F]).collect();
    closed_before_connect(&rows);
}

#[test]
fn a06_remaining_length_shorter_than_the_topic() {
    let rows = || vec![row(b"\x30\x03\x00\x0Aa", 0x81), row(b"\x32\x04\xFF\xFFab", 0x81)];
    ends(&[(V5, rows()), (V3_1_1, rows())]);
}

#[test]
fn a08_subscribe_cut_before_its_options_and_empty_last_filter() {
    ends(&[
        (
            V5,
            vec![
                row(b"\x82\x06\x00\x01\x00\x00\x01t", 0x81),
                row(b"\x82\x05\x00\x01\x00\x00\x00", 0x81),
                row(b"\x82\x09\x00\x01\x00\x00\x01t\x00\x00\x00", 0x81),
            ],
        ),
        (
            V3_1_1,
            vec![row(b"\x82\x05\x00\x01\x00\x01t", 0x81), row(b"\x82\x04\x00\x01\x00\x00", 0x81)],
        ),
    ]);
    // With its options an empty filter is whole, and answered.
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    let two = subscribe_with(V5, 1, b"", &[("t/a", 1), ("", 0)]);
    let suback = client.ask(&two);
    assert_eq!((suback[0], &suback[suback.len() - 2..]), (0x90, &[1, 0x8F][..]));
}

#[test]
fn a09_publish_cut_before_its_packet_identifier() {
    let rows = || {
        [0x32, 0x34].into_iter().flat_map(|first| {
            [packet(first, &[&field("t")]), packet(first, &[&field("t"), b"\x00"])]
        })
    };
    let rows = || rows().map(|bytes| (bytes, 0x81)).collect();
    ends(&[(V5, rows()), (V3_1_1, rows())]);
}

#[test]
fn a10_empty_topic_without_alias() {
    ends(&[
        (V5, vec![row(b"\x30\x03\x00\x00\x00", 0x82), row(b"\x32\x05\x00\x00\x00\x01\x00", 0x82)]),
        (V3_1_1, vec![row(b"\x30\x02\x00\x00", 0x90)]),
    ]);
    // An alias that stands for nothing yet.
    ends(&[(V5, vec![row(&publish(V5, 0x30, "", 0, b"\x23\x00\x01", b"x"), 0x82)])]);
}

#[test]
fn a11_packet_identifier_0() {
    let rows = |version| {
        let none = properties(version, b"");
        vec![
            (packet(0x32, &[&field("t"), b"\x00\x00", &none]), 0x82),
            (subscribe(version, 0, "t", 0), 0x82),
            (unsubscribe(version, 0, &["t"]), 0x82),
            (ack(0x40, 0), 0x82),
            (ack(0x50, 0), 0x82),
            (ack(0x62, 0), 0x82),
            (ack(0x70, 0), 0x82),
        ]
    };
    ends(&[(V5, rows(V5)), (V3_1_1, rows(V3_1_1))]);
}

#[test]
fn a12_reserved_flags_qos_3_types_0_and_15() {
    let rows = |version| {
        vec![
            (b"\xC1\x00".to_vec(), 0x81),
            (b"\x60\x02\x00\x01".to_vec(), 0x81),
            (publish(version, 0x36, "t", 1, b"", b"x"), 0x81),
            (b"\x00\x00".to_vec(), 0x81),
            (b"\xF1\x00".to_vec(), 0x81),
        ]
    };
    ends(&[(V5, rows(V5)), (V3_1_1, rows(V3_1_1))]);
}

#[test]
fn a13_packets_that_only_a_server_sends() {
    let rows = |version| {
        vec![
            (connack(false, 0), 0x82),
            (suback(version, 1, &[0]), 0x82),
            (unsuback(version, 1, &[0]), 0x82),
            (PINGRESP.to_vec(), 0x82),
        ]
    };
    ends(&[(V5, rows(V5)), (V3_1_1, rows(V3_1_1))]);
}

#[test]
fn a14_second_connect_anything_before_connect_publish_behind_connect() {
    let second = connect(V5, CLEAN, b"", &[&field("a")]);
    ends(&[(V5, vec![row(&second, 0x82)])]);
    closed_before_connect(&[
        PINGREQ.to_vec(),
        publish(V5, 0x30, "t/a", 0, b"", b"x"),
        subscribe(V5, 1, "#", 0),
        GOODBYE.to_vec(),
    ]);
    // [MQTT-3.1.4-4]: one write with CONNECT in front is two packets, the second judged as any.
    let site = Site::new();
    for (topic, is_refused) in [("t/a", false), ("t/forbidden/a", true)] {
        let mut client = Client::open(&site, "a", V5);
        client.send(&[&second[..], &publish(V5, 0x32, topic, 1, b"", b"x")].concat());
        assert_eq!(client.next()[0], 0x20);
        let answer = client.next();
        assert_eq!((answer[0], answer[3]), (0x40, 1));
        assert_eq!(answer.get(4) == Some(&0x87), is_refused, "{answer:02x?}");
    }
    // Behind a CONNECT that is refused, nothing is judged.
    let mut client = Client::open(&site, "a", V5);
    let refused = connect(V5, CLEAN, b"\x15\x00\x01m", &[&field("a")]);
    client.send(&[&refused[..], &publish(V5, 0x32, "t/a", 1, b"", b"x")].concat());
    let packets = client.until_closed();
    assert_eq!(packets.len(), 1, "{packets:02x?}");
    assert_eq!((packets[0][0], packets[0][3]), (0x20, 0x8C));
}

#[test]
fn a15_ill_formed_text_in_topics_client_ids_and_user_names() {
    let texts = [&b"\xC3\x28"[..], b"\xED\xA0\x80", b"\xC0\x80", b"a\x00b", b"a\x1Bb", b"\xC2\x85"];
    let rows = |version| {
        let none = properties(version, b"");
        texts.iter().map(|text| (packet(0x30, &[&field(text), &none]), 0x81)).collect()
    };
    ends(&[(V5, rows(V5)), (V3_1_1, rows(V3_1_1))]);
    let site = Site::new();
    for text in texts {
        for rest in [vec![field(text)], vec![field("a"), field(text)]] {
            let flags = if rest.len() == 2 { CLEAN | 0x80 } else { CLEAN };
            let rest: Vec<&[u8]> = rest.iter().map(|field| &field[..]).collect();
            let mut client = Client::open(&site, "a", V5);
            client.send(&connect(V5, flags, b"", &rest));
            let packets = client.until_closed();
            assert_eq!(packets.len(), 1, "{text:02x?}");
            // The version is known, so that the answer can say why.
            assert_eq!((packets[0][0], packets[0][3]), (0x20, 0x81), "{text:02x?}");
        }
    }
}

#[test]
fn a16_malformed_disconnect_and_auth() {
    ends(&[
        (
            V5,
            vec![
                row(b"\xE0\x02\x00\x05", 0x81),
                row(b"\xE0\x01\x8E", 0x81),
                row(b"\xE0\x04\x00\x02\x24\x01", 0x81),
                row(b"\xE0\x03\x00\x00\x00", 0x81),
                row(b"\xF0\x01\x19", 0x81),
                row(b"\xF0\x02\x18\x09", 0x81),
                row(b"\xF0\x06\x18\x04\x15\x00\x01m", 0x82),
            ],
        ),
        (V3_1_1, vec![row(b"\xE0\x01\x00", 0x81), row(b"\xF0\x00", 0x81)]),
    ]);
}

#[test]
fn a17_duplicate_unknown_mistyped_and_misplaced_properties() {
    let with = |props: &[u8], reason| (publish(V5, 0x30, "t", 0, props, b""), reason);
    ends(&[(
        V5,
        vec![
            with(b"\x01\x01\x01\x01", 0x82),
            with(b"\x7F\x00", 0x81),
            with(b"\x01\x02", 0x82),
            with(b"\x21\x00\x01", 0x81),
            with(b"\x02\x00\x00", 0x81),
            with(b"\x26\x00\x01a\x00\x09b", 0x81),
        ],
    )]);
}

#[test]
fn a18_properties_of_a_publisher_reach_subscribers_of_every_version() {
    let site = Site::new();
    let mut readers: Vec<Client> = [("r3", V3_1), ("r4", V3_1_1), ("r5", V5)]
        .map(|(name, version)| {
            let mut reader = Client::clean(&site, name, version);
            reader.ask(&subscribe(version, 1, "t/#", 0));
            reader
        })
        .into();
    let mut device = Client::clean(&site, "device", V5);
    let long = "x".repeat(20_000);
    let props = [
        b"\x01\x01".to_vec(),
        b"\x02\x00\x00\x0E\x10".to_vec(),
        [b"\x08".to_vec(), field("answer/here")].concat(),
        [b"\x09".to_vec(), field([0, 0xFF, 0x80])].concat(),
        user_property("", ""),
        user_property(&long, &long),
        [b"\x03".to_vec(), field("text/plain; \u{202E}")].concat(),
    ]
    .concat();
    device.send(&publish(V5, 0x30, "t/a", 0, &props, b"payload"));
    assert_eq!(readers[0].next(), publish(V3_1, 0x30, "t/a", 0, b"", b"payload"));
    assert_eq!(readers[1].next(), publish(V3_1_1, 0x30, "t/a", 0, b"", b"payload"));
    let copy = readers[2].next();
    assert_eq!(copy.len(), publish(V5, 0x30, "t/a", 0, &props, b"payload").len());
    for reader in &mut readers {
        assert_eq!(reader.ask(PINGREQ), PINGRESP);
    }
}

#[test]
fn a19_wildcards_in_the_response_topic() {
    let rows = ["t/+", "#", "+/a", "a#"].map(|topic| {
        let props = [&b"\x08"[..], &field(topic)].concat();
        (publish(V5, 0x30, "t", 0, &props, b""), 0x82)
    });
    ends(&[(V5, rows.to_vec())]);
}

#[test]
fn d01_qos_2_publish_repeated_on_one_identifier_is_delivered_once() {
    let mut site = Site::new();
    let mut reader = Client::clean(&site, "reader", V5);
    reader.ask(&subscribe(V5, 1, "t/#", 2));
    let mut device = Client::clean(&site, "device", V5);
    for round in 0..200 {
        let first = if round == 0 { 0x34 } else { 0x3C };
        assert_eq!(device.ask(&publish(V5, first, "t/a", 7, b"", b"x")), ack(0x50, 7));
    }
    assert_eq!(reader.fence().len(), 1);
    assert_eq!(device.ask(&ack(0x62, 7)), ack(0x70, 7));
    // Released, the identifier is free again.
    assert_eq!(device.ask(&publish(V5, 0x34, "t/a", 7, b"", b"y")), ack(0x50, 7));
    drop(device);
    let entries = site.entries();
    let count = |kind| entries.iter().filter(|entry| entry["type"] == kind).count();
    assert_eq!((count("publish"), count("publish.dup")), (2, 199));
}

#[test]
fn d02_identifiers_do_not_collide_after_a_resume() {
    let site = Site::new();
    let (mut reader, _) = Client::lasting(&site, "reader", V5);
    reader.ask(&subscribe(V5, 1, "t/#", 2));
    let mut device = Client::clean(&site, "device", V5);
    device.ask(&publish(V5, 0x34, "t/a", 1, b"", b"1"));
    device.ask(&publish(V5, 0x32, "t/a", 2, b"", b"2"));
    let sent = reader.fence();
    assert_eq!(
        sent,
        [publish(V5, 0x34, "t/a", 1, b"", b"1"), publish(V5, 0x32, "t/a", 2, b"", b"2")]
    );
    assert_eq!(reader.ask(&ack(0x50, 1)), ack(0x62, 1));
    drop(reader);
    device.ask(&publish(V5, 0x32, "t/a", 3, b"", b"3"));
    let (mut reader, resumed) = Client::lasting(&site, "reader", V5);
    assert!(resumed);
    let again = reader.fence();
    let expected = [
        ack(0x62, 1),
        publish(V5, 0x3A, "t/a", 2, b"", b"2"),
        publish(V5, 0x32, "t/a", 3, b"", b"3"),
    ];
    assert_eq!(again, expected, "1 and 2 are in use");
}

#[test]
fn d03_a_client_that_ignores_the_receive_maximum_or_never_acknowledges() {
    let mut site = Site::with(|bounds| {
        bounds.receive_maximum = 4;
        bounds.send_window_messages_max = 4;
        bounds.queue_messages_max = 8;
    });
    let (mut reader, _) = Client::lasting(&site, "reader", V5);
    reader.ask(&subscribe(V5, 1, "t/#", 1));
    let mut device = Client::clean(&site, "device", V5);
    for id in 1..=50 {
        device.ask(&publish(V5, 0x32, "t/a", id, b"", b"x"));
    }
    // Four are on their way; the queue is full and the rest is gone. The reader is served still.
    assert_eq!(reader.fence().len(), 4);
    for id in 1..=12 {
        reader.send(&ack(0x40, id));
    }
    assert_eq!(reader.fence().len(), 8);
    for id in 1..=5 {
        device.send(&publish(V5, 0x34, "t/a", id, b"", b"x"));
    }
    assert_eq!(device.until_closed().last(), Some(&disconnect(0x93)));
    drop(reader);
    assert_eq!(violations(&site.entries()), [0x93]);
}

//! CONNECT and CONNACK (sections 3.1 and 3.2), and level 3 of MQTT 3.1.

#![expect(clippy::disallowed_methods, reason = "what is tried takes real time")]

use std::time::{Duration, Instant};

use super::bytes::*;
use super::client::Client;
use super::site::Site;

const USER: u8 = 0x80;
const PASSWORD: u8 = 0x40;

/// The properties of a CONNACK of 5.0: identifier and value.
fn connack_properties(connack: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &connack[5..];
    let mut found = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let length = match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + usize::from(after[1]),
            other => panic!("property {other:02x} in CONNACK"),
        };
        found.push((id, after[..length].to_vec()));
        rest = &after[length..];
    }
    found
}

fn property(connack: &[u8], id: u8) -> Option<Vec<u8>> {
    connack_properties(connack).into_iter().find(|(other, _)| *other == id).map(|(_, value)| value)
}

/// Sends a CONNECT that is refused; 3.x must not be answered if `code` is `None`.
#[track_caller]
fn is_refused(site: &Site, version: Version, connect: &[u8], code: Option<u8>) {
    let mut client = Client::open(site, "a", version);
    client.send(connect);
    let answers = client.until_closed();
    let Some(code) = code else {
        assert_eq!(answers, [] as [Vec<u8>; 0], "{version:?}: {connect:02x?}");
        return;
    };
    assert_eq!(answers.len(), 1, "{version:?}: {connect:02x?}: {answers:02x?}");
    // Session Present is 0, and nothing follows CONNACK.
    assert_eq!((answers[0][0], answers[0][2], answers[0][3]), (0x20, 0, code), "{connect:02x?}");
}

#[test]
fn a_connect_that_breaks_a_rule_is_closed_and_only_5_0_is_told_why() {
    let site = Site::new();
    let (id, user) = (field("a"), field("user"));
    let will = [field("t/will"), field("gone")].concat();
    for version in [V3_1_1, V5] {
        let none = properties(version, b"");
        let with_will = [&id[..], &none, &will].concat();
        let wrong_will = [&id[..], &none, &field(b"\xED\xA0\x80"), &field("x")].concat();
        let rows: [(u8, Vec<u8>); 15] = [
            // The reserved flag.
            (CLEAN | 0x01, id.clone()),
            // Will QoS, Will Retain and Will fields without a Will; QoS 3 with one.
            (CLEAN | 0x08, id.clone()),
            (CLEAN | 0x20, id.clone()),
            (CLEAN, with_will.clone()),
            (CLEAN | WILL | 0x18, with_will),
            // A Will without its fields.
            (CLEAN | WILL, id.clone()),
            (CLEAN | WILL, [&id[..], &none, &field("t/will")].concat()),
            // User Name and Password: flags and fields disagree.
            (CLEAN, [&id[..], &user].concat()),
            (CLEAN | USER, id.clone()),
            (CLEAN | USER, [&id[..], &user, &field("secret")].concat()),
            (CLEAN | USER | PASSWORD, [&id[..], &user].concat()),
            // Strings that are none, and a Client Identifier that is missing.
            (CLEAN, field(b"\xC3\x28")),
            (CLEAN, Vec::new()),
            (CLEAN | WILL, wrong_will),
            (CLEAN | USER, [&id[..], &field(b"\xC0\x80")].concat()),
        ];
        for (flags, rest) in rows {
            let code = (version == V5).then_some(0x81);
            is_refused(&site, version, &connect(version, flags, b"", &[&rest]), code);
        }
    }
    // 3.1.1 has no password without a user name, 5.0 does.
    let alone = [&id[..], &field("secret")].concat();
    is_refused(&site, V3_1_1, &connect(V3_1_1, CLEAN | PASSWORD, b"", &[&alone]), None);
    let packet = connect(V5, CLEAN | PASSWORD, b"", &[&alone]);
    let (_, connack) = Client::connect(&site, "a", V5, &packet);
    assert_eq!((connack[0], connack[3]), (0x20, 0));
}

#[test]
fn another_protocol_is_closed_without_an_answer() {
    let site = Site::new();
    for name in ["mqtt", "MQTT5", "", "HTTP"] {
        let bytes = packet(0x10, &[&field(name), &[4, CLEAN, 0, 60], &field("a")]);
        is_refused(&site, V3_1_1, &bytes, None);
    }
}

#[test]
fn an_unknown_level_is_answered_in_the_form_that_its_client_reads() {
    let site = Site::new();
    let rows = [("MQTT", 0, 0x01), ("MQTT", 3, 0x01), ("MQIsdp", 4, 0x01), ("MQTT", 6, 0x84)];
    for (name, level, code) in rows {
        let bytes = packet(0x10, &[&field(name), &[level, CLEAN, 0, 60], &field("a")]);
        is_refused(&site, V3_1_1, &bytes, Some(code));
    }
}

#[test]
fn the_fields_of_the_payload_are_read_in_their_order() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut board = Client::clean(&site, "board", version);
        assert_eq!(board.ask(&subscribe(version, 1, "t/will", 0)), suback(version, 1, &[0]));
        let fields = [
            field("a"),
            properties(version, b""),
            field("t/will"),
            field("gone"),
            field("user"),
            field("secret"),
        ];
        let flags = CLEAN | WILL | USER | PASSWORD;
        let packet = connect(version, flags, b"", &[&fields.concat()]);
        let (client, connack) = Client::connect(&site, "a", version, &packet);
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        drop(client);
        assert_eq!(board.next(), publish(version, 0x30, "t/will", 0, b"", b"gone"));
    }
}

#[test]
fn client_identifiers_of_1_to_23_letters_and_digits_are_allowed() {
    let site = Site::new();
    let ids = [
        "a",
        "0",
        "Z",
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ0123456",
    ];
    for version in [V3_1, V3_1_1, V5] {
        for id in ids {
            let packet = connect(version, CLEAN, b"", &[&field(id)]);
            let (_, connack) = Client::connect(&site, "a", version, &packet);
            assert_eq!((connack[0], connack[3]), (0x20, 0), "{version:?} {id}");
        }
    }
}

#[test]
fn an_empty_client_identifier_is_assigned_or_rejected() {
    let site = Site::new();
    let empty = |version, flags| connect(version, flags, b"", &[&field("")]);
    let (_one, connack) = Client::connect(&site, "a", V3_1_1, &empty(V3_1_1, CLEAN));
    assert_eq!(connack, super::bytes::connack(false, 0));
    // Without Clean Session, and in 3.1, it is rejected.
    is_refused(&site, V3_1_1, &empty(V3_1_1, 0), Some(0x02));
    is_refused(&site, V3_1, &empty(V3_1, CLEAN), Some(0x02));
    // 5.0 is told which one it got, and nobody else has it.
    let mut assigned = Vec::new();
    let mut open = Vec::new();
    for _ in 0..3 {
        let (client, connack) = Client::connect(&site, "a", V5, &empty(V5, CLEAN));
        assert_eq!((connack[2], connack[3]), (0, 0));
        let id = property(&connack, 0x12).unwrap();
        assert!(id.len() > 2 && !assigned.contains(&id), "{id:02x?}");
        assigned.push(id);
        open.push(client);
    }
    // It is a Client Identifier like any other: whoever has it can be taken over by it.
    let again = connect(V5, CLEAN, b"", &[&assigned[0]]);
    let (_, connack) = Client::connect(&site, "a", V5, &again);
    assert_eq!(connack[3], 0);
    assert_eq!(open[0].until_closed(), [disconnect(0x8E)]);
}

#[test]
fn a_client_identifier_that_is_too_long_is_rejected() {
    let site = Site::with(|bounds| bounds.client_id_bytes_max = 30);
    let long = |version| connect(version, CLEAN, b"", &[&field("x".repeat(31))]);
    is_refused(&site, V3_1_1, &long(V3_1_1), Some(0x02));
    is_refused(&site, V5, &long(V5), Some(0x85));
    let at_bound = connect(V5, CLEAN, b"", &[&field("x".repeat(30))]);
    let (_, connack) = Client::connect(&site, "a", V5, &at_bound);
    assert_eq!(connack[3], 0);
}

#[test]
fn level_3_is_mqisdp_with_identifiers_of_at_most_23_characters() {
    let site = Site::new();
    let with = |id: &str| connect(V3_1, CLEAN, b"", &[&field(id)]);
    let (mut client, connack) = Client::connect(&site, "a", V3_1, &with(&"é".repeat(23)));
    assert_eq!(connack, super::bytes::connack(false, 0));
    assert_eq!(client.ask(PINGREQ), PINGRESP);
    is_refused(&site, V3_1, &with(&"x".repeat(24)), Some(0x02));
    // The flag that says that a session was there came with 3.1.1: in 3.1 the byte is 0.
    let lasting = connect(V3_1, 0, b"", &[&field("b")]);
    for _ in 0..2 {
        let (_, connack) = Client::connect(&site, "a", V3_1, &lasting);
        assert_eq!(connack, super::bytes::connack(false, 0));
    }
    // The Remaining Length overrules the flags of User Name and Password.
    let flags = connect(V3_1, CLEAN | USER | PASSWORD, b"", &[&field("c")]);
    let (_, connack) = Client::connect(&site, "a", V3_1, &flags);
    assert_eq!(connack, super::bytes::connack(false, 0));
}

#[test]
fn level_3_sends_dup_on_everything_that_it_sends_again() {
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V3_1);
    let again = |mut packet: Vec<u8>| {
        packet[0] |= 0x08;
        packet
    };
    assert_eq!(client.ask(&again(subscribe(V3_1, 1, "t/a", 2))), suback(V3_1, 1, &[2]));
    assert_eq!(client.ask(&again(ack(0x62, 9))), ack(0x70, 9));
    assert_eq!(client.ask(&again(unsubscribe(V3_1, 2, &["t/a"]))), unsuback(V3_1, 2, &[]));
}

#[test]
fn connack_comes_first_and_once_and_holds_what_it_must() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::open(&site, "a", version);
        let all = [
            connect(version, CLEAN, b"", &[&field("a")]),
            publish(version, 0x32, "t/a", 7, b"", b"x"),
            PINGREQ.to_vec(),
        ];
        client.send(&all.concat());
        let connack = client.next();
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0));
        if version == V5 {
            let ids: Vec<u8> = connack_properties(&connack).iter().map(|(id, _)| *id).collect();
            // All QoS, retained messages and every kind of subscription are there; no method of
            // authentication and no Response Information was asked for.
            for absent in [0x24, 0x25, 0x28, 0x29, 0x2A, 0x15, 0x16, 0x1A, 0x12] {
                assert!(!ids.contains(&absent), "{absent:02x} in {connack:02x?}");
            }
        }
        let mut rest = client.fence();
        rest.sort();
        assert_eq!(rest, [ack(0x40, 7), PINGRESP.to_vec()]);
    }
}

#[test]
fn response_information_and_methods_are_given_only_where_they_are_asked_for() {
    let site = Site::new();
    // Request Response Information 0.
    let packet = connect(V5, CLEAN, b"\x19\x00", &[&field("a")]);
    let (_, connack) = Client::connect(&site, "a", V5, &packet);
    assert_eq!((connack[3], property(&connack, 0x1A)), (0, None));
    // A method that nobody here knows.
    let packet = connect(V5, CLEAN, b"\x15\x00\x01X", &[&field("a")]);
    is_refused(&site, V5, &packet, Some(0x8C));
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    let site = Site::with(|bounds| bounds.client_id_bytes_max = 30);
    for (version, code) in [(V3_1_1, 0x02), (V5, 0x85)] {
        let all = [
            connect(version, CLEAN, b"", &[&field("x".repeat(31))]),
            publish(version, 0x31, "t/behind", 0, b"", b"x"),
        ];
        is_refused(&site, version, &all.concat(), Some(code));
        let mut client = Client::clean(&site, "b", version);
        client.send(&subscribe(version, 1, "t/behind", 0));
        assert_eq!(client.fence(), [suback(version, 1, &[0])], "nothing was retained");
    }
}

#[test]
fn a_will_that_may_not_be_published_refuses_the_connect() {
    let site = Site::new();
    let rest = |version| {
        [field("a"), properties(version, b""), field("t/forbidden/x"), field("gone")].concat()
    };
    let will = |version| connect(version, CLEAN | WILL, b"", &[&rest(version)]);
    is_refused(&site, V3_1_1, &will(V3_1_1), Some(0x05));
    is_refused(&site, V5, &will(V5), Some(0x87));
}

#[test]
fn the_reason_string_of_connack_stays_within_the_clients_maximum_packet_size() {
    let site = Site::with(|bounds| bounds.client_id_bytes_max = 30);
    let refused = |props: &[u8]| {
        let mut client = Client::open(&site, "a", V5);
        client.ask(&connect(V5, CLEAN, props, &[&field("x".repeat(31))]))
    };
    assert!(property(&refused(b""), 0x1F).is_some(), "it has one to leave out");
    let short = refused(b"\x27\x00\x00\x00\x20");
    assert_eq!((short[3], property(&short, 0x1F)), (0x85, None));
    assert!(short.len() <= 0x20);
}

#[test]
fn the_same_client_again_takes_over() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut old = Client::clean(&site, "a", version);
        let mut other = Client::clean(&site, "b", version);
        let mut new = Client::clean(&site, "a", version);
        let told = if version == V5 { vec![disconnect(0x8E)] } else { vec![] };
        assert_eq!(old.until_closed(), told);
        assert_eq!(new.ask(PINGREQ), PINGRESP);
        assert_eq!(other.ask(PINGREQ), PINGRESP);
    }
}

#[test]
fn silence_of_one_and_a_half_keep_alives_is_the_end() {
    let site = Site::new();
    let mut clients = [V3_1_1, V5].map(|version| {
        let packet = connect_keep_alive(version, CLEAN, 2, b"", &[&field("a")]);
        let name = format!("{version:?}").to_lowercase().replace('_', "-");
        let (client, connack) = Client::connect(&site, &name, version, &packet);
        assert_eq!(connack[3], 0);
        // Server Keep Alive is absent, so the client's own value holds.
        assert!(version != V5 || property(&connack, 0x13).is_none());
        client
    });
    // Pings keep them alive for longer than their silence may last.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(2));
        for client in &mut clients {
            assert_eq!(client.ask(PINGREQ), PINGRESP);
        }
    }
    let began = Instant::now();
    let [old, new] = &mut clients;
    assert_eq!(old.until_closed(), [] as [Vec<u8>; 0]);
    assert!(began.elapsed() >= Duration::from_millis(2_800), "{:?}", began.elapsed());
    assert_eq!(new.until_closed(), [disconnect(0x8D)]);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[test]
fn a_keep_alive_beyond_the_bound_is_answered_with_the_servers_own() {
    let site = Site::with(|bounds| bounds.keep_alive_seconds_max = 2);
    let packet = connect_keep_alive(V5, CLEAN, 60, b"", &[&field("a")]);
    let (mut client, connack) = Client::connect(&site, "a", V5, &packet);
    assert_eq!(property(&connack, 0x13), Some(vec![0, 2]));
    // The server goes by its own value.
    let began = Instant::now();
    assert_eq!(client.until_closed(), [disconnect(0x8D)]);
    assert!(began.elapsed() < Duration::from_secs(8));
}

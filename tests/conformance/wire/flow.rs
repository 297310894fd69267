//! What a client announces in CONNECT and the server keeps to: Receive Maximum, Maximum Packet
//! Size, Topic Alias Maximum, Request Problem Information (sections 3.1.2.11 and 4.9); and
//! shared subscriptions (4.8.2).

#![expect(clippy::disallowed_methods, reason = "waiting for what must not come")]

use std::time::Duration;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

const NOTHING: [Vec<u8>; 0] = [];

/// A session of `name` that announces `props`, subscribed to `filter`.
fn reader(site: &Site, name: &str, props: &[u8], filter: &str, qos: u8) -> Client {
    let packet = connect(V5, CLEAN, props, &[&field(name)]);
    let (mut reader, connack) = Client::connect(site, name, V5, &packet);
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    assert_eq!(reader.ask(&subscribe(V5, 1, filter, qos)), suback(V5, 1, &[qos]));
    reader
}

#[test]
fn no_more_than_the_clients_receive_maximum_is_on_its_way() {
    let site = Site::new();
    let mut reader = reader(&site, "reader", b"\x21\x00\x02", "t/#", 2);
    let mut device = Client::clean(&site, "device", V5);
    for id in 1..=5 {
        let (first, answer) = if id == 2 { (0x34, 0x50) } else { (0x32, 0x40) };
        assert_eq!(device.ask(&publish(V5, first, "t/a", id, b"", b"x")), ack(answer, id));
    }
    let copy = |first, id| publish(V5, first, "t/a", id, b"", b"x");
    assert_eq!(reader.fence(), [copy(0x32, 1), copy(0x34, 2)]);
    // The quota is used up; everything but PUBLISH is handled and answered all the same.
    assert_eq!(reader.ask(PINGREQ), PINGRESP);
    assert_eq!(reader.ask(&subscribe(V5, 9, "u/#", 1)), suback(V5, 9, &[1]));
    assert_eq!(reader.ask(&publish(V5, 0x32, "v/a", 7, b"", b"x")), ack(0x40, 7));
    // PUBREC does not free a place, PUBCOMP does.
    assert_eq!(reader.ask(&ack(0x50, 2)), ack(0x62, 2));
    assert_eq!(reader.fence(), NOTHING);
    reader.send(&ack(0x70, 2));
    assert_eq!(reader.next(), copy(0x32, 3));
    reader.send(&ack(0x40, 1));
    assert_eq!(reader.next(), copy(0x32, 4));
    assert_eq!(reader.fence(), NOTHING);
    // QoS 0 needs no place.
    device.send(&publish(V5, 0x30, "u/b", 0, b"", b"0"));
    assert_eq!(reader.next(), publish(V5, 0x30, "u/b", 0, b"", b"0"));
}

#[test]
fn a_pubrec_that_refuses_frees_its_place() {
    let site = Site::new();
    let mut reader = reader(&site, "reader", b"\x21\x00\x01", "t/#", 2);
    let mut device = Client::clean(&site, "device", V5);
    for id in 1..=2 {
        assert_eq!(device.ask(&publish(V5, 0x34, "t/a", id, b"", b"x")), ack(0x50, id));
    }
    assert_eq!(reader.fence(), [publish(V5, 0x34, "t/a", 1, b"", b"x")]);
    reader.send(&ack_reason(0x50, 1, 0x83));
    assert_eq!(reader.fence(), [publish(V5, 0x34, "t/a", 2, b"", b"x")]);
}

#[test]
fn what_is_larger_than_the_clients_maximum_packet_size_is_as_if_it_had_been_sent() {
    let site = Site::new();
    for qos in [0, 1, 2] {
        let mut reader = reader(&site, "reader", b"\x27\x00\x00\x00\x28", "t/#", qos);
        let mut device = Client::clean(&site, "device", V5);
        let own = u16::from(qos > 0);
        let overhead = publish(V5, 0x30, "t/a", own, b"", b"").len();
        for length in [40 - overhead, 41 - overhead, 1] {
            device.send(&publish(V5, 0x30 | (qos << 1), "t/a", own, b"", &vec![b'x'; length]));
            device.fence();
            if qos == 2 {
                assert_eq!(device.ask(&ack(0x62, own)), ack(0x70, own));
            }
        }
        let lengths: Vec<usize> = reader.fence().iter().map(Vec::len).collect();
        assert_eq!(lengths, [40, overhead + 1], "QoS {qos}");
    }
}

#[test]
fn no_packet_is_larger_than_the_clients_maximum_packet_size() {
    let site = Site::new();
    let filters = [("t/a", 0); 8];
    let all = [
        subscribe_with(V5, 1, b"", &filters),
        publish(V5, 0x32, "t/forbidden/a", 2, b"", b"x"),
        publish(V5, 0x32, "t/a", 3, b"", &[b'x'; 200]),
        unsubscribe(V5, 4, &filters.map(|(filter, _)| filter)),
        ack(0x50, 5),
        ack(0x62, 6),
    ]
    .concat();
    let longest = |maximum: u8| {
        let packet = connect(V5, CLEAN, &[0x27, 0, 0, 0, maximum], &[&field("a")]);
        let mut client = Client::open(&site, "a", V5);
        client.send(&[&packet[..], &all].concat());
        // Nothing may come that could be waited for.
        std::thread::sleep(Duration::from_millis(100));
        // A violation at the end, so that there is a DISCONNECT too.
        client.send(b"\xC1\x00");
        let packets = client.until_closed();
        packets.iter().map(Vec::len).max().unwrap_or(0)
    };
    assert!(longest(255) > 200, "there is something to leave out");
    for maximum in [1, 2, 3, 5, 8, 12, 13, 20, 40, 100] {
        assert!(longest(maximum) <= usize::from(maximum), "{maximum}");
    }
}

#[test]
fn reason_strings_and_user_properties_stay_out_where_they_do_not_fit_or_are_not_wanted() {
    let site = Site::new();
    let refusals = |props: &[u8]| {
        let packet = connect(V5, CLEAN, props, &[&field("a")]);
        let (mut client, _) = Client::connect(&site, "a", V5, &packet);
        let puback = client.ask(&publish(V5, 0x32, "t/forbidden/a", 1, b"", b"x"));
        let pubrec = client.ask(&publish(V5, 0x34, "t/forbidden/a", 2, b"", b"x"));
        let suback = client.ask(&subscribe(V5, 3, "t/forbidden/a", 0));
        let unsuback = client.ask(&unsubscribe(V5, 4, &["t/#/x"]));
        let pubcomp = client.ask(&ack(0x62, 9));
        let pubrel = client.ask(&ack(0x50, 9));
        client.send(&disconnect(0x01));
        let disconnect = client.until_closed().remove(0);
        [puback, pubrec, suback, unsuback, pubcomp, pubrel, disconnect]
    };
    let bare = [
        ack_reason(0x40, 1, 0x87),
        ack_reason(0x50, 2, 0x87),
        suback(V5, 3, &[0x87]),
        unsuback(V5, 4, &[0x8F]),
        ack_reason(0x70, 9, 0x92),
        ack_reason(0x62, 9, 0x92),
        disconnect(0x81),
    ];
    let wanted = refusals(b"");
    for at in 0..3 {
        assert!(wanted[at].len() > bare[at].len(), "there is a Reason String to leave out");
    }
    // A Maximum Packet Size of 40, and Request Problem Information 0.
    assert_eq!(refusals(b"\x27\x00\x00\x00\x28"), bare);
    assert_eq!(refusals(b"\x17\x00"), bare);
}

#[test]
fn topic_aliases_towards_a_client_stay_within_its_maximum() {
    let site = Site::new();
    let mut device = Client::clean(&site, "device", V5);
    for (maximum, props) in [(0, &b""[..]), (0, b"\x22\x00\x00"), (2, b"\x22\x00\x02")] {
        let mut reader = reader(&site, "reader", props, "t/#", 0);
        let topics = ["t/a", "t/b", "t/c", "t/a", "t/b", "t/c", "t/a"];
        for topic in topics {
            device.send(&publish(V5, 0x30, topic, 0, b"", topic.as_bytes()));
        }
        device.fence();
        let mut aliases = std::collections::BTreeMap::new();
        let seen = reader.fence();
        assert_eq!(seen.len(), topics.len());
        for (packet, topic) in seen.iter().zip(topics) {
            let length = usize::from(packet[3]);
            let (name, rest) = packet[4..].split_at(length);
            let mut name = name.to_vec();
            if rest[0] > 0 {
                assert_eq!((rest[0], rest[1]), (3, 0x23), "{packet:02x?}");
                let alias = u16::from_be_bytes([rest[2], rest[3]]);
                assert!((1..=maximum).contains(&alias), "{alias} of {maximum}");
                if name.is_empty() {
                    name = Vec::clone(&aliases[&alias]);
                }
                aliases.insert(alias, name.clone());
            }
            assert_eq!(name, topic.as_bytes());
        }
    }
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member_at_its_own_qos() {
    let site = Site::new();
    let mut one = reader(&site, "one", b"", "$share/g/t/a", 0);
    let mut two = reader(&site, "two", b"", "$share/g/t/a", 1);
    let mut device = Client::clean(&site, "device", V5);
    for id in 1..=6 {
        assert_eq!(device.ask(&publish(V5, 0x34, "t/a", id, b"", &[0, id as u8])), ack(0x50, id));
    }
    let (first, second) = (one.fence(), two.fence());
    assert!(first.iter().all(|packet| packet[0] == 0x30), "{first:02x?}");
    assert!(second.iter().all(|packet| packet[0] == 0x32), "{second:02x?}");
    let mut all: Vec<u8> =
        first.iter().chain(&second).filter_map(|packet| packet.last().copied()).collect();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5, 6], "each once");
    assert!(!first.is_empty() && !second.is_empty());
}

#[test]
fn a_qos_2_message_of_a_shared_subscription_stays_with_its_member() {
    let site = Site::new();
    let lasting = connect(V5, 0, b"\x11\x00\x00\x00\x3C", &[&field("one")]);
    let (mut one, _) = Client::connect(&site, "one", V5, &lasting);
    assert_eq!(one.ask(&subscribe(V5, 1, "$share/g/t/a", 2)), suback(V5, 1, &[2]));
    let mut device = Client::clean(&site, "device", V5);
    let message = |first| publish(V5, first, "t/a", 1, b"", b"x");
    assert_eq!(device.ask(&message(0x34)), ack(0x50, 1));
    assert_eq!(one.next(), message(0x34));
    let mut two = reader(&site, "two", b"", "$share/g/t/a", 2);
    drop(one);
    // It is finished with whom it was begun.
    let (mut one, _) = Client::connect(&site, "one", V5, &lasting);
    assert_eq!(one.next(), message(0x3C));
    // A session that ends before it answers takes the message with it.
    drop(one);
    let clean = connect(V5, CLEAN, b"", &[&field("one")]);
    let (mut one, _) = Client::connect(&site, "one", V5, &clean);
    assert_eq!((one.fence(), two.fence()), (vec![], vec![]));
}

#[test]
fn a_qos_1_message_that_is_not_acknowledged_goes_to_another_member_when_the_session_ends() {
    let site = Site::new();
    let lasting = connect(V5, 0, b"\x11\x00\x00\x00\x3C", &[&field("one")]);
    let (mut one, _) = Client::connect(&site, "one", V5, &lasting);
    assert_eq!(one.ask(&subscribe(V5, 1, "$share/g/t/a", 1)), suback(V5, 1, &[1]));
    let mut device = Client::clean(&site, "device", V5);
    let message = |first, id, text: &[u8]| publish(V5, first, "t/a", id, b"", text);
    for (id, text) in [(1, b"1"), (2, b"2"), (3, b"3")] {
        assert_eq!(device.ask(&message(0x32, id, text)), ack(0x40, id));
    }
    assert_eq!(one.fence().len(), 3);
    one.send(&ack(0x40, 2));
    one.fence();
    let mut two = reader(&site, "two", b"", "$share/g/t/a", 1);
    drop(one);
    // It may come back.
    let (mut one, _) = Client::connect(&site, "one", V5, &lasting);
    assert_eq!(one.fence(), [message(0x3A, 1, b"1"), message(0x3A, 3, b"3")]);
    assert_eq!(two.fence(), NOTHING);
    drop(one);
    let clean = connect(V5, CLEAN, b"", &[&field("one")]);
    let (mut one, _) = Client::connect(&site, "one", V5, &clean);
    // Under identifiers of the other's own, and without DUP: it has never seen them.
    assert_eq!([two.next(), two.next()], [message(0x32, 1, b"1"), message(0x32, 2, b"3")]);
    assert_eq!(one.fence(), NOTHING);
}

#[test]
fn a_message_that_its_member_refuses_goes_to_no_other() {
    let site = Site::new();
    let mut one = reader(&site, "one", b"", "$share/g/t/a", 2);
    let mut device = Client::clean(&site, "device", V5);
    assert_eq!(device.ask(&publish(V5, 0x32, "t/a", 1, b"", b"x")), ack(0x40, 1));
    assert_eq!(device.ask(&publish(V5, 0x34, "t/a", 2, b"", b"x")), ack(0x50, 2));
    assert_eq!(one.fence().len(), 2);
    let mut two = reader(&site, "two", b"", "$share/g/t/a", 2);
    one.send(&ack_reason(0x40, 1, 0x97));
    one.send(&ack_reason(0x50, 2, 0x97));
    assert_eq!((one.fence(), two.fence()), (vec![], vec![]));
}

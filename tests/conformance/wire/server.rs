//! What the server says of itself and does for many: `$SYS`, Topic Aliases of its own, Server
//! Reference, Response Information, the floor of Keep Alive, a thousand subscribers, and topics at
//! their bounds (sections 3.1.2.10, 3.1.2.11, 3.3.2.3.4, 4.7 and 4.11).

#![expect(clippy::disallowed_methods, reason = "what is tried takes real time")]

use std::time::{Duration, Instant};

use avow::broker::About;
use avow::identity::Role;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// Longest time for a message to a thousand subscribers.
const FAN_OUT_WITHIN: Duration = Duration::from_secs(10);

/// A clean session that announces `props`, subscribed to `filter` at `qos`.
fn reader(site: &Site, name: &str, props: &[u8], filter: &str, qos: u8) -> Client {
    let packet = connect(V5, CLEAN, props, &[&field(name)]);
    let (mut reader, connack) = Client::connect(site, name, V5, &packet);
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    assert_eq!(reader.ask(&subscribe(V5, 1, filter, qos)), suback(V5, 1, &[qos]));
    reader
}

#[test]
fn the_server_sets_aliases_and_uses_them_byte_by_byte() {
    let site = Site::new();
    let mut device = Client::clean(&site, "device", V5);
    // Topic Alias Maximum 2; the session stays, so that what was not acknowledged comes again.
    let lasting = connect(V5, 0, b"\x22\x00\x02\x11\x00\x00\x00\x3C", &[&field("reader")]);
    let (mut reader, connack) = Client::connect(&site, "reader", V5, &lasting);
    assert_eq!(connack[3], 0);
    assert_eq!(reader.ask(&subscribe(V5, 1, "t/#", 1)), suback(V5, 1, &[1]));
    let (one, two) = (b"\x23\x00\x01", b"\x23\x00\x02");
    let ask = |device: &mut Client, first, topic, id, props: &[u8]| {
        assert_eq!(device.ask(&publish(V5, first, topic, id, props, b"x")), ack(0x40, id));
    };
    // With a property of its own, to which the alias is added.
    ask(&mut device, 0x32, "t/first", 1, b"\x01\x01");
    let with = |props: &[u8]| [props, b"\x01\x01"].concat();
    assert_eq!(reader.next(), publish(V5, 0x32, "t/first", 1, &with(one), b"x"));
    ask(&mut device, 0x32, "t/first", 2, b"");
    assert_eq!(reader.next(), publish(V5, 0x32, "", 2, one, b"x"));
    ask(&mut device, 0x32, "t/second", 3, b"");
    assert_eq!(reader.next(), publish(V5, 0x32, "t/second", 3, two, b"x"));
    // No alias is left for a third, and none would shorten the fourth.
    ask(&mut device, 0x32, "t/third", 4, b"");
    assert_eq!(reader.next(), publish(V5, 0x32, "t/third", 4, b"", b"x"));
    device.send(&publish(V5, 0x30, "t/second", 0, b"", b"x"));
    assert_eq!(reader.next(), publish(V5, 0x30, "", 0, two, b"x"));
    drop(reader);
    // On a new connection nothing is known: the second is named before it is used.
    let (mut reader, _) = Client::connect(&site, "reader", V5, &lasting);
    let again = [
        publish(V5, 0x3A, "t/first", 1, &with(one), b"x"),
        publish(V5, 0x3A, "", 2, one, b"x"),
        publish(V5, 0x3A, "t/second", 3, two, b"x"),
        publish(V5, 0x3A, "t/third", 4, b"", b"x"),
    ];
    assert_eq!(reader.fence(), again);
}

#[test]
fn an_alias_counts_towards_the_clients_maximum_packet_size() {
    let site = Site::new();
    let mut device = Client::clean(&site, "device", V5);
    let topic = "t/a-topic-of-27-characters-";
    // One byte of payload makes 33 bytes, the alias beside the topic 36, without the topic 9.
    for (maximum, expected) in [
        (33, [Some((topic, &b""[..])), Some((topic, b"")), None]),
        (
            36,
            [
                Some((topic, b"\x23\x00\x01")),
                Some(("", b"\x23\x00\x01")),
                Some(("", b"\x23\0\x01")),
            ],
        ),
    ] {
        let props = [b"\x22\x00\x05\x27\x00\x00\x00".as_slice(), &[maximum]].concat();
        let mut reader = reader(&site, "reader", &props, "t/#", 0);
        for (length, expected) in [1, 1, 28].into_iter().zip(expected) {
            let payload = vec![b'x'; length];
            device.send(&publish(V5, 0x30, topic, 0, b"", &payload));
            device.fence();
            let copy = |(topic, props)| publish(V5, 0x30, topic, 0, props, &payload);
            let expected: Vec<Vec<u8>> = expected.map(copy).into_iter().collect();
            assert_eq!(reader.fence(), expected, "{maximum}, {length}");
        }
    }
}

#[test]
fn dashboards_read_what_the_broker_says_of_itself_and_devices_do_not() {
    let about = About { sys_interval_seconds: 1, ..About::default() };
    let site = Site::about(about, |_| ());
    let mut device = Client::clean(&site, "device", V5);
    let refused = device.ask(&subscribe(V5, 1, "$SYS/#", 0));
    assert_eq!((refused[0], refused.last()), (0x90, Some(&0x87)));
    assert_eq!(device.ask(&subscribe(V5, 1, "#", 0)), suback(V5, 1, &[0]));

    let mut wall = Client::open_with(&site, site.tls_of(Role::Dashboard, "wall"), V5);
    assert_eq!(wall.ask(&connect(V5, CLEAN, b"", &[&field("wall")]))[3], 0);
    let connected =
        |count: u8| publish(V5, 0x31, "$SYS/broker/clients/connected", 0, b"", &[b'0' + count]);
    wall.send(&subscribe(V5, 1, "$SYS/broker/clients/connected", 0x08));
    assert_eq!(wall.next(), suback(V5, 1, &[0]));
    // Retained, at once; then when it changes.
    assert_eq!(wall.next(), connected(2));
    let other = Client::clean(&site, "other", V3_1_1);
    assert_eq!(wall.next(), connected(3));
    drop(other);
    assert_eq!(wall.next(), connected(2));
    // Bytes are those of the sockets.
    wall.send(&subscribe(V5, 2, "$SYS/broker/bytes/+", 0));
    let seen = wall.fence();
    let [_, received, sent] = &seen[..] else { panic!("{seen:02x?}") };
    for (packet, name) in [(received, "received"), (sent, "sent")] {
        let text = String::from_utf8_lossy(packet);
        assert!(text.contains(&format!("$SYS/broker/bytes/{name}")), "{text}");
        let digits: String = text.chars().rev().take_while(char::is_ascii_digit).collect();
        assert!(digits.len() >= 2, "{text}");
    }
    // A wildcard at the first level came to nothing of this.
    assert_eq!(device.fence(), [] as [Vec<u8>; 0]);
}

#[test]
fn a_server_that_stops_names_another_one() {
    let reference = "standby.example:8883";
    let server_reference = Some(reference.into());
    let mut site = Site::about(About { server_reference, ..About::default() }, |_| ());
    let mut new = Client::clean(&site, "new", V5);
    let mut old = Client::clean(&site, "old", V3_1_1);
    site.stop();
    let props = [b"\x1C".to_vec(), field(reference)].concat();
    let moved = packet(0xE0, &[b"\x9C", &properties(V5, &props)]);
    assert_eq!(new.until_closed(), [moved]);
    assert_eq!(old.until_closed(), [] as [Vec<u8>; 0]);
    // Without one, the server only says that it stops.
    let mut site = Site::new();
    let mut new = Client::clean(&site, "new", V5);
    site.stop();
    assert_eq!(new.until_closed(), [disconnect(0x8B)]);
}

#[test]
fn no_response_information_is_given_and_requests_are_answered_all_the_same() {
    let site = Site::new();
    // Request Response Information 1. The server may give none: topics are the policy's to name.
    let packet = connect(V5, CLEAN, b"\x19\x01", &[&field("asks")]);
    let (mut asks, connack) = Client::connect(&site, "asks", V5, &packet);
    let plain = connect(V5, CLEAN, b"", &[&field("answers")]);
    let (mut answers, without) = Client::connect(&site, "answers", V5, &plain);
    assert_eq!(connack, without);
    assert_eq!(asks.ask(&subscribe(V5, 1, "t/answers/asks", 1)), suback(V5, 1, &[1]));
    assert_eq!(answers.ask(&subscribe(V5, 1, "t/questions", 1)), suback(V5, 1, &[1]));
    let correlation = [b"\x09".to_vec(), field(b"\x00\x17")].concat();
    let props = [[b"\x08".to_vec(), field("t/answers/asks")].concat(), correlation.clone()];
    let question = |id| publish(V5, 0x32, "t/questions", id, &props.concat(), b"?");
    assert_eq!(asks.ask(&question(1)), ack(0x40, 1));
    assert_eq!(answers.next(), question(1));
    let answer = |id| publish(V5, 0x32, "t/answers/asks", id, &correlation, b"!");
    assert_eq!(answers.ask(&answer(2)), ack(0x40, 2));
    assert_eq!(asks.next(), answer(1));
}

#[test]
fn a_keep_alive_below_the_floor_is_answered_with_the_floor() {
    let site = Site::with(|bounds| bounds.keep_alive_seconds_min = 3);
    for (asked, told) in [(1, Some(3)), (2, Some(3)), (3, None), (4, None), (0, Some(1_200_u16))] {
        let packet = connect_keep_alive(V5, CLEAN, asked, b"", &[&field("a")]);
        let (_, connack) = Client::connect(&site, "a", V5, &packet);
        let property = told.map(|told| [&b"\x13"[..], &told.to_be_bytes()].concat());
        let has = |part: &[u8]| connack.windows(part.len()).any(|window| window == part);
        assert!(property.as_deref().is_none_or(has), "{asked}: {connack:02x?}");
        assert_eq!(has(b"\x13\x00\x03"), told == Some(3), "{asked}: {connack:02x?}");
    }
}

#[test]
fn a_thousand_subscribers_of_one_topic_all_get_it() {
    const IDENTITIES: usize = 20;
    const EACH: usize = 50;
    let site = Site::new();
    let mut readers = Vec::with_capacity(IDENTITIES * EACH);
    for identity in 0..IDENTITIES {
        let tls = site.tls(&format!("reader-{identity}"));
        for at in 0..EACH {
            let mut reader = Client::open_with(&site, tls.clone(), V5);
            let name = format!("reader-{identity}-{at}");
            let qos = u8::from(at % 2 == 1);
            let both =
                [connect(V5, CLEAN, b"", &[&field(name)]), subscribe(V5, 1, "t/everybody", qos)];
            reader.send(&both.concat());
            assert_eq!(reader.next()[3], 0);
            assert_eq!(reader.next(), suback(V5, 1, &[qos]));
            readers.push((reader, qos));
        }
    }
    let mut device = Client::clean(&site, "device", V5);
    let began = Instant::now();
    assert_eq!(device.ask(&publish(V5, 0x32, "t/everybody", 1, b"", b"x")), ack(0x40, 1));
    for (reader, qos) in &mut readers {
        let id = u16::from(*qos);
        let copy = publish(V5, 0x30 | (*qos << 1), "t/everybody", id, b"", b"x");
        assert_eq!(reader.next(), copy);
    }
    assert!(began.elapsed() < FAN_OUT_WITHIN, "{:?}", began.elapsed());
}

#[test]
fn topics_and_filters_at_their_bounds_are_taken_and_one_past_them_refused() {
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    let deep = |levels: usize| format!("t{}", "/a".repeat(levels - 1));
    let long = |bytes: usize| format!("t/{}", "b".repeat(bytes - 2));
    for (topic, taken) in
        [(deep(16), true), (deep(17), false), (long(256), true), (long(257), false)]
    {
        assert_eq!(client.ask(&publish(V5, 0x32, &topic, 1, b"", b"x"))[..4].len(), 4);
        let answer = client.ask(&publish(V5, 0x32, &topic, 2, b"", b"x"));
        let reason = answer.get(4).copied().unwrap_or(0);
        assert_eq!(reason, if taken { 0 } else { 0x90 }, "{topic}");
        let answer = client.ask(&subscribe(V5, 3, &topic, 0));
        assert_eq!(answer.last(), Some(&if taken { 0 } else { 0x8F }), "{topic}");
        let answer = client.ask(&unsubscribe(V5, 4, &[&topic]));
        assert_eq!(answer.last(), Some(&if taken { 0 } else { 0x11 }), "{topic}");
    }
    let share = format!("$share/g/{}", long(256 - 9));
    assert_eq!(client.ask(&subscribe(V5, 5, &share, 0)), suback(V5, 5, &[0]));
    assert_eq!(client.ask(&subscribe(V5, 6, &format!("{share}b"), 0)).last(), Some(&0x8F));
}

//! What becomes of a PUBLISH: who gets it, with which flags and properties, and what is retained
//! (sections 3.3 and 4.7).

#![expect(clippy::disallowed_methods, reason = "what is tried takes real time")]

use std::time::Duration;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

const NOTHING: [Vec<u8>; 0] = [];

/// A clean session of `name` with one subscription.
fn reader(site: &Site, name: &str, version: Version, filter: &str, options: u8) -> Client {
    let mut reader = Client::clean(site, name, version);
    let granted = suback(version, 1, &[options & 3]);
    assert_eq!(reader.ask(&subscribe(version, 1, filter, options)), granted);
    reader
}

#[test]
fn retained_messages_are_kept_replaced_sent_and_cleared() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut device = Client::clean(&site, "device", version);
        let mut live = reader(&site, "live", version, "t/a", 0x02);
        let retained = |mut reader: Client| {
            reader.send(&subscribe(version, 9, "t/+", 2));
            let mut seen = reader.fence();
            assert_eq!(seen.remove(0), suback(version, 9, &[2]));
            seen
        };
        let new = |name| Client::clean(&site, name, version);

        assert_eq!(device.ask(&publish(version, 0x33, "t/a", 1, b"", b"1")), ack(0x40, 1));
        // RETAIN is 0 for who had subscribed, 1 for who subscribes now.
        assert_eq!(live.next(), publish(version, 0x32, "t/a", 1, b"", b"1"));
        assert_eq!(retained(new("n1")), [publish(version, 0x33, "t/a", 1, b"", b"1")]);
        // A message without RETAIN changes nothing.
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 2, b"", b"passing")), ack(0x40, 2));
        assert_eq!(retained(new("n2")), [publish(version, 0x33, "t/a", 1, b"", b"1")]);
        // One of QoS 0 replaces one of QoS 1.
        device.send(&publish(version, 0x31, "t/a", 0, b"", b"2"));
        device.fence();
        assert_eq!(retained(new("n3")), [publish(version, 0x31, "t/a", 0, b"", b"2")]);
        // The empty one is delivered as any other, and clears.
        live.fence();
        assert_eq!(device.ask(&publish(version, 0x33, "t/a", 3, b"", b"")), ack(0x40, 3));
        assert_eq!(live.next(), publish(version, 0x32, "t/a", 3, b"", b""));
        assert_eq!(retained(new("n4")), NOTHING);
    }
}

#[test]
fn the_retain_flag_is_kept_where_the_subscription_says_so() {
    let site = Site::new();
    let mut keeps = reader(&site, "keeps", V5, "t/a", 0x08);
    let mut loses = reader(&site, "loses", V5, "t/a", 0x00);
    let mut device = Client::clean(&site, "device", V5);
    for retain in [0x01, 0x00] {
        device.send(&publish(V5, 0x30 | retain, "t/a", 0, b"", b"x"));
        assert_eq!(keeps.next(), publish(V5, 0x30 | retain, "t/a", 0, b"", b"x"));
        assert_eq!(loses.next(), publish(V5, 0x30, "t/a", 0, b"", b"x"));
    }
}

#[test]
fn dup_says_whether_this_packet_was_sent_before_and_nothing_else() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut reader = reader(&site, "reader", version, "t/a", 0x02);
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x3A, "t/a", 1, b"", b"1")), ack(0x40, 1));
        assert_eq!(device.ask(&publish(version, 0x3C, "t/a", 2, b"", b"2")), ack(0x50, 2));
        assert_eq!(reader.next(), publish(version, 0x32, "t/a", 1, b"", b"1"));
        assert_eq!(reader.next(), publish(version, 0x34, "t/a", 2, b"", b"2"));
    }
}

#[test]
fn a_message_goes_to_whose_filter_matches_its_topic_and_to_nobody_else() {
    let site = Site::new();
    let filters =
        ["t/a", "t/+", "t/#", "+/a", "#", "t/a/#", "t/b", "t/a/b", "T/a", "t/a/", "/t/a", "+"];
    let expected = |topic: &str| -> Vec<bool> {
        let yes: &[&str] = match topic {
            "t/a" => &["t/a", "t/+", "t/#", "+/a", "#", "t/a/#"],
            "t/a/" => &["t/#", "#", "t/a/#", "t/a/"],
            "/t/a" => &["#", "/t/a"],
            "t/b" => &["t/+", "t/#", "#", "t/b"],
            // Nothing is normalized: this is another topic than t/a.
            "t/\u{FEFF}a" => &["t/+", "t/#", "#"],
            "t/A\u{30A}" | "t/\u{C5}" => &["t/+", "t/#", "#"],
            other => panic!("{other}"),
        };
        filters.iter().map(|filter| yes.contains(filter)).collect()
    };
    for version in [V3_1_1, V5] {
        let mut readers: Vec<Client> = (0..filters.len())
            .map(|at| reader(&site, &format!("reader-{at}"), version, filters[at], 0))
            .collect();
        let mut device = Client::clean(&site, "device", version);
        for topic in ["t/a", "t/a/", "/t/a", "t/b", "t/\u{FEFF}a", "t/A\u{30A}", "t/\u{C5}"] {
            let message = publish(version, 0x30, topic, 0, b"", b"x");
            device.send(&message);
            device.fence();
            for (at, wanted) in expected(topic).into_iter().enumerate() {
                let seen = readers[at].fence();
                // What arrives has the bytes of the topic that was published to.
                let all = if wanted { vec![message.clone()] } else { vec![] };
                assert_eq!(seen, all, "{} for {topic}", filters[at]);
            }
        }
    }
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut reader = reader(&site, "reader", version, "t/#", 0);
        assert_eq!(reader.ask(&subscribe(version, 2, "t/+", 2)), suback(version, 2, &[2]));
        assert_eq!(reader.ask(&subscribe(version, 3, "t/a", 1)), suback(version, 3, &[1]));
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x34, "t/a", 1, b"", b"x")), ack(0x50, 1));
        assert_eq!(reader.fence(), [publish(version, 0x34, "t/a", 1, b"", b"x")]);
    }
}

#[test]
fn subscription_identifiers_of_all_matching_subscriptions_are_in_the_one_copy() {
    let site = Site::new();
    let mut reader = Client::clean(&site, "reader", V5);
    let with = |id, props: &[u8], filter| subscribe_with(V5, id, props, &[(filter, 0)]);
    assert_eq!(reader.ask(&with(1, b"\x0B\x07", "t/#")), suback(V5, 1, &[0]));
    assert_eq!(reader.ask(&with(2, b"\x0B\x80\x01", "t/a")), suback(V5, 2, &[0]));
    assert_eq!(reader.ask(&with(3, b"", "+/a")), suback(V5, 3, &[0]));
    let mut device = Client::clean(&site, "device", V5);
    device.send(&publish(V5, 0x30, "t/a", 0, b"", b"x"));
    device.fence();
    let seen = reader.fence();
    let either = [&b"\x0B\x07\x0B\x80\x01"[..], b"\x0B\x80\x01\x0B\x07"]
        .map(|props| vec![publish(V5, 0x30, "t/a", 0, props, b"x")]);
    assert!(either.contains(&seen), "{seen:02x?}");
}

#[test]
fn properties_reach_every_subscriber_unaltered_and_in_their_order() {
    let site = Site::new();
    let mut reader = reader(&site, "reader", V5, "t/a", 1);
    let mut old = self::reader(&site, "old", V3_1_1, "t/a", 1);
    let mut device = Client::clean(&site, "device", V5);
    let props = [
        b"\x01\x01".to_vec(),
        [b"\x08".to_vec(), field("t/answer\u{FEFF}")].concat(),
        [b"\x09".to_vec(), field(b"\x00\xFF\x17")].concat(),
        [b"\x03".to_vec(), field("text/plain")].concat(),
    ];
    let user = [
        user_property("b", "1"),
        user_property("a", "2"),
        user_property("b", "1"),
        user_property("", ""),
    ]
    .concat();
    let all = [props.concat(), user.clone()].concat();
    assert_eq!(device.ask(&publish(V5, 0x32, "t/a", 1, &all, b"payload")), ack(0x40, 1));
    let seen = reader.next();
    for part in props.iter().chain([&user]) {
        assert!(seen.windows(part.len()).any(|window| window == part), "{part:02x?}");
    }
    // The same properties, and no others.
    assert_eq!(seen.len(), publish(V5, 0x32, "t/a", 1, &all, b"payload").len());
    assert_eq!(old.next(), publish(V3_1_1, 0x32, "t/a", 1, b"", b"payload"));
}

#[test]
fn a_message_expires_and_what_is_left_of_its_interval_goes_with_it() {
    let site = Site::new();
    let lasting = connect(V5, 0, b"\x11\x00\x00\x00\x3C", &[&field("reader")]);
    let (mut reader, _) = Client::connect(&site, "reader", V5, &lasting);
    assert_eq!(reader.ask(&subscribe(V5, 1, "t/a", 1)), suback(V5, 1, &[1]));
    drop(reader);
    let mut device = Client::clean(&site, "device", V5);
    let expiring = |id, seconds: u8, payload: &[u8]| {
        publish(V5, 0x32, "t/a", id, &[0x02, 0, 0, 0, seconds], payload)
    };
    assert_eq!(device.ask(&expiring(1, 1, b"short")), ack(0x40, 1));
    assert_eq!(device.ask(&expiring(2, 100, b"long")), ack(0x40, 2));
    std::thread::sleep(Duration::from_millis(1_300));
    let (mut reader, _) = Client::connect(&site, "reader", V5, &lasting);
    let seen = reader.fence();
    assert_eq!(seen.len(), 1, "{seen:02x?}");
    // All but the Packet Identifier: the one that expired may have had one.
    let left = (90..=99).map(|seconds| expiring(2, seconds, b"long"));
    assert!({ left }.any(|one| one[9..] == seen[0][9..]), "{seen:02x?}");
}

#[test]
fn a_topic_alias_stands_for_its_topic_on_its_own_connection_only() {
    let site = Site::with(|bounds| bounds.topic_alias_maximum = 3);
    let mut reader = reader(&site, "reader", V5, "t/#", 0);
    let mut device = Client::clean(&site, "device", V5);
    let topics = ["t/a", "t/b", "t/c"];
    // Every alias up to the maximum is taken.
    for (alias, topic) in (1..).zip(topics) {
        device.send(&publish(V5, 0x30, topic, 0, &[0x23, 0, alias], b"set"));
        assert_eq!(reader.next(), publish(V5, 0x30, topic, 0, b"", b"set"));
    }
    for (alias, topic) in (1..).zip(topics) {
        device.send(&publish(V5, 0x30, "", 0, &[0x23, 0, alias], b"used"));
        assert_eq!(reader.next(), publish(V5, 0x30, topic, 0, b"", b"used"));
    }
    let mut other = Client::clean(&site, "other", V5);
    other.send(&publish(V5, 0x30, "", 0, b"\x23\x00\x01", b"unknown"));
    assert_eq!(other.until_closed(), [disconnect(0x82)]);
    let mut device = Client::clean(&site, "device", V5);
    device.send(&publish(V5, 0x30, "", 0, b"\x23\x00\x01", b"forgotten"));
    assert_eq!(device.until_closed(), [disconnect(0x82)]);
    assert_eq!(reader.fence(), NOTHING);
}

#[test]
fn a_client_that_may_not_publish_is_told_or_closed() {
    let site = Site::new();
    let mut reader = reader(&site, "reader", V5, "#", 0);
    let forbidden = |version| publish(version, 0x32, "t/forbidden/a", 1, b"", b"x");
    let mut old = Client::clean(&site, "old", V3_1_1);
    old.send(&forbidden(V3_1_1));
    assert_eq!(old.until_closed(), NOTHING);
    let mut new = Client::clean(&site, "new", V5);
    let no = new.ask(&forbidden(V5));
    assert_eq!((no[0], &no[2..5]), (0x40, &[0, 1, 0x87][..]));
    assert_eq!(reader.fence(), NOTHING);
}

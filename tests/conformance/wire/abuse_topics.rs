//! How brokers have been broken by topics and subscriptions: the rows B01 to B11 of the abuse
//! catalogue, over mutual TLS. None of them ends a connection that keeps the rules of the packet.

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// The Reason Code of a PUBACK.
fn puback_reason(answer: &[u8]) -> u8 {
    assert_eq!(answer[0], 0x40, "{answer:02x?}");
    answer.get(4).copied().unwrap_or(0)
}

/// The Reason Codes of a SUBACK for one packet of `count` filters.
fn suback_reasons(answer: &[u8], count: usize) -> Vec<u8> {
    assert_eq!(answer[0], 0x90, "{answer:02x?}");
    answer[answer.len() - count..].to_vec()
}

/// A reader of everything below `t`.
fn reader(site: &Site, name: &str, filter: &str) -> Client {
    let mut reader = Client::clean(site, name, V5);
    assert_eq!(reader.ask(&subscribe(V5, 1, filter, 1)), suback(V5, 1, &[1]));
    reader
}

#[test]
fn b01_65000_slashes_in_a_topic_and_in_a_filter() {
    let mut site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    let slashes = "/".repeat(65_000);
    assert_eq!(puback_reason(&client.ask(&publish(V5, 0x32, &slashes, 1, b"", b"x"))), 0x90);
    let answer = client.ask(&subscribe(V5, 2, &slashes, 1));
    assert_eq!(suback_reasons(&answer, 1), [0x8F]);
    // Within the bound on bytes, beyond the one on levels.
    let deep = "/".repeat(200);
    assert_eq!(puback_reason(&client.ask(&publish(V5, 0x32, &deep, 3, b"", b"x"))), 0x90);
    assert_eq!(suback_reasons(&client.ask(&subscribe(V5, 4, &deep, 1)), 1), [0x8F]);
    assert_eq!(client.ask(PINGREQ), PINGRESP);
    drop(client);
    let entries = site.entries();
    let denied =
        |kind| entries.iter().filter(|e| e["type"] == kind && e["result"] == "deny").count();
    assert_eq!((denied("publish.refused"), denied("subscribe")), (2, 2));
    let longest = entries.iter().map(|entry| entry.to_string().len()).max().unwrap();
    assert!(longest < 4_096, "an entry of {longest} bytes");
}

#[test]
fn b02_dollar_topics_other_than_sys() {
    let site = Site::new();
    let mut all = reader(&site, "all", "#");
    let mut any = reader(&site, "any", "+/+");
    let mut device = Client::clean(&site, "device", V5);
    for topic in ["$other/x", "$", "$/x", "$share", "$share/g/x", "$quarantine/x"] {
        // `#` permits no `$` topic.
        assert_eq!(puback_reason(&device.ask(&publish(V5, 0x32, topic, 1, b"", b"x"))), 0x87);
    }
    for filter in ["$other/#", "$/+", "$"] {
        assert_eq!(suback_reasons(&device.ask(&subscribe(V5, 1, filter, 1)), 1), [0x87]);
    }
    assert_eq!(all.fence().len() + any.fence().len(), 0);
}

#[test]
fn b03_shares_without_a_filter_or_with_an_empty_or_wildcard_name() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut client = Client::clean(&site, "a", version);
        let mut id = 0;
        for filter in
            ["$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/+/t", "$share/#/t"]
        {
            id += 1;
            let answer = client.ask(&subscribe(version, id, filter, 1));
            let refused = if version == V5 { 0x8F } else { 0x80 };
            assert_eq!(suback_reasons(&answer, 1), [refused], "{filter}");
            let answer = client.ask(&unsubscribe(version, id, &[filter]));
            assert_eq!(answer[0], 0xB0, "{filter}");
        }
        assert_eq!(client.ask(PINGREQ), PINGRESP);
    }
}

#[test]
fn b04_subscribe_shared_unsubscribe_plain_and_the_reverse() {
    let site = Site::new();
    for (taken, left) in [("$share/g/t/a", "t/a"), ("t/a", "$share/g/t/a")] {
        let mut member = reader(&site, "member", taken);
        assert_eq!(member.ask(&unsubscribe(V5, 2, &[left])), unsuback(V5, 2, &[0x11]));
        let mut device = Client::clean(&site, "device", V5);
        device.ask(&publish(V5, 0x32, "t/a", 1, b"", b"x"));
        assert_eq!(member.fence().len(), 1, "{taken} is still there");
        assert_eq!(member.ask(&unsubscribe(V5, 3, &[taken])), unsuback(V5, 3, &[0]));
        device.ask(&publish(V5, 0x32, "t/a", 2, b"", b"x"));
        assert_eq!(member.fence().len(), 0);
    }
}

#[test]
fn b05_many_filters_in_one_subscribe_and_partial_unsubscribe() {
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    let filters: Vec<String> = (0..8).map(|number| format!("t/{number}")).collect();
    let pairs: Vec<(&str, u8)> = filters.iter().map(|filter| (&filter[..], 1)).collect();
    assert_eq!(client.ask(&subscribe_with(V5, 1, b"", &pairs)), suback(V5, 1, &[1; 8]));
    let some = ["t/0", "t/nothing", "t/7", "t/#/x", "t/0"];
    let reasons = [0, 0x11, 0, 0x8F, 0x11];
    assert_eq!(client.ask(&unsubscribe(V5, 2, &some)), unsuback(V5, 2, &reasons));
    let mut device = Client::clean(&site, "device", V5);
    for (at, filter) in filters.iter().enumerate() {
        device.ask(&publish(V5, 0x32, filter, at as u16 + 1, b"", b"x"));
    }
    assert_eq!(client.fence().len(), 6);
}

#[test]
fn b06_a_subscription_bomb_per_packet_and_per_client() {
    let site = Site::with(|bounds| bounds.subscriptions_max = 20);
    let mut client = Client::clean(&site, "a", V5);
    let filters: Vec<String> = (0..1_000).map(|number| format!("t/{number}/#")).collect();
    let pairs: Vec<(&str, u8)> = filters.iter().map(|filter| (&filter[..], 1)).collect();
    let answer = client.ask(&subscribe_with(V5, 1, b"", &pairs));
    assert_eq!(suback_reasons(&answer, 1_000), [0x97; 1_000]);
    let mut granted = 0;
    for (at, filters) in pairs.chunks(8).take(5).enumerate() {
        let answer = client.ask(&subscribe_with(V5, at as u16 + 2, b"", filters));
        let reasons = suback_reasons(&answer, filters.len());
        assert!(reasons.iter().all(|reason| matches!(reason, 1 | 0x97)), "{reasons:02x?}");
        granted += reasons.iter().filter(|reason| **reason == 1).count();
    }
    assert_eq!(granted, 20);
}

#[test]
fn b07_overlapping_wildcards_do_not_amplify() {
    let site = Site::new();
    let mut reader = Client::clean(&site, "reader", V5);
    let filters = [
        "#", "+/#", "t/#", "t/+/#", "+/+/#", "t/a/#", "+/a/#", "t/a/+", "+/+/+", "t/+/c", "+/a/c",
        "t/a/c", "t/a/c/#", "+/+/c/#", "t/+/+", "+/a/+",
    ];
    for (at, filter) in filters.iter().enumerate() {
        let identifier = [0x0B, at as u8 + 1];
        reader.ask(&subscribe_with(V5, at as u16 + 1, &identifier, &[(filter, 1)]));
    }
    let mut device = Client::clean(&site, "device", V5);
    device.ask(&publish(V5, 0x32, "t/a/c", 1, b"", b"x"));
    // One copy, with an identifier for each subscription.
    let copies = reader.fence();
    assert_eq!(copies.len(), 1);
    assert!(copies[0].iter().filter(|byte| **byte == 0x0B).count() >= filters.len());
}

#[test]
fn b08_a_retained_flood_on_unique_topics_and_a_reader_of_all_of_them() {
    let site = Site::with(|bounds| bounds.retained_messages_max = 500);
    let mut device = Client::clean(&site, "device", V5);
    let mut refused = 0;
    for number in 0..600 {
        let topic = format!("t/{number:04}");
        let answer = device.ask(&publish(V5, 0x33, &topic, 1, b"", b"x"));
        refused += usize::from(puback_reason(&answer) == 0x97);
    }
    assert_eq!(refused, 100);
    let mut reader = Client::clean(&site, "reader", V5);
    reader.send(&subscribe(V5, 1, "#", 0));
    assert_eq!(reader.next()[0], 0x90);
    // They come in steps, between which others are served.
    let found = (0..500).filter(|_| reader.next()[0] == 0x31).count();
    assert_eq!((found, reader.fence().len()), (500, 0));
    // There is room again where one was cleared.
    device.ask(&publish(V5, 0x33, "t/0000", 1, b"", b""));
    assert_eq!(puback_reason(&device.ask(&publish(V5, 0x33, "t/new", 1, b"", b"x"))) & 0x80, 0);
}

#[test]
fn b09_no_local_on_a_shared_subscription() {
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    client.send(&subscribe(V5, 1, "$share/g/t/a", 0x05));
    assert_eq!(client.until_closed(), [disconnect(0x82)]);
}

#[test]
fn b10_re_subscribing_with_changing_qos_does_not_stall_delivery() {
    let site = Site::new();
    let mut reader = Client::clean(&site, "reader", V5);
    let mut device = Client::clean(&site, "device", V5);
    for round in 0..300_u16 {
        let qos = (round % 3) as u8;
        assert_eq!(reader.ask(&subscribe(V5, 1, "t/#", qos)), suback(V5, 1, &[qos]));
        device.ask(&publish(V5, 0x32, "t/a", 1, b"", &round.to_be_bytes()));
        let copy = reader.next();
        assert_eq!(copy[0], 0x30 | (qos.min(1) << 1), "round {round}");
        assert_eq!(copy[copy.len() - 2..], round.to_be_bytes());
        if qos > 0 {
            reader.send(&ack(0x40, u16::from_be_bytes([copy[7], copy[8]]).max(1)));
        }
    }
    assert_eq!(reader.fence().len(), 0);
}

#[test]
fn b11_no_retained_topic_breaks_the_walk() {
    let site = Site::new();
    let mut device = Client::clean(&site, "device", V5);
    let deepest = vec!["x"; 16].join("/");
    let topics = [
        "/",
        "//",
        "a",
        "a/",
        "a//b",
        "/a",
        " ",
        "a b",
        "\u{10FFFD}",
        "\u{FEFF}",
        "é",
        "a\u{301}",
        "!",
        "~",
        "a!",
        "a0",
        "a.b",
        &deepest,
    ];
    for topic in topics {
        let answer = device.ask(&publish(V5, 0x33, topic, 1, b"", b"x"));
        assert_eq!(puback_reason(&answer) & 0x80, 0, "{topic:?}");
    }
    for (filter, count) in [("#", topics.len()), ("a/#", 3), ("/#", 3), ("+", 12), ("a/+", 1)] {
        let mut reader = Client::clean(&site, "reader", V5);
        reader.send(&subscribe(V5, 1, filter, 0));
        let found = reader.fence().iter().filter(|packet| packet[0] == 0x31).count();
        assert_eq!(found, count, "{filter}");
    }
}

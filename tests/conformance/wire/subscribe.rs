//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11), PINGREQ (3.12).

use super::bytes::*;
use super::client::Client;
use super::site::Site;

const NOTHING: [Vec<u8>; 0] = [];

#[test]
fn every_filter_has_its_answer_in_its_place() {
    let site = Site::new();
    for (version, invalid) in [(V3_1, 0x80), (V3_1_1, 0x80), (V5, 0x8F)] {
        // Without Reason Strings.
        let packet = connect(version, CLEAN, b"\x17\x00", &[&field("a")]);
        let (mut client, _) = Client::connect(&site, "a", version, &packet);
        let filters = [("t/a", 2), ("t/#/b", 1), ("t/b", 0), ("", 0), ("t/c+", 0), ("+/c/#", 1)];
        let granted = [2, invalid, 0, invalid, invalid, 1];
        let packet = subscribe_with(version, 0x0102, b"", &filters);
        assert_eq!(client.ask(&packet), suback(version, 0x0102, &granted));
        // As if each had come alone: what was granted is in force.
        let mut device = Client::clean(&site, "device", version);
        for (topic, first, id) in [("t/a", 0x34, 1), ("t/b", 0x30, 0), ("t/c/d", 0x32, 2)] {
            device.send(&publish(version, 0x34, topic, 9, b"", b"x"));
            assert_eq!(device.next(), ack(0x50, 9));
            device.send(&ack(0x62, 9));
            assert_eq!(device.next(), ack(0x70, 9));
            assert_eq!(client.next(), publish(version, first, topic, id, b"", b"x"));
        }
    }
}

#[test]
fn shared_filters_have_a_name_and_a_filter() {
    let site = Site::new();
    // Without Reason Strings.
    let packet = connect(V5, CLEAN, b"\x17\x00", &[&field("a")]);
    let (mut client, _) = Client::connect(&site, "a", V5, &packet);
    for filter in
        ["$share/g", "$share/g/", "$share//t/a", "$share/g+/t/a", "$share/#/t/a", "$share"]
    {
        assert_eq!(client.ask(&subscribe(V5, 1, filter, 0)), suback(V5, 1, &[0x8F]), "{filter}");
    }
    for filter in ["$share/g/t/a", "$share/g/#", "$share/g//"] {
        assert_eq!(client.ask(&subscribe(V5, 1, filter, 1)), suback(V5, 1, &[1]), "{filter}");
    }
}

#[test]
fn a_copy_has_the_lower_of_both_qos() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        for granted in [0, 1, 2] {
            let mut reader = Client::clean(&site, "reader", version);
            let answer = reader.ask(&subscribe(version, 1, "t/a", granted));
            assert_eq!(answer, suback(version, 1, &[granted]));
            let mut device = Client::clean(&site, "device", version);
            let mut id = 0;
            for published in [0, 1, 2] {
                let own = u16::from(published > 0);
                device.send(&publish(version, 0x30 | (published << 1), "t/a", own, b"", b"x"));
                device.fence();
                let qos = granted.min(published);
                id += u16::from(qos > 0);
                let own = if qos > 0 { id } else { 0 };
                assert_eq!(
                    reader.next(),
                    publish(version, 0x30 | (qos << 1), "t/a", own, b"", b"x")
                );
            }
        }
    }
}

#[test]
fn the_same_filter_again_replaces_the_subscription() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x33, "t/kept", 1, b"", b"k")), ack(0x40, 1));
        let mut reader = Client::clean(&site, "reader", version);
        let kept = |first, id| publish(version, first, "t/kept", id, b"", b"k");
        reader.send(&subscribe(version, 1, "t/#", 0));
        assert_eq!(reader.fence(), [suback(version, 1, &[0]), kept(0x31, 0)]);
        // The retained message comes again, with the new QoS, and there is one subscription.
        reader.send(&subscribe(version, 2, "t/#", 1));
        assert_eq!(reader.fence(), [suback(version, 2, &[1]), kept(0x33, 1)]);
        assert_eq!(device.ask(&publish(version, 0x34, "t/a", 2, b"", b"x")), ack(0x50, 2));
        assert_eq!(reader.fence(), [publish(version, 0x32, "t/a", 2, b"", b"x")]);
    }
}

#[test]
fn nothing_is_lost_while_a_subscription_is_replaced() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut reader = Client::clean(&site, "reader", version);
        assert_eq!(reader.ask(&subscribe(version, 1, "t/a", 1)), suback(version, 1, &[1]));
        let mut device = Client::clean(&site, "device", version);
        for at in 1..=30_u16 {
            device.send(&publish(version, 0x32, "t/a", at, b"", &at.to_be_bytes()));
            reader.send(&subscribe(version, at, "t/a", 1));
        }
        device.fence();
        let seen = reader.fence();
        let ends = |packet: &Vec<u8>| [packet[packet.len() - 2], packet[packet.len() - 1]];
        let payloads: Vec<u16> = seen
            .iter()
            .filter(|packet| packet[0] == 0x32)
            .map(|packet| u16::from_be_bytes(ends(packet)))
            .collect();
        assert_eq!(payloads, (1..=30).collect::<Vec<_>>());
    }
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    let site = Site::new();
    let mut device = Client::clean(&site, "device", V5);
    assert_eq!(device.ask(&publish(V5, 0x33, "t/a", 1, b"", b"k")), ack(0x40, 1));
    let mut reader = Client::clean(&site, "reader", V5);
    let kept = publish(V5, 0x31, "t/a", 0, b"", b"k");
    let mut told = |filter, handling: u8| {
        reader.send(&subscribe(V5, 1, filter, handling << 4));
        let mut seen = reader.fence();
        assert_eq!(seen.remove(0), suback(V5, 1, &[0]));
        seen
    };
    assert_eq!(told("t/a", 2), NOTHING, "2: never");
    assert_eq!(told("t/a", 1), NOTHING, "1: not for one that exists");
    assert_eq!(told("t/+", 1), std::slice::from_ref(&kept), "1: for a new one");
    assert_eq!(told("t/+", 0), std::slice::from_ref(&kept), "0: always");
    assert_eq!(told("$share/g/t/a", 0), NOTHING, "never for a shared one");
}

#[test]
fn no_local_keeps_a_client_s_own_messages_from_it() {
    let site = Site::new();
    let mut client = Client::clean(&site, "a", V5);
    assert_eq!(client.ask(&subscribe(V5, 1, "t/a", 0x04)), suback(V5, 1, &[0]));
    assert_eq!(client.ask(&subscribe(V5, 2, "t/b", 0x00)), suback(V5, 2, &[0]));
    client.send(&publish(V5, 0x30, "t/a", 0, b"", b"own"));
    client.send(&publish(V5, 0x30, "t/b", 0, b"", b"own"));
    assert_eq!(client.fence(), [publish(V5, 0x30, "t/b", 0, b"", b"own")]);
    let mut other = Client::clean(&site, "b", V5);
    other.send(&publish(V5, 0x30, "t/a", 0, b"", b"other"));
    assert_eq!(client.next(), publish(V5, 0x30, "t/a", 0, b"", b"other"));
}

#[test]
fn unsubscribe_ends_exactly_the_filters_it_names() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut reader = Client::clean(&site, "reader", version);
        let filters = [("t/#", 1), ("t/a", 0), ("t/b", 0)];
        let granted = suback(version, 1, &[1, 0, 0]);
        assert_eq!(reader.ask(&subscribe_with(version, 1, b"", &filters)), granted);
        // Filters are compared character by character: these are others.
        let others = unsubscribe(version, 2, &["t/+", "T/a", "t/a/", "#"]);
        let none = unsuback(version, 2, &[0x11; 4]);
        assert_eq!(reader.ask(&others), none);
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
        assert_eq!(reader.next(), publish(version, 0x32, "t/a", 1, b"", b"1"));
        // One answer for all, one Reason Code for each, in their order.
        let some = unsubscribe(version, 3, &["t/x", "t/#", "t/a"]);
        assert_eq!(reader.ask(&some), unsuback(version, 3, &[0x11, 0, 0]));
        for topic in ["t/a", "t/c"] {
            assert_eq!(device.ask(&publish(version, 0x32, topic, 2, b"", b"2")), ack(0x40, 2));
        }
        assert_eq!(device.ask(&publish(version, 0x32, "t/b", 3, b"", b"3")), ack(0x40, 3));
        assert_eq!(reader.fence(), [publish(version, 0x30, "t/b", 0, b"", b"3")]);
    }
}

#[test]
fn what_was_begun_before_unsubscribe_is_finished() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let (mut reader, _) = Client::lasting(&site, "reader", version);
        assert_eq!(reader.ask(&subscribe(version, 1, "t/a", 2)), suback(version, 1, &[2]));
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
        assert_eq!(device.ask(&publish(version, 0x34, "t/a", 2, b"", b"2")), ack(0x50, 2));
        assert_eq!(reader.fence().len(), 2);
        assert_eq!(reader.ask(&unsubscribe(version, 3, &["t/a"])), unsuback(version, 3, &[0]));
        assert_eq!(reader.ask(&ack(0x50, 2)), ack(0x62, 2));
        drop(reader);
        let (mut reader, _) = Client::lasting(&site, "reader", version);
        let rest = [publish(version, 0x3A, "t/a", 1, b"", b"1"), ack(0x62, 2)];
        assert_eq!(reader.fence(), rest);
        drop(reader);
        drop(Client::clean(&site, "reader", version));
    }
}

#[test]
fn a_ping_is_answered() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut client = Client::clean(&site, "a", version);
        for _ in 0..3 {
            assert_eq!(client.ask(PINGREQ), PINGRESP);
        }
    }
}

//! The three delivery protocols, in both directions, and the order of things (sections 4.3, 4.5
//! and 4.6).

use super::bytes::*;
use super::client::Client;
use super::site::Site;

fn reader(site: &Site, version: Version, qos: u8) -> Client {
    let mut reader = Client::clean(site, "reader", version);
    assert_eq!(reader.ask(&subscribe(version, 1, "t/#", qos)), suback(version, 1, &[qos]));
    reader
}

#[test]
fn qos_0_has_neither_identifier_nor_acknowledgement() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut reader = reader(&site, version, 2);
        let mut device = Client::clean(&site, "device", version);
        let message = publish(version, 0x30, "t/a", 0, b"", b"x");
        device.send(&message);
        assert_eq!(device.fence(), [] as [Vec<u8>; 0]);
        assert_eq!(reader.fence(), [message]);
    }
}

#[test]
fn qos_1_is_acknowledged_and_its_identifier_is_free_again() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut reader = reader(&site, version, 1);
        let mut device = Client::clean(&site, "device", version);
        // The same identifier after its PUBACK is a new message, whatever its DUP says.
        for (first, id) in [(0x32, 1), (0x32, 2), (0x3A, 3)] {
            assert_eq!(device.ask(&publish(version, first, "t/a", 7, b"", b"x")), ack(0x40, 7));
            // Unused: none of the earlier ones is acknowledged.
            assert_eq!(reader.next(), publish(version, 0x32, "t/a", id, b"", b"x"));
        }
        // In use until acknowledged; an acknowledgement of nothing harms nothing.
        reader.send(&ack(0x40, 2));
        reader.send(&ack(0x40, 999));
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 7, b"", b"x")), ack(0x40, 7));
        assert_eq!(reader.next(), publish(version, 0x32, "t/a", 4, b"", b"x"));
        assert_eq!(reader.fence(), [] as [Vec<u8>; 0]);
    }
}

#[test]
fn qos_2_from_the_client_is_received_once() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut reader = reader(&site, version, 0);
        let mut device = Client::clean(&site, "device", version);
        let once = publish(version, 0x30, "t/a", 0, b"", b"x");
        assert_eq!(device.ask(&publish(version, 0x34, "t/a", 7, b"", b"x")), ack(0x50, 7));
        assert_eq!(device.ask(&publish(version, 0x3C, "t/a", 7, b"", b"x")), ack(0x50, 7));
        assert_eq!(reader.fence(), std::slice::from_ref(&once));
        assert_eq!(device.ask(&ack(0x62, 7)), ack(0x70, 7));
        // A PUBREL for nothing is answered all the same.
        let unknown = device.ask(&ack(0x62, 7));
        let expected = if version == V5 { ack_reason(0x70, 7, 0x92) } else { ack(0x70, 7) };
        assert_eq!(unknown, expected);
        assert_eq!(device.ask(&publish(version, 0x3C, "t/a", 7, b"", b"x")), ack(0x50, 7));
        assert_eq!(reader.fence(), [once]);
    }
}

#[test]
fn a_refused_qos_2_message_holds_no_identifier() {
    let site = Site::new();
    let mut reader = reader(&site, V5, 0);
    let mut device = Client::clean(&site, "device", V5);
    let no = device.ask(&publish(V5, 0x34, "t/forbidden/a", 7, b"", b"x"));
    assert_eq!((no[0], &no[2..5]), (0x50, &[0, 7, 0x87][..]));
    // Under the same identifier comes a new message.
    assert_eq!(device.ask(&publish(V5, 0x34, "t/a", 7, b"", b"x")), ack(0x50, 7));
    assert_eq!(reader.fence(), [publish(V5, 0x30, "t/a", 0, b"", b"x")]);
    assert_eq!(device.ask(&ack(0x62, 7)), ack(0x70, 7));
}

#[test]
fn qos_2_to_the_client_goes_through_pubrel() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut reader = reader(&site, version, 2);
        let mut device = Client::clean(&site, "device", version);
        for id in [1, 2] {
            assert_eq!(device.ask(&publish(version, 0x34, "t/a", id, b"", b"x")), ack(0x50, id));
            assert_eq!(device.ask(&ack(0x62, id)), ack(0x70, id));
            assert_eq!(reader.next(), publish(version, 0x34, "t/a", id, b"", b"x"));
        }
        // PUBREL comes in the order of PUBREC, and again for a repeated one; never the PUBLISH.
        assert_eq!(reader.ask(&ack(0x50, 2)), ack(0x62, 2));
        assert_eq!(reader.ask(&ack(0x50, 1)), ack(0x62, 1));
        assert_eq!(reader.ask(&ack(0x50, 1)), ack(0x62, 1));
        reader.send(&[ack(0x70, 2), ack(0x70, 1)].concat());
        assert_eq!(reader.fence(), [] as [Vec<u8>; 0]);
    }
}

#[test]
fn acknowledgements_come_in_the_order_of_what_they_acknowledge() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut device = Client::clean(&site, "device", version);
        let mut all = Vec::new();
        let mut expected = Vec::new();
        for id in (1..=60).rev() {
            let (first, answer) = if id % 3 == 0 { (0x34, 0x50) } else { (0x32, 0x40) };
            all.extend(publish(version, first, "t/a", id, b"", b"x"));
            expected.push(ack(answer, id));
        }
        device.send(&all);
        assert_eq!(device.fence(), expected);
        let received = || (1..=60).rev().filter(|id| id % 3 == 0);
        device.send(&received().flat_map(|id| ack(0x62, id)).collect::<Vec<u8>>());
        assert_eq!(device.fence(), received().map(|id| ack(0x70, id)).collect::<Vec<_>>());
    }
}

#[test]
fn messages_of_one_client_arrive_in_their_order() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        for qos in [0, 1, 2] {
            let mut reader = reader(&site, version, qos);
            let mut device = Client::clean(&site, "device", version);
            let mut all = Vec::new();
            for at in 0..60_u16 {
                let id = if qos == 0 { 0 } else { at + 1 };
                let first = 0x30 | (qos << 1);
                all.extend(publish(version, first, "t/a", id, b"", at.to_string().as_bytes()));
            }
            device.send(&all);
            device.fence();
            let seen: Vec<String> = reader
                .fence()
                .iter()
                .map(|packet| {
                    let header = publish(version, 0x30, "t/a", u16::from(qos > 0), b"", b"").len();
                    String::from_utf8(packet[header..].to_vec()).unwrap()
                })
                .collect();
            let expected: Vec<String> = (0..60).map(|at| at.to_string()).collect();
            assert_eq!(seen, expected, "{version:?} QoS {qos}");
        }
    }
}

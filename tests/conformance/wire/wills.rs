//! Wills (sections 3.1.2.5 and 3.1.3.2), and how a client says goodbye (3.14).

#![expect(clippy::disallowed_methods, reason = "what is tried takes real time")]

use std::time::Duration;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// A CONNECT with a Will on `t/will` that says `payload`.
fn with_will(
    version: Version,
    flags: u8,
    props: &[u8],
    will_props: &[u8],
    payload: &str,
) -> Vec<u8> {
    let rest = [field("device"), properties(version, will_props), field("t/will"), field(payload)];
    connect(version, flags | WILL, props, &[&rest.concat()])
}

#[track_caller]
fn device(site: &Site, version: Version, connect: &[u8]) -> Client {
    let (client, connack) = Client::connect(site, "device", version, connect);
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    client
}

/// A subscriber to `t/will` that keeps the RETAIN flag where its version can.
fn board(site: &Site, version: Version) -> Client {
    let mut board = Client::clean(site, "board", version);
    let options = if version == V5 { 0x08 | 0x02 } else { 0x02 };
    assert_eq!(board.ask(&subscribe(version, 1, "t/will", options)), suback(version, 1, &[2]));
    board
}

#[test]
fn a_will_is_published_with_its_qos_and_once() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        let mut board = board(&site, version);
        for (qos, id) in [(0, 0), (1, 1), (2, 2)] {
            let flags = CLEAN | (qos << 3);
            drop(device(&site, version, &with_will(version, flags, b"", b"", "gone")));
            assert_eq!(
                board.next(),
                publish(version, 0x30 | (qos << 1), "t/will", id, b"", b"gone")
            );
        }
        // It was not retained, and the next connection has none.
        drop(Client::clean(&site, "device", version));
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
        let mut late = Client::clean(&site, "late", version);
        late.send(&subscribe(version, 1, "t/will", 0));
        assert_eq!(late.fence(), [suback(version, 1, &[0])]);
    }
}

#[test]
fn a_will_with_retain_is_retained() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut board = board(&site, version);
        let flags = CLEAN | 0x20;
        drop(device(&site, version, &with_will(version, flags, b"", b"", "gone")));
        let flag = u8::from(version == V5);
        assert_eq!(board.next(), publish(version, 0x30 | flag, "t/will", 0, b"", b"gone"));
        let mut late = Client::clean(&site, "late", version);
        late.send(&subscribe(version, 1, "t/will", 0));
        let kept = publish(version, 0x31, "t/will", 0, b"", b"gone");
        assert_eq!(late.fence(), [suback(version, 1, &[0]), kept]);
        assert_eq!(
            late.ask(&publish(version, 0x33, "t/will", 1, b"", b"")),
            publish(version, 0x30, "t/will", 0, b"", b"")
        );
        late.fence();
    }
}

#[test]
fn disconnect_calls_the_will_off() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut board = board(&site, version);
        for lasting in [false, true] {
            let (flags, expiry) =
                if lasting { (0, &b"\x11\x00\x00\x00\x05"[..]) } else { (CLEAN, &b""[..]) };
            let mut device =
                device(&site, version, &with_will(version, flags, expiry, b"", "gone"));
            device.send(GOODBYE);
            assert_eq!(device.until_closed(), [] as [Vec<u8>; 0]);
            // Not even when the session resumes without one, or ends.
            drop(Client::clean(&site, "device", version));
        }
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
    }
    // Any other Reason Code leaves it.
    let mut board = board(&site, V5);
    for reason in [0x04, 0x81] {
        let mut device = device(&site, V5, &with_will(V5, CLEAN, b"", b"", "gone"));
        device.send(&disconnect(reason));
        assert_eq!(board.next(), publish(V5, 0x30, "t/will", 0, b"", b"gone"));
    }
}

#[test]
fn a_violation_and_a_takeover_publish_the_will() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut board = board(&site, version);
        let gone = publish(version, 0x30, "t/will", 0, b"", b"gone");
        let connect = with_will(version, CLEAN, b"", b"", "gone");
        let mut broken = device(&site, version, &connect);
        broken.send(b"\xC1\x00");
        assert_eq!(board.next(), gone);
        let _taken = device(&site, version, &connect);
        let _taker = Client::clean(&site, "device", version);
        assert_eq!(board.next(), gone);
    }
}

#[test]
fn a_delayed_will_waits_for_the_client_to_come_back() {
    let site = Site::new();
    let mut board = board(&site, V5);
    // Will Delay Interval 2, Session Expiry Interval 60.
    let connect = with_will(V5, 0, b"\x11\x00\x00\x00\x3C", b"\x18\x00\x00\x00\x02", "gone");
    let gone = publish(V5, 0x30, "t/will", 0, b"", b"gone");
    drop(device(&site, V5, &connect));
    assert_eq!(board.fence(), [] as [Vec<u8>; 0], "not yet");
    assert_eq!(board.next(), gone);
    // Who comes back in time has called it off.
    drop(device(&site, V5, &connect));
    let mut back = device(
        &site,
        V5,
        &super::bytes::connect(V5, 0, b"\x11\x00\x00\x00\x3C", &[&field("device")]),
    );
    std::thread::sleep(Duration::from_millis(2_300));
    assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
    back.send(GOODBYE);
    back.until_closed();
    // A session that ends takes its delayed Will with it.
    let short = with_will(V5, CLEAN, b"\x11\x00\x00\x00\x01", b"\x18\x00\x00\x00\x3C", "gone");
    drop(device(&site, V5, &short));
    assert_eq!(board.next(), gone);
}

#[test]
fn a_will_keeps_its_properties_in_their_order() {
    let site = Site::new();
    let mut board = board(&site, V5);
    let props = [
        b"\x01\x01".to_vec(),
        [b"\x08".to_vec(), field("t/answer")].concat(),
        [b"\x09".to_vec(), field("17")].concat(),
        user_property("b", "1"),
        user_property("a", "2"),
        user_property("b", "0"),
    ]
    .concat();
    drop(device(&site, V5, &with_will(V5, CLEAN, b"", &props, "gone")));
    let seen = board.next();
    for part in [&props[..2], &props[2..13], &props[13..18], &props[18..]] {
        assert!(
            seen.windows(part.len()).any(|window| window == part),
            "{part:02x?} in {seen:02x?}"
        );
    }
}

#[test]
fn after_disconnect_nothing_is_heard_any_more() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut board = board(&site, version);
        let mut device = Client::clean(&site, "device", version);
        let behind = publish(version, 0x30, "t/will", 0, b"", b"late");
        device.send(&[GOODBYE.to_vec(), behind].concat());
        assert_eq!(device.until_closed(), [] as [Vec<u8>; 0]);
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
    }
}

#[test]
fn the_servers_disconnect_is_its_last_packet() {
    let mut site = Site::new();
    let mut old = Client::clean(&site, "old", V3_1_1);
    let mut new = Client::clean(&site, "new", V5);
    // One that has not connected must not be told anything.
    let mut mute = Client::open(&site, "mute", V5);
    new.send(PINGREQ);
    assert_eq!(new.next(), PINGRESP);
    site.stop();
    assert_eq!(new.until_closed(), [disconnect(0x8B)]);
    assert_eq!(old.until_closed(), [] as [Vec<u8>; 0]);
    assert_eq!(mute.until_closed(), [] as [Vec<u8>; 0]);
}

//! Sessions: begun, kept, resumed, ended (sections 3.1.2.4, 3.1.2.11, 4.1 and 4.4).

#![expect(clippy::disallowed_methods, reason = "what is tried takes real time")]

use std::time::Duration;

use super::bytes::*;
use super::client::Client;
use super::site::Site;

/// The session of `board` with one subscription of QoS 2 to `t/#`, away.
fn away(site: &Site, version: Version) {
    let (mut board, present) = Client::lasting(site, "board", version);
    assert!(!present);
    assert_eq!(board.ask(&subscribe(version, 1, "t/#", 2)), suback(version, 1, &[2]));
    board.send(GOODBYE);
    assert_eq!(board.until_closed(), [] as [Vec<u8>; 0]);
}

#[test]
fn what_comes_while_a_session_is_away_is_kept_and_sent_again_until_it_is_acknowledged() {
    let site = Site::new();
    for version in [V3_1, V3_1_1, V5] {
        away(&site, version);
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
        device.send(&publish(version, 0x30, "t/a", 0, b"", b"0"));
        assert_eq!(device.ask(&publish(version, 0x34, "t/b", 2, b"", b"2")), ack(0x50, 2));
        assert_eq!(device.ask(&ack(0x62, 2)), ack(0x70, 2));
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 3, b"", b"3")), ack(0x40, 3));

        let (mut board, present) = Client::lasting(&site, "board", version);
        assert_eq!(present, version != V3_1, "3.1 has no such flag");
        let first = board.fence();
        let expected = |dup: u8| {
            vec![
                publish(version, 0x32 | dup, "t/a", 1, b"", b"1"),
                publish(version, 0x34 | dup, "t/b", 2, b"", b"2"),
                publish(version, 0x32 | dup, "t/a", 3, b"", b"3"),
            ]
        };
        assert_eq!(first, expected(0));
        drop(board);
        // The same identifiers, the same order, now with DUP.
        let (mut board, _) = Client::lasting(&site, "board", version);
        assert_eq!(board.fence(), expected(0x08));
        board.send(&ack(0x40, 1));
        assert_eq!(board.ask(&ack(0x50, 2)), ack(0x62, 2));
        board.fence();
        drop(board);
        // As far as it came: PUBREL for the one, PUBLISH for the other, nothing for the first.
        let (mut board, _) = Client::lasting(&site, "board", version);
        let rest = [ack(0x62, 2), publish(version, 0x3A, "t/a", 3, b"", b"3")];
        assert_eq!(board.fence(), rest);
        board.send(&ack(0x70, 2));
        board.send(&ack(0x40, 3));
        // While it is connected, nothing is sent again.
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
        drop(board);
        let (mut board, _) = Client::lasting(&site, "board", version);
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
        drop(Client::clean(&site, "board", version));
    }
}

#[test]
fn a_clean_session_forgets_what_was_and_ends_with_its_connection() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        away(&site, version);
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
        let clean = connect(version, CLEAN, b"", &[&field("board")]);
        let (mut board, connack) = Client::connect(&site, "board", version, &clean);
        assert_eq!((connack[2], connack[3]), (0, 0));
        // Neither the message nor the subscription is there.
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"2")), ack(0x40, 1));
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
        assert_eq!(board.ask(&subscribe(version, 1, "t/#", 1)), suback(version, 1, &[1]));
        drop(board);
        // And what it had ended with its connection.
        let (mut board, present) = Client::lasting(&site, "board", version);
        assert!(!present);
        assert_eq!(device.ask(&publish(version, 0x32, "t/a", 1, b"", b"3")), ack(0x40, 1));
        assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
        drop(board);
        drop(Client::clean(&site, "board", version));
    }
}

#[test]
fn retained_messages_outlive_the_session_that_sent_them() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut device = Client::clean(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x33, "t/a", 1, b"", b"kept")), ack(0x40, 1));
        device.send(GOODBYE);
        assert_eq!(device.until_closed(), [] as [Vec<u8>; 0]);
        let mut board = Client::clean(&site, "board", version);
        board.send(&subscribe(version, 1, "t/a", 0));
        let kept = publish(version, 0x31, "t/a", 0, b"", b"kept");
        assert_eq!(board.fence(), [suback(version, 1, &[0]), kept]);
    }
}

#[test]
fn a_session_is_found_by_its_client_identifier() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        away(&site, version);
        // The same device under another Client Identifier, and another device under the same.
        for (device, id) in [("board", "other"), ("thief", "board")] {
            let packet = connect(version, 0, b"\x11\x00\x00\x00\x3C", &[&field(id)]);
            let (_, connack) = Client::connect(&site, device, version, &packet);
            assert_eq!((connack[2], connack[3]), (0, 0), "{device} as {id}");
        }
        assert!(Client::lasting(&site, "board", version).1);
        for (device, id) in [("board", "board"), ("board", "other"), ("thief", "board")] {
            let packet = connect(version, CLEAN, b"", &[&field(id)]);
            drop(Client::connect(&site, device, version, &packet));
        }
    }
}

#[test]
fn a_session_ends_when_its_expiry_interval_has_passed_and_not_before() {
    let site = Site::new();
    let packet = |seconds: u8| connect(V5, 0, &[0x11, 0, 0, 0, seconds], &[&field("board")]);
    let present = |seconds| {
        let (client, connack) = Client::connect(&site, "board", V5, &packet(seconds));
        assert_eq!(connack[3], 0);
        (client, connack[2] == 1)
    };
    let (mut board, _) = present(2);
    // However long the connection lasts, the session does.
    std::thread::sleep(Duration::from_millis(2_300));
    assert_eq!(board.ask(&subscribe(V5, 1, "t/#", 1)), suback(V5, 1, &[1]));
    drop(board);
    let (board, resumed) = present(1);
    assert!(resumed);
    drop(board);
    std::thread::sleep(Duration::from_millis(1_500));
    let (mut board, resumed) = present(2);
    assert!(!resumed, "it has ended");
    let mut device = Client::clean(&site, "device", V5);
    assert_eq!(device.ask(&publish(V5, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
    assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
}

#[test]
fn an_unfinished_qos_2_of_the_client_goes_on_where_it_was() {
    let site = Site::new();
    for version in [V3_1_1, V5] {
        let mut board = Client::clean(&site, "board", version);
        assert_eq!(board.ask(&subscribe(version, 1, "t/a", 0)), suback(version, 1, &[0]));
        let (mut device, _) = Client::lasting(&site, "device", version);
        assert_eq!(device.ask(&publish(version, 0x34, "t/a", 9, b"", b"once")), ack(0x50, 9));
        drop(device);
        let (mut device, present) = Client::lasting(&site, "device", version);
        assert!(present);
        assert_eq!(device.ask(&publish(version, 0x3C, "t/a", 9, b"", b"once")), ack(0x50, 9));
        assert_eq!(device.ask(&ack(0x62, 9)), ack(0x70, 9));
        assert_eq!(board.fence(), [publish(version, 0x30, "t/a", 0, b"", b"once")]);
        // Now the identifier is free, and what comes under it is new.
        assert_eq!(device.ask(&publish(version, 0x3C, "t/a", 9, b"", b"new")), ack(0x50, 9));
        assert_eq!(board.fence(), [publish(version, 0x30, "t/a", 0, b"", b"new")]);
        drop(device);
        drop(Client::clean(&site, "device", version));
    }
}

#[test]
fn a_qos_2_message_that_was_sent_does_not_expire() {
    let site = Site::new();
    away(&site, V5);
    let (mut board, _) = Client::lasting(&site, "board", V5);
    let mut device = Client::clean(&site, "device", V5);
    let message = publish(V5, 0x34, "t/a", 1, b"\x02\x00\x00\x00\x02", b"x");
    assert_eq!(device.ask(&message), ack(0x50, 1));
    assert_eq!(board.next(), message);
    drop(board);
    std::thread::sleep(Duration::from_millis(2_300));
    let (mut board, _) = Client::lasting(&site, "board", V5);
    let again = publish(V5, 0x3C, "t/a", 1, b"\x02\x00\x00\x00\x00", b"x");
    assert_eq!(board.fence(), [again]);
    assert_eq!(board.ask(&ack(0x50, 1)), ack(0x62, 1));
    board.send(&ack(0x70, 1));
    assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
}

#[test]
fn what_the_client_refused_is_not_sent_again() {
    let site = Site::new();
    away(&site, V5);
    let (mut board, _) = Client::lasting(&site, "board", V5);
    let mut device = Client::clean(&site, "device", V5);
    assert_eq!(device.ask(&publish(V5, 0x32, "t/a", 1, b"", b"1")), ack(0x40, 1));
    assert_eq!(device.ask(&publish(V5, 0x34, "t/a", 2, b"", b"2")), ack(0x50, 2));
    assert_eq!(board.fence().len(), 2);
    board.send(&ack_reason(0x40, 1, 0x97));
    board.send(&ack_reason(0x50, 2, 0x80));
    assert_eq!(board.fence(), [] as [Vec<u8>; 0], "no PUBREL either");
    drop(board);
    let (mut board, present) = Client::lasting(&site, "board", V5);
    assert!(present);
    assert_eq!(board.fence(), [] as [Vec<u8>; 0]);
}

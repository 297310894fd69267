//! Framing; the rules of each packet are tested with raw bytes in `tests/conformance/`.

use super::*;
use crate::mqtt::ReasonCode;

const CONNECT: &[u8] = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c";

fn incomplete(needed: usize) -> Result<Decoded, Violation> {
    Ok(Decoded::Incomplete { needed })
}

#[test]
fn asks_for_what_the_next_decision_takes() {
    let mut decoder = Decoder::server(1000);
    assert_eq!(decoder.decode(b""), incomplete(1));
    assert_eq!(decoder.decode(b"\x10"), incomplete(2));
    assert_eq!(decoder.decode(b"\x10\x80"), incomplete(3));
    assert_eq!(decoder.decode(b"\x10\x80\x01"), incomplete(131));
    assert_eq!(decoder.decode(b"\x10\x80\x01\x00"), incomplete(131));
    assert_eq!(decoder.version(), None);
}

#[test]
fn learns_the_version_and_takes_only_what_is_one_packet() {
    let mut decoder = Decoder::server(1000);
    let stream = [CONNECT, b"\xC0\x00\xC0"].concat();
    let Ok(Decoded::Packet { packet: Packet::Connect(connect), consumed }) =
        decoder.decode(&stream)
    else {
        panic!("no CONNECT")
    };
    assert_eq!((consumed, connect.version), (CONNECT.len(), ProtocolVersion::V5));
    assert_eq!(decoder.version(), Some(ProtocolVersion::V5));
    let ping = Ok(Decoded::Packet { packet: Packet::PingReq, consumed: 2 });
    assert_eq!(decoder.decode(&stream[CONNECT.len()..]), ping);
    assert_eq!(decoder.decode(&stream[CONNECT.len() + 2..]), incomplete(2));
}

#[test]
fn a_violation_is_the_last_word() {
    let mut decoder = Decoder::server(1000);
    assert_eq!(decoder.decode(b"\xC0"), Err(Violation::NOT_CONNECT_FIRST));
    assert_eq!(decoder.decode(CONNECT), Err(Violation::NOT_CONNECT_FIRST));
}

#[test]
fn the_bound_counts_the_fixed_header_and_can_be_lifted() {
    let mut decoder = Decoder::server(CONNECT.len());
    assert!(decoder.clone().decode(CONNECT).is_ok());
    let mut tight = Decoder::server(CONNECT.len() - 1);
    assert_eq!(tight.decode(&CONNECT[..2]), Err(Violation::TOO_LARGE_FOR_SERVER));
    assert_eq!(Violation::TOO_LARGE_FOR_SERVER.reason, ReasonCode::PacketTooLarge);
    decoder.decode(CONNECT).unwrap();
    let mut lifted = decoder.clone();
    lifted.set_packet_bytes_max(66);
    assert_eq!(lifted.decode(b"\x30\x40"), incomplete(66));
    assert_eq!(decoder.decode(b"\x30\x40"), Err(Violation::TOO_LARGE_FOR_SERVER));
    let mut client = Decoder::client(ProtocolVersion::V5, 65);
    assert_eq!(client.decode(b"\x30\x40"), Err(Violation::TOO_LARGE_FOR_CLIENT));
}

#[test]
fn violations_print_their_words_and_statement() {
    insta::assert_snapshot!(
        Violation::SECOND_CONNECT,
        @"second CONNECT (MQTT-3.1.0-2)"
    );
    insta::assert_snapshot!(
        Violation::TRAILING,
        @"bytes after the last field (no single statement)"
    );
}

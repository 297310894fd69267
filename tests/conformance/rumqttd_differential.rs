//! Our codec against rumqttd 0.20's, which shares no line with it.
//!
//! Valid packets: rumqttd must read in our bytes what we meant, and we must read in its bytes the
//! same again. Damaged packets: where one accepts and the other refuses, the difference must
//! stand in [`LAXER`] or be one of the [`Bug`]s; any other fails the test. Not covered, because
//! rumqttd has none of it: MQTT 3.1 and AUTH.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use avow::mqtt::{
    Decoded, Decoder, Packet, ProtocolVersion, ReasonCode, TopicFilter, TopicName, Violation,
};
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{self as theirs, Protocol};

use crate::packets::{self, PACKET_BYTES_MAX, connected, encoded};
use crate::rumqttd_meaning::meaning;

const V5_0: ProtocolVersion = ProtocolVersion::V5;

/// What rumqttd 0.20 gets wrong about packets that are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Its 5.0 reader has no arm for CONNACK and UNSUBACK and ends in `unreachable!()`.
    PanicsOnConnackAndUnsuback,
    /// It does not know packet type 15.
    NoAuth,
    /// A DISCONNECT of Reason Code alone (Remaining Length 1) "needs more bytes" for ever, and
    /// its own writer announces Remaining Length 1 and writes two bytes.
    DisconnectWithoutPropertyLength,
    /// It counts each Subscription Identifier one byte too long, so that with two of them the
    /// end of the properties can land in the payload.
    SubscriptionIdentifierCountedTwice,
    /// A Password must be UTF-8, and an empty User Name or Password is taken for an absent one.
    LoginIsTwoNonEmptyStrings,
    /// It has no Bad authentication method in DISCONNECT.
    NoBadAuthenticationMethod,
}

/// The bug that `packet`, written as `bytes`, meets.
fn bug(packet: &Packet, bytes: &[u8], version: ProtocolVersion) -> Option<Bug> {
    match packet {
        Packet::ConnAck(_) | Packet::UnsubAck(_) if version.is_v5() => {
            Some(Bug::PanicsOnConnackAndUnsuback)
        }
        Packet::Auth(_) => Some(Bug::NoAuth),
        Packet::Disconnect(p) if p.reason == ReasonCode::BadAuthenticationMethod => {
            Some(Bug::NoBadAuthenticationMethod)
        }
        Packet::Disconnect(_) => {
            let reason_alone = version.is_v5() && bytes.get(1) == Some(&1);
            reason_alone.then_some(Bug::DisconnectWithoutPropertyLength)
        }
        Packet::Publish(p) => (p.properties.subscription_identifiers.len() > 1)
            .then_some(Bug::SubscriptionIdentifierCountedTwice),
        Packet::Connect(p) => {
            let name = p.user_name.as_deref().is_some_and(str::is_empty);
            let password = p
                .password
                .as_ref()
                .is_some_and(|p| p.is_empty() || std::str::from_utf8(p).is_err());
            (name || password).then_some(Bug::LoginIsTwoNonEmptyStrings)
        }
        _ => None,
    }
}

/// A rule that rumqttd's codec does not hold its peer to, with a packet that shows it.
pub(crate) struct Laxer {
    /// The rule, in the words of our violation.
    pub(crate) what: &'static str,
    /// Why rumqttd accepts it.
    why: &'static str,
    pub(crate) peer: Peer,
    pub(crate) version: ProtocolVersion,
    pub(crate) witness: &'static [u8],
}

/// Who sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// A client before its CONNECT.
    Stranger,
    Client,
    Server,
}

const ONE_READER: &str = "one reader for both sides";
const STATELESS: &str = "the codec keeps no state, its users check";
const FLAGS: &str = "flags are read of PUBLISH and of a 5.0 DISCONNECT only";
const MISCOUNTED: &str = "two Subscription Identifiers hide the properties behind them";
const NOT_CHECKED: &str = "not checked";

#[rustfmt::skip]
pub(crate) const LAXER: &[Laxer] = &[
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "packet that only a server sends",
        why: ONE_READER,
        witness: b"\xD0\x00" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V5,
        what: "packet that only a client sends",
        why: ONE_READER,
        witness: b"\xC0\x00" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V5,
        what: "first packet is not CONNECT",
        why: STATELESS,
        witness: b"\xC0\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "second CONNECT",
        why: STATELESS,
        witness: b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "reserved fixed header flags",
        why: FLAGS,
        witness: b"\x41\x02\x00\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "PUBREL flags",
        why: FLAGS,
        witness: b"\x60\x02\x00\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "SUBSCRIBE flags",
        why: FLAGS,
        witness: b"\x80\x07\x00\x01\x00\x00\x01t\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "UNSUBSCRIBE flags",
        why: FLAGS,
        witness: b"\xA0\x06\x00\x01\x00\x00\x01t" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "DISCONNECT flags",
        why: "an empty body returns before the flags are read",
        witness: b"\xE1\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "PUBLISH with DUP and QoS 0",
        why: NOT_CHECKED,
        witness: b"\x38\x04\x00\x01t\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "packet ends inside a field",
        why: "a property may reach past the end of its section",
        witness: b"\x30\x06\x00\x01t\x01\x01\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "bytes after the last field",
        why: "the rest of a packet is dropped",
        witness: b"\xC0\x01\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "variable byte integer longer than needed",
        why: NOT_CHECKED,
        witness: b"\xC0\x80\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "ill-formed UTF-8",
        why: "topics and Will topics stay bytes",
        witness: b"\x30\x05\x00\x02\xC3\x28\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "U+0000 in a string",
        why: NOT_CHECKED,
        witness: b"\x30\x04\x00\x01\x00\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "control character in a name",
        why: "not checked; a receiver may",
        witness: b"\x30\x04\x00\x01\x1B\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Packet Identifier 0",
        why: "checked in PUBLISH only",
        witness: b"\x40\x02\x00\x00" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V5,
        what: "reserved CONNECT flag",
        why: NOT_CHECKED,
        witness: b"\x10\x0E\x00\x04MQTT\x05\x03\x00\x3C\x00\x00\x01c" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V3_1_1,
        what: "password without user name",
        why: NOT_CHECKED,
        witness: b"\x10\x10\x00\x04MQTT\x04\x42\x00\x3C\x00\x01c\x00\x01p" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V3_1_1,
        what: "reserved CONNACK flags",
        why: "only the lowest bit is read",
        witness: b"\x20\x02\x02\x00" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V3_1_1,
        what: "Session Present in a refusal",
        why: NOT_CHECKED,
        witness: b"\x20\x02\x01\x05" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "neither Topic Name nor Topic Alias",
        why: NOT_CHECKED,
        witness: b"\x30\x03\x00\x00\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V3_1_1,
        what: "empty Topic Name",
        why: NOT_CHECKED,
        witness: b"\x30\x02\x00\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "wildcard in a Topic Name",
        why: NOT_CHECKED,
        witness: b"\x30\x04\x00\x01+\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Topic Alias 0",
        why: NOT_CHECKED,
        witness: b"\x30\x07\x00\x01t\x03\x23\x00\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Response Topic is no Topic Name",
        why: NOT_CHECKED,
        witness: b"\x30\x08\x00\x01t\x04\x08\x00\x01+" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Subscription Identifier in a client's PUBLISH",
        why: ONE_READER,
        witness: b"\x30\x06\x00\x01t\x02\x0B\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "UNSUBSCRIBE without a Topic Filter",
        why: NOT_CHECKED,
        witness: b"\xA2\x03\x00\x01\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "No Local on a Shared Subscription",
        why: NOT_CHECKED,
        witness: b"\x82\x10\x00\x01\x00\x00\x0A$share/g/t\x04" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "reserved Subscription Options",
        why: NOT_CHECKED,
        witness: b"\x82\x07\x00\x01\x00\x00\x01t\x40" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "no DISCONNECT Reason Code of this side",
        why: ONE_READER,
        witness: b"\xE0\x02\x8E\x00" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V5,
        what: "Session Expiry Interval in a server's DISCONNECT",
        why: ONE_READER,
        witness: b"\xE0\x07\x8E\x05\x11\x00\x00\x00\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Server Reference in a client's DISCONNECT",
        why: ONE_READER,
        witness: b"\xE0\x06\x00\x04\x1C\x00\x01s" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V5,
        what: "unknown property",
        why: MISCOUNTED,
        witness: b"\x30\x0A\x00\x01t\x06\x0B\x01\x0B\x01\x7F\x00" },
    Laxer { peer: Peer::Server, version: ProtocolVersion::V5,
        what: "property does not belong in this packet",
        why: MISCOUNTED,
        witness: b"\x30\x0A\x00\x01t\x06\x0B\x01\x0B\x01\x24\x00" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "property given twice",
        why: "the last one counts",
        witness: b"\x30\x08\x00\x01t\x04\x01\x01\x01\x01" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "property is neither 0 nor 1",
        why: "kept as a byte",
        witness: b"\x30\x06\x00\x01t\x02\x01\x02" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V5,
        what: "Receive Maximum 0",
        why: NOT_CHECKED,
        witness: b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3C\x03\x21\x00\x00\x00\x01c" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V5,
        what: "Maximum Packet Size 0",
        why: NOT_CHECKED,
        witness: b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3C\x05\x27\x00\x00\x00\x00\x00\x01c" },
    Laxer { peer: Peer::Client, version: ProtocolVersion::V5,
        what: "Subscription Identifier 0",
        why: NOT_CHECKED,
        witness: b"\x82\x09\x00\x01\x02\x0B\x00\x00\x01t\x00" },
    Laxer { peer: Peer::Stranger, version: ProtocolVersion::V5,
        what: "Authentication Data without a method",
        why: NOT_CHECKED,
        witness: b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3C\x04\x16\x00\x01d\x00\x01c" },
];

/// What rumqttd made of some bytes.
#[derive(Debug)]
enum Theirs {
    /// A packet, and how many bytes it took.
    Packet(Box<theirs::Packet>, usize),
    /// It waits for more bytes, or says so of a packet that has come whole.
    Incomplete,
    Refused,
    Panicked,
}

fn read(bytes: &[u8], version: ProtocolVersion) -> Theirs {
    let mut stream = BytesMut::from(bytes);
    let read = quietly(|| match version {
        ProtocolVersion::V5 => V5.read_mut(&mut stream, PACKET_BYTES_MAX),
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => {
            V4.read_mut(&mut stream, PACKET_BYTES_MAX)
        }
    });
    match read {
        Some(Ok(packet)) => Theirs::Packet(Box::new(packet), bytes.len() - stream.len()),
        Some(Err(theirs::Error::InsufficientBytes(_))) => Theirs::Incomplete,
        Some(Err(_)) => Theirs::Refused,
        None => Theirs::Panicked,
    }
}

fn write(packet: theirs::Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = BytesMut::new();
    match version {
        ProtocolVersion::V5 => V5.write(packet, &mut out).unwrap(),
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => V4.write(packet, &mut out).unwrap(),
    };
    out.to_vec()
}

/// Runs what may panic; `None` if it did. Its message would hide those of real failures.
pub(crate) fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.ok()
}

/// Our decoder of what `peer` sends.
pub(crate) fn decoder(peer: Peer, version: ProtocolVersion) -> Decoder {
    match peer {
        Peer::Stranger => Decoder::server(PACKET_BYTES_MAX),
        Peer::Client => connected(version),
        Peer::Server => Decoder::client(version, PACKET_BYTES_MAX),
    }
}

/// A packet of a version that rumqttd speaks, and who sent it.
pub(crate) fn packet() -> impl Strategy<Value = (ProtocolVersion, Peer, Packet)> {
    select(&[ProtocolVersion::V3_1_1, ProtocolVersion::V5][..]).prop_flat_map(|v| {
        let packet = prop_oneof![
            1 => packets::connect(v).prop_map(|packet| (Peer::Stranger, packet)),
            2 => packets::from_client(v).prop_map(|packet| (Peer::Client, packet)),
            2 => packets::from_server(v).prop_map(|packet| (Peer::Server, packet)),
        ];
        packet.prop_map(move |(peer, packet)| (v, peer, packet))
    })
}

#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Replace(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
}

pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
    ];
    vec(one, 1..4)
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            _ if bytes.is_empty() => {}
            Self::Replace(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Flip(at, mask) => *at.get_mut(bytes) ^= mask,
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
            Self::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
        }
    }
}

/// Damages a packet; with `framed`, behind a fixed header that is right again.
pub(crate) fn damaged(mut bytes: Vec<u8>, damage: &[Damage], framed: bool) -> Vec<u8> {
    if !framed {
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        return bytes;
    }
    let header = 1 + bytes[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let mut body = bytes.split_off(header);
    damage.iter().for_each(|damage| damage.apply(&mut body));
    let mut framed = vec![bytes[0]];
    let mut rest = body.len();
    while rest > 0x7F {
        framed.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    framed.push(rest as u8);
    framed.extend(body);
    framed
}

/// Fails unless the two verdicts agree or their difference is explained.
fn compare(
    bytes: &[u8],
    ours: Result<Decoded, Violation>,
    theirs: Theirs,
    version: ProtocolVersion,
) -> Result<(), TestCaseError> {
    match (ours, theirs) {
        (Ok(Decoded::Packet { packet, consumed }), Theirs::Packet(theirs, their_consumed)) => {
            prop_assert_eq!(consumed, their_consumed);
            if bug(&packet, bytes, version).is_none() {
                prop_assert_eq!(meaning(*theirs, version), Some(packet));
            }
        }
        (Ok(Decoded::Packet { packet, .. }), theirs) => {
            prop_assert!(bug(&packet, bytes, version).is_some(), "{theirs:?} of {packet:?}");
        }
        (Err(violation), Theirs::Packet(theirs, _)) => {
            let explained = LAXER.iter().any(|laxer| laxer.what == violation.what);
            prop_assert!(explained, "we refuse for {violation}; they read {theirs:?}");
        }
        (Ok(Decoded::Incomplete { .. }), theirs) => {
            prop_assert!(matches!(theirs, Theirs::Incomplete), "we wait; they: {theirs:?}");
        }
        // Both refuse; or we refuse with the first bytes what rumqttd still waits for.
        (Err(_), Theirs::Refused | Theirs::Incomplete) => {}
        (Err(_), Theirs::Panicked) => {
            let known = version.is_v5() && bytes.first().is_some_and(|b| matches!(b >> 4, 2 | 11));
            prop_assert!(known, "a panic that Bug::PanicsOnConnackAndUnsuback does not explain");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn valid_packets_mean_the_same_to_both((version, peer, packet) in packet()) {
        let bytes = encoded(&packet, version);
        if bug(&packet, &bytes, version).is_some() {
            return Ok(());
        }
        let Theirs::Packet(theirs, consumed) = read(&bytes, version) else {
            panic!("rumqttd does not read {packet:?}")
        };
        prop_assert_eq!(consumed, bytes.len());
        prop_assert_eq!(meaning(*theirs.clone(), version), Some(packet.clone()));
        let again = write(*theirs, version);
        let decoded = decoder(peer, version).decode(&again);
        prop_assert_eq!(decoded, Ok(Decoded::Packet { packet, consumed: again.len() }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn damaged_packets_are_judged_alike_or_the_difference_is_explained(
        (version, peer, packet) in packet(),
        damage in damage(),
        framed in any::<bool>(),
    ) {
        let bytes = damaged(encoded(&packet, version), &damage, framed);
        let ours = decoder(peer, version).decode(&bytes);
        compare(&bytes, ours, read(&bytes, version), version)?;
    }
}

#[test]
fn every_laxer_rule_still_has_its_witness() {
    for laxer in LAXER {
        let ours = decoder(laxer.peer, laxer.version).decode(laxer.witness);
        assert_eq!(ours.map_err(|violation| violation.what), Err(laxer.what));
        let theirs = read(laxer.witness, laxer.version);
        assert!(matches!(theirs, Theirs::Packet(..)), "{} ({}): {theirs:?}", laxer.what, laxer.why);
    }
}

#[test]
fn every_bug_still_has_its_witness() {
    let read = |bytes: &[u8]| {
        let Ok(Decoded::Packet { packet, .. }) = decoder(Peer::Server, V5_0).decode(bytes) else {
            panic!("{bytes:02X?} is valid")
        };
        (bug(&packet, bytes, V5_0), read(bytes, V5_0))
    };
    for bytes in [&b"\x20\x03\x00\x00\x00"[..], b"\xB0\x04\x00\x01\x00\x00"] {
        let found = read(bytes);
        assert!(matches!(found, (Some(Bug::PanicsOnConnackAndUnsuback), Theirs::Panicked)));
    }
    let auth = read(b"\xF0\x06\x18\x04\x15\x00\x01m");
    assert!(matches!(auth, (Some(Bug::NoAuth), Theirs::Refused)));
    let method = read(b"\xE0\x02\x8C\x00");
    assert!(matches!(method, (Some(Bug::NoBadAuthenticationMethod), Theirs::Refused)));

    let disconnect = read(b"\xE0\x01\x8E");
    assert!(matches!(disconnect, (Some(Bug::DisconnectWithoutPropertyLength), Theirs::Incomplete)));
    let reason_code = theirs::DisconnectReasonCode::SessionTakenOver;
    let disconnect = theirs::Packet::Disconnect(theirs::Disconnect { reason_code }, None);
    assert_eq!(write(disconnect, V5_0), b"\xE0\x01\x8E\x00");

    // Two identifiers and a Payload Format Indicator: the indicator becomes the payload.
    let (bug_found, publish) = read(b"\x30\x0A\x00\x01t\x06\x0B\x01\x0B\x02\x01\x01");
    assert_eq!(bug_found, Some(Bug::SubscriptionIdentifierCountedTwice));
    let Theirs::Packet(publish, _) = publish else { panic!("{publish:?}") };
    let theirs::Packet::Publish(publish, _) = *publish else { panic!("{publish:?}") };
    assert_eq!(&publish.payload[..], b"\x01\x01");
}

#[test]
fn rumqttd_has_no_login_of_bytes_or_of_an_empty_name() {
    let connect = |rest: &[u8]| {
        let mut bytes = b"\x10\x00\x00\x04MQTT\x04\xC2\x00\x3C\x00\x01c".to_vec();
        bytes.extend_from_slice(rest);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        let version = ProtocolVersion::V3_1_1;
        assert!(matches!(
            decoder(Peer::Stranger, version).decode(&bytes),
            Ok(Decoded::Packet { .. })
        ));
        read(&bytes, version)
    };
    assert!(matches!(connect(b"\x00\x01u\x00\x01\xFF"), Theirs::Refused));
    let Theirs::Packet(read, _) = connect(b"\x00\x00\x00\x00") else { panic!("not read") };
    let theirs::Packet::Connect(.., login) = *read else { panic!("{read:?}") };
    assert_eq!(login, None);
}

#[test]
fn rumqttd_panics_at_a_topic_that_begins_with_two_bytes() {
    assert_eq!(quietly(|| theirs::matches("é/a", "b")), None);
}

proptest! {
    #[test]
    fn topics_match_alike(
        name in vec(select(&["a", "b", "", "é", "$"][..]), 1..4),
        filter in vec(select(&["a", "b", "", "é", "$", "+", "#"][..]), 1..4),
    ) {
        let (name, filter) = (name.join("/"), filter.join("/"));
        let (Ok(name), Ok(filter)) = (TopicName::parse(&name), TopicFilter::parse(&filter)) else {
            return Ok(());
        };
        let ours = filter.matches(&name);
        match quietly(|| theirs::matches(name.as_str(), filter.as_str())) {
            // It looks at the first byte as if it were a character.
            None => prop_assert!(!name.as_str().is_char_boundary(1)),
            // Its filters never match a topic that begins with `$`, even where they name it.
            Some(theirs) if name.is_dollar() => prop_assert!(!theirs),
            Some(theirs) => prop_assert_eq!(ours, theirs, "{} and {}", filter, name),
        }
    }
}

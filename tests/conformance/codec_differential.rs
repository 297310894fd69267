//! Our codec against mqtt-protocol-core's and rumqttc's ([`crate::rewriters`]).
//!
//! Valid packets: what they read and write again must be the same packet to us, or the
//! [`Difference`] is one of theirs that is named here. Damaged packets: where they read what we
//! refuse, the rule must stand in [`LAXER`] with its witness, and no rule of the specification that
//! we know is broken the other way round: they refuse nothing that we read but for a difference.
//! Neither has MQTT 3.1.

use std::collections::BTreeSet;

use avow::mqtt::{Decoded, Packet, ProtocolVersion, ReasonCode, Violation};
use proptest::prelude::*;

use crate::packets::encoded;
use crate::rewriters::Codec::{self, Core, Rumqttc};
use crate::rewriters::Rewritten;
use crate::rumqttd_differential::{self as rumqttd, Peer, damage, damaged, decoder, packet};

const V3_1_1: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// What another codec gets wrong about packets that are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// mqtt-protocol-core holds a 5.0 CONNECT to the rule of 3.1.1 that a Password needs a User
    /// Name.
    PasswordNeedsUserName,
    /// Neither knows Bad authentication method in DISCONNECT, which the table of 5.0 leaves out and
    /// section 4.12 asks for.
    NoBadAuthenticationMethod,
    /// rumqttc takes a Password for a string, and an empty User Name or Password for an absent one.
    LoginIsTwoNonEmptyStrings,
    /// rumqttc's reader of AUTH does not read what the specification has in it.
    AuthIsNotRead,
    /// rumqttc's 5.0 reader refuses an empty DISCONNECT, and waits for more of one that is its
    /// Reason Code alone.
    ShortDisconnect,
    /// rumqttc counts each Subscription Identifier one byte too long, so that with two of them the
    /// properties behind are lost.
    SubscriptionIdentifierCountedTwice,
}

/// The difference that `packet`, written as `bytes`, meets.
fn difference(
    codec: Codec,
    packet: &Packet,
    bytes: &[u8],
    version: ProtocolVersion,
) -> Option<Difference> {
    match (codec, packet) {
        (Core, Packet::Connect(p)) => {
            (version.is_v5() && p.password.is_some() && p.user_name.is_none())
                .then_some(Difference::PasswordNeedsUserName)
        }
        (_, Packet::Disconnect(p)) if p.reason == ReasonCode::BadAuthenticationMethod => {
            Some(Difference::NoBadAuthenticationMethod)
        }
        (Rumqttc, Packet::Connect(p)) => {
            let name = p.user_name.as_deref().is_some_and(str::is_empty);
            let password = p
                .password
                .as_ref()
                .is_some_and(|p| p.is_empty() || std::str::from_utf8(p).is_err());
            (name || password).then_some(Difference::LoginIsTwoNonEmptyStrings)
        }
        (Rumqttc, Packet::Auth(_)) => Some(Difference::AuthIsNotRead),
        (Rumqttc, Packet::Disconnect(_)) => {
            let short = version.is_v5() && bytes.get(1).is_some_and(|length| *length < 2);
            short.then_some(Difference::ShortDisconnect)
        }
        (Rumqttc, Packet::Publish(p)) => (p.properties.subscription_identifiers.len() > 1)
            .then_some(Difference::SubscriptionIdentifierCountedTwice),
        _ => None,
    }
}

const ONE_READER: &str = "one reader for both sides";
const STATELESS: &str = "the codec keeps no state, its users check";
const FLAGS: &str = "flags are read of PUBLISH only";
const NOT_CHECKED: &str = "not checked";
const USERS: &str = "left to whoever uses the packet";

/// A rule that another codec does not hold its peer to, and why: in the words of our violation.
#[rustfmt::skip]
const LAXER: &[(Codec, &str, &str)] = &[
    (Core, "packet that only a server sends", ONE_READER),
    (Core, "packet that only a client sends", ONE_READER),
    (Core, "no DISCONNECT Reason Code of this side", ONE_READER),
    (Core, "no AUTH Reason Code of this side", ONE_READER),
    (Core, "Session Expiry Interval in a server's DISCONNECT", ONE_READER),
    (Core, "Server Reference in a client's DISCONNECT", ONE_READER),
    (Core, "Subscription Identifier in a client's PUBLISH", ONE_READER),
    (Core, "first packet is not CONNECT", STATELESS),
    (Core, "second CONNECT", STATELESS),
    (Core, "reserved fixed header flags", FLAGS),
    (Core, "PUBREL flags", FLAGS),
    (Core, "SUBSCRIBE flags", FLAGS),
    (Core, "UNSUBSCRIBE flags", FLAGS),
    (Core, "DISCONNECT flags", FLAGS),
    (Core, "AUTH flags", FLAGS),
    (Core, "reserved CONNACK flags", "only the lowest bit is read"),
    (Core, "Session Present in a refusal", NOT_CHECKED),
    (Core, "reserved CONNECT flag", NOT_CHECKED),
    (Core, "Will QoS without a Will", NOT_CHECKED),
    (Core, "Will QoS 3", "read as 0"),
    (Core, "Will Retain without a Will", NOT_CHECKED),
    (Core, "PUBLISH with DUP and QoS 0", NOT_CHECKED),
    (Core, "variable byte integer longer than needed", NOT_CHECKED),
    (Core, "bytes after the last field", "what 3.1.1's acknowledgements have behind them is dropped"),
    (Core, "U+0000 in a string", NOT_CHECKED),
    (Core, "control character in a name", "a receiver may; it does not"),
    (Core, "empty Topic Name", USERS),
    (Core, "neither Topic Name nor Topic Alias", USERS),
    (Core, "wildcard in a Topic Name", USERS),
    (Core, "Response Topic is no Topic Name", USERS),
    (Core, "reserved Subscription Options", "of 3.1.1, where only the QoS is read"),
    (Core, "No Local on a Shared Subscription", USERS),
    (Core, "Authentication Data without a method", USERS),
    (Rumqttc, "packet that only a server sends", ONE_READER),
    (Rumqttc, "packet that only a client sends", ONE_READER),
    (Rumqttc, "no DISCONNECT Reason Code of this side", ONE_READER),
    (Rumqttc, "Session Expiry Interval in a server's DISCONNECT", ONE_READER),
    (Rumqttc, "Server Reference in a client's DISCONNECT", ONE_READER),
    (Rumqttc, "Subscription Identifier in a client's PUBLISH", ONE_READER),
    (Rumqttc, "first packet is not CONNECT", STATELESS),
    (Rumqttc, "second CONNECT", STATELESS),
    (Rumqttc, "reserved fixed header flags", FLAGS),
    (Rumqttc, "PUBREL flags", FLAGS),
    (Rumqttc, "SUBSCRIBE flags", FLAGS),
    (Rumqttc, "UNSUBSCRIBE flags", FLAGS),
    (Rumqttc, "DISCONNECT flags", FLAGS),
    (Rumqttc, "reserved CONNACK flags", "only the lowest bit is read"),
    (Rumqttc, "Session Present in a refusal", NOT_CHECKED),
    (Rumqttc, "reserved CONNECT flag", NOT_CHECKED),
    (Rumqttc, "password without user name", NOT_CHECKED),
    (Rumqttc, "PUBLISH with DUP and QoS 0", NOT_CHECKED),
    (Rumqttc, "Packet Identifier 0", "checked in PUBLISH only"),
    (Rumqttc, "variable byte integer longer than needed", NOT_CHECKED),
    (Rumqttc, "bytes after the last field", "the rest of a packet is dropped"),
    (Rumqttc, "packet ends inside a field", "a property may reach past the end of its section"),
    (Rumqttc, "ill-formed UTF-8", "topics stay bytes"),
    (Rumqttc, "U+0000 in a string", NOT_CHECKED),
    (Rumqttc, "control character in a name", "a receiver may; it does not"),
    (Rumqttc, "empty Topic Name", NOT_CHECKED),
    (Rumqttc, "neither Topic Name nor Topic Alias", NOT_CHECKED),
    (Rumqttc, "wildcard in a Topic Name", NOT_CHECKED),
    (Rumqttc, "Response Topic is no Topic Name", NOT_CHECKED),
    (Rumqttc, "Topic Alias 0", NOT_CHECKED),
    (Rumqttc, "UNSUBSCRIBE without a Topic Filter", NOT_CHECKED),
    (Rumqttc, "reserved Subscription Options", NOT_CHECKED),
    (Rumqttc, "No Local on a Shared Subscription", NOT_CHECKED),
    (Rumqttc, "unknown property", "two Subscription Identifiers hide the properties behind them"),
    (Rumqttc, "property does not belong in this packet", "likewise"),
    (Rumqttc, "property given twice", "the last one counts"),
    (Rumqttc, "property is neither 0 nor 1", "kept as a byte"),
    (Rumqttc, "Receive Maximum 0", NOT_CHECKED),
    (Rumqttc, "Maximum Packet Size 0", NOT_CHECKED),
    (Rumqttc, "Subscription Identifier 0", NOT_CHECKED),
    (Rumqttc, "Authentication Data without a method", NOT_CHECKED),
];

/// Packets that show a rule which rumqttd's table has no packet for, or whose packet there is of a
/// version in which the other codec does look.
#[rustfmt::skip]
const WITNESSES: &[(Peer, ProtocolVersion, &[u8])] = &[
    (Peer::Server, V5, b"\xFB\x00"),
    (Peer::Server, V5, b"\xF0\x06\x19\x04\x15\x00\x01m"),
    (Peer::Stranger, V3_1_1, b"\x10\x0D\x00\x04MQTT\x04\x0A\x00\x3C\x00\x01c"),
    (Peer::Stranger, V3_1_1, b"\x10\x0D\x00\x04MQTT\x04\x1A\x00\x3C\x00\x01c"),
    (Peer::Stranger, V3_1_1, b"\x10\x0D\x00\x04MQTT\x04\x22\x00\x3C\x00\x01c"),
    (Peer::Stranger, V3_1_1, b"\x10\x13\x00\x04MQTT\x04\x1E\x00\x3C\x00\x01c\x00\x01t\x00\x01p"),
    (Peer::Client, V3_1_1, b"\xE2\x00"),
    (Peer::Client, V3_1_1, b"\x40\x03\x00\x01\x00"),
    (Peer::Client, V3_1_1, b"\x82\x06\x00\x01\x00\x01t\x08"),
    (Peer::Client, V3_1_1, b"\xE0\x01\x00"),
    (Peer::Client, V3_1_1, b"\xD0\x01\x00"),
    (Peer::Client, V5, b"\xC0\x01\x00"),
    (Peer::Client, V5, b"\x40\x0B\x00\x01\x00\x06\x1F\x00\x04abc "),
];

/// Fails unless the two verdicts agree or their difference is explained.
fn compare(
    codec: Codec,
    (peer, version): (Peer, ProtocolVersion),
    bytes: &[u8],
) -> Result<(), TestCaseError> {
    let ours = decoder(peer, version).decode(bytes);
    let theirs = codec.rewrite(bytes, version);
    match (ours, theirs) {
        (Ok(Decoded::Packet { packet, .. }), Rewritten::Packet(again)) => {
            let read = decoder(peer, version).decode(&again);
            let same = Ok(Decoded::Packet { packet: packet.clone(), consumed: again.len() });
            if read != same {
                let explained = difference(codec, &packet, bytes, version).is_some();
                prop_assert!(explained, "{codec:?} writes {packet:?} as {again:02x?}: {read:?}");
            }
        }
        (Ok(Decoded::Packet { packet, .. }), theirs) => {
            let explained = difference(codec, &packet, bytes, version).is_some();
            prop_assert!(explained, "{codec:?}: {theirs:?} of {packet:?}");
        }
        (Err(violation), Rewritten::Packet(_) | Rewritten::NotWritten) => {
            let row = |row: &&(Codec, &str, &str)| (row.0, row.1) == (codec, violation.what);
            let explained = LAXER.iter().find(row).is_some();
            prop_assert!(explained, "{codec:?} reads {bytes:02x?}; we refuse for {violation}");
        }
        (Ok(Decoded::Incomplete { .. }), theirs) => {
            prop_assert_eq!(theirs, Rewritten::Incomplete, "{:?} of {:02x?}", codec, bytes);
        }
        (Err(_), Rewritten::Refused | Rewritten::Incomplete) => {}
        (Err(violation), Rewritten::Panicked) => {
            prop_assert!(false, "{codec:?} panics at {bytes:02x?}; we refuse for {violation}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn valid_packets_mean_the_same_or_the_difference_is_named((version, peer, packet) in packet()) {
        let bytes = encoded(&packet, version);
        for codec in [Core, Rumqttc] {
            compare(codec, (peer, version), &bytes)?;
        }
    }

    #[test]
    fn damaged_packets_are_judged_alike_or_the_difference_is_explained(
        (version, peer, packet) in packet(),
        damage in damage(),
        framed in any::<bool>(),
    ) {
        let bytes = damaged(encoded(&packet, version), &damage, framed);
        for codec in [Core, Rumqttc] {
            compare(codec, (peer, version), &bytes)?;
        }
    }
}

#[test]
fn every_laxer_rule_still_has_its_witness() {
    let from_rumqttd = rumqttd::LAXER.iter().map(|row| (row.peer, row.version, row.witness));
    let mut shown: BTreeSet<(Codec, &str)> = BTreeSet::new();
    for (peer, version, bytes) in from_rumqttd.chain(WITNESSES.iter().copied()) {
        let refused: Result<_, Violation> = decoder(peer, version).decode(bytes);
        let what = refused.expect_err("a witness is refused").what;
        for codec in [Core, Rumqttc] {
            if matches!(codec.rewrite(bytes, version), Rewritten::Packet(_) | Rewritten::NotWritten)
            {
                shown.insert((codec, what));
            }
        }
    }
    let listed: BTreeSet<(Codec, &str)> = LAXER.iter().map(|row| (row.0, row.1)).collect();
    let unexplained: Vec<_> = shown.difference(&listed).collect();
    let unshown: Vec<_> = listed.difference(&shown).collect();
    assert!(unexplained.is_empty() && unshown.is_empty(), "{unexplained:?} {unshown:?}");
}

#[test]
fn every_difference_still_has_its_witness() {
    let rows: [(Codec, Peer, ProtocolVersion, &[u8], Difference); 7] = [
        (
            Core,
            Peer::Stranger,
            V5,
            b"\x10\x11\x00\x04MQTT\x05\x42\x00\x3C\x00\x00\x01c\x00\x01p",
            Difference::PasswordNeedsUserName,
        ),
        (Core, Peer::Server, V5, b"\xE0\x01\x8C", Difference::NoBadAuthenticationMethod),
        (
            Rumqttc,
            Peer::Stranger,
            V3_1_1,
            b"\x10\x0F\x00\x04MQTT\x04\x82\x00\x3C\x00\x01c\x00\x00",
            Difference::LoginIsTwoNonEmptyStrings,
        ),
        (Rumqttc, Peer::Client, V5, b"\xF0\x06\x18\x04\x15\x00\x01m", Difference::AuthIsNotRead),
        (Rumqttc, Peer::Client, V5, b"\xE0\x00", Difference::ShortDisconnect),
        (Rumqttc, Peer::Client, V5, b"\xE0\x01\x04", Difference::ShortDisconnect),
        (
            Rumqttc,
            Peer::Server,
            V5,
            b"\x30\x0A\x00\x01t\x06\x0B\x01\x0B\x02\x01\x01",
            Difference::SubscriptionIdentifierCountedTwice,
        ),
    ];
    for (codec, peer, version, bytes, expected) in rows {
        let Ok(Decoded::Packet { packet, .. }) = decoder(peer, version).decode(bytes) else {
            panic!("{bytes:02x?} is valid")
        };
        assert_eq!(difference(codec, &packet, bytes, version), Some(expected));
        let again = match codec.rewrite(bytes, version) {
            Rewritten::Packet(again) => decoder(peer, version).decode(&again).ok(),
            _ => None,
        };
        let same = matches!(again, Some(Decoded::Packet { packet: read, .. }) if read == packet);
        assert!(!same, "{codec:?} reads {packet:?} rightly now");
    }
}

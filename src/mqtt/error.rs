//! Violations: what a peer did wrong on the wire, each written once.
//!
//! A violation says what rule was broken, never what the peer sent: its texts are constants, so
//! nothing of the peer's choosing reaches a log through them. A Malformed Packet (0x81) cannot be
//! read, a Protocol Error (0x82) can be read and must not have been sent (5.0, section 1.2).

use super::ReasonCode;

/// A Malformed Packet or a Protocol Error. It ends the Network Connection of the peer that
/// committed it, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({})", statement.unwrap_or("no single statement"))]
pub struct Violation {
    /// The Reason Code of the DISCONNECT (or CONNACK) that says so to a 5.0 peer.
    pub reason: ReasonCode,
    /// What was wrong, in words; never the peer's bytes.
    pub what: &'static str,
    /// The normative statement that was broken, `MQTT-x.y.z-n`, where one says it. It is the 5.0
    /// document's number; the few rules that only 3.1.1 has end in ` (3.1.1)`.
    pub statement: Option<&'static str>,
}

/// The ways to make one.
impl Violation {
    const fn malformed(what: &'static str) -> Self {
        Self { reason: ReasonCode::MalformedPacket, what, statement: None }
    }

    const fn protocol(what: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, what, statement: None }
    }

    const fn because(self, reason: ReasonCode) -> Self {
        Self { reason, ..self }
    }

    const fn by(self, statement: &'static str) -> Self {
        Self { statement: Some(statement), ..self }
    }
}

/// Fixed header and the order of packets.
impl Violation {
    pub(super) const TYPE_RESERVED: Self = Self::malformed("packet type does not exist");
    pub(super) const NOT_CONNECT_FIRST: Self =
        Self::protocol("first packet is not CONNECT").by("MQTT-3.1.0-1");
    pub(super) const SECOND_CONNECT: Self = Self::protocol("second CONNECT").by("MQTT-3.1.0-2");
    pub(super) const NOT_FOR_A_SERVER: Self = Self::protocol("packet that only a server sends");
    pub(super) const NOT_FOR_A_CLIENT: Self = Self::protocol("packet that only a client sends");
    const TOO_LARGE: Self = Self::protocol("packet larger than Maximum Packet Size")
        .because(ReasonCode::PacketTooLarge);
    pub(super) const TOO_LARGE_FOR_SERVER: Self = Self::TOO_LARGE.by("MQTT-3.2.2-15");
    pub(super) const TOO_LARGE_FOR_CLIENT: Self = Self::TOO_LARGE.by("MQTT-3.1.2-24");
    pub(super) const FLAGS: Self =
        Self::malformed("reserved fixed header flags").by("MQTT-2.1.3-1");
    pub(super) const FLAGS_PUBREL: Self = Self::malformed("PUBREL flags").by("MQTT-3.6.1-1");
    pub(super) const FLAGS_SUBSCRIBE: Self = Self::malformed("SUBSCRIBE flags").by("MQTT-3.8.1-1");
    pub(super) const FLAGS_UNSUBSCRIBE: Self =
        Self::malformed("UNSUBSCRIBE flags").by("MQTT-3.10.1-1");
    pub(super) const FLAGS_DISCONNECT: Self =
        Self::malformed("DISCONNECT flags").by("MQTT-3.14.1-1");
    pub(super) const FLAGS_AUTH: Self = Self::malformed("AUTH flags").by("MQTT-3.15.1-1");
    pub(super) const QOS_3: Self = Self::malformed("PUBLISH with QoS 3").by("MQTT-3.3.1-4");
    pub(super) const DUP_QOS_0: Self =
        Self::malformed("PUBLISH with DUP and QoS 0").by("MQTT-3.3.1-2");
}

/// Integers, strings and lengths.
impl Violation {
    pub(super) const CUT_SHORT: Self = Self::malformed("packet ends inside a field");
    pub(super) const TRAILING: Self = Self::malformed("bytes after the last field");
    pub(super) const VARIABLE_TOO_LONG: Self =
        Self::malformed("variable byte integer of more than four bytes");
    pub(super) const VARIABLE_NOT_MINIMAL: Self =
        Self::malformed("variable byte integer longer than needed").by("MQTT-1.5.5-1");
    pub(super) const NOT_UTF8: Self = Self::malformed("ill-formed UTF-8").by("MQTT-1.5.4-1");
    pub(super) const NULL: Self = Self::malformed("U+0000 in a string").by("MQTT-1.5.4-2");
    pub(super) const CONTROL: Self = Self::malformed("control character in a name");
    pub(super) const PACKET_ID_ZERO: Self =
        Self::protocol("Packet Identifier 0").by("MQTT-2.2.1-3");
}

/// CONNECT and CONNACK.
impl Violation {
    pub(super) const PROTOCOL_NAME: Self =
        Self::protocol("protocol name is not MQTT").by("MQTT-3.1.2-1");
    pub(super) const PROTOCOL_LEVEL: Self = Self::protocol("protocol level is not known")
        .because(ReasonCode::UnsupportedProtocolVersion)
        .by("MQTT-3.1.2-2");
    pub(super) const CONNECT_FLAGS_RESERVED: Self =
        Self::malformed("reserved CONNECT flag").by("MQTT-3.1.2-3");
    pub(super) const WILL_QOS_WITHOUT_WILL: Self =
        Self::malformed("Will QoS without a Will").by("MQTT-3.1.2-11");
    pub(super) const WILL_QOS_3: Self = Self::malformed("Will QoS 3").by("MQTT-3.1.2-12");
    pub(super) const WILL_RETAIN_WITHOUT_WILL: Self =
        Self::malformed("Will Retain without a Will").by("MQTT-3.1.2-13");
    pub(super) const PASSWORD_WITHOUT_USER_NAME: Self =
        Self::malformed("password without user name").by("MQTT-3.1.2-22 (3.1.1)");
    pub(super) const CLIENT_ID_EMPTY: Self = Self::protocol("empty Client Identifier in MQTT 3.1")
        .because(ReasonCode::ClientIdentifierNotValid);
    pub(super) const CONNACK_FLAGS: Self =
        Self::malformed("reserved CONNACK flags").by("MQTT-3.2.2-1");
    pub(super) const SESSION_PRESENT_ON_ERROR: Self =
        Self::protocol("Session Present in a refusal").by("MQTT-3.2.2-6");
    pub(super) const CONNACK_REASON: Self =
        Self::malformed("no CONNACK Reason Code").by("MQTT-3.2.2-8");
    pub(super) const CONNACK_RETURN_CODE: Self = Self::malformed("reserved CONNACK return code");
}

/// PUBLISH and topics.
impl Violation {
    pub(super) const TOPIC_MISSING: Self = Self::protocol("neither Topic Name nor Topic Alias");
    pub(super) const TOPIC_EMPTY: Self =
        Self::protocol("empty Topic Name").because(ReasonCode::TopicNameInvalid).by("MQTT-4.7.3-1");
    pub(super) const TOPIC_WILDCARD: Self = Self::protocol("wildcard in a Topic Name")
        .because(ReasonCode::TopicNameInvalid)
        .by("MQTT-3.3.2-2");
    pub(super) const TOPIC_ALIAS_ZERO: Self =
        Self::protocol("Topic Alias 0").because(ReasonCode::TopicAliasInvalid).by("MQTT-3.3.2-8");
    pub(super) const RESPONSE_TOPIC: Self =
        Self::protocol("Response Topic is no Topic Name").by("MQTT-3.3.2-14");
    pub(super) const SUBSCRIPTION_IDENTIFIER_FROM_CLIENT: Self =
        Self::protocol("Subscription Identifier in a client's PUBLISH").by("MQTT-3.3.4-6");
}

/// Acknowledgements, SUBSCRIBE and UNSUBSCRIBE.
impl Violation {
    pub(super) const PUBACK_REASON: Self =
        Self::malformed("no PUBACK Reason Code").by("MQTT-3.4.2-1");
    pub(super) const PUBREC_REASON: Self =
        Self::malformed("no PUBREC Reason Code").by("MQTT-3.5.2-1");
    pub(super) const PUBREL_REASON: Self =
        Self::malformed("no PUBREL Reason Code").by("MQTT-3.6.2-1");
    pub(super) const PUBCOMP_REASON: Self =
        Self::malformed("no PUBCOMP Reason Code").by("MQTT-3.7.2-1");
    pub(super) const NO_FILTER_TO_SUBSCRIBE: Self =
        Self::protocol("SUBSCRIBE without a Topic Filter").by("MQTT-3.8.3-2");
    pub(super) const NO_LOCAL_SHARED: Self =
        Self::protocol("No Local on a Shared Subscription").by("MQTT-3.8.3-4");
    pub(super) const OPTIONS_RESERVED: Self =
        Self::malformed("reserved Subscription Options").by("MQTT-3.8.3-5");
    pub(super) const OPTIONS_QOS_3: Self = Self::protocol("Subscription Options with QoS 3");
    pub(super) const OPTIONS_RETAIN_HANDLING_3: Self =
        Self::protocol("Subscription Options with Retain Handling 3");
    pub(super) const SUBACK_REASON: Self =
        Self::malformed("no SUBACK Reason Code").by("MQTT-3.9.3-2");
    pub(super) const SUBACK_EMPTY: Self =
        Self::protocol("SUBACK without a Reason Code").by("MQTT-3.8.4-6");
    pub(super) const NO_FILTER_TO_UNSUBSCRIBE: Self =
        Self::protocol("UNSUBSCRIBE without a Topic Filter").by("MQTT-3.10.3-2");
    pub(super) const UNSUBACK_REASON: Self =
        Self::malformed("no UNSUBACK Reason Code").by("MQTT-3.11.3-2");
    pub(super) const UNSUBACK_EMPTY: Self =
        Self::protocol("UNSUBACK without a Reason Code").by("MQTT-3.11.3-1");
}

/// DISCONNECT and AUTH.
impl Violation {
    pub(super) const DISCONNECT_REASON: Self =
        Self::malformed("no DISCONNECT Reason Code of this side").by("MQTT-3.14.2-1");
    pub(super) const SESSION_EXPIRY_FROM_SERVER: Self =
        Self::protocol("Session Expiry Interval in a server's DISCONNECT").by("MQTT-3.14.2-2");
    pub(super) const SERVER_REFERENCE_FROM_CLIENT: Self =
        Self::protocol("Server Reference in a client's DISCONNECT");
    pub(super) const AUTH_REASON: Self =
        Self::malformed("no AUTH Reason Code of this side").by("MQTT-3.15.2-1");
    pub(super) const AUTH_METHOD_MISSING: Self = Self::protocol("AUTH without a method");
}

/// Properties.
impl Violation {
    pub(super) const PROPERTY_UNKNOWN: Self = Self::malformed("unknown property");
    pub(super) const PROPERTY_MISPLACED: Self =
        Self::malformed("property does not belong in this packet");
    pub(super) const PROPERTY_TWICE: Self = Self::protocol("property given twice");
    pub(super) const PROPERTY_NOT_BOOLEAN: Self = Self::protocol("property is neither 0 nor 1");
    pub(super) const RECEIVE_MAXIMUM_ZERO: Self = Self::protocol("Receive Maximum 0");
    pub(super) const MAXIMUM_PACKET_SIZE_ZERO: Self = Self::protocol("Maximum Packet Size 0");
    pub(super) const SUBSCRIPTION_IDENTIFIER_ZERO: Self =
        Self::protocol("Subscription Identifier 0");
    pub(super) const AUTH_DATA_WITHOUT_METHOD: Self =
        Self::protocol("Authentication Data without a method");
}

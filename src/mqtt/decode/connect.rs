//! CONNECT and CONNACK (sections 3.1 and 3.2).
//!
//! Whether a client may connect is not decided here. An empty Client Identifier with Clean
//! Session 0 is for the broker to refuse, since 3.1.1 has a return code for it.

use bytes::Bytes;

use super::property;
use crate::mqtt::scalar::Reader;
use crate::mqtt::{
    ClientId, ConnAck, ConnAckProperties, Connect, ConnectProperties, ProtocolVersion, QoS,
    ReasonCode, TopicError, TopicName, Violation, Will, WillProperties,
};

/// What Protocol Name and Protocol Version say.
pub(super) enum Protocol {
    /// A version that we speak.
    Known(ProtocolVersion),
    /// Another one. Its client most likely reads a CONNACK in the form of this version.
    Unknown(ProtocolVersion),
}

/// Protocol Name and Protocol Version, the part of CONNECT that all versions share.
pub(super) fn protocol(r: &mut Reader<'_>) -> Result<Protocol, Violation> {
    let name = r.binary()?;
    // [MQTT-3.1.2-1] Judged before the level is read: what follows is not MQTT.
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Violation::PROTOCOL_NAME);
    }
    match (name, r.u8()?) {
        (b"MQIsdp", 3) => Ok(Protocol::Known(ProtocolVersion::V3_1)),
        (b"MQTT", 4) => Ok(Protocol::Known(ProtocolVersion::V3_1_1)),
        (b"MQTT", 5) => Ok(Protocol::Known(ProtocolVersion::V5)),
        // [MQTT-3.1.2-2]: refused with 0x01 in 3.1.1, and with 0x84 in 5.0, whose successors will
        // know its CONNACK. Bridges of Mosquitto mark themselves by the highest bit of the level.
        (b"MQIsdp", _) => Ok(Protocol::Unknown(ProtocolVersion::V3_1)),
        (_, level) if level & 0x7F < 5 => Ok(Protocol::Unknown(ProtocolVersion::V3_1_1)),
        (_, _) => Ok(Protocol::Unknown(ProtocolVersion::V5)),
    }
}

/// The Connect Flags.
struct Flags(u8);

impl Flags {
    const fn has(&self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    const fn will_qos(&self) -> u8 {
        (self.0 >> 3) & 0b11
    }

    fn check(&self, version: ProtocolVersion) -> Result<(), Violation> {
        // [MQTT-3.1.2-3]
        if self.has(0) {
            return Err(Violation::CONNECT_FLAGS_RESERVED);
        }
        if !self.has(2) {
            // [MQTT-3.1.2-11]
            if self.will_qos() != 0 {
                return Err(Violation::WILL_QOS_WITHOUT_WILL);
            }
            // [MQTT-3.1.2-13]
            if self.has(5) {
                return Err(Violation::WILL_RETAIN_WITHOUT_WILL);
            }
        }
        // [MQTT-3.1.2-12]
        if self.will_qos() == 3 {
            return Err(Violation::WILL_QOS_3);
        }
        // [MQTT-3.1.2-22] of 3.1.1; 5.0 allows a password alone.
        if !version.is_v5() && self.has(6) && !self.has(7) {
            return Err(Violation::PASSWORD_WITHOUT_USER_NAME);
        }
        Ok(())
    }
}

/// CONNECT after its Protocol Version.
pub(super) fn connect(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<Connect, Violation> {
    let flags = Flags(r.u8()?);
    flags.check(version)?;
    let keep_alive_seconds = r.u16()?;
    let properties =
        if version.is_v5() { property::connect(r)? } else { ConnectProperties::default() };
    // [MQTT-3.1.3-1], [MQTT-3.1.3-3], [MQTT-3.1.3-4]
    let client_id = r.name()?;
    // 3.1 wants 1 to 23 characters. Its upper bound is not enforced: clients of the time exceed it
    // and every broker lets them.
    if client_id.is_empty() && version == ProtocolVersion::V3_1 {
        return Err(Violation::CLIENT_ID_EMPTY);
    }
    let client_id = ClientId::new(client_id);
    let will = if flags.has(2) { Some(will(r, &flags, version)?) } else { None };
    // [MQTT-3.1.2-17], [MQTT-3.1.3-12]
    let user_name = if present(r, &flags, 7, version) { Some(r.name()?.to_owned()) } else { None };
    // [MQTT-3.1.2-19]
    let password = if present(r, &flags, 6, version) {
        Some(Bytes::copy_from_slice(r.binary()?))
    } else {
        None
    };
    Ok(Connect {
        version,
        clean_start: flags.has(1),
        keep_alive_seconds,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// Whether the User Name or Password that flag `bit` announces is there. In 3.1 the Remaining
/// Length takes precedence over these two flags, for the sake of still older clients.
fn present(r: &Reader<'_>, flags: &Flags, bit: u8, version: ProtocolVersion) -> bool {
    flags.has(bit) && !(version == ProtocolVersion::V3_1 && r.is_empty())
}

fn will(r: &mut Reader<'_>, flags: &Flags, version: ProtocolVersion) -> Result<Will, Violation> {
    // [MQTT-3.1.2-12]; already refused with the flags.
    let qos = QoS::from_bits(flags.will_qos()).ok_or(Violation::WILL_QOS_3)?;
    let properties = if version.is_v5() { property::will(r)? } else { WillProperties::default() };
    // [MQTT-3.1.3-11]
    let topic = topic_name(r.name()?)?;
    let payload = Bytes::copy_from_slice(r.binary()?);
    Ok(Will { topic, payload, qos, retain: flags.has(5), properties })
}

/// A Topic Name that the peer means to publish to.
pub(super) fn topic_name(text: &str) -> Result<TopicName, Violation> {
    TopicName::parse(text).map_err(|error| match error {
        // [MQTT-4.7.3-1]
        TopicError::Empty => Violation::TOPIC_EMPTY,
        // [MQTT-3.3.2-2]; the last three are said of Topic Filters only.
        TopicError::WildcardInName
        | TopicError::MultiLevelWildcard
        | TopicError::SingleLevelWildcard
        | TopicError::Share => Violation::TOPIC_WILDCARD,
        // [MQTT-4.7.3-2], [MQTT-4.7.3-3]; neither passes as a UTF-8 Encoded String.
        TopicError::Null | TopicError::TooLong => Violation::NULL,
    })
}

/// CONNACK.
pub(super) fn connack(r: &mut Reader<'_>, version: ProtocolVersion) -> Result<ConnAck, Violation> {
    let flags = r.u8()?;
    // 3.1 has no Session Present and says nothing of this byte.
    let flags = if version == ProtocolVersion::V3_1 { 0 } else { flags };
    // [MQTT-3.2.2-1]
    if flags > 1 {
        return Err(Violation::CONNACK_FLAGS);
    }
    let session_present = flags == 1;
    let code = r.u8()?;
    let reason = if version.is_v5() { connack_reason(code)? } else { connack_return_code(code)? };
    // [MQTT-3.2.2-6]
    if session_present && reason != ReasonCode::Success {
        return Err(Violation::SESSION_PRESENT_ON_ERROR);
    }
    let properties =
        if version.is_v5() { property::connack(r)? } else { ConnAckProperties::default() };
    Ok(ConnAck { session_present, reason, properties })
}

fn connack_reason(code: u8) -> Result<ReasonCode, Violation> {
    use ReasonCode as R;
    match ReasonCode::from_u8(code) {
        Some(
            reason @ (R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::NotAuthorized
            | R::ServerUnavailable
            | R::ServerBusy
            | R::Banned
            | R::BadAuthenticationMethod
            | R::TopicNameInvalid
            | R::PacketTooLarge
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QoSNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded),
        ) => Ok(reason),
        // [MQTT-3.2.2-8]
        _ => Err(Violation::CONNACK_REASON),
    }
}

/// The return codes of 3.x, each as the Reason Code that means the same.
fn connack_return_code(code: u8) -> Result<ReasonCode, Violation> {
    match code {
        0 => Ok(ReasonCode::Success),
        1 => Ok(ReasonCode::UnsupportedProtocolVersion),
        2 => Ok(ReasonCode::ClientIdentifierNotValid),
        3 => Ok(ReasonCode::ServerUnavailable),
        4 => Ok(ReasonCode::BadUserNameOrPassword),
        5 => Ok(ReasonCode::NotAuthorized),
        _ => Err(Violation::CONNACK_RETURN_CODE),
    }
}

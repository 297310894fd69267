//! Packets to bytes.
//!
//! Each packet is walked twice by the same code, once to count its bytes and once to write them,
//! so the buffer grows at most once and a length can not disagree with what follows it. Always
//! the shortest legal form. What may be sent to whom is decided elsewhere: this room refuses only
//! what has no encoding.

mod connect;
mod copies;
mod property;
#[cfg(test)]
mod tests;

pub use self::copies::{EncodedPublish, TopicAlias, encode_publish};
pub(super) use self::property::forwarded;
use super::scalar::{Length, Sink, VARIABLE_MAX};
use super::{
    Ack, AckProperties, Auth, AuthProperties, Disconnect, DisconnectProperties, Packet, PacketId,
    ProtocolVersion, Publish, QoS, ReasonCode, SubAck, Subscribe, SubscriptionOptions, UnsubAck,
    Unsubscribe,
};

/// Why a packet has no encoding. Never caused by a peer alone: what was decoded can be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The packet, a string or a list is longer than its length field can say.
    #[error("longer than its length field can say")]
    TooLong,
    /// The protocol version has no such packet: AUTH, a PUBLISH without a Topic Name, or a PUBACK
    /// or PUBREC that refuses, which 3.x could only write as an acceptance.
    #[error("the protocol version has no such packet")]
    NotInVersion,
    /// A PUBLISH of QoS 1 or 2 without a Packet Identifier.
    #[error("a PUBLISH of QoS 1 or 2 needs a Packet Identifier")]
    PacketIdMissing,
}

/// Appends `packet` to `out`; on an error `out` is as it was. A CONNECT is written in its own
/// version, whatever `version` says.
///
/// # Errors
/// When the packet has no encoding in `version`.
pub fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if let Packet::Publish(publish) = packet
        && publish.qos != QoS::AtMostOnce
        && publish.packet_id.is_none()
    {
        return Err(EncodeError::PacketIdMissing);
    }
    append(first_byte(packet), &Body { of: packet, version }, out)
}

/// Length in bytes of what [`encode`] appends, for the receiver's Maximum Packet Size.
///
/// # Errors
/// When the packet has no encoding in `version`.
pub fn encoded_len(packet: &Packet, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let remaining = length(&Body { of: packet, version })?;
    let mut header = Length::default();
    header.variable(remaining)?;
    Ok(1 + header.0 + remaining)
}

const DUP: u8 = 0b1000;

/// What can be written field by field.
trait Fields {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError>;
}

/// What follows the fixed header.
struct Body<'a, T> {
    of: &'a T,
    version: ProtocolVersion,
}

fn append(first: u8, body: &impl Fields, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let remaining = length(body)?;
    if remaining > VARIABLE_MAX {
        return Err(EncodeError::TooLong);
    }
    let start = out.len();
    // The fixed header takes at most five bytes.
    out.reserve(5 + remaining);
    out.u8(first);
    // Neither fails, having been counted; but what is half written must not stay.
    let written = out.variable(remaining).and_then(|()| body.write(out));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn length(fields: &impl Fields) -> Result<usize, EncodeError> {
    let mut length = Length::default();
    fields.write(&mut length)?;
    Ok(length.0)
}

/// A property section: its length, then the properties. [MQTT-2.2.2-1]
fn section<S: Sink>(properties: &impl Fields, s: &mut S) -> Result<(), EncodeError> {
    s.variable(length(properties)?)?;
    properties.write(s)
}

fn first_byte(packet: &Packet) -> u8 {
    // [MQTT-2.1.3-1]
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(publish) => publish_first(publish),
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62,
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::UnsubAck(_) => 0xB0,
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

fn publish_first(publish: &Publish) -> u8 {
    // [MQTT-3.3.1-2]
    let dup = if publish.dup && publish.qos != QoS::AtMostOnce { DUP } else { 0 };
    0x30 | dup | (publish.qos as u8) << 1 | u8::from(publish.retain)
}

impl Fields for Body<'_, Packet> {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        let version = self.version;
        match self.of {
            Packet::Connect(connect) => connect::connect(connect, s),
            Packet::ConnAck(connack) => connect::connack(connack, version, s),
            Packet::Publish(publish) => Body { of: &**publish, version }.write(s),
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                // A 3.x client would read the refusal as an acceptance.
                if ack.reason.is_error() && !version.is_v5() {
                    return Err(EncodeError::NotInVersion);
                }
                write_ack(ack, version, s)
            }
            // These say "not found" at worst, and 3.x answers that with the same packet.
            Packet::PubRel(ack) | Packet::PubComp(ack) => write_ack(ack, version, s),
            Packet::Subscribe(subscribe) => write_subscribe(subscribe, version, s),
            Packet::SubAck(suback) => write_suback(suback, version, s),
            Packet::Unsubscribe(unsubscribe) => write_unsubscribe(unsubscribe, version, s),
            Packet::UnsubAck(unsuback) => write_unsuback(unsuback, version, s),
            Packet::PingReq | Packet::PingResp => Ok(()),
            Packet::Disconnect(disconnect) => write_disconnect(disconnect, version, s),
            Packet::Auth(auth) => write_auth(auth, version, s),
        }
    }
}

impl Fields for Body<'_, Publish> {
    fn write<S: Sink>(&self, s: &mut S) -> Result<(), EncodeError> {
        let publish = self.of;
        match &publish.topic {
            Some(topic) => s.text(topic.as_str())?,
            None if self.version.is_v5() => s.text("")?,
            None => return Err(EncodeError::NotInVersion),
        }
        // [MQTT-2.2.1-2]
        if publish.qos != QoS::AtMostOnce {
            s.u16(publish.packet_id.unwrap_or(PacketId::ONE).as_u16());
        }
        if self.version.is_v5() {
            section(&publish.properties, s)?;
        }
        s.bytes(&publish.payload);
        Ok(())
    }
}

fn write_ack<S: Sink>(ack: &Ack, version: ProtocolVersion, s: &mut S) -> Result<(), EncodeError> {
    s.u16(ack.packet_id.as_u16());
    if !version.is_v5() {
        return Ok(());
    }
    let properties = ack.properties.as_deref().filter(|p| **p != AckProperties::default());
    match (ack.reason, properties) {
        (ReasonCode::Success, None) => {}
        (reason, None) => s.u8(reason.as_u8()),
        (reason, Some(properties)) => {
            s.u8(reason.as_u8());
            section(properties, s)?;
        }
    }
    Ok(())
}

fn write_subscribe<S: Sink>(
    subscribe: &Subscribe,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    s.u16(subscribe.packet_id.as_u16());
    if version.is_v5() {
        section(&property::OfSubscribe(subscribe), s)?;
    }
    for filter in &subscribe.filters {
        s.text(&filter.filter)?;
        s.u8(options(filter.options, version));
    }
    Ok(())
}

/// Subscription Options; 3.x has only the QoS.
fn options(options: SubscriptionOptions, version: ProtocolVersion) -> u8 {
    let qos = options.qos as u8;
    if !version.is_v5() {
        return qos;
    }
    qos | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

fn write_suback<S: Sink>(
    suback: &SubAck,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    s.u16(suback.packet_id.as_u16());
    if version.is_v5() {
        section(&suback.properties, s)?;
    }
    for reason in &suback.reasons {
        // 3.1.1 has one failure, and 3.1 none: there it is the same byte, which its clients read
        // as no QoS they asked for.
        let failed = !version.is_v5() && reason.is_error();
        s.u8(if failed { ReasonCode::UnspecifiedError.as_u8() } else { reason.as_u8() });
    }
    Ok(())
}

fn write_unsubscribe<S: Sink>(
    unsubscribe: &Unsubscribe,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    s.u16(unsubscribe.packet_id.as_u16());
    if version.is_v5() {
        section(&property::UserProperties(&unsubscribe.user_properties), s)?;
    }
    unsubscribe.filters.iter().try_for_each(|filter| s.text(filter))
}

fn write_unsuback<S: Sink>(
    unsuback: &UnsubAck,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    s.u16(unsuback.packet_id.as_u16());
    if version.is_v5() {
        section(&unsuback.properties, s)?;
        unsuback.reasons.iter().for_each(|reason| s.u8(reason.as_u8()));
    }
    Ok(())
}

fn write_disconnect<S: Sink>(
    disconnect: &Disconnect,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    let bare = disconnect.properties == DisconnectProperties::default();
    if !version.is_v5() || (bare && disconnect.reason == ReasonCode::Success) {
        return Ok(());
    }
    s.u8(disconnect.reason.as_u8());
    if bare { Ok(()) } else { section(&disconnect.properties, s) }
}

fn write_auth<S: Sink>(
    auth: &Auth,
    version: ProtocolVersion,
    s: &mut S,
) -> Result<(), EncodeError> {
    if !version.is_v5() {
        return Err(EncodeError::NotInVersion);
    }
    if auth.reason == ReasonCode::Success && auth.properties == AuthProperties::default() {
        return Ok(());
    }
    s.u8(auth.reason.as_u8());
    section(&auth.properties, s)
}

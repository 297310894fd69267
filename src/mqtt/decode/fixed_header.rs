//! The first byte of a packet (section 2.1): type, direction and flags.

use crate::mqtt::{ProtocolVersion, Violation};

/// The Control Packet type: the upper four bits of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketType {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl PacketType {
    pub(super) const fn of(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// Checks that a connected client may send it.
    pub(super) const fn check_from_client(self, version: ProtocolVersion) -> Result<(), Violation> {
        match self {
            // [MQTT-3.1.0-2]
            Self::Connect => Err(Violation::SECOND_CONNECT),
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => {
                Err(Violation::NOT_FOR_A_SERVER)
            }
            Self::Auth => self.check_exists(version),
            Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubRel
            | Self::PubComp
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::PingReq
            | Self::Disconnect => Ok(()),
        }
    }

    /// Checks that a server may send it.
    pub(super) const fn check_from_server(self, version: ProtocolVersion) -> Result<(), Violation> {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => {
                Err(Violation::NOT_FOR_A_CLIENT)
            }
            // In 3.x only a client sends DISCONNECT.
            Self::Disconnect if !version.is_v5() => Err(Violation::NOT_FOR_A_CLIENT),
            Self::Auth => self.check_exists(version),
            Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubRel
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingResp
            | Self::Disconnect => Ok(()),
        }
    }

    const fn check_exists(self, version: ProtocolVersion) -> Result<(), Violation> {
        if matches!(self, Self::Auth) && !version.is_v5() {
            return Err(Violation::TYPE_RESERVED);
        }
        Ok(())
    }
}

/// Checks the lower four bits of the first byte.
///
/// MQTT 3.1 lets a client set DUP when it sends PUBREL, SUBSCRIBE or UNSUBSCRIBE again; that bit
/// is ignored there. Everything else is held to the later documents in 3.1 as well.
pub(super) const fn check_flags(
    packet_type: PacketType,
    first: u8,
    version: ProtocolVersion,
) -> Result<(), Violation> {
    let flags = first & 0x0F;
    let (wanted, violation) = match packet_type {
        PacketType::Publish => return check_publish_flags(flags),
        // [MQTT-3.6.1-1]
        PacketType::PubRel => (0b0010, Violation::FLAGS_PUBREL),
        // [MQTT-3.8.1-1]
        PacketType::Subscribe => (0b0010, Violation::FLAGS_SUBSCRIBE),
        // [MQTT-3.10.1-1]
        PacketType::Unsubscribe => (0b0010, Violation::FLAGS_UNSUBSCRIBE),
        // [MQTT-3.14.1-1]
        PacketType::Disconnect => (0, Violation::FLAGS_DISCONNECT),
        // [MQTT-3.15.1-1]
        PacketType::Auth => (0, Violation::FLAGS_AUTH),
        // [MQTT-2.1.3-1]
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubComp
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingReq
        | PacketType::PingResp => (0, Violation::FLAGS),
    };
    let resent = matches!(version, ProtocolVersion::V3_1) && wanted == 0b0010;
    let flags = if resent { flags & !0b1000 } else { flags };
    if flags == wanted { Ok(()) } else { Err(violation) }
}

const fn check_publish_flags(flags: u8) -> Result<(), Violation> {
    match ((flags >> 1) & 0b11, flags & 0b1000 != 0) {
        // [MQTT-3.3.1-4]
        (3, _) => Err(Violation::QOS_3),
        // [MQTT-3.3.1-2]
        (0, true) => Err(Violation::DUP_QOS_0),
        _ => Ok(()),
    }
}

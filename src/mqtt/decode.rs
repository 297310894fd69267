//! Bytes to packets.
//!
//! [`Decoder`] frames the stream of one Network Connection and hands each body to the file of its
//! packet. It keeps no bytes: the caller owns the buffer, and every refusal that the first bytes
//! allow is made before the rest is asked for. What needs a session to judge (Packet Identifiers
//! in use, Topic Aliases, Receive Maximum) is not judged here.
//!
//! Invariant: no input makes it panic, and past a fixed header (five bytes) it never asks for more
//! than `packet_bytes_max`.

mod ack;
mod connect;
mod disconnect;
mod fixed_header;
mod property;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

use self::connect::Protocol;
use self::fixed_header::PacketType;
pub(super) use self::property::forwarded;
use super::scalar::{Reader, parse_variable};
use super::{Packet, ProtocolVersion, Violation};

/// Which end of the Network Connection we are: it decides which packets may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We serve: the first packet is CONNECT, and packets only a server sends are violations.
    Server,
    /// We are the client: packets only a client sends are violations. That CONNACK comes first
    /// and once is left to the client, which alone knows whether it still waits for it.
    Client,
}

/// What one call found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole packet, which took `consumed` bytes of the input.
    Packet {
        /// The packet.
        packet: Packet,
        /// Bytes to drop from the front of the input.
        consumed: usize,
    },
    /// The input ends inside a packet; at least this many bytes (from its start) are needed
    /// before another call can find more.
    Incomplete {
        /// Length the input must reach.
        needed: usize,
    },
}

/// Decodes the packets of one Network Connection, in order.
#[derive(Clone, Debug)]
pub struct Decoder {
    side: Side,
    version: Option<ProtocolVersion>,
    connected: bool,
    violation: Option<Violation>,
    packet_bytes_max: usize,
}

impl Decoder {
    /// For a server: the version is learnt from CONNECT. A packet of more than
    /// `packet_bytes_max` bytes, fixed header included, is a violation (0x95) as soon as its
    /// fixed header is read.
    pub fn server(packet_bytes_max: usize) -> Self {
        Self {
            side: Side::Server,
            version: None,
            connected: false,
            violation: None,
            packet_bytes_max,
        }
    }

    /// For a client that speaks `version`.
    pub fn client(version: ProtocolVersion, packet_bytes_max: usize) -> Self {
        Self {
            side: Side::Client,
            version: Some(version),
            connected: true,
            violation: None,
            packet_bytes_max,
        }
    }

    /// Replaces the bound on later packets: a server may grant a peer it knows more than it
    /// grants a stranger.
    pub fn set_packet_bytes_max(&mut self, packet_bytes_max: usize) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// The version, once known: from the protocol name and level of a CONNECT on, even if the
    /// rest of that CONNECT is a violation, so that its CONNACK can say why. After a level that we
    /// do not know, the version whose CONNACK can say so. `None` after a violation calls for a bare
    /// close.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Decodes the packet that `input` begins with.
    ///
    /// # Errors
    /// The peer's violation. The stream has no next packet then: later calls repeat it.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Violation> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        self.frame(input).inspect_err(|violation| self.violation = Some(violation.clone()))
    }

    fn frame(&mut self, input: &[u8]) -> Result<Decoded, Violation> {
        let Some((&first, after_first)) = input.split_first() else {
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        let packet_type = self.admit(first)?;
        let Some((remaining, len)) = parse_variable(after_first)? else {
            return Ok(Decoded::Incomplete { needed: input.len() + 1 });
        };
        let header_bytes = 1 + len;
        let total =
            usize::try_from(remaining).map_or(usize::MAX, |n| n.saturating_add(header_bytes));
        if total > self.packet_bytes_max {
            return Err(match self.side {
                // [MQTT-3.2.2-15]
                Side::Server => Violation::TOO_LARGE_FOR_SERVER,
                // [MQTT-3.1.2-24]
                Side::Client => Violation::TOO_LARGE_FOR_CLIENT,
            });
        }
        let Some(body) = input.get(header_bytes..total) else {
            return Ok(Decoded::Incomplete { needed: total });
        };
        let packet = self.packet(packet_type, first, body)?;
        Ok(Decoded::Packet { packet, consumed: total })
    }

    /// Judges a packet by its first byte alone.
    fn admit(&self, first: u8) -> Result<PacketType, Violation> {
        if self.side == Side::Server && !self.connected {
            // [MQTT-3.1.0-1]
            return match PacketType::of(first) {
                Some(PacketType::Connect) => {
                    fixed_header::check_flags(PacketType::Connect, first, ProtocolVersion::V5)?;
                    Ok(PacketType::Connect)
                }
                _ => Err(Violation::NOT_CONNECT_FIRST),
            };
        }
        let packet_type = PacketType::of(first).ok_or(Violation::TYPE_RESERVED)?;
        let version = self.version.unwrap_or(ProtocolVersion::V5);
        match self.side {
            Side::Server => packet_type.check_from_client(version)?,
            Side::Client => packet_type.check_from_server(version)?,
        }
        fixed_header::check_flags(packet_type, first, version)?;
        Ok(packet_type)
    }

    fn packet(
        &mut self,
        packet_type: PacketType,
        first: u8,
        body: &[u8],
    ) -> Result<Packet, Violation> {
        let r = &mut Reader::new(body);
        // Known by now, except to CONNECT, which tells it.
        let version = self.version.unwrap_or(ProtocolVersion::V5);
        let packet = match packet_type {
            PacketType::Connect => self.connect(r)?,
            PacketType::ConnAck => Packet::ConnAck(Box::new(connect::connack(r, version)?)),
            PacketType::Publish => Packet::Publish(publish::publish(r, first, version, self.side)?),
            PacketType::PubAck => Packet::PubAck(ack::puback(r, version)?),
            PacketType::PubRec => Packet::PubRec(ack::pubrec(r, version)?),
            PacketType::PubRel => Packet::PubRel(ack::pubrel(r, version)?),
            PacketType::PubComp => Packet::PubComp(ack::pubcomp(r, version)?),
            PacketType::Subscribe => Packet::Subscribe(Box::new(subscribe::subscribe(r, version)?)),
            PacketType::SubAck => Packet::SubAck(Box::new(ack::suback(r, version)?)),
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(Box::new(subscribe::unsubscribe(r, version)?))
            }
            PacketType::UnsubAck => Packet::UnsubAck(Box::new(ack::unsuback(r, version)?)),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => {
                Packet::Disconnect(Box::new(disconnect::disconnect(r, version, self.side)?))
            }
            PacketType::Auth => Packet::Auth(Box::new(disconnect::auth(r, self.side)?)),
        };
        r.end()?;
        Ok(packet)
    }

    fn connect(&mut self, r: &mut Reader<'_>) -> Result<Packet, Violation> {
        let version = match connect::protocol(r)? {
            Protocol::Known(version) => version,
            Protocol::Unknown(version) => {
                self.version = Some(version);
                return Err(Violation::PROTOCOL_LEVEL);
            }
        };
        self.version = Some(version);
        let connect = connect::connect(r, version)?;
        self.connected = true;
        Ok(Packet::Connect(Box::new(connect)))
    }
}

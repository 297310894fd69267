//! Bytes to packets.

use super::{Packet, ProtocolVersion, Violation};

/// Which end of the Network Connection we are: it decides which packets may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We serve: the first packet is CONNECT, and packets only a server sends are violations.
    Server,
    /// We are the client.
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
    packet_bytes_max: usize,
}

impl Decoder {
    /// For a server: the version is learnt from CONNECT. A packet of more than
    /// `packet_bytes_max` bytes, fixed header included, is a violation (0x95) as soon as its
    /// fixed header is read.
    pub fn server(packet_bytes_max: usize) -> Self {
        Self { side: Side::Server, version: None, packet_bytes_max }
    }

    /// For a client that speaks `version`.
    pub fn client(version: ProtocolVersion, packet_bytes_max: usize) -> Self {
        Self { side: Side::Client, version: Some(version), packet_bytes_max }
    }

    /// The version, once known.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Decodes the packet that `input` begins with.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, Violation> {
        let _ = (self.side, self.packet_bytes_max, input);
        Ok(Decoded::Incomplete { needed: 2 })
    }
}

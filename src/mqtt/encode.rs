//! Packets to bytes.

use bytes::Bytes;

use super::{Packet, PacketId, ProtocolVersion, Publish};

/// Why a packet has no encoding. Never caused by a peer alone: what was decoded can be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The packet, a string or a list is longer than its length field can say.
    #[error("longer than its length field can say")]
    TooLong,
    /// The protocol version has no such packet.
    #[error("the protocol version has no such packet")]
    NotInVersion,
}

/// Appends `packet` to `out`; on an error `out` is as it was.
pub fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let _ = (packet, version, out);
    Err(EncodeError::NotInVersion)
}

/// A PUBLISH encoded once for all its subscribers: only DUP and the Packet Identifier differ
/// between copies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EncodedPublish {
    bytes: Bytes,
    packet_id_at: Option<usize>,
}

impl EncodedPublish {
    /// Length of every copy in bytes, for the receiver's Maximum Packet Size.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one copy to `out`.
    pub fn write_to(&self, dup: bool, packet_id: Option<PacketId>, out: &mut Vec<u8>) {
        let _ = (dup, packet_id, self.packet_id_at);
        out.extend_from_slice(&self.bytes);
    }
}

/// Encodes `publish`; its `dup` and `packet_id` are placeholders for those of each copy.
pub fn encode_publish(
    publish: &Publish,
    version: ProtocolVersion,
) -> Result<EncodedPublish, EncodeError> {
    let mut bytes = Vec::new();
    encode(&Packet::Publish(Box::new(publish.clone())), version, &mut bytes)?;
    Ok(EncodedPublish { bytes: bytes.into(), packet_id_at: None })
}

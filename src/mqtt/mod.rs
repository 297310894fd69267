//! MQTT 3.1, 3.1.1 and 5.0 on the wire: bytes to [`Packet`] and back, strictly.
//!
//! Pure functions over byte slices; no sockets, no state but the protocol version. What a packet
//! *means* is the business of later rooms. A version is data ([`ProtocolVersion`]), not a trait.

mod decode;
mod encode;
mod error;
mod forwarded;
mod packet;
mod property;
mod reason_code;
mod scalar;
mod topic;
mod version;

pub use decode::{Decoded, Decoder, Side};
pub use encode::{EncodeError, EncodedPublish, TopicAlias, encode, encode_publish, encoded_len};
pub use error::Violation;
pub use forwarded::{decode_forwarded, encode_forwarded};
pub use packet::{
    Ack, Auth, ClientId, ConnAck, Connect, Disconnect, Packet, PacketId, Publish, QoS,
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe,
    Will,
};
pub use property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, UserProperty, WillProperties,
};
pub use reason_code::ReasonCode;
pub use topic::{ShareName, TopicError, TopicFilter, TopicName};
pub use version::ProtocolVersion;

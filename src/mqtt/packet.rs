//! The Control Packets, as values.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;

use super::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, UserProperty, WillProperties,
};
use super::{ProtocolVersion, ReasonCode, TopicName};

/// One Control Packet, of either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Client to server, first.
    Connect(Box<Connect>),
    /// Server to client, answers CONNECT.
    ConnAck(Box<ConnAck>),
    /// Either direction.
    Publish(Box<Publish>),
    /// Answers a QoS 1 PUBLISH.
    PubAck(Ack),
    /// Answers a QoS 2 PUBLISH.
    PubRec(Ack),
    /// Answers PUBREC.
    PubRel(Ack),
    /// Answers PUBREL.
    PubComp(Ack),
    /// Client to server.
    Subscribe(Box<Subscribe>),
    /// Answers SUBSCRIBE.
    SubAck(Box<SubAck>),
    /// Client to server.
    Unsubscribe(Box<Unsubscribe>),
    /// Answers UNSUBSCRIBE.
    UnsubAck(Box<UnsubAck>),
    /// Client to server.
    PingReq,
    /// Answers PINGREQ.
    PingResp,
    /// Client to server in every version, server to client in 5.0.
    Disconnect(Box<Disconnect>),
    /// Either direction, 5.0 only.
    Auth(Box<Auth>),
}

/// Quality of Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// 0.
    #[default]
    AtMostOnce = 0,
    /// 1.
    AtLeastOnce = 1,
    /// 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The level written as `bits`, if it is one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A Packet Identifier: 1..=65535. [MQTT-2.2.1-3]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first one.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// `None` for 0.
    pub const fn new(value: u16) -> Option<Self> {
        match NonZeroU16::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self.0.get()
    }

    /// The next one; 1 follows 65535.
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(value) => Self(value),
            None => Self::ONE,
        }
    }
}

/// A Client Identifier: chosen by the client, so never an identity. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Wraps a text that the codec has already checked to be an MQTT UTF-8 string.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({:?})", &self.0)
    }
}

/// CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// Told by protocol name and level.
    pub version: ProtocolVersion,
    /// Clean Start (5.0) or Clean Session (3.x).
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_seconds: u16,
    /// The Client Identifier; empty asks the server to assign one.
    pub client_id: ClientId,
    /// The Will Message.
    pub will: Option<Will>,
    /// User Name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Bytes>,
    /// Properties; the defaults in 3.x.
    pub properties: ConnectProperties,
}

impl fmt::Debug for Connect {
    /// Leaves the password out: a debug print must not leak it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_seconds", &self.keep_alive_seconds)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("properties", &self.properties)
            .finish()
    }
}

/// The Will of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Will Topic.
    pub topic: TopicName,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Properties; the defaults in 3.x.
    pub properties: WillProperties,
}

/// CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Reason Code; in 3.x the encoder maps it to a return code.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: ConnAckProperties,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; `None` when only a Topic Alias stands for it (5.0).
    pub topic: Option<TopicName>,
    /// Packet Identifier; present exactly when QoS > 0.
    pub packet_id: Option<PacketId>,
    /// Properties; the defaults in 3.x.
    pub properties: PublishProperties,
    /// Application Message.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Reason Code; always Success in 3.x.
    pub reason: ReasonCode,
    /// Properties; absent in nearly every acknowledgement.
    pub properties: Option<Box<AckProperties>>,
}

impl Ack {
    /// An acknowledgement without properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: None }
    }
}

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier, 1..=268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// At least one filter.
    pub filters: Vec<SubscribeFilter>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// A valid MQTT string, not yet known to be a valid Topic Filter: an invalid one is answered
    /// in SUBACK, it does not end the connection.
    pub filter: String,
    /// Subscription Options; in 3.x only the QoS.
    pub options: SubscriptionOptions,
}

/// Subscription Options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// Retain Handling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0: send retained messages at every subscribe.
    #[default]
    Send = 0,
    /// 1: send them only if the subscription is new.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: AckProperties,
    /// One per filter, in order.
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// User Properties.
    pub user_properties: Vec<UserProperty>,
    /// At least one filter.
    pub filters: Vec<String>,
}

/// UNSUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Properties.
    pub properties: AckProperties,
    /// One per filter, in order; not sent in 3.x.
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Reason Code; 3.x has none on the wire (Normal disconnection).
    pub reason: ReasonCode,
    /// Properties.
    pub properties: DisconnectProperties,
}

/// AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Reason Code.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: AuthProperties,
}

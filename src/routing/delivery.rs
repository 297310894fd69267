//! One subscriber's copy of a message, and the bytes that copies share.

use std::sync::Arc;

use super::Message;
use crate::mqtt::{
    EncodeError, EncodedPublish, PacketId, ProtocolVersion, Publish, QoS, TopicFilter,
    encode_publish,
};
use crate::time::Instant;

/// One session's copy of a message.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// QoS of this copy: the lower of the publisher's and the subscription's. [MQTT-3.8.4-8]
    pub qos: QoS,
    /// RETAIN of this copy.
    pub retain: bool,
    /// Subscription Identifiers of the subscriptions that matched.
    pub identifiers: Vec<u32>,
    /// The Shared Subscription that it is for, if it is for one.
    pub group: Option<TopicFilter>,
}

impl Delivery {
    /// Encodes this copy for `version` as it leaves at `now`. Its Packet Identifier and DUP are
    /// set when it is written.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        now: Instant,
    ) -> Result<EncodedPublish, EncodeError> {
        let mut properties = self.message.properties_at(now);
        properties.subscription_identifiers.clone_from(&self.identifiers);
        let publish = Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: Some(self.message.topic().clone()),
            packet_id: (self.qos > QoS::AtMostOnce).then_some(PacketId::ONE),
            properties,
            payload: self.message.payload().clone(),
        };
        encode_publish(&publish, version)
    }
}

/// The encodings of one message while it is fanned out: receivers that differ in nothing but
/// Packet Identifier and DUP share the bytes.
#[derive(Debug, Default)]
pub struct EncodedCopies {
    copies: Vec<(CopyKey, EncodedPublish)>,
}

type CopyKey = (bool, QoS, bool);

impl EncodedCopies {
    /// The bytes of `delivery` for `version`, made at most once for each kind of copy.
    pub fn encode(
        &mut self,
        delivery: &Delivery,
        version: ProtocolVersion,
        now: Instant,
    ) -> Result<EncodedPublish, EncodeError> {
        if !delivery.identifiers.is_empty() && version.is_v5() {
            return delivery.encode(version, now);
        }
        let key = (version.is_v5(), delivery.qos, delivery.retain);
        if let Some((_, encoded)) = self.copies.iter().find(|(seen, _)| *seen == key) {
            return Ok(encoded.clone());
        }
        let encoded = delivery.encode(version, now)?;
        self.copies.push((key, encoded.clone()));
        Ok(encoded)
    }
}

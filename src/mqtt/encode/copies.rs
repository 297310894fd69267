//! A PUBLISH that is encoded once for all its subscribers (section 3.3).
//!
//! Copies share the bytes. What differs between them is put in while a copy is written: DUP, the
//! Packet Identifier and, for a client that takes Topic Aliases, the alias, with or without the
//! topic. Which alias stands for which topic is not known here.

use std::num::NonZeroU16;

use bytes::Bytes;

use super::super::scalar::{Length, Sink as _, VARIABLE_MAX};
use super::super::{PacketId, ProtocolVersion, Publish, QoS};
use super::{Body, DUP, EncodeError, append, publish_first};

/// Bytes of the property Topic Alias: its identifier and a two byte integer.
const ALIAS_BYTES: usize = 3;
const ALIAS_ID: u8 = 0x23;

/// A Topic Alias on one copy of a PUBLISH. [MQTT-3.3.2-8]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicAlias {
    /// The alias; 0 is none.
    pub number: NonZeroU16,
    /// Whether the copy says what the alias stands for: topic and alias. Otherwise the alias is
    /// there in place of the topic.
    pub sets: bool,
}

/// A PUBLISH encoded once for all its subscribers: only DUP, the Packet Identifier and the Topic
/// Alias differ between copies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EncodedPublish {
    bytes: Bytes,
    /// Where the topic stands, without its length.
    topic_at: usize,
    topic_bytes: usize,
    payload_bytes: usize,
    has_packet_id: bool,
    aliased: Option<Aliased>,
    /// Whether there is a property section.
    is_v5: bool,
}

/// What an alias changes.
#[derive(Clone, Copy, Debug)]
struct Aliased {
    alias: TopicAlias,
    /// Of the property section with the alias, in bytes.
    properties: usize,
    /// Of the property section without it, and where it begins.
    old_properties: (usize, usize),
    /// Remaining Length of the copy.
    remaining: usize,
}

impl EncodedPublish {
    /// Length of this copy in bytes, for the receiver's Maximum Packet Size.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        match self.aliased {
            None => self.bytes.len(),
            Some(aliased) => 1 + variable_len(aliased.remaining) + aliased.remaining,
        }
    }

    /// Whether both are copies of one encoding.
    #[cfg(test)]
    pub(crate) fn shares_bytes_with(&self, other: &Self) -> bool {
        std::ptr::eq(self.bytes.as_ptr(), other.bytes.as_ptr())
    }

    /// Length of the payload in bytes.
    pub fn payload_len(&self) -> usize {
        self.payload_bytes
    }

    /// The Topic Name.
    pub fn topic(&self) -> &str {
        let topic = self.bytes.get(self.topic_at..self.topic_at + self.topic_bytes);
        // It was a string when it was written.
        topic.and_then(|topic| std::str::from_utf8(topic).ok()).unwrap_or_default()
    }

    /// A copy with `alias`, of the same bytes. `None` where there is no place for one: in 3.x, and
    /// in a packet that would be too long for any length field.
    pub fn with_alias(&self, alias: TopicAlias) -> Option<Self> {
        if !self.is_v5 {
            return None;
        }
        let old_at = self.properties_at();
        let (old, old_len) = read_variable(self.bytes.get(old_at..)?)?;
        let properties = old + ALIAS_BYTES;
        let topic_bytes = if alias.sets { self.topic_bytes } else { 0 };
        let packet_id_bytes = if self.has_packet_id { 2 } else { 0 };
        let rest = self.bytes.len().checked_sub(old_at + old_len)?;
        let remaining =
            2 + topic_bytes + packet_id_bytes + variable_len(properties) + ALIAS_BYTES + rest;
        let old_properties = (old_at, old_len);
        let aliased = Aliased { alias, properties, old_properties, remaining };
        (remaining <= VARIABLE_MAX).then(|| Self { aliased: Some(aliased), ..self.clone() })
    }

    /// Appends one copy to `out`. With QoS 0 both `dup` and `packet_id` are ignored; with QoS 1
    /// and 2 every copy needs a Packet Identifier of its receiver, and `None` leaves that of the
    /// PUBLISH it was encoded from.
    pub fn write_to(&self, dup: bool, packet_id: Option<PacketId>, out: &mut Vec<u8>) {
        let start = out.len();
        let packet_id_at = match &self.aliased {
            None => {
                out.extend_from_slice(&self.bytes);
                self.topic_at + self.topic_bytes
            }
            Some(aliased) => self.write_aliased(aliased, out) - start,
        };
        // [MQTT-2.2.1-2], [MQTT-3.3.1-2], [MQTT-4.3.1-1]
        if !self.has_packet_id {
            return;
        }
        let Some(copy) = out.get_mut(start..) else { return };
        if let Some(first) = copy.first_mut() {
            *first = if dup { *first | DUP } else { *first & !DUP };
        }
        let place = copy.get_mut(packet_id_at..).and_then(<[u8]>::first_chunk_mut);
        if let (Some(place), Some(packet_id)) = (place, packet_id) {
            *place = packet_id.as_u16().to_be_bytes();
        }
    }

    /// Appends the copy with its alias; where in `out` the Packet Identifier stands.
    fn write_aliased(&self, aliased: &Aliased, out: &mut Vec<u8>) -> usize {
        let part = |from: usize, to: usize| self.bytes.get(from..to).unwrap_or_default();
        let topic_end = self.topic_at + self.topic_bytes;
        let (old_at, old_len) = aliased.old_properties;
        out.reserve(self.len());
        out.extend_from_slice(part(0, 1));
        // Neither fails: both were found short enough when the alias was put on.
        let _ = out.variable(aliased.remaining);
        if aliased.alias.sets {
            out.extend_from_slice(part(self.topic_at - 2, topic_end));
        } else {
            out.u16(0);
        }
        let packet_id_at = out.len();
        out.extend_from_slice(part(topic_end, old_at));
        let _ = out.variable(aliased.properties);
        out.u8(ALIAS_ID);
        out.u16(aliased.alias.number.get());
        out.extend_from_slice(part(old_at + old_len, self.bytes.len()));
        packet_id_at
    }

    fn properties_at(&self) -> usize {
        self.topic_at + self.topic_bytes + if self.has_packet_id { 2 } else { 0 }
    }
}

/// Encodes `publish`; its `dup` and `packet_id` are placeholders for those of each copy.
///
/// # Errors
/// When it has no encoding in `version`.
pub fn encode_publish(
    publish: &Publish,
    version: ProtocolVersion,
) -> Result<EncodedPublish, EncodeError> {
    let mut bytes = Vec::new();
    append(publish_first(publish), &Body { of: publish, version }, &mut bytes)?;
    let continued = bytes.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count();
    Ok(EncodedPublish {
        bytes: bytes.into(),
        // First byte, Remaining Length, topic length.
        topic_at: 1 + (continued + 1) + 2,
        topic_bytes: publish.topic.as_ref().map_or(0, |topic| topic.as_str().len()),
        payload_bytes: publish.payload.len(),
        has_packet_id: publish.qos != QoS::AtMostOnce,
        aliased: None,
        is_v5: version.is_v5(),
    })
}

/// A Variable Byte Integer at the beginning of `bytes`, and its own length.
fn read_variable(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Bytes of a Variable Byte Integer.
fn variable_len(value: usize) -> usize {
    let mut length = Length::default();
    // Too long a value counts as nothing: it is refused where it is put on.
    let _ = length.variable(value);
    length.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::{Decoded, Decoder, Packet, PublishProperties, TopicName, UserProperty};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn alias(number: u16, sets: bool) -> TopicAlias {
        TopicAlias { number: NonZeroU16::new(number).unwrap(), sets }
    }

    proptest! {
        /// Around the lengths where a length field grows, too.
        #[test]
        fn a_copy_with_an_alias_is_the_packet_with_that_property(
            topic in "[a-z/]{1,140}",
            payload in prop::collection::vec(any::<u8>(), 0..140),
            user in 0..140_usize,
            qos in prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
            number in 1..=u16::MAX,
            sets in any::<bool>(),
            dup in any::<bool>(),
        ) {
            let mut properties = PublishProperties::default();
            if user > 0 {
                let value = "v".repeat(user - 1);
                properties.user_properties.push(UserProperty { name: "n".to_owned(), value });
            }
            let id = PacketId::new(0x0102).filter(|_| qos > QoS::AtMostOnce);
            let plain = Publish {
                dup: dup && qos > QoS::AtMostOnce,
                qos,
                retain: true,
                topic: Some(TopicName::parse(&topic).unwrap()),
                packet_id: id,
                properties,
                payload: payload.into(),
            };
            let shared = encode_publish(&Publish { dup: false, ..plain.clone() }, V5).unwrap();
            prop_assert_eq!(shared.topic(), &topic);
            let copy = shared.with_alias(alias(number, sets)).unwrap();
            let mut bytes = vec![7];
            copy.write_to(dup, id, &mut bytes);
            prop_assert_eq!(bytes.len() - 1, copy.len());
            let mut aliased = plain.clone();
            aliased.properties.topic_alias = Some(number);
            if !sets {
                aliased.topic = None;
            }
            let decoded = Decoder::client(V5, usize::MAX).decode(&bytes[1..]).unwrap();
            let Decoded::Packet { packet, .. } = decoded else { panic!("half a packet") };
            prop_assert_eq!(packet, Packet::Publish(Box::new(aliased)));
            // The shared bytes are as they were.
            let mut bytes = Vec::new();
            shared.write_to(plain.dup, id, &mut bytes);
            prop_assert_eq!(bytes.len(), shared.len());
            let decoded = Decoder::client(V5, usize::MAX).decode(&bytes).unwrap();
            let Decoded::Packet { packet, .. } = decoded else { panic!("half a packet") };
            prop_assert_eq!(packet, Packet::Publish(Box::new(plain)));
        }
    }

    #[test]
    fn three_x_has_no_alias() {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: Some(TopicName::parse("a").unwrap()),
            packet_id: None,
            properties: PublishProperties::default(),
            payload: Bytes::new(),
        };
        let encoded = encode_publish(&publish, ProtocolVersion::V3_1_1).unwrap();
        assert!(encoded.with_alias(alias(1, true)).is_none());
    }
}

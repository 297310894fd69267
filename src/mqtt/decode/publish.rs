//! PUBLISH (section 3.3). The hot path: the topic and the payload are each copied once.

use bytes::Bytes;

use super::{Side, connect, property};
use crate::mqtt::scalar::Reader;
use crate::mqtt::{ProtocolVersion, Publish, PublishProperties, QoS, Violation};

pub(super) fn publish(
    r: &mut Reader<'_>,
    first: u8,
    version: ProtocolVersion,
    side: Side,
) -> Result<Box<Publish>, Violation> {
    // [MQTT-3.3.1-4]; already refused with the first byte.
    let qos = QoS::from_bits((first >> 1) & 0b11).ok_or(Violation::QOS_3)?;
    // [MQTT-3.3.2-1]
    let topic = r.name()?;
    // [MQTT-2.2.1-2], [MQTT-2.2.1-3]
    let packet_id = if qos == QoS::AtMostOnce { None } else { Some(r.packet_id()?) };
    let properties =
        if version.is_v5() { property::publish(r, side)? } else { PublishProperties::default() };
    let topic = match (topic, version.is_v5()) {
        ("", true) if properties.topic_alias.is_some() => None,
        ("", true) => return Err(Violation::TOPIC_MISSING),
        (topic, _) => Some(connect::topic_name(topic)?),
    };
    Ok(Box::new(Publish {
        dup: first & 0b1000 != 0,
        qos,
        retain: first & 0b0001 != 0,
        topic,
        packet_id,
        properties,
        payload: Bytes::copy_from_slice(r.remainder()),
    }))
}

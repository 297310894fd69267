//! Control Packets in both versions, to and from the protocol engine's types.
//!
//! The engine has one set of types per version; this is the only place that knows.

use mqtt_protocol_core::mqtt;
use mqtt_protocol_core::mqtt::packet::{
    Packet, Property, SubEntry, SubOpts, UserProperty, v3_1_1, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{ConnectOptions, Message, Qos, Received, Version};

/// What a packet from the broker means to a client.
pub(super) enum Incoming {
    Connack {
        reason_code: u8,
        reason: Option<String>,
        session_present: bool,
    },
    Publish(Received),
    /// The last acknowledgement of a publish.
    Acknowledged {
        packet_id: u16,
        reason_code: u8,
        reason: Option<String>,
    },
    /// PUBREC 0x10, for which the engine owes a PUBREL that it does not send.
    AcknowledgedUnreleased {
        packet_id: u16,
        reason: Option<String>,
    },
    Subscribed {
        packet_id: u16,
        reason_codes: Vec<u8>,
    },
    Disconnect {
        reason_code: u8,
        reason: Option<String>,
    },
    /// Acknowledgements halfway (PUBREC, PUBREL) and PINGRESP: the engine has answered them.
    Handled,
}

impl Incoming {
    pub(super) fn from_packet(packet: &Packet) -> Self {
        match packet {
            Packet::V3_1_1Connack(connack) => Self::Connack {
                reason_code: connack.return_code() as u8,
                reason: None,
                session_present: connack.session_present(),
            },
            Packet::V5_0Connack(connack) => Self::Connack {
                reason_code: connack.reason_code() as u8,
                reason: reason_string(connack.props()),
                session_present: connack.session_present(),
            },
            Packet::V3_1_1Publish(publish) => Self::Publish(Received {
                topic: publish.topic_name().to_owned(),
                payload: publish.payload().as_slice().to_vec(),
                qos: qos_from(publish.qos()),
                retain: publish.retain(),
                dup: publish.dup(),
            }),
            Packet::V5_0Publish(publish) => Self::Publish(Received {
                topic: publish.topic_name().to_owned(),
                payload: publish.payload().as_slice().to_vec(),
                qos: qos_from(publish.qos()),
                retain: publish.retain(),
                dup: publish.dup(),
            }),
            Packet::V3_1_1Puback(ack) => acknowledged(ack.packet_id(), 0, None),
            Packet::V3_1_1Pubcomp(ack) => acknowledged(ack.packet_id(), 0, None),
            Packet::V5_0Puback(ack) => acknowledged(
                ack.packet_id(),
                ack.reason_code().map_or(0, |code| code as u8),
                ack.props().as_deref(),
            ),
            Packet::V5_0Pubcomp(ack) => acknowledged(
                ack.packet_id(),
                ack.reason_code().map_or(0, |code| code as u8),
                ack.props().as_deref(),
            ),
            Packet::V5_0Pubrec(ack) => match ack.reason_code().map_or(0, |code| code as u8) {
                0 => Self::Handled,
                code if code < 0x80 => Self::AcknowledgedUnreleased {
                    packet_id: ack.packet_id(),
                    reason: ack.props().as_deref().and_then(reason_string),
                },
                code => acknowledged(ack.packet_id(), code, ack.props().as_deref()),
            },
            Packet::V3_1_1Suback(suback) => Self::Subscribed {
                packet_id: suback.packet_id(),
                reason_codes: suback.return_codes().iter().map(|code| *code as u8).collect(),
            },
            Packet::V5_0Suback(suback) => Self::Subscribed {
                packet_id: suback.packet_id(),
                reason_codes: suback.reason_codes().iter().map(|code| *code as u8).collect(),
            },
            Packet::V5_0Disconnect(disconnect) => Self::Disconnect {
                reason_code: disconnect.reason_code().map_or(0, |code| code as u8),
                reason: disconnect.props().as_deref().and_then(reason_string),
            },
            _ => Self::Handled,
        }
    }
}

pub(super) fn connect(options: &ConnectOptions) -> Result<Packet, MqttError> {
    let will = options.will.as_ref();
    match options.version {
        Version::V3_1_1 => {
            let mut builder = v3_1_1::Connect::builder()
                .client_id(options.client_id.as_str())?
                .clean_session(options.clean)
                .keep_alive(options.keep_alive_secs);
            if let Some(will) = will {
                let payload = will.payload.clone();
                let qos = qos_to(will.qos);
                builder = builder.will_message(will.topic.as_str(), payload, qos, will.retain)?;
            }
            Ok(builder.build()?.into())
        }
        Version::V5_0 => {
            let mut builder = v5_0::Connect::builder()
                .client_id(options.client_id.as_str())?
                .clean_start(options.clean)
                .keep_alive(options.keep_alive_secs);
            if options.session_expiry_secs > 0 {
                let expiry = mqtt::packet::SessionExpiryInterval::new(options.session_expiry_secs)?;
                builder = builder.props(vec![Property::SessionExpiryInterval(expiry)]);
            }
            if let Some(will) = will {
                let payload = will.payload.clone();
                let qos = qos_to(will.qos);
                builder = builder.will_message(will.topic.as_str(), payload, qos, will.retain)?;
            }
            Ok(builder.build()?.into())
        }
    }
}

pub(super) fn publish(
    version: Version,
    message: &Message,
    packet_id: Option<u16>,
) -> Result<Packet, MqttError> {
    let payload = message.payload.as_slice();
    match version {
        Version::V3_1_1 => {
            let builder = v3_1_1::Publish::builder()
                .topic_name(message.topic.as_str())?
                .qos(qos_to(message.qos))
                .retain(message.retain)
                .payload(payload);
            let builder = match packet_id {
                Some(id) => builder.packet_id(id),
                None => builder,
            };
            Ok(builder.build()?.into())
        }
        Version::V5_0 => {
            let builder = v5_0::Publish::builder()
                .topic_name(message.topic.as_str())?
                .qos(qos_to(message.qos))
                .retain(message.retain)
                .payload(payload);
            let builder = match packet_id {
                Some(id) => builder.packet_id(id),
                None => builder,
            };
            let builder = match &message.statement {
                Some(statement) => {
                    let (name, value) = statement.property();
                    let property = UserProperty::new(name, value)?;
                    builder.props(vec![property.into()])
                }
                None => builder,
            };
            Ok(builder.build()?.into())
        }
    }
}

pub(super) fn subscribe(
    version: Version,
    filters: &[(String, Qos)],
    packet_id: u16,
) -> Result<Packet, MqttError> {
    let entries = filters
        .iter()
        .map(|(filter, qos)| SubEntry::new(filter.as_str(), SubOpts::new().set_qos(qos_to(*qos))))
        .collect::<Result<Vec<_>, _>>()?;
    match version {
        Version::V3_1_1 => {
            Ok(v3_1_1::Subscribe::builder().packet_id(packet_id).entries(entries).build()?.into())
        }
        Version::V5_0 => {
            Ok(v5_0::Subscribe::builder().packet_id(packet_id).entries(entries).build()?.into())
        }
    }
}

pub(super) fn disconnect(version: Version) -> Result<Packet, MqttError> {
    match version {
        Version::V3_1_1 => Ok(v3_1_1::Disconnect::builder().build()?.into()),
        Version::V5_0 => Ok(v5_0::Disconnect::builder().build()?.into()),
    }
}

fn acknowledged(packet_id: u16, reason_code: u8, props: Option<&[Property]>) -> Incoming {
    Incoming::Acknowledged { packet_id, reason_code, reason: props.and_then(reason_string) }
}

fn reason_string(props: &[Property]) -> Option<String> {
    props.iter().find_map(|property| match property {
        Property::ReasonString(reason) => Some(reason.val().to_owned()),
        _ => None,
    })
}

const fn qos_to(qos: Qos) -> mqtt::packet::Qos {
    match qos {
        Qos::AtMostOnce => mqtt::packet::Qos::AtMostOnce,
        Qos::AtLeastOnce => mqtt::packet::Qos::AtLeastOnce,
        Qos::ExactlyOnce => mqtt::packet::Qos::ExactlyOnce,
    }
}

const fn qos_from(qos: mqtt::packet::Qos) -> Qos {
    match qos {
        mqtt::packet::Qos::AtMostOnce => Qos::AtMostOnce,
        mqtt::packet::Qos::AtLeastOnce => Qos::AtLeastOnce,
        mqtt::packet::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

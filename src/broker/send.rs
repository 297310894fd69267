//! Control Packets to a client, as large as it takes them: the one way to [`Output::Send`].
//!
//! Copies of a PUBLISH are judged in [`super::deliver`], where they are encoded. The invariant: no
//! packet larger than the client's Maximum Packet Size leaves. [MQTT-3.1.2-24]

use std::collections::VecDeque;

use super::connection::Connection;
use super::input::ConnectionId;
use super::output::Output;
use crate::mqtt::{Packet, ProtocolVersion, UserProperty, encoded_len};

/// Asks the shell to send `packet`, without what the client has no room for; a packet that is too
/// large even then is not sent.
pub(super) fn send(
    outputs: &mut VecDeque<Output>,
    id: ConnectionId,
    connection: &Connection,
    packet: Packet,
) {
    let packet = match connection.version {
        Some(version) => fit(packet, version, connection.packet_bytes_max),
        None => Some(packet),
    };
    outputs.extend(packet.map(|packet| Output::Send { connection: id, packet }));
}

/// `packet` in no more than `bytes_max`: whole, or without its User Properties, or without its
/// Reason String too, or without its Server Reference. [MQTT-3.2.2-19], [MQTT-3.2.2-20] and their like for each packet.
pub(super) fn fit(
    mut packet: Packet,
    version: ProtocolVersion,
    bytes_max: usize,
) -> Option<Packet> {
    if bytes_max == usize::MAX {
        return Some(packet);
    }
    let fits = |packet: &Packet| encoded_len(packet, version).is_ok_and(|len| len <= bytes_max);
    if fits(&packet) {
        return Some(packet);
    }
    let dropped = optional(&mut packet).is_some_and(|(_, user)| {
        user.clear();
        true
    });
    if dropped && fits(&packet) {
        return Some(packet);
    }
    if let Some((reason_string, _)) = optional(&mut packet) {
        *reason_string = None;
    }
    if let (false, Packet::Disconnect(disconnect)) = (fits(&packet), &mut packet) {
        disconnect.properties.server_reference = None;
    }
    fits(&packet).then_some(packet)
}

/// What may be left out of a packet: its Reason String and its User Properties.
fn optional(packet: &mut Packet) -> Option<(&mut Option<String>, &mut Vec<UserProperty>)> {
    match packet {
        Packet::ConnAck(connack) => {
            let properties = &mut connack.properties;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            let properties = ack.properties.as_deref_mut()?;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        Packet::SubAck(suback) => {
            let properties = &mut suback.properties;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        Packet::UnsubAck(unsuback) => {
            let properties = &mut unsuback.properties;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        Packet::Disconnect(disconnect) => {
            let properties = &mut disconnect.properties;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        Packet::Auth(auth) => {
            let properties = &mut auth.properties;
            Some((&mut properties.reason_string, &mut properties.user_properties))
        }
        // What a client sends, a PUBLISH, and what has no properties.
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{
        Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Disconnect,
        DisconnectProperties, PacketId, ReasonCode, SubAck, UnsubAck,
    };

    const V5: ProtocolVersion = ProtocolVersion::V5;
    const REASON: ReasonCode = ReasonCode::UnspecifiedError;

    fn user() -> Vec<UserProperty> {
        vec![UserProperty { name: "name".into(), value: "value".into() }]
    }

    /// Each packet that may hold both, with `reason_string` and `user_properties`.
    fn packets(reason_string: Option<String>, user_properties: Vec<UserProperty>) -> Vec<Packet> {
        let properties = AckProperties {
            reason_string: reason_string.clone(),
            user_properties: user_properties.clone(),
        };
        let ack = Ack {
            packet_id: PacketId::ONE,
            reason: REASON,
            properties: Some(Box::new(properties.clone())),
        };
        vec![
            Packet::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason: REASON,
                properties: ConnAckProperties {
                    reason_string: reason_string.clone(),
                    user_properties: user_properties.clone(),
                    receive_maximum: Some(7),
                    ..Default::default()
                },
            })),
            Packet::PubAck(ack.clone()),
            Packet::PubRec(ack.clone()),
            Packet::PubRel(ack.clone()),
            Packet::PubComp(ack),
            Packet::SubAck(Box::new(SubAck {
                packet_id: PacketId::ONE,
                properties: properties.clone(),
                reasons: vec![REASON],
            })),
            Packet::UnsubAck(Box::new(UnsubAck {
                packet_id: PacketId::ONE,
                properties,
                reasons: vec![REASON],
            })),
            Packet::Disconnect(Box::new(Disconnect {
                reason: REASON,
                properties: DisconnectProperties {
                    reason_string: reason_string.clone(),
                    user_properties: user_properties.clone(),
                    ..Default::default()
                },
            })),
            Packet::Auth(Box::new(Auth {
                reason: REASON,
                properties: AuthProperties { reason_string, user_properties, ..Default::default() },
            })),
        ]
    }

    #[test]
    fn each_packet_loses_what_is_optional_one_byte_past_the_bound_and_is_withheld_at_last() {
        let len = |packet: &Packet| encoded_len(packet, V5).unwrap();
        let whole = packets(Some("why".into()), user());
        let without_user = packets(Some("why".into()), Vec::new());
        let bare = packets(None, Vec::new());
        for ((whole, less), bare) in whole.into_iter().zip(without_user).zip(bare) {
            let fit = |bytes_max| fit(whole.clone(), V5, bytes_max);
            assert_eq!(fit(len(&whole)).as_ref(), Some(&whole));
            assert_eq!(fit(len(&whole) - 1).as_ref(), Some(&less));
            assert_eq!(fit(len(&less)).as_ref(), Some(&less));
            let least = fit(len(&less) - 1).unwrap();
            assert_eq!(len(&least), len(&bare));
            assert_eq!(fit(len(&bare)), Some(least));
            assert_eq!(fit(len(&bare) - 1), None, "{bare:?}");
        }
        assert_eq!(fit(Packet::PingResp, V5, 2), Some(Packet::PingResp));
        assert_eq!(fit(Packet::PingResp, V5, 1), None);
    }

    #[test]
    fn the_counted_length_is_the_written_one() {
        for packet in packets(Some("w".repeat(200)), user()) {
            let mut bytes = Vec::new();
            crate::mqtt::encode(&packet, V5, &mut bytes).unwrap();
            assert_eq!(encoded_len(&packet, V5), Ok(bytes.len()));
        }
    }
}

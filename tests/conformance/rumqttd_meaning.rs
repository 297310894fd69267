//! What a packet that rumqttd decoded means, as a packet of ours.
//!
//! Reason codes are matched by their names, so that two tables of numbers are compared and not
//! one table with itself.

use avow::mqtt::{
    Ack, AckProperties, ClientId, ConnAck, ConnAckProperties, Connect, ConnectProperties,
    Disconnect, DisconnectProperties, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicName, UnsubAck, Unsubscribe, UserProperty, Will, WillProperties,
};
use bytes::{Buf, Bytes};
use rumqttd::protocol as theirs;

/// `None` where rumqttd holds something that no packet of ours can hold, such as Packet
/// Identifier 0 or a topic that is no Topic Name.
pub(crate) fn meaning(packet: theirs::Packet, version: ProtocolVersion) -> Option<Packet> {
    use theirs::Packet as T;
    Some(match packet {
        T::Connect(connect, properties, will, will_properties, login) => {
            let will = match will {
                Some(will) => Some(will_of(will, will_properties)?),
                None => None,
            };
            Packet::Connect(Box::new(connect_of(connect, properties, will, login, version)))
        }
        T::ConnAck(connack, properties) => Packet::ConnAck(Box::new(ConnAck {
            session_present: connack.session_present,
            reason: reason(connack.code),
            properties: properties.map(connack_properties).unwrap_or_default(),
        })),
        T::Publish(publish, properties) => {
            Packet::Publish(Box::new(publish_of(&publish, properties)?))
        }
        T::PubAck(ack, p) => Packet::PubAck(ack_of(
            ack.pkid,
            reason(ack.reason),
            p.map(|p| (p.reason_string, p.user_properties)),
        )?),
        T::PubRec(ack, p) => Packet::PubRec(ack_of(
            ack.pkid,
            reason(ack.reason),
            p.map(|p| (p.reason_string, p.user_properties)),
        )?),
        T::PubRel(ack, p) => Packet::PubRel(ack_of(
            ack.pkid,
            reason(ack.reason),
            p.map(|p| (p.reason_string, p.user_properties)),
        )?),
        T::PubComp(ack, p) => Packet::PubComp(ack_of(
            ack.pkid,
            reason(ack.reason),
            p.map(|p| (p.reason_string, p.user_properties)),
        )?),
        T::Subscribe(subscribe, properties) => {
            let (id, user) = properties.map_or((None, vec![]), |p| (p.id, p.user_properties));
            Packet::Subscribe(Box::new(Subscribe {
                packet_id: PacketId::new(subscribe.pkid)?,
                subscription_identifier: id.map(|id| u32::try_from(id).unwrap()),
                user_properties: user_properties(user),
                filters: subscribe.filters.into_iter().map(filter).collect(),
            }))
        }
        T::SubAck(suback, p) => Packet::SubAck(Box::new(SubAck {
            packet_id: PacketId::new(suback.pkid)?,
            properties: ack_properties(p.map(|p| (p.reason_string, p.user_properties))),
            reasons: suback.return_codes.into_iter().map(reason).collect(),
        })),
        T::Unsubscribe(unsubscribe, p) => Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: PacketId::new(unsubscribe.pkid)?,
            user_properties: user_properties(p.map(|p| p.user_properties).unwrap_or_default()),
            filters: unsubscribe.filters,
        })),
        T::UnsubAck(unsuback, p) => Packet::UnsubAck(Box::new(UnsubAck {
            packet_id: PacketId::new(unsuback.pkid)?,
            properties: ack_properties(p.map(|p| (p.reason_string, p.user_properties))),
            reasons: unsuback.reasons.into_iter().map(reason).collect(),
        })),
        T::PingReq(_) => Packet::PingReq,
        T::PingResp(_) => Packet::PingResp,
        T::Disconnect(disconnect, properties) => Packet::Disconnect(Box::new(Disconnect {
            reason: reason(disconnect.reason_code),
            properties: properties.map(disconnect_properties).unwrap_or_default(),
        })),
    })
}

fn connect_of(
    connect: theirs::Connect,
    properties: Option<theirs::ConnectProperties>,
    will: Option<Will>,
    login: Option<theirs::Login>,
    version: ProtocolVersion,
) -> Connect {
    let (user_name, password) = login.map(|login| (login.username, login.password)).unzip();
    Connect {
        version,
        clean_start: connect.clean_session,
        keep_alive_seconds: connect.keep_alive,
        client_id: ClientId::new(&connect.client_id),
        will,
        user_name: user_name.filter(|name| !name.is_empty()),
        password: password.filter(|password| !password.is_empty()).map(Bytes::from),
        properties: properties.map(connect_properties).unwrap_or_default(),
    }
}

fn reason(theirs: impl std::fmt::Debug) -> ReasonCode {
    let name = format!("{theirs:?}");
    let name = match &name[..] {
        "NormalDisconnection" | "QoS0" | "Success(AtMostOnce)" => "Success",
        "DisconnectWithWillMessage" => "DisconnectWithWill",
        "QoS1" | "Success(AtLeastOnce)" => "GrantedQoS1",
        "QoS2" | "Success(ExactlyOnce)" => "GrantedQoS2",
        "Failure" | "Unspecified" => "UnspecifiedError",
        "ImplementationSpecific" => "ImplementationSpecificError",
        "PkidInUse" => "PacketIdentifierInUse",
        "SubscriptionIdNotSupported" => "SubscriptionIdentifiersNotSupported",
        "SharedSubscriptionNotSupported" => "SharedSubscriptionsNotSupported",
        "RefusedProtocolVersion" => "UnsupportedProtocolVersion",
        "ServiceUnavailable" => "ServerUnavailable",
        "BadUserNamePassword" => "BadUserNameOrPassword",
        name => name,
    };
    let found = ReasonCode::ALL.into_iter().find(|ours| format!("{ours:?}") == name);
    found.unwrap_or_else(|| panic!("no Reason Code is called {name}"))
}

fn qos(theirs: theirs::QoS) -> QoS {
    match theirs {
        theirs::QoS::AtMostOnce => QoS::AtMostOnce,
        theirs::QoS::AtLeastOnce => QoS::AtLeastOnce,
        theirs::QoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn topic_name(theirs: &[u8]) -> Option<TopicName> {
    TopicName::parse(std::str::from_utf8(theirs).ok()?).ok()
}

fn user_properties(theirs: Vec<(String, String)>) -> Vec<UserProperty> {
    theirs.into_iter().map(|(name, value)| UserProperty { name, value }).collect()
}

type AckFields = Option<(Option<String>, Vec<(String, String)>)>;

fn ack_properties(fields: AckFields) -> AckProperties {
    let (reason_string, user) = fields.unwrap_or_default();
    AckProperties { reason_string, user_properties: user_properties(user) }
}

fn ack_of(pkid: u16, reason: ReasonCode, fields: AckFields) -> Option<Ack> {
    let properties = ack_properties(fields);
    let properties = (properties != AckProperties::default()).then(|| Box::new(properties));
    Some(Ack { packet_id: PacketId::new(pkid)?, reason, properties })
}

fn filter(theirs: theirs::Filter) -> SubscribeFilter {
    SubscribeFilter {
        filter: theirs.path,
        options: SubscriptionOptions {
            qos: qos(theirs.qos),
            no_local: theirs.nolocal,
            retain_as_published: theirs.preserve_retain,
            retain_handling: match theirs.retain_forward_rule {
                theirs::RetainForwardRule::OnEverySubscribe => RetainHandling::Send,
                theirs::RetainForwardRule::OnNewSubscribe => RetainHandling::SendIfNew,
                theirs::RetainForwardRule::Never => RetainHandling::DoNotSend,
            },
        },
    }
}

fn publish_of(
    publish: &theirs::Publish,
    properties: Option<theirs::PublishProperties>,
) -> Option<Publish> {
    // DUP, QoS and the Packet Identifier are private; rumqttd's own flat form shows them.
    let mut flat = publish.serialize();
    let first = flat.get_u8();
    let packet_id = flat.get_u16();
    let qos = QoS::from_bits((first >> 1) & 3)?;
    let properties = properties.map(|p| PublishProperties {
        payload_is_utf8: p.payload_format_indicator.map(|byte| byte != 0),
        message_expiry_seconds: p.message_expiry_interval,
        topic_alias: p.topic_alias,
        response_topic: p.response_topic,
        correlation_data: p.correlation_data,
        user_properties: user_properties(p.user_properties),
        subscription_identifiers: {
            let ids = p.subscription_identifiers.into_iter();
            ids.map(|id| u32::try_from(id).unwrap()).collect()
        },
        content_type: p.content_type,
    });
    Some(Publish {
        dup: first & 0b1000 != 0,
        qos,
        retain: publish.retain,
        topic: if publish.topic.is_empty() { None } else { Some(topic_name(&publish.topic)?) },
        packet_id: PacketId::new(packet_id),
        properties: properties.unwrap_or_default(),
        payload: publish.payload.clone(),
    })
}

fn will_of(will: theirs::LastWill, properties: Option<theirs::LastWillProperties>) -> Option<Will> {
    let properties = properties.map(|p| WillProperties {
        delay_seconds: p.delay_interval,
        publish: PublishProperties {
            payload_is_utf8: p.payload_format_indicator.map(|byte| byte != 0),
            message_expiry_seconds: p.message_expiry_interval,
            response_topic: p.response_topic,
            correlation_data: p.correlation_data,
            user_properties: user_properties(p.user_properties),
            content_type: p.content_type,
            ..PublishProperties::default()
        },
    });
    Some(Will {
        topic: topic_name(&will.topic)?,
        payload: will.message,
        qos: qos(will.qos),
        retain: will.retain,
        properties: properties.unwrap_or_default(),
    })
}

fn connect_properties(p: theirs::ConnectProperties) -> ConnectProperties {
    ConnectProperties {
        session_expiry_seconds: p.session_expiry_interval,
        receive_maximum: p.receive_maximum,
        maximum_packet_size: p.max_packet_size,
        topic_alias_maximum: p.topic_alias_max,
        request_response_information: p.request_response_info.map(|byte| byte != 0),
        request_problem_information: p.request_problem_info.map(|byte| byte != 0),
        authentication_method: p.authentication_method,
        authentication_data: p.authentication_data,
        user_properties: user_properties(p.user_properties),
    }
}

fn connack_properties(p: theirs::ConnAckProperties) -> ConnAckProperties {
    ConnAckProperties {
        session_expiry_seconds: p.session_expiry_interval,
        receive_maximum: p.receive_max,
        maximum_qos: p.max_qos,
        retain_available: p.retain_available.map(|byte| byte != 0),
        maximum_packet_size: p.max_packet_size,
        assigned_client_identifier: p.assigned_client_identifier,
        topic_alias_maximum: p.topic_alias_max,
        reason_string: p.reason_string,
        user_properties: user_properties(p.user_properties),
        wildcard_subscription_available: p.wildcard_subscription_available.map(|b| b != 0),
        subscription_identifiers_available: p.subscription_identifiers_available.map(|b| b != 0),
        shared_subscription_available: p.shared_subscription_available.map(|b| b != 0),
        server_keep_alive_seconds: p.server_keep_alive,
        response_information: p.response_information,
        server_reference: p.server_reference,
        authentication_method: p.authentication_method,
        authentication_data: p.authentication_data,
    }
}

fn disconnect_properties(p: theirs::DisconnectProperties) -> DisconnectProperties {
    DisconnectProperties {
        session_expiry_seconds: p.session_expiry_interval,
        reason_string: p.reason_string,
        user_properties: user_properties(p.user_properties),
        server_reference: p.server_reference,
    }
}

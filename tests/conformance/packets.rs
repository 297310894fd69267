//! Arbitrary valid packets, by version and by the side that sends them.
//!
//! Every packet is in the form that decoding gives: no empty property set where `None` says the
//! same, and nothing that its version can not carry.

use avow::mqtt::{
    Ack, AckProperties, Auth, AuthProperties, ClientId, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Decoded, Decoder, Disconnect, DisconnectProperties, Packet, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck,
    Subscribe, SubscribeFilter, SubscriptionOptions, TopicName, UnsubAck, Unsubscribe,
    UserProperty, Will, WillProperties, encode,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5];

/// A bound that no packet of these tests reaches.
pub(crate) const PACKET_BYTES_MAX: usize = 1 << 20;

pub(crate) fn encoded(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).unwrap();
    out
}

/// A server's decoder that has seen the CONNECT of `version`.
pub(crate) fn connected(version: ProtocolVersion) -> Decoder {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive_seconds: 60,
        client_id: ClientId::new("c"),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    };
    let bytes = encoded(&Packet::Connect(Box::new(connect)), version);
    let mut decoder = Decoder::server(PACKET_BYTES_MAX);
    assert!(matches!(decoder.decode(&bytes), Ok(Decoded::Packet { .. })));
    decoder
}

pub(crate) fn version() -> impl Strategy<Value = ProtocolVersion> {
    select(&VERSIONS[..])
}

/// What a client sends after its CONNECT.
pub(crate) fn from_client(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let common = prop_oneof![
        publish(version, false).prop_map(|p| Packet::Publish(Box::new(p))),
        acks(version),
        subscribe(version).prop_map(|p| Packet::Subscribe(Box::new(p))),
        unsubscribe(version).prop_map(|p| Packet::Unsubscribe(Box::new(p))),
        Just(Packet::PingReq),
        disconnect(version, false).prop_map(|p| Packet::Disconnect(Box::new(p))),
    ];
    if !version.is_v5() {
        return common.boxed();
    }
    let auth = auth(&[ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate]);
    prop_oneof![6 => common, 1 => auth].boxed()
}

/// What a server sends.
pub(crate) fn from_server(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let common = prop_oneof![
        connack(version).prop_map(|p| Packet::ConnAck(Box::new(p))),
        publish(version, true).prop_map(|p| Packet::Publish(Box::new(p))),
        acks(version),
        suback(version).prop_map(|p| Packet::SubAck(Box::new(p))),
        unsuback(version).prop_map(|p| Packet::UnsubAck(Box::new(p))),
        Just(Packet::PingResp),
    ];
    if !version.is_v5() {
        return common.boxed();
    }
    prop_oneof![
        6 => common,
        1 => disconnect(version, true).prop_map(|p| Packet::Disconnect(Box::new(p))),
        1 => auth(&[ReasonCode::ContinueAuthentication, ReasonCode::Success]),
    ]
    .boxed()
}

pub(crate) fn connect(version: ProtocolVersion) -> BoxedStrategy<Packet> {
    let client_id = name().prop_filter("3.1 has no empty Client Identifier", move |id| {
        version != ProtocolVersion::V3_1 || !id.is_empty()
    });
    (
        any::<bool>(),
        any::<u16>(),
        client_id,
        of(will(version)),
        of(name()),
        of(binary()),
        connect_properties(),
    )
        .prop_map(move |(clean_start, keep_alive_seconds, id, will, user_name, password, p)| {
            // 3.x has no password without a user name.
            let password = password.filter(|_| version.is_v5() || user_name.is_some());
            Packet::Connect(Box::new(Connect {
                version,
                clean_start,
                keep_alive_seconds,
                client_id: ClientId::new(&id),
                will,
                user_name,
                password,
                properties: if version.is_v5() { p } else { ConnectProperties::default() },
            }))
        })
        .boxed()
}

/// Free text.
fn text() -> impl Strategy<Value = String> {
    letters(&['a', 'Z', '0', ' ', '\n', 'é', '€', '𝄞', '\u{FEFF}', '+', '#', '/'], 0..9)
}

/// A string without control characters.
fn name() -> impl Strategy<Value = String> {
    letters(&['a', 'Z', '0', ' ', 'é', '€', '𝄞', '\u{FEFF}', '+', '#', '/', '$'], 0..9)
}

fn topic() -> impl Strategy<Value = TopicName> {
    let text = letters(&['a', 'b', '0', 'é', '/', '$'], 1..9);
    text.prop_map(|text| TopicName::parse(&text).unwrap())
}

fn letters(alphabet: &'static [char], len: std::ops::Range<usize>) -> BoxedStrategy<String> {
    vec(select(alphabet), len).prop_map(String::from_iter).boxed()
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..9).prop_map(Bytes::from)
}

/// Around the lengths where a Variable Byte Integer takes one more byte, too.
fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => binary(),
        1 => (100_usize..140).prop_map(|len| Bytes::from(vec![7; len])),
        1 => (16_360_usize..16_400).prop_map(|len| Bytes::from(vec![7; len])),
    ]
}

fn user_properties() -> impl Strategy<Value = Vec<UserProperty>> {
    vec((text(), text()).prop_map(|(name, value)| UserProperty { name, value }), 0..3)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn identifier() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..300, 16_000_u32..17_000, Just(268_435_455)]
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<bool>()),
        of(any::<bool>()),
        of((text(), of(binary()))),
        user_properties(),
    )
        .prop_map(
            |(expiry, receive, size, alias, response, problem, auth, user_properties)| {
                let (authentication_method, authentication_data) = method_and_data(auth);
                ConnectProperties {
                    session_expiry_seconds: expiry,
                    receive_maximum: receive,
                    maximum_packet_size: size,
                    topic_alias_maximum: alias,
                    request_response_information: response,
                    request_problem_information: problem,
                    authentication_method,
                    authentication_data,
                    user_properties,
                }
            },
        )
}

fn method_and_data(auth: Option<(String, Option<Bytes>)>) -> (Option<String>, Option<Bytes>) {
    auth.map_or((None, None), |(method, data)| (Some(method), data))
}

fn message_properties() -> impl Strategy<Value = PublishProperties> {
    (
        of(any::<bool>()),
        of(any::<u32>()),
        of(topic().prop_map(|topic| topic.as_str().to_owned())),
        of(binary()),
        user_properties(),
        of(text()),
    )
        .prop_map(
            |(utf8, expiry, response_topic, correlation, user_properties, content_type)| {
                PublishProperties {
                    payload_is_utf8: utf8,
                    message_expiry_seconds: expiry,
                    response_topic,
                    correlation_data: correlation,
                    user_properties,
                    content_type,
                    ..PublishProperties::default()
                }
            },
        )
}

fn will(version: ProtocolVersion) -> impl Strategy<Value = Will> {
    (topic(), binary(), qos(), any::<bool>(), of(any::<u32>()), message_properties()).prop_map(
        move |(topic, payload, qos, retain, delay_seconds, publish)| {
            let properties = WillProperties { delay_seconds, publish };
            let properties = if version.is_v5() { properties } else { WillProperties::default() };
            Will { topic, payload, qos, retain, properties }
        },
    )
}

fn publish(version: ProtocolVersion, from_server: bool) -> impl Strategy<Value = Publish> {
    let v5 = version.is_v5();
    (
        (any::<bool>(), qos(), any::<bool>()),
        of(topic()),
        packet_id(),
        topic(),
        of(1..=u16::MAX),
        vec(identifier(), 0..4),
        message_properties(),
        payload(),
    )
        .prop_map(
            move |((dup, qos, retain), topic, id, spare, alias, ids, properties, payload)| {
                let properties = PublishProperties {
                    topic_alias: alias,
                    subscription_identifiers: if from_server { ids } else { vec![] },
                    ..properties
                };
                let topic = if v5 && alias.is_some() { topic } else { topic.or(Some(spare)) };
                Publish {
                    dup: dup && qos != QoS::AtMostOnce,
                    qos,
                    retain,
                    topic,
                    packet_id: (qos != QoS::AtMostOnce).then_some(id),
                    properties: if v5 { properties } else { PublishProperties::default() },
                    payload,
                }
            },
        )
}

fn ack_properties() -> impl Strategy<Value = AckProperties> {
    (of(text()), user_properties()).prop_map(|(reason_string, user_properties)| AckProperties {
        reason_string,
        user_properties,
    })
}

fn ack(version: ProtocolVersion, reasons: &'static [ReasonCode]) -> BoxedStrategy<Ack> {
    (packet_id(), select(reasons), of(ack_properties()))
        .prop_map(move |(packet_id, reason, properties)| {
            if !version.is_v5() {
                return Ack::new(packet_id, ReasonCode::Success);
            }
            let properties = properties.filter(|p| *p != AckProperties::default()).map(Box::new);
            Ack { packet_id, reason, properties }
        })
        .boxed()
}

fn acks(version: ProtocolVersion) -> impl Strategy<Value = Packet> {
    use ReasonCode as R;
    const RECEIVED: &[ReasonCode] = &[
        R::Success,
        R::NoMatchingSubscribers,
        R::UnspecifiedError,
        R::ImplementationSpecificError,
        R::NotAuthorized,
        R::TopicNameInvalid,
        R::PacketIdentifierInUse,
        R::QuotaExceeded,
        R::PayloadFormatInvalid,
    ];
    const RELEASED: &[ReasonCode] = &[R::Success, R::PacketIdentifierNotFound];
    prop_oneof![
        ack(version, RECEIVED).prop_map(Packet::PubAck),
        ack(version, RECEIVED).prop_map(Packet::PubRec),
        ack(version, RELEASED).prop_map(Packet::PubRel),
        ack(version, RELEASED).prop_map(Packet::PubComp),
    ]
}

fn subscribe(version: ProtocolVersion) -> impl Strategy<Value = Subscribe> {
    let v5 = version.is_v5();
    let handling =
        select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    let filter = (name(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let options =
                SubscriptionOptions { qos, no_local, retain_as_published, retain_handling };
            let options_v3 = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
            SubscribeFilter { filter, options: if v5 { options } else { options_v3 } }
        },
    );
    (packet_id(), of(identifier()), user_properties(), vec(filter, 1..4)).prop_map(
        move |(packet_id, identifier, user_properties, filters)| Subscribe {
            packet_id,
            subscription_identifier: identifier.filter(|_| v5),
            user_properties: if v5 { user_properties } else { vec![] },
            filters,
        },
    )
}

fn unsubscribe(version: ProtocolVersion) -> impl Strategy<Value = Unsubscribe> {
    (packet_id(), user_properties(), vec(name(), 1..4)).prop_map(
        move |(packet_id, user_properties, filters)| Unsubscribe {
            packet_id,
            user_properties: if version.is_v5() { user_properties } else { vec![] },
            filters,
        },
    )
}

fn suback(version: ProtocolVersion) -> impl Strategy<Value = SubAck> {
    use ReasonCode as R;
    const V3: &[ReasonCode] = &[R::Success, R::GrantedQoS1, R::GrantedQoS2, R::UnspecifiedError];
    const V5: &[ReasonCode] = &[
        R::Success,
        R::GrantedQoS1,
        R::GrantedQoS2,
        R::UnspecifiedError,
        R::ImplementationSpecificError,
        R::NotAuthorized,
        R::TopicFilterInvalid,
        R::PacketIdentifierInUse,
        R::QuotaExceeded,
        R::SharedSubscriptionsNotSupported,
        R::SubscriptionIdentifiersNotSupported,
        R::WildcardSubscriptionsNotSupported,
    ];
    let v5 = version.is_v5();
    (packet_id(), ack_properties(), vec(select(if v5 { V5 } else { V3 }), 1..4)).prop_map(
        move |(packet_id, properties, reasons)| SubAck {
            packet_id,
            properties: if v5 { properties } else { AckProperties::default() },
            reasons,
        },
    )
}

fn unsuback(version: ProtocolVersion) -> impl Strategy<Value = UnsubAck> {
    use ReasonCode as R;
    const REASONS: &[ReasonCode] = &[
        R::Success,
        R::NoSubscriptionExisted,
        R::UnspecifiedError,
        R::ImplementationSpecificError,
        R::NotAuthorized,
        R::TopicFilterInvalid,
        R::PacketIdentifierInUse,
    ];
    let v5 = version.is_v5();
    (packet_id(), ack_properties(), vec(select(REASONS), 1..4)).prop_map(
        move |(packet_id, properties, reasons)| UnsubAck {
            packet_id,
            properties: if v5 { properties } else { AckProperties::default() },
            reasons: if v5 { reasons } else { vec![] },
        },
    )
}

fn connack(version: ProtocolVersion) -> impl Strategy<Value = ConnAck> {
    use ReasonCode as R;
    const V3: &[ReasonCode] = &[
        R::Success,
        R::UnsupportedProtocolVersion,
        R::ClientIdentifierNotValid,
        R::ServerUnavailable,
        R::BadUserNameOrPassword,
        R::NotAuthorized,
    ];
    const V5: &[ReasonCode] = &[
        R::Success,
        R::UnspecifiedError,
        R::MalformedPacket,
        R::ProtocolError,
        R::ImplementationSpecificError,
        R::UnsupportedProtocolVersion,
        R::ClientIdentifierNotValid,
        R::BadUserNameOrPassword,
        R::NotAuthorized,
        R::ServerUnavailable,
        R::ServerBusy,
        R::Banned,
        R::BadAuthenticationMethod,
        R::TopicNameInvalid,
        R::PacketTooLarge,
        R::QuotaExceeded,
        R::PayloadFormatInvalid,
        R::RetainNotSupported,
        R::QoSNotSupported,
        R::UseAnotherServer,
        R::ServerMoved,
        R::ConnectionRateExceeded,
    ];
    let v5 = version.is_v5();
    (any::<bool>(), select(if v5 { V5 } else { V3 }), connack_properties()).prop_map(
        move |(present, reason, properties)| ConnAck {
            session_present: present
                && reason == ReasonCode::Success
                && version != ProtocolVersion::V3_1,
            reason,
            properties: if v5 { properties } else { ConnAckProperties::default() },
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties> {
    let limits = (
        of(any::<u32>()),
        of(1..=u16::MAX),
        of(0..=1_u8),
        of(1..=u32::MAX),
        of(any::<u16>()),
        of(any::<u16>()),
    );
    let available = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let texts = (of(text()), of(text()), of(text()), of(text()), user_properties());
    (limits, available, texts, of((text(), of(binary())))).prop_map(
        |((expiry, receive, qos, size, alias, keep_alive), available, texts, auth)| {
            let (authentication_method, authentication_data) = method_and_data(auth);
            let (retain, wildcard, identifiers, shared) = available;
            let (client_id, reason, response, reference, user_properties) = texts;
            ConnAckProperties {
                session_expiry_seconds: expiry,
                receive_maximum: receive,
                maximum_qos: qos,
                retain_available: retain,
                maximum_packet_size: size,
                assigned_client_identifier: client_id,
                topic_alias_maximum: alias,
                reason_string: reason,
                user_properties,
                wildcard_subscription_available: wildcard,
                subscription_identifiers_available: identifiers,
                shared_subscription_available: shared,
                server_keep_alive_seconds: keep_alive,
                response_information: response,
                server_reference: reference,
                authentication_method,
                authentication_data,
            }
        },
    )
}

fn disconnect(version: ProtocolVersion, from_server: bool) -> impl Strategy<Value = Disconnect> {
    use ReasonCode as R;
    const CLIENT: &[ReasonCode] = &[
        R::Success,
        R::DisconnectWithWill,
        R::UnspecifiedError,
        R::MalformedPacket,
        R::ProtocolError,
        R::TopicAliasInvalid,
        R::PacketTooLarge,
    ];
    const SERVER: &[ReasonCode] = &[
        R::UnspecifiedError,
        R::MalformedPacket,
        R::NotAuthorized,
        R::ServerShuttingDown,
        R::KeepAliveTimeout,
        R::SessionTakenOver,
        R::PacketTooLarge,
        R::MessageRateTooHigh,
        R::AdministrativeAction,
        R::ServerMoved,
        R::MaximumConnectTime,
        R::WildcardSubscriptionsNotSupported,
    ];
    let reason = select(if from_server { SERVER } else { CLIENT });
    (reason, of(any::<u32>()), of(text()), user_properties(), of(text())).prop_map(
        move |(reason, expiry, reason_string, user_properties, reference)| {
            if !version.is_v5() {
                let properties = DisconnectProperties::default();
                return Disconnect { reason: R::Success, properties };
            }
            let properties = DisconnectProperties {
                session_expiry_seconds: expiry.filter(|_| !from_server),
                reason_string,
                user_properties,
                server_reference: reference.filter(|_| from_server),
            };
            Disconnect { reason, properties }
        },
    )
}

fn auth(reasons: &'static [ReasonCode]) -> impl Strategy<Value = Packet> {
    (select(reasons), text(), of(binary()), of(text()), user_properties()).prop_map(
        |(reason, method, authentication_data, reason_string, user_properties)| {
            Packet::Auth(Box::new(Auth {
                reason,
                properties: AuthProperties {
                    authentication_method: Some(method),
                    authentication_data,
                    reason_string,
                    user_properties,
                },
            }))
        },
    )
}

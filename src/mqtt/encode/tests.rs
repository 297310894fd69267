//! The bytes of each form; the round trips stand in `tests/conformance/`.

use bytes::Bytes;

use super::*;
use crate::mqtt::{
    ClientId, ConnAck, ConnAckProperties, Connect, ConnectProperties, PublishProperties,
    SubscribeFilter, TopicName, UserProperty,
};
use ProtocolVersion::{V3_1, V3_1_1, V5};

fn bytes(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).unwrap();
    out
}

fn id() -> PacketId {
    PacketId::new(0x0102).unwrap()
}

fn publish(qos: QoS, topic: Option<&str>) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.map(|topic| TopicName::parse(topic).unwrap()),
        packet_id: (qos != QoS::AtMostOnce).then(id),
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"p"),
    }
}

fn suback(reason: ReasonCode) -> Packet {
    let properties = AckProperties::default();
    Packet::SubAck(Box::new(SubAck { packet_id: id(), properties, reasons: vec![reason] }))
}

fn connack(session_present: bool, reason: ReasonCode) -> Packet {
    let properties = ConnAckProperties::default();
    Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties }))
}

#[test]
fn acknowledgements_take_their_shortest_form() {
    let ack = |reason, properties| Packet::PubAck(Ack { packet_id: id(), reason, properties });
    let empty = || Some(Box::new(AckProperties::default()));
    let said = Some(Box::new(AckProperties {
        reason_string: Some("r".to_owned()),
        user_properties: vec![],
    }));
    assert_eq!(bytes(&ack(ReasonCode::Success, None), V5), [0x40, 2, 1, 2]);
    assert_eq!(bytes(&ack(ReasonCode::Success, empty()), V5), [0x40, 2, 1, 2]);
    assert_eq!(bytes(&ack(ReasonCode::NotAuthorized, empty()), V5), [0x40, 3, 1, 2, 0x87]);
    assert_eq!(
        bytes(&ack(ReasonCode::Success, said), V5),
        [0x40, 8, 1, 2, 0x00, 4, 0x1F, 0, 1, b'r']
    );
    assert_eq!(bytes(&Packet::PubRel(Ack::new(id(), ReasonCode::Success)), V5), [0x62, 2, 1, 2]);
}

#[test]
fn disconnect_and_auth_take_their_shortest_form() {
    let disconnect = |reason| {
        let properties = DisconnectProperties::default();
        Packet::Disconnect(Box::new(Disconnect { reason, properties }))
    };
    assert_eq!(bytes(&disconnect(ReasonCode::Success), V5), [0xE0, 0]);
    assert_eq!(bytes(&disconnect(ReasonCode::SessionTakenOver), V5), [0xE0, 1, 0x8E]);
    assert_eq!(bytes(&disconnect(ReasonCode::SessionTakenOver), V3_1_1), [0xE0, 0]);
    let properties = AuthProperties::default();
    let auth = Packet::Auth(Box::new(Auth { reason: ReasonCode::Success, properties }));
    assert_eq!(bytes(&auth, V5), [0xF0, 0]);
}

#[test]
fn an_acknowledgement_that_refuses_has_no_form_in_3_x() {
    for version in [V3_1, V3_1_1] {
        let refused = Ack::new(id(), ReasonCode::NotAuthorized);
        for packet in [Packet::PubAck(refused.clone()), Packet::PubRec(refused)] {
            let mut out = vec![1, 2, 3];
            assert_eq!(encode(&packet, version, &mut out), Err(EncodeError::NotInVersion));
            assert_eq!(out, [1, 2, 3]);
        }
        let unknown = Ack::new(id(), ReasonCode::PacketIdentifierNotFound);
        assert_eq!(bytes(&Packet::PubComp(unknown), version), [0x70, 2, 1, 2]);
        let nobody = Ack::new(id(), ReasonCode::NoMatchingSubscribers);
        assert_eq!(bytes(&Packet::PubAck(nobody), version), [0x40, 2, 1, 2]);
    }
}

#[test]
fn suback_and_unsuback_of_3_x() {
    for reason in ReasonCode::ALL.into_iter().filter(|reason| reason.is_error()) {
        assert_eq!(bytes(&suback(reason), V3_1_1), [0x90, 3, 1, 2, 0x80]);
        assert_eq!(bytes(&suback(reason), V3_1), [0x90, 3, 1, 2, 0x80]);
        assert_eq!(bytes(&suback(reason), V5), [0x90, 4, 1, 2, 0, reason.as_u8()]);
    }
    assert_eq!(bytes(&suback(ReasonCode::GrantedQoS2), V3_1_1), [0x90, 3, 1, 2, 2]);
    let unsuback = Packet::UnsubAck(Box::new(UnsubAck {
        packet_id: id(),
        properties: AckProperties::default(),
        reasons: vec![ReasonCode::NotAuthorized],
    }));
    assert_eq!(bytes(&unsuback, V3_1_1), [0xB0, 2, 1, 2]);
    assert_eq!(bytes(&unsuback, V5), [0xB0, 4, 1, 2, 0, 0x87]);
}

#[test]
fn connack_return_codes_of_3_x() {
    let mut table = String::new();
    for reason in ReasonCode::ALL {
        let [0x20, 2, 0, code] = bytes(&connack(true, reason), V3_1)[..] else {
            panic!("{reason:?}")
        };
        if code != 3 {
            table += &format!("{code} {reason:?}\n");
        }
    }
    insta::assert_snapshot!(table, @r"
    0 Success
    1 UnsupportedProtocolVersion
    2 ClientIdentifierNotValid
    4 BadUserNameOrPassword
    5 NotAuthorized
    5 Banned
    4 BadAuthenticationMethod
    ");
}

#[test]
fn session_present_only_with_success_and_not_in_3_1() {
    assert_eq!(bytes(&connack(true, ReasonCode::Success), V5), [0x20, 3, 1, 0, 0]);
    assert_eq!(bytes(&connack(true, ReasonCode::Success), V3_1_1), [0x20, 2, 1, 0]);
    assert_eq!(bytes(&connack(true, ReasonCode::Success), V3_1), [0x20, 2, 0, 0]);
    assert_eq!(bytes(&connack(true, ReasonCode::NotAuthorized), V5), [0x20, 3, 0, 0x87, 0]);
}

#[test]
fn a_connect_is_written_in_its_own_version() {
    let connect = |version| {
        Packet::Connect(Box::new(Connect {
            version,
            clean_start: true,
            keep_alive_seconds: 60,
            client_id: ClientId::new("c"),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }))
    };
    assert_eq!(bytes(&connect(V3_1), V5), b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c");
    assert_eq!(bytes(&connect(V3_1_1), V5), b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c");
    assert_eq!(bytes(&connect(V5), V3_1), b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c");
}

#[test]
fn what_has_no_encoding_leaves_the_buffer_as_it_was() {
    let long = "a".repeat(65_536);
    let subscribe = |filter: &str, identifier| {
        Packet::Subscribe(Box::new(Subscribe {
            packet_id: id(),
            subscription_identifier: identifier,
            user_properties: vec![],
            filters: vec![SubscribeFilter {
                filter: filter.to_owned(),
                options: SubscriptionOptions::default(),
            }],
        }))
    };
    let mut unidentified = publish(QoS::AtLeastOnce, Some("t"));
    unidentified.packet_id = None;
    let mut huge = publish(QoS::AtMostOnce, Some("t"));
    huge.payload = Bytes::from(vec![0; VARIABLE_MAX]);
    let nameless = publish(QoS::AtMostOnce, None);
    for (packet, version, error) in [
        (subscribe(&long, None), V5, EncodeError::TooLong),
        (subscribe("t", Some(268_435_456)), V5, EncodeError::TooLong),
        (Packet::Publish(Box::new(huge)), V5, EncodeError::TooLong),
        (Packet::Publish(Box::new(unidentified)), V5, EncodeError::PacketIdMissing),
        (Packet::Publish(Box::new(nameless)), V3_1_1, EncodeError::NotInVersion),
    ] {
        let mut out = vec![1, 2, 3];
        assert_eq!(encode(&packet, version, &mut out), Err(error));
        assert_eq!(out, [1, 2, 3]);
    }
    assert!(bytes(&subscribe(&long[1..], Some(268_435_455)), V5).len() > 65_535);
}

#[test]
fn copies_of_an_encoded_publish_differ_in_dup_and_packet_identifier() {
    let mut of_qos_1 = publish(QoS::AtLeastOnce, Some("t"));
    of_qos_1.properties.user_properties =
        vec![UserProperty { name: "n".repeat(200), value: String::new() }];
    let encoded = encode_publish(&of_qos_1, V5).unwrap();
    let mut out = vec![0xAA; 3];
    encoded.write_to(true, PacketId::new(0xFFFE), &mut out);
    encoded.write_to(false, PacketId::new(7), &mut out);
    assert_eq!(out.len(), 3 + 2 * encoded.len());
    assert_eq!(out[3..11], [0x3A, 0xD5, 0x01, 0, 1, b't', 0xFF, 0xFE]);
    assert_eq!(out[3 + encoded.len()..][..8], [0x32, 0xD5, 0x01, 0, 1, b't', 0, 7]);

    let encoded = encode_publish(&publish(QoS::AtMostOnce, Some("t")), V3_1_1).unwrap();
    let mut out = Vec::new();
    encoded.write_to(true, PacketId::new(7), &mut out);
    assert_eq!(out, [0x30, 4, 0, 1, b't', b'p']);
}

//! The line: what is accepted, refused, recorded and acknowledged, and when.

use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;
const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const T: &str = "plant/a/telemetry/x";

#[test]
fn i4_nothing_is_seen_before_its_entry_is_on_disk() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let id = rig.open("device/a");
    rig.versions.insert(id, V5);
    rig.packet(id, Packet::Connect(Box::new(connect(V5, "a"))));
    assert_eq!(rig.take(id), [], "CONNACK waits");
    rig.sync();
    assert!(matches!(&rig.take(id)[..], [Packet::ConnAck(_)]));

    rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
    rig.packet(id, publish("plant/b/telemetry/x", "{}", QoS::AtLeastOnce, 2));
    assert_eq!((rig.take(id), rig.take(board)), (vec![], vec![]), "PUBACK and delivery wait");
    rig.sync();
    assert_eq!(rig.payloads(board), [r#"{"t":1}"#]);
    let acks = rig.take(id);
    assert!(
        matches!(&acks[..], [Packet::PubAck(yes), Packet::PubAck(no)]
            if yes.reason == ReasonCode::Success && no.reason == ReasonCode::NotAuthorized),
        "{acks:?}"
    );
}

#[test]
fn the_entry_says_who_sent_what_and_the_reason_string_names_the_decision() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 7));
    rig.packet(id, publish(T, r#"{"u":1}"#, QoS::AtLeastOnce, 8));
    rig.sync();
    let [accepted, refused] = &rig.entries[..] else { panic!("{:?}", rig.entries) };
    for (field, expected) in [
        ("type", "publish"),
        ("who", "device/a"),
        ("result", "allow"),
        ("rule", "telemetry"),
        ("schema", "telemetry"),
        ("topic", T),
        ("lvl", "A0"),
        ("node", "plant"),
    ] {
        assert_eq!(accepted[field], expected, "{accepted}");
    }
    assert_eq!((&accepted["pid"], &accepted["len"]), (&Value::from(7), &Value::from(7)));
    assert_eq!(refused["type"], "publish.refused");
    assert_eq!(refused["why"], "schema.mismatch");
    assert_eq!(refused["c"], Value::Null, "what is refused is not kept");
    let numbers: Vec<_> = [accepted, refused].iter().map(|entry| entry["n"].clone()).collect();
    assert_eq!(numbers, [1, 2], "a gap would show");
    let decision = refused["id"].as_str().unwrap().to_owned();
    let acks = rig.take(id);
    let Packet::PubAck(no) = &acks[1] else { panic!("{acks:?}") };
    let text = no.properties.as_ref().unwrap().reason_string.as_deref().unwrap();
    assert_eq!(text, format!("schema.mismatch; decision {decision}"));
}

#[test]
fn a_3_x_client_that_is_refused_is_closed_and_its_qos_0_is_silent() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V3);
    rig.entries.clear();
    rig.packet(id, publish("plant/b/telemetry/x", "{}", QoS::AtMostOnce, 0));
    rig.sync();
    assert_eq!((rig.take(id), rig.closed.clone()), (vec![], vec![]));
    rig.packet(id, publish("plant/b/telemetry/x", "{}", QoS::AtLeastOnce, 1));
    assert_eq!(rig.closed, [], "recorded first");
    rig.sync();
    assert_eq!((rig.take(id), rig.closed.clone()), (vec![], vec![id]));
    assert_eq!(rig.entry_types(), ["publish.refused", "publish.refused", "disconnect"]);
}

#[test]
fn qos_2_is_delivered_once_however_often_it_is_sent() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    for _ in 0..3 {
        rig.packet(id, publish(T, r#"{"t":1}"#, QoS::ExactlyOnce, 5));
    }
    rig.sync();
    assert_eq!(rig.payloads(board).len(), 1);
    assert_eq!(rig.take(id), vec![Packet::PubRec(ack(5)); 3]);
    assert_eq!(rig.entry_types(), ["publish", "publish.dup", "publish.dup"]);
    rig.packet(id, Packet::PubRel(ack(5)));
    assert_eq!(rig.take(id), [Packet::PubComp(ack(5))]);
    rig.packet(id, Packet::PubRel(ack(5)));
    let Packet::PubComp(unknown) = &rig.take(id)[0] else { panic!() };
    assert_eq!(unknown.reason, ReasonCode::PacketIdentifierNotFound);
    rig.packet(id, publish(T, r#"{"t":2}"#, QoS::ExactlyOnce, 5));
    rig.sync();
    assert_eq!(rig.payloads(board), [r#"{"t":2}"#]);
}

#[test]
fn a_quarantined_message_goes_to_those_who_read_the_quarantine_and_is_answered_no() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    rig.subscribe(board, "$quarantine/#", QoS::AtMostOnce);
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    rig.packet(id, publish("plant/a/telemetry/odd", r#"{"u":1}"#, QoS::AtLeastOnce, 1));
    rig.sync();
    let seen = rig.delivered(board);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let topic = seen[0].topic.as_ref().unwrap().as_str();
    assert_eq!(topic, "$quarantine/odd/plant/a/telemetry/odd");
    let Packet::PubAck(no) = &rig.take(id)[0] else { panic!() };
    assert_eq!(no.reason, ReasonCode::ImplementationSpecificError);
    assert_eq!(rig.entries[0]["type"], "publish.refused");
    assert_eq!(rig.entries[0]["quarantine"], topic);
}

#[test]
fn c12_an_alias_stands_for_the_topic_that_is_checked_and_routed() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let id = rig.client("device/a", V5);
    let mut first = message(T, r#"{"t":1}"#, QoS::AtMostOnce, 0);
    first.properties.topic_alias = Some(1);
    let mut second = first.clone();
    second.topic = None;
    rig.packet(id, Packet::Publish(Box::new(first)));
    rig.packet(id, Packet::Publish(Box::new(second)));
    rig.sync();
    let seen = rig.delivered(board);
    assert_eq!(seen.len(), 2);
    for publish in seen {
        assert_eq!(publish.topic.unwrap().as_str(), T);
        assert_eq!(publish.properties.topic_alias, None);
    }
    let mut forbidden = message("plant/b/telemetry/x", "{}", QoS::AtLeastOnce, 9);
    forbidden.properties.topic_alias = Some(1);
    rig.packet(id, Packet::Publish(Box::new(forbidden)));
    let mut again = message(T, "{}", QoS::AtLeastOnce, 10);
    again.topic = None;
    again.properties.topic_alias = Some(1);
    rig.packet(id, Packet::Publish(Box::new(again)));
    rig.sync();
    assert_eq!(rig.payloads(board), Vec::<String>::new(), "the alias now means what is forbidden");
}

#[test]
fn d03_more_than_the_receive_maximum_is_a_violation() {
    let bounds = Bounds { receive_maximum: 2, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let id = rig.client("device/a", V5);
    for packet_id in 1..=3 {
        rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, packet_id));
    }
    rig.sync();
    let sent = rig.take(id);
    let Some(Packet::Disconnect(last)) = sent.last() else { panic!("{sent:?}") };
    assert_eq!(last.reason, ReasonCode::ReceiveMaximumExceeded);
    assert_eq!(rig.closed, [id]);
}

#[test]
fn bounds_hold_at_the_bound_and_refuse_one_past_it() {
    let bounds = Bounds { topic_levels_max: 4, topic_bytes_max: 24, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let id = rig.client("device/a", V5);
    let reasons = |rig: &mut Rig, topic: &str| {
        rig.packet(id, publish(topic, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
        rig.sync();
        match &rig.take(id)[..] {
            [Packet::PubAck(ack)] => ack.reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reasons(&mut rig, T), ReasonCode::Success);
    assert_eq!(reasons(&mut rig, "plant/a/telemetry/x/y"), ReasonCode::TopicNameInvalid);
    assert_eq!(reasons(&mut rig, "plant/a/telemetry/123456"), ReasonCode::Success);
    assert_eq!(reasons(&mut rig, "plant/a/telemetry/1234567"), ReasonCode::TopicNameInvalid);
}

#[test]
fn a_second_connect_and_packets_of_a_server_end_the_connection() {
    let mut rig = Rig::new();
    for bad in [Packet::Connect(Box::new(connect(V5, "a"))), Packet::PingResp] {
        let id = rig.client("device/a", V5);
        rig.packet(id, bad);
        rig.sync();
        let sent = rig.take(id);
        let Some(Packet::Disconnect(last)) = sent.last() else { panic!("{sent:?}") };
        assert_eq!(last.reason, ReasonCode::ProtocolError);
        assert_eq!(rig.closed.pop(), Some(id));
        rig.close(id);
    }
}

#[test]
fn a_stop_tells_everybody_and_writes_the_last_entry() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    rig.input(Input::Stop);
    assert!(!rig.stopped, "the stop entry is not on disk yet");
    rig.sync();
    assert!(rig.stopped);
    let sent = rig.take(id);
    assert!(matches!(&sent[..], [Packet::Disconnect(last)]
        if last.reason == ReasonCode::ServerShuttingDown));
    assert_eq!(rig.entry_types(), ["disconnect", "stop"]);
}

#[test]
fn handshake_refusals_of_one_address_share_an_entry() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let peer = "10.0.0.9:1".parse().unwrap();
    for _ in 0..5 {
        rig.input(Input::HandshakeRefused { peer, reason: "certificate.expired" });
    }
    assert_eq!(rig.entry_types(), ["connect.refused"]);
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.entries[0]["count"], 4);
    assert_eq!(rig.entries[0]["peer"], "10.0.0.9");
    rig.entries.clear();
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.entry_types(), Vec::<String>::new());
}

#[test]
fn pubcomp_waits_for_the_disk_like_every_answer() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    rig.input(Input::Packets {
        connection: id,
        packets: vec![publish(T, r#"{"t":1}"#, QoS::ExactlyOnce, 1), Packet::PubRel(ack(1))],
    });
    assert_eq!(rig.take(id), [], "neither PUBREC nor PUBCOMP before the sync");
    rig.sync();
    assert_eq!(rig.take(id), [Packet::PubRec(ack(1)), Packet::PubComp(ack(1))]);
}

#[test]
fn a_flood_of_what_is_refused_is_counted_past_the_limits() {
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1;
    limits.default.messages_burst = 3;
    let mut rig = Rig::with(Bounds { topic_levels_max: 4, ..Bounds::default() }, limits);
    for topic in ["plant/b/telemetry/x", "a/b/c/d/e/f"] {
        let id = rig.client("device/a", V5);
        rig.entries.clear();
        for _ in 0..50 {
            rig.packet(id, publish(topic, "{}", QoS::AtMostOnce, 0));
        }
        rig.sync();
        let entries = rig.entry_types().len();
        assert!(entries <= 5, "{entries} entries for fifty refusals of {topic}");
        rig.close(id);
        rig.advance(Duration::from_secs(60));
    }
}

#[test]
fn b05_too_many_filters_are_one_entry_and_unsubscribe_answers_with_its_own_codes() {
    let mut rig = Rig::new();
    let id = rig.client("dashboard/b", V5);
    rig.entries.clear();
    let filters: Vec<SubscribeFilter> = (0..9)
        .map(|at| SubscribeFilter { filter: format!("plant/{at}"), options: Default::default() })
        .collect();
    let names = filters.iter().map(|wanted| wanted.filter.clone()).collect();
    rig.packet(
        id,
        Packet::Subscribe(Box::new(Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier: None,
            user_properties: Vec::new(),
            filters,
        })),
    );
    rig.sync();
    let Packet::SubAck(no) = &rig.take(id)[0] else { panic!() };
    assert_eq!(no.reasons, vec![ReasonCode::QuotaExceeded; 9]);
    assert_eq!(rig.entry_types(), ["subscribe"]);
    rig.packet(
        id,
        Packet::Unsubscribe(Box::new(crate::mqtt::Unsubscribe {
            packet_id: PacketId::ONE,
            user_properties: Vec::new(),
            filters: names,
        })),
    );
    rig.sync();
    let Packet::UnsubAck(none) = &rig.take(id)[0] else { panic!() };
    assert_eq!(none.reasons, vec![ReasonCode::NoSubscriptionExisted; 9]);
    assert_eq!(rig.entry_types(), ["unsubscribe"]);
}

#[test]
fn d12_counts_of_refusals_are_bounded_and_the_rest_is_counted_without_a_name() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let refuse = |rig: &mut Rig, at: u32| {
        let peer = (std::net::Ipv4Addr::from(0x0a00_0000 + at), 1).into();
        rig.input(Input::HandshakeRefused { peer, reason: "certificate.expired" });
    };
    for at in 0..16_386 {
        refuse(&mut rig, at);
    }
    refuse(&mut rig, 0);
    assert_eq!(rig.entry_types().len(), 16_384, "the bound, and two past it");
    rig.advance(Duration::from_millis(9_999));
    assert_eq!(rig.entry_types(), Vec::<String>::new());
    rig.advance(Duration::from_millis(4));
    let counts: Vec<_> = rig.entries.drain(..).map(|entry| entry["count"].clone()).collect();
    assert_eq!(counts, [1, 2], "one more of the first peer, two of nobody");
    refuse(&mut rig, 0);
    assert_eq!(rig.entry_types(), ["connect.refused"], "a new interval begins with an entry");
}

#[test]
fn what_goes_to_subscribers_beside_the_payload_is_committed_to_and_kept() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    let mut with = message(T, r#"{"t":1}"#, QoS::AtLeastOnce, 1);
    with.properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry_seconds: Some(60),
        topic_alias: Some(1),
        response_topic: Some("r".into()),
        correlation_data: Some(Bytes::from_static(b"17")),
        user_properties: vec![UserProperty { name: "a".into(), value: "b".into() }],
        content_type: Some("application/json".into()),
        ..Default::default()
    };
    rig.packet(id, Packet::Publish(Box::new(with.clone())));
    rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 2));
    rig.sync();
    // The rig has checked the commitments of each body it saw.
    let [first, second] = &rig.entries[..] else { panic!("{:?}", rig.entries) };
    assert!(first["props"].is_string());
    assert_eq!(second["props"], Value::Null, "a plain message has no byte of it");
    with.properties.topic_alias = None;
    let kept = crate::mqtt::decode_forwarded(&rig.bodies[0].properties);
    assert_eq!(kept.as_ref(), Ok(&with.properties));
    assert!(rig.bodies[1].properties.is_empty());
    let seen = rig.delivered(board);
    assert_eq!(seen[0].properties, with.properties, "what is kept is what was delivered");
}

#[test]
fn an_accepted_topic_stands_whole_in_its_entry() {
    let bounds = Bounds { topic_bytes_max: 400, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    let topic = format!("{T}/{}", "x".repeat(400 - T.len() - 1));
    rig.packet(id, publish(&topic, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
    rig.packet(id, publish(&format!("{topic}y"), r#"{"t":1}"#, QoS::AtLeastOnce, 2));
    rig.sync();
    assert_eq!(rig.entries[0]["topic"], topic);
    assert_eq!(rig.entries[1]["topic"], topic[..256], "what is refused, by its beginning");
}

#[test]
fn d03_a_3_x_client_is_not_read_while_as_many_as_the_receive_maximum_are_unanswered() {
    let bounds = Bounds { receive_maximum: 2, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let id = rig.client("device/a", V3);
        for round in 0..2 {
            let packet_id = 1 + 3 * round;
            rig.packet(id, publish(T, r#"{"t":1}"#, qos, packet_id));
            assert_eq!(rig.paused, [], "one below the bound");
            rig.packet(id, publish(T, r#"{"t":1}"#, qos, packet_id + 1));
            assert_eq!(rig.paused, [id], "at the bound");
            // It was in the same read.
            rig.packet(id, publish(T, r#"{"t":1}"#, qos, packet_id + 2));
            assert_eq!((rig.paused.clone(), rig.closed.clone()), (vec![id], vec![]));
            rig.sync();
            assert_eq!(rig.paused, [], "answered: also QoS 2, whose PUBREL must be read");
            assert_eq!(rig.take(id).len(), 3);
        }
        rig.close(id);
        rig.closed.clear();
    }
    let modern = rig.client("device/a", V5);
    for packet_id in 1..=2 {
        rig.packet(modern, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, packet_id));
    }
    assert_eq!(rig.paused, [], "5.0 was told the bound");
}

#[test]
fn who_is_held_back_is_neither_silent_nor_resumed_by_another_timer() {
    let bounds = Bounds { receive_maximum: 1, ..Bounds::default() };
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1;
    limits.default.messages_burst = 1;
    let mut rig = Rig::with(bounds, limits);
    let id = rig.client("device/a", V3);
    rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
    rig.packet(id, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 2));
    let tick = |rig: &mut Rig, seconds: u64| {
        rig.now.instant = rig.now.instant.after(Duration::from_secs(seconds));
        rig.broker.handle_timeout(rig.now);
        rig.round();
    };
    tick(&mut rig, 2);
    assert!(rig.paused.contains(&id), "its limit is kept, its answers are not on disk");
    tick(&mut rig, 600);
    assert_eq!(rig.closed, [], "who is not read cannot be heard");
    rig.sync();
    assert_eq!(rig.paused, []);
    rig.advance(Duration::from_secs(89));
    assert_eq!(rig.closed, []);
    rig.advance(Duration::from_secs(90));
    assert_eq!(rig.closed, [id]);
}

#[test]
fn a_flood_of_what_is_refused_at_qos_0_is_slowed_and_at_last_disconnected() {
    let mut limits = LimitsConfig { pause_seconds_max: 2, ..LimitsConfig::default() };
    limits.default.messages_per_second = 1;
    limits.default.messages_burst = 3;
    for topic in ["plant/b/telemetry/x", "a/b/c/d/e/f"] {
        let bounds = Bounds { topic_levels_max: 4, ..Bounds::default() };
        let mut rig = Rig::with(bounds, limits.clone());
        let id = rig.client("device/a", V5);
        let flood = |rig: &mut Rig, count: usize| {
            for _ in 0..count {
                rig.packet(id, publish(topic, "{}", QoS::AtMostOnce, 0));
            }
        };
        flood(&mut rig, 3);
        assert_eq!(rig.paused, [], "within its limits");
        flood(&mut rig, 1);
        assert_eq!(rig.paused, [id], "one past them");
        rig.advance(Duration::from_secs(1));
        assert_eq!(rig.paused, []);
        flood(&mut rig, 2);
        rig.sync();
        assert_eq!(rig.closed, [], "slowed by no more than the longest pause");
        flood(&mut rig, 1);
        rig.sync();
        let sent = rig.take(id);
        let Some(Packet::Disconnect(last)) = sent.last() else { panic!("{sent:?}") };
        assert_eq!(last.reason, ReasonCode::MessageRateTooHigh);
        assert_eq!(rig.closed, [id]);
    }
}

//! What flows towards clients: `$SYS`, Topic Aliases, Server Reference, shared windows, and crowds
//! of messages and of subscribers.

use super::*;
use crate::mqtt::{TopicAlias, TopicFilter};

const V5: ProtocolVersion = ProtocolVersion::V5;

fn about(sys_interval_seconds: u32, server_reference: Option<&str>) -> Rig {
    let server_reference = server_reference.map(Into::into);
    let about = About { sys_interval_seconds, server_reference };
    let mut settings = Settings { about, ..super::super::testing::settings() };
    let policy = r##"
        version = 1
        [[permit]]
        id = "ids"
        who = ["device", "dashboard", "operator"]
        client_id = "*"
        [[permit]]
        id = "sys"
        who = ["operator"]
        subscribe = ["$SYS/#"]
        [[permit]]
        id = "rest"
        who = ["device", "dashboard", "operator"]
        publish = ["plant/#"]
        subscribe = ["plant/#", "#"]
        retain = true
        schema = "none"
    "##;
    settings.policy = Arc::new(crate::policy::Policy::parse("policy.toml", policy).unwrap());
    Rig::of(settings)
}

fn figures(publishes: Vec<Publish>) -> BTreeMap<String, String> {
    let text = |publish: Publish| {
        let topic =
            publish.topic.unwrap().as_str().strip_prefix("$SYS/broker/").unwrap().to_owned();
        (topic, String::from_utf8(publish.payload.to_vec()).unwrap())
    };
    publishes.into_iter().map(text).collect()
}

#[test]
fn sys_is_shown_to_who_may_read_it_and_later_only_what_has_changed() {
    let mut rig = about(10, None);
    let device = rig.client("device/d", V5);
    for id in 1..=3 {
        rig.packet(device, publish("plant/d/a", "12345", QoS::AtLeastOnce, id));
    }
    rig.sync();
    let operator = rig.client("operator/o", V5);
    rig.entries.clear();
    rig.subscribe(operator, "$SYS/broker/#", QoS::ExactlyOnce);
    assert_eq!(rig.entry_types(), ["subscribe"]);
    // The walk has a second step.
    rig.broker.handle_timeout(rig.now);
    rig.sync();
    let shown = rig.delivered(operator);
    assert!(shown.iter().all(|publish| publish.retain && publish.qos == QoS::AtMostOnce));
    let shown = figures(shown);
    for (name, value) in [
        ("version", concat!("avow version ", env!("CARGO_PKG_VERSION"))),
        ("uptime", "0 seconds"),
        ("clients/connected", "2"),
        ("clients/total", "2"),
        ("publish/messages/received", "3"),
        ("publish/bytes/received", "15"),
        ("subscriptions/count", "1"),
        ("shared_subscriptions/count", "0"),
        ("load/publish/received/15min", "0.00"),
    ] {
        assert_eq!(shown.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(shown.len(), 22 + 27);

    // Wildcards at the first level do not come to it, for whoever may read it either.
    let other = rig.client("operator/p", V5);
    rig.subscribe(other, "#", QoS::AtMostOnce);
    rig.entries.clear();
    rig.advance(Duration::from_secs(10));
    let changed = figures(rig.delivered(operator));
    assert_eq!(changed["uptime"], "10 seconds");
    assert_eq!(changed["clients/connected"], "3");
    assert!(!changed.contains_key("version") && !changed.contains_key("clients/expired"));
    // 3 in 10 seconds, seen through a window of a minute.
    let minute = 18.0 * (1.0 - (-10.0_f64 / 60.0).exp());
    assert_eq!(changed["load/publish/received/1min"], format!("{minute:.2}"));
    assert_eq!(rig.delivered(other), []);
    assert_eq!(rig.entries, [] as [Value; 0], "evidence says nothing of counters");
    // It takes no place among the retained messages.
    assert_eq!(rig.broker.counters().retained_live, 0);
}

#[test]
fn sys_makes_no_message_while_nobody_subscribes_and_none_at_all_where_it_is_off() {
    let mut rig = about(10, None);
    let operator = rig.client("operator/o", V5);
    rig.advance(Duration::from_secs(10));
    assert!(rig.broker.sys.store(&TopicFilter::parse("$SYS/#").unwrap()).unwrap().is_empty());
    rig.subscribe(operator, "$SYS/#", QoS::AtMostOnce);
    // The walk has a second step.
    rig.broker.handle_timeout(rig.now);
    rig.sync();
    assert_eq!(figures(rig.delivered(operator))["uptime"], "10 seconds");
    let unsubscribe = crate::mqtt::Unsubscribe {
        packet_id: PacketId::ONE,
        user_properties: Vec::new(),
        filters: vec!["$SYS/#".to_owned()],
    };
    rig.packet(operator, Packet::Unsubscribe(Box::new(unsubscribe)));
    rig.sync();
    rig.advance(Duration::from_secs(10));
    assert!(rig.broker.sys.store(&TopicFilter::parse("$SYS/#").unwrap()).unwrap().is_empty());
    assert_eq!(rig.delivered(operator), []);

    let mut rig = about(0, None);
    let operator = rig.client("operator/o", V5);
    rig.subscribe(operator, "$SYS/#", QoS::AtMostOnce);
    rig.advance(Duration::from_secs(3_600));
    assert_eq!(rig.delivered(operator), []);
}

/// A subscriber that takes `maximum` aliases and packets of `bytes_max`; its session stays.
fn alias_reader(rig: &mut Rig, maximum: u16, bytes_max: Option<u32>) -> ConnectionId {
    let mut packet = lasting(V5, "b", 1_000);
    packet.properties.topic_alias_maximum = Some(maximum);
    packet.properties.maximum_packet_size = bytes_max;
    rig.connect("dashboard/b", packet)
}

/// Topic and alias of each copy.
fn named(publishes: &[Publish]) -> Vec<(Option<&str>, Option<u16>)> {
    let name = |publish: &Publish| publish.properties.topic_alias;
    publishes.iter().map(|p| (p.topic.as_ref().map(TopicName::as_str), name(p))).collect()
}

#[test]
fn an_alias_is_set_once_and_then_stands_alone_until_the_next_connection() {
    let mut rig = about(0, None);
    let board = alias_reader(&mut rig, 1, None);
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    let device = rig.client("device/d", V5);
    for (id, topic) in [(1, "plant/a"), (2, "plant/b"), (3, "plant/a")] {
        rig.packet(device, publish(topic, "x", QoS::AtLeastOnce, id));
        rig.sync();
    }
    let first = rig.delivered(board);
    let (a, b) = (Some("plant/a"), Some("plant/b"));
    assert_eq!(named(&first), [(a, Some(1)), (b, None), (None, Some(1))]);
    // What was not acknowledged is sent again, and there the alias is said anew.
    rig.close(board);
    let board = alias_reader(&mut rig, 2, None);
    let again = rig.delivered(board);
    assert!(again.iter().all(|publish| publish.dup));
    assert_eq!(named(&again), [(a, Some(1)), (b, Some(2)), (None, Some(1))]);
    rig.close(board);
    let board = alias_reader(&mut rig, 0, None);
    assert_eq!(named(&rig.delivered(board)), [(a, None), (b, None), (a, None)]);
}

#[test]
fn the_maximum_packet_size_is_that_of_the_copy_with_its_alias() {
    let mut rig = about(0, None);
    let topic = "plant/abcdefghijkl";
    let plain = 2 + 2 + topic.len() + 1;
    // Room for the topic or the alias, not both, and for a payload of one byte.
    let max = u32::try_from(plain + 1).unwrap();
    let board = alias_reader(&mut rig, 9, Some(max));
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let device = rig.client("device/d", V5);
    let told = |rig: &mut Rig, topic: &str, payload: &str| {
        rig.packet(device, publish(topic, payload, QoS::AtMostOnce, 0));
        rig.sync();
        let seen = rig.delivered(board);
        named(&seen).first().map(|(topic, alias)| (topic.map(str::to_owned), *alias))
    };
    assert_eq!(told(&mut rig, topic, "x"), Some((Some(topic.to_owned()), None)));
    assert_eq!(told(&mut rig, topic, "xx"), None, "too large");
    let shorter = "plant/abcdefghi";
    assert_eq!(told(&mut rig, shorter, "x"), Some((Some(shorter.to_owned()), Some(1))));
    // The alias makes room for what was too large without it.
    let long = "x".repeat(shorter.len() + 1);
    assert_eq!(told(&mut rig, shorter, &long), Some((None, Some(1))));
    assert_eq!(told(&mut rig, shorter, &format!("{long}x")), None);
    // Nothing that left is still counted as on its way.
    assert_eq!(rig.broker.connections[&board].outstanding_bytes, 0);
}

#[test]
fn a_stop_sends_clients_to_the_server_that_is_named() {
    let mut rig = about(0, Some("standby.example:8883"));
    let (new, old) = (rig.client("device/a", V5), rig.client("device/b", ProtocolVersion::V3_1_1));
    let mut small = connect(V5, "c");
    small.properties.maximum_packet_size = Some(20);
    small.properties.receive_maximum = Some(1);
    let small = rig.connect("device/c", small);
    rig.take(small);
    rig.entries.clear();
    rig.input(Input::Stop);
    rig.sync();
    let told = |packets: &[Packet]| match packets {
        [Packet::Disconnect(last)] => Some((last.reason, last.properties.server_reference.clone())),
        _ => None,
    };
    let reference = Some("standby.example:8883".to_owned());
    let moved = ReasonCode::UseAnotherServer;
    assert_eq!(told(&rig.take(new)), Some((moved, reference)));
    assert_eq!(told(&rig.take(small)), Some((moved, None)), "no room for more");
    assert_eq!(rig.take(old), [], "3.x has no such packet");
    let ends = rig.entries.iter().filter(|entry| entry["type"] == "disconnect");
    assert!(ends.clone().all(|entry| entry["code"] == 0x9C && entry["how"] == "shutdown"));
    assert_eq!(ends.count(), 3);
}

#[test]
fn a_shared_message_goes_past_a_member_whose_window_is_full() {
    let mut rig = about(0, None);
    let member = |rig: &mut Rig, name: &str, window: u16| {
        let mut packet = connect(V5, name);
        packet.properties.receive_maximum = Some(window);
        let id = rig.connect(&format!("dashboard/{name}"), packet);
        rig.take(id);
        rig.subscribe(id, "$share/g/plant/#", QoS::AtLeastOnce);
        id
    };
    let (narrow, wide) = (member(&mut rig, "n", 1), member(&mut rig, "w", 10));
    let device = rig.client("device/d", V5);
    let send = |rig: &mut Rig, count: u16| {
        for id in 1..=count {
            rig.packet(device, publish("plant/a", "x", QoS::AtLeastOnce, id));
        }
        rig.sync();
    };
    send(&mut rig, 6);
    assert_eq!((rig.delivered(narrow).len(), rig.delivered(wide).len()), (1, 5));
    // Room again: its turn again.
    rig.packet(narrow, Packet::PubAck(ack(1)));
    send(&mut rig, 2);
    assert_eq!((rig.delivered(narrow).len(), rig.delivered(wide).len()), (1, 1));
}

#[test]
fn a_walk_through_ten_thousand_retained_messages_lets_others_in_between() {
    const COUNT: usize = 10_000;
    let bounds = Bounds { outbound_bytes_max: u32::MAX, ..Bounds::default() };
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.bytes_per_second = 1_000_000_000;
    limits.default.bytes_burst = 1_000_000_000;
    let mut rig = Rig::with(bounds, limits);
    // The socket of the subscriber says nothing meanwhile.
    rig.writes = false;
    let device = rig.client("device/a", V5);
    for at in 0..COUNT {
        let topic = format!("plant/a/sealed/{at:05}");
        let retained = Publish { retain: true, ..message(&topic, "x", QoS::AtMostOnce, 0) };
        rig.packet(device, Packet::Publish(Box::new(retained)));
    }
    rig.sync();
    assert_eq!(rig.broker.counters().retained_live, COUNT as u64);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe_with(board, "plant/#", SubscriptionOptions::default(), None);
    let mut seen = rig.delivered(board).len();
    let mut steps = 0;
    assert!(seen <= COUNT / 20, "{seen} in the first step");
    while seen < COUNT {
        // Whoever comes between two steps is served between them.
        rig.packet(device, publish("plant/a/sealed/x", "y", QoS::AtLeastOnce, 1));
        rig.sync();
        assert!(matches!(&rig.take(device)[..], [Packet::PubAck(_)]), "after {seen}");
        let live = rig.payloads(board);
        assert_eq!(live, ["y"], "no step of the walk came with it");
        rig.broker.handle_timeout(rig.now);
        rig.sync();
        let step = rig.delivered(board).len();
        assert!(step > 0 && step <= COUNT / 20, "{step} in one step");
        (seen, steps) = (seen + step, steps + 1);
    }
    assert_eq!(seen, COUNT);
    assert!(steps >= 19, "{steps}");
}

#[test]
fn a_thousand_subscribers_of_one_topic_share_one_encoding() {
    const COUNT: usize = 1_000;
    let mut rig = about(0, None);
    let mut boards = Vec::new();
    for at in 0..COUNT {
        let board = rig.client(&format!("dashboard/b{at}"), V5);
        rig.subscribe(board, "plant/a", QoS::AtMostOnce);
        boards.push(board);
    }
    let device = rig.client("device/d", V5);
    let input = Input::Packets {
        connection: device,
        packets: vec![publish("plant/a", "x", QoS::AtLeastOnce, 1)],
    };
    rig.broker.handle(rig.now, input);
    rig.broker.finish_round(rig.now);
    let Some(Output::Sequence { id, .. }) = rig.broker.poll_output() else { panic!("no batch") };
    rig.broker.handle(rig.now, Input::Sequenced(Synced::assertion(id, 9_000)));
    let mut copies = Vec::new();
    let mut acknowledged = 0;
    while let Some(output) = rig.broker.poll_output() {
        match output {
            Output::Deliver { connection, publish, .. } => copies.push((connection, publish)),
            Output::Send { packet: Packet::PubAck(_), .. } => acknowledged += 1,
            _ => {}
        }
    }
    assert_eq!((copies.len(), acknowledged), (COUNT, 1));
    let (_, first) = &copies[0];
    assert!(copies.iter().all(|(_, copy)| copy.shares_bytes_with(first)));
    let receivers: Vec<ConnectionId> = copies.iter().map(|(id, _)| *id).collect();
    assert_eq!(receivers, boards, "in the order of their sessions, whatever the map's is");
    // An alias is put on a copy, the bytes beneath it stay shared.
    let alias = TopicAlias { number: std::num::NonZeroU16::MIN, sets: true };
    assert!(first.with_alias(alias).unwrap().shares_bytes_with(first));
}

#[test]
fn topics_and_filters_hold_at_their_bounds_and_not_one_past_them() {
    let bounds = Bounds::default();
    let levels = usize::from(bounds.topic_levels_max);
    let bytes = usize::from(bounds.topic_bytes_max);
    let deep = |levels: usize| format!("plant{}", "/a".repeat(levels - 1));
    let long = |bytes: usize| format!("plant/{}", "b".repeat(bytes - 6));
    let mut rig = about(0, None);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let device = rig.client("device/d", V5);
    let cases = [
        (deep(levels), ReasonCode::Success),
        (deep(levels + 1), ReasonCode::TopicNameInvalid),
        (long(bytes), ReasonCode::Success),
        (long(bytes + 1), ReasonCode::TopicNameInvalid),
    ];
    for (topic, expected) in &cases {
        rig.packet(device, publish(topic, "x", QoS::AtLeastOnce, 1));
        rig.sync();
        let sent = rig.take(device);
        let Some(Packet::PubAck(ack)) = sent.first() else { panic!("{sent:?}") };
        assert_eq!(ack.reason, *expected, "{} bytes", topic.len());
        let arrived = rig.delivered(board).len();
        assert_eq!(arrived, usize::from(*expected == ReasonCode::Success));
    }
    let share = "$share/group/";
    let filters = [
        (deep(levels), true),
        (deep(levels + 1), false),
        (format!("{}/#", deep(levels - 1)), true),
        (format!("{}/#", deep(levels)), false),
        (format!("{}/+", deep(levels)), false),
        (long(usize::from(bounds.filter_bytes_max)), true),
        (long(usize::from(bounds.filter_bytes_max) + 1), false),
        // The prefix counts towards the bytes, not towards the levels.
        (format!("{share}{}", deep(levels)), true),
        (format!("{share}{}", long(usize::from(bounds.filter_bytes_max) - share.len())), true),
        (format!("{share}{}", long(usize::from(bounds.filter_bytes_max) - share.len() + 1)), false),
    ];
    for (filter, granted) in filters {
        rig.subscribe_with(board, &filter, SubscriptionOptions::default(), None);
        let sent = rig.take(board);
        let Some(Packet::SubAck(ack)) = sent.first() else { panic!("{sent:?}") };
        let expected = if granted { ReasonCode::Success } else { ReasonCode::TopicFilterInvalid };
        assert_eq!(ack.reasons, [expected], "{filter}");
    }
}

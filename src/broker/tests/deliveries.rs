//! Who receives what, how, and how much.

use super::*;
use crate::mqtt::RetainHandling;

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/telemetry/x";

fn retained(topic: &str, payload: &str) -> Packet {
    let mut publish = message(topic, payload, QoS::AtLeastOnce, 1);
    publish.retain = true;
    Packet::Publish(Box::new(publish))
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    let at = |qos| SubscriptionOptions { qos, ..Default::default() };
    rig.subscribe_with(board, "plant/#", at(QoS::AtMostOnce), Some(1));
    rig.subscribe_with(board, "plant/+/telemetry/#", at(QoS::AtLeastOnce), Some(2));
    rig.take(board);
    let device = rig.client("device/a", V5);
    rig.packet(device, publish(T, r#"{"t":1}"#, QoS::ExactlyOnce, 1));
    rig.sync();
    let seen = rig.delivered(board);
    assert_eq!((seen.len(), seen[0].qos), (1, QoS::AtLeastOnce));
    let mut identifiers = seen[0].properties.subscription_identifiers.clone();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2]);
}

#[test]
fn retained_messages_reach_new_subscriptions_as_their_options_say() {
    let mut rig = Rig::new();
    let device = rig.client("device/a", V5);
    rig.packet(device, retained(T, r#"{"t":1}"#));
    rig.sync();
    let board = rig.client("dashboard/b", V5);
    let with = |retain_handling| SubscriptionOptions { retain_handling, ..Default::default() };
    rig.subscribe_with(board, "plant/+/telemetry/#", with(RetainHandling::DoNotSend), None);
    assert_eq!(rig.payloads(board), Vec::<String>::new());
    rig.subscribe_with(board, "plant/+/telemetry/#", with(RetainHandling::SendIfNew), None);
    assert_eq!(rig.payloads(board), Vec::<String>::new(), "known already");
    rig.subscribe_with(board, "plant/+/telemetry/#", with(RetainHandling::Send), None);
    let seen = rig.delivered(board);
    assert_eq!((seen.len(), seen[0].retain), (1, true));
    rig.subscribe_with(board, "plant/#", with(RetainHandling::SendIfNew), None);
    assert_eq!(rig.delivered(board).len(), 1, "new");

    rig.entries.clear();
    rig.packet(device, retained(T, ""));
    rig.sync();
    assert_eq!(rig.entry_types(), ["publish", "retain.clear"]);
    assert_eq!(rig.broker.retained.len(), 0);
}

#[test]
fn retain_as_published_keeps_the_flag_and_others_lose_it() {
    let mut rig = Rig::new();
    let keeps = rig.client("dashboard/b", V5);
    let loses = rig.client("dashboard/c", V5);
    let options = SubscriptionOptions { retain_as_published: true, ..Default::default() };
    rig.subscribe_with(keeps, "plant/#", options, None);
    rig.subscribe_with(loses, "plant/#", SubscriptionOptions::default(), None);
    rig.take(keeps);
    rig.take(loses);
    let device = rig.client("device/a", V5);
    rig.packet(device, retained(T, r#"{"t":1}"#));
    rig.sync();
    assert_eq!((rig.delivered(keeps)[0].retain, rig.delivered(loses)[0].retain), (true, false));
}

#[test]
fn c06_retained_messages_are_judged_again_at_delivery() {
    let mut rig = Rig::new();
    let device = rig.client("device/a", V5);
    rig.packet(device, retained(T, r#"{"t":1}"#));
    rig.sync();
    let other = rig.open("device/c");
    rig.versions.insert(other, V5);
    rig.packet(other, Packet::Connect(Box::new(connect(V5, "c"))));
    rig.sync();
    rig.take(other);
    rig.subscribe_with(other, "#", SubscriptionOptions::default(), None);
    let sent = rig.take(other);
    let Packet::SubAck(no) = &sent[0] else { panic!("{sent:?}") };
    assert_eq!((no.reasons[0], sent.len()), (ReasonCode::NotAuthorized, 1));
}

#[test]
fn a_refused_filter_is_answered_with_its_reason_and_the_decision_that_the_log_has() {
    let mut rig = Rig::new();
    let device = rig.client("device/a", V5);
    rig.subscribe_with(device, "#", SubscriptionOptions::default(), None);
    let sent = rig.take(device);
    let Packet::SubAck(no) = &sent[0] else { panic!("{sent:?}") };
    let entry = rig.entries.last().unwrap();
    let (why, decision) = (entry["why"].as_str().unwrap(), entry["id"].as_str().unwrap());
    let told = no.properties.reason_string.as_deref();
    assert_eq!(told, Some(format!("{why}; decision {decision}").as_str()));

    let quiet = rig.open("device/c");
    rig.versions.insert(quiet, V5);
    let mut wants_none = connect(V5, "c");
    wants_none.properties.request_problem_information = Some(false);
    rig.packet(quiet, Packet::Connect(Box::new(wants_none)));
    rig.sync();
    rig.take(quiet);
    rig.subscribe_with(quiet, "#", SubscriptionOptions::default(), None);
    let sent = rig.take(quiet);
    let Packet::SubAck(no) = &sent[0] else { panic!("{sent:?}") };
    assert!(no.reasons[0].is_error() && no.properties.reason_string.is_none());
}

#[test]
fn d04_a_stopped_reader_costs_its_window_and_its_queue_and_no_more() {
    let bounds = Bounds {
        queue_messages_max: 5,
        outbound_bytes_max: 200,
        send_window_messages_max: 100,
        ..Bounds::default()
    };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    rig.writes = false;
    let device = rig.client("device/a", V5);
    for _ in 0..50 {
        rig.packet(device, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
        rig.sync();
    }
    let handed = rig.delivered(board).len();
    assert!((5..10).contains(&handed), "{handed}");
    assert_eq!(rig.broker.queued.0, 5);
    assert_eq!(rig.broker.counters().deliveries_dropped as usize, 50 - handed - 5);
    // The socket takes what it was given: the queue follows.
    rig.writes = true;
    rig.input(Input::Written { connection: board, bytes: 10_000 });
    assert_eq!((rig.delivered(board).len(), rig.broker.queued.0), (5, 0));
    let bytes = (handed + 5) * (T.len() + 7);
    assert_eq!(rig.broker.queued.1, bytes as u64, "until they are acknowledged");
}

#[test]
fn the_clients_receive_maximum_holds_messages_back() {
    let mut rig = Rig::new();
    let mut packet = connect(V5, "b");
    packet.properties.receive_maximum = Some(2);
    let board = rig.connect("dashboard/b", packet);
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    let device = rig.client("device/a", V5);
    for packet_id in 1..=5 {
        rig.packet(device, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, packet_id));
    }
    rig.sync();
    let first = rig.delivered(board);
    assert_eq!(first.len(), 2);
    let id = first[0].packet_id.unwrap().as_u16();
    rig.packet(board, Packet::PubAck(ack(id)));
    assert_eq!(rig.delivered(board).len(), 1);
}

#[test]
fn the_clients_maximum_packet_size_withholds_what_is_larger() {
    let mut rig = Rig::new();
    let mut packet = connect(V5, "b");
    packet.properties.maximum_packet_size = Some(60);
    let board = rig.connect("dashboard/b", packet);
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    let device = rig.client("device/a", V5);
    let sealed = "plant/a/sealed/x";
    rig.packet(device, publish(sealed, &"x".repeat(100), QoS::AtLeastOnce, 1));
    rig.packet(device, publish(sealed, "small", QoS::AtLeastOnce, 2));
    rig.sync();
    assert_eq!(rig.payloads(board), ["small"]);
}

#[test]
fn a_message_expires_in_the_queue_and_its_interval_counts_down() {
    let mut rig = Rig::new();
    let board = rig.connect("dashboard/b", lasting(V5, "b", 1_000));
    rig.subscribe_with(
        board,
        "plant/#",
        SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() },
        None,
    );
    rig.close(board);
    let device = rig.client("device/a", V5);
    for (packet_id, seconds) in [(1, 10), (2, 100)] {
        let mut publish = message(T, r#"{"t":1}"#, QoS::AtLeastOnce, packet_id);
        publish.properties.message_expiry_seconds = Some(seconds);
        rig.packet(device, Packet::Publish(Box::new(publish)));
    }
    rig.sync();
    rig.advance(Duration::from_secs(30));
    let board = rig.connect("dashboard/b", lasting(V5, "b", 1_000));
    let seen = rig.delivered(board);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].properties.message_expiry_seconds, Some(70));
}

#[test]
fn ten_thousand_retained_messages_leave_as_fast_as_they_are_taken() {
    let mut rig = Rig::with(
        Bounds { outbound_bytes_max: 4_096, ..Bounds::default() },
        LimitsConfig::default(),
    );
    let count = 10_000;
    for at in 0..count {
        let publish = Publish {
            retain: true,
            ..message(&format!("plant/a/sealed/{at:05}"), "x", QoS::AtMostOnce, 0)
        };
        let author =
            crate::session::Author::new(identity("a"), ClientId::new("a"), ProtocolVersion::V5);
        let topic = publish.topic.clone().unwrap();
        let received = crate::session::Received::new(author, topic, Box::new(publish));
        let authorized = rig.broker.settings.policy.authorize(received).unwrap();
        let admitted = crate::limits::Admitted::for_will(authorized);
        let conforming = rig.broker.settings.schemas.check_will(admitted).unwrap();
        let synced = Synced::assertion(BatchId { shard: 9, number: at }, 0);
        let attested = crate::evidence::Attested::asserted(conforming).unwrap();
        let recorded = crate::evidence::Recorded::new(attested, 0, &synced);
        let message = crate::routing::Message::new(&recorded, None, Instant::ZERO, 1_000_000);
        rig.broker.retained.set(message);
    }
    let board = rig.client("dashboard/b", V5);
    rig.subscribe_with(board, "plant/#", SubscriptionOptions::default(), None);
    for _ in 0..count {
        if rig.sent.get(&board).is_some_and(|sent| sent.len() as u64 > count) {
            break;
        }
        rig.broker.handle_timeout(rig.now);
        rig.sync();
    }
    let topics: Vec<String> = rig
        .delivered(board)
        .into_iter()
        .map(|publish| publish.topic.unwrap().as_str().to_owned())
        .collect();
    assert_eq!(topics.len() as u64, count);
    assert!(topics.is_sorted());
}

fn identity(name: &str) -> Identity {
    Identity::parse(&format!("spiffe://plant/device/{name}"), "plant").unwrap()
}

#[test]
fn a_retained_message_stays_unless_its_publisher_gave_it_an_end() {
    let mut rig = Rig::new();
    let device = rig.client("device/a", V5);
    rig.packet(device, retained(T, r#"{"t":1}"#));
    let mut ends = message("plant/a/telemetry/y", r#"{"t":1}"#, QoS::AtLeastOnce, 2);
    ends.retain = true;
    ends.properties.message_expiry_seconds = Some(60);
    rig.packet(device, Packet::Publish(Box::new(ends)));
    rig.sync();
    rig.entries.clear();
    rig.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(rig.broker.retained.len(), 1);
    let cleared: Vec<_> =
        rig.entries.iter().filter(|entry| entry["type"] == "retain.clear").collect();
    assert_eq!((cleared.len(), &cleared[0]["why"]), (1, &Value::from("expired")));
    let board = rig.client("dashboard/b", V5);
    rig.subscribe_with(board, "plant/#", SubscriptionOptions::default(), None);
    assert_eq!(rig.delivered(board).len(), 1);
}

#[test]
fn d10_what_was_sent_and_not_acknowledged_counts_towards_the_bytes_of_a_queue() {
    // Topic and payload: 26 bytes each.
    let bytes = T.len() as u64 + 7;
    let of_session = Bounds { queue_bytes_max: 2 * bytes, ..Bounds::default() };
    let of_broker = Bounds { queue_total_bytes_max: 2 * bytes, ..Bounds::default() };
    for bounds in [of_session, of_broker] {
        let mut rig = Rig::with(bounds, LimitsConfig::default());
        let board = rig.client("dashboard/b", V5);
        rig.subscribe(board, "plant/#", QoS::ExactlyOnce);
        let device = rig.client("device/a", V5);
        let publish_one = |rig: &mut Rig, number: u32, qos| {
            rig.packet(device, publish(T, &format!(r#"{{"t":{number}}}"#), qos, 1));
            rig.sync();
            rig.packet(device, Packet::PubRel(ack(1)));
            rig.payloads(board).len()
        };
        let (one, two) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
        let sent = [(1, two), (2, one), (3, one)].map(|(n, qos)| publish_one(&mut rig, n, qos));
        assert_eq!((sent, rig.broker.queued), ([1, 1, 0], (0, 2 * bytes)), "the third is one past");
        assert_eq!(publish_one(&mut rig, 4, QoS::AtMostOnce), 1, "QoS 0 is not kept");

        rig.packet(board, Packet::PubRec(ack(1)));
        assert_eq!(rig.broker.queued.1, bytes, "PUBREL needs no message");
        assert_eq!(publish_one(&mut rig, 5, one), 1);
        rig.packet(board, Packet::PubComp(ack(1)));
        for packet_id in [2, 3] {
            rig.packet(board, Packet::PubAck(ack(packet_id)));
        }
        assert_eq!(rig.broker.queued, (0, 0));
        assert_eq!(publish_one(&mut rig, 6, one), 1);
        rig.close(board);
        assert_eq!(rig.broker.queued, (0, 0), "what a session held went with it");
    }
}

#[test]
fn b08_retained_messages_beyond_the_bytes_of_a_window_wait_for_acknowledgements() {
    let bytes = T.len() as u64 + 7;
    let bounds = Bounds { queue_bytes_max: 2 * bytes, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let device = rig.client("device/a", V5);
    for name in ["x", "y", "z"] {
        rig.packet(device, retained(&format!("plant/a/telemetry/{name}"), r#"{"t":1}"#));
    }
    rig.packet(device, retained("plant/a/telemetry/zz", &format!(r#"{{"t":{}}}"#, "1".repeat(40))));
    rig.sync();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    assert_eq!(rig.payloads(board).len(), 2);
    rig.packet(board, Packet::PubAck(ack(1)));
    assert_eq!(rig.payloads(board).len(), 1);
    for packet_id in [2, 3] {
        rig.packet(board, Packet::PubAck(ack(packet_id)));
    }
    assert_eq!(rig.payloads(board).len(), 0, "the last one is larger than all its room");
    assert_eq!((rig.broker.queued, rig.broker.counters().deliveries_dropped), ((0, 0), 1));
}

#[test]
fn b08_one_batch_cannot_pass_the_bound_on_retained_messages() {
    let bounds = Bounds { retained_messages_max: 2, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let device = rig.client("device/a", V5);
    let reasons = |rig: &mut Rig, names: &[&str]| -> Vec<ReasonCode> {
        for name in names {
            rig.packet(device, retained(&format!("plant/a/telemetry/{name}"), r#"{"t":1}"#));
        }
        rig.sync();
        let reason = |packet| match packet {
            Packet::PubAck(ack) => ack.reason,
            other => panic!("{other:?}"),
        };
        rig.take(device).into_iter().map(reason).collect()
    };
    use ReasonCode::QuotaExceeded;
    assert_eq!(
        reasons(&mut rig, &["x", "y", "z"]).into_iter().filter(|r| *r == QuotaExceeded).count(),
        1
    );
    assert_eq!(rig.broker.retained.len(), 2);
    // What replaces another needs no place of its own.
    assert!(!reasons(&mut rig, &["x", "y", "x"]).contains(&QuotaExceeded));
    rig.packet(device, retained("plant/a/telemetry/x", ""));
    rig.sync();
    rig.take(device);
    assert!(!reasons(&mut rig, &["z"]).contains(&QuotaExceeded), "there is room again");
}

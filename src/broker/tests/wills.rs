//! Wills: judged at CONNECT and again at publication.

use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/telemetry/x";

fn board(rig: &mut Rig) -> ConnectionId {
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    board
}

fn with_will(rig: &mut Rig, expiry: u32, will: Will) -> ConnectionId {
    let mut packet = lasting(V5, "a", expiry);
    packet.will = Some(will);
    let id = rig.connect("device/a", packet);
    rig.take(id);
    id
}

#[test]
fn c04_a_will_on_a_forbidden_topic_or_against_its_schema_refuses_the_connect() {
    let mut rig = Rig::new();
    for (topic, payload, expected) in [
        ("plant/b/telemetry/x", "{}", ReasonCode::NotAuthorized),
        (T, "{}", ReasonCode::ImplementationSpecificError),
    ] {
        let mut packet = connect(V5, "a");
        packet.will = Some(will(topic, payload, 0));
        let id = rig.connect("device/a", packet);
        let Packet::ConnAck(ack) = &rig.take(id)[0] else { panic!() };
        assert_eq!(ack.reason, expected);
    }
    assert_eq!(rig.broker.sessions.len(), 0);
}

#[test]
fn a_lost_connection_publishes_the_will_and_a_normal_end_does_not() {
    let mut rig = Rig::new();
    let board = board(&mut rig);
    let id = with_will(&mut rig, 0, will(T, r#"{"t":1}"#, 0));
    rig.entries.clear();
    rig.close(id);
    assert_eq!(rig.payloads(board), [r#"{"t":1}"#]);
    assert_eq!(rig.entry_types(), ["disconnect", "will"]);

    let id = with_will(&mut rig, 0, will(T, r#"{"t":2}"#, 0));
    rig.packet(id, disconnect(ReasonCode::Success));
    rig.close(id);
    assert_eq!(rig.payloads(board), Vec::<String>::new());

    let id = with_will(&mut rig, 0, will(T, r#"{"t":3}"#, 0));
    rig.packet(id, disconnect(ReasonCode::DisconnectWithWill));
    rig.close(id);
    assert_eq!(rig.payloads(board), [r#"{"t":3}"#]);
}

#[test]
fn d08_a_delayed_will_waits_is_called_off_by_a_return_and_comes_with_the_sessions_end() {
    let mut rig = Rig::new();
    let board = board(&mut rig);
    let id = with_will(&mut rig, 100, will(T, r#"{"t":1}"#, 10));
    rig.close(id);
    rig.advance(Duration::from_secs(9));
    assert_eq!(rig.payloads(board), Vec::<String>::new());
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.payloads(board), [r#"{"t":1}"#]);

    let id = with_will(&mut rig, 100, will(T, r#"{"t":2}"#, 10));
    rig.close(id);
    let id = rig.connect("device/a", lasting(V5, "a", 5));
    rig.packet(board, Packet::PingReq);
    rig.advance(Duration::from_secs(20));
    assert_eq!(rig.payloads(board), Vec::<String>::new(), "it came back in time");
    rig.close(id);

    // The session ends before the delay does.
    let id = with_will(&mut rig, 5, will(T, r#"{"t":3}"#, 60));
    rig.close(id);
    rig.advance(Duration::from_secs(5));
    assert_eq!(rig.payloads(board), [r#"{"t":3}"#]);
}

#[test]
fn a_takeover_publishes_the_will_of_the_old_connection() {
    let mut rig = Rig::new();
    let board = board(&mut rig);
    with_will(&mut rig, 100, will(T, r#"{"t":1}"#, 0));
    rig.connect("device/a", lasting(V5, "a", 100));
    assert_eq!(rig.payloads(board), [r#"{"t":1}"#]);
}

#[test]
fn a_stop_publishes_the_wills_whose_time_has_come_and_records_them_before_its_end() {
    let mut rig = Rig::new();
    let board = rig.connect("dashboard/b", lasting(V5, "b", 100));
    rig.subscribe_with(
        board,
        "plant/#",
        SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() },
        None,
    );
    let mut now = will("plant/a/telemetry/now", r#"{"t":1}"#, 0);
    now.retain = true;
    let topic = now.topic.clone();
    with_will(&mut rig, 100, now);
    let mut delayed = lasting(V5, "c", 100);
    delayed.will = Some(will("plant/c/telemetry/later", r#"{"t":2}"#, 50));
    rig.connect("device/c", delayed);
    // Its session ends with its connection, and with the session the delay. [MQTT-3.1.3-9]
    let mut ended = lasting(V5, "d", 0);
    ended.will = Some(will("plant/d/telemetry/ended", r#"{"t":3}"#, 50));
    rig.connect("device/d", ended);
    rig.entries.clear();

    rig.input(Input::Stop);
    assert!(rig.broker.retained.message(&topic, rig.now.instant).is_none(), "not yet on disk");
    rig.sync();
    assert!(rig.stopped);
    let kinds = rig.entries.iter().map(|entry| entry["type"].as_str().unwrap());
    let kinds: Vec<&str> = kinds.collect();
    assert_eq!(kinds.last(), Some(&"stop"));
    let wills: Vec<&str> = rig
        .entries
        .iter()
        .filter(|entry| entry["type"] == "will")
        .map(|entry| entry["topic"].as_str().unwrap())
        .collect();
    assert_eq!(wills, ["plant/a/telemetry/now", "plant/d/telemetry/ended"]);
    assert!(rig.broker.retained.message(&topic, rig.now.instant).is_some());
    assert_eq!(rig.broker.queued.0, 2, "a session that lasts has them waiting");
    let pending = rig.broker.sessions.values().filter(|session| session.will_due.is_some());
    assert_eq!(pending.count(), 1, "the delayed one is as it was");
}

#[test]
fn a_will_that_its_client_called_off_is_not_published_by_a_stop() {
    let mut rig = Rig::new();
    let id = with_will(&mut rig, 100, will(T, r#"{"t":1}"#, 0));
    rig.packet(id, disconnect(ReasonCode::Success));
    rig.entries.clear();
    rig.input(Input::Stop);
    rig.sync();
    assert!(!rig.entry_types().contains(&"will".to_owned()));
}

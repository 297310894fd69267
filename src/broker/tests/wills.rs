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

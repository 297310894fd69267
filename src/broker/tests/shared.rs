//! What a member of a Shared Subscription leaves to the others (section 4.8.2), and what a crash in
//! between leaves of that.

use super::*;
use crate::broker::durable::tests::{apply, base, empty, generous, unassigned};

const V5: ProtocolVersion = ProtocolVersion::V5;
const GROUP: &str = "$share/g/plant/#";

fn rig() -> Rig {
    let mut rig = Rig::with(Bounds::default(), generous());
    rig.restart_at(base());
    rig
}

/// A member whose session outlives its connection by `expiry` seconds.
fn member(rig: &mut Rig, name: &str, expiry: u32) -> ConnectionId {
    let id = rig.connect(&format!("dashboard/{name}"), lasting(V5, name, expiry));
    rig.take(id);
    rig.subscribe(id, GROUP, QoS::ExactlyOnce);
    id
}

fn send(rig: &mut Rig, device: ConnectionId, text: &str, qos: QoS, packet_id: u16) {
    rig.packet(device, publish("plant/a/sealed/1", text, qos, packet_id));
}

/// What came: payload, QoS, identifier and DUP.
fn copies(rig: &mut Rig, id: ConnectionId) -> Vec<(String, u8, u16, bool)> {
    let copy = |it: Publish| {
        let text = String::from_utf8(it.payload.to_vec()).unwrap();
        (text, it.qos as u8, it.packet_id.map_or(0, PacketId::as_u16), it.dup)
    };
    rig.delivered(id).into_iter().map(copy).collect()
}

/// The power goes when the first `count` records are on disk.
fn crash(rig: &mut Rig, count: usize) {
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log[..count]);
    let now = rig.now;
    rig.go_on_with(replay.finish(now), count);
}

#[test]
fn what_a_member_did_not_acknowledge_in_qos_1_goes_to_another_when_its_session_ends() {
    for expiry in [0, 1_000] {
        let mut rig = rig();
        let one = member(&mut rig, "x", expiry);
        let device = rig.client("device/a", V5);
        for (text, qos, id) in [
            ("done", QoS::AtLeastOnce, 1),
            ("begun", QoS::AtLeastOnce, 2),
            ("twice", QoS::ExactlyOnce, 3),
            ("last", QoS::AtLeastOnce, 4),
        ] {
            send(&mut rig, device, text, qos, id);
        }
        rig.sync();
        assert_eq!(copies(&mut rig, one).len(), 4);
        rig.packet(one, Packet::PubAck(ack(1)));
        let two = member(&mut rig, "y", expiry);
        assert_eq!(copies(&mut rig, two), []);
        // Its connection alone is not its session.
        rig.close(one);
        let one = rig.connect("dashboard/x", lasting(V5, "x", expiry));
        let again = copies(&mut rig, one);
        if expiry > 0 {
            let begun = |text: &str, qos, id| (text.to_owned(), qos, id, true);
            assert_eq!(again, [begun("begun", 1, 2), begun("twice", 2, 3), begun("last", 1, 4)]);
            assert_eq!(copies(&mut rig, two), []);
            rig.packet(one, Packet::Disconnect(Box::new(ending())));
            rig.sync();
        }
        // In their order, as if never sent; in QoS 2 to nobody else. [MQTT-4.8.2-5]
        let fresh = |text: &str, id| (text.to_owned(), 1, id, false);
        assert_eq!(copies(&mut rig, two), [fresh("begun", 1), fresh("last", 2)]);
    }
}

/// A DISCONNECT that ends the session with the connection.
fn ending() -> Disconnect {
    let properties = DisconnectProperties { session_expiry_seconds: Some(0), ..Default::default() };
    Disconnect { reason: ReasonCode::Success, properties }
}

#[test]
fn what_a_member_left_survives_a_crash_at_every_record() {
    // A lasting member and a transient one leave to a lasting one, which is there or away.
    for (expiry, away) in [(1_000, false), (1_000, true), (0, false), (0, true)] {
        let mut rig = rig();
        let one = member(&mut rig, "x", expiry);
        let device = rig.client("device/a", V5);
        send(&mut rig, device, "begun", QoS::AtLeastOnce, 1);
        rig.sync();
        assert_eq!(copies(&mut rig, one).len(), 1);
        let two = member(&mut rig, "y", 1_000);
        if away {
            rig.close(two);
        }
        let before = rig.log.len();
        rig.packet(one, Packet::Disconnect(Box::new(ending())));
        let ended = rig.log.len();
        rig.sync();
        let sent = copies(&mut rig, two);
        assert_eq!(sent.len(), usize::from(!away));
        let after = rig.log.len();
        let full: Vec<Logged> = std::mem::take(&mut rig.log);
        // Of a transient one the log tells nothing until somebody else has it.
        let first = if expiry > 0 { before } else { after };
        for count in first..=after {
            let mut rig = super::shared::rig();
            rig.now = base();
            rig.log = full.clone();
            crash(&mut rig, count);
            // In its window or on the way to it: the one member or the other still has it.
            let one = rig.connect("dashboard/x", lasting(V5, "x", expiry));
            let two = rig.connect("dashboard/y", lasting(V5, "y", 1_000));
            let (one, two) = (copies(&mut rig, one), copies(&mut rig, two));
            let holders = [&one[..], &two[..]].concat();
            assert_eq!(holders.len(), 1, "{count} of {after}: {one:?} {two:?}");
            let is_begun = holders.iter().all(|(text, ..)| text == "begun");
            assert!(is_begun);
            if count >= ended {
                assert_eq!(one, [], "its session has ended");
            }
            if count == after && !away {
                let (text, qos, id, _) = sent[0].clone();
                assert_eq!(two, [(text, qos, id, true)], "sent again under its identifier");
            }
        }
    }
}

#[test]
fn what_was_acknowledged_while_a_new_session_was_on_its_way_goes_to_nobody() {
    let mut rig = rig();
    let one = member(&mut rig, "x", 1_000);
    let device = rig.client("device/a", V5);
    send(&mut rig, device, "done", QoS::AtLeastOnce, 1);
    rig.sync();
    assert_eq!(copies(&mut rig, one).len(), 1);
    let two = member(&mut rig, "y", 1_000);
    // Sent to the old session, whose end is in the log already.
    send(&mut rig, device, "begun", QoS::AtLeastOnce, 2);
    let again = rig.open("dashboard/x");
    rig.packet(again, Packet::Connect(Box::new(connect(V5, "x"))));
    rig.packet(one, Packet::PubAck(ack(1)));
    rig.sync();
    assert!(rig.closed.contains(&one));
    let got = copies(&mut rig, two);
    let texts: Vec<&str> = got.iter().map(|(text, ..)| &text[..]).collect();
    assert_eq!(texts, ["begun"]);
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log);
    assert_eq!(unassigned(&mut replay), 0);
    let count = rig.log.len();
    crash(&mut rig, count);
    let two = rig.connect("dashboard/y", lasting(V5, "y", 1_000));
    let (text, qos, id, _) = got[0].clone();
    assert_eq!(copies(&mut rig, two), [(text, qos, id, true)]);
}

#[test]
fn a_message_whose_time_is_over_is_left_to_nobody() {
    let mut rig = rig();
    let one = member(&mut rig, "x", 1_000);
    let device = rig.client("device/a", V5);
    let mut short = message("plant/a/sealed/1", "short", QoS::AtLeastOnce, 1);
    short.properties.message_expiry_seconds = Some(5);
    rig.packet(device, Packet::Publish(Box::new(short)));
    rig.sync();
    assert_eq!(copies(&mut rig, one).len(), 1);
    let two = member(&mut rig, "y", 0);
    rig.advance(Duration::from_secs(6));
    rig.packet(one, Packet::Disconnect(Box::new(ending())));
    rig.sync();
    assert_eq!(copies(&mut rig, two), []);
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log);
    assert_eq!(unassigned(&mut replay), 0, "and the log says so");
}

#[test]
fn a_broker_that_stops_leaves_messages_to_members_that_last() {
    let mut rig = rig();
    let one = member(&mut rig, "x", 0);
    let device = rig.client("device/a", V5);
    send(&mut rig, device, "begun", QoS::AtLeastOnce, 1);
    rig.sync();
    assert_eq!(copies(&mut rig, one).len(), 1);
    let two = member(&mut rig, "y", 0);
    let three = member(&mut rig, "z", 1_000);
    rig.close(three);
    rig.input(Input::Stop);
    rig.sync();
    assert!(rig.stopped);
    assert_eq!(copies(&mut rig, two), [], "it ends too");
    let count = rig.log.len();
    crash(&mut rig, count);
    let three = rig.connect("dashboard/z", lasting(V5, "z", 1_000));
    assert_eq!(copies(&mut rig, three), [("begun".to_owned(), 1, 1, false)]);
}

//! Sessions: beginning, lasting, taken over only by their own identity, ending.

use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/telemetry/x";

fn connack(rig: &mut Rig, id: ConnectionId) -> crate::mqtt::ConnAck {
    let sent = rig.take(id);
    match sent.into_iter().next() {
        Some(Packet::ConnAck(ack)) => *ack,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c10_the_same_client_id_of_another_identity_is_another_session() {
    let mut rig = Rig::new();
    // `b1` is a client id that both `b` and `b1` may use.
    let victim = rig.connect("device/b1", lasting(V5, "b1", 600));
    assert_eq!(connack(&mut rig, victim).reason, ReasonCode::Success);
    rig.subscribe(victim, "plant/b1/commands/#", QoS::AtLeastOnce);
    let other = rig.connect("device/b", lasting(V5, "b1", 600));
    let ack = connack(&mut rig, other);
    assert_eq!((ack.reason, ack.session_present), (ReasonCode::Success, false));
    assert_eq!(rig.closed, [], "nobody was evicted");
    let again = rig.connect("device/b1", lasting(V5, "b1", 600));
    assert!(connack(&mut rig, again).session_present);
    assert_eq!(rig.closed, [victim], "only by itself");
    let Packet::Disconnect(told) = &rig.take(victim)[0] else { panic!() };
    assert_eq!(told.reason, ReasonCode::SessionTakenOver);
}

#[test]
fn a_session_keeps_what_comes_while_it_is_away_and_ends_in_time() {
    for version in [V5, ProtocolVersion::V3_1_1, ProtocolVersion::V3_1] {
        let mut rig = Rig::new();
        let board = rig.connect("dashboard/b", lasting(version, "b", 100));
        connack(&mut rig, board);
        rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
        rig.close(board);
        let device = rig.client("device/a", V5);
        rig.packet(device, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, 1));
        rig.packet(device, publish(T, r#"{"t":2}"#, QoS::AtMostOnce, 0));
        rig.sync();
        let board = rig.connect("dashboard/b", lasting(version, "b", 100));
        let sent = rig.take(board);
        let Packet::ConnAck(ack) = &sent[0] else { panic!("{sent:?}") };
        assert!(ack.session_present);
        let Packet::Publish(kept) = &sent[1] else { panic!("{sent:?}") };
        assert_eq!((&kept.payload[..], sent.len()), (&br#"{"t":1}"#[..], 2));
        // Not acknowledged: sent again, marked as such.
        rig.close(board);
        let board = rig.connect("dashboard/b", lasting(version, "b", 100));
        let again = rig.delivered(board);
        assert_eq!((again.len(), again[0].dup), (1, true));
        rig.packet(board, Packet::PubAck(ack_of(&again[0])));
        rig.close(board);
        rig.advance(Duration::from_secs(7 * 86_400 + 1));
        assert_eq!(rig.broker.sessions.len(), 0, "{version:?} ended");
        assert_eq!(rig.broker.subscriptions.len(), 0);
    }
}

fn ack_of(publish: &Publish) -> Ack {
    Ack::new(publish.packet_id.unwrap(), ReasonCode::Success)
}

#[test]
fn clean_start_forgets_and_a_session_without_expiry_ends_with_its_connection() {
    let mut rig = Rig::new();
    let board = rig.connect("dashboard/b", lasting(V5, "b", 100));
    rig.subscribe_with(board, "plant/#", SubscriptionOptions::default(), None);
    rig.close(board);
    assert_eq!(rig.broker.subscriptions.len(), 1);
    let board = rig.client("dashboard/b", V5);
    assert_eq!(rig.broker.subscriptions.len(), 0);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    rig.close(board);
    assert_eq!((rig.broker.sessions.len(), rig.broker.subscriptions.len()), (0, 0));
}

#[test]
fn client_ids_are_judged_assigned_and_bounded() {
    let mut rig = Rig::new();
    let id = rig.connect("device/a", connect(V5, "someone-else"));
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(rig.closed.pop(), Some(id));
    let id = rig.connect("device/a", connect(V5, ""));
    let assigned = connack(&mut rig, id).properties.assigned_client_identifier.unwrap();
    assert!(assigned.starts_with("a-"), "{assigned}");
    let id = rig.connect("device/a", connect(ProtocolVersion::V3_1, ""));
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::ClientIdentifierNotValid);
    let mut keep = connect(ProtocolVersion::V3_1_1, "");
    keep.clean_start = false;
    let id = rig.connect("device/a", keep);
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::ClientIdentifierNotValid);
    let id = rig.connect("device/a", connect(V5, &"a".repeat(129)));
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::ClientIdentifierNotValid);
}

#[test]
fn a_silent_client_is_ended_after_one_and_a_half_keep_alives() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    rig.advance(Duration::from_secs(89));
    rig.packet(id, Packet::PingReq);
    assert_eq!(rig.take(id), [Packet::PingResp]);
    rig.advance(Duration::from_secs(89));
    assert_eq!(rig.closed, []);
    rig.advance(Duration::from_secs(1));
    assert_eq!(rig.closed, [id]);
    let Packet::Disconnect(told) = &rig.take(id)[0] else { panic!() };
    assert_eq!(told.reason, ReasonCode::KeepAliveTimeout);
}

#[test]
fn e12_a_session_ends_when_its_certificate_does() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    for _ in 0..30 * 1_440 - 1 {
        rig.advance(Duration::from_secs(60));
        rig.packet(id, Packet::PingReq);
    }
    assert_eq!(rig.closed, []);
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.closed, [id]);
}

#[test]
fn e08_no_connect_in_time_is_the_end() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let id = rig.open("device/a");
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.closed, [id]);
    assert_eq!(rig.entries[0]["why"], "connect.timeout");
}

#[test]
fn keep_alive_is_announced_where_it_is_not_the_clients() {
    let mut rig = Rig::new();
    for (asked, told) in [(0, Some(1_200)), (4, Some(5)), (60, None), (65_535, Some(1_200))] {
        let mut packet = connect(V5, "a");
        packet.keep_alive_seconds = asked;
        let id = rig.connect("device/a", packet);
        let ack = connack(&mut rig, id);
        assert_eq!(ack.properties.server_keep_alive_seconds, told, "{asked}");
        rig.close(id);
    }
}

#[test]
fn a_session_cannot_be_prolonged_by_disconnect() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    let properties =
        DisconnectProperties { session_expiry_seconds: Some(60), ..Default::default() };
    let reason = ReasonCode::Success;
    rig.packet(id, Packet::Disconnect(Box::new(Disconnect { reason, properties })));
    rig.sync();
    let Packet::Disconnect(told) = &rig.take(id)[0] else { panic!() };
    assert_eq!(told.reason, ReasonCode::ProtocolError);
    assert_eq!(rig.broker.sessions.len(), 0);
}

#[test]
fn a_slowed_client_is_not_called_silent_while_it_is_not_read() {
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1;
    limits.default.messages_burst = 1;
    let mut rig = Rig::with(Bounds::default(), limits);
    // 3.1.1 has no negative acknowledgement, so a limit slows it.
    let mut packet = connect(ProtocolVersion::V3_1_1, "a");
    packet.keep_alive_seconds = 5;
    let id = rig.connect("device/a", packet);
    let sealed = "plant/a/sealed/x";
    for packet_id in 1..=20 {
        rig.packet(id, publish(sealed, "x", QoS::AtLeastOnce, packet_id));
    }
    rig.sync();
    assert!(rig.paused.contains(&id));
    rig.advance(Duration::from_secs(18));
    assert_eq!((rig.closed.len(), rig.paused.contains(&id)), (0, true));
    rig.advance(Duration::from_secs(2));
    assert_eq!(rig.paused, []);
    rig.advance(Duration::from_secs(8));
    assert_eq!(rig.closed, [id], "now it is silent");
}

#[test]
fn a_resumed_session_keeps_to_the_new_receive_maximum() {
    let mut rig = Rig::new();
    let board = rig.connect("dashboard/b", lasting(V5, "b", 100));
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    let device = rig.client("device/a", V5);
    for packet_id in 1..=5 {
        rig.packet(device, publish(T, r#"{"t":1}"#, QoS::AtLeastOnce, packet_id));
    }
    rig.sync();
    assert_eq!(rig.delivered(board).len(), 5);
    rig.close(board);
    let mut again = lasting(V5, "b", 100);
    again.properties.receive_maximum = Some(1);
    let board = rig.connect("dashboard/b", again);
    for _ in 0..5 {
        let sent = rig.delivered(board);
        assert_eq!((sent.len(), sent[0].dup), (1, true));
        rig.packet(board, Packet::PubAck(ack_of(&sent[0])));
    }
    assert_eq!(rig.delivered(board), []);
}

#[test]
fn the_clients_maximum_packet_size_holds_for_every_packet_of_ours() {
    let with_room = |rig: &mut Rig, bytes: u32| {
        let mut packet = connect(V5, "a");
        packet.properties.maximum_packet_size = Some(bytes);
        let id = rig.connect("device/a", packet);
        (id, rig.take(id))
    };
    let len = |packet: &Packet| crate::mqtt::encoded_len(packet, V5).unwrap();
    let mut rig = Rig::new();
    let (id, sent) = with_room(&mut rig, 1_000);
    let connack_bytes = len(&sent[0]);
    rig.packet(id, publish("plant/b/x", "{}", QoS::AtLeastOnce, 1));
    rig.sync();
    let [Packet::PubAck(why)] = &rig.take(id)[..] else { panic!() };
    assert!(why.properties.is_some());
    let reason_bytes = len(&Packet::PubAck(why.clone()));
    rig.close(id);

    for (bytes, has_reason) in [(reason_bytes, true), (reason_bytes - 1, false)] {
        let (id, _) = with_room(&mut rig, bytes as u32);
        rig.packet(id, publish("plant/b/x", "{}", QoS::AtLeastOnce, 1));
        rig.sync();
        let [Packet::PubAck(ack)] = &rig.take(id)[..] else { panic!() };
        assert_eq!(ack.reason, ReasonCode::NotAuthorized);
        let text = ack.properties.as_ref().and_then(|p| p.reason_string.as_ref());
        assert_eq!(text.is_some(), has_reason, "at {bytes} bytes");
        rig.close(id);
    }

    // CONNACK itself: it fits, it does not, and not even the refusal does.
    let (id, sent) = with_room(&mut rig, connack_bytes as u32);
    assert!(matches!(&sent[..], [Packet::ConnAck(ack)] if ack.reason == ReasonCode::Success));
    rig.close(id);
    let (id, sent) = with_room(&mut rig, connack_bytes as u32 - 1);
    assert!(
        matches!(&sent[..], [Packet::ConnAck(ack)] if ack.reason == ReasonCode::PacketTooLarge)
    );
    assert_eq!(rig.closed.pop(), Some(id));
    let (id, sent) = with_room(&mut rig, 4);
    assert_eq!((sent, rig.closed.pop()), (vec![], Some(id)));
    assert_eq!(rig.broker.sessions.len(), 0);
}

fn is_accepted(rig: &mut Rig, id: ConnectionId) -> bool {
    connack(rig, id).reason == ReasonCode::Success
}

/// Sends CONNECT; its batch is not on disk yet.
fn begin(rig: &mut Rig, uri_path: &str, client_id: &str) -> ConnectionId {
    let id = rig.open(uri_path);
    rig.versions.insert(id, V5);
    rig.packet(id, Packet::Connect(Box::new(lasting(V5, client_id, 100))));
    id
}

#[test]
fn one_batch_of_connects_cannot_pass_the_bounds_on_sessions() {
    let bounds = Bounds { sessions_total_max: 3, ..Bounds::default() };
    let mut limits = LimitsConfig::default();
    limits.default.sessions_max = 2;
    let mut rig = Rig::with(bounds, limits);
    // Of one identity, the second of them twice: it is one session.
    let ids = ["a", "a2", "a2", "a3"].map(|client_id| begin(&mut rig, "device/a", client_id));
    rig.sync();
    let accepted = ids.map(|id| is_accepted(&mut rig, id));
    assert_eq!(accepted, [true, true, true, false], "sessions_max of the identity");
    let ids = ["b", "c"].map(|name| begin(&mut rig, &format!("device/{name}"), name));
    rig.sync();
    let accepted = ids.map(|id| is_accepted(&mut rig, id));
    assert_eq!((accepted, rig.broker.sessions.len()), ([true, false], 3), "sessions_total_max");
}

#[test]
fn a_place_is_kept_for_who_claims_it_and_freed_for_others_else() {
    let mut limits = LimitsConfig::default();
    limits.default.sessions_max = 1;
    let mut rig = Rig::with(Bounds::default(), limits);
    let gone = rig.open("device/a");
    rig.packet(gone, Packet::Connect(Box::new(connect(V5, "a"))));
    rig.input(Input::Closed { connection: gone, cause: CloseCause::Peer });
    rig.sync();
    assert_eq!(rig.broker.sessions.len(), 0, "it came to nothing");

    let first = begin(&mut rig, "device/a", "a2");
    rig.sync();
    assert!(is_accepted(&mut rig, first), "so its place was free");
    rig.close(first);
    // The session ends between the decision of the next CONNECT and its batch.
    let second = begin(&mut rig, "device/a", "a2");
    rig.now.instant = rig.now.instant.after(Duration::from_secs(100));
    rig.broker.handle_timeout(rig.now);
    assert_eq!(rig.broker.sessions.len(), 1, "its end is not on disk, and will come too late");
    let other = begin(&mut rig, "device/a", "a3");
    rig.sync();
    assert!(is_accepted(&mut rig, second));
    assert!(!is_accepted(&mut rig, other), "the place was claimed");
    rig.close(second);
    rig.advance(Duration::from_secs(100));
    let other = begin(&mut rig, "device/a", "a3");
    rig.sync();
    assert!(is_accepted(&mut rig, other));
}

#[test]
fn b06_one_batch_of_subscribes_cannot_pass_the_bounds_on_subscriptions() {
    let bounds = Bounds { subscriptions_max: 2, subscriptions_total_max: 3, ..Bounds::default() };
    let mut rig = Rig::with(bounds, LimitsConfig::default());
    let subscribe = |rig: &mut Rig, id: ConnectionId, filter: &str| {
        let options = SubscriptionOptions::default();
        let filters = vec![SubscribeFilter { filter: filter.to_owned(), options }];
        rig.packet(
            id,
            Packet::Subscribe(Box::new(Subscribe {
                packet_id: PacketId::ONE,
                subscription_identifier: None,
                user_properties: Vec::new(),
                filters,
            })),
        );
    };
    let reasons = |rig: &mut Rig, id: ConnectionId| -> Vec<ReasonCode> {
        rig.sync();
        let sent = rig.take(id);
        let reason = |packet| match packet {
            Packet::SubAck(ack) => ack.reasons[0],
            other => panic!("{other:?}"),
        };
        sent.into_iter().map(reason).collect()
    };
    use ReasonCode::{QuotaExceeded, Success};
    let one = rig.client("dashboard/b", V5);
    for filter in ["plant/1", "plant/2", "plant/2", "plant/3"] {
        subscribe(&mut rig, one, filter);
    }
    assert_eq!(reasons(&mut rig, one), [Success, Success, Success, QuotaExceeded]);
    let two = rig.client("dashboard/c", V5);
    for filter in ["plant/1", "plant/2"] {
        subscribe(&mut rig, two, filter);
    }
    assert_eq!(reasons(&mut rig, two), [Success, QuotaExceeded], "the broker's bound");
    assert_eq!(rig.broker.subscriptions.len(), 3);

    // What came to nothing is no longer counted.
    rig.close(one);
    subscribe(&mut rig, two, "plant/9");
    rig.input(Input::Closed { connection: two, cause: CloseCause::Peer });
    rig.sync();
    assert_eq!((rig.broker.subscriptions.len(), rig.broker.subscriptions_reserved), (0, 0));
}

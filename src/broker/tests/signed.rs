//! Messages that their devices have signed.

use std::sync::LazyLock;

use avow_signer::{Algorithm, Claims, SigningKey, Unsigned};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::evidence::{STATEMENT_PROPERTY, VerifyJob};
use crate::identity::{DeviceKey, KeyKind};
use crate::policy::Policy;

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

const POLICY: &str = r#"
version = 1

[[permit]]
id = "client-id"
who = ["device", "dashboard"]
client_id = "${device}*"

[[permit]]
id = "signed"
who = ["device"]
publish = ["plant/${device}/signed/#"]
retain = true
clear_retained = true
schema = "none"
evidence = "signed"

[[permit]]
id = "timely"
who = ["device"]
publish = ["plant/${device}/timely"]
schema = "none"
evidence = "signed"
clock = "refuse"

[[permit]]
id = "plain"
who = ["device"]
publish = ["plant/${device}/plain/#"]
schema = "none"

[[permit]]
id = "read"
who = ["dashboard"]
subscribe = ["plant/#"]
"#;

/// The key of every device of these tests: that of RFC 8032, 7.1, test 1.
pub(super) static KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    SigningKey::from_pkcs8(&hex(&format!("302e020100300506032b657004220420{seed}"))).unwrap()
});

/// Its public half.
pub(super) fn device_key() -> DeviceKey {
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    DeviceKey::new(KeyKind::Ed25519, &hex(public))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn settings() -> Settings {
    let policy = Arc::new(Policy::parse("policy.toml", POLICY).unwrap());
    Settings { policy, limits: crate::broker::durable::tests::generous(), ..testing::settings() }
}

fn rig() -> Rig {
    Rig::of(settings())
}

/// What the device `a` signs.
#[derive(Clone, Copy)]
struct Signing<'a> {
    topic: &'a str,
    payload: &'a str,
    qos: QoS,
    retain: bool,
    issued_at: u64,
    epoch: u64,
    seq: u64,
}

const SIGNING: Signing<'_> = Signing {
    topic: "plant/a/signed/x",
    payload: "21.5",
    qos: QoS::AtLeastOnce,
    retain: false,
    issued_at: 1_000_000,
    epoch: 1,
    seq: 1,
};

impl Signing<'_> {
    fn sign(&self) -> avow_signer::Signed {
        let claims = Claims {
            identity: "spiffe://plant/device/a",
            certificate_sha256: &[3; 32],
            audience: "plant",
            issued_at: self.issued_at,
            cti: &[9; 16],
            epoch: self.epoch,
            seq: self.seq,
        };
        let (qos, retain) = (self.qos as u8, self.retain);
        let payload = self.payload.as_bytes();
        let message = avow_signer::Message { topic: self.topic, payload, qos, retain };
        let unsigned = Unsigned::new(Algorithm::Ed25519, &claims, &message, [8; 16]);
        let signature = KEY.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.signed(signature)
    }

    /// The PUBLISH with the statement as its property.
    fn publish(&self, packet_id: u16) -> Publish {
        let value = self.sign().property();
        let mut publish = message(self.topic, self.payload, self.qos, packet_id);
        publish.retain = self.retain;
        let name = STATEMENT_PROPERTY.to_owned();
        publish.properties.user_properties.push(UserProperty { name, value });
        publish
    }

    fn packet(&self, packet_id: u16) -> Packet {
        Packet::Publish(Box::new(self.publish(packet_id)))
    }
}

/// The reasons of what was acknowledged to `id`.
fn acknowledged(rig: &mut Rig, id: ConnectionId) -> Vec<(u16, ReasonCode)> {
    let sent = rig.take(id).into_iter();
    sent.filter_map(|packet| match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) => Some((ack.packet_id.as_u16(), ack.reason)),
        _ => None,
    })
    .collect()
}

/// The last entry of `kind`.
fn last(rig: &Rig, kind: &str) -> Value {
    rig.entries.iter().rfind(|entry| entry["type"] == kind).cloned().unwrap_or_default()
}

/// Publishes and syncs; the reason that the log gives for it, or "" if it went on.
fn outcome(rig: &mut Rig, id: ConnectionId, packet: Packet) -> String {
    rig.entries.clear();
    rig.packet(id, packet);
    rig.sync();
    let refused = last(rig, "publish.refused");
    refused["why"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_is_signed_goes_on_and_its_entry_holds_all_that_a_stranger_needs() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let signed = SIGNING.sign();
    assert_eq!(outcome(&mut rig, device, SIGNING.packet(7)), "");
    assert_eq!(acknowledged(&mut rig, device), [(7, ReasonCode::Success)]);
    let delivered = rig.delivered(board);
    assert_eq!(delivered[0].payload, "21.5");
    // Subscribers can check it themselves.
    assert_eq!(delivered[0].properties.user_properties[0].value, signed.property());
    let entry = last(&rig, "publish");
    assert_eq!(
        (&entry["lvl"], &entry["epoch"], &entry["seq"]),
        (&"A2".into(), &1.into(), &1.into())
    );
    assert_eq!((&entry["iat"], &entry["sflags"]), (&1_000_000.into(), &Value::Null));
    assert_eq!(entry["cti"], URL_SAFE_NO_PAD.encode([9; 16]));
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(entry[name].as_str().unwrap()).unwrap();
    let (protected, c) = (bytes("protected"), bytes("c"));
    let mut tbs = b"\x84\x6aSignature1\x58".to_vec();
    tbs.push(u8::try_from(protected.len()).unwrap());
    tbs.extend([&protected[..], &[0x40, 0x58, 32], &c].concat());
    assert!(device_key().verifies(&tbs, &bytes("sig")));
    // Payload and salt open the same commitment, which the rig has seen to; the entry has neither.
    assert_eq!(rig.bodies.last().unwrap().salt, [8; 16]);
    let text = entry.to_string();
    assert!(!text.contains(&URL_SAFE_NO_PAD.encode([8; 16])) && !text.contains("21.5"));
}

#[test]
fn a_rule_that_wants_a_signature_takes_nothing_else() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let unsigned = publish("plant/a/signed/x", "21.5", QoS::AtLeastOnce, 1);
    assert_eq!(outcome(&mut rig, device, unsigned), "statement.missing");
    let refused = last(&rig, "publish.refused");
    assert_eq!((&refused["code"], &refused["lvl"]), (&0x87.into(), &Value::Null));
    assert_eq!(acknowledged(&mut rig, device), [(1, ReasonCode::NotAuthorized)]);
    // Elsewhere nothing is asked for, and what comes all the same must be good.
    let plain = publish("plant/a/plain", "x", QoS::AtLeastOnce, 2);
    assert_eq!(outcome(&mut rig, device, plain), "");
    assert_eq!(last(&rig, "publish")["lvl"], "A0");
    let signed = Signing { topic: "plant/a/plain", ..SIGNING };
    assert_eq!(outcome(&mut rig, device, signed.packet(3)), "");
    assert_eq!(last(&rig, "publish")["lvl"], "A2");
    let mut moved = signed.publish(4);
    moved.topic = TopicName::parse("plant/a/plain/elsewhere").ok();
    let moved = Packet::Publish(Box::new(moved));
    assert_eq!(outcome(&mut rig, device, moved), "statement.sub");
}

#[test]
fn every_way_to_bend_a_message_is_refused_with_its_own_reason() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let bend = |change: &dyn Fn(&mut Publish)| {
        let mut publish = SIGNING.publish(1);
        change(&mut publish);
        Packet::Publish(Box::new(publish))
    };
    let value = |publish: &mut Publish, change: &dyn Fn(&mut Vec<u8>)| {
        let value = &mut publish.properties.user_properties[0].value;
        let mut bytes = URL_SAFE_NO_PAD.decode(&*value).unwrap();
        change(&mut bytes);
        *value = URL_SAFE_NO_PAD.encode(bytes);
    };
    let rows: [(&str, Packet); 8] = [
        ("statement.commitment", bend(&|it| it.payload = Bytes::from_static(b"21.6"))),
        ("statement.manner", bend(&|it| it.retain = true)),
        ("statement.sub", bend(&|it| it.topic = TopicName::parse("plant/a/signed/y").ok())),
        ("statement.signature", bend(&|it| value(it, &|bytes| *bytes.last_mut().unwrap() ^= 1))),
        ("statement.malformed", bend(&|it| value(it, &|bytes| bytes.truncate(300)))),
        ("statement.malformed", bend(&|it| it.properties.user_properties[0].value.push('='))),
        (
            "statement.bytes",
            bend(&|it| it.properties.user_properties[0].value = "A".repeat(20_000)),
        ),
        (
            "statement.repeated",
            bend(&|it| {
                it.properties.user_properties.extend(SIGNING.publish(1).properties.user_properties)
            }),
        ),
    ];
    for (why, packet) in rows {
        assert_eq!(outcome(&mut rig, device, packet), why);
        assert_eq!(acknowledged(&mut rig, device), [(1, ReasonCode::NotAuthorized)], "{why}");
    }
    // None of them took the number: the true one still goes on.
    assert_eq!(outcome(&mut rig, device, SIGNING.packet(1)), "");
}

#[test]
fn another_device_cannot_send_it() {
    let mut rig = rig();
    let other = rig.client("device/c", V5);
    let mut publish = SIGNING.publish(1);
    publish.topic = TopicName::parse("plant/c/signed/x").ok();
    let packet = Packet::Publish(Box::new(publish));
    assert_eq!(outcome(&mut rig, other, packet), "statement.iss");
}

#[test]
fn a_resend_is_answered_as_before_and_goes_nowhere() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    assert_eq!(outcome(&mut rig, device, SIGNING.packet(1)), "");
    let index = rig.log.iter().rev().find(|it| it.kind == RecordKind::Entry).unwrap().index;
    assert_eq!(rig.payloads(board), ["21.5"]);
    rig.close(device);
    let device = rig.client("device/a", V5);
    assert_eq!(outcome(&mut rig, device, SIGNING.packet(9)), "");
    assert_eq!(acknowledged(&mut rig, device), [(9, ReasonCode::Success)]);
    assert!(rig.payloads(board).is_empty());
    let resend = last(&rig, "publish.dup");
    assert_eq!((&resend["first"], &resend["seq"]), (&index.into(), &1.into()));
    assert_eq!(last(&rig, "publish"), Value::Null);
}

#[test]
fn a_second_message_under_one_number_is_a_conflict_that_stays_in_the_log() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    assert_eq!(outcome(&mut rig, device, SIGNING.packet(1)), "");
    let other = Signing { payload: "99", ..SIGNING };
    assert_eq!(outcome(&mut rig, device, other.packet(2)), "statement.conflict");
    let entry = last(&rig, "publish.refused");
    // Both are signed, for whoever asks what the device said.
    assert!(entry["sig"].is_string() && entry["protected"].is_string() && entry["c"].is_string());
    for (epoch, seq, why) in [
        (1, 100, ""),
        (1, 36, "statement.replay"),
        (1, 37, ""),
        (0, 101, "statement.epoch"),
        (2, 1, ""),
        (1, 101, "statement.epoch"),
    ] {
        let next = Signing { epoch, seq, ..SIGNING };
        assert_eq!(outcome(&mut rig, device, next.packet(3)), why, "{epoch}.{seq}");
    }
}

#[test]
fn numbers_left_out_are_told_once_in_a_while_and_in_each_entry() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let mut flags = Vec::new();
    for seq in [1, 2, 5, 9, 4] {
        rig.entries.retain(|entry| entry["type"] == "gap");
        rig.packet(device, Signing { seq, ..SIGNING }.packet(1));
        rig.sync();
        flags.push(last(&rig, "publish")["sflags"][0].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(flags, ["", "", "gap", "gap", "late"]);
    let gaps: Vec<&Value> = rig.entries.iter().filter(|entry| entry["type"] == "gap").collect();
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap["from"], &gap["to"], &gap["missing"]), (&3.into(), &4.into(), &2.into()));
    rig.advance(Duration::from_secs(11));
    rig.packet(device, Signing { seq: 11, ..SIGNING }.packet(1));
    rig.sync();
    // Three before, which had none, and this one.
    assert_eq!(last(&rig, "gap")["missing"], 4);
}

#[test]
fn a_clock_that_is_far_off_is_flagged_or_refused_as_the_rule_says() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    for (seq, issued_at, flags) in
        [(1, 999_700, ""), (2, 999_699, "clock"), (3, 1_000_300, ""), (4, 1_000_301, "clock")]
    {
        let signing = Signing { seq, issued_at, ..SIGNING };
        assert_eq!(outcome(&mut rig, device, signing.packet(1)), "");
        assert_eq!(last(&rig, "publish")["sflags"][0].as_str().unwrap_or_default(), flags);
    }
    let late = Signing { topic: "plant/a/timely", seq: 5, issued_at: 999_699, ..SIGNING };
    assert_eq!(outcome(&mut rig, device, late.packet(1)), "statement.iat");
    let timely = Signing { issued_at: 999_700, ..late };
    assert_eq!(outcome(&mut rig, device, timely.packet(1)), "");
}

#[test]
fn an_older_client_embeds_its_payload_and_subscribers_get_the_payload() {
    let mut rig = rig();
    let device = rig.client("device/a", V3);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let object = SIGNING.sign().embedding(b"21.5");
    let mut packet = message("plant/a/signed/x", "", QoS::AtLeastOnce, 1);
    packet.payload = object.into();
    assert_eq!(outcome(&mut rig, device, Packet::Publish(Box::new(packet.clone()))), "");
    let entry = last(&rig, "publish");
    assert_eq!((&entry["lvl"], &entry["len"]), (&"A2".into(), &4.into()));
    assert_eq!(rig.payloads(board), ["21.5"]);
    assert_eq!(rig.bodies.last().unwrap().payload, "21.5");
    assert_eq!(acknowledged(&mut rig, device), [(1, ReasonCode::Success)]);
    // Where nothing is asked for, nothing is taken out.
    packet.topic = TopicName::parse("plant/a/plain").ok();
    assert_eq!(outcome(&mut rig, device, Packet::Publish(Box::new(packet))), "");
    assert_eq!(last(&rig, "publish")["lvl"], "A0");
    let plain = publish("plant/a/signed/x", "21.5", QoS::AtLeastOnce, 2);
    assert_eq!(outcome(&mut rig, device, plain), "statement.malformed");
    assert_eq!(rig.closed, [device]);
}

#[test]
fn nobody_can_have_signed_a_will_of_the_future() {
    let mut rig = rig();
    let mut packet = connect(V5, "a");
    packet.will = Some(will("plant/a/signed/x", "gone", 0));
    let device = rig.connect("device/a", packet);
    let [Packet::ConnAck(ack)] = &rig.take(device)[..] else { panic!("no CONNACK") };
    assert_eq!(ack.reason, ReasonCode::NotAuthorized);
    assert_eq!(last(&rig, "connect.refused")["why"], "statement.missing");
}

/// A rig whose signatures are checked when a test says so.
fn waiting() -> Rig {
    let mut rig = rig();
    rig.jobs = Some(VecDeque::new());
    rig
}

fn verify_next(rig: &mut Rig) {
    let (connection, job) = rig.jobs.as_mut().and_then(VecDeque::pop_front).unwrap();
    verify(rig, connection, job);
}

fn verify(rig: &mut Rig, connection: ConnectionId, job: VerifyJob) {
    let verified = job.run();
    rig.input(Input::Verified { connection, verified });
    rig.sync();
}

fn waiting_jobs(rig: &Rig) -> usize {
    rig.jobs.as_ref().map_or(0, VecDeque::len)
}

#[test]
fn what_comes_behind_a_signature_waits_for_it_in_order() {
    let mut rig = waiting();
    let device = rig.client("device/a", V5);
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let one = Signing { payload: "one", ..SIGNING };
    let three = Signing { payload: "three", seq: 2, ..SIGNING };
    let packets = vec![
        one.packet(1),
        publish("plant/a/plain", "two", QoS::AtLeastOnce, 2),
        three.packet(3),
        publish("plant/a/nowhere", "four", QoS::AtLeastOnce, 4),
    ];
    rig.input(Input::Packets { connection: device, packets });
    rig.sync();
    assert_eq!((waiting_jobs(&rig), rig.payloads(board).len()), (1, 0));
    assert_eq!(rig.paused, [device], "nothing more is read of it");
    // Others do not wait.
    let other = rig.client("device/c", V5);
    assert_eq!(outcome(&mut rig, other, publish("plant/c/plain", "c", QoS::AtMostOnce, 0)), "");
    assert_eq!(rig.payloads(board), ["c"]);
    verify_next(&mut rig);
    assert_eq!(waiting_jobs(&rig), 1);
    assert_eq!(rig.payloads(board), ["one", "two"]);
    verify_next(&mut rig);
    assert_eq!(rig.payloads(board), ["three"]);
    let reasons: Vec<_> = acknowledged(&mut rig, device);
    let yes = ReasonCode::Success;
    assert_eq!(reasons, [(1, yes), (2, yes), (3, yes), (4, ReasonCode::NotAuthorized)]);
}

#[test]
fn a_client_that_leaves_behind_its_message_has_sent_it() {
    let mut rig = waiting();
    let device = rig.client("device/a", V5);
    let last_word = Signing { qos: QoS::AtMostOnce, ..SIGNING };
    let packets = vec![last_word.packet(0), disconnect(ReasonCode::Success)];
    rig.input(Input::Packets { connection: device, packets });
    rig.input(Input::Closed { connection: device, cause: CloseCause::Peer });
    rig.sync();
    assert!(rig.closed.is_empty());
    verify_next(&mut rig);
    assert_eq!(last(&rig, "publish")["lvl"], "A2");
    assert_eq!(last(&rig, "disconnect")["how"], "client");
    assert!(!rig.broker.connections.contains_key(&device));
}

#[test]
fn a_reader_goes_on_when_nothing_waits_any_more() {
    let mut rig = waiting();
    let device = rig.client("device/a", V5);
    rig.packet(device, SIGNING.packet(1));
    assert!(rig.paused.is_empty(), "one that waits for its answer is not paused");
    rig.packet(device, Packet::PingReq);
    assert_eq!(rig.paused, [device]);
    assert!(rig.take(device).is_empty());
    verify_next(&mut rig);
    assert!(rig.paused.is_empty());
    assert!(matches!(&rig.take(device)[..], [Packet::PingResp, Packet::PubAck(_)]));
}

#[test]
fn a_violation_behind_a_signature_ends_the_connection_behind_the_message() {
    let mut rig = waiting();
    let device = rig.client("device/a", V5);
    rig.packet(device, SIGNING.packet(1));
    let violation =
        crate::mqtt::Violation { reason: ReasonCode::MalformedPacket, what: "x", statement: None };
    rig.input(Input::Violated { connection: device, violation, version: Some(V5) });
    rig.sync();
    assert!(rig.closed.is_empty());
    verify_next(&mut rig);
    assert_eq!(rig.closed, [device]);
    assert_eq!(last(&rig, "publish")["lvl"], "A2");
    assert_eq!(last(&rig, "disconnect")["how"], "violation");
}

#[test]
fn a_message_whose_connection_was_ended_meanwhile_is_left_for_its_resend() {
    let mut rig = waiting();
    let device = rig.client("device/a", V5);
    rig.packet(device, SIGNING.packet(1));
    let again = rig.client("device/a", V5);
    rig.entries.clear();
    verify_next(&mut rig);
    assert_eq!(last(&rig, "publish"), Value::Null);
    assert!(acknowledged(&mut rig, device).is_empty());
    rig.packet(again, SIGNING.packet(1));
    verify_next(&mut rig);
    assert_eq!(acknowledged(&mut rig, again), [(1, ReasonCode::Success)]);
    assert_eq!(last(&rig, "publish")["lvl"], "A2");
    // A verdict for a connection that is gone is nobody's.
    rig.packet(again, Signing { seq: 2, ..SIGNING }.packet(2));
    let (connection, job) = rig.jobs.as_mut().and_then(VecDeque::pop_front).unwrap();
    rig.broker.stop(rig.now);
    rig.sync();
    rig.close(again);
    verify(&mut rig, connection, job.clone());
    assert!(!rig.broker.connections.contains_key(&again));
    verify(&mut rig, connection, job);
    assert!(rig.stopped);
}

#[test]
#[should_panic(expected = "a verdict came for another signature")]
fn a_verdict_on_another_signature_stops_the_process() {
    let mut rig = waiting();
    let (one, two) = (rig.client("device/a", V5), rig.client("dashboard/b", V5));
    rig.packet(one, SIGNING.packet(1));
    let (_, first) = rig.jobs.as_mut().and_then(VecDeque::pop_front).unwrap();
    verify(&mut rig, two, first.clone());
    verify(&mut rig, one, first.clone());
    rig.packet(one, Signing { seq: 2, ..SIGNING }.packet(1));
    verify(&mut rig, one, first);
}

#[test]
fn retained_messages_that_wait_together_do_not_pass_their_bound() {
    let bounds = Bounds { retained_messages_max: 1, ..Bounds::default() };
    let mut rig = Rig::of(Settings { bounds, ..settings() });
    rig.jobs = Some(VecDeque::new());
    let mut connect = connect(V5, "a-2");
    connect.clean_start = true;
    let (one, two) = (rig.client("device/a", V5), rig.connect("device/a", connect));
    for (id, seq, topic) in [(one, 1, "plant/a/signed/x"), (two, 2, "plant/a/signed/y")] {
        rig.packet(id, Signing { topic, seq, retain: true, ..SIGNING }.packet(1));
    }
    verify_next(&mut rig);
    verify_next(&mut rig);
    assert_eq!(last(&rig, "publish.refused")["why"], "retained.full");
    assert_eq!(rig.broker.retained.len(), 1);
}

#[test]
fn at_qos_2_the_identifier_is_taken_by_the_message_and_by_its_resend() {
    let mut rig = rig();
    let device = rig.client("device/a", V5);
    let signing = Signing { qos: QoS::ExactlyOnce, ..SIGNING };
    for packet_id in [1, 2] {
        rig.packet(device, signing.packet(packet_id));
        rig.sync();
        assert_eq!(acknowledged(&mut rig, device), [(packet_id, ReasonCode::Success)]);
        rig.packet(device, Packet::PubRel(ack(packet_id)));
        rig.sync();
        let [Packet::PubComp(done)] = &rig.take(device)[..] else { panic!("no PUBCOMP") };
        assert_eq!(done.reason, ReasonCode::Success);
    }
    assert_eq!(last(&rig, "publish.dup")["seq"], 1);
    assert_eq!(rig.broker.connections[&device].unacknowledged, 0);
}

/// After a restart from every prefix of the log, and from an image of it: whatever was acknowledged
/// is known, under its index.
#[test]
fn no_restart_forgets_what_was_seen() {
    use crate::broker::durable::tests::{apply, base, broker_of};
    let mut rig = rig();
    rig.restart_at(base());
    let device = rig.client("device/a", V5);
    let seqs = [1, 2, 7, 5, 80, 81];
    for (epoch, seq) in seqs.into_iter().map(|seq| (1, seq)).chain([(3, 4), (3, 2)]) {
        let issued_at = 1_000_000;
        rig.packet(device, Signing { epoch, seq, issued_at, ..SIGNING }.packet(1));
        rig.sync();
    }
    let windows = |broker: &Broker| format!("{:?}", broker.windows);
    let mut replay = Replay::new(settings(), base());
    apply(&mut replay, &rig.log);
    assert_eq!(windows(broker_of(&replay)), windows(&rig.broker));
    for cut in 0..rig.log.len() {
        let mut early = Replay::new(settings(), base());
        apply(&mut early, &rig.log[..cut]);
        let mut later = Replay::new(settings(), base());
        early.image(&mut |head, body| {
            let record = LogRecord { kind: RecordKind::State, index: 0, head, body };
            later.apply(record).unwrap();
        });
        apply(&mut later, &rig.log[cut..]);
        assert_eq!(windows(broker_of(&later)), windows(&rig.broker), "{cut}");
    }
    rig.go_on_with(replay.finish(base()), usize::MAX);
    let device = rig.client("device/a", V5);
    let again = Signing { epoch: 3, seq: 2, ..SIGNING };
    assert_eq!(outcome(&mut rig, device, again.packet(1)), "");
    assert!(last(&rig, "publish.dup")["first"].is_u64());
    let old = Signing { epoch: 1, seq: 82, ..SIGNING };
    assert_eq!(outcome(&mut rig, device, old.packet(1)), "statement.epoch");
}

//! Messages that their devices sign for in batches.

use avow_signer::{Algorithm, CoverClaims, Head, Link, UnsignedCover};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::signed::KEY;
use super::*;
use crate::evidence::chain::{COVER_TOPIC, LINK_PROPERTY};
use crate::policy::Policy;

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/batched/x";
const IDENTITY: &str = "spiffe://plant/device/a";

const POLICY: &str = r#"
version = 1

[[permit]]
id = "client-id"
who = ["device", "dashboard"]
client_id = "${device}*"

[[permit]]
id = "batched"
who = ["device"]
publish = ["plant/${device}/batched/#"]
schema = "none"
evidence = "batched"

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

fn settings() -> Settings {
    let policy = Arc::new(Policy::parse("policy.toml", POLICY).unwrap());
    Settings { policy, limits: crate::broker::durable::tests::generous(), ..testing::settings() }
}

/// A device that signs batches, and its broker.
struct Stage {
    rig: Rig,
    signer: Signer,
    device: ConnectionId,
    next_id: u16,
}

impl Stage {
    fn new() -> Self {
        let mut rig = Rig::of(settings());
        let device = rig.client("device/a", V5);
        Self { rig, signer: Signer { epoch: 1, seq: 0, batch: None }, device, next_id: 0 }
    }

    fn next_id(&mut self) -> u16 {
        self.next_id = self.next_id % 1_000 + 1;
        self.next_id
    }

    /// Links a message; the PUBLISH that carries it.
    fn linked(&mut self, topic: &str, payload: &str) -> Publish {
        let message =
            avow_signer::Message { topic, payload: payload.as_bytes(), qos: 1, retain: false };
        let link = self.signer.link(&message);
        let packet_id = self.next_id();
        let mut publish = super::message(topic, payload, QoS::AtLeastOnce, packet_id);
        let (name, value) = (LINK_PROPERTY.to_owned(), link.property());
        publish.properties.user_properties.push(UserProperty { name, value });
        publish
    }

    fn cover(&mut self) -> Publish {
        let object = self.signer.cover();
        let packet_id = self.next_id();
        let mut publish = super::message(COVER_TOPIC, "", QoS::AtLeastOnce, packet_id);
        publish.payload = object.into();
        publish
    }

    /// Sends a PUBLISH; type and reason of its entry.
    fn send(&mut self, publish: Publish) -> String {
        self.rig.entries.clear();
        self.rig.packet(self.device, Packet::Publish(Box::new(publish)));
        self.rig.sync();
        let entry = self.rig.entries.first().cloned().unwrap_or_default();
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("type"), text("why")).trim().to_owned()
    }

    /// The broker as a start makes it of the log.
    fn restart(&mut self) {
        let (settings, now) = (self.rig.broker.settings.clone(), self.rig.now);
        let mut replay = Replay::new(settings, now);
        crate::broker::durable::tests::apply(&mut replay, &self.rig.log);
        let count = self.rig.log.len();
        self.rig.go_on_with(replay.finish(now), count);
        self.device = self.rig.client("device/a", V5);
    }
}

/// The device's side, with the certificate of these tests.
struct Signer {
    epoch: u64,
    seq: u64,
    batch: Option<(u64, Head)>,
}

impl Signer {
    fn link(&mut self, message: &avow_signer::Message<'_>) -> Link {
        self.seq += 1;
        let link = Link { epoch: self.epoch, seq: self.seq, salt: [8; 16] };
        let begun = Head::begin(IDENTITY, "plant", self.epoch, self.seq);
        let (first, head) = self.batch.unwrap_or((self.seq, begun));
        self.batch = Some((first, head.behind(&link.digest(message))));
        link
    }

    fn cover(&mut self) -> Vec<u8> {
        let (first, head) = self.batch.take().unwrap();
        let claims = CoverClaims {
            identity: IDENTITY,
            certificate_sha256: &[3; 32],
            audience: "plant",
            issued_at: 1_000_060,
            cti: &[9; 16],
            epoch: self.epoch,
            first,
            last: self.seq,
        };
        let unsigned = UnsignedCover::new(Algorithm::Ed25519, &claims, head);
        unsigned.signed(&KEY.sign(&unsigned.to_be_signed()).unwrap())
    }
}

#[test]
fn a_batch_is_accepted_covered_and_its_entries_hold_all_that_a_stranger_needs() {
    let mut stage = Stage::new();
    let board = stage.rig.client("dashboard/b", V5);
    stage.rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let mut entries = Vec::new();
    for payload in ["21.5", "21.6", "21.7"] {
        let publish = stage.linked(T, payload);
        assert_eq!(stage.send(publish), "publish");
        entries.extend(stage.rig.entries.clone());
    }
    for (entry, seq) in entries.iter().zip(1..) {
        assert_eq!(
            (&entry["lvl"], &entry["epoch"], &entry["seq"]),
            (&"A0".into(), &1.into(), &seq.into())
        );
    }
    let cover = stage.cover();
    assert_eq!(stage.send(cover.clone()), "cover");
    let entry = stage.rig.entries[0].clone();
    assert_eq!((&entry["lvl"], &entry["count"]), (&"A1".into(), &3.into()));
    assert_eq!((&entry["first"], &entry["last"]), (&1.into(), &3.into()));
    // The chain, made of the entries alone.
    let mut head = Head::begin(IDENTITY, "plant", 1, 1);
    for entry in &entries {
        let c = URL_SAFE_NO_PAD.decode(entry["c"].as_str().unwrap());
        let topic = TopicName::parse(entry["topic"].as_str().unwrap()).unwrap();
        let digest = crate::evidence::chain::link_digest(
            entry["seq"].as_u64().unwrap(),
            (QoS::AtLeastOnce, false),
            &topic,
            &c.unwrap().try_into().unwrap(),
        );
        head = head.behind(&digest);
    }
    assert_eq!(entry["head"], URL_SAFE_NO_PAD.encode(head.as_bytes()));
    let acks = stage.rig.take(stage.device);
    let good =
        |ack: &Packet| matches!(ack, Packet::PubAck(ack) if ack.reason == ReasonCode::Success);
    assert!(acks.len() == 4 && acks.iter().all(good), "{acks:?}");
    assert_eq!(stage.rig.payloads(board), ["21.5", "21.6", "21.7"], "a cover goes to nobody");
    assert_eq!(stage.send(cover), "publish.dup", "sent again, answered again");
}

#[test]
fn what_is_wrong_with_a_cover_is_refused_and_its_batch_stays_as_it_is() {
    let mut stage = Stage::new();
    let publish = stage.linked(T, "1");
    stage.send(publish);
    let good = stage.cover();
    let mut bent = good.clone();
    let mut bytes = bent.payload.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    bent.payload = bytes.into();
    assert_eq!(stage.send(bent), "publish.refused statement.signature");
    let mut retained = good.clone();
    retained.retain = true;
    assert_eq!(stage.send(retained), "publish.refused statement.manner");
    let mut garbage = good.clone();
    garbage.payload = Bytes::from_static(b"x");
    assert_eq!(stage.send(garbage), "publish.refused statement.malformed");
    let other = stage.rig.client("device/c", V5);
    stage.rig.entries.clear();
    stage.rig.packet(other, Packet::Publish(Box::new(good.clone())));
    stage.rig.sync();
    assert_eq!(stage.rig.entries[0]["why"], "statement.iss", "nobody covers for another");
    assert_eq!(stage.send(good), "cover");
}

#[test]
fn a_batch_with_a_message_that_never_came_stays_a0_and_the_next_is_as_good_as_any() {
    let mut stage = Stage::new();
    let first = stage.linked(T, "1");
    let lost = stage.linked(T, "2");
    let third = stage.linked(T, "3");
    stage.send(first);
    assert_eq!(stage.send(third), "publish");
    let gap = stage.rig.entries.iter().find(|entry| entry["type"] == "gap").unwrap();
    assert_eq!((&gap["from"], &gap["to"], &gap["missing"]), (&2.into(), &2.into(), &1.into()));
    let cover = stage.cover();
    assert_eq!(stage.send(cover.clone()), "publish.refused statement.gap");
    let refused = &stage.rig.entries[0];
    assert!(refused["sig"].is_string() && refused["head"].is_string(), "{refused}");
    assert_eq!(stage.send(lost), "publish.refused statement.replay", "too late");
    assert_eq!(stage.send(cover), "publish.refused statement.replay");
    let next = stage.linked(T, "4");
    assert_eq!(stage.send(next), "publish");
    let cover = stage.cover();
    assert_eq!(stage.send(cover), "cover");
}

#[test]
fn a_message_that_is_not_the_one_that_was_linked_shows_in_the_head() {
    let mut stage = Stage::new();
    let mut publish = stage.linked(T, "1");
    publish.payload = Bytes::from_static(b"2");
    assert_eq!(stage.send(publish), "publish", "nobody has signed yet");
    let cover = stage.cover();
    assert_eq!(stage.send(cover), "publish.refused statement.commitment");
}

#[test]
fn a_refused_message_stays_in_its_batch() {
    let mut stage = Stage::new();
    let (good, bad) = (stage.linked(T, "1"), stage.linked("plant/b/batched/x", "2"));
    stage.send(good);
    assert_eq!(stage.send(bad), "publish.refused policy.no_rule");
    let entry = stage.rig.entries[0].clone();
    assert_eq!((&entry["epoch"], &entry["seq"]), (&1.into(), &2.into()));
    assert!(entry["c"].is_string(), "{entry}");
    let cover = stage.cover();
    assert_eq!(stage.send(cover), "cover");
}

#[test]
fn a_resend_is_answered_and_goes_nowhere_and_a_number_is_used_once() {
    let mut stage = Stage::new();
    let mut publish = stage.linked(T, "1");
    stage.send(publish.clone());
    publish.dup = true;
    assert_eq!(stage.send(publish.clone()), "publish.dup");
    publish.payload = Bytes::from_static(b"2");
    assert_eq!(stage.send(publish), "publish.refused statement.conflict");
    let cover = stage.cover();
    assert_eq!(stage.send(cover), "cover");
}

#[test]
fn a_rule_that_says_batched_refuses_what_is_not_linked_or_left_uncovered() {
    let mut stage = Stage::new();
    let plain = message(T, "1", QoS::AtLeastOnce, 900);
    assert_eq!(stage.send(plain), "publish.refused statement.missing");
    let mut twice = stage.linked(T, "1");
    let property = twice.properties.user_properties[0].clone();
    twice.properties.user_properties.push(property);
    assert_eq!(stage.send(twice.clone()), "publish.refused statement.repeated");
    twice.properties.user_properties.truncate(1);
    assert_eq!(stage.send(twice), "publish");
    stage.rig.advance(Duration::from_secs(600));
    // It was silent for longer than its Keep Alive.
    stage.device = stage.rig.client("device/a", V5);
    let at_the_bound = stage.linked(T, "2");
    assert_eq!(stage.send(at_the_bound), "publish");
    stage.rig.advance(Duration::from_nanos(1));
    let past_it = stage.linked(T, "3");
    assert_eq!(stage.send(past_it), "publish.refused statement.uncovered");
    let elsewhere = stage.linked("plant/a/plain/x", "4");
    assert_eq!(stage.send(elsewhere), "publish", "the rule asks for nothing");
    let cover = stage.cover();
    assert_eq!(stage.send(cover), "cover", "also of what was refused");
    let again = stage.linked(T, "5");
    assert_eq!(stage.send(again), "publish");
}

#[test]
fn a_restart_in_the_middle_of_a_batch_forgets_nothing() {
    let mut stage = Stage::new();
    let first = stage.linked(T, "1");
    stage.send(first.clone());
    stage.restart();
    let second = stage.linked(T, "2");
    stage.send(second);
    assert_eq!(stage.send(first), "publish.dup");
    let cover = stage.cover();
    stage.restart();
    assert_eq!(stage.send(cover.clone()), "cover");
    stage.restart();
    assert_eq!(stage.send(cover), "publish.dup", "what was covered is");
    stage.signer = Signer { epoch: 0, seq: 0, batch: None };
    let stale = stage.linked(T, "3");
    assert_eq!(stage.send(stale), "publish.refused statement.epoch");
}

#[test]
fn a_crash_at_any_record_leaves_a_cover_over_exactly_what_the_log_has() {
    let mut stage = Stage::new();
    let messages: Vec<Publish> = ["1", "2", "3"].map(|payload| stage.linked(T, payload)).to_vec();
    let cover = stage.cover();
    for publish in messages.iter().chain([&cover]) {
        stage.send(publish.clone());
    }
    let log = stage.rig.log.clone();
    for count in 0..=log.len() {
        stage.rig.log = log.clone();
        stage.rig.log.truncate(count);
        let whole = log[..count].iter();
        let linked = whole.clone().filter(|record| {
            record.kind == RecordKind::Entry
                && serde_json::from_slice::<Value>(&record.head).unwrap()["type"] == "publish"
        });
        // Entry and record are of one batch; a cut between the two does not happen.
        let next_is_state = log.get(count).is_some_and(|record| record.kind == RecordKind::State);
        if next_is_state {
            continue;
        }
        let there = linked.count();
        stage.restart();
        // The device was not told, so it sends again from there.
        for publish in &messages[there..] {
            assert_eq!(stage.send(publish.clone()), "publish", "cut at {count}");
        }
        let said = stage.send(cover.clone());
        assert!(said == "cover" || said == "publish.dup", "{said}, cut at {count}");
    }
}

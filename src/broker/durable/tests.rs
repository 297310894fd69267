//! Replay against the running broker: after any history that is on disk, both are the same; and a
//! replay that goes on from an image is the one that read everything.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use super::change::Change;
use super::image::image;
use super::recovering::Recovering;
use super::{LogRecord, Replay};
use crate::broker::tests::{Logged, Rig, ack, disconnect, lasting, message, will};
use crate::broker::{Broker, ConnectionId, Input, Map, testing};
use crate::evidence::RecordKind;
use crate::evidence::erasure::IndexRanges;
use crate::limits::LimitsConfig;
use crate::mqtt::{
    Packet, PacketId, ProtocolVersion, QoS, ReasonCode, SubscriptionOptions, Unsubscribe,
};
use crate::session::Bounds;
use crate::time::{Instant, Now, UnixNanos};

const V5: ProtocolVersion = ProtocolVersion::V5;
const NAMES: [&str; 5] = ["device/a", "device/c", "dashboard/x", "dashboard/y", "dashboard/z"];
const FILTERS: [&str; 5] = [
    "plant/#",
    "plant/a/sealed/+",
    "$share/g/plant/+/sealed/#",
    "$share/h/plant/a/#",
    "plant/c/sealed/1",
];

pub(in crate::broker) fn base() -> Now {
    Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) }
}

pub(in crate::broker) fn generous() -> LimitsConfig {
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.subscribes_per_second = 1_000_000;
    limits.default.subscribes_burst = 1_000_000;
    limits
}

pub(in crate::broker) fn apply(replay: &mut Replay, records: &[Logged]) {
    for record in records {
        let body = record.body.as_ref().map(|body| (&body.payload[..], &body.properties[..]));
        let (kind, index, head) = (record.kind, record.index, &record.head[..]);
        replay.apply(LogRecord { kind, index, head, body }).unwrap();
    }
}

pub(in crate::broker) fn empty(bounds: Bounds) -> Replay {
    let settings = testing::settings();
    Replay::new(crate::broker::Settings { bounds, limits: generous(), ..settings }, base())
}

/// The broker that is being made.
pub(in crate::broker) fn broker_of(replay: &Replay) -> &Broker {
    &replay.broker
}

/// Messages of Shared Subscriptions that are nobody's.
pub(in crate::broker) fn unassigned(replay: &mut Replay) -> usize {
    replay.recovering().unassigned.len()
}

/// What of a broker must survive, less what only a replay knows.
fn state(broker: &Broker) -> Vec<String> {
    let bounds = Bounds::default();
    let recovering = Recovering::new(base(), bounds, crate::broker::Backlog::default());
    let mut changes = Vec::new();
    image(broker, &recovering, &mut |change| match change {
        // Identifiers of copies that were never sent are no state.
        Change::Position { .. } | Change::LastId { .. } => {}
        change => changes.push(format!("{change:?}")),
    });
    changes
}

type Record = (Vec<u8>, Option<(Vec<u8>, Vec<u8>)>);

fn image_bytes(replay: &Replay) -> Vec<Record> {
    let mut records = Vec::new();
    replay.image(&mut |head, body| {
        let body = body.map(|(payload, properties)| (payload.to_vec(), properties.to_vec()));
        records.push((head.to_vec(), body));
    });
    records
}

/// Clients that do what they like, from a seed.
struct History {
    rig: Rig,
    random: ChaCha12Rng,
    clients: Map<usize, ConnectionId>,
    next_id: u16,
    next_number: u64,
}

impl History {
    fn new(seed: u64, bounds: Bounds) -> Self {
        let mut rig = Rig::with(bounds, generous());
        rig.restart_at(base());
        let random = ChaCha12Rng::seed_from_u64(seed);
        Self { rig, random, clients: Map::default(), next_id: 0, next_number: 0 }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.next_u32() % bound
    }

    fn step(&mut self) {
        let who = self.below(NAMES.len() as u32) as usize;
        let Some(id) = self.clients.get(&who).copied() else { return self.connect(who) };
        match self.below(20) {
            0 => {
                self.clients.remove(&who);
                self.rig.close(id);
            }
            1 => {
                self.clients.remove(&who);
                self.rig.packet(id, disconnect(ReasonCode::Success));
                self.rig.close(id);
            }
            2 => self.connect(who),
            3 => self.rig.advance(Duration::from_secs(3)),
            4 if who > 1 => {
                let filter = FILTERS[self.below(5) as usize];
                let unsubscribe = Unsubscribe {
                    packet_id: PacketId::ONE,
                    user_properties: Vec::new(),
                    filters: vec![filter.to_owned()],
                };
                self.rig.packet(id, Packet::Unsubscribe(Box::new(unsubscribe)));
            }
            5..8 if who > 1 => {
                let filter = FILTERS[self.below(5) as usize];
                let qos = QoS::from_bits(self.below(3) as u8).unwrap();
                let options = SubscriptionOptions { qos, ..Default::default() };
                self.rig.subscribe_with(id, filter, options, Some(self.random.next_u32() % 3 + 1));
            }
            8..10 if who > 1 => self.answer(id),
            _ if who < 2 => self.publish(id, NAMES[who]),
            _ => self.answer(id),
        }
        if self.below(3) == 0 {
            self.rig.sync();
        }
    }

    fn connect(&mut self, who: usize) {
        let name = NAMES[who].rsplit('/').next().unwrap();
        // Those of expiry 0 are transient, unless they have a Will.
        let expiry = [0, 4, 100, 1_000][self.below(4) as usize];
        let mut packet = lasting(V5, name, expiry);
        packet.clean_start = self.below(6) == 0;
        packet.properties.receive_maximum = Some(3);
        if who < 2 && self.below(2) == 0 {
            let topic = format!("plant/{name}/sealed/gone");
            packet.will = Some(will(&topic, "gone", self.below(2) * 5));
        }
        let id = self.rig.connect(NAMES[who], packet);
        self.clients.insert(who, id);
    }

    fn publish(&mut self, id: ConnectionId, name: &str) {
        let name = name.rsplit('/').next().unwrap();
        if self.below(4) == 0 {
            return self.publish_numbered(id, name);
        }
        let topic = format!("plant/{name}/sealed/{}", self.below(3));
        self.next_id = self.next_id % 40 + 1;
        let qos = QoS::from_bits(self.below(3) as u8).unwrap();
        let mut publish = message(&topic, "x", qos, self.next_id);
        publish.retain = self.below(4) == 0;
        if publish.retain && self.below(4) == 0 {
            publish.payload = bytes::Bytes::new();
        }
        self.rig.packet(id, Packet::Publish(Box::new(publish)));
        if qos == QoS::ExactlyOnce && self.below(3) > 0 {
            self.rig.packet(id, Packet::PubRel(ack(self.next_id)));
        }
    }

    /// Publishes a payload with a number: the next one, or one that was skipped, or used before.
    fn publish_numbered(&mut self, id: ConnectionId, name: &str) {
        let kind = ["counted", "strict"][self.below(2) as usize];
        let topic = format!("plant/{name}/telemetry/{kind}/{}", self.below(3));
        self.next_number += u64::from(self.below(3));
        let number = self.next_number - u64::from(self.below(12)).min(self.next_number);
        let payload = format!("{{\"t\":{number}{}}}", " ".repeat(self.below(2) as usize));
        self.next_id = self.next_id % 40 + 1;
        let mut publish = message(&topic, &payload, QoS::AtLeastOnce, self.next_id);
        publish.dup = self.below(3) == 0;
        self.rig.packet(id, Packet::Publish(Box::new(publish)));
    }

    /// Acknowledges most of what came.
    fn answer(&mut self, id: ConnectionId) {
        for packet in self.rig.take(id) {
            if self.below(8) == 0 {
                continue;
            }
            let answer = match packet {
                Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(it)) => Packet::PubAck(ack(it.as_u16())),
                    (QoS::ExactlyOnce, Some(it)) => Packet::PubRec(ack(it.as_u16())),
                    _ => continue,
                },
                Packet::PubRel(it) => Packet::PubComp(ack(it.packet_id.as_u16())),
                _ => continue,
            };
            self.rig.packet(id, answer);
        }
    }

    /// Replays the log and compares with the broker, all of which is on disk.
    fn compare(&mut self, bounds: Bounds) {
        self.rig.sync();
        let mut replay = empty(bounds);
        apply(&mut replay, &self.rig.log);
        let (was, is) = (state(&self.rig.broker), state(&replay.broker));
        for (was, is) in was.iter().zip(&is) {
            assert_eq!(was, is);
        }
        assert_eq!(was.len(), is.len());
    }
}

#[test]
fn replay_comes_to_the_state_of_the_broker() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut history = History::new(seed, Bounds::default());
        for step in 0..300 {
            history.step();
            if step % 50 == 49 {
                history.compare(Bounds::default());
            }
        }
    }
}

/// Erases the bodies of some entries, in the broker and in the log.
fn erase_some(history: &mut History) {
    history.rig.sync();
    let mut indices = Vec::new();
    for at in 0..history.rig.log.len() {
        let record = &history.rig.log[at];
        let index = owner(record);
        indices.extend(index.filter(|_| history.below(3) == 0));
    }
    let ranges = std::sync::Arc::new(IndexRanges::of(indices));
    let administration = crate::broker::Administration {
        ticket: 0,
        act: crate::evidence::erasure::ERASE_BEGIN_ACT,
        subject: "x".to_owned(),
        facts: vec![("indices", ranges.to_string())],
    };
    let erased = std::sync::Arc::clone(&ranges);
    history.rig.input(Input::Erase { ranges, administration });
    history.rig.sync();
    for record in &mut history.rig.log {
        if owner(record).is_some_and(|owner| erased.contains(owner)) {
            record.body = None;
        }
    }
}

/// The entry that the body of a record belongs to.
fn owner(record: &Logged) -> Option<u64> {
    record.body.as_ref()?;
    match record.kind {
        RecordKind::Entry => Some(record.index),
        RecordKind::State => super::owner_of_body(&record.head, record.index),
    }
}

#[test]
fn replay_of_a_log_with_erased_bodies_comes_to_the_state_of_the_broker() {
    let mut erased = 0;
    for seed in 500..540 {
        println!("seed {seed}");
        let bounds = Bounds::default();
        let mut history = History::new(seed, bounds);
        for step in 0..300 {
            history.step();
            if step % 60 == 40 {
                erase_some(&mut history);
                history.compare(bounds);
            }
            if step % 60 == 59 {
                history.compare(bounds);
            }
        }
        erased +=
            state(&history.rig.broker).iter().filter(|it| it.contains("is_erased: true")).count();
    }
    assert!(erased > 10, "{erased} erased messages still had a place");
}

#[test]
fn a_replay_from_an_image_is_the_replay_of_everything() {
    let (mut nameable, mut numbered) = (0, 0);
    for seed in 100..130 {
        println!("seed {seed}");
        // Every other one with queues that are full again and again.
        let narrow = Bounds { queue_messages_max: 2, ..Bounds::default() };
        let bounds = if seed % 2 == 0 { narrow } else { Bounds::default() };
        let mut history = History::new(seed, bounds);
        (0..300).for_each(|_| history.step());
        let log = &history.rig.log;
        let mut whole = empty(bounds);
        apply(&mut whole, log);
        for part in 1..6 {
            let (before, after) = log.split_at(log.len() * part / 6);
            let mut first = empty(bounds);
            apply(&mut first, before);
            let snapshot = image_bytes(&first);
            numbered += first.broker.sequences.len();
            nameable += first.recovering().nameable.iter().count();
            let mut second = empty(bounds);
            for (head, body) in &snapshot {
                let body = body.as_ref().map(|(payload, rest)| (&payload[..], &rest[..]));
                let kind = crate::evidence::RecordKind::State;
                let index = second.position();
                second.apply(LogRecord { kind, index, head, body }).unwrap();
            }
            assert_eq!(image_bytes(&second), snapshot, "an image gives itself again");
            apply(&mut second, after);
            assert_eq!(image_bytes(&second), image_bytes(&whole));
        }
    }
    assert!(numbered > 200, "only {numbered} windows of numbers");
    assert!(nameable > 100, "only {nameable}: the test tests little of what is kept");
}

#[test]
fn what_goes_into_a_queue_after_it_was_full_survives() {
    let bounds = Bounds { queue_messages_max: 5, ..Bounds::default() };
    let mut rig = Rig::with(bounds, generous());
    rig.restart_at(base());
    let mut connect = lasting(V5, "x", 1_000);
    connect.properties.receive_maximum = Some(1);
    let board = rig.connect("dashboard/x", connect.clone());
    rig.subscribe_with(
        board,
        "plant/#",
        SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() },
        None,
    );
    let device = rig.client("device/a", V5);
    let publish = |rig: &mut Rig, number: u16| {
        let text = number.to_string();
        let publish = message("plant/a/sealed/1", &text, QoS::AtLeastOnce, number);
        rig.packet(device, Packet::Publish(Box::new(publish)));
    };
    // One is sent, five wait, the rest finds no room. None is on disk when the next comes.
    (1..10).for_each(|number| publish(&mut rig, number));
    rig.sync();
    rig.packet(board, Packet::PubAck(ack(1)));
    (10..14).for_each(|number| publish(&mut rig, number));
    rig.sync();
    let mut replay = empty(bounds);
    apply(&mut replay, &rig.log);
    let (was, is) = (state(&rig.broker), state(&replay.broker));
    assert_eq!(was, is);
    let queued = was.iter().filter(|change| change.starts_with("Queued")).count();
    assert_eq!(queued, 5, "{was:#?}");
}

#[test]
fn a_retained_message_that_was_replaced_while_it_was_sent_survives() {
    let mut rig = Rig::with(Bounds::default(), generous());
    rig.restart_at(base());
    let device = rig.client("device/a", V5);
    let retain = |rig: &mut Rig, topic: &str, text: &str| {
        let mut publish = message(topic, text, QoS::AtLeastOnce, 1);
        publish.retain = true;
        rig.packet(device, Packet::Publish(Box::new(publish)));
    };
    retain(&mut rig, "plant/a/sealed/1", "first");
    retain(&mut rig, "plant/a/sealed/2", "second");
    rig.sync();
    let mut connect = lasting(V5, "x", 1_000);
    connect.properties.receive_maximum = Some(1);
    let board = rig.connect("dashboard/x", connect.clone());
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    rig.subscribe_with(board, "plant/#", options, None);
    assert_eq!(rig.payloads(board), ["first"]);
    // Replaced, but not yet on disk, when the second copy gets its identifier.
    retain(&mut rig, "plant/a/sealed/2", "third");
    rig.packet(board, Packet::PubAck(ack(1)));
    rig.sync();
    assert_eq!(rig.payloads(board), ["second"]);
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log);
    assert_eq!(state(&rig.broker), state(&replay.broker));
    let (now, count) = (rig.now, rig.log.len());
    rig.go_on_with(replay.finish(now), count);
    let board = rig.connect("dashboard/x", connect);
    assert_eq!(rig.payloads(board), ["second"]);
    rig.packet(board, Packet::PubAck(ack(2)));
    rig.sync();
    assert_eq!(rig.payloads(board), ["third"]);
}

#[test]
fn a_load_that_no_lasting_session_wants_leaves_nothing_in_a_replay() {
    const COUNT: u64 = 300_000;
    let mut rig = Rig::with(Bounds::default(), generous());
    rig.restart_at(base());
    let board = rig.connect("dashboard/x", lasting(V5, "x", 1_000));
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    rig.subscribe_with(board, "plant/c/#", options, None);
    rig.subscribe_with(board, "$share/g/plant/c/#", options, None);
    let device = rig.client("device/a", V5);
    let before = rig.log.len();
    for (number, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce), (3, QoS::AtLeastOnce)] {
        let mut publish = message("plant/a/sealed/0", &"x".repeat(100), qos, number);
        publish.retain = number == 3;
        rig.packet(device, Packet::Publish(Box::new(publish)));
    }
    rig.sync();
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log);
    let size = |replay: &Replay| -> usize {
        let body =
            |body: Option<(Vec<u8>, Vec<u8>)>| body.map_or(0, |(one, two)| one.len() + two.len());
        image_bytes(replay).into_iter().map(|(head, beside)| head.len() + body(beside)).sum()
    };
    let small = size(&replay);
    assert!(small < 1_024, "{small} bytes");
    // The same messages again and again, as so many entries.
    let load: Vec<&Logged> =
        rig.log.iter().skip(before).filter(|record| record.body.is_some()).collect();
    assert_eq!(load.len(), 3);
    let next = replay.position();
    for (index, record) in (next..next + COUNT).zip(load.iter().cycle()) {
        let body = record.body.as_ref().map(|body| (&body.payload[..], &body.properties[..]));
        let (kind, head) = (record.kind, &record.head[..]);
        replay.apply(LogRecord { kind, index, head, body }).unwrap();
        let recovering = replay.recovering();
        assert_eq!(recovering.nameable.iter().count() + recovering.unassigned.len(), 0);
    }
    assert_eq!(replay.position(), next + COUNT);
    // Its index takes a byte or two more.
    assert!(size(&replay) < small + 16, "{} bytes", size(&replay));
    // What the session does want is all there is more.
    assert_eq!(replay.broker.queued, (0, 0));
}

#[test]
fn an_older_connect_that_waited_for_its_record_does_not_take_the_session_back() {
    let mut rig = Rig::with(Bounds::default(), generous());
    rig.restart_at(base());
    // None is on disk when the next comes. The second leaves no record, until the first is seen to
    // have one; the third has one from the start.
    let connections: Vec<ConnectionId> = [600, 0, 600]
        .into_iter()
        .map(|seconds| {
            let id = rig.open("dashboard/x");
            rig.packet(id, Packet::Connect(Box::new(lasting(V5, "x", seconds))));
            id
        })
        .collect();
    rig.sync();
    let [first, second, third] = connections[..] else { panic!() };
    let mut closed = rig.closed.clone();
    closed.sort_unstable();
    assert_eq!(closed, [first, second]);
    let sent = rig.take(third);
    assert!(matches!(&sent[..], [Packet::ConnAck(_)]), "{sent:?}");
    let mut replay = empty(Bounds::default());
    apply(&mut replay, &rig.log);
    let was = state(&rig.broker);
    assert_eq!(was, state(&replay.broker));
    assert_eq!(was.len(), 1, "one session: {was:#?}");
}

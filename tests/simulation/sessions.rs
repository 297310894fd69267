//! Sessions on a disk that forgets: a client that comes back with Clean Start 0 after the power was
//! lost, at any moment, gets every QoS 1 and 2 message as the specification says, in order, and the
//! broker takes every QoS 2 message of a client once.
//!
//! The clients keep their own state across every crash of the broker, as MQTT wants them to: the
//! publisher sends again what is not acknowledged, the subscriber knows which Packet Identifiers it
//! holds. A failure prints its seed; `one_history(seed, None)` replays it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avow::broker::{
    Backlog, Broker, CloseCause, ConnectionId, Input, LogRecord, Output, Replay, Settings,
};
use avow::evidence::{Batch, BatchId, RecordKind};
use avow::identity::Role;
use avow::limits::LimitsConfig;
use avow::mqtt::{
    Ack, ClientId, Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscriptionOptions,
    TopicName,
};
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::session::Bounds;
use avow::storage::snapshot::{restore, take};
use avow::storage::{Log, LogOptions};
use avow::time::{Instant, Now, UnixNanos};
use bytes::Bytes;

use crate::disk::{Accident, Random, SimDisk};
use crate::world::{World, facts};

const POLICY: &str = r#"
version = 1
[[permit]]
id = "ids"
who = ["device", "dashboard"]
client_id = "${device}*"
[[permit]]
id = "publish"
who = ["device"]
publish = ["plant/${device}/#"]
qos_max = 2
retain = true
schema = "none"
[[permit]]
id = "read"
who = ["dashboard"]
subscribe = ["plant/#"]
"#;

/// Messages that the publisher has on their way at most; its Packet Identifiers come again soon.
const WINDOW: usize = 12;
const LIVES: u64 = 6;
const STEPS: u64 = 250;

/// Tags of State records, in `broker/durable/change.rs`.
const SENT: u8 = 6;
const RECEIPTED: u8 = 8;
const RELEASED: u8 = 9;

pub(crate) fn settings(seed: u64) -> Settings {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let none = |name: &str| Err::<String, _>(format!("no {name}"));
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.bytes_per_second = 1_000_000_000;
    limits.default.bytes_burst = 1_000_000_000;
    Settings {
        privacy: avow::evidence::Privacy::PLAIN,
        about: Default::default(),
        tokens: std::sync::Arc::new(avow::identity::TokenKeys::none()),
        node: "plant".into(),
        shard: 0,
        bounds: Bounds { send_window_messages_max: 8, ..Bounds::default() },
        backlog: Backlog::default(),
        policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
        schemas: Arc::new(Schemas::parse("registry.toml", "version = 1", none).unwrap()),
        limits,
        statements: Default::default(),
        receipts: None,
        config_sha256: [0; 32],
        seed: bytes,
    }
}

/// What both clients have of a connection.
#[derive(Default)]
struct Line {
    connection: Option<ConnectionId>,
    connected: bool,
    /// On its way to the broker.
    outbox: VecDeque<Packet>,
    /// Whether an earlier CONNACK promised a session.
    has_session: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Publish,
    Release,
}

#[derive(Default)]
struct Publisher {
    line: Line,
    next: u64,
    unacked: VecDeque<(PacketId, QoS, u64, Stage)>,
}

#[derive(Default)]
struct Subscriber {
    line: Line,
    subscribed: bool,
    held: BTreeSet<PacketId>,
    got: Vec<(QoS, u64)>,
}

struct Plant {
    broker: Broker,
    now: Now,
    waiting: VecDeque<(BatchId, Batch)>,
    next_connection: u64,
    publisher: Publisher,
    subscriber: Subscriber,
}

const V5: ProtocolVersion = ProtocolVersion::V5;

fn publish(&(packet_id, qos, payload, _): &(PacketId, QoS, u64, Stage), dup: bool) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup,
        qos,
        retain: false,
        topic: Some(TopicName::parse("plant/d/x").unwrap()),
        packet_id: Some(packet_id),
        properties: PublishProperties::default(),
        payload: Bytes::from(payload.to_string()),
    }))
}

fn ack(packet_id: PacketId) -> Ack {
    Ack::new(packet_id, ReasonCode::Success)
}

impl Line {
    /// A packet from the broker that belongs to the line itself; true if it was one.
    fn handle(&mut self, packet: &Packet) -> bool {
        let Packet::ConnAck(connack) = packet else { return false };
        assert_eq!(connack.reason, ReasonCode::Success);
        assert!(connack.session_present || !self.has_session, "the session was lost");
        (self.connected, self.has_session) = (true, true);
        true
    }

    fn lose(&mut self) {
        (self.connection, self.connected) = (None, false);
        self.outbox.clear();
    }
}

impl Publisher {
    fn send_more(&mut self, random: &mut Random) {
        if !self.line.connected || self.unacked.len() >= WINDOW {
            return;
        }
        let free = (1..)
            .filter_map(PacketId::new)
            .find(|id| self.unacked.iter().all(|(used, ..)| used != id));
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2) as usize];
        let message = (free.unwrap(), qos, self.next, Stage::Publish);
        self.next += 1;
        self.line.outbox.push_back(publish(&message, false));
        self.unacked.push_back(message);
    }

    fn handle(&mut self, packet: Packet) {
        if self.line.handle(&packet) {
            for message in &self.unacked {
                self.line.outbox.push_back(match message.3 {
                    Stage::Publish => publish(message, true),
                    Stage::Release => Packet::PubRel(ack(message.0)),
                });
            }
            return;
        }
        match packet {
            Packet::PubAck(done) => self.unacked.retain(|(id, ..)| *id != done.packet_id),
            Packet::PubRec(taken) => {
                assert!(!taken.reason.is_error(), "{taken:?}");
                for message in self.unacked.iter_mut().filter(|it| it.0 == taken.packet_id) {
                    message.3 = Stage::Release;
                }
                self.line.outbox.push_back(Packet::PubRel(ack(taken.packet_id)));
            }
            Packet::PubComp(done) => self.unacked.retain(|(id, ..)| *id != done.packet_id),
            other => panic!("{other:?}"),
        }
    }
}

impl Subscriber {
    fn handle(&mut self, packet: Packet) {
        if self.line.handle(&packet) {
            if !self.subscribed {
                let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
                self.line.outbox.push_back(Packet::Subscribe(Box::new(Subscribe {
                    packet_id: PacketId::ONE,
                    subscription_identifier: None,
                    user_properties: Vec::new(),
                    filters: vec![SubscribeFilter { filter: "plant/#".to_owned(), options }],
                })));
            }
            return;
        }
        match packet {
            Packet::SubAck(_) => self.subscribed = true,
            Packet::Publish(publish) => self.receive(&publish),
            Packet::PubRel(released) => {
                self.held.remove(&released.packet_id);
                self.line.outbox.push_back(Packet::PubComp(ack(released.packet_id)));
            }
            other => panic!("{other:?}"),
        }
    }

    fn receive(&mut self, publish: &Publish) {
        let text = String::from_utf8(publish.payload.to_vec()).unwrap();
        let (id, number) = (publish.packet_id.unwrap(), text.parse().unwrap());
        if publish.qos == QoS::AtLeastOnce {
            self.got.push((publish.qos, number));
            self.line.outbox.push_back(Packet::PubAck(ack(id)));
            return;
        }
        // [MQTT-4.3.3-10]: under an identifier that is not released it is the same message.
        if self.held.insert(id) {
            self.got.push((publish.qos, number));
        }
        self.line.outbox.push_back(Packet::PubRec(ack(id)));
    }
}

impl Plant {
    fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
    }

    fn connect(&mut self, is_publisher: bool) {
        let (role, name) =
            if is_publisher { (Role::Device, "d") } else { (Role::Dashboard, "board") };
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let facts = facts(role, name);
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection, facts, connect_deadline });
        let connect = Connect {
            version: V5,
            clean_start: false,
            keep_alive_seconds: 1_000,
            client_id: ClientId::new(name),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_seconds: Some(100_000),
                receive_maximum: (!is_publisher).then_some(5),
                ..Default::default()
            },
        };
        let packets = vec![Packet::Connect(Box::new(connect))];
        self.input(Input::Packets { connection, packets });
        let line = self.line(is_publisher);
        // What an older connection still had on its way is lost with it.
        line.lose();
        line.connection = Some(connection);
    }

    fn line(&mut self, is_publisher: bool) -> &mut Line {
        match is_publisher {
            true => &mut self.publisher.line,
            false => &mut self.subscriber.line,
        }
    }

    fn close(&mut self, is_publisher: bool) {
        if let Some(connection) = self.line(is_publisher).connection {
            self.line(is_publisher).lose();
            self.input(Input::Closed { connection, cause: CloseCause::Peer });
        }
    }

    /// Some of what a client has on its way arrives.
    fn arrive(&mut self, is_publisher: bool, count: u64) {
        for _ in 0..count {
            let line = self.line(is_publisher);
            let (Some(connection), true) = (line.connection, line.connected) else { return };
            let Some(packet) = line.outbox.pop_front() else { return };
            self.input(Input::Packets { connection, packets: vec![packet] });
        }
    }

    fn round(&mut self) {
        let by = Duration::from_millis(1);
        self.now.instant = self.now.instant.after(by);
        self.now.unix = UnixNanos::new(self.now.unix.as_nanos() + by.as_nanos() as u64);
        self.broker.finish_round(self.now);
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Sequence { id, batch } => self.waiting.push_back((id, batch)),
                Output::Send { connection, packet } => self.hand(connection, packet),
                Output::Deliver { connection, publish, dup, packet_id } => {
                    let mut bytes = Vec::new();
                    publish.write_to(dup, packet_id, &mut bytes);
                    let decoded = Decoder::client(V5, usize::MAX).decode(&bytes).unwrap();
                    let Decoded::Packet { packet, .. } = decoded else { panic!("half a packet") };
                    self.hand(connection, packet);
                    self.input(Input::Written { connection, bytes: bytes.len() });
                }
                _ => {}
            }
        }
    }

    fn hand(&mut self, connection: ConnectionId, packet: Packet) {
        if matches!(packet, Packet::Disconnect(_)) {
            return;
        }
        if self.publisher.line.connection == Some(connection) {
            self.publisher.handle(packet);
        } else if self.subscriber.line.connection == Some(connection) {
            self.subscriber.handle(packet);
        }
    }

    /// One step of everybody; false when the power is gone.
    fn step(&mut self, log: &mut Log<SimDisk>, last: &mut usize, random: &mut Random) -> bool {
        match random.below(40) {
            0 => self.connect(true),
            1 => self.connect(false),
            2 => self.close(true),
            3 => self.close(false),
            _ => {}
        }
        for is_publisher in [true, false] {
            if self.line(is_publisher).connection.is_none() && random.below(3) == 0 {
                self.connect(is_publisher);
            }
        }
        for _ in 0..random.below(4) {
            self.publisher.send_more(random);
        }
        self.arrive(true, random.below(6));
        self.arrive(false, random.below(6));
        self.round();
        random.below(3) == 0 || self.sync(log, last, 1 + random.below(3))
    }

    /// Brings up to `count` batches to disk; false when the power is gone.
    fn sync(&mut self, log: &mut Log<SimDisk>, last: &mut usize, count: u64) -> bool {
        let count = self.waiting.len().min(count as usize);
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..count).collect();
        if batches.is_empty() {
            return true;
        }
        let Ok(synced) = log.append(&batches) else { return false };
        *last = batches.iter().map(|(_, batch)| batch.len()).sum();
        for synced in synced {
            self.input(Input::Sequenced(synced));
        }
        self.round();
        true
    }
}

/// Reads the log into a broker. With `lost`, records of this tag are not there if they came with the
/// last append: as if what they are about had not waited for them.
fn open(world: &World, now: Now, seed: u64, lost: Option<(u8, usize)>) -> (Log<SimDisk>, Broker) {
    let verifier = world.key.verifier().clone();
    let options = LogOptions { verifier, segment_bytes: 1 << 15, tiles: false };
    let empty = || Replay::new(settings(seed), now);
    if lost.is_none() {
        // One may have been taken while the broker ran, or the power went in the middle of it.
        world.disk.plan(None, seed % 40, Accident::PowerLoss);
        if take(&world.disk, &options, &empty).is_err() {
            world.disk.crash();
        }
        world.disk.plan(None, u64::MAX, Accident::PowerLoss);
    }
    let mut records = Vec::new();
    let (replay, snapshot, useless) = restore(&world.disk, &options, &empty).unwrap();
    assert!(useless.is_empty(), "{useless:?}");
    let (mut replay, covered) = match lost {
        None => (replay, snapshot.map_or(0, |place| place.records)),
        Some(_) => (empty(), 0),
    };
    let (log, _) = Log::open(world.disk.clone(), options, &mut |record| {
        let body = record.body.map(|body| (body.payload.to_vec(), body.properties.to_vec()));
        records.push((record.kind, record.index, record.head.to_vec(), body));
    })
    .unwrap();
    let count = records.len();
    let all = records.iter().enumerate();
    for (at, (kind, index, head, body)) in all.skip(covered as usize) {
        let is_last = |last: usize| at + last >= count;
        if let Some((tag, last)) = lost
            && *kind == RecordKind::State
            && head[1] == tag
            && is_last(last)
        {
            continue;
        }
        let body = body.as_ref().map(|(payload, properties)| (&payload[..], &properties[..]));
        replay.apply(LogRecord { kind: *kind, index: *index, head, body }).unwrap();
    }
    (log, replay.finish(now))
}

/// Several lives of a broker and its clients: the disk that they leave. For tests that need a log
/// that a broker wrote.
pub(crate) fn what_a_broker_wrote(seed: u64) -> SimDisk {
    played(seed, None).0.disk
}

/// The number of messages that the subscriber got in several lives of a broker and its clients.
fn one_history(seed: u64, lost: Option<u8>) -> usize {
    let (_, plant) = played(seed, lost);
    check(&plant);
    plant.subscriber.got.len()
}

fn played(seed: u64, lost: Option<u8>) -> (World, Plant) {
    let world = World::new(seed);
    let mut random = Random::new(seed ^ 0x5E55);
    let begin =
        Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) };
    let (mut log, broker) = open(&world, begin, seed * 100, None);
    let mut plant = Plant {
        broker,
        now: begin,
        waiting: VecDeque::new(),
        next_connection: 0,
        publisher: Publisher::default(),
        subscriber: Subscriber::default(),
    };
    let mut last = 0;
    // Nothing counts before SUBACK.
    plant.connect(false);
    while !plant.subscriber.subscribed {
        plant.arrive(false, 1);
        plant.round();
        assert!(plant.sync(&mut log, &mut last, 1));
    }
    for life in 0..LIVES {
        world.disk.plan(None, 1 + random.below(120), Accident::PowerLoss);
        let lives = (0..STEPS).all(|_| plant.step(&mut log, &mut last, &mut random));
        if lives {
            continue;
        }
        drop(log);
        world.disk.crash();
        let seconds = random.below(50);
        plant.now.unix = UnixNanos::new(plant.now.unix.as_nanos() + seconds * 1_000_000_000);
        plant.publisher.line.lose();
        plant.subscriber.line.lose();
        plant.waiting.clear();
        let lost = lost.map(|tag| (tag, last));
        (log, plant.broker) = open(&world, plant.now, seed * 100 + life + 1, lost);
    }
    world.disk.plan(None, u64::MAX, Accident::PowerLoss);
    settle(&mut plant, &mut log, &mut last);
    (world, plant)
}

/// Lets everybody finish what they have begun.
fn settle(plant: &mut Plant, log: &mut Log<SimDisk>, last: &mut usize) {
    plant.connect(true);
    plant.connect(false);
    for _ in 0..2_000 {
        plant.arrive(true, 10);
        plant.arrive(false, 10);
        plant.round();
        assert!(plant.sync(log, last, 10));
    }
    assert_eq!(plant.publisher.unacked, [], "everything is acknowledged in the end");
}

/// Every message of QoS 2 once, of QoS 1 at least once, each in the order of the publisher.
fn check(plant: &Plant) {
    let got = &plant.subscriber.got;
    let all: BTreeSet<u64> = got.iter().map(|(_, number)| *number).collect();
    let missing: Vec<u64> = (0..plant.publisher.next).filter(|it| !all.contains(it)).collect();
    assert!(missing.is_empty(), "the subscriber never got these: {missing:?}");
    let twice: Vec<u64> =
        got.iter().filter(|(qos, _)| *qos == QoS::ExactlyOnce).map(|it| it.1).collect();
    assert!(twice.is_sorted_by(|one, other| one < other), "QoS 2, once and in order: {twice:?}");
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = got
        .iter()
        .filter(|(qos, number)| *qos == QoS::AtLeastOnce && seen.insert(*number))
        .map(|(_, number)| *number)
        .collect();
    assert!(first.is_sorted(), "QoS 1, in order: {first:?}");
}

#[test]
fn whoever_comes_back_gets_every_message_as_the_specification_says() {
    let mut got = 0;
    for seed in 0..250 {
        let history = std::panic::catch_unwind(|| one_history(seed, None));
        got += history.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(got > 20_000, "only {got} messages were delivered: the test tests little");
}

/// What leaves only when its record is on disk must: without the record the clients notice.
#[test]
fn the_same_check_fails_when_nothing_waits_for_its_record() {
    for (tag, name) in [(SENT, "Sent"), (RECEIPTED, "Receipted"), (RELEASED, "Released")] {
        let failed =
            (0..60).any(|seed| std::panic::catch_unwind(|| one_history(seed, Some(tag))).is_err());
        assert!(failed, "a broker that does not wait for {name} must be caught");
    }
}

/// A snapshot that is damaged, anywhere, is not used: the one before it is, or the log.
#[test]
fn a_damaged_snapshot_is_of_no_use() {
    let world = World::new(7);
    let now = Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1) };
    let options =
        LogOptions { verifier: world.key.verifier().clone(), segment_bytes: 1 << 12, tiles: false };
    let (mut log, _) = Log::open(world.disk.clone(), options.clone(), &mut |_| {}).unwrap();
    let empty = || Replay::new(settings(1), now);
    let mut broker = empty().finish(now);
    for life in 0..60 {
        broker.finish_round(now);
        while let Some(output) = broker.poll_output() {
            if let Output::Sequence { id, batch } = output {
                log.append(&[(id, batch)]).unwrap();
            }
        }
        broker = Broker::new(settings(life), now);
        if life == 20 {
            take(&world.disk, &options, &empty).unwrap();
        }
    }
    take(&world.disk, &options, &empty).unwrap();
    let (_, newest, _) = restore(&world.disk, &options, &empty).unwrap();
    let newest = newest.unwrap();
    let path = format!("state/snapshot-{:08}", newest.segment);
    let whole = world.disk.bytes(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        world.disk.flip(&path, at, 0x10);
        let (_, used, useless) = restore(&world.disk, &options, &empty).unwrap();
        assert_eq!(useless, std::slice::from_ref(&path), "byte {at}");
        assert!(used.unwrap().segment < newest.segment);
        world.disk.flip(&path, at, 0x10);
    }
    world.disk.replace(&path, whole[..whole.len() - 1].to_vec());
    let (_, used, _) = restore(&world.disk, &options, &empty).unwrap();
    assert!(used.unwrap().segment < newest.segment);
}

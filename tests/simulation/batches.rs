//! Batches on a disk that forgets: whatever was linked goes on once, and every cover that was
//! acknowledged stands in the log once, over exactly the entries that the log has.
//!
//! The device keeps messages and covers until they are acknowledged, and sends them again as they are
//! and in order; now and then it loses its memory, and begins the next epoch. A failure prints its
//! seed; `one_history(seed, false)` replays it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avow::broker::{
    Broker, Certified, CloseCause, ConnectionFacts, ConnectionId, Input, LogRecord, Output, Replay,
    Settings,
};
use avow::evidence::chain::{COVER_TOPIC, LINK_PROPERTY};
use avow::evidence::{Batch, BatchId, RecordKind, VerifyJob};
use avow::identity::Role;
use avow::mqtt::{
    ClientId, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, TopicName, UserProperty,
};
use avow::policy::Policy;
use avow::storage::snapshot::{restore, take};
use avow::storage::{Log, LogOptions};
use avow::time::{Instant, Now, UnixNanos};
use avow_signer::{Algorithm, CoverClaims, Head, Link, Message, UnsignedCover};
use bytes::Bytes;

use crate::disk::{Accident, Random, SimDisk};
use crate::signed::KEY;
use crate::world::{World, facts};

const POLICY: &str = r#"
version = 1
[[permit]]
id = "ids"
who = ["device"]
client_id = "${device}*"
[[permit]]
id = "publish"
who = ["device"]
publish = ["plant/${device}/#"]
schema = "none"
evidence = "batched"
"#;

const TOPIC: &str = "plant/d/x";
const IDENTITY: &str = "spiffe://plant/device/d";
const WINDOW: usize = 8;
const LIVES: u64 = 5;
const STEPS: u64 = 120;
/// Tag of the record of a linked message, in `broker/durable/change.rs`.
const LINKED: u8 = 25;

fn settings(seed: u64) -> Settings {
    let policy = Arc::new(Policy::parse("policy.toml", POLICY).unwrap());
    Settings { policy, ..crate::sessions::settings(seed) }
}

/// What the device keeps until it is acknowledged.
#[derive(Clone)]
struct Kept {
    /// Epoch and number of a message, or of the last message of a cover.
    name: (u64, u64),
    is_cover: bool,
    publish: Publish,
}

#[derive(Default)]
struct Device {
    epoch: u64,
    seq: u64,
    batch: Option<(u64, Head)>,
    connection: Option<ConnectionId>,
    connected: bool,
    unacked: VecDeque<Kept>,
    sent: BTreeMap<PacketId, (u64, u64)>,
    on_way: usize,
    next_id: u16,
    messages: BTreeSet<(u64, u64)>,
    covers: BTreeSet<(u64, u64)>,
}

impl Device {
    fn lose(&mut self) {
        (self.connected, self.on_way) = (false, 0);
        self.sent.clear();
    }

    fn keep(&mut self, is_cover: bool, topic: &str, payload: Vec<u8>, link: Option<String>) {
        let property = |value| UserProperty { name: LINK_PROPERTY.to_owned(), value };
        let user_properties = link.into_iter().map(property).collect();
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicName::parse(topic).unwrap()),
            packet_id: None,
            properties: PublishProperties { user_properties, ..Default::default() },
            payload: Bytes::from(payload),
        };
        self.unacked.push_back(Kept { name: (self.epoch, self.seq), is_cover, publish });
    }

    fn link(&mut self) {
        self.seq += 1;
        let (epoch, seq) = (self.epoch, self.seq);
        let payload = format!("{epoch}.{seq}");
        let link = Link { epoch, seq, salt: [2; 16] };
        let message = Message { topic: TOPIC, payload: payload.as_bytes(), qos: 1, retain: false };
        let begun = Head::begin(IDENTITY, "plant", epoch, seq);
        let (first, head) = self.batch.unwrap_or((seq, begun));
        self.batch = Some((first, head.behind(&link.digest(&message))));
        self.keep(false, TOPIC, payload.into_bytes(), Some(link.property()));
    }

    fn cover(&mut self) {
        let Some((first, head)) = self.batch.take() else { return };
        let claims = CoverClaims {
            identity: IDENTITY,
            certificate_sha256: &[0; 32],
            audience: "plant",
            issued_at: 1_000_000,
            cti: &[1; 16],
            epoch: self.epoch,
            first,
            last: self.seq,
        };
        let unsigned = UnsignedCover::new(Algorithm::Ed25519, &claims, head);
        let object = unsigned.signed(&KEY.0.sign(&unsigned.to_be_signed()).unwrap());
        self.keep(true, COVER_TOPIC, object, None);
    }

    /// What is not on its way yet, in order.
    fn send(&mut self, count: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        while self.connected && packets.len() < count {
            let Some(kept) = self.unacked.get(self.on_way) else { break };
            self.next_id = self.next_id % 1_000 + 1;
            let packet_id = PacketId::new(self.next_id);
            self.sent.insert(packet_id.unwrap(), kept.name);
            packets.push(Packet::Publish(Box::new(Publish { packet_id, ..kept.publish.clone() })));
            self.on_way += 1;
        }
        packets
    }

    fn hear(&mut self, packet: &Packet) {
        match packet {
            Packet::ConnAck(ack) => self.connected = !ack.reason.is_error(),
            Packet::PubAck(ack) => {
                let name = self.sent.remove(&ack.packet_id).expect("what was sent");
                assert!(!ack.reason.is_error(), "{name:?}: {ack:?}");
                let kept = self.unacked.pop_front().expect("in the order they were sent");
                assert_eq!(kept.name, name);
                self.on_way -= 1;
                match kept.is_cover {
                    true => self.covers.insert(name),
                    false => self.messages.insert(name),
                };
            }
            Packet::Disconnect(_) => (self.connection, self.connected) = (None, false),
            _ => {}
        }
    }
}

struct Plant {
    broker: Broker,
    now: Now,
    waiting: VecDeque<(BatchId, Batch)>,
    jobs: VecDeque<(ConnectionId, VerifyJob)>,
    next_connection: u64,
    device: Device,
}

impl Plant {
    fn connect(&mut self) {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let known = facts(Role::Device, "d");
        let certificate = known.certificate.clone().unwrap();
        let certificate = Certified { key: Some(KEY.1.clone()), ..certificate };
        let facts = ConnectionFacts { certificate: Some(certificate), ..(*known).clone() };
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        let facts = Arc::new(facts);
        self.broker.handle(self.now, Input::Opened { connection, facts, connect_deadline });
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive_seconds: 0,
            client_id: ClientId::new("d"),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        let packets = vec![Packet::Connect(Box::new(connect))];
        self.broker.handle(self.now, Input::Packets { connection, packets });
        self.device.lose();
        self.device.connection = Some(connection);
    }

    /// False when the power is gone.
    fn step(&mut self, log: &mut Log<SimDisk>, random: &mut Random) -> bool {
        match random.below(60) {
            0 => self.connect(),
            1 => {
                if let Some(connection) = self.device.connection.take() {
                    self.device.lose();
                    let cause = CloseCause::Peer;
                    self.broker.handle(self.now, Input::Closed { connection, cause });
                }
            }
            2 => {
                let device = &mut self.device;
                (device.epoch, device.seq, device.batch) = (device.epoch + 1, 0, None);
                device.unacked.clear();
                self.connect();
            }
            _ if self.device.connection.is_none() => self.connect(),
            _ => {}
        }
        match (self.device.unacked.len() < WINDOW, random.below(4)) {
            (true, 0) => self.device.cover(),
            (true, _) => self.device.link(),
            (false, _) => {}
        }
        let packets = self.device.send(random.below(4) as usize);
        if let (Some(connection), false) = (self.device.connection, packets.is_empty()) {
            self.broker.handle(self.now, Input::Packets { connection, packets });
        }
        if random.below(3) > 0
            && let Some((connection, job)) = self.jobs.pop_front()
        {
            let verified = job.run();
            self.broker.handle(self.now, Input::Verified { connection, verified });
        }
        self.round();
        random.below(3) == 0 || self.sync(log)
    }

    fn round(&mut self) {
        self.now.instant = self.now.instant.after(Duration::from_millis(1));
        self.broker.finish_round(self.now);
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Sequence { id, batch } => self.waiting.push_back((id, batch)),
                Output::Verify { connection, job } => self.jobs.push_back((connection, job)),
                Output::Send { connection, packet }
                    if self.device.connection == Some(connection) =>
                {
                    self.device.hear(&packet);
                }
                _ => {}
            }
        }
    }

    fn sync(&mut self, log: &mut Log<SimDisk>) -> bool {
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..).collect();
        if batches.is_empty() {
            return true;
        }
        let Ok(synced) = log.append(&batches) else { return false };
        for synced in synced {
            self.broker.handle(self.now, Input::Sequenced(synced));
        }
        self.round();
        true
    }
}

/// Every `publish` and `cover` entry of the log, by epoch and (last) number.
#[derive(Default)]
struct Found {
    messages: Vec<(u64, u64)>,
    covers: Vec<(u64, u64)>,
}

/// Reads the log into a broker. With `forgets`, records of linked messages are not there: as if
/// chains were only in memory.
fn open(world: &World, now: Now, seed: u64, forgets: bool) -> (Log<SimDisk>, Broker, Found) {
    let verifier = world.key.verifier().clone();
    let options = LogOptions { verifier, segment_bytes: 1 << 15, tiles: false };
    let empty = || Replay::new(settings(seed), now);
    if !forgets && seed.is_multiple_of(2) {
        take(&world.disk, &options, &empty).unwrap();
    }
    let (mut replay, snapshot, _) = restore(&world.disk, &options, &empty).unwrap();
    let mut left = snapshot.map_or(0, |place| place.records);
    let mut found = Found::default();
    let (log, _) = Log::open(world.disk.clone(), options, &mut |record| {
        if record.kind == RecordKind::Entry {
            let entry: serde_json::Value = serde_json::from_slice(record.head).unwrap();
            let number = |field: &str| entry[field].as_u64().unwrap();
            match entry["type"].as_str() {
                Some("publish") => found.messages.push((number("epoch"), number("seq"))),
                Some("cover") => found.covers.push((number("epoch"), number("last"))),
                _ => {}
            }
        }
        let is_linked = record.kind == RecordKind::State && record.head[1] == LINKED;
        if left > 0 {
            left -= 1;
        } else if !(forgets && is_linked) {
            let body = record.body.map(|body| (body.payload, body.properties));
            let (kind, index, head) = (record.kind, record.index, record.head);
            replay.apply(LogRecord { kind, index, head, body }).unwrap();
        }
    })
    .unwrap();
    (log, replay.finish(now), found)
}

/// Several lives; how many covers were acknowledged.
fn one_history(seed: u64, forgets: bool) -> usize {
    let world = World::new(seed);
    let mut random = Random::new(seed ^ 0xba7c);
    let now =
        Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) };
    let (mut log, broker, _) = open(&world, now, seed * 100, forgets);
    let device = Device { epoch: 1, ..Default::default() };
    let (waiting, jobs) = (VecDeque::new(), VecDeque::new());
    let mut plant = Plant { broker, now, waiting, jobs, next_connection: 0, device };
    for life in 1..=LIVES {
        world.disk.plan(None, 1 + random.below(90), Accident::PowerLoss);
        let _ = (0..STEPS).all(|_| plant.step(&mut log, &mut random));
        drop(log);
        world.disk.crash();
        world.disk.plan(None, u64::MAX, Accident::PowerLoss);
        plant.device.lose();
        plant.device.connection = None;
        (plant.waiting, plant.jobs) = Default::default();
        let (next, broker, _) = open(&world, plant.now, seed * 100 + life, forgets);
        (log, plant.broker) = (next, broker);
    }
    drop(log);
    let (_, _, found) = open(&world, plant.now, seed * 100 + 99, forgets);
    for (name, found, acknowledged) in [
        ("message", &found.messages, &plant.device.messages),
        ("cover", &found.covers, &plant.device.covers),
    ] {
        let once: BTreeSet<(u64, u64)> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "a {name} went on twice");
        let lost: Vec<_> = acknowledged.difference(&once).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {name} {lost:?}");
    }
    plant.device.covers.len()
}

#[test]
fn no_power_loss_makes_a_batch_uncovered_or_covered_twice() {
    let mut acknowledged = 0;
    for seed in 0..150 {
        let history = std::panic::catch_unwind(|| one_history(seed, false));
        acknowledged += history.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(acknowledged > 1_000, "only {acknowledged} were acknowledged: the test tests little");
}

#[test]
fn the_same_check_fails_when_chains_are_not_in_the_log() {
    let failed = (0..20).any(|seed| std::panic::catch_unwind(|| one_history(seed, true)).is_err());
    assert!(failed, "a broker that forgets must be caught");
}

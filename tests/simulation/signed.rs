//! Signed messages on a disk that forgets: whatever was acknowledged as new never goes on a second
//! time, and nothing acknowledged is missing, however often the power is lost.
//!
//! The device keeps its messages and their statements until they are acknowledged, and sends them
//! again as they are; now and then it loses its memory, and begins the next epoch. Signatures are
//! checked whenever the seed says so, or not before the power goes. A failure prints its seed;
//! `one_history(seed, false)` replays it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use avow::broker::{
    Broker, Certified, CloseCause, ConnectionFacts, ConnectionId, Input, LogRecord, Output, Replay,
    Settings,
};
use avow::evidence::{Batch, BatchId, RecordKind, STATEMENT_PROPERTY, VerifyJob};
use avow::identity::{DeviceKey, KeyKind, Role};
use avow::mqtt::{
    ClientId, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, TopicName, UserProperty,
};
use avow::policy::Policy;
use avow::storage::snapshot::{restore, take};
use avow::storage::{Log, LogOptions};
use avow::time::{Instant, Now, UnixNanos};
use avow_signer::{Algorithm, Claims, Message, SigningKey, Unsigned};
use bytes::Bytes;

use crate::disk::{Accident, Random, SimDisk};
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
evidence = "signed"
"#;

const TOPIC: &str = "plant/d/x";
const WINDOW: usize = 8;
const LIVES: u64 = 5;
const STEPS: u64 = 120;
/// Tag of the record of a signed message, in `broker/durable/change.rs`.
const SIGNED: u8 = 24;

/// The key of RFC 8032, 7.1, test 1, in both halves.
pub(crate) static KEY: LazyLock<(SigningKey, DeviceKey)> = LazyLock::new(|| {
    let hex = |text: &str| -> Vec<u8> {
        let bytes = (0..text.len()).step_by(2);
        bytes.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let der = hex(&format!("302e020100300506032b657004220420{seed}"));
    let public = DeviceKey::new(KeyKind::Ed25519, &hex(public));
    (SigningKey::from_pkcs8(&der).unwrap(), public)
});

fn settings(seed: u64) -> Settings {
    let policy = Arc::new(Policy::parse("policy.toml", POLICY).unwrap());
    Settings { policy, ..crate::sessions::settings(seed) }
}

/// One signed message, as the device keeps it.
#[derive(Clone)]
struct Kept {
    epoch: u64,
    seq: u64,
    statement: String,
}

impl Kept {
    fn sign(epoch: u64, seq: u64) -> Self {
        let payload = payload(epoch, seq);
        let claims = Claims {
            identity: "spiffe://plant/device/d",
            certificate_sha256: &[0; 32],
            audience: "plant",
            issued_at: 1_000_000,
            cti: &[1; 16],
            epoch,
            seq,
        };
        let message = Message { topic: TOPIC, payload: payload.as_bytes(), qos: 1, retain: false };
        let unsigned = Unsigned::new(Algorithm::Ed25519, &claims, &message, [2; 16]);
        let signature = KEY.0.sign(&unsigned.to_be_signed()).unwrap();
        Self { epoch, seq, statement: unsigned.signed(signature).property() }
    }

    fn publish(&self, packet_id: PacketId) -> Packet {
        let (name, value) = (STATEMENT_PROPERTY.to_owned(), self.statement.clone());
        let user_properties = vec![UserProperty { name, value }];
        Packet::Publish(Box::new(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicName::parse(TOPIC).unwrap()),
            packet_id: Some(packet_id),
            properties: PublishProperties { user_properties, ..Default::default() },
            payload: Bytes::from(payload(self.epoch, self.seq)),
        }))
    }
}

fn payload(epoch: u64, seq: u64) -> String {
    format!("{epoch}.{seq}")
}

struct Device {
    epoch: u64,
    seq: u64,
    connection: Option<ConnectionId>,
    connected: bool,
    unacked: VecDeque<Kept>,
    /// Messages by the identifiers of this connection.
    sent: BTreeMap<PacketId, (u64, u64)>,
    /// Those that are on their way on this connection already.
    on_way: usize,
    next_id: u16,
    acknowledged: BTreeSet<(u64, u64)>,
    /// Everything it ever signed, for whoever replays it.
    all: Vec<Kept>,
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
    fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
    }

    fn connect(&mut self) {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let known = facts(Role::Device, "d");
        let certificate = known.certificate.clone().unwrap();
        let certificate = Certified { key: Some(KEY.1.clone()), ..certificate };
        let facts = ConnectionFacts { certificate: Some(certificate), ..(*known).clone() };
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection, facts: Arc::new(facts), connect_deadline });
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
        self.input(Input::Packets { connection, packets });
        self.device.lose();
        self.device.connection = Some(connection);
    }

    fn step(&mut self, log: &mut Log<SimDisk>, random: &mut Random) -> bool {
        match random.below(60) {
            0 => self.connect(),
            1 => {
                if let Some(connection) = self.device.connection.take() {
                    self.device.lose();
                    self.input(Input::Closed { connection, cause: CloseCause::Peer });
                }
            }
            2 => {
                self.device.epoch += 1;
                self.device.seq = 0;
                self.device.unacked.clear();
                self.connect();
            }
            _ if self.device.connection.is_none() => self.connect(),
            _ => {}
        }
        if self.device.unacked.len() < WINDOW {
            self.device.sign();
        }
        let packets = self.device.send(random.below(4) as usize);
        if let (Some(connection), false) = (self.device.connection, packets.is_empty()) {
            self.input(Input::Packets { connection, packets });
        }
        for _ in 0..random.below(3) {
            self.verify();
        }
        self.round();
        random.below(3) == 0 || self.sync(log)
    }

    /// Checks one signature.
    fn verify(&mut self) {
        if let Some((connection, job)) = self.jobs.pop_front() {
            let verified = job.run();
            self.input(Input::Verified { connection, verified });
        }
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

    /// Brings what waits to disk; false when the power is gone.
    fn sync(&mut self, log: &mut Log<SimDisk>) -> bool {
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..).collect();
        if batches.is_empty() {
            return true;
        }
        let Ok(synced) = log.append(&batches) else { return false };
        for synced in synced {
            self.input(Input::Sequenced(synced));
        }
        self.round();
        true
    }
}

impl Device {
    fn lose(&mut self) {
        (self.connected, self.on_way) = (false, 0);
        self.sent.clear();
    }

    fn sign(&mut self) {
        self.seq += 1;
        let kept = Kept::sign(self.epoch, self.seq);
        self.all.push(kept.clone());
        self.unacked.push_back(kept);
    }

    /// What is not on its way yet, in order.
    fn send(&mut self, count: usize) -> Vec<Packet> {
        if !self.connected {
            return Vec::new();
        }
        let mut packets = Vec::new();
        while packets.len() < count {
            let Some(kept) = self.unacked.get(self.on_way) else { break };
            self.next_id = self.next_id % 1_000 + 1;
            let packet_id = PacketId::new(self.next_id).unwrap();
            self.sent.insert(packet_id, (kept.epoch, kept.seq));
            packets.push(kept.publish(packet_id));
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
                // In the order they were sent.
                let first = self.unacked.pop_front().map(|kept| (kept.epoch, kept.seq));
                assert_eq!(first, Some(name));
                self.on_way -= 1;
                self.acknowledged.insert(name);
            }
            Packet::Disconnect(_) => (self.connection, self.connected) = (None, false),
            _ => {}
        }
    }
}

/// Reads the log into a broker. With `forgets`, records of signed messages are not there: as if the
/// window were only in memory.
fn open(world: &World, now: Now, seed: u64, forgets: bool) -> (Log<SimDisk>, Broker, Vec<String>) {
    let verifier = world.key.verifier().clone();
    let options = LogOptions { verifier, segment_bytes: 1 << 15, tiles: false };
    let empty = || Replay::new(settings(seed), now);
    if !forgets && seed.is_multiple_of(2) {
        take(&world.disk, &options, &empty).unwrap();
    }
    let (mut replay, snapshot, _) = restore(&world.disk, &options, &empty).unwrap();
    let mut left = snapshot.map_or(0, |place| place.records);
    let mut accepted = Vec::new();
    let (log, _) = Log::open(world.disk.clone(), options, &mut |record| {
        let text = std::str::from_utf8(record.head).unwrap_or_default();
        if record.kind == RecordKind::Entry && text.contains(r#""type":"publish","#) {
            let payload = record.body.expect("a message").payload;
            accepted.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        let is_signed = record.kind == RecordKind::State && record.head[1] == SIGNED;
        if left > 0 {
            left -= 1;
        } else if !(forgets && is_signed) {
            let body = record.body.map(|body| (body.payload, body.properties));
            let (kind, index, head) = (record.kind, record.index, record.head);
            replay.apply(LogRecord { kind, index, head, body }).unwrap();
        }
    })
    .unwrap();
    (log, replay.finish(now), accepted)
}

/// Several lives; how many messages were acknowledged.
fn one_history(seed: u64, forgets: bool) -> usize {
    let world = World::new(seed);
    let mut random = Random::new(seed ^ 0x516);
    let now =
        Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) };
    let (mut log, broker, _) = open(&world, now, seed * 100, forgets);
    let device = Device {
        epoch: 1,
        seq: 0,
        connection: None,
        connected: false,
        unacked: VecDeque::new(),
        sent: BTreeMap::new(),
        on_way: 0,
        next_id: 0,
        acknowledged: BTreeSet::new(),
        all: Vec::new(),
    };
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
    // Whoever has seen them all sends them all again: nothing of it is new.
    plant.connect();
    plant.device.unacked.clear();
    while !plant.device.connected {
        plant.round();
        assert!(plant.sync(&mut log));
    }
    let connection = plant.device.connection.unwrap();
    for kept in plant.device.all.clone() {
        let name = (kept.epoch, kept.seq);
        if !plant.device.acknowledged.contains(&name) {
            continue;
        }
        let packets = vec![kept.publish(PacketId::ONE)];
        plant.device.connection = None;
        plant.input(Input::Packets { connection, packets });
        plant.round();
        plant.verify();
        plant.round();
        assert!(plant.sync(&mut log));
    }
    drop(log);
    let (_, _, accepted) = open(&world, plant.now, seed * 100 + 99, forgets);
    let once: BTreeSet<&String> = accepted.iter().collect();
    assert_eq!(once.len(), accepted.len(), "something went on twice");
    for (epoch, seq) in &plant.device.acknowledged {
        assert!(once.contains(&payload(*epoch, *seq)), "{epoch}.{seq} was acknowledged and lost");
    }
    plant.device.acknowledged.len()
}

#[test]
fn no_power_loss_lets_a_signed_message_go_on_twice_or_be_lost() {
    let mut acknowledged = 0;
    for seed in 0..150 {
        let history = std::panic::catch_unwind(|| one_history(seed, false));
        acknowledged += history.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(acknowledged > 5_000, "only {acknowledged} were acknowledged: the test tests little");
}

#[test]
fn the_same_check_fails_when_the_window_is_not_in_the_log() {
    let failed = (0..20).any(|seed| std::panic::catch_unwind(|| one_history(seed, true)).is_err());
    assert!(failed, "a broker that forgets must be caught");
}

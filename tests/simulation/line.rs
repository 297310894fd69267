//! The whole line on a disk that forgets: whatever a client saw, acknowledgement or delivery, is in
//! the log after power was lost at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avow::broker::{Backlog, Broker, ConnectionId, Input, Output, Settings};
use avow::evidence::{Batch, BatchId};
use avow::identity::{Role, TokenKeys};
use avow::limits::LimitsConfig;
use avow::mqtt::{
    ClientId, Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, Subscribe, SubscribeFilter, SubscriptionOptions, TopicName,
};
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::session::Bounds;
use avow::storage::StorageFault;
use avow::time::{Instant, Now, UnixNanos};
use bytes::Bytes;

use crate::disk::{Accident, Random};
use crate::world::{Up, World, facts};

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
schema = "none"
[[permit]]
id = "read"
who = ["dashboard"]
subscribe = ["plant/#"]
"#;

const DEVICES: u64 = 4;
const BOARD: ConnectionId = ConnectionId(DEVICES);
const CRASH_POINTS: u64 = 1_000;
/// More rounds than any planned accident waits for.
const ROUNDS_MAX: usize = 1_000;

/// Limits that this test does not reach.
fn generous() -> LimitsConfig {
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.bytes_per_second = 1_000_000_000;
    limits.default.bytes_burst = 1_000_000_000;
    limits
}

/// One life of a broker on the world's disk, and what its clients saw.
struct Plant {
    broker: Broker,
    now: Now,
    waiting: VecDeque<(BatchId, Batch)>,
    next_payload: u64,
    /// Payload under which a Packet Identifier of a device is on its way.
    sent: BTreeMap<(ConnectionId, PacketId), u64>,
    seen: BTreeSet<u64>,
    /// Everything the core asked for, for the comparison of two runs.
    trace: Vec<String>,
}

impl Plant {
    fn new(seed: u64, first_payload: u64) -> Self {
        let now = Now { instant: Instant::ZERO, unix: UnixNanos::from_seconds(1_000_000) };
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let none = |name: &str| Err::<String, _>(format!("no {name}"));
        let settings = Settings {
            node: "plant".into(),
            shard: 0,
            bounds: Bounds::default(),
            tokens: Arc::new(TokenKeys::none()),
            backlog: Backlog::default(),
            policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
            schemas: Arc::new(Schemas::parse("registry.toml", "version = 1", none).unwrap()),
            limits: generous(),
            privacy: avow::evidence::Privacy::PLAIN,
            about: Default::default(),
            statements: Default::default(),
            receipts: None,
            config_sha256: [0; 32],
            seed: bytes,
        };
        let mut plant = Self {
            broker: Broker::new(settings, now),
            now,
            waiting: VecDeque::new(),
            next_payload: first_payload,
            sent: BTreeMap::new(),
            seen: BTreeSet::new(),
            trace: Vec::new(),
        };
        for number in 0..DEVICES {
            plant.connect(ConnectionId(number), Role::Device, &format!("d{number}"));
        }
        plant.connect(BOARD, Role::Dashboard, "board");
        plant
    }

    fn connect(&mut self, connection: ConnectionId, role: Role, name: &str) {
        let facts = facts(role, name);
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection, facts, connect_deadline });
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive_seconds: 60,
            client_id: ClientId::new(name),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        self.packet(connection, Packet::Connect(Box::new(connect)));
    }

    fn subscribe(&mut self) {
        let filter = SubscribeFilter {
            filter: "plant/#".to_owned(),
            options: SubscriptionOptions { qos: QoS::AtMostOnce, ..Default::default() },
        };
        let subscribe = Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier: None,
            user_properties: Vec::new(),
            filters: vec![filter],
        };
        self.packet(BOARD, Packet::Subscribe(Box::new(subscribe)));
    }

    fn publish(&mut self, random: &mut Random) {
        let number = random.below(DEVICES);
        let payload = self.next_payload;
        self.next_payload += 1;
        let packet_id = PacketId::new((payload % 60 + 1) as u16).unwrap();
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3) as usize];
        let connection = ConnectionId(number);
        if qos > QoS::AtMostOnce && self.sent.contains_key(&(connection, packet_id)) {
            return;
        }
        let has_id = qos > QoS::AtMostOnce;
        if has_id {
            self.sent.insert((connection, packet_id), payload);
        }
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::parse(&format!("plant/d{number}/x")).unwrap()),
            packet_id: has_id.then_some(packet_id),
            properties: PublishProperties::default(),
            payload: Bytes::from(payload.to_string()),
        };
        self.packet(connection, Packet::Publish(Box::new(publish)));
    }

    fn packet(&mut self, connection: ConnectionId, packet: Packet) {
        self.input(Input::Packets { connection, packets: vec![packet] });
    }

    fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
    }

    /// Ends the round; what is to be synced waits.
    fn round(&mut self) {
        self.now.instant = self.now.instant.after(Duration::from_millis(1));
        self.broker.finish_round(self.now);
        while let Some(output) = self.broker.poll_output() {
            self.trace.push(format!("{output:?}"));
            match output {
                Output::Sequence { id, batch } => self.waiting.push_back((id, batch)),
                Output::Send { connection, packet: Packet::PubAck(ack) } => {
                    assert!(!ack.reason.is_error(), "{ack:?}");
                    self.acknowledged(connection, ack.packet_id);
                }
                Output::Send { connection, packet: Packet::PubRec(ack) } => {
                    assert!(!ack.reason.is_error(), "{ack:?}");
                    self.acknowledged(connection, ack.packet_id);
                    self.packet(connection, Packet::PubRel(ack));
                }
                Output::Deliver { connection, publish, dup, packet_id } => {
                    let mut bytes = Vec::new();
                    publish.write_to(dup, packet_id, &mut bytes);
                    let mut decoder = Decoder::client(ProtocolVersion::V5, usize::MAX);
                    let decoded = decoder.decode(&bytes).unwrap();
                    let Decoded::Packet { packet: Packet::Publish(publish), .. } = decoded else {
                        panic!("no PUBLISH")
                    };
                    let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                    self.seen.insert(text.parse().unwrap());
                    self.input(Input::Written { connection, bytes: bytes.len() });
                }
                _ => {}
            }
        }
    }

    fn acknowledged(&mut self, connection: ConnectionId, packet_id: PacketId) {
        let payload = self.sent.remove(&(connection, packet_id));
        self.seen.insert(payload.expect("an acknowledgement of something that was sent"));
    }

    /// Lets the writer take everything that waits, as it would.
    fn sync(&mut self, up: &mut Up) -> Result<(), StorageFault> {
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..).collect();
        if batches.is_empty() {
            return Ok(());
        }
        for synced in up.log.append(&batches)? {
            self.broker.handle(self.now, Input::Sequenced(synced));
        }
        self.round();
        Ok(())
    }
}

/// Runs one life until the power goes; what the clients saw of it.
fn live(world: &mut World, up: &mut Up, seed: u64, first_payload: u64) -> Plant {
    let mut plant = Plant::new(seed, first_payload);
    plant.round();
    // Nobody says more than CONNECT before CONNACK.
    if plant.sync(up).is_err() {
        return plant;
    }
    plant.subscribe();
    for _ in 0..ROUNDS_MAX {
        for _ in 0..world.random.below(12) {
            plant.publish(&mut world.random);
        }
        plant.round();
        if world.random.below(3) > 0 && plant.sync(up).is_err() {
            return plant;
        }
    }
    panic!("the power never went");
}

fn one_history(seed: u64, has_sync: bool) -> Result<usize, String> {
    let mut world = World::new(seed);
    if !has_sync {
        world.disk.take_sync_out();
    }
    let mut seen = BTreeSet::new();
    let mut next_payload = 0;
    let (mut up, _) = world.open().map_err(|fault| fault.to_string())?;
    for life in 0..2 {
        world.disk.plan(None, 4 + world.random.below(60), Accident::PowerLoss);
        let plant = live(&mut world, &mut up, seed * 2 + life, next_payload);
        next_payload = plant.next_payload;
        seen.extend(plant.seen);
        world.disk.crash();
        // What the clients saw is all that was promised here.
        world.promised.clear();
        up = world.restart().map_err(|what| format!("life {life}: {what}"))?;
        let kept: BTreeSet<u64> = world
            .promised
            .iter()
            .filter_map(|(_, _, body)| String::from_utf8(body.clone()?).ok()?.parse().ok())
            .collect();
        let missing: Vec<u64> = seen.difference(&kept).copied().collect();
        if !missing.is_empty() {
            return Err(format!("life {life}: seen by a client and lost: {missing:?}"));
        }
    }
    Ok(seen.len())
}

#[test]
fn i7_whatever_a_client_saw_survives_power_loss() {
    let mut seen = 0;
    for seed in 0..CRASH_POINTS / 2 {
        seen += one_history(seed, true).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    assert!(seen > 10_000, "only {seen} messages were seen: the test tests little");
}

#[test]
fn the_same_check_fails_when_the_sync_is_taken_out() {
    let failed = (0..40).filter(|seed| {
        let history = std::panic::catch_unwind(|| one_history(*seed, false));
        !matches!(history, Ok(Ok(_)))
    });
    assert!(failed.count() > 20, "a broker without sync must be caught");
}

#[test]
fn the_same_history_twice_gives_the_same_outputs() {
    let run = |seed: u64| {
        let mut world = World::new(seed);
        let (mut up, _) = world.open().unwrap();
        world.disk.plan(None, 200, Accident::PowerLoss);
        live(&mut world, &mut up, seed, 0).trace
    };
    let trace = run(3);
    assert!(trace.len() > 100, "{}", trace.len());
    assert_eq!(trace, run(3));
    assert_ne!(trace, run(4));
}

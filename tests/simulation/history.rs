//! Determinism: the same history gives the same bytes, whatever the order of hashed maps and
//! whenever it is run.
//!
//! A history is drawn from its seed: clients of both versions come, stay away, come back and are
//! cut off; they subscribe, shared and not, publish in every QoS, retain, leave Wills, acknowledge
//! late; time passes, batches are synced late. Everything that the core asks for is written down,
//! with the bytes of every packet and every record.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avow::broker::{About, Backlog, Broker, CloseCause, ConnectionId, Input, Output, Settings};
use avow::evidence::{Batch, BatchId};
use avow::identity::Role;
use avow::limits::LimitsConfig;
use avow::mqtt::{
    Ack, ClientId, Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicName, Unsubscribe, Will, WillProperties, encode,
};
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::session::Bounds;
use avow::time::{Instant, Now, UnixNanos};
use bytes::Bytes;

use crate::disk::Random;
use crate::world::{Up, World, facts};

const POLICY: &str = r##"
version = 1
[[permit]]
id = "ids"
who = ["device", "operator"]
client_id = "${device}"
[[permit]]
id = "all"
who = ["device", "operator"]
publish = ["#"]
subscribe = ["#"]
qos_max = 2
retain = true
clear_retained = true
schema = "none"
[[permit]]
id = "sys"
who = ["operator"]
subscribe = ["$SYS/#"]
[[forbid]]
id = "secret"
who = ["device"]
subscribe = ["plant/secret"]
"##;

const SEEDS: u64 = 48;
const STEPS: usize = 220;
const CLIENTS: u64 = 12;
const FILTERS: [&str; 8] = [
    "#",
    "plant/#",
    "plant/+",
    "plant/telemetry-a",
    "$share/one/plant/#",
    "$share/two/#",
    "$SYS/#",
    "plant/secret",
];
const TOPICS: [&str; 5] =
    ["plant/telemetry-a", "plant/telemetry-b", "plant/secret", "other", "plant/deep/er/and/deeper"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5];

/// One history on its way.
struct History {
    random: Random,
    world: World,
    up: Up,
    broker: Broker,
    now: Now,
    waiting: VecDeque<(BatchId, Batch)>,
    /// Live connections: client and version.
    live: BTreeMap<ConnectionId, (u64, ProtocolVersion)>,
    next_connection: u64,
    /// What clients have yet to answer.
    replies: VecDeque<(ConnectionId, Packet)>,
    trace: Vec<Vec<u8>>,
    seen: Seen,
}

/// What came up, so that a history which tries nothing is noticed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    deliveries: usize,
    aliases: usize,
    own: usize,
    resent: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.segment_bytes = 1 << 20;
        let (up, _) = world.open().unwrap();
        let now = Now { instant: Instant::ZERO, unix: UnixNanos::from_seconds(1_000_000) };
        let mut bytes = [3; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let none = |name: &str| Err::<String, _>(format!("no {name}"));
        let mut limits = LimitsConfig::default();
        // Some are reached.
        limits.default.messages_burst = 30;
        limits.default.messages_per_second = 20;
        let bounds = Bounds { queue_messages_max: 20, ..Bounds::default() };
        let settings = Settings {
            tokens: std::sync::Arc::new(avow::identity::TokenKeys::none()),
            node: "plant".into(),
            shard: 0,
            bounds,
            backlog: Backlog::default(),
            policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
            schemas: Arc::new(Schemas::parse("registry.toml", "version = 1", none).unwrap()),
            limits,
            privacy: avow::evidence::Privacy::PLAIN,
            about: About { sys_interval_seconds: 2, ..About::default() },
            statements: Default::default(),
            receipts: None,
            config_sha256: [0; 32],
            seed: bytes,
        };
        Self {
            random: Random::new(seed),
            world,
            up,
            broker: Broker::new(settings, now),
            now,
            waiting: VecDeque::new(),
            live: BTreeMap::new(),
            next_connection: 0,
            replies: VecDeque::new(),
            trace: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> (Vec<Vec<u8>>, Seen) {
        for _ in 0..STEPS {
            self.step();
            if self.random.below(3) == 0 {
                self.round();
            }
            if self.random.below(4) == 0 {
                self.sync();
            }
        }
        self.broker.handle(self.now, Input::Stop);
        for _ in 0..4 {
            self.round();
            self.sync();
        }
        assert!(self.world.verify().is_ok());
        (self.trace, self.seen)
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0 | 1 => self.connect(),
            2 => self.cut_off(),
            3 | 4 => self.subscribe(),
            5 => self.unsubscribe(),
            6..=10 => self.publish(),
            11..=13 => self.reply(),
            _ => self.wait(),
        }
    }

    fn pick(&mut self) -> Option<ConnectionId> {
        let at = self.random.below(self.live.len().max(1) as u64) as usize;
        self.live.keys().nth(at).copied()
    }

    fn connect(&mut self) {
        let client = self.random.below(CLIENTS);
        let role = if client.is_multiple_of(3) { Role::Operator } else { Role::Device };
        let name = format!("c{client}");
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let facts = facts(role, &name);
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection: id, facts, connect_deadline });
        let version = VERSIONS[self.random.below(3) as usize];
        let will = (self.random.below(3) == 0).then(|| Will {
            topic: TopicName::parse("plant/will").unwrap(),
            payload: Bytes::from(name.clone()),
            qos: QOS[self.random.below(3) as usize],
            retain: self.random.below(2) == 0,
            properties: WillProperties::default(),
        });
        let mut properties = ConnectProperties::default();
        if version.is_v5() {
            properties.session_expiry_seconds = Some(self.random.below(6) as u32);
            properties.topic_alias_maximum = Some(self.random.below(4) as u16);
            properties.receive_maximum = Some(1 + self.random.below(5) as u16);
        }
        let connect = Connect {
            version,
            clean_start: self.random.below(3) == 0,
            keep_alive_seconds: 20,
            client_id: ClientId::new(&name),
            will,
            user_name: None,
            password: None,
            properties,
        };
        self.live.insert(id, (client, version));
        self.packet(id, Packet::Connect(Box::new(connect)));
        // Nothing more comes from it before CONNACK.
        self.round();
        self.sync();
    }

    fn cut_off(&mut self) {
        let Some(id) = self.pick() else { return };
        self.live.remove(&id);
        self.input(Input::Closed { connection: id, cause: CloseCause::Peer });
    }

    fn subscribe(&mut self) {
        let Some(id) = self.pick() else { return };
        let is_v5 = self.live[&id].1.is_v5();
        let filters = (0..=self.random.below(2)).map(|_| SubscribeFilter {
            filter: FILTERS[self.random.below(FILTERS.len() as u64) as usize].to_owned(),
            options: SubscriptionOptions {
                qos: QOS[self.random.below(3) as usize],
                no_local: false,
                retain_as_published: is_v5 && self.random.below(2) == 0,
                retain_handling: RetainHandling::Send,
            },
        });
        let filters = filters.collect();
        let identifier = is_v5.then(|| 1 + self.random.below(9) as u32);
        let subscribe = Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier: identifier,
            user_properties: Vec::new(),
            filters,
        };
        self.packet(id, Packet::Subscribe(Box::new(subscribe)));
    }

    fn unsubscribe(&mut self) {
        let Some(id) = self.pick() else { return };
        let filter = FILTERS[self.random.below(FILTERS.len() as u64) as usize].to_owned();
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::ONE,
            user_properties: Vec::new(),
            filters: vec![filter],
        };
        self.packet(id, Packet::Unsubscribe(Box::new(unsubscribe)));
    }

    fn publish(&mut self) {
        let Some(id) = self.pick() else { return };
        let qos = QOS[self.random.below(3) as usize];
        let number = self.random.below(40) as u16 + 1;
        let mut properties = PublishProperties::default();
        if self.live[&id].1.is_v5() && self.random.below(3) == 0 {
            properties.message_expiry_seconds = Some(self.random.below(5) as u32);
        }
        let size = self.random.below(40) as usize;
        let publish = Publish {
            dup: false,
            qos,
            retain: self.random.below(3) == 0,
            topic: TopicName::parse(TOPICS[self.random.below(TOPICS.len() as u64) as usize]).ok(),
            packet_id: PacketId::new(number).filter(|_| qos > QoS::AtMostOnce),
            properties,
            payload: Bytes::from(vec![b'x'; size]),
        };
        self.packet(id, Packet::Publish(Box::new(publish)));
    }

    fn reply(&mut self) {
        for _ in 0..=self.random.below(4) {
            let Some((id, packet)) = self.replies.pop_front() else { return };
            if self.live.contains_key(&id) {
                self.packet(id, packet);
            }
        }
    }

    fn wait(&mut self) {
        let millis = self.random.below(1_500);
        self.now.instant = self.now.instant.after(Duration::from_millis(millis));
        self.now.unix = UnixNanos::new(self.now.unix.as_nanos() + millis * 1_000_000);
        if self.broker.poll_timeout().is_some_and(|at| at <= self.now.instant) {
            self.broker.handle_timeout(self.now);
        }
    }

    fn packet(&mut self, connection: ConnectionId, packet: Packet) {
        self.input(Input::Packets { connection, packets: vec![packet] });
    }

    fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
    }

    fn round(&mut self) {
        self.broker.finish_round(self.now);
        while let Some(output) = self.broker.poll_output() {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Sequence { id, batch } => {
                for record in batch.iter() {
                    self.trace.push(record.head.to_vec());
                    self.trace.extend(record.body.map(|body| format!("{body:?}").into_bytes()));
                }
                self.waiting.push_back((id, batch));
            }
            Output::Send { connection, packet } => {
                let Some((_, version)) = self.live.get(&connection) else { return };
                let mut bytes = connection.0.to_be_bytes().to_vec();
                encode(&packet, *version, &mut bytes).unwrap();
                self.trace.push(bytes);
                let answer = match packet {
                    Packet::PubRec(ack) if !ack.reason.is_error() => Packet::PubRel(yes(ack)),
                    Packet::PubRel(ack) => Packet::PubComp(yes(ack)),
                    _ => return,
                };
                self.replies.push_back((connection, answer));
            }
            Output::Deliver { connection, publish, dup, packet_id } => {
                let Some((_, version)) = self.live.get(&connection) else { return };
                let mut bytes = Vec::new();
                publish.write_to(dup, packet_id, &mut bytes);
                let mut decoder = Decoder::client(*version, usize::MAX);
                let Decoded::Packet { packet: Packet::Publish(seen), .. } =
                    decoder.decode(&bytes).unwrap()
                else {
                    panic!("no PUBLISH")
                };
                self.note(&seen);
                match (seen.qos, packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => {
                        let ack = Ack::new(id, ReasonCode::Success);
                        self.replies.push_back((connection, Packet::PubAck(ack)));
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        let ack = Ack::new(id, ReasonCode::Success);
                        self.replies.push_back((connection, Packet::PubRec(ack)));
                    }
                    _ => {}
                }
                let written = bytes.len();
                self.trace.push([&connection.0.to_be_bytes()[..], &bytes].concat());
                self.input(Input::Written { connection, bytes: written });
            }
            Output::Close { connection } => {
                self.live.remove(&connection);
                self.input(Input::Closed { connection, cause: CloseCause::Ours });
            }
            other => self.trace.push(format!("{other:?}").into_bytes()),
        }
    }

    fn note(&mut self, publish: &Publish) {
        self.seen.deliveries += 1;
        self.seen.aliases += usize::from(publish.properties.topic_alias.is_some());
        self.seen.own += usize::from(publish.topic.as_ref().is_some_and(TopicName::is_dollar));
        self.seen.resent += usize::from(publish.dup);
    }

    fn sync(&mut self) {
        let batches: Vec<(BatchId, Batch)> = self.waiting.drain(..).collect();
        if !batches.is_empty() {
            for synced in self.up.log.append(&batches).unwrap() {
                self.broker.handle(self.now, Input::Sequenced(synced));
            }
            self.round();
        }
    }
}

/// The next step of the exchange that `ack` belongs to.
fn yes(ack: Ack) -> Ack {
    Ack::new(ack.packet_id, ReasonCode::Success)
}

#[test]
fn the_same_history_twice_gives_the_same_bytes() {
    let mut all = Seen::default();
    let mut before: Vec<Vec<u8>> = Vec::new();
    for seed in 0..SEEDS {
        let (first, seen) = History::new(seed).run();
        let (second, _) = History::new(seed).run();
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            panic!("seed {seed}, output {at}:\n{}\n{}", show(&first[at]), show(&second[at]));
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert_ne!(first, before, "seed {seed} is another history than the one before");
        before = first;
        all.deliveries += seen.deliveries;
        all.aliases += seen.aliases;
        all.own += seen.own;
        all.resent += seen.resent;
    }
    // Histories in which nothing happens prove nothing.
    assert!(all.deliveries > 2_000 && all.aliases > 100, "{all:?}");
    assert!(all.own > 100 && all.resent > 20, "{all:?}");
}

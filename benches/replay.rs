//! Replay: how fast a start reads the log of a lasting session at QoS 1 that was sent everything and
//! acknowledged it: entries, and the records Sent and Acked.
//!
//! The log is made in this process, on a disk, with small messages, which is the worst case for
//! records per second. Three figures: the check that every start makes (checksums, commitments, the
//! tree), the check with the replay that follows it, and the replay alone, from memory.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks and files")]
#[expect(dead_code, reason = "shared with benches that have brokers")]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use avow::broker::{
    Backlog, Broker, Certified, ConnectionFacts, ConnectionId, Input, LogRecord, Output, Replay,
    Settings,
};
use avow::evidence::{LogKey, RecordKind};
use avow::identity::{Identity, Role, TokenKeys};
use avow::limits::LimitsConfig;
use avow::mqtt::{
    Ack, ClientId, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscriptionOptions, TopicName,
};
use avow::policy::Policy;
use avow::schema::Schemas;
use avow::session::Bounds;
use avow::storage::{Log, LogOptions, RealDisk};
use avow::time::{Instant, Now, UnixNanos};
use serde_json::json;
use support::report::Report;

const ROUNDS: u16 = 4_000;
/// Messages of a round; the subscriber acknowledges them in the next.
const PER_ROUND: u16 = 50;

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
qos_max = 1
schema = "none"
[[permit]]
id = "read"
who = ["dashboard"]
subscribe = ["plant/#"]
"#;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match measure() {
        Ok(report) => {
            report.print(std::env::args().any(|argument| argument == "--json"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<Report> {
    let scratch =
        tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    write_log(scratch.path())?;
    let mut report = Report::new(
        "Replay of a lasting session at QoS 1",
        &["pass", "records", "session records", "seconds", "records/s"],
    );
    report.remark(format!("debug assertions: {}", cfg!(debug_assertions)));
    let mut row = |pass: &str, records: usize, states: usize, began: Stopwatch| {
        let seconds = began.elapsed().as_secs_f64();
        let per_second = u32::try_from(records).map_or(f64::INFINITY, f64::from) / seconds;
        report.row(
            vec![
                pass.to_owned(),
                records.to_string(),
                states.to_string(),
                format!("{seconds:.2}"),
                format!("{per_second:.0}"),
            ],
            json!({ "pass": pass, "records": records, "seconds": seconds }),
        );
    };

    let (mut records, mut states) = (0, 0);
    let began = Stopwatch::now();
    Log::open(RealDisk::new(scratch.path()), options()?, &mut |record| {
        records += 1;
        states += usize::from(record.kind == RecordKind::State);
    })?;
    row("checked", records, states, began);

    let (mut replay, mut good) = (Replay::new(settings()?, now()), true);
    let mut kept = Vec::with_capacity(records);
    let began = Stopwatch::now();
    Log::open(RealDisk::new(scratch.path()), options()?, &mut |record| {
        let body = record.body.map(|body| (body.payload, body.properties));
        let (kind, index, head) = (record.kind, record.index, record.head);
        good &= replay.apply(LogRecord { kind, index, head, body }).is_ok();
    })?;
    row("checked and replayed", records, states, began);

    Log::open(RealDisk::new(scratch.path()), options()?, &mut |record| {
        let body = record.body.map(|body| (body.payload.to_vec(), body.properties.to_vec()));
        kept.push((record.kind, record.index, record.head.to_vec(), body));
    })?;
    let mut replay = Replay::new(settings()?, now());
    let began = Stopwatch::now();
    for (kind, index, head, body) in &kept {
        let body = body.as_ref().map(|(payload, properties)| (&payload[..], &properties[..]));
        good &= replay.apply(LogRecord { kind: *kind, index: *index, head, body }).is_ok();
    }
    row("replayed", records, states, began);
    if good { Ok(report) } else { Err("a record could not be replayed".into()) }
}

fn options() -> Outcome<LogOptions> {
    let key = LogKey::from_seed("plant.example/log", &[7; 32])?;
    Ok(LogOptions { verifier: key.verifier().clone(), segment_bytes: 64 << 20, tiles: false })
}

fn now() -> Now {
    Now { instant: Instant::from_nanos(1 << 60), unix: UnixNanos::from_seconds(1_000_000) }
}

fn settings() -> Outcome<Settings> {
    let none = |name: &str| Err::<String, _>(format!("no {name}"));
    let mut limits = LimitsConfig::default();
    limits.default.messages_per_second = 1_000_000;
    limits.default.messages_burst = 1_000_000;
    limits.default.bytes_per_second = 1_000_000_000;
    limits.default.bytes_burst = 1_000_000_000;
    Ok(Settings {
        tokens: Arc::new(TokenKeys::none()),
        privacy: avow::evidence::Privacy::PLAIN,
        about: Default::default(),
        node: "plant".into(),
        shard: 0,
        bounds: Bounds::default(),
        backlog: Backlog::default(),
        policy: Arc::new(Policy::parse("policy.toml", POLICY)?),
        schemas: Arc::new(Schemas::parse("registry.toml", "version = 1", none)?),
        limits,
        statements: Default::default(),
        receipts: None,
        config_sha256: [0; 32],
        seed: [7; 32],
    })
}

/// A broker without sockets, and its log.
struct Plant {
    broker: Broker,
    log: Log<RealDisk>,
    now: Now,
    /// What was delivered and not acknowledged yet.
    delivered: Vec<PacketId>,
}

const PUBLISHER: ConnectionId = ConnectionId(1);
const SUBSCRIBER: ConnectionId = ConnectionId(2);

fn write_log(directory: &Path) -> Outcome<()> {
    let (log, _) = Log::open(RealDisk::new(directory), options()?, &mut |_| {})?;
    let broker = Broker::new(settings()?, now());
    let mut plant = Plant { broker, log, now: now(), delivered: Vec::new() };
    plant.connect(SUBSCRIBER, Role::Dashboard, "board")?;
    plant.connect(PUBLISHER, Role::Device, "press-7")?;
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
    let filter = SubscribeFilter { filter: "plant/#".to_owned(), options };
    let subscribe = Packet::Subscribe(Box::new(Subscribe {
        packet_id: PacketId::ONE,
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: vec![filter],
    }));
    plant.take(SUBSCRIBER, vec![subscribe]);
    plant.round()?;
    let topic = TopicName::parse("plant/press-7/telemetry")?;
    let mut acknowledged = 0;
    for _ in 0..ROUNDS {
        let message = |id| {
            Packet::Publish(Box::new(Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: Some(topic.clone()),
                packet_id: PacketId::new(id),
                properties: PublishProperties::default(),
                payload: bytes::Bytes::from_static(b"21.5"),
            }))
        };
        plant.take(PUBLISHER, (1..=PER_ROUND).map(message).collect());
        plant.round()?;
        let acks = std::mem::take(&mut plant.delivered);
        acknowledged += acks.len();
        let ack = |id| Packet::PubAck(Ack::new(id, ReasonCode::Success));
        plant.take(SUBSCRIBER, acks.into_iter().map(ack).collect());
    }
    plant.round()?;
    let expected = usize::from(ROUNDS) * usize::from(PER_ROUND);
    match acknowledged == expected {
        true => Ok(()),
        false => Err(format!("{acknowledged} of {expected} messages came").into()),
    }
}

impl Plant {
    fn connect(&mut self, connection: ConnectionId, role: Role, name: &str) -> Outcome<()> {
        let facts = ConnectionFacts {
            certificate: Some(Certified {
                identity: Identity::new("plant", role, name, "plant")?,
                x5t: [0; 32],
                spki_sha256: [0; 32],
                key: None,
                issuer_name: String::new(),
                serial: String::new(),
                not_before: UnixNanos::new(0),
                not_after: UnixNanos::from_seconds(2_000_000),
                path: None,
            }),
            peer: "127.0.0.1:9".parse()?,
            tls_version: "1.3",
            tls_suite: String::new(),
            exporter_sha256: [0; 32],
        };
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        let opened = Input::Opened { connection, facts: Arc::new(facts), connect_deadline };
        self.broker.handle(self.now, opened);
        let connect = Packet::Connect(Box::new(Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive_seconds: 1_000,
            client_id: ClientId::new(name),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties {
                session_expiry_seconds: (role == Role::Dashboard).then_some(100_000),
                ..Default::default()
            },
        }));
        self.take(connection, vec![connect]);
        self.round()
    }

    fn take(&mut self, connection: ConnectionId, packets: Vec<Packet>) {
        self.broker.handle(self.now, Input::Packets { connection, packets });
    }

    /// Rounds until nothing is left to bring to disk.
    fn round(&mut self) -> Outcome<()> {
        loop {
            self.broker.finish_round(self.now);
            let mut batches = Vec::new();
            while let Some(output) = self.broker.poll_output() {
                match output {
                    Output::Sequence { id, batch } => batches.push((id, batch)),
                    Output::Deliver { connection, publish, dup, packet_id } => {
                        let mut sent = Vec::new();
                        publish.write_to(dup, packet_id, &mut sent);
                        self.delivered.extend(packet_id);
                        let written = Input::Written { connection, bytes: sent.len() };
                        self.broker.handle(self.now, written);
                    }
                    _ => {}
                }
            }
            if batches.is_empty() {
                return Ok(());
            }
            for synced in self.log.append(&batches)? {
                self.broker.handle(self.now, Input::Sequenced(synced));
            }
        }
    }
}

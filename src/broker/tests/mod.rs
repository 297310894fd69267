//! The core, driven by hand: every input at a time of our choosing, every output looked at.

mod batches;
mod certificates;
mod clock;
mod deliveries;
mod flow;
mod fresh;
mod line;
mod privacy;
mod receipts;
mod sessions;
mod shared;
mod signed;
mod tokens;
mod wills;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::evidence::{Batch, BatchId, RecordKind, Synced};
use crate::limits::LimitsConfig;
use crate::mqtt::{
    Ack, Connect, ConnectProperties, Decoded, Decoder, Disconnect, DisconnectProperties, PacketId,
    ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscriptionOptions, TopicName, UserProperty, Will,
};
use crate::session::Bounds;
use crate::time::UnixNanos;

/// One record as it was handed to the writer.
#[derive(Clone)]
pub(super) struct Logged {
    pub(super) kind: RecordKind,
    pub(super) index: u64,
    pub(super) head: Vec<u8>,
    pub(super) body: Option<crate::evidence::Body>,
}

/// A broker, and what came out of it.
pub(super) struct Rig {
    pub(super) broker: Broker,
    pub(super) now: Now,
    waiting: VecDeque<BatchId>,
    pub(super) entries: Vec<Value>,
    /// Of every record that has one, from the beginning.
    pub(super) bodies: Vec<crate::evidence::Body>,
    batches: Vec<(BatchId, usize)>,
    /// Every record that is on disk, or on its way.
    pub(super) log: Vec<Logged>,
    next_connection: u64,
    sent: BTreeMap<ConnectionId, Vec<Packet>>,
    versions: BTreeMap<ConnectionId, ProtocolVersion>,
    pub(super) closed: Vec<ConnectionId>,
    pub(super) paused: Vec<ConnectionId>,
    pub(super) stopped: bool,
    /// Signatures to be checked, unless that happens at once.
    pub(super) jobs: Option<VecDeque<(ConnectionId, crate::evidence::VerifyJob)>>,
    /// Whether deliveries are reported as written at once.
    pub(super) writes: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Bounds::default(), LimitsConfig::default())
    }

    pub(super) fn with(bounds: Bounds, limits: LimitsConfig) -> Self {
        Self::of(Settings { bounds, limits, ..super::testing::settings() })
    }

    pub(super) fn of(settings: Settings) -> Self {
        let now = Now { instant: Instant::ZERO, unix: UnixNanos::from_seconds(1_000_000) };
        let mut rig = Self {
            broker: Broker::new(settings, now),
            now,
            waiting: VecDeque::new(),
            entries: Vec::new(),
            bodies: Vec::new(),
            batches: Vec::new(),
            log: Vec::new(),
            next_connection: 0,
            sent: BTreeMap::new(),
            versions: BTreeMap::new(),
            closed: Vec::new(),
            paused: Vec::new(),
            stopped: false,
            jobs: None,
            writes: true,
        };
        rig.sync();
        rig
    }

    /// Begins anew at `now`, with nothing recorded before.
    pub(super) fn restart_at(&mut self, now: Now) {
        self.broker = Broker::new(self.broker.settings.clone(), now);
        self.now = now;
        (self.log, self.batches, self.entries) = Default::default();
        self.sync();
    }

    /// Goes on with a broker that was made of the first `count` records of the log.
    pub(super) fn go_on_with(&mut self, broker: Broker, count: usize) {
        self.broker = broker;
        self.log.truncate(count);
        self.waiting.clear();
        let entries = self.log.iter().filter(|record| record.kind == RecordKind::Entry).count();
        self.batches = vec![(BatchId { shard: 0, number: u64::MAX }, entries)];
        self.sync();
    }

    /// Lets one input happen; nothing is synced yet.
    pub(super) fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input);
        self.round();
    }

    /// Brings everything that waits to disk, until nothing waits.
    pub(super) fn sync(&mut self) {
        self.round();
        while let Some(id) = self.waiting.pop_front() {
            self.sync_batch(id);
        }
    }

    fn sync_batch(&mut self, id: BatchId) {
        let before: usize = self
            .batches
            .iter()
            .take_while(|(other, _)| *other != id)
            .map(|(_, records)| *records)
            .sum();
        let synced = Synced::assertion(id, before as u64);
        self.broker.handle(self.now, Input::Sequenced(synced));
        self.round();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now.instant = self.now.instant.after(by);
        self.now.unix = UnixNanos::new(self.now.unix.as_nanos() + by.as_nanos() as u64);
        self.broker.handle_timeout(self.now);
        self.sync();
    }

    fn round(&mut self) {
        self.broker.finish_round(self.now);
        while let Some(output) = self.broker.poll_output() {
            self.output(output);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { connection, packet } => {
                self.sent.entry(connection).or_default().push(packet);
            }
            Output::Deliver { connection, publish, dup, packet_id } => {
                let mut bytes = Vec::new();
                publish.write_to(dup, packet_id, &mut bytes);
                let version = self.versions[&connection];
                let decoded = Decoder::client(version, usize::MAX).decode(&bytes).unwrap();
                let Decoded::Packet { packet, .. } = decoded else { panic!("half a packet") };
                self.sent.entry(connection).or_default().push(packet);
                if self.writes {
                    let bytes = publish.len();
                    self.broker.handle(self.now, Input::Written { connection, bytes });
                }
            }
            Output::Sequence { id, batch } => {
                let before = self.log.len();
                self.note(&batch);
                let new = self.log.get(before..).unwrap_or_default();
                let entries = new.iter().filter(|record| record.kind == RecordKind::Entry).count();
                self.batches.push((id, entries));
                self.waiting.push_back(id);
            }
            Output::Verify { connection, job } => match &mut self.jobs {
                Some(jobs) => jobs.push_back((connection, job)),
                None => {
                    let verified = job.run();
                    self.broker.handle(self.now, Input::Verified { connection, verified });
                    self.broker.finish_round(self.now);
                }
            },
            Output::Close { connection } => self.closed.push(connection),
            Output::Pause { connection } => self.paused.push(connection),
            Output::Resume { connection } => self.paused.retain(|paused| *paused != connection),
            Output::Stopped => self.stopped = true,
            Output::Administered { .. } | Output::Event(_) => {}
        }
    }

    fn note(&mut self, batch: &Batch) {
        for record in batch.iter() {
            let before = self
                .log
                .last()
                .map_or(0, |last| last.index + u64::from(last.kind == RecordKind::Entry));
            self.log.push(Logged {
                kind: record.kind,
                index: before,
                head: record.head.to_vec(),
                body: record.body.cloned(),
            });
            if record.kind == RecordKind::State {
                continue;
            }
            let entry: Value = serde_json::from_slice(record.head).unwrap();
            if let Some(body) = record.body {
                use base64::Engine as _;
                use base64::engine::general_purpose::URL_SAFE_NO_PAD;
                let commitment =
                    |of| URL_SAFE_NO_PAD.encode(crate::evidence::commitment(&body.salt, of));
                assert_eq!(entry["c"], commitment(&body.payload), "the entry commits to its body");
                match body.properties.is_empty() {
                    true => assert_eq!(entry["props"], Value::Null),
                    false => assert_eq!(entry["props"], commitment(&body.properties)),
                }
                self.bodies.push(body.clone());
            }
            self.entries.push(entry);
        }
    }

    /// Opens a connection of `role/name`, or without a certificate if that is empty; nothing is
    /// sent on it yet.
    pub(super) fn open(&mut self, uri_path: &str) -> ConnectionId {
        self.open_by((!uri_path.is_empty()).then(|| certified(uri_path)))
    }

    /// As [`Self::open`], with this certificate.
    pub(super) fn open_by(&mut self, certificate: Option<Certified>) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let facts = ConnectionFacts {
            certificate,
            peer: "127.0.0.1:4000".parse().unwrap(),
            tls_version: "1.3",
            tls_suite: "TLS13_AES_256_GCM_SHA384".into(),
            exporter_sha256: [5; 32],
        };
        let connect_deadline = self.now.instant.after(Duration::from_secs(10));
        self.input(Input::Opened { connection: id, facts: Arc::new(facts), connect_deadline });
        id
    }

    pub(super) fn packet(&mut self, connection: ConnectionId, packet: Packet) {
        self.input(Input::Packets { connection, packets: vec![packet] });
    }

    /// Opens a connection and connects on it, synced, its CONNACK taken.
    pub(super) fn connect(&mut self, uri_path: &str, connect: Connect) -> ConnectionId {
        let id = self.open(uri_path);
        self.versions.insert(id, connect.version);
        self.packet(id, Packet::Connect(Box::new(connect)));
        self.sync();
        id
    }

    /// [`Self::connect`], and the CONNACK must say yes.
    pub(super) fn client(&mut self, uri_path: &str, version: ProtocolVersion) -> ConnectionId {
        let name = uri_path.rsplit('/').next().unwrap();
        let id = self.connect(uri_path, connect(version, name));
        let sent = self.take(id);
        assert!(
            matches!(&sent[..], [Packet::ConnAck(ack)] if ack.reason == ReasonCode::Success),
            "{sent:?}"
        );
        id
    }

    pub(super) fn subscribe(&mut self, connection: ConnectionId, filter: &str, qos: QoS) {
        let options = SubscriptionOptions { qos, ..Default::default() };
        self.subscribe_with(connection, filter, options, None);
        let sent = self.take(connection);
        let Some(Packet::SubAck(ack)) = sent.first() else { panic!("{sent:?}") };
        assert!(!ack.reasons[0].is_error(), "{ack:?}");
        for packet in sent.into_iter().skip(1) {
            self.sent.entry(connection).or_default().push(packet);
        }
    }

    pub(super) fn subscribe_with(
        &mut self,
        connection: ConnectionId,
        filter: &str,
        options: SubscriptionOptions,
        subscription_identifier: Option<u32>,
    ) {
        let subscribe = Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier,
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter { filter: filter.to_owned(), options }],
        };
        self.packet(connection, Packet::Subscribe(Box::new(subscribe)));
        self.sync();
    }

    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.input(Input::Closed { connection, cause: CloseCause::Peer });
        self.sync();
    }

    /// Takes what was sent to a connection.
    pub(super) fn take(&mut self, connection: ConnectionId) -> Vec<Packet> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    /// Takes the publishes that were sent to a connection: topic, payload, QoS, retain.
    pub(super) fn delivered(&mut self, connection: ConnectionId) -> Vec<Publish> {
        self.take(connection)
            .into_iter()
            .filter_map(|packet| match packet {
                Packet::Publish(publish) => Some(*publish),
                _ => None,
            })
            .collect()
    }

    pub(super) fn payloads(&mut self, connection: ConnectionId) -> Vec<String> {
        let text = |publish: Publish| String::from_utf8(publish.payload.to_vec()).unwrap();
        self.delivered(connection).into_iter().map(text).collect()
    }

    /// Types of all entries since the last call.
    pub(super) fn entry_types(&mut self) -> Vec<String> {
        self.entries.drain(..).map(|entry| entry["type"].as_str().unwrap().to_owned()).collect()
    }
}

pub(super) fn connect(version: ProtocolVersion, client_id: &str) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_seconds: 60,
        client_id: ClientId::new(client_id),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A CONNECT whose session outlives its connection by `seconds`.
pub(super) fn lasting(version: ProtocolVersion, client_id: &str, seconds: u32) -> Connect {
    let mut packet = connect(version, client_id);
    packet.clean_start = false;
    if version.is_v5() {
        packet.properties.session_expiry_seconds = Some(seconds);
    }
    packet
}

pub(super) fn publish(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Packet {
    Packet::Publish(Box::new(message(topic, payload, qos, packet_id)))
}

pub(super) fn message(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::parse(topic).unwrap()),
        packet_id: PacketId::new(packet_id).filter(|_| qos > QoS::AtMostOnce),
        properties: PublishProperties::default(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub(super) fn ack(packet_id: u16) -> Ack {
    Ack::new(PacketId::new(packet_id).unwrap(), ReasonCode::Success)
}

pub(super) fn disconnect(reason: ReasonCode) -> Packet {
    let properties = DisconnectProperties::default();
    Packet::Disconnect(Box::new(Disconnect { reason, properties }))
}

pub(super) fn will(topic: &str, payload: &str, delay_seconds: u32) -> Will {
    Will {
        topic: TopicName::parse(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: crate::mqtt::WillProperties {
            delay_seconds: Some(delay_seconds),
            ..Default::default()
        },
    }
}

/// A certificate of `role/name`, of which nobody has the bytes.
pub(super) fn certified(uri_path: &str) -> Certified {
    Certified {
        identity: Identity::parse(&format!("spiffe://plant/{uri_path}"), "plant").unwrap(),
        x5t: [3; 32],
        spki_sha256: [4; 32],
        key: Some(signed::device_key()),
        issuer_name: "CN=issuing".into(),
        serial: "01".into(),
        not_before: UnixNanos::new(0),
        not_after: UnixNanos::from_seconds(1_000_000 + 30 * 86_400),
        path: None,
    }
}

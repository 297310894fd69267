//! The core: a value that turns inputs into outputs.
//!
//! No async, no lock, no channel, no clock, no file and no randomness of the system's in here:
//! time comes with each input, a seed at the start. The shell hands it what happened
//! ([`Broker::handle`]), ends the round ([`Broker::finish_round`]), does what it is asked
//! ([`Broker::poll_output`]) and comes back when something is due ([`Broker::poll_timeout`]).
//! A simulation does the same, and the same history gives the same bytes.
//!
//! The line is in [`publish`]: `accept` walks a PUBLISH from received to conforming and puts it
//! into the open batch; `release` resumes it when the batch is on disk.

mod acknowledge;
mod attach;
mod certificates;
mod claims;
mod connect;
mod connection;
mod counters;
mod credential;
mod deliver;
mod detach;
mod disconnect;
mod durable;
mod effect;
mod handover;
mod input;
mod ledger;
mod output;
mod publish;
mod receipts;
mod record;
mod send;
mod settings;
mod subscribe;
mod sys;
mod time_step;
mod timeout;
mod walk;
mod will;

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::FixedState;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

pub use counters::{BUCKETS_MICROS, Counters, Histogram, Traffic};
pub use durable::{BadRecord, LogBody, LogRecord, Replay, owner_of_body};
pub use input::{
    Administration, Certified, CloseCause, ConnectionFacts, ConnectionId, Input, SERVER_STARTING,
};
pub use output::{Event, EventKind, Output};
pub use settings::{About, Backlog, Settings, StatementBounds};

use connection::{Connection, Session};
use durable::Recovering;
use effect::Effect;
use ledger::{Closed, Ledger};
use publish::Held;

use crate::evidence::chain::Chains;
use crate::evidence::{DecisionIds, Synced, Windows};
use crate::identity::Identity;
use crate::limits::Limits;
use crate::mqtt::{ClientId, Packet};
use crate::routing::{Interest, Retained, SessionKey, SubscriptionTree};
use crate::schema::Sequences;
use crate::session::{Arrival, Phase, Timers, Verdict};
use crate::time::{Instant, Now};

/// A map whose keys we chose ourselves; nothing may depend on its order.
type Map<K, V> = HashMap<K, V, FixedState>;

/// A session's key has the number of its shard from this bit on.
const SHARD_SHIFT: u32 = 48;

/// One shard of the broker.
pub struct Broker {
    settings: Settings,
    random: ChaCha12Rng,
    decisions: DecisionIds,
    limits: Limits,
    ledger: Ledger,
    connections: Map<ConnectionId, Connection>,
    sessions: Map<SessionKey, Session>,
    /// Which session a client means: no identity can name another's. [`SessionKey`]s are ours.
    session_keys: BTreeMap<(Identity, ClientId), SessionKey>,
    claims: claims::Claims,
    certificates: certificates::Certificates,
    next_session: u64,
    subscriptions: SubscriptionTree,
    /// Subscriptions that were permitted and are not yet in force.
    subscriptions_reserved: usize,
    retained: Retained,
    sys: sys::Sys,
    timers: Timers<ConnectionId, SessionKey>,
    refusals: record::RefusalCounts,
    /// Which numbers of payloads were seen.
    sequences: Sequences,
    /// Which signed messages were seen.
    windows: Windows,
    /// Which messages wait for a signature of their devices.
    chains: Chains,
    gaps: publish::Gaps,
    /// The next signature to be checked.
    next_ticket: u64,
    /// The connection whose message waits for its signature, since it was handled.
    began_verifying: Option<ConnectionId>,
    /// Messages in all queues; bytes of those, and of what waits to be acknowledged.
    queued: (u64, u64),
    /// Sessions that the log tells of.
    durable_sessions: usize,
    /// The batch whose effects are carried out.
    releasing: u64,
    /// While the log is read.
    recovering: Option<Box<Recovering>>,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// Kept between calls for its memory.
    interests: Vec<Interest>,
    stopping: bool,
}

impl Broker {
    /// A broker that begins at `now`, with no log behind it. Its first batch says so: `start`,
    /// `config`, `policy` and `schema` entries.
    pub fn new(settings: Settings, now: Now) -> Self {
        Replay::new(settings, now).finish(now)
    }

    /// A broker that nothing has happened to, not even its start.
    fn unstarted(settings: Settings, recovering: Recovering) -> Self {
        let mut random = ChaCha12Rng::from_seed(settings.seed);
        Self {
            decisions: DecisionIds::new(random.next_u64(), settings.shard),
            random,
            limits: Limits::new(settings.limits.clone()),
            ledger: Ledger::new(settings.shard),
            connections: Map::default(),
            sessions: Map::default(),
            session_keys: BTreeMap::new(),
            claims: claims::Claims::default(),
            certificates: certificates::Certificates::default(),
            next_session: u64::from(settings.shard) << SHARD_SHIFT,
            subscriptions: SubscriptionTree::default(),
            subscriptions_reserved: 0,
            retained: Retained::default(),
            sys: sys::Sys::default(),
            timers: Timers::new(),
            refusals: record::RefusalCounts::default(),
            sequences: settings.schemas.sequences(&settings.seed),
            windows: Windows::default(),
            chains: Chains::default(),
            gaps: publish::Gaps::default(),
            next_ticket: 0,
            began_verifying: None,
            queued: (0, 0),
            durable_sessions: 0,
            releasing: 0,
            recovering: Some(Box::new(recovering)),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            interests: Vec::new(),
            stopping: false,
            settings,
        }
    }

    /// Lets `input` happen at `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Opened { connection, facts, connect_deadline } => {
                self.counters.traffic.connections_opened += 1;
                self.open(now, connection, facts, connect_deadline);
            }
            Input::Packets { connection, packets } => {
                self.counters.traffic.packets_received += packets.len() as u64;
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.last_heard = now.instant;
                    if known.verifying.is_some() {
                        return self.hold(connection, Held::Packets(packets.into()));
                    }
                }
                self.handle_packets(now, connection, packets.into());
            }
            Input::Verified { connection, verified } => {
                self.handle_verified(now, connection, &verified);
            }
            Input::Violated { connection, violation, version } => {
                if self.is_verifying(connection) {
                    return self.hold(connection, Held::Violated(violation, version));
                }
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.version = known.version.or(version);
                }
                self.violate(now, connection, &violation);
            }
            Input::Closed { connection, cause } if self.is_verifying(connection) => {
                self.hold(connection, Held::Closed(cause));
            }
            Input::Closed { connection, cause } => self.handle_closed(now, connection, cause),
            Input::Written { connection, bytes } => self.handle_written(now, connection, bytes),
            Input::Carried { received_bytes, sent_bytes } => {
                let traffic = &mut self.counters.traffic;
                (traffic.bytes_received, traffic.bytes_sent) = (received_bytes, sent_bytes);
            }
            Input::Sequenced(synced) => self.handle_sequenced(now, synced),
            Input::HandshakeRefused { peer, reason } => {
                self.handle_handshake_refused(now, peer, reason);
            }
            Input::ClockStepped { expected } => {
                self.record_time_step(now, expected, time_step::Found::Running);
            }
            Input::StartRefused { count, since } => self.record_start_refused(now, count, since),
            Input::PseudonymKey(key) => self.settings.privacy.key = Some(key),
            Input::Erase { ranges, administration } => {
                self.erase(&ranges);
                self.record_administration(now, administration);
            }
            Input::Administered(administration) => self.record_administration(now, administration),
            Input::Stop => self.stop(now),
        }
    }

    /// Ends a round of inputs: asks the shell to bring what was recorded to disk. Call it after
    /// the last `handle` of a round and before draining outputs: the longer the round, the fewer
    /// syncs.
    pub fn finish_round(&mut self, now: Now) {
        // Carrying out effects may record more, which is then part of the next pass.
        loop {
            match self.ledger.close() {
                Closed::Nothing => return,
                Closed::Sequence(id, batch) => {
                    self.outputs.push_back(Output::Sequence { id, batch });
                    return;
                }
                Closed::Release(effects) => {
                    for effect in effects {
                        self.carry_out(now, effect, None);
                    }
                }
            }
        }
    }

    /// The next thing the shell must do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front()?;
        self.counters.traffic.count(&output);
        Some(output)
    }

    /// When [`Self::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether so much waits for the disk that sockets must not be read now.
    pub fn is_backlogged(&self) -> bool {
        let (records, bytes) = self.ledger.waiting();
        let backlog = self.settings.backlog;
        records >= backlog.records_max || bytes >= backlog.bytes_max
    }

    /// What was counted so far.
    pub fn counters(&mut self) -> &Counters {
        self.counters.connections_live = self.connections.len() as u64;
        self.counters.sessions_live = self.sessions.len() as u64;
        self.counters.subscriptions_live = self.subscriptions.len() as u64;
        self.counters.retained_live = self.retained.len() as u64;
        &self.counters
    }

    /// Packets in order, as far as a message waits for its signature: the others wait behind it.
    fn handle_packets(&mut self, now: Now, id: ConnectionId, mut packets: VecDeque<Packet>) {
        while let Some(packet) = packets.pop_front() {
            self.handle_packet(now, id, packet);
            if self.began_verifying.take().is_some() {
                return self.hold(id, Held::Packets(packets));
            }
        }
    }

    /// One packet, through the table of phases.
    fn handle_packet(&mut self, now: Now, id: ConnectionId, packet: Packet) {
        let Some(connection) = self.connections.get(&id) else { return };
        match connection.phase.judge(Arrival::of(&packet)) {
            Verdict::Ignore => return,
            Verdict::Violation(what) => return self.violate_protocol(now, id, what),
            Verdict::Handle => {}
        }
        match packet {
            Packet::Connect(connect) => self.handle_connect(now, id, connect),
            Packet::Publish(publish) => self.accept(now, id, publish),
            Packet::PubAck(ack) => self.handle_puback(now, id, &ack),
            Packet::PubRec(ack) => self.handle_pubrec(now, id, &ack),
            Packet::PubRel(ack) => self.handle_pubrel(id, &ack),
            Packet::PubComp(ack) => self.handle_pubcomp(now, id, &ack),
            Packet::Subscribe(subscribe) => self.handle_subscribe(now, id, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(now, id, &unsubscribe),
            // [MQTT-3.12.4-1]
            Packet::PingReq => self.send(id, Packet::PingResp),
            Packet::Disconnect(disconnect) => self.handle_disconnect(now, id, &disconnect),
            Packet::Auth(auth) => self.handle_auth(now, id, &auth),
            // The table has turned these away.
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {}
        }
    }

    /// A batch is on disk: everything that waited for it happens, in order.
    fn handle_sequenced(&mut self, now: Now, synced: Synced) {
        self.releasing = synced.batch().number;
        for effect in self.ledger.release(&synced) {
            self.carry_out(now, effect, Some(&synced));
        }
    }

    /// Carries out one effect whose batch is on disk. Effects that need to know their place in
    /// the log come with `synced`, always: they have a record of their own, so
    /// [`Ledger::close`] never releases them without one.
    fn carry_out(&mut self, now: Now, effect: Effect, synced: Option<&Synced>) {
        match (effect, synced) {
            (Effect::Connected(accepted), Some(synced)) => self.connected(now, *accepted, synced),
            (Effect::Publish(accepted), Some(synced)) => self.release(now, *accepted, synced),
            (Effect::Administered { ticket, offset }, Some(synced)) => {
                let index = synced.first_index() + offset;
                self.outputs.push_back(Output::Administered { ticket, index });
            }
            (Effect::CertificateLogged { x5t, offset }, Some(synced)) => {
                self.certificate_logged(&x5t, synced.first_index() + offset);
            }
            (
                Effect::Connected(_)
                | Effect::Publish(_)
                | Effect::Administered { .. }
                | Effect::CertificateLogged { .. },
                None,
            ) => {
                debug_assert!(false, "an effect with a record was released without its batch")
            }
            (Effect::Connect { connection, connect }, _) => {
                self.connect_certified(now, connection, connect);
            }
            (Effect::Answer { connection, packet, frees_quota }, _) => {
                self.answer(now, connection, packet, frees_quota);
            }
            (Effect::Renewed(renewal), _) => self.renewed(now, *renewal),
            (Effect::Close(connection), _) => {
                self.outputs.push_back(Output::Close { connection });
            }
            (Effect::Subscribed { connection, session, packet_id, filters }, synced) => {
                self.release_reserved(session, &filters);
                // Without entries nothing was permitted.
                let first_index = synced.map_or(0, Synced::first_index);
                self.subscribed(now, (connection, session), packet_id, filters, first_index);
            }
            (Effect::Unsubscribed { connection, session, packet_id, filters }, _) => {
                self.unsubscribed(now, (connection, session), packet_id, filters);
            }
            (effect, _) => self.carry_out_for_session(now, effect),
        }
    }

    /// As [`Self::carry_out`], for what need not know its place in the log.
    fn carry_out_for_session(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Detached(detachment) => self.detached(now, detachment),
            Effect::Ended { session, connect_index } => self.ended(now, session, connect_index),
            Effect::Begin { connection, session, window_max } => {
                self.begin(now, connection, session, window_max);
            }
            Effect::Deliver { connection, session, publish, packet_id } => {
                self.deliver_recorded(connection, session, publish, packet_id);
            }
            // What ended meanwhile may have been recorded behind the last entry.
            Effect::Stopped if self.ledger.has_records() => self.ledger.wait(Effect::Stopped),
            Effect::Stopped => self.outputs.push_back(Output::Stopped),
            Effect::Connected(_)
            | Effect::Publish(_)
            | Effect::Renewed(_)
            | Effect::Administered { .. }
            | Effect::CertificateLogged { .. }
            | Effect::Connect { .. }
            | Effect::Answer { .. }
            | Effect::Close(_)
            | Effect::Subscribed { .. }
            | Effect::Unsubscribed { .. } => {}
        }
    }

    /// Sends `packet` unless the connection is being closed. Packets that say why it is closed
    /// are sent by effects, which know better.
    fn send(&mut self, connection: ConnectionId, packet: Packet) {
        let open = |known: &&Connection| known.phase != Phase::Closing;
        if let Some(known) = self.connections.get(&connection).filter(open) {
            send::send(&mut self.outputs, connection, known, packet);
        }
    }

    /// Sends an answer that has waited for its batch.
    fn answer(&mut self, now: Now, connection: ConnectionId, packet: Packet, frees_quota: bool) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        if frees_quota {
            known.unacknowledged = known.unacknowledged.saturating_sub(1);
        }
        let answers = matches!(packet, Packet::PubAck(_) | Packet::PubRec(_));
        send::send(&mut self.outputs, connection, known, packet);
        if answers {
            self.answered(now, connection);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

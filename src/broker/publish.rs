//! The line. Two functions: [`Broker::accept`] walks a PUBLISH from received over authorized and
//! admitted to conforming and puts it, with its evidence, into the open batch;
//! [`Broker::release`] resumes it when that batch is on disk: recorded, routed, acknowledged.
//!
//! Every step consumes the proof of the step before it, so a step left out does not compile.

use std::time::Duration;

use super::effect::{AcceptedPublish, Acknowledge, Effect};
use super::input::ConnectionId;
use super::output::{EventKind, Output};
use super::record::{RefusalKey, beginning, refusal_fields};
use super::{Broker, disconnect::Ending};
use crate::evidence::{Body, Decision, EntryType, EntryWriter, Recorded, Synced, commitment};
use crate::limits::{Admission, Charge};
use crate::mqtt::{
    Ack, AckProperties, Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Violation,
    encode_forwarded,
};
use crate::policy::V3Refusal;
use crate::refusal::{Refusal, Refused};
use crate::routing::{Message, Reserved, kept_bytes};
use crate::schema::{Conforming, Outcome};
use crate::session::{Phase, Received, Timer};
use crate::time::Now;

/// How a message came to us.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ingress {
    /// In a PUBLISH.
    Client(ConnectionId),
    /// As the Will of the connection that began with this `connect` entry.
    Will { connect_index: u64 },
}

/// Where the line ended for a message that was refused.
pub(super) struct Stopped {
    pub(super) received: Received,
    pub(super) refused: Refused,
    /// What a 3.x client gets, which has no negative acknowledgement.
    v3: V3Refusal,
    /// Whether a limit said so, and more of the same is only counted.
    by_limit: bool,
    /// How long the limit wants nothing more read.
    pause: Duration,
    /// Whether the limit ends the connection.
    disconnect: bool,
}

impl Broker {
    /// Walks the line up to the open batch.
    pub(super) fn accept(&mut self, now: Now, id: ConnectionId, publish: Box<Publish>) {
        self.counters.publishes_received += 1;
        self.counters.traffic.payload_bytes_received += publish.payload.len() as u64;
        let (session, received) = match self.receive(now, id, publish) {
            Ok(Some(arrived)) => arrived,
            Ok(None) => return,
            Err(violation) => return self.violate(now, id, &violation),
        };
        let conforming = match self.judge(now, received) {
            Ok((conforming, pause)) => {
                self.slow_down(now, id, pause);
                conforming
            }
            Err(stopped) => return self.refuse_publish(now, id, *stopped),
        };
        let publish = conforming.admitted().authorized().received().publish();
        let (packet_id, qos) = (publish.packet_id, publish.qos);
        // What PUBREC will refuse holds no identifier: PUBREL never comes for it. [MQTT-4.3.3-9]
        let v5 = self.connections.get(&id).is_some_and(super::Connection::is_v5);
        let refused = v5 && matches!(conforming.outcome(), Outcome::Quarantined { .. });
        if let (false, Some(packet_id), QoS::ExactlyOnce, Some(session)) =
            (refused, packet_id, qos, self.sessions.get_mut(&session))
        {
            session.inbound.receive(packet_id);
        }
        let decision = self.decide();
        let offset = self.record_publish(now, Ingress::Client(id), &decision, &conforming);
        let acknowledge = packet_id.map(|packet_id| {
            let (reason, reason_string) = self.outcome_reason(id, &decision, &conforming);
            Acknowledge { connection: id, packet_id, qos, reason, reason_string }
        });
        let arrived = now.instant;
        let reserved = self.reserve_retained(&conforming);
        self.ledger.wait(Effect::Publish(Box::new(AcceptedPublish {
            conforming,
            offset,
            arrived,
            session: Some(session),
            acknowledge,
            reserved,
        })));
    }

    /// Resumes the line: the message and its evidence are on disk.
    pub(super) fn release(&mut self, now: Now, accepted: AcceptedPublish, synced: &Synced) {
        let AcceptedPublish { conforming, offset, arrived, session, acknowledge, reserved } =
            accepted;
        self.retained.give_back(reserved);
        let recorded = Recorded::new(conforming, offset, synced);
        self.counters.publishes_recorded += 1;
        let kept = self.settings.bounds.message_expiry_seconds_max;
        let message = Message::new(&recorded, session, arrived, kept);
        self.retain(&message);
        self.route(now, &message);
        if let Some(acknowledge) = acknowledge {
            self.counters.publish_to_ack.observe(now.instant.since(arrived));
            self.acknowledge(now, &recorded, acknowledge);
        }
    }

    /// Binds a PUBLISH to its author and its topic. `None`: it was a resend, and is dealt with.
    fn receive(
        &mut self,
        now: Now,
        id: ConnectionId,
        publish: Box<Publish>,
    ) -> Result<Option<(crate::routing::SessionKey, Received)>, Violation> {
        let quota = u32::from(self.settings.bounds.receive_maximum);
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(None) };
        let (Some(author), Some(key)) = (connection.author.clone(), connection.session) else {
            return Ok(None);
        };
        let topic = connection.aliases.resolve(&publish)?;
        if publish.qos > QoS::AtMostOnce {
            connection.unanswered += 1;
            // 3.x knows no Receive Maximum: not reading slows its client instead.
            if connection.unanswered >= quota && !connection.is_v5() && !connection.held_back {
                connection.held_back = true;
                self.outputs.push_back(Output::Pause { connection: id });
            }
        }
        let resent = publish.qos == QoS::ExactlyOnce
            && publish.packet_id.is_some_and(|packet_id| {
                self.sessions.get(&key).is_some_and(|session| session.inbound.contains(packet_id))
            });
        if let (true, Some(packet_id)) = (resent, publish.packet_id) {
            let bytes = topic.as_str().len() + publish.payload.len();
            let charge = self.limits.charge(now, author.identity(), bytes, false);
            self.recognise_resend(now, id, &topic, packet_id, charge);
            return Ok(None);
        }
        if publish.qos > QoS::AtMostOnce {
            connection.unacknowledged += 1;
            // [MQTT-3.3.4-7]
            if connection.unacknowledged > quota && connection.is_v5() {
                return Err(BEYOND_RECEIVE_MAXIMUM);
            }
        }
        Ok(Some((key, Received::new(author, topic, publish))))
    }

    /// A QoS 2 PUBLISH whose identifier is not yet released: recorded, not routed again, and
    /// answered like the first. [MQTT-4.3.3-10]
    fn recognise_resend(
        &mut self,
        now: Now,
        id: ConnectionId,
        topic: &TopicName,
        packet_id: PacketId,
        charge: Charge,
    ) {
        self.counters.publishes_duplicate += 1;
        // Beyond its limits an identity's resends are counted, not listed.
        let identity = self.connections.get(&id).and_then(|known| known.identity.clone());
        let listed = match (&charge, identity) {
            (Charge::Beyond { refused, .. }, Some(identity)) => {
                self.is_first_refusal(now, RefusalKey::Identity(identity, refused.refusal))
            }
            (Charge::Beyond { .. }, None) | (Charge::Within, _) => true,
        };
        if listed {
            let decision = self.decide();
            self.record_of(now, id, EntryType::PublishDup, &decision, None, |entry| {
                entry
                    .decision(Decision::Allow)
                    .text("topic", beginning(topic.as_str()))
                    .number("pid", packet_id.as_u16().into())
            });
        }
        match charge {
            Charge::Within => {}
            Charge::Beyond { disconnect: true, .. } => {
                return self.end(now, id, Ending::RateTooHigh);
            }
            Charge::Beyond { pause, .. } => self.slow_down(now, id, pause),
        }
        self.ledger.wait(Effect::Answer {
            connection: id,
            packet: Packet::PubRec(Ack::new(packet_id, ReasonCode::Success)),
            frees_quota: false,
        });
    }

    /// Authorized, admitted, conforming: the judgements, in order. A pause asks that the reader be
    /// slowed.
    pub(super) fn judge(
        &mut self,
        now: Now,
        received: Received,
    ) -> Result<(Conforming, Duration), Box<Stopped>> {
        let received = match self.check_bounds(received) {
            Ok(received) => received,
            Err(stopped) => return Err(self.charge(now, stopped)),
        };
        let policy = &self.settings.policy;
        let authorized = match policy.authorize(received) {
            Ok(authorized) => authorized,
            Err((received, refused)) => {
                let v3 = policy.v3_refusal_for(received.author(), received.topic());
                return Err(self.charge(now, Stopped::at(received, refused, v3, false)));
            }
        };
        self.counters.publishes_authorized += 1;
        let v3 = authorized.v3_refusal();
        let (admitted, pause) = match self.limits.admit(now, authorized) {
            Admission::Admitted(admitted) => (admitted, Duration::ZERO),
            Admission::Slowed { admitted, pause } => (admitted, pause),
            Admission::Refused { authorized, refused, disconnect } => {
                let mut stopped = Stopped::at(authorized.into_received(), refused, v3, true);
                stopped.disconnect = disconnect;
                return Err(stopped);
            }
        };
        self.counters.publishes_admitted += 1;
        match self.settings.schemas.check(admitted) {
            Ok(conforming) => {
                match conforming.outcome() {
                    Outcome::Quarantined { .. } => self.counters.publishes_quarantined += 1,
                    Outcome::Conforms { .. } | Outcome::Unchecked | Outcome::Opaque => {
                        self.counters.publishes_conforming += 1;
                    }
                }
                Ok((conforming, pause))
            }
            Err((admitted, refused)) => {
                let received = admitted.into_authorized().into_received();
                Err(Stopped::at(received, refused, v3, false))
            }
        }
    }

    /// Charges a message that was refused before the limiter saw it: a flood of what is forbidden
    /// costs as much as any other, and ends as any other.
    fn charge(&mut self, now: Now, mut stopped: Box<Stopped>) -> Box<Stopped> {
        let (author, publish) = (stopped.received.author(), stopped.received.publish());
        let bytes = stopped.received.topic().as_str().len() + publish.payload.len();
        let told = author.version().is_v5() && publish.qos > QoS::AtMostOnce;
        match self.limits.charge(now, author.identity(), bytes, told) {
            Charge::Within => {}
            Charge::Beyond { pause, disconnect, .. } => {
                (stopped.by_limit, stopped.pause) = (true, pause);
                stopped.disconnect = disconnect;
            }
        }
        stopped
    }

    /// The bounds that need no policy: levels, bytes, User Properties, room for retained messages.
    fn check_bounds(&self, received: Received) -> Result<Received, Box<Stopped>> {
        let bounds = &self.settings.bounds;
        let (topic, publish) = (received.topic(), received.publish());
        let refusal = if topic.as_str().len() > usize::from(bounds.topic_bytes_max) {
            Refusal::TopicTooLong
        } else if topic.levels().count() > usize::from(bounds.topic_levels_max) {
            Refusal::TopicTooDeep
        } else if publish.properties.user_properties.len() > bounds.user_properties_max as usize {
            Refusal::UserPropertyCount
        } else if publish.retain
            && !publish.payload.is_empty()
            && !self.has_retained_room(topic, publish)
        {
            Refusal::RetainedFull
        } else {
            return Ok(received);
        };
        let v3 = self.settings.policy.v3_refusal_for(received.author(), received.topic());
        Err(Stopped::at(received, refusal.into(), v3, false))
    }

    /// Keeps room for what will be a retained message once it is on disk.
    pub(super) fn reserve_retained(&mut self, conforming: &Conforming) -> Reserved {
        let received = conforming.admitted().authorized().received();
        let (topic, publish) = (received.topic(), received.publish());
        let quarantined = matches!(conforming.outcome(), Outcome::Quarantined { .. });
        if quarantined || !publish.retain || publish.payload.is_empty() {
            return Reserved::default();
        }
        let bytes = kept_bytes(topic, &publish.payload, &publish.properties);
        self.retained.reserve(topic, bytes)
    }

    /// Whether one more retained message fits.
    pub(super) fn has_retained_room(&self, topic: &TopicName, publish: &Publish) -> bool {
        let bounds = &self.settings.bounds;
        let bytes = kept_bytes(topic, &publish.payload, &publish.properties);
        self.retained.has_room(
            topic,
            bytes,
            bounds.retained_messages_max,
            bounds.retained_bytes_max,
        )
    }

    /// Records what is accepted: one entry, its body beside it, and one more entry if it changes a
    /// retained message. Returns the place of the first.
    pub(super) fn record_publish(
        &mut self,
        now: Now,
        ingress: Ingress,
        decision: &str,
        conforming: &Conforming,
    ) -> u64 {
        let authorized = conforming.admitted().authorized();
        let received = authorized.received();
        let publish = received.publish();
        let salt = self.salt();
        let properties = encode_forwarded(&publish.properties);
        // Ours to mend if it were not so: an entry that left them out would lie.
        assert!(properties.is_ok(), "what was decoded can be encoded");
        let properties = properties.unwrap_or_default();
        let commitments = Commitments {
            c: commitment(&salt, &publish.payload),
            props: (!properties.is_empty()).then(|| commitment(&salt, &properties)),
        };
        let c = commitments.c;
        let body = Body { salt, payload: publish.payload.clone(), properties: properties.into() };
        let (kind, retains) = match (conforming.outcome(), ingress) {
            (Outcome::Quarantined { .. }, _) => (EntryType::PublishRefused, false),
            (_, Ingress::Client(_)) => (EntryType::Publish, publish.retain),
            (_, Ingress::Will { .. }) => (EntryType::Will, publish.retain),
        };
        // Entry and body stand in one batch: after a crash either both are there or neither, and
        // nothing was acknowledged in the latter case.
        let offset = match ingress {
            Ingress::Client(id) => self.record_of(now, id, kind, decision, Some(body), |entry| {
                accepted_fields(entry, conforming, &commitments)
            }),
            Ingress::Will { connect_index } => {
                let whose = (received.author(), connect_index);
                self.record_of_session(now, whose, kind, decision, body, |entry| {
                    accepted_fields(entry, conforming, &commitments)
                })
            }
        };
        if retains {
            let change = match publish.payload.is_empty() {
                true => EntryType::RetainClear,
                false => EntryType::RetainSet,
            };
            self.record(now, change, decision, |entry| {
                entry
                    .who(received.author().identity())
                    .text("topic", received.topic().as_str())
                    .hash("c", &c)
            });
        }
        offset
    }

    /// Answers a PUBLISH that stopped on the line.
    fn refuse_publish(&mut self, now: Now, id: ConnectionId, stopped: Stopped) {
        let Stopped { received, refused, v3, by_limit, pause, disconnect } = stopped;
        self.counters.refuse(refused.refusal);
        let decision = self.decide();
        let identity = received.author().identity().clone();
        let counted = by_limit
            && !self.is_first_refusal(now, RefusalKey::Identity(identity, refused.refusal));
        if !counted {
            self.record_of(now, id, EntryType::PublishRefused, &decision, None, |entry| {
                let topic = beginning(received.topic().as_str());
                publish_fields(refusal_fields(entry, &refused), &received, topic)
            });
            let topic = received.topic().as_str();
            self.tell(EventKind::PublishRefused, &decision, id, Some(topic), Some(&refused));
        }
        if disconnect {
            return self.end(now, id, Ending::RateTooHigh);
        }
        self.slow_down(now, id, pause);
        let publish = received.publish();
        let (Some(packet_id), Some(connection)) = (publish.packet_id, self.connections.get(&id))
        else {
            return;
        };
        let (reason, reason_string) = if connection.is_v5() {
            let code = refused.refusal.reason_code();
            (code, self.reason_string(id, &decision, refused.refusal))
        } else if v3 == V3Refusal::Close {
            return self.end(now, id, Ending::PublishRefused);
        } else {
            (ReasonCode::Success, None)
        };
        // Only an id of a message that was taken waits for PUBREL; 3.x cannot tell the difference.
        let packet = acknowledgement(publish.qos, packet_id, reason, reason_string);
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: true });
    }

    /// Acknowledges what is on disk.
    fn acknowledge(&mut self, now: Now, recorded: &Recorded, acknowledge: Acknowledge) {
        let Acknowledge { connection: id, packet_id, qos, reason, reason_string } = acknowledge;
        debug_assert!(
            recorded.conforming().admitted().authorized().received().publish().qos == qos
        );
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // A QoS 2 message holds its place until PUBCOMP, unless PUBREC says no. [MQTT-4.9.0-2]
        if qos == QoS::AtLeastOnce || reason.is_error() {
            connection.unacknowledged = connection.unacknowledged.saturating_sub(1);
        }
        let packet = acknowledgement(qos, packet_id, reason, reason_string);
        super::send::send(&mut self.outputs, id, connection, packet);
        self.answered(now, id);
    }

    /// A PUBLISH of QoS 1 or 2 has its PUBACK or PUBREC: a client that was held back may go on.
    /// What a QoS 2 message still waits for is the client's to send, so it must be read.
    pub(super) fn answered(&mut self, now: Now, id: ConnectionId) {
        let quota = u32::from(self.settings.bounds.receive_maximum);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        if connection.held_back && connection.unanswered < quota {
            connection.held_back = false;
            let slowed = connection.unread_until > now.instant;
            connection.unread_until = connection.unread_until.max(now.instant);
            if !slowed && connection.phase == Phase::Connected {
                self.outputs.push_back(Output::Resume { connection: id });
            }
        }
    }

    /// How a message that goes on is answered: quarantine is still a no.
    fn outcome_reason(
        &mut self,
        id: ConnectionId,
        decision: &str,
        conforming: &Conforming,
    ) -> (ReasonCode, Option<String>) {
        let Outcome::Quarantined { refused, .. } = conforming.outcome() else {
            return (ReasonCode::Success, None);
        };
        self.counters.refuse(refused.refusal);
        let topic = conforming.admitted().authorized().received().topic().clone();
        self.tell(EventKind::Quarantined, decision, id, Some(topic.as_str()), Some(refused));
        match self.connections.get(&id).is_some_and(super::Connection::is_v5) {
            true => {
                (refused.refusal.reason_code(), self.reason_string(id, decision, refused.refusal))
            }
            false => (ReasonCode::Success, None),
        }
    }

    /// The Reason String of a refusal: what an operator needs to find the entry, no more. Absent
    /// when the client wants none [MQTT-3.1.2-29]; taken off again where it has no room for it.
    pub(super) fn reason_string(
        &self,
        id: ConnectionId,
        decision: &str,
        refusal: Refusal,
    ) -> Option<String> {
        let connection = self.connections.get(&id)?;
        connection.wants_reasons.then(|| format!("{}; decision {decision}", refusal.name()))
    }

    /// Stops reading from a connection for a while.
    fn slow_down(&mut self, now: Now, id: ConnectionId, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let until = now.instant.after(pause);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread_until = until;
        }
        self.outputs.push_back(Output::Pause { connection: id });
        self.timers.set(until, Timer::Unpause(id));
    }
}

impl Stopped {
    fn at(received: Received, refused: Refused, v3: V3Refusal, by_limit: bool) -> Box<Self> {
        let (pause, disconnect) = (Duration::ZERO, false);
        Box::new(Self { received, refused, v3, by_limit, pause, disconnect })
    }
}

const BEYOND_RECEIVE_MAXIMUM: Violation = Violation {
    reason: ReasonCode::ReceiveMaximumExceeded,
    what: "more unacknowledged messages than the Receive Maximum of CONNACK",
    statement: Some("MQTT-3.3.4-7"),
};

/// What an entry states in place of a payload and of the properties that go with it.
struct Commitments {
    c: [u8; 32],
    props: Option<[u8; 32]>,
}

/// The fields of a message that goes on: who permitted it, and what it is.
fn accepted_fields<'a>(
    entry: EntryWriter<'a>,
    conforming: &Conforming,
    commitments: &Commitments,
) -> EntryWriter<'a> {
    let authorized = conforming.admitted().authorized();
    let mut entry = entry.plain("lvl", "A0");
    entry = match conforming.outcome() {
        Outcome::Quarantined { topic, refused } => {
            refusal_fields(entry, refused).text("quarantine", topic.as_str())
        }
        Outcome::Conforms { schema } => entry.decision(Decision::Allow).text("schema", schema),
        Outcome::Unchecked | Outcome::Opaque => entry.decision(Decision::Allow),
    };
    entry = entry.text("rule", authorized.rule().as_str());
    // Its topic is within our bounds: all of it, for whoever restores the message.
    let received = authorized.received();
    let entry = publish_fields(entry, received, received.topic().as_str());
    let entry = entry.hash("c", &commitments.c);
    match &commitments.props {
        Some(props) => entry.hash("props", props),
        None => entry,
    }
}

/// The fields that say what was published; the payload itself only by its length. Of the topic as
/// much as the entry may hold.
fn publish_fields<'a>(entry: EntryWriter<'a>, received: &Received, topic: &str) -> EntryWriter<'a> {
    let publish = received.publish();
    let mut entry = entry
        .text("topic", topic)
        .number("qos", publish.qos as u64)
        .flag("retain", publish.retain)
        .flag("dup", publish.dup);
    if let Some(packet_id) = publish.packet_id {
        entry = entry.number("pid", packet_id.as_u16().into());
    }
    if let Some(content_type) = &publish.properties.content_type {
        entry = entry.text("ct", beginning(content_type));
    }
    entry.number("len", publish.payload.len() as u64)
}

fn acknowledgement(
    qos: QoS,
    packet_id: PacketId,
    reason: ReasonCode,
    reason_string: Option<String>,
) -> Packet {
    let properties = reason_string.map(|text| {
        Box::new(AckProperties { reason_string: Some(text), user_properties: Vec::new() })
    });
    let ack = Ack { packet_id, reason, properties };
    // [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]
    match qos {
        QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(ack),
        QoS::ExactlyOnce => Packet::PubRec(ack),
    }
}

//! The line. [`Broker::accept`] walks a PUBLISH from received over authorized and admitted to
//! conforming, and sees what it rests on; [`Broker::proceed`] puts what is attested, with its
//! evidence, into the open batch; [`Broker::release`] resumes it when that batch is on disk:
//! recorded, routed, acknowledged. A message that its device has signed waits for its signature
//! between the first two.
//!
//! Every step consumes the proof of the step before it, so a step left out does not compile. Below
//! are the steps up to conforming; what becomes of a message that stops, what is recorded, and what
//! its client is told are in files of their own.

mod answer;
mod cover;
mod entry;
mod retain;
mod signed;
mod stop;
mod verify;

use std::time::Duration;

pub(super) use self::answer::acknowledgement;
pub(super) use self::entry::Ingress;
pub(super) use self::signed::Gaps;
use self::stop::Stopped;
pub(super) use self::verify::{Held, Verifying};
use super::Broker;
use super::effect::{AcceptedPublish, Acknowledge, Effect};
use super::input::ConnectionId;
use super::output::Output;
use crate::evidence::chain::COVER_TOPIC;
use crate::evidence::{Attested, Recorded, Statement, Synced};
use crate::limits::{Admission, Admitted};
use crate::mqtt::{Publish, QoS, ReasonCode, TopicName, Violation};
use crate::policy::EvidenceRule;
use crate::refusal::{Refused, StatementRefusal};
use crate::routing::{Message, SessionKey};
use crate::schema::{Conforming, Outcome};
use crate::session::{Author, Received};
use crate::time::{Instant, Now};

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
        if received.topic().as_str() == COVER_TOPIC {
            return self.take_cover(now, (id, session), received);
        }
        let conforming = match self.judge(now, received) {
            Ok((conforming, pause)) => {
                self.slow_down(now, id, pause);
                conforming
            }
            Err(stopped) => return self.refuse_publish(now, id, *stopped),
        };
        match self.examine(now, id, session, conforming) {
            Ok(Some(attested)) => self.proceed(now, (id, session), attested, now.instant),
            // Its signature is being checked.
            Ok(None) => {}
            Err(stopped) => self.refuse_publish(now, id, *stopped),
        }
    }

    /// Puts a message that `arrived` a while ago into the open batch.
    fn proceed(
        &mut self,
        now: Now,
        (id, session): (ConnectionId, SessionKey),
        attested: Attested,
        arrived: Instant,
    ) {
        let conforming = attested.conforming();
        let publish = conforming.admitted().authorized().received().publish();
        let (packet_id, qos) = (publish.packet_id, publish.qos);
        self.take_packet_id(id, session, conforming);
        let decision = self.decide();
        let offset = self.record_publish(now, Ingress::Client(id), &decision, &attested);
        let acknowledge = packet_id.map(|packet_id| {
            let (reason, reason_string) = self.outcome_reason(id, &decision, conforming);
            Acknowledge { connection: id, packet_id, qos, reason, reason_string }
        });
        let promised = self.promise(now, id, &attested, offset);
        let reserved = self.reserve_retained(conforming);
        self.ledger.wait(Effect::Publish(Box::new(AcceptedPublish {
            attested,
            offset,
            arrived,
            session: Some(session),
            acknowledge,
            promised,
            reserved,
        })));
    }

    /// The identifier of a QoS 2 message is taken until PUBREL.
    fn take_packet_id(&mut self, id: ConnectionId, session: SessionKey, conforming: &Conforming) {
        let publish = conforming.admitted().authorized().received().publish();
        // What PUBREC will refuse holds no identifier: PUBREL never comes for it. [MQTT-4.3.3-9]
        let v5 = self.connections.get(&id).is_some_and(super::Connection::is_v5);
        let refused = v5 && matches!(conforming.outcome(), Outcome::Quarantined { .. });
        if let (false, Some(packet_id), QoS::ExactlyOnce, Some(session)) =
            (refused, publish.packet_id, publish.qos, self.sessions.get_mut(&session))
        {
            session.inbound.receive(packet_id);
        }
    }

    /// Resumes the line: the message and its evidence are on disk.
    pub(super) fn release(&mut self, now: Now, accepted: AcceptedPublish, synced: &Synced) {
        let AcceptedPublish { attested, offset, arrived, session, .. } = accepted;
        self.retained.give_back(accepted.reserved);
        let recorded = Recorded::new(attested, offset, synced);
        self.place_signed(&recorded);
        self.counters.publishes_recorded += 1;
        let kept = self.settings.bounds.message_expiry_seconds_max;
        let message = Message::new(&recorded, session, arrived, kept);
        self.retain(&message);
        self.route(now, &message);
        if accepted.acknowledge.is_some() {
            self.counters.publish_to_ack.observe(now.instant.since(arrived));
        }
        self.acknowledge_promised(now, &recorded, accepted.acknowledge, accepted.promised);
    }

    /// Binds a PUBLISH to its author and its topic. `None`: it was a resend, and is dealt with.
    fn receive(
        &mut self,
        now: Now,
        id: ConnectionId,
        publish: Box<Publish>,
    ) -> Result<Option<(SessionKey, Received)>, Violation> {
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
        Ok(Some((key, self.unwrap_payload(author, topic, publish))))
    }

    /// What a 3.x client sends where a statement is asked for is an object with its payload in it:
    /// what is judged, recorded and delivered is the payload.
    fn unwrap_payload(
        &self,
        author: Author,
        topic: TopicName,
        mut publish: Box<Publish>,
    ) -> Received {
        let asked =
            !author.version().is_v5() && self.settings.policy.asks_for_statement(&author, &topic);
        let embedded = asked.then(|| Statement::parse_embedding(&publish.payload).ok()).flatten();
        let Some((_, payload)) = embedded else { return Received::new(author, topic, publish) };
        let object = std::mem::replace(&mut publish.payload, payload);
        Received::new(author, topic, publish).taken_out_of(object)
    }

    /// A 3.x client whose payload is no object with a statement is told that, not that its payload
    /// does not conform.
    fn check_statement(admitted: &Admitted) -> Result<(), Refused> {
        let authorized = admitted.authorized();
        let received = authorized.received();
        let is_v5 = received.author().version().is_v5();
        if is_v5 || received.embedding().is_some() {
            return Ok(());
        }
        match authorized.evidence_rule() {
            EvidenceRule::Signed => {
                let parsed = Statement::parse_embedding(&received.publish().payload);
                Err(parsed.err().unwrap_or(StatementRefusal::Missing).into())
            }
            EvidenceRule::Asserted | EvidenceRule::Batched => Ok(()),
        }
    }

    /// Authorized, admitted, conforming: the judgements, in order. A pause asks that the reader be
    /// slowed.
    fn judge(
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
        if let Err(refused) = Self::check_statement(&admitted) {
            let received = admitted.into_authorized().into_received();
            return Err(Stopped::at(received, refused, v3, false));
        }
        match self.settings.schemas.check(admitted, now.unix, &mut self.sequences) {
            Ok(conforming) => {
                if conforming.freshness().flags().next().is_some() {
                    self.counters.publishes_flagged += 1;
                }
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
}

const BEYOND_RECEIVE_MAXIMUM: Violation = Violation {
    reason: ReasonCode::ReceiveMaximumExceeded,
    what: "more unacknowledged messages than the Receive Maximum of CONNACK",
    statement: Some("MQTT-3.3.4-7"),
};

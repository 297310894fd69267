//! What the client of a PUBLISH is told: PUBACK and PUBREC, the reason in them, and when it may
//! send more.

use crate::broker::disconnect::Ending;
use crate::broker::effect::{Acknowledge, Effect};
use crate::broker::input::ConnectionId;
use crate::broker::output::EventKind;
use crate::broker::record::{RefusalKey, beginning};
use crate::broker::{Broker, Connection, send};
use crate::evidence::{Decision, EntryType, Recorded};
use crate::limits::Charge;
use crate::mqtt::{Ack, AckProperties, Packet, PacketId, QoS, ReasonCode, TopicName, UserProperty};
use crate::refusal::Refusal;
use crate::schema::{Conforming, Outcome};
use crate::time::Now;

impl Broker {
    /// Acknowledges what is on disk, with its receipt.
    pub(in crate::broker) fn acknowledge(
        &mut self,
        now: Now,
        recorded: &Recorded,
        acknowledge: Acknowledge,
        receipt: Option<UserProperty>,
    ) {
        let Acknowledge { connection: id, qos, reason, .. } = acknowledge;
        debug_assert!(
            recorded.conforming().admitted().authorized().received().publish().qos == qos
        );
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // A QoS 2 message holds its place until PUBCOMP, unless PUBREC says no. [MQTT-4.9.0-2]
        if qos == QoS::AtLeastOnce || reason.is_error() {
            connection.unacknowledged = connection.unacknowledged.saturating_sub(1);
        }
        let packet = acknowledgement(&acknowledge, receipt);
        send::send(&mut self.outputs, id, connection, packet);
        self.answered(now, id);
    }

    /// A PUBLISH of QoS 1 or 2 has its PUBACK or PUBREC: a client that was held back may go on.
    /// What a QoS 2 message still waits for is the client's to send, so it must be read.
    pub(in crate::broker) fn answered(&mut self, now: Now, id: ConnectionId) {
        let quota = u32::from(self.settings.bounds.receive_maximum);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        if connection.held_back && connection.unanswered < quota {
            connection.held_back = false;
            let slowed = connection.unread_until > now.instant;
            connection.unread_until = connection.unread_until.max(now.instant);
            if !slowed {
                self.resume(now, id);
            }
        }
    }

    /// A QoS 2 PUBLISH whose identifier is not yet released: recorded, not routed again, and
    /// answered like the first. [MQTT-4.3.3-10]
    pub(super) fn recognise_resend(
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

    /// How a message that goes on is answered: quarantine is still a no.
    pub(super) fn outcome_reason(
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
        match self.connections.get(&id).is_some_and(Connection::is_v5) {
            true => {
                (refused.refusal.reason_code(), self.reason_string(id, decision, refused.refusal))
            }
            false => (ReasonCode::Success, None),
        }
    }

    /// The Reason String of a refusal: what an operator needs to find the entry, no more. Absent
    /// when the client wants none [MQTT-3.1.2-29]; taken off again where it has no room for it.
    pub(in crate::broker) fn reason_string(
        &self,
        id: ConnectionId,
        decision: &str,
        refusal: Refusal,
    ) -> Option<String> {
        let connection = self.connections.get(&id)?;
        connection.wants_reasons.then(|| format!("{}; decision {decision}", refusal.name()))
    }
}

pub(in crate::broker) fn acknowledgement(
    acknowledge: &Acknowledge,
    receipt: Option<UserProperty>,
) -> Packet {
    let Acknowledge { packet_id, qos, reason, reason_string, .. } = acknowledge;
    let properties = (reason_string.is_some() || receipt.is_some()).then(|| {
        let user_properties = receipt.into_iter().collect();
        Box::new(AckProperties { reason_string: reason_string.clone(), user_properties })
    });
    let ack = Ack { packet_id: *packet_id, reason: *reason, properties };
    // [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8]
    match qos {
        QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(ack),
        QoS::ExactlyOnce => Packet::PubRec(ack),
    }
}

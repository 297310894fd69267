//! What clients acknowledge: PUBACK, PUBREC, PUBREL, PUBCOMP (section 4.3).
//!
//! No evidence of its own: a subscriber's acknowledgement is unsigned and proves nothing.

use super::Broker;
use super::durable::Change;
use super::effect::Effect;
use super::input::ConnectionId;
use crate::mqtt::{Ack, Packet, ReasonCode};
use crate::routing::Delivery;
use crate::session::{Acknowledged, Outbound};
use crate::time::Now;

impl Broker {
    /// A QoS 1 delivery is done, or was refused: either way it is acknowledged. [MQTT-4.3.2-3],
    /// [MQTT-4.4.0-2], [MQTT-4.8.2-6]
    pub(super) fn handle_puback(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        self.finish_delivery(now, id, ack, |outbound| outbound.handle_puback(ack.packet_id));
    }

    /// A QoS 2 delivery has arrived, or was refused. [MQTT-4.3.3-3], [MQTT-4.4.0-2]
    pub(super) fn handle_pubrec(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if ack.reason.is_error() {
            let reason = ack.reason;
            return self
                .finish_delivery(now, id, ack, |it| it.handle_pubrec(ack.packet_id, reason));
        }
        let before = session.outbound.held();
        let is_first = session.outbound.awaits_receipt(ack.packet_id);
        let acknowledged = session.outbound.handle_pubrec(ack.packet_id, ack.reason);
        let (after, lasting) = (session.outbound.held(), session.is_lasting());
        self.account(before, after);
        let reason = match acknowledged {
            Acknowledged::Release | Acknowledged::Done => ReasonCode::Success,
            // Answered, so that the client can forget the identifier too.
            Acknowledged::Unknown => ReasonCode::PacketIdentifierNotFound,
        };
        let packet = Packet::PubRel(Ack::new(ack.packet_id, reason));
        if !lasting {
            return self.send(id, packet);
        }
        if is_first {
            self.note(&Change::Receipted { key, packet_id: ack.packet_id });
        }
        // Before the record is on disk a crash would forget PUBREC and send PUBLISH again, to a
        // client that PUBREL has let forget the identifier: it would take a second message.
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: false });
    }

    /// The client releases the identifier of a QoS 2 PUBLISH. [MQTT-4.3.3-11]
    ///
    /// PUBCOMP waits like every other answer: PUBREL may have come in one write with its PUBLISH,
    /// which is not on disk then. And before its own record is, a crash would take the next message
    /// under this identifier for a resend.
    pub(super) fn handle_pubrel(&mut self, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let known = session.inbound.release(ack.packet_id);
        if known && session.is_lasting() {
            self.note(&Change::Released { key, packet_id: ack.packet_id });
        }
        let reason = match known {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let packet = Packet::PubComp(Ack::new(ack.packet_id, reason));
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: known });
    }

    /// A QoS 2 delivery is done. [MQTT-4.3.3-5]
    pub(super) fn handle_pubcomp(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        self.finish_delivery(now, id, ack, |outbound| outbound.handle_pubcomp(ack.packet_id));
    }

    /// A delivery is done if `handle` says so: its place in the window is free. Recorded without
    /// waiting: if a crash forgets it, the client is sent again what it knows how to answer.
    fn finish_delivery(
        &mut self,
        now: Now,
        id: ConnectionId,
        ack: &Ack,
        handle: impl FnOnce(&mut Outbound<Delivery>) -> Acknowledged,
    ) {
        let Some(key) = self.session_of(id) else { return };
        if let Some(session) = self.sessions.get_mut(&key) {
            let before = session.outbound.held();
            let done = handle(&mut session.outbound) == Acknowledged::Done;
            let (after, lasting) = (session.outbound.held(), session.is_lasting());
            self.account(before, after);
            if done && lasting {
                self.note(&Change::Acked { key, packet_id: ack.packet_id });
            }
        }
        self.pump(now, key);
    }
}

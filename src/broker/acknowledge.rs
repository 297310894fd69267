//! What clients acknowledge: PUBACK, PUBREC, PUBREL, PUBCOMP (section 4.3).
//!
//! No evidence of its own: a subscriber's acknowledgement is unsigned and proves nothing.

use super::Broker;
use super::effect::Effect;
use super::input::ConnectionId;
use crate::mqtt::{Ack, Packet, ReasonCode};
use crate::session::Acknowledged;
use crate::time::Now;

impl Broker {
    /// A QoS 1 delivery is done, or was refused: either way it is acknowledged. [MQTT-4.3.2-3],
    /// [MQTT-4.4.0-2], [MQTT-4.8.2-6]
    pub(super) fn handle_puback(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        if let Some(session) = self.sessions.get_mut(&key) {
            let before = session.outbound.held();
            session.outbound.handle_puback(ack.packet_id);
            let after = session.outbound.held();
            self.account(before, after);
        }
        self.pump(now, key);
    }

    /// A QoS 2 delivery has arrived, or was refused. [MQTT-4.3.3-3], [MQTT-4.4.0-2]
    pub(super) fn handle_pubrec(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let before = session.outbound.held();
        let acknowledged = session.outbound.handle_pubrec(ack.packet_id, ack.reason);
        let after = session.outbound.held();
        self.account(before, after);
        let reason = match acknowledged {
            Acknowledged::Release => ReasonCode::Success,
            Acknowledged::Done => return self.pump(now, key),
            // Answered, so that the client can forget the identifier too.
            Acknowledged::Unknown if ack.reason.is_error() => return,
            Acknowledged::Unknown => ReasonCode::PacketIdentifierNotFound,
        };
        self.send(id, Packet::PubRel(Ack::new(ack.packet_id, reason)));
    }

    /// The client releases the identifier of a QoS 2 PUBLISH. [MQTT-4.3.3-11]
    ///
    /// PUBCOMP waits like every other answer: PUBREL may have come in one write with its PUBLISH,
    /// which is not on disk then.
    pub(super) fn handle_pubrel(&mut self, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let known = session.inbound.release(ack.packet_id);
        let reason = match known {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        let packet = Packet::PubComp(Ack::new(ack.packet_id, reason));
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: known });
    }

    /// A QoS 2 delivery is done. [MQTT-4.3.3-5]
    pub(super) fn handle_pubcomp(&mut self, now: Now, id: ConnectionId, ack: &Ack) {
        let Some(key) = self.session_of(id) else { return };
        if let Some(session) = self.sessions.get_mut(&key) {
            let before = session.outbound.held();
            session.outbound.handle_pubcomp(ack.packet_id);
            let after = session.outbound.held();
            self.account(before, after);
        }
        self.pump(now, key);
    }
}

//! How sessions lose their connection, and how they end (section 4.1).
//!
//! A session that the log tells of is detached when the record of it is on disk; one that is
//! transient ends at once with its connection. What is carried out here happens in the order of the
//! log, as in [`super::attach`].

use super::Broker;
use super::connect::session_expiry;
use super::durable::Change;
use super::effect::{Detachment, Effect};
use crate::mqtt::{PacketId, QoS};
use crate::routing::{Delivery, EncodedCopies, SessionKey};
use crate::session::Timer;
use crate::time::Now;

impl Broker {
    /// A session has lost its connection; `expiry_seconds` if its client changed it at the end.
    pub(super) fn detach(
        &mut self,
        now: Now,
        key: SessionKey,
        expiry_seconds: Option<u32>,
        publishes_will: bool,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.connection = None;
        let expiry_seconds = expiry_seconds.unwrap_or(session.expiry_seconds);
        if !publishes_will {
            // [MQTT-3.1.2-10]
            session.will = None;
        } else if self.will_delay(key, expiry_seconds).is_zero() {
            self.publish_will(now, key);
        }
        let Some(session) = self.sessions.get(&key) else { return };
        let (durable, connect_index) = (session.durable, session.connect_index);
        if !durable {
            return self.end_session(now, key);
        }
        let at = now.unix;
        let change = Change::Detached { key, connect_index, at, expiry_seconds, publishes_will };
        self.note(&change);
        let at = now.instant;
        let detachment = Detachment { key, connect_index, at, expiry_seconds, publishes_will };
        self.ledger.wait(Effect::Detached(detachment));
    }

    /// A session is without its connection from now on, unless it has another one already.
    pub(super) fn detached(&mut self, now: Now, detachment: Detachment) {
        let Detachment { key, connect_index, at, expiry_seconds, publishes_will } = detachment;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.connect_index != connect_index || session.away_since.is_some() {
            return;
        }
        session.away_since = Some(at);
        if !publishes_will {
            session.will = None;
        }
        if expiry_seconds == 0 {
            // It has been lasting until now: the log tells of its copies.
            return self.end_session(now, key);
        }
        session.expiry_seconds = expiry_seconds;
        self.schedule_will(now, key, at);
        // [MQTT-3.1.2-23], [MQTT-4.1.0-2]
        self.timers.set(at.after(session_expiry(expiry_seconds)), Timer::SessionExpiry(key));
    }

    /// A session without a connection may have come to its end: recorded, then carried out.
    pub(super) fn check_session(&mut self, now: Now, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else { return };
        let Some(away_since) = session.away_since else { return };
        if away_since.after(session_expiry(session.expiry_seconds)) <= now.instant {
            self.counters.traffic.sessions_expired += 1;
            let connect_index = session.connect_index;
            self.note(&Change::Ended { key, connect_index });
            self.ledger.wait(Effect::Ended { session: key, connect_index });
        }
    }

    /// A session ends, unless it was resumed.
    pub(super) fn ended(&mut self, now: Now, key: SessionKey, connect_index: u64) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.connect_index == connect_index && session.away_since.is_some() {
            self.end_session(now, key);
        }
    }

    /// Session State comes to its end, and with it a Will that was delayed. [MQTT-3.1.3-9]
    pub(super) fn end_session(&mut self, now: Now, key: SessionKey) {
        self.publish_will(now, key);
        let Some(mut session) = self.sessions.remove(&key) else { return };
        self.account(session.outbound.held(), (0, 0));
        for filter in session.subscriptions.keys() {
            self.subscriptions.remove(filter, key);
        }
        self.durable_sessions -= usize::from(session.durable);
        let name = (session.author.identity().clone(), session.author.client_id().clone());
        self.session_keys.remove(&name);
        self.return_place(&name, session.holds_place);
        self.timers.clear(Timer::SessionExpiry(key));
        self.timers.clear(Timer::WillDelay(key));
        self.timers.clear(Timer::RetainedWalk(key));
        let is_told = session.is_lasting();
        // What was sent in QoS 2 stays with this client, whatever became of it. [MQTT-4.8.2-5]
        let sent = session.outbound.window().filter_map(|(id, copy)| Some((id, copy?)));
        for (packet_id, copy) in sent.filter(|(_, copy)| copy.qos == QoS::AtLeastOnce) {
            let sent = Some((key, packet_id));
            self.pass_on(now, copy.clone(), Leaver { is_told, sent });
        }
        for copy in session.outbound.take_queued(|copy| copy.group.is_some()) {
            self.pass_on(now, copy, Leaver { is_told, sent: None });
        }
    }

    /// Gives a copy that a member of a Shared Subscription leaves behind to another one, as if it
    /// had never been sent (section 4.8.2).
    pub(super) fn pass_on(&mut self, now: Now, copy: Delivery, leaver: Leaver) {
        let Delivery { message, group: Some(group), .. } = copy else { return };
        if let Some(recovering) = &mut self.recovering {
            return recovering.leave_unassigned(&message, group, leaver.sent);
        }
        if message.is_expired(now.instant) {
            // [MQTT-3.3.2-5]
            self.counters.deliveries_dropped += 1;
            if leaver.is_told {
                self.note(&Change::nobodys(message.index(), group));
            }
            return;
        }
        self.assign(now, &message, group, &mut EncodedCopies::default(), leaver.is_told);
    }
}

/// Who leaves a copy to the other members of a Shared Subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaver {
    /// Whether the log tells that it has it.
    pub(super) is_told: bool,
    /// The session and the identifier under which it was sent.
    pub(super) sent: Option<(SessionKey, PacketId)>,
}

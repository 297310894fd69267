//! From a recorded message to connections and queues.
//!
//! Whether a session may read a topic is judged here, at every delivery: live, from a queue, from
//! the retained messages and at a resend. A right that is gone is gone for all of them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::connection::{Connection, RetainedCursor};
use super::input::ConnectionId;
use super::output::Output;
use super::{Broker, Session};
use crate::mqtt::{Ack, EncodedPublish, Packet, PacketId, QoS, ReasonCode, TopicName};
use crate::policy::Policy;
use crate::routing::{
    Delivery, Eligibility, EncodedCopies, Interest, Message, Scan, SessionKey, Subscription,
};
use crate::session::{Phase, Resend, Timer};
use crate::time::Now;

/// Retained topics looked at in one step of a walk: some tens of microseconds.
const WALK_STEPS: usize = 512;

impl Broker {
    /// Keeps or clears the retained message of a topic. [MQTT-3.3.1-7], [MQTT-3.3.1-8]
    pub(super) fn retain(&mut self, message: &Arc<Message>) {
        if !message.retain() {
            return;
        }
        if message.payload().is_empty() {
            self.retained.clear(message.topic());
        } else {
            self.retained.set(Arc::clone(message));
        }
    }

    /// Gives `message` to everybody who asked for its topic and may read it: one copy for each
    /// session, at the highest QoS of its matching subscriptions and with all their identifiers.
    /// [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-4.5.0-1], [MQTT-4.6.0-5]
    pub(super) fn route(&mut self, now: Now, message: &Arc<Message>) {
        let mut interests = std::mem::take(&mut self.interests);
        interests.clear();
        {
            let (sessions, connections) = (&self.sessions, &self.connections);
            let (policy, topic) = (&self.settings.policy, message.topic());
            let max = self.settings.bounds.outbound_bytes_max as usize;
            let eligibility = |key: SessionKey| match sessions.get(&key) {
                Some(session) if policy.may_receive(&session.author, topic).is_ok() => {
                    let live = session.connection.and_then(|id| connections.get(&id));
                    match live {
                        Some(live) if live.outstanding_bytes < max => Eligibility::Now,
                        Some(_) | None => Eligibility::Later,
                    }
                }
                Some(_) | None => Eligibility::Never,
            };
            self.subscriptions.interested(topic, &eligibility, &mut interests);
        }
        interests.sort_by_key(|interest| interest.session);
        let mut copies = EncodedCopies::default();
        for same_session in interests.chunk_by(|one, other| one.session == other.session) {
            if let Some((key, delivery)) = merge(message, same_session) {
                self.deliver(now, key, delivery, &mut copies);
            }
        }
        self.interests = interests;
    }

    /// Sends one session its copy, or queues it.
    fn deliver(
        &mut self,
        now: Now,
        key: SessionKey,
        delivery: Delivery,
        copies: &mut EncodedCopies,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if !may_read(&self.settings.policy, session, delivery.message.topic()) {
            self.counters.deliveries_withheld += 1;
            return;
        }
        let bounds = &self.settings.bounds;
        let max = bounds.outbound_bytes_max as usize;
        let size = delivery.message.queue_bytes();
        // What is sent at QoS 1 and 2 is kept until it is acknowledged, as what is queued is.
        let fits = delivery.qos == QoS::AtMostOnce
            || (session.outbound.has_bytes(size, bounds.queue_bytes_max)
                && self.queued.1 + size as u64 <= bounds.queue_total_bytes_max);
        let live = session.connection.and_then(|id| Some((id, self.connections.get_mut(&id)?)));
        let direct = delivery.qos == QoS::AtMostOnce
            || (session.outbound.is_queue_empty() && session.outbound.has_room());
        match live {
            Some((id, connection)) if connection.outstanding_bytes < max && direct => {
                let encoded = connection
                    .version
                    .filter(|_| fits)
                    .and_then(|version| copies.encode(&delivery, version, now.instant).ok())
                    .filter(|encoded| encoded.len() <= connection.packet_bytes_max);
                // [MQTT-3.1.2-25]: a packet that is too large is as if it had been sent.
                let Some(encoded) = encoded else {
                    self.counters.deliveries_dropped += 1;
                    return;
                };
                let qos = delivery.qos;
                let sent = session.outbound.send(delivery, qos, size);
                hand_over(&mut self.outputs, connection, id, encoded, sent.packet_id, false);
                self.queued.1 += sent.packet_id.map_or(0, |_| size as u64);
                self.counters.deliveries += 1;
            }
            _ if delivery.qos == QoS::AtMostOnce => self.counters.deliveries_dropped += 1,
            _ => self.enqueue(key, delivery),
        }
    }

    /// Puts a QoS 1 or 2 copy into a session's queue, within the bounds of the session and of the
    /// broker.
    fn enqueue(&mut self, key: SessionKey, delivery: Delivery) {
        let bounds = &self.settings.bounds;
        let (messages, bytes) = self.queued;
        let size = delivery.message.queue_bytes();
        let total_room = messages < bounds.queue_total_messages_max
            && bytes + size as u64 <= bounds.queue_total_bytes_max;
        let Some(session) = self.sessions.get_mut(&key).filter(|_| total_room) else {
            self.counters.deliveries_dropped += 1;
            return;
        };
        let qos = delivery.qos;
        let taken = session.outbound.enqueue(
            delivery,
            qos,
            size,
            bounds.queue_messages_max,
            bounds.queue_bytes_max,
        );
        match taken {
            Ok(()) => self.queued = (messages + 1, bytes + size as u64),
            Err(_) => self.counters.deliveries_dropped += 1,
        }
    }

    /// Sends what a session has waiting, as far as its connection and its window allow: first what
    /// it did not acknowledge on an earlier connection, then its queue, then retained messages of new subscriptions.
    pub(super) fn pump(&mut self, now: Now, key: SessionKey) {
        self.resend(now, key);
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let before = session.outbound.held();
        if let Some(id) = session.connection
            && let Some(connection) = self.connections.get_mut(&id)
        {
            while connection.outstanding_bytes < max {
                let Some(next) = session.outbound.dequeue() else { break };
                let message = &next.delivery.message;
                // [MQTT-3.3.2-5]
                let goes = !message.is_expired(now.instant)
                    && may_read(&self.settings.policy, session, message.topic());
                let encoded = goes.then(|| encode(connection, &next.delivery, now)).flatten();
                match (encoded, next.packet_id) {
                    (Some(encoded), packet_id) => {
                        hand_over(&mut self.outputs, connection, id, encoded, packet_id, false);
                        self.counters.deliveries += 1;
                    }
                    (None, packet_id) => {
                        self.counters.deliveries_dropped += 1;
                        if let Some(packet_id) = packet_id {
                            session.outbound.cancel(packet_id);
                        }
                    }
                }
            }
        }
        let after = session.outbound.held();
        self.account(before, after);
        self.walk_retained(now, key);
    }

    /// Brings the broker's totals up to date with what one session holds.
    pub(super) fn account(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.queued.0 = (self.queued.0 + after.0 as u64).saturating_sub(before.0 as u64);
        self.queued.1 = (self.queued.1 + after.1 as u64).saturating_sub(before.1 as u64);
    }

    /// Sends retained messages to new subscriptions, one step of the walk.
    pub(super) fn walk_retained(&mut self, now: Now, key: SessionKey) {
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let mut steps = WALK_STEPS;
        loop {
            let Some(session) = self.sessions.get_mut(&key) else { return };
            let Some(id) = session.connection else { return };
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let Some(cursor) = session.retained.front_mut() else { return };
            let room = cursor.subscription.qos == QoS::AtMostOnce || session.outbound.has_room();
            if connection.outstanding_bytes >= max || !room {
                // Goes on when the client acknowledges or the socket takes what it was given.
                return;
            }
            if steps == 0 {
                self.timers.set(now.instant, Timer::RetainedWalk(key));
                return;
            }
            let topic = match self.retained.scan(&cursor.filter, cursor.after.as_ref(), steps) {
                Scan::End => {
                    session.retained.pop_front();
                    continue;
                }
                Scan::More(topic) => {
                    cursor.after = Some(topic);
                    steps = 0;
                    continue;
                }
                Scan::Found(topic) => topic,
            };
            steps -= 1;
            let reached = cursor.after.replace(topic.clone());
            let subscription = cursor.subscription;
            let Some(message) = self.retained.message(&topic, now.instant) else { continue };
            let own = subscription.no_local && message.author() == Some(key);
            if own || !may_read(&self.settings.policy, session, &topic) {
                self.counters.deliveries_withheld += u64::from(!own);
                continue;
            }
            let delivery = Delivery {
                message: Arc::clone(message),
                qos: message.qos().min(subscription.qos),
                // [MQTT-3.3.1-8]
                retain: true,
                identifiers: subscription.identifier.into_iter().collect(),
            };
            let (qos, size) = (delivery.qos, delivery.message.queue_bytes());
            let bounds = &self.settings.bounds;
            let fits = qos == QoS::AtMostOnce
                || (session.outbound.has_bytes(size, bounds.queue_bytes_max)
                    && self.queued.1 + size as u64 <= bounds.queue_total_bytes_max);
            if !fits && !session.outbound.is_window_empty() {
                // This one again, when the client acknowledges.
                if let Some(cursor) = session.retained.front_mut() {
                    cursor.after = reached;
                }
                return;
            }
            let encoded = if fits { encode(connection, &delivery, now) } else { None };
            let Some(encoded) = encoded else {
                self.counters.deliveries_dropped += 1;
                continue;
            };
            let sent = session.outbound.send(delivery, qos, size);
            hand_over(&mut self.outputs, connection, id, encoded, sent.packet_id, false);
            self.queued.1 += sent.packet_id.map_or(0, |_| size as u64);
            self.counters.deliveries += 1;
        }
    }

    /// Sends again what a resumed session has not acknowledged, as far as the connection and the
    /// client's Receive Maximum allow. [MQTT-4.4.0-1] Nothing expires any more: [MQTT-4.3.3-7],
    /// [MQTT-4.3.3-13]
    fn resend(&mut self, now: Now, key: SessionKey) {
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(id) = session.connection else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let before = session.outbound.held();
        while connection.outstanding_bytes < max {
            let (delivery, packet_id) = match session.outbound.next_resend() {
                None => break,
                Some(Resend::PubRel(packet_id)) => {
                    let packet = Packet::PubRel(Ack::new(packet_id, ReasonCode::Success));
                    super::send::send(&mut self.outputs, id, connection, packet);
                    continue;
                }
                Some(Resend::Publish(delivery, packet_id)) => (delivery, packet_id),
            };
            let goes = may_read(&self.settings.policy, session, delivery.message.topic());
            let encoded = goes.then(|| encode(connection, &delivery, now)).flatten();
            let Some(encoded) = encoded else {
                self.counters.deliveries_withheld += 1;
                session.outbound.cancel(packet_id);
                continue;
            };
            // [MQTT-3.3.1-1]
            hand_over(&mut self.outputs, connection, id, encoded, Some(packet_id), true);
            self.counters.deliveries += 1;
        }
        let after = session.outbound.held();
        self.account(before, after);
    }

    /// The socket took `bytes` of deliveries: more may follow.
    pub(super) fn handle_written(&mut self, now: Now, id: ConnectionId, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.outstanding_bytes = connection.outstanding_bytes.saturating_sub(bytes);
        if let (Phase::Connected, Some(key)) = (connection.phase, connection.session) {
            self.pump(now, key);
        }
    }

    /// The session of a connection.
    pub(super) fn session_of(&self, id: ConnectionId) -> Option<SessionKey> {
        self.connections.get(&id)?.session
    }
}

/// A cursor at the beginning, in place of an older one of the same filter.
pub(super) fn begin_walk(
    cursors: &mut VecDeque<RetainedCursor>,
    filter: crate::mqtt::TopicFilter,
    subscription: Subscription,
) {
    cursors.retain(|cursor| cursor.filter != filter);
    cursors.push_back(RetainedCursor { filter, subscription, after: None });
}

/// The bytes of one copy, unless they are more than the client takes. [MQTT-3.1.2-25]
fn encode(connection: &Connection, delivery: &Delivery, now: Now) -> Option<EncodedPublish> {
    let encoded = delivery.encode(connection.version?, now.instant).ok()?;
    (encoded.len() <= connection.packet_bytes_max).then_some(encoded)
}

fn may_read(policy: &Policy, session: &Session, topic: &TopicName) -> bool {
    policy.may_receive(&session.author, topic).is_ok()
}

/// One copy out of all interests of one session; `None` if No Local leaves nothing.
fn merge(message: &Arc<Message>, interests: &[Interest]) -> Option<(SessionKey, Delivery)> {
    let key = interests.first()?.session;
    let own = message.author() == Some(key);
    // [MQTT-3.8.3-3]
    let wanted = || {
        interests
            .iter()
            .map(|interest| &interest.subscription)
            .filter(|subscription| !(own && subscription.no_local))
    };
    let qos = wanted().map(|subscription| subscription.qos).max()?;
    // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
    let retain = message.retain() && wanted().any(|subscription| subscription.retain_as_published);
    let identifiers = wanted().filter_map(|subscription| subscription.identifier).collect();
    let qos = qos.min(message.qos());
    Some((key, Delivery { message: Arc::clone(message), qos, retain, identifiers }))
}

fn hand_over(
    outputs: &mut VecDeque<Output>,
    connection: &mut Connection,
    id: ConnectionId,
    publish: EncodedPublish,
    packet_id: Option<PacketId>,
    dup: bool,
) {
    connection.outstanding_bytes += publish.len();
    outputs.push_back(Output::Deliver { connection: id, publish, dup, packet_id });
}

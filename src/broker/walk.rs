//! Retained messages for new subscriptions (section 3.3.1.3): a walk through the store that lets
//! others in between.
//!
//! What is sent is what was retained when the subscription came into force, and is still there when
//! the walk comes by; later messages were routed to the subscriber when they came. The walk of a
//! session outlives its connection, and a crash: it goes on behind the last copy that was recorded.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Broker;
use super::connection::RetainedCursor;
use super::deliver::{encode, may_read};
use super::durable::{Change, CopyOf, Source};
use super::handover::{Handing, hand_over_recorded};
use crate::mqtt::{QoS, TopicFilter, TopicName};
use crate::routing::{Delivery, Scan, SessionKey, Subscription};
use crate::session::Timer;
use crate::time::Now;

/// Retained topics looked at in one step of a walk, so that others come in between: some tens of
/// microseconds, and no more if all of them match.
const WALK_STEPS: usize = 256;
/// What a copy costs beside the look at its topic: so many looks.
const COPY_STEPS: usize = 7;

impl Broker {
    /// Sends retained messages to new subscriptions, one step of the walk.
    pub(super) fn walk_retained(&mut self, now: Now, key: SessionKey) {
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let mut steps = WALK_STEPS;
        loop {
            let Some(session) = self.sessions.get_mut(&key) else { return };
            let Some(id) = session.connection else { return };
            let Some(connection) = self.connections.get_mut(&id) else { return };
            if !connection.begun {
                return;
            }
            let lasting = session.is_lasting();
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
            let retained = self.sys.store(&cursor.filter).unwrap_or(&self.retained);
            let topic = match retained.scan(&cursor.filter, cursor.after.as_ref(), &mut steps) {
                Scan::End => {
                    let done = session.retained.pop_front();
                    if let (Some(cursor), true) = (done, lasting) {
                        self.note(&Change::Walked { key, filter: cursor.filter });
                    }
                    continue;
                }
                Scan::More(topic) => {
                    cursor.after = Some(topic);
                    continue;
                }
                Scan::Found(topic) => topic,
            };
            steps = steps.saturating_sub(COPY_STEPS);
            let reached = cursor.after.replace(topic.clone());
            let (subscription, until) = (cursor.subscription, cursor.until);
            if !self.send_retained(now, key, topic, subscription, until) {
                // This one again, when the client acknowledges.
                let session = self.sessions.get_mut(&key);
                if let Some(cursor) = session.and_then(|session| session.retained.front_mut()) {
                    cursor.after = reached;
                }
                return;
            }
        }
    }

    /// Sends the retained message of `topic`, if it is one for this walk; false if it must wait for
    /// what was sent before.
    fn send_retained(
        &mut self,
        now: Now,
        key: SessionKey,
        topic: TopicName,
        subscription: Subscription,
        until: u64,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else { return true };
        let Some(id) = session.connection else { return true };
        let Some(connection) = self.connections.get_mut(&id) else { return true };
        let own_store = session.retained.front().and_then(|cursor| self.sys.store(&cursor.filter));
        let retained = own_store.unwrap_or(&self.retained);
        let Some(message) = retained.message(&topic, now.instant) else { return true };
        let own = subscription.no_local && message.author() == Some(key);
        if message.index() >= until || own {
            return true;
        }
        if !may_read(&self.settings.policy, session, &topic) {
            self.counters.deliveries_withheld += 1;
            return true;
        }
        let delivery = Delivery {
            message: Arc::clone(message),
            qos: message.qos().min(subscription.qos),
            // [MQTT-3.3.1-8]
            retain: true,
            identifiers: subscription.identifier.into_iter().collect(),
            group: None,
        };
        let (qos, size) = (delivery.qos, delivery.message.queue_bytes());
        let bounds = &self.settings.bounds;
        let fits = qos == QoS::AtMostOnce
            || (session.outbound.has_bytes(size, bounds.queue_bytes_max)
                && self.queued.1 + size as u64 <= bounds.queue_total_bytes_max);
        if !fits && !session.outbound.is_window_empty() {
            return false;
        }
        let encoded = if fits { encode(connection, &delivery, now) } else { None };
        let Some(publish) = encoded else {
            self.counters.deliveries_dropped += 1;
            return true;
        };
        let (copy, lasting) = (CopyOf::of(&delivery), session.is_lasting());
        let packet_id = session.outbound.send(delivery, qos, size).packet_id;
        let record = packet_id.filter(|_| lasting).map(|packet_id| {
            let source = Source::Retained(topic);
            Change::Sent { key, packet_id, source, copy }
        });
        let copy = Handing { id, key, publish, packet_id, record, waits: false };
        hand_over_recorded(&mut self.outputs, &mut self.ledger, connection, copy);
        self.queued.1 += packet_id.map_or(0, |_| size as u64);
        self.counters.deliveries += 1;
        true
    }
}

/// A cursor at the beginning, in place of an older one of the same filter.
pub(super) fn begin_walk(
    cursors: &mut VecDeque<RetainedCursor>,
    filter: TopicFilter,
    subscription: Subscription,
    until: u64,
) {
    cursors.retain(|cursor| cursor.filter != filter);
    cursors.push_back(RetainedCursor { filter, subscription, after: None, until });
}

//! From a recorded message to connections and queues.
//!
//! Whether a session may read a topic is judged here, at every delivery: live, from a queue, from
//! the retained messages and at a resend. A right that is gone is gone for all of them.
//!
//! A QoS 1 or 2 copy for a session that outlives its connection leaves only when the record of its
//! Packet Identifier is on disk: after a crash it is sent again under the same one, so that the
//! client knows it. Copies for other sessions leave at once. The invariant that replay relies on:
//! a queue is in the order of its messages' entries, and nothing overtakes what is queued.

use std::sync::Arc;

use super::connection::{Connection, Intake};
use super::durable::{Change, CopyOf, Source};
use super::handover::{self, Copy, Handing, hand_over, hand_over_recorded};
use super::input::ConnectionId;
use super::{Broker, Session};
use crate::identity::Identity;
use crate::mqtt::{Ack, EncodedPublish, Packet, PacketId, QoS, ReasonCode, TopicFilter, TopicName};
use crate::policy::Policy;
use crate::routing::{Delivery, Eligibility, EncodedCopies, Interest, Message, SessionKey};
use crate::session::{Phase, Resend, Timer};
use crate::time::Now;

impl Broker {
    /// Keeps or clears the retained message of a topic. [MQTT-3.3.1-7], [MQTT-3.3.1-8]
    pub(super) fn retain(&mut self, message: &Arc<Message>) {
        if !message.retain() {
            return;
        }
        if message.payload().is_empty() && !message.is_erased() {
            self.retained.clear(message.topic());
        } else {
            self.retained.set(Arc::clone(message));
        }
    }

    /// Gives `message` to everybody who asked for its topic and may read it: one copy for each
    /// session, at the highest QoS of its matching subscriptions and with all their identifiers,
    /// and one for each Shared Subscription. [MQTT-3.3.4-2], [MQTT-3.3.4-3], [MQTT-3.3.4-4],
    /// [MQTT-4.5.0-1], [MQTT-4.6.0-5]
    pub(super) fn route(&mut self, now: Now, message: &Arc<Message>) {
        let mut copies = EncodedCopies::default();
        let groups = self.fan_out(now, message, None, &mut copies);
        for group in groups {
            self.assign(now, message, group, &mut copies, true);
        }
    }

    /// As [`Self::route`], to sessions of `addressee` alone, and to no Shared Subscription.
    pub(super) fn route_to(&mut self, now: Now, message: &Arc<Message>, addressee: &Identity) {
        let _no_shared_one =
            self.fan_out(now, message, Some(addressee), &mut EncodedCopies::default());
    }

    /// Gives `message` to the sessions that subscribed to its topic by themselves (of `addressee`, if
    /// there is one); the Shared Subscriptions that are left.
    fn fan_out(
        &mut self,
        now: Now,
        message: &Arc<Message>,
        addressee: Option<&Identity>,
        copies: &mut EncodedCopies,
    ) -> Vec<TopicFilter> {
        let mut interests = std::mem::take(&mut self.interests);
        let mut groups = Vec::new();
        interests.clear();
        self.subscriptions.interested(message.topic(), &mut interests, &mut groups);
        interests.sort_by_key(|interest| interest.session);
        for same_session in interests.chunk_by(|one, other| one.session == other.session) {
            let merged = merge(message, same_session, None);
            if let Some((key, delivery)) = merged.filter(|(key, _)| self.is_of(*key, addressee)) {
                self.deliver(now, key, delivery, copies, false);
            }
        }
        self.interests = interests;
        groups
    }

    /// Whether a session of `identity` that is connected has subscribed to `topic`.
    pub(super) fn is_awaited(&self, topic: &TopicName, identity: &Identity) -> bool {
        let (mut interests, mut groups) = (Vec::new(), Vec::new());
        self.subscriptions.interested(topic, &mut interests, &mut groups);
        let mut keys = interests.iter().map(|interest| interest.session);
        keys.any(|key| self.has_begun(key) && self.is_of(key, Some(identity)))
    }

    /// Whether a session is `addressee`'s, or anybody's if there is none.
    fn is_of(&self, key: SessionKey, addressee: Option<&Identity>) -> bool {
        addressee.is_none_or(|addressee| {
            self.sessions.get(&key).is_some_and(|known| known.author.identity() == addressee)
        })
    }

    /// Gives `message` to one member of a Shared Subscription.
    ///
    /// If the log knows any session, the choice is recorded, and the copy waits for that: a crash
    /// would choose again, and two members would have it. `is_told`: whether the log tells that the
    /// message is nobody's; if not, it is recorded with the choice.
    pub(super) fn assign(
        &mut self,
        now: Now,
        message: &Arc<Message>,
        group: TopicFilter,
        copies: &mut EncodedCopies,
        is_told: bool,
    ) {
        if let Some(recovering) = &mut self.recovering {
            return recovering.leave_unassigned(message, group, None);
        }
        let waits = message.qos() > QoS::AtMostOnce && self.durable_sessions > 0;
        let chosen = match message.is_erased() {
            true => None,
            false => self.choose(&group, message.topic(), message.qos()),
        };
        let chosen = chosen.and_then(|interest| merge(message, &[interest], Some(group.clone())));
        let Some((key, delivery)) = chosen else {
            if waits {
                self.note(&Change::nobodys(message.index(), group));
            }
            return;
        };
        if waits {
            let is_lasting = self.sessions.get(&key).is_some_and(Session::is_lasting);
            if is_lasting && !is_told {
                self.note_left(now, message, &group);
            }
            let (group, copy) = (Some(group), CopyOf::of(&delivery));
            self.note(&Change::Queued { key, group, is_lasting, copy });
        }
        self.deliver(now, key, delivery, copies, waits);
    }

    /// The member of a Shared Subscription that is to have the next message.
    fn choose(&mut self, group: &TopicFilter, topic: &TopicName, qos: QoS) -> Option<Interest> {
        let (sessions, connections) = (&self.sessions, &self.connections);
        let policy = &self.settings.policy;
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let is_last = self.stopping;
        let eligibility = |key: SessionKey| match sessions.get(&key) {
            // It ends with the broker, and would pass it on.
            Some(session) if is_last && !session.is_lasting() => Eligibility::Never,
            Some(session) if may_read(policy, session, topic) => {
                let live = session.connection.and_then(|id| connections.get(&id));
                match live {
                    Some(live) if live.outstanding_bytes < max && session.takes_now(qos) => {
                        Eligibility::Now
                    }
                    Some(_) | None => Eligibility::Later,
                }
            }
            Some(_) | None => Eligibility::Never,
        };
        self.subscriptions.choose(group, &eligibility)
    }

    /// Sends one session its copy, or queues it. `waits`: not before what is recorded now is on
    /// disk.
    fn deliver(
        &mut self,
        now: Now,
        key: SessionKey,
        delivery: Delivery,
        copies: &mut EncodedCopies,
        waits: bool,
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
            Some((id, connection))
                if connection.begun && connection.outstanding_bytes < max && direct =>
            {
                let encoded = connection
                    .version
                    .filter(|_| fits)
                    .and_then(|version| copies.encode(&delivery, version, now.instant).ok())
                    .filter(|encoded| handover::fits(connection, encoded));
                // [MQTT-3.1.2-25]: a packet that is too large is as if it had been sent.
                let Some(publish) = encoded else { return self.drop_copy(key, &delivery, fits) };
                let recorded = delivery.qos > QoS::AtMostOnce && session.is_lasting();
                let copy = recorded.then(|| (Source::of(&delivery), CopyOf::of(&delivery)));
                let (qos, shared) = (delivery.qos, delivery.group.is_some());
                let sent = session.outbound.send(delivery, qos, size);
                let record = copy.zip(sent.packet_id).map(|((source, copy), packet_id)| {
                    Change::Sent { key, packet_id, source, copy }
                });
                let reopens = recorded && !shared && session.intake != Intake::Implicit;
                let packet_id = sent.packet_id;
                let copy = Handing { id, key, publish, packet_id, record, waits };
                hand_over_recorded(&mut self.outputs, &mut self.ledger, connection, copy);
                self.queued.1 += packet_id.map_or(0, |_| size as u64);
                self.counters.deliveries += 1;
                if reopens {
                    self.take_in(key, None);
                }
            }
            _ if delivery.qos == QoS::AtMostOnce => self.counters.deliveries_dropped += 1,
            _ => self.enqueue(key, delivery),
        }
    }

    /// A copy that was to leave at once does not: it is too large for the client, or (it does not
    /// fit) for our bounds.
    fn drop_copy(&mut self, key: SessionKey, delivery: &Delivery, fits: bool) {
        self.counters.deliveries_dropped += 1;
        let lasting = self.sessions.get(&key).is_some_and(Session::is_lasting);
        if !lasting || delivery.qos == QoS::AtMostOnce {
            return;
        }
        let index = delivery.message.index();
        match fits {
            true => self.note(&Change::Skipped { key, index }),
            false => self.shut(key, delivery),
        }
    }

    /// Puts a QoS 1 or 2 copy into a session's queue, within the bounds of the session and of the
    /// broker.
    pub(super) fn enqueue(&mut self, key: SessionKey, delivery: Delivery) {
        let bounds = &self.settings.bounds;
        let (messages, bytes) = self.queued;
        let size = delivery.message.queue_bytes();
        let room = messages < bounds.queue_total_messages_max
            && bytes + size as u64 <= bounds.queue_total_bytes_max;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let shared = delivery.group.is_some();
        if let Some(recovering) = &mut self.recovering {
            if !session.is_lasting() {
                // Whatever it has is sent before it ends, or never.
                return;
            }
            if session.intake == Intake::Closed && !shared {
                // There may have been room after all: then that is said further on.
                return recovering.keep(&delivery.message);
            }
        }
        let (qos, index, kept) = (delivery.qos, delivery.message.index(), delivery.clone());
        let bounds = (bounds.queue_messages_max, bounds.queue_bytes_max);
        // Only what another member of a Shared Subscription left comes out of its turn.
        let later = |queued: &Delivery| queued.message.index() > index;
        let taken = room && session.outbound.insert(delivery, qos, size, bounds, later).is_ok();
        let (lasting, intake) = (session.is_lasting(), session.intake);
        if taken {
            self.queued = (messages + 1, bytes + size as u64);
            if lasting && !shared && intake != Intake::Implicit {
                self.take_in(key, Some(&kept));
            }
        } else {
            self.counters.deliveries_dropped += 1;
            if lasting {
                self.shut(key, &kept);
            }
        }
    }

    /// A copy did not go into a full queue. The first is recorded: from it on replay leaves all
    /// out.
    fn shut(&mut self, key: SessionKey, delivery: &Delivery) {
        if self.recovering.is_some() || delivery.group.is_some() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if session.intake != Intake::Closed {
            session.intake = Intake::Closed;
            self.note(&Change::Full { key, index: delivery.message.index() });
        }
    }

    /// A copy was taken after the queue was full. Messages that were recorded before this are named
    /// when they go in: at replay they come before they are known to.
    fn take_in(&mut self, key: SessionKey, queued: Option<&Delivery>) {
        let (open, releasing) = (self.ledger.open_number(), self.releasing);
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.intake = match session.intake {
            Intake::Implicit => return,
            Intake::Closed => Intake::Explicit { until_batch: open },
            Intake::Explicit { until_batch } if releasing > until_batch => {
                session.intake = Intake::Implicit;
                return;
            }
            explicit => explicit,
        };
        if let Some(delivery) = queued {
            let copy = CopyOf::of(delivery);
            self.note(&Change::Queued { key, group: None, is_lasting: true, copy });
        }
    }

    /// Sends what a session has waiting, as far as its connection and its window allow: first what
    /// it did not acknowledge on an earlier connection, then its queue, then retained messages of
    /// new subscriptions.
    pub(super) fn pump(&mut self, now: Now, key: SessionKey) {
        if !self.has_begun(key) {
            return;
        }
        self.resend(now, key);
        let max = self.settings.bounds.outbound_bytes_max as usize;
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let before = session.outbound.held();
        let lasting = session.is_lasting();
        let mut skipped = None;
        if let Some(id) = session.connection
            && let Some(connection) = self.connections.get_mut(&id)
        {
            while connection.outstanding_bytes < max {
                let Some(next) = session.outbound.dequeue() else { break };
                let message = &next.delivery.message;
                // [MQTT-3.3.2-5]
                let goes = !(message.is_expired(now.instant) || message.is_erased())
                    && may_read(&self.settings.policy, session, message.topic());
                let encoded = goes.then(|| encode(connection, &next.delivery, now)).flatten();
                match (encoded, next.packet_id) {
                    (Some(publish), packet_id) => {
                        let record = packet_id.filter(|_| lasting).map(|packet_id| {
                            let (source, copy) =
                                (Source::of(&next.delivery), CopyOf::of(&next.delivery));
                            Change::Sent { key, packet_id, source, copy }
                        });
                        let copy = Handing { id, key, publish, packet_id, record, waits: false };
                        hand_over_recorded(&mut self.outputs, &mut self.ledger, connection, copy);
                        self.counters.deliveries += 1;
                        skipped = None;
                    }
                    (None, packet_id) => {
                        self.counters.deliveries_dropped += 1;
                        skipped = Some(message.index());
                        if let Some(packet_id) = packet_id {
                            session.outbound.cancel(packet_id);
                        }
                    }
                }
            }
        }
        let after = session.outbound.held();
        self.account(before, after);
        if let (Some(index), true) = (skipped, lasting) {
            self.note(&Change::Skipped { key, index });
        }
        // A walk that lets others in between goes on in its own time, not with each write.
        if !self.timers.is_set(Timer::RetainedWalk(key)) {
            self.walk_retained(now, key);
        }
    }

    /// Whether a session has a connection that deliveries may go to.
    pub(super) fn has_begun(&self, key: SessionKey) -> bool {
        let connection = self.sessions.get(&key).and_then(|session| session.connection);
        connection.and_then(|id| self.connections.get(&id)).is_some_and(|known| known.begun)
    }

    /// A session was resumed by this connection, and all that it sent on earlier ones is on disk:
    /// it is sent again, then the rest.
    pub(super) fn begin(&mut self, now: Now, id: ConnectionId, key: SessionKey, window_max: u16) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if session.connection == Some(id) && connection.phase == Phase::Connected {
            session.outbound.begin(window_max);
            connection.begun = true;
            self.pump(now, key);
        }
    }

    /// A copy whose record is on disk leaves, if its session still has that connection. If not, it
    /// is sent again on the next one.
    pub(super) fn deliver_recorded(
        &mut self,
        id: ConnectionId,
        key: SessionKey,
        publish: EncodedPublish,
        packet_id: Option<PacketId>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // It counted while it waited.
        connection.outstanding_bytes = connection.outstanding_bytes.saturating_sub(publish.len());
        if connection.session == Some(key) && connection.phase == Phase::Connected {
            let copy = Copy { publish, packet_id, dup: false };
            hand_over(&mut self.outputs, connection, id, copy);
        }
    }

    /// Brings the broker's totals up to date with what one session holds.
    pub(super) fn account(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.queued.0 = (self.queued.0 + after.0 as u64).saturating_sub(before.0 as u64);
        self.queued.1 = (self.queued.1 + after.1 as u64).saturating_sub(before.1 as u64);
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
        let lasting = session.is_lasting();
        let mut withheld = Vec::new();
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
            let goes = !delivery.message.is_erased()
                && may_read(&self.settings.policy, session, delivery.message.topic());
            let encoded = goes.then(|| encode(connection, &delivery, now)).flatten();
            let Some(publish) = encoded else {
                self.counters.deliveries_withheld += 1;
                session.outbound.cancel(packet_id);
                withheld.push(packet_id);
                continue;
            };
            // [MQTT-3.3.1-1]
            let copy = Copy { publish, packet_id: Some(packet_id), dup: true };
            hand_over(&mut self.outputs, connection, id, copy);
            self.counters.deliveries += 1;
        }
        let after = session.outbound.held();
        self.account(before, after);
        for packet_id in withheld.into_iter().filter(|_| lasting) {
            self.note(&Change::Acked { key, packet_id });
        }
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

/// The bytes of one copy, unless they are more than the client takes. [MQTT-3.1.2-25]
pub(super) fn encode(
    connection: &Connection,
    delivery: &Delivery,
    now: Now,
) -> Option<EncodedPublish> {
    let encoded = delivery.encode(connection.version?, now.instant).ok()?;
    handover::fits(connection, &encoded).then_some(encoded)
}

pub(super) fn may_read(policy: &Policy, session: &Session, topic: &TopicName) -> bool {
    policy.may_receive(&session.author, topic).is_ok()
}

/// One copy out of all interests of one session; `None` if No Local leaves nothing.
fn merge(
    message: &Arc<Message>,
    interests: &[Interest],
    group: Option<TopicFilter>,
) -> Option<(SessionKey, Delivery)> {
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
    Some((key, Delivery { message: Arc::clone(message), qos, retain, identifiers, group }))
}

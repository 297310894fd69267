//! The whole state of a replay as records, from which it goes on: what a snapshot holds.
//!
//! An image is a log of its own: its records are of the same format, and [`Replay::apply`] takes
//! them like any other. Everything stands in a fixed order, so that equal states have equal images.
//! Transient sessions are in none: no log can bring them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Attached, Change, CopyOf, Source, StoredMessage};
use super::recovering::{Recovering, Unassigned};
use super::replay::{LogBody, Replay};
use crate::broker::Broker;
use crate::broker::connection::{Intake, RetainedCursor, Session};
use crate::mqtt::RetainHandling;
use crate::routing::{FoundMessage, Message, SessionKey};
use crate::time::Now;

impl Replay {
    /// Hands every record of the image to `put`: its head, and payload and properties beside it.
    pub fn image(&self, put: &mut dyn FnMut(&[u8], LogBody<'_>)) {
        let Some(recovering) = &self.broker.recovering else { return };
        let mut head = Vec::new();
        image(&self.broker, recovering, &mut |change| {
            head.clear();
            change.encode(&mut head);
            let body = change.body();
            put(&head, body.as_ref().map(|(payload, properties)| (&**payload, &**properties)));
        });
    }
}

/// Shows `put` every change that makes an empty broker this one.
pub(super) fn image(broker: &Broker, recovering: &Recovering, put: &mut dyn FnMut(Change)) {
    let mut sessions: Vec<(SessionKey, &Session)> =
        broker.sessions.iter().map(|(key, session)| (*key, session)).collect();
    sessions.retain(|(_, session)| session.durable);
    sessions.sort_unstable_by_key(|(key, _)| *key);
    for message in messages(broker, recovering, &sessions).into_values() {
        put(Change::Message(Box::new(stored(broker, recovering.base, &message))));
    }
    for message in broker.retained.iter() {
        put(Change::Retained { index: message.index() });
    }
    for (key, session) in sessions {
        image_of_session(recovering, key, session, put);
    }
    for (connect_index, key) in &recovering.by_connect {
        let session = broker.sessions.get(key);
        if session.is_none_or(|session| session.connect_index != *connect_index) {
            put(Change::Bound { connect_index: *connect_index, key: *key });
        }
    }
    for owed in recovering.owed.values() {
        put(Change::Owed(Box::new(owed.clone())));
    }
    for ((index, group), unassigned) in &recovering.unassigned {
        let (group, since, sent) = (group.clone(), unassigned.since, unassigned.sent);
        put(Change::Unassigned { index: *index, group, since, sent });
    }
    for (message, since) in recovering.nameable.iter() {
        put(Change::Nameable { index: message.index(), since });
    }
    broker.sequences.stored().for_each(|window| put(Change::Numbered(window)));
    for (identity, window) in broker.windows.iter() {
        put(Change::Window { identity: identity.clone(), window: window.clone() });
    }
    for (identity, chain) in broker.chains.iter() {
        put(Change::Chain { identity: identity.clone(), chain: chain.clone() });
    }
    let (index, next_session) = (recovering.position, broker.next_session);
    put(Change::Position { index, next_session });
}

/// Every message that something refers to.
fn messages(
    broker: &Broker,
    recovering: &Recovering,
    sessions: &[(SessionKey, &Session)],
) -> BTreeMap<u64, Arc<Message>> {
    let mut messages = BTreeMap::new();
    let mut keep = |message: &Arc<Message>| {
        messages.entry(message.index()).or_insert_with(|| Arc::clone(message));
    };
    broker.retained.iter().for_each(&mut keep);
    for (_, session) in sessions.iter().filter(|(_, session)| session.is_lasting()) {
        session.outbound.queue().for_each(|copy| keep(&copy.message));
        let sent = session.outbound.window().filter_map(|(_, copy)| copy);
        sent.for_each(|copy| keep(&copy.message));
    }
    recovering.unassigned.values().for_each(|unassigned| keep(&unassigned.message));
    recovering.nameable.iter().for_each(|(message, _)| keep(message));
    messages
}

/// All of a message; `now` maps its time to the log's.
pub(super) fn stored(broker: &Broker, now: Now, message: &Message) -> StoredMessage {
    // Whose session has ended is nobody's: No Local concerns living ones.
    let lives = |key: &SessionKey| broker.sessions.get(key).is_some_and(|it| it.durable);
    StoredMessage {
        index: message.index(),
        topic: message.topic().clone(),
        qos: message.qos(),
        retain: message.retain(),
        author: message.author().filter(lives),
        received: now.unix_at(message.received_at()),
        payload: message.payload().clone(),
        properties: message.properties().clone(),
        is_erased: message.is_erased(),
    }
}

fn image_of_session(
    recovering: &Recovering,
    key: SessionKey,
    session: &Session,
    put: &mut dyn FnMut(Change),
) {
    let connect_index = session.connect_index;
    put(Change::Attached(Box::new(Attached {
        key,
        connect_index: Some(connect_index),
        author: session.author.clone(),
        clean: false,
        expiry_seconds: session.expiry_seconds,
        will: session.will.clone(),
    })));
    // One that ends with its connection needs no more: no client will ask for it.
    if session.is_lasting() {
        image_of_deliveries(recovering, key, session, put);
    }
    if let Some(away_since) = session.away_since {
        put(Change::Detached {
            key,
            connect_index,
            at: recovering.base.unix_at(away_since),
            expiry_seconds: session.expiry_seconds,
            publishes_will: true,
        });
    }
}

fn image_of_deliveries(
    recovering: &Recovering,
    key: SessionKey,
    session: &Session,
    put: &mut dyn FnMut(Change),
) {
    for (filter, subscription) in &session.subscriptions {
        let (filter, subscription) = (filter.clone(), *subscription);
        let handling = RetainHandling::DoNotSend;
        put(Change::Subscribed { key, filter, subscription, handling });
    }
    for RetainedCursor { filter, subscription, after, until } in session.retained.iter().cloned() {
        put(Change::Walking { key, filter, subscription, after, until });
    }
    for (packet_id, copy) in session.outbound.window() {
        match copy {
            Some(copy) => {
                let (source, copy) = (Source::of(copy), CopyOf::of(copy));
                put(Change::Sent { key, packet_id, source, copy });
            }
            None => {
                put(Change::Unreadable { key, packet_id });
                put(Change::Receipted { key, packet_id });
            }
        }
    }
    for packet_id in recovering.unreadable.get(&key).into_iter().flatten() {
        put(Change::Unreadable { key, packet_id: *packet_id });
    }
    if let Some(packet_id) = session.outbound.last_id() {
        put(Change::LastId { key, packet_id });
    }
    for copy in session.outbound.queue() {
        let (group, copy) = (copy.group.clone(), CopyOf::of(copy));
        put(Change::Queued { key, group, is_lasting: true, copy });
    }
    if session.intake == Intake::Closed {
        put(Change::Full { key, index: u64::MAX });
    }
    for packet_id in session.inbound.iter() {
        put(Change::Taken { key, packet_id });
    }
}

impl Replay {
    /// Takes a record that stands in snapshots only.
    pub(super) fn restore(&mut self, change: Change) {
        match change {
            Change::Position { index, next_session } => {
                // The end of the image: all messages have found their places.
                self.recovering().of_snapshot = BTreeMap::new();
                self.recovering().position = index;
                self.broker.next_session = self.broker.next_session.max(next_session);
            }
            Change::Message(stored) => {
                let message = self.message_of(*stored);
                self.recovering().of_snapshot.insert(message.index(), message);
            }
            Change::Retained { index } => {
                if let Some(message) = self.recovering().named(index) {
                    self.broker.retained.set(message);
                }
            }
            Change::Taken { key, packet_id } => {
                if let Some(session) = self.broker.sessions.get_mut(&key) {
                    session.inbound.receive(packet_id);
                }
            }
            Change::LastId { key, packet_id } => {
                self.outbound(key, |outbound| outbound.restore_last_id(packet_id));
            }
            Change::Walking { key, filter, subscription, after, until } => {
                if let Some(session) = self.broker.sessions.get_mut(&key) {
                    let cursor = RetainedCursor { filter, subscription, after, until };
                    session.retained.push_back(cursor);
                    self.recovering().walking.insert(key);
                }
            }
            Change::Bound { connect_index, key } => {
                self.recovering().by_connect.insert(connect_index, key);
            }
            Change::Owed(owed) => {
                self.recovering().owed.insert(owed.connect_index, *owed);
            }
            Change::Unassigned { index, group, since, sent } => {
                let recovering = self.recovering();
                if let Some(message) = recovering.named(index) {
                    let unassigned = Unassigned { message, since, sent };
                    recovering.unassigned.insert((index, group), unassigned);
                }
            }
            Change::Nameable { index, since } => {
                let recovering = self.recovering();
                if let Some(message) = recovering.named(index) {
                    recovering.nameable.keep(&message, since);
                }
            }
            Change::Numbered(window) => self.broker.sequences.restore(window),
            Change::Window { identity, window } => self.broker.windows.restore(identity, window),
            Change::Chain { identity, chain } => self.broker.chains.restore(identity, chain),
            Change::Unreadable { key, packet_id } => {
                self.recovering().unreadable.entry(key).or_default().insert(packet_id);
            }
            // All others are records of the log.
            _ => {}
        }
    }

    /// The message that a record holds all of.
    pub(super) fn message_of(&mut self, stored: StoredMessage) -> Arc<Message> {
        let kept = self.broker.settings.bounds.message_expiry_seconds_max;
        let found = FoundMessage {
            index: stored.index,
            topic: stored.topic,
            qos: stored.qos,
            retain: stored.retain,
            author: stored.author,
            received_at: self.recovering().base.instant_at(stored.received),
            payload: stored.payload,
            properties: stored.properties,
            is_erased: stored.is_erased,
        };
        Message::recovered(found, kept)
    }
}

//! From the log to the broker that was: every record in order, through the functions that the
//! running broker uses, without connections.
//!
//! It reads no file: the shell hands it records. Given the same records and the same settings it
//! comes to the same state, byte for byte ([`Replay::image`]).

use std::sync::Arc;

use memchr::memmem;

use super::change::{Attached, BadRecord, Change, CopyOf, Source};
use super::entry::{Fields, entry_type};
use super::erase::has_body;
use super::recovering::Recovering;
use crate::broker::connection::{Intake, Session};
use crate::broker::effect::Detachment;
use crate::broker::time_step::Found;
use crate::broker::{Broker, Counters, Settings, timeout};
use crate::evidence::{EntryType, RecordKind};
use crate::mqtt::{PacketId, QoS, ReasonCode, TopicFilter, TopicName, decode_forwarded};
use crate::routing::{Delivery, FoundMessage, Message, SessionKey};
use crate::session::{Inbound, Outbound};
use crate::time::{Instant, Now, UnixNanos};

/// How every entry of a retained message says so. Texts of clients are escaped.
const RETAIN_FIELD: &[u8] = br#""retain":true"#;
/// How an entry says that its payload has a number. Likewise.
const NUMBER_FIELD: &[u8] = br#","pseq":"#;

/// What stands beside a record: payload and properties.
pub type LogBody<'a> = Option<(&'a [u8], &'a [u8])>;

/// One record of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// Its index, if it is an entry; otherwise that of the next entry.
    pub index: u64,
    /// The entry or the change of state.
    pub head: &'a [u8],
    /// Payload and properties, unless it has none or they were erased.
    pub body: LogBody<'a>,
}

/// A broker that is being made of its log.
pub struct Replay {
    pub(super) broker: Broker,
}

impl Replay {
    /// Nothing read yet. Times of the log are mapped to instants by `now`.
    pub fn new(settings: Settings, now: Now) -> Self {
        let recovering = Recovering::new(now, settings.bounds, settings.backlog);
        let mut broker = Broker::unstarted(settings, recovering);
        if let Some(recovering) = &broker.recovering {
            broker.settings.bounds = recovering.wide_bounds();
        }
        Self { broker }
    }

    /// Lets the next record of the log happen again.
    ///
    /// # Errors
    /// If it cannot be read: our own log is broken, or of another version.
    pub fn apply(&mut self, record: LogRecord<'_>) -> Result<(), BadRecord> {
        match record.kind {
            RecordKind::State => {
                self.recovering().position = record.index;
                self.change(Change::decode(record.head, record.body)?);
            }
            RecordKind::Entry => {
                self.recovering().position = record.index;
                self.entry(record)?;
                self.recovering().advance(record.index + 1);
            }
        }
        Ok(())
    }

    /// The broker as it was when the log ended, beginning again at `now`: connections are gone,
    /// Wills that were due are published.
    pub fn finish(mut self, now: Now) -> Broker {
        self.close_all(now.instant);
        let mut broker = self.broker;
        let recovering = broker.recovering.take();
        broker.counters = Counters::default();
        let ended_at = recovering.as_ref().and_then(|recovering| recovering.ended_at);
        if let Some(ended_at) = ended_at.filter(|ended_at| *ended_at > now.unix) {
            broker.record_time_step(now, ended_at, Found::AtStart);
        }
        broker.record_start(now);
        broker.timers.set(now.instant.after(timeout::RETAINED_WALK), timeout::RETAINED);
        broker.begin_sys(now);
        let Some(recovering) = recovering else { return broker };
        broker.settings.bounds = recovering.bounds;
        for owed in recovering.owed.into_values() {
            let (key, connect_index) = (owed.key, owed.connect_index);
            broker.publish_will_of(now, key, connect_index, &owed.author, &owed.will);
        }
        for ((_, group), unassigned) in recovering.unassigned {
            broker.assign(now, &unassigned.message, group, &mut Default::default(), true);
        }
        broker
    }

    /// Tells the newest entry of the log. If its time is later than the moment of [`Self::finish`],
    /// the wall clock was set back meanwhile, and an entry will say so.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn ended_with(&mut self, entry: &[u8]) -> Result<(), BadRecord> {
        self.recovering().ended_at = Some(UnixNanos::new(Fields::read(entry)?.t));
        Ok(())
    }

    /// Index of the next entry.
    pub fn position(&self) -> u64 {
        self.broker.recovering.as_ref().map_or(0, |recovering| recovering.position)
    }

    pub(super) fn recovering(&mut self) -> &mut Recovering {
        let (base, settings) = (Now::default(), &self.broker.settings);
        let (bounds, backlog) = (settings.bounds, settings.backlog);
        // There from the beginning to the end of a replay.
        self.broker
            .recovering
            .get_or_insert_with(|| Box::new(Recovering::new(base, bounds, backlog)))
    }

    fn is_lasting(&self, key: SessionKey) -> bool {
        self.broker.sessions.get(&key).is_some_and(Session::is_lasting)
    }

    fn now(&mut self) -> Now {
        self.recovering().base
    }

    // --- Entries --------------------------------------------------------------------------------

    fn entry(&mut self, record: LogRecord<'_>) -> Result<(), BadRecord> {
        let Some(kind) = entry_type(record.head) else { return Ok(()) };
        if kind == EntryType::Publish {
            self.number(&record)?;
        }
        match kind {
            EntryType::Start => {
                let at = UnixNanos::new(Fields::read(record.head)?.t);
                let at = self.now().instant_at(at);
                self.close_all(at);
            }
            EntryType::RetainClear => self.expire(&Fields::read(record.head)?),
            EntryType::Publish | EntryType::PublishRefused
                if !has_body(record.head) || self.is_nobodys(record.head) => {}
            _ => self.message(kind, record)?,
        }
        Ok(())
    }

    /// The number that a payload states was seen.
    fn number(&mut self, record: &LogRecord<'_>) -> Result<(), BadRecord> {
        if memmem::find(record.head, NUMBER_FIELD).is_none() {
            return Ok(());
        }
        let fields = Fields::read(record.head)?;
        let Broker { settings, sequences, .. } = &mut self.broker;
        if let Some(number) = fields.pseq {
            let payload = record.body.map(|(payload, _properties)| payload);
            settings.schemas.enter_again(&fields.who, &fields.topic, number, payload, sequences);
        }
        Ok(())
    }

    /// Whether a message was for those alone who were connected: no session is known that it
    /// could wait for or that sent it, and it is not retained. Seen without reading the entry.
    fn is_nobodys(&self, head: &[u8]) -> bool {
        self.broker.sessions.is_empty() && memmem::find(head, RETAIN_FIELD).is_none()
    }

    /// The broker began again: whoever was connected is not.
    fn close_all(&mut self, at: Instant) {
        let now = self.now();
        let mut live: Vec<Detachment> = self
            .broker
            .sessions
            .iter()
            .filter(|(_, session)| session.away_since.is_none())
            .map(|(key, session)| Detachment {
                key: *key,
                connect_index: session.connect_index,
                at,
                expiry_seconds: session.expiry_seconds,
                publishes_will: true,
            })
            .collect();
        live.sort_unstable_by_key(|detachment| detachment.key);
        for detachment in live {
            self.broker.detached(now, detachment);
        }
        let sessions = &self.broker.sessions;
        let is_last = |connect_index: u64, key: SessionKey| {
            sessions.get(&key).is_some_and(|session| session.connect_index == connect_index)
        };
        if let Some(recovering) = &mut self.broker.recovering {
            recovering.by_connect.retain(|connect_index, key| is_last(*connect_index, *key));
        }
    }

    /// A retained message was cleared. By a publish, that entry says it; if its time was over, only
    /// this one does.
    fn expire(&mut self, fields: &Fields<'_>) {
        if fields.why.as_deref() != Some("expired") {
            return;
        }
        let Ok(topic) = TopicName::parse(&fields.topic) else { return };
        let at = self.now().instant_at(UnixNanos::new(fields.t));
        let stored = self.broker.retained.stored(&topic);
        if stored.is_some_and(|message| message.is_outlived(at)) {
            self.broker.retained.clear(&topic);
        }
    }

    /// A message was accepted, or a Will published: routed again, into queues.
    fn message(&mut self, kind: EntryType, record: LogRecord<'_>) -> Result<(), BadRecord> {
        let fields = Fields::read(record.head)?;
        let is_will = kind == EntryType::Will || fields.n.is_none();
        let author = match fields.conn {
            Some(connect_index) if is_will => self.will_published(connect_index),
            Some(connect_index) => self.recovering().by_connect.get(&connect_index).copied(),
            None => None,
        };
        if !has_body(record.head) {
            // A Will that was refused.
            return Ok(());
        }
        // Erased, it takes its place all the same: what others did after it depends on that.
        let (payload, properties) = record.body.unwrap_or_default();
        let qos = QoS::from_bits(fields.qos).ok_or(BadRecord)?;
        self.take_identifier(&fields, qos, author);
        let topic = fields.quarantine.as_ref().unwrap_or(&fields.topic);
        let received_at = self.now().instant_at(UnixNanos::new(fields.t));
        let found = FoundMessage {
            index: record.index,
            topic: TopicName::parse(topic).map_err(|_| BadRecord)?,
            qos,
            retain: fields.retain && fields.quarantine.is_none(),
            author,
            received_at,
            payload: bytes::Bytes::copy_from_slice(payload),
            properties: decode_forwarded(properties).map_err(|_| BadRecord)?,
            is_erased: record.body.is_none(),
        };
        let kept = self.broker.settings.bounds.message_expiry_seconds_max;
        let message = Message::recovered(found, kept);
        if message.retain() {
            self.keep_replaced(message.topic());
        }
        self.retain_again(&message, fields.len);
        let now = self.now();
        self.broker.route(now, &message);
        Ok(())
    }

    /// The retained message of a topic goes. A session that was walking by when this was written may
    /// have been sent it.
    fn keep_replaced(&mut self, topic: &TopicName) {
        let Broker { sessions, retained, recovering, .. } = &mut self.broker;
        let (Some(recovering), Some(old)) = (recovering, retained.stored(topic)) else { return };
        let cursors = |key: &SessionKey| sessions.get(key).into_iter().flat_map(|it| &it.retained);
        recovering.walking.retain(|key| cursors(key).next().is_some());
        let is_walked =
            recovering.walking.iter().flat_map(cursors).any(|it| it.filter.matches(topic));
        if is_walked {
            recovering.keep(old);
        }
    }

    /// The Will of a connection is done, whether it was due or its delay was over.
    fn will_published(&mut self, connect_index: u64) -> Option<SessionKey> {
        if let Some(owed) = self.recovering().owed.remove(&connect_index) {
            return Some(owed.key);
        }
        let key = self.recovering().by_connect.get(&connect_index).copied()?;
        let session = self.broker.sessions.get_mut(&key)?;
        if session.connect_index == connect_index {
            session.will = None;
            session.will_due = None;
        }
        Some(key)
    }

    /// A QoS 2 PUBLISH holds its Packet Identifier until PUBREL, unless PUBREC refused it.
    fn take_identifier(&mut self, fields: &Fields<'_>, qos: QoS, author: Option<SessionKey>) {
        let (QoS::ExactlyOnce, Some(packet_id)) = (qos, fields.pid.and_then(PacketId::new)) else {
            return;
        };
        let session = author.and_then(|key| self.broker.sessions.get_mut(&key));
        // No record tells when one that ends with its connection releases it.
        let Some(session) = session.filter(|session| session.is_lasting()) else { return };
        if fields.quarantine.is_none() || !session.author.version().is_v5() {
            session.inbound.receive(packet_id);
        }
    }

    // --- State records --------------------------------------------------------------------------

    fn change(&mut self, change: Change) {
        let now = self.now();
        match change {
            Change::Attached(attached) => self.attach(*attached),
            Change::Detached { key, connect_index, at, expiry_seconds, publishes_will } => {
                let at = now.instant_at(at);
                self.detach(Detachment { key, connect_index, at, expiry_seconds, publishes_will });
            }
            Change::Ended { key, connect_index } => {
                self.broker.ended(now, key, connect_index);
                self.forget_connection(key, connect_index);
            }
            Change::Subscribed { key, filter, subscription, handling } if self.is_lasting(key) => {
                let position = self.position();
                self.broker.add_subscription(key, filter, subscription, handling, position);
                self.recovering().walking.insert(key);
            }
            Change::Subscribed { .. } => {}
            Change::Unsubscribed { key, filter } => {
                self.broker.remove_subscription(now, key, &filter);
            }
            Change::Sent { key, packet_id, source, copy } => {
                self.sent(key, packet_id, source, copy);
            }
            Change::Acked { key, packet_id } => {
                self.is_unreadable(key, packet_id);
                if self.outbound(key, |outbound| outbound.cancel(packet_id)).is_none() {
                    self.recovering().acknowledged_to_ended((key, packet_id));
                }
            }
            Change::Receipted { key, packet_id } => self.receipted(key, packet_id),
            Change::Released { key, packet_id } => {
                if let Some(session) = self.broker.sessions.get_mut(&key) {
                    session.inbound.release(packet_id);
                }
            }
            Change::Queued { key, group, is_lasting, copy } => {
                self.queued(key, group, is_lasting, copy);
            }
            Change::Skipped { key, index } => {
                self.outbound(key, |outbound| {
                    outbound.take_queued(|copy| copy.message.index() <= index);
                });
            }
            Change::Full { key, index } => self.full(key, index),
            Change::Walked { key, filter } => {
                if let Some(session) = self.broker.sessions.get_mut(&key) {
                    session.retained.retain(|cursor| cursor.filter != filter);
                }
            }
            Change::Granted { key, grants } => {
                if let Some(session) = self.broker.sessions.get_mut(&key) {
                    session.author = session.author.with_grants(Some(grants));
                }
            }
            Change::Left { group, message } => {
                let message = self.message_of(*message);
                self.recovering().leave_unassigned(&message, group, None);
            }
            signed @ (Change::Signed { .. } | Change::Linked { .. } | Change::Settled { .. }) => {
                self.of_signer(signed);
            }
            of_snapshot => self.restore(of_snapshot),
        }
    }

    pub(super) fn attach(&mut self, attached: Attached) {
        let now = self.now();
        let position = self.position();
        let index = attached.connect_index.unwrap_or(position.saturating_sub(1));
        let author = &attached.author;
        let name = (author.identity().clone(), author.client_id().clone());
        if self.broker.is_superseded(&name, index) {
            return;
        }
        let before = self.broker.session_keys.get(&name).copied();
        let before = before.and_then(|key| {
            let session = self.broker.sessions.get(&key)?;
            session.away_since.is_some().then_some((key, session.connect_index))
        });
        self.broker.next_session = self.broker.next_session.max(attached.key.0 + 1);
        // There was room when it was accepted; limits may be narrower now.
        let claimed = self.broker.claim_session(name.clone()).is_ok();
        let is_lasting = attached.expiry_seconds > 0;
        let (key, _) = self.broker.attach(now, attached, index, true);
        if !is_lasting {
            self.forget_deliveries(key);
        }
        if claimed {
            self.broker.unclaim_session(&name);
        }
        self.recovering().by_connect.insert(index, key);
        if let Some((key, connect_index)) = before {
            self.forget_connection(key, connect_index);
        }
    }

    /// A session that ends with its connection: no record tells what is sent on it, nor what it
    /// subscribes to, and nobody will ask. What it had is taken as sent.
    fn forget_deliveries(&mut self, key: SessionKey) {
        self.outbound(key, |outbound| *outbound = Outbound::new(1));
        let Some(session) = self.broker.sessions.get_mut(&key) else { return };
        session.retained.clear();
        session.inbound = Inbound::default();
        for filter in std::mem::take(&mut session.subscriptions).into_keys() {
            self.broker.subscriptions.remove(&filter, key);
        }
    }

    fn detach(&mut self, detachment: Detachment) {
        let (now, Detachment { key, connect_index, publishes_will, .. }) = (self.now(), detachment);
        if !publishes_will {
            // A faster connection had made it due; its client called it off before that counted.
            self.recovering().owed.remove(&connect_index);
        }
        self.broker.detached(now, detachment);
        self.forget_connection(key, connect_index);
    }

    /// Nothing more comes from a connection, unless it is its session's last: then its Will may.
    fn forget_connection(&mut self, key: SessionKey, connect_index: u64) {
        let session = self.broker.sessions.get(&key);
        if session.is_none_or(|session| session.connect_index != connect_index) {
            self.recovering().by_connect.remove(&connect_index);
        }
    }

    /// Changes what a session has yet to send, and the broker's totals with it.
    pub(super) fn outbound<T>(
        &mut self,
        key: SessionKey,
        change: impl FnOnce(&mut Outbound<Delivery>) -> T,
    ) -> Option<T> {
        let session = self.broker.sessions.get_mut(&key)?;
        let before = session.outbound.held();
        let changed = change(&mut session.outbound);
        let after = session.outbound.held();
        self.broker.account(before, after);
        Some(changed)
    }

    /// A copy got its Packet Identifier: out of the queue, into the window.
    fn sent(&mut self, key: SessionKey, packet_id: PacketId, source: Source, copy: CopyOf) {
        let CopyOf { index, qos, retain, identifiers } = copy;
        let group = match &source {
            Source::Shared(group) => Some(group.clone()),
            Source::Routed | Source::Retained(_) => None,
        };
        if !self.is_lasting(key) {
            if let (Some(group), false) = (group, self.broker.sessions.contains_key(&key)) {
                self.recovering().sent_by_ended((key, packet_id), qos, &(index, group));
            }
            return;
        }
        let message = match source {
            Source::Routed => self.take_from_queue(key, index, None).or_else(|| {
                // Past an empty queue: it is full no more.
                self.broker.sessions.get_mut(&key)?.intake = Intake::Implicit;
                None
            }),
            Source::Shared(group) => self.take_from_queue(key, index, Some(&group)).or_else(|| {
                // It left the group before this, in the log, and after it, in truth.
                let left = self.recovering().unassigned.remove(&(index, group));
                left.map(|unassigned| unassigned.message)
            }),
            Source::Retained(topic) => {
                self.walked_to(key, &topic);
                let stored = self.broker.retained.stored(&topic).cloned();
                stored.filter(|message| message.index() == index)
            }
        };
        let Some(message) = message.or_else(|| self.recovering().named(index)) else {
            self.recovering().unreadable.entry(key).or_default().insert(packet_id);
            return;
        };
        let size = message.queue_bytes();
        let delivery = Delivery { message, qos, retain, identifiers, group };
        self.outbound(key, |outbound| outbound.restore(packet_id, Some((delivery, qos, size))));
    }

    /// Takes a copy out of a queue, and whatever stands before it: that was left out.
    fn take_from_queue(
        &mut self,
        key: SessionKey,
        index: u64,
        group: Option<&TopicFilter>,
    ) -> Option<Arc<Message>> {
        let is_it =
            |queued: &Delivery| queued.message.index() == index && queued.group.as_ref() == group;
        let copy = self.outbound(key, |outbound| outbound.take_up_to(is_it)).flatten();
        copy.map(|copy| copy.message)
    }

    /// A walk through the retained messages has come to `topic`.
    fn walked_to(&mut self, key: SessionKey, topic: &TopicName) {
        let session = self.broker.sessions.get_mut(&key);
        let cursor = session.and_then(|session| session.retained.front_mut());
        if let Some(cursor) = cursor.filter(|cursor| cursor.filter.matches(topic)) {
            cursor.after = Some(topic.clone());
        }
    }

    fn receipted(&mut self, key: SessionKey, packet_id: PacketId) {
        if self.is_unreadable(key, packet_id) {
            self.outbound(key, |outbound| outbound.restore(packet_id, None));
        } else {
            self.outbound(key, |outbound| outbound.handle_pubrec(packet_id, ReasonCode::Success));
        }
    }

    /// Whether a copy that was sent is one that may not be read any more; not asked twice.
    fn is_unreadable(&mut self, key: SessionKey, packet_id: PacketId) -> bool {
        let unreadable = &mut self.recovering().unreadable;
        let Some(ids) = unreadable.get_mut(&key) else { return false };
        let was_there = ids.remove(&packet_id);
        if ids.is_empty() {
            unreadable.remove(&key);
        }
        was_there
    }

    /// A copy went where subscriptions do not tell.
    pub(super) fn queued(
        &mut self,
        key: SessionKey,
        group: Option<TopicFilter>,
        is_lasting: bool,
        copy: CopyOf,
    ) {
        // Also of transient sessions, which are never made again: their keys are not given twice.
        self.broker.next_session = self.broker.next_session.max(key.0 + 1);
        let CopyOf { index, qos, retain, identifiers } = copy;
        let message = match &group {
            Some(group) => self.take_from_group(index, group),
            None => None,
        };
        let message = message.or_else(|| self.recovering().named(index));
        if !is_lasting {
            return;
        }
        let Some(session) = self.broker.sessions.get_mut(&key) else {
            // It ended before this, in the log, and after it, in truth: then it passes it on.
            if let (Some(message), Some(group)) = (message, group) {
                self.recovering().leave_unassigned(&message, group, None);
            }
            return;
        };
        if group.is_none() {
            session.intake = Intake::Implicit;
        }
        let Some(message) = message else { return };
        if group.is_none() {
            // The queue is in order, and this one comes at its end, or nearly.
            let from_end = session.outbound.queue().rev();
            let mut later = from_end.take_while(|queued| queued.message.index() >= index);
            if later.any(|queued| queued.message.index() == index && queued.group.is_none()) {
                return;
            }
        }
        if qos > QoS::AtMostOnce {
            let delivery = Delivery { message, qos, retain, identifiers, group };
            self.broker.enqueue(key, delivery);
        }
    }

    /// Takes a message from whoever has it for a Shared Subscription: nobody yet, or a member that
    /// has left the group after this, in the log, and before it, in truth.
    fn take_from_group(&mut self, index: u64, group: &TopicFilter) -> Option<Arc<Message>> {
        let unassigned = self.recovering().unassigned.remove(&(index, group.clone()));
        if let Some(unassigned) = unassigned {
            return Some(unassigned.message);
        }
        let has_it = |queued: &Delivery| {
            queued.message.index() == index && queued.group.as_ref() == Some(group)
        };
        let holder = self.broker.sessions.iter().find_map(|(key, session)| {
            let up_to = session.outbound.queue().take_while(|it| it.message.index() <= index);
            up_to.into_iter().any(has_it).then_some(*key)
        })?;
        let taken = self.outbound(holder, |outbound| outbound.take_queued(has_it))?;
        taken.into_iter().next().map(|copy| copy.message)
    }

    fn full(&mut self, key: SessionKey, index: u64) {
        let left_out = |copy: &Delivery| copy.message.index() >= index && copy.group.is_none();
        let taken = self.outbound(key, |outbound| outbound.take_queued(left_out));
        for copy in taken.unwrap_or_default() {
            self.recovering().keep(&copy.message);
        }
        if let Some(session) = self.broker.sessions.get_mut(&key) {
            session.intake = Intake::Closed;
        }
    }
}

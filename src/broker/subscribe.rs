//! SUBSCRIBE and UNSUBSCRIBE: decided and recorded filter by filter, put into force when the
//! entries are on disk (sections 3.8 to 3.11).

use super::detach::Leaver;
use super::durable::Change;
use super::effect::{DecidedFilter, DecidedUnsubscribe, Effect};
use super::input::ConnectionId;
use super::output::EventKind;
use super::record::{RefusalKey, beginning, refusal_fields};
use super::walk::begin_walk;
use super::{Broker, Session};
use crate::evidence::{Decision, EntryType};
use crate::mqtt::{
    AckProperties, Packet, PacketId, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeFilter, TopicFilter, UnsubAck, Unsubscribe,
};
use crate::refusal::{Refusal, Refused};
use crate::routing::{SessionKey, Subscription};
use crate::session::Author;
use crate::time::Now;

impl Broker {
    /// Decides each filter of a SUBSCRIBE.
    pub(super) fn handle_subscribe(&mut self, now: Now, id: ConnectionId, packet: &Subscribe) {
        let Some(key) = self.session_of(id) else { return };
        let session = self.sessions.get(&key);
        let Some((author, lasting)) =
            session.map(|session| (session.author.clone(), session.is_lasting()))
        else {
            return;
        };
        if let Err(refused) = self.check_subscribe(now, &author, packet) {
            return self.refuse_subscribe(now, id, key, packet, refused);
        }
        let mut filters = Vec::with_capacity(packet.filters.len());
        for wanted in &packet.filters {
            let decided = self.decide_filter(&author, key, packet, wanted);
            if let Ok((filter, ..)) = &decided {
                self.reserve(key, filter.clone());
            }
            let decided = self.record_subscribe(now, id, &author, wanted, decided);
            if let (Some((filter, subscription, handling)), true) = (&decided.subscription, lasting)
            {
                let (filter, subscription, handling) = (filter.clone(), *subscription, *handling);
                self.note(&Change::Subscribed { key, filter, subscription, handling });
            }
            filters.push(decided);
        }
        self.ledger.wait(Effect::Subscribed {
            connection: id,
            session: key,
            packet_id: packet.packet_id,
            filters,
        });
    }

    /// Counts a subscription from its decision on, so that one batch cannot pass a bound.
    fn reserve(&mut self, key: SessionKey, filter: TopicFilter) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.reserved.push(filter);
        }
        self.subscriptions_reserved += 1;
    }

    /// What was reserved comes into force now, or its session is gone.
    pub(super) fn release_reserved(&mut self, key: SessionKey, filters: &[DecidedFilter]) {
        let mut session = self.sessions.get_mut(&key);
        for (filter, ..) in filters.iter().filter_map(|decided| decided.subscription.as_ref()) {
            self.subscriptions_reserved = self.subscriptions_reserved.saturating_sub(1);
            if let Some(session) = &mut session
                && let Some(at) = session.reserved.iter().position(|reserved| reserved == filter)
            {
                session.reserved.remove(at);
            }
        }
    }

    /// Refuses a SUBSCRIBE as a whole: one entry, however many filters it has.
    fn refuse_subscribe(
        &mut self,
        now: Now,
        id: ConnectionId,
        session: SessionKey,
        packet: &Subscribe,
        refused: Refused,
    ) {
        let Some(author) = self.sessions.get(&session).map(|session| session.author.clone()) else {
            return;
        };
        let Some(first) = packet.filters.first() else { return };
        let first = self.record_subscribe(now, id, &author, first, Err(refused));
        let reason = first.reason;
        let refused =
            |_| DecidedFilter { reason, reason_string: None, subscription: None, offset: 0 };
        let others = packet.filters.iter().skip(1).map(refused);
        let filters = std::iter::once(first).chain(others).collect();
        let packet_id = packet.packet_id;
        self.ledger.wait(Effect::Subscribed { connection: id, session, packet_id, filters });
    }

    /// What concerns the packet as a whole.
    fn check_subscribe(
        &mut self,
        now: Now,
        author: &Author,
        packet: &Subscribe,
    ) -> Result<(), Refused> {
        let count = u32::try_from(packet.filters.len()).unwrap_or(u32::MAX);
        let bounds = &self.settings.bounds;
        self.limits.admit_subscribe(
            now,
            author.identity(),
            count.min(bounds.filters_per_subscribe_max),
        )?;
        if count > bounds.filters_per_subscribe_max {
            return Err(Refusal::FilterCount.into());
        }
        if packet.user_properties.len() > bounds.user_properties_max as usize {
            return Err(Refusal::UserPropertyCount.into());
        }
        Ok(())
    }

    /// One filter: form, bounds, policy.
    fn decide_filter(
        &self,
        author: &Author,
        key: SessionKey,
        packet: &Subscribe,
        wanted: &SubscribeFilter,
    ) -> Result<(TopicFilter, Subscription, RetainHandling), Refused> {
        let bounds = &self.settings.bounds;
        if wanted.filter.len() > usize::from(bounds.filter_bytes_max) {
            return Err(Refusal::TopicTooLong.into());
        }
        let filter = TopicFilter::parse(&wanted.filter)
            .map_err(|_| Refused::from(Refusal::FilterInvalid))?;
        if filter.levels().count() > usize::from(bounds.topic_levels_max) {
            return Err(Refusal::TopicTooDeep.into());
        }
        let permit = self.settings.policy.may_subscribe(author, &filter)?;
        let (known, count) = self
            .sessions
            .get(&key)
            .map_or((false, 0), |session| (session.counts(&filter), session.subscription_count()));
        let total = self.subscriptions.len() + self.subscriptions_reserved;
        let full = count >= bounds.subscriptions_max as usize
            || total >= bounds.subscriptions_total_max as usize;
        if !known && full {
            return Err(Refusal::SubscriptionCount.into());
        }
        let subscription = Subscription {
            qos: wanted.options.qos.min(permit.qos_max),
            no_local: wanted.options.no_local,
            retain_as_published: wanted.options.retain_as_published,
            identifier: packet.subscription_identifier,
        };
        Ok((filter, subscription, wanted.options.retain_handling))
    }

    fn record_subscribe(
        &mut self,
        now: Now,
        id: ConnectionId,
        author: &Author,
        wanted: &SubscribeFilter,
        decided: Result<(TopicFilter, Subscription, RetainHandling), Refused>,
    ) -> DecidedFilter {
        let decision = self.decide();
        match decided {
            Ok((filter, subscription, handling)) => {
                let kind = EntryType::Subscribe;
                let offset = self.record_of(now, id, kind, &decision, None, |entry| {
                    entry
                        .decision(Decision::Allow)
                        .text("filter", &wanted.filter)
                        .number("qos", subscription.qos as u64)
                });
                let reason = match subscription.qos {
                    QoS::AtMostOnce => ReasonCode::Success,
                    QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
                    QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
                };
                let subscription = Some((filter, subscription, handling));
                DecidedFilter { reason, reason_string: None, subscription, offset: offset + 1 }
            }
            Err(refused) => {
                self.counters.refuse(refused.refusal);
                let identity = author.identity().clone();
                let counted = refused.refusal == Refusal::SubscribeRate
                    && !self.is_first_refusal(now, RefusalKey::Identity(identity, refused.refusal));
                if !counted {
                    // A filter may be as long as a packet: the entry holds its beginning.
                    let shown = beginning(&wanted.filter);
                    self.record_of(now, id, EntryType::Subscribe, &decision, None, |entry| {
                        refusal_fields(entry, &refused)
                            .text("filter", shown)
                            .number("qos", wanted.options.qos as u64)
                    });
                    let kind = EventKind::SubscribeRefused;
                    self.tell(kind, &decision, id, Some(shown), Some(&refused));
                }
                // A name that is no topic is a filter that is no filter here.
                let reason = match refused.refusal.reason_code() {
                    ReasonCode::TopicNameInvalid => ReasonCode::TopicFilterInvalid,
                    other => other,
                };
                let reason_string = self.reason_string(id, &decision, refused.refusal);
                DecidedFilter { reason, reason_string, subscription: None, offset: 0 }
            }
        }
    }

    /// The entries are on disk, the first of their batch at `first_index`: subscriptions come into
    /// force, SUBACK, retained messages. [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-5],
    /// [MQTT-3.9.3-1]
    pub(super) fn subscribed(
        &mut self,
        now: Now,
        (id, key): (ConnectionId, SessionKey),
        packet_id: PacketId,
        filters: Vec<DecidedFilter>,
        first_index: u64,
    ) {
        let reasons = filters.iter().map(|decided| decided.reason).collect();
        // A SUBACK has one Reason String for all its filters: it is that of the first refusal.
        let reason_string = filters.iter().find_map(|decided| decided.reason_string.clone());
        for DecidedFilter { subscription, offset, .. } in filters {
            if let Some((filter, subscription, handling)) = subscription {
                self.add_subscription(key, filter, subscription, handling, first_index + offset);
            }
        }
        if self.session_of(id) != Some(key) {
            // The session keeps what the log says that it has; its client will ask again.
            return;
        }
        let properties = AckProperties { reason_string, user_properties: Vec::new() };
        let packet = Packet::SubAck(Box::new(SubAck { packet_id, properties, reasons }));
        self.send(id, packet);
        self.show_sys(now);
        self.pump(now, key);
    }

    /// Puts one subscription into force, for messages from the entry at `index` on.
    pub(super) fn add_subscription(
        &mut self,
        key: SessionKey,
        filter: TopicFilter,
        subscription: Subscription,
        handling: RetainHandling,
        index: u64,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        // [MQTT-3.8.4-3], [MQTT-3.8.4-4]
        let new = self.subscriptions.insert(&filter, key, subscription);
        session.subscriptions.insert(filter.clone(), subscription);
        // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]; none for shared subscriptions.
        let wanted = match handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new,
            RetainHandling::DoNotSend => false,
        };
        if wanted && filter.share().is_none() {
            begin_walk(&mut session.retained, filter, subscription, index);
        }
    }

    /// Takes one subscription out of force; false if there was none.
    pub(super) fn remove_subscription(
        &mut self,
        now: Now,
        key: SessionKey,
        filter: &TopicFilter,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else { return false };
        session.retained.retain(|cursor| cursor.filter != *filter);
        session.subscriptions.remove(filter);
        let was_there = self.subscriptions.remove(filter, key);
        if filter.share().is_some() {
            let before = session.outbound.held();
            let left = session.outbound.take_queued(|copy| copy.group.as_ref() == Some(filter));
            let (after, is_told) = (session.outbound.held(), session.is_lasting());
            self.account(before, after);
            // What was sent stays: its session goes on, and the client has it.
            for copy in left {
                self.pass_on(now, copy, Leaver { is_told, sent: None });
            }
        }
        was_there
    }

    /// Decides each filter of an UNSUBSCRIBE.
    pub(super) fn handle_unsubscribe(&mut self, now: Now, id: ConnectionId, packet: &Unsubscribe) {
        let Some(author) = self.connections.get(&id).and_then(|known| known.author.clone()) else {
            return;
        };
        // As many as a session may have, in one go; beyond the rate it is answered, not listed.
        let too_many = packet.filters.len() > self.settings.bounds.subscriptions_max as usize;
        let decided = |text: &String| match TopicFilter::parse(text) {
            // UNSUBACK knows no Quota exceeded.
            _ if too_many => DecidedUnsubscribe::Refuse(ReasonCode::ImplementationSpecificError),
            Err(_) => DecidedUnsubscribe::Refuse(ReasonCode::TopicFilterInvalid),
            Ok(filter) => DecidedUnsubscribe::Remove(filter),
        };
        let filters: Vec<DecidedUnsubscribe> = packet.filters.iter().map(decided).collect();
        let listed = match self.limits.admit_subscribe(now, author.identity(), 1) {
            Ok(()) => true,
            Err(refused) => {
                let identity = author.identity().clone();
                self.is_first_refusal(now, RefusalKey::Identity(identity, refused.refusal))
            }
        };
        if listed {
            let count = packet.filters.len() as u64;
            let first = packet.filters.first().map_or("", String::as_str);
            let decision = self.decide();
            // One entry for the packet: it takes a right away from nobody but its sender.
            self.record_of(now, id, EntryType::Unsubscribe, &decision, None, |entry| {
                entry
                    .decision(if too_many { Decision::Deny } else { Decision::Allow })
                    .text("filter", beginning(first))
                    .number("count", count)
            });
        }
        let Some(key) = self.session_of(id) else { return };
        let lasting = self.sessions.get(&key).is_some_and(Session::is_lasting);
        for decided in &filters {
            let DecidedUnsubscribe::Remove(filter) = decided else { continue };
            // No retained message is begun any more: one that was replaced by now would be named
            // behind the end of its walk. [MQTT-3.10.4-2]
            if let Some(session) = self.sessions.get_mut(&key) {
                session.retained.retain(|cursor| cursor.filter != *filter);
            }
            if lasting {
                self.note(&Change::Unsubscribed { key, filter: filter.clone() });
            }
        }
        self.ledger.wait(Effect::Unsubscribed {
            connection: id,
            session: key,
            packet_id: packet.packet_id,
            filters,
        });
    }

    /// The entry is on disk: subscriptions end, UNSUBACK. [MQTT-3.10.4-2], [MQTT-3.10.4-4],
    /// [MQTT-3.10.4-5], [MQTT-3.10.4-6]
    pub(super) fn unsubscribed(
        &mut self,
        now: Now,
        (id, key): (ConnectionId, SessionKey),
        packet_id: PacketId,
        filters: Vec<DecidedUnsubscribe>,
    ) {
        let mut reasons = Vec::with_capacity(filters.len());
        for decided in filters {
            reasons.push(match decided {
                DecidedUnsubscribe::Refuse(reason) => reason,
                DecidedUnsubscribe::Remove(filter) => {
                    // [MQTT-3.10.4-1]
                    match self.remove_subscription(now, key, &filter) {
                        true => ReasonCode::Success,
                        false => ReasonCode::NoSubscriptionExisted,
                    }
                }
            });
        }
        if self.session_of(id) != Some(key) {
            return;
        }
        let properties = AckProperties::default();
        let packet = Packet::UnsubAck(Box::new(UnsubAck { packet_id, properties, reasons }));
        self.send(id, packet);
    }
}

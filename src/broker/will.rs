//! The Will: judged at CONNECT, and again when it is published (section 3.1.2.5).
//!
//! A Will walks the same line as a PUBLISH, less the limiter: its author is not there to be
//! slowed, and a session has one.

use std::borrow::Cow;
use std::time::Duration;

use super::Broker;
use super::effect::{AcceptedPublish, Effect};
use super::output::{Event, EventKind, Output};
use super::publish::Ingress;
use super::record::{beginning, refusal_fields};
use crate::evidence::{Attested, Body, EntryType, EntryWriter};
use crate::limits::Admitted;
use crate::mqtt::{Publish, Will};
use crate::refusal::{Refusal, Refused};
use crate::routing::SessionKey;
use crate::schema::Outcome;
use crate::session::{Author, Received, Timer};
use crate::time::{Instant, Now};

impl Broker {
    /// Judges a Will as if it were published now.
    pub(super) fn judge_will(&self, author: &Author, will: &Will) -> Result<Attested, Refused> {
        let bounds = &self.settings.bounds;
        if will.topic.as_str().len() > usize::from(bounds.topic_bytes_max) {
            return Err(Refusal::TopicTooLong.into());
        }
        if will.topic.levels().count() > usize::from(bounds.topic_levels_max) {
            return Err(Refusal::TopicTooDeep.into());
        }
        if will.properties.publish.user_properties.len() > bounds.user_properties_max as usize {
            return Err(Refusal::UserPropertyCount.into());
        }
        let publish = Publish {
            dup: false,
            qos: will.qos,
            // [MQTT-3.1.2-14], [MQTT-3.1.2-15]
            retain: will.retain,
            topic: Some(will.topic.clone()),
            packet_id: None,
            properties: will.properties.publish.clone(),
            payload: will.payload.clone(),
        };
        if will.retain && !will.payload.is_empty() && !self.has_retained_room(&will.topic, &publish)
        {
            return Err(Refusal::RetainedFull.into());
        }
        let received = Received::new(author.clone(), will.topic.clone(), Box::new(publish));
        let authorized =
            self.settings.policy.authorize(received).map_err(|(_, refused)| refused)?;
        let admitted = Admitted::for_will(authorized);
        let conforming =
            self.settings.schemas.check_will(admitted).map_err(|(_, refused)| refused)?;
        // The broker publishes it, when nobody knows: no device can have signed that.
        Attested::asserted(conforming).map_err(|unattested| unattested.refused)
    }

    /// The connection of a session ended without calling its Will off: publishes it now or sets
    /// its delay. [MQTT-3.1.2-8], [MQTT-3.1.3-9]
    pub(super) fn schedule_will(&mut self, now: Now, key: SessionKey, lost_at: Instant) {
        let Some(session) = self.sessions.get(&key).filter(|session| session.will.is_some()) else {
            return;
        };
        let delay = self.will_delay(key, session.expiry_seconds);
        if delay.is_zero() {
            return self.publish_will(now, key);
        }
        let due = lost_at.after(delay);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.will_due = Some(due);
        }
        self.timers.set(due, Timer::WillDelay(key));
    }

    /// How long the Will of a session waits when the session outlives its connection by
    /// `expiry_seconds`.
    pub(super) fn will_delay(&self, key: SessionKey, expiry_seconds: u32) -> Duration {
        let longest = self.settings.bounds.will_delay_seconds_max;
        let will = self.sessions.get(&key).and_then(|session| session.will.as_ref());
        let wish = will.and_then(|will| will.properties.delay_seconds).unwrap_or(0);
        Duration::from_secs(wish.min(longest).min(expiry_seconds).into())
    }

    /// Publishes the Will of a session, if it still has one and its author still may.
    pub(super) fn publish_will(&mut self, now: Now, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.will_due = None;
        // [MQTT-3.1.2-10]
        let Some(will) = session.will.take() else { return };
        let (author, connect_index) = (session.author.clone(), session.connect_index);
        if let Some(recovering) = &mut self.recovering {
            return recovering.owe(connect_index, key, author, will);
        }
        self.publish_will_of(now, key, connect_index, &author, &will);
    }

    /// Publishes a Will of the session `key`, whose connection began with the `connect` entry at
    /// `connect_index`.
    pub(super) fn publish_will_of(
        &mut self,
        now: Now,
        key: SessionKey,
        connect_index: u64,
        author: &Author,
        will: &Will,
    ) {
        let decision = self.decide();
        let (kind, refused) = match self.judge_will(author, will) {
            Ok(attested) => {
                let conforming = attested.conforming();
                let refused = match conforming.outcome() {
                    Outcome::Quarantined { refused, .. } => Some(refused.clone()),
                    Outcome::Conforms { .. } | Outcome::Unchecked | Outcome::Opaque => None,
                };
                let offset = {
                    let ingress = Ingress::Will { connect_index };
                    self.record_publish(now, ingress, &decision, &attested)
                };
                let reserved = self.reserve_retained(conforming);
                self.ledger.wait(Effect::Publish(Box::new(AcceptedPublish {
                    attested,
                    offset,
                    arrived: now.instant,
                    session: Some(key),
                    acknowledge: None,
                    promised: None,
                    reserved,
                })));
                (EventKind::WillPublished, refused)
            }
            Err(refused) => {
                self.counters.refuse(refused.refusal);
                self.record(now, EntryType::Will, &decision, |entry| {
                    let entry = entry.who(author.identity()).number("conn", connect_index);
                    refusal_fields(entry, &refused).text("topic", will.topic.as_str())
                });
                (EventKind::WillRefused, Some(refused))
            }
        };
        let privacy = &self.settings.privacy;
        self.outputs.push_back(Output::Event(Event {
            kind,
            decision,
            identity: Some(author.identity().clone()),
            client_id: privacy.client(author.client_id().as_str()).map(Cow::into_owned),
            peer: None,
            topic: Some(will.topic.as_str().to_owned()),
            reason: refused.as_ref().map(|refused| refused.refusal.name()),
            by: refused.and_then(|refused| refused.by),
        }));
    }

    /// Records an entry of a session that has no connection any more: with the `connect` entry of
    /// the one it is about.
    pub(super) fn record_of_session(
        &mut self,
        now: Now,
        (author, connect_index): (&Author, u64),
        kind: EntryType,
        decision: &str,
        body: Body,
        write: impl FnOnce(EntryWriter<'_>) -> EntryWriter<'_>,
    ) -> u64 {
        let node = &self.settings.node;
        self.ledger.record(Some(body), |out| {
            let entry =
                EntryWriter::begin(out, kind, now.unix, node, decision).who(author.identity());
            write(entry.number("conn", connect_index)).finish();
        })
    }

    /// A Will that was accepted at CONNECT, for its entry.
    pub(super) fn will_fields<'a>(entry: EntryWriter<'a>, will: Option<&Will>) -> EntryWriter<'a> {
        match will {
            None => entry,
            Some(will) => entry
                .text("will", beginning(will.topic.as_str()))
                .number("will_qos", will.qos as u64)
                .flag("will_retain", will.retain)
                .number("will_len", will.payload.len() as u64),
        }
    }
}

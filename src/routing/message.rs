//! An Application Message on its way to subscribers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::SessionKey;
use crate::evidence::Recorded;
use crate::mqtt::{PublishProperties, QoS, TopicName};
use crate::policy::RECEIPTS_ROOT;
use crate::schema::Outcome;
use crate::time::Instant;

/// What the log holds of a message.
pub(crate) struct FoundMessage {
    pub(crate) index: u64,
    pub(crate) topic: TopicName,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) author: Option<SessionKey>,
    pub(crate) received_at: Instant,
    pub(crate) payload: Bytes,
    pub(crate) properties: PublishProperties,
    /// Whether its body was erased: then there is neither payload nor property.
    pub(crate) is_erased: bool,
}

/// A recorded message, shared by everything that has yet to deliver it.
#[derive(Debug)]
pub struct Message {
    topic: TopicName,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    properties: PublishProperties,
    author: Option<SessionKey>,
    received_at: Instant,
    expires_at: Instant,
    index: u64,
    is_erased: bool,
}

impl Message {
    /// The message that `recorded` proves, published by the session `author` (if it still is one)
    /// at `received_at`, and kept for at most `expiry_seconds_max`. A quarantined message goes to
    /// its quarantine topic.
    pub fn new(
        recorded: &Recorded,
        author: Option<SessionKey>,
        received_at: Instant,
        expiry_seconds_max: u32,
    ) -> Arc<Self> {
        let conforming = recorded.conforming();
        let received = conforming.admitted().authorized().received();
        let publish = received.publish();
        let (topic, retain) = match conforming.outcome() {
            Outcome::Quarantined { topic, .. } => (topic.clone(), false),
            Outcome::Conforms { .. } | Outcome::Unchecked | Outcome::Opaque => {
                (received.topic().clone(), publish.retain)
            }
        };
        // [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18],
        // [MQTT-3.3.2-20]
        let mut properties = publish.properties.clone();
        // An alias is of the publisher's connection, an identifier of the subscriber's session.
        properties.topic_alias = None;
        properties.subscription_identifiers = Vec::new();
        let kept_seconds =
            properties.message_expiry_seconds.unwrap_or(u32::MAX).min(expiry_seconds_max);
        Arc::new(Self {
            topic,
            payload: publish.payload.clone(),
            qos: publish.qos,
            retain,
            properties,
            author,
            received_at,
            expires_at: received_at.after(Duration::from_secs(kept_seconds.into())),
            index: recorded.index(),
            is_erased: false,
        })
    }

    /// A message that was read back from the log, whose bounds it passed when it came.
    pub(crate) fn recovered(found: FoundMessage, expiry_seconds_max: u32) -> Arc<Self> {
        let FoundMessage { index, topic, qos, retain, author, received_at, .. } = found;
        let FoundMessage { payload, properties, is_erased, .. } = found;
        let kept_seconds =
            properties.message_expiry_seconds.unwrap_or(u32::MAX).min(expiry_seconds_max);
        let expires_at = received_at.after(Duration::from_secs(kept_seconds.into()));
        Arc::new(Self {
            topic,
            payload,
            qos,
            retain,
            properties,
            author,
            received_at,
            expires_at,
            index,
            is_erased,
        })
    }

    /// What stays of it when its body is erased: its place in queues and windows, which it keeps
    /// until it would have been sent, and its topic.
    pub(crate) fn erased(&self) -> Arc<Self> {
        Arc::new(Self {
            topic: self.topic.clone(),
            payload: Bytes::new(),
            qos: self.qos,
            retain: self.retain,
            properties: PublishProperties::default(),
            author: self.author,
            received_at: self.received_at,
            expires_at: self.expires_at,
            index: self.index,
            is_erased: true,
        })
    }

    /// A message that the broker itself makes, of QoS 0: a figure below `$SYS/`, retained, or a receipt
    /// below `$receipts/`, which is not. `None` for any other topic.
    ///
    /// The one kind of message without proof of what came before it, because nothing did: no client sent
    /// it, so there is no author, no decision and no entry. It can be taken for no client's: none
    /// may publish below `$`. `tests/architecture.rs` counts who calls this.
    pub fn of_broker(
        topic: TopicName,
        payload: Bytes,
        properties: PublishProperties,
        made_at: Instant,
    ) -> Option<Arc<Self>> {
        let root = topic.levels().next();
        let retain = root == Some("$SYS");
        (retain || root == Some(RECEIPTS_ROOT)).then(|| {
            Arc::new(Self {
                topic,
                payload,
                qos: QoS::AtMostOnce,
                retain,
                properties,
                author: None,
                received_at: made_at,
                expires_at: made_at.after(Duration::MAX),
                index: 0,
                is_erased: false,
            })
        })
    }

    /// Its topic.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Its payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The properties that go with it, as published.
    pub fn properties(&self) -> &PublishProperties {
        &self.properties
    }

    /// When it came.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }

    /// QoS it was published with.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// RETAIN as published.
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// The publisher's session.
    pub fn author(&self) -> Option<SessionKey> {
        self.author
    }

    /// Index of its entry in the log; 0, which is the log's own beginning, for a message of the
    /// broker.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether its body was erased: nobody gets it any more.
    pub fn is_erased(&self) -> bool {
        self.is_erased
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires_at
    }

    /// Whether the Message Expiry Interval that its publisher gave is over. A retained message
    /// without one stays until it is replaced or cleared (3.3.2.3.3).
    pub fn is_outlived(&self, now: Instant) -> bool {
        self.properties.message_expiry_seconds.is_some() && self.is_expired(now)
    }

    /// Properties for a copy that leaves at `now`: the Message Expiry Interval is what is left of
    /// it. [MQTT-3.3.2-6]
    pub fn properties_at(&self, now: Instant) -> PublishProperties {
        let mut properties = self.properties.clone();
        if let Some(seconds) = properties.message_expiry_seconds.as_mut() {
            let waited = u32::try_from(now.since(self.received_at).as_secs()).unwrap_or(u32::MAX);
            *seconds = seconds.saturating_sub(waited);
        }
        properties
    }

    /// Bytes it takes in a queue or among the retained messages.
    pub fn queue_bytes(&self) -> usize {
        kept_bytes(&self.topic, &self.payload, &self.properties)
    }
}

/// Bytes that a message takes where it is kept: topic, payload and properties of variable length.
pub fn kept_bytes(topic: &TopicName, payload: &Bytes, properties: &PublishProperties) -> usize {
    let user: usize = properties.user_properties.iter().map(|p| p.name.len() + p.value.len()).sum();
    topic.as_str().len()
        + payload.len()
        + user
        + properties.response_topic.as_ref().map_or(0, String::len)
        + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        + properties.content_type.as_ref().map_or(0, String::len)
}

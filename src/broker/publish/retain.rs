//! Room for a message that will be the retained one of its topic once it is on disk.

use crate::broker::Broker;
use crate::mqtt::{Publish, TopicName};
use crate::routing::{Reserved, kept_bytes};
use crate::schema::{Conforming, Outcome};

impl Broker {
    /// Keeps room for what will be a retained message once it is on disk.
    pub(in crate::broker) fn reserve_retained(&mut self, conforming: &Conforming) -> Reserved {
        let received = conforming.admitted().authorized().received();
        let (topic, publish) = (received.topic(), received.publish());
        let quarantined = matches!(conforming.outcome(), Outcome::Quarantined { .. });
        if quarantined || !publish.retain || publish.payload.is_empty() {
            return Reserved::default();
        }
        let bytes = kept_bytes(topic, &publish.payload, &publish.properties);
        self.retained.reserve(topic, bytes)
    }

    /// Whether one more retained message fits.
    pub(in crate::broker) fn has_retained_room(
        &self,
        topic: &TopicName,
        publish: &Publish,
    ) -> bool {
        let bounds = &self.settings.bounds;
        let bytes = kept_bytes(topic, &publish.payload, &publish.properties);
        self.retained.has_room(
            topic,
            bytes,
            bounds.retained_messages_max,
            bounds.retained_bytes_max,
        )
    }
}

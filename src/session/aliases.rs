//! Topic Aliases that a client has set on one Network Connection (section 3.3.2.3.4).

use crate::mqtt::{Publish, ReasonCode, TopicName, Violation};

/// Longest topic that an alias stands for, in bytes: what `topic_bytes_max` can be set to.
const ALIASED_BYTES_MAX: usize = 4_096;

/// The table of one connection: empty at its start, gone at its end. [MQTT-3.3.2-7]
#[derive(Debug, Default)]
pub struct Aliases {
    topics: Vec<Option<TopicName>>,
    max: u16,
}

impl Aliases {
    /// A table for the aliases 1..=`max`, the Topic Alias Maximum that we announced.
    pub fn new(max: u16) -> Self {
        Self { topics: Vec::new(), max }
    }

    /// The topic of `publish`: its own, or the one its alias stands for. A topic with an alias
    /// sets the alias.
    pub fn resolve(&mut self, publish: &Publish) -> Result<TopicName, Violation> {
        let Some(alias) = publish.properties.topic_alias else {
            return publish.topic.clone().ok_or(NO_TOPIC);
        };
        // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
        if alias == 0 || alias > self.max {
            return Err(BEYOND_MAXIMUM);
        }
        let at = usize::from(alias) - 1;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        let Some(place) = self.topics.get_mut(at) else { return Err(BEYOND_MAXIMUM) };
        match &publish.topic {
            // Too long for any bound of ours: refused by the next step, and not kept.
            Some(topic) if topic.as_str().len() > ALIASED_BYTES_MAX => Ok(topic.clone()),
            Some(topic) => Ok(place.insert(topic.clone()).clone()),
            None => place.clone().ok_or(UNDEFINED),
        }
    }
}

const NO_TOPIC: Violation = Violation {
    reason: ReasonCode::ProtocolError,
    what: "a PUBLISH with neither Topic Name nor Topic Alias",
    statement: Some("MQTT-4.7.3-1"),
};
const BEYOND_MAXIMUM: Violation = Violation {
    reason: ReasonCode::TopicAliasInvalid,
    what: "a Topic Alias of 0 or above the maximum of CONNACK",
    statement: Some("MQTT-3.3.2-9"),
};
const UNDEFINED: Violation = Violation {
    reason: ReasonCode::ProtocolError,
    what: "a Topic Alias that stands for no topic yet",
    statement: None,
};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mqtt::{PublishProperties, QoS};

    fn publish(topic: Option<&str>, alias: u16) -> Publish {
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.map(|text| TopicName::parse(text).unwrap()),
            packet_id: None,
            properties: PublishProperties { topic_alias: Some(alias), ..Default::default() },
            payload: Bytes::new(),
        }
    }

    #[test]
    fn c12_an_alias_is_set_used_replaced_and_bounded() {
        let mut aliases = Aliases::new(2);
        let resolve = |aliases: &mut Aliases, topic, alias| {
            aliases.resolve(&publish(topic, alias)).map(|name| name.as_str().to_owned())
        };
        assert_eq!(resolve(&mut aliases, None, 1), Err(UNDEFINED));
        assert_eq!(resolve(&mut aliases, Some("a"), 1), Ok("a".into()));
        assert_eq!(resolve(&mut aliases, None, 1), Ok("a".into()));
        assert_eq!(resolve(&mut aliases, Some("b"), 1), Ok("b".into()));
        assert_eq!(resolve(&mut aliases, None, 1), Ok("b".into()));
        assert_eq!(resolve(&mut aliases, Some("c"), 2), Ok("c".into()));
        assert_eq!(resolve(&mut aliases, Some("d"), 3), Err(BEYOND_MAXIMUM));
        assert_eq!(resolve(&mut aliases, Some("d"), 0), Err(BEYOND_MAXIMUM));
    }
}

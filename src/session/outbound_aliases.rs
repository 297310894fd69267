//! Topic Aliases that we set towards a client on one Network Connection (section 3.3.2.3.4).
//!
//! The first topics that come take the aliases there are, and keep them as long as the connection
//! lasts; later topics go without. So what an alias stands for never changes: a copy that leaves
//! late, behind its record, says the same as one that overtook it, and whether a copy fits into
//! the client's Maximum Packet Size can be said before it leaves. A client with more topics than
//! aliases saves less than with a table that forgets the least used one, and is never sent an
//! alias anew for nothing.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::mqtt::TopicAlias;

/// Longest topic that no alias stands for, in bytes: the property would be as long.
const PLAIN_BYTES_MAX: usize = 3;

/// The table of one connection: empty at its start, gone at its end. [MQTT-3.3.2-7] Its topics are
/// within our bound on topics, and no more than the lower of both sides' maximum.
#[derive(Debug, Default)]
pub struct OutboundAliases {
    numbers: BTreeMap<Box<str>, NonZeroU16>,
    max: u16,
}

impl OutboundAliases {
    /// A table for the aliases 1..=`max`: the client's Topic Alias Maximum, or ours if that is
    /// lower. [MQTT-3.1.2-26], [MQTT-3.1.2-27]
    pub fn new(max: u16) -> Self {
        Self { numbers: BTreeMap::new(), max }
    }

    /// Whether the client takes no alias.
    pub fn is_off(&self) -> bool {
        self.max == 0
    }

    /// The alias that the client knows for `topic`.
    pub fn known(&self, topic: &str) -> Option<TopicAlias> {
        let number = *self.numbers.get(topic)?;
        Some(TopicAlias { number, sets: false })
    }

    /// The alias that a copy may set for `topic`; none if the topic has one, or needs none, or
    /// there is none left.
    pub fn free(&self, topic: &str) -> Option<TopicAlias> {
        let count = u16::try_from(self.numbers.len()).ok()?;
        let wanted = topic.len() > PLAIN_BYTES_MAX && count < self.max;
        if !wanted || self.numbers.contains_key(topic) {
            return None;
        }
        Some(TopicAlias { number: NonZeroU16::MIN.checked_add(count)?, sets: true })
    }

    /// A copy that sets `alias` for `topic` is on its way. It is what [`Self::free`] said last.
    pub fn set(&mut self, topic: &str, alias: TopicAlias) {
        self.numbers.insert(topic.into(), alias.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_take_the_aliases_and_keep_them() {
        let mut aliases = OutboundAliases::new(2);
        let number = |alias: Option<TopicAlias>| alias.map(|alias| alias.number.get());
        for (at, topic) in [(1, "plant/a"), (2, "plant/b")] {
            assert_eq!(aliases.known(topic), None);
            let free = aliases.free(topic).unwrap();
            assert!(free.sets && free.number.get() == at);
            // Asked twice, nothing is taken yet.
            assert_eq!(aliases.free(topic), Some(free));
            aliases.set(topic, free);
        }
        assert_eq!(number(aliases.free("plant/c")), None);
        assert_eq!(number(aliases.free("plant/a")), None);
        assert_eq!(number(aliases.known("plant/a")), Some(1));
        assert_eq!(number(aliases.known("plant/b")), Some(2));
        assert!(!aliases.known("plant/b").unwrap().sets);
    }

    #[test]
    fn where_nothing_is_saved_there_is_no_alias() {
        assert_eq!(OutboundAliases::new(9).free("a/b"), None);
        assert!(OutboundAliases::new(9).free("a/bc").is_some());
        assert_eq!(OutboundAliases::new(0).free("a/bc"), None);
        assert!(OutboundAliases::new(0).is_off());
    }
}

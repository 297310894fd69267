//! Retained messages: the last one of each topic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Message;
use crate::mqtt::{TopicFilter, TopicName};
use crate::time::Instant;

/// The store. Ordered by topic, so that what a new subscriber receives does not depend on hash
/// order and a filter's literal beginning bounds the walk.
#[derive(Debug, Default)]
pub struct Retained {
    messages: BTreeMap<TopicName, Arc<Message>>,
    bytes: usize,
    /// What was accepted and is not yet on disk.
    reserved: Reserved,
}

/// Room that is kept for a message from its acceptance until it is on disk, so that no number of
/// messages in one batch passes the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    messages: usize,
    bytes: usize,
}

/// What [`Retained::scan`] came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// This topic has a retained message that the filter matches.
    Found(TopicName),
    /// Nothing up to this topic; go on behind it.
    More(TopicName),
    /// Nothing more.
    End,
}

impl Retained {
    /// Keeps `message` as the retained one of its topic. [MQTT-3.3.1-5]
    pub fn set(&mut self, message: Arc<Message>) {
        self.bytes += message.queue_bytes();
        if let Some(old) = self.messages.insert(message.topic().clone(), message) {
            self.bytes -= old.queue_bytes();
        }
    }

    /// Forgets the retained message of `topic`. [MQTT-3.3.1-6]
    pub fn clear(&mut self, topic: &TopicName) {
        if let Some(old) = self.messages.remove(topic) {
            self.bytes -= old.queue_bytes();
        }
    }

    /// Forgets the body of every message that `is_wanted` says. What is left keeps its place until
    /// the next one comes for the topic, and goes to nobody.
    pub(crate) fn erase(&mut self, is_wanted: impl Fn(u64) -> bool) {
        for message in self.messages.values_mut() {
            if is_wanted(message.index()) && !message.is_erased() {
                self.bytes -= message.queue_bytes();
                *message = message.erased();
                self.bytes += message.queue_bytes();
            }
        }
    }

    /// The retained message of `topic`, unless its time is over or its body erased.
    pub fn message(&self, topic: &TopicName, now: Instant) -> Option<&Arc<Message>> {
        let message = self.messages.get(topic)?;
        (!message.is_outlived(now) && !message.is_erased()).then_some(message)
    }

    /// The retained message of `topic`, whatever its time, for whoever rebuilds the past.
    pub(crate) fn stored(&self, topic: &TopicName) -> Option<&Arc<Message>> {
        self.messages.get(topic)
    }

    /// All of them, in the order of their topics.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.values()
    }

    /// Looks for the first topic behind `after` that `filter` matches, at no more than `steps`
    /// topics; takes those that it looked at off `steps`.
    pub fn scan(&self, filter: &TopicFilter, after: Option<&TopicName>, steps: &mut usize) -> Scan {
        let text = filter.as_str();
        let literal = text.split(['+', '#']).next().unwrap_or_default();
        // `a/#` also matches `a` itself, which sorts before `a/`. [MQTT-4.7.1-2]
        let literal = literal.strip_suffix('/').unwrap_or(literal);
        let start = match (after, TopicName::parse(literal)) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Ok(literal)) => Bound::Included(literal),
            (None, Err(_)) => Bound::Unbounded,
        };
        for (topic, _) in self.messages.range((start, Bound::Unbounded)) {
            *steps = steps.saturating_sub(1);
            if !topic.as_str().starts_with(literal) {
                return Scan::End;
            }
            if filter.matches(topic) {
                return Scan::Found(topic.clone());
            }
            if *steps == 0 {
                return Scan::More(topic.clone());
            }
        }
        Scan::End
    }

    /// Drops every message whose time is over; returns their topics, in order.
    pub fn expire(&mut self, now: Instant) -> Vec<TopicName> {
        let over: Vec<TopicName> = self
            .messages
            .iter()
            .filter(|(_, message)| message.is_outlived(now))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &over {
            self.clear(topic);
        }
        over
    }

    /// Keeps room for a message of `bytes` on `topic`, to be given back by [`Self::give_back`].
    pub fn reserve(&mut self, topic: &TopicName, bytes: usize) -> Reserved {
        let messages = usize::from(!self.messages.contains_key(topic));
        self.reserved.messages += messages;
        self.reserved.bytes += bytes;
        Reserved { messages, bytes }
    }

    /// Gives back what [`Self::reserve`] kept: the message is there now.
    pub fn give_back(&mut self, reserved: Reserved) {
        self.reserved.messages -= reserved.messages;
        self.reserved.bytes -= reserved.bytes;
    }

    /// Whether one more message of `bytes` on `topic` stays within the bounds.
    pub fn has_room(
        &self,
        topic: &TopicName,
        bytes: usize,
        messages_max: u32,
        bytes_max: u64,
    ) -> bool {
        let replaced = self.messages.get(topic).map(|message| message.queue_bytes());
        let messages =
            self.messages.len() + self.reserved.messages + usize::from(replaced.is_none());
        let total =
            (self.bytes + self.reserved.bytes + bytes).saturating_sub(replaced.unwrap_or(0));
        messages as u64 <= u64::from(messages_max) && total as u64 <= bytes_max
    }

    /// Bytes of all, as [`Message::queue_bytes`] counts them.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

//! Messages that are in no queue and not retained, and that a record further on may name.
//!
//! Records lag behind the entries that were being written when they were decided. So replay may
//! have let go of a message before it reads of a copy that was made of it. Two things do that:
//!
//! - A queue was full: what does not go in may be said to have gone in after all (`Queued`, `Sent`).
//! - A retained message was replaced while it was being sent to a new subscriber (`Sent`).
//!
//! Nothing else is kept: whatever else a record names stands in the queue it was routed to. The
//! invariant: each message is given up when the log has gone on for as long as a record may lag.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::evidence::erasure::IndexRanges;
use crate::mqtt::QoS;
use crate::routing::Message;

/// Messages by index, and since when they are here.
#[derive(Debug)]
pub(super) struct Nameable {
    messages: BTreeMap<u64, Kept>,
    /// Since when, and which, in this order. One that came again stands here twice.
    order: VecDeque<(u64, u64)>,
    bytes: usize,
    /// So many bytes may be recorded while a record lags.
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    since: u64,
}

impl Nameable {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { messages: BTreeMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps a message from the entry `since` on. No record names copies in QoS 0.
    pub(super) fn keep(&mut self, message: &Arc<Message>, since: u64) {
        let index = message.index();
        if message.qos() == QoS::AtMostOnce {
            return;
        }
        match self.messages.insert(index, Kept { message: Arc::clone(message), since }) {
            Some(before) if before.since == since => return,
            Some(_) => {}
            None => self.bytes += message.queue_bytes(),
        }
        self.order.push_back((since, index));
        while self.bytes > self.bytes_max && self.drop_oldest() {}
    }

    /// Forgets the bodies of these entries.
    pub(super) fn erase(&mut self, ranges: &IndexRanges) {
        for (index, kept) in &mut self.messages {
            if ranges.contains(*index) {
                self.bytes -= kept.message.queue_bytes();
                kept.message = kept.message.erased();
                self.bytes += kept.message.queue_bytes();
            }
        }
    }

    pub(super) fn get(&self, index: u64) -> Option<&Arc<Message>> {
        self.messages.get(&index).map(|kept| &kept.message)
    }

    /// Gives up what came before the entry `oldest`.
    pub(super) fn give_up(&mut self, oldest: u64) {
        while self.order.front().is_some_and(|(since, _)| *since < oldest) {
            self.drop_oldest();
        }
    }

    /// All of them and since when, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<Message>, u64)> {
        self.order.iter().filter_map(|(since, index)| {
            let kept = self.messages.get(index)?;
            (kept.since == *since).then_some((&kept.message, *since))
        })
    }

    /// False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((since, index)) = self.order.pop_front() else { return false };
        if self.messages.get(&index).is_some_and(|kept| kept.since == since)
            && let Some(kept) = self.messages.remove(&index)
        {
            self.bytes -= kept.message.queue_bytes();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{PublishProperties, TopicName};
    use crate::routing::FoundMessage;
    use crate::time::Instant;

    fn message(index: u64, qos: QoS) -> Arc<Message> {
        let found = FoundMessage {
            index,
            topic: TopicName::parse("t").unwrap(),
            qos,
            retain: false,
            author: None,
            received_at: Instant::ZERO,
            payload: bytes::Bytes::from_static(b"123456789"),
            properties: PublishProperties::default(),
            is_erased: false,
        };
        Message::recovered(found, 60)
    }

    fn held(nameable: &Nameable) -> Vec<(u64, u64)> {
        nameable.iter().map(|(message, since)| (message.index(), since)).collect()
    }

    #[test]
    fn each_is_given_up_when_no_record_can_name_it_any_more() {
        let mut nameable = Nameable::new(1_000);
        nameable.keep(&message(0, QoS::AtMostOnce), 10);
        for (index, since) in [(1, 10), (9, 10), (9, 10), (2, 20), (1, 30)] {
            nameable.keep(&message(index, QoS::AtLeastOnce), since);
        }
        assert_eq!(held(&nameable), [(9, 10), (2, 20), (1, 30)], "again means anew");
        nameable.give_up(20);
        assert_eq!(held(&nameable), [(2, 20), (1, 30)]);
        assert!(nameable.get(9).is_none() && nameable.get(1).is_some());
        nameable.give_up(31);
        assert_eq!((held(&nameable), nameable.bytes), (vec![], 0));
    }

    #[test]
    fn their_bytes_are_bounded() {
        let mut nameable = Nameable::new(30);
        for index in 0..5 {
            nameable.keep(&message(index, QoS::ExactlyOnce), index);
        }
        assert_eq!((held(&nameable), nameable.bytes), (vec![(2, 2), (3, 3), (4, 4)], 30));
    }
}

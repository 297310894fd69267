//! Erasing in the core: the bodies of some entries are forgotten, wherever they are held.
//!
//! What stays of a message keeps its place in queues and windows, as it does when a log is replayed
//! whose body is gone: so both come to the same. It is dropped, and that is recorded, where it would be
//! sent. What stays of a retained message goes to nobody; a Will is not published. Bytes that were handed to a socket
//! already are with the subscriber. The invariant: after [`Broker::erase`] nothing here holds a body
//! of those entries, and no record that follows does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::Reader;
use super::replay::Replay;
use crate::broker::Broker;
use crate::evidence::erasure::IndexRanges;
use crate::routing::{Delivery, Message};

impl Broker {
    /// Forgets the bodies of these entries.
    pub(in crate::broker) fn erase(&mut self, ranges: &IndexRanges) {
        let mut erased: BTreeMap<u64, Arc<Message>> = BTreeMap::new();
        let mut replace = |delivery: &mut Delivery| {
            let message = &delivery.message;
            // A figure of the broker's own has no entry.
            let is_of_client = !message.topic().as_str().starts_with("$SYS/");
            if !is_of_client || message.is_erased() || !ranges.contains(message.index()) {
                return None;
            }
            let left = erased.entry(message.index()).or_insert_with(|| message.erased());
            delivery.message = Arc::clone(left);
            Some(delivery.message.queue_bytes())
        };
        let keys: Vec<_> = self.session_keys.values().copied().collect();
        for key in keys {
            let Some(session) = self.sessions.get_mut(&key) else { continue };
            let before = session.outbound.held();
            session.outbound.replace(&mut replace);
            let after = session.outbound.held();
            if ranges.contains(session.connect_index) {
                session.will = None;
                session.will_due = None;
            }
            self.account(before, after);
        }
        self.retained.erase(|index| ranges.contains(index));
        if let Some(recovering) = &mut self.recovering {
            recovering.erase(ranges);
        }
    }
}

impl Replay {
    /// Forgets the bodies of these entries, as the running broker would.
    pub fn erase(&mut self, ranges: &IndexRanges) {
        self.broker.erase(ranges);
    }

    /// Keeps or clears the retained message of a topic. That an empty payload cleared it, of `bytes`
    /// when it came, does not depend on its body.
    pub(super) fn retain_again(&mut self, message: &Arc<Message>, bytes: u64) {
        if message.retain() && bytes == 0 {
            self.broker.retained.clear(message.topic());
        } else {
            self.broker.retain(message);
        }
    }
}

/// Whether a body stood beside the entry of a message, which may be erased by now: it has a commitment.
/// Texts of clients are escaped.
pub(super) fn has_body(head: &[u8]) -> bool {
    memchr::memmem::find(head, br#","c":""#).is_some()
}

/// The entry that the body beside a State record belongs to: that of the message, or the `connect`
/// entry that a Will came with. `next` is the index of the next entry.
pub fn owner_of_body(head: &[u8], next: u64) -> Option<u64> {
    let mut reader = Reader(head);
    let (_version, tag) = (reader.byte()?, reader.byte()?);
    match tag {
        super::change::ATTACHED_TAG => {
            let _key = reader.number()?;
            Some(reader.maybe()?.unwrap_or(next.saturating_sub(1)))
        }
        super::change::LEFT_TAG => reader.number(),
        _ => None,
    }
}

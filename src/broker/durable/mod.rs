//! Sessions that survive (section 4.1): what the log must tell of them, and how a broker is made of
//! a log.
//!
//! ```text
//! running   change ─► State record, behind the entry that caused it ─► disk ─► visible
//! starting  entries and State records, in order ─► Replay ─► the Broker that was
//! ```
//!
//! - A message is not recorded twice: its entry and body are in the log already. Replay routes it
//!   again, by the code that routed it, against the subscriptions that stood then, and puts it into
//!   queues: there is no connection. [`Change::Sent`] takes it out.
//! - Whatever a session is, apart from acknowledgements, changes when its record is on disk, in the
//!   order of the log: so replay, which sees nothing but that order, comes to the same.
//!   Acknowledgements change it at once; they touch only what was sent, which was recorded before.
//! - A transient session (no Session Expiry Interval, no Will) leaves no record and costs nothing.
//!
//! Policy and schemas are those of the start: a subscription that was permitted and is not any more
//! receives nothing, as everywhere. The invariant: nothing that a client has seen, and nothing that
//! was acknowledged to it, depends on what a crash can take away.

mod bytes;
mod change;
mod entry;
mod erase;
mod image;
mod nameable;
mod recovering;
mod replay;
mod signers;

pub use change::BadRecord;
pub(super) use change::{Attached, Change, CopyOf, Source};
pub use erase::owner_of_body;
pub(super) use recovering::Recovering;
pub use replay::{LogBody, LogRecord, Replay};

use super::Broker;
use crate::evidence::Body;
use crate::mqtt::{QoS, TopicFilter};
use crate::routing::{Delivery, Message, SessionKey};
use crate::time::Now;

impl Broker {
    /// Records a change of Session State. At replay it is in the log already.
    pub(super) fn note(&mut self, change: &Change) {
        if self.recovering.is_some() {
            return;
        }
        let body = change.body().map(|(payload, properties)| {
            let salt = self.salt();
            Body { salt, payload, properties }
        });
        self.ledger.note(body, |out| change.encode(out));
    }

    /// Records a message that a member of a Shared Subscription leaves, of whose copies the log does
    /// not tell: until somebody has it, it is nobody's.
    pub(super) fn note_left(&mut self, now: Now, message: &Message, group: &TopicFilter) {
        let message = Box::new(image::stored(self, now, message));
        self.note(&Change::Left { group: group.clone(), message });
    }
}

impl Change {
    /// A message for a Shared Subscription went to nobody: no member may have it.
    pub(super) fn nobodys(index: u64, group: TopicFilter) -> Self {
        let (qos, retain, identifiers) = (QoS::AtMostOnce, false, Vec::new());
        let copy = CopyOf { index, qos, retain, identifiers };
        // Whoever has it for good and is not lasting: which one does not matter.
        Self::Queued { key: SessionKey(0), group: Some(group), is_lasting: false, copy }
    }
}

impl CopyOf {
    /// What is recorded of a copy.
    pub(super) fn of(delivery: &Delivery) -> Self {
        Self {
            index: delivery.message.index(),
            qos: delivery.qos,
            retain: delivery.retain,
            identifiers: delivery.identifiers.clone(),
        }
    }
}

impl Source {
    /// Where a copy that was routed comes from.
    pub(super) fn of(delivery: &Delivery) -> Self {
        match &delivery.group {
            Some(group) => Self::Shared(group.clone()),
            None => Self::Routed,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

//! What a broker knows only while the log is read: messages whose fate stands further on.
//!
//! Records lag behind the entries that cause them by no more than what may wait for the disk. So
//! what is kept here for a later record is given up after as many entries, and bounded by that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::OwedWill;
use super::nameable::Nameable;
use crate::broker::Backlog;
use crate::evidence::erasure::IndexRanges;
use crate::mqtt::{PacketId, QoS, TopicFilter, Will};
use crate::routing::{Message, SessionKey};
use crate::session::{Author, Bounds};
use crate::time::{Now, UnixNanos};

/// Entries between two looks for what is too old to matter.
const PRUNE_EVERY: u64 = 1_024;
/// Entries that one round may record beyond the backlog's bound.
const ROUND_ENTRIES: u64 = 65_536;
/// Bytes that one round may record beyond the backlog's bound.
const ROUND_BYTES: usize = 16 << 20;

/// The state of a replay beside the broker's own.
#[derive(Debug)]
pub(in crate::broker) struct Recovering {
    /// Both clocks at one moment: how times of the log become instants.
    pub(super) base: Now,
    /// The bounds of queues that hold when the broker runs. At replay they are wider: what left a
    /// queue says so later in the log.
    pub(super) bounds: Bounds,
    lag_entries: u64,
    lag_bytes: usize,
    /// Index of the next entry.
    pub(super) position: u64,
    /// When the newest entry was written, as it says.
    pub(super) ended_at: Option<UnixNanos>,
    /// Messages of a snapshot that is being read, by index.
    pub(super) of_snapshot: BTreeMap<u64, Arc<Message>>,
    /// Messages that stand nowhere else, for records that name them.
    pub(super) nameable: Nameable,
    /// Sessions that may have retained messages to be sent yet.
    pub(super) walking: BTreeSet<SessionKey>,
    /// Sessions by the `connect` entries of their connections.
    pub(super) by_connect: BTreeMap<u64, SessionKey>,
    /// Wills that are due, by the same, until their entry comes.
    pub(super) owed: BTreeMap<u64, OwedWill>,
    /// Messages for Shared Subscriptions whose receiver is not yet known.
    pub(super) unassigned: BTreeMap<(u64, TopicFilter), Unassigned>,
    /// Copies that were sent, and may not be read under the policy of this start.
    pub(super) unreadable: BTreeMap<SessionKey, BTreeSet<PacketId>>,
}

/// A message for a Shared Subscription.
#[derive(Clone, Debug)]
pub(super) struct Unassigned {
    pub(super) message: Arc<Message>,
    /// Index of the entry at which it was known to be nobody's.
    pub(super) since: u64,
    /// Who had sent it in QoS 1, and under which identifier, before its session ended.
    pub(super) sent: Option<(SessionKey, PacketId)>,
}

impl Recovering {
    pub(super) fn new(base: Now, bounds: Bounds, backlog: Backlog) -> Self {
        let lag_bytes = 2 * backlog.bytes_max + ROUND_BYTES;
        Self {
            base,
            bounds,
            lag_entries: 2 * backlog.records_max as u64 + ROUND_ENTRIES,
            lag_bytes,
            position: 0,
            ended_at: None,
            of_snapshot: BTreeMap::new(),
            nameable: Nameable::new(lag_bytes),
            walking: BTreeSet::new(),
            by_connect: BTreeMap::new(),
            owed: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// The bounds of queues while the log is read.
    pub(super) fn wide_bounds(&self) -> Bounds {
        let bounds = self.bounds;
        let lag = u32::try_from(self.lag_entries).unwrap_or(u32::MAX);
        let lag_bytes = self.lag_bytes as u64;
        Bounds {
            queue_messages_max: bounds.queue_messages_max.saturating_mul(2).saturating_add(lag),
            queue_bytes_max: bounds.queue_bytes_max.saturating_mul(2).saturating_add(lag_bytes),
            queue_total_messages_max: u64::MAX,
            queue_total_bytes_max: u64::MAX,
            ..bounds
        }
    }

    /// A message whose receiver in `group` stands further on; `sent` if a member had sent it, and
    /// ended.
    pub(in crate::broker) fn leave_unassigned(
        &mut self,
        message: &Arc<Message>,
        group: TopicFilter,
        sent: Option<(SessionKey, PacketId)>,
    ) {
        if message.qos() > QoS::AtMostOnce {
            let (message, since) = (Arc::clone(message), self.position);
            self.unassigned.insert((message.index(), group), Unassigned { message, since, sent });
        }
    }

    /// A session sent its copy, and ended: before this, in the log, and after it, in truth. In
    /// QoS 2 nobody else gets the message any more. [MQTT-4.8.2-5]
    pub(super) fn sent_by_ended(
        &mut self,
        sent: (SessionKey, PacketId),
        qos: QoS,
        place: &(u64, TopicFilter),
    ) {
        if qos == QoS::ExactlyOnce {
            self.unassigned.remove(place);
        } else if let Some(unassigned) = self.unassigned.get_mut(place) {
            unassigned.sent = Some(sent);
        }
    }

    /// What a session had sent was acknowledged: before it ended, in truth.
    pub(super) fn acknowledged_to_ended(&mut self, sent: (SessionKey, PacketId)) {
        self.unassigned.retain(|_, unassigned| unassigned.sent != Some(sent));
    }

    /// A Will that is due. Its entry stands further on, or a crash was faster.
    pub(in crate::broker) fn owe(
        &mut self,
        connect_index: u64,
        key: SessionKey,
        author: Author,
        will: Will,
    ) {
        self.owed.insert(connect_index, OwedWill { connect_index, key, author, will });
    }

    /// Keeps a message that is in no queue for records further on.
    pub(in crate::broker) fn keep(&mut self, message: &Arc<Message>) {
        self.nameable.keep(message, self.position);
    }

    /// Forgets the bodies of these entries.
    pub(super) fn erase(&mut self, ranges: &IndexRanges) {
        for message in self.of_snapshot.values_mut().filter(|it| ranges.contains(it.index())) {
            *message = message.erased();
        }
        self.nameable.erase(ranges);
        for ((index, _), unassigned) in &mut self.unassigned {
            if ranges.contains(*index) {
                unassigned.message = unassigned.message.erased();
            }
        }
        self.owed.retain(|connect_index, _| !ranges.contains(*connect_index));
    }

    /// The message that a record or a snapshot means by `index`, if it is in no queue.
    pub(super) fn named(&self, index: u64) -> Option<Arc<Message>> {
        self.of_snapshot.get(&index).or_else(|| self.nameable.get(index)).cloned()
    }

    /// The log has come to `position`: gives up what no record can name any more.
    pub(super) fn advance(&mut self, position: u64) {
        self.position = position;
        if position.is_multiple_of(PRUNE_EVERY) {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let oldest = self.position.saturating_sub(self.lag_entries);
        self.nameable.give_up(oldest);
        self.unassigned.retain(|_, unassigned| unassigned.since >= oldest);
    }
}

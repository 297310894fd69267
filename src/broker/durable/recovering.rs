//! What a broker knows only while the log is read: messages whose fate stands further on.
//!
//! Records lag behind the entries that cause them by no more than what may wait for the disk. So
//! what is kept here for a later record is given up after as many entries, and bounded by that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::OwedWill;
use crate::broker::Backlog;
use crate::mqtt::{PacketId, QoS, TopicFilter, Will};
use crate::routing::{Message, SessionKey};
use crate::session::{Author, Bounds};
use crate::time::{Instant, Now, UnixNanos};

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
    recent_bytes_max: usize,
    /// Index of the next entry.
    pub(super) position: u64,
    /// Sessions by the `connect` entries of their connections.
    pub(super) by_connect: BTreeMap<u64, SessionKey>,
    /// Wills that are due, by the same, until their entry comes.
    pub(super) owed: BTreeMap<u64, OwedWill>,
    /// Messages for Shared Subscriptions whose receiver is not yet known.
    pub(super) unassigned: BTreeMap<(u64, TopicFilter), Unassigned>,
    /// The newest messages by index, for records that name one which is in no queue.
    pub(super) recent: BTreeMap<u64, Arc<Message>>,
    recent_bytes: usize,
    /// Copies that were sent, and may not be read under the policy of this start.
    pub(super) unreadable: BTreeMap<SessionKey, BTreeSet<PacketId>>,
}

/// A message for a Shared Subscription.
#[derive(Clone, Debug)]
pub(super) struct Unassigned {
    pub(super) message: Arc<Message>,
    /// Index of the entry at which it was known to be nobody's.
    pub(super) since: u64,
}

impl Recovering {
    pub(super) fn new(base: Now, bounds: Bounds, backlog: Backlog) -> Self {
        Self {
            base,
            bounds,
            lag_entries: 2 * backlog.records_max as u64 + ROUND_ENTRIES,
            recent_bytes_max: 2 * backlog.bytes_max + ROUND_BYTES,
            position: 0,
            by_connect: BTreeMap::new(),
            owed: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            recent: BTreeMap::new(),
            recent_bytes: 0,
            unreadable: BTreeMap::new(),
        }
    }

    /// The bounds of queues while the log is read.
    pub(super) fn wide_bounds(&self) -> Bounds {
        let bounds = self.bounds;
        let lag = u32::try_from(self.lag_entries).unwrap_or(u32::MAX);
        let lag_bytes = self.recent_bytes_max as u64;
        Bounds {
            queue_messages_max: bounds.queue_messages_max.saturating_mul(2).saturating_add(lag),
            queue_bytes_max: bounds.queue_bytes_max.saturating_mul(2).saturating_add(lag_bytes),
            queue_total_messages_max: u64::MAX,
            queue_total_bytes_max: u64::MAX,
            ..bounds
        }
    }

    /// A time of the log as an instant of this process, which may lie before its start.
    pub(super) fn instant(&self, at: UnixNanos) -> Instant {
        let base = self.base.instant.as_nanos();
        let (at, now) = (at.as_nanos(), self.base.unix.as_nanos());
        Instant::from_nanos(match at.checked_sub(now) {
            Some(ahead) => base.saturating_add(ahead),
            None => base.saturating_sub(now - at),
        })
    }

    /// The other way round.
    pub(super) fn unix(&self, at: Instant) -> UnixNanos {
        let base = self.base.unix.as_nanos();
        let (at, now) = (at.as_nanos(), self.base.instant.as_nanos());
        UnixNanos::new(match at.checked_sub(now) {
            Some(ahead) => base.saturating_add(ahead),
            None => base.saturating_sub(now - at),
        })
    }

    /// A message whose receiver in `group` stands further on.
    pub(in crate::broker) fn leave_unassigned(
        &mut self,
        message: &Arc<Message>,
        group: TopicFilter,
    ) {
        if message.qos() > QoS::AtMostOnce {
            let (message, since) = (Arc::clone(message), self.position);
            self.unassigned.insert((message.index(), group), Unassigned { message, since });
        }
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

    /// Keeps a message for records further on.
    pub(super) fn remember(&mut self, message: &Arc<Message>) {
        if message.qos() == QoS::AtMostOnce && !message.retain() {
            return;
        }
        self.recent_bytes += message.queue_bytes();
        self.recent.insert(message.index(), Arc::clone(message));
        while self.recent_bytes > self.recent_bytes_max
            && let Some((_, old)) = self.recent.pop_first()
        {
            self.recent_bytes -= old.queue_bytes();
        }
    }

    /// As [`Self::remember`], for a message that a snapshot refers to.
    pub(super) fn remember_always(&mut self, message: Arc<Message>) {
        self.recent_bytes += message.queue_bytes();
        self.recent.insert(message.index(), message);
    }

    /// The log has come to `position`: gives up what no record can name any more.
    pub(super) fn advance(&mut self, position: u64) {
        self.position = position;
        if position.is_multiple_of(PRUNE_EVERY) {
            self.prune();
        }
    }

    pub(super) fn prune(&mut self) {
        let oldest = self.position.saturating_sub(self.lag_entries);
        let kept = self.recent.split_off(&oldest);
        for old in std::mem::replace(&mut self.recent, kept).into_values() {
            self.recent_bytes -= old.queue_bytes();
        }
        self.unassigned.retain(|_, unassigned| unassigned.since >= oldest);
    }
}

//! What the core keeps of one Network Connection, and of one session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::credential::Credential;
use super::input::{ConnectionFacts, ConnectionId};
use super::publish::Verifying;
use crate::identity::Identity;
use crate::mqtt::{ProtocolVersion, QoS, TopicFilter, TopicName, Will};
use crate::policy::ReceiptRule;
use crate::routing::{Delivery, SessionKey, Subscription};
use crate::session::{Aliases, Author, Inbound, Outbound, OutboundAliases, Phase};
use crate::time::{Instant, UnixNanos};

/// One Network Connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) facts: Arc<ConnectionFacts>,
    /// Who it is: from the handshake on, or from CONNECT on if a token says so.
    pub(super) identity: Option<Identity>,
    /// What says so.
    pub(super) credential: Option<Credential>,
    pub(super) phase: Phase,
    pub(super) version: Option<ProtocolVersion>,
    /// Set from CONNACK on.
    pub(super) session: Option<SessionKey>,
    /// Set from CONNECT on.
    pub(super) author: Option<Author>,
    pub(super) aliases: Aliases,
    pub(super) outbound_aliases: OutboundAliases,
    pub(super) last_heard: Instant,
    /// Until when we have asked the shell not to read it.
    pub(super) unread_until: Instant,
    pub(super) keep_alive_seconds: u32,
    /// The client's Maximum Packet Size, in bytes.
    pub(super) packet_bytes_max: usize,
    /// Request Problem Information.
    pub(super) wants_reasons: bool,
    /// What CONNECT asked for its messages, if it did.
    pub(super) receipts: Option<ReceiptRule>,
    /// QoS 1 and 2 messages of the client that we have not finished acknowledging.
    pub(super) unacknowledged: u32,
    /// QoS 1 and 2 messages of the client that we have not answered yet, with PUBACK or PUBREC.
    pub(super) unanswered: u32,
    /// Whether a 3.x client is not read because those are too many.
    pub(super) held_back: bool,
    /// The message whose signature is being checked, and what has come behind it.
    pub(super) verifying: Option<Box<Verifying>>,
    /// Whether it is not read because something waits behind that message.
    pub(super) paused_for_verdict: bool,
    /// Bytes of deliveries handed to the shell and not yet written.
    pub(super) outstanding_bytes: usize,
    /// Index of the `cert` entry of its certificate, from CONNECT on.
    pub(super) certificate_index: Option<u64>,
    /// Index of the `connect` entry, once that is on disk.
    pub(super) connect_index: Option<u64>,
    /// Running number of the entries of this connection: a gap shows.
    pub(super) entries: u64,
    /// Whether deliveries may go out: what its session sent before is on disk.
    pub(super) begun: bool,
    /// Session Expiry Interval of the client's DISCONNECT, in seconds.
    pub(super) final_expiry_seconds: Option<u32>,
}

impl Connection {
    pub(super) fn new(facts: Arc<ConnectionFacts>, now: Instant) -> Self {
        let identity = facts.certificate.as_ref().map(|certified| certified.identity.clone());
        Self {
            credential: identity.is_some().then_some(Credential::Certificate),
            identity,
            facts,
            phase: Phase::AwaitingConnect,
            version: None,
            session: None,
            author: None,
            aliases: Aliases::default(),
            outbound_aliases: OutboundAliases::default(),
            last_heard: now,
            unread_until: now,
            keep_alive_seconds: 0,
            packet_bytes_max: usize::MAX,
            wants_reasons: true,
            receipts: None,
            unacknowledged: 0,
            unanswered: 0,
            held_back: false,
            verifying: None,
            paused_for_verdict: false,
            outstanding_bytes: 0,
            certificate_index: None,
            connect_index: None,
            entries: 0,
            begun: false,
            final_expiry_seconds: None,
        }
    }

    /// A credential has come that names it.
    pub(super) fn name(&mut self, identity: Identity, credential: Credential) {
        self.identity = Some(identity);
        self.credential = Some(credential);
    }

    /// When its credential ends, if it has one.
    pub(super) fn credential_end(&self) -> Option<UnixNanos> {
        match self.credential.as_ref()? {
            Credential::Certificate => Some(self.facts.certificate.as_ref()?.not_after),
            Credential::Token { facts, .. } => Some(facts.expires()),
        }
    }

    /// Whether packets of 5.0 may be sent.
    pub(super) fn is_v5(&self) -> bool {
        self.version.is_some_and(ProtocolVersion::is_v5)
    }
}

/// Session State (section 4.1). Outlives its Network Connection by the Session Expiry Interval.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) author: Author,
    pub(super) connection: Option<ConnectionId>,
    pub(super) subscriptions: BTreeMap<TopicFilter, Subscription>,
    /// Filters that were permitted and wait for the disk, as often as they do.
    pub(super) reserved: Vec<TopicFilter>,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound<Delivery>,
    pub(super) retained: VecDeque<RetainedCursor>,
    pub(super) will: Option<Will>,
    pub(super) expiry_seconds: u32,
    /// Whether the log tells of it: it outlives its connection, or has a Will.
    pub(super) durable: bool,
    /// What the log must tell of its queue.
    pub(super) intake: Intake,
    /// When its connection ended, once that is on disk.
    pub(super) away_since: Option<Instant>,
    /// When a delayed Will is due.
    pub(super) will_due: Option<Instant>,
    /// Index of its latest `connect` entry.
    pub(super) connect_index: u64,
    /// Whether it takes one of its identity's places.
    pub(super) holds_place: bool,
}

/// What the log must tell of what goes into a queue. Mostly nothing: subscriptions and messages are
/// in it. Where a queue was full, they do not tell what went into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Everything goes in.
    Implicit,
    /// It was full, and nothing has gone in since.
    Closed,
    /// It was full: messages of batches up to this one are named when they go in.
    Explicit { until_batch: u64 },
}

impl Session {
    /// Whether it outlives its connection, so that its deliveries are recorded.
    pub(super) fn is_lasting(&self) -> bool {
        self.durable && self.expiry_seconds > 0
    }

    /// Whether a message of `qos` could leave at once, as far as the window and the queue go.
    pub(super) fn takes_now(&self, qos: QoS) -> bool {
        qos == QoS::AtMostOnce || (self.outbound.is_queue_empty() && self.outbound.has_room())
    }

    /// Whether `filter` is in force, or soon will be.
    pub(super) fn counts(&self, filter: &TopicFilter) -> bool {
        self.subscriptions.contains_key(filter) || self.reserved.contains(filter)
    }

    /// How many different filters are in force, or soon will be.
    pub(super) fn subscription_count(&self) -> usize {
        let soon: BTreeSet<&TopicFilter> = self
            .reserved
            .iter()
            .filter(|filter| !self.subscriptions.contains_key(*filter))
            .collect();
        self.subscriptions.len() + soon.len()
    }
}

/// How far the retained messages of one new subscription were sent.
#[derive(Clone, Debug)]
pub(super) struct RetainedCursor {
    pub(super) filter: TopicFilter,
    pub(super) subscription: Subscription,
    pub(super) after: Option<TopicName>,
    /// Messages from this index on are none of the walk's: they were routed when they came.
    pub(super) until: u64,
}

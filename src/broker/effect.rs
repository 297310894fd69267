//! What a peer or the rest of the broker may see only once its reason is on disk.

use super::credential::Renewal;
use super::input::ConnectionId;
use crate::evidence::Attested;
use crate::evidence::tree::Hash;
use crate::mqtt::{
    Connect, EncodedPublish, Packet, PacketId, QoS, ReasonCode, RetainHandling, TopicFilter, Will,
};
use crate::policy::ReceiptRule;
use crate::routing::{Reserved, SessionKey, Subscription};
use crate::session::Author;
use crate::time::{Instant, UnixNanos};

/// Something that waits for a batch.
#[derive(Debug)]
pub(super) enum Effect {
    /// Remember where a certificate was logged.
    CertificateLogged { x5t: [u8; 32], offset: u64 },
    /// Decide a CONNECT, which has waited for the entry of its certificate.
    Connect { connection: ConnectionId, connect: Box<Connect> },
    /// A CONNECT was accepted: make or resume the session, then CONNACK.
    Connected(Box<AcceptedConnect>),
    /// A token was accepted in place of an older one.
    Renewed(Box<Renewal>),
    /// Send a packet.
    Answer {
        connection: ConnectionId,
        packet: Packet,
        /// Whether it gives back one place of our Receive Maximum.
        frees_quota: bool,
    },
    /// Close a connection, behind what was sent to it.
    Close(ConnectionId),
    /// Route a message, then acknowledge it.
    Publish(Box<AcceptedPublish>),
    /// Put subscriptions into force, SUBACK, then retained messages.
    Subscribed {
        connection: ConnectionId,
        /// Whose bound the subscriptions count towards from their decision on.
        session: SessionKey,
        packet_id: PacketId,
        filters: Vec<DecidedFilter>,
    },
    /// Take subscriptions out of force, then UNSUBACK.
    Unsubscribed {
        connection: ConnectionId,
        session: SessionKey,
        packet_id: PacketId,
        filters: Vec<DecidedUnsubscribe>,
    },
    /// A session that the log tells of has lost its connection.
    Detached(Detachment),
    /// A session that the log tells of has come to its end, unless it was resumed meanwhile.
    Ended { session: SessionKey, connect_index: u64 },
    /// Send what a session has waiting to the connection that resumed it.
    Begin { connection: ConnectionId, session: SessionKey, window_max: u16 },
    /// Send a copy, unless its session has another connection by now.
    Deliver {
        connection: ConnectionId,
        session: SessionKey,
        publish: EncodedPublish,
        packet_id: Option<PacketId>,
    },
    /// Tell the operator.
    Administered { ticket: u64, offset: u64 },
    /// Tell the shell.
    Stopped,
}

/// A CONNECT that was accepted.
#[derive(Debug)]
pub(super) struct AcceptedConnect {
    pub(super) connection: ConnectionId,
    pub(super) author: Author,
    pub(super) connect: Box<Connect>,
    pub(super) will: Option<Will>,
    pub(super) granted: Granted,
    /// Place of its entry in the batch, while its index is not known.
    pub(super) offset: u64,
    /// Index of its entry.
    pub(super) index: Option<u64>,
    /// Key of its session, if one is made.
    pub(super) key: SessionKey,
    /// Whether the log tells of its session.
    pub(super) recorded: bool,
}

/// How a session lost its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detachment {
    pub(super) key: SessionKey,
    /// Which connection it was: the index of its `connect` entry.
    pub(super) connect_index: u64,
    pub(super) at: Instant,
    pub(super) expiry_seconds: u32,
    pub(super) publishes_will: bool,
}

/// What a CONNECT was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// Seconds that the session outlives its connection.
    pub(super) session_expiry_seconds: u32,
    /// Keep Alive in force, in seconds.
    pub(super) keep_alive_seconds: u32,
    /// Server Keep Alive to announce, if it is not the client's.
    pub(super) server_keep_alive: Option<u16>,
}

/// A PUBLISH (or a Will) that goes on to subscribers.
#[derive(Debug)]
pub(super) struct AcceptedPublish {
    pub(super) attested: Attested,
    /// Place of its entry in the batch.
    pub(super) offset: u64,
    pub(super) arrived: Instant,
    /// The publisher's session.
    pub(super) session: Option<SessionKey>,
    /// What to answer, and to whom; absent in QoS 0 and for Wills.
    pub(super) acknowledge: Option<Acknowledge>,
    /// The receipt that its author is owed, if any.
    pub(super) promised: Option<Promised>,
    /// Room among the retained messages, if it is to be one.
    pub(super) reserved: Reserved,
}

/// A receipt that is owed.
#[derive(Debug)]
pub(super) struct Promised {
    pub(super) way: ReceiptRule,
    pub(super) leaf_hash: Hash,
    /// Time of the entry.
    pub(super) time: UnixNanos,
}

/// The acknowledgement of one PUBLISH.
#[derive(Debug)]
pub(super) struct Acknowledge {
    pub(super) connection: ConnectionId,
    pub(super) packet_id: PacketId,
    pub(super) qos: QoS,
    pub(super) reason: ReasonCode,
    pub(super) reason_string: Option<String>,
}

/// One filter of a SUBSCRIBE, decided.
#[derive(Debug)]
pub(super) struct DecidedFilter {
    pub(super) reason: ReasonCode,
    /// Why it was refused, for a client that may be told.
    pub(super) reason_string: Option<String>,
    /// The subscription, if it was permitted.
    pub(super) subscription: Option<(TopicFilter, Subscription, RetainHandling)>,
    /// Place in the batch of the entry behind its own.
    pub(super) offset: u64,
}

/// One filter of an UNSUBSCRIBE, decided.
#[derive(Debug)]
pub(super) enum DecidedUnsubscribe {
    /// Remove it.
    Remove(TopicFilter),
    /// It is no filter.
    Refuse(ReasonCode),
}

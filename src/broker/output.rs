//! Everything a [`super::Broker`] can ask of the shell.

use std::sync::Arc;

use super::input::ConnectionId;
use crate::evidence::{Batch, BatchId, VerifyJob};
use crate::identity::Identity;
use crate::mqtt::{EncodedPublish, Packet, PacketId};

/// One request to the shell. Those for one connection are carried out in order.
#[derive(Debug)]
pub enum Output {
    /// Encode and send this packet.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The packet.
        packet: Packet,
    },
    /// Send one copy of a PUBLISH that was encoded for many.
    Deliver {
        /// The connection.
        connection: ConnectionId,
        /// The shared bytes.
        publish: EncodedPublish,
        /// DUP of this copy.
        dup: bool,
        /// Packet Identifier of this copy.
        packet_id: Option<PacketId>,
    },
    /// Stop reading from this connection.
    Pause {
        /// The connection.
        connection: ConnectionId,
    },
    /// Read from this connection (again).
    Resume {
        /// The connection.
        connection: ConnectionId,
    },
    /// Send what is queued, then close. [`super::Input::Closed`] answers it.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Check this signature, on any thread; [`super::Input::Verified`] answers it. A connection has
    /// one at a time.
    Verify {
        /// The connection.
        connection: ConnectionId,
        /// The work.
        job: VerifyJob,
    },
    /// Bring this batch to disk; [`super::Input::Sequenced`] answers it.
    Sequence {
        /// Its name.
        id: BatchId,
        /// Its records.
        batch: Batch,
    },
    /// The administration with this ticket is on disk at `index` of the log.
    Administered {
        /// The ticket.
        ticket: u64,
        /// Index of its entry.
        index: u64,
    },
    /// Something an operator may want to read in the log of the process.
    Event(Event),
    /// After [`super::Input::Stop`]: every entry is on disk, every connection told.
    Stopped,
}

/// A notable event, for structured logs. Never holds a payload. Accepted publishes are counted
/// ([`super::Counters`]), not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The decision id, which stands in the entry and in the Reason String too.
    pub decision: String,
    /// Who, if anybody is known.
    pub identity: Option<Identity>,
    /// Client Identifier, as entries hold it, perhaps as the client sent it: escape before showing.
    pub client_id: Option<String>,
    /// From where, if it concerns a connection, as entries hold it.
    pub peer: Option<String>,
    /// Topic Name or Topic Filter, as the client sent it: escape before showing.
    pub topic: Option<String>,
    /// Stable name of the reason.
    pub reason: Option<&'static str>,
    /// Rule or schema that decided.
    pub by: Option<Arc<str>>,
}

/// The closed list of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A session began or was resumed.
    Connected,
    /// A CONNECT was refused.
    ConnectRefused,
    /// A handshake was refused.
    HandshakeRefused,
    /// A session lost its connection.
    Disconnected,
    /// A session was renewed by a new token.
    Reauthenticated,
    /// The token that should renew a session was refused.
    ReauthRefused,
    /// A subscription was refused.
    SubscribeRefused,
    /// A publish was refused.
    PublishRefused,
    /// A publish was quarantined.
    Quarantined,
    /// A Will was published.
    WillPublished,
    /// A Will was refused at publication.
    WillRefused,
    /// A peer broke the protocol.
    Violated,
    /// The wall clock was set.
    ClockStepped,
}

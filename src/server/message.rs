//! What threads of the server tell each other.
//!
//! Every message that crosses threads goes through one channel per shard, so a shard's thread is
//! woken once for as many as have come. The channel itself is unbounded; each kind of message is
//! bounded where it is sent, as its variant says.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::socket::Handshaken;
use crate::broker::{Administration, ConnectionFacts, ConnectionId, Counters};
use crate::evidence::erasure::IndexRanges;
use crate::evidence::{PseudonymKey, Synced, Verified};
use crate::time::{Instant, UnixNanos};

/// To a shard.
pub(super) enum Message {
    /// When a handshake is done. Bounded by `connections_max`: it carries its permit.
    Opened(Box<Opened>),
    /// When the writer has batches on disk. Bounded by the backlog of the core.
    Sequenced(Vec<Synced>),
    /// When signatures were looked at. Bounded by the connections: each has one at a time.
    Verified(Vec<(ConnectionId, Verified)>),
    /// When a handshake was refused. Bounded by [`super::listener::REFUSALS_QUEUED_MAX`].
    HandshakeRefused(RefusedHandshake),
    /// When clients were told Server busy because the log was being read. Sent once.
    StartRefused {
        /// How many CONNECT packets.
        count: u64,
        /// When the first came.
        since: UnixNanos,
    },
    /// When an operator did something. Bounded by the clients of the admin socket.
    Administered {
        /// The act; the shard chooses the ticket.
        administration: Administration,
        /// Told the index of its entry.
        reply: Reply<u64>,
    },
    /// When bodies are to be erased. Bounded by the clients of the admin socket.
    Erase {
        /// Indices of their entries.
        ranges: Arc<IndexRanges>,
        /// What is recorded of it; the shard chooses the ticket.
        administration: Administration,
        /// Told the index of its entry, when nothing that holds them is on its way any more.
        reply: Reply<u64>,
    },
    /// When pseudonyms get another key. Sent once in a rotation.
    PseudonymKey(Arc<PseudonymKey>),
    /// When somebody wants to see the counters. Bounded by the clients who ask.
    Snapshot(Reply<ShardSnapshot>),
    /// When the server stops. Sent once.
    Stop,
}

/// How to answer a message: called on the shard's thread, so it must not block.
pub(super) type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// A connection on its way from the acceptor to its shard.
pub(super) struct Opened {
    pub(super) connection: ConnectionId,
    pub(super) facts: Arc<ConnectionFacts>,
    pub(super) connect_deadline: Instant,
    pub(super) handshaken: Handshaken,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A handshake that was refused.
#[derive(Debug)]
pub(super) struct RefusedHandshake {
    pub(super) peer: SocketAddr,
    pub(super) reason: &'static str,
    /// Held until the core knows.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What one shard says of itself.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    /// What the core counted.
    pub counters: Counters,
    /// Whether sockets are not read because too much waits for the disk.
    pub backlogged: bool,
    /// Whether it was told to stop.
    pub stopping: bool,
}

/// The ways to every shard.
#[derive(Clone)]
pub(super) struct Shards(Arc<[UnboundedSender<Message>]>);

impl Shards {
    /// Channels to `count` shards, at least one.
    pub(super) fn channels(count: u16) -> (Self, Vec<UnboundedReceiver<Message>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count.max(1)).map(|_| tokio::sync::mpsc::unbounded_channel()).unzip();
        (Self(senders.into()), receivers)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Sends to the shard with this number; a message to a shard that has ended is dropped.
    pub(super) fn send(&self, shard: usize, message: Message) {
        if let Some(sender) = self.0.get(shard) {
            let _ = sender.send(message);
        }
    }

    /// Sends to the shard that serves whatever hashes to `hash`.
    pub(super) fn send_hashed(&self, hash: u64, message: Message) {
        let count = u64::try_from(self.0.len()).unwrap_or(1).max(1);
        self.send(usize::try_from(hash % count).unwrap_or(0), message);
    }
}

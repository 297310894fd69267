//! What a broker is made with.

use std::sync::Arc;

use crate::evidence::{Privacy, ReceiptSigner};
use crate::identity::TokenKeys;
use crate::limits::LimitsConfig;
use crate::policy::Policy;
use crate::schema::Schemas;
use crate::session::Bounds;

/// What a [`super::Broker`] needs to know for its whole life.
#[derive(Clone)]
pub struct Settings {
    /// Name of this node, field `node` of every entry.
    pub node: Arc<str>,
    /// Number of this shard.
    pub shard: u16,
    /// Bounds of sessions and messages.
    pub bounds: Bounds,
    /// What may wait for the disk before sockets are no longer read.
    pub backlog: Backlog,
    /// The keys whose tokens name those who come without a certificate.
    pub tokens: Arc<TokenKeys>,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// The schemas in force.
    pub schemas: Arc<Schemas>,
    /// Limits per class and per address.
    pub limits: LimitsConfig,
    /// What entries hold of addresses and Client Identifiers.
    pub privacy: Privacy,
    /// What signs receipts; without it nobody is given one.
    pub receipts: Option<Arc<ReceiptSigner>>,
    /// What the broker says of itself.
    pub about: About,
    /// What statements of devices must say, and how many devices may sign.
    pub statements: StatementBounds,
    /// SHA-256 of the configuration file, for the `config` entry.
    pub config_sha256: [u8; 32],
    /// Randomness for salts, decision ids and assigned Client Identifiers. Must be fresh at every
    /// start, and secret.
    pub seed: [u8; 32],
}

/// What is asked of devices that sign their messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementBounds {
    /// The origin of our log: whom a statement must be for.
    pub audience: Arc<str>,
    /// How far the time of a statement may be from ours before its entry says so, or the rule
    /// refuses it; in seconds.
    pub clock_seconds: u32,
    /// Most devices whose sequence numbers are remembered. They are never forgotten: each takes
    /// some 3 KiB.
    pub signers_max: u32,
    /// Most messages of all devices that wait for a cover; each takes some 60 bytes.
    pub links_max: u32,
    /// How long a message may wait for its cover before a rule that says `batched` takes no more of
    /// its device; in seconds.
    pub cover_within_seconds: u32,
}

impl Default for StatementBounds {
    fn default() -> Self {
        Self {
            audience: "plant".into(),
            clock_seconds: 300,
            signers_max: 65_536,
            links_max: 1 << 20,
            cover_within_seconds: 600,
        }
    }
}

/// What the broker says of itself, and where it sends its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Seconds from one publication of `$SYS/broker/…` to the next; 0 is never.
    pub sys_interval_seconds: u32,
    /// Server Reference: where clients are sent when the broker stops (section 4.11). They get
    /// DISCONNECT with Use another server (0x9C) then.
    pub server_reference: Option<Arc<str>>,
}

impl Default for About {
    fn default() -> Self {
        Self { sys_interval_seconds: 10, server_reference: None }
    }
}

/// Bound of what waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Records.
    pub records_max: usize,
    /// Bytes of heads and bodies.
    pub bytes_max: usize,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { records_max: 65_536, bytes_max: 64 * 1024 * 1024 }
    }
}

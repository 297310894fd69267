//! What a broker is made with.

use std::sync::Arc;

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
    /// SHA-256 of the configuration file, for the `config` entry.
    pub config_sha256: [u8; 32],
    /// Randomness for salts, decision ids and assigned Client Identifiers. Must be fresh at every
    /// start, and secret.
    pub seed: [u8; 32],
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

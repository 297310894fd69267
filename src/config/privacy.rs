//! `[privacy]`: what entries hold of addresses and Client Identifiers, and how long it can be read.
//!
//! The keys stand in files of their own, which [`crate::cli`] makes and destroys. All of it has a
//! default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::section::Section;
use super::sections::{At, DAY, Found};
use crate::evidence::Shown;

const PRIVACY: &[&str] = &["peer_address", "client_id", "keys", "rotate", "connection_facts"];

/// Every field, for the test that the shipped file shows them all.
#[cfg(test)]
pub(super) const EVERY_FIELD: &[&str] = PRIVACY;

/// `[privacy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    /// How addresses of peers stand in entries and in the log of the process.
    pub peer_address: Shown,
    /// How Client Identifiers do.
    pub client_id: Shown,
    /// The directory of the keys of pseudonyms.
    pub keys: PathBuf,
    /// How long one key is used.
    pub rotate: Duration,
    /// How long a key is kept after its last use; then nobody can tell any more whose its
    /// pseudonyms were.
    pub connection_facts: Duration,
}

/// Reads `[privacy]`; all of it is the default where there is none.
pub(super) fn read(at: Option<At<'_>>, dir: &Path, problems: &mut Found) -> Privacy {
    let empty = DeTable::new();
    let (table, span) = at.unwrap_or((&empty, 0..0));
    let mut s = Section::new(table, span, "[privacy]", PRIVACY, problems);
    let days = |count: u64| Duration::from_secs(count * DAY);
    let address = [("pseudonym", Shown::Pseudonym), ("plain", Shown::Plain), ("none", Shown::None)];
    let client = [("plain", Shown::Plain), ("pseudonym", Shown::Pseudonym)];
    Privacy {
        peer_address: s.choice("peer_address", Shown::Pseudonym, &address),
        client_id: s.choice("client_id", Shown::Plain, &client),
        keys: s.path("keys", "certs/pseudonyms", dir),
        rotate: s.duration("rotate", days(30), days(1)..=days(365)),
        connection_facts: s.duration("connection_facts", days(90), days(1)..=days(3_650)),
    }
}

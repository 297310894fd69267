//! `[evidence.witness]`: whether witnesses are asked, and which policy says whom.
//!
//! Who the witnesses are, where they are and how many are enough stands in the policy file alone,
//! so that whoever checks a proof reads the same file as the broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::Section;
use super::sections::{At, Found};

pub(super) const WITNESS: &[&str] = &["policy", "ca", "interval", "timeout"];

/// `[evidence.witness]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessConfig {
    /// The policy file: the logs, the witnesses with their URLs, the quorum.
    pub policy: PathBuf,
    /// PEM: whom to trust behind `https`.
    pub ca: Option<PathBuf>,
    /// Shortest time between two rounds of asking.
    pub interval: Duration,
    /// Longest time for one answer.
    pub timeout: Duration,
}

pub(super) fn read((table, span): At<'_>, dir: &Path, problems: &mut Found) -> WitnessConfig {
    let mut s = Section::new(table, span, "[evidence.witness]", WITNESS, problems);
    let seconds = Duration::from_secs;
    let ca = s.text("ca", "a path", "\"certs/witness-ca.pem\"", |text| !text.is_empty());
    WitnessConfig {
        policy: s.path("policy", "witness.policy", dir),
        ca: ca.map(|ca| dir.join(ca)),
        interval: s.duration("interval", seconds(10), seconds(1)..=seconds(3_600)),
        timeout: s.duration("timeout", seconds(10), Duration::from_millis(100)..=seconds(60)),
    }
}

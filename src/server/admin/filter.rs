//! Which entries a reading of the log is about, as JSON.

use serde::{Deserialize, Serialize};

/// Conditions that an entry must satisfy, all that are given. Topics, decisions and levels are judged
/// by whoever answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFilter {
    /// The peer, as `role/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The peer, or whom an operator's act was about, as `role/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Type of the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Topic Filter that the entry's topic matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// `allow` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Why it was refused, or the session ended: a name, or a family (`limit.*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The level of evidence: `A0`, `A1` or `A2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Not before this wall-clock time, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_unix_nanos: Option<u64>,
    /// Before this wall-clock time, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_unix_nanos: Option<u64>,
    /// Behind the entry of this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Before the entry of this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// Which of many entries are answered, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOrder {
    /// The newest, the newest last.
    #[default]
    Latest,
    /// The newest, the newest first.
    Newest,
    /// The oldest, the oldest first.
    Oldest,
}

/// How counts are divided by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPeriod {
    /// By hours.
    #[default]
    Hour,
    /// By days, in UTC.
    Day,
}

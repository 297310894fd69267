//! What one can ask of the log, and whether an entry answers it.
//!
//! Pure: an entry's JSON in, a yes or no out. The invariant: an entry that cannot be read, or
//! lacks a field that is asked for, does not fit.

use std::borrow::Cow;

use crate::mqtt::{TopicFilter, TopicName};
use crate::time::UnixNanos;

/// Whether it was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entry says `allow`.
    Allow,
    /// The entry says `deny`.
    Deny,
}

/// Which end of the log comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The newest entry first.
    #[default]
    NewestFirst,
    /// The oldest entry first.
    OldestFirst,
}

/// What to look for; an entry must fit everything that is given.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The peer, `<role>/<name>`.
    pub who: Option<String>,
    /// The Topic Name of the entry must match.
    pub topic: Option<TopicFilter>,
    /// The type of the entry.
    pub kind: Option<String>,
    /// The result.
    pub outcome: Option<Outcome>,
    /// Not before this time.
    pub since: Option<UnixNanos>,
    /// Before this time.
    pub until: Option<UnixNanos>,
    /// Most entries to answer with; at most [`super::index::QUERY_ENTRIES_MAX`].
    pub limit: usize,
    /// Which come first.
    pub order: Order,
}

/// The fields of an entry that a query looks at.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Facts<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    pub(super) t: u64,
    #[serde(borrow)]
    pub(super) who: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) result: Option<Cow<'a, str>>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
}

impl Query {
    /// Whether `json` is an entry that fits everything that is given.
    pub(super) fn fits(&self, json: &[u8]) -> bool {
        let Ok(facts) = serde_json::from_slice::<Facts<'_>>(json) else { return false };
        let is = |wanted: Option<&str>, value: Option<&str>| wanted.is_none() || wanted == value;
        let is_simple_fit = is(self.who.as_deref(), facts.who.as_deref())
            && is(self.kind.as_deref(), Some(&facts.kind))
            && is(self.outcome.map(Outcome::as_str), facts.result.as_deref())
            && self.since.is_none_or(|since| facts.t >= since.as_nanos())
            && self.until.is_none_or(|until| facts.t < until.as_nanos());
        let is_topic_fit = |filter: &TopicFilter| {
            let topic = facts.topic.as_deref().and_then(|topic| TopicName::parse(topic).ok());
            topic.is_some_and(|topic| filter.matches(&topic))
        };
        is_simple_fit && self.topic.as_ref().is_none_or(is_topic_fit)
    }
}

impl Outcome {
    /// As the entry says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

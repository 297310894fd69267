//! Freshness: what a payload's own time and number say, for devices that do not sign.
//!
//! A schema may name where in its payloads a time and a sequence stand. What is out of bounds is
//! flagged in the entry, or refused. The broker believes the payload here: a device that lies about
//! its time is not found out, a message that somebody held back or sent twice is. A Will has no
//! freshness: it was composed at CONNECT.
//!
//! Invariant: a detail names a place and a bound, never a value.

mod read;
mod time;

pub(super) use read::{check_pointer, read_time};
pub(super) use time::TimeRule;

use serde_json::Value;

use crate::refusal::Refusal;
use crate::time::UnixNanos;

/// What a schema asks of the freshness of its payloads.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) time: Option<TimeRule>,
}

/// What happens to a message that is not fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnStale {
    /// Its entry says so, and it goes on.
    Flag,
    /// It is refused.
    Refuse,
}

/// Something to note about a message: one word in the field `flags` of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// Its time is further back than its schema lets it be: stored and forwarded, or held back.
    Late,
    /// Its time is further ahead than its schema lets it be: a clock is wrong.
    Early,
    /// Where its schema looks for a time there is none.
    Undated,
}

impl Flag {
    /// The word in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Early => "early",
            Self::Undated => "undated",
        }
    }

    /// How a message is refused that may not have this flag.
    pub(super) const fn refusal(self) -> Refusal {
        match self {
            Self::Late => Refusal::PayloadLate,
            Self::Early => Refusal::PayloadEarly,
            Self::Undated => Refusal::PayloadUndated,
        }
    }
}

/// What was found about the freshness of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    time: Option<Flag>,
}

impl Freshness {
    /// The words for its entry; none if there is nothing to note.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.time.into_iter()
    }
}

/// A place and what holds there, for a refusal.
fn detail(pointer: &str, bound: &str) -> Box<str> {
    let detail = format!("{}: {bound}", super::mask::shown(pointer));
    super::json::clip(&detail).into()
}

impl Rules {
    /// Judges the payload `value` that came at `now`.
    ///
    /// # Errors
    /// Why it is refused, with the place and the bound.
    pub(super) fn judge(
        &self,
        value: &Value,
        now: UnixNanos,
    ) -> Result<Freshness, (Refusal, Box<str>)> {
        let time = match &self.time {
            None => None,
            Some(rule) => rule.judge(value, now)?,
        };
        Ok(Freshness { time })
    }
}

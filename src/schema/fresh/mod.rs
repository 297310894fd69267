//! Freshness: what a payload's own time and number say, for devices that do not sign.
//!
//! A schema may name where in its payloads a time and a sequence stand. What is out of bounds is
//! flagged in the entry, or refused. The broker believes the payload here: a device that lies about
//! its time is not found out, a message that somebody held back or sent twice is. A Will has no
//! freshness: it was composed at CONNECT.
//!
//! Invariant: a detail names a place and a bound, never a value.

mod read;
mod sequence;
mod time;

pub(super) use read::{check_pointer, read_bounds, read_rules};
pub use sequence::{SequenceBounds, Sequences, StoredWindow};

use serde_json::Value;

use self::sequence::{Numbered, SequenceRule, Sighting};
use self::time::TimeRule;

use crate::refusal::Refusal;
use crate::time::UnixNanos;

/// What a schema asks of the freshness of its payloads.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    time: Option<TimeRule>,
    sequence: Option<SequenceRule>,
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
    /// Nothing is known of what its device numbered before on this topic.
    First,
    /// Numbers before it have not come.
    Gap,
    /// It is one that came before, sent again because its acknowledgement was lost.
    Resend,
    /// Its number was used by the same payload, or is too far back to tell.
    Replay,
    /// Its number was used by another payload.
    Conflict,
    /// Where its schema looks for a number there is none.
    Unnumbered,
}

impl Flag {
    /// The word in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Early => "early",
            Self::Undated => "undated",
            Self::First => "first",
            Self::Gap => "gap",
            Self::Resend => "resend",
            Self::Replay => "replay",
            Self::Conflict => "conflict",
            Self::Unnumbered => "unnumbered",
        }
    }

    /// How a message is refused that may not have this flag; `None` if that is no reason to refuse
    /// one.
    const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Late => Some(Refusal::PayloadLate),
            Self::Early => Some(Refusal::PayloadEarly),
            Self::Undated => Some(Refusal::PayloadUndated),
            Self::Replay => Some(Refusal::PayloadReplayed),
            Self::Conflict => Some(Refusal::PayloadConflicting),
            Self::Unnumbered => Some(Refusal::PayloadUnnumbered),
            Self::First | Self::Gap | Self::Resend => None,
        }
    }
}

/// What was found about the freshness of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    time: Option<Flag>,
    sequence: Option<Flag>,
    number: Option<u64>,
    missing: u64,
}

impl Freshness {
    /// The number that the payload states, if its schema asks for one and it was not refused.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// How many numbers were left out before it.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The words for its entry; none if there is nothing to note.
    pub fn flags(&self) -> impl Iterator<Item = Flag> {
        self.time.into_iter().chain(self.sequence)
    }
}

/// A place and what holds there, for a refusal.
fn detail(pointer: &str, bound: &str) -> Box<str> {
    let detail = format!("{}: {bound}", super::mask::shown(pointer));
    super::json::clip(&detail).into()
}

/// What the rules look at beside the payload's own value.
pub(super) struct Looked<'a> {
    pub(super) value: &'a Value,
    /// The payload as it came.
    pub(super) payload: &'a [u8],
    /// `role/name` of the device.
    pub(super) who: &'a str,
    pub(super) topic: &'a str,
    pub(super) dup: bool,
    /// When it came.
    pub(super) now: UnixNanos,
}

impl Rules {
    /// Whether numbers are asked for.
    pub(super) fn has_sequence(&self) -> bool {
        self.sequence.is_some()
    }

    /// Judges a message, and enters its number unless it is refused.
    ///
    /// # Errors
    /// Why it is refused, with the place and the bound.
    pub(super) fn judge(
        &self,
        looked: &Looked<'_>,
        sequences: &mut Sequences,
    ) -> Result<Freshness, (Refusal, Box<str>)> {
        let mut freshness = Freshness::default();
        if let Some(rule) = &self.time {
            freshness.time = rule.judge(looked.value, looked.now)?;
        }
        // Last, because it is what a message that is refused must not do.
        if let Some(rule) = &self.sequence {
            freshness.number = rule.read(looked.value);
            let sighting = freshness.number.map(|number| {
                let print = sequences.print(looked.payload);
                let message = Numbered { number, print, dup: looked.dup };
                sequences.see((looked.who, looked.topic), message, rule.window)
            });
            if let Some(Sighting::Gap { missing }) = sighting {
                freshness.missing = missing;
            }
            freshness.sequence = rule.decide(sighting)?;
        }
        Ok(freshness)
    }

    /// Enters a number again that the log tells of. `payload` may be erased.
    pub(super) fn enter_again(
        &self,
        device_and_topic: (&str, &str),
        number: u64,
        payload: Option<&[u8]>,
        sequences: &mut Sequences,
    ) {
        if let Some(rule) = &self.sequence {
            let print = payload.map_or(0, |payload| sequences.print(payload));
            let message = Numbered { number, print, dup: false };
            let _sighting = sequences.see(device_and_topic, message, rule.window);
        }
    }
}

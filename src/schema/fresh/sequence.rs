//! Numbers that payloads say of themselves: which ones were seen, for each device and topic.
//!
//! ```text
//!  nothing known ──────────────────► first     (nothing to compare with)
//!  one past the highest ───────────► in order
//!  further ahead ──────────────────► gap       (some never arrived, or come later)
//!  inside the window, not seen ────► fills     (it was overtaken)
//!  seen, same payload, DUP ────────► resend    (the acknowledgement was lost)
//!  seen, same payload, no DUP ─────► replay
//!  seen, other payload ────────────► conflict
//!  behind the window ──────────────► replay    (cannot be told from one)
//! ```
//!
//! The table is bounded: the topic that had nothing new for longest makes room, first among the
//! device's own, so that one device cannot make another be forgotten. What was forgotten begins
//! again as `first`, which its entry shows.
//!
//! It survives a restart: the number stands in the entry, and a replay enters it again. A snapshot
//! holds no trace of payloads, which may be erased: behind one, what was seen is known without its
//! payload, and DUP alone tells a resend from a replay.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use super::{Flag, OnStale};
use crate::refusal::Refusal;

/// Numbers that a window can hold.
pub(super) const WINDOW_MAX: u64 = 64;

/// Where the number stands, and how far behind the highest it may come.
#[derive(Clone, Debug)]
pub(super) struct SequenceRule {
    pub(super) pointer: String,
    /// 1 to [`WINDOW_MAX`]; 1 takes numbers in rising order only.
    pub(super) window: u64,
    pub(super) on_failure: OnStale,
}

/// Most topics that numbers are remembered of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceBounds {
    /// Of all devices together.
    pub topics_max: usize,
    /// Of one device.
    pub device_topics_max: usize,
}

impl Default for SequenceBounds {
    fn default() -> Self {
        Self { topics_max: 65_536, device_topics_max: 64 }
    }
}

/// What a number was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    First,
    InOrder,
    Gap { missing: u64 },
    Fills,
    Resend,
    Replay,
    Conflict,
}

/// The numbers of one topic of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    highest: u64,
    /// Bit `i` is set if `highest - i` was seen.
    seen: u64,
    /// What its payloads were, by number modulo the window; 0 is not known.
    prints: Box<[u64; WINDOW_MAX as usize]>,
    /// When a number was last entered: counts all that were.
    used: u64,
}

/// A message as a window looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    pub(super) number: u64,
    /// Of its payload; 0 is not known.
    pub(super) print: u64,
    pub(super) dup: bool,
}

impl Window {
    fn first(message: Numbered) -> Self {
        let prints = Box::new([0; WINDOW_MAX as usize]);
        let mut window = Self { highest: message.number, seen: 1, prints, used: 0 };
        window.keep(message);
        window
    }

    fn judge(&self, message: Numbered, width: u64) -> Sighting {
        if let Some(ahead) = message.number.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            return match ahead {
                1 => Sighting::InOrder,
                _ => Sighting::Gap { missing: ahead - 1 },
            };
        }
        let behind = self.highest - message.number;
        if behind >= width.min(WINDOW_MAX) {
            return Sighting::Replay;
        }
        if self.seen >> behind & 1 == 0 {
            return Sighting::Fills;
        }
        let print = self.print(message.number);
        if print != 0 && message.print != 0 && print != message.print {
            Sighting::Conflict
        } else if message.dup {
            Sighting::Resend
        } else {
            Sighting::Replay
        }
    }

    /// Enters a message that is none of those seen.
    fn enter(&mut self, message: Numbered) {
        match message.number.checked_sub(self.highest) {
            Some(ahead) => {
                for passed in 1..=ahead.min(WINDOW_MAX) {
                    self.set_print(self.highest.wrapping_add(passed), 0);
                }
                // Shifting by the width of the number is not defined.
                self.seen = if ahead < WINDOW_MAX { self.seen << ahead | 1 } else { 1 };
                self.highest = message.number;
            }
            None => self.seen |= 1 << (self.highest - message.number).min(WINDOW_MAX - 1),
        }
        self.keep(message);
    }

    fn keep(&mut self, message: Numbered) {
        self.set_print(message.number, message.print);
    }

    fn print(&self, number: u64) -> u64 {
        self.prints.get((number % WINDOW_MAX) as usize).copied().unwrap_or(0)
    }

    fn set_print(&mut self, number: u64, print: u64) {
        if let Some(place) = self.prints.get_mut((number % WINDOW_MAX) as usize) {
            *place = print;
        }
    }
}

/// Which topic of which device: `role/name` as entries say it, and the Topic Name.
type Key = (Arc<str>, Arc<str>);

/// The windows of all devices of one shard.
pub struct Sequences {
    bounds: SequenceBounds,
    /// Of the process: what is kept of a payload says nothing to whoever reads memory elsewhere.
    key: [u8; 32],
    windows: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Window>>,
    by_use: BTreeMap<u64, Key>,
    next_use: u64,
}

/// One window as a snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWindow {
    /// `role/name` of the device.
    pub who: Arc<str>,
    /// The Topic Name.
    pub topic: Arc<str>,
    /// Its highest number.
    pub highest: u64,
    /// Bit `i` is set if `highest - i` was seen; bit 0 always is.
    pub seen: u64,
}

impl Sequences {
    /// No number seen. `seed` is of this start, and secret.
    pub fn new(bounds: SequenceBounds, seed: &[u8; 32]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"avow sequences");
        context.update(seed);
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        let (windows, by_use) = (BTreeMap::new(), BTreeMap::new());
        Self { bounds, key, windows, by_use, next_use: 0 }
    }

    /// Judges a message and, unless its number was seen, enters it.
    pub(super) fn see(
        &mut self,
        (who, topic): (&str, &str),
        message: Numbered,
        width: u64,
    ) -> Sighting {
        let known = self.windows.get_mut(who).and_then(|topics| topics.get_mut(topic));
        let Some(window) = known else {
            self.begin((who.into(), topic.into()), Window::first(message));
            return Sighting::First;
        };
        let sighting = window.judge(message, width);
        match sighting {
            Sighting::InOrder | Sighting::Gap { .. } | Sighting::Fills => window.enter(message),
            // Nothing changes: some of these are refused, and a replay does not see them.
            Sighting::First | Sighting::Resend | Sighting::Replay | Sighting::Conflict => {
                return sighting;
            }
        }
        let before = std::mem::replace(&mut window.used, self.next_use);
        if let Some(key) = self.by_use.remove(&before) {
            self.by_use.insert(self.next_use, key);
        }
        self.next_use += 1;
        sighting
    }

    /// What is kept of a payload: enough to know it again, and not 0.
    pub(super) fn print(&self, payload: &[u8]) -> u64 {
        let mut context = Context::new(&SHA256);
        context.update(&self.key);
        context.update(payload);
        let hash = context.finish();
        let mut print = [0; 8];
        for (to, from) in print.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        u64::from_be_bytes(print).max(1)
    }

    /// Every window, the one that had nothing new for longest first.
    pub fn stored(&self) -> impl Iterator<Item = StoredWindow> {
        self.by_use.values().filter_map(|(who, topic)| {
            let window = self.windows.get(who)?.get(topic)?;
            let (who, topic) = (Arc::clone(who), Arc::clone(topic));
            Some(StoredWindow { who, topic, highest: window.highest, seen: window.seen })
        })
    }

    /// Takes back what [`Self::stored`] gave, in that order.
    pub fn restore(&mut self, stored: StoredWindow) {
        let StoredWindow { who, topic, highest, seen } = stored;
        let mut window = Window::first(Numbered { number: highest, print: 0, dup: false });
        window.seen = seen | 1;
        self.forget(&(Arc::clone(&who), Arc::clone(&topic)));
        self.begin((who, topic), window);
    }

    /// How many windows there are.
    pub fn len(&self) -> usize {
        self.by_use.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_use.is_empty()
    }

    fn begin(&mut self, key: Key, mut window: Window) {
        let own = self.windows.get(&key.0);
        if own.is_some_and(|own| own.len() >= self.bounds.device_topics_max) {
            let oldest = own.and_then(|own| own.values().map(|window| window.used).min());
            self.forget_use(oldest);
        } else if self.len() >= self.bounds.topics_max {
            self.forget_use(self.by_use.keys().next().copied());
        }
        window.used = self.next_use;
        self.by_use.insert(self.next_use, key.clone());
        self.next_use += 1;
        self.windows.entry(key.0).or_default().insert(key.1, window);
    }

    fn forget_use(&mut self, used: Option<u64>) {
        if let Some(key) = used.and_then(|used| self.by_use.get(&used)).cloned() {
            self.forget(&key);
        }
    }

    fn forget(&mut self, (who, topic): &Key) {
        let Some(topics) = self.windows.get_mut(who) else { return };
        if let Some(window) = topics.remove(topic) {
            self.by_use.remove(&window.used);
        }
        if topics.is_empty() {
            self.windows.remove(who);
        }
    }
}

impl std::fmt::Debug for Sequences {
    /// How many, and nothing of its key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences").field("windows", &self.len()).finish_non_exhaustive()
    }
}

impl SequenceRule {
    /// The number that `value` states.
    pub(super) fn read(&self, value: &Value) -> Option<u64> {
        value.pointer(&self.pointer)?.as_u64()
    }

    /// What becomes of a message that was sighted like this.
    pub(super) fn decide(
        &self,
        sighting: Option<Sighting>,
    ) -> Result<Option<Flag>, (Refusal, Box<str>)> {
        // What may be refused, and in words.
        let (flag, bound) = match sighting {
            Some(Sighting::InOrder | Sighting::Fills) => return Ok(None),
            Some(Sighting::First) => return Ok(Some(Flag::First)),
            Some(Sighting::Gap { .. }) => return Ok(Some(Flag::Gap)),
            Some(Sighting::Resend) => return Ok(Some(Flag::Resend)),
            Some(Sighting::Replay) => (Flag::Replay, format!("window {}", self.window)),
            Some(Sighting::Conflict) => (Flag::Conflict, "another payload".to_owned()),
            None => (Flag::Unnumbered, "no number".to_owned()),
        };
        match (self.on_failure, flag.refusal()) {
            (OnStale::Refuse, Some(refusal)) => {
                Err((refusal, super::detail(&self.pointer, &bound)))
            }
            (OnStale::Refuse | OnStale::Flag, _) => Ok(Some(flag)),
        }
    }
}

#[cfg(test)]
mod tests;

//! The core: a value that turns inputs into outputs.
//!
//! No async, no lock, no channel, no clock, no file and no randomness of the system's in here.

mod counters;
mod input;
mod output;

use std::collections::VecDeque;

pub use counters::{BUCKETS_MICROS, Counters, Histogram};
pub use input::{Administration, CloseCause, ConnectionFacts, ConnectionId, Input};
pub use output::{Event, EventKind, Output};

use crate::time::{Instant, Now};

/// One shard of the broker.
#[derive(Debug, Default)]
pub struct Broker {
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Broker {
    /// Lets `input` happen at `now`.
    pub fn handle(&mut self, now: Now, input: Input) {
        let _ = (now, input);
    }

    /// Lets every timer that is due at `now` fire. Call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    /// Ends a round of inputs: closes the open batch and asks for its sequencing. Call it after
    /// the last `handle` of a round, before draining outputs.
    pub fn finish_round(&mut self, now: Now) {
        let _ = now;
    }

    /// The next thing the shell must do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether so much waits for the disk that sockets must not be read now.
    pub fn is_backlogged(&self) -> bool {
        false
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

//! The wall clock was set while the broker ran, or between two of its runs: an entry says so, before
//! any entry that has the new time.
//!
//! Times in the log are what the machine's clock showed, and nothing here corrects them; the order
//! of entries is that of their indices. Whether the clock was set is for the shell to find, which
//! has a second one that nobody can set.

use super::Broker;
use super::output::{Event, EventKind, Output};
use crate::evidence::EntryType;
use crate::time::{Now, UnixNanos};

/// When the wall clock was found to have been set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// While the broker ran.
    Running,
    /// At a start: the newest entry of the log is later than now.
    AtStart,
}

impl Found {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::AtStart => "start",
        }
    }
}

impl Broker {
    /// Records that the wall clock shows `now` where it should show `expected`.
    pub(super) fn record_time_step(&mut self, now: Now, expected: UnixNanos, found: Found) {
        let (step, reason, by) = match now.unix >= expected {
            true => ("forward", "clock.forward", now.unix.since(expected)),
            false => ("back", "clock.back", expected.since(now.unix)),
        };
        self.counters.clock_steps += 1;
        let decision = self.decide();
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.record(now, EntryType::TimeStep, &decision, |entry| {
            entry
                .plain("found", found.as_str())
                .plain("step", step)
                .number("nanos", nanos)
                .number("expected", expected.as_nanos())
        });
        self.outputs.push_back(Output::Event(Event {
            kind: EventKind::ClockStepped,
            decision,
            identity: None,
            client_id: None,
            peer: None,
            topic: None,
            reason: Some(reason),
            by: None,
        }));
    }
}

//! The only place that reads clocks.
//!
//! A [`Clock`] is a value that every thread of the shell holds a copy of, so that an
//! [`Instant`] means the same everywhere in the process. It gives no timers: those are the
//! runtime's, armed at [`Clock::deadline`].

#![expect(clippy::disallowed_methods, reason = "this is where clocks are read")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, UnixNanos};

/// The instant at which a clock begins, some 36 years after [`Instant::ZERO`]: what the log tells of
/// happened before, and has instants too.
const BEGIN: Instant = Instant::from_nanos(1 << 60);

/// Both clocks of the machine, counted from the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begin: std::time::Instant,
    /// The wall clock at `begin`, where it is not the system's.
    unix_at_begin: Option<UnixNanos>,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { begin: std::time::Instant::now(), unix_at_begin: None }
    }

    /// As [`Self::start`], with a wall clock that begins at `unix`: for a rehearsal with
    /// certificates of another day.
    pub fn start_at(unix: UnixNanos) -> Self {
        Self { unix_at_begin: Some(unix), ..Self::start() }
    }

    /// Samples both clocks. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        let instant = self.instant();
        let nanos = match self.unix_at_begin {
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
            Some(begin) => u128::from(begin.as_nanos()) + instant.since(BEGIN).as_nanos(),
        };
        Now { instant, unix: UnixNanos::new(u64::try_from(nanos).unwrap_or(u64::MAX)) }
    }

    /// Samples the monotonic clock alone.
    pub fn instant(&self) -> Instant {
        BEGIN.after(self.begin.elapsed())
    }

    /// `instant` as the runtime's timers know it. Instants beyond a year from the start count as
    /// a year: no timer of ours waits that long, and the runtime's arithmetic stays far from its
    /// own bounds.
    pub fn deadline(&self, instant: Instant) -> tokio::time::Instant {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
        let since = instant.since(BEGIN).min(YEAR);
        tokio::time::Instant::from_std(self.begin + since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_move_forward_and_deadlines_stay_in_range() {
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(second.instant >= first.instant);
        assert!(first.unix > UnixNanos::from_seconds(1_600_000_000));
        let end_of_time = clock.deadline(Instant::from_nanos(u64::MAX));
        assert!(end_of_time > clock.deadline(second.instant));
    }
}

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

/// Smallest difference that counts as a step of the wall clock. On Linux both clocks are slewed
/// alike, so that only setting the one, or a machine that slept, moves them apart.
const STEP_MIN: Duration = Duration::from_millis(500);

/// Finds out when the wall clock was set, by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepWatch {
    /// Both clocks at the start, or when they were last found to differ.
    anchor: Now,
}

impl StepWatch {
    pub(super) fn new(now: Now) -> Self {
        Self { anchor: now }
    }

    /// What the wall clock should show at `now`, if it shows something else. A thread that had to
    /// wait between its looks at the two clocks is asked to look `again`.
    pub(super) fn look(&mut self, now: Now, again: impl FnOnce() -> Now) -> Option<UnixNanos> {
        if !self.differs(now) {
            return None;
        }
        let now = again();
        let expected = self.anchor.unix_at(now.instant);
        self.differs(now).then(|| {
            self.anchor = now;
            expected
        })
    }

    fn differs(&self, now: Now) -> bool {
        let expected = self.anchor.unix_at(now.instant);
        now.unix.since(expected).max(expected.since(now.unix)) >= STEP_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_is_seen_once_and_a_late_look_is_not_one() {
        let at = |instant: u64, unix: u64| Now {
            instant: Instant::from_nanos(instant * 1_000_000),
            unix: UnixNanos::new(unix * 1_000_000),
        };
        let never = || -> Now { panic!("nothing to look at again") };
        let mut watch = StepWatch::new(at(0, 10_000));
        assert_eq!(watch.look(at(3_000, 13_000), never), None);
        // At the bound and one before it, both ways.
        assert_eq!(watch.look(at(4_000, 14_499), never), None);
        assert_eq!(watch.look(at(4_000, 13_501), never), None);
        let forward = watch.look(at(4_000, 14_500), || at(4_000, 14_500));
        assert_eq!(forward, Some(at(0, 14_000).unix));
        // From then on that is the time, and the way back is a step again.
        assert_eq!(watch.look(at(5_000, 15_500), never), None);
        let back = watch.look(at(6_000, 16_000), || at(6_000, 16_000));
        assert_eq!(back, Some(at(0, 16_500).unix));
        // The thread waited between its looks: the second time it does not.
        assert_eq!(watch.look(at(7_000, 18_000), || at(7_900, 17_901)), None);
    }

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

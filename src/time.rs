//! Time is a value.
//!
//! Nothing before the shell reads a clock. The shell samples both clocks once per event and
//! passes a [`Now`] along; a simulation passes whatever it likes, and the same history gives the
//! same bytes.

use std::time::Duration;

/// A point on the monotonic clock: nanoseconds since the process (or the simulation) began.
///
/// Used for every timer and limit. Never written to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The beginning.
    pub const ZERO: Self = Self(0);

    /// A point `nanos` nanoseconds after the beginning.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the beginning.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This point moved later by `duration`; stops at the end of time instead of wrapping.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }

    /// How long after `earlier` this point is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time: nanoseconds since 1970-01-01T00:00:00Z. Written to the log, compared with
/// certificate validity; never used for a timer, because it can step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(u64);

impl UnixNanos {
    /// A time `nanos` nanoseconds after the epoch.
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A time `seconds` whole seconds after the epoch; saturates.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this time is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Both clocks, sampled together for one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers and limits.
    pub instant: Instant,
    /// For entries and certificate validity.
    pub unix: UnixNanos,
}

impl Now {
    /// The instant at which the wall clock showed `at`, if neither clock was set; stops at both
    /// ends of time.
    pub fn instant_at(&self, at: UnixNanos) -> Instant {
        Instant::from_nanos(shifted(self.instant.0, at.0, self.unix.0))
    }

    /// What the wall clock showed at `at`, likewise.
    pub fn unix_at(&self, at: Instant) -> UnixNanos {
        UnixNanos::new(shifted(self.unix.0, at.0, self.instant.0))
    }
}

/// `base`, moved by what `at` is later or earlier than `origin`.
fn shifted(base: u64, at: u64, origin: u64) -> u64 {
    match at.checked_sub(origin) {
        Some(ahead) => base.saturating_add(ahead),
        None => base.saturating_sub(origin - at),
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let late = Instant::from_nanos(u64::MAX);
        assert_eq!(late.after(Duration::from_secs(1)), late);
        assert_eq!(Instant::ZERO.since(late), Duration::ZERO);
        assert_eq!(UnixNanos::from_seconds(u64::MAX).as_nanos(), u64::MAX);
    }
}

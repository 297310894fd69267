//! One bucket: governor's limiter on a clock that is driven by hand.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::time::Instant;

/// The clock of all buckets of one owner. It shows what it was last set to.
///
/// Its one writer is the owner's thread; the atomic only lets the owner be moved to its thread.
#[derive(Clone, Debug, Default)]
pub(super) struct DrivenClock(Arc<AtomicU64>);

impl DrivenClock {
    pub(super) fn set(&self, instant: Instant) {
        self.0.store(instant.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn shown(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// A point of that clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point(u64);

impl Add<Nanos> for Point {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for Point {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.as_u64()).unwrap_or(self.0))
    }
}

impl Clock for DrivenClock {
    type Instant = Point;

    fn now(&self) -> Point {
        Point(self.0.load(Ordering::Relaxed))
    }
}

/// A bucket of `burst` tokens that gains `per_second` of them.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, DrivenClock, NoOpMiddleware<Point>>,
    clock: DrivenClock,
    burst: NonZeroU32,
    refill: Duration,
    full_at: Instant,
}

/// What a bucket said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drawn {
    /// The tokens were there and are taken.
    Taken,
    /// They will be there at this point; none is taken.
    NotUntil(Instant),
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: &DrivenClock) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        // From the beginning of time, so that no bucket depends on when it was made.
        let now = clock.shown();
        clock.set(Instant::ZERO);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        clock.set(now);
        let refill = quota.burst_size_replenished_in();
        Self { limiter, clock: clock.clone(), burst, refill, full_at: Instant::ZERO }
    }

    /// The most that one draw can take.
    pub(super) fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// Takes `tokens` (at least one, at most the burst) at the time that the clock shows.
    pub(super) fn draw(&mut self, tokens: u32) -> Drawn {
        let tokens = NonZeroU32::new(tokens).unwrap_or(NonZeroU32::MIN).min(self.burst);
        match self.limiter.check_n(tokens) {
            Ok(Ok(())) => {
                let full_at = self.clock.shown().after(self.refill);
                self.full_at = self.full_at.max(full_at);
                Drawn::Taken
            }
            Ok(Err(not_until)) => {
                Drawn::NotUntil(Instant::from_nanos(not_until.earliest_possible().0))
            }
            // Not more than the burst, so this is not reached; a full refill is always enough.
            Err(_more_than_burst) => Drawn::NotUntil(self.clock.shown().after(self.refill)),
        }
    }

    /// Takes `tokens` now or, when they are not there, ahead of time. Returns the point at which
    /// they would have been there; later draws wait for theirs behind it. Takes nothing when that
    /// point lies behind `latest`, so that a debt has a bound.
    pub(super) fn draw_ahead(&mut self, tokens: u32, latest: Instant) -> Option<Instant> {
        let now = self.clock.shown();
        let Drawn::NotUntil(earliest) = self.draw(tokens) else { return Some(now) };
        if earliest > latest {
            return None;
        }
        self.clock.set(earliest);
        let drawn = self.draw(tokens);
        self.clock.set(now);
        (drawn == Drawn::Taken).then_some(earliest)
    }

    /// When the bucket is full again at the latest.
    pub(super) fn full_at(&self) -> Instant {
        self.full_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32, burst: u32, clock: &DrivenClock) -> Bucket {
        let positive = |n| NonZeroU32::new(n).unwrap();
        Bucket::new(positive(per_second), positive(burst), clock)
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_gives_its_burst_and_not_one_more() {
        let clock = DrivenClock::default();
        clock.set(Instant::from_nanos(7 * SECOND));
        let mut bucket = bucket(10, 3, &clock);
        for _ in 0..3 {
            assert_eq!(bucket.draw(1), Drawn::Taken);
        }
        let next = Instant::from_nanos(7 * SECOND + SECOND / 10);
        assert_eq!(bucket.draw(1), Drawn::NotUntil(next));
        clock.set(next);
        assert_eq!(bucket.draw(1), Drawn::Taken);
        assert_eq!(bucket.draw(1), Drawn::NotUntil(next.after(Duration::from_millis(100))));
    }

    #[test]
    fn drawing_ahead_keeps_the_rate() {
        let clock = DrivenClock::default();
        let mut bucket = bucket(10, 1, &clock);
        let at = |tenths: u64| Instant::from_nanos(tenths * SECOND / 10);
        assert_eq!(bucket.draw_ahead(1, at(2)), Some(at(0)));
        assert_eq!(bucket.draw_ahead(1, at(2)), Some(at(1)));
        assert_eq!(bucket.draw_ahead(1, at(2)), Some(at(2)));
        assert_eq!(bucket.draw_ahead(1, at(2)), None);
        assert_eq!(clock.shown(), at(0));
        clock.set(at(2));
        assert_eq!(bucket.draw(1), Drawn::NotUntil(at(3)));
    }
}

//! Latencies in buckets of bounded relative width, so that a long run needs no more memory than a
//! short one.

use std::time::Duration;

/// Buckets per doubling: a percentile is at most an eighth too high.
const PER_OCTAVE: u32 = 8;

/// Up to 2^32 µs, more than an hour.
const BUCKETS: usize = 33 * PER_OCTAVE as usize;

/// A histogram of latencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(micros)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The latency that `percent` of all do not exceed, rounded up to its bucket; `None` when
    /// there are none. `percent` is 1 to 100.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(index, count)| {
            seen += count;
            (rank > 0 && seen >= rank).then(|| Duration::from_micros(top_of(index)))
        })
    }
}

/// Below [`PER_OCTAVE`] µs one bucket per µs; above, the leading bit and the three after it.
fn bucket_of(micros: u32) -> usize {
    let octave = micros.checked_ilog2().unwrap_or(0).saturating_sub(PER_OCTAVE.ilog2());
    let within = micros >> octave;
    (octave * PER_OCTAVE + within) as usize
}

/// The largest value of a bucket, in µs.
fn top_of(index: usize) -> u64 {
    let per_octave = PER_OCTAVE as usize;
    if index < 2 * per_octave {
        return index as u64;
    }
    let octave = index / per_octave - 1;
    let within = (index % per_octave + per_octave) as u64;
    ((within + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_in_a_bucket_at_most_an_eighth_wide() {
        let mut micros = 0_u32;
        while micros < u32::MAX / 2 {
            let top = top_of(bucket_of(micros));
            let limit = u64::from(micros) + u64::from(micros) / 8;
            assert!((u64::from(micros)..=limit).contains(&top), "{micros} in a bucket to {top}");
            micros = micros + micros / 7 + 1;
        }
        assert!(bucket_of(u32::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_count_from_below() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), None);
        for micros in 1..=100 {
            latencies.add(Duration::from_micros(micros));
        }
        assert_eq!(latencies.count(), 100);
        let p50 = latencies.percentile(50).unwrap().as_micros();
        assert!((50..=56).contains(&p50), "{p50}");
        let p99 = latencies.percentile(99).unwrap().as_micros();
        assert!((99..=111).contains(&p99), "{p99}");
    }
}

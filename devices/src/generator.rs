//! Generators of measured values: data in a profile, a small state per device.
//!
//! Every kind says the bounds of its values; a signal never leaves them, whatever the
//! parameters, because the shipped schemas may rely on them.

use serde::Deserialize;

use crate::random::Random;

/// How one value of a payload moves. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Generator {
    /// A random walk that is pulled back to a mean, which itself drifts.
    Walk(Walk),
    /// A sine over a day (or any period) with noise on it.
    Diurnal(Diurnal),
    /// A counter that only grows, until it wraps at its bound.
    Counter(Counter),
    /// A machine's cycle: levels held for a while, in order, for ever.
    Cycle(Cycle),
}

/// See [`Generator::Walk`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Walk {
    /// What it returns to.
    pub mean: f64,
    /// Deviation of one step.
    pub step: f64,
    /// Share of the distance to the mean that one step takes back, 0 to 1.
    pub pull: f64,
    /// How far the mean moves in an hour.
    #[serde(default)]
    pub drift_per_hour: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// An occasional outlier.
    pub spike: Option<Spike>,
}

/// An occasional outlier, added to one value and not to the walk.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// Probability per value, 0 to 1.
    pub chance: f64,
    /// What is added.
    pub by: f64,
}

/// See [`Generator::Diurnal`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diurnal {
    /// The middle.
    pub mean: f64,
    /// From the middle to the top.
    pub amplitude: f64,
    /// Length of a day.
    #[serde(default = "day_secs")]
    pub period_secs: f64,
    /// Deviation of the noise.
    #[serde(default)]
    pub noise: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// See [`Generator::Counter`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// First value.
    pub start: f64,
    /// Growth per second.
    pub per_second: f64,
    /// Where it wraps to 0.
    pub max: f64,
}

/// See [`Generator::Cycle`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cycle {
    /// The levels, in order.
    pub levels: Vec<Level>,
    /// Deviation of the noise on a level.
    #[serde(default)]
    pub noise: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// One level of a [`Cycle`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The value.
    pub value: f64,
    /// How long it is held.
    pub hold_secs: f64,
}

const fn day_secs() -> f64 {
    86_400.0
}

impl Generator {
    /// The bounds of every value, smallest and largest.
    pub const fn bounds(&self) -> (f64, f64) {
        match self {
            Self::Walk(walk) => (walk.min, walk.max),
            Self::Diurnal(diurnal) => (diurnal.min, diurnal.max),
            Self::Counter(counter) => (0.0, counter.max),
            Self::Cycle(cycle) => (cycle.min, cycle.max),
        }
    }

    /// The first parameter that makes no sense, by name, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let (min, max) = self.bounds();
        if !(min.is_finite() && max.is_finite() && min < max) {
            return Some(("max", "must be finite and above the smallest value"));
        }
        match self {
            Self::Walk(walk) => {
                let spike = walk.spike.as_ref().map_or(0.0, |spike| spike.chance);
                if !(0.0..=1.0).contains(&walk.pull) {
                    Some(("pull", "must be between 0 and 1"))
                } else if !(0.0..=1.0).contains(&spike) {
                    Some(("spike.chance", "must be between 0 and 1"))
                } else if !(min..=max).contains(&walk.mean) {
                    Some(("mean", "must be between min and max"))
                } else {
                    None
                }
            }
            Self::Diurnal(diurnal) => {
                (diurnal.period_secs <= 0.0).then_some(("period_secs", "must be above 0"))
            }
            Self::Counter(counter) => (!(0.0..counter.max).contains(&counter.start))
                .then_some(("start", "must be at least 0 and below max")),
            Self::Cycle(cycle) => {
                let held = cycle.levels.iter().map(|level| level.hold_secs).sum::<f64>();
                (held.is_nan() || held <= 0.0)
                    .then_some(("levels", "must hold for more than 0 seconds together"))
            }
        }
    }
}

/// A [`Generator`] in motion.
#[derive(Clone, Debug)]
pub(crate) struct Signal {
    generator: Generator,
    /// The walk's place, or the counter's value.
    at: f64,
}

impl Signal {
    pub(crate) fn new(generator: &Generator) -> Self {
        let at = match generator {
            Generator::Walk(walk) => walk.mean,
            Generator::Counter(counter) => counter.start,
            Generator::Diurnal(_) | Generator::Cycle(_) => 0.0,
        };
        Self { generator: generator.clone(), at }
    }

    /// The value at `now_secs` (a time of day for [`Diurnal`], any clock for the others),
    /// `elapsed_secs` after the one before, to three decimals.
    pub(crate) fn next(&mut self, now_secs: f64, elapsed_secs: f64, random: &mut Random) -> f64 {
        let (min, max) = self.generator.bounds();
        let value = match &mut self.generator {
            Generator::Walk(walk) => {
                walk.mean = drifted(walk, elapsed_secs);
                let pulled = self.at + (walk.mean - self.at) * walk.pull;
                self.at = (pulled + walk.step * random.normal()).clamp(min, max);
                match &walk.spike {
                    Some(spike) if random.chance(spike.chance) => self.at + spike.by,
                    _ => self.at,
                }
            }
            Generator::Diurnal(diurnal) => {
                let turn = now_secs / diurnal.period_secs * std::f64::consts::TAU;
                diurnal.mean + diurnal.amplitude * turn.sin() + diurnal.noise * random.normal()
            }
            Generator::Counter(counter) => {
                let value = self.at;
                self.at = (self.at + counter.per_second * elapsed_secs) % counter.max;
                value
            }
            Generator::Cycle(cycle) => {
                level_at(&cycle.levels, now_secs) + cycle.noise * random.normal()
            }
        };
        (value.clamp(min, max) * 1_000.0).round() / 1_000.0
    }
}

fn drifted(walk: &Walk, elapsed_secs: f64) -> f64 {
    (walk.mean + walk.drift_per_hour * elapsed_secs / 3_600.0).clamp(walk.min, walk.max)
}

fn level_at(levels: &[Level], now_secs: f64) -> f64 {
    let whole = levels.iter().map(|level| level.hold_secs).sum::<f64>();
    let mut left = now_secs % whole;
    for level in levels {
        if left < level.hold_secs {
            return level.value;
        }
        left -= level.hold_secs;
    }
    levels.last().map_or(0.0, |level| level.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn every_shipped_generator_stays_in_its_bounds() {
        for profile in Profile::shipped().unwrap() {
            for (name, generator) in profile.streams.iter().flat_map(|stream| &stream.values) {
                let (min, max) = generator.bounds();
                let mut random = Random::new(7, name);
                let mut signal = Signal::new(generator);
                let values = (0..5_000).map(|n| signal.next(f64::from(n) * 0.5, 0.5, &mut random));
                let values = values.collect::<Vec<_>>();
                assert!(values.iter().all(|v| (min..=max).contains(v)), "{} {name}", profile.name);
                let moves = values.windows(2).any(|pair| pair[0] != pair[1]);
                assert!(moves, "{} {name} never moves", profile.name);
            }
        }
    }

    #[test]
    fn a_walk_returns_to_its_mean_and_spikes() {
        let walk = Walk {
            mean: 50.0,
            step: 1.0,
            pull: 0.1,
            drift_per_hour: 0.0,
            min: 0.0,
            max: 200.0,
            spike: Some(Spike { chance: 0.01, by: 100.0 }),
        };
        let mut signal = Signal::new(&Generator::Walk(walk));
        let mut random = Random::new(1, "walk");
        let values = (0..10_000).map(|_| signal.next(0.0, 1.0, &mut random)).collect::<Vec<_>>();
        let spikes = values.iter().filter(|value| **value > 120.0).count();
        assert!((50..200).contains(&spikes), "{spikes} spikes");
        let calm = values.iter().filter(|value| **value <= 120.0).collect::<Vec<_>>();
        let mean = calm.iter().copied().sum::<f64>() / calm.len() as f64;
        assert!((mean - 50.0).abs() < 2.0, "mean {mean}");
    }

    #[test]
    fn a_drift_moves_the_mean_and_stops_at_the_bound() {
        let walk = Walk {
            mean: 10.0,
            step: 0.0,
            pull: 1.0,
            drift_per_hour: 4.0,
            min: 0.0,
            max: 13.0,
            spike: None,
        };
        let mut signal = Signal::new(&Generator::Walk(walk));
        let mut random = Random::new(1, "drift");
        assert_eq!(signal.next(0.0, 1_800.0, &mut random), 12.0);
        assert_eq!(signal.next(0.0, 1_800.0, &mut random), 13.0);
    }

    #[test]
    fn a_cycle_holds_its_levels_and_a_counter_wraps() {
        let level = |value, hold_secs| Level { value, hold_secs };
        let cycle = Cycle {
            levels: vec![level(1.0, 2.0), level(5.0, 1.0)],
            noise: 0.0,
            min: 0.0,
            max: 9.0,
        };
        let mut random = Random::new(1, "cycle");
        let mut signal = Signal::new(&Generator::Cycle(cycle));
        let seen = [0.0, 1.9, 2.0, 2.9, 3.0].map(|at| signal.next(at, 1.0, &mut random));
        assert_eq!(seen, [1.0, 1.0, 5.0, 5.0, 1.0]);
        let counter = Counter { start: 8.0, per_second: 1.0, max: 10.0 };
        let mut signal = Signal::new(&Generator::Counter(counter));
        let seen = [(); 4].map(|()| signal.next(0.0, 1.0, &mut random));
        assert_eq!(seen, [8.0, 9.0, 0.0, 1.0]);
    }

    #[test]
    fn one_seed_gives_one_history_and_two_names_give_two() {
        let draw = |name: &str| {
            let mut random = Random::new(42, name);
            (0..8).map(|_| random.between(0.0, 1.0)).collect::<Vec<_>>()
        };
        assert_eq!(draw("press-1"), draw("press-1"));
        assert_ne!(draw("press-1"), draw("press-2"));
    }
}

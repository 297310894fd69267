//! The command line of a bench: `cargo bench --bench NAME -- [--json] [--seconds N]
//! [--only mosquitto|avow]`.

use std::time::Duration;

use super::broker::Kind;
use super::failure::Failure;

const USAGE: &str = "[--json] [--seconds N] [--only mosquitto|avow]; AVOW_BENCH_SECONDS=N too";
/// Longest measured part of a run, in seconds: an hour.
const SECONDS_MAX: u64 = 3_600;

/// What a bench was asked for.
pub(crate) struct Arguments {
    /// Print JSON after the table.
    pub(crate) json: bool,
    /// How long to measure.
    pub(crate) measured: Duration,
    /// The brokers to run, in this order.
    pub(crate) kinds: Vec<Kind>,
}

impl Arguments {
    /// Reads the process's arguments; `seconds` is how long to measure if nothing else is said.
    pub(crate) fn read(seconds: u64) -> Result<Self, Failure> {
        let asked = std::env::var("AVOW_BENCH_SECONDS").ok();
        let mut seconds = match asked {
            Some(text) => parse_seconds(&text)?,
            None => seconds,
        };
        let mut json = false;
        let mut kinds = vec![Kind::Mosquitto, Kind::Avow];
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // What cargo says to every bench.
                "--bench" => {}
                "--json" => json = true,
                "--seconds" => seconds = parse_seconds(&arguments.next().unwrap_or_default())?,
                "--only" => {
                    kinds = match arguments.next().as_deref() {
                        Some("mosquitto") => vec![Kind::Mosquitto],
                        Some("avow") => vec![Kind::Avow],
                        _ => return Err(Failure::Usage(USAGE)),
                    };
                }
                _ => return Err(Failure::Usage(USAGE)),
            }
        }
        Ok(Self { json, measured: Duration::from_secs(seconds), kinds })
    }
}

fn parse_seconds(text: &str) -> Result<u64, Failure> {
    let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    seconds.ok_or(Failure::Usage(USAGE))
}

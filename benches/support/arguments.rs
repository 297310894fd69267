//! The command line of a bench: `cargo bench --bench NAME -- [--json] [--seconds N] [--rounds N]
//! [--only mosquitto|avow]`.

use std::time::Duration;

use super::broker::Kind;
use super::failure::Failure;

const USAGE: &str =
    "[--json] [--seconds N] [--rounds N] [--only mosquitto|avow]; or AVOW_BENCH_SECONDS=N";
/// Longest measured part of a run, in seconds: an hour.
const SECONDS_MAX: u64 = 3_600;
/// Most rounds.
const ROUNDS_MAX: u64 = 100;

/// What a bench was asked for.
pub(crate) struct Arguments {
    /// Print JSON after the table.
    pub(crate) json: bool,
    /// How long to measure.
    pub(crate) measured: Duration,
    /// How often to run both brokers, one after the other.
    pub(crate) rounds: u64,
    /// The brokers to run.
    pub(crate) kinds: Vec<Kind>,
}

impl Arguments {
    /// Reads the process's arguments; `seconds` is how long to measure if nothing else is said.
    pub(crate) fn read(seconds: u64) -> Result<Self, Failure> {
        let asked = std::env::var("AVOW_BENCH_SECONDS").ok();
        let mut seconds = match asked {
            Some(text) => parse(&text, SECONDS_MAX)?,
            None => seconds,
        };
        let (mut json, mut rounds) = (false, 1);
        let mut kinds = vec![Kind::Mosquitto, Kind::Avow];
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // What cargo says to every bench.
                "--bench" => {}
                "--json" => json = true,
                "--seconds" => {
                    seconds = parse(&arguments.next().unwrap_or_default(), SECONDS_MAX)?;
                }
                "--rounds" => rounds = parse(&arguments.next().unwrap_or_default(), ROUNDS_MAX)?,
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
        Ok(Self { json, measured: Duration::from_secs(seconds), rounds, kinds })
    }
}

fn parse(text: &str, max: u64) -> Result<u64, Failure> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or(Failure::Usage(USAGE))
}

//! What a run showed, as a Markdown table and as JSON.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::broker::{Broker, Kind, Permits};
use super::failure::Failure;
use super::process::{pin_generator, raise_open_files};

/// Latencies, counted by microsecond up to a second.
#[derive(Default)]
pub(crate) struct Latencies {
    by_micros: Vec<u32>,
    count: u64,
}

const LATENCY_MICROS_MAX: usize = 1_000_000;

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        let micros = usize::try_from(latency.as_micros()).unwrap_or(usize::MAX);
        let micros = micros.min(LATENCY_MICROS_MAX);
        if self.by_micros.len() <= micros {
            self.by_micros.resize(micros + 1, 0);
        }
        if let Some(count) = self.by_micros.get_mut(micros) {
            *count += 1;
            self.count += 1;
        }
    }

    /// The latency that `percent` of all do not exceed, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: u64) -> f64 {
        let mut left = self.count * percent / 100;
        for (micros, &count) in (0_u32..).zip(&self.by_micros) {
            match left.checked_sub(u64::from(count)) {
                Some(rest) if rest > 0 => left = rest,
                _ => return f64::from(micros) / 1_000.0,
            }
        }
        0.0
    }
}

/// What one broker did under one load.
pub(crate) struct Measured {
    pub(crate) broker: &'static str,
    pub(crate) seconds: f64,
    /// Messages of the measured time: acknowledged ones, at QoS 0 sent ones.
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    /// Messages of the whole run, all acknowledged and all delivered.
    pub(crate) total: u64,
    pub(crate) broker_micros: u64,
    pub(crate) generator_micros: u64,
    pub(crate) latencies: Latencies,
    /// Resident memory at the end of each second.
    pub(crate) rss_bytes: Vec<u64>,
}

impl Measured {
    /// Broker CPU per published message, in microseconds.
    pub(crate) fn micros_per_message(&self) -> f64 {
        ratio(self.broker_micros, self.published)
    }

    /// Broker CPU per delivery, in microseconds.
    pub(crate) fn micros_per_delivery(&self) -> f64 {
        ratio(self.broker_micros, self.delivered)
    }

    /// The resident memory at the end, in MiB.
    pub(crate) fn rss_mib(&self) -> f64 {
        mib(self.rss_bytes.last().copied().unwrap_or_default())
    }

    fn per_second(&self, count: u64) -> f64 {
        float(count) / self.seconds
    }

    fn row(&self, load: &str) -> Vec<String> {
        vec![
            load.to_owned(),
            self.broker.to_owned(),
            format!("{:.0}", self.per_second(self.published)),
            format!("{:.0}", self.per_second(self.delivered)),
            format!("{:.2}", self.micros_per_message()),
            format!("{:.2}", self.micros_per_delivery()),
            format!("{:.2}", self.latencies.percentile_ms(50)),
            format!("{:.2}", self.latencies.percentile_ms(99)),
            format!("{:.0}", self.rss_mib()),
            format!("{:.2}", float(self.broker_micros) / 1e6 / self.seconds),
            format!("{:.2}", float(self.generator_micros) / 1e6 / self.seconds),
            format!("{} / {}", self.total, self.total),
        ]
    }

    fn json(&self, load: &str) -> Value {
        json!({
            "load": load,
            "broker": self.broker,
            "seconds": self.seconds,
            "published": self.published,
            "delivered": self.delivered,
            "total": self.total,
            "broker_cpu_micros": self.broker_micros,
            "generator_cpu_micros": self.generator_micros,
            "cpu_micros_per_message": self.micros_per_message(),
            "cpu_micros_per_delivery": self.micros_per_delivery(),
            "puback_p50_ms": self.latencies.percentile_ms(50),
            "puback_p99_ms": self.latencies.percentile_ms(99),
            "rss_bytes": self.rss_bytes,
        })
    }
}

/// The heads of the columns of [`Measured::row`].
const COLUMNS: [&str; 12] = [
    "load",
    "broker",
    "messages/s",
    "deliveries/s",
    "CPU µs/message",
    "CPU µs/delivery",
    "PUBACK p50 ms",
    "p99 ms",
    "RSS MiB",
    "broker cores",
    "generator cores",
    "sent / accounted for",
];

/// Collects the figures of a bench and prints them at its end.
#[derive(Default)]
pub(crate) struct Report {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    json: Vec<Value>,
    remarks: Vec<String>,
}

impl Report {
    /// A report with the columns of loads.
    pub(crate) fn of_loads(title: &str) -> Self {
        Self::new(title, &COLUMNS)
    }

    /// A report with columns of its own.
    pub(crate) fn new(title: &str, columns: &[&'static str]) -> Self {
        Self { title: title.to_owned(), columns: columns.to_vec(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, load: &str, measured: &Measured) {
        self.row(measured.row(load), measured.json(load));
    }

    pub(crate) fn row(&mut self, row: Vec<String>, json: Value) {
        self.rows.push(row);
        self.json.push(json);
    }

    pub(crate) fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// Says how Avow's figures stand to its rival's: the median of the rounds, and each round's
    /// own, because a busy machine changes between them.
    fn compare(&mut self, rounds: &[[Option<Figures>; 2]]) {
        let mut ratios: Vec<(&'static str, Vec<f64>)> = Vec::new();
        for round in rounds {
            let [Some(rival), Some(avow)] = round else { continue };
            for ((name, rival), (_, avow)) in rival.iter().zip(avow) {
                match ratios.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => known.push(avow / rival),
                    None => ratios.push((name, vec![avow / rival])),
                }
            }
        }
        for (name, mut ratios) in ratios {
            let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            ratios.sort_by(f64::total_cmp);
            let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
            let each = each.join(", ");
            self.remark(format!("{name}, avow ÷ mosquitto: **{median:.2}** (by round: {each})"));
            self.json.push(json!({ "ratio": name, "median": median, "rounds": ratios }));
        }
    }

    /// Prints the table, and JSON after it if asked to.
    pub(crate) fn print(&self, json: bool) {
        println!("\n### {}\n", self.title);
        println!("| {} |", self.columns.join(" | "));
        println!("|{}", " --- |".repeat(self.columns.len()));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
        for remark in &self.remarks {
            println!("- {remark}");
        }
        if json {
            println!("\n{:#}", json!({ "bench": self.title, "figures": self.json }));
        }
    }
}

/// What is compared between the brokers, by name; the smaller the better.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Runs a bench: in each round each broker in turn through `each`, which says how many messages it
/// published and what is to be compared; then the table.
pub(crate) fn bench(
    default_seconds: u64,
    report: Report,
    dashboards: usize,
    each: impl FnMut(&mut Broker, &Arguments, &mut Report) -> Result<(u64, Figures), Failure>,
) -> ExitCode {
    bench_permitting(Permits::default(), default_seconds, report, dashboards, each)
}

/// As [`bench`], with more permitted than in every plant.
pub(crate) fn bench_permitting(
    permits: Permits,
    default_seconds: u64,
    mut report: Report,
    dashboards: usize,
    mut each: impl FnMut(&mut Broker, &Arguments, &mut Report) -> Result<(u64, Figures), Failure>,
) -> ExitCode {
    let pinned = pin_generator();
    let placed = if pinned { "broker on core 0, generator on core 1" } else { "nothing is pinned" };
    report.remark(format!("{placed}; debug assertions: {}", cfg!(debug_assertions)));
    let outcome = raise_open_files().and_then(|()| Arguments::read(default_seconds));
    let outcome = outcome.and_then(|arguments| {
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds {
            let mut round = [None, None];
            for (kind, figures) in [Kind::Mosquitto, Kind::Avow].into_iter().zip(&mut round) {
                if !arguments.kinds.contains(&kind) {
                    continue;
                }
                let Some(mut broker) = kind.start(pinned, dashboards, permits)? else {
                    report.remark(format!("SKIPPED {}: not installed", kind.name()));
                    continue;
                };
                let (published, compared) = each(&mut broker, &arguments, &mut report)?;
                broker.stop(published)?;
                *figures = Some(compared);
            }
            rounds.push(round);
        }
        report.compare(&rounds);
        Ok(arguments.json)
    });
    report.print(matches!(outcome, Ok(true)));
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// `bytes` in MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    float(bytes) / 1_048_576.0
}

/// `a` for each `b`.
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    float(a) / float(b.max(1))
}

/// Exact below 2^32, which all but byte counts stay below.
fn float(count: u64) -> f64 {
    u32::try_from(count).map_or_else(
        |_| f64::from(u32::try_from(count >> 16).unwrap_or(u32::MAX)) * 65_536.0,
        f64::from,
    )
}

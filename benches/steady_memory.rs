//! Steady memory: 100 publishers at QoS 1 and 2,000 messages a second for 5 minutes (or
//! `AVOW_BENCH_SECONDS`): resident memory after the first minute and at the end.
//!
//! The aim is at most 5 % growth. A minute is a fifth of the time if less is asked for.

#[expect(dead_code, reason = "shared with benches of speed")]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use support::field::{Plan, Subscription, run};
use support::report::{Report, bench, mib, ratio};

fn main() -> ExitCode {
    let columns = ["broker", "seconds", "messages", "RSS early MiB", "RSS at end MiB", "growth"];
    let report = Report::new("Steady memory: 100 publishers QoS 1, 2,000/s", &columns);
    bench(300, report, 1, |broker, arguments, report| {
        let plan = Plan {
            publishers: 100,
            in_flight_max: 8,
            packs: false,
            subscribers: 1,
            subscription: Subscription::AtMostOnce,
            rate: Some(2_000),
            warm_up: Duration::from_secs(2),
            measured: arguments.measured,
        };
        let measured = run(broker, plan)?;
        let samples = &measured.rss_bytes;
        let early = samples.get((samples.len() / 5).min(60)).copied().unwrap_or_default();
        let late = samples.last().copied().unwrap_or_default();
        let growth = ratio(late, early) - 1.0;
        report.row(
            vec![
                broker.name().to_owned(),
                format!("{:.0}", measured.seconds),
                measured.total.to_string(),
                format!("{:.1}", mib(early)),
                format!("{:.1}", mib(late)),
                format!("{:+.1} %", growth * 100.0),
            ],
            json!({ "broker": broker.name(), "rss_bytes": samples, "growth": growth }),
        );
        Ok((measured.total, Vec::new()))
    })
}

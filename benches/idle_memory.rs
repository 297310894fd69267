//! Idle memory: what 3,000 mutual-TLS connections that say nothing cost in resident memory.
//!
//! The aim is at most 40 KiB each. They are opened one after the other, so the rate is that of
//! single handshakes.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks and may wait")]
#[expect(dead_code, reason = "shared with benches that publish")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use avow::identity::Role;
use serde_json::json;
use support::failure::Failure;
use support::link::Link;
use support::report::{Report, bench, mib, ratio};

const CONNECTIONS: usize = 3_000;
/// Connections that share a certificate, each with its own Client Identifier.
const PER_IDENTITY: usize = 30;
/// What the broker may still do after the last connection before it is idle.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let columns =
        ["broker", "connections", "RSS before MiB", "RSS after MiB", "KiB each", "CPU µs each"];
    bench(
        0,
        Report::new("Idle memory: mutual-TLS connections, TLS 1.3", &columns),
        1,
        |broker, _, report| {
            // What the first connections make once is not a cost of the next.
            let mut links = open(broker, "first", 10)?;
            std::thread::sleep(SETTLE);
            let (before, cpu) = (broker.process().rss_bytes()?, broker.process().cpu_micros()?);
            let begin = Instant::now();
            for group in 0..CONNECTIONS / PER_IDENTITY {
                links.append(&mut open(broker, &format!("bench-{group}"), PER_IDENTITY)?);
            }
            let seconds = begin.elapsed().as_secs_f64();
            std::thread::sleep(SETTLE);
            let after = broker.process().rss_bytes()?;
            let cpu = broker.process().cpu_micros()? - cpu;
            broker.require_running()?;
            drop(links);
            let count = u64::try_from(CONNECTIONS).unwrap_or(u64::MAX);
            let kib = ratio(after.saturating_sub(before), count) / 1024.0;
            report.row(
                vec![
                    broker.name().to_owned(),
                    format!("{CONNECTIONS} in {seconds:.1} s"),
                    format!("{:.1}", mib(before)),
                    format!("{:.1}", mib(after)),
                    format!("{kib:.1}"),
                    format!("{:.0}", ratio(cpu, count)),
                ],
                json!({
                    "broker": broker.name(),
                    "connections": CONNECTIONS,
                    "rss_before_bytes": before,
                    "rss_after_bytes": after,
                    "kib_each": kib,
                    "cpu_micros_each": ratio(cpu, count),
                }),
            );
            Ok((0, vec![("KiB per idle connection", kib)]))
        },
    )
}

/// Connects `count` clients that share the certificate of `name`.
fn open(broker: &support::broker::Broker, name: &str, count: usize) -> Result<Vec<Link>, Failure> {
    let config = broker.pki().client(Role::Device, name)?;
    (0..count)
        .map(|index| {
            let client_id = format!("{name}-{index}");
            Link::open(broker.address(), config.clone(), &client_id, None)
        })
        .collect()
}

//! What the log must hold, in one run beside the disk that it stands on: audited QoS 1 messages per
//! second, PUBACK's 99th percentile beside that of `fdatasync` itself, bytes of segments per message,
//! and how soon a proof can be had.
//!
//! The bounds that it prints are absolute, because they are what plants are promised: 50,000/s on two
//! cores; PUBACK within 5 ms of the disk's own 99th percentile at 2,000/s; 300 bytes of segments
//! beside a payload; a proof 1.5 s after the acknowledgement. Nothing fails here: a busy machine says
//! nothing of the broker.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks, sockets and files")]

#[expect(dead_code, reason = "shared with benches of two brokers")]
mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use avow::evidence::VerifierKey;
use avow::identity::Role;
use avow::storage::{Reader, RealDisk, Until};
use serde_json::json;

use support::arguments::Arguments;
use support::broker::{Broker, Kind, Permits};
use support::failure::{Failure, io};
use support::field::{Plan, Subscription, run};
use support::link::Link;
use support::process::{pin_generator, raise_open_files};
use support::publisher::Publisher;
use support::report::{Latencies, Report, ratio};

/// Payload of every message, in bytes.
const PAYLOAD_BYTES: u64 = 128;
const SYNCS: u64 = 4_000;
const SYNC_FILE_BYTES: u64 = 16 << 20;
const PROOFS: usize = 20;

const SATURATED: Plan = Plan {
    publishers: 100,
    in_flight_max: 8,
    packs: true,
    subscribers: 1,
    subscription: Subscription::AtMostOnce,
    rate: None,
    warm_up: Duration::from_secs(2),
    measured: Duration::from_secs(10),
};

fn main() -> ExitCode {
    let columns = ["what", "measured", "bound"];
    let mut report = Report::new("What the log must hold: QoS 1, 128 B", &columns);
    let pinned = pin_generator();
    let placed = if pinned { "broker on core 0, generator on core 1" } else { "nothing is pinned" };
    report.remark(format!("{placed}; debug assertions: {}", cfg!(debug_assertions)));
    let outcome = raise_open_files().and_then(|()| Arguments::read(10)).and_then(|arguments| {
        let started = Kind::Avow.start(pinned, 1, Permits::default())?;
        let Some(mut broker) = started else { return Err(Failure::Unexpected("no broker")) };
        let published = measure(&mut broker, &arguments, &mut report)?;
        broker.stop(published)?;
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

fn measure(
    broker: &mut Broker,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<u64, Failure> {
    let mut row = |what: &str, measured: String, bound: &str| {
        let json = json!({ "what": what, "measured": measured, "bound": bound });
        report.row(vec![what.to_owned(), measured, bound.to_owned()], json);
    };
    let plan = Plan { measured: arguments.measured, ..SATURATED };
    let mut total = 0;
    let before = written(broker)?;
    let saturated = run(broker, plan)?;
    let bytes = written(broker)? - before;
    total += saturated.total;
    let seconds = saturated.seconds;
    row(
        "audited messages/s, as many as it takes",
        format!("{:.0}", ratio(saturated.published, 1) / seconds),
        "≥ 50,000",
    );
    let beside = |bytes: u64, messages: u64| ratio(bytes, messages) - ratio(PAYLOAD_BYTES, 1);
    let each = format!("{:.0}", beside(bytes, saturated.total));
    row("bytes of segments beside a payload, at that rate", each, "≤ 300");
    let disk_before = sync_latencies(&broker.dir())?;
    let before = written(broker)?;
    let paced = run(broker, Plan { rate: Some(2_000), packs: false, ..plan })?;
    let bytes = written(broker)? - before;
    total += paced.total;
    let disk_after = sync_latencies(&broker.dir())?;
    let p99 = |latencies: &Latencies| latencies.percentile_ms(99);
    let disk = format!("{:.2} before, {:.2} after", p99(&disk_before), p99(&disk_after));
    row("fdatasync of 4 KiB on the same disk, p99 ms", disk, "");
    let puback = format!("{:.2}", p99(&paced.latencies));
    row("PUBACK at 2,000/s, p99 ms", puback, "≤ that of fdatasync + 5");
    let each = format!("{:.0}", beside(bytes, paced.total));
    row("bytes of segments beside a payload, at 2,000/s", each, "≤ 300");
    let mut proofs = proofs(broker)?;
    total += proofs.len() as u64;
    proofs.sort();
    let of = |place: usize| proofs.get(place).copied().unwrap_or_default().as_secs_f64();
    let proofs_shown =
        format!("{:.2} median, {:.2} longest of {PROOFS}", of(PROOFS / 2), of(PROOFS - 1));
    row("from PUBACK to a proof that verifies, s", proofs_shown, "≤ 1.5");
    Ok(total)
}

/// Bytes that the log wrote so far.
fn written(broker: &Broker) -> Result<u64, Failure> {
    metric(&broker.dir(), "avow_log_written_bytes_total")
}

fn metric(dir: &Path, name: &str) -> Result<u64, Failure> {
    let config = std::fs::read_to_string(dir.join("avow.toml")).map_err(io("read avow.toml"))?;
    let address =
        config.lines().find_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'));
    let address = address.ok_or(Failure::NoField("address"))?;
    let mut stream = TcpStream::connect(address).map_err(io("ask for metrics"))?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).map_err(io("ask for metrics"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(io("read metrics"))?;
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).ok_or(Failure::Unexpected("no such metric"))
}

/// What the disk itself takes for a write and an `fdatasync` of 4 KiB, one after the other, in a file
/// of zeroes.
fn sync_latencies(dir: &Path) -> Result<Latencies, Failure> {
    let path: PathBuf = dir.join("fdatasync");
    let file = File::create(&path).map_err(io("make a file"))?;
    let page = [7; 4096];
    for offset in (0..SYNC_FILE_BYTES).step_by(page.len()) {
        file.write_all_at(&[0; 4096], offset).map_err(io("write"))?;
    }
    file.sync_all().map_err(io("sync"))?;
    let mut latencies = Latencies::default();
    for number in 0..SYNCS {
        let begun = Instant::now();
        file.write_all_at(&page, number * 4096 % SYNC_FILE_BYTES).map_err(io("write"))?;
        file.sync_data().map_err(io("sync"))?;
        latencies.add(begun.elapsed());
        // As often as the load does: an idle disk may answer otherwise than a busy one.
        std::thread::sleep(Duration::from_micros(500).saturating_sub(begun.elapsed()));
    }
    std::fs::remove_file(path).map_err(io("remove a file"))?;
    Ok(latencies)
}

/// For some messages, one after the other: from PUBACK until a proof of the entry is made and
/// verified.
fn proofs(broker: &Broker) -> Result<Vec<Duration>, Failure> {
    let dir = broker.dir();
    let key = std::fs::read_to_string(dir.join("log.vkey")).map_err(io("read log.vkey"))?;
    let key: VerifierKey =
        key.trim().parse().map_err(|_| Failure::Unexpected("log.vkey is no key"))?;
    let disk = RealDisk::new(dir.join("log"));
    let failed = |_| Failure::Unexpected("the log cannot be read");
    let mut reader = Reader::open(disk, &key, Until::Checkpoint).map_err(failed)?;
    let config = broker.pki().client(Role::Device, "bench-0")?;
    let link = Link::open(broker.address(), config, "bench-0", None)?;
    let mut publisher = Publisher::new(link, "plant/bench-0/telemetry/force", 1, false);
    let mut buffer = vec![0; 1 << 16];
    let mut durations = Vec::new();
    for _ in 0..PROOFS {
        publisher.publish(1, Instant::now())?;
        let mut acknowledged = None;
        while acknowledged.is_none() {
            publisher.link.flush()?;
            publisher.receive(&mut buffer, |_| acknowledged = Some(Instant::now()))?;
            std::thread::sleep(Duration::from_micros(100));
        }
        let entries = metric(&dir, "avow_log_entries_total")?;
        let index = entries.saturating_sub(1);
        while reader.checkpoint().is_none_or(|signed| signed.tree_size <= index) {
            std::thread::sleep(Duration::from_millis(5));
            reader.refresh(&key).map_err(failed)?;
        }
        let unproven = Failure::Unexpected("no proof");
        let Ok(proof) = reader.prove(index) else { return Err(unproven) };
        let Ok(Some(entry)) = reader.entry(index) else { return Err(unproven) };
        proof.verify(&entry.json, &key).map_err(|_| unproven)?;
        durations.extend(acknowledged.map(|acknowledged| acknowledged.elapsed()));
        // Not in step with the checkpoints.
        std::thread::sleep(Duration::from_millis(137));
    }
    Ok(durations)
}

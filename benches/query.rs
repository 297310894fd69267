//! Query: how long a search of a log of ten million entries takes, through the index.
//!
//! The log is made in this process, on a disk, in batches of 128 as a busy broker's: a thousand
//! devices with four topics each, one device that was heard a hundred times in all of it, refusals by
//! limits and by the policy, and one reason that occurred three times. The index is filled from the
//! segments, which is what a rebuild does. Each query runs on an index that was just opened and then
//! again; the pages of the files are in memory, as far as the system keeps them there.
//! `--entries N` makes a smaller log.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks and files")]
#[expect(dead_code, reason = "shared with benches that have brokers")]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant as Stopwatch};

use avow::evidence::{
    Batch, BatchId, Body, Decision, EntryType, EntryWriter, LogKey, RecordKind, commitment,
};
use avow::identity::Identity;
use avow::mqtt::TopicFilter;
use avow::storage::{
    Index, Log, LogOptions, Order, Outcome as Decided, Query, Reader, RealDisk, Until, find,
};
use avow::time::UnixNanos;
use serde_json::json;
use support::report::Report;

const ENTRIES: u64 = 10_000_000;
const BATCH_ENTRIES: u64 = 128;
const DEVICES: u64 = 1_000;
/// Times that the rare device is heard.
const RARE: u64 = 100;
const ROUNDS: usize = 5;
/// The first entry is this old; one comes every 20 microseconds.
const EPOCH_SECONDS: u64 = 1_790_000_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match measure() {
        Ok(report) => {
            report.print(std::env::args().any(|argument| argument == "--json"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Outcome<Report> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--entries").skip(1);
    let entries = arguments.next().map_or(Ok(ENTRIES), |entries| entries.parse())?;
    let scratch =
        tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let began = Stopwatch::now();
    write_log(scratch.path(), entries)?;
    let written = began.elapsed();
    let key = LogKey::from_seed("plant.example/log", &[7; 32])?;
    let reader =
        Reader::open(RealDisk::new(scratch.path()), key.verifier(), Until::Synced(entries))?;
    let began = Stopwatch::now();
    let (index, _) = Index::open(scratch.path(), &reader)?;
    let filled = began.elapsed();
    drop(index);

    let mut report = Report::new(
        &format!("Searching {entries} entries"),
        &["query", "limit", "found", "first ms", "median ms"],
    );
    report.remark(format!(
        "debug assertions: {}; written in {:.0} s, indexed in {:.1} s; log {}, index {} bytes",
        cfg!(debug_assertions),
        written.as_secs_f64(),
        filled.as_secs_f64(),
        bytes_in(&scratch.path().join("segments"))?,
        bytes_in(&scratch.path().join("index"))?,
    ));
    for (name, query) in queries(entries)? {
        let (index, _) = Index::open(scratch.path(), &reader)?;
        let mut took = Vec::new();
        let mut found = 0;
        for _ in 0..=ROUNDS {
            let began = Stopwatch::now();
            found = find(&reader, Some(&index), &query)?.len();
            took.push(began.elapsed());
        }
        let first = took.remove(0);
        took.sort_unstable();
        let median = took.get(ROUNDS / 2).copied().unwrap_or_default();
        let ms = |duration: Duration| format!("{:.1}", duration.as_secs_f64() * 1_000.0);
        report.row(
            vec![
                name.to_owned(),
                query.limit.to_string(),
                found.to_string(),
                ms(first),
                ms(median),
            ],
            json!({ "query": name, "found": found, "first_ms": ms(first), "median_ms": ms(median) }),
        );
    }
    Ok(report)
}

fn queries(entries: u64) -> Outcome<Vec<(&'static str, Query)>> {
    let text = |text: &str| Some(text.to_owned());
    let all = Query { limit: 100, ..Query::default() };
    let at = |entry: u64| Some(time_of(entry));
    let rare = || Query { who: text("device/rare"), ..all.clone() };
    let of_17 = || Query { who: text("device/press-17"), ..all.clone() };
    Ok(vec![
        ("rare device, newest first", rare()),
        ("rare device, oldest first", Query { order: Order::OldestFirst, ..rare() }),
        ("frequent device, newest first", of_17()),
        ("frequent device, refused", Query { outcome: Some(Decided::Deny), ..of_17() }),
        (
            "frequent device, one hour's tenth",
            Query {
                since: at(entries / 2),
                until: at(entries / 2 + entries / 1_000),
                limit: 1_000,
                ..of_17()
            },
        ),
        ("device that was never heard", Query { who: text("device/none"), ..all.clone() }),
        (
            "topic of a device",
            Query {
                topic: Some(TopicFilter::parse("plant/press-17/telemetry/t2")?),
                ..all.clone()
            },
        ),
        (
            "topics of the rare device",
            Query { topic: Some(TopicFilter::parse("plant/rare/#")?), ..all.clone() },
        ),
        (
            "one topic of every device",
            Query { topic: Some(TopicFilter::parse("plant/+/telemetry/t3")?), ..all.clone() },
        ),
        ("family of reasons", Query { why: text("limit.*"), ..all.clone() }),
        (
            "reason that occurred three times",
            Query { why: text("policy.client_id"), ..all.clone() },
        ),
        ("newest of all", all),
    ])
}

fn time_of(entry: u64) -> UnixNanos {
    UnixNanos::new(EPOCH_SECONDS * 1_000_000_000 + entry * 20_000)
}

fn write_log(directory: &Path, entries: u64) -> Outcome<()> {
    let key = LogKey::from_seed("plant.example/log", &[7; 32])?;
    let options =
        LogOptions { verifier: key.verifier().clone(), segment_bytes: 64 << 20, tiles: false };
    let (mut log, _) = Log::open(RealDisk::new(directory), options, &mut |_| {})?;
    let identity = |name: &str| Identity::parse(&format!("spiffe://plant/device/{name}"), "plant");
    let devices: Vec<Identity> =
        (0..DEVICES).map(|n| identity(&format!("press-{n}"))).collect::<Result<_, _>>()?;
    let rare = identity("rare")?;
    let mut index = 0;
    let mut number = 0;
    while index < entries {
        let mut batch = Batch::default();
        for _ in 0..BATCH_ENTRIES.min(entries - index) {
            let is_rare = index % (entries / RARE).max(1) == 7;
            let place = usize::try_from(index.wrapping_mul(7_919) % DEVICES)?;
            let device = if is_rare { Some(&rare) } else { devices.get(place) };
            push(&mut batch, index, entries, device.ok_or("no such device")?);
            index += 1;
        }
        log.append(&[(BatchId { shard: 0, number }, batch)])?;
        number += 1;
    }
    Ok(())
}

fn push(batch: &mut Batch, index: u64, entries: u64, device: &Identity) {
    let salt = [(index % 251) as u8; 16];
    let payload = format!(r#"{{"ts":{},"seq":{index},"values":{{"celsius":21.5}}}}"#, index / 50);
    let c = commitment(&salt, payload.as_bytes());
    let id = format!("k3x9qd-{index:x}");
    let body = Body { salt, payload: payload.clone().into(), properties: Vec::new().into() };
    let why = match index {
        _ if index % (entries / 3).max(1) == 11 => Some("policy.client_id"),
        _ if index.is_multiple_of(97) => Some("limit.rate"),
        _ if index.is_multiple_of(211) => Some("policy.no_rule"),
        _ => None,
    };
    let kind = if why.is_some() { EntryType::PublishRefused } else { EntryType::Publish };
    batch.push(RecordKind::Entry, Some(body), |out| {
        let entry = EntryWriter::begin(out, kind, time_of(index), "plant", &id)
            .who(device)
            .number("conn", index % 4_000)
            .number("n", index / 1_000)
            .plain("lvl", "A0");
        let entry = match why {
            Some(why) => entry.decision(Decision::Deny).plain("why", why).number("code", 135),
            None => entry.decision(Decision::Allow).text("rule", "devices-telemetry"),
        };
        let topic = format!("plant/{}/telemetry/t{}", device.name(), index % 4);
        entry
            .text("topic", &topic)
            .number("qos", 1)
            .number("pid", index % 65_535 + 1)
            .number("len", payload.len() as u64)
            .hash("c", &c)
            .finish();
    });
}

fn bytes_in(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        bytes += if is_dir { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

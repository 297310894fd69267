//! A start that takes its time: until the log is read, CONNECT is answered with Server busy.
//!
//! Nothing holds the broker up: its log is made longer until a start takes as long as this test
//! needs to look.

use std::time::{Duration, Instant};

use crate::harness::{Broker, Bundle, Plant};
use crate::raw::{Answer, Raw, Version, connect, publish, tls};

/// A start of this length says at least twice how far it is.
const START_AT_LEAST: Duration = Duration::from_millis(3_500);
/// Longest wait for such a start to end, on a machine that has other work.
const START_WITHIN: Duration = Duration::from_secs(90);
/// Messages in one write, and how many of those are acknowledged together.
const WRITE_MESSAGES: usize = 500;
const WRITES: u64 = 20;
/// Messages added to a log that was read too fast.
const ROUND_MESSAGES: u64 = 100_000;
/// Most messages; each takes some 350 bytes of the disk.
const MESSAGES_MAX: u64 = 1_500_000;
const TOPIC: &str = "plant/press-7/sealed/x";

/// A plant whose device may send as fast as it can.
fn plant() -> Plant {
    let plant = Plant::new();
    for (from, to) in [
        ("messages_per_second = 100", "messages_per_second = 10_000_000"),
        ("messages_burst = 200", "messages_burst = 10_000_000"),
        ("bytes_per_second = 262_144", "bytes_per_second = 1_000_000_000"),
        ("bytes_burst = 1_048_576", "bytes_burst = 1_000_000_000"),
        ("segment_bytes = \"1 MiB\"", "segment_bytes = \"16 MiB\""),
        ("backlog_bytes_max = \"512 KiB\"", "backlog_bytes_max = \"4 MiB\""),
    ] {
        plant.set(from, to);
    }
    plant
}

/// Adds [`ROUND_MESSAGES`] to the log.
fn add_messages(raw: &mut Raw) {
    let many = publish(Version::V5, TOPIC, 0, 0, b"x").repeat(WRITE_MESSAGES);
    for _ in 0..ROUND_MESSAGES / (WRITES * WRITE_MESSAGES as u64) {
        for _ in 0..WRITES {
            assert!(raw.send(&many));
        }
        // Messages of one client keep their order: all before this one are in the log.
        assert!(raw.publish(TOPIC, 1, 1, b"x"));
        assert_eq!(raw.acknowledged(1).0, 0);
    }
}

/// Fills the log until a start takes long enough; what the broker said of all that.
fn make_long_log(plant: &Plant, device: &Bundle) -> String {
    let mut messages = 0;
    loop {
        let began = Instant::now();
        let broker = plant.start().serving_within(START_WITHIN);
        let took = began.elapsed();
        if took >= START_AT_LEAST {
            let said = broker.said();
            broker.kill();
            return said;
        }
        assert!(messages < MESSAGES_MAX, "{messages} messages are read in {took:?}");
        add_messages(&mut Raw::connected(broker.address, device, Version::V5));
        messages += ROUND_MESSAGES;
        broker.kill();
    }
}

/// What `broker` answers to a CONNECT; it must end the connection then.
fn answer(broker: &Broker, bundle: &Bundle, version: Version) -> Answer {
    let mut raw = Raw::open(broker.address, tls(bundle, Some(bundle)), version);
    assert!(raw.send(&connect(version, &bundle.name)));
    let answer = raw.answer();
    assert_eq!(raw.answer(), Answer::Closed);
    answer
}

/// When each line of progress was said, in milliseconds, and the records it names.
fn progress(said: &str) -> Vec<(u64, u64)> {
    let lines = said.lines().filter(|line| line.contains("reading the log"));
    let read = |line: &str| {
        let records = line.split("records=").nth(1)?.split(' ').next()?.parse().ok()?;
        // 2026-11-22T10:00:00.123456Z
        let (_, time) = line.split_once('T')?;
        let mut parts = time.split(['Z', ' ']).next()?.split(':');
        let mut part = || parts.next()?.parse::<f64>().ok();
        let seconds = part()? * 3_600.0 + part()? * 60.0 + part()?;
        Some(((seconds * 1_000.0) as u64, records))
    };
    lines.map(|line| read(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn while_a_long_log_is_read_connect_is_answered_with_server_busy_and_then_clients_come_in() {
    let plant = plant();
    let device = plant.device("press-7");
    let said_before = make_long_log(&plant, &device);
    let broker = plant.start();
    let health = broker.health_within(Duration::from_secs(10));
    assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("\"starting\""), "{health}");
    let busy = |version| answer(&broker, &device, version);
    assert_eq!(busy(Version::V5), Answer::Packet(0x20, vec![0, 0x89, 0]));
    assert_eq!(busy(Version::V3), Answer::Packet(0x20, vec![0, 3]));
    assert!(!broker.is_healthy(), "it was not starting any more: {}", broker.said());
    let mut broker = broker.serving_within(START_WITHIN);
    drop(Raw::connected(broker.address, &device, Version::V5));
    broker.lives();

    let said = broker.said();
    let lines = progress(&said[said_before.len()..]);
    assert!(lines.len() >= 2, "{lines:?}");
    for ((before, less), (after, more)) in lines.iter().zip(&lines[1..]) {
        let passed = after.checked_sub(*before).unwrap_or(1_000);
        assert!((990..3_000).contains(&passed) && more > less, "{lines:?}");
    }
    assert!(broker.stop().success());
    let refused = plant.query(&["--type", "connect.refused", "--limit", "10"]);
    let starting = refused.iter().filter(|entry| entry["why"] == "server.starting");
    let counts: Vec<_> = starting.map(|entry| entry["count"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 2, "{refused:#?}");
}

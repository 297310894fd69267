//! kill -9 at any moment under load: every message whose PUBACK a client saw stands in the log
//! after the restart, and the log verifies.
//!
//! The moment comes from a seed, which is printed; `AVOW_SEED=N` plays a run again. The page cache
//! survives a kill, so this test cannot tell a sync from none: `tests/simulation` does, on a disk
//! that forgets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Broker, Bundle, Plant, run};
use crate::raw::{Answer, Raw, Version, connect, tls};

const ROUNDS: u64 = 50;
const PUBLISHERS: usize = 4;
/// Messages of one publisher that wait for their PUBACK; below the broker's Receive Maximum.
const WINDOW: usize = 16;
/// A kill comes at most this long after the publishers began.
const KILL_WITHIN_MICROS: u64 = 400_000;
/// Entries that `audit tail` shows at most; more are exported.
const TAIL_MAX: usize = 10_000;
/// Longest time for what was recovered to be covered by a checkpoint.
const COVERED_WITHIN: Duration = Duration::from_secs(10);

/// xorshift64*: good enough to pick a moment.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

pub(crate) fn seed() -> u64 {
    let given = std::env::var("AVOW_SEED").ok().map(|text| text.parse().expect("a number"));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    given.unwrap_or_else(now) | 1
}

/// Publishes at QoS 1 until the connection is gone; the topics whose PUBACK came.
fn publish_until_killed(
    address: SocketAddr,
    bundle: &Bundle,
    round: u64,
    sent: &AtomicUsize,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut raw = Raw::open(address, tls(bundle, Some(bundle)), Version::V3);
    if !raw.send(&connect(Version::V3, &bundle.name)) || raw.answer() == Answer::Closed {
        return acknowledged;
    }
    // The Packet Identifier is the sequence number: a round is shorter than their range.
    let topic = |number: u16| format!("plant/{}/sealed/{round}/{number}", bundle.name);
    for number in 1..u16::MAX {
        if !raw.publish(&topic(number), 1, number, b"0123456789abcdef") {
            break;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        if usize::from(number) - acknowledged.len() < WINDOW {
            continue;
        }
        let Answer::Packet(0x40, body) = raw.answer() else { break };
        acknowledged.push(topic(u16::from_be_bytes([body[0], body[1]])));
    }
    // What the broker answered before it died may still be on its way to us.
    while let Answer::Packet(0x40, body) = raw.answer() {
        acknowledged.push(topic(u16::from_be_bytes([body[0], body[1]])));
    }
    acknowledged
}

/// The topics of all accepted messages among the newest entries that a checkpoint covers.
fn recorded(plant: &Plant, newest: usize) -> BTreeSet<String> {
    let text = if newest <= TAIL_MAX {
        let count = newest.to_string();
        run(&mut plant.avow(&["audit", "tail", "--json", "-n", &count])).exits(0).out
    } else {
        let file = plant.beside("recorded.ndjson");
        let _ = std::fs::remove_file(&file);
        let export = ["audit", "export", "--format", "ndjson", "--type", "publish", "--out"];
        run(plant.avow(&export).arg(&file)).exits(0);
        std::fs::read_to_string(file).unwrap()
    };
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let entries = entries.map(|line| line.get("entry").cloned().unwrap_or(line));
    let accepted = entries.filter(|e| e["type"] == "publish" && e["result"] == "allow");
    accepted.map(|entry| entry["topic"].as_str().unwrap().to_owned()).collect()
}

/// Fails unless every one of `topics` is in the log soon.
#[track_caller]
pub(crate) fn all_recorded(plant: &Plant, topics: &[String], newest: usize, when: &str) {
    let began = Instant::now();
    loop {
        let recorded = recorded(plant, newest);
        let missing: Vec<_> = topics.iter().filter(|topic| !recorded.contains(*topic)).collect();
        if missing.is_empty() {
            return;
        }
        let count = missing.len();
        assert!(
            began.elapsed() < COVERED_WITHIN,
            "{when}: {count} acknowledged messages are not in the log, first {:?}",
            missing.first()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One round of load, ended by a kill at a random moment.
fn load_and_kill(
    broker: Broker,
    bundles: &[Bundle],
    round: u64,
    random: &mut Random,
) -> (Vec<String>, usize) {
    let sent = Arc::new(AtomicUsize::new(0));
    let publishers: Vec<_> = bundles
        .iter()
        .cloned()
        .map(|bundle| {
            let (address, sent) = (broker.address, Arc::clone(&sent));
            std::thread::spawn(move || publish_until_killed(address, &bundle, round, &sent))
        })
        .collect();
    std::thread::sleep(Duration::from_micros(random.below(KILL_WITHIN_MICROS)));
    broker.kill();
    let topics = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap());
    (topics.collect(), sent.load(Ordering::Relaxed))
}

#[test]
fn what_was_acknowledged_survives_fifty_kills() {
    let seed = seed();
    println!("AVOW_SEED={seed}");
    let mut random = Random(seed);
    let plant = Plant::new();
    plant.set("checkpoint_interval = \"1s\"", "checkpoint_interval = \"100ms\"");
    let bundles: Vec<_> = (0..PUBLISHERS).map(|n| plant.device(&format!("load-{n}"))).collect();
    let mut broker = plant.serve();
    let (mut all, mut sent_total, mut cut_off) = (Vec::new(), 0, 0);
    for round in 0..ROUNDS {
        let (topics, sent) = load_and_kill(broker, &bundles, round, &mut random);
        cut_off += usize::from(sent > topics.len());
        // Connects, disconnects and starts stand between the messages.
        let newest = sent + 100;
        broker = plant.serve();
        let when = format!("AVOW_SEED={seed}, round {round}");
        all_recorded(&plant, &topics, newest, &when);
        let said = plant.audit_verify();
        assert_eq!(said.code, Some(0), "{when}: {said:#?}");
        sent_total += sent;
        all.extend(topics);
    }
    println!("{} of {sent_total} messages were acknowledged in {ROUNDS} rounds", all.len());
    // A test of nothing would pass: there must have been load, and kills in the middle of it.
    assert!(all.len() > 1_000, "only {} messages were acknowledged", all.len());
    assert!(cut_off > 20, "only {cut_off} kills met messages on their way");
    assert!(broker.stop().success());
    all_recorded(&plant, &all, usize::MAX, &format!("AVOW_SEED={seed}, at the end"));
    plant.audit_verify().exits(0);
}

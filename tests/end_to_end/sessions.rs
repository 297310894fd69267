//! kill -9, again and again, under a publisher and a subscriber that come back with Clean Session 0:
//! the subscriber gets every QoS 1 message at least once and every QoS 2 message once, in order.
//!
//! Both keep their own state across kills, as MQTT wants it: the publisher sends again what was not
//! acknowledged, the subscriber knows which Packet Identifiers it holds. The moments come from a
//! seed, which is printed; `AVOW_SEED=N` plays them again. Power loss is tried in
//! `tests/simulation/sessions.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Bundle, Plant};
use crate::kill_nine::{Random, seed};
use crate::raw::{Answer, Raw, Version, packet, publish, text, tls};

const ROUNDS: u64 = 200;
const KILL_WITHIN_MICROS: u64 = 120_000;
/// Messages of the publisher that wait for their acknowledgement, below the Receive Maximum.
const WINDOW: usize = 16;
/// Messages that the subscriber may be behind: its queue has a bound.
const BEHIND_MAX: u64 = 300;
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// A 3.1.1 CONNECT with Clean Session 0.
fn connect(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, 0, 0, 60]);
    text(&mut body, client_id);
    packet(0x10, &body)
}

fn ack(kind: u8, id: u16) -> Vec<u8> {
    packet(kind, &id.to_be_bytes())
}

/// The connection, once CONNACK came; it must remember the session if `remembered`.
fn resume(address: SocketAddr, bundle: &Bundle, remembered: bool) -> Option<Raw> {
    let mut raw = Raw::open(address, tls(bundle, Some(bundle)), Version::V3);
    if !raw.send(&connect(&bundle.name)) {
        return None;
    }
    let Answer::Packet(0x20, body) = raw.answer() else { return None };
    assert_eq!(body[1], 0, "CONNACK says {body:02x?}");
    assert!(body[0] == 1 || !remembered, "the session of {} was lost", bundle.name);
    Some(raw)
}

fn id_of(body: &[u8]) -> u16 {
    u16::from_be_bytes([body[0], body[1]])
}

/// Every third message is of QoS 2.
fn qos_of(number: u64) -> u8 {
    if number.is_multiple_of(3) { 2 } else { 1 }
}

#[derive(Default)]
struct Publisher {
    remembered: bool,
    next: u64,
    /// Identifier, number, whether PUBREC came.
    unacked: VecDeque<(u16, u64, bool)>,
}

impl Publisher {
    fn packet(&self, bundle: &Bundle, id: u16, number: u64, dup: bool) -> Vec<u8> {
        let topic = format!("plant/{}/sealed/n", bundle.name);
        let payload = number.to_string();
        let mut bytes = publish(Version::V3, &topic, qos_of(number), id, payload.as_bytes());
        bytes[0] |= u8::from(dup) << 3;
        bytes
    }

    /// Publishes below `limit` until everything is acknowledged or the connection is gone.
    fn run(&mut self, address: SocketAddr, bundle: &Bundle, limit: u64, got: &AtomicU64) {
        let Some(mut raw) = resume(address, bundle, self.remembered) else { return };
        self.remembered = true;
        for &(id, number, received) in &self.unacked {
            let again = match received {
                true => ack(0x62, id),
                false => self.packet(bundle, id, number, true),
            };
            if !raw.send(&again) {
                return;
            }
        }
        loop {
            let behind = self.next.saturating_sub(got.load(Ordering::Relaxed));
            if self.unacked.len() < WINDOW && self.next < limit && behind < BEHIND_MAX {
                let used = |id: u16| self.unacked.iter().any(|(other, ..)| *other == id);
                let id = (1..).find(|id| !used(*id)).unwrap();
                let number = self.next;
                self.unacked.push_back((id, number, false));
                self.next += 1;
                if !raw.send(&self.packet(bundle, id, number, false)) {
                    return;
                }
            } else if self.unacked.is_empty() && self.next >= limit {
                return;
            } else if self.unacked.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            } else if !self.handle(&mut raw) {
                return;
            }
        }
    }

    fn handle(&mut self, raw: &mut Raw) -> bool {
        let Answer::Packet(kind, body) = raw.answer() else { return false };
        let id = id_of(&body);
        match kind {
            0x40 | 0x70 => self.unacked.retain(|(other, ..)| *other != id),
            0x50 => {
                self.unacked.iter_mut().filter(|it| it.0 == id).for_each(|it| it.2 = true);
                return raw.send(&ack(0x62, id));
            }
            other => panic!("{other:02x}"),
        }
        true
    }
}

#[derive(Default)]
struct Subscriber {
    remembered: bool,
    held: BTreeSet<u16>,
    numbers: Vec<u64>,
}

impl Subscriber {
    /// Subscribes, for good.
    fn subscribe(&mut self, address: SocketAddr, bundle: &Bundle) {
        let mut raw = resume(address, bundle, false).unwrap();
        let mut body = vec![0, 1];
        text(&mut body, "plant/+/sealed/n");
        body.push(2);
        assert!(raw.send(&packet(0x82, &body)));
        assert_eq!(raw.answer(), Answer::Packet(0x90, vec![0, 1, 2]));
        self.remembered = true;
    }

    /// Receives until the connection is gone, or `wanted` different messages have come.
    fn run(&mut self, address: SocketAddr, bundle: &Bundle, wanted: u64, got: &AtomicU64) {
        let Some(mut raw) = resume(address, bundle, self.remembered) else { return };
        let mut distinct: BTreeSet<u64> = self.numbers.iter().copied().collect();
        while (distinct.len() as u64) < wanted || !self.held.is_empty() {
            let Answer::Packet(kind, body) = raw.answer() else { return };
            let answer = match kind {
                0x62 => {
                    self.held.remove(&id_of(&body));
                    ack(0x70, id_of(&body))
                }
                _ => {
                    assert_eq!(kind & 0xF0, 0x30, "{kind:02x}");
                    let (number, answer) = self.receive(kind, &body);
                    distinct.insert(number);
                    got.store(distinct.len() as u64, Ordering::Relaxed);
                    answer
                }
            };
            if !raw.send(&answer) {
                return;
            }
        }
    }

    fn receive(&mut self, kind: u8, body: &[u8]) -> (u64, Vec<u8>) {
        let (length, rest) = body.split_first_chunk::<2>().unwrap();
        let rest = &rest[usize::from(u16::from_be_bytes(*length))..];
        let (id, payload) = (id_of(rest), &rest[2..]);
        let number = std::str::from_utf8(payload).unwrap().parse().unwrap();
        assert_eq!(kind >> 1 & 3, qos_of(number));
        if qos_of(number) == 1 {
            self.numbers.push(number);
            return (number, ack(0x40, id));
        }
        // Under an identifier that is not released it is the same message. [MQTT-4.3.3-10]
        if self.held.insert(id) {
            self.numbers.push(number);
        }
        (number, ack(0x50, id))
    }

    fn check(&self, total: u64) {
        let of = |qos: u8| self.numbers.iter().copied().filter(move |it| qos_of(*it) == qos);
        let all: BTreeSet<u64> = self.numbers.iter().copied().collect();
        let missing: Vec<u64> = (0..total).filter(|number| !all.contains(number)).collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        let twice: Vec<u64> = of(2).collect();
        assert!(twice.is_sorted_by(|one, other| one < other), "QoS 2 once, in order: {twice:?}");
        let mut seen = BTreeSet::new();
        let first: Vec<u64> = of(1).filter(|number| seen.insert(*number)).collect();
        assert!(first.is_sorted(), "QoS 1 in order: {first:?}");
    }
}

#[test]
fn sessions_survive_two_hundred_kills() {
    let seed = seed();
    println!("AVOW_SEED={seed}");
    let mut random = Random(seed);
    let plant = Plant::new();
    let sealed = "id = \"device-sealed\"";
    let allow = format!("{sealed}\nqos_max = 2");
    plant.edit("policy.toml", |policy| policy.replacen(sealed, &allow, 1));
    let (device, board) = (plant.device("source"), plant.dashboard("sink"));
    let (mut publisher, mut subscriber) = (Publisher::default(), Subscriber::default());
    let got = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut broker = plant.serve();
    // Nothing is promised before SUBACK.
    subscriber.subscribe(broker.address, &board);
    for _ in 0..ROUNDS {
        let address = broker.address;
        std::thread::scope(|scope| {
            scope.spawn(|| publisher.run(address, &device, u64::MAX, &got));
            scope.spawn(|| subscriber.run(address, &board, u64::MAX, &got));
            std::thread::sleep(Duration::from_micros(random.below(KILL_WITHIN_MICROS)));
            broker.kill();
        });
        broker = plant.serve();
    }
    let (address, total) = (broker.address, publisher.next);
    let settling = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| publisher.run(address, &device, total, &got));
        scope.spawn(|| subscriber.run(address, &board, total, &got));
    });
    assert!(settling.elapsed() < SETTLED_WITHIN);
    let count = subscriber.numbers.len();
    println!("{total} messages, {count} deliveries, {ROUNDS} kills in {:?}", began.elapsed());
    subscriber.check(total);
    assert!(total > 1_000, "only {total} messages: the test tests little");
    assert!(broker.stop().success());
    plant.audit_verify().exits(0);
}

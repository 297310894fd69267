//! Retained: 10,000 retained messages of 128 bytes go to a new subscriber of everything in one go,
//! again and again, while a publisher at QoS 1 sends 500 messages a second: the time from its
//! PUBLISH to PUBACK, without and with the crowd.
//!
//! The aim, in the same run: the 99th percentile with the crowd is at most twice that without.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks and may wait")]
#[expect(dead_code, reason = "shared with benches of other loads")]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use avow::identity::Role;
use mio::{Events, Poll};
use serde_json::json;
use support::broker::{Broker, Permits};
use support::failure::{Failure, io};
use support::link::Link;
use support::publisher::Publisher;
use support::report::{Latencies, Report, bench_permitting};
use support::wire;

const RETAINED: usize = 10_000;
/// Retained messages on their way to the broker at once.
const IN_FLIGHT: usize = 32;
const RATE: u32 = 500;
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest time for all of the retained messages to come.
const CROWD_MAX: Duration = Duration::from_secs(30);
/// RETAIN.
const RETAIN: u8 = 0x01;

const PERMITS: Permits = Permits {
    policy: r#"
[[permit]]
id = "bench-kept"
who = ["device"]
publish = ["plant/${device}/kept/#"]
retain = true
schema = "none"
"#,
    acl: "pattern write plant/%u/kept/#\n",
};

fn main() -> ExitCode {
    let columns = ["broker", "crowds", "alone p50 ms", "p99 ms", "crowd p50 ms", "p99 ms", "ratio"];
    let title = "Retained: 10,000 messages to a new subscriber beside a publisher QoS 1, 500/s";
    bench_permitting(PERMITS, 10, Report::new(title, &columns), 1, |broker, arguments, report| {
        let mut load = Load::open(broker)?;
        load.run(WARM_UP, None)?;
        let alone = load.run(arguments.measured, None)?;
        let crowd = load.run(arguments.measured, Some(broker))?;
        let (before, during) = (alone.percentile_ms(99), crowd.percentile_ms(99));
        let ratio = during / before;
        report.row(
            vec![
                broker.name().to_owned(),
                load.crowds.to_string(),
                format!("{:.2}", alone.percentile_ms(50)),
                format!("{before:.2}"),
                format!("{:.2}", crowd.percentile_ms(50)),
                format!("{during:.2}"),
                format!("{ratio:.2}"),
            ],
            json!({
                "broker": broker.name(), "crowds": load.crowds, "ratio": ratio,
                "alone_p99_ms": before, "crowd_p99_ms": during,
            }),
        );
        let name = broker.name();
        report.remark(format!("{name}: p99 with the crowd ÷ p99 alone: **{ratio:.2}** (aim: 2)"));
        broker.require_running()?;
        Ok((load.published + RETAINED as u64, vec![("PUBACK p99 with the crowd", during)]))
    })
}

/// The publisher, and who comes beside it.
struct Load {
    poll: Poll,
    publisher: Publisher,
    buffer: Vec<u8>,
    published: u64,
    acknowledged: u64,
    /// Subscribers that got everything.
    crowds: u64,
}

/// A new subscriber, and how many retained messages it has.
struct Newcomer {
    link: Link,
    retained: usize,
    since: Instant,
}

impl Load {
    /// Has the broker keep [`RETAINED`] messages, and opens the publisher.
    fn open(broker: &Broker) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(io("make an epoll"))?;
        let mut buffer = vec![0; 256 * 1024];
        keep(broker, &mut buffer)?;
        let config = broker.pki().client(Role::Device, "bench-0")?;
        let mut link = Link::open(broker.address(), config, "bench-0", None)?;
        link.register(&poll, 0)?;
        let publisher = Publisher::new(link, "plant/bench-0/telemetry/force", 60, false);
        Ok(Self { poll, publisher, buffer, published: 0, acknowledged: 0, crowds: 0 })
    }

    /// Publishes for `time`. With a broker, one newcomer after the other subscribes to everything,
    /// and only what was sent while one was being served counts.
    fn run(&mut self, time: Duration, crowd: Option<&Broker>) -> Result<Latencies, Failure> {
        let mut latencies = Latencies::default();
        let mut events = Events::with_capacity(64);
        let mut newcomer = None;
        let (begin, mut sent) = (Instant::now(), 0);
        loop {
            let elapsed = begin.elapsed();
            let due = elapsed.as_micros() * u128::from(RATE) / 1_000_000;
            if elapsed >= time && self.acknowledged == self.published && newcomer.is_none() {
                return Ok(latencies);
            }
            if let (Some(broker), None, true) = (crowd, &newcomer, elapsed < time) {
                newcomer = Some(Newcomer::open(broker, &self.poll)?);
                // The handshake was ours; what was due meanwhile is not sent in a burst.
                let now = begin.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
                sent = now.max(sent);
                continue;
            }
            if sent < due && elapsed < time {
                self.published += self.publisher.publish(1, Instant::now())?;
                sent += 1;
            }
            self.turn(&mut events, &mut newcomer, &mut latencies)?;
        }
    }

    fn turn(
        &mut self,
        events: &mut Events,
        newcomer: &mut Option<Newcomer>,
        latencies: &mut Latencies,
    ) -> Result<(), Failure> {
        match self.poll.poll(events, Some(Duration::from_millis(1))) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(io("wait for events"))?,
        }
        // First the publisher: how long the generator takes for a newcomer is none of its latency.
        let acknowledged = &mut self.acknowledged;
        self.publisher.link.flush()?;
        self.publisher.receive(&mut self.buffer, |sent| {
            *acknowledged += 1;
            latencies.add(sent.elapsed());
        })?;
        let Some(served) = newcomer.as_mut() else { return Ok(()) };
        let retained = &mut served.retained;
        served.link.receive(&mut self.buffer, |first, _| {
            *retained += usize::from(first == wire::PUBLISH | RETAIN);
            Ok(())
        })?;
        if *retained >= RETAINED {
            *newcomer = None;
            self.crowds += 1;
        } else if served.since.elapsed() > CROWD_MAX {
            return Err(Failure::Unexpected("retained messages that do not come"));
        }
        Ok(())
    }
}

impl Newcomer {
    fn open(broker: &Broker, poll: &Poll) -> Result<Self, Failure> {
        let config = broker.pki().client(Role::Dashboard, "wall-0")?;
        let mut link = Link::open(broker.address(), config, "wall-0", None)?;
        link.register(poll, 1)?;
        link.queue(&wire::subscribe("plant/#"))?;
        link.flush()?;
        Ok(Self { link, retained: 0, since: Instant::now() })
    }
}

/// Publishes the messages that are to be retained, and waits for their acknowledgements.
fn keep(broker: &Broker, buffer: &mut [u8]) -> Result<(), Failure> {
    let config = broker.pki().client(Role::Device, "keeper")?;
    let mut link = Link::open(broker.address(), config, "keeper", None)?;
    let mut poll = Poll::new().map_err(io("make an epoll"))?;
    link.register(&poll, 0)?;
    let mut events = Events::with_capacity(64);
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < RETAINED {
        while sent < RETAINED && sent - acknowledged < IN_FLIGHT {
            let id = u16::try_from(sent % 60_000 + 1).unwrap_or(1);
            let topic = format!("plant/keeper/kept/{sent:05}");
            let mut packet = wire::publish(&topic, Some(id), &[b'x'; 128]);
            if let Some(first) = packet.first_mut() {
                *first |= RETAIN;
            }
            link.queue(&packet)?;
            sent += 1;
        }
        link.flush()?;
        poll.poll(&mut events, Some(Duration::from_millis(5))).map_err(io("wait for events"))?;
        link.receive(buffer, |first, body| match wire::acknowledged(body) {
            Some((_, code)) if first == wire::PUBACK && code < 0x80 => {
                acknowledged += 1;
                Ok(())
            }
            Some((_, code)) if first == wire::PUBACK => Err(Failure::Refused("PUBLISH", code)),
            _ => Err(Failure::Unexpected("not a PUBACK")),
        })?;
    }
    Ok(())
}

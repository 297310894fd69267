//! Retained: 10,000 retained messages of 128 bytes go to a new subscriber of everything in one go,
//! again and again, while a publisher at QoS 1 sends 500 messages a second: the time from its
//! PUBLISH to PUBACK, without and with the crowd.
//!
//! The aim, in the same run: the 99th percentile with the crowd is at most twice that without.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks and may wait")]
#[expect(dead_code, reason = "shared with benches of other loads")]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avow::identity::Role;
use mio::{Events, Poll};
use rustls::ClientConfig;
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
/// Of the publisher: 500 messages a second.
const INTERVAL: Duration = Duration::from_millis(2);
/// Bytes taken by one read.
const READ_BYTES: usize = 64 * 1024;
const WARM_UP: Duration = Duration::from_secs(1);
/// Between one newcomer and the next.
const PAUSE: Duration = Duration::from_millis(10);
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
        load.run(WARM_UP, false)?;
        let alone = load.run(arguments.measured, false)?;
        let crowd = load.run(arguments.measured, true)?;
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
    /// For the newcomers: an address and a certificate.
    address: SocketAddr,
    dashboard: Arc<ClientConfig>,
    buffer: Vec<u8>,
    published: u64,
    /// Subscribers that got everything.
    crowds: u64,
}

/// What the newcomers' thread and the publisher's tell each other.
#[derive(Default)]
struct Shared {
    /// Whether a newcomer has subscribed and not got everything yet.
    served: AtomicBool,
    over: AtomicBool,
}

impl Load {
    /// Has the broker keep [`RETAINED`] messages, and opens the publisher.
    fn open(broker: &Broker) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(io("make an epoll"))?;
        let mut buffer = vec![0; READ_BYTES];
        keep(broker, &mut buffer)?;
        let config = broker.pki().client(Role::Device, "bench-0")?;
        let mut link = Link::open(broker.address(), config, "bench-0", None)?;
        link.register(&poll, 0)?;
        let publisher = Publisher::new(link, "plant/bench-0/telemetry/force", 60, false);
        let (address, dashboard) =
            (broker.address(), broker.pki().client(Role::Dashboard, "wall-0")?);
        Ok(Self { poll, publisher, address, dashboard, buffer, published: 0, crowds: 0 })
    }

    /// Publishes for `time`; with a crowd, only while a newcomer is being served.
    fn run(&mut self, time: Duration, with_crowd: bool) -> Result<Latencies, Failure> {
        let shared = Shared::default();
        let (address, dashboard) = (self.address, Arc::clone(&self.dashboard));
        std::thread::scope(|scope| {
            let newcomers = with_crowd.then(|| scope.spawn(|| serve(address, &dashboard, &shared)));
            let latencies = self.publish(time, &shared, with_crowd);
            shared.over.store(true, Ordering::Release);
            if let Some(newcomers) = newcomers {
                self.crowds += newcomers.join().map_err(|_| Failure::Closed)??;
            }
            latencies
        })
    }

    fn publish(
        &mut self,
        time: Duration,
        shared: &Shared,
        with_crowd: bool,
    ) -> Result<Latencies, Failure> {
        let mut latencies = Latencies::default();
        let mut events = Events::with_capacity(64);
        let begin = Instant::now();
        let (mut due, mut waiting) = (begin, 0_u64);
        loop {
            let now = Instant::now();
            let is_over = now.duration_since(begin) >= time;
            if is_over && waiting == 0 {
                return Ok(latencies);
            }
            if now.duration_since(begin) > time + CROWD_MAX {
                return Err(Failure::Unexpected("acknowledgements that do not come"));
            }
            let wanted = !with_crowd || shared.served.load(Ordering::Acquire);
            if !is_over && wanted && now >= due {
                let sent = self.publisher.publish(1, now)?;
                (self.published, waiting) = (self.published + sent, waiting + sent);
                // What was due while nobody was served is not made up for.
                due = now.max(due + INTERVAL);
            }
            match self.poll.poll(&mut events, Some(Duration::from_millis(1))) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(io("wait for events"))?,
            }
            self.publisher.link.flush()?;
            self.publisher.receive(&mut self.buffer, |sent| {
                waiting -= 1;
                latencies.add(sent.elapsed());
            })?;
        }
    }
}

/// One newcomer after the other subscribes to everything, gets it and leaves; how many did.
fn serve(
    address: SocketAddr,
    dashboard: &Arc<ClientConfig>,
    shared: &Shared,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; READ_BYTES];
    let mut events = Events::with_capacity(64);
    let mut crowds = 0;
    while !shared.over.load(Ordering::Acquire) {
        let mut poll = Poll::new().map_err(io("make an epoll"))?;
        let mut link = Link::open(address, Arc::clone(dashboard), "wall-0", None)?;
        link.register(&poll, 0)?;
        shared.served.store(true, Ordering::Release);
        link.queue(&wire::subscribe("plant/#", 0))?;
        let (begin, mut retained) = (Instant::now(), 0);
        while retained < RETAINED {
            if begin.elapsed() > CROWD_MAX {
                return Err(Failure::Unexpected("retained messages that do not come"));
            }
            link.flush()?;
            poll.poll(&mut events, Some(Duration::from_millis(5))).map_err(io("wait"))?;
            link.receive(&mut buffer, |first, body| {
                retained += usize::from(first == wire::PUBLISH | RETAIN);
                match body.last() {
                    Some(&code) if first == wire::SUBACK && code >= 0x80 => {
                        Err(Failure::Refused("SUBSCRIBE", code))
                    }
                    _ => Ok(()),
                }
            })?;
        }
        shared.served.store(false, Ordering::Release);
        crowds += 1;
        // What was published meanwhile is acknowledged before the next handshake takes the core.
        std::thread::sleep(PAUSE);
    }
    Ok(crowds)
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

//! Publishers and subscribers on one thread, and what they see of a broker under load.
//!
//! Every PUBACK and every delivery is counted; a run that loses one fails. The load is either
//! closed (each publisher keeps its quota full) or paced (one message each 1/rate seconds, the
//! publishers in turn, at the millisecond that epoll can wait for).

use std::time::{Duration, Instant};

use avow::identity::Role;
use mio::{Events, Poll};

use super::broker::Broker;
use super::failure::{Failure, io};
use super::link::Link;
use super::process::own_cpu_micros;
use super::publisher::Publisher;
use super::report::{Latencies, Measured};
use super::wire;

/// Longest wait for the last acknowledgements and deliveries.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Bytes taken by one read.
const READ_BYTES: usize = 256 * 1024;

/// Who publishes what to whom, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) publishers: usize,
    /// Messages of one publisher without PUBACK; 0 publishes at QoS 0.
    pub(crate) in_flight_max: u16,
    /// Whether messages sent at once share a TLS record; few clients do that.
    pub(crate) packs: bool,
    /// Subscribers to everything.
    pub(crate) subscribers: usize,
    /// How they subscribe.
    pub(crate) subscription: Subscription,
    /// Messages per second of all publishers together; as many as the broker takes, if none.
    pub(crate) rate: Option<u32>,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// How a subscriber gets its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// At QoS 0.
    AtMostOnce,
    /// At QoS 1, in a session that ends with its connection.
    Transient,
    /// At QoS 1, in a session that outlives its connection by an hour.
    Lasting,
}

impl Subscription {
    /// The QoS that it asks for.
    pub(crate) const fn qos(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::Transient | Self::Lasting => 1,
        }
    }

    /// How long its session outlives its connection, in seconds.
    pub(crate) const fn expiry_seconds(self) -> u32 {
        match self {
            Self::AtMostOnce | Self::Transient => 0,
            Self::Lasting => 3_600,
        }
    }
}

/// The clients of one run.
pub(crate) struct Field {
    plan: Plan,
    poll: Poll,
    publishers: Vec<Publisher>,
    subscribers: Vec<Link>,
    buffer: Vec<u8>,
    /// The answers to what one read brought.
    acks: Vec<u8>,
    counts: Counts,
    latencies: Latencies,
    /// Whether acknowledged messages are followed by new ones.
    refills: bool,
    next: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    published: u64,
    acknowledged: u64,
    delivered: u64,
}

/// A moment of a run.
struct Mark {
    at: Instant,
    counts: Counts,
    broker_micros: u64,
    own_micros: u64,
}

/// Opens the clients of `plan`, runs it against `broker`, and says what it cost.
pub(crate) fn run(broker: &mut Broker, plan: Plan) -> Result<Measured, Failure> {
    let outcome = Field::open(broker, plan).and_then(|mut field| field.run(broker));
    // A broker that has died explains a failure better than the connection that saw it.
    broker.require_running()?;
    outcome
}

impl Field {
    fn open(broker: &Broker, plan: Plan) -> Result<Self, Failure> {
        let poll = Poll::new().map_err(io("make an epoll"))?;
        let mut subscribers = Vec::with_capacity(plan.subscribers);
        for index in 0..plan.subscribers {
            let name = format!("wall-{index}");
            let config = broker.pki().client(Role::Dashboard, &name)?;
            let wish = Some(("plant/#", plan.subscription));
            let mut link = Link::open(broker.address(), config, &name, wish)?;
            link.register(&poll, plan.publishers + index)?;
            subscribers.push(link);
        }
        let mut publishers = Vec::with_capacity(plan.publishers);
        for index in 0..plan.publishers {
            let name = format!("bench-{index}");
            let config = broker.pki().client(Role::Device, &name)?;
            let mut link = Link::open(broker.address(), config, &name, None)?;
            link.register(&poll, index)?;
            let topic = format!("plant/{name}/telemetry/force");
            publishers.push(Publisher::new(link, &topic, plan.in_flight_max, plan.packs));
        }
        Ok(Self {
            plan,
            poll,
            publishers,
            subscribers,
            buffer: vec![0; READ_BYTES],
            acks: Vec::new(),
            counts: Counts::default(),
            latencies: Latencies::default(),
            refills: true,
            next: 0,
        })
    }

    fn run(&mut self, broker: &Broker) -> Result<Measured, Failure> {
        if self.plan.rate.is_none() {
            for publisher in &mut self.publishers {
                let quota = usize::from(self.plan.in_flight_max);
                self.counts.published += publisher.publish(quota, Instant::now())?;
            }
        }
        self.pump(self.plan.warm_up)?;
        self.latencies = Latencies::default();
        let begin = self.mark(broker)?;
        let mut rss_bytes = Vec::new();
        let mut left = self.plan.measured;
        while !left.is_zero() {
            let step = left.min(Duration::from_secs(1));
            self.pump(step)?;
            rss_bytes.push(broker.process().rss_bytes()?);
            left = left.saturating_sub(step);
        }
        let end = self.mark(broker)?;
        self.drain(broker)?;
        let counts = end.counts.since(begin.counts);
        Ok(Measured {
            broker: broker.name(),
            seconds: end.at.duration_since(begin.at).as_secs_f64(),
            published: if self.plan.in_flight_max == 0 {
                counts.published
            } else {
                counts.acknowledged
            },
            delivered: counts.delivered,
            total: self.counts.published,
            broker_micros: end.broker_micros - begin.broker_micros,
            generator_micros: end.own_micros - begin.own_micros,
            latencies: std::mem::take(&mut self.latencies),
            rss_bytes,
        })
    }

    fn mark(&self, broker: &Broker) -> Result<Mark, Failure> {
        Ok(Mark {
            at: Instant::now(),
            counts: self.counts,
            broker_micros: broker.process().cpu_micros()?,
            own_micros: own_cpu_micros()?,
        })
    }

    /// Runs the load for `time`.
    fn pump(&mut self, time: Duration) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut events = Events::with_capacity(256);
        let mut sent = 0;
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= time {
                return Ok(());
            }
            let mut wait = time - elapsed;
            if let Some(rate) = self.plan.rate {
                let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
                while sent < due && self.publish_next()? {
                    sent += 1;
                }
                wait = wait.min(Duration::from_millis(1));
            }
            self.turn(&mut events, wait)?;
        }
    }

    /// Sends one message of the next publisher that may send; says whether there was one.
    fn publish_next(&mut self) -> Result<bool, Failure> {
        for _ in 0..self.publishers.len() {
            let count = self.publishers.len();
            let Some(publisher) = self.publishers.get_mut(self.next) else { return Ok(false) };
            self.next = (self.next + 1) % count;
            if publisher.publish(1, Instant::now())? == 1 {
                self.counts.published += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for events, at most `wait`, and answers them.
    fn turn(&mut self, events: &mut Events, wait: Duration) -> Result<(), Failure> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(io("wait for events"))?,
        }
        let now = Instant::now();
        for event in &*events {
            let index = event.token().0;
            if let Some(publisher) = self.publishers.get_mut(index) {
                let (counts, latencies) = (&mut self.counts, &mut self.latencies);
                publisher.link.flush()?;
                publisher.receive(&mut self.buffer, |sent| {
                    counts.acknowledged += 1;
                    latencies.add(now.saturating_duration_since(sent));
                })?;
                if self.refills && self.plan.rate.is_none() {
                    counts.published += publisher.publish(usize::MAX, now)?;
                }
            } else if let Some(link) = self.subscribers.get_mut(index - self.publishers.len()) {
                let delivered = &mut self.counts.delivered;
                let expected = wire::PUBLISH | self.plan.subscription.qos() << 1;
                let acks = &mut self.acks;
                acks.clear();
                link.receive(&mut self.buffer, |first, body| {
                    if first != expected {
                        return Err(Failure::Unexpected("not a PUBLISH at the QoS asked for"));
                    }
                    if first != wire::PUBLISH {
                        wire::acknowledge(body, acks).ok_or(Failure::Unexpected("a PUBLISH"))?;
                    }
                    *delivered += 1;
                    Ok(())
                })?;
                if !acks.is_empty() {
                    link.queue(acks)?;
                }
                link.flush()?;
            }
        }
        Ok(())
    }

    /// Waits until everything that was published is acknowledged and delivered.
    fn drain(&mut self, broker: &Broker) -> Result<(), Failure> {
        self.refills = false;
        let mut events = Events::with_capacity(256);
        let deadline = Instant::now() + DRAIN_MAX;
        let fan_out = u64::try_from(self.subscribers.len()).unwrap_or(u64::MAX);
        loop {
            let Counts { published, acknowledged, delivered } = self.counts;
            let expected = published * fan_out;
            let acknowledges = self.plan.in_flight_max > 0;
            if (!acknowledges || acknowledged == published) && delivered == expected {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let broker = broker.name();
                return Err(Failure::Lost { broker, published, acknowledged, delivered, expected });
            }
            self.turn(&mut events, Duration::from_millis(10))?;
        }
    }
}

impl Counts {
    fn since(self, begin: Self) -> Self {
        Self {
            published: self.published - begin.published,
            acknowledged: self.acknowledged - begin.acknowledged,
            delivered: self.delivered - begin.delivered,
        }
    }
}

//! `$SYS/broker/…`: what the broker says of itself, under Mosquitto's names.
//!
//! Every [`About::sys_interval_seconds`] the figures that have changed are published as retained
//! messages of QoS 0 to who subscribes to them and may read them; policy judges each delivery, as
//! of any topic. While nobody subscribes, the averages are kept and no message is made.
//!
//! These messages are one kind of two that no client sent (receipts are the other): they have no author, no entry in the log
//! and no proof. [`Message::of_broker`] makes them, and makes nothing outside of `$SYS/` and
//! `$receipts/`, where no client can publish. Evidence says nothing of counters. They have a store of their own, so they
//! take no place among the retained messages and are gone with the process.
//!
//! Left out of Mosquitto's tree: `clients/active`, `clients/inactive` (older names for connected
//! and disconnected), `heap/…` (the allocator is not asked; `/metrics` and the system know the
//! process), `packet/out/…` (what waits is bounded in bytes for each connection), `bridge/…` (there
//! are none) and `timestamp`. Bytes are those of Control Packets, without TLS. What is stored is
//! counted with topics and properties, as its bounds are. Figures are those of one shard.

use std::time::Duration;

use bytes::Bytes;

use super::{Broker, Counters};
use crate::mqtt::{PublishProperties, TopicFilter, TopicName};
use crate::routing::{Message, Retained};
use crate::session::Timer;
use crate::time::{Instant, Now};

/// First level of its topics.
const ROOT: &str = "$SYS";
/// The averages: name and length of their window.
const WINDOWS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];
/// What is averaged, per minute.
const RATES: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

/// The figures that were published last, and what the averages need.
#[derive(Debug, Default)]
pub(super) struct Sys {
    started: Instant,
    sampled: Instant,
    /// Of [`RATES`], when they were sampled.
    totals: [u64; RATES.len()],
    loads: [[f64; WINDOWS.len()]; RATES.len()],
    retained: Retained,
}

impl Sys {
    /// The retained messages of the broker itself, if `filter` can only match them.
    pub(super) fn store(&self, filter: &TopicFilter) -> Option<&Retained> {
        is_sys(filter).then_some(&self.retained)
    }

    /// Brings the averages up to `now`: each moves towards the rate since the last sample, the
    /// more the longer ago that was.
    fn sample(&mut self, now: Instant, totals: [u64; RATES.len()]) {
        let seconds = now.since(self.sampled).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        for ((load, total), before) in self.loads.iter_mut().zip(totals).zip(self.totals) {
            let per_minute = lossy(total.saturating_sub(before)) * 60.0 / seconds;
            for (average, (_, window)) in load.iter_mut().zip(WINDOWS) {
                let kept = (-seconds / window).exp();
                *average = per_minute + kept * (*average - per_minute);
            }
        }
        (self.sampled, self.totals) = (now, totals);
    }
}

impl Broker {
    /// Begins to publish, if that is wanted.
    pub(super) fn begin_sys(&mut self, now: Now) {
        (self.sys.started, self.sys.sampled) = (now.instant, now.instant);
        self.await_sys(now);
    }

    fn await_sys(&mut self, now: Now) {
        let seconds = self.settings.about.sys_interval_seconds;
        if seconds > 0 {
            let due = now.instant.after(Duration::from_secs(seconds.into()));
            self.timers.set(due, Timer::SysDue);
        }
    }

    /// The interval is over: publishes what has changed.
    pub(super) fn publish_sys(&mut self, now: Now) {
        let totals = rated(self.counters());
        self.sys.sample(now.instant, totals);
        self.await_sys(now);
        if !self.subscriptions.is_wanted(ROOT) {
            self.sys.retained = Retained::default();
            return;
        }
        for message in self.changed(now) {
            self.sys.retained.set(message.clone());
            self.route(now, &message);
        }
    }

    /// Somebody may have begun to subscribe, and nobody had: makes what there is to show.
    pub(super) fn show_sys(&mut self, now: Now) {
        let is_on = self.settings.about.sys_interval_seconds > 0;
        if is_on && self.sys.retained.is_empty() && self.subscriptions.is_wanted(ROOT) {
            for message in self.changed(now) {
                self.sys.retained.set(message);
            }
        }
    }

    /// Messages for the figures that are not as they were published last.
    fn changed(&mut self, now: Now) -> Vec<std::sync::Arc<Message>> {
        let mut messages = Vec::new();
        for (name, value) in self.figures(now) {
            let Ok(topic) = TopicName::parse(&format!("{ROOT}/broker/{name}")) else { continue };
            let known = self.sys.retained.message(&topic, now.instant);
            if known.is_some_and(|known| known.payload() == value.as_bytes()) {
                continue;
            }
            messages.extend(Message::of_broker(
                topic,
                Bytes::from(value),
                PublishProperties::default(),
                now.instant,
            ));
        }
        messages
    }

    fn figures(&mut self, now: Now) -> Vec<(String, String)> {
        let (stored_messages, stored_bytes) =
            (self.queued.0 + self.retained.len() as u64, self.queued.1 + self.retained.bytes());
        let shared = self.subscriptions.shared_len() as u64;
        let connected = self.sessions.values().filter(|known| known.connection.is_some()).count();
        let connected = connected as u64;
        let uptime = now.instant.since(self.sys.started).as_secs();
        let counters = self.counters();
        let (c, t) = (counters, &counters.traffic);
        let counted = [
            ("clients/connected", connected),
            ("clients/disconnected", c.sessions_live.saturating_sub(connected)),
            ("clients/total", c.sessions_live),
            ("clients/maximum", t.sessions_max.max(c.sessions_live)),
            ("clients/expired", t.sessions_expired),
            ("messages/received", t.packets_received),
            ("messages/sent", t.packets_sent),
            ("messages/stored", stored_messages),
            ("publish/messages/received", c.publishes_received),
            ("publish/messages/sent", c.deliveries),
            ("publish/messages/dropped", c.deliveries_dropped),
            ("publish/bytes/received", t.payload_bytes_received),
            ("publish/bytes/sent", t.payload_bytes_sent),
            ("bytes/received", t.bytes_received),
            ("bytes/sent", t.bytes_sent),
            ("subscriptions/count", c.subscriptions_live.saturating_sub(shared)),
            ("shared_subscriptions/count", shared),
            ("retained messages/count", c.retained_live),
            ("store/messages/count", stored_messages),
            ("store/messages/bytes", stored_bytes),
        ];
        let mut figures = vec![
            ("version".to_owned(), concat!("avow version ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("uptime".to_owned(), format!("{uptime} seconds")),
        ];
        figures.extend(counted.map(|(name, count)| (name.to_owned(), count.to_string())));
        for (rate, averages) in RATES.iter().zip(self.sys.loads) {
            for ((window, _), average) in WINDOWS.iter().zip(averages) {
                figures.push((format!("load/{rate}/{window}"), format!("{average:.2}")));
            }
        }
        figures
    }
}

/// Whether `filter` can match nothing but topics of the broker itself: a wildcard does not stand
/// for a first level that begins with `$`. [MQTT-4.7.2-1]
fn is_sys(filter: &TopicFilter) -> bool {
    filter.levels().next() == Some(ROOT)
}

/// In the order of [`RATES`].
fn rated(counters: &Counters) -> [u64; RATES.len()] {
    let traffic = &counters.traffic;
    [
        traffic.packets_received,
        traffic.packets_sent,
        counters.deliveries_dropped,
        counters.publishes_received,
        counters.deliveries,
        traffic.bytes_received,
        traffic.bytes_sent,
        traffic.connections_opened,
        counters.connects,
    ]
}

/// Rounded beyond 2^53, which no minute brings.
fn lossy(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_moves_towards_the_rate_as_fast_as_its_window_is_short() {
        let mut sys = Sys::default();
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        // 2 a second for a minute, in uneven steps, then nothing.
        for seconds in [10, 20, 25, 60] {
            sys.sample(at(seconds), [seconds * 2; RATES.len()]);
        }
        let [minute, five, fifteen] = sys.loads[0];
        let after = |seconds: f64, window: f64| 120.0 * (1.0 - (-seconds / window).exp());
        assert!((minute - after(60.0, 60.0)).abs() < 1e-9, "{minute}");
        assert!((five - after(60.0, 300.0)).abs() < 1e-9, "{five}");
        assert!((fifteen - after(60.0, 900.0)).abs() < 1e-9, "{fifteen}");
        // The same moment again, and a counter that went back, change nothing or towards nothing.
        sys.sample(at(60), [0; RATES.len()]);
        assert_eq!(sys.loads[0][0], minute);
        sys.sample(at(120), [0; RATES.len()]);
        assert!(sys.loads[0][0] < minute / 2.0);
    }
}

//! Counters in the OpenMetrics text format.
//!
//! Nothing is counted here: a scrape takes a snapshot of what the core, the acceptor and the
//! writer counted, and encodes it. Label values come from closed lists (reasons of refusals), so
//! no peer can make a series. Units are in the names, seconds and bytes.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::broker::{BUCKETS_MICROS, Counters, Histogram};
use crate::server::WriterStats;
use crate::server::witness::WitnessStatus;

/// Everything that one scrape shows.
#[derive(Clone, Debug, Default)]
pub struct MetricsSnapshot {
    /// Of all shards together.
    pub counters: Counters,
    /// Of the writer.
    pub writer: WriterStats,
    /// Durations of the handshakes that succeeded.
    pub handshakes: Histogram,
    /// Refused handshakes that reached no log because too many waited.
    pub handshakes_unreported: u64,
    /// One row per witness that is asked.
    pub witnesses: Vec<WitnessStatus>,
}

/// `snapshot` as OpenMetrics text.
///
/// # Errors
/// Never in practice: the text goes to memory.
pub fn encode_metrics(snapshot: MetricsSnapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("avow");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for MetricsSnapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let counters = &self.counters;
        for (name, help, value) in counted(counters, &self.writer, self.handshakes_unreported) {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in live(counters) {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        encode_refusals(encoder, counters)?;
        encode_witnesses(encoder, &self.witnesses)?;
        let help = "From the arrival of a QoS 1 or 2 PUBLISH to its acknowledgement";
        encode_histogram(encoder, "publish_to_ack", help, &counters.publish_to_ack)?;
        let help = "Duration of fdatasync of the log";
        encode_histogram(encoder, "log_sync", help, &self.writer.sync)?;
        let help = "From the first byte of a client to its identity, where there is one";
        encode_histogram(encoder, "handshake", help, &self.handshakes)
    }
}

type Row = (&'static str, &'static str, u64);

fn counted(counters: &Counters, writer: &WriterStats, unreported: u64) -> [Row; 26] {
    let c = counters;
    [
        ("connects", "Sessions begun or resumed", c.connects),
        ("connects_refused", "CONNECT packets refused", c.connects_refused),
        ("handshakes_refused", "Handshakes refused", c.handshakes_refused),
        ("handshakes_unreported", "Refused handshakes too many for the log", unreported),
        ("publishes_received", "PUBLISH packets received", c.publishes_received),
        ("publishes_authorized", "PUBLISH packets permitted by policy", c.publishes_authorized),
        ("publishes_admitted", "PUBLISH packets within their limits", c.publishes_admitted),
        ("publishes_conforming", "PUBLISH packets satisfying schemas", c.publishes_conforming),
        ("publishes_recorded", "PUBLISH packets on disk", c.publishes_recorded),
        ("publishes_quarantined", "PUBLISH packets quarantined", c.publishes_quarantined),
        ("publishes_flagged", "PUBLISH packets accepted with a flag", c.publishes_flagged),
        ("publishes_duplicate", "QoS 2 resends recognised", c.publishes_duplicate),
        ("deliveries", "Copies handed to connections", c.deliveries),
        ("deliveries_dropped", "Copies dropped at a bound", c.deliveries_dropped),
        ("deliveries_withheld", "Copies the receiver may not read", c.deliveries_withheld),
        ("violations", "Protocol violations", c.violations),
        ("clock_steps", "Times that the wall clock was set", c.clock_steps),
        ("connections_failed", "Connections whose own task failed", c.connections_failed),
        ("log_batches", "Batches of shards written", writer.batches),
        ("log_written_bytes", "Bytes written to the log", writer.bytes),
        ("log_entries", "Entries in the log", writer.entries),
        ("log_entries_signed", "Entries a checkpoint covers", writer.signed_entries),
        ("log_checkpoints", "Checkpoints signed", writer.checkpoints),
        ("log_segments_unprepared", "Segments not made ahead", writer.segments_unprepared),
        ("log_syncs", "Calls of fdatasync", writer.sync.count()),
        ("refusals_seen", "Refusals of all reasons", c.refusals.iter().map(|(_, n)| n).sum()),
    ]
}

fn live(counters: &Counters) -> [(&'static str, &'static str, i64); 4] {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    [
        ("connections", "Network Connections now", gauge(counters.connections_live)),
        ("sessions", "Sessions now, connected or not", gauge(counters.sessions_live)),
        ("subscriptions", "Subscriptions now", gauge(counters.subscriptions_live)),
        ("retained_messages", "Retained messages now", gauge(counters.retained_live)),
    ]
}

fn encode_refusals(encoder: &mut DescriptorEncoder<'_>, counters: &Counters) -> fmt::Result {
    let help = "Refusals by reason";
    let mut metric = encoder.encode_descriptor("refusals", help, None, MetricType::Counter)?;
    for (refusal, count) in &counters.refusals {
        let labels = [("reason", refusal.name())];
        ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The label is a name of the policy file, so no peer can make a series.
fn encode_witnesses(
    encoder: &mut DescriptorEncoder<'_>,
    witnesses: &[WitnessStatus],
) -> fmt::Result {
    if witnesses.is_empty() {
        return Ok(());
    }
    type Value = fn(&WitnessStatus) -> u64;
    let counters: [(&str, &str, Value); 3] = [
        ("witness_cosignatures", "Cosignatures of each witness", |row| row.cosignatures),
        ("witness_failures", "Requests that brought no cosignature", |row| row.failures),
        ("witness_alarms", "Answers that speak of another tree of this log", |row| row.alarms),
    ];
    for (name, help, value) in counters {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for row in witnesses {
            let labels = [("witness", row.name.as_str())];
            ConstCounter::new(value(row)).encode(metric.encode_family(&labels)?)?;
        }
    }
    type Known = fn(&WitnessStatus) -> Option<u64>;
    let gauges: [(&str, &str, Option<Unit>, Known); 2] = [
        ("witness_cosigned_entries", "Entries that each witness has cosigned", None, |row| {
            row.cosigned_entries
        }),
        ("witness_cosigned_time", "When it last did, since 1970", Some(Unit::Seconds), |row| {
            row.cosigned_unix_seconds
        }),
    ];
    for (name, help, unit, value) in gauges {
        let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (row, value) in witnesses.iter().filter_map(|row| Some((row, value(row)?))) {
            let labels = [("witness", row.name.as_str())];
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &Histogram,
) -> fmt::Result {
    let bounds = BUCKETS_MICROS
        .iter()
        .map(|micros| *micros as f64 / 1e6)
        .chain(std::iter::once(f64::INFINITY));
    let buckets = bounds.zip(histogram.buckets).collect::<Vec<_>>();
    let sum = histogram.sum_nanos as f64 / 1e9;
    let unit = Unit::Seconds;
    encoder
        .encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?
        .encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn a_scrape_shows_what_was_counted_under_names_with_units() {
        let mut counters = Counters { publishes_received: 7, ..Counters::default() };
        counters.refusals = vec![(Refusal::NoRule, 2), (Refusal::MessageRate, 1)];
        counters.publish_to_ack.observe(Duration::from_micros(700));
        counters.publish_to_ack.observe(Duration::from_secs(60));
        let text =
            encode_metrics(MetricsSnapshot { counters, ..MetricsSnapshot::default() }).unwrap();
        for line in [
            "avow_publishes_received_total 7",
            "avow_refusals_total{reason=\"policy.no_rule\"} 2",
            "avow_refusals_total{reason=\"limit.messages\"} 1",
            "avow_publish_to_ack_seconds_bucket{le=\"0.0005\"} 0",
            "avow_publish_to_ack_seconds_bucket{le=\"0.001\"} 1",
            "avow_publish_to_ack_seconds_bucket{le=\"+Inf\"} 2",
            "avow_publish_to_ack_seconds_count 2",
        ] {
            assert!(text.lines().any(|seen| seen == line), "no `{line}` in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn each_witness_has_its_series() {
        let row = |name: &str, cosigned_entries| WitnessStatus {
            name: name.to_owned(),
            cosigned_entries,
            cosigned_unix_seconds: cosigned_entries.map(|_| 1_700_000_000),
            alarms: 1,
            ..WitnessStatus::default()
        };
        let witnesses = vec![row("w1", Some(42)), row("w2", None)];
        let snapshot = MetricsSnapshot { witnesses, ..MetricsSnapshot::default() };
        let text = encode_metrics(snapshot).unwrap();
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("avow_witness")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        avow_witness_cosignatures_total{witness="w1"} 0
        avow_witness_cosignatures_total{witness="w2"} 0
        avow_witness_failures_total{witness="w1"} 0
        avow_witness_failures_total{witness="w2"} 0
        avow_witness_alarms_total{witness="w1"} 1
        avow_witness_alarms_total{witness="w2"} 1
        avow_witness_cosigned_entries{witness="w1"} 42
        avow_witness_cosigned_time_seconds{witness="w1"} 1700000000
        "#);
    }
}

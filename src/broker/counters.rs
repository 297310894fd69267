//! What the core counts: plain numbers that the shell copies out now and then.

use std::time::Duration;

use super::output::Output;
use crate::refusal::Refusal;

/// Upper bounds of the buckets of [`Histogram`], in microseconds; one more bucket holds the rest.
pub const BUCKETS_MICROS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

/// A histogram of durations with fixed buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations per bucket, not cumulative; the last one is beyond every bound.
    pub buckets: [u64; BUCKETS_MICROS.len() + 1],
    /// Sum of all observations, in nanoseconds.
    pub sum_nanos: u64,
}

impl Histogram {
    /// Counts one observation.
    pub fn observe(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counts since the start of the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions begun or resumed.
    pub connects: u64,
    /// CONNECT packets refused.
    pub connects_refused: u64,
    /// Handshakes refused.
    pub handshakes_refused: u64,
    /// PUBLISH packets that came in.
    pub publishes_received: u64,
    /// … that policy permitted.
    pub publishes_authorized: u64,
    /// … that limits let pass.
    pub publishes_admitted: u64,
    /// … that satisfied their schema (or needed none).
    pub publishes_conforming: u64,
    /// … that are on disk with their evidence.
    pub publishes_recorded: u64,
    /// … that went to a quarantine topic.
    pub publishes_quarantined: u64,
    /// … that went on with a flag in their entry, for their own time or number.
    pub publishes_flagged: u64,
    /// QoS 2 resends that were recognised.
    pub publishes_duplicate: u64,
    /// Copies handed to connections.
    pub deliveries: u64,
    /// Copies dropped: QoS 0 to a congested connection, queue bounds, Maximum Packet Size, expiry.
    pub deliveries_dropped: u64,
    /// Copies withheld because the receiver may not read the topic.
    pub deliveries_withheld: u64,
    /// Protocol violations.
    pub violations: u64,
    /// Times that the wall clock was found to have been set.
    pub clock_steps: u64,
    /// Connections that ended because their own task failed: ours to mend.
    pub connections_failed: u64,
    /// Refusals by reason, in order of first occurrence.
    pub refusals: Vec<(Refusal, u64)>,
    /// Live Network Connections.
    pub connections_live: u64,
    /// Sessions, with and without a connection.
    pub sessions_live: u64,
    /// Subscriptions.
    pub subscriptions_live: u64,
    /// Retained messages.
    pub retained_live: u64,
    /// What only `$SYS` shows.
    pub traffic: Traffic,
    /// Time from the arrival of a QoS 1 or 2 PUBLISH to its acknowledgement.
    pub publish_to_ack: Histogram,
}

/// Counts since the start that `$SYS/broker/…` shows beside [`Counters`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Network Connections that had an identity.
    pub connections_opened: u64,
    /// Control Packets received.
    pub packets_received: u64,
    /// Control Packets sent.
    pub packets_sent: u64,
    /// Bytes of Control Packets received, as far as the shell has said.
    pub bytes_received: u64,
    /// Bytes of Control Packets sent, as far as the shell has said.
    pub bytes_sent: u64,
    /// Bytes of payloads received.
    pub payload_bytes_received: u64,
    /// Bytes of payloads sent.
    pub payload_bytes_sent: u64,
    /// Sessions whose expiry interval passed.
    pub sessions_expired: u64,
    /// Most sessions at once.
    pub sessions_max: u64,
}

impl Traffic {
    /// Counts what the shell is asked to send.
    pub(super) fn count(&mut self, output: &Output) {
        match output {
            Output::Send { .. } => self.packets_sent += 1,
            Output::Deliver { publish, .. } => {
                self.packets_sent += 1;
                self.payload_bytes_sent += publish.payload_len() as u64;
            }
            Output::Pause { .. }
            | Output::Resume { .. }
            | Output::Close { .. }
            | Output::Sequence { .. }
            | Output::Verify { .. }
            | Output::Administered { .. }
            | Output::Event(_)
            | Output::Stopped => {}
        }
    }

    /// Adds what another shard counted.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            connections_opened,
            packets_received,
            packets_sent,
            bytes_received,
            bytes_sent,
            payload_bytes_received,
            payload_bytes_sent,
            sessions_expired,
            sessions_max,
        } = other;
        self.connections_opened += connections_opened;
        self.packets_received += packets_received;
        self.packets_sent += packets_sent;
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
        self.payload_bytes_received += payload_bytes_received;
        self.payload_bytes_sent += payload_bytes_sent;
        self.sessions_expired += sessions_expired;
        // An upper bound: they need not have had their most at the same time.
        self.sessions_max += sessions_max;
    }
}

impl Counters {
    /// Counts one refusal.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        match self.refusals.iter_mut().find(|(seen, _)| *seen == refusal) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((refusal, 1)),
        }
    }
}

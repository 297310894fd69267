//! Asking and telling a running server from any thread.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::listener::{HandshakeStats, REFUSALS_QUEUED_MAX};
use super::message::{Message, RefusedHandshake, ShardSnapshot, Shards};
use super::shutdown::{FaultSender, Stopper};
use super::witness::WitnessBoard;
use super::writing::WriterStats;
use tokio::sync::Semaphore;

use crate::broker::{Administration, Counters, Histogram};
use crate::evidence::PseudonymKey;
use crate::evidence::erasure::IndexRanges;
use crate::telemetry::{Health, HealthSource, MetricsSnapshot};

/// How long a shard may take to answer before it counts as unresponsive.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long an administration may take to reach the disk.
const RECORD_MAX: Duration = Duration::from_secs(30);

/// The server does not answer: it has stopped, or it cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// It did not answer in time.
    #[error("the broker did not answer in time")]
    TimedOut,
    /// It has stopped.
    #[error("the broker has stopped")]
    Stopped,
}

/// A way to ask and tell a running server. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shards: Shards,
    stopper: Stopper,
    faults: FaultSender,
    writer: Arc<dyn Fn() -> WriterStats + Send + Sync>,
    handshakes: Arc<HandshakeStats>,
    witnesses: WitnessBoard,
    /// Places for refusals on their way to a shard.
    refusals: Arc<Semaphore>,
}

impl Handle {
    pub(super) fn new(
        shards: Shards,
        stopper: Stopper,
        faults: FaultSender,
        writer: Arc<dyn Fn() -> WriterStats + Send + Sync>,
        handshakes: Arc<HandshakeStats>,
    ) -> Self {
        Self {
            shards,
            stopper,
            faults,
            writer,
            handshakes,
            witnesses: WitnessBoard::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS_QUEUED_MAX)),
        }
    }

    /// What stops the server.
    pub fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// What was counted so far, by all shards together; blocks for their answer.
    ///
    /// # Errors
    /// [`NotServing`] if a shard does not answer.
    pub fn snapshot(&self) -> Result<ShardSnapshot, NotServing> {
        let (sender, answers) = sync_channel(self.shards.count());
        for shard in 0..self.shards.count() {
            let sender = sender.clone();
            // There is room for every answer, so this does not block the shard.
            let reply = Box::new(move |answer| drop(sender.send(answer)));
            self.shards.send(shard, Message::Snapshot(reply));
        }
        drop(sender);
        let mut all = ShardSnapshot::default();
        for _ in 0..self.shards.count() {
            merge(&mut all, answers.recv_timeout(ANSWER_MAX).map_err(NotServing::from)?);
        }
        Ok(all)
    }

    /// As [`Self::snapshot`], without blocking the thread.
    async fn snapshot_async(self) -> Result<ShardSnapshot, NotServing> {
        let mut all = ShardSnapshot::default();
        for shard in 0..self.shards.count() {
            let (sender, answer) = tokio::sync::oneshot::channel();
            let reply = Box::new(move |answer| drop(sender.send(answer)));
            self.shards.send(shard, Message::Snapshot(reply));
            let answer = tokio::time::timeout(ANSWER_MAX, answer).await;
            let answer = answer.map_err(|_| NotServing::TimedOut)?;
            merge(&mut all, answer.map_err(|_| NotServing::Stopped)?);
        }
        Ok(all)
    }

    /// Records an operator's act; the index of its entry, once that is on disk. Blocks until
    /// then. The ticket of `administration` is chosen here, whatever it holds.
    ///
    /// # Errors
    /// [`NotServing`]; the act may or may not be recorded then.
    pub fn record(&self, administration: Administration) -> Result<u64, NotServing> {
        let (sender, index) = sync_channel(1);
        let reply = Box::new(move |index| {
            let _ = sender.send(index);
        });
        self.shards.send(0, Message::Administered { administration, reply });
        index.recv_timeout(RECORD_MAX).map_err(NotServing::from)
    }

    /// Has the core forget the bodies of these entries and record that they are being erased; the
    /// index of that entry. Everything that holds them is on disk then, and nothing follows that
    /// does. Blocks until then.
    ///
    /// # Errors
    /// [`NotServing`]; it may or may not be recorded then.
    pub fn erase(
        &self,
        ranges: Arc<IndexRanges>,
        administration: Administration,
    ) -> Result<u64, NotServing> {
        let (sender, index) = sync_channel(1);
        let reply = Box::new(move |index| {
            let _ = sender.send(index);
        });
        // The one shard that there is has all sessions.
        self.shards.send(0, Message::Erase { ranges, administration, reply });
        index.recv_timeout(RECORD_MAX).map_err(NotServing::from)
    }

    /// Has all shards make pseudonyms with `key` from now on.
    pub fn set_pseudonym_key(&self, key: &Arc<PseudonymKey>) {
        for shard in 0..self.shards.count() {
            self.shards.send(shard, Message::PseudonymKey(Arc::clone(key)));
        }
    }

    /// Tells the core of a handshake that was refused elsewhere than at its own listeners, unless too
    /// many wait to be told.
    pub(super) fn tell_refused(&self, peer: SocketAddr, reason: &'static str) {
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            let refused = RefusedHandshake { peer, reason, permit };
            self.shards.send(0, Message::HandshakeRefused(refused));
        }
    }

    /// What the writer measured.
    pub fn writer_stats(&self) -> WriterStats {
        (self.writer)()
    }

    /// What the acceptor measured.
    pub fn handshakes(&self) -> &HandshakeStats {
        &self.handshakes
    }

    /// What is known of each witness.
    pub fn witnesses(&self) -> &WitnessBoard {
        &self.witnesses
    }

    async fn health(self) -> Health {
        let faulted = self.faults.has_faulted();
        let stopping = self.stopper.is_stopping();
        let (writer, handshakes) = (self.writer_stats(), Arc::clone(&self.handshakes));
        let witnesses = self.witnesses.rows();
        match self.snapshot_async().await {
            Err(NotServing::TimedOut | NotServing::Stopped) => {
                Health { faulted, stopping, ..Health::default() }
            }
            Ok(ShardSnapshot { counters, backlogged, stopping: told }) => Health {
                snapshot: Some(MetricsSnapshot {
                    counters,
                    writer,
                    handshakes: handshakes.durations(),
                    handshakes_unreported: handshakes.unreported(),
                    witnesses,
                }),
                faulted,
                stopping: stopping || told,
                backlogged,
                starting: false,
            },
        }
    }
}

/// Asks the server behind `handle`, which is starting until there is one.
pub(super) fn health_source(handle: Arc<OnceLock<Handle>>) -> HealthSource {
    Arc::new(move || -> Pin<Box<dyn Future<Output = Health> + Send>> {
        match handle.get() {
            Some(handle) => Box::pin(handle.clone().health()),
            None => Box::pin(ready(Health { starting: true, ..Health::default() })),
        }
    })
}

impl From<RecvTimeoutError> for NotServing {
    fn from(error: RecvTimeoutError) -> Self {
        match error {
            RecvTimeoutError::Timeout => Self::TimedOut,
            RecvTimeoutError::Disconnected => Self::Stopped,
        }
    }
}

fn merge(all: &mut ShardSnapshot, one: ShardSnapshot) {
    all.backlogged |= one.backlogged;
    all.stopping |= one.stopping;
    add(&mut all.counters, one.counters);
}

/// Adds up the counters of two shards. Destructured, so that a new counter is not forgotten.
fn add(all: &mut Counters, one: Counters) {
    let Counters {
        connects,
        connects_refused,
        handshakes_refused,
        publishes_received,
        publishes_authorized,
        publishes_admitted,
        publishes_conforming,
        publishes_recorded,
        publishes_quarantined,
        publishes_flagged,
        publishes_duplicate,
        deliveries,
        deliveries_dropped,
        deliveries_withheld,
        violations,
        clock_steps,
        connections_failed,
        refusals,
        connections_live,
        sessions_live,
        subscriptions_live,
        retained_live,
        traffic,
        publish_to_ack,
    } = one;
    all.connects += connects;
    all.connects_refused += connects_refused;
    all.handshakes_refused += handshakes_refused;
    all.publishes_received += publishes_received;
    all.publishes_authorized += publishes_authorized;
    all.publishes_admitted += publishes_admitted;
    all.publishes_conforming += publishes_conforming;
    all.publishes_recorded += publishes_recorded;
    all.publishes_quarantined += publishes_quarantined;
    all.publishes_flagged += publishes_flagged;
    all.publishes_duplicate += publishes_duplicate;
    all.deliveries += deliveries;
    all.deliveries_dropped += deliveries_dropped;
    all.deliveries_withheld += deliveries_withheld;
    all.violations += violations;
    all.clock_steps += clock_steps;
    all.connections_failed += connections_failed;
    all.connections_live += connections_live;
    all.sessions_live += sessions_live;
    all.subscriptions_live += subscriptions_live;
    all.retained_live += retained_live;
    for (refusal, count) in refusals {
        match all.refusals.iter_mut().find(|(seen, _)| *seen == refusal) {
            Some((_, sum)) => *sum += count,
            None => all.refusals.push((refusal, count)),
        }
    }
    all.traffic.add(&traffic);
    add_histogram(&mut all.publish_to_ack, &publish_to_ack);
}

fn add_histogram(all: &mut Histogram, one: &Histogram) {
    for (sum, count) in all.buckets.iter_mut().zip(one.buckets) {
        *sum += count;
    }
    all.sum_nanos = all.sum_nanos.saturating_add(one.sum_nanos);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A handle to one shard that counts nothing and records everything at index 41.
    pub(in crate::server) fn scripted_handle() -> Handle {
        let (shards, mut messages) = Shards::channels(1);
        let mut messages = messages.remove(0);
        let answer = move || {
            while let Some(message) = messages.blocking_recv() {
                match message {
                    Message::Snapshot(reply) => reply(ShardSnapshot::default()),
                    Message::Administered { reply, .. } => reply(41),
                    _ => {}
                }
            }
        };
        std::thread::Builder::new().spawn(answer).unwrap();
        let stopper = Stopper::new(shards.clone());
        let (faults, _) = FaultSender::channel();
        Handle::new(shards, stopper, faults, Arc::new(WriterStats::default), Arc::default())
    }

    #[test]
    fn the_counters_of_shards_add_up() {
        let handle = scripted_handle();
        assert_eq!(handle.snapshot().unwrap().counters, Counters::default());
        use crate::refusal::Refusal;
        let one =
            Counters { deliveries: 2, refusals: vec![(Refusal::NoRule, 3)], ..Counters::default() };
        let mut all = one.clone();
        add(&mut all, one);
        assert_eq!(all.deliveries, 4);
        assert_eq!(all.refusals, [(Refusal::NoRule, 6)]);
    }
}

//! The threads that check signatures of devices, beside those of sockets.
//!
//! They know neither messages nor connections: a job goes in, its verdict comes out, to the shard
//! that asked. Whoever has sent something else does not wait for them. The queue is bounded where it
//! is filled: the core has one job for each connection at most. Invariant: every job gets its
//! verdict, unless the server ends first.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::message::{Message, Shards};
use super::shutdown::{Fault, FaultSender};
use super::spawn;
use crate::broker::ConnectionId;
use crate::evidence::{Verified, VerifyJob};

/// Jobs that a thread takes at once: their verdicts wake the shard once, and the first of them
/// waits for the last no longer than some hundred microseconds.
const JOBS_AT_ONCE: usize = 8;

/// How much less urgent these threads are than those of sockets.
const NICENESS: i32 = 5;

/// A signature to be checked, and for whom.
pub(super) type Job = (ConnectionId, VerifyJob);

/// The threads and their queue. They end when [`Self::stop`] is called.
pub(super) struct Verifiers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// Where jobs wait.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(u16, ConnectionId, VerifyJob)>,
    is_stopped: bool,
}

impl Verifiers {
    /// Starts `count` threads.
    pub(super) fn start(
        count: usize,
        shards: &Shards,
        faults: &FaultSender,
    ) -> Result<Self, Fault> {
        let queue = Arc::new(Queue { state: Mutex::default(), filled: Condvar::new() });
        let mut threads = Vec::new();
        for _ in 0..count.max(1) {
            let (queue, shards) = (Arc::clone(&queue), shards.clone());
            threads.push(spawn("avow-verifier", faults, move || queue.serve(&shards))?);
        }
        Ok(Self { queue, threads })
    }

    /// Where to put jobs.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// Ends the threads; jobs that wait get no verdict.
    pub(super) fn stop(self) {
        self.queue.lock().is_stopped = true;
        self.queue.filled.notify_all();
        for thread in self.threads {
            // Its panic was caught and told.
            let _ = thread.join();
        }
    }
}

impl Queue {
    /// Adds the jobs of one round of `shard`.
    pub(super) fn push(&self, shard: u16, jobs: impl ExactSizeIterator<Item = Job>) {
        let count = jobs.len();
        if count == 0 {
            return;
        }
        let mut state = self.lock();
        state.jobs.extend(jobs.map(|(connection, job)| (shard, connection, job)));
        drop(state);
        if count > JOBS_AT_ONCE { self.filled.notify_all() } else { self.filled.notify_one() }
    }

    fn serve(&self, shards: &Shards) {
        // Of this thread alone: where processors are few, sockets come first. Without the right to
        // do so it is as urgent as the others.
        let _ = rustix::process::nice(NICENESS);
        let mut taken = Vec::new();
        while self.take(&mut taken) {
            let mut verdicts: Vec<(u16, Vec<(ConnectionId, Verified)>)> = Vec::new();
            for (shard, connection, job) in taken.drain(..) {
                let verdict = (connection, job.run());
                match verdicts.iter_mut().find(|(known, _)| *known == shard) {
                    Some((_, of_shard)) => of_shard.push(verdict),
                    None => verdicts.push((shard, vec![verdict])),
                }
            }
            for (shard, of_shard) in verdicts {
                shards.send(shard.into(), Message::Verified(of_shard));
            }
        }
    }

    /// Takes the next jobs, when there are some; `false` when there will be none.
    fn take(&self, taken: &mut Vec<(u16, ConnectionId, VerifyJob)>) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.is_stopped {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let count = state.jobs.len().min(JOBS_AT_ONCE);
        taken.extend(state.jobs.drain(..count));
        !state.is_stopped
    }

    /// Nothing panics while it is held, so what it guards is whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many threads to start: half of the processors, so that sockets keep the rest.
pub(super) fn default_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

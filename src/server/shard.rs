//! A shard: one thread that owns one core.
//!
//! The thread's runtime runs the tasks of its connections and the [`Shard`] itself, which is a
//! task too: it is then woken like the others, by a push to the thread's own queue, where waking
//! the future of `block_on` would cost a system call. A round takes everything that was queued
//! since the last one, reads the clock once, lets it happen to the core, and carries out what the
//! core asks for. So many packets share one batch, and many answers one write.
//!
//! Invariant: inputs reach the core in the order they were queued, and outputs for one connection
//! are carried out in the order the core made them.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Sleep;

use super::clock::{Clock, StepWatch};
use super::connection::Connection;
use super::link::{Link, Local};
use super::message::{Message, Opened, Reply, ShardSnapshot};
use super::options::{Bounds, MakeBroker};
use super::shutdown::{Fault, FaultSender, panic_message};
use super::verifying::{Job, Queue};
use super::writing::{Submit, Submitted};
use crate::broker::{Broker, CloseCause, ConnectionId, Input, Output};
use crate::evidence::{Batch, BatchId};
use crate::telemetry::EventLog;
use crate::time::{Instant, Now};

/// Messages of other threads taken into one round.
const ROUND_MESSAGES_MAX: usize = 1_024;
/// Rounds before the thread's connections have their turn again.
const ROUNDS_PER_TURN: usize = 4;

/// What a shard's thread is given.
pub(super) struct ShardParts {
    pub(super) number: u16,
    pub(super) clock: Clock,
    pub(super) bounds: Bounds,
    pub(super) broker: MakeBroker,
    pub(super) messages: UnboundedReceiver<Message>,
    pub(super) submit: Submit,
    pub(super) verifiers: Arc<Queue>,
    pub(super) faults: FaultSender,
}

/// Runs a shard until it has stopped, on this thread. Says how it ended through `faults`.
pub(super) fn run(parts: ShardParts) {
    let faults = parts.faults.clone();
    match run_to_end(parts) {
        Ok(()) => faults.shard_stopped(),
        Err(fault) => faults.send(fault),
    }
}

fn run_to_end(parts: ShardParts) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // How many tasks run before the thread looks at its sockets again: each look is a system
        // call, and each round ends the batch of those who ran.
        .event_interval(256)
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(Fault::system("start a shard's runtime"))?;
    let number = parts.number;
    runtime.block_on(async move {
        let task = tokio::task::spawn_local(async move { Shard::new(parts).await });
        task.await.unwrap_or_else(|error| {
            let message = match error.try_into_panic() {
                Ok(panic) => panic_message(&*panic),
                Err(_) => "its task was cancelled".to_owned(),
            };
            Err(Fault::CorePanicked { shard: number, message })
        })
    })
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// Nobody asked.
    No,
    /// The core is telling everybody.
    Told,
    /// The core has stopped; connections are sending the rest.
    Stopped,
}

struct Shard {
    number: u16,
    clock: Clock,
    broker: Broker,
    /// Whether there was a round: the first records the start, and waits for nothing.
    begun: bool,
    local: Rc<Local>,
    links: HashMap<ConnectionId, Rc<Link>, foldhash::fast::FixedState>,
    messages: UnboundedReceiver<Message>,
    submit: Submit,
    verifiers: Arc<Queue>,
    /// Signatures to be checked, of this round.
    unverified: Vec<Job>,
    /// Batches that the writer had no room for, oldest first.
    unsubmitted: VecDeque<(BatchId, Batch)>,
    /// Batches that the writer has and has not released.
    at_writer: usize,
    /// Whether it released some since the last round.
    released: bool,
    inputs: VecDeque<Input>,
    /// Places among the refused handshakes that wait for this round.
    permits: Vec<OwnedSemaphorePermit>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When the last round was.
    last_round: Instant,
    step_watch: StepWatch,
    events: EventLog,
    replies: HashMap<u64, Reply<u64>>,
    next_ticket: u64,
    stopping: Stopping,
    stop_timer: Option<Pin<Box<Sleep>>>,
}

impl Shard {
    fn new(parts: ShardParts) -> Self {
        let now = parts.clock.now();
        Self {
            number: parts.number,
            clock: parts.clock,
            broker: (parts.broker)(parts.number, now),
            begun: false,
            local: Rc::new(Local::new(parts.bounds)),
            links: HashMap::default(),
            messages: parts.messages,
            submit: parts.submit,
            verifiers: parts.verifiers,
            unverified: Vec::new(),
            unsubmitted: VecDeque::new(),
            at_writer: 0,
            released: false,
            inputs: VecDeque::new(),
            permits: Vec::new(),
            timer: None,
            last_round: Instant::ZERO,
            step_watch: StepWatch::new(now),
            events: EventLog::default(),
            replies: HashMap::new(),
            next_ticket: 0,
            stopping: Stopping::No,
            stop_timer: None,
        }
    }

    /// Collects what has happened; `false` if nothing has.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..ROUND_MESSAGES_MAX {
            match self.messages.poll_recv(cx) {
                Poll::Ready(Some(message)) => self.receive(message),
                // All senders are gone: the server has been dropped without a stop.
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        self.local.take_inputs(&mut self.inputs);
        !self.inputs.is_empty() || !std::mem::replace(&mut self.begun, true)
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Opened(opened) => self.open(*opened),
            Message::Sequenced(batches) => {
                self.at_writer = self.at_writer.saturating_sub(batches.len());
                self.released = true;
                self.inputs.extend(batches.into_iter().map(Input::Sequenced));
            }
            Message::Verified(verdicts) => {
                self.inputs.extend(
                    verdicts
                        .into_iter()
                        .map(|(connection, verified)| Input::Verified { connection, verified }),
                );
            }
            Message::HandshakeRefused(refused) => {
                let (peer, reason) = (refused.peer, refused.reason);
                self.inputs.push_back(Input::HandshakeRefused { peer, reason });
                self.permits.push(refused.permit);
            }
            Message::StartRefused { count, since } => {
                self.inputs.push_back(Input::StartRefused { count, since });
            }
            Message::Administered { mut administration, reply } => {
                administration.ticket = self.next_ticket;
                self.next_ticket += 1;
                self.replies.insert(administration.ticket, reply);
                self.inputs.push_back(Input::Administered(administration));
            }
            Message::Erase { ranges, mut administration, reply } => {
                administration.ticket = self.next_ticket;
                self.next_ticket += 1;
                self.replies.insert(administration.ticket, reply);
                self.inputs.push_back(Input::Erase { ranges, administration });
            }
            Message::PseudonymKey(key) => self.inputs.push_back(Input::PseudonymKey(key)),
            Message::Snapshot(reply) => reply(ShardSnapshot {
                counters: self.broker.counters().clone(),
                backlogged: self.local.is_backlogged(),
                stopping: self.stopping != Stopping::No,
            }),
            Message::Stop => self.begin_stop(),
        }
    }

    fn begin_stop(&mut self) {
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Told;
            self.inputs.push_back(Input::Stop);
            #[expect(clippy::disallowed_methods, reason = "a deadline of the shell")]
            let timer = tokio::time::sleep(self.local.bounds.stop_max);
            self.stop_timer = Some(Box::pin(timer));
        }
    }

    /// Begins to serve a connection.
    fn open(&mut self, opened: Opened) {
        let Opened { connection, facts, connect_deadline, handshaken, permit } = opened;
        let socket = match handshaken.attach() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be given to its shard");
                return;
            }
        };
        let link = Rc::new(Link::new(connection));
        self.links.insert(connection, Rc::clone(&link));
        self.inputs.push_back(Input::Opened { connection, facts, connect_deadline });
        let task = Connection::new(Rc::clone(&self.local), link, socket, permit);
        #[expect(clippy::let_underscore_future, reason = "the task reports its own end")]
        let _ = tokio::task::spawn_local(task);
    }

    /// One round.
    fn round(&mut self, now: Now) -> Result<(), Fault> {
        self.last_round = now.instant;
        if let Some(expected) = self.step_watch.look(now, || self.clock.now()) {
            self.broker.handle(now, Input::ClockStepped { expected });
        }
        while let Some(input) = self.inputs.pop_front() {
            let closed = match &input {
                Input::Closed { connection, cause } => Some((*connection, *cause)),
                _ => None,
            };
            self.broker.handle(now, input);
            if let Some((connection, cause)) = closed {
                self.links.remove(&connection);
                if cause == CloseCause::TaskFailed {
                    tracing::error!(connection = connection.0, "a connection's task failed");
                }
            }
        }
        self.permits.clear();
        if self.may_fire() && self.broker.poll_timeout().is_some_and(|at| at <= now.instant) {
            let (received_bytes, sent_bytes) = self.local.carried();
            self.broker.handle(now, Input::Carried { received_bytes, sent_bytes });
            self.broker.handle_timeout(now);
        }
        self.released = false;
        self.broker.finish_round(now);
        while let Some(output) = self.broker.poll_output() {
            self.carry_out(now, output)?;
        }
        self.verifiers.push(self.number, self.unverified.drain(..));
        // Room at the writer comes with a release, which is a round too.
        self.submit()?;
        let backlogged = self.broker.is_backlogged() || !self.unsubmitted.is_empty();
        self.local.round_ended(backlogged);
        Ok(())
    }

    /// Gives the writer what it has room for, in order.
    fn submit(&mut self) -> Result<(), Fault> {
        while let Some((id, batch)) = self.unsubmitted.pop_front() {
            match (self.submit)(id, batch) {
                Submitted::Taken => self.at_writer += 1,
                Submitted::Full(batch) => {
                    self.unsubmitted.push_front((id, batch));
                    break;
                }
                Submitted::Ended => return Err(Fault::Writer("it has ended".to_owned())),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Now, output: Output) -> Result<(), Fault> {
        match output {
            Output::Send { connection, packet } => {
                if let Some(link) = self.links.get(&connection)
                    && let Err(error) = link.send(&self.local, &packet)
                {
                    tracing::error!(connection = connection.0, %error, "a packet of ours");
                }
            }
            Output::Deliver { connection, publish, dup, packet_id } => {
                if let Some(link) = self.links.get(&connection) {
                    link.deliver(&self.local, &publish, dup, packet_id);
                }
            }
            Output::Pause { connection } => self.set_open(connection, false),
            Output::Resume { connection } => self.set_open(connection, true),
            Output::Close { connection } => {
                if let Some(link) = self.links.get(&connection) {
                    link.close();
                }
            }
            Output::Verify { connection, job } => self.unverified.push((connection, job)),
            Output::Sequence { id, batch } => {
                self.unsubmitted.push_back((id, batch));
                self.submit()?;
            }
            Output::Administered { ticket, index } => {
                if let Some(reply) = self.replies.remove(&ticket) {
                    reply(index);
                }
            }
            Output::Event(event) => self.events.record(now.instant, &event),
            Output::Stopped => self.stopping = Stopping::Stopped,
        }
        Ok(())
    }

    fn set_open(&self, connection: ConnectionId, open: bool) {
        if let Some(link) = self.links.get(&connection) {
            link.set_open(open);
        }
    }

    /// Whether what is due may be done now. While others wait for the disk it comes with each
    /// release, so that a long walk does not keep the writer from the processor.
    fn may_fire(&self) -> bool {
        self.at_writer == 0 || self.released
    }

    /// Arms the timer for the core's next timeout; `true` if that has passed already.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Some(next) = self.broker.poll_timeout() else { return false };
            // What a round leaves for the next one is due without a timer, which is as coarse as
            // a millisecond.
            if next <= self.last_round {
                return self.may_fire();
            }
            // A timer that fires too early costs one look; moving it at every keep alive that is
            // renewed would cost more. Only an earlier deadline moves it.
            let timer = match self.timer.take() {
                Some((at, timer)) if at <= next => (at, timer),
                Some((_, mut timer)) => {
                    timer.as_mut().reset(self.clock.deadline(next));
                    (next, timer)
                }
                None => (next, Box::pin(tokio::time::sleep_until(self.clock.deadline(next)))),
            };
            let (at, timer) = self.timer.insert(timer);
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let reached = *at >= next || self.clock.instant() >= next;
            self.timer = None;
            if reached {
                return true;
            }
        }
    }

    /// Ready once the shard has nothing left to do.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(timer) = self.stop_timer.as_mut() else { return Poll::Pending };
        let late = timer.as_mut().poll(cx).is_ready();
        match (self.stopping, late) {
            (Stopping::Stopped, _) if self.local.tasks() == 0 => Poll::Ready(Ok(())),
            (Stopping::Stopped, true) => {
                let left = self.local.tasks();
                tracing::warn!(shard = self.number, left, "connections were cut off at the end");
                Poll::Ready(Ok(()))
            }
            (Stopping::No | Stopping::Told, true) => {
                Poll::Ready(Err(Fault::Writer("the end could not be recorded in time".to_owned())))
            }
            (Stopping::No | Stopping::Told | Stopping::Stopped, false) => Poll::Pending,
        }
    }
}

/// Has this task polled again behind every other, and behind a look at the sockets. To wake it
/// would not do: while a task is ready, the runtime looks only every `event_interval` polls.
fn yield_to_sockets(cx: &mut Context<'_>) {
    let yielded = std::pin::pin!(tokio::task::yield_now());
    // Pending the first time, having left the waker where the runtime takes it up after the look.
    let _pending = yielded.poll(cx);
}

impl Future for Shard {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.local.shard_polled(cx);
        for _ in 0..ROUNDS_PER_TURN {
            let happened = this.collect(cx);
            if !happened && !this.poll_timer(cx) {
                return this.poll_stopped(cx);
            }
            this.round(this.clock.now())?;
            // What a timer brought on may go on at once, as a long walk does: sockets come first.
            if !happened {
                break;
            }
        }
        this.local.shard_yields();
        yield_to_sockets(cx);
        Poll::Pending
    }
}

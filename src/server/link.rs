//! What the connections of one thread share with their shard.
//!
//! A shard and its connection tasks live on the same thread, so they share plain cells: no lock,
//! no channel, no wake-up across threads between a socket and the core. [`Local`] is the thread's
//! part, [`Link`] the part of one connection.
//!
//! Invariant: no borrow of a cell outlives the call that took it, so a panic in one connection's
//! task leaves every cell usable.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::options::Bounds;
use super::socket::READ_BYTES_MAX;
use crate::broker::{ConnectionId, Input};
use crate::mqtt::{EncodeError, EncodedPublish, Packet, PacketId, ProtocolVersion, encode};

/// Buffers kept for reuse by the connections of a thread.
const POOL_BUFFERS_MAX: usize = 64;
/// Largest buffer that is kept, in bytes.
const POOL_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Whether a connection's bytes may be read and decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Packets are decoded as they come.
    Open,
    /// The core said pause, or has not answered CONNECT yet.
    Shut,
    /// The peer broke the protocol: nothing is read again.
    Ended,
}

/// What waits to be sent to one peer.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Encoded packets.
    pub(super) bytes: Vec<u8>,
    /// How many of them belong to deliveries.
    pub(super) deliver_bytes: usize,
    /// Whether to close once they are sent.
    pub(super) close: bool,
    /// Whether the task must give up at once: a packet of ours could not be encoded, or more
    /// waits than the bound.
    pub(super) failed: bool,
}

/// One connection, as its shard and its task both see it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) gate: Cell<Gate>,
    /// Whether CONNECT has not come yet: exactly one packet is decoded then, whatever the core
    /// says of the gate meanwhile.
    pub(super) awaits_connect: Cell<bool>,
    pub(super) version: Cell<Option<ProtocolVersion>>,
    pub(super) out: RefCell<Out>,
    waker: RefCell<Option<Waker>>,
    notified: Cell<bool>,
    stalled: Cell<bool>,
}

impl Link {
    pub(super) fn new(id: ConnectionId) -> Self {
        Self {
            id,
            gate: Cell::new(Gate::Open),
            awaits_connect: Cell::new(true),
            version: Cell::new(None),
            out: RefCell::default(),
            waker: RefCell::default(),
            notified: Cell::new(false),
            stalled: Cell::new(false),
        }
    }

    /// The task is being polled: remembers how to wake it, and that it knows what was said so far.
    pub(super) fn polled(&self, cx: &Context<'_>) {
        self.notified.set(false);
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task, once until it is polled.
    pub(super) fn notify(&self) {
        if !self.notified.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Appends `packet` to what waits to be sent.
    pub(super) fn send(&self, local: &Local, packet: &Packet) -> Result<(), EncodeError> {
        let version = self.version.get().unwrap_or(ProtocolVersion::V3_1_1);
        let mut out = self.out.borrow_mut();
        local.provide_buffer(&mut out.bytes);
        let before = out.bytes.len();
        let result = encode(packet, version, &mut out.bytes);
        local.count(0, out.bytes.len().saturating_sub(before));
        out.failed |= result.is_err() || out.bytes.len() > local.bounds.out_bytes_max;
        drop(out);
        self.notify();
        result
    }

    /// Appends one copy of `publish`.
    pub(super) fn deliver(
        &self,
        local: &Local,
        publish: &EncodedPublish,
        dup: bool,
        packet_id: Option<PacketId>,
    ) {
        let mut out = self.out.borrow_mut();
        local.provide_buffer(&mut out.bytes);
        let before = out.bytes.len();
        publish.write_to(dup, packet_id, &mut out.bytes);
        let written = out.bytes.len().saturating_sub(before);
        out.deliver_bytes += written;
        local.count(0, written);
        out.failed |= out.bytes.len() > local.bounds.out_bytes_max;
        drop(out);
        self.notify();
    }

    /// Asks the task to close once everything is sent.
    pub(super) fn close(&self) {
        self.out.borrow_mut().close = true;
        self.notify();
    }

    /// Opens or shuts the gate, unless it has shut for good.
    pub(super) fn set_open(&self, open: bool) {
        if self.gate.get() != Gate::Ended {
            self.gate.set(if open { Gate::Open } else { Gate::Shut });
            self.notify();
        }
    }
}

/// What all connections of one thread share.
pub(super) struct Local {
    pub(super) bounds: Bounds,
    /// Ciphertext of the connection that is reading now.
    pub(super) cipher: RefCell<Vec<u8>>,
    /// Plaintext of the connection that is reading now.
    pub(super) plain: RefCell<Vec<u8>>,
    inputs: RefCell<VecDeque<Input>>,
    input_bytes: Cell<usize>,
    /// Bytes of Control Packets since the start: received, sent.
    carried: Cell<(u64, u64)>,
    backlogged: Cell<bool>,
    shard: RefCell<Option<Waker>>,
    /// Whether the shard will be polled by itself, after the next look at the sockets.
    shard_yields: Cell<bool>,
    stalled: RefCell<Vec<Rc<Link>>>,
    pool: RefCell<Vec<Vec<u8>>>,
    tasks: Cell<usize>,
}

impl Local {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            cipher: RefCell::new(vec![0; READ_BYTES_MAX]),
            plain: RefCell::default(),
            inputs: RefCell::default(),
            input_bytes: Cell::new(0),
            carried: Cell::default(),
            backlogged: Cell::new(false),
            shard: RefCell::default(),
            shard_yields: Cell::new(false),
            stalled: RefCell::default(),
            pool: RefCell::default(),
            tasks: Cell::new(0),
        }
    }

    /// Queues `input` for the shard, and wakes it if it is the first one; `bytes` is what was
    /// read for it.
    pub(super) fn push(&self, input: Input, bytes: usize) {
        self.input_bytes.set(self.input_bytes.get().saturating_add(bytes));
        self.count(bytes, 0);
        let mut inputs = self.inputs.borrow_mut();
        inputs.push_back(input);
        if inputs.len() == 1 {
            drop(inputs);
            self.wake_shard();
        }
    }

    fn count(&self, received: usize, sent: usize) {
        let (all_received, all_sent) = self.carried.get();
        self.carried.set((all_received + received as u64, all_sent + sent as u64));
    }

    /// Bytes of Control Packets since the start: received, sent.
    pub(super) fn carried(&self) -> (u64, u64) {
        self.carried.get()
    }

    /// Everything that was queued.
    pub(super) fn take_inputs(&self, inputs: &mut VecDeque<Input>) {
        self.input_bytes.set(0);
        inputs.append(&mut self.inputs.borrow_mut());
    }

    /// Remembers how to wake the shard.
    pub(super) fn shard_polled(&self, cx: &Context<'_>) {
        *self.shard.borrow_mut() = Some(cx.waker().clone());
        self.shard_yields.set(false);
    }

    /// The shard will be polled again after the next look at the sockets, and is not woken before:
    /// tasks that feed each other would keep the thread from that look.
    pub(super) fn shard_yields(&self) {
        self.shard_yields.set(true);
    }

    fn wake_shard(&self) {
        if self.shard_yields.get() {
            return;
        }
        if let Some(waker) = self.shard.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether `link` may be read now; if not, it is woken when it may.
    pub(super) fn may_read(&self, link: &Rc<Link>) -> bool {
        let full = self.input_bytes.get() >= self.bounds.round_bytes_max;
        if !full && !self.backlogged.get() {
            return true;
        }
        if !link.stalled.replace(true) {
            self.stalled.borrow_mut().push(Rc::clone(link));
        }
        false
    }

    /// Ends a round: says whether the core is backlogged, and lets the others read on if not.
    pub(super) fn round_ended(&self, backlogged: bool) {
        self.backlogged.set(backlogged);
        if backlogged {
            return;
        }
        for link in self.stalled.take() {
            link.stalled.set(false);
            link.notify();
        }
    }

    /// Whether the core said so at the end of the last round.
    pub(super) fn is_backlogged(&self) -> bool {
        self.backlogged.get()
    }

    /// A pooled buffer in place of one that never held anything.
    fn provide_buffer(&self, buffer: &mut Vec<u8>) {
        if buffer.capacity() == 0
            && let Some(pooled) = self.pool.borrow_mut().pop()
        {
            *buffer = pooled;
        }
    }

    /// Takes back a buffer; an idle connection keeps none.
    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        let mut pool = self.pool.borrow_mut();
        if (1..=POOL_BUFFER_BYTES_MAX).contains(&buffer.capacity()) && pool.len() < POOL_BUFFERS_MAX
        {
            buffer.clear();
            pool.push(buffer);
        }
    }

    /// A task begins.
    pub(super) fn task_began(&self) {
        self.tasks.set(self.tasks.get() + 1);
    }

    /// A task has ended; the shard may be waiting for the last one.
    pub(super) fn task_ended(&self) {
        self.tasks.set(self.tasks.get().saturating_sub(1));
        if self.tasks.get() == 0 {
            self.wake_shard();
        }
    }

    /// Tasks that live.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.get()
    }
}

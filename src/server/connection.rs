//! One Network Connection: a task that reads, decodes, writes and closes.
//!
//! It knows the framing of MQTT and nothing of its meaning. Reads go into buffers that the whole
//! thread shares; only the bytes of an incomplete packet stay with the connection, and they grow
//! as they arrive, never to the length that the peer announced. Everything that waits leaves in
//! one write. A peer that does not read, or does not let us close, meets a deadline.
//!
//! Invariant: exactly one [`Input::Closed`] follows everything else of this connection, whatever
//! happens, a panic in here included.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::link::{Gate, Link, Local};
use super::socket::{ReadOutcome, SEAL_BYTES_MAX};
use super::transport::Transport;
use crate::broker::{CloseCause, Input};
use crate::mqtt::{Decoded, Decoder, Packet, Violation};

/// Plaintext read in one go before other connections have their turn, in bytes.
const TURN_BYTES_MAX: usize = 64 * 1024;
/// Largest buffer kept around the rest of an incomplete packet that is much smaller, in bytes.
const CARRY_SLACK_BYTES: usize = 4 * 1024;

/// What the task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Serving.
    Serving,
    /// When the core said close, or the transport itself must: sending the rest and close_notify.
    Closing,
    /// When that is sent: ending our direction.
    ShuttingDown,
    /// When our direction has ended: waiting for the peer's, so that nothing is reset.
    Lingering,
}

/// The task of one connection.
pub(super) struct Connection {
    local: Rc<Local>,
    link: Rc<Link>,
    socket: Transport,
    decoder: Decoder,
    phase: Phase,
    /// Bytes that were read and not decoded.
    carry: Vec<u8>,
    /// Length that `carry` must reach before another packet can be found.
    needed: usize,
    /// Bytes being sent, from `sealed` on not yet sealed.
    writing: Vec<u8>,
    sealed: usize,
    /// Bytes of deliveries in `writing`, or sealed from it and not yet with the socket.
    deliver_bytes: usize,
    timer: Option<Pin<Box<Sleep>>>,
    reported: bool,
    /// A place among `connections_max`.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// A connection whose CONNECT is yet to come. Must be spawned on the thread of `local`.
    pub(super) fn new(
        local: Rc<Local>,
        link: Rc<Link>,
        socket: Transport,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        local.task_began();
        // Until CONNECT has come, its own bound holds.
        let decoder = Decoder::server(local.bounds.connect_bytes_max);
        Self {
            local,
            link,
            socket,
            decoder,
            phase: Phase::Serving,
            carry: Vec::new(),
            needed: 0,
            writing: Vec::new(),
            sealed: 0,
            deliver_bytes: 0,
            timer: None,
            reported: false,
            _permit: permit,
        }
    }

    /// Serves until something has to wait. Ready when the connection is over, or to be closed.
    fn poll_serving(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseCause>> {
        if self.link.out.borrow().failed {
            return Poll::Ready(Err(CloseCause::TaskFailed));
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => self.timer = None,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(CloseCause::Transport)),
            Poll::Pending => {
                let deadline = self.local.bounds.write_stall_max;
                if self.poll_timer(cx, deadline).is_ready() {
                    return Poll::Ready(Err(CloseCause::Transport));
                }
            }
        }
        if self.link.out.borrow().close {
            self.link.gate.set(Gate::Ended);
            self.timer = None;
            return Poll::Ready(Ok(()));
        }
        self.poll_receive(cx).map(Err)
    }

    /// Reads and decodes what is there, within this turn's budget.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<CloseCause> {
        let mut turn_bytes = 0;
        while self.may_read() {
            if !self.carry.is_empty() && self.carry.len() >= self.needed {
                self.decode_carry();
                continue;
            }
            match ready!(self.poll_fill(cx, &mut turn_bytes)) {
                Ok(ReadOutcome::Progress) => {}
                Ok(ReadOutcome::Ended) => return Poll::Ready(CloseCause::Peer),
                Err(_) if self.socket.has_closed() => return Poll::Ready(CloseCause::Framing),
                Err(_) => return Poll::Ready(CloseCause::Transport),
            }
            if turn_bytes >= TURN_BYTES_MAX {
                cx.waker().wake_by_ref();
                break;
            }
        }
        Poll::Pending
    }

    fn may_read(&self) -> bool {
        self.link.gate.get() == Gate::Open
            && self.unsent_bytes() <= self.local.bounds.out_bytes_pause
            && self.local.may_read(&self.link)
    }

    fn unsent_bytes(&self) -> usize {
        let waiting = self.writing.len().saturating_sub(self.sealed);
        self.link.out.borrow().bytes.len().saturating_add(waiting)
    }

    /// One read, and the decoding of what it brought.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        turn_bytes: &mut usize,
    ) -> Poll<io::Result<ReadOutcome>> {
        let local = Rc::clone(&self.local);
        let mut cipher = local.cipher.borrow_mut();
        // Nobody may make us hold more than this before CONNECT.
        let room = if self.link.awaits_connect.get() {
            local.bounds.connect_bytes_max.saturating_sub(self.carry.len()).max(1)
        } else {
            cipher.len()
        };
        let room = room.min(cipher.len());
        let cipher = cipher.get_mut(..room).unwrap_or_default();
        let outcome = if self.carry.is_empty() {
            let mut plain = local.plain.borrow_mut();
            plain.clear();
            let outcome = ready!(self.socket.poll_read(cx, cipher, &mut plain));
            *turn_bytes += plain.len();
            let used = self.decode(&plain);
            self.carry.extend_from_slice(plain.get(used..).unwrap_or_default());
            outcome
        } else {
            let before = self.carry.len();
            let outcome = ready!(self.socket.poll_read(cx, cipher, &mut self.carry));
            *turn_bytes += self.carry.len().saturating_sub(before);
            if self.carry.len() >= self.needed {
                self.decode_carry();
            }
            outcome
        };
        Poll::Ready(outcome)
    }

    /// Decodes from the bytes that were kept.
    fn decode_carry(&mut self) {
        let mut carry = std::mem::take(&mut self.carry);
        let used = self.decode(&carry);
        if used < carry.len() {
            carry.drain(..used);
            if carry.capacity() > CARRY_SLACK_BYTES && carry.capacity() / 4 > carry.len() {
                carry.shrink_to_fit();
            }
            self.carry = carry;
        }
    }

    /// Hands every whole packet of `bytes` to the core; how many bytes they took.
    fn decode(&mut self, bytes: &[u8]) -> usize {
        let mut packets = Vec::new();
        let mut used = 0;
        self.needed = 1;
        let violation = loop {
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                break None;
            }
            match self.decoder.decode(rest) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    #[cfg(test)]
                    tests::panic_if_asked(&packet);
                    used += consumed;
                    packets.push(packet);
                    if self.link.awaits_connect.get() {
                        self.accept_connect();
                        break None;
                    }
                }
                Ok(Decoded::Incomplete { needed }) => {
                    // The decoder wants more than there is, or it would find the same again.
                    self.needed = needed.max(rest.len() + 1);
                    break None;
                }
                Err(violation) => break Some(violation),
            }
        };
        self.hand_over(packets, violation, used);
        // After a violation nothing is looked at again.
        if self.link.gate.get() == Gate::Ended { bytes.len() } else { used }
    }

    /// CONNECT came: nothing behind it is looked at until the core has decided. [MQTT-3.1.4-6]
    fn accept_connect(&mut self) {
        self.decoder.set_packet_bytes_max(self.local.bounds.packet_bytes_max);
        self.socket.connected();
        self.needed = 0;
        self.link.version.set(self.decoder.version());
        self.link.awaits_connect.set(false);
        self.link.gate.set(Gate::Shut);
    }

    fn hand_over(&self, packets: Vec<Packet>, violation: Option<Violation>, bytes: usize) {
        let connection = self.link.id;
        if !packets.is_empty() {
            self.local.push(Input::Packets { connection, packets }, bytes);
        }
        if let Some(violation) = violation {
            self.link.gate.set(Gate::Ended);
            let version = self.decoder.version();
            // The answer must be in the client's version, however little of CONNECT was right.
            self.link.version.set(version);
            self.local.push(Input::Violated { connection, violation, version }, 0);
        }
    }

    /// Sends what waits. Ready when the socket has taken all of it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_flush(cx))?;
            if self.sealed >= self.writing.len() {
                self.report_written();
                if !self.take_out() {
                    return Poll::Ready(Ok(()));
                }
            }
            let rest = self.writing.get(self.sealed..).unwrap_or_default();
            let piece = rest.get(..SEAL_BYTES_MAX).unwrap_or(rest);
            self.socket.seal(piece)?;
            self.sealed += piece.len();
            // Progress was made: a new deadline for the next piece.
            self.timer = None;
            if self.sealed >= self.writing.len() {
                self.local.recycle(std::mem::take(&mut self.writing));
                self.sealed = 0;
            }
        }
    }

    /// Tells the core that its deliveries have left.
    fn report_written(&mut self) {
        let bytes = std::mem::take(&mut self.deliver_bytes);
        if bytes > 0 {
            self.local.push(Input::Written { connection: self.link.id, bytes }, 0);
        }
    }

    /// Takes what waits; `false` if nothing does.
    fn take_out(&mut self) -> bool {
        let mut out = self.link.out.borrow_mut();
        if out.bytes.is_empty() {
            return false;
        }
        self.writing = std::mem::take(&mut out.bytes);
        self.deliver_bytes = std::mem::take(&mut out.deliver_bytes);
        self.sealed = 0;
        true
    }

    /// Sends the rest and close_notify.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reported {
            // Nothing of the core's follows the transport's own last word.
            ready!(self.socket.poll_flush(cx))?;
        } else {
            ready!(self.poll_write_rest(cx))?;
        }
        self.socket.close_notify();
        Poll::Ready(Ok(()))
    }

    /// As [`Self::poll_write`], with the deadline of closing instead of one for each piece.
    fn poll_write_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timer = self.timer.take();
        let result = self.poll_write(cx);
        self.timer = timer;
        result
    }

    /// Closes in order. Ready when nothing is left to do.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let bound = match self.phase {
                Phase::Serving | Phase::Closing | Phase::ShuttingDown => {
                    self.local.bounds.close_max
                }
                Phase::Lingering => self.local.bounds.linger_max,
            };
            if self.poll_timer(cx, bound).is_ready() {
                return Poll::Ready(());
            }
            match self.phase {
                Phase::Serving | Phase::Closing => {
                    if ready!(self.poll_closing(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    self.phase = Phase::ShuttingDown;
                }
                Phase::ShuttingDown => {
                    let flushed = ready!(self.socket.poll_flush(cx));
                    if flushed.is_err() || ready!(self.socket.poll_shutdown(cx)).is_err() {
                        return Poll::Ready(());
                    }
                    self.report(CloseCause::Ours);
                    self.timer = None;
                    self.phase = Phase::Lingering;
                }
                Phase::Lingering => {
                    let local = Rc::clone(&self.local);
                    let mut cipher = local.cipher.borrow_mut();
                    return self.socket.poll_discard(cx, &mut cipher);
                }
            }
        }
    }

    /// Ready when `bound` has passed since the timer was last unset.
    fn poll_timer(&mut self, cx: &mut Context<'_>, bound: Duration) -> Poll<()> {
        #[expect(clippy::disallowed_methods, reason = "deadlines of the shell")]
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(bound)));
        timer.as_mut().poll(cx)
    }

    /// The last word to the core.
    fn report(&mut self, cause: CloseCause) {
        if !std::mem::replace(&mut self.reported, true) {
            self.local.push(Input::Closed { connection: self.link.id, cause }, 0);
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.link.polled(cx);
        if this.phase == Phase::Serving {
            match ready!(this.poll_serving(cx)) {
                Ok(()) => this.phase = Phase::Closing,
                Err(cause) => {
                    this.report(cause);
                    if !this.socket.has_closed() {
                        return Poll::Ready(());
                    }
                    this.link.gate.set(Gate::Ended);
                    this.timer = None;
                    this.phase = Phase::Closing;
                }
            }
        }
        ready!(this.poll_close(cx));
        this.report(CloseCause::Ours);
        Poll::Ready(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Nothing was reported: the task panicked, or its thread is ending.
        self.report(CloseCause::TaskFailed);
        self.local.task_ended();
    }
}

#[cfg(test)]
pub(super) mod tests;

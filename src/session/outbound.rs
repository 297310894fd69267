//! What a session has yet to send or to see acknowledged: its queue and its send window
//! (sections 4.3, 4.4 and 4.9).
//!
//! Generic over what is delivered, because this room knows nothing of routing. The queue is
//! bounded by messages, the window by the send quota, and both together by bytes.

use std::collections::VecDeque;

use crate::mqtt::{PacketId, QoS, ReasonCode};

/// The sender's half of a session.
#[derive(Debug)]
pub struct Outbound<D> {
    queue: VecDeque<Queued<D>>,
    queue_bytes: usize,
    window: VecDeque<Sent<D>>,
    window_bytes: usize,
    window_max: u16,
    /// Messages of the window from here on were sent on an earlier connection only.
    resent: usize,
    last_id: Option<PacketId>,
}

#[derive(Debug)]
struct Queued<D> {
    delivery: D,
    qos: QoS,
    bytes: usize,
}

/// A QoS 1 or 2 message that was sent.
#[derive(Debug)]
struct Sent<D> {
    id: PacketId,
    awaiting: Awaiting<D>,
    /// Of the message, as long as it is kept.
    bytes: usize,
    /// Whether its PUBLISH went out on this connection, so that it takes a place of the send quota
    /// until the last acknowledgement: PUBREC alone does not give it back.
    is_counted: bool,
}

/// What a sent message waits for. The message itself is kept as long as it may be sent again.
#[derive(Debug)]
enum Awaiting<D> {
    /// PUBACK.
    Acknowledgement(D),
    /// PUBREC.
    Receipt(D),
    /// PUBCOMP.
    Completion,
}

/// The queue is at one of its bounds: the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Send<D> {
    /// The copy.
    pub delivery: D,
    /// Its Packet Identifier; absent in QoS 0.
    pub packet_id: Option<PacketId>,
}

/// What must be sent again when a session is resumed. [MQTT-4.4.0-1]
#[derive(Debug, PartialEq, Eq)]
pub enum Resend<D> {
    /// The PUBLISH, with DUP set.
    Publish(D, PacketId),
    /// The PUBREL.
    PubRel(PacketId),
}

/// What an acknowledgement of the client means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The message is done; its place in the window is free.
    Done,
    /// Send PUBREL.
    Release,
    /// No message with this identifier waits for this acknowledgement.
    Unknown,
}

impl<D> Outbound<D> {
    /// Nothing queued, nothing sent. `window_max` is the send quota: at least 1.
    pub fn new(window_max: u16) -> Self {
        Self {
            queue: VecDeque::new(),
            queue_bytes: 0,
            window: VecDeque::new(),
            window_bytes: 0,
            window_max,
            resent: 0,
            last_id: None,
        }
    }

    /// A new connection begins, with this send quota: all of the window must be sent again.
    pub fn begin(&mut self, window_max: u16) {
        self.window_max = window_max;
        self.resent = 0;
        for sent in &mut self.window {
            sent.is_counted = false;
        }
    }

    /// Appends a message of `bytes`, unless the queue would pass `messages_max`, or queue and
    /// window together `bytes_max`.
    pub fn enqueue(
        &mut self,
        delivery: D,
        qos: QoS,
        bytes: usize,
        messages_max: u32,
        bytes_max: u64,
    ) -> Result<(), QueueFull> {
        let full = self.queue.len() as u64 >= u64::from(messages_max);
        if full || !self.has_bytes(bytes, bytes_max) {
            return Err(QueueFull);
        }
        self.queue_bytes += bytes;
        self.queue.push_back(Queued { delivery, qos, bytes });
        Ok(())
    }

    /// As [`Self::enqueue`], but before the first message that `goes_behind` names.
    pub fn insert(
        &mut self,
        delivery: D,
        qos: QoS,
        bytes: usize,
        (messages_max, bytes_max): (u32, u64),
        goes_behind: impl Fn(&D) -> bool,
    ) -> Result<(), QueueFull> {
        self.enqueue(delivery, qos, bytes, messages_max, bytes_max)?;
        let mut at = self.queue.len().saturating_sub(1);
        while let Some(before) = at.checked_sub(1)
            && self.queue.get(before).is_some_and(|queued| goes_behind(&queued.delivery))
        {
            self.queue.swap(before, at);
            at = before;
        }
        Ok(())
    }

    /// Takes every queued message that `leaves` names out of the queue.
    pub fn take_queued(&mut self, mut leaves: impl FnMut(&D) -> bool) -> Vec<D> {
        let mut taken = Vec::new();
        for queued in std::mem::take(&mut self.queue) {
            if leaves(&queued.delivery) {
                self.queue_bytes -= queued.bytes;
                taken.push(queued.delivery);
            } else {
                self.queue.push_back(queued);
            }
        }
        taken
    }

    /// Takes the first queued message that `is_it` names, and drops those before it.
    pub fn take_up_to(&mut self, is_it: impl Fn(&D) -> bool) -> Option<D> {
        let at = self.queue.iter().position(|queued| is_it(&queued.delivery))?;
        let mut last = None;
        for queued in self.queue.drain(..=at) {
            self.queue_bytes -= queued.bytes;
            last = Some(queued.delivery);
        }
        last
    }

    /// Lets `change` put something else in place of any message, queued or sent; it says how many
    /// bytes that has.
    pub fn replace(&mut self, mut change: impl FnMut(&mut D) -> Option<usize>) {
        for queued in &mut self.queue {
            if let Some(bytes) = change(&mut queued.delivery) {
                self.queue_bytes = self.queue_bytes - queued.bytes + bytes;
                queued.bytes = bytes;
            }
        }
        for sent in &mut self.window {
            if let Awaiting::Acknowledgement(delivery) | Awaiting::Receipt(delivery) =
                &mut sent.awaiting
                && let Some(bytes) = change(delivery)
            {
                self.window_bytes = self.window_bytes - sent.bytes + bytes;
                sent.bytes = bytes;
            }
        }
    }

    /// Whether the next queued message may leave now.
    pub fn is_ready(&self) -> bool {
        self.queue.front().is_some_and(|queued| queued.qos == QoS::AtMostOnce || self.has_room())
    }

    /// Whether nothing is queued, so that a message may pass by the queue without overtaking.
    pub fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the send quota allows one more QoS 1 or 2 message. [MQTT-3.3.4-9]
    pub fn has_room(&self) -> bool {
        self.resent == self.window.len() && self.window.len() < usize::from(self.window_max)
    }

    /// Whether `bytes` more stay within `bytes_max`, queue and window counted.
    pub fn has_bytes(&self, bytes: usize, bytes_max: u64) -> bool {
        (self.queue_bytes + self.window_bytes + bytes) as u64 <= bytes_max
    }

    /// Whether nothing waits to be acknowledged.
    pub fn is_window_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Whether the sent message with this identifier waits for PUBREC.
    pub fn awaits_receipt(&self, id: PacketId) -> bool {
        let is_it = |sent: &Sent<D>| sent.id == id && matches!(sent.awaiting, Awaiting::Receipt(_));
        self.window.iter().any(is_it)
    }

    /// Puts back a message that was sent in an earlier life, under the identifier it had then;
    /// without the message, PUBREC has come for it.
    pub fn restore(&mut self, id: PacketId, message: Option<(D, QoS, usize)>) {
        let (awaiting, bytes) = match message {
            Some((delivery, QoS::ExactlyOnce, bytes)) => (Awaiting::Receipt(delivery), bytes),
            Some((delivery, _, bytes)) => (Awaiting::Acknowledgement(delivery), bytes),
            None => (Awaiting::Completion, 0),
        };
        self.window.push_back(Sent { id, awaiting, bytes, is_counted: false });
        self.window_bytes += bytes;
        self.last_id = Some(id);
    }

    /// The identifier that was given last.
    pub fn last_id(&self) -> Option<PacketId> {
        self.last_id
    }

    /// Goes on counting identifiers behind `id`.
    pub fn restore_last_id(&mut self, id: PacketId) {
        self.last_id = Some(id);
    }

    /// What is queued, in order.
    pub fn queue(&self) -> impl DoubleEndedIterator<Item = &D> {
        self.queue.iter().map(|queued| &queued.delivery)
    }

    /// What was sent and is not done, in order; without the message where PUBREC has come.
    pub fn window(&self) -> impl Iterator<Item = (PacketId, Option<&D>)> {
        self.window.iter().map(|sent| match &sent.awaiting {
            Awaiting::Acknowledgement(delivery) | Awaiting::Receipt(delivery) => {
                (sent.id, Some(delivery))
            }
            Awaiting::Completion => (sent.id, None),
        })
    }

    /// Messages that are queued; bytes of those, and of what was sent and may be sent again.
    pub fn held(&self) -> (usize, usize) {
        (self.queue.len(), self.queue_bytes + self.window_bytes)
    }
}

impl<D: Clone> Outbound<D> {
    /// Takes the next message that may leave now off the queue and, unless it is QoS 0, into the
    /// window.
    pub fn dequeue(&mut self) -> Option<Send<D>> {
        if !self.is_ready() {
            return None;
        }
        let queued = self.queue.pop_front()?;
        self.queue_bytes -= queued.bytes;
        Some(self.send(queued.delivery, queued.qos, queued.bytes))
    }

    /// Puts `delivery`, of `bytes`, into the window (QoS 1 and 2) and gives it a Packet Identifier.
    /// The caller has asked [`Self::has_room`] and [`Self::has_bytes`].
    pub fn send(&mut self, delivery: D, qos: QoS, bytes: usize) -> Send<D> {
        let awaiting = match qos {
            QoS::AtMostOnce => return Send { delivery, packet_id: None },
            QoS::AtLeastOnce => Awaiting::Acknowledgement(delivery.clone()),
            QoS::ExactlyOnce => Awaiting::Receipt(delivery.clone()),
        };
        let id = self.free_id();
        self.window.push_back(Sent { id, awaiting, bytes, is_counted: true });
        self.window_bytes += bytes;
        self.resent = self.window.len();
        Send { delivery, packet_id: Some(id) }
    }

    /// The next message that must be sent again on this connection, in the order they were first
    /// sent. [MQTT-4.4.0-1], [MQTT-4.6.0-1] `None` while the send quota is used up, and when there
    /// is no more. [MQTT-3.3.4-9]
    pub fn next_resend(&mut self) -> Option<Resend<D>> {
        let on_their_way = self.window.iter().filter(|sent| sent.is_counted).count();
        let sent = self.window.get_mut(self.resent)?;
        let resend = match &sent.awaiting {
            Awaiting::Completion => Resend::PubRel(sent.id),
            Awaiting::Acknowledgement(_) | Awaiting::Receipt(_)
                if on_their_way >= usize::from(self.window_max) =>
            {
                return None;
            }
            Awaiting::Acknowledgement(delivery) | Awaiting::Receipt(delivery) => {
                Resend::Publish(delivery.clone(), sent.id)
            }
        };
        sent.is_counted = matches!(resend, Resend::Publish(..));
        self.resent += 1;
        Some(resend)
    }
}

impl<D> Outbound<D> {
    /// Handles PUBACK.
    pub fn handle_puback(&mut self, id: PacketId) -> Acknowledged {
        self.finish(id, |awaiting| matches!(awaiting, Awaiting::Acknowledgement(_)))
    }

    /// Handles PUBREC. One with an error ends the message. [MQTT-4.3.3-4]
    pub fn handle_pubrec(&mut self, id: PacketId, reason: ReasonCode) -> Acknowledged {
        if reason.is_error() {
            return self.finish(id, |awaiting| matches!(awaiting, Awaiting::Receipt(_)));
        }
        match self.window.iter_mut().find(|sent| sent.id == id) {
            // A repeated PUBREC is answered with PUBREL again.
            Some(sent) if matches!(sent.awaiting, Awaiting::Receipt(_) | Awaiting::Completion) => {
                // [MQTT-4.3.3-6]
                sent.awaiting = Awaiting::Completion;
                self.window_bytes -= std::mem::take(&mut sent.bytes);
                Acknowledged::Release
            }
            Some(_) | None => Acknowledged::Unknown,
        }
    }

    /// Handles PUBCOMP.
    pub fn handle_pubcomp(&mut self, id: PacketId) -> Acknowledged {
        self.finish(id, |awaiting| matches!(awaiting, Awaiting::Completion))
    }

    /// Takes a message that could not be sent out of the window.
    pub fn cancel(&mut self, id: PacketId) {
        if let Some(at) = self.window.iter().position(|sent| sent.id == id) {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(sent) = self.window.remove(at) {
            self.window_bytes -= sent.bytes;
        }
        if at < self.resent {
            self.resent -= 1;
        }
    }

    fn finish(&mut self, id: PacketId, expected: fn(&Awaiting<D>) -> bool) -> Acknowledged {
        // Clients acknowledge in order, so the first one is nearly always it.
        match self.window.iter().position(|sent| sent.id == id && expected(&sent.awaiting)) {
            Some(at) => {
                self.remove(at);
                Acknowledged::Done
            }
            None => Acknowledged::Unknown,
        }
    }

    /// The next identifier that is not in use. The window is smaller than the number of
    /// identifiers, so there is one. [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]
    fn free_id(&mut self) -> PacketId {
        let mut id = self.last_id.map_or(PacketId::ONE, PacketId::next);
        while self.window.iter().any(|sent| sent.id == id) {
            id = id.next();
        }
        self.last_id = Some(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).unwrap()
    }

    fn queue(outbound: &mut Outbound<&'static str>, what: &'static str, qos: QoS) {
        outbound.enqueue(what, qos, what.len(), 10, 100).unwrap();
    }

    #[test]
    fn the_queue_is_bounded_by_messages_and_by_bytes() {
        let mut outbound = Outbound::new(1);
        assert_eq!(outbound.enqueue("ab", QoS::AtLeastOnce, 2, 2, 3), Ok(()));
        assert_eq!(outbound.enqueue("cd", QoS::AtLeastOnce, 2, 2, 3), Err(QueueFull));
        assert_eq!(outbound.enqueue("c", QoS::AtLeastOnce, 1, 2, 3), Ok(()));
        assert_eq!(outbound.enqueue("", QoS::AtLeastOnce, 0, 2, 3), Err(QueueFull));
        assert_eq!(outbound.held(), (2, 3));
    }

    #[test]
    fn what_was_sent_counts_until_it_is_not_kept_any_more() {
        let mut outbound = Outbound::new(3);
        outbound.send("one", QoS::AtLeastOnce, 3);
        outbound.send("two", QoS::ExactlyOnce, 4);
        outbound.send("none", QoS::AtMostOnce, 9);
        assert_eq!(outbound.held(), (0, 7));
        assert!(outbound.has_bytes(3, 10) && !outbound.has_bytes(4, 10));
        assert_eq!(outbound.enqueue("abcd", QoS::AtLeastOnce, 4, 9, 10), Err(QueueFull));
        assert_eq!(outbound.enqueue("abc", QoS::AtLeastOnce, 3, 9, 10), Ok(()));
        outbound.dequeue();
        assert_eq!(outbound.held(), (0, 10), "it went from the queue into the window");
        for _ in 0..2 {
            outbound.handle_pubrec(id(2), ReasonCode::Success);
            assert_eq!(outbound.held(), (0, 6), "PUBREL needs no message");
        }
        outbound.handle_pubcomp(id(2));
        outbound.handle_puback(id(1));
        outbound.cancel(id(3));
        assert_eq!(outbound.held(), (0, 0));
    }

    #[test]
    fn the_window_holds_back_what_needs_acknowledgement_and_its_order() {
        let mut outbound = Outbound::new(1);
        queue(&mut outbound, "one", QoS::AtLeastOnce);
        queue(&mut outbound, "two", QoS::ExactlyOnce);
        queue(&mut outbound, "three", QoS::AtMostOnce);
        let first = outbound.dequeue().unwrap();
        assert_eq!((first.delivery, first.packet_id), ("one", Some(id(1))));
        assert_eq!(outbound.dequeue(), None);
        assert_eq!(outbound.handle_puback(id(1)), Acknowledged::Done);
        assert_eq!(outbound.dequeue().unwrap().packet_id, Some(id(2)));
        assert_eq!(outbound.dequeue().unwrap().delivery, "three");
        assert_eq!(outbound.held(), (0, 3), "QoS 2 is kept, QoS 0 is not");
    }

    #[test]
    fn pubrec_gives_no_place_back_to_what_is_resent() {
        let mut outbound = Outbound::new(2);
        outbound.send("one", QoS::ExactlyOnce, 1);
        outbound.send("two", QoS::ExactlyOnce, 1);
        // Resumed by a connection that takes one at a time.
        outbound.begin(1);
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("one", id(1))));
        assert_eq!(outbound.next_resend(), None);
        assert_eq!(outbound.handle_pubrec(id(1), ReasonCode::Success), Acknowledged::Release);
        assert_eq!(outbound.next_resend(), None, "only PUBCOMP gives it back");
        assert_eq!(outbound.handle_pubcomp(id(1)), Acknowledged::Done);
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("two", id(2))));
    }

    #[test]
    fn qos_2_walks_through_pubrec_and_pubcomp_and_is_resent_as_far_as_it_came() {
        let mut outbound = Outbound::new(4);
        outbound.send("one", QoS::ExactlyOnce, 1);
        outbound.send("two", QoS::AtLeastOnce, 1);
        assert_eq!(outbound.handle_pubcomp(id(1)), Acknowledged::Unknown);
        assert_eq!(outbound.handle_puback(id(1)), Acknowledged::Unknown);
        outbound.begin(4);
        assert!(!outbound.has_room(), "what was sent before comes first");
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("one", id(1))));
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("two", id(2))));
        assert_eq!((outbound.next_resend(), outbound.has_room()), (None, true));
        for _ in 0..2 {
            assert_eq!(outbound.handle_pubrec(id(1), ReasonCode::Success), Acknowledged::Release);
        }
        outbound.begin(1);
        assert_eq!(outbound.next_resend(), Some(Resend::PubRel(id(1))));
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("two", id(2))));
        assert_eq!(outbound.handle_pubcomp(id(1)), Acknowledged::Done);
        assert_eq!(outbound.handle_pubrec(id(1), ReasonCode::Success), Acknowledged::Unknown);
    }

    #[test]
    fn a_smaller_receive_maximum_holds_resends_back_too() {
        let mut outbound = Outbound::new(3);
        for what in ["one", "two", "three"] {
            outbound.send(what, QoS::AtLeastOnce, 1);
        }
        outbound.begin(2);
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("one", id(1))));
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("two", id(2))));
        assert_eq!(outbound.next_resend(), None);
        assert_eq!(outbound.handle_puback(id(2)), Acknowledged::Done);
        assert_eq!(outbound.next_resend(), Some(Resend::Publish("three", id(3))));
        assert_eq!(outbound.next_resend(), None);
        outbound.cancel(id(1));
        assert!(outbound.has_room());
    }

    #[test]
    fn a_pubrec_with_an_error_ends_the_message() {
        let mut outbound = Outbound::new(1);
        outbound.send("one", QoS::ExactlyOnce, 1);
        assert_eq!(outbound.handle_pubrec(id(1), ReasonCode::QuotaExceeded), Acknowledged::Done);
        assert!(outbound.has_room());
    }

    #[test]
    fn d02_identifiers_in_use_are_skipped_when_they_wrap() {
        let mut outbound = Outbound::new(3);
        outbound.send("kept", QoS::AtLeastOnce, 1);
        for _ in 0..u16::MAX - 1 {
            let sent = outbound.send("passing", QoS::AtLeastOnce, 1).packet_id.unwrap();
            assert_eq!(outbound.handle_puback(sent), Acknowledged::Done);
        }
        assert_eq!(outbound.send("next", QoS::AtLeastOnce, 1).packet_id, Some(id(2)));
    }
}

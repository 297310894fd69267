//! The protocol engine with what the client remembers about it: who waits for which answer.
//!
//! No I/O: bytes go in, bytes and answers come out, deadlines are asked for.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait, Packet};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use mqtt_protocol_core::mqtt::{self, Connection, role};
use tokio::sync::OwnedSemaphorePermit;

use super::packets::{self, Incoming};
use super::{
    Acknowledgement, Answer, ClientError, ConnectOptions, Message, Qos, Received, Version,
};

/// The largest packet a client takes, in bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// How long PINGRESP may take, in milliseconds.
const PINGRESP_MS_MAX: u64 = 10_000;

pub(super) struct Session {
    engine: Connection<role::Client>,
    version: Version,
    /// Bytes for the socket.
    pub(super) outgoing: Vec<u8>,
    /// Messages for the application, at most those of one read.
    pub(super) inbox: VecDeque<Received>,
    /// CONNACK, once it came: session present, or why not.
    pub(super) connack: Option<Result<bool, ClientError>>,
    /// Why the connection has to end.
    pub(super) end: Option<ClientError>,
    publishes: HashMap<u16, PublishInFlight>,
    subscribes: HashMap<u16, Answer<Vec<u8>>>,
    ping_at: Option<Instant>,
    pong_by: Option<Instant>,
}

struct PublishInFlight {
    sent_at: Instant,
    answer: Answer<Acknowledgement>,
    /// Held for its drop: the place in the window.
    _permit: OwnedSemaphorePermit,
}

impl Session {
    /// A session whose CONNECT is in `outgoing`.
    pub(super) fn open(options: &ConnectOptions, now: Instant) -> Result<Self, ClientError> {
        let version = match options.version {
            Version::V3_1_1 => mqtt::Version::V3_1_1,
            Version::V5_0 => mqtt::Version::V5_0,
        };
        let bounds = ConnectionOptions::new().maximum_packet_size_recv(PACKET_BYTES_MAX);
        let mut engine = Connection::<role::Client>::with_options(version, bounds);
        engine.set_auto_pub_response(true);
        engine.set_pingresp_recv_timeout(PINGRESP_MS_MAX);
        let mut session = Self {
            engine,
            version: options.version,
            outgoing: Vec::new(),
            inbox: VecDeque::new(),
            connack: None,
            end: None,
            publishes: HashMap::new(),
            subscribes: HashMap::new(),
            ping_at: None,
            pong_by: None,
        };
        let connect = packets::connect(options).map_err(ClientError::Protocol)?;
        session.send(connect, now).map_err(ClientError::Protocol)?;
        Ok(session)
    }

    /// Takes bytes from the socket.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) {
        let mut cursor = Cursor::new(bytes);
        // The engine takes one packet per call, and what is left of the bytes when it cannot
        // complete one.
        while cursor.position() < bytes.len() as u64 && self.end.is_none() {
            let events = self.engine.recv(&mut cursor);
            if let Some(error) = self.apply(events, now) {
                self.end.get_or_insert(ClientError::Protocol(error));
            }
        }
    }

    /// Whether the broker's Receive Maximum lets another publish go.
    pub(super) fn has_room(&self) -> bool {
        self.engine.get_receive_maximum_vacancy_for_send() != Some(0)
    }

    pub(super) fn publish(
        &mut self,
        message: &Message,
        permit: OwnedSemaphorePermit,
        answer: Answer<Acknowledgement>,
        now: Instant,
    ) {
        let sent = match message.qos {
            Qos::AtMostOnce => self.publish_unacknowledged(message, now),
            Qos::AtLeastOnce | Qos::ExactlyOnce => match self.publish_acknowledged(message, now) {
                Ok(packet_id) => {
                    let waiting = PublishInFlight { sent_at: now, answer, _permit: permit };
                    self.publishes.insert(packet_id, waiting);
                    return;
                }
                Err(error) => Err(error),
            },
        };
        // A dropped receiver has nobody to tell.
        let _ = answer.send(sent);
    }

    pub(super) fn subscribe(
        &mut self,
        filters: &[(String, Qos)],
        answer: Answer<Vec<u8>>,
        now: Instant,
    ) {
        let sent = self.engine.acquire_packet_id().and_then(|packet_id| {
            let packet = packets::subscribe(self.version, filters, packet_id);
            packet.and_then(|packet| self.send(packet, now)).map(|()| packet_id)
        });
        match sent {
            Ok(packet_id) => {
                self.subscribes.insert(packet_id, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(ClientError::Protocol(error)));
            }
        }
    }

    pub(super) fn disconnect(&mut self, now: Instant) {
        let sent = packets::disconnect(self.version).and_then(|packet| self.send(packet, now));
        self.end = Some(sent.map_or_else(ClientError::Protocol, |()| ClientError::Finished));
    }

    /// When the next timer is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ping_at.into_iter().chain(self.pong_by).min()
    }

    /// Fires the timers that are due.
    pub(super) fn timeout(&mut self, now: Instant) {
        if self.pong_by.is_some_and(|at| at <= now) {
            self.end = Some(ClientError::Timeout { waiting_for: "waiting for PINGRESP" });
        } else if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = None;
            let events = self.engine.notify_timer_fired(TimerKind::PingreqSend);
            if let Some(error) = self.apply(events, now) {
                self.end.get_or_insert(ClientError::Protocol(error));
            }
        }
    }

    /// Tells everybody who waits why there will be no answer.
    pub(super) fn close(self, reason: &ClientError) {
        for (_, waiting) in self.publishes {
            let _ = waiting.answer.send(Err(reason.clone()));
        }
        for (_, answer) in self.subscribes {
            let _ = answer.send(Err(reason.clone()));
        }
    }

    fn publish_unacknowledged(
        &mut self,
        message: &Message,
        now: Instant,
    ) -> Result<Acknowledgement, ClientError> {
        packets::publish(self.version, message, None)
            .and_then(|packet| self.send(packet, now))
            .map_err(ClientError::Protocol)?;
        Ok(Acknowledgement { reason_code: 0, reason: None, latency: Duration::ZERO })
    }

    fn publish_acknowledged(
        &mut self,
        message: &Message,
        now: Instant,
    ) -> Result<u16, ClientError> {
        let packet_id = self.engine.acquire_packet_id().map_err(ClientError::Protocol)?;
        let packet = packets::publish(self.version, message, Some(packet_id)).map_err(|error| {
            // Nothing was sent, so the identifier is free again; the events say only that.
            self.engine.release_packet_id(packet_id);
            ClientError::Protocol(error)
        })?;
        self.send(packet, now).map_err(ClientError::Protocol)?;
        Ok(packet_id)
    }

    fn send(&mut self, packet: Packet, now: Instant) -> Result<(), MqttError> {
        let events = self.engine.send(packet);
        self.apply(events, now).map_or(Ok(()), Err)
    }

    /// Does what the engine asks for; returns the first error it reports.
    fn apply(&mut self, events: Vec<Event>, now: Instant) -> Option<MqttError> {
        let mut error = None;
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    self.outgoing.extend_from_slice(&packet.to_continuous_buffer());
                }
                Event::NotifyPacketReceived(packet) => {
                    self.on_packet(Incoming::from_packet(&packet), now);
                }
                Event::RequestTimerReset { kind, duration_ms } => {
                    self.set_timer(kind, Some(now + Duration::from_millis(duration_ms)));
                }
                Event::RequestTimerCancel(kind) => self.set_timer(kind, None),
                Event::NotifyError(found) => error = error.or(Some(found)),
                Event::RequestClose => {
                    let detail = "the protocol engine asked for it".to_owned();
                    self.end.get_or_insert(ClientError::Closed { detail });
                }
                Event::NotifyPacketIdReleased(_) => {}
            }
        }
        error
    }

    fn set_timer(&mut self, kind: TimerKind, at: Option<Instant>) {
        match kind {
            TimerKind::PingreqSend => self.ping_at = at,
            TimerKind::PingrespRecv => self.pong_by = at,
            TimerKind::PingreqRecv => {} // a server's timer
        }
    }

    fn on_packet(&mut self, incoming: Incoming, now: Instant) {
        match incoming {
            Incoming::Connack { reason_code: 0, session_present, .. } => {
                self.connack = Some(Ok(session_present));
            }
            Incoming::Connack { reason_code, reason, .. } => {
                self.connack = Some(Err(ClientError::Refused { reason_code, reason }));
            }
            Incoming::Publish(received) => self.inbox.push_back(received),
            Incoming::Acknowledged { packet_id, reason_code, reason } => {
                self.acknowledge(packet_id, reason_code, reason, now);
            }
            Incoming::AcknowledgedUnreleased { packet_id, reason } => {
                // The engine takes PUBREC 0x10 for a refusal: it frees the identifier and sends
                // no PUBREL, while the broker still waits for one and would take a new message
                // under this identifier for a duplicate. So the identifier is never used again.
                let _ = self.engine.register_packet_id(packet_id);
                self.acknowledge(packet_id, 0x10, reason, now);
            }
            Incoming::Subscribed { packet_id, reason_codes } => {
                if let Some(answer) = self.subscribes.remove(&packet_id) {
                    let _ = answer.send(Ok(reason_codes));
                }
            }
            Incoming::Disconnect { reason_code, reason } => {
                self.end.get_or_insert(ClientError::Disconnected { reason_code, reason });
            }
            Incoming::Handled => {}
        }
    }

    fn acknowledge(
        &mut self,
        packet_id: u16,
        reason_code: u8,
        reason: Option<String>,
        now: Instant,
    ) {
        if let Some(waiting) = self.publishes.remove(&packet_id) {
            let latency = now.saturating_duration_since(waiting.sent_at);
            let _ = waiting.answer.send(Ok(Acknowledgement { reason_code, reason, latency }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    type Answered = oneshot::Receiver<Result<Acknowledgement, ClientError>>;

    /// A connected 5.0 session; `properties` are those of CONNACK.
    fn connected(properties: &[u8]) -> Session {
        let options = ConnectOptions::new(Version::V5_0, "c");
        let mut session = Session::open(&options, Instant::now()).unwrap();
        assert_eq!(session.outgoing.first(), Some(&0x10));
        session.outgoing.clear();
        let length = u8::try_from(properties.len()).unwrap();
        session.receive(&[&[0x20, 3 + length, 0, 0, length], properties].concat(), Instant::now());
        assert_eq!(session.connack.take(), Some(Ok(false)));
        session
    }

    /// Publishes; returns the Packet Identifier on the wire and the answer to come.
    fn publish(session: &mut Session, qos: Qos) -> (u16, Answered) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (answer, answered) = oneshot::channel();
        let (topic, payload) = ("t".to_owned(), Vec::new());
        let message = Message { topic, payload, qos, retain: false, statement: None };
        session.outgoing.clear();
        session.publish(&message, permit, answer, Instant::now());
        // Fixed header (2), topic (2 + 1), identifier.
        (u16::from_be_bytes([session.outgoing[5], session.outgoing[6]]), answered)
    }

    fn code(answered: &mut Answered) -> u8 {
        answered.try_recv().unwrap().unwrap().reason_code
    }

    #[test]
    fn an_identifier_that_was_never_released_is_never_used_again() {
        let mut session = connected(&[]);
        let (first, mut answered) = publish(&mut session, Qos::ExactlyOnce);
        let [high, low] = first.to_be_bytes();
        session.receive(&[0x50, 3, high, low, 0x10], Instant::now());
        assert_eq!(code(&mut answered), 0x10);
        let (second, mut answered) = publish(&mut session, Qos::ExactlyOnce);
        assert_ne!(first, second);
        let [high, low] = second.to_be_bytes();
        session.receive(&[0x50, 2, high, low], Instant::now());
        assert!(answered.try_recv().is_err(), "PUBREC is not the end");
        session.receive(&[0x70, 2, high, low], Instant::now());
        assert_eq!(code(&mut answered), 0);
        assert_eq!(session.end, None);
    }

    #[test]
    fn a_refusal_ends_a_publish_and_carries_its_reason() {
        let mut session = connected(&[]);
        let (id, mut answered) = publish(&mut session, Qos::ExactlyOnce);
        let [high, low] = id.to_be_bytes();
        session.receive(&[0x50, 9, high, low, 0x87, 5, 0x1f, 0, 2, b'n', b'o'], Instant::now());
        let answer = answered.try_recv().unwrap().unwrap();
        assert_eq!((answer.reason_code, answer.reason.as_deref()), (0x87, Some("no")));
        assert!(!answer.accepted());
        assert_eq!(publish(&mut session, Qos::AtLeastOnce).0, id, "the identifier is free again");
    }

    #[test]
    fn the_brokers_receive_maximum_bounds_what_is_in_flight() {
        let mut session = connected(&[0x21, 0, 2]);
        let (first, _answer) = publish(&mut session, Qos::AtLeastOnce);
        assert!(session.has_room());
        let (_, _answer) = publish(&mut session, Qos::AtLeastOnce);
        assert!(!session.has_room());
        let [high, low] = first.to_be_bytes();
        session.receive(&[0x40, 2, high, low], Instant::now());
        assert!(session.has_room());
    }

    #[test]
    fn packets_are_read_from_any_cut_of_the_bytes() {
        let mut session = connected(&[]);
        let one = [0x30, 5, 0, 1, b't', 0, b'x'];
        for byte in one.iter().chain(&one) {
            session.receive(&[*byte], Instant::now());
        }
        session.receive(&[one, one].concat(), Instant::now());
        assert_eq!(session.inbox.len(), 4);
        assert!(session.inbox.iter().all(|message| message.payload == b"x"));
    }

    #[test]
    fn an_answer_to_nothing_and_a_disconnect_end_the_session() {
        let mut session = connected(&[]);
        session.receive(&[0x40, 2, 0, 9], Instant::now());
        assert!(session.end.is_some());
        let mut session = connected(&[]);
        session.receive(&[0xe0, 2, 0x96, 0], Instant::now());
        let expected = ClientError::Disconnected { reason_code: 0x96, reason: None };
        assert_eq!(session.end, Some(expected));
    }

    #[test]
    fn the_timers_ping_and_give_up() {
        let mut session = connected(&[]);
        let ping_at = session.deadline().unwrap();
        session.timeout(ping_at);
        assert_eq!(session.outgoing, [0xc0, 0]);
        let pong_by = ping_at + Duration::from_millis(PINGRESP_MS_MAX);
        session.timeout(pong_by - Duration::from_millis(1));
        assert_eq!(session.end, None);
        session.timeout(pong_by);
        assert!(matches!(session.end, Some(ClientError::Timeout { .. })));
    }
}

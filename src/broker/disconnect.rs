//! How connections and sessions end (sections 3.14 and 4.13).

use super::Broker;
use super::effect::Effect;
use super::input::{CloseCause, ConnectionId};
use super::output::EventKind;
use super::record::{RefusalKey, peer_field};
use crate::evidence::{Decision, EntryType, EntryWriter};
use crate::mqtt::{Disconnect, DisconnectProperties, Packet, ReasonCode, Violation};
use crate::session::{Phase, Timer};
use crate::time::Now;

/// Why a connection ends. A closed list: entries and metrics use its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// DISCONNECT of the client.
    Client(ReasonCode),
    /// The peer closed the connection without one.
    PeerClosed,
    /// Reading or writing failed.
    Transport,
    /// The peer broke the WebSocket around its packets.
    Framing,
    /// The task of the connection failed: ours to mend.
    TaskFailed,
    /// The peer broke the protocol.
    Violation(ReasonCode),
    /// Nothing was heard for one and a half times the Keep Alive.
    KeepAlive,
    /// The same identity connected again with the same Client Identifier.
    TakenOver,
    /// The certificate came to its end.
    CertificateEnd,
    /// The token came to its end.
    TokenEnd,
    /// The token that should renew it was refused.
    TokenRefused,
    /// A limit says so.
    RateTooHigh,
    /// A 3.x client was refused a publish, and its rule says to close.
    PublishRefused,
    /// CONNECT did not come in time.
    ConnectTimeout,
    /// The broker stops.
    Shutdown,
}

impl Ending {
    /// The table: name in the entry; Reason Code of the DISCONNECT that a 5.0 client gets, if we
    /// end it; whether the Will is published.
    const fn row(self) -> (&'static str, Option<ReasonCode>, bool) {
        use ReasonCode as R;
        match self {
            // [MQTT-3.14.4-3]: only a normal disconnection calls the Will off.
            Self::Client(reason) => ("client", None, !matches!(reason, R::Success)),
            Self::PeerClosed => ("peer.closed", None, true),
            Self::Transport => ("transport", None, true),
            Self::Framing => ("websocket.violation", None, true),
            Self::TaskFailed => ("fault.task", None, true),
            Self::Violation(reason) => ("violation", Some(reason), true),
            Self::KeepAlive => ("keep_alive", Some(R::KeepAliveTimeout), true),
            Self::TakenOver => ("taken_over", Some(R::SessionTakenOver), true),
            // A right that has ended publishes nothing more: its Will is judged, not dropped here.
            Self::CertificateEnd => ("certificate.expired", Some(R::NotAuthorized), true),
            Self::TokenEnd => ("token.expired", Some(R::NotAuthorized), true),
            // [MQTT-4.12.1-2]
            Self::TokenRefused => ("token.refused", Some(R::NotAuthorized), true),
            Self::RateTooHigh => ("limit.rate", Some(R::MessageRateTooHigh), true),
            Self::PublishRefused => ("publish.refused", Some(R::NotAuthorized), true),
            Self::ConnectTimeout => ("connect.timeout", None, false),
            // No client's DISCONNECT called the Will off. [MQTT-3.1.2-8], [MQTT-3.1.2-10]: it goes
            // to the log, to queues and to the retained messages; one with a delay stays pending.
            Self::Shutdown => ("shutdown", Some(R::ServerShuttingDown), true),
        }
    }
}

impl Broker {
    /// DISCONNECT of the client.
    pub(super) fn handle_disconnect(&mut self, now: Now, id: ConnectionId, packet: &Disconnect) {
        if let Some(expiry) = packet.properties.session_expiry_seconds {
            let longest = self.settings.bounds.session_expiry_seconds_max;
            let session = self.session_of(id).and_then(|key| self.sessions.get_mut(&key));
            match session {
                // [MQTT-3.14.2-2]: what began with 0 cannot be prolonged at the end.
                Some(session) if session.expiry_seconds == 0 && expiry > 0 => {
                    let what = "a Session Expiry Interval in DISCONNECT though CONNECT had none";
                    return self.violate_protocol(now, id, what);
                }
                Some(_) | None => {}
            }
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.final_expiry_seconds = Some(expiry.min(longest));
            }
        }
        self.end(now, id, Ending::Client(packet.reason));
    }

    /// The Network Connection is gone.
    pub(super) fn handle_closed(&mut self, now: Now, id: ConnectionId, cause: CloseCause) {
        let ending = match cause {
            CloseCause::Peer => Ending::PeerClosed,
            CloseCause::Transport | CloseCause::Ours => Ending::Transport,
            CloseCause::TaskFailed => {
                self.counters.connections_failed += 1;
                Ending::TaskFailed
            }
            CloseCause::Framing => Ending::Framing,
        };
        self.end(now, id, ending);
        self.connections.remove(&id);
        for timer in [
            Timer::ConnectDeadline(id),
            Timer::KeepAlive(id),
            Timer::CredentialEnd(id),
            Timer::Unpause(id),
        ] {
            self.timers.clear(timer);
        }
    }

    /// A Protocol Error that no decoder can see.
    pub(super) fn violate_protocol(&mut self, now: Now, id: ConnectionId, what: &'static str) {
        let violation = Violation { reason: ReasonCode::ProtocolError, what, statement: None };
        self.violate(now, id, &violation);
    }

    /// A peer broke the protocol: recorded, told if its version is known, closed. [MQTT-4.13.1-1]
    pub(super) fn violate(&mut self, now: Now, id: ConnectionId, violation: &Violation) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.phase == Phase::Closing {
            return;
        }
        self.counters.violations += 1;
        let decision = self.decide();
        self.tell(EventKind::Violated, &decision, id, None, None);
        let Some(connection) = self.connections.get(&id) else { return };
        let (peer, identity) = (connection.facts.peer.ip(), connection.identity.clone());
        if connection.author.is_some() {
            let ending = Ending::Violation(violation.reason);
            return self.end_with(now, id, ending, &decision, Some(violation));
        }
        self.counters.connects_refused += 1;
        if self.is_first_refusal(now, RefusalKey::Address(peer, "mqtt.violation")) {
            let privacy = self.settings.privacy.clone();
            self.record(now, EntryType::ConnectRefused, &decision, |entry| {
                let entry = match &identity {
                    Some(identity) => entry.who(identity),
                    None => entry,
                };
                let entry = peer_field(entry, &privacy, peer, None);
                violation_fields(entry.decision(Decision::Deny), violation)
            });
        }
        // [MQTT-3.1.4-1], [MQTT-3.2.2-6] of 3.1.1: none of its return codes says that a CONNECT is
        // malformed, so the connection is closed without a CONNACK.
        let v3 = self.connections.get(&id).is_some_and(|known| !known.is_v5());
        if v3 && !has_return_code(violation.reason) {
            return self.close_unnamed(id);
        }
        self.reject(id, violation.reason, None);
    }

    /// Ends a connection from whatever phase it is in: recorded, the client told, its session set
    /// free. Does nothing if it is being closed already.
    pub(super) fn end(&mut self, now: Now, id: ConnectionId, ending: Ending) {
        let decision = self.decide();
        self.end_with(now, id, ending, &decision, None);
    }

    fn end_with(
        &mut self,
        now: Now,
        id: ConnectionId,
        ending: Ending,
        decision: &str,
        violation: Option<&Violation>,
    ) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (phase, session, v5) = (connection.phase, connection.session, connection.is_v5());
        let expiry_seconds = connection.final_expiry_seconds;
        if phase == Phase::Closing {
            return;
        }
        let (how, reason, publishes_will) = ending.row();
        let reference = self.settings.about.server_reference.clone();
        let reference = reference.filter(|_| ending == Ending::Shutdown);
        let reason = reference.as_ref().map_or(reason, |_| Some(ReasonCode::UseAnotherServer));
        if connection.author.is_none() {
            // Nothing was ever asked for: counted per address like a refused handshake.
            let peer = connection.facts.peer;
            self.handle_handshake_refused(now, peer, how);
            return self.close_unnamed(id);
        }
        let code = match ending {
            Ending::Client(reason) => Some(reason),
            _ => reason,
        };
        self.record_of(now, id, EntryType::Disconnect, decision, None, |entry| {
            let mut entry = entry.plain("how", how);
            if let Some(code) = code {
                entry = entry.number("code", code.as_u8().into());
            }
            match violation {
                Some(violation) => violation_fields(entry, violation),
                None => entry,
            }
        });
        self.tell(EventKind::Disconnected, decision, id, None, None);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Closing;
            connection.session = None;
        }
        // [MQTT-3.14.0-1]
        if let (Some(reason), Phase::Connected, true) = (reason, phase, v5) {
            let server_reference = reference.as_deref().map(str::to_owned);
            let properties = DisconnectProperties { server_reference, ..Default::default() };
            let packet = Packet::Disconnect(Box::new(Disconnect { reason, properties }));
            self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: false });
        }
        // [MQTT-3.14.4-2], [MQTT-4.13.2-1]
        self.ledger.wait(Effect::Close(id));
        if let Some(key) = session {
            self.detach(now, key, expiry_seconds, publishes_will);
        }
    }

    /// Closes a connection that never sent CONNECT.
    pub(super) fn close_unnamed(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Closing;
        }
        self.ledger.wait(Effect::Close(id));
    }

    /// Ends every connection and writes the last entry.
    pub(super) fn stop(&mut self, now: Now) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let mut live: Vec<ConnectionId> = self.connections.keys().copied().collect();
        live.sort_unstable();
        for id in live {
            self.end(now, id, Ending::Shutdown);
        }
        self.close_refusal_counts(now, true);
        let decision = self.decide();
        self.record(now, EntryType::Stop, &decision, |entry| entry);
        self.ledger.wait(Effect::Stopped);
    }
}

/// Whether 3.x can say in CONNACK why a CONNECT is wrong.
fn has_return_code(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid)
}

fn violation_fields<'a>(entry: EntryWriter<'a>, violation: &Violation) -> EntryWriter<'a> {
    let entry = entry
        .plain("why", "violation")
        .number("code", violation.reason.as_u8().into())
        .text("detail", violation.what);
    match violation.statement {
        Some(statement) => entry.plain("statement", statement),
        None => entry,
    }
}

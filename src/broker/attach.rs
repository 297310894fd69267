//! An accepted CONNECT is on disk: its session is made or resumed, then CONNACK.
//!
//! What happens to sessions here and in [`super::detach`] happens in the order of the log, and in
//! the same functions when a broker starts: [`super::durable`] calls them for each record it reads.
//! Nothing in them may depend on what is in no record, connections above all.

use super::Broker;
use super::claims::SessionName;
use super::connection::{Intake, Session};
use super::disconnect::Ending;
use super::durable::{Attached, Change};
use super::effect::{AcceptedConnect, Detachment, Effect};
use super::input::ConnectionId;
use super::output::Output;
use super::timeout;
use crate::evidence::Synced;
use crate::mqtt::Packet;
use crate::routing::SessionKey;
use crate::session::{Aliases, Author, Inbound, Outbound, OutboundAliases, Phase, Timer};
use crate::time::Now;

impl AcceptedConnect {
    /// What it does to sessions.
    pub(super) fn attached(&self) -> Change {
        Change::Attached(Box::new(Attached {
            key: self.key,
            connect_index: self.index,
            author: self.author.clone(),
            clean: self.connect.clean_start,
            expiry_seconds: self.granted.session_expiry_seconds,
            will: self.will.clone(),
        }))
    }
}

impl Broker {
    /// The entry is on disk: the session is made or resumed, and CONNACK leaves. [MQTT-3.1.4-5],
    /// [MQTT-3.2.0-1]
    pub(super) fn connected(&mut self, now: Now, mut accepted: AcceptedConnect, synced: &Synced) {
        let id = accepted.connection;
        let index = accepted.index.unwrap_or_else(|| synced.first_index() + accepted.offset);
        let author = accepted.author.clone();
        let name = (author.identity().clone(), author.client_id().clone());
        let gone = self.connections.get(&id).is_none_or(|known| known.phase != Phase::Connecting);
        if !accepted.recorded {
            if gone {
                return self.unclaim_session(&name);
            }
            if self.has_durable_session(&author) {
                // It began after this CONNECT was decided, so the log does not tell of it yet:
                // CONNACK waits until it does, or a crash would bring back what it ended.
                (accepted.recorded, accepted.index) = (true, Some(index));
                self.note(&accepted.attached());
                return self.ledger.wait(Effect::Connected(Box::new(accepted)));
            }
        }
        if self.is_superseded(&name, index) {
            // It waited for its record, and a later CONNECT for none.
            self.unclaim_session(&name);
            return self.end(now, id, Ending::TakenOver);
        }
        let (recorded, expiry_seconds) =
            (accepted.recorded, accepted.granted.session_expiry_seconds);
        let attached = Attached {
            key: accepted.key,
            connect_index: Some(index),
            author,
            clean: accepted.connect.clean_start,
            expiry_seconds,
            will: accepted.will.take(),
        };
        let (key, session_present) = self.attach(now, attached, index, recorded);
        self.unclaim_session(&name);
        if gone {
            // It ended before CONNACK: the session has it behind itself already.
            return self.detach(now, key, None, false);
        }
        self.bind(now, key, &accepted, index);
        self.counters.connects += 1;
        let AcceptedConnect { author, connect, granted, .. } = &accepted;
        let connack = self.connack(author, connect, granted, session_present);
        self.send(id, Packet::ConnAck(Box::new(connack)));
        self.outputs.push_back(Output::Resume { connection: id });
        let wish = accepted.connect.properties.receive_maximum.unwrap_or(u16::MAX);
        let window_max = wish.min(self.settings.bounds.send_window_messages_max).max(1);
        if recorded {
            // Copies whose record is still on its way are not sent again before it has arrived.
            let (connection, session) = (id, key);
            self.ledger.wait(Effect::Begin { connection, session, window_max });
        } else {
            self.begin(now, id, key, window_max);
        }
    }

    /// Whether `author` has a session that the log tells of.
    pub(super) fn has_durable_session(&self, author: &Author) -> bool {
        let name = (author.identity().clone(), author.client_id().clone());
        let session = self.session_keys.get(&name).and_then(|key| self.sessions.get(key));
        session.is_some_and(|session| session.durable)
    }

    /// Whether a CONNECT that was decided after the one at `index` has the session already: the
    /// older one must not take it back.
    pub(super) fn is_superseded(&self, name: &SessionName, index: u64) -> bool {
        let session = self.session_keys.get(name).and_then(|key| self.sessions.get(key));
        session.is_some_and(|session| session.connect_index > index)
    }

    /// Makes or resumes the session of a CONNECT whose entry is at `index`; whether it was there.
    pub(super) fn attach(
        &mut self,
        now: Now,
        attached: Attached,
        index: u64,
        durable: bool,
    ) -> (SessionKey, bool) {
        let Attached { key, author, clean, expiry_seconds, will, .. } = attached;
        let name = (author.identity().clone(), author.client_id().clone());
        self.take_over(now, &name);
        // That may have ended a session that did not outlive its connection.
        let known = self.session_keys.get(&name).copied();
        // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
        let session_present = known.is_some() && !clean;
        // [MQTT-3.1.2-4], [MQTT-3.1.4-4]
        if let (Some(known), true) = (known, clean) {
            self.end_session(now, known);
        }
        let key = match self.session_keys.get(&name).copied() {
            // [MQTT-3.1.2-5], [MQTT-3.1.2-6]
            Some(key) => key,
            None => self.make_session(name, key, author.clone(), durable),
        };
        self.timers.clear(Timer::SessionExpiry(key));
        self.timers.clear(Timer::WillDelay(key));
        if let Some(session) = self.sessions.get_mut(&key) {
            session.author = author;
            // [MQTT-3.1.2-7]
            session.will = will;
            session.will_due = None;
            session.away_since = None;
            session.expiry_seconds = expiry_seconds;
            session.connect_index = index;
        }
        (key, session_present)
    }

    /// Takes a session from the connection that it has. [MQTT-3.1.4-3]: only the same identity gets
    /// here, so nobody else's session is taken.
    fn take_over(&mut self, now: Now, name: &SessionName) {
        let Some(key) = self.session_keys.get(name).copied() else { return };
        if let Some(old) = self.sessions.get(&key).and_then(|session| session.connection) {
            self.end(now, old, Ending::TakenOver);
        }
        let Some(session) = self.sessions.get(&key) else { return };
        if session.away_since.is_none() {
            // The record of its end comes later in the log, and finds this done.
            let detachment = Detachment {
                key,
                connect_index: session.connect_index,
                at: now.instant,
                expiry_seconds: session.expiry_seconds,
                publishes_will: true,
            };
            self.detached(now, detachment);
        }
    }

    fn make_session(
        &mut self,
        name: SessionName,
        key: SessionKey,
        author: Author,
        durable: bool,
    ) -> SessionKey {
        let holds_place = self.give_place(&name);
        self.session_keys.insert(name, key);
        self.durable_sessions += usize::from(durable);
        self.sessions.insert(
            key,
            Session {
                author,
                connection: None,
                subscriptions: Default::default(),
                reserved: Vec::new(),
                inbound: Inbound::default(),
                outbound: Outbound::new(1),
                retained: Default::default(),
                will: None,
                expiry_seconds: 0,
                durable,
                intake: Intake::Implicit,
                away_since: None,
                will_due: None,
                connect_index: 0,
                holds_place,
            },
        );
        let most = &mut self.counters.traffic.sessions_max;
        *most = (*most).max(self.sessions.len() as u64);
        key
    }

    /// Binds session and connection to each other.
    fn bind(&mut self, now: Now, key: SessionKey, accepted: &AcceptedConnect, index: u64) {
        let id: ConnectionId = accepted.connection;
        let aliases = self.settings.bounds.topic_alias_maximum;
        let outbound_aliases = self.settings.bounds.topic_alias_outbound_max;
        if let Some(session) = self.sessions.get_mut(&key) {
            session.connection = Some(id);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.phase = Phase::Connected;
            connection.session = Some(key);
            connection.connect_index = Some(index);
            connection.aliases = Aliases::new(aliases);
            let takes = accepted.connect.properties.topic_alias_maximum.unwrap_or(0);
            connection.outbound_aliases = OutboundAliases::new(takes.min(outbound_aliases));
            connection.last_heard = now.instant;
            connection.keep_alive_seconds = accepted.granted.keep_alive_seconds;
            // The send quota of the client is whole at each connection (4.9).
            connection.unacknowledged = 0;
            let silence = timeout::silence_max(connection.keep_alive_seconds);
            self.timers.set(now.instant.after(silence), Timer::KeepAlive(id));
        }
    }
}

//! CONNECT: decided and recorded, then, when its entry is on disk, a session and CONNACK
//! (sections 3.1 and 3.2).

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::rand_core::RngCore as _;

use super::Broker;
use super::connection::Connection;
use super::credential::{Credential, certificate_fields, token_fields};
use super::effect::{AcceptedConnect, Effect, Granted};
use super::input::{ConnectionFacts, ConnectionId};
use super::output::EventKind;
use super::receipts;
use super::record::{client_field, peer_field, refusal_fields};
use crate::evidence::{Decision, EntryType, EntryWriter, Privacy};
use crate::mqtt::{
    ClientId, ConnAck, ConnAckProperties, Connect, Packet, ProtocolVersion, ReasonCode,
};
use crate::refusal::{Refusal, Refused};
use crate::routing::SessionKey;
use crate::session::{Author, Phase, Timer};
use crate::time::{Instant, Now};

impl Broker {
    /// A handshake is done.
    pub(super) fn open(
        &mut self,
        now: Now,
        id: ConnectionId,
        facts: Arc<ConnectionFacts>,
        connect_deadline: Instant,
    ) {
        self.timers.set(connect_deadline, Timer::ConnectDeadline(id));
        self.connections.insert(id, Connection::new(facts, now.instant));
        self.watch_credential(now, id);
        if self.stopping {
            self.close_unnamed(id);
        }
    }

    /// Decides a CONNECT: identity, client id rule, policy for the Will, limits.
    pub(super) fn decide_connect(&mut self, now: Now, id: ConnectionId, mut connect: Box<Connect>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.version = Some(connect.version);
        connection.wants_reasons = connect.properties.request_problem_information.unwrap_or(true);
        connection.receipts = receipts::wish(&connect.properties.user_properties);
        connection.packet_bytes_max =
            connect.properties.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize);
        if let Err(refused) = self.name_connection(now, id, &mut connect) {
            return self.refuse_nameless(now, id, &connect, &refused);
        }
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(identity) = connection.identity.clone() else { return };
        let grants = connection.credential.as_ref().and_then(Credential::grants);
        let certified = connection.facts.certificate.is_some();
        let assigned = connect.client_id.as_str().is_empty();
        let client_id = match assigned {
            // Begins with the identity's name, as the shipped client id rule wants it.
            // [MQTT-3.1.3-6], [MQTT-3.1.3-7]
            true => ClientId::new(&format!("{}-{:016x}", identity.name(), self.random.next_u64())),
            false => connect.client_id.clone(),
        };
        let author = Author::new(identity, client_id, connect.version).with_grants(grants);
        let granted = self.grant(&connect);
        if certified && connect.properties.authentication_method.is_some() {
            // [MQTT-4.12.0-1]: beside a certificate no other credential counts.
            let refused = Refusal::AuthenticationMethod.into();
            return self.refuse_connect(now, id, &author, &connect, &refused);
        }
        if let Err(refused) = self.check_connect(&author, &connect, &granted) {
            return self.refuse_connect(now, id, &author, &connect, &refused);
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.author = Some(author.clone());
        }
        let decision = self.decide();
        let offset = self.record_connect(now, id, &author, &connect, &granted, &decision);
        self.tell(EventKind::Connected, &decision, id, None, None);
        let key = SessionKey(self.next_session);
        self.next_session += 1;
        let expiry_seconds = granted.session_expiry_seconds;
        let recorded =
            expiry_seconds > 0 || connect.will.is_some() || self.has_durable_session(&author);
        let will = connect.will.clone();
        let accepted = AcceptedConnect {
            connection: id,
            author,
            connect,
            will,
            granted,
            offset,
            index: None,
            key,
            recorded,
        };
        if recorded {
            // Right behind its entry, which is how a reader knows the index of that.
            self.note(&accepted.attached());
        }
        self.ledger.wait(Effect::Connected(Box::new(accepted)));
    }

    /// All that can refuse a CONNECT. What it accepts has claimed its session.
    fn check_connect(
        &mut self,
        author: &Author,
        connect: &Connect,
        granted: &Granted,
    ) -> Result<(), Refused> {
        let bounds = &self.settings.bounds;
        let client_id = connect.client_id.as_str();
        let breaks_version = match connect.version {
            // 3.1, section 3.1: from 1 to 23 characters.
            ProtocolVersion::V3_1 => !(1..=23).contains(&client_id.chars().count()),
            // [MQTT-3.1.3-8] of 3.1.1: an empty one needs Clean Session.
            ProtocolVersion::V3_1_1 => client_id.is_empty() && !connect.clean_start,
            ProtocolVersion::V5 => false,
        };
        if breaks_version || client_id.len() > usize::from(bounds.client_id_bytes_max) {
            return Err(Refusal::ClientIdInvalid.into());
        }
        self.settings.policy.may_use_client_id(author)?;
        if connect.properties.user_properties.len() > bounds.user_properties_max as usize {
            return Err(Refusal::UserPropertyCount.into());
        }
        if let Some(will) = &connect.will {
            self.judge_will(author, will)?;
        }
        let connack = Packet::ConnAck(Box::new(self.connack(author, connect, granted, false)));
        let room = connect.properties.maximum_packet_size.map_or(usize::MAX, |max| max as usize);
        if super::send::fit(connack, connect.version, room).is_none() {
            // [MQTT-3.1.2-24]: whoever cannot be told so is not connected.
            return Err(Refusal::PacketSizeTooSmall.into());
        }
        self.claim_session((author.identity().clone(), author.client_id().clone()))
    }

    /// What of the client's wishes is granted.
    fn grant(&self, connect: &Connect) -> Granted {
        let bounds = &self.settings.bounds;
        let wish = match (connect.version.is_v5(), connect.clean_start) {
            (true, _) => connect.properties.session_expiry_seconds.unwrap_or(0),
            (false, true) => 0,
            (false, false) => u32::MAX,
        };
        let asked = connect.keep_alive_seconds;
        let (least, most) = (bounds.keep_alive_seconds_min, bounds.keep_alive_seconds_max);
        let (keep_alive_seconds, server_keep_alive) = if connect.version.is_v5() {
            // [MQTT-3.2.2-22]
            let kept = if asked == 0 { most } else { asked.clamp(least, most) };
            (u32::from(kept), (kept != asked).then_some(kept))
        } else if asked == 0 {
            // 3.x cannot be told another value: one and a half times this is the idle limit.
            (bounds.idle_seconds_max / 3 * 2, None)
        } else {
            (u32::from(asked), None)
        };
        Granted {
            session_expiry_seconds: wish.min(bounds.session_expiry_seconds_max),
            keep_alive_seconds,
            server_keep_alive,
        }
    }

    fn record_connect(
        &mut self,
        now: Now,
        id: ConnectionId,
        author: &Author,
        connect: &Connect,
        granted: &Granted,
        decision: &str,
    ) -> u64 {
        let Some(behind) = self.behind(id) else { return 0 };
        let privacy = self.settings.privacy.clone();
        self.record(now, EntryType::Connect, decision, |entry| {
            let entry = connect_fields(entry, author, &behind, &privacy)
                .decision(Decision::Allow)
                .flag("clean", connect.clean_start)
                .number("keepalive", granted.keep_alive_seconds.into())
                .number("expiry", granted.session_expiry_seconds.into());
            certificate_entry(Self::will_fields(entry, connect.will.as_ref()), &behind)
        })
    }

    fn behind(&self, id: ConnectionId) -> Option<Behind> {
        let known = self.connections.get(&id)?;
        Some(Behind {
            facts: Arc::clone(&known.facts),
            credential: known.credential.clone(),
            certificate_index: known.certificate_index,
        })
    }

    fn refuse_connect(
        &mut self,
        now: Now,
        id: ConnectionId,
        author: &Author,
        connect: &Connect,
        refused: &Refused,
    ) {
        self.counters.connects_refused += 1;
        self.counters.refuse(refused.refusal);
        let Some(behind) = self.behind(id) else { return };
        let privacy = self.settings.privacy.clone();
        let decision = self.decide();
        self.record(now, EntryType::ConnectRefused, &decision, |entry| {
            let entry = connect_fields(entry, author, &behind, &privacy);
            let entry = refusal_fields(entry, refused);
            certificate_entry(Self::will_fields(entry, connect.will.as_ref()), &behind)
        });
        self.tell(EventKind::ConnectRefused, &decision, id, None, Some(refused));
        let reason = refused.refusal.reason_code();
        let reason_string = self.reason_string(id, &decision, refused.refusal);
        self.reject(id, reason, reason_string);
    }

    /// Refuses before CONNACK: CONNACK with a code, then the close. [MQTT-3.1.4-2], [MQTT-3.2.2-7]
    pub(super) fn reject(
        &mut self,
        id: ConnectionId,
        reason: ReasonCode,
        reason_string: Option<String>,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.phase = Phase::Closing;
        if connection.version.is_some() {
            let properties = ConnAckProperties { reason_string, ..Default::default() };
            let packet =
                Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties }));
            self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: false });
        }
        self.ledger.wait(Effect::Close(id));
    }

    pub(super) fn connack(
        &self,
        author: &Author,
        connect: &Connect,
        granted: &Granted,
        session_present: bool,
    ) -> ConnAck {
        let bounds = &self.settings.bounds;
        let reason = ReasonCode::Success;
        if !connect.version.is_v5() {
            // [MQTT-3.2.2-2] of 3.1.1; 3.1 has no such flag and its encoder leaves it out.
            return ConnAck { session_present, reason, properties: Default::default() };
        }
        let wished = connect.properties.session_expiry_seconds.unwrap_or(0);
        let expiry = granted.session_expiry_seconds;
        let assigned = connect.client_id.as_str().is_empty();
        let properties = ConnAckProperties {
            session_expiry_seconds: (expiry != wished).then_some(expiry),
            receive_maximum: Some(bounds.receive_maximum),
            maximum_packet_size: Some(bounds.packet_bytes_max),
            // [MQTT-3.2.2-16]
            assigned_client_identifier: assigned.then(|| author.client_id().as_str().to_owned()),
            topic_alias_maximum: Some(bounds.topic_alias_maximum),
            server_keep_alive_seconds: granted.server_keep_alive,
            // [MQTT-4.12.0-5], [MQTT-4.12.0-6]
            authentication_method: connect.properties.authentication_method.clone(),
            ..Default::default()
        };
        ConnAck { session_present, reason, properties }
    }
}

/// What stands behind a CONNECT.
struct Behind {
    facts: Arc<ConnectionFacts>,
    credential: Option<Credential>,
    certificate_index: Option<u64>,
}

/// Where the certificate itself stands, and what vouched for it; the last field.
fn certificate_entry<'a>(entry: EntryWriter<'a>, behind: &Behind) -> EntryWriter<'a> {
    match behind.certificate_index {
        Some(index) => entry.number("cert", index),
        None => entry,
    }
}

/// The facts of a connection, which later entries only point to.
fn connect_fields<'a>(
    entry: EntryWriter<'a>,
    author: &Author,
    behind: &Behind,
    privacy: &Privacy,
) -> EntryWriter<'a> {
    let Behind { facts, credential, .. } = behind;
    let identity = author.identity();
    let entry = entry.who(identity).text("uri", identity.uri()).text("trust", identity.issuer());
    let entry = client_field(entry, privacy, author.client_id().as_str())
        .plain("proto", author.version().as_str());
    let entry = peer_field(entry, privacy, facts.peer.ip(), Some(facts.peer.port()))
        .plain("tls", facts.tls_version)
        .text("suite", &facts.tls_suite)
        .hash("exporter", &facts.exporter_sha256);
    match (&facts.certificate, credential) {
        (Some(certified), _) => certificate_fields(entry, certified),
        (None, Some(Credential::Token { facts, .. })) => token_fields(entry, facts),
        (None, Some(Credential::Certificate) | None) => entry,
    }
}

/// How long a session outlives its connection.
pub(super) fn session_expiry(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

//! Who a connection is: its certificate, or the token in CONNECT; and AUTH, which renews the latter
//! (sections 3.15 and 4.12).
//!
//! The rule that keeps devices to their certificates is one `match` here: a token is looked at only
//! if TLS brought no certificate. Whether a client may come so far without one is the listener's to
//! say. A token is never kept, recorded or told; its `kid`, `jti` and times are.

use std::sync::Arc;

use super::Broker;
use super::connection::Connection;
use super::disconnect::Ending;
use super::durable::Change;
use super::effect::Effect;
use super::input::{Certified, ConnectionId};
use super::output::EventKind;
use super::record::{RefusalKey, client_field, peer_field, refusal_fields};
use super::timeout::credential_check;
use crate::evidence::{Decision, EntryType, EntryWriter};
use crate::identity::{Grants, Identity, TokenFacts};
use crate::mqtt::{Auth, AuthProperties, Connect, Packet, ReasonCode};
use crate::refusal::{Refusal, Refused, TokenRefusal};
use crate::session::{Phase, Timer};
use crate::time::Now;

/// The one Authentication Method that is spoken here.
pub(super) const METHOD: &str = "JWT";

/// What names a connection.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    /// A client certificate.
    Certificate,
    /// A token; whether AUTH may renew it, as CONNECT agreed on the method.
    Token { facts: TokenFacts, renews: bool },
}

/// A token that renews a connection, once its entry is on disk.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) connection: ConnectionId,
    facts: TokenFacts,
}

impl Broker {
    /// Establishes who sent `connect`, before anything else of it is looked at. The token does not
    /// outlive this call.
    ///
    /// # Errors
    /// Why nobody is named: a token is missing or is no credential, or the method is another.
    pub(super) fn name_connection(
        &mut self,
        now: Now,
        id: ConnectionId,
        connect: &mut Connect,
    ) -> Result<(), Refused> {
        let password = connect.password.take();
        let data = connect.properties.authentication_data.take();
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.credential.is_some() {
            // Named by a certificate: what stands beside it is no credential. A password is
            // ignored; a method is refused further on, where its identity is told so.
            return Ok(());
        }
        let token = match connect.properties.authentication_method.as_deref() {
            Some(METHOD) => data,
            Some(_) => return Err(Refusal::AuthenticationMethod.into()),
            // The User Name is not asked: whom the token names is in the token.
            None => password,
        };
        let token = token.ok_or(TokenRefusal::Missing)?;
        let facts = self.settings.tokens.verify(&token, now.unix)?;
        let renews = connect.properties.authentication_method.is_some();
        connection.name(facts.identity().clone(), Credential::Token { facts, renews });
        self.watch_credential(now, id);
        Ok(())
    }

    /// Comes back when the credential of a connection ends.
    pub(super) fn watch_credential(&mut self, now: Now, id: ConnectionId) {
        let Some(end) = self.connections.get(&id).and_then(Connection::credential_end) else {
            return;
        };
        self.timers.set(credential_check(now, end), Timer::CredentialEnd(id));
    }

    /// Ends a connection whose credential has come to its end.
    pub(super) fn check_credential(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.credential_end().is_none_or(|end| end > now.unix) {
            return self.watch_credential(now, id);
        }
        let ending = match &connection.credential {
            Some(Credential::Token { .. }) => Ending::TokenEnd,
            Some(Credential::Certificate) | None => Ending::CertificateEnd,
        };
        self.end(now, id, ending);
    }

    /// Refuses the CONNECT of a peer that nobody has vouched for: anyone can send one, so that only
    /// the first of an interval has an entry, as of handshakes.
    pub(super) fn refuse_nameless(
        &mut self,
        now: Now,
        id: ConnectionId,
        connect: &Connect,
        refused: &Refused,
    ) {
        self.counters.connects_refused += 1;
        self.counters.refuse(refused.refusal);
        let Some(peer) = self.connections.get(&id).map(|known| known.facts.peer) else { return };
        let decision = self.decide();
        let name = refused.refusal.name();
        if self.is_first_refusal(now, RefusalKey::Address(peer.ip(), name)) {
            let privacy = self.settings.privacy.clone();
            self.record(now, EntryType::ConnectRefused, &decision, |entry| {
                let entry = refusal_fields(entry, refused);
                let entry = client_field(entry, &privacy, connect.client_id.as_str())
                    .plain("proto", connect.version.as_str());
                peer_field(entry, &privacy, peer.ip(), Some(peer.port()))
            });
        }
        self.tell(EventKind::ConnectRefused, &decision, id, None, Some(refused));
        let reason_string = self.reason_string(id, &decision, refused.refusal);
        self.reject(id, refused.refusal.reason_code(), reason_string);
    }

    /// AUTH of a connected client: a new token for the old one. [MQTT-4.12.1-1]
    pub(super) fn handle_auth(&mut self, now: Now, id: ConnectionId, auth: &Auth) {
        let Some(connection) = self.connections.get(&id) else { return };
        let Some(Credential::Token { renews: true, .. }) = &connection.credential else {
            // [MQTT-4.12.0-7]
            return self.violate_protocol(now, id, "AUTH without an Authentication Method");
        };
        if auth.properties.authentication_method.as_deref() != Some(METHOD) {
            // [MQTT-4.12.0-5], [MQTT-4.12.1-1]
            let what = "AUTH with another Authentication Method than CONNECT";
            return self.violate_protocol(now, id, what);
        }
        if auth.reason != ReasonCode::ReAuthenticate {
            return self.violate_protocol(now, id, "AUTH continues what did not begin");
        }
        let Some(identity) = connection.identity.clone() else { return };
        // A renewal costs a signature and an entry, so it is limited: as one subscription is.
        if let Err(refused) = self.limits.admit_subscribe(now, &identity, 1) {
            self.counters.refuse(refused.refusal);
            return self.end(now, id, Ending::RateTooHigh);
        }
        match self.verify_renewal(now, &identity, auth) {
            Ok(facts) => self.accept_renewal(now, id, facts),
            Err(refused) => self.refuse_renewal(now, id, &refused),
        }
    }

    fn verify_renewal(
        &self,
        now: Now,
        identity: &Identity,
        auth: &Auth,
    ) -> Result<TokenFacts, Refused> {
        if auth.properties.user_properties.len() > self.settings.bounds.user_properties_max as usize
        {
            return Err(Refusal::UserPropertyCount.into());
        }
        let token = auth.properties.authentication_data.as_ref().ok_or(TokenRefusal::Missing)?;
        let facts = self.settings.tokens.verify(token, now.unix)?;
        if facts.identity() != identity {
            return Err(TokenRefusal::OtherIdentity.into());
        }
        Ok(facts)
    }

    fn accept_renewal(&mut self, now: Now, id: ConnectionId, facts: TokenFacts) {
        let decision = self.decide();
        self.record_of(now, id, EntryType::Reauth, &decision, None, |entry| {
            token_fields(entry.decision(Decision::Allow), &facts)
        });
        let session = self.session_of(id);
        if let Some(key) = session
            && self.sessions.get(&key).is_some_and(|session| session.durable)
        {
            self.note(&Change::Granted { key, grants: Arc::clone(facts.grants()) });
        }
        self.tell(EventKind::Reauthenticated, &decision, id, None, None);
        self.ledger.wait(Effect::Renewed(Box::new(Renewal { connection: id, facts })));
    }

    /// [MQTT-4.12.1-2]
    fn refuse_renewal(&mut self, now: Now, id: ConnectionId, refused: &Refused) {
        self.counters.refuse(refused.refusal);
        let decision = self.decide();
        self.record_of(now, id, EntryType::Reauth, &decision, None, |entry| {
            refusal_fields(entry, refused)
        });
        self.tell(EventKind::ReauthRefused, &decision, id, None, Some(refused));
        self.end(now, id, Ending::TokenRefused);
    }

    /// The entry is on disk: the new end and the new grants hold from here on, for what is
    /// delivered to subscriptions that were made before too.
    pub(super) fn renewed(&mut self, now: Now, renewal: Renewal) {
        let Renewal { connection: id, facts } = renewal;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (Phase::Connected, Some(author)) = (connection.phase, &connection.author) else {
            return;
        };
        let author = author.with_grants(Some(Arc::clone(facts.grants())));
        connection.author = Some(author.clone());
        connection.credential = Some(Credential::Token { facts, renews: true });
        if let Some(session) = connection.session.and_then(|key| self.sessions.get_mut(&key)) {
            session.author = author;
        }
        self.watch_credential(now, id);
        let properties =
            AuthProperties { authentication_method: Some(METHOD.to_owned()), ..Default::default() };
        // [MQTT-4.12.0-5]
        self.send(id, Packet::Auth(Box::new(Auth { reason: ReasonCode::Success, properties })));
    }
}

impl Credential {
    /// What it grants besides a name.
    pub(super) fn grants(&self) -> Option<Arc<Grants>> {
        match self {
            Self::Certificate => None,
            Self::Token { facts, .. } => Some(Arc::clone(facts.grants())),
        }
    }
}

/// What an entry says of a certificate.
pub(super) fn certificate_fields<'a>(
    entry: EntryWriter<'a>,
    certified: &Certified,
) -> EntryWriter<'a> {
    entry
        .hash("x5t", &certified.x5t)
        .hash("spki", &certified.spki_sha256)
        .text("issuer", &certified.issuer_name)
        .text("serial", &certified.serial)
        .number("from", certified.not_before.as_seconds())
        .number("to", certified.not_after.as_seconds())
}

/// What an entry says of a token: never the token. Its `iss` stands in `trust` of the `connect`
/// entry; what it grants decides later requests, so it is part of the evidence.
pub(super) fn token_fields<'a>(entry: EntryWriter<'a>, facts: &TokenFacts) -> EntryWriter<'a> {
    let mut entry = entry.text("kid", facts.kid());
    if let Some(jti) = facts.jti() {
        entry = entry.text("jti", jti);
    }
    entry = entry
        .number("from", facts.issued().as_seconds())
        .number("to", facts.expires().as_seconds());
    let roles: Vec<&str> = facts.grants().roles().collect();
    if !roles.is_empty() {
        entry = entry.text("roles", &roles.join(" "));
    }
    // A JSON object within a text: values may hold whatever would separate them.
    let variables: serde_json::Map<String, serde_json::Value> =
        facts.grants().variables().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if !variables.is_empty() {
        entry = entry.text("vars", &serde_json::Value::Object(variables).to_string());
    }
    entry
}

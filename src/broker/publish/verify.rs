//! A message whose signature is being checked elsewhere, and what its client sends meanwhile.
//!
//! ```text
//!  PUBLISH, signed ─► Verify ─────────────── any thread ───────────── Verified ─► the line goes on
//!  whatever comes behind it ─► held, in order; the reader paused ─────────────► handled, in order
//! ```
//!
//! One connection has one signature at a time. So what is published stays in order, and so do its
//! acknowledgements; what waits is bounded by the number of connections, each with what was read of
//! it in one turn before its reader was told to pause. The invariant: nothing of a connection is
//! handled while one of its messages waits, and each message waits for its own verdict.

use std::collections::VecDeque;

use super::stop::Stopped;
use crate::broker::Broker;
use crate::broker::input::{CloseCause, ConnectionId, Input};
use crate::broker::output::Output;
use crate::evidence::{
    Attested, Examined, Resolved, Surroundings, Unattested, Unverified, UnverifiedCover, Verified,
    VerifyJob,
};
use crate::mqtt::{Packet, ProtocolVersion, Violation};
use crate::refusal::Refusal;
use crate::routing::SessionKey;
use crate::schema::Conforming;
use crate::session::Phase;
use crate::time::{Instant, Now};

/// The message of a connection that waits for its signature.
#[derive(Debug)]
pub(in crate::broker) struct Verifying {
    waiting: Waiting,
    session: SessionKey,
    /// When the message came.
    arrived: Instant,
    held: VecDeque<Held>,
}

/// What is verified.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A message that carries its statement.
    Message(Box<Unverified>),
    /// A statement about earlier messages.
    Cover(Box<UnverifiedCover>),
}

impl Verifying {
    /// Nothing has come behind it yet.
    pub(super) fn new(waiting: Waiting, session: SessionKey, arrived: Instant) -> Self {
        Self { waiting, session, arrived, held: VecDeque::new() }
    }
}

/// What has come behind it.
#[derive(Debug)]
pub(in crate::broker) enum Held {
    /// Packets.
    Packets(VecDeque<Packet>),
    /// Bytes that are none.
    Violated(Violation, Option<ProtocolVersion>),
    /// The end.
    Closed(CloseCause),
}

impl Broker {
    /// Sees what a message rests on. `None`: on a signature that is being checked.
    pub(super) fn examine(
        &mut self,
        now: Now,
        id: ConnectionId,
        session: SessionKey,
        conforming: Conforming,
    ) -> Result<Option<Attested>, Box<Stopped>> {
        let around = self.surroundings(now, id);
        let chains = (&self.chains, self.chain_bounds());
        let examined = Attested::examine(conforming, &around, chains);
        match examined.map_err(|it| stopped(*it))? {
            Examined::Attested(attested) => Ok(Some(attested)),
            Examined::Unverified(unverified, job) => {
                let waiting = Waiting::Message(unverified);
                self.verify(id, Verifying::new(waiting, session, now.instant), job);
                Ok(None)
            }
            Examined::Relinked(conforming, sequence) => {
                self.recognise_signed_resend(now, (id, session), &conforming, sequence, None);
                Ok(None)
            }
        }
    }

    /// What a statement on a connection is held against.
    pub(super) fn surroundings(&self, now: Now, id: ConnectionId) -> Surroundings<'_> {
        let bounds = &self.settings.statements;
        let certificate =
            self.connections.get(&id).and_then(|known| known.facts.certificate.as_ref());
        Surroundings {
            certificate: certificate.and_then(|it| Some((&it.x5t, it.key.as_ref()?))),
            audience: &bounds.audience,
            now: now.unix,
            clock_seconds: bounds.clock_seconds,
            ticket: self.next_ticket,
        }
    }

    /// Lets a connection wait for a signature.
    pub(super) fn verify(&mut self, id: ConnectionId, verifying: Verifying, job: VerifyJob) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.next_ticket += 1;
        connection.verifying = Some(Box::new(verifying));
        self.began_verifying = Some(id);
        self.outputs.push_back(Output::Verify { connection: id, job });
    }

    /// Whether a message of a connection waits for its signature.
    pub(in crate::broker) fn is_verifying(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|known| known.verifying.is_some())
    }

    /// Keeps for later what came behind a message that waits, and has nothing more read.
    pub(in crate::broker) fn hold(&mut self, id: ConnectionId, what: Held) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(verifying) = &mut connection.verifying else { return };
        if matches!(&what, Held::Packets(packets) if packets.is_empty()) {
            return;
        }
        verifying.held.push_back(what);
        if !std::mem::replace(&mut connection.paused_for_verdict, true) {
            self.outputs.push_back(Output::Pause { connection: id });
        }
    }

    /// A signature was looked at: the line goes on for its message, then for what came behind it.
    pub(in crate::broker) fn handle_verified(
        &mut self,
        now: Now,
        id: ConnectionId,
        verified: &Verified,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(verifying) = connection.verifying.take() else { return };
        let Verifying { waiting, session, arrived, held } = *verifying;
        // Who was closed meanwhile has not been answered: its client sends the message again.
        if connection.phase != Phase::Closing {
            match waiting {
                Waiting::Message(unverified) => {
                    self.resolve(now, (id, session), *unverified, arrived, verified);
                }
                Waiting::Cover(unverified) => self.resolve_cover(now, id, *unverified, verified),
            }
        }
        self.handle_held(now, id, held);
    }

    fn handle_held(&mut self, now: Now, id: ConnectionId, mut held: VecDeque<Held>) {
        while let Some(next) = held.pop_front() {
            match next {
                Held::Packets(packets) => self.handle_packets(now, id, packets),
                Held::Violated(violation, version) => {
                    self.handle(now, Input::Violated { connection: id, violation, version });
                }
                Held::Closed(cause) => self.handle_closed(now, id, cause),
            }
            // The next one waits too: the rest stays behind it.
            let waiting = self.connections.get_mut(&id).and_then(|it| it.verifying.as_mut());
            if let Some(verifying) = waiting {
                verifying.held.append(&mut held);
                return;
            }
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if std::mem::take(&mut connection.paused_for_verdict) {
            self.resume(now, id);
        }
    }

    fn resolve(
        &mut self,
        now: Now,
        (id, session): (ConnectionId, SessionKey),
        unverified: Unverified,
        arrived: Instant,
        verified: &Verified,
    ) {
        let received = unverified.received();
        let (topic, publish) = (received.topic(), received.publish());
        // Others may have taken the room meanwhile.
        let keeps = publish.retain && !publish.payload.is_empty();
        if keeps && !self.has_retained_room(topic, publish) {
            let unattested = Unattested {
                conforming: unverified.into_conforming(),
                refused: Refusal::RetainedFull.into(),
                origin: None,
            };
            return self.refuse_publish(now, id, *stopped(unattested));
        }
        let signers_max = self.settings.statements.signers_max;
        match unverified.attest(verified, &mut self.windows, signers_max) {
            Ok(Resolved::Attested(attested)) => self.proceed(now, (id, session), attested, arrived),
            Ok(Resolved::Resent { conforming, sequence, first }) => {
                self.recognise_signed_resend(now, (id, session), &conforming, sequence, first);
            }
            Err(unattested) => self.refuse_publish(now, id, *stopped(*unattested)),
        }
    }
}

fn stopped(unattested: Unattested) -> Box<Stopped> {
    let Unattested { conforming, refused, origin } = unattested;
    let authorized = conforming.into_admitted().into_authorized();
    let v3 = authorized.v3_refusal();
    let mut stopped = Stopped::at(authorized.into_received(), refused, v3, false);
    stopped.origin = origin;
    stopped
}

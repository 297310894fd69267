//! Places for sessions, taken when a CONNECT is decided: a batch of them cannot pass a bound that
//! each of them alone keeps.
//!
//! A claim begins with an accepted CONNECT and ends when that is carried out, or came to nothing.
//! The invariant: whoever has a session or a claim holds one place among those of its identity,
//! and one of the broker's.

use std::collections::BTreeMap;

use super::Broker;
use crate::identity::Identity;
use crate::mqtt::ClientId;
use crate::refusal::{Refusal, Refused};

/// Which session a client means.
pub(super) type SessionName = (Identity, ClientId);

/// CONNECTs that were accepted and not yet carried out.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_name: BTreeMap<SessionName, Claim>,
    /// How many of them have no session yet (or any more).
    without_session: usize,
}

#[derive(Debug)]
struct Claim {
    connects: u32,
    /// Whether the place of the identity is the claim's own, not its session's.
    holds_place: bool,
}

impl Broker {
    /// Claims a session for a CONNECT: the one there is, or a place for a new one.
    ///
    /// # Errors
    /// [`Refusal::SessionCount`]: the identity or the broker has as many as it may.
    pub(super) fn claim_session(&mut self, name: SessionName) -> Result<(), Refused> {
        if let Some(claim) = self.claims.by_name.get_mut(&name) {
            claim.connects += 1;
            return Ok(());
        }
        let holds_place = !self.session_keys.contains_key(&name);
        if holds_place {
            let taken = self.sessions.len() + self.claims.without_session;
            if taken >= self.settings.bounds.sessions_total_max as usize {
                return Err(Refusal::SessionCount.into());
            }
            self.limits.open_session(&name.0)?;
            self.claims.without_session += 1;
        }
        self.claims.by_name.insert(name, Claim { connects: 1, holds_place });
        Ok(())
    }

    /// A claimed session is made. Whether it takes over the claim's place.
    pub(super) fn give_place(&mut self, name: &SessionName) -> bool {
        let Some(claim) = self.claims.by_name.get_mut(name) else { return false };
        self.claims.without_session = self.claims.without_session.saturating_sub(1);
        std::mem::take(&mut claim.holds_place)
    }

    /// A session has ended: its place goes to whoever claims it, or is free.
    pub(super) fn return_place(&mut self, name: &SessionName, holds_place: bool) {
        match self.claims.by_name.get_mut(name) {
            Some(claim) => {
                claim.holds_place = holds_place;
                self.claims.without_session += 1;
            }
            None if holds_place => self.limits.close_session(&name.0),
            None => {}
        }
    }

    /// A CONNECT was carried out, or came to nothing.
    pub(super) fn unclaim_session(&mut self, name: &SessionName) {
        let Some(claim) = self.claims.by_name.get_mut(name) else { return };
        claim.connects = claim.connects.saturating_sub(1);
        if claim.connects > 0 {
            return;
        }
        let holds_place = claim.holds_place;
        self.claims.by_name.remove(name);
        if !self.session_keys.contains_key(name) {
            self.claims.without_session = self.claims.without_session.saturating_sub(1);
        }
        if holds_place {
            self.limits.close_session(&name.0);
        }
    }
}

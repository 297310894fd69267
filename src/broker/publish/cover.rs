//! Batches (level A1): what is linked, and what its device signs for later.
//!
//! A link is entered when its message is accepted, or refused with an entry, and its record stands
//! behind that entry in the same batch: after a crash both are there or neither. A cover is a PUBLISH
//! for the broker itself. The invariant: a `cover` entry stands behind the entry of every message
//! that it names, and in front of what a replay needs to know that they are covered.

use super::stop::Stopped;
use super::verify::{Verifying, Waiting};
use crate::broker::Broker;
use crate::broker::durable::Change;
use crate::broker::effect::Effect;
use crate::broker::input::ConnectionId;
use crate::evidence::chain::{ChainBounds, Covering, Link, Linked, Linking, link_digest};
use crate::evidence::{
    Cover, CoverSigned, Decision, EntryType, EntryWriter, LinkOrigin, Sequence, UnverifiedCover,
    Verified, commitment,
};
use crate::identity::Identity;
use crate::limits::Charge;
use crate::mqtt::{Ack, Packet, QoS, ReasonCode};
use crate::refusal::{Refused, StatementRefusal};
use crate::routing::SessionKey;
use crate::session::Received;
use crate::time::Now;

impl Broker {
    /// The bounds of chains.
    pub(super) fn chain_bounds(&self) -> ChainBounds {
        let bounds = &self.settings.statements;
        ChainBounds {
            devices_max: bounds.signers_max as usize,
            links_max: bounds.links_max as usize,
            cover_within: std::time::Duration::from_secs(bounds.cover_within_seconds.into()),
        }
    }

    /// Enters a message into the chain of its device, behind its entry.
    pub(super) fn note_link(&mut self, now: Now, identity: &Identity, link: &LinkOrigin) {
        let sequence = link.sequence();
        let linked = Linked { seq: sequence.seq, digest: *link.digest(), at: now.unix };
        self.chains.enter(identity, sequence.epoch, linked);
        // A crash before the batch is on disk forgets entry and record, and nobody was told.
        let identity = identity.clone();
        self.note(&Change::Linked { identity, epoch: sequence.epoch, linked });
    }

    /// The link of a message that is refused, if its device can still sign for it: the refusal is no
    /// reason that the others of its batch should have no signature.
    pub(super) fn link_of_refused(&self, received: &Received) -> Option<LinkOrigin> {
        let publish = received.publish();
        let link = Link::find(publish).ok()??;
        let c = commitment(&link.salt, &publish.payload);
        let manner = (publish.qos, publish.retain);
        let digest = link_digest(link.sequence.seq, manner, received.topic(), &c);
        let identity = received.author().identity();
        match self.chains.judge(identity, link.sequence, &digest, self.chain_bounds()) {
            Ok(Linking::New { missing }) => Some(LinkOrigin::new(link, c, digest, missing)),
            Ok(Linking::Resend) | Err(_) => None,
        }
    }

    /// A PUBLISH on `$cover`: read, and its signature handed out to be checked.
    pub(super) fn take_cover(
        &mut self,
        now: Now,
        (id, session): (ConnectionId, SessionKey),
        received: Received,
    ) {
        let policy = &self.settings.policy;
        let v3 = policy.v3_refusal_for(received.author(), received.topic());
        let (identity, publish) = (received.author().identity(), received.publish());
        let bytes = received.topic().as_str().len() + publish.payload.len();
        let told = received.author().version().is_v5() && publish.qos > QoS::AtMostOnce;
        match self.limits.charge(now, identity, bytes, told) {
            Charge::Within => {}
            Charge::Beyond { refused, pause, disconnect } => {
                let mut stopped = Stopped::at(received, refused, v3, true);
                (stopped.pause, stopped.disconnect) = (pause, disconnect);
                return self.refuse_publish(now, id, *stopped);
            }
        }
        let around = self.surroundings(now, id);
        match UnverifiedCover::examine(received, &around) {
            Ok((unverified, job)) => {
                let waiting = Waiting::Cover(unverified);
                self.verify(id, Verifying::new(waiting, session, now.instant), job);
            }
            Err(refused) => {
                let (received, refusal) = *refused;
                let stopped = Stopped::at(received, refusal.into(), v3, false);
                self.refuse_publish(now, id, *stopped);
            }
        }
    }

    /// The signature of a cover was looked at.
    pub(super) fn resolve_cover(
        &mut self,
        now: Now,
        id: ConnectionId,
        unverified: UnverifiedCover,
        verified: &Verified,
    ) {
        match unverified.confirm(verified) {
            Ok(signed) => self.cover(now, id, signed),
            Err(refused) => {
                let (received, refusal) = *refused;
                self.refuse_cover(now, id, received, refusal, None);
            }
        }
    }

    /// Takes a cover that its device has signed, if it is over what that device sent.
    fn cover(&mut self, now: Now, id: ConnectionId, signed: CoverSigned) {
        let (cover, received) = (signed.cover(), signed.received());
        let identity = received.author().identity().clone();
        let (batch, head) = (cover.batch(), cover.head());
        let audience = &self.settings.statements.audience;
        let covering = self.chains.judge_cover(&identity, audience, batch, head);
        let count = match covering {
            Ok(Covering::Covers(count)) => Some(count),
            Ok(Covering::Resend) => None,
            Err(refusal) => {
                let (received, cover) = signed.into_parts();
                self.refuse_cover(now, id, received, refusal, Some(Box::new(cover)));
                // What the head is not over is not covered by another one either.
                if matches!(refusal, StatementRefusal::Gap | StatementRefusal::Commitment) {
                    self.note_settled(identity, batch.epoch, batch.last);
                }
                return;
            }
        };
        let decision = self.decide();
        let kind = if count.is_some() { EntryType::Cover } else { EntryType::PublishDup };
        self.record_of(now, id, kind, &decision, None, |entry| {
            let entry = match count {
                Some(count) => {
                    let entry = entry.plain("lvl", "A1").decision(Decision::Allow);
                    cover_fields(entry.number("count", count), cover)
                }
                None => {
                    let entry = entry.decision(Decision::Allow);
                    let entry = entry.text("topic", received.topic().as_str());
                    entry.number("epoch", batch.epoch).number("last", batch.last)
                }
            };
            entry.flag("dup", received.publish().dup)
        });
        if count.is_some() {
            // A crash before this is on disk: the device, which was not told, sends the cover again.
            self.note_settled(identity, batch.epoch, batch.last);
        }
        let Some(packet_id) = received.publish().packet_id else { return };
        // It came in QoS 1, or it would have none.
        let packet = Packet::PubAck(Ack::new(packet_id, ReasonCode::Success));
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: true });
    }

    fn refuse_cover(
        &mut self,
        now: Now,
        id: ConnectionId,
        received: Received,
        refusal: StatementRefusal,
        cover: Option<Box<Cover>>,
    ) {
        let policy = &self.settings.policy;
        let v3 = policy.v3_refusal_for(received.author(), received.topic());
        let mut stopped = Stopped::at(received, Refused::from(refusal), v3, false);
        stopped.cover = cover;
        self.refuse_publish(now, id, *stopped);
    }

    /// Up to `last` nothing waits for a cover any more.
    fn note_settled(&mut self, identity: Identity, epoch: u64, last: u64) {
        self.chains.settle(&identity, epoch, last);
        self.note(&Change::Settled { identity, sequence: Sequence { epoch, seq: last } });
    }
}

/// What the device signed: all that it takes to check the signature, and with the entries of the
/// messages, the chain.
pub(super) fn cover_fields<'a>(entry: EntryWriter<'a>, cover: &Cover) -> EntryWriter<'a> {
    let batch = cover.batch();
    entry
        .number("iat", cover.issued_at())
        .number("epoch", batch.epoch)
        .number("first", batch.first)
        .number("last", batch.last)
        .hash("head", cover.head())
        .bytes("cti", cover.cti())
        .bytes("protected", cover.protected())
        .bytes("sig", cover.signature())
}

/// Where a message stands in its batch: with `c` and the topic, all that its link is made of.
pub(super) fn link_fields<'a>(entry: EntryWriter<'a>, link: &LinkOrigin) -> EntryWriter<'a> {
    let Sequence { epoch, seq } = link.sequence();
    entry.number("epoch", epoch).number("seq", seq)
}

//! Messages that their devices sign for later, in batches: the chains of level A1.
//!
//! ```text
//!  PUBLISH with avow-link ─► link = SHA-256(1 ‖ seq ‖ manner ‖ topic ‖ C) ─► entered behind its entry, A0
//!  cover of first … last  ─► head over those links = the head that was signed? ─► they are A1
//!                                                  └► no, or one never came ───► they stay A0 for good
//! ```
//!
//! The bytes are those of `devices/signer/BATCH.md`. A link is in the log as well: its entry has all
//! that it is made of but the salt, so that anybody can make the chain again. The invariant: a
//! number of an epoch is entered once, and only what was entered is covered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::SALT_BYTES;
use super::window::Sequence;
use crate::identity::Identity;
use crate::mqtt::{Publish, QoS, TopicName};
use crate::refusal::StatementRefusal as R;
use crate::time::UnixNanos;

/// Name of the user property that links a message into a batch.
pub const LINK_PROPERTY: &str = "avow-link";
/// The topic that covers are published on. They are for the broker, and go to no subscriber.
pub const COVER_TOPIC: &str = "$cover";
/// Most messages of a device that wait for their cover.
pub const BATCH_MESSAGES_MAX: usize = 1_024;
/// Messages that are remembered behind their cover, to know a resend.
pub const RESENDS_MAX: usize = 64;

/// What a message says of its place in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which message of its device it is.
    pub sequence: Sequence,
    /// Salt of its commitment.
    pub salt: [u8; SALT_BYTES],
}

impl Link {
    /// The link of a message, if it has one.
    ///
    /// # Errors
    /// [`R::Repeated`], [`R::Malformed`].
    pub fn find(publish: &Publish) -> Result<Option<Self>, R> {
        let properties = publish.properties.user_properties.iter();
        let mut found = properties.filter(|property| property.name == LINK_PROPERTY);
        let Some(first) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(R::Repeated);
        }
        Self::parse(&first.value).map(Some).ok_or(R::Malformed)
    }

    /// Reads the value of the property: epoch, seq and salt, 32 bytes in base64url.
    pub fn parse(value: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        // One character more would be another length, and base64 has one form for each.
        if value.len() != 43 || URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) != Ok(32) {
            return None;
        }
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (seq, salt) = rest.split_first_chunk()?;
        let (epoch, seq) = (u64::from_be_bytes(*epoch), u64::from_be_bytes(*seq));
        Some(Self { sequence: Sequence { epoch, seq }, salt: salt.try_into().ok()? })
    }
}

/// What a message adds to the chain of its batch.
pub fn link_digest(
    seq: u64,
    (qos, retain): (QoS, bool),
    topic: &TopicName,
    c: &[u8; 32],
) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[1]);
    context.update(&seq.to_be_bytes());
    context.update(&[qos as u8 | u8::from(retain) << 2]);
    text(&mut context, topic.as_str());
    context.update(c);
    finish(context)
}

/// The head before the first message of a batch.
fn begin(identity: &str, audience: &str, epoch: u64, first: u64) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(&epoch.to_be_bytes());
    context.update(&first.to_be_bytes());
    text(&mut context, identity);
    text(&mut context, audience);
    finish(context)
}

fn behind(head: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&[2]);
    context.update(head);
    context.update(digest);
    finish(context)
}

/// A text with its length before it. Topic Names and identities have at most 65,535 bytes.
fn text(context: &mut Context, text: &str) {
    context.update(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    context.update(text.as_bytes());
}

fn finish(context: Context) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A message that was linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its number.
    pub seq: u64,
    /// What it adds to the chain.
    pub digest: [u8; 32],
    /// When it came.
    pub at: UnixNanos,
}

/// What a chain says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linking {
    /// It is new.
    New {
        /// Numbers left out right before it.
        missing: u64,
    },
    /// It was entered before.
    Resend,
}

/// Which messages a cover is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Their epoch.
    pub epoch: u64,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// What a chain says of a cover whose signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covering {
    /// It is over what was entered: so many messages.
    Covers(u64),
    /// It is one that was taken before.
    Resend,
}

/// What may wait for covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainBounds {
    /// Devices that have a chain. They are never forgotten.
    pub devices_max: usize,
    /// Messages of all devices.
    pub links_max: usize,
    /// How long a message may wait before a rule that says `batched` takes no more.
    pub cover_within: Duration,
}

/// The messages of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    epoch: u64,
    /// Up to this number everything is covered or will never be; with the epoch.
    settled: u64,
    /// By number.
    links: VecDeque<Linked>,
}

impl Chain {
    /// A chain as a snapshot holds it; none of too many messages or of another order.
    pub fn restored(epoch: u64, settled: u64, links: Vec<Linked>) -> Option<Self> {
        let sorted = links.is_sorted_by(|one, two| one.seq < two.seq);
        let waiting = links.iter().filter(|linked| linked.seq > settled).count();
        let fits = waiting <= BATCH_MESSAGES_MAX && links.len() - waiting <= RESENDS_MAX;
        (sorted && fits).then(|| Self { epoch, settled, links: links.into() })
    }

    /// Its epoch, and the number up to which nothing waits.
    pub fn settled(&self) -> Sequence {
        Sequence { epoch: self.epoch, seq: self.settled }
    }

    /// What it remembers, by number.
    pub fn links(&self) -> impl ExactSizeIterator<Item = &Linked> {
        self.links.iter()
    }

    fn last(&self) -> u64 {
        self.links.back().map_or(0, |linked| linked.seq).max(self.settled)
    }

    fn waiting(&self) -> impl Iterator<Item = &Linked> {
        let from = self.links.partition_point(|linked| linked.seq <= self.settled);
        self.links.range(from..)
    }

    fn judge(&self, at: Sequence, digest: &[u8; 32]) -> Result<Linking, R> {
        if at.epoch < self.epoch {
            return Err(R::Epoch);
        }
        if at.epoch > self.epoch {
            return Ok(Linking::New { missing: 0 });
        }
        if let Some(ahead) = at.seq.checked_sub(self.last()).filter(|ahead| *ahead > 0) {
            return Ok(Linking::New { missing: ahead - 1 });
        }
        match self.links.iter().find(|linked| linked.seq == at.seq) {
            Some(linked) if linked.digest == *digest => Ok(Linking::Resend),
            Some(_) => Err(R::Conflict),
            None => Err(R::Replay),
        }
    }

    /// The head over a batch.
    fn head(&self, identity: &Identity, audience: &str, batch: Batch) -> Result<[u8; 32], R> {
        let Batch { epoch, first, last } = batch;
        let from = self.links.partition_point(|linked| linked.seq < first);
        let mut head = begin(identity.uri(), audience, epoch, first);
        let mut next = Some(first);
        for linked in self.links.range(from..).take_while(|linked| linked.seq <= last) {
            if next != Some(linked.seq) {
                return Err(R::Gap);
            }
            head = behind(&head, &linked.digest);
            next = linked.seq.checked_add(1);
        }
        let reached = next.map_or(Some(u64::MAX), |next| next.checked_sub(1));
        if reached == Some(last) && first <= last { Ok(head) } else { Err(R::Gap) }
    }

    fn settle(&mut self, last: u64) {
        // What was never entered cannot be settled ahead.
        self.settled = self.settled.max(last.min(self.last()));
        let from = self.links.partition_point(|linked| linked.seq <= self.settled);
        self.links.drain(..from.saturating_sub(RESENDS_MAX));
    }
}

/// The chains of every device that links its messages.
#[derive(Debug, Default)]
pub struct Chains {
    by_identity: BTreeMap<Identity, Chain>,
    links: usize,
}

impl Chains {
    /// What is known of a message.
    ///
    /// # Errors
    /// [`R::Epoch`], [`R::Replay`], [`R::Conflict`]; [`R::Uncovered`] if its device has as many that
    /// wait as a batch may have; [`R::Signers`] past a bound of all devices.
    pub fn judge(
        &self,
        identity: &Identity,
        at: Sequence,
        digest: &[u8; 32],
        bounds: ChainBounds,
    ) -> Result<Linking, R> {
        let linking = match self.by_identity.get(identity) {
            Some(chain) => {
                let linking = chain.judge(at, digest)?;
                let full = chain.waiting().count() >= BATCH_MESSAGES_MAX;
                if full && at.epoch == chain.epoch && linking != Linking::Resend {
                    return Err(R::Uncovered);
                }
                linking
            }
            None if self.by_identity.len() >= bounds.devices_max => return Err(R::Signers),
            None => Linking::New { missing: 0 },
        };
        match linking {
            Linking::New { .. } if self.links >= bounds.links_max => Err(R::Signers),
            linking => Ok(linking),
        }
    }

    /// Whether a device has left a message waiting for longer than it may.
    pub fn is_overdue(&self, identity: &Identity, now: UnixNanos, bounds: ChainBounds) -> bool {
        let oldest = self.by_identity.get(identity).and_then(|chain| chain.waiting().next());
        oldest.is_some_and(|linked| now.since(linked.at) > bounds.cover_within)
    }

    /// Enters a message that was judged new.
    pub fn enter(&mut self, identity: &Identity, epoch: u64, linked: Linked) {
        let fresh = || Chain { epoch, settled: 0, links: VecDeque::new() };
        let chain = self.by_identity.entry(identity.clone()).or_insert_with(fresh);
        self.links -= chain.links.len();
        if epoch != chain.epoch {
            *chain = fresh();
        }
        chain.links.push_back(linked);
        self.links += chain.links.len();
    }

    /// What is known of the batch that a device has signed `head` for.
    ///
    /// # Errors
    /// [`R::Epoch`] if it is of another epoch than its messages, [`R::Gap`] if one of them never
    /// came, [`R::Commitment`] if they give another head.
    pub fn judge_cover(
        &self,
        identity: &Identity,
        audience: &str,
        batch: Batch,
        head: &[u8; 32],
    ) -> Result<Covering, R> {
        let chain = self.by_identity.get(identity).filter(|chain| chain.epoch == batch.epoch);
        let chain = chain.ok_or(R::Epoch)?;
        let is_resend = batch.last <= chain.settled;
        match chain.head(identity, audience, batch) {
            Ok(made) if made != *head => Err(R::Commitment),
            Ok(_) if is_resend => Ok(Covering::Resend),
            Ok(_) if batch.first <= chain.settled => Err(R::Replay),
            Ok(_) => Ok(Covering::Covers(batch.last - batch.first + 1)),
            Err(_) if is_resend => Err(R::Replay),
            Err(refusal) => Err(refusal),
        }
    }

    /// A batch up to `last` is covered, or its cover was refused: it does not wait any more.
    pub fn settle(&mut self, identity: &Identity, epoch: u64, last: u64) {
        let Some(chain) = self.by_identity.get_mut(identity) else { return };
        if chain.epoch == epoch {
            self.links -= chain.links.len();
            chain.settle(last);
            self.links += chain.links.len();
        }
    }

    /// Takes back what a snapshot holds.
    pub fn restore(&mut self, identity: Identity, chain: Chain) {
        self.links += chain.links.len();
        if let Some(before) = self.by_identity.insert(identity, chain) {
            self.links -= before.links.len();
        }
    }

    /// Every chain, in the order of the identities.
    pub fn iter(&self) -> impl Iterator<Item = (&Identity, &Chain)> {
        self.by_identity.iter()
    }
}

#[cfg(test)]
mod tests;

//! Writing entries: the fields that all entries of a connection share, and refusals that share
//! one entry.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::rand_core::RngCore as _;

use super::Broker;
use super::connection::Connection;
use super::effect::Effect;
use super::input::{Administration, ConnectionId, SERVER_STARTING};
use super::output::{Event, EventKind, Output};
use crate::evidence::{Body, Decision, EntryType, EntryWriter, Privacy, SALT_BYTES};
use crate::identity::Identity;
use crate::refusal::{Refusal, Refused};
use crate::session::Timer;
use crate::time::{Instant, Now, UnixNanos};

/// How long refusals of one kind by one peer share an entry.
const REFUSALS_SHARED: Duration = Duration::from_secs(10);
/// Most peers whose refusals are counted at once; beyond it each refusal of a further peer is
/// counted under nobody's name.
const REFUSAL_COUNTS_MAX: usize = 16_384;

/// Refusals that a flood could cause without end: the first of an interval has an entry of its
/// own, the count of the others closes the interval.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts {
    counts: BTreeMap<RefusalKey, RefusalCount>,
    unnamed: u64,
}

/// Whose refusals, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RefusalKey {
    /// Of an identity: by a limit, or while it is beyond one.
    Identity(Identity, Refusal),
    /// Of an address: handshakes.
    Address(IpAddr, &'static str),
}

#[derive(Debug)]
struct RefusalCount {
    since: UnixNanos,
    due: Instant,
    more: u64,
}

impl Broker {
    /// Names the next decision.
    pub(super) fn decide(&mut self) -> String {
        self.decisions.issue()
    }

    /// Records an entry that belongs to no connection.
    pub(super) fn record(
        &mut self,
        now: Now,
        kind: EntryType,
        decision: &str,
        write: impl FnOnce(EntryWriter<'_>) -> EntryWriter<'_>,
    ) -> u64 {
        let node = &self.settings.node;
        self.ledger.record(None, |out| {
            write(EntryWriter::begin(out, kind, now.unix, node, decision)).finish();
        })
    }

    /// Records an entry of connection `id`: with its `connect` entry and its running number. An
    /// unknown connection leaves them out.
    pub(super) fn record_of(
        &mut self,
        now: Now,
        id: ConnectionId,
        kind: EntryType,
        decision: &str,
        body: Option<Body>,
        write: impl FnOnce(EntryWriter<'_>) -> EntryWriter<'_>,
    ) -> u64 {
        let node = &self.settings.node;
        let connection = self.connections.get_mut(&id);
        self.ledger.record(body, |out| {
            let mut entry = EntryWriter::begin(out, kind, now.unix, node, decision);
            if let Some(connection) = connection {
                if let Some(identity) = &connection.identity {
                    entry = entry.who(identity);
                }
                entry = number(connection, entry);
            }
            write(entry).finish();
        })
    }

    /// A fresh salt.
    pub(super) fn salt(&mut self) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        self.random.fill_bytes(&mut salt);
        salt
    }

    /// The entries that every start begins with.
    pub(super) fn record_start(&mut self, now: Now) {
        let shard = u64::from(self.settings.shard);
        let decision = self.decide();
        self.record(now, EntryType::Start, &decision, |entry| {
            entry.plain("version", env!("CARGO_PKG_VERSION")).number("shard", shard)
        });
        let config = self.settings.config_sha256;
        let decision = self.decide();
        self.record(now, EntryType::Config, &decision, |entry| entry.hash("sha256", &config));
        let policy = self.settings.policy.hash();
        let rules = self.settings.policy.rule_count() as u64;
        let decision = self.decide();
        self.record(now, EntryType::Policy, &decision, |entry| {
            entry.hash("sha256", &policy).number("rules", rules)
        });
        let schemas = self.settings.schemas.hash();
        let decision = self.decide();
        self.record(now, EntryType::Schema, &decision, |entry| entry.hash("sha256", &schemas));
    }

    /// Records an operator's act; [`Output::Administered`] follows once it is on disk.
    pub(super) fn record_administration(&mut self, now: Now, act: Administration) {
        let decision = self.decide();
        let kind = EntryType::of_act(act.act);
        let offset = self.record(now, kind, &decision, |mut entry| {
            entry = entry.plain("act", act.act).text("subject", &act.subject);
            for (name, value) in &act.facts {
                entry = entry.text(name, value);
            }
            entry
        });
        self.ledger.wait(Effect::Administered { ticket: act.ticket, offset });
    }

    /// A handshake was refused: counted per address and reason.
    pub(super) fn handle_handshake_refused(
        &mut self,
        now: Now,
        peer: SocketAddr,
        reason: &'static str,
    ) {
        self.counters.handshakes_refused += 1;
        let key = RefusalKey::Address(peer.ip(), reason);
        if !self.is_first_refusal(now, key) {
            return;
        }
        let decision = self.decide();
        let privacy = self.settings.privacy.clone();
        self.record(now, EntryType::ConnectRefused, &decision, |entry| {
            let entry = entry.decision(Decision::Deny).plain("why", reason);
            peer_field(entry, &privacy, peer.ip(), None)
        });
        self.outputs.push_back(Output::Event(Event {
            kind: EventKind::HandshakeRefused,
            decision,
            identity: None,
            client_id: None,
            peer: privacy.peer(peer.ip(), None),
            topic: None,
            reason: Some(reason),
            by: None,
        }));
    }

    /// Clients were told Server busy while the log was read: one entry for all of them.
    pub(super) fn record_start_refused(&mut self, now: Now, count: u64, since: UnixNanos) {
        self.counters.connects_refused += count;
        let decision = self.decide();
        self.record(now, EntryType::ConnectRefused, &decision, |entry| {
            entry
                .decision(Decision::Deny)
                .plain("why", SERVER_STARTING)
                .number("count", count)
                .number("since", since.as_nanos())
        });
    }

    /// Whether this refusal opens an interval and has an entry of its own; otherwise it is
    /// counted.
    pub(super) fn is_first_refusal(&mut self, now: Now, key: RefusalKey) -> bool {
        if let Some(count) = self.refusals.counts.get_mut(&key) {
            count.more += 1;
            return false;
        }
        if self.refusals.counts.len() >= REFUSAL_COUNTS_MAX {
            self.refusals.unnamed += 1;
            return false;
        }
        let due = now.instant.after(REFUSALS_SHARED);
        let count = RefusalCount { since: now.unix, due, more: 0 };
        self.refusals.counts.insert(key, count);
        if !self.timers.is_set(Timer::RefusalsDue) {
            self.timers.set(due, Timer::RefusalsDue);
        }
        true
    }

    /// Closes the intervals that are due (all of them when the broker stops): one entry each, if
    /// there were more refusals than the first.
    pub(super) fn close_refusal_counts(&mut self, now: Now, all: bool) {
        let due: Vec<RefusalKey> = self
            .refusals
            .counts
            .iter()
            .filter(|(_, count)| all || count.due <= now.instant)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(count) = self.refusals.counts.remove(&key).filter(|count| count.more > 0)
            else {
                continue;
            };
            self.record_refusal_count(now, &key, &count);
        }
        if let Some(due) = self.refusals.counts.values().map(|count| count.due).min() {
            self.timers.set(due, Timer::RefusalsDue);
        }
        let unnamed = std::mem::take(&mut self.refusals.unnamed);
        if unnamed > 0 {
            let decision = self.decide();
            self.record(now, EntryType::PublishRefused, &decision, |entry| {
                entry
                    .decision(Decision::Deny)
                    .plain("why", "count.unnamed")
                    .number("count", unnamed)
            });
        }
    }

    fn record_refusal_count(&mut self, now: Now, key: &RefusalKey, count: &RefusalCount) {
        let decision = self.decide();
        let kind = match key {
            RefusalKey::Identity(..) => EntryType::PublishRefused,
            RefusalKey::Address(..) => EntryType::ConnectRefused,
        };
        let privacy = self.settings.privacy.clone();
        self.record(now, kind, &decision, |entry| {
            let entry = match key {
                RefusalKey::Identity(identity, refusal) => {
                    entry.who(identity).decision(Decision::Deny).plain("why", refusal.name())
                }
                RefusalKey::Address(address, reason) => {
                    let entry = entry.decision(Decision::Deny).plain("why", reason);
                    peer_field(entry, &privacy, *address, None)
                }
            };
            entry.number("count", count.more).number("since", count.since.as_nanos())
        });
    }

    /// Tells the process log of a refusal.
    pub(super) fn tell(
        &mut self,
        kind: EventKind,
        decision: &str,
        id: ConnectionId,
        topic: Option<&str>,
        refused: Option<&Refused>,
    ) {
        let connection = self.connections.get(&id);
        let privacy = &self.settings.privacy;
        self.outputs.push_back(Output::Event(Event {
            kind,
            decision: decision.to_owned(),
            identity: connection.and_then(|known| known.identity.clone()),
            client_id: connection
                .and_then(|known| known.author.as_ref())
                .and_then(|author| privacy.client(author.client_id().as_str()))
                .map(Cow::into_owned),
            peer: connection.and_then(|known| privacy.peer(known.facts.peer.ip(), None)),
            topic: topic.map(str::to_owned),
            reason: refused.map(|refused| refused.refusal.name()),
            by: refused.and_then(|refused| refused.by.clone()),
        }));
    }
}

/// Adds the index of the `connect` entry and the next running number.
fn number<'a>(connection: &mut Connection, entry: EntryWriter<'a>) -> EntryWriter<'a> {
    if connection.author.is_none() {
        return entry;
    }
    connection.entries += 1;
    let entry = match connection.connect_index {
        Some(index) => entry.number("conn", index),
        // It ended before its `connect` entry had an index.
        None => entry,
    };
    entry.number("n", connection.entries)
}

/// Longest part of a peer's text that an entry holds, in bytes: an entry has at most 65,535.
const ENTRY_TEXT_BYTES_MAX: usize = 256;

/// The part of a peer's text that an entry holds: all of it within the shipped bounds.
pub(super) fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ENTRY_TEXT_BYTES_MAX)).unwrap_or_default()
}

/// Adds whatever may stand there of a peer's address.
pub(super) fn peer_field<'a>(
    entry: EntryWriter<'a>,
    privacy: &Privacy,
    address: IpAddr,
    port: Option<u16>,
) -> EntryWriter<'a> {
    match privacy.peer(address, port) {
        Some(peer) => entry.text("peer", &peer),
        None => entry,
    }
}

/// Adds whatever may stand there of a Client Identifier.
pub(super) fn client_field<'a>(
    entry: EntryWriter<'a>,
    privacy: &Privacy,
    client_id: &str,
) -> EntryWriter<'a> {
    match privacy.client(client_id) {
        Some(client) => entry.text("client", beginning(&client)),
        None => entry,
    }
}

/// Adds why something was refused: fields `why`, `by`, `detail` and `code`.
pub(super) fn refusal_fields<'a>(entry: EntryWriter<'a>, refused: &Refused) -> EntryWriter<'a> {
    let mut entry = entry.decision(Decision::Deny).plain("why", refused.refusal.name());
    if let Some(by) = &refused.by {
        entry = entry.text("by", by);
    }
    if let Some(detail) = &refused.detail {
        entry = entry.text("detail", detail);
    }
    entry.number("code", refused.refusal.reason_code().as_u8().into())
}

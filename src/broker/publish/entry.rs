//! The entry of a PUBLISH or a Will that is accepted: what it is, who permitted it, and a commitment
//! to what stands beside it.

use super::cover::link_fields;
use crate::broker::Broker;
use crate::broker::input::ConnectionId;
use crate::broker::record::{beginning, refusal_fields};
use crate::evidence::{Attested, Body, Decision, EntryType, EntryWriter, Origin, commitment};
use crate::mqtt::encode_forwarded;
use crate::schema::{Flag, Outcome};
use crate::session::Received;
use crate::time::Now;

/// How a message came to us.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Ingress {
    /// In a PUBLISH.
    Client(ConnectionId),
    /// As the Will of the connection that began with this `connect` entry.
    Will { connect_index: u64 },
}

impl Broker {
    /// Records what is accepted: one entry, its body beside it, and one more entry if it changes a
    /// retained message. Returns the place of the first.
    pub(in crate::broker) fn record_publish(
        &mut self,
        now: Now,
        ingress: Ingress,
        decision: &str,
        attested: &Attested,
    ) -> u64 {
        let conforming = attested.conforming();
        let received = conforming.admitted().authorized().received();
        let publish = received.publish();
        // What the device has signed is the commitment of its entry: salt and payload open both.
        let statement = attested.origin().map(Origin::statement);
        let signed = match (statement, attested.linked()) {
            (Some(statement), _) => Some((*statement.salt(), *statement.commitment())),
            (None, Some(link)) => Some((*link.salt(), *link.commitment())),
            (None, None) => None,
        };
        let salt = signed.map_or_else(|| self.salt(), |(salt, _)| salt);
        let properties = encode_forwarded(&publish.properties);
        // Ours to mend if it were not so: an entry that left them out would lie.
        assert!(properties.is_ok(), "what was decoded can be encoded");
        let properties = properties.unwrap_or_default();
        let commitments = Commitments {
            c: match signed {
                Some((_, c)) => c,
                None => commitment(&salt, &publish.payload),
            },
            props: (!properties.is_empty()).then(|| commitment(&salt, &properties)),
        };
        let c = commitments.c;
        let body = Body { salt, payload: publish.payload.clone(), properties: properties.into() };
        let (kind, retains) = match (conforming.outcome(), ingress) {
            (Outcome::Quarantined { .. }, _) => (EntryType::PublishRefused, false),
            (_, Ingress::Client(_)) => (EntryType::Publish, publish.retain),
            (_, Ingress::Will { .. }) => (EntryType::Will, publish.retain),
        };
        // Entry and body stand in one batch: after a crash either both are there or neither, and
        // nothing was acknowledged in the latter case.
        let offset = match ingress {
            Ingress::Client(id) => self.record_of(now, id, kind, decision, Some(body), |entry| {
                accepted_fields(entry, attested, &commitments)
            }),
            Ingress::Will { connect_index } => {
                let whose = (received.author(), connect_index);
                self.record_of_session(now, whose, kind, decision, body, |entry| {
                    accepted_fields(entry, attested, &commitments)
                })
            }
        };
        if let Some(origin) = attested.origin() {
            self.note_signed(received.author().identity(), origin);
        }
        if let Some(link) = attested.linked() {
            self.note_link(now, received.author().identity(), link);
        }
        if retains {
            let change = match publish.payload.is_empty() {
                true => EntryType::RetainClear,
                false => EntryType::RetainSet,
            };
            self.record(now, change, decision, |entry| {
                entry
                    .who(received.author().identity())
                    .text("topic", received.topic().as_str())
                    .hash("c", &c)
            });
        }
        if let Some(origin) = attested.origin() {
            self.note_gap(now, received.author().identity(), origin.sequence(), origin.missing());
        }
        if let Some(link) = attested.linked() {
            self.note_gap(now, received.author().identity(), link.sequence(), link.missing());
        }
        self.note_number_gap(now, conforming);
        offset
    }
}

/// What an entry states in place of a payload and of the properties that go with it.
struct Commitments {
    c: [u8; 32],
    props: Option<[u8; 32]>,
}

/// The fields of a message that goes on: who permitted it, and what it is.
fn accepted_fields<'a>(
    entry: EntryWriter<'a>,
    attested: &Attested,
    commitments: &Commitments,
) -> EntryWriter<'a> {
    let conforming = attested.conforming();
    let authorized = conforming.admitted().authorized();
    let mut entry = entry.plain("lvl", attested.level());
    entry = match conforming.outcome() {
        Outcome::Quarantined { topic, refused } => {
            refusal_fields(entry, refused).text("quarantine", topic.as_str())
        }
        Outcome::Conforms { schema } => entry.decision(Decision::Allow).text("schema", schema),
        Outcome::Unchecked | Outcome::Opaque => entry.decision(Decision::Allow),
    };
    entry = entry.text("rule", authorized.rule().as_str());
    // Its topic is within our bounds: all of it, for whoever restores the message.
    let received = authorized.received();
    let entry = publish_fields(entry, received, received.topic().as_str());
    let entry = entry.hash("c", &commitments.c);
    let entry = match &commitments.props {
        Some(props) => entry.hash("props", props),
        None => entry,
    };
    let freshness = conforming.freshness();
    let mut entry = entry.words("flags", freshness.flags().map(Flag::as_str));
    if let Some(number) = freshness.number() {
        entry = entry.number("pseq", number);
    }
    if freshness.missing() > 0 {
        entry = entry.number("missing", freshness.missing());
    }
    match (attested.origin(), attested.linked()) {
        (Some(origin), _) => origin_fields(entry, origin),
        (None, Some(link)) => link_fields(entry, link),
        (None, None) => entry,
    }
}

/// What the device signed: with `c`, all that it takes to check the signature. Never the salt.
pub(super) fn origin_fields<'a>(entry: EntryWriter<'a>, origin: &Origin) -> EntryWriter<'a> {
    let statement = origin.statement();
    entry
        .number("iat", statement.issued_at())
        .number("epoch", statement.epoch())
        .number("seq", statement.seq())
        .bytes("cti", statement.cti())
        .bytes("protected", statement.protected())
        .bytes("sig", statement.signature())
        .words("sflags", origin.flags())
}

/// The fields that say what was published; the payload itself only by its length. Of the topic as
/// much as the entry may hold.
pub(super) fn publish_fields<'a>(
    entry: EntryWriter<'a>,
    received: &Received,
    topic: &str,
) -> EntryWriter<'a> {
    let publish = received.publish();
    let mut entry = entry
        .text("topic", topic)
        .number("qos", publish.qos as u64)
        .flag("retain", publish.retain)
        .flag("dup", publish.dup);
    if let Some(packet_id) = publish.packet_id {
        entry = entry.number("pid", packet_id.as_u16().into());
    }
    if let Some(content_type) = &publish.properties.content_type {
        entry = entry.text("ct", beginning(content_type));
    }
    entry.number("len", publish.payload.len() as u64)
}

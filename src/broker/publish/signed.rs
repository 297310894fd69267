//! What the broker keeps of signed messages: which were seen, in the log as well, and how many are
//! missing.
//!
//! A message is entered into the window of its device when it is attested, and its record stands
//! behind its entry, in the same batch: after a crash both are there or neither. The invariant:
//! whatever was acknowledged as new is in the window that a replay comes to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Broker;
use crate::broker::durable::Change;
use crate::broker::effect::{Acknowledge, Effect};
use crate::broker::input::ConnectionId;
use crate::broker::record::beginning;
use crate::evidence::{Decision, EntryType, Origin, Recorded, Sequence};
use crate::identity::Identity;
use crate::routing::SessionKey;
use crate::schema::Conforming;
use crate::time::{Instant, Now};

use super::answer::acknowledgement;

/// How long the gaps of one device share an entry.
const GAPS_SHARED: Duration = Duration::from_secs(10);
/// Most devices whose gaps are counted at once; those of further ones stand in the entries of their
/// messages alone.
const GAPS_MAX: usize = 16_384;

/// Devices whose messages had a gap lately.
#[derive(Debug, Default)]
pub(in crate::broker) struct Gaps(BTreeMap<Identity, Gap>);

#[derive(Debug)]
struct Gap {
    /// From when on the next one has an entry.
    due: Instant,
    /// Numbers left out since the last entry.
    missing: u64,
}

impl Gaps {
    /// Counts a gap of `missing` numbers; how many the entry about it should state, if it has one.
    fn count(&mut self, now: Instant, identity: &Identity, missing: u64) -> Option<u64> {
        if let Some(gap) = self.0.get_mut(identity) {
            gap.missing = gap.missing.saturating_add(missing);
            if gap.due > now {
                return None;
            }
            gap.due = now.after(GAPS_SHARED);
            return Some(std::mem::take(&mut gap.missing));
        }
        if self.0.len() >= GAPS_MAX {
            self.0.retain(|_, gap| gap.due > now || gap.missing > 0);
        }
        if self.0.len() >= GAPS_MAX {
            return None;
        }
        self.0.insert(identity.clone(), Gap { due: now.after(GAPS_SHARED), missing: 0 });
        Some(missing)
    }
}

impl Broker {
    /// Records that a signed message was seen, behind its entry.
    pub(super) fn note_signed(&mut self, identity: &Identity, origin: &Origin) {
        let (identity, sequence) = (identity.clone(), origin.sequence());
        // A crash before the batch is on disk forgets entry and record, and nobody was told.
        self.note(&Change::Signed { identity, sequence, c: *origin.statement().commitment() });
    }

    /// The entry of a signed message is on disk: a resend can be told which it was.
    pub(super) fn place_signed(&mut self, recorded: &Recorded) {
        let Some(origin) = recorded.attested().origin() else { return };
        let author = recorded.conforming().admitted().authorized().received().author();
        self.windows.place(author.identity(), origin.sequence(), recorded.index());
    }

    /// Records that sequence numbers were left out before a message.
    pub(super) fn note_gap(
        &mut self,
        now: Now,
        identity: &Identity,
        sequence: Sequence,
        just_missing: u64,
    ) {
        if just_missing == 0 {
            return;
        }
        let Some(missing) = self.gaps.count(now.instant, identity, just_missing) else { return };
        let decision = self.decide();
        let Sequence { epoch, seq } = sequence;
        self.record(now, EntryType::Gap, &decision, |entry| {
            entry
                .who(identity)
                .number("epoch", epoch)
                .number("from", seq.saturating_sub(just_missing))
                .number("to", seq.saturating_sub(1))
                .number("missing", missing)
        });
    }

    /// Records that numbers of payloads were left out before a message.
    pub(super) fn note_number_gap(&mut self, now: Now, conforming: &Conforming) {
        let (freshness, received) =
            (conforming.freshness(), conforming.admitted().authorized().received());
        let just_missing = freshness.missing();
        let Some(number) = freshness.number().filter(|_| just_missing > 0) else { return };
        let identity = received.author().identity().clone();
        let Some(missing) = self.gaps.count(now.instant, &identity, just_missing) else { return };
        let decision = self.decide();
        self.record(now, EntryType::Gap, &decision, |entry| {
            entry
                .who(&identity)
                .text("topic", beginning(received.topic().as_str()))
                .number("from", number.saturating_sub(just_missing))
                .number("to", number.saturating_sub(1))
                .number("missing", missing)
        });
    }

    /// A signed or linked message that went on before: recorded, not routed again, and answered like the
    /// first.
    pub(super) fn recognise_signed_resend(
        &mut self,
        now: Now,
        (id, session): (ConnectionId, SessionKey),
        conforming: &Conforming,
        sequence: Sequence,
        first: Option<u64>,
    ) {
        self.counters.publishes_duplicate += 1;
        let decision = self.decide();
        let received = conforming.admitted().authorized().received();
        let publish = received.publish();
        self.record_of(now, id, EntryType::PublishDup, &decision, None, |entry| {
            let mut entry =
                entry.decision(Decision::Allow).text("topic", beginning(received.topic().as_str()));
            if let Some(packet_id) = publish.packet_id {
                entry = entry.number("pid", packet_id.as_u16().into());
            }
            let entry = entry.number("epoch", sequence.epoch).number("seq", sequence.seq);
            match first {
                Some(first) => entry.number("first", first),
                None => entry,
            }
        });
        let Some(packet_id) = publish.packet_id else { return };
        self.take_packet_id(id, session, conforming);
        let (reason, reason_string) = self.outcome_reason(id, &decision, conforming);
        let qos = publish.qos;
        let answer = Acknowledge { connection: id, packet_id, qos, reason, reason_string };
        let packet = acknowledgement(&answer, None);
        // A QoS 2 message holds its place until PUBCOMP, unless PUBREC says no. [MQTT-4.9.0-2]
        let frees_quota = publish.qos == crate::mqtt::QoS::AtLeastOnce || reason.is_error();
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota });
    }
}

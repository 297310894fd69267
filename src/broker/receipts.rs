//! Receipts to whoever publishes: who gets one, and by which way.
//!
//! A receipt is signed when the batch with its entry is on disk, never before, and only for those
//! who asked or whose rule says so. It goes in a User Property of PUBACK or PUBREC; or, where that
//! cannot be (3.x, QoS 0, Request Problem Information 0, no room within Maximum Packet Size), to the
//! topic of its author, as a message of QoS 0 that is not kept: to sessions of the very identity,
//! whatever else has the same name. Nobody is given a receipt for what was refused, or twice for a
//! resend. The invariant: the leaf hash in a receipt is that of the bytes that went to the disk.

use bytes::Bytes;

use super::Broker;
use super::connection::Connection;
use super::effect::{Acknowledge, Promised};
use super::input::ConnectionId;
use super::publish::acknowledgement;
use crate::evidence::receipt::{RECEIPT_PROPERTY, RECEIPT_TYPE, receipt_topic};
use crate::evidence::tree::leaf_hash;
use crate::evidence::{Attested, Receipt, Recorded};
use crate::mqtt::{Packet, PublishProperties, UserProperty, encoded_len};
use crate::policy::ReceiptRule;
use crate::routing::Message;
use crate::schema::Outcome;
use crate::time::Now;

impl Broker {
    /// What a message that was just recorded at `offset` of the open batch is promised, if anything.
    pub(super) fn promise(
        &self,
        now: Now,
        id: ConnectionId,
        attested: &Attested,
        offset: u64,
    ) -> Option<Promised> {
        self.settings.receipts.as_ref()?;
        let conforming = attested.conforming();
        if matches!(conforming.outcome(), Outcome::Quarantined { .. }) {
            return None;
        }
        let authorized = conforming.admitted().authorized();
        let asked = &authorized.received().publish().properties.user_properties;
        let wished = wish(asked).or_else(|| self.connections.get(&id)?.receipts);
        let way = wished.unwrap_or(authorized.receipt_rule());
        let leaf_hash = (way != ReceiptRule::None)
            .then(|| self.ledger.head_of(offset).map(leaf_hash))
            .flatten()?;
        Some(Promised { way, leaf_hash, time: now.unix })
    }

    /// Acknowledges what is on disk, with its receipt if one was promised.
    pub(super) fn acknowledge_promised(
        &mut self,
        now: Now,
        recorded: &Recorded,
        acknowledge: Option<Acknowledge>,
        promised: Option<Promised>,
    ) {
        let in_packet = promised.as_ref().and_then(|promised| {
            (promised.way == ReceiptRule::Properties).then_some(())?;
            self.fitting(recorded, acknowledge.as_ref()?, promised)
        });
        let by_topic = in_packet.is_none();
        if let Some(acknowledge) = acknowledge {
            self.acknowledge(now, recorded, acknowledge, in_packet);
        }
        if let (true, Some(promised)) = (by_topic, promised) {
            self.send_receipt(now, recorded, &promised);
        }
    }

    /// The receipt as a property, if the acknowledgement has room for it.
    fn fitting(
        &self,
        recorded: &Recorded,
        acknowledge: &Acknowledge,
        promised: &Promised,
    ) -> Option<UserProperty> {
        let connection = self.connections.get(&acknowledge.connection)?;
        // [MQTT-3.1.2-29]
        if !connection.is_v5() || !connection.wants_reasons {
            return None;
        }
        let property = UserProperty {
            name: RECEIPT_PROPERTY.to_owned(),
            value: base64url(&self.sign_receipt(recorded, promised)?),
        };
        let packet = acknowledgement(acknowledge, Some(property.clone()));
        has_room(connection, &packet).then_some(property)
    }

    /// Sends a receipt to the topic of its author, if a session of the same identity wants it.
    fn send_receipt(&mut self, now: Now, recorded: &Recorded, promised: &Promised) {
        let author = recorded.conforming().admitted().authorized().received().author();
        let Some(topic) = receipt_topic(author.identity().name(), author.client_id().as_str())
        else {
            return;
        };
        let identity = author.identity().clone();
        if !self.is_awaited(&topic, &identity) {
            return;
        }
        let Some(receipt) = self.sign_receipt(recorded, promised) else { return };
        let properties = PublishProperties {
            content_type: Some(RECEIPT_TYPE.to_owned()),
            ..PublishProperties::default()
        };
        let message = Message::of_broker(topic, Bytes::from(receipt), properties, now.instant);
        if let Some(message) = message {
            self.route_to(now, &message, &identity);
        }
    }

    fn sign_receipt(&self, recorded: &Recorded, promised: &Promised) -> Option<Vec<u8>> {
        let signer = self.settings.receipts.as_ref()?;
        let attested = recorded.attested();
        let receipt = Receipt {
            origin: signer.origin().to_owned(),
            index: recorded.index(),
            leaf_hash: promised.leaf_hash,
            time: promised.time,
            level: attested.level().to_owned(),
            cti: attested.origin().map(|origin| origin.statement().cti().to_vec()),
        };
        signer.key().sign(&receipt).ok()
    }
}

/// What a client asks for by a User Property, on CONNECT for all of its messages or on PUBLISH for
/// one. A word that is none of ours asks for nothing.
pub(super) fn wish(properties: &[UserProperty]) -> Option<ReceiptRule> {
    let asked = properties.iter().find(|property| property.name == RECEIPT_PROPERTY)?;
    ReceiptRule::parse(&asked.value)
}

fn has_room(connection: &Connection, packet: &Packet) -> bool {
    let Some(version) = connection.version else { return false };
    encoded_len(packet, version).is_ok_and(|length| length <= connection.packet_bytes_max)
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

//! The receipt that `avow pub --receipt FILE` waits for, and where it is stored.
//!
//! It comes with the acknowledgement, or on the topic of our own receipts, which is subscribed to
//! before anything is published. It is stored as it came: `avow audit check-receipt` judges it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ClientFailure;
use super::arguments::Target;
use super::connection::Connection;
use crate::cli::files::{Access, create, replace, require_absent};
use crate::evidence::receipt::{RECEIPT_PROPERTY, receipt_topic};
use crate::mqtt::{
    Packet, PacketId, Subscribe, SubscribeFilter, SubscriptionOptions, TopicName, UserProperty,
};

/// A receipt that is waited for.
pub(super) struct Awaited {
    path: PathBuf,
    force: bool,
    topic: Option<TopicName>,
    found: Option<Vec<u8>>,
}

impl Awaited {
    /// One that goes to `path`; `force`: in place of what is there.
    pub(super) fn new(path: &Path, force: bool) -> Self {
        Self { path: path.to_owned(), force, topic: None, found: None }
    }

    /// Lets CONNECT ask for it: unlike a property of PUBLISH, that reaches no subscriber.
    pub(super) fn ask(&mut self, target: &mut Target) -> Result<(), ClientFailure> {
        if !self.force {
            require_absent([&self.path])?;
        }
        let (name, value) = (RECEIPT_PROPERTY.to_owned(), "properties".to_owned());
        target.user_properties.push(UserProperty { name, value });
        self.topic = target.name.as_deref().and_then(|name| receipt_topic(name, &target.client_id));
        Ok(())
    }

    /// Subscribes to where it comes if the acknowledgement has no room for it.
    pub(super) async fn listen(&self, connection: &mut Connection) -> Result<(), ClientFailure> {
        let Some(topic) = &self.topic else { return Ok(()) };
        let filter = topic.as_str().to_owned();
        let options = SubscriptionOptions::default();
        let subscribe = Subscribe {
            packet_id: PacketId::ONE,
            subscription_identifier: None,
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter { filter, options }],
        };
        connection.send(&Packet::Subscribe(Box::new(subscribe))).await?;
        // If it is refused, the acknowledgement may still have the receipt.
        while !matches!(connection.answer("SUBACK").await?, Packet::SubAck(_)) {}
        Ok(())
    }

    /// Takes the receipt out of a packet, if it is in there.
    pub(super) fn look(&mut self, packet: &Packet) {
        let found = match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                let user = ack.properties.iter().flat_map(|properties| &properties.user_properties);
                let found = { user }.find(|property| property.name == RECEIPT_PROPERTY);
                found.and_then(|property| URL_SAFE_NO_PAD.decode(&property.value).ok())
            }
            Packet::Publish(publish) if publish.topic.is_some() && publish.topic == self.topic => {
                Some(publish.payload.to_vec())
            }
            _ => None,
        };
        self.found = found.or_else(|| self.found.take());
    }

    /// Waits for it, if it has not come, and stores it.
    pub(super) async fn store(mut self, connection: &mut Connection) -> Result<(), ClientFailure> {
        loop {
            if let Some(receipt) = &self.found {
                let store = if self.force { replace } else { create };
                return Ok(store(&self.path, Access::Public, receipt)?);
            }
            let packet = connection.answer("receipt").await?;
            self.look(&packet);
        }
    }
}

//! Messages in State records: all of one, or one copy of it.

use bytes::Bytes;

use super::super::bytes::{Reader, Writer};
use super::super::replay::LogBody;
use super::topic;
use crate::mqtt::{PublishProperties, QoS, TopicName, decode_forwarded};
use crate::routing::SessionKey;
use crate::time::UnixNanos;

/// All of a message, for whom the log's own entry of it does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredMessage {
    pub(crate) index: u64,
    pub(crate) topic: TopicName,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) author: Option<SessionKey>,
    pub(crate) received: UnixNanos,
    pub(crate) payload: Bytes,
    pub(crate) properties: PublishProperties,
    /// Whether its body was erased: the record has none.
    pub(crate) is_erased: bool,
}

/// One copy of a message: what subscriptions made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyOf {
    /// Index of the entry of the message.
    pub(crate) index: u64,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
}

impl StoredMessage {
    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        w.number(self.index);
        w.text(self.topic.as_str());
        w.byte(self.qos as u8 | u8::from(self.retain) << 2);
        w.maybe(self.author.map(|key| key.0));
        w.number(self.received.as_nanos());
    }

    pub(super) fn read(r: &mut Reader<'_>, body: LogBody<'_>) -> Option<Self> {
        let (payload, properties) = body.unwrap_or_default();
        let (index, topic) = (r.number()?, topic(r)?);
        let flags = r.byte().filter(|flags| *flags < 8)?;
        Some(Self {
            index,
            topic,
            qos: QoS::from_bits(flags & 3)?,
            retain: flags & 4 > 0,
            author: r.maybe()?.map(SessionKey),
            received: UnixNanos::new(r.number()?),
            payload: Bytes::copy_from_slice(payload),
            properties: decode_forwarded(properties).ok()?,
            is_erased: body.is_none(),
        })
    }
}

impl CopyOf {
    /// `place` is where the copy comes from, 0 to 3.
    pub(super) fn encode(&self, w: &mut Writer<'_>, place: u8) {
        let has_identifiers = !self.identifiers.is_empty();
        let flags = self.qos as u8 | u8::from(self.retain) << 2 | place << 3;
        w.byte(flags | u8::from(has_identifiers) << 5);
        w.number(self.index);
        if has_identifiers {
            w.number(self.identifiers.len() as u64);
            self.identifiers.iter().for_each(|identifier| w.number((*identifier).into()));
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Option<(u8, Self)> {
        let flags = r.byte().filter(|flags| *flags < 64)?;
        let index = r.number()?;
        let mut identifiers = Vec::new();
        if flags & 32 > 0 {
            let count = r.number().filter(|count| *count > 0)?;
            for _ in 0..count {
                identifiers.push(r.narrow()?);
            }
        }
        let qos = QoS::from_bits(flags & 3)?;
        Some((flags >> 3 & 3, Self { index, qos, retain: flags & 4 > 0, identifiers }))
    }
}

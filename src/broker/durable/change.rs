//! The format of State records: what changes in Session State, as the log keeps it.
//!
//! ```text
//! record   version 1 | tag 1 | fields           numbers LEB128, texts with their length before
//! body     payload and forwarded properties of a Will or of a message, like an entry's
//! ```
//!
//! One record is one change. Nothing is judged here. Version 1 is all there is; a change of any
//! field needs a new one. The invariant: reading what was written gives the same change, and no
//! bytes make the reader panic. The records of a snapshot are of this format too: tags from 32 on
//! stand in snapshots only.

mod author;
mod message;
mod signed;

use std::sync::Arc;

use bytes::Bytes;

use self::author::{read_author, read_grants, write_author, write_grants};
pub(crate) use self::message::{CopyOf, StoredMessage};
use self::signed::{
    read_chain, read_linked, read_settled, read_signed, read_window, write_chain, write_of_signer,
    write_window,
};
use super::bytes::{Reader, Writer};
use super::replay::LogBody;
use crate::evidence::Sequence;
use crate::evidence::chain::{Chain, Linked};
use crate::evidence::window::Window;
use crate::identity::{Grants, Identity};
use crate::mqtt::{
    PacketId, QoS, RetainHandling, TopicFilter, TopicName, Will, WillProperties, decode_forwarded,
    encode_forwarded,
};
use crate::routing::{SessionKey, Subscription};
use crate::schema::StoredWindow;
use crate::session::Author;
use crate::time::UnixNanos;

/// The version of this encoding: the first byte of every State record.
const VERSION: u8 = 1;
/// The tags of the records that have a body in the log.
pub(super) const ATTACHED_TAG: u8 = 1;
pub(super) const LEFT_TAG: u8 = 15;

/// One change of Session State.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A CONNECT was accepted whose session outlives its connection, or has a Will.
    Attached(Box<Attached>),
    /// A session lost the connection that began with the `connect` entry at `connect_index`.
    Detached {
        key: SessionKey,
        connect_index: u64,
        at: UnixNanos,
        expiry_seconds: u32,
        publishes_will: bool,
    },
    /// Session State came to its end, unless another connection was faster.
    Ended { key: SessionKey, connect_index: u64 },
    /// A subscription came into force.
    Subscribed {
        key: SessionKey,
        filter: TopicFilter,
        subscription: Subscription,
        handling: RetainHandling,
    },
    /// A subscription ended.
    Unsubscribed { key: SessionKey, filter: TopicFilter },
    /// A QoS 1 or 2 copy got its Packet Identifier. Nothing of its queue stands before it.
    Sent { key: SessionKey, packet_id: PacketId, source: Source, copy: CopyOf },
    /// A sent copy is done: PUBACK, PUBCOMP, PUBREC with an error, or withheld.
    Acked { key: SessionKey, packet_id: PacketId },
    /// PUBREC came for a sent copy.
    Receipted { key: SessionKey, packet_id: PacketId },
    /// PUBREL came for a QoS 2 PUBLISH of the client.
    Released { key: SessionKey, packet_id: PacketId },
    /// A copy went to this session that the subscriptions do not tell: of a Shared Subscription,
    /// or after the queue was full. A session that is not lasting has it for good: no other record
    /// tells what became of it.
    Queued { key: SessionKey, group: Option<TopicFilter>, is_lasting: bool, copy: CopyOf },
    /// Nothing up to this message is in the queue any more.
    Skipped { key: SessionKey, index: u64 },
    /// From this message on nothing is put into the queue, until it is said to be.
    Full { key: SessionKey, index: u64 },
    /// The retained messages for this filter were all sent.
    Walked { key: SessionKey, filter: TopicFilter },
    /// A new token of its client grants this, in place of what the one before did.
    Granted { key: SessionKey, grants: Arc<Grants> },
    /// A member of a Shared Subscription of whose copies no record tells left this message: it is
    /// nobody's until it is queued.
    Left { group: TopicFilter, message: Box<StoredMessage> },

    /// A signed message was seen: the entry before this record is its.
    Signed { identity: Identity, sequence: Sequence, c: [u8; 32] },
    /// A message waits for a cover: the entry before this record is its.
    Linked { identity: Identity, epoch: u64, linked: Linked },
    /// The messages of a device up to this one wait no longer.
    Settled { identity: Identity, sequence: Sequence },

    /// Where the snapshot stands: entries before it, and the next session key. Its last record.
    Position { index: u64, next_session: u64 },
    /// A message that something refers to, by its index.
    Message(Box<StoredMessage>),
    /// The message is the retained one of its topic.
    Retained { index: u64 },
    /// An unreleased Packet Identifier of a QoS 2 PUBLISH of the client.
    Taken { key: SessionKey, packet_id: PacketId },
    /// The Packet Identifier that was given last.
    LastId { key: SessionKey, packet_id: PacketId },
    /// How far the retained messages of a subscription were sent.
    Walking {
        key: SessionKey,
        filter: TopicFilter,
        subscription: Subscription,
        after: Option<TopicName>,
        until: u64,
    },
    /// An older connection of a session whose entries may still come.
    Bound { connect_index: u64, key: SessionKey },
    /// A Will that is due and was not yet published.
    Owed(Box<OwedWill>),
    /// A message for a Shared Subscription that nobody was chosen for, since this entry; who had
    /// sent it in QoS 1 and ended.
    Unassigned { index: u64, group: TopicFilter, since: u64, sent: Option<(SessionKey, PacketId)> },
    /// A sent copy whose message may not be read any more.
    Unreadable { key: SessionKey, packet_id: PacketId },
    /// A message that stands nowhere else, and that a record may name, since this entry.
    Nameable { index: u64, since: u64 },
    /// Numbers that payloads of one topic of one device stated.
    Numbered(StoredWindow),
    /// The signed messages of a device that were seen lately.
    Window { identity: Identity, window: Window },
    /// The messages of a device that wait for a cover, and some that did.
    Chain { identity: Identity, chain: Chain },
}

/// What a CONNECT does to sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// The key of the session, if one is made.
    pub(crate) key: SessionKey,
    /// Index of its `connect` entry; without it, that is the entry before this record.
    pub(crate) connect_index: Option<u64>,
    pub(crate) author: Author,
    pub(crate) clean: bool,
    pub(crate) expiry_seconds: u32,
    pub(crate) will: Option<Will>,
}

/// A Will that must be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwedWill {
    pub(crate) connect_index: u64,
    pub(crate) key: SessionKey,
    pub(crate) author: Author,
    pub(crate) will: Will,
}

/// Where a copy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The session's own subscriptions.
    Routed,
    /// This Shared Subscription.
    Shared(TopicFilter),
    /// The retained message of this topic.
    Retained(TopicName),
}

/// The bytes are no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the log is of another version, or cannot be read")]
pub struct BadRecord;

impl Change {
    /// Appends the record to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer(out);
        w.byte(VERSION);
        w.byte(self.tag());
        match self {
            Self::Attached(attached) => attached.encode(&mut w),
            Self::Detached { key, connect_index, at, expiry_seconds, publishes_will } => {
                w.number(key.0);
                w.number(*connect_index);
                w.number(at.as_nanos());
                w.number((*expiry_seconds).into());
                w.byte((*publishes_will).into());
            }
            Self::Ended { key, connect_index } => {
                w.number(key.0);
                w.number(*connect_index);
            }
            Self::Subscribed { key, filter, subscription, handling } => {
                w.number(key.0);
                write_filter(&mut w, filter);
                write_subscription(&mut w, subscription, *handling);
            }
            Self::Unsubscribed { key, filter } | Self::Walked { key, filter } => {
                w.number(key.0);
                write_filter(&mut w, filter);
            }
            Self::Sent { key, packet_id, source, copy } => {
                w.number(key.0);
                w.number(packet_id.as_u16().into());
                match source {
                    Source::Routed => copy.encode(&mut w, 0),
                    Source::Shared(group) => {
                        copy.encode(&mut w, 1);
                        write_filter(&mut w, group);
                    }
                    Source::Retained(topic) => {
                        copy.encode(&mut w, 2);
                        w.text(topic.as_str());
                    }
                }
            }
            Self::Acked { key, packet_id }
            | Self::Receipted { key, packet_id }
            | Self::Released { key, packet_id } => write_id(&mut w, *key, *packet_id),
            Self::Queued { key, group, is_lasting, copy } => {
                w.number(key.0);
                copy.encode(&mut w, u8::from(group.is_some()) | u8::from(!is_lasting) << 1);
                if let Some(group) = group {
                    write_filter(&mut w, group);
                }
            }
            Self::Skipped { key, index } | Self::Full { key, index } => {
                w.number(key.0);
                w.number(*index);
            }
            Self::Granted { key, grants } => {
                w.number(key.0);
                write_grants(&mut w, grants);
            }
            Self::Left { group, message } => {
                message.encode(&mut w);
                write_filter(&mut w, group);
            }
            signed @ (Self::Signed { .. } | Self::Linked { .. } | Self::Settled { .. }) => {
                write_of_signer(&mut w, signed);
            }
            of_snapshot => of_snapshot.encode_of_snapshot(&mut w),
        }
    }

    fn encode_of_snapshot(&self, w: &mut Writer<'_>) {
        match self {
            Self::Position { index, next_session } => {
                w.number(*index);
                w.number(*next_session);
            }
            Self::Message(message) => message.encode(w),
            Self::Retained { index } => w.number(*index),
            Self::Walking { key, filter, subscription, after, until } => {
                w.number(key.0);
                write_filter(w, filter);
                write_subscription(w, subscription, RetainHandling::Send);
                w.text(after.as_ref().map_or("", TopicName::as_str));
                w.number(*until);
            }
            Self::Owed(owed) => {
                w.number(owed.key.0);
                w.number(owed.connect_index);
                write_author(w, &owed.author);
                write_will(w, &owed.will);
            }
            Self::Unassigned { index, group, since, sent } => {
                w.number(*index);
                write_filter(w, group);
                w.number(*since);
                w.byte(sent.is_some().into());
                if let Some((key, packet_id)) = sent {
                    write_id(w, *key, *packet_id);
                }
            }
            Self::Numbered(StoredWindow { who, topic, highest, seen }) => {
                w.text(who);
                w.text(topic);
                w.number(*highest);
                w.number(*seen);
            }
            Self::Nameable { index, since } => {
                w.number(*index);
                w.number(*since);
            }
            Self::Bound { connect_index, key } => {
                w.number(key.0);
                w.number(*connect_index);
            }
            Self::Window { identity, window } => write_window(w, identity, window),
            Self::Chain { identity, chain } => write_chain(w, identity, chain),
            Self::Taken { key, packet_id }
            | Self::LastId { key, packet_id }
            | Self::Unreadable { key, packet_id } => write_id(w, *key, *packet_id),
            // All others are records of the log.
            _ => {}
        }
    }

    /// What stands beside the record: payload and properties.
    pub(crate) fn body(&self) -> Option<(Bytes, Bytes)> {
        let (payload, properties) = match self {
            Self::Attached(attached) => {
                let will = attached.will.as_ref()?;
                (&will.payload, &will.properties.publish)
            }
            Self::Owed(owed) => (&owed.will.payload, &owed.will.properties.publish),
            Self::Message(message) | Self::Left { message, .. } if message.is_erased => {
                return None;
            }
            Self::Message(message) | Self::Left { message, .. } => {
                (&message.payload, &message.properties)
            }
            _ => return None,
        };
        let encoded = encode_forwarded(properties);
        // Ours to mend if it were not so: a record that left them out would lie.
        assert!(encoded.is_ok(), "what was decoded can be encoded");
        Some((payload.clone(), encoded.unwrap_or_default().into()))
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Attached(_) => ATTACHED_TAG,
            Self::Detached { .. } => 2,
            Self::Ended { .. } => 3,
            Self::Subscribed { .. } => 4,
            Self::Unsubscribed { .. } => 5,
            Self::Sent { .. } => 6,
            Self::Acked { .. } => 7,
            Self::Receipted { .. } => 8,
            Self::Released { .. } => 9,
            Self::Queued { .. } => 10,
            Self::Skipped { .. } => 11,
            Self::Full { .. } => 12,
            Self::Walked { .. } => 13,
            Self::Granted { .. } => 14,
            Self::Left { .. } => LEFT_TAG,
            Self::Signed { .. } => 24,
            Self::Linked { .. } => 25,
            Self::Settled { .. } => 26,
            Self::Position { .. } => 32,
            Self::Message(_) => 33,
            Self::Retained { .. } => 34,
            Self::Taken { .. } => 35,
            Self::LastId { .. } => 36,
            Self::Walking { .. } => 37,
            Self::Bound { .. } => 38,
            Self::Owed(_) => 39,
            Self::Unassigned { .. } => 40,
            Self::Unreadable { .. } => 41,
            Self::Nameable { .. } => 42,
            Self::Numbered(_) => 43,
            Self::Window { .. } => 48,
            Self::Chain { .. } => 49,
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`BadRecord`] if it is none.
    pub(crate) fn decode(head: &[u8], body: LogBody<'_>) -> Result<Self, BadRecord> {
        let mut r = Reader(head);
        let change = Self::read(&mut r, body).ok_or(BadRecord)?;
        if r.0.is_empty() { Ok(change) } else { Err(BadRecord) }
    }

    fn read(r: &mut Reader<'_>, body: LogBody<'_>) -> Option<Self> {
        if r.byte()? != VERSION {
            return None;
        }
        let tag = r.byte()?;
        Some(match tag {
            ATTACHED_TAG => Self::Attached(Box::new(Attached::read(r, body)?)),
            2 => Self::Detached {
                key: key(r)?,
                connect_index: r.number()?,
                at: UnixNanos::new(r.number()?),
                expiry_seconds: r.narrow()?,
                publishes_will: flag(r)?,
            },
            3 => Self::Ended { key: key(r)?, connect_index: r.number()? },
            4 => {
                let (key, filter) = (key(r)?, filter(r)?);
                let (subscription, handling) = read_subscription(r)?;
                Self::Subscribed { key, filter, subscription, handling }
            }
            5 => Self::Unsubscribed { key: key(r)?, filter: filter(r)? },
            6 => {
                let (key, packet_id) = (key(r)?, packet_id(r)?);
                let (place, copy) = CopyOf::read(r)?;
                let source = match place {
                    0 => Source::Routed,
                    1 => Source::Shared(filter(r)?),
                    2 => Source::Retained(topic(r)?),
                    _ => return None,
                };
                Self::Sent { key, packet_id, source, copy }
            }
            7 => Self::Acked { key: key(r)?, packet_id: packet_id(r)? },
            8 => Self::Receipted { key: key(r)?, packet_id: packet_id(r)? },
            9 => Self::Released { key: key(r)?, packet_id: packet_id(r)? },
            10 => {
                let key = key(r)?;
                let (place, copy) = CopyOf::read(r)?;
                let group = if place & 1 > 0 { Some(filter(r)?) } else { None };
                Self::Queued { key, group, is_lasting: place & 2 == 0, copy }
            }
            11 => Self::Skipped { key: key(r)?, index: r.number()? },
            12 => Self::Full { key: key(r)?, index: r.number()? },
            13 => Self::Walked { key: key(r)?, filter: filter(r)? },
            14 => Self::Granted { key: key(r)?, grants: read_grants(r)? },
            LEFT_TAG => {
                let message = Box::new(StoredMessage::read(r, body)?);
                Self::Left { group: filter(r)?, message }
            }
            24 => {
                let (identity, sequence, c) = read_signed(r)?;
                Self::Signed { identity, sequence, c }
            }
            25 => {
                let (identity, epoch, linked) = read_linked(r)?;
                Self::Linked { identity, epoch, linked }
            }
            26 => {
                let (identity, sequence) = read_settled(r)?;
                Self::Settled { identity, sequence }
            }
            _ => return Self::read_of_snapshot(tag, r, body),
        })
    }

    fn read_of_snapshot(tag: u8, r: &mut Reader<'_>, body: LogBody<'_>) -> Option<Self> {
        Some(match tag {
            32 => Self::Position { index: r.number()?, next_session: r.number()? },
            33 => Self::Message(Box::new(StoredMessage::read(r, body)?)),
            34 => Self::Retained { index: r.number()? },
            35 => Self::Taken { key: key(r)?, packet_id: packet_id(r)? },
            36 => Self::LastId { key: key(r)?, packet_id: packet_id(r)? },
            37 => {
                let (key, filter) = (key(r)?, filter(r)?);
                let (subscription, _) = read_subscription(r)?;
                let after = match r.text()? {
                    "" => None,
                    text => Some(TopicName::parse(text).ok()?),
                };
                Self::Walking { key, filter, subscription, after, until: r.number()? }
            }
            38 => Self::Bound { key: key(r)?, connect_index: r.number()? },
            39 => {
                let (key, connect_index) = (key(r)?, r.number()?);
                let author = read_author(r)?;
                let will = read_will(r, body)?;
                Self::Owed(Box::new(OwedWill { connect_index, key, author, will }))
            }
            40 => {
                let (index, group, since) = (r.number()?, filter(r)?, r.number()?);
                let sent = if flag(r)? { Some((key(r)?, packet_id(r)?)) } else { None };
                Self::Unassigned { index, group, since, sent }
            }
            41 => Self::Unreadable { key: key(r)?, packet_id: packet_id(r)? },
            42 => Self::Nameable { index: r.number()?, since: r.number()? },
            43 => {
                let (who, topic) = (r.text()?.into(), r.text()?.into());
                let (highest, seen) = (r.number()?, r.number().filter(|seen| seen & 1 > 0)?);
                Self::Numbered(StoredWindow { who, topic, highest, seen })
            }
            48 => {
                let (identity, window) = read_window(r)?;
                Self::Window { identity, window }
            }
            49 => {
                let (identity, chain) = read_chain(r)?;
                Self::Chain { identity, chain }
            }
            _ => return None,
        })
    }
}

impl Attached {
    fn encode(&self, w: &mut Writer<'_>) {
        w.number(self.key.0);
        w.maybe(self.connect_index);
        write_author(w, &self.author);
        w.byte(u8::from(self.clean) | u8::from(self.will.is_some()) << 1);
        w.number(self.expiry_seconds.into());
        if let Some(will) = &self.will {
            write_will(w, will);
        }
    }

    fn read(r: &mut Reader<'_>, body: LogBody<'_>) -> Option<Self> {
        let (key, connect_index, author) = (key(r)?, r.maybe()?, read_author(r)?);
        let flags = r.byte().filter(|flags| *flags < 4)?;
        let expiry_seconds = r.narrow()?;
        let will = if flags & 2 > 0 { Some(read_will(r, body)?) } else { None };
        let will = will.filter(|_| body.is_some()); // Erased: it is not published.
        Some(Self { key, connect_index, author, clean: flags & 1 > 0, expiry_seconds, will })
    }
}

fn key(r: &mut Reader<'_>) -> Option<SessionKey> {
    r.number().map(SessionKey)
}

fn packet_id(r: &mut Reader<'_>) -> Option<PacketId> {
    PacketId::new(r.narrow()?)
}

fn filter(r: &mut Reader<'_>) -> Option<TopicFilter> {
    TopicFilter::parse(r.text()?).ok()
}

fn topic(r: &mut Reader<'_>) -> Option<TopicName> {
    TopicName::parse(r.text()?).ok()
}

fn flag(r: &mut Reader<'_>) -> Option<bool> {
    match r.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn write_id(w: &mut Writer<'_>, key: SessionKey, packet_id: PacketId) {
    w.number(key.0);
    w.number(packet_id.as_u16().into());
}

/// With the `$share/…/` of a Shared Subscription.
fn write_filter(w: &mut Writer<'_>, filter: &TopicFilter) {
    match filter.share() {
        None => w.text(filter.as_str()),
        Some(share) => w.text(&format!("$share/{}/{}", share.as_str(), filter.as_str())),
    }
}

fn write_subscription(w: &mut Writer<'_>, subscription: &Subscription, handling: RetainHandling) {
    let flags = subscription.qos as u8
        | u8::from(subscription.no_local) << 2
        | u8::from(subscription.retain_as_published) << 3
        | (handling as u8) << 4;
    w.byte(flags);
    w.maybe(subscription.identifier.map(u64::from));
}

fn read_subscription(r: &mut Reader<'_>) -> Option<(Subscription, RetainHandling)> {
    let flags = r.byte()?;
    let handling = match flags >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return None,
    };
    let identifier = match r.maybe()? {
        Some(identifier) => Some(u32::try_from(identifier).ok()?),
        None => None,
    };
    let subscription = Subscription {
        qos: QoS::from_bits(flags & 3)?,
        no_local: flags & 4 > 0,
        retain_as_published: flags & 8 > 0,
        identifier,
    };
    Some((subscription, handling))
}

fn write_will(w: &mut Writer<'_>, will: &Will) {
    w.text(will.topic.as_str());
    w.byte(will.qos as u8 | u8::from(will.retain) << 2);
    w.maybe(will.properties.delay_seconds.map(u64::from));
}

fn read_will(r: &mut Reader<'_>, body: LogBody<'_>) -> Option<Will> {
    let (payload, properties) = body.unwrap_or_default();
    let topic = topic(r)?;
    let flags = r.byte().filter(|flags| *flags < 8)?;
    let delay_seconds = match r.maybe()? {
        Some(seconds) => Some(u32::try_from(seconds).ok()?),
        None => None,
    };
    let publish = decode_forwarded(properties).ok()?;
    Some(Will {
        topic,
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::from_bits(flags & 3)?,
        retain: flags & 4 > 0,
        properties: WillProperties { delay_seconds, publish },
    })
}

#[cfg(test)]
mod tests;

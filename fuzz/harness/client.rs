//! A client that keeps the rules, remembers what the specification has it remember, and checks
//! every packet of the broker against that.
//!
//! What it checks: nothing arrives or is acknowledged before it is on disk (I4); only what it may
//! read and asked for (I1); its session is nobody else's (I3); QoS 2 arrives once and in order;
//! its Receive Maximum and the bound on unwritten bytes hold; what was acknowledged to a publisher
//! arrives, unless the broker counted it as dropped; a token serves until its end, and the one that
//! renews it only once that is on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use avow::broker::ConnectionId;
use avow::mqtt::{
    Ack, ConnAck, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    SubAck, SubscriptionOptions, TopicFilter, TopicName, UnsubAck,
};
use avow::time::UnixNanos;
use bytes::Bytes;

use super::plant::bounds;

pub(crate) const TOPICS: [&str; 4] = ["t/a", "t/b", "t/secret/x", "no/y"];
const IDS_MAX: u16 = 8;

/// A connection that the client has not given up.
pub(crate) struct Live {
    pub(crate) connection: ConnectionId,
    /// Since CONNACK.
    pub(crate) is_connected: bool,
    /// Whether the shell does not read it.
    pub(crate) is_paused: bool,
    pub(crate) clean_start: bool,
    /// Whether the session ends with it.
    pub(crate) expires: bool,
    /// Whether CONNACK must say Session Present.
    pub(crate) is_resumed: bool,
    /// Whether CONNACK must not say so: the client never had a session.
    pub(crate) is_new: bool,
    /// What the broker may send without an acknowledgement.
    pub(crate) window: usize,
    /// Bytes of deliveries that the socket has not taken.
    pub(crate) unwritten: usize,
    /// What was received on this connection and not yet finally acknowledged.
    pub(crate) in_flight: BTreeSet<PacketId>,
    /// Batches asked for before CONNECT: that of its entry comes later.
    pub(crate) batches_before: u64,
    /// What was sent while the shell did not read.
    pub(crate) held: Vec<Packet>,
    /// The token that names it, if no certificate does.
    pub(crate) token: Option<Token>,
}

/// The token of a connection.
pub(crate) struct Token {
    /// When the one in force ends.
    pub(crate) end: UnixNanos,
    /// The end has passed, and the broker had its chance to say so.
    pub(crate) is_over: bool,
    /// Whether AUTH may renew it.
    pub(crate) renews: bool,
    /// The ends of those that were sent and not accepted yet, and the batches asked for before.
    pub(crate) renewing: VecDeque<(UnixNanos, u64)>,
}

/// Where a message of the client's own stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Published,
    Released,
}

/// A message of the client's own that is not yet finally acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) payload: u64,
    pub(crate) topic: &'static str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Clears what is retained.
    pub(crate) is_empty: bool,
    pub(crate) stage: Stage,
}

impl Sending {
    pub(crate) fn packet(&self, dup: bool) -> Packet {
        let payload = if self.is_empty { String::new() } else { self.payload.to_string() };
        Packet::Publish(Box::new(Publish {
            dup: dup && self.qos > QoS::AtMostOnce,
            qos: self.qos,
            retain: self.retain,
            topic: Some(TopicName::parse(self.topic).expect("a topic")),
            packet_id: self.packet_id,
            properties: PublishProperties::default(),
            payload: Bytes::from(payload),
        }))
    }
}

/// What the client owes the broker.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::enum_variant_names, reason = "the names of the packets")]
pub(crate) enum Answer {
    PubAck(PacketId),
    PubRec(PacketId),
    PubRel(PacketId),
    PubComp(PacketId),
}

enum Request {
    Subscribe(&'static str, SubscriptionOptions),
    Unsubscribe(&'static str),
}

/// One client.
pub(crate) struct Client {
    number: usize,
    pub(crate) version: ProtocolVersion,
    pub(crate) live: Option<Live>,
    /// It broke the rules: its session is worth nothing.
    pub(crate) is_rude: bool,
    /// It does not know what session it would resume, so that it asks for a clean one until it has
    /// one.
    pub(crate) needs_clean: bool,
    pub(crate) sending: Vec<Sending>,
    pub(crate) answers: Vec<Answer>,
    /// QoS 2 messages received and not released, by identifier.
    incoming: BTreeMap<PacketId, Bytes>,
    requests: BTreeMap<PacketId, Request>,
    /// Filters that were ever asked for in this session, and those that are surely in force.
    asked: BTreeSet<&'static str>,
    filters: BTreeMap<&'static str, (TopicFilter, SubscriptionOptions)>,
    /// QoS 2 payloads that came in this session, and the last one by topic and author.
    seen: BTreeSet<u64>,
    last: BTreeMap<(String, usize), u64>,
    /// Author of every message, unless it is retained.
    authors: BTreeMap<u64, usize>,
    retained: BTreeSet<u64>,
    owed_if_acknowledged: BTreeSet<u64>,
    owed: BTreeSet<u64>,
    given_up: u64,
    may_have_session: bool,
    must_have_session: bool,
}

impl Client {
    pub(crate) fn new(number: usize, version: ProtocolVersion) -> Self {
        Self {
            number,
            version,
            live: None,
            is_rude: false,
            needs_clean: false,
            sending: Vec::new(),
            answers: Vec::new(),
            incoming: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked: BTreeSet::new(),
            filters: BTreeMap::new(),
            seen: BTreeSet::new(),
            last: BTreeMap::new(),
            authors: BTreeMap::new(),
            retained: BTreeSet::new(),
            owed_if_acknowledged: BTreeSet::new(),
            owed: BTreeSet::new(),
            given_up: 0,
            may_have_session: false,
            must_have_session: false,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_connected)
    }

    /// An identifier that is not in use.
    pub(crate) fn free_id(&self) -> Option<PacketId> {
        let used = |id: &PacketId| {
            self.requests.contains_key(id)
                || self.sending.iter().any(|sending| sending.packet_id == Some(*id))
        };
        (1..=IDS_MAX).filter_map(PacketId::new).find(|id| !used(id))
    }

    // --- What it does ---------------------------------------------------------------------------

    /// CONNECT leaves: what it means for the session.
    pub(crate) fn connecting(&mut self, mut live: Live) {
        if live.clean_start {
            self.lost();
            self.needs_clean = true;
        }
        live.is_resumed = self.must_have_session;
        live.is_new = !self.may_have_session;
        // From here on there may be one, even if its CONNACK is never seen.
        self.may_have_session = true;
        // Nobody knows when a connection ends that was never acknowledged.
        self.must_have_session &= !live.expires;
        self.live = Some(live);
    }

    pub(crate) fn broke_the_rules(&mut self) {
        self.is_rude = true;
        self.needs_clean = true;
        self.owed.clear();
        self.owed_if_acknowledged.clear();
    }

    /// The connection is gone.
    pub(crate) fn ended(&mut self) {
        if let Some(live) = self.live.take().filter(|live| live.expires) {
            // Its CONNECT may have ended a session that it never heard of.
            self.needs_clean |= !live.is_connected;
            self.lost();
        }
        self.answers.clear();
        self.requests.clear();
    }

    /// The session is gone.
    pub(crate) fn lost(&mut self) {
        self.sending.clear();
        self.incoming.clear();
        self.asked.clear();
        self.filters.clear();
        self.seen.clear();
        self.last.clear();
        self.owed.clear();
        self.owed_if_acknowledged.clear();
        self.must_have_session = false;
    }

    /// The broker began again, on what is on disk: it counts anew and forgets nothing.
    pub(crate) fn restarted(&mut self) {
        self.ended();
        self.given_up = 0;
    }

    /// Whatever came at `now` or before has been seen: from here on a token that has ended must serve
    /// for nothing.
    pub(crate) fn seen_until(&mut self, now: UnixNanos) {
        if let Some(token) = self.live.as_mut().and_then(|live| live.token.as_mut()) {
            token.is_over |= token.end <= now;
        }
    }

    pub(crate) fn time_passed(&mut self) {
        self.must_have_session = false;
        if let Some(live) = &mut self.live {
            live.is_resumed = false;
        }
    }

    /// A message is on its way that this client may have asked for.
    pub(crate) fn expect(&mut self, sending: &Sending, author: usize) {
        self.authors.insert(sending.payload, author);
        if sending.retain {
            self.retained.insert(sending.payload);
        }
        let name = TopicName::parse(sending.topic).expect("a topic");
        let own = author == self.number;
        let asked = self.filters.values().any(|(filter, options)| {
            let wanted = options.qos > QoS::AtMostOnce && !(own && options.no_local);
            wanted && filter.share().is_none() && filter.matches(&name)
        });
        let counts = sending.qos > QoS::AtMostOnce && !sending.is_empty && !self.is_rude;
        if asked && counts && self.may_read(sending.topic) {
            self.owed_if_acknowledged.insert(sending.payload);
        }
    }

    /// The message was acknowledged to its publisher.
    pub(crate) fn acknowledged(&mut self, payload: u64, accepted: bool) {
        if self.owed_if_acknowledged.remove(&payload) && accepted {
            self.owed.insert(payload);
        }
    }

    /// The broker counted this many copies that it dropped: any of them may have been owed.
    pub(crate) fn given_up(&mut self, count: u64) {
        if count != self.given_up {
            self.given_up = count;
            self.owed.clear();
            self.owed_if_acknowledged.clear();
        }
    }

    pub(crate) fn subscribing(
        &mut self,
        packet_id: PacketId,
        filter: &'static str,
        options: SubscriptionOptions,
    ) {
        self.asked.insert(filter);
        self.filters.remove(filter);
        self.requests.insert(packet_id, Request::Subscribe(filter, options));
    }

    pub(crate) fn unsubscribing(&mut self, packet_id: PacketId, filter: &'static str) {
        self.filters.remove(filter);
        self.requests.insert(packet_id, Request::Unsubscribe(filter));
    }

    /// The packet that is owed; `refuses` ends a QoS 2 message instead.
    pub(crate) fn answer(&mut self, answer: Answer, refuses: bool) -> Packet {
        let done = |live: &mut Option<Live>, id: PacketId| {
            if let Some(live) = live {
                live.in_flight.remove(&id);
            }
        };
        match answer {
            Answer::PubAck(id) => {
                done(&mut self.live, id);
                Packet::PubAck(Ack::new(id, ReasonCode::Success))
            }
            Answer::PubRec(id) if refuses => {
                done(&mut self.live, id);
                self.incoming.remove(&id);
                Packet::PubRec(Ack::new(id, ReasonCode::UnspecifiedError))
            }
            Answer::PubRec(id) => Packet::PubRec(Ack::new(id, ReasonCode::Success)),
            Answer::PubRel(id) => Packet::PubRel(Ack::new(id, ReasonCode::Success)),
            Answer::PubComp(id) => {
                done(&mut self.live, id);
                Packet::PubComp(Ack::new(id, ReasonCode::Success))
            }
        }
    }

    // --- What it receives -----------------------------------------------------------------------

    /// CONNACK; what must be sent again.
    pub(crate) fn connected(&mut self, connack: &ConnAck, batches_synced: u64) -> Vec<Packet> {
        let live = self.live.as_mut().expect("CONNACK comes to a connection");
        assert!(!live.is_connected, "a second CONNACK");
        if connack.reason.is_error() {
            return Vec::new();
        }
        assert!(batches_synced > live.batches_before, "CONNACK before its entry is on disk");
        let present = connack.session_present;
        assert!(!present || !live.clean_start, "a session that was to be clean");
        assert!(!present || !live.is_new, "a session of somebody else");
        assert!(present || !live.is_resumed, "a session was forgotten");
        live.is_connected = true;
        let expires = live.expires;
        if live.clean_start {
            (self.needs_clean, self.is_rude) = (false, false);
        }
        if !present {
            self.lost();
        }
        self.must_have_session = !expires;
        let again = |sending: &Sending| match (sending.stage, sending.packet_id) {
            (Stage::Released, Some(id)) => Packet::PubRel(Ack::new(id, ReasonCode::Success)),
            _ => sending.packet(true),
        };
        self.sending.iter().map(again).collect()
    }

    /// AUTH 0x00: the oldest token that was sent is in force.
    pub(crate) fn renewed(&mut self, batches_synced: u64) {
        self.check_token();
        let token = self.live.as_mut().and_then(|live| live.token.as_mut());
        let renewed = token.and_then(|token| {
            let (end, batches_before) = token.renewing.pop_front()?;
            token.end = end;
            Some(batches_before)
        });
        match renewed {
            Some(before) => assert!(batches_synced > before, "renewed before it is on disk"),
            None => assert!(self.is_rude, "AUTH of nothing"),
        }
    }

    /// Nothing is answered or delivered to whoever has no token any more.
    fn check_token(&self) {
        let token = self.live.as_ref().and_then(|live| live.token.as_ref());
        assert!(token.is_none_or(|token| !token.is_over), "its token has ended");
    }

    fn sending_of(&self, id: PacketId, qos: QoS, stage: Stage) -> Option<usize> {
        let at = self.sending.iter().position(|sending| {
            sending.packet_id == Some(id) && sending.qos == qos && sending.stage == stage
        });
        assert!(at.is_some() || self.is_rude, "an acknowledgement of nothing: {id:?}");
        at
    }

    /// PUBACK: the message, and whether it was accepted.
    pub(crate) fn puback(&mut self, ack: &Ack, synced: &BTreeSet<Vec<u8>>) -> Option<(u64, bool)> {
        let at = self.sending_of(ack.packet_id, QoS::AtLeastOnce, Stage::Published)?;
        let sending = self.sending.remove(at);
        Some(check_durable(&sending, ack.reason, synced))
    }

    /// PUBREC, likewise.
    pub(crate) fn pubrec(&mut self, ack: &Ack, synced: &BTreeSet<Vec<u8>>) -> Option<(u64, bool)> {
        let at = self.sending_of(ack.packet_id, QoS::ExactlyOnce, Stage::Published)?;
        let result = check_durable(&self.sending[at], ack.reason, synced);
        if ack.reason.is_error() {
            self.sending.remove(at);
        } else {
            self.sending[at].stage = Stage::Released;
            self.answers.push(Answer::PubRel(ack.packet_id));
        }
        Some(result)
    }

    pub(crate) fn pubcomp(&mut self, ack: &Ack) {
        if let Some(at) = self.sending_of(ack.packet_id, QoS::ExactlyOnce, Stage::Released) {
            self.sending.remove(at);
        }
    }

    pub(crate) fn pubrel(&mut self, ack: &Ack) {
        self.incoming.remove(&ack.packet_id);
        self.answers.push(Answer::PubComp(ack.packet_id));
    }

    pub(crate) fn suback(&mut self, ack: &SubAck) {
        let request = self.requests.remove(&ack.packet_id);
        let Some(Request::Subscribe(filter, mut options)) = request else {
            return assert!(self.is_rude, "a SUBACK of nothing");
        };
        let granted = match ack.reasons[..] {
            [ReasonCode::Success] => QoS::AtMostOnce,
            [ReasonCode::GrantedQoS1] => QoS::AtLeastOnce,
            [ReasonCode::GrantedQoS2] => QoS::ExactlyOnce,
            [reason] if reason.is_error() => return,
            _ => panic!("{ack:?}"),
        };
        options.qos = options.qos.min(granted);
        let parsed = TopicFilter::parse(filter).expect("only a filter is granted");
        self.filters.insert(filter, (parsed, options));
    }

    pub(crate) fn unsuback(&mut self, ack: &UnsubAck) {
        let request = self.requests.remove(&ack.packet_id);
        let Some(Request::Unsubscribe(filter)) = request else {
            return assert!(self.is_rude, "an UNSUBACK of nothing");
        };
        // A SUBACK may have come in between, for what was asked before.
        self.filters.remove(filter);
    }

    /// Bytes of a delivery that the socket has yet to take.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        let live = self.live.as_mut().expect("a delivery comes to a connection");
        assert!(live.unwritten < bounds().outbound_bytes_max as usize, "too much for the socket");
        live.unwritten += bytes;
    }

    fn may_read(&self, topic: &str) -> bool {
        topic.starts_with("t/") && !(self.number == 1 && topic.starts_with("t/secret/"))
    }

    /// PUBLISH.
    pub(crate) fn delivered(&mut self, publish: Publish, synced: &BTreeSet<Vec<u8>>) {
        assert!(self.is_connected(), "a delivery before CONNACK");
        self.check_token();
        let topic = publish.topic.as_ref().expect("we announced no Topic Alias Maximum");
        assert!(self.may_read(topic.as_str()), "{topic:?} must not be read");
        assert!(synced.contains(&publish.payload[..]), "delivered before it is on disk");
        let asked = |filter: &&str| TopicFilter::parse(filter).is_ok_and(|f| f.matches(topic));
        assert!(self.is_rude || self.asked.iter().any(asked), "{topic:?} was never asked for");
        let text = std::str::from_utf8(&publish.payload).expect("a number");
        let payload: Option<u64> = text.parse().ok();
        if let Some(payload) = payload {
            self.owed.remove(&payload);
            self.owed_if_acknowledged.remove(&payload);
        }
        let Some(id) = publish.packet_id else { return };
        self.check_window(id);
        if publish.qos == QoS::AtLeastOnce {
            assert!(!self.incoming.contains_key(&id) || self.is_rude, "{id:?} is in use");
            return self.answers.push(Answer::PubAck(id));
        }
        self.answers.push(Answer::PubRec(id));
        match self.incoming.insert(id, publish.payload.clone()) {
            Some(before) => {
                assert!(publish.dup || self.is_rude, "{id:?} is in use");
                assert!(before == publish.payload || self.is_rude, "{id:?} is another message");
            }
            None => self.check_exactly_once(topic.as_str(), payload),
        }
    }

    fn check_window(&mut self, id: PacketId) {
        if self.is_rude {
            return;
        }
        let live = self.live.as_mut().expect("a delivery comes to a connection");
        assert!(live.in_flight.insert(id), "{id:?} is in use");
        assert!(live.in_flight.len() <= live.window, "more than the Receive Maximum");
    }

    fn check_exactly_once(&mut self, topic: &str, payload: Option<u64>) {
        let Some(payload) = payload.filter(|payload| !self.retained.contains(payload)) else {
            return;
        };
        // What matches a shared and a plain subscription comes once for each.
        if self.is_rude || self.asked.iter().any(|filter| filter.starts_with("$share")) {
            return;
        }
        assert!(self.seen.insert(payload), "{payload} came twice at QoS 2");
        let Some(author) = self.authors.get(&payload) else { return };
        let before = self.last.insert((topic.to_owned(), *author), payload);
        assert!(before < Some(payload), "{payload} came after {before:?}");
    }

    /// Everything is quiet and the network is good.
    pub(crate) fn check_rest(&self) {
        self.check_token();
        if !self.is_connected() || self.is_rude {
            return;
        }
        assert!(self.requests.is_empty(), "requests without an answer");
        assert!(self.sending.is_empty(), "without an acknowledgement: {:?}", self.sending);
        assert!(self.owed.is_empty(), "acknowledged and never delivered: {:?}", self.owed);
    }
}

fn check_durable(sending: &Sending, reason: ReasonCode, synced: &BTreeSet<Vec<u8>>) -> (u64, bool) {
    let accepted = !reason.is_error();
    let payload = sending.payload.to_string();
    let durable = sending.is_empty || synced.contains(payload.as_bytes());
    assert!(durable || !accepted, "acknowledged before it is on disk");
    (sending.payload, accepted)
}

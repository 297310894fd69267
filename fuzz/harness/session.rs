//! A history of two clients and one broker: connect, publish, subscribe, acknowledge, disconnect,
//! reconnect, restart.
//!
//! An input is a header byte (protocol versions, immediate or delayed disk and socket, whether the
//! second client comes by token) and one operation after another. The clients keep the rules, unless
//! an operation says otherwise, and remember what the specification has them remember;
//! [`super::client`] holds what they check at each packet. When the history is over the network is
//! mended and everything must come to rest: nothing owed, nothing unanswered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use avow::broker::{CloseCause, ConnectionId, EventKind, Input, Output};
use avow::mqtt::{
    Auth, AuthProperties, ClientId, Connect, ConnectProperties, Decoded, Decoder, Disconnect,
    DisconnectProperties, Packet, ProtocolVersion, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeFilter, SubscriptionOptions, TopicName, Unsubscribe, Will, WillProperties,
};
use bytes::Bytes;

use super::client::{Client, Live, Sending, Stage, TOPICS, Token};
use super::plant::{Plant, bounds, identity};

const FILTERS: [&str; 10] = [
    "t/#",
    "t/+",
    "t/a",
    "t/secret/x",
    "$share/g/t/#",
    "t/b/#",
    "#",
    "t/#/x",
    "t/secret/#",
    "t/a/#",
];
/// Lifetimes of tokens, in seconds.
const LIFETIMES: [u64; 4] = [1, 10, 60, 300];
const OPERATIONS_MAX: usize = 400;
/// More than any history needs to come to rest.
const SETTLE_ROUNDS_MAX: usize = 2_000;

/// The rest of an input.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.byte().map(|byte| from[usize::from(byte) % from.len()])
    }
}

struct History {
    plant: Plant,
    clients: [Client; 2],
    /// Connections that a client has given up and the broker has not closed.
    stale: BTreeMap<ConnectionId, usize>,
    next_payload: u64,
    /// Whether the second client shows a token instead of a certificate.
    has_token: bool,
    syncs_at_once: bool,
    writes_at_once: bool,
}

impl History {
    fn new(header: u8) -> Self {
        let version = |v3| if v3 { ProtocolVersion::V3_1_1 } else { ProtocolVersion::V5 };
        Self {
            plant: Plant::new(u64::from(header)),
            clients: [
                Client::new(0, version(header & 1 != 0)),
                Client::new(1, version(header & 2 != 0)),
            ],
            stale: BTreeMap::new(),
            next_payload: 1,
            has_token: header & 16 != 0,
            syncs_at_once: header & 4 != 0,
            writes_at_once: header & 8 != 0,
        }
    }

    // --- What clients do ------------------------------------------------------------------------

    fn operation(&mut self, script: &mut Script<'_>) -> Option<()> {
        let operation = script.byte()?;
        let who = usize::from(operation >> 7);
        match operation % 20 {
            0 | 1 => self.connect(who, script.byte()?, script.byte()?),
            2..=5 => self.publish(who, script.byte()?, script.byte()?),
            6 | 7 => self.subscribe(who, script.byte()?, script.byte()?),
            8 => self.unsubscribe(who, script.byte()?),
            9..=11 => self.answer(who, script.byte()?),
            12 => self.disconnect(who, script.byte()?),
            13 => self.drop_connection(who),
            14 => self.rude(who, script)?,
            15 => {
                let unit = script.pick(&[1_u64, 100, 1_000, 10_000, 60_000])?;
                self.pass(Duration::from_millis(unit * (1 + u64::from(operation >> 5))));
            }
            16 if operation > 64 => self.restart(),
            16 | 17 => drop(self.plant.sync()),
            18 => self.written(who),
            _ if self.has_token && who == 1 => self.renew(who, script.byte()?),
            _ => self.send(who, Packet::PingReq),
        }
        self.react();
        Some(())
    }

    fn connect(&mut self, who: usize, flags: u8, detail: u8) {
        let client = &mut self.clients[who];
        if let Some(live) = &client.live {
            self.stale.insert(live.connection, who);
        }
        client.ended();
        let by_token = self.has_token && who == 1;
        let certified = (!by_token).then(|| identity(who, false));
        let connection = self.plant.open(certified.as_ref());
        let shown = by_token.then(|| self.plant.token("x", LIFETIMES[usize::from(flags >> 6)]));
        let is_v5 = client.version.is_v5();
        let clean_start = flags & 1 != 0 || client.needs_clean;
        let expiry = if flags & 2 == 0 { 100 } else { u32::from(detail % 4) };
        let receive_maximum = (flags & 4 != 0).then_some(1 + u16::from(detail >> 4) % 4);
        let maximum_packet_size = (flags & 8 != 0).then_some(24 + u32::from(detail));
        let will = (flags & 16 != 0).then(|| {
            let payload = self.next_payload;
            self.next_payload += 1;
            let delay = (is_v5 && flags & 32 != 0).then_some(u32::from(detail % 16));
            will(payload, QoS::from_bits(detail % 3).unwrap_or_default(), delay)
        });
        let mut properties = ConnectProperties {
            session_expiry_seconds: Some(expiry),
            receive_maximum,
            maximum_packet_size,
            ..Default::default()
        };
        // By the method, or in the password field.
        let renews = is_v5 && detail & 4 == 0;
        let (text, end) = shown.unzip();
        let (data, password) = if renews { (text, None) } else { (None, text) };
        properties.authentication_method = data.is_some().then(|| "JWT".to_owned());
        properties.authentication_data = data.map(Bytes::from);
        let token = end.map(|end| Token { end, is_over: false, renews, renewing: VecDeque::new() });
        let window = bounds().send_window_messages_max;
        let wish = receive_maximum.filter(|_| is_v5);
        client.connecting(Live {
            connection,
            is_connected: false,
            is_paused: true,
            clean_start,
            expires: if is_v5 { expiry == 0 } else { clean_start },
            is_resumed: false,
            is_new: false,
            window: usize::from(wish.unwrap_or(window).min(window)),
            unwritten: 0,
            in_flight: BTreeSet::new(),
            batches_before: self.plant.batches.0,
            held: Vec::new(),
            token,
        });
        let connect = Connect {
            version: client.version,
            clean_start,
            keep_alive_seconds: 60,
            // The same text for both: a session belongs to an identity *and* a Client Identifier.
            client_id: ClientId::new("x"),
            will,
            user_name: password.is_some().then(|| "x".to_owned()),
            password: password.map(Bytes::from),
            properties: if is_v5 { properties } else { Default::default() },
        };
        let packets = vec![Packet::Connect(Box::new(connect))];
        self.plant.input(Input::Packets { connection, packets });
    }

    fn publish(&mut self, who: usize, what: u8, how: u8) {
        let client = &mut self.clients[who];
        if !client.is_connected() {
            return;
        }
        let qos = QoS::from_bits(how % 3).unwrap_or_default();
        let packet_id = client.free_id();
        let full = client.sending.len() >= usize::from(bounds().receive_maximum);
        let has_id = qos > QoS::AtMostOnce;
        if has_id && (full || packet_id.is_none()) {
            return;
        }
        let (payload, topic) = (self.next_payload, TOPICS[usize::from(what) % TOPICS.len()]);
        self.next_payload += 1;
        let retain = how & 64 != 0;
        let sending = Sending {
            packet_id: packet_id.filter(|_| has_id),
            payload,
            topic,
            qos,
            retain,
            // Clears what is retained.
            is_empty: retain && how & 128 != 0,
            stage: Stage::Published,
        };
        let packet = sending.packet(false);
        for reader in &mut self.clients {
            reader.expect(&sending, who);
        }
        if has_id {
            self.clients[who].sending.push(sending);
        }
        self.send(who, packet);
    }

    fn subscribe(&mut self, who: usize, what: u8, how: u8) {
        let client = &mut self.clients[who];
        let Some(packet_id) = client.free_id().filter(|_| client.is_connected()) else { return };
        let filter = FILTERS[usize::from(what) % FILTERS.len()];
        let is_v5 = client.version.is_v5();
        let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let mut options = SubscriptionOptions {
            qos: QoS::from_bits(how % 3).unwrap_or_default(),
            ..Default::default()
        };
        if is_v5 {
            options.no_local = how & 4 != 0 && !filter.starts_with("$share");
            options.retain_as_published = how & 8 != 0;
            options.retain_handling = handling[usize::from(how >> 4) % 3];
        }
        client.subscribing(packet_id, filter, options);
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier: (is_v5 && how & 128 != 0).then_some(u32::from(how)),
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter { filter: filter.to_owned(), options }],
        };
        self.send(who, Packet::Subscribe(Box::new(subscribe)));
    }

    fn unsubscribe(&mut self, who: usize, what: u8) {
        let client = &mut self.clients[who];
        let Some(packet_id) = client.free_id().filter(|_| client.is_connected()) else { return };
        let filter = FILTERS[usize::from(what) % FILTERS.len()];
        client.unsubscribing(packet_id, filter);
        let filters = vec![filter.to_owned()];
        let packet = Unsubscribe { packet_id, user_properties: Vec::new(), filters };
        self.send(who, Packet::Unsubscribe(Box::new(packet)));
    }

    /// Sends the oldest answer that a client owes, or refuses the message at QoS 2.
    fn answer(&mut self, who: usize, how: u8) {
        let client = &mut self.clients[who];
        if !client.is_connected() || client.answers.is_empty() {
            return;
        }
        let answer = client.answers.remove(0);
        let refuses = client.version.is_v5() && how > 250;
        let packet = client.answer(answer, refuses);
        self.send(who, packet);
    }

    fn disconnect(&mut self, who: usize, how: u8) {
        let client = &mut self.clients[who];
        if !client.is_connected() {
            return;
        }
        let reason = match (client.version.is_v5(), how % 2) {
            (true, 1) => ReasonCode::DisconnectWithWill,
            _ => ReasonCode::Success,
        };
        let disconnect = Disconnect { reason, properties: DisconnectProperties::default() };
        self.send(who, Packet::Disconnect(Box::new(disconnect)));
        self.give_up(who);
    }

    fn drop_connection(&mut self, who: usize) {
        let Some(live) = &self.clients[who].live else { return };
        let connection = live.connection;
        self.plant.input(Input::Closed { connection, cause: CloseCause::Peer });
        self.clients[who].ended();
    }

    /// Sends another token for the one that names a client; now and then one of somebody else.
    fn renew(&mut self, who: usize, how: u8) {
        let Some(live) = self.clients[who].live.as_mut().filter(|live| live.is_connected) else {
            return;
        };
        let Some(renewed) = live.token.as_mut().filter(|token| token.renews) else { return };
        let is_own = how < 240;
        let lifetime = LIFETIMES[usize::from(how) % LIFETIMES.len()];
        let (token, end) = self.plant.token(if is_own { "x" } else { "y" }, lifetime);
        if is_own {
            renewed.renewing.push_back((end, self.plant.batches.0));
        }
        let properties = AuthProperties {
            authentication_method: Some("JWT".to_owned()),
            authentication_data: Some(Bytes::from(token)),
            ..Default::default()
        };
        let reason = ReasonCode::ReAuthenticate;
        self.send(who, Packet::Auth(Box::new(Auth { reason, properties })));
    }

    /// Whatever packet the next bytes are, as a client sends it that keeps no rule.
    fn rude(&mut self, who: usize, script: &mut Script<'_>) -> Option<()> {
        let count = usize::from(script.byte()? % 32);
        let (bytes, rest) = script.0.split_at_checked(count)?;
        script.0 = rest;
        let client = &mut self.clients[who];
        let Some(live) = client.live.as_ref().filter(|live| live.is_connected) else {
            return Some(());
        };
        let connection = live.connection;
        client.broke_the_rules();
        let mode = if client.version.is_v5() { 3 } else { 2 };
        let mut decoder: Decoder = super::decode::decoder(mode, 1 << 17);
        match decoder.decode(bytes) {
            Ok(Decoded::Packet { packet, .. }) => {
                self.plant.input(Input::Packets { connection, packets: vec![packet] });
            }
            Ok(Decoded::Incomplete { .. }) => {}
            Err(violation) => {
                let version = decoder.version();
                self.plant.input(Input::Violated { connection, violation, version });
            }
        }
        Some(())
    }

    fn written(&mut self, who: usize) {
        let Some(live) = &mut self.clients[who].live else { return };
        let (connection, bytes) = (live.connection, std::mem::take(&mut live.unwritten));
        if bytes > 0 {
            self.plant.input(Input::Written { connection, bytes });
        }
    }

    fn pass(&mut self, duration: Duration) {
        for client in &mut self.clients {
            client.time_passed();
        }
        self.plant.pass(duration);
    }

    fn restart(&mut self) {
        self.plant.restart();
        self.stale.clear();
        for client in &mut self.clients {
            client.restarted();
        }
    }

    /// A client sends what the shell may read now, or later.
    fn send(&mut self, who: usize, packet: Packet) {
        let Some(live) = self.clients[who].live.as_mut().filter(|live| live.is_connected) else {
            return;
        };
        if live.is_paused {
            live.held.push(packet);
        } else {
            let connection = live.connection;
            self.plant.input(Input::Packets { connection, packets: vec![packet] });
        }
    }

    /// The client is gone; the broker finds out by itself.
    fn give_up(&mut self, who: usize) {
        if let Some(live) = &self.clients[who].live {
            self.stale.insert(live.connection, who);
            self.clients[who].ended();
        }
    }

    // --- What the broker does -------------------------------------------------------------------

    /// Plays on until the broker asks for nothing more; true if anything happened.
    fn react(&mut self) -> bool {
        let mut happened = false;
        for _ in 0..SETTLE_ROUNDS_MAX {
            let outputs = self.plant.round();
            let mut quiet = outputs.is_empty();
            for output in outputs {
                self.output(output);
            }
            if self.syncs_at_once && self.plant.sync() {
                quiet = false;
            }
            if self.writes_at_once {
                let unwritten = |client: &Client| client.live.as_ref().map_or(0, |l| l.unwritten);
                quiet &= self.clients.iter().all(|client| unwritten(client) == 0);
                self.written(0);
                self.written(1);
            }
            self.check_bounds();
            if quiet {
                let now = self.plant.now.unix;
                self.clients.iter_mut().for_each(|client| client.seen_until(now));
                return happened;
            }
            happened = true;
        }
        panic!("the broker never rests");
    }

    fn check_bounds(&mut self) {
        let bounds = bounds();
        let counters = self.plant.broker.counters();
        assert!(counters.sessions_live <= u64::from(bounds.sessions_total_max));
        assert!(counters.subscriptions_live <= u64::from(bounds.subscriptions_total_max));
        assert!(counters.retained_live <= u64::from(bounds.retained_messages_max));
        let given_up = counters.deliveries_dropped + counters.deliveries_withheld;
        for client in &mut self.clients {
            client.given_up(given_up);
        }
    }

    fn whose(&self, connection: ConnectionId) -> Option<usize> {
        let is_live = |client: &Client| {
            client.live.as_ref().is_some_and(|live| live.connection == connection)
        };
        self.clients.iter().position(is_live)
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { connection, packet } => {
                if let Some(who) = self.whose(connection) {
                    self.received(who, packet);
                }
            }
            Output::Deliver { connection, publish, dup, packet_id } => {
                let Some(who) = self.whose(connection) else { return };
                let mut bytes = Vec::new();
                publish.write_to(dup, packet_id, &mut bytes);
                let client = &mut self.clients[who];
                client.wrote(bytes.len());
                let mut decoder = Decoder::client(client.version, usize::MAX);
                let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) =
                    decoder.decode(&bytes)
                else {
                    panic!("what is delivered is a PUBLISH")
                };
                client.delivered(*publish, &self.plant.synced);
            }
            Output::Pause { connection } => {
                if let Some(who) = self.whose(connection)
                    && let Some(live) = &mut self.clients[who].live
                {
                    live.is_paused = true;
                }
            }
            Output::Resume { connection } => {
                let Some(who) = self.whose(connection) else { return };
                let Some(live) = &mut self.clients[who].live else { return };
                live.is_paused = false;
                let packets = std::mem::take(&mut live.held);
                self.plant.input(Input::Packets { connection, packets });
            }
            Output::Close { connection } => {
                self.stale.remove(&connection);
                if let Some(who) = self.whose(connection) {
                    self.clients[who].ended();
                }
                self.plant.input(Input::Closed { connection, cause: CloseCause::Ours });
            }
            Output::Event(event) if event.kind == EventKind::Violated => {
                let is_of = |who: usize| identity(who, self.has_token && who == 1);
                let who = (0..2).find(|who| event.identity == Some(is_of(*who)));
                let is_rude = who.is_some_and(|who| self.clients[who].is_rude);
                assert!(is_rude, "a client that kept the rules broke them: {event:?}");
            }
            Output::Event(_) | Output::Administered { .. } => {}
            // Nobody has a certificate whose key could sign.
            Output::Verify { .. } | Output::Sequence { .. } | Output::Stopped => {
                panic!("{output:?}")
            }
        }
    }

    fn received(&mut self, who: usize, packet: Packet) {
        let client = &mut self.clients[who];
        match packet {
            Packet::ConnAck(connack) => {
                for packet in client.connected(&connack, self.plant.batches.1) {
                    self.send(who, packet);
                }
            }
            Packet::PubAck(ack) => {
                let acknowledged = client.puback(&ack, &self.plant.synced);
                self.acknowledged(acknowledged);
            }
            Packet::PubRec(ack) => {
                let acknowledged = client.pubrec(&ack, &self.plant.synced);
                self.acknowledged(acknowledged);
            }
            Packet::PubComp(ack) => client.pubcomp(&ack),
            Packet::PubRel(ack) => client.pubrel(&ack),
            Packet::SubAck(ack) => client.suback(&ack),
            Packet::UnsubAck(ack) => client.unsuback(&ack),
            Packet::PingResp => {}
            Packet::Auth(auth) => {
                assert_eq!(auth.reason, ReasonCode::Success);
                client.renewed(self.plant.batches.1);
            }
            Packet::Disconnect(disconnect) => {
                let reason = disconnect.reason;
                assert_ne!(reason, ReasonCode::SessionTakenOver, "a live connection, taken over");
            }
            other => panic!("a broker sent {other:?}"),
        }
    }

    /// A message was acknowledged: whoever it is owed to must receive it.
    fn acknowledged(&mut self, payload: Option<(u64, bool)>) {
        let Some((payload, accepted)) = payload else { return };
        for client in &mut self.clients {
            client.acknowledged(payload, accepted);
        }
    }

    // --- The end --------------------------------------------------------------------------------

    /// Mends everything and waits for rest.
    fn settle(&mut self) {
        self.syncs_at_once = true;
        self.writes_at_once = true;
        self.react();
        for who in 0..2 {
            if self.clients[who].live.is_none() {
                self.connect(who, 0, 0);
            }
        }
        for _ in 0..SETTLE_ROUNDS_MAX {
            let mut happened = self.react();
            for who in 0..2 {
                happened |=
                    !self.clients[who].answers.is_empty() && self.clients[who].is_connected();
                self.answer(who, 0);
            }
            if !happened {
                break;
            }
        }
        for client in &self.clients {
            client.check_rest();
        }
    }
}

fn will(payload: u64, qos: QoS, delay_seconds: Option<u32>) -> Will {
    Will {
        topic: TopicName::parse("t/will").expect("a topic"),
        payload: Bytes::from(payload.to_string()),
        qos,
        retain: false,
        properties: WillProperties { delay_seconds, ..Default::default() },
    }
}

/// One input.
pub(crate) fn run(data: &[u8]) {
    let Some((&header, rest)) = data.split_first() else { return };
    let mut history = History::new(header);
    history.react();
    history.plant.sync();
    let mut script = Script(rest);
    for _ in 0..OPERATIONS_MAX {
        if history.operation(&mut script).is_none() {
            break;
        }
    }
    history.settle();
}

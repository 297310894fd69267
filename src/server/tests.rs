//! A whole server, over the loopback, with certificates of a test plant.

#![expect(clippy::disallowed_methods, reason = "the client's sockets, and waiting for them")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::testing::{Site, durable, log_key, make_broker, now};
use super::*;
use crate::limits::{AddressLimiter, LimitsConfig};
use crate::mqtt::{
    ClientId, Connect, ConnectProperties, Decoded, Decoder, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscriptionOptions,
    TopicName, encode,
};
use crate::storage::{Reader, RealDisk, Until};

/// A writer that forgets.
fn forgetful(_: WriterEvents) -> Result<RunningWriter, Fault> {
    Ok(RunningWriter {
        submit: Arc::new(|_, _| Submitted::Taken),
        stop: Box::new(|| Ok(())),
        stats: Arc::new(WriterStats::default),
    })
}

/// A CONNECT that asks for nothing in particular.
pub(super) fn connect_packet(version: ProtocolVersion, name: &str) -> Packet {
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: true,
        keep_alive_seconds: 60,
        client_id: ClientId::new(name),
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }))
}

pub(super) fn options(site: &Site) -> ServerOptions {
    ServerOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Arc::clone(&site.tls),
        proxy: None,
        websocket: None,
        issuers: Arc::clone(&site.issuers),
        address_limiter: AddressLimiter::new(&many_connects()),
        shards: 1,
        bounds: Bounds::default(),
        clock: Clock::start_at(now().unix),
        metrics: Some(MetricsOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            allow_non_loopback: false,
        }),
        handle_signals: false,
    }
}

/// A server that forgets what it records.
fn start(options: ServerOptions) -> Result<Running, Fault> {
    Server::start(options, Core { broker: make_broker(), writer: Box::new(forgetful) })
}

/// A server that records in `directory`.
fn start_durable(options: ServerOptions, directory: &std::path::Path) -> Running {
    let writer = Box::new(durable(directory));
    Server::start(options, Core { broker: make_broker(), writer }).unwrap()
}

fn many_connects() -> LimitsConfig {
    LimitsConfig {
        connects_per_second: 100_000,
        connects_burst: 100_000,
        ..LimitsConfig::default()
    }
}

/// A client that speaks 5.0.
struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: Decoder,
    read: Vec<u8>,
}

impl Client {
    fn connect(site: &Site, name: &str, address: SocketAddr) -> Self {
        let stream = connect(&site.client(name), address).unwrap();
        let decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
        let mut client = Self { stream, decoder, read: Vec::new() };
        client.send(&[connect_packet(ProtocolVersion::V5, name)]);
        match client.next() {
            Some(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success => client,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, packets: &[Packet]) {
        let mut bytes = Vec::new();
        for packet in packets {
            encode(packet, ProtocolVersion::V5, &mut bytes).unwrap();
        }
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next packet, or `None` at the end.
    fn next(&mut self) -> Option<Packet> {
        loop {
            let decoded = self.decoder.decode(&self.read);
            let decoded =
                decoded.unwrap_or_else(|violation| panic!("{violation}: {:02x?}", self.read));
            if let Decoded::Packet { packet, consumed } = decoded {
                self.read.drain(..consumed);
                return Some(packet);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                length => self.read.extend_from_slice(&chunk[..length]),
            }
        }
    }
}

fn publish(topic: &str, id: u16) -> Packet {
    publish_with(topic, id, &[b'x'; 128])
}

fn publish_with(topic: &str, id: u16, payload: &[u8]) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(TopicName::parse(topic).unwrap()),
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: payload.to_vec().into(),
    }))
}

fn subscribe(filter: &str) -> Packet {
    Packet::Subscribe(Box::new(Subscribe {
        packet_id: PacketId::ONE,
        subscription_identifier: None,
        user_properties: Vec::new(),
        filters: vec![SubscribeFilter {
            filter: filter.to_owned(),
            options: SubscriptionOptions::default(),
        }],
    }))
}

/// Every entry of the log in `directory`.
pub(super) fn entries(directory: &std::path::Path) -> Vec<serde_json::Value> {
    let verifier = log_key().verifier().clone();
    let reader = Reader::open(RealDisk::new(directory), &verifier, Until::Checkpoint).unwrap();
    let entries = reader.entries(0);
    entries.map(|entry| serde_json::from_slice(&entry.unwrap().json).unwrap()).collect()
}

#[test]
fn a_message_goes_through_the_whole_line_and_a_stop_leaves_it_proven() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let running = start_durable(options(&site), directory.path());
    let mut client = Client::connect(&site, "press-7", running.local_addr());
    client.send(&[subscribe("plant/press-7/sealed/#")]);
    assert!(matches!(client.next(), Some(Packet::SubAck(_))));
    client.send(&[publish("plant/press-7/sealed/a", 2), publish("plant/press-8/sealed/a", 3)]);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match client.next() {
            Some(Packet::PubAck(ack)) => format!("ack {} {:?}", ack.packet_id.as_u16(), ack.reason),
            Some(Packet::Publish(publish)) => format!("publish {} bytes", publish.payload.len()),
            other => panic!("{other:?}"),
        });
    }
    seen.sort();
    assert_eq!(seen, ["ack 2 Success", "ack 3 NotAuthorized", "publish 128 bytes"]);
    let snapshot = running.handle().snapshot().unwrap();
    assert_eq!(snapshot.counters.publishes_recorded, 1);
    running.stop();
    assert!(matches!(client.next(), Some(Packet::Disconnect(_))), "every session is told");
    assert!(client.next().is_none());
    running.wait().unwrap();

    let entries = entries(directory.path());
    let kinds: Vec<&str> = entries.iter().filter_map(|entry| entry["type"].as_str()).collect();
    assert_eq!(kinds.first(), Some(&"start"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"stop"), "{kinds:?}");
    assert!(kinds.contains(&"publish"), "{kinds:?}");
}

#[test]
fn an_unknown_protocol_level_is_refused_in_the_form_that_its_client_reads() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let running = start_durable(options(&site), directory.path());
    for (connect_bytes, connack) in [
        // [MQTT-3.1.2-2] of 3.1.1
        (&b"\x10\x0D\x00\x04MQTT\x03\x02\x00\x3C\x00\x01c"[..], &b"\x20\x02\x00\x01"[..]),
        (b"\x10\x0F\x00\x06MQIsdp\x04\x02\x00\x3C\x00\x01c", b"\x20\x02\x00\x01"),
        // [MQTT-3.1.2-2] of 5.0
        (b"\x10\x0E\x00\x04MQTT\x06\x02\x00\x3C\x00\x00\x01c", b"\x20\x03\x00\x84\x00"),
        // Another protocol's name is answered by nothing. [MQTT-3.1.2-1]
        (b"\x10\x0E\x00\x04MQTX\x05\x02\x00\x3C\x00\x00\x01c", b""),
    ] {
        let mut stream = connect(&site.client("press-7"), running.local_addr()).unwrap();
        stream.write_all(connect_bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, connack, "to {connect_bytes:02x?}");
    }
}

#[test]
fn a_panic_in_the_task_of_a_connection_ends_that_connection_alone() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let running = start_durable(options(&site), directory.path());
    let mut neighbour = Client::connect(&site, "press-8", running.local_addr());
    for _ in 0..2 {
        let mut broken = Client::connect(&site, "press-7", running.local_addr());
        broken.send(&[publish_with("plant/press-7/sealed/a", 1, connection::tests::PANIC)]);
        assert!(is_closed(&mut broken.stream));
        neighbour.send(&[publish("plant/press-8/sealed/a", 2)]);
        assert!(matches!(neighbour.next(), Some(Packet::PubAck(_))), "its neighbour is served");
    }
    let counters = running.handle().snapshot().unwrap().counters;
    assert_eq!((counters.connections_failed, counters.connections_live), (2, 1));
    running.stop();
    running.wait().unwrap();
    let entries = entries(directory.path());
    let failed = entries.iter().filter(|entry| entry["how"] == "fault.task");
    let who: Vec<_> = failed.map(|entry| entry["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["device/press-7", "device/press-7"]);
}

/// What two shards do: each its own identities, all in one log. (They do not route to one another.)
#[test]
fn two_shards_share_the_identities_and_one_log() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let mut options = options(&site);
    options.shards = 2;
    let running = start_durable(options, directory.path());
    let names: Vec<String> = (0..8).map(|number| format!("press-{number}")).collect();
    let mut clients: Vec<Client> =
        names.iter().map(|name| Client::connect(&site, name, running.local_addr())).collect();
    for (client, name) in clients.iter_mut().zip(&names) {
        client.send(&[subscribe(&format!("plant/{name}/sealed/#"))]);
        assert!(matches!(client.next(), Some(Packet::SubAck(_))));
        client.send(&[publish(&format!("plant/{name}/sealed/a"), 2)]);
        let both = [client.next().unwrap(), client.next().unwrap()];
        assert!(both.iter().any(|packet| matches!(packet, Packet::PubAck(_))), "{both:?}");
        assert!(both.iter().any(|packet| matches!(packet, Packet::Publish(_))), "{both:?}");
    }
    // A take-over finds its session on whatever shard it is.
    for (old, name) in clients.iter_mut().zip(&names) {
        let _new = Client::connect(&site, name, running.local_addr());
        let Some(Packet::Disconnect(told)) = old.next() else { panic!("{name}") };
        assert_eq!(told.reason, ReasonCode::SessionTakenOver);
    }
    let counters = running.handle().snapshot().unwrap().counters;
    assert_eq!((counters.connects, counters.publishes_recorded), (16, 8), "of both together");
    running.stop();
    running.wait().unwrap();

    let entries = entries(directory.path());
    let of_type = |kind: &str| entries.iter().filter(|entry| entry["type"] == kind).count();
    assert_eq!((of_type("start"), of_type("stop"), of_type("publish")), (2, 2, 8));
    // Ids of the second shard's decisions name it.
    let second = entries.iter().filter(|entry| {
        entry["type"] == "connect" && entry["id"].as_str().unwrap().contains(".1-")
    });
    let second = second.count();
    assert!(second > 0 && second < 16, "{second} of 16 on the second shard");
}

/// Shakes hands; the TLS state and the socket.
pub(super) fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = StreamOwned::new(tls, socket);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream)
}

/// Whether the server ends this connection without a word of MQTT.
pub(super) fn is_closed(mut stream: impl std::io::Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

pub(super) fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn numbers_and_health_are_served_while_it_serves() {
    let site = Site::new();
    let running = start(options(&site)).unwrap();
    let _client = connect(&site.client("press-7"), running.local_addr()).unwrap();
    let metrics = running.metrics_addr().unwrap();
    let health = get(metrics, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"serving\""), "{health}");
    let numbers = get(metrics, "/metrics");
    assert!(numbers.contains("avow_handshake_seconds_count 1"), "{numbers}");
}

#[test]
fn metrics_are_not_served_to_the_network_unless_that_is_meant() {
    let site = Site::new();
    let mut options = options(&site);
    let listen = "0.0.0.0:0".parse().unwrap();
    options.metrics = Some(MetricsOptions { listen, allow_non_loopback: false });
    let fault = start(options).err().unwrap();
    assert!(matches!(fault, Fault::MetricsExposed(_)));
    assert_eq!(fault.exit_code(), 2);
}

#[test]
fn an_address_in_use_is_named() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options(&site);
    options.listen = taken.local_addr().unwrap();
    let fault = start(options).err().unwrap();
    assert!(fault.to_string().contains(&taken.local_addr().unwrap().to_string()), "{fault}");
}

#[test]
fn e08_a_socket_that_says_nothing_is_closed_at_its_deadline() {
    let site = Site::new();
    let mut options = options(&site);
    options.bounds.connect_max = Duration::from_millis(200);
    let running = start(options).unwrap();
    let silent = TcpStream::connect(running.local_addr()).unwrap();
    let mut half = TcpStream::connect(running.local_addr()).unwrap();
    half.write_all(&[22, 3, 1]).unwrap();
    for socket in [silent, half] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(is_closed(socket));
    }
}

#[test]
fn d11_more_connections_than_the_bound_are_closed_at_once() {
    let site = Site::new();
    let mut options = options(&site);
    options.bounds.connections_max = 1;
    let running = start(options).unwrap();
    let first = connect(&site.client("press-7"), running.local_addr()).unwrap();
    assert!(connect(&site.client("press-8"), running.local_addr()).is_err());
    drop(first);
    let again = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        connect(&site.client("press-8"), running.local_addr()).is_ok()
    });
    assert!(again, "the place is free again");
}

#[test]
fn a_stranger_gets_no_further_than_the_handshake() {
    let (site, other) = (Site::new(), Site::new());
    let running = start(options(&site)).unwrap();
    // It trusts our server, and shows a certificate of its own plant.
    let stranger = site.stranger(&other, "press-7");
    // In TLS 1.3 a client has finished before the server looks at its certificate.
    if let Ok(mut stream) = connect(&stranger, running.local_addr()) {
        assert!(is_closed(&mut stream));
    }
    assert_eq!(running.handle().handshakes().durations().count(), 0);
}

#[test]
fn a_panic_in_the_core_ends_the_server_with_a_fault() {
    let site = Site::new();
    let broker: MakeBroker = Arc::new(|_, _| panic!("the core is broken"));
    let core = Core { broker, writer: Box::new(forgetful) };
    let fault = Server::start(options(&site), core).unwrap().wait().unwrap_err();
    assert!(
        matches!(&fault, Fault::CorePanicked { shard: 0, message } if message.contains("broken"))
    );
    assert_eq!(fault.exit_code(), 70);
}

#[test]
fn a_fault_of_the_writer_ends_the_server() {
    let site = Site::new();
    let (sender, events) = sync_channel(1);
    let writer = Box::new(move |events: WriterEvents| {
        sender.send(events.clone()).unwrap();
        forgetful(events)
    });
    let core = Core { broker: make_broker(), writer };
    let running = Server::start(options(&site), core).unwrap();
    events.recv().unwrap().failed("no space left".to_owned());
    let health = get(running.metrics_addr().unwrap(), "/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("\"faulted\""), "{health}");
    let fault = running.wait().unwrap_err();
    assert_eq!((fault.to_string().contains("no space left"), fault.exit_code()), (true, 70));
}

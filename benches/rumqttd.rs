//! rumqttd beside Avow's codec, and what became of it as a broker: the measurements of decision 2.
//!
//! Part one encodes and decodes the same PUBLISH by both codecs, turn by turn in one run, and prints
//! ratios. Part two starts rumqttd on a loopback port, without TLS, and asks it three things in
//! MQTT 3.1.1 by hand.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench is a shell, and may fail"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use avow::mqtt::{
    Decoder, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, TopicName, encode,
};
use bytes::{Bytes, BytesMut};
use rumqttd::protocol::Protocol as _;
use rumqttd::protocol::v5::V5;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

const TURNS: usize = 20;
const PACKETS_PER_TURN: u32 = 50_000;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);

fn main() {
    codecs();
    broker();
}

fn codecs() {
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(TopicName::parse("plant/press-7/telemetry/temperature").expect("a topic")),
        packet_id: PacketId::new(7),
        properties: PublishProperties::default(),
        payload: Bytes::from(vec![b'x'; 128]),
    };
    let mut wire = Vec::new();
    let packet = Packet::Publish(Box::new(publish));
    encode(&packet, ProtocolVersion::V5, &mut wire).expect("our own packet");
    let mut theirs = V5;
    let read = theirs.read_mut(&mut BytesMut::from(&wire[..]), 1 << 20).expect("they read ours");

    let mut spent = [Duration::ZERO; 4];
    for _ in 0..TURNS {
        spent[0] += time(|| {
            let mut decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
            std::hint::black_box(decoder.decode(std::hint::black_box(&wire)).is_ok());
        });
        spent[1] += time(|| {
            let mut bytes = BytesMut::from(std::hint::black_box(&wire[..]));
            std::hint::black_box(theirs.read_mut(&mut bytes, 1 << 20).is_ok());
        });
        let mut out = Vec::with_capacity(256);
        spent[2] += time(|| {
            out.clear();
            let encoded = encode(std::hint::black_box(&packet), ProtocolVersion::V5, &mut out);
            std::hint::black_box(encoded.is_ok());
        });
        let mut buffer = BytesMut::with_capacity(256);
        spent[3] += time(|| {
            buffer.clear();
            // Their writer takes the packet by value.
            std::hint::black_box(theirs.write(read.clone(), &mut buffer).is_ok());
        });
    }
    let nanos =
        spent.map(|all| all.as_secs_f64() * 1e9 / (TURNS as f64 * f64::from(PACKETS_PER_TURN)));
    println!("| PUBLISH 5.0, QoS 1, 128 B | Avow ns | rumqttd ns | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    for (what, ours, theirs) in [("decode", nanos[0], nanos[1]), ("encode", nanos[2], nanos[3])] {
        println!("| {what} | {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
    }
}

fn time(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..PACKETS_PER_TURN {
        work();
    }
    start.elapsed()
}

fn broker() {
    let address = start();
    println!("\nrumqttd 0.20 as a broker:");
    let refused = connect(address, "zero", 0).is_none();
    println!("- CONNECT with Keep Alive 0: {}", if refused { "refused" } else { "accepted" });

    let mut subscriber = connect(address, "reader", 60).expect("a CONNACK");
    // SUBSCRIBE, identifier 1, `x/#`, QoS 0.
    subscriber.write_all(b"\x82\x08\x00\x01\x00\x03x/#\x00").expect("a live socket");
    answer(&mut subscriber).expect("a SUBACK");
    let mut publisher = connect(address, "writer", 60).expect("a CONNACK");
    let before = is_delivered(&mut publisher, &mut subscriber);
    println!("- `x/a` to a subscriber of `x/#`: {}", said(before));
    // PUBLISH, QoS 0, topic `é/b`.
    publisher.write_all(b"\x30\x07\x00\x04\xc3\xa9/by").expect("a live socket");
    std::thread::sleep(Duration::from_millis(500));
    let after = is_delivered(&mut publisher, &mut subscriber);
    println!("- `x/a` again, after one PUBLISH to `é/b`: {}", said(after));
    let anybody = connect(address, "late", 60).is_some();
    println!("- a new client after that: {}", if anybody { "connects" } else { "gets no CONNACK" });
}

fn said(delivered: bool) -> &'static str {
    if delivered { "delivered" } else { "not delivered" }
}

/// Publishes `x/a` at QoS 0; whether anything reaches the subscriber.
fn is_delivered(publisher: &mut TcpStream, subscriber: &mut TcpStream) -> bool {
    let sent = publisher.write_all(b"\x30\x06\x00\x03x/ay");
    sent.is_ok() && answer(subscriber).is_some()
}

/// Connects; `None` if no CONNACK that accepts comes.
fn connect(address: SocketAddr, client_id: &str, keep_alive: u8) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let mut packet = b"\x00\x04MQTT\x04\x02\x00".to_vec();
    packet.extend([keep_alive, 0, client_id.len() as u8]);
    packet.extend(client_id.as_bytes());
    stream.write_all(&[0x10, packet.len() as u8]).ok()?;
    stream.write_all(&packet).ok()?;
    (answer(&mut stream)? == [0x20, 2, 0, 0]).then_some(stream)
}

/// What arrives next, if anything does in time.
fn answer(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = [0; 256];
    match stream.read(&mut bytes) {
        Ok(0) | Err(_) => None,
        Ok(count) => bytes.get(..count).map(<[u8]>::to_vec),
    }
}

fn start() -> SocketAddr {
    // Asked for and given back: rumqttd does not say which port it got.
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let listen = listen.expect("a free port");
    let settings = ServerSettings {
        name: "v4".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        router: RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 1 << 20,
            max_segment_count: 10,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("1".to_owned(), settings)])),
        ..Config::default()
    };
    std::thread::spawn(move || {
        let mut broker = Broker::new(config);
        broker.start().expect("rumqttd serves");
    });
    for _ in 0..100 {
        if TcpStream::connect(listen).is_ok() {
            return listen;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("rumqttd did not listen on {listen}");
    std::process::exit(2);
}

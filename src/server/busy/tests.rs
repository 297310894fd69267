//! A server whose log is not read yet, over the loopback.

#![expect(clippy::disallowed_methods, reason = "the client's sockets")]

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use crate::mqtt::{Decoded, Decoder, Packet, ProtocolVersion, ReasonCode, encode};
use crate::server::testing::{Site, durable, make_broker};
use crate::server::tests::{connect, connect_packet, entries, get, options};
use crate::server::websocket::tests::{BINARY, CLOSE, Client, answer as frame_of, frame};
use crate::server::{Core, Server, WebSocketOptions};

/// What each version is answered: Server busy, and in 3.x Server unavailable.
const BUSY: [(ProtocolVersion, &[u8]); 3] = [
    (ProtocolVersion::V5, &[0x20, 3, 0, 0x89, 0]),
    (ProtocolVersion::V3_1_1, &[0x20, 2, 0, 3]),
    (ProtocolVersion::V3_1, &[0x20, 2, 0, 3]),
];

fn connect_bytes(version: ProtocolVersion, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&connect_packet(version, name), version, &mut bytes).unwrap();
    bytes
}

/// What a broker that starts answers: everything until it closes the connection.
fn answer(site: &Site, address: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(&site.client("press-7"), address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn until_the_log_is_read_every_connect_is_answered_with_server_busy_and_then_clients_come_in() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let starting = Server::open(options(&site)).unwrap();
    let (address, metrics) = (starting.local_addr(), starting.metrics_addr().unwrap());
    let health = get(metrics, "/healthz");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("\"starting\""), "{health}");
    for (version, expected) in BUSY {
        assert_eq!(answer(&site, address, &connect_bytes(version, "press-7")), expected);
    }
    // What is no CONNECT gets no answer, and is not counted.
    assert_eq!(answer(&site, address, &[0xc0, 0]), Vec::<u8>::new());
    assert_eq!(answer(&site, address, &[0x10, 2, 0, 0]), Vec::<u8>::new());
    // A stranger is no better off than later.
    let other = Site::new();
    if let Ok(mut stream) = connect(&site.stranger(&other, "press-7"), address) {
        assert!(crate::server::tests::is_closed(&mut stream));
    }

    let core = Core { broker: make_broker(), writer: Box::new(durable(directory.path())) };
    let running = starting.serve(core).unwrap();
    assert_eq!(running.local_addr(), address);
    let health = get(metrics, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let mut stream = connect(&site.client("press-7"), address).unwrap();
    stream.write_all(&connect_bytes(ProtocolVersion::V5, "press-7")).unwrap();
    let mut connack = [0; 128];
    let length = stream.read(&mut connack).unwrap();
    let mut decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
    match decoder.decode(&connack[..length]).unwrap() {
        Decoded::Packet { packet: Packet::ConnAck(connack), .. } => {
            assert_eq!(connack.reason, ReasonCode::Success);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(running.handle().snapshot().unwrap().counters.connects_refused, 3);
    running.stop();
    running.wait().unwrap();

    let entries = entries(directory.path());
    assert_eq!(entries[0]["type"], "start");
    let busy = |entry: &&serde_json::Value| entry["why"] == "server.starting";
    let busy: Vec<_> = entries.iter().filter(busy).collect();
    assert_eq!(busy.len(), 1, "{entries:#?}");
    assert_eq!((&busy[0]["type"], &busy[0]["count"]), (&"connect.refused".into(), &3.into()));
    let strangers = entries
        .iter()
        .filter(|entry| entry["type"] == "connect.refused" && entry["why"] != "server.starting");
    assert_eq!(strangers.count(), 1, "{entries:#?}");
}

/// A WebSocket of `press-7`, upgraded.
fn upgraded(site: &Site, address: std::net::SocketAddr) -> Client {
    let mut client = connect(&site.client("press-7"), address).unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://wall.example\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
    client
}

#[test]
fn a_websocket_is_upgraded_while_the_log_is_read_and_told_the_same() {
    let (site, directory) = (Site::new(), tempfile::tempdir().unwrap());
    let mut options = options(&site);
    options.websocket = Some(WebSocketOptions {
        listen: options.listen,
        tls: Arc::clone(&site.tls),
        path: "/mqtt".to_owned(),
        origins: vec!["https://wall.example".to_owned()],
        allow_no_origin: false,
        takes_tokens: false,
        message_bytes_max: 1 << 20,
        proxy: None,
    });
    let starting = Server::open(options).unwrap();
    let address = starting.bound.websocket.unwrap();
    for (version, expected) in BUSY {
        let mut client = upgraded(&site, address);
        client.write_all(&frame(BINARY, &connect_bytes(version, "press-7"))).unwrap();
        assert_eq!(frame_of(&mut client), (BINARY, expected.to_vec()));
        assert_eq!(frame_of(&mut client).0, CLOSE);
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    let core = Core { broker: make_broker(), writer: Box::new(durable(directory.path())) };
    let running = starting.serve(core).unwrap();
    let mut client = upgraded(&site, address);
    let connect = connect_bytes(ProtocolVersion::V3_1_1, "press-7");
    client.write_all(&frame(BINARY, &connect)).unwrap();
    assert_eq!(frame_of(&mut client), (BINARY, vec![0x20, 2, 0, 0]));
    assert_eq!(running.handle().snapshot().unwrap().counters.connects_refused, 3);
    running.stop();
    running.wait().unwrap();
}

#[test]
fn a_silent_client_of_a_server_that_starts_meets_the_deadline_of_connect() {
    let site = Site::new();
    let mut options = options(&site);
    options.bounds.connect_max = Duration::from_millis(300);
    let starting = Server::open(options).unwrap();
    let mut stream = connect(&site.client("press-7"), starting.local_addr()).unwrap();
    stream.sock.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(crate::server::tests::is_closed(&mut stream));
}

#[test]
fn a_start_that_fails_gives_its_address_back() {
    let site = Site::new();
    let starting = Server::open(options(&site)).unwrap();
    let address = starting.local_addr();
    drop(starting);
    let free = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        std::net::TcpListener::bind(address).is_ok()
    });
    assert!(free, "the listener was closed");
}

//! MQTT over WebSocket: hand-made frames, MQTT.js in Node, MQTT.js in headless Chromium.
//!
//! What a page of an allowed Origin gets, what everybody else is told, and what the log says of
//! both. Chromium is Debian's, driven by playwright-core, which also shows it the certificate.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::harness::{Broker, Bundle, Plant, beside_this, free_port, run};
use crate::raw::{Answer, Raw, Version, connect, packet, publish, secure, socket, tls};
use crate::strangers::{COUNT, HOST, Stage, is_there, js_is_there, js_script, level};

pub(crate) const ORIGIN: &str = "https://wall.plant.example";
pub(crate) const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
pub(crate) const CLOSE: u8 = 0x88;

/// A plant with a WebSocket listener, of which `more` says the rest; and the listener's port.
pub(crate) fn plant(origin: &str, more: &str) -> (Plant, u16) {
    let (plant, port) = (Plant::new(), free_port());
    let section = format!(
        "\n[listen.websocket]\naddress = \"127.0.0.1:{port}\"\norigins = [\"{origin}\"]\n{more}\n"
    );
    plant.edit("avow.toml", |text| text.to_owned() + &section);
    (plant, port)
}

/// Takes the key of tokens out of the configuration.
fn without_tokens(plant: &Plant) {
    plant.edit("avow.toml", |text| {
        let (before, rest) = text.split_once("\n[[token_key]]\n").unwrap();
        let (_, after) = rest.split_once("\n[files]").unwrap();
        format!("{before}\n[files]{after}")
    });
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The head of a request that is accepted, with other or more lines.
fn request(origin: Option<&str>, target: &str, more: &str) -> String {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n{origin}{more}\r\n"
    )
}

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

fn good_request() -> String {
    request(Some(ORIGIN), "/mqtt", SUBPROTOCOL)
}

/// A WebSocket, or what wants to become one.
pub(crate) struct Socket(StreamOwned<ClientConnection, TcpStream>);

impl Socket {
    pub(crate) fn open(port: u16, trusting: &Bundle, showing: Option<&Bundle>) -> Self {
        Self(secure(socket(at(port)), tls(trusting, showing)))
    }

    /// Upgraded.
    fn upgraded(port: u16, bundle: &Bundle) -> Self {
        Self::upgraded_as(port, bundle, Some(bundle))
    }

    /// Upgraded, with the certificate of `showing`, if any.
    pub(crate) fn upgraded_as(port: u16, trusting: &Bundle, showing: Option<&Bundle>) -> Self {
        let mut socket = Self::open(port, trusting, showing);
        socket.send(good_request().as_bytes());
        let answer = socket.head();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let lower = answer.to_lowercase();
        // [MQTT-6.0.0-4]
        assert!(lower.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{answer}");
        assert!(!lower.contains("sec-websocket-extensions"), "compression: {answer}");
        socket
    }

    /// Sends bytes; whether they arrive is seen by what comes back.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// The head of an HTTP answer.
    #[track_caller]
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.bytes(1) {
                Some(byte) => head.extend(byte),
                None => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    /// The status and the text of an HTTP answer that ends the connection.
    #[track_caller]
    fn refusal(&mut self) -> (String, String) {
        let head = self.head();
        let mut text = String::new();
        let _ = self.0.read_to_string(&mut text);
        let status = head.split(' ').nth(1).unwrap_or("none").to_owned();
        (status, text.trim_end().to_owned())
    }

    /// The next frame, of at most 64 KiB: its first byte and payload.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.bytes(2)?;
        let length = match head[1] {
            126 => self.bytes(2)?.iter().fold(0, |length, byte| length * 256 + usize::from(*byte)),
            short => usize::from(short),
        };
        Some((head[0], self.bytes(length)?))
    }

    /// `None` if the connection has ended.
    #[track_caller]
    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self.0.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer in time")
            }
            Err(_) => None,
        }
    }

    /// MQTT's bytes until there are `count`, each from a binary frame.
    #[track_caller]
    pub(crate) fn mqtt(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (kind, payload) = self.frame().expect("a frame");
            assert_eq!(kind, BINARY, "{payload:02x?}");
            bytes.extend(payload);
        }
        bytes
    }
}

/// A masked frame. Length and mask take what they need.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([7, 7, 7, 7]);
    frame.extend(payload.iter().map(|byte| byte ^ 7));
    frame
}

/// 3.1.1's CONNACK: accepted, no session.
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// Why connections were refused, with how many; the broker has stopped.
fn refusals(plant: &Plant) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for entry in plant.query(&["--type", "connect.refused", "--limit", "1000"]) {
        let why = entry["why"].as_str().unwrap().to_owned();
        // The entry that opens an interval stands for one; the one that closes it, for the others.
        let count = entry["count"].as_u64().unwrap_or(1);
        match counts.iter_mut().find(|(known, _)| *known == why) {
            Some((_, sum)) => *sum += count,
            None => counts.push((why, count)),
        }
    }
    counts.sort();
    counts
}

fn expected(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
    let mut rows: Vec<_> = rows.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
    rows.sort();
    rows
}

// --- Frames -------------------------------------------------------------------------------------

#[test]
fn a20_mqtt_split_or_joined_across_websocket_frames() {
    let (plant, port) = plant(ORIGIN, "");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let mut socket = Socket::upgraded(port, &device);
    // [MQTT-6.0.0-2]: one byte of CONNECT in each frame.
    for byte in connect(Version::V3, "press-7") {
        socket.send(&frame(BINARY, &[byte]));
    }
    assert_eq!(socket.mqtt(4), ACCEPTED);
    // Two packets and a half in one frame, the rest in a second.
    let topic = "plant/press-7/sealed/x";
    let [first, second, mut third] =
        [1, 2, 3].map(|id| publish(Version::V3, topic, 1, id, &[b'x'; 300]));
    let rest = third.split_off(150);
    socket.send(&frame(BINARY, &[first, second, third].concat()));
    assert_eq!(socket.mqtt(8), [0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    socket.send(&frame(BINARY, &[rest, packet(0xc0, &[])].concat()));
    assert_eq!(socket.mqtt(6).len(), 6);
    // Frames themselves byte by byte, in records of their own.
    for byte in frame(BINARY, &publish(Version::V3, topic, 1, 4, b"slowly")) {
        socket.send(&[byte]);
    }
    assert_eq!(socket.mqtt(4), [0x40, 2, 0, 4]);
    // A message of three fragments with a ping in between.
    let bytes = publish(Version::V3, topic, 1, 5, b"in three");
    socket.send(&frame(0x02, &bytes[..5]));
    socket.send(&frame(0x89, b"are you there?"));
    socket.send(&frame(0x00, &bytes[5..9]));
    socket.send(&frame(0x80, &bytes[9..]));
    assert_eq!(socket.frame(), Some((0x8a, b"are you there?".to_vec())));
    assert_eq!(socket.mqtt(4), [0x40, 2, 0, 5]);
    // DISCONNECT, and the closing handshake of the WebSocket after it.
    socket.send(&frame(BINARY, &packet(0xe0, &[])));
    assert_eq!(socket.frame(), Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(socket.frame(), None);
    broker.lives();
    assert!(broker.stop().success());
    let published = plant.query(&["--type", "publish", "--who", "device/press-7"]);
    assert_eq!(published.len(), 5, "{published:#?}");
    plant.audit_verify().exits(0);
}

#[test]
fn a07_remaining_length_longer_than_the_websocket_message() {
    let (plant, port) = plant(ORIGIN, "");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let connect = connect(Version::V3, "press-7");
    // A message ends inside a packet: the packet goes on in the next, whatever came between.
    let mut patient = Socket::upgraded(port, &device);
    patient.send(&frame(BINARY, &connect[..5]));
    // Or never goes on: whoever leaves it so has sent nothing.
    let mut cut = Socket::upgraded(port, &device);
    cut.send(&frame(BINARY, &connect[..connect.len() - 1]));
    cut.send(&frame(CLOSE, &1000_u16.to_be_bytes()));
    while cut.frame().is_some() {}
    patient.send(&frame(BINARY, b""));
    patient.send(&frame(BINARY, &connect[5..]));
    assert_eq!(patient.mqtt(4), ACCEPTED);
    // Longer than any packet may be: the announcement ends it.
    patient.send(&frame(BINARY, b"\x30\xFF\xFF\xFF\x7F"));
    assert_eq!(patient.frame().map(|(kind, _)| kind), Some(CLOSE));
    assert_eq!(patient.frame(), None);
    broker.lives();
    assert!(broker.stop().success());
    let connects = plant.query(&["--type", "connect"]);
    assert_eq!(connects.len(), 1, "{connects:#?}");
    let ends = plant.query(&["--type", "disconnect"]);
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert_eq!((&ends[0]["how"], &ends[0]["code"]), (&"violation".into(), &0x95.into()));
}

#[test]
fn a22_compressed_frames_before_connect() {
    let (plant, port) = plant(ORIGIN, "");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    // The request offers permessage-deflate; it is not taken up, so that what is marked as
    // compressed breaks RFC 6455 and is never inflated.
    let mut socket = Socket::upgraded(port, &device);
    let bomb = [0x78, 0x9C].repeat(2_000);
    socket.send(&frame(BINARY | 0x40, &bomb));
    let (kind, payload) = socket.frame().expect("a close frame");
    assert_eq!((kind, &payload[..2]), (CLOSE, &1002_u16.to_be_bytes()[..]));
    assert_eq!(socket.frame(), None);
    broker.lives();
    assert!(broker.stop().success());
    assert_eq!(refusals(&plant).len(), 1);
    assert_eq!(plant.query(&["--type", "connect"]).len(), 0);
}

#[test]
fn text_frames_and_broken_ones_end_the_connection_and_are_recorded() {
    let (plant, port) = plant(ORIGIN, "");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let closes = |socket: &mut Socket, code: u16| {
        let (kind, payload) = socket.frame().expect("a close frame");
        assert_eq!((kind, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
        assert_eq!(socket.frame(), None);
    };
    // [MQTT-6.0.0-1], before CONNECT and after it.
    let mut socket = Socket::upgraded(port, &device);
    socket.send(&frame(TEXT, b"hello"));
    closes(&mut socket, 1003);
    let mut socket = Socket::upgraded(port, &device);
    socket.send(&frame(BINARY, &connect(Version::V3, "press-7")));
    assert_eq!(socket.mqtt(4), ACCEPTED);
    socket.send(&frame(TEXT, b"hello"));
    closes(&mut socket, 1003);
    // Longer than CONNECT may be, announced and not sent.
    let mut socket = Socket::upgraded(port, &device);
    socket.send(&[BINARY, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 7, 7, 7, 7]);
    closes(&mut socket, 1009);
    // A07: a packet longer than its message is just not complete yet, and its rest is the next.
    let mut socket = Socket::upgraded(port, &device);
    let bytes = connect(Version::V3, "press-7");
    socket.send(&frame(BINARY, &bytes[..10]));
    socket.send(&frame(BINARY, &bytes[10..]));
    assert_eq!(socket.mqtt(4), ACCEPTED);
    socket.send(&frame(CLOSE, &1001_u16.to_be_bytes()));
    closes(&mut socket, 1001);
    broker.lives();
    assert!(broker.stop().success());
    assert_eq!(refusals(&plant), expected(&[("websocket.violation", 2)]));
    let ends = plant.query(&["--type", "disconnect", "--limit", "10"]);
    let mut hows: Vec<_> = ends.iter().map(|entry| entry["how"].as_str().unwrap()).collect();
    hows.sort_unstable();
    assert_eq!(hows, ["peer.closed", "websocket.violation"], "{ends:#?}");
}

// --- The handshake ------------------------------------------------------------------------------

#[test]
fn every_refused_upgrade_gets_its_status_and_its_entry() {
    let (plant, port) = plant(ORIGIN, "");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let refused = |request: &str| {
        let mut socket = Socket::open(port, &device, Some(&device));
        socket.send(request.as_bytes());
        socket.refusal()
    };
    let foreign = "this Origin is not allowed (`origins` in [listen.websocket])";
    for origin in ["https://evil.example", "null", "http://wall.plant.example"] {
        let answer = refused(&request(Some(origin), "/mqtt", SUBPROTOCOL));
        assert_eq!(answer, ("403".to_owned(), foreign.to_owned()), "{origin}");
    }
    let subprotocol = "Sec-WebSocket-Protocol: mqttv3.1\r\n";
    let huge = format!("X-Filler: {}\r\n", "x".repeat(9_000));
    let rows = [
        ("403", request(None, "/mqtt", SUBPROTOCOL)),
        ("404", request(Some(ORIGIN), "/", SUBPROTOCOL)),
        ("404", request(Some(ORIGIN), "/mqtt?token=x", SUBPROTOCOL)),
        ("400", request(Some(ORIGIN), "/mqtt", "")),
        ("400", request(Some(ORIGIN), "/mqtt", subprotocol)),
        ("431", request(Some(ORIGIN), "/mqtt", &huge)),
        ("426", format!("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nOrigin: {ORIGIN}\r\n\r\n")),
        ("400", "PUT /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
    ];
    for (status, request) in &rows {
        let (answered, text) = refused(request);
        assert_eq!(answered, *status, "{text}: {request}");
        assert!(!text.is_empty(), "{request}");
    }
    broker.wait_for_metric("avow_handshakes_refused_total", 11);
    assert_eq!(broker.metric("avow_handshakes_refused_total"), 11);
    // The same client, asking rightly.
    Socket::upgraded(port, &device);
    broker.lives();
    assert!(broker.stop().success());
    let rows = expected(&[
        ("peer.closed", 1),
        ("websocket.header_bytes", 1),
        ("websocket.malformed", 1),
        ("websocket.no_origin", 1),
        ("websocket.not_websocket", 1),
        ("websocket.origin", 3),
        ("websocket.path", 2),
        ("websocket.subprotocol", 2),
    ]);
    assert_eq!(refusals(&plant), rows);
}

#[test]
fn a_program_may_come_without_an_origin_where_it_is_told_so() {
    let (plant, port) = plant(ORIGIN, "allow_no_origin = true");
    let device = plant.device("press-7");
    let _broker = plant.serve();
    let mut socket = Socket::open(port, &device, Some(&device));
    socket.send(request(None, "/mqtt", SUBPROTOCOL).as_bytes());
    assert!(socket.head().starts_with("HTTP/1.1 101 "));
    let mut socket = Socket::open(port, &device, Some(&device));
    socket.send(request(Some("https://evil.example"), "/mqtt", SUBPROTOCOL).as_bytes());
    assert_eq!(socket.refusal().0, "403");
}

#[test]
fn one_deadline_covers_everything_until_connect() {
    let (plant, port) = plant(ORIGIN, "");
    plant.set("connect_timeout = \"10s\"", "connect_timeout = \"1s\"");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let (soon, late) = (Duration::from_millis(900), Duration::from_secs(4));
    // A head that comes byte by byte.
    let began = Instant::now();
    let mut slow = Socket::open(port, &device, Some(&device));
    for byte in good_request().bytes().take(20) {
        slow.send(&[byte]);
        std::thread::sleep(Duration::from_millis(70));
    }
    assert_eq!(slow.refusal().0, "408");
    assert!((soon..late).contains(&began.elapsed()), "{:?}", began.elapsed());
    // No CONNECT behind a good upgrade.
    let began = Instant::now();
    let mut silent = Socket::upgraded(port, &device);
    assert_eq!(silent.frame(), Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert!((soon..late).contains(&began.elapsed()), "{:?}", began.elapsed());
    // Not a byte of TLS.
    let began = Instant::now();
    let mut mute = socket(at(port));
    assert_eq!(mute.read(&mut [0]).unwrap_or(0), 0);
    assert!((soon..late).contains(&began.elapsed()), "{:?}", began.elapsed());
    broker.lives();
    assert!(broker.stop().success());
    let rows = [("connect.timeout", 1), ("io.timed_out", 1), ("websocket.timed_out", 1)];
    assert_eq!(refusals(&plant), expected(&rows));
}

#[test]
fn without_a_certificate_nobody_gets_in_however_the_listener_asks() {
    for asks in ["optional", "none"] {
        let (plant, port) = plant(ORIGIN, &format!("client_certificate = \"{asks}\""));
        without_tokens(&plant);
        let device = plant.device("press-7");
        let elsewhere = Plant::new();
        let stranger = elsewhere.device("press-7");
        let mut broker = plant.serve();
        let mut socket = Socket::open(port, &device, None);
        socket.send(good_request().as_bytes());
        let answer = ("403".to_owned(), "a client certificate is required".to_owned());
        assert_eq!(socket.refusal(), answer);
        // The Origin comes first.
        let mut socket = Socket::open(port, &device, None);
        socket.send(request(Some("https://evil.example"), "/mqtt", SUBPROTOCOL).as_bytes());
        assert_eq!(socket.refusal().0, "403");
        let mut rows = vec![("websocket.no_certificate", 1), ("websocket.origin", 1)];
        if asks == "optional" {
            // A certificate that is shown is judged as ever.
            let mut socket = Socket::open(port, &device, Some(&stranger));
            socket.send(good_request().as_bytes());
            assert_eq!(socket.head(), "");
            rows.push(("certificate.bad_signature", 1));
            Socket::upgraded(port, &device).send(&frame(CLOSE, &[]));
            rows.push(("peer.closed", 1));
        }
        // What is optional for a browser is not for a device.
        let mut raw = Raw::open(broker.address, tls(&device, None), Version::V5);
        raw.send(&connect(Version::V5, "press-7"));
        assert_eq!(raw.answer(), Answer::Closed);
        rows.push(("certificate.no_certificate", 1));
        broker.lives();
        assert!(broker.stop().success());
        assert_eq!(refusals(&plant), expected(&rows), "{asks}");
    }
}

// --- MQTT.js in Node ----------------------------------------------------------------------------

fn mqtt_js(version: Version) {
    let Some(mut command) = js_script("client.js") else { return };
    let (plant, port) = plant(ORIGIN, "");
    let stage = Stage::of(plant);
    command.args([level(version), HOST, &port.to_string()]);
    command.arg(&stage.device.dir).arg(&stage.dashboard.dir);
    command.args([&stage.topic, &COUNT.to_string(), ORIGIN]);
    stage.succeeds(&mut command);
}

#[test]
fn mqtt_js_over_websocket_speaks_3_1_1() {
    mqtt_js(Version::V3);
}

#[test]
fn mqtt_js_over_websocket_speaks_5_0() {
    mqtt_js(Version::V5);
}

// --- MQTT.js in headless Chromium ---------------------------------------------------------------

/// Whether Chromium and what drives it are there.
pub(crate) fn chromium_is_there() -> bool {
    let mut probe = Command::new("sh");
    probe.args(["-c", &format!("command -v {}", chromium())]);
    js_is_there("playwright-core")
        && is_there("Chromium", &mut probe, "it is not installed (Debian: chromium)")
}

fn chromium() -> String {
    std::env::var("AVOW_CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".to_owned())
}

/// Chromium, on a page from `page_port`, with the certificate of `bundle` at hand.
pub(crate) fn browser(plant: &Plant, page_port: u16, port: u16, bundle: &Bundle) -> Command {
    let mut command = Command::new("node");
    command.stdin(Stdio::null()).arg(beside_this("clients/js/browser.js")).arg(chromium());
    command.args([page_port, port].map(|port| port.to_string())).arg(&bundle.dir);
    for file in ["certs/server.pem", "certs/server.key"] {
        command.arg(plant.dir().join(file));
    }
    command
}

fn chromium_with_a_certificate(version: Version) {
    if !chromium_is_there() {
        return;
    }
    let page_port = free_port();
    let (plant, port) = plant(&format!("https://localhost:{page_port}"), "");
    let stage = Stage::of(plant);
    let mut command = browser(&stage.plant, page_port, port, &stage.dashboard);
    command.args(["dashboard", level(version), HOST, &stage.plant.port.to_string()]);
    command.arg(&stage.device.dir).args([&stage.topic, &COUNT.to_string()]);
    stage.succeeds(&mut command);
}

#[test]
fn a_dashboard_in_chromium_speaks_3_1_1() {
    chromium_with_a_certificate(Version::V3);
}

#[test]
fn a_dashboard_in_chromium_speaks_5_0() {
    chromium_with_a_certificate(Version::V5);
}

/// Without a certificate Chromium gets as far as the credential from the right page, and no further
/// than the Origin from another.
#[test]
fn chromium_without_a_certificate_is_refused_and_a_foreign_page_before_it() {
    if !chromium_is_there() {
        return;
    }
    let (page_port, foreign_port) = (free_port(), free_port());
    let origin = format!("https://localhost:{page_port}");
    let (plant, port) = plant(&origin, "client_certificate = \"none\"");
    without_tokens(&plant);
    let dashboard = plant.dashboard("wall");
    let broker: Broker = plant.serve();
    let ended = |page_port: u16, why: &str| {
        let mut command = browser(&plant, page_port, port, &dashboard);
        let said = run(command.arg("refused")).exits(0);
        let told: serde_json::Value = serde_json::from_str(said.out.trim()).unwrap();
        // A script is not told why; 1006 is what it gets for every refusal.
        assert_eq!(told, serde_json::json!({ "opened": false, "code": 1006 }));
        let seen = broker.said().lines().filter(|line| line.contains(why)).count();
        assert_eq!(seen, 1, "{why}: {}", broker.said());
    };
    ended(page_port, "reason=\"websocket.no_certificate\"");
    ended(foreign_port, "reason=\"websocket.origin\"");
}

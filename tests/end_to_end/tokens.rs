//! Tokens, from `avow token issue` to the log: paho-mqtt, MQTT.js and bytes by hand over WebSocket,
//! and a device listener that wants none of it.

use std::time::{Duration, Instant};

use crate::harness::{Plant, free_port, run};
use crate::raw::{Answer, Raw, Version, connect, packet, tls};
use crate::strangers::{COUNT, HOST, Stage, js_script, level, paho_script};
use crate::websocket::{self, BINARY, CLOSE, ORIGIN, Socket, frame};

/// A plant whose WebSocket listener asks nobody for a certificate, and the listener's port.
fn plant(origin: &str) -> (Plant, u16) {
    websocket::plant(origin, "client_certificate = \"none\"")
}

/// A token for `name`.
fn issue(plant: &Plant, name: &str, more: &[&str]) -> String {
    let said = run(plant.avow(&["token", "issue", name]).args(more)).exits(0);
    said.out.trim().to_owned()
}

fn text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text);
}

/// The properties Authentication Method and Data, with their length before them.
fn method(name: &str, token: &str) -> Vec<u8> {
    let mut properties = vec![0x15];
    text(&mut properties, name.as_bytes());
    properties.push(0x16);
    text(&mut properties, token.as_bytes());
    // As a variable byte integer, which is how a packet says its length too.
    packet(0, &properties).split_off(1)
}

/// A CONNECT of 5.0 with the method.
fn connect_by_method(client_id: &str, name: &str, token: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([5, 0x02, 0, 60]);
    body.extend(method(name, token));
    text(&mut body, client_id.as_bytes());
    packet(0x10, &body)
}

/// A CONNECT of 3.1.1 with a user name and the token as its password.
fn connect_by_password(client_id: &str, token: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([4, 0xc2, 0, 60]);
    text(&mut body, client_id.as_bytes());
    text(&mut body, b"whoever");
    text(&mut body, token.as_bytes());
    packet(0x10, &body)
}

/// AUTH 0x19.
fn reauthenticate(token: &str) -> Vec<u8> {
    packet(0xf0, &[vec![0x19], method("JWT", token)].concat())
}

/// The packets in the next frame: first bytes, and what follows a short Remaining Length.
#[track_caller]
fn next(socket: &mut Socket) -> (u8, Vec<u8>) {
    let (kind, payload) = socket.frame().expect("a frame");
    assert_eq!(kind, BINARY, "{payload:02x?}");
    (payload[0], payload[2..].to_vec())
}

fn send(socket: &mut Socket, bytes: &[u8]) {
    socket.send(&frame(BINARY, bytes));
}

#[test]
fn c15_a_token_is_renewed_in_band_and_its_session_ends_with_it() {
    let (plant, port) = plant(ORIGIN);
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let mut socket = Socket::upgraded_as(port, &device, None);
    let first = issue(&plant, "wall", &["--for", "5s"]);
    send(&mut socket, &connect_by_method("wall", "JWT", &first));
    let (kind, body) = next(&mut socket);
    assert_eq!((kind, body[1]), (0x20, 0), "{body:02x?}");
    let said = [&[0x15, 0, 3][..], b"JWT"].concat();
    assert!(body.windows(said.len()).any(|part| part == said), "CONNACK says no method");
    // [MQTT-4.12.1-1]: AUTH 0x00, with the method, once the entry is on disk.
    let second = issue(&plant, "wall", &["--for", "10s"]);
    let renewed = Instant::now();
    send(&mut socket, &reauthenticate(&second));
    assert_eq!(next(&mut socket), (0xf0, [&[0, 6][..], &said].concat()));
    // The first token's end passes; the second's does not.
    std::thread::sleep(Duration::from_secs(6));
    send(&mut socket, &packet(0xc0, &[]));
    assert_eq!(next(&mut socket), (0xd0, vec![]));
    let (kind, body) = next(&mut socket);
    assert_eq!((kind, body[0]), (0xe0, 0x87), "DISCONNECT, not authorized");
    let lasted = renewed.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(14)).contains(&lasted), "{lasted:?}");
    assert_eq!(socket.frame().map(|(kind, _)| kind), Some(CLOSE));
    broker.lives();
    let log = broker.said();
    assert!(broker.stop().success());
    assert!(!log.contains(&first) && !log.contains(&second), "a token in the process log");
    let entries = plant.query(&["--who", "dashboard/wall", "--limit", "100"]);
    let types: Vec<_> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    let mut sorted = types.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["connect", "disconnect", "reauth"], "{types:?}");
    let connected = entries.iter().find(|entry| entry["type"] == "connect").unwrap();
    assert_eq!(connected["trust"], "token:plant-1");
    let issued = plant.query(&["--type", "admin", "--limit", "100"]);
    let issued: Vec<_> = issued.iter().filter(|entry| entry["act"] == "token.issue").collect();
    assert_eq!(issued.len(), 2);
    assert!(issued.iter().any(|entry| entry["jti"] == connected["jti"]), "{issued:#?}");
    let everything = plant.query(&["--limit", "1000"]);
    let everything = format!("{everything:?}");
    assert!(!everything.contains(&first) && !everything.contains(&second), "a token in the log");
    plant.audit_verify().exits(0);
}

#[test]
fn a_token_in_the_password_field_serves_3_1_1_and_bad_ones_are_refused() {
    let (plant, port) = plant(ORIGIN);
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let answered = |bytes: &[u8]| {
        let mut socket = Socket::upgraded_as(port, &device, None);
        send(&mut socket, bytes);
        next(&mut socket)
    };
    let token = issue(&plant, "wall", &[]);
    assert_eq!(answered(&connect_by_password("wall", &token)), (0x20, vec![0, 0]));
    // Not authorized, in 3.1.1.
    let refused = (0x20, vec![0, 5]);
    assert_eq!(answered(&connect_by_password("wall", "hunter2")), refused);
    assert_eq!(answered(&connect(Version::V3, "wall")), refused);
    let elsewhere = Plant::new();
    let foreign = issue(&elsewhere, "wall", &[]);
    assert_eq!(answered(&connect_by_password("wall", &foreign)), refused);
    // Another's Client Identifier is refused as ever: 0x85.
    let (kind, body) = answered(&connect_by_method("desk", "JWT", &token));
    assert_eq!((kind, body[1]), (0x20, 0x85));
    // [MQTT-4.12.0-1]: bad Authentication Method.
    let (kind, body) = answered(&connect_by_method("wall", "SCRAM-SHA-1", &token));
    assert_eq!((kind, body[1]), (0x20, 0x8c));
    broker.lives();
    assert!(broker.stop().success());
    let refused = plant.query(&["--type", "connect.refused", "--limit", "100"]);
    let mut whys: Vec<_> = refused.iter().map(|entry| entry["why"].as_str().unwrap()).collect();
    whys.sort_unstable();
    let expected =
        ["auth.method", "policy.client_id", "token.malformed", "token.missing", "token.signature"];
    assert_eq!(whys, expected, "{refused:#?}");
}

#[test]
fn c15_the_device_listener_takes_no_token() {
    let (plant, _) = plant(ORIGIN);
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let token = issue(&plant, "wall", &[]);
    // Without a certificate TLS itself ends it, whatever comes behind.
    let mut raw = Raw::open(broker.address, tls(&device, None), Version::V5);
    raw.send(&connect_by_method("wall", "JWT", &token));
    assert_eq!(raw.answer(), Answer::Closed);
    // Beside one a method is refused.
    let mut raw = Raw::open(broker.address, tls(&device, Some(&device)), Version::V5);
    raw.send(&connect_by_method("press-7", "JWT", &token));
    let Answer::Packet(0x20, body) = raw.answer() else { panic!("no CONNACK") };
    assert_eq!(body[1], 0x8c);
    // A password is ignored: the certificate says who it is, and that is not the wall.
    let mut raw = Raw::open(broker.address, tls(&device, Some(&device)), Version::V3);
    raw.send(&connect_by_password("press-7", &token));
    assert_eq!(raw.answer(), Answer::Packet(0x20, vec![0, 0]));
    broker.lives();
    assert!(broker.stop().success());
    let connected = plant.query(&["--type", "connect", "--limit", "10"]);
    assert_eq!(connected.len(), 1, "{connected:#?}");
    assert_eq!(connected[0]["who"], "device/press-7");
    assert!(plant.query(&["--who", "dashboard/wall", "--type", "connect"]).is_empty());
}

#[test]
fn tokens_are_issued_and_shown_at_the_command_line() {
    let plant = Plant::new();
    let grants = ["--role", "viewer", "--var", "hall=3", "--for", "1m"];
    let token = issue(&plant, "wall", &grants);
    let shown = run(&mut plant.avow(&["token", "show", "--json", &token])).exits(0);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["identity"], "spiffe://plant.example/dashboard/wall");
    assert_eq!((&shown["roles"][0], &shown["vars"]["hall"]), (&"viewer".into(), &"3".into()));
    assert!(shown.get("token").is_none());
    let told = run(&mut plant.avow(&["token", "show", &token])).exits(0);
    assert!(told.out.starts_with("valid: it names dashboard/wall"), "{}", told.out);
    let refused = run(&mut plant.avow(&["token", "show", "hunter2"])).exits(1);
    assert!(refused.out.contains("token.malformed"), "{}", refused.out);
    run(&mut plant.avow(&["token", "issue", "wall", "--for", "2h"])).exits(2);
    run(&mut plant.avow(&["token", "issue", "a/b"])).exits(2);
    let explained = ["policy", "explain", "wall", "subscribe", "plant/#", "--token-role", "viewer"];
    run(&mut plant.avow(&explained)).exits(0);
    let key = plant.dir().join("certs/token.key");
    std::fs::remove_file(key).unwrap();
    let failed = run(&mut plant.avow(&["token", "issue", "wall"])).exits(2);
    assert!(failed.all().contains("avow.toml") && failed.all().contains("signing_key"));
    plant.audit_verify().exits(0);
}

// --- paho-mqtt ----------------------------------------------------------------------------------

fn paho(version: Version) {
    let Some(mut script) = paho_script() else { return };
    let (plant, port) = plant(ORIGIN);
    let stage = Stage::of(plant);
    let token = issue(&stage.plant, "wall", &[]);
    stage.runs(&mut script, version, &[&port.to_string(), ORIGIN, &token]);
}

#[test]
fn paho_with_a_token_for_its_password_speaks_3_1_1() {
    paho(Version::V3);
}

#[test]
fn paho_with_a_token_for_its_password_speaks_5_0() {
    paho(Version::V5);
}

// --- MQTT.js ------------------------------------------------------------------------------------

fn mqtt_js(version: Version, how: &str) {
    let Some(mut command) = js_script("token.js") else { return };
    let (plant, port) = plant(ORIGIN);
    let stage = Stage::of(plant);
    let first = issue(&stage.plant, "wall", &[]);
    let second = issue(&stage.plant, "wall", &[]);
    command.args([how, level(version), HOST, &port.to_string(), ORIGIN]);
    command.args([&stage.plant.port.to_string()]).arg(&stage.device.dir);
    command.args([&stage.topic, &COUNT.to_string(), &first, &second]);
    stage.succeeds(&mut command);
}

#[test]
fn mqtt_js_with_a_token_for_its_password_speaks_3_1_1() {
    mqtt_js(Version::V3, "password");
}

#[test]
fn mqtt_js_with_a_token_for_its_password_speaks_5_0() {
    mqtt_js(Version::V5, "password");
}

#[test]
fn mqtt_js_with_the_authentication_method_renews() {
    mqtt_js(Version::V5, "method");
}

#[test]
fn a_dashboard_in_chromium_comes_with_a_token() {
    if !websocket::chromium_is_there() {
        return;
    }
    let page_port = free_port();
    let (plant, port) = plant(&format!("https://localhost:{page_port}"));
    let stage = Stage::of(plant);
    let token = issue(&stage.plant, "wall", &[]);
    let mut command = websocket::browser(&stage.plant, page_port, port, &stage.dashboard);
    command.args(["token", level(Version::V5), HOST, &stage.plant.port.to_string()]);
    command.arg(&stage.device.dir).args([&stage.topic, &COUNT.to_string(), &token]);
    stage.succeeds(&mut command);
}

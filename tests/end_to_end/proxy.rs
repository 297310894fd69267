//! Behind a proxy: the address in the PROXY header is the one that limits and entries name, and
//! nobody but the proxy may give one.

use std::io::Write as _;
use std::net::SocketAddr;

use crate::harness::{Broker, Bundle, Plant};
use crate::raw::{Answer, Raw, Version, connect, socket, tls};

/// A plant whose MQTT listener stands behind a proxy.
fn plant(version: &str, trusted: &str) -> Plant {
    let plant = Plant::new();
    plant.set("peer_address = \"pseudonym\"", "peer_address = \"plain\"");
    plant.set("proxy_protocol = \"off\"", &format!("proxy_protocol = \"{version}\""));
    plant.set("trusted_proxies = []", &format!("trusted_proxies = [\"{trusted}\"]"));
    plant
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 40000 8883\r\n").into_bytes()
}

/// With a TLV of four bytes, as a load balancer would add.
fn v2(client: [u8; 4]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13";
    let ports_and_tlv = [0x9c, 0x40, 0x22, 0xb3, 4, 0, 4, 0, 0, 0, 0];
    [&signature[..], &client, &[127, 0, 0, 1], &ports_and_tlv].concat()
}

/// Connects with `header` before TLS, in two pieces.
fn behind(address: SocketAddr, header: &[u8], bundle: &Bundle) -> Raw {
    let mut socket = socket(address);
    let (first, rest) = header.split_at(header.len() / 2);
    for piece in [first, rest] {
        // It may be closed already; then that is what the next read finds.
        let _ = socket.write_all(piece);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Raw::over(socket, tls(bundle, Some(bundle)), Version::V5)
}

#[track_caller]
fn is_let_in(broker: &Broker, header: &[u8], bundle: &Bundle) -> Raw {
    let mut raw = behind(broker.address, header, bundle);
    assert!(raw.send(&connect(Version::V5, &bundle.name)));
    let answer = raw.answer();
    assert!(matches!(&answer, Answer::Packet(0x20, body) if body[1] == 0), "{answer:02x?}");
    raw
}

#[track_caller]
fn is_closed(broker: &Broker, header: &[u8], bundle: &Bundle) {
    let mut raw = behind(broker.address, header, bundle);
    raw.send(&connect(Version::V5, &bundle.name));
    assert_eq!(raw.answer(), Answer::Closed);
}

/// The newest entries of a kind: what they say of `field`, and of the peer.
fn told(plant: &Plant, kind: &str, field: &str) -> Vec<(String, String)> {
    let entries = plant.query(&["--type", kind, "--limit", "100"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut told: Vec<_> =
        entries.iter().map(|entry| (text(&entry[field]), text(&entry["peer"]))).collect();
    told.sort();
    told.dedup();
    told
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned())).collect()
}

#[test]
fn the_client_s_own_address_is_recorded_and_limited() {
    for version in ["v1", "v2"] {
        let plant = plant(version, "127.0.0.0/8");
        plant.set("connects_per_second = 20", "connects_per_second = 1");
        plant.set("connects_burst = 200", "connects_burst = 2");
        let (device, other) = (plant.device("press-7"), plant.device("saw-1"));
        let mut broker = plant.serve();
        let header = |last: u8| match version {
            "v1" => v1(&format!("192.0.2.{last}")),
            _ => v2([192, 0, 2, last]),
        };
        is_let_in(&broker, &header(7), &device);
        is_let_in(&broker, &header(7), &device);
        is_closed(&broker, &header(7), &device);
        // Another client of the same proxy has a burst of its own.
        is_let_in(&broker, &header(8), &other);
        broker.lives();
        assert!(broker.stop().success());
        let refused = told(&plant, "connect.refused", "why");
        assert_eq!(refused, pairs(&[("tls.address_rate", "192.0.2.7")]), "{version}");
        let who =
            pairs(&[("device/press-7", "192.0.2.7:40000"), ("device/saw-1", "192.0.2.8:40000")]);
        assert_eq!(told(&plant, "connect", "who"), who, "{version}");
    }
}

#[test]
fn a23_what_is_no_header_ends_the_connection_and_is_recorded() {
    let plant = plant("v2", "127.0.0.1");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let mut overrun = v2([192, 0, 2, 7]);
    let length_of_tlv = overrun.len() - 5;
    overrun[length_of_tlv] = 0xff;
    let mut long = v2([192, 0, 2, 7]);
    long[14] = 0xff;
    is_closed(&broker, &overrun, &device);
    is_closed(&broker, &long, &device);
    is_closed(&broker, &v1("192.0.2.7"), &device);
    is_closed(&broker, &[], &device);
    // A health check of the proxy's own, and a client behind it.
    is_let_in(&broker, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", &device);
    is_let_in(&broker, &v2([192, 0, 2, 7]), &device);
    broker.lives();
    assert!(broker.stop().success());
    let rows = pairs(&[("proxy.malformed", "127.0.0.1"), ("proxy.too_long", "127.0.0.1")]);
    assert_eq!(told(&plant, "connect.refused", "why"), rows);
}

#[test]
fn nobody_but_the_proxy_may_say_whose_connection_it_is() {
    let plant = plant("v1", "192.0.2.1");
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    is_closed(&broker, &v1("192.0.2.7"), &device);
    is_closed(&broker, &[], &device);
    broker.lives();
    assert!(broker.stop().success());
    let rows = pairs(&[("proxy.untrusted", "127.0.0.1")]);
    assert_eq!(told(&plant, "connect.refused", "why"), rows);
    // Without the protocol a header is no TLS.
    let plant = Plant::new();
    plant.set("peer_address = \"pseudonym\"", "peer_address = \"plain\"");
    let device = plant.device("press-7");
    let broker = plant.serve();
    is_closed(&broker, &v1("192.0.2.7"), &device);
    assert!(broker.stop().success());
    assert_eq!(told(&plant, "connect.refused", "why"), pairs(&[("tls.malformed", "127.0.0.1")]));
}

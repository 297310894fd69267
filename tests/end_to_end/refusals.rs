//! Bad input of every kind: a clear error, the right Reason Code, and a broker that lives on.

use serde_json::Value;

use crate::harness::{Broker, Bundle, Plant, avow, run};
use crate::raw::{Answer, Raw, Version, connect, packet, publish, tls};

/// A plant that serves, with one device.
fn stage() -> (Plant, Broker, Bundle) {
    let plant = Plant::new();
    let device = plant.device("press-7");
    let broker = plant.serve();
    (plant, broker, device)
}

/// The broker still serves an honest device.
#[track_caller]
fn serves_on(broker: &mut Broker, device: &Bundle) {
    broker.lives();
    let mut raw = Raw::connected(broker.address, device, Version::V5);
    let topic = format!("plant/{}/sealed/x", device.name);
    assert!(raw.publish(&topic, 1, 1, b"x"));
    assert_eq!(raw.acknowledged(1), (0, None));
}

/// The newest `--type` entries of a plant whose broker was stopped.
fn entries(plant: &Plant, kind: &str) -> Vec<Value> {
    plant.query(&["--type", kind, "--limit", "1000"])
}

// --- Certificates -------------------------------------------------------------------------------

/// Connects and sends CONNECT with this certificate; nothing may come back but the end.
#[track_caller]
fn is_refused(broker: &Broker, trusting: &Bundle, showing: Option<&Bundle>) {
    for version in [Version::V3, Version::V5] {
        let mut raw = Raw::open(broker.address, tls(trusting, showing), version);
        raw.send(&connect(version, "press-7"));
        assert_eq!(raw.answer(), Answer::Closed);
    }
}

#[test]
fn a_stranger_s_certificate_and_none_are_refused_recorded_and_counted() {
    let (plant, mut broker, device) = stage();
    let elsewhere = Plant::new();
    let stranger = elsewhere.device("press-7");
    is_refused(&broker, &device, Some(&stranger));
    is_refused(&broker, &device, None);
    // The peer may see the end before the broker has counted it.
    broker.wait_for_metric("avow_handshakes_refused_total", 4);
    assert_eq!(broker.metric("avow_handshakes_refused_total"), 4);
    serves_on(&mut broker, &device);
    assert!(broker.stop().success());
    let refused = entries(&plant, "connect.refused");
    // One entry opens for each address and reason; the others are counted when it closes.
    let first = refused.iter().filter(|entry| entry["count"].is_null()).count();
    let more: u64 = refused.iter().filter_map(|entry| entry["count"].as_u64()).sum();
    assert_eq!((first as u64) + more, 4, "{refused:#?}");
    assert!(first >= 2, "{refused:#?}");
    assert!(refused.iter().all(|entry| entry["result"] == "deny" && entry["why"].is_string()));
}

// --- What policy, schema and bounds refuse ------------------------------------------------------

/// The decision id that a Reason String ends with.
fn decision_in(reason: &Option<String>) -> String {
    let text = reason.as_deref().expect("a Reason String");
    text.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn a_refused_subscription_is_told_with_its_reason_and_the_entry() {
    let (plant, broker, device) = stage();
    let mut sub = avow();
    sub.args(["sub", "--connect", &device.path("connect.json"), "-t", "#", "-W", "5"]);
    let said = run(&mut sub).exits(1);
    let (_, decision) = said.err.trim().split_once("policy.no_rule; decision ").expect("a reason");
    assert!(broker.stop().success());
    let refused = plant.query(&["--type", "subscribe", "--decision", "deny"]);
    assert_eq!(refused[0]["id"], decision, "{refused:#?}");
}

#[test]
fn another_device_s_topic_is_refused_and_the_answer_names_the_entry() {
    let (plant, mut broker, device) = stage();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    let mut decisions = Vec::new();
    for (id, qos) in [(1, 1), (2, 2)] {
        assert!(raw.publish("plant/press-8/sealed/x", qos, id, b"not mine"));
        let (code, reason) = raw.acknowledged(id);
        assert_eq!(code, 0x87, "{reason:?}");
        decisions.push(decision_in(&reason));
    }
    // The connection goes on.
    assert!(raw.publish("plant/press-7/sealed/x", 1, 3, b"mine"));
    assert_eq!(raw.acknowledged(3), (0, None));
    // 3.1.1 has no answer that says no: the connection is closed.
    let mut old = Raw::connected(broker.address, &plant.device("saw-1"), Version::V3);
    assert!(old.publish("plant/press-7/sealed/x", 1, 1, b"not mine"));
    assert_eq!(old.until_closed(), []);
    assert_eq!(broker.metric("avow_refusals_total{reason=\"policy.no_rule\"}"), 3);
    serves_on(&mut broker, &device);
    assert!(broker.stop().success());
    let refused = entries(&plant, "publish.refused");
    for decision in decisions {
        let mut found = refused.iter().filter(|entry| entry["id"] == decision.as_str());
        let entry = found.next().unwrap_or_else(|| panic!("no entry {decision}: {refused:#?}"));
        assert_eq!(entry["who"], "device/press-7");
        assert_eq!(entry["topic"], "plant/press-8/sealed/x");
        assert_eq!((&entry["result"], &entry["code"]), (&"deny".into(), &0x87.into()));
    }
    assert!(refused.iter().any(|entry| entry["who"] == "device/saw-1"), "{refused:#?}");
}

#[test]
fn a_payload_that_its_schema_does_not_allow_is_answered_0x83() {
    let (plant, mut broker, device) = stage();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    let bad: [&[u8]; 4] = [b"not JSON", b"{\"value\":", b"{\"value\":\"warm\"}", b"[[[[[[]]]]]]"];
    for (id, payload) in (1..).zip(bad) {
        assert!(raw.publish("plant/press-7/telemetry/temperature", 1, id, payload));
        let (code, reason) = raw.acknowledged(id);
        assert_eq!(code, 0x83, "{reason:?}");
        assert!(!decision_in(&reason).is_empty());
    }
    serves_on(&mut broker, &device);
    assert!(broker.stop().success());
    let refused = entries(&plant, "publish.refused");
    assert_eq!(refused.len(), bad.len(), "{refused:#?}");
    // The log says why, and never repeats the payload.
    assert!(refused.iter().all(|entry| !entry.to_string().contains("warm")), "{refused:#?}");
}

#[test]
fn a_packet_above_the_bound_ends_the_connection_with_0x95() {
    let (_plant, mut broker, device) = stage();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    // The bound is 128 KiB, fixed header included.
    raw.publish("plant/press-7/sealed/x", 1, 1, &vec![0; 128 * 1024]);
    let packets = raw.until_closed();
    assert_eq!(
        packets.iter().map(|(kind, body)| (*kind, body[0])).collect::<Vec<_>>(),
        [(0xe0, 0x95)]
    );
    let mut old = Raw::connected(broker.address, &device, Version::V3);
    old.publish("plant/press-7/sealed/x", 1, 1, &vec![0; 128 * 1024]);
    assert_eq!(old.until_closed(), []);
    // A CONNECT has a bound of its own, and a length that is announced is not waited for.
    let mut early = Raw::open(broker.address, tls(&device, Some(&device)), Version::V5);
    early.send(&[0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4]);
    let packets = early.until_closed();
    assert!(packets.iter().all(|(kind, body)| *kind == 0x20 && body[1] >= 0x80), "{packets:02x?}");
    serves_on(&mut broker, &device);
}

// --- What is no MQTT ----------------------------------------------------------------------------

/// Byte strings that no client may send after CONNECT, with what is wrong.
fn malformed(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let topic = "plant/press-7/sealed/x";
    let good = publish(version, topic, 1, 1, b"x");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    vec![
        ("type 0", packet(0x00, &[])),
        ("QoS 3", with(0, 0x36)),
        ("DUP with QoS 0", packet(0x38, b"\0\x01a\0")),
        ("Remaining Length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("Remaining Length that is not minimal", vec![0xc0, 0x80, 0x00]),
        ("Remaining Length shorter than the topic", packet(0x32, b"\0\x20plant")),
        ("PUBLISH without its Packet Identifier", packet(0x32, b"\0\x01a")),
        ("Packet Identifier 0", publish(version, topic, 1, 0, b"x")),
        ("an empty topic", publish(version, "", 1, 1, b"x")),
        ("a wildcard in a topic", publish(version, "plant/press-7/#", 1, 1, b"x")),
        ("U+0000 in a topic", publish(version, "plant/\0", 1, 1, b"x")),
        ("a topic that is not UTF-8", with(5, 0xff)),
        ("SUBSCRIBE with wrong flags", packet(0x80, &[0, 1])),
        ("SUBSCRIBE without a filter", packet(0x82, &[0, 1, 0])),
        ("SUBSCRIBE cut before its options", packet(0x82, b"\0\x01\0\0\x01a")),
        ("PUBREL with wrong flags", packet(0x60, &[0, 1])),
        ("PINGREQ with a body", packet(0xc0, &[0])),
        ("CONNACK from a client", packet(0x20, &[0, 0])),
        ("SUBACK from a client", packet(0x90, &[0, 1, 0])),
        ("a second CONNECT", connect(version, "press-7")),
    ]
}

#[test]
fn malformed_packets_end_their_connection_and_nothing_else() {
    let (plant, mut broker, device) = stage();
    let bystander = plant.device("saw-1");
    let mut honest = Raw::connected(broker.address, &bystander, Version::V5);
    for version in [Version::V3, Version::V5] {
        for (what, bytes) in malformed(version) {
            let mut raw = Raw::connected(broker.address, &device, version);
            raw.send(&bytes);
            let packets = raw.until_closed();
            match version {
                // 3.1.1 has no DISCONNECT from the server.
                Version::V3 => assert_eq!(packets, [], "{what}"),
                Version::V5 => {
                    let kinds: Vec<u8> = packets.iter().map(|(kind, _)| *kind).collect();
                    assert_eq!(kinds, [0xe0], "{what}: {packets:02x?}");
                    let code = packets[0].1.first().copied().unwrap_or(0);
                    assert!(code >= 0x80, "{what}: {packets:02x?}");
                }
            }
        }
    }
    let before_connect = [
        ("PUBLISH before CONNECT", publish(Version::V5, "plant/press-7/sealed/x", 1, 1, b"x")),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("another protocol's name", packet(0x10, b"\0\x04MQTX\x05\x02\0\x3c\0\0\x01a")),
        ("a level from the future", packet(0x10, b"\0\x04MQTT\x06\x02\0\x3c\0\0\x01a")),
    ];
    for (what, bytes) in before_connect {
        let mut raw = Raw::open(broker.address, tls(&device, Some(&device)), Version::V5);
        raw.send(&bytes);
        let packets = raw.until_closed();
        let refused = |(kind, body): &(u8, Vec<u8>)| *kind == 0x20 && body[1] != 0;
        assert!(packets.len() <= 1 && packets.iter().all(refused), "{what}: {packets:02x?}");
    }
    assert!(honest.publish("plant/saw-1/sealed/x", 1, 1, b"x"));
    assert_eq!(honest.acknowledged(1), (0, None), "a bystander was hurt");
    let sent = (2 * malformed(Version::V5).len() + 4) as u64;
    assert_eq!(broker.metric("avow_violations_total"), sent);
    serves_on(&mut broker, &device);
    assert!(broker.stop().success());
    plant.audit_verify().exits(0);
}

// --- Files and commands -------------------------------------------------------------------------

#[test]
fn a_broken_file_is_refused_with_its_place() {
    let breaks: [(&str, &str, &str); 4] = [
        ("avow.toml", "handshakes_max = 256", "handshakes_max = 0"),
        ("avow.toml", "[listen]", "[listen"),
        ("policy.toml", "qos_max = 2", "qos_max = 3"),
        // A rule that no longer does what the file's own tests say.
        ("policy.toml", "publish = [\"plant/${device}/telemetry/#\"]", "publish = [\"plant/#\"]"),
    ];
    let plant = Plant::new();
    for (file, from, to) in breaks {
        let whole = std::fs::read_to_string(plant.dir().join(file)).unwrap();
        plant.edit(file, |text| text.replacen(from, to, 1));
        for verb in [&["config", "check"][..], &["serve"]] {
            let said = run(&mut plant.avow(verb)).exits(2);
            let place = format!("{file}:");
            assert!(said.err.contains(&place), "{verb:?} after {to:?}: {said:#?}");
            assert!(!said.err.contains("panicked"), "{said:#?}");
        }
        plant.write(file, &whole);
    }
    run(&mut plant.avow(&["config", "check"])).exits(0);
}

#[test]
fn init_overwrites_nothing() {
    let plant = Plant::new();
    let before = std::fs::read_to_string(plant.dir().join("avow.toml")).unwrap();
    let mut again = crate::harness::avow();
    let said = run(again.arg("init").arg(plant.dir())).exits(2);
    assert!(!said.err.is_empty(), "{said:#?}");
    assert_eq!(std::fs::read_to_string(plant.dir().join("avow.toml")).unwrap(), before);
    // Nor does `device add`.
    let device = plant.device("press-7");
    let key = device.read("key.pem");
    run(plant.avow(&["device", "add", "press-7", "--out"]).arg(&device.dir)).exits(2);
    assert_eq!(device.read("key.pem"), key);
    plant.audit_verify().exits(0);
}

#[test]
fn a_second_broker_on_one_directory_is_refused() {
    let (plant, mut broker, device) = stage();
    let said = run(&mut plant.avow(&["serve"])).exits(2);
    assert!(said.err.contains("running"), "{said:#?}");
    serves_on(&mut broker, &device);
}

#[test]
fn devices_are_added_and_the_log_is_read_while_it_serves() {
    let (plant, mut broker, device) = stage();
    let late = plant.device("saw-9");
    serves_on(&mut broker, &late);
    serves_on(&mut broker, &device);
    plant.audit_verify().exits(0);
    broker.wait_for_metric("avow_publishes_recorded_total", 2);
    let began = std::time::Instant::now();
    while plant.query(&["--device", "saw-9", "--type", "publish"]).is_empty() {
        assert!(began.elapsed().as_secs() < 10, "the entry does not show while it serves");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a05_100_mb_that_are_not_connect_cost_no_memory() {
    const RESIDENT_KIB_MAX: u64 = 1024;
    let plant = Plant::new();
    let device = plant.device("press-7");
    let mut broker = plant.serve();
    let flood = |broker: &Broker| {
        for kind in (0_u8..16).filter(|kind| *kind != 1) {
            let mut raw = Raw::open(broker.address, tls(&device, Some(&device)), Version::V5);
            raw.send(&[kind << 4, 0x80, 0xC2, 0xD7, 0x2F]);
            // The fixed header was enough; whatever else is sent meets a closed door.
            let chunk = [0; 16 * 1024];
            let _ = (0..256).all(|_| raw.send(&chunk));
            assert_eq!(raw.until_closed(), []);
        }
    };
    // What the first connections take once, for all that follow.
    flood(&broker);
    let before = broker.resident_kib();
    for _ in 0..3 {
        flood(&broker);
    }
    let grown = broker.resident_kib().saturating_sub(before);
    assert!(grown <= RESIDENT_KIB_MAX, "{grown} KiB more");
    broker.lives();
}

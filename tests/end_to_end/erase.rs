//! Erasing: of what was erased no byte is left in any file, nobody gets it any more, and the log still
//! verifies. Who erases without saying so is found out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use avow::storage::{RealDisk, erasure};

use crate::harness::{Broker, Bundle, Plant, run};
use crate::raw::{Answer, Raw, Version, packet, publish, text, tls};

const SEALED: &str = "SEALED-SECRET-5512";
const RETAINED: &str = "17734001773477";
const QUARANTINED: &str = "QUARANTINED-3391";
const PERSON: &str = "Jane Roe-8816";
const KEPT: &str = "KEPT-SECRET-9921";

/// A 3.1.1 connection with Clean Session 0.
fn lasting(broker: &Broker, bundle: &Bundle) -> Raw {
    let mut raw = Raw::open(broker.address, tls(bundle, Some(bundle)), Version::V3);
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend([4, 0, 0, 60]);
    text(&mut body, &bundle.name);
    assert!(raw.send(&packet(0x10, &body)));
    assert!(matches!(raw.answer(), Answer::Packet(0x20, body) if body[1] == 0));
    raw
}

fn subscribe(raw: &mut Raw, filter: &str) {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(1);
    assert!(raw.send(&packet(0x82, &body)));
}

/// What comes to it, until nothing has come for a while; each is acknowledged.
fn taken(raw: &mut Raw) -> String {
    let mut taken = String::new();
    let mut quiet = 0;
    while quiet < 4 {
        // A PINGRESP comes behind whatever was ready to be sent.
        assert!(raw.send(&packet(0xC0, &[])));
        loop {
            match raw.answer() {
                Answer::Packet(0xD0, _) => break,
                Answer::Packet(first, body) if first & 0xF0 == 0x30 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    if first & 6 > 0 {
                        assert!(raw.send(&packet(0x40, &body[topic + 2..topic + 4])));
                    }
                    taken.push_str(&String::from_utf8_lossy(&body));
                    quiet = 0;
                }
                Answer::Packet(..) => {}
                other => panic!("{other:?}"),
            }
        }
        quiet += 1;
        std::thread::sleep(Duration::from_millis(250));
    }
    taken
}

/// Fails if any file below a directory holds `needle`.
#[track_caller]
fn is_in_no_file(directory: &Path, needle: &[u8]) {
    let found = holding(directory, needle);
    assert!(found.is_empty(), "{found:?}");
}

/// Every file below a directory whose bytes hold `needle`.
fn holding(directory: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if std::fs::read(&path).is_ok_and(|bytes| memmem(&bytes, needle)) {
            found.push(path);
        }
    }
    found
}

fn memmem(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// The salts of all bodies that hold `needle`.
fn salts(plant: &Plant, needle: &str) -> Vec<[u8; 16]> {
    let mut salts = Vec::new();
    let disk = RealDisk::new(plant.dir().join("evidence"));
    erasure::bodies(&disk, u64::MAX, &mut |found| {
        if memmem(found.body.payload, needle.as_bytes()) {
            salts.push(*found.body.salt);
        }
    })
    .unwrap();
    salts
}

/// A plant whose log, snapshot and queues hold all the secrets; and the subscriber's and devices' keys.
fn recorded() -> (Plant, Bundle, [Bundle; 2]) {
    let plant = Plant::new();
    plant.set("bytes_burst = 1_048_576", "bytes_burst = 16_777_216");
    let wall = plant.dashboard("wall");
    let devices = ["press-7", "press-8"].map(|name| plant.device(name));
    let broker = plant.serve();
    subscribe(&mut lasting(&broker, &wall), "plant/#");
    let mut seven = Raw::connected(broker.address, &devices[0], Version::V5);
    let mut id = 0;
    let mut send = |raw: &mut Raw, topic: &str, flags: u8, payload: &str| {
        id += 1;
        let mut bytes = publish(Version::V5, topic, 1, id, payload.as_bytes());
        bytes[0] |= flags;
        assert!(raw.send(&bytes));
        raw.acknowledged(id).0
    };
    let reading =
        format!(r#"{{"ts":1,"seq":1,"values":{{"c":1}},"operator":{{"name":"{PERSON}"}}}}"#);
    assert_eq!(send(&mut seven, "plant/press-7/telemetry/t", 0, &reading), 0);
    assert_eq!(send(&mut seven, "plant/press-7/sealed/x", 0, SEALED), 0);
    let status = format!(r#"{{"state":"running","since":{RETAINED}}}"#);
    assert_eq!(send(&mut seven, "plant/press-7/status", 1, &status), 0);
    assert_eq!(send(&mut seven, "plant/press-7/status", 0, QUARANTINED), 0x83);
    let mut eight = Raw::connected(broker.address, &devices[1], Version::V5);
    assert_eq!(send(&mut eight, "plant/press-8/sealed/x", 0, KEPT), 0);
    // More than a segment, so that a snapshot holds the queue.
    for _ in 0..25 {
        assert_eq!(send(&mut eight, "plant/press-8/sealed/y", 0, &"y".repeat(60_000)), 0);
    }
    let state = plant.dir().join("evidence/state");
    for _ in 0..100 {
        if !holding(&state, SEALED.as_bytes()).is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!holding(&state, SEALED.as_bytes()).is_empty(), "a snapshot holds what is queued");
    assert!(broker.stop().success());
    (plant, wall, devices)
}

#[test]
fn of_what_was_erased_no_byte_is_left_and_nobody_gets_it() {
    let (plant, wall, _devices) = recorded();
    let erase = |arguments: &[&str]| run(plant.avow(&["audit", "erase"]).args(arguments));
    for bad in [
        &["--device", "press-7"][..],
        &["--reason", "r"],
        &["--device", "a/b", "--reason", "r"],
        &["--device", "press-7", "--index", "1", "--reason", "r"],
        &["--index", "9..1", "--reason", "r"],
    ] {
        erase(bad).exits(2);
    }
    // A person's data, without a broker.
    let person = ["--subject", PERSON, "--reason", "request 12"];
    let salts_of_person = salts(&plant, PERSON);
    assert!(!salts_of_person.is_empty());
    let dry = erase(&[&person[..], &["--dry-run"]].concat()).exits(0);
    assert!(dry.out.contains("would erase 1 bodies"), "{}", dry.out);
    assert!(dry.out.contains("could not be searched"), "{}", dry.out);
    assert_eq!(salts(&plant, PERSON).len(), salts_of_person.len());
    erase(&person).exits(0);
    erase(&person).exits(1);
    for needle in [PERSON.as_bytes()].into_iter().chain(salts_of_person.iter().map(|it| &it[..])) {
        is_in_no_file(&plant.dir(), needle);
    }
    plant.audit_verify().exits(0);

    // A device's, beside the running broker.
    let secrets = [SEALED, RETAINED, QUARANTINED];
    let mut needles: Vec<Vec<u8>> = secrets.map(|it| it.as_bytes().to_vec()).into();
    for secret in secrets {
        needles.extend(salts(&plant, secret).iter().map(|salt| salt.to_vec()));
    }
    let broker = plant.serve();
    let said = erase(&["--device", "press-7", "--reason", "sold", "--json"]).exits(0);
    let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for needle in &needles {
        is_in_no_file(&plant.dir(), needle);
    }
    assert!(!holding(&plant.dir(), KEPT.as_bytes()).is_empty(), "the search finds what is there");
    // Nobody gets it: from the queue, from the retained messages, or as an empty message.
    let mut dashboard = lasting(&broker, &wall);
    let got = taken(&mut dashboard);
    assert!(got.contains(KEPT) && !got.contains("press-7"), "{}", got.replace('y', ""));
    let late = plant.dashboard("late");
    let mut late = lasting(&broker, &late);
    subscribe(&mut late, "plant/press-7/#");
    assert_eq!(taken(&mut late), "");

    // It is shown as erased, it is proven all the same, and everything verifies.
    let published = plant.query(&["--device", "press-7", "--type", "publish"]);
    assert!(published.len() >= 2, "{published:?}");
    let index = said["indices"].as_str().unwrap();
    let index: &str = index.split(['-', ',']).next().unwrap();
    let shown = run(&mut plant.avow(&["audit", "show", index])).exits(0);
    assert!(shown.out.contains("body: erased at"), "{}", shown.out);
    assert!(shown.out.contains("reason: "), "{}", shown.out);
    run(&mut plant.avow(&["audit", "prove", index])).exits(0);
    let verified = plant.audit_verify().exits(0);
    assert!(verified.out.contains("bodies were erased, as entries say"), "{}", verified.out);
    // The entries say who, why and which, and no person's name.
    let erased = plant.query(&["--type", "erased"]);
    assert_eq!(erased.len(), 2, "{erased:?}");
    assert_eq!(
        (&erased[1]["subject"], &erased[1]["reason"]),
        (&"device/press-7".into(), &"sold".into())
    );
    assert!(erased[0]["subject"].as_str().unwrap().starts_with("subject/k1."), "{erased:?}");
    // Recovery and replay hold after a crash and in order.
    broker.kill();
    let broker = plant.serve();
    assert_eq!(taken(&mut lasting(&broker, &wall)), "", "it had everything");
    assert!(broker.stop().success());
    plant.audit_verify().exits(0);
    for needle in &needles {
        is_in_no_file(&plant.dir(), needle);
    }
}

#[test]
fn a_body_that_was_erased_without_an_entry_is_found_and_located() {
    let (plant, ..) = recorded();
    let needle = KEPT.as_bytes();
    let salt = salts(&plant, KEPT)[0];
    let [segment] = &holding(&plant.dir().join("evidence/segments"), needle)[..] else { panic!() };
    let mut bytes = std::fs::read(segment).unwrap();
    let at = bytes.windows(16).position(|window| window == salt).unwrap();
    bytes[at..at + 16 + needle.len()].fill(0);
    std::fs::write(segment, bytes).unwrap();
    let said = plant.audit_verify().exits(1);
    assert!(said.out.contains("no entry says so"), "{}", said.out);
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.out.contains(name), "{}", said.out);
    // The broker does not start over it either.
    run(&mut plant.avow(&["audit", "erase", "--index", "0", "--reason", "x"])).exits(1);
}

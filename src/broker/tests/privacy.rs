//! What entries and events hold of addresses and Client Identifiers, and what becomes of erased bodies.

use super::*;
use crate::broker::Administration;
use crate::evidence::erasure::{ERASE_BEGIN_ACT, IndexRanges};
use crate::evidence::{Privacy, PseudonymKey, Shown};

const V5: ProtocolVersion = ProtocolVersion::V5;

fn rig(peer_address: Shown) -> Rig {
    let key = Some(Arc::new(PseudonymKey::new(1, &[1; 32])));
    let privacy = Privacy { peer_address, client_id: Shown::Pseudonym, key };
    let mut settings = Settings { privacy, ..super::super::testing::settings() };
    settings.bounds.client_id_bytes_max = 30;
    Rig::of(settings)
}

/// Connects, is refused, breaks the protocol, fails to shake hands: every entry that names a peer.
fn live(rig: &mut Rig) -> String {
    rig.client("device/a", V5);
    rig.connect("device/b", connect(V5, "b-and-more-than-thirty-bytes-of-it"));
    let id = rig.open("device/c");
    rig.packet(id, Packet::PingReq);
    for _ in 0..3 {
        let peer = "127.0.0.1:9".parse().unwrap();
        rig.input(Input::HandshakeRefused { peer, reason: "tls.alert" });
    }
    let nameless = rig.open("");
    rig.versions.insert(nameless, V5);
    rig.packet(nameless, Packet::Connect(Box::new(connect(V5, "nameless"))));
    rig.advance(Duration::from_secs(11));
    serde_json::to_string(&rig.entries.drain(..).collect::<Vec<_>>()).unwrap()
}

#[test]
fn no_entry_holds_an_address_or_an_identifier_in_plain() {
    let mut rig = rig(Shown::Pseudonym);
    let entries = live(&mut rig);
    assert!(!entries.contains("127.0.0.1") && !entries.contains("nameless"), "{entries}");
    assert!(!entries.contains("more-than-thirty"), "{entries}");
    // connect, connect.refused, mqtt.violation, tls.alert and its count, the nameless one.
    assert_eq!(entries.matches(r#""peer":"k1."#).count(), 6, "{entries}");
    assert_eq!(entries.matches(r#""client":"k1."#).count(), 3, "{entries}");

    rig.input(Input::PseudonymKey(Arc::new(PseudonymKey::new(2, &[2; 32]))));
    let entries = live(&mut rig);
    assert_eq!(entries.matches(r#""peer":"k2."#).count(), 6, "{entries}");
    assert!(!entries.contains("k1."), "{entries}");
}

#[test]
fn an_address_that_is_not_wanted_leaves_no_field() {
    let entries = live(&mut rig(Shown::None));
    assert!(!entries.contains(r#""peer""#), "{entries}");
    let entries = live(&mut rig(Shown::Plain));
    assert_eq!(entries.matches(r#""peer":"127.0.0.1"#).count(), 6, "{entries}");
}

fn erase(rig: &mut Rig, first: u64, last: u64) {
    let ranges = Arc::new(IndexRanges::of(first..=last));
    let administration = Administration {
        ticket: 0,
        act: ERASE_BEGIN_ACT,
        subject: "x".to_owned(),
        facts: vec![("indices", ranges.to_string())],
    };
    rig.input(Input::Erase { ranges, administration });
    rig.sync();
}

#[test]
fn what_was_erased_is_not_sent_again_not_retained_and_no_will() {
    let mut rig = Rig::new();
    let board = rig.connect("dashboard/x", lasting(V5, "x", 1_000));
    rig.take(board);
    rig.subscribe(board, "plant/#", QoS::AtLeastOnce);
    let mut packet = lasting(V5, "a", 1_000);
    packet.will = Some(will("plant/a/sealed/gone", "gone", 0));
    let device = rig.connect("device/a", packet);
    let mut retained = message("plant/a/sealed/1", "one", QoS::AtLeastOnce, 1);
    retained.retain = true;
    rig.packet(device, Packet::Publish(Box::new(retained)));
    rig.packet(device, publish("plant/a/sealed/2", "two", QoS::AtLeastOnce, 2));
    rig.sync();
    let last = rig.entries.len() as u64 - 1;
    rig.packet(device, publish("plant/a/sealed/3", "three", QoS::AtLeastOnce, 3));
    rig.sync();
    // All three were sent, and none is acknowledged.
    assert_eq!(rig.payloads(board), ["one", "two", "three"]);
    erase(&mut rig, 0, last);
    let begun = rig.entries.last().unwrap();
    assert_eq!((&begun["type"], &begun["act"]), (&"admin".into(), &"erase.begin".into()));
    rig.close(board);
    let mut again = lasting(V5, "x", 1_000);
    again.clean_start = false;
    let board = rig.connect("dashboard/x", again);
    rig.sync();
    assert_eq!(rig.payloads(board), ["three"], "what is left is sent again, with DUP");
    rig.close(device);
    assert_eq!(rig.payloads(board), [""; 0], "its Will was erased with its CONNECT");
    let late = rig.client("dashboard/y", V5);
    rig.subscribe(late, "plant/#", QoS::AtLeastOnce);
    rig.sync();
    assert_eq!(rig.payloads(late), [""; 0]);
    // The topic can be retained again.
    let device = rig.client("device/a", V5);
    let mut retained = message("plant/a/sealed/1", "new", QoS::AtLeastOnce, 4);
    retained.retain = true;
    rig.packet(device, Packet::Publish(Box::new(retained)));
    rig.sync();
    let later = rig.client("dashboard/z", V5);
    rig.subscribe(later, "plant/#", QoS::AtLeastOnce);
    rig.sync();
    assert_eq!(rig.payloads(later), ["new"]);
}

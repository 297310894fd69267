//! What entries and events hold of addresses and Client Identifiers.

use super::*;
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

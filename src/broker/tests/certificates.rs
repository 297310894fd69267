//! `cert` entries: one for each certificate, before whatever rests on it.

use super::*;
use crate::identity::CertificationPath;

const V5: ProtocolVersion = ProtocolVersion::V5;

fn by_path(name: &str, path: CertificationPath) -> Option<Certified> {
    let x5t = crate::identity::certificate::sha256(path.end_entity());
    Some(Certified { x5t, path: Some(Arc::new(path)), ..certified(name) })
}

/// A client whose CONNECT has come, and nothing is on disk since.
fn arriving(rig: &mut Rig, name: &str) -> ConnectionId {
    let path = CertificationPath::of(name.as_bytes(), &[b"issuing"], b"root");
    let id = rig.open_by(by_path(name, path));
    rig.versions.insert(id, V5);
    let client = name.rsplit('/').next().unwrap();
    rig.packet(id, Packet::Connect(Box::new(connect(V5, client))));
    id
}

#[test]
fn a_certificate_is_logged_once_and_every_connect_names_where() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let (one, other) = (arriving(&mut rig, "device/a"), arriving(&mut rig, "device/a"));
    assert_eq!(rig.entries.len(), 1, "both wait for it");
    rig.sync();
    let types: Vec<_> = rig.entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["cert", "connect", "connect", "disconnect"]);
    let cert = rig.log.iter().find(|record| record.head.starts_with(br#"{"v":1,"type":"cert""#));
    let (index, cert) = cert.map(|cert| (cert.index, cert.head.clone())).unwrap();
    assert_eq!((&rig.entries[1]["cert"], &rig.entries[2]["cert"]), (&index.into(), &index.into()));
    assert!(rig.take(one).iter().any(|packet| matches!(packet, Packet::ConnAck(_))));
    assert!(matches!(rig.take(other)[..], [Packet::ConnAck(_)]));
    insta::assert_snapshot!(String::from_utf8(cert).unwrap(), @r#"{"v":1,"type":"cert","t":1000000000000000,"node":"plant","id":"a1u2uu-4","who":"device/a","result":"allow","trust":"plant","x5t":"_RnADleTTUYqa6_u2a5-Sm1u7rtU0IUeuFYKU1665qY","revocation":"unchecked","chain":["ZGV2aWNlL2E","aXNzdWluZw"],"anchor":"cm9vdA"}"#);
    // Later on nothing waits.
    rig.entries.clear();
    arriving(&mut rig, "device/a");
    assert_eq!(rig.entries[0]["type"], "connect");
    assert_eq!(rig.entries[0]["cert"], index);
    // A connection that stays does not hold the certificates.
    let facts = &rig.broker.connections[&other].facts;
    assert_eq!(facts.certificate.as_ref().unwrap().path, None);
}

#[test]
fn whoever_leaves_while_its_certificate_is_logged_is_recorded_as_never_connected() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let id = arriving(&mut rig, "device/a");
    rig.input(Input::Closed { connection: id, cause: CloseCause::Peer });
    rig.sync();
    assert_eq!(rig.entry_types(), ["cert", "connect.refused"]);
    assert!(rig.broker.session_keys.is_empty() && rig.broker.connections.is_empty());
}

#[test]
fn a_refused_connect_names_its_certificate_too() {
    let mut rig = Rig::new();
    rig.entries.clear();
    let path = CertificationPath::of(b"a", &[], b"root");
    let id = rig.open_by(by_path("device/a", path));
    rig.versions.insert(id, V5);
    rig.packet(id, Packet::Connect(Box::new(connect(V5, "b"))));
    rig.sync();
    assert!(rig.entries[1]["cert"].is_u64());
    assert_eq!(rig.entry_types(), ["cert", "connect.refused"]);
}

#[test]
fn a_path_that_has_no_room_in_an_entry_stands_there_by_its_hashes() {
    let logged = |bytes: usize| {
        let mut rig = Rig::new();
        rig.entries.clear();
        // Three bytes are four of text; the end entity and the anchor have three each.
        let path = CertificationPath::of(b"abc", &[&vec![7; bytes]], b"def");
        let id = rig.open_by(by_path("device/a", path));
        rig.packet(id, Packet::Connect(Box::new(connect(V5, "a"))));
        rig.sync();
        rig.entries[0].clone()
    };
    let whole = logged(44_994);
    assert_eq!(
        (whole["chain"].as_array().unwrap().len(), &whole["chain_sha256"]),
        (2, &Value::Null)
    );
    let hashed = logged(44_995);
    assert_eq!((&hashed["chain"], &hashed["anchor"]), (&Value::Null, &Value::Null));
    assert_eq!(hashed["chain_sha256"][0], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    assert!(hashed["anchor_sha256"].is_string());
}

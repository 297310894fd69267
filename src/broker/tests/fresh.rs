//! Freshness on the line: what is flagged, refused, and never asked for.

use super::*;

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/telemetry/x";

#[test]
fn a_message_that_is_not_fresh_is_flagged_in_its_entry_and_counted() {
    let mut rig =
        Rig::of(Settings { schemas: fresh("flag"), ..crate::broker::testing::settings() });
    let id = rig.client("device/a", V5);
    rig.entries.clear();
    let now = rig.now.unix.as_seconds();
    for (at, packet_id) in [(now, 1), (now - 601, 2), (now + 31, 3)] {
        rig.packet(id, publish(T, &format!(r#"{{"t":{at}}}"#), QoS::AtLeastOnce, packet_id));
    }
    rig.sync();
    let flags: Vec<_> = rig.entries.iter().map(|entry| entry["flags"].to_string()).collect();
    assert_eq!(flags, ["null", r#"["late"]"#, r#"["early"]"#]);
    assert_eq!(rig.broker.counters().publishes_flagged, 2);
    assert!(rig.entries.iter().all(|entry| entry["type"] == "publish"));
    let acks = rig.take(id);
    let no = |packet: &&Packet| !matches!(packet, Packet::PubAck(ack) if !ack.reason.is_error());
    assert_eq!(acks.iter().find(no), None);
}

#[test]
fn a_message_that_is_not_fresh_is_refused_where_its_schema_says_so_but_never_a_will() {
    let schemas = fresh("refuse");
    let mut rig = Rig::of(Settings { schemas, ..crate::broker::testing::settings() });
    let mut packet = connect(V5, "a");
    packet.will = Some(will(T, r#"{"t":5}"#, 0));
    let id = rig.connect("device/a", packet);
    rig.take(id);
    rig.entries.clear();
    rig.packet(id, publish(T, r#"{"t":5}"#, QoS::AtLeastOnce, 1));
    rig.sync();
    let entry = &rig.entries[0];
    assert_eq!(
        (&entry["type"], &entry["why"]),
        (&"publish.refused".into(), &"payload.late".into())
    );
    assert_eq!((&entry["by"], &entry["detail"]), (&"telemetry".into(), &"/t: past 10m".into()));
    let acks = rig.take(id);
    let [Packet::PubAck(ack)] = &acks[..] else { panic!("{acks:?}") };
    assert_eq!(ack.reason.as_u8(), 0x83);
    rig.entries.clear();
    rig.close(id);
    let entry = rig.entries.iter().find(|entry| entry["type"] == "will").unwrap();
    assert_eq!((&entry["result"], &entry["flags"]), (&"allow".into(), &Value::Null));
}

/// Schemas whose payloads state their own time.
fn fresh(on_failure: &str) -> Arc<crate::schema::Schemas> {
    let registry = format!(
        "[[schema]]\nid='telemetry'\nfilter='plant/+/telemetry/#'\nfile='s.json'\n\
         time = {{ pointer='/t', unit='s', on_failure='{on_failure}' }}"
    );
    let read = |_: &str| Ok::<_, String>("true".to_owned());
    Arc::new(crate::schema::Schemas::parse("registry.toml", &registry, read).unwrap())
}

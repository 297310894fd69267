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

const COUNTED: &str = "plant/a/telemetry/counted/x";
const STRICT: &str = "plant/a/telemetry/strict/x";

/// Publishes numbers on a topic and says what became of each: flags and missing, or why not.
fn number(rig: &mut Rig, id: ConnectionId, topic: &str, numbers: &[(u64, bool)]) -> Vec<String> {
    rig.entries.clear();
    for (packet_id, (number, dup)) in numbers.iter().enumerate() {
        let payload = format!(r#"{{"t":{number}}}"#);
        let mut publish =
            message(topic, &payload, QoS::AtLeastOnce, u16::try_from(packet_id).unwrap() + 1);
        publish.dup = *dup;
        rig.packet(id, Packet::Publish(Box::new(publish)));
    }
    rig.sync();
    let of_topic = rig.entries.iter().filter(|entry| entry["topic"] == topic);
    let entries = of_topic.filter(|entry| entry["type"] != "gap");
    let said = entries.map(|entry| match entry["why"].as_str() {
        Some(why) => why.to_owned(),
        None => format!("{} {} {}", entry["pseq"], entry["flags"], entry["missing"]),
    });
    said.collect()
}

#[test]
fn a_number_stands_in_the_entry_with_what_is_odd_about_it() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    let numbers = [(7, false), (8, false), (8, true), (8, false), (12, false), (11, false)];
    let said = number(&mut rig, id, COUNTED, &numbers);
    let expected = [
        r#"7 ["first"] null"#,
        "8 null null",
        r#"8 ["resend"] null"#,
        r#"8 ["replay"] null"#,
        r#"12 ["gap"] 3"#,
        "11 null null",
    ];
    assert_eq!(said, expected);
    let gaps: Vec<_> = rig.entries.iter().filter(|entry| entry["type"] == "gap").collect();
    let [gap] = &gaps[..] else { panic!("{gaps:?}") };
    assert_eq!((&gap["from"], &gap["to"], &gap["missing"]), (&9.into(), &11.into(), &3.into()));
    assert_eq!((&gap["who"], &gap["topic"]), (&"device/a".into(), &COUNTED.into()));
    let acks = rig.take(id);
    assert!(acks.iter().all(|ack| matches!(ack, Packet::PubAck(ack) if !ack.reason.is_error())));
}

#[test]
fn a_replay_is_refused_where_the_schema_says_so_and_a_resend_is_not() {
    let mut rig = Rig::new();
    let board = rig.client("dashboard/b", V5);
    rig.subscribe(board, "plant/#", QoS::AtMostOnce);
    let id = rig.client("device/a", V5);
    let said = number(&mut rig, id, STRICT, &[(7, false), (7, false), (7, true), (8, false)]);
    let resend = r#"7 ["resend"] null"#;
    assert_eq!(said, [r#"7 ["first"] null"#, "payload.replayed", resend, "8 null null"]);
    let codes: Vec<u8> = rig
        .take(id)
        .iter()
        .map(|packet| match packet {
            Packet::PubAck(ack) => ack.reason.as_u8(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes, [0, 0x83, 0, 0]);
    assert_eq!(rig.payloads(board).len(), 3, "QoS 1 is at least once: a resend is delivered");
    let refused = rig.entries.iter().find(|entry| entry["type"] == "publish.refused").unwrap();
    assert_eq!(refused["detail"], "/t: window 8");
    assert_eq!(refused["pseq"], Value::Null, "what is refused uses no number");
}

#[test]
fn a_restart_forgets_no_number() {
    let mut rig = Rig::new();
    let id = rig.client("device/a", V5);
    number(&mut rig, id, STRICT, &[(7, false), (9, false)]);
    let (settings, now) = (rig.broker.settings.clone(), rig.now);
    let mut replay = Replay::new(settings, now);
    for record in &rig.log {
        let body = record.body.as_ref().map(|body| (&body.payload[..], &body.properties[..]));
        let (kind, index, head) = (record.kind, record.index, &record.head[..]);
        replay.apply(LogRecord { kind, index, head, body }).unwrap();
    }
    let count = rig.log.len();
    rig.go_on_with(replay.finish(now), count);
    let id = rig.client("device/a", V5);
    let said = number(&mut rig, id, STRICT, &[(9, false), (9, true), (8, false), (10, false)]);
    let expected = ["payload.replayed", r#"9 ["resend"] null"#, "8 null null", "10 null null"];
    assert_eq!(said, expected);
    let other = message(STRICT, r#"{"t":10.0}"#, QoS::AtLeastOnce, 9);
    rig.packet(id, Packet::Publish(Box::new(other)));
    rig.sync();
    assert_eq!(rig.entries.last().unwrap()["why"], "payload.unnumbered");
}

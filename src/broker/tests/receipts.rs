//! Receipts: who gets one, by which way, and that it is true.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::evidence::receipt::RECEIPT_PROPERTY;
use crate::evidence::tree::leaf_hash;
use crate::evidence::{Receipt, ReceiptKey, ReceiptSigner};
use crate::policy::Policy;

const V5: ProtocolVersion = ProtocolVersion::V5;
const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const SEALED: &str = "plant/a/sealed/x";

fn rig_of(receipt: &str) -> Rig {
    let settings = super::super::testing::settings();
    let policy = format!(
        "version = 1\n[[permit]]\nid='c'\nwho=['device','dashboard']\nclient_id='*'\n\
         [[permit]]\nid='p'\nwho=['device']\npublish=['plant/${{device}}/#']\n\
         schema='none'\nreceipt='{receipt}'\nretain=true\n"
    );
    let policy = Arc::new(Policy::parse("policy.toml", &policy).unwrap());
    let receipts = Some(Arc::new(ReceiptSigner::new("plant.example/log", key())));
    Rig::of(Settings { policy, receipts, ..settings })
}

fn key() -> ReceiptKey {
    ReceiptKey::from_seed(&[9; 32]).unwrap()
}

/// Opens a receipt and holds it against the entry that it names.
fn kept(rig: &Rig, bytes: &[u8]) -> Receipt {
    let receipt = key().verifier().open(bytes).unwrap();
    let mut entries = rig.log.iter().filter(|record| record.kind == RecordKind::Entry);
    let entry = entries.find(|record| record.index == receipt.index).unwrap();
    assert_eq!(leaf_hash(&entry.head), receipt.leaf_hash);
    let entry: Value = serde_json::from_slice(&entry.head).unwrap();
    assert_eq!((entry["type"].as_str(), entry["lvl"].as_str()), (Some("publish"), Some("A0")));
    assert_eq!(entry["t"], receipt.time.as_nanos());
    assert_eq!(receipt.origin, "plant.example/log");
    receipt
}

fn in_packet(packet: &Packet) -> Option<Vec<u8>> {
    let (Packet::PubAck(ack) | Packet::PubRec(ack)) = packet else { return None };
    let user = &ack.properties.as_ref()?.user_properties;
    let found = user.iter().find(|property| property.name == RECEIPT_PROPERTY)?;
    Some(URL_SAFE_NO_PAD.decode(&found.value).unwrap())
}

fn asking(value: &str) -> Vec<UserProperty> {
    vec![UserProperty { name: RECEIPT_PROPERTY.into(), value: value.into() }]
}

#[test]
fn a_receipt_comes_with_the_acknowledgement_and_names_the_very_entry() {
    let mut rig = rig_of("properties");
    let id = rig.client("device/a", V5);
    // Several in one batch, one of them retained: two entries.
    let mut retained = message(SEALED, "2", QoS::AtLeastOnce, 2);
    retained.retain = true;
    rig.packet(id, publish(SEALED, "1", QoS::AtLeastOnce, 1));
    rig.packet(id, Packet::Publish(Box::new(retained)));
    rig.packet(id, publish(SEALED, "3", QoS::ExactlyOnce, 3));
    assert!(rig.take(id).is_empty(), "nothing before the sync");
    rig.sync();
    let sent = rig.take(id);
    let indices: Vec<u64> =
        sent.iter().map(|packet| kept(&rig, &in_packet(packet).unwrap()).index).collect();
    assert_eq!(indices.len(), 3);
    assert_eq!((indices[1], indices[2]), (indices[0] + 1, indices[0] + 3));
}

#[test]
fn whoever_asks_gets_one_by_the_way_it_asks_for() {
    let mut rig = rig_of("none");
    let id = rig.client("device/a", V5);
    let send = |rig: &mut Rig, wish: Option<&str>| {
        let mut packet = message(SEALED, "1", QoS::AtLeastOnce, 1);
        packet.properties.user_properties = wish.map(asking).unwrap_or_default();
        rig.packet(id, Packet::Publish(Box::new(packet)));
        rig.sync();
        rig.take(id)
    };
    assert_eq!(in_packet(&send(&mut rig, None)[0]), None);
    assert_eq!(in_packet(&send(&mut rig, Some("please"))[0]), None);
    let bytes = in_packet(&send(&mut rig, Some("properties"))[0]).unwrap();
    kept(&rig, &bytes);
    // By topic: nobody waits there yet.
    assert!(matches!(&send(&mut rig, Some("topic"))[..], [Packet::PubAck(_)]));
    // Asked for all with CONNECT, and not for one.
    let mut packet = connect(V5, "b");
    packet.properties.user_properties = asking("properties");
    let id = rig.connect("device/a", packet);
    rig.take(id);
    rig.packet(id, publish(SEALED, "1", QoS::AtLeastOnce, 1));
    let mut without = message(SEALED, "1", QoS::AtLeastOnce, 2);
    without.properties.user_properties = asking("none");
    rig.packet(id, Packet::Publish(Box::new(without)));
    rig.sync();
    let sent = rig.take(id);
    assert_eq!((in_packet(&sent[0]).is_some(), in_packet(&sent[1])), (true, None));
}

#[test]
fn where_a_property_cannot_be_the_receipt_goes_to_the_topic_of_its_author() {
    let mut rig = rig_of("properties");
    let mut no_problems = connect(V5, "n");
    no_problems.properties.request_problem_information = Some(false);
    let mut small = connect(V5, "s");
    small.properties.maximum_packet_size = Some(300);
    for (name, packet) in [("n", no_problems), ("s", small), ("o/l+d#%", connect(V3, "o/l+d#%"))] {
        let version = packet.version;
        let id = rig.connect("device/a", packet);
        rig.take(id);
        let own = match name {
            "o/l+d#%" => "$receipts/a/o%2Fl%2Bd%23%25".to_owned(),
            name => format!("$receipts/a/{name}"),
        };
        // Two of the same name that is not the same identity, and one of another.
        let namesake = rig.client("dashboard/a", V5);
        rig.subscribe(namesake, &own, QoS::AtLeastOnce);
        // A reader that takes more than the author does.
        let reader = rig.client("device/a", V5);
        rig.subscribe(reader, "$receipts/a/+", QoS::AtLeastOnce);
        rig.packet(id, publish(SEALED, "1", QoS::AtLeastOnce, 1));
        rig.sync();
        let sent = rig.take(id);
        assert!(matches!(&sent[..], [Packet::PubAck(_)]), "{version:?}: {sent:?}");
        assert_eq!(in_packet(&sent[0]), None);
        let receipts = rig.delivered(reader);
        let [receipt] = &receipts[..] else { panic!("{name}: {receipts:?}") };
        assert_eq!(receipt.topic.as_ref().unwrap().as_str(), own);
        assert_eq!((receipt.qos, receipt.retain), (QoS::AtMostOnce, false));
        kept(&rig, &receipt.payload);
        assert!(rig.delivered(namesake).is_empty(), "of the same name, and not the same");
        for connection in [id, reader, namesake] {
            rig.close(connection);
        }
    }
}

#[test]
fn a_message_without_acknowledgement_has_its_receipt_by_topic() {
    let mut rig = rig_of("topic");
    let id = rig.client("device/a", V5);
    rig.subscribe(id, "$receipts/a/a", QoS::AtMostOnce);
    rig.packet(id, publish(SEALED, "1", QoS::AtMostOnce, 0));
    rig.sync();
    let receipts = rig.delivered(id);
    kept(&rig, &receipts[0].payload);
    assert_eq!(
        receipts[0].properties.content_type.as_deref(),
        Some("application/avow-receipt+cose")
    );
}

#[test]
fn what_is_refused_or_sent_again_has_none_and_without_a_key_nobody_has() {
    let mut rig = rig_of("properties");
    let id = rig.client("device/a", V5);
    rig.packet(id, publish("plant/b/x", "1", QoS::AtLeastOnce, 1));
    rig.packet(id, publish(SEALED, "1", QoS::ExactlyOnce, 2));
    rig.packet(id, publish(SEALED, "1", QoS::ExactlyOnce, 2));
    rig.sync();
    let found: Vec<bool> = rig.take(id).iter().map(|packet| in_packet(packet).is_some()).collect();
    assert_eq!(found, [false, true, false]);
    let mut rig = Rig::new();
    let mut packet = connect(V5, "a");
    packet.properties.user_properties = asking("properties");
    let id = rig.connect("device/a", packet);
    rig.take(id);
    rig.packet(id, publish(SEALED, "1", QoS::AtLeastOnce, 1));
    rig.sync();
    assert_eq!(in_packet(&rig.take(id)[0]), None);
}

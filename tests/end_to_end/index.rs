//! The query index while the broker runs: it can be lost, and built again.

use crate::harness::{Plant, run};
use crate::raw::{Raw, Version};

#[test]
fn the_index_is_built_again_while_the_broker_serves_and_when_it_is_broken() {
    let plant = Plant::new();
    plant.set("messages_per_second = 100", "messages_per_second = 100_000");
    plant.set("messages_burst = 200", "messages_burst = 100_000");
    let device = plant.device("press-7");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    for packet_id in 1..=1_500_u16 {
        assert!(raw.publish("plant/press-7/sealed/x", 1, packet_id, b"x"));
        assert_eq!(raw.acknowledged(packet_id).0, 0);
    }
    broker.wait_for_metric("avow_log_entries_signed_total", 1_500);
    let said = run(&mut plant.avow(&["audit", "reindex"])).exits(0);
    assert!(said.out.contains("1024 entries are in whole blocks"), "{}", said.out);
    let published =
        || plant.query(&["--device", "press-7", "--type", "publish", "--limit", "5000"]);
    assert_eq!(published().len(), 1_500);
    assert!(broker.stop().success());

    let index = plant.dir().join("evidence/index/db");
    std::fs::write(&index, b"not an index").unwrap();
    assert_eq!(published().len(), 1_500, "a damaged index is built again by itself");
}

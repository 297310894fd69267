//! The query index while the broker runs: it can be lost, and built again.

use crate::harness::{Plant, run};
use crate::raw::{Raw, Version, publish};

/// One block of the index and some.
const MESSAGES: usize = 8_500;
/// Messages in one write.
const WRITE_MESSAGES: usize = 500;

#[test]
fn the_index_is_built_again_while_the_broker_serves_and_when_it_is_broken() {
    let plant = Plant::new();
    plant.set("messages_per_second = 100", "messages_per_second = 100_000");
    plant.set("messages_burst = 200", "messages_burst = 100_000");
    let device = plant.device("press-7");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    let topic = "plant/press-7/sealed/x";
    let many = publish(Version::V5, topic, 0, 0, b"x").repeat(WRITE_MESSAGES);
    for _ in 0..MESSAGES / WRITE_MESSAGES {
        assert!(raw.send(&many));
    }
    // Messages of one client keep their order: when this one is acknowledged, all are in the log.
    assert!(raw.publish(topic, 1, 1, b"x"));
    assert_eq!(raw.acknowledged(1).0, 0);
    broker.wait_for_metric("avow_log_entries_signed_total", MESSAGES as u64);
    let said = run(&mut plant.avow(&["audit", "reindex"])).exits(0);
    assert!(said.out.contains("8192 entries are in whole blocks"), "{}", said.out);
    let published =
        || plant.query(&["--device", "press-7", "--type", "publish", "--limit", "10000"]);
    assert_eq!(published().len(), MESSAGES + 1);
    assert!(broker.stop().success());

    let index = plant.dir().join("evidence/index/db");
    std::fs::write(&index, b"not an index").unwrap();
    assert_eq!(published().len(), MESSAGES + 1, "a damaged index is built again by itself");
}

//! What the log tells of people, and how that ends: pseudonyms and the keys behind them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Plant, run};
use crate::raw::{Raw, Version};

const DAY_SECONDS: u64 = 86_400;

/// Puts a key there that was made so many days ago.
fn key(plant: &Plant, id: u32, days_ago: u64, digit: char) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let directory = plant.dir().join("certs/pseudonyms");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!("{} {}\n", now - days_ago * DAY_SECONDS, digit.to_string().repeat(42) + "A");
    std::fs::write(directory.join(format!("{id:08}.key")), text).unwrap();
}

#[test]
fn an_address_is_a_pseudonym_until_its_key_is_destroyed() {
    let plant = Plant::new();
    plant.set("client_id = \"plain\"", "client_id = \"pseudonym\"");
    // The first was last used 100 days ago, the second is used until this start.
    key(&plant, 1, 200, 'B');
    key(&plant, 2, 100, 'C');
    let device = plant.device("press-7");
    let ask = |arguments: &[&str]| run(plant.avow(&["audit", "who-is"]).args(arguments));
    let old = ask(&["--peer", "127.0.0.1"]).exits(0).out;
    let [old_1, old_2] = old.lines().collect::<Vec<_>>()[..] else { panic!("{old}") };
    ask(&[old_1, "--peer", "127.0.0.1"]).exits(0);

    let broker = plant.serve();
    broker.wait_for_metric("avow_log_entries_signed_total", 9);
    drop(Raw::connected(broker.address, &device, Version::V5));
    drop(Raw::connected(broker.address, &device, Version::V5));
    let erased = plant.query(&["--type", "erased"]);
    assert_eq!(erased.len(), 1, "{erased:?}");
    assert_eq!(erased[0]["subject"], "pseudonym/k1");
    assert_eq!(erased[0]["reason"], "connection_facts = 90days");
    assert!(!plant.dir().join("certs/pseudonyms/00000001.key").exists());

    // What was there, the query, and two connections with their ends.
    broker.wait_for_metric("avow_log_entries_signed_total", 14);
    let connects = plant.query(&["--device", "press-7", "--type", "connect"]);
    let [one, two] = &connects[..] else { panic!("{connects:?}") };
    let peer = one["peer"].as_str().unwrap();
    assert!(peer.starts_with("k3."), "{peer}");
    assert_eq!(one["peer"], two["peer"], "the same address, the same pseudonym");
    assert!(one["client"].as_str().unwrap().starts_with("k3."));
    // The address stands in no entry, and neither does the Client Identifier.
    let entries = run(&mut plant.avow(&["audit", "tail", "--json", "-n", "1000"])).exits(0).out;
    assert!(!entries.contains("127.0.0.1"), "{entries}");
    assert!(!broker.said().contains("peer=\"127.0.0.1"), "{}", broker.said());

    let said = ask(&[peer, "--in", "127.0.0.0/16", "--json"]).exits(0);
    assert!(said.out.contains("\"127.0.0.1\""), "{}", said.out);
    ask(&[peer, "--peer", "127.0.0.2"]).exits(1);
    ask(&[one["client"].as_str().unwrap(), "--client-id", "press-7"]).exits(0);
    ask(&[old_2, "--peer", "127.0.0.1"]).exits(0);
    let gone = ask(&[old_1, "--peer", "127.0.0.1"]).exits(2);
    assert!(gone.err.contains("the key k1 is not there"), "{}", gone.err);
    for bad in [&[][..], &["127.0.0.1"], &[peer], &[peer, "--in", "10.0.0.0/7"]] {
        ask(bad).exits(2);
    }
    // Questions are entries, and name nobody.
    assert!(broker.stop().success());
    let questions = plant.query(&["--type", "query"]);
    let subject = |entry: &&serde_json::Value| entry["act"] == "pseudonym.resolve";
    assert!(questions.iter().filter(subject).count() >= 6, "{questions:?}");
    assert!(questions.iter().filter(subject).any(|entry| entry["subject"] == peer));
    plant.audit_verify().exits(0);
}

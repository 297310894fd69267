//! Freshness of devices that do not sign, with `mosquitto_pub`: the shipped registry flags, another
//! one refuses, and a restart in between forgets no number.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Broker, Bundle, Plant, run};
use crate::strangers::{HOST, is_there};

const TOPIC: &str = "plant/press-7/telemetry/temperature";

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Publishes a reading of `at` with a number, in QoS 1.
fn publish(plant: &Plant, device: &Bundle, at: u64, seq: u64) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", HOST, "-p", &plant.port.to_string(), "-i", &device.name]);
    for (flag, file) in [("--cafile", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")] {
        command.args([flag, &device.path(file)]);
    }
    let payload = format!(r#"{{"ts":{at},"seq":{seq},"values":{{"celsius":21.5}}}}"#);
    run(command.args(["-V", "mqttv5", "-q", "1", "-t", TOPIC, "-m", &payload]));
}

/// What became of each message: its number and flags, or why it was refused.
fn outcomes(plant: &Plant, broker: Broker) -> Vec<String> {
    assert!(broker.stop().success());
    plant
        .query(&["--topic", TOPIC, "--limit", "100"])
        .iter()
        .map(|entry| match (entry["type"].as_str(), entry["why"].as_str()) {
            (Some("gap"), _) => format!("gap of {}", entry["missing"]),
            (_, Some(why)) => format!("{why} ({})", entry["detail"].as_str().unwrap_or_default()),
            _ => format!("{} {}", entry["pseq"], entry["flags"]),
        })
        .collect()
}

#[test]
fn stale_and_replayed_messages_are_flagged_and_refused_where_the_registry_says_so() {
    let why = "mosquitto_pub is not installed (Debian: mosquitto-clients)";
    let mut probe = Command::new("sh");
    if !is_there("mosquitto", probe.args(["-c", "command -v mosquitto_pub"]), why) {
        return;
    }
    let plant = Plant::new();
    let device = plant.device("press-7");
    let broker = plant.serve();
    let hour = 3_600_000;
    for (ago, seq) in [(0, 1), (hour, 2), (0, 2), (0, 9)] {
        publish(&plant, &device, unix_ms() - ago, seq);
    }
    publish(&plant, &device, unix_ms() + hour, 10);
    let flagged = [
        r#"1 ["first"]"#,
        r#"2 ["late"]"#,
        r#"2 ["conflict"]"#,
        r#"9 ["gap"]"#,
        "gap of 6",
        r#"10 ["early"]"#,
    ];
    assert_eq!(outcomes(&plant, broker), flagged);
    plant.edit("schemas/registry.toml", |text| {
        text.replace("on_failure = \"flag\"", "on_failure = \"refuse\"")
    });
    let broker = plant.serve();
    for (ago, seq) in [(hour, 11), (0, 9), (0, 8), (0, 11)] {
        publish(&plant, &device, unix_ms() - ago, seq);
    }
    let refused = ["payload.late (/ts: past 10m)", "payload.conflict (/seq: another payload)"];
    let wanted = [&flagged[..], &refused, &["8 null", "11 null"]].concat();
    assert_eq!(outcomes(&plant, broker), wanted);
    plant.audit_verify().exits(0);
}

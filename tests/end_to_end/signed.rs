//! A device that signs what it publishes, by implementations that share no code with ours: paho-mqtt
//! sends, `devices/signer/sign.py` makes the statements from its description, openssl signs them, and
//! openssl checks the log's entries afterwards.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Plant, beside_this, run};
use crate::raw::Version;
use crate::strangers::{HOST, Stage, is_there, level};

/// A program of the `clients` directory, if what it runs on is there.
pub(crate) fn script(name: &str) -> Option<Command> {
    let python = std::env::var("AVOW_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let why = "Python's paho-mqtt 2, or openssl, is not installed (PyPI: paho-mqtt)";
    let mut probe = Command::new("sh");
    let both = format!("{python} -c 'import paho.mqtt.enums' && command -v openssl");
    if !is_there("paho-mqtt with openssl", probe.args(["-c", &both]), why) {
        return None;
    }
    let mut script = Command::new(python);
    script.arg(beside_this("clients").join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(script)
}

/// Whether openssl says that the device has signed this entry.
fn is_signed(entry: &Value, certificate: &str) -> bool {
    let mut check = script("check_statement.py").unwrap();
    check.arg(certificate).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = check.spawn().unwrap();
    child.stdin.take().unwrap().write_all(entry.to_string().as_bytes()).unwrap();
    child.wait().unwrap().success()
}

fn a_stranger_signs(version: Version, answers: &Value) {
    let Some(mut script) = script("paho_signed.py") else { return };
    let stage = Stage::of(Plant::new());
    let topic = "plant/press-7/signed/torque";
    script.args([level(version), HOST, &stage.plant.port.to_string()]);
    script.arg(&stage.device.dir).arg(&stage.dashboard.dir);
    let said = run(script.args([topic, "plant.example/plant-1"]).stdin(Stdio::null()));
    assert_eq!(said.code, Some(0), "{said:#?}\n{}", stage.broker.said());
    let seen: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!(seen, json!({ "arrived": 5, "answers": answers }));
    assert!(stage.broker.stop().success());
    let entries = stage.plant.query(&["--topic", topic, "--limit", "1000"]);
    let certificate = stage.device.path("cert.pem");
    let mut signed: Vec<&Value> = entries.iter().filter(|it| it["type"] == "publish").collect();
    signed.sort_by_key(|entry| entry["seq"].as_u64());
    assert_eq!(signed.iter().map(|it| &it["seq"]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for entry in &signed {
        assert_eq!(entry["lvl"], "A2", "{entry}");
        assert!(is_signed(entry, &certificate), "{entry}");
    }
    let mut bent = signed[0].clone();
    bent["c"] = signed[1]["c"].clone();
    assert!(!is_signed(&bent, &certificate), "another message's hash");
    assert!(!is_signed(signed[0], &stage.dashboard.path("cert.pem")), "another's certificate");
    if version == Version::V5 {
        let refused = entries.iter().filter(|it| it["type"] == "publish.refused");
        let mut why: Vec<&str> = refused.filter_map(|entry| entry["why"].as_str()).collect();
        why.sort_unstable();
        assert_eq!(why, ["statement.commitment", "statement.epoch", "statement.missing"]);
        let resent = entries.iter().find(|it| it["type"] == "publish.dup").unwrap();
        assert_eq!(resent["seq"], 4, "{resent}");
    }
    stage.plant.audit_verify().exits(0);
}

#[test]
fn a_stranger_signs_in_5_0() {
    let answers = json!({ "resend": 0, "bent": 0x87, "older": 0x87, "unsigned": 0x87 });
    a_stranger_signs(Version::V5, &answers);
}

#[test]
fn a_stranger_signs_in_3_1_1() {
    a_stranger_signs(Version::V3, &json!({}));
}

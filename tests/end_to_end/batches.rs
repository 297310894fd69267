//! Level A1 with a stranger's device: Python, paho-mqtt and openssl, which know `BATCH.md` and nothing
//! of ours.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Bundle, Plant, beside_this, run};
use crate::strangers::{HOST, python_script};

/// What `check_cover.py` says of the covers among these entries, if they are good.
fn checked(entries: &str, device: &Bundle, identity: &str, origin: &str) -> Option<Value> {
    let mut check = python_script("check_cover.py").unwrap();
    check.arg(device.path("cert.pem")).args([identity, origin]).stdin(Stdio::piped());
    let mut child = check.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    said.status.success().then(|| serde_json::from_slice(&said.stdout).unwrap())
}

#[test]
fn a_stranger_s_batches_are_covered_and_audit_says_so() {
    let Some(mut script) = python_script("batch_client.py") else { return };
    let plant = Plant::new();
    let device = plant.device("press-7");
    plant.edit("policy.toml", |text| {
        format!(
            "{text}\n[[permit]]\nid = \"unread\"\nwho = [\"device\"]\n\
             publish = [\"plant/${{device}}/unread\"]\nschema = \"none\"\nevidence = \"batched\"\n"
        )
    });
    let broker = plant.serve();
    let facts: Value = serde_json::from_slice(&device.read("connect.json")).unwrap();
    let config = std::fs::read_to_string(plant.dir().join("avow.toml")).unwrap();
    let setting = |name: &str| {
        let line = config.lines().find(|line| line.starts_with(name)).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let identity = format!("spiffe://{}/device/press-7", setting("trust_domain = "));
    let origin = setting("origin = ");
    script.arg(beside_this("../../devices/signer")).args([HOST, &plant.port.to_string()]);
    script.arg(&device.dir).args([&identity, &origin, "plant/press-7/unread"]);
    let said = run(script.stdin(Stdio::null()));
    assert_eq!(said.code, Some(0), "{said:#?}\n{facts}\n{}", broker.said());
    let codes: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!(codes, json!([0, 0, 0, 0, 0, 0x87, 0, 0x87, 0, 0x87]), "{}", broker.said());
    assert!(broker.stop().success());
    let entries = |kind: &str| {
        let mut command = plant.avow(&["audit", "query", "--type", kind, "--limit", "100"]);
        let said = run(command.args(["--device", "press-7", "--order", "oldest"])).exits(0);
        let index = |line: &str| line.split(' ').next().unwrap().parse::<u64>().unwrap();
        said.out.lines().map(index).collect::<Vec<u64>>()
    };
    let (published, covers) = (entries("publish"), entries("cover"));
    assert_eq!((published.len(), covers.len()), (6, 1));
    for (place, index) in published.iter().enumerate() {
        let said = run(&mut plant.avow(&["audit", "show", "--json", &index.to_string()])).exits(0);
        let shown: Value = serde_json::from_str(&said.out).unwrap();
        let expected = if place < 5 { json!(covers[0]) } else { Value::Null };
        assert_eq!(shown["cover"], expected, "{shown}");
        assert_eq!(shown["entry"]["lvl"], "A0", "an entry is never changed");
    }
    let said = run(&mut plant.avow(&["audit", "show", &published[0].to_string()])).exits(0);
    let wanted =
        format!("level A1: its device has signed for it in the cover at entry {}", covers[0]);
    assert!(said.out.contains(&wanted), "{}", said.out);
    let refused = plant.query(&["--type", "publish.refused", "--limit", "100"]);
    let why: Vec<&str> = refused.iter().filter_map(|entry| entry["why"].as_str()).collect();
    assert_eq!(why, ["statement.signature", "statement.missing", "statement.gap"]);
    let all = run(&mut plant.avow(&["audit", "query", "--json", "--limit", "1000"])).exits(0);
    assert_eq!(checked(&all.out, &device, &identity, &origin), Some(json!({ "covered": 5 })));
    let other = all.out.replacen("\"seq\":3", "\"seq\":33", 1);
    assert_ne!(other, all.out);
    assert_eq!(checked(&other, &device, &identity, &origin), None, "another message");
    assert_eq!(checked(&all.out, &device, &identity, "plant.example/elsewhere"), None);
    plant.audit_verify().exits(0);
}

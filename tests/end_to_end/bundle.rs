//! What a device and a stranger can check without us: receipts, and the bundle of one entry, by openssl
//! and Python's standard library.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Bundle, Plant, Said, beside_this, run, run_within};
use crate::raw::Version;
use crate::signed::script;
use crate::strangers::{HOST, Stage, is_there, level};

/// Python with openssl beside it, if they are there.
fn python() -> Option<Command> {
    let python = std::env::var("AVOW_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = Command::new("sh");
    let both = format!("command -v {python} && command -v openssl");
    let why = "python3, or openssl, is not installed";
    if !is_there("python3 with openssl", probe.args(["-c", &both]), why) {
        return None;
    }
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    Some(command)
}

fn publish(plant: &Plant, device: &Bundle, more: &[&str]) -> Said {
    let topic = format!("plant/{}/sealed/x", device.name);
    let connect = device.path("connect.json");
    let mut arguments = vec!["pub", "--connect", &connect, "-t", &topic, "-m", "sealed"];
    arguments.extend(more);
    run(&mut plant.avow(&arguments))
}

/// Asks until a checkpoint covers it.
fn check_receipt(plant: &Plant, file: &Path) -> Said {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let file = file.display().to_string();
        let said = run(&mut plant.avow(&["audit", "check-receipt", &file]));
        if said.code != Some(2) || Instant::now() > deadline {
            return said;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The bundle of an entry that a checkpoint covers.
fn bundle(plant: &Plant, index: u64, name: &str) -> PathBuf {
    let out = plant.beside(name);
    let shown = out.display().to_string();
    let deadline = Instant::now() + Duration::from_secs(20);
    let made = loop {
        let index = index.to_string();
        let said = run(&mut plant.avow(&["audit", "bundle", &index, "--out", &shown, "--json"]));
        if said.code != Some(1) || Instant::now() > deadline {
            break said.exits(0);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let made: Value = serde_json::from_str(made.out.trim()).unwrap();
    let digest = made["manifest_sha256"].as_str().unwrap().to_owned();
    let key = std::fs::read_to_string(plant.dir().join("log.vkey")).unwrap();
    let root = plant.dir().join("certs/ca.pem");
    if let Some(mut python) = python() {
        python.arg(out.join("verify.py")).args(["--manifest-sha256", &digest]);
        python.args(["--log-key", key.trim(), "--root"]).arg(&root);
        let said = run(&mut python).exits(0);
        assert!(!said.out.contains("taken from the bundle"), "{said:?}");
    }
    out
}

/// Every change to the bundle is found, and where.
fn flips(out: &Path) {
    let Some(mut python) = python() else { return };
    python.arg(beside_this("clients/bundle_flips.py"));
    python.arg(beside_this("../../docs/bundle_verify.py")).arg(out);
    let said = run_within(&mut python, Duration::from_secs(400)).exits(0);
    let seen: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert!(seen["tried"].as_u64().unwrap() > 5_000, "{seen}");
}

#[test]
fn a_receipt_is_stored_once_and_the_log_keeps_its_promise_or_is_caught() {
    let plant = Plant::new();
    let device = plant.device("press-7");
    plant.edit("policy.toml", |text| text.replacen("receipt = \"none\"", "receipt = \"topic\"", 1));
    let broker = plant.serve();
    let file = |name: &str| plant.beside(name);
    let told = |name: &str| file(name).display().to_string();
    for (name, qos) in [("one", "1"), ("two", "2"), ("none", "0")] {
        publish(&plant, &device, &["-q", qos, "--receipt", &told(name)]).exits(0);
        check_receipt(&plant, &file(name)).exits(0);
    }
    // A rule says so where nobody can ask.
    let topic = "plant/press-7/telemetry/temperature";
    let payload = r#"{"ts":1764000000000,"seq":1,"values":{"celsius":21.5}}"#;
    let (connect, old) = (device.path("connect.json"), told("old"));
    let line = ["pub", "--connect", &connect, "-V", "311", "-t", topic, "-m", payload, "-q", "1"];
    run(plant.avow(&line).args(["--receipt", &old])).exits(0);
    let said = check_receipt(&plant, &file("old")).exits(0);
    assert!(said.out.contains("(level A0)"), "{said:?}");
    // Nothing is written over unless it is meant.
    let said = publish(&plant, &device, &["-q", "1", "--receipt", &told("one")]).exits(2);
    assert!(said.err.contains("exists already"), "{said:?}");
    publish(&plant, &device, &["-q", "1", "--force", "--receipt", &told("one")]).exits(0);
    check_receipt(&plant, &file("one")).exits(0);
    assert!(broker.stop().success());
    check_receipt(&plant, &file("one")).exits(0);
    // Another log of the same name and receipt key, as its owner would have it afterwards.
    let other = Plant::new();
    for name in ["receipt.key", "receipt.pub"] {
        let path = other.dir().join("certs").join(name);
        std::fs::copy(plant.dir().join("certs").join(name), path).unwrap();
    }
    let device = other.device("press-7");
    let broker = other.serve();
    for _ in 0..12 {
        publish(&other, &device, &["-q", "1"]).exits(0);
    }
    let said = check_receipt(&other, &file("two")).exits(1);
    assert!(said.out.contains("not kept") && said.out.contains("the log has the leaf"), "{said:?}");
    drop(broker);
    // A changed receipt is none of ours; what is no receipt is no answer.
    let mut bytes = std::fs::read(file("two")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file("bent"), &bytes).unwrap();
    let said = check_receipt(&plant, &file("bent")).exits(1);
    assert!(said.out.contains("the signature does not fit"), "{said:?}");
    std::fs::write(file("junk"), b"junk").unwrap();
    let said = run(&mut plant.avow(&["audit", "check-receipt", &told("junk")])).exits(2);
    assert!(said.err.contains("this is not a receipt"), "{said:?}");
}

#[test]
fn a_plant_without_receipt_key_says_how_to_make_one() {
    let plant = Plant::new();
    for name in ["receipt.key", "receipt.pub"] {
        std::fs::remove_file(plant.dir().join("certs").join(name)).unwrap();
    }
    let said = run(&mut plant.avow(&["config", "check"])).exits(2);
    assert!(said.err.contains("audit receipt-key"), "{said:?}");
    run(&mut plant.avow(&["audit", "receipt-key"])).exits(0);
    run(&mut plant.avow(&["config", "check"])).exits(0);
    run(&mut plant.avow(&["audit", "receipt-key"])).exits(2);
}

#[test]
fn a_bundle_is_checked_by_openssl_and_python_and_no_change_to_it_passes() {
    let plant = Plant::new();
    let device = plant.device("press-7");
    let broker = plant.serve();
    let receipt = plant.beside("receipt");
    let shown = receipt.display().to_string();
    publish(&plant, &device, &["-q", "1", "--receipt", &shown]).exits(0);
    check_receipt(&plant, &receipt).exits(0);
    let entries = plant.query(&["--type", "publish"]);
    let index = entries[0]["index"].as_u64().unwrap_or_else(|| index_of(&plant, "publish"));
    let out = bundle(&plant, index, "bundle");
    assert_eq!(std::fs::read(out.join("payload.bin")).unwrap(), b"sealed");
    let stored = std::fs::read(&receipt).unwrap();
    assert_eq!(std::fs::read(out.join("receipt.cose")).unwrap(), stored, "the very one");
    // Made once, and recorded.
    let (index_text, shown) = (index.to_string(), out.display().to_string());
    let again = ["audit", "bundle", &index_text, "--out", &shown];
    assert!(run(&mut plant.avow(&again)).exits(2).err.contains("exists already"));
    run(&mut plant.avow(&[
        "audit",
        "bundle",
        "999999",
        "--out",
        &plant.beside("no").display().to_string(),
    ]))
    .exits(1);
    assert!(broker.stop().success());
    assert_eq!(plant.query(&["--type", "export"]).len(), 1);
    flips(&out);
    // Any other entry has one as well, also while nobody serves.
    for kind in ["connect", "cert", "start", "admin"] {
        bundle(&plant, index_of(&plant, kind), kind);
    }
}

/// The newest entry of a type.
fn index_of(plant: &Plant, kind: &str) -> u64 {
    let said = run(&mut plant.avow(&["audit", "query", "--type", kind, "--limit", "1"])).exits(0);
    let digits: String = said.out.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{said:?}"))
}

#[test]
fn a_bundle_of_what_a_device_signed_has_its_statement() {
    let Some(mut client) = script("paho_signed.py") else { return };
    let stage = Stage::of(Plant::new());
    let topic = "plant/press-7/signed/torque";
    client.args([level(Version::V5), HOST, &stage.plant.port.to_string()]);
    client.arg(&stage.device.dir).arg(&stage.dashboard.dir);
    run(client.args([topic, "plant.example/plant-1"]).stdin(Stdio::null())).exits(0);
    assert!(stage.broker.stop().success());
    let out = bundle(&stage.plant, index_of(&stage.plant, "publish"), "signed");
    for name in ["statement.cose", "statement.tbs", "statement.sig.der", "receipt.cose"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    // By hand, as VERIFY.md says.
    let by_hand = "openssl x509 -in device.pem -noout -pubkey > /dev/stdout | \
                   openssl dgst -sha256 -verify /dev/stdin -signature statement.sig.der statement.tbs";
    let said = run(Command::new("sh").args(["-c", by_hand]).current_dir(&out)).exits(0);
    assert!(said.out.contains("Verified OK"), "{said:?}");
    flips(&out);
    // Without its payload and salt, which are erased, the signature still verifies.
    let index = index_of(&stage.plant, "publish");
    let erase = ["audit", "erase", "--index", &index.to_string(), "--reason", "asked to"];
    run(&mut stage.plant.avow(&erase)).exits(0);
    let erased = bundle(&stage.plant, index, "erased");
    for gone in ["payload.bin", "salt.bin", "properties.bin"] {
        assert!(out.join(gone).is_file() && !erased.join(gone).exists(), "{gone}");
    }
    assert!(
        run(Command::new("sh").args(["-c", by_hand]).current_dir(&erased))
            .exits(0)
            .out
            .contains("OK")
    );
    if let Some(mut python) = python() {
        let said = run(python.arg(erased.join("verify.py")).arg(&erased)).exits(0);
        assert!(said.out.contains("was erased") && said.out.contains("(A2)"), "{said:?}");
    }
    flips(&erased);
}

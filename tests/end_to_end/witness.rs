//! A broker and witnesses as processes: cosigned checkpoints checked by openssl, a log that was
//! rolled back, and bad input.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Plant, avow, free_port, run};
use crate::raw::{Raw, Version};

const WITHIN: Duration = Duration::from_secs(30);

/// `avow witness serve`, killed when dropped.
struct Witness {
    child: Child,
    dir: PathBuf,
    url: String,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Witness {
    /// A new witness of the plant's log, over TLS with the plant's own certificate if asked.
    fn new(plant: &Plant, name: &str, is_tls: bool) -> Self {
        let dir = plant.beside(name);
        let mut init = avow();
        let key_name = format!("{name}.example/1");
        init.args(["witness", "init", "--name", &key_name]).arg(&dir).arg("--log");
        let said = run(init.arg(plant.dir().join("log.vkey"))).exits(0);
        assert_eq!(said.out, text(&dir.join("witness.vkey")));
        Self::serve(plant, dir, is_tls)
    }

    fn serve(plant: &Plant, dir: PathBuf, is_tls: bool) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut serve = avow();
        serve.args(["witness", "serve", "--listen", &listen]).arg(&dir);
        if is_tls {
            let certs = plant.dir().join("certs");
            serve.arg("--tls-cert").arg(certs.join("server.pem"));
            serve.arg("--tls-key").arg(certs.join("server.key"));
        }
        let log = std::fs::File::create(dir.join("serve.log")).unwrap();
        let child = serve.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let scheme = if is_tls { "https" } else { "http" };
        let witness = Self { child, url: format!("{scheme}://{listen}/"), dir };
        witness.wait_for_line("ready");
        witness
    }

    fn wait_for_line(&self, wanted: &str) {
        let file = self.dir.join("serve.log");
        wait_for(wanted, || text(&file).contains(wanted), || text(&file));
    }

    fn policy_line(&self, name: &str) -> String {
        let key = text(&self.dir.join("witness.vkey"));
        format!("witness {name} {} {}\n", key.trim(), self.url)
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool, seen: impl Fn() -> String) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < WITHIN, "never: {what}\n{}", seen());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes the policy and the section that names it.
fn configure(plant: &Plant, policy: &str) {
    plant.write("witness.policy", policy);
    plant.edit("avow.toml", |toml| {
        format!(
            "{toml}\n[evidence.witness]\npolicy = \"witness.policy\"\nca = \"certs/ca.pem\"\n\
             interval = \"1s\"\ntimeout = \"2s\"\n"
        )
    });
}

fn cosigned(plant: &Plant) -> String {
    text(&plant.dir().join("evidence/witness/checkpoint"))
}

fn size_of(note: &str) -> u64 {
    note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
}

fn publish(plant: &Plant, broker: &crate::harness::Broker, device: &crate::harness::Bundle) {
    let mut raw = Raw::connected(broker.address, device, Version::V5);
    let topic = format!("plant/{}/sealed/x", device.name);
    for id in 1..=5 {
        assert!(raw.publish(&topic, 1, id, b"x"));
        assert_eq!(raw.acknowledged(id), (0, None));
    }
    let _ = plant;
}

/// Checks the cosignature of the witness with the key of `vkey` by openssl alone.
fn openssl_verifies(plant: &Plant, note: &str, vkey: &str) -> Option<bool> {
    use base64::Engine as _;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let (name, rest) = vkey.trim().split_once('+').unwrap();
    let public = &decode(rest.split_once('+').unwrap().1)[1..];
    let line = note.lines().find(|line| line.starts_with(&format!("\u{2014} {name} "))).unwrap();
    let signature = decode(line.rsplit(' ').next().unwrap());
    let time = u64::from_be_bytes(signature[4..12].try_into().unwrap());
    let (body, _) = note.split_once("\n\n").unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = plant.beside(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0], public].concat();
    let key = file("w.der", &spki);
    let message = file("w.msg", format!("cosignature/v1\ntime {time}\n{body}\n").as_bytes());
    let signature = file("w.sig", &signature[12..]);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey"]).arg(key);
    openssl.arg("-in").arg(message).arg("-sigfile").arg(signature);
    match openssl.output() {
        Err(_) => None,
        Ok(output) => Some(output.status.success()),
    }
}

#[test]
fn a_broker_brings_its_checkpoints_to_two_witnesses() {
    let plant = Plant::new();
    let device = plant.device("a-1");
    let (one, two) = (Witness::new(&plant, "one", false), Witness::new(&plant, "two", true));
    let log = text(&plant.dir().join("log.vkey"));
    let policy = format!(
        "log {log}{}{}group both all w1 w2\nquorum both\n",
        one.policy_line("w1"),
        two.policy_line("w2")
    );
    configure(&plant, &policy);
    let checked = run(&mut plant.avow(&["config", "check"])).exits(0);
    assert!(checked.out.contains("[evidence.witness]: good, 2 witnesses"), "{checked:#?}");
    let broker = plant.serve();
    publish(&plant, &broker, &device);
    let entries = broker.metric("avow_log_entries_total");
    let is_cosigned = || size_of(&cosigned(&plant)) >= entries;
    wait_for("both cosign what was published", is_cosigned, || broker.said());
    let note = cosigned(&plant);
    assert_eq!(note.lines().filter(|line| line.starts_with('\u{2014}')).count(), 3, "{note}");
    for witness in [&one, &two] {
        match openssl_verifies(&plant, &note, &text(&witness.dir.join("witness.vkey"))) {
            None => {
                let required = std::env::var_os("AVOW_REQUIRE_CLIENTS").is_some();
                assert!(!required, "openssl is not there");
                println!("SKIPPED: openssl is not there");
            }
            Some(holds) => assert!(holds, "{note}"),
        }
    }
    assert!(broker.metric("avow_witness_cosigned_entries{witness=\"w2\"}") >= entries);
    assert_eq!(broker.metric("avow_witness_alarms_total{witness=\"w1\"}"), 0);
    // The entry of the stop is cosigned too, before the process ends.
    let before = size_of(&cosigned(&plant));
    assert!(broker.stop().success());
    let note = cosigned(&plant);
    assert!(size_of(&note) > before, "{note}");
    assert_eq!(note.lines().next(), log.split('+').next());
    plant.audit_verify().exits(0);
}

#[test]
fn a_proof_needs_the_cosignatures_that_the_policy_asks_for() {
    let plant = Plant::new();
    let device = plant.device("a-1");
    let witness = Witness::new(&plant, "one", false);
    let log = text(&plant.dir().join("log.vkey"));
    configure(&plant, &format!("log {log}{}quorum w1\n", witness.policy_line("w1")));
    let broker = plant.serve();
    publish(&plant, &broker, &device);
    let newest = (broker.metric("avow_log_entries_total") - 1).to_string();
    let prove = |more: &[&str]| run(plant.avow(&["audit", "prove", &newest]).args(more));
    let out = plant.beside("proof");
    // No checkpoint covers it yet, so it waits for one and for the witness.
    prove(&["--out", out.to_str().unwrap()]).exits(0);
    let path = |name: &str| out.join(name).display().to_string();
    let policy = plant.dir().join("witness.policy").display().to_string();
    let check = |policy: &str| {
        let files = [path("entry.json"), path("entry.tlog-proof")];
        run(avow().args(["audit", "check-proof", &files[0], &files[1], "--policy", policy]))
    };
    let said = check(&policy).exits(0);
    assert!(said.out.contains("cosigned by w1 at 20"), "{said:#?}");
    let said = plant.audit_verify().exits(0);
    assert!(said.out.contains("by w1: enough for the policy"), "{said:#?}");

    // A second witness that nobody has asked: neither is there a proof, nor is one believed.
    let second = Witness::new(&plant, "two", false);
    let both = format!(
        "log {log}{}{}group both all w1 w2\nquorum both\n",
        witness.policy_line("w1"),
        second.policy_line("w2")
    );
    plant.write("witness.policy", &both);
    let said = check(&policy).exits(1);
    assert!(said.out.contains("missing: w2"), "{said:#?}");
    assert!(broker.stop().success());
    let said = prove(&[]).exits(1);
    assert!(said.err.contains("not by w2"), "{said:#?}");
    prove(&["--unwitnessed"]).exits(0);
    // Nor is a changed entry, or a proof without a key to believe.
    std::fs::write(out.join("entry.json"), "{}").unwrap();
    plant.write("witness.policy", &format!("log {log}quorum none\n"));
    check(&policy).exits(1);
    plant.write("witness.policy", "quorum none\n");
    let said = check(&policy).exits(2);
    assert!(said.err.contains("no `log` line"), "{said:#?}");
}

#[test]
fn a_log_that_was_rolled_back_is_found_out() {
    let plant = Plant::new();
    let device = plant.device("a-1");
    let witness = Witness::new(&plant, "one", false);
    configure(&plant, &format!("{}quorum w1\n", witness.policy_line("w1")));
    let broker = plant.serve();
    wait_for("the start is cosigned", || size_of(&cosigned(&plant)) > 0, || broker.said());
    assert!(broker.stop().success());
    let log = plant.dir().join("evidence");
    let copy = plant.beside("copy");
    copy_dir(&log, &copy);
    let before = size_of(&cosigned(&plant));
    let broker = plant.serve();
    publish(&plant, &broker, &device);
    wait_for("more is cosigned", || size_of(&cosigned(&plant)) > before + 5, || broker.said());
    assert!(broker.stop().success());

    // The whole directory as it was: `audit verify` cannot see it, the witness does.
    std::fs::remove_dir_all(&log).unwrap();
    copy_dir(&copy, &log);
    plant.audit_verify().exits(0);
    let broker = plant.serve();
    broker.wait_for_metric("avow_witness_alarms_total{witness=\"w1\"}", 1);
    assert!(broker.said().contains("ALARM of a witness"), "{}", broker.said());
    let entries = plant.query(&["--type", "admin"]);
    let is_alarm = |entry: &&serde_json::Value| entry["act"] == "witness.alarm";
    wait_for(
        "the alarm is an entry",
        || plant.query(&["--type", "admin"]).iter().any(|entry| is_alarm(&entry)),
        || format!("{entries:?}"),
    );
    assert!(size_of(&cosigned(&plant)) <= before, "nothing new is cosigned");
    drop(broker);

    // A witness whose process was killed knows what it knew.
    let dir = witness.dir.clone();
    drop(witness);
    let again = Witness::serve(&plant, dir, false);
    assert!(!text(&again.dir.join("serve.log")).contains("cosigned_entries=0"));
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target)
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn bad_input_is_told_with_its_place_and_fix() {
    let plant = Plant::new();
    let dir = plant.beside("w");
    let w = dir.display().to_string();
    let init = |name: &str, log: &str| {
        run(avow().args(["witness", "init", &w, "--name", name, "--log", log])).exits(2).err
    };
    let vkey = plant.dir().join("log.vkey").display().to_string();
    assert!(init("a b", &vkey).contains("without spaces"));
    assert!(init("w", "no/such/file").contains("neither a verifier key nor a file"));
    assert!(!dir.exists());
    let serve = |arguments: &[&str]| {
        run(avow().args(["witness", "serve", &w]).args(arguments)).exits(2).err
    };
    assert!(serve(&[]).contains("witness.vkey"));
    run(avow().args(["witness", "init", &w, "--name", "w.example/1"])).exits(0);
    assert!(serve(&[]).contains("names no log"));
    assert!(serve(&["--listen", "8088"]).contains("not an address and a port"));
    assert!(serve(&["--listen", "0.0.0.0:0"]).contains("--tls-cert"));
    std::fs::write(dir.join("logs"), "log nothing\n").unwrap();
    assert!(serve(&[]).contains("logs:1:5"));

    let wvkey = text(&dir.join("witness.vkey"));
    let check = |policy: &str, section: &str| {
        plant.write("witness.policy", policy);
        let toml = text(&plant.dir().join("avow.toml"));
        plant.write("avow.toml", &format!("{toml}\n[evidence.witness]\n{section}\n"));
        let said = run(&mut plant.avow(&["config", "check"])).exits(2);
        plant.write("avow.toml", &toml);
        said.err
    };
    let line = |url: &str| format!("witness w {} {url}\nquorum w\n", wvkey.trim());
    for (policy, section, expected) in [
        (line(""), "", "nobody is asked"),
        (line("http://w.example/"), "", "use https"),
        (line("https://w.example/"), "", "`ca` is missing"),
        (line("https://w.example/"), "ca = \"avow.toml\"", "`ca`: "),
        (line("https://w.example/"), "ca = \"nowhere.pem\"", "nowhere.pem"),
        (format!("log {wvkey}quorum none\n"), "", "witness.policy:1:5"),
        (line("http://[::1]/"), "interval = \"10ms\"", "outside 1s to 1h"),
        (line("http://[::1]/"), "every = 1", "unknown field `every`"),
        (line("http://[::1]/"), "policy = \"nowhere.policy\"", "nowhere.policy"),
    ] {
        let said = check(&policy, section);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let other = Plant::new();
    let foreign = format!("log {}{}", text(&other.dir().join("log.vkey")), line("http://[::1]/"));
    // Both plants have one origin, and another key.
    let said = check(&foreign, "");
    assert!(said.contains("no `log` line has the key of this log"), "{said}");
}

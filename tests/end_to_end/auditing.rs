//! The read API, asked by curl: an auditor mirrors the log, and nobody else reads a byte.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Broker, Bundle, Plant, Said, free_port, run};
use crate::public_form::{has_python, verify_py};
use crate::raw::{Raw, Version};

const TOPIC: &str = "plant/press-7/sealed/x";

struct Api {
    plant: Plant,
    auditor: Bundle,
    device: Bundle,
    port: u16,
}

impl Api {
    /// A plant with a read API; `None`, and a word about it, without curl.
    fn new(more: &str) -> Option<Self> {
        if Command::new("curl").arg("--version").output().is_err() {
            assert!(std::env::var_os("AVOW_REQUIRE_CLIENTS").is_none(), "curl is missing");
            println!("SKIPPED: curl is missing");
            return None;
        }
        let plant = Plant::new();
        let port = free_port();
        let section = format!("[audit_api]\naddress = \"127.0.0.1:{port}\"\n{more}\n[metrics]\n");
        plant.set("[metrics]\n", &section);
        plant.set("messages_per_second = 100", "messages_per_second = 100_000");
        plant.set("messages_burst = 200", "messages_burst = 100_000");
        let bundle = |role: &str, name: &str| {
            let dir = plant.beside(&format!("{role}-{name}"));
            run(plant.avow(&[role, "add", name, "--out"]).arg(&dir)).exits(0);
            Bundle { name: name.to_owned(), dir }
        };
        let (auditor, device) = (bundle("auditor", "alice"), bundle("device", "press-7"));
        Some(Self { plant, auditor, device, port })
    }

    /// curl, with the certificate of `who` if there is one.
    fn curl(&self, who: Option<&Bundle>, arguments: &[&str], path: &str) -> Said {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--path-as-is", "--cacert"]).arg(self.auditor.path("ca.pem"));
        if let Some(who) = who {
            curl.arg("--cert").arg(who.path("cert.pem")).arg("--key").arg(who.path("key.pem"));
        }
        run(curl.args(arguments).arg(format!("https://localhost:{}{path}", self.port)))
    }

    /// The status of an answer.
    fn status(&self, who: Option<&Bundle>, arguments: &[&str], path: &str) -> String {
        let arguments = [&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat();
        self.curl(who, &arguments, path).out
    }

    /// Publishes so many messages, and waits until they are signed for.
    fn publish(&self, broker: &Broker, count: u16) {
        let mut raw = Raw::connected(broker.address, &self.device, Version::V5);
        for id in 1..=count {
            assert!(raw.publish(TOPIC, 1, id, b"x"));
            assert_eq!(raw.acknowledged(id).0, 0);
        }
        let recorded = broker.metric("avow_log_entries_total");
        broker.wait_for_metric("avow_log_entries_signed_total", recorded);
    }

    /// Entries of reads over the API, once there are at least so many.
    #[track_caller]
    fn reads(&self, more: &[&str], at_least: usize) -> Vec<serde_json::Value> {
        let began = Instant::now();
        loop {
            let arguments = [&["--type", "query", "--limit", "1000"], more].concat();
            let mut found = self.plant.query(&arguments);
            found.retain(|entry| entry["subject"] != "admin");
            if found.len() >= at_least {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{found:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn an_auditor_mirrors_the_log_with_curl_and_the_mirror_verifies() {
    let Some(api) = Api::new("requests_per_second = 10_000") else { return };
    let broker = api.plant.serve();
    api.publish(&broker, 300);
    let auditor = Some(&api.auditor);
    let mirror = api.plant.beside("mirror");
    let fetch = |path: &str| -> PathBuf {
        let out = mirror.join(path);
        let said = api.curl(
            auditor,
            &["--fail", "--create-dirs", "-o", &out.display().to_string()],
            &format!("/{path}"),
        );
        said.exits(0);
        out
    };
    let checkpoint = std::fs::read_to_string(fetch("checkpoint")).unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    assert!(size > 300, "{checkpoint}");
    let mut tiles = Vec::new();
    for kind in ["0", "entries"] {
        for number in 0..size / 256 {
            tiles.push(format!("tile/{kind}/{number:03}"));
        }
        if !size.is_multiple_of(256) {
            tiles.push(format!("tile/{kind}/{:03}.p/{}", size / 256, size % 256));
        }
    }
    tiles.push(format!("tile/1/000.p/{}", size / 256));
    for tile in &tiles {
        fetch(tile);
    }
    verify_mirror(&api, &mirror, size);

    // The whole mirror has shared the entries of its interval.
    let reads = api.reads(&["--decision", "allow"], 1);
    assert!(reads.len() < tiles.len(), "{reads:?}");
    assert!(reads.iter().all(|read| read["subject"] == "auditor/alice"));
    assert!(reads.iter().any(|read| read["request"] == "GET /checkpoint"));
    let counted: u64 = api
        .reads(&["--decision", "allow"], 2)
        .iter()
        .map(|read| read["reads"].as_str().map_or(1, |reads| reads.parse().unwrap()))
        .sum();
    assert_eq!(counted, tiles.len() as u64 + 1, "every read is in an entry or counted in one");
    assert!(api.plant.audit_verify().exits(0).out.contains("verified"));
    assert!(broker.stop().success());
}

/// Every entry of the mirror is that of the log, and the tiles give the signed root: by our own
/// verifier, by one that shares no code with it, and by hand.
fn verify_mirror(api: &Api, mirror: &Path, size: u64) {
    let mut entries = Vec::new();
    for number in 0..size.div_ceil(256) {
        let width = (size - number * 256).min(256);
        let end = if width == 256 { String::new() } else { format!(".p/{width}") };
        let bundle = std::fs::read(mirror.join(format!("tile/entries/{number:03}{end}"))).unwrap();
        let mut rest = &bundle[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            entries.push(entry.to_vec());
            rest = after;
        }
    }
    assert_eq!(entries.len() as u64, size);
    let shown = run(&mut api.plant.avow(&["audit", "show", "3", "--json"])).exits(0).out;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let third: serde_json::Value = serde_json::from_slice(&entries[3]).unwrap();
    assert_eq!(shown["entry"], third);
    let leaves: Vec<_> =
        entries.iter().map(|entry| avow::evidence::tree::leaf_hash(entry)).collect();
    let hashes = std::fs::read(mirror.join("tile/0/000")).unwrap();
    assert_eq!(hashes, leaves[..256].concat());
    let key = std::fs::read_to_string(api.plant.dir().join("log.vkey")).unwrap();
    let note = std::fs::read_to_string(mirror.join("checkpoint")).unwrap();
    let signed = avow::evidence::Checkpoint::open(&note, &key.trim().parse().unwrap()).unwrap();
    assert_eq!(
        (signed.tree_size, signed.root_hash),
        (size, avow::evidence::tree::root_of(&leaves))
    );
    let key = api.plant.dir().join("log.vkey");
    let mut verify = api.plant.avow(&["audit", "verify", "--directory"]);
    let said = run(verify.arg(mirror).arg("--key").arg(&key)).exits(0);
    assert!(said.out.contains("give the signed root hash"), "{said:?}");
    if has_python() {
        run(verify_py().arg("log").arg(mirror).arg(&key)).exits(0);
        let bundle = mirror.join("tile/entries/000");
        let whole = std::fs::read(&bundle).unwrap();
        let mut bent = whole.clone();
        bent[40] ^= 1;
        std::fs::write(&bundle, bent).unwrap();
        run(verify_py().arg("log").arg(mirror).arg(&key)).exits(1);
        std::fs::write(&bundle, whole).unwrap();
    }
}

#[test]
fn nobody_else_reads_a_byte_and_the_log_says_who_tried() {
    let Some(api) = Api::new("") else { return };
    let broker = api.plant.serve();
    api.publish(&broker, 1);
    let auditor = Some(&api.auditor);
    let headers =
        api.curl(auditor, &["-D", "-", "-o", "/dev/null"], "/checkpoint").out.to_lowercase();
    assert!(headers.starts_with("http/1.1 200"), "{headers}");
    for header in ["content-type: text/plain", "cache-control: no-store", "nosniff"] {
        assert!(headers.contains(header), "{headers}");
    }
    assert!(!headers.contains("access-control"), "no page is let in: {headers}");

    // No certificate, and that of a device, of an operator.
    let nameless = api.curl(None, &[], "/checkpoint");
    assert!(nameless.code != Some(0) && nameless.out.is_empty(), "{nameless:?}");
    assert_eq!(api.status(Some(&api.device), &[], "/checkpoint"), "403");
    let operator = api.plant.dir().join("clients/operator-1");
    let operator = Bundle { name: "operator-1".to_owned(), dir: operator };
    assert_eq!(api.status(Some(&operator), &[], "/tile/0/000"), "403");
    let said = api.curl(Some(&api.device), &[], "/checkpoint").out;
    assert!(!said.contains("plant"), "{said}");
    // A page in the auditor's own browser.
    for origin in ["Origin: https://evil.example", "Origin: null"] {
        assert_eq!(api.status(auditor, &["-H", origin], "/checkpoint"), "403");
    }
    for path in
        ["/", "/log.key", "/tile/0/../../log.key", "/..%2flog.key", "/segments/00000000.seg"]
    {
        assert_eq!(api.status(auditor, &[], path), "404", "{path}");
    }
    assert_eq!(api.status(auditor, &["-X", "POST", "-d", "x"], "/checkpoint"), "405");
    let long = format!("X-Long: {}", "x".repeat(20_000));
    assert_eq!(api.status(auditor, &["-H", &long], "/checkpoint"), "431");

    for (subject, why) in [
        ("device/press-7", "audit.role"),
        ("operator/operator-1", "audit.role"),
        ("auditor/alice", "audit.origin"),
        ("auditor/alice", "audit.path"),
        ("auditor/alice", "audit.method"),
    ] {
        let denied = api.reads(&["--decision", "deny", "--why", why], 1);
        assert!(denied.iter().any(|entry| entry["subject"] == subject), "{why}: {denied:?}");
    }
    let refused = api.plant.query(&["--type", "connect.refused", "--limit", "100"]);
    assert!(!refused.is_empty(), "a handshake without certificate");
    // An auditor is nobody on MQTT unless a rule says so.
    let mut raw =
        Raw::open(broker.address, crate::raw::tls(&api.auditor, Some(&api.auditor)), Version::V5);
    assert!(raw.send(&crate::raw::connect(Version::V5, "alice")));
    let crate::raw::Answer::Packet(0x20, connack) = raw.answer() else { panic!("no CONNACK") };
    assert!(connack[1] >= 0x80, "{connack:?}");
    assert!(broker.stop().success());
}

#[test]
fn an_auditor_that_asks_too_often_is_told_so() {
    let Some(api) = Api::new("requests_per_second = 2") else { return };
    let broker = api.plant.serve();
    api.publish(&broker, 1);
    let url = |path: &str| format!("https://localhost:{}{path}", api.port);
    // One connection, so that a slow machine asks often enough.
    let urls: Vec<String> = (0..8).map(|_| url("/checkpoint")).collect();
    let mut arguments = vec!["-w", "%{http_code}\n"];
    for url in &urls[1..] {
        arguments.extend(["-o", "/dev/null", url.as_str()]);
    }
    arguments.extend(["-o", "/dev/null"]);
    let said = api.curl(Some(&api.auditor), &arguments, "/checkpoint").out;
    assert_eq!(said.lines().next(), Some("200"), "{said}");
    assert!(said.lines().any(|status| status == "429"), "{said}");
    api.reads(&["--why", "audit.rate"], 1);
    assert!(broker.stop().success());
}

#[test]
fn an_api_that_cannot_be_had_is_told_of_with_its_line() {
    let plant = Plant::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let section =
        format!("[audit_api]\naddress = \"{}\"\n[metrics]\n", taken.local_addr().unwrap());
    plant.set("[metrics]\n", &section);
    let said = run(&mut plant.avow(&["serve"]));
    assert_ne!(said.code, Some(0));
    assert!(said.err.contains("avow.toml:") && said.err.contains("`address`"), "{}", said.err);
    plant.set("[audit_api]\n", "[audit_api]\nconnections_max = 0\n");
    let said = run(&mut plant.avow(&["config", "check"])).exits(2);
    assert!(said.err.contains("connections_max"), "{}", said.err);
}

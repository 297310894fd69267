//! RFC 3161 time-stamps with an authority made by the `openssl` command line, verified both ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Plant, Said, run};
use crate::raw::{Raw, Version};

/// An authority in a directory of its own.
struct Authority {
    dir: PathBuf,
}

/// Whether `openssl ts` is there.
fn has_openssl() -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    if !is_there {
        let required = std::env::var_os("AVOW_REQUIRE_CLIENTS").is_some();
        assert!(!required, "openssl is not there");
        println!("SKIPPED: openssl is not there");
    }
    is_there
}

impl Authority {
    /// A root and a certificate of it; `usage` is what that one may be used for.
    fn new(plant: &Plant, name: &str, key: &str, usage: &str) -> Self {
        let dir = plant.beside(name);
        std::fs::create_dir(&dir).unwrap();
        let authority = Self { dir };
        let write =
            |file: &str, text: &str| std::fs::write(authority.dir.join(file), text).unwrap();
        write("serial", "2a\n");
        write("ext", &format!("extendedKeyUsage=critical,{usage}\nbasicConstraints=CA:FALSE\n"));
        write(
            "tsa.cnf",
            "[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_digest=sha256\n\
             default_policy=1.2.3.4.1\ndigests=sha256\naccuracy=secs:1\ntsa_name=yes\n\
             ess_cert_id_alg=sha256\n",
        );
        let root = format!(
            "req -nodes -keyout ca.key -subj /CN=root -x509 -days 30 -out ca.pem -newkey {key} \
             -addext basicConstraints=critical,CA:TRUE"
        );
        authority.openssl(&root.split(' ').collect::<Vec<_>>()).exits(0);
        let request =
            format!("req -nodes -keyout tsa.key -subj /CN=clock -out tsa.csr -newkey {key}");
        authority.openssl(&request.split(' ').collect::<Vec<_>>()).exits(0);
        let sign = "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tsa.pem \
                    -days 30 -extfile ext";
        authority.openssl(&sign.split_whitespace().collect::<Vec<_>>()).exits(0);
        authority
    }

    fn openssl(&self, words: &[&str]) -> Said {
        run(Command::new("openssl").args(words).current_dir(&self.dir))
    }

    fn ca(&self) -> String {
        self.dir.join("ca.pem").display().to_string()
    }

    /// Stamps a request; the path of the reply.
    fn stamp(&self, request: &Path, name: &str) -> PathBuf {
        let reply = self.dir.join(name);
        let (request, out) = (request.display().to_string(), reply.display().to_string());
        let words = ["ts", "-reply", "-config", "tsa.cnf", "-queryfile", &request, "-signer"];
        let rest = ["tsa.pem", "-inkey", "tsa.key", "-out", &out];
        self.openssl(&[&words[..], &rest].concat()).exits(0);
        reply
    }
}

/// A plant with something in its log.
fn recorded() -> Plant {
    let plant = Plant::new();
    let device = plant.device("a-1");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    assert!(raw.publish("plant/a-1/sealed/x", 1, 1, b"x"));
    assert_eq!(raw.acknowledged(1), (0, None));
    assert!(broker.stop().success());
    plant
}

/// `avow audit timestamp request`: the files that it made.
fn ask(plant: &Plant) -> (PathBuf, PathBuf) {
    let said = run(&mut plant.avow(&["audit", "timestamp", "request", "--json"])).exits(0);
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let path = |field: &str| PathBuf::from(answer[field].as_str().unwrap());
    (path("checkpoint"), path("request"))
}

fn attach(plant: &Plant, reply: &Path, ca: &str) -> Said {
    let reply = reply.display().to_string();
    run(&mut plant.avow(&["audit", "timestamp", "attach", &reply, "--ca", ca]))
}

#[test]
fn a_stamp_of_openssl_is_attached_and_openssl_verifies_it_too() {
    if !has_openssl() {
        return;
    }
    let plant = recorded();
    for (number, key) in ["ec -pkeyopt ec_paramgen_curve:P-256", "rsa:2048"].iter().enumerate() {
        let authority = Authority::new(&plant, &format!("tsa-{number}"), key, "timeStamping");
        let (checkpoint, request) = ask(&plant);
        let reply = authority.stamp(&request, "reply.tsr");
        let words =
            format!("ts -verify -in reply.tsr -data {} -CAfile ca.pem", checkpoint.display());
        authority.openssl(&words.split(' ').collect::<Vec<_>>()).exits(0);
        // What openssl reads of our request.
        let query = format!("ts -query -in {} -text", request.display());
        let query = authority.openssl(&query.split(' ').collect::<Vec<_>>()).exits(0);
        assert!(query.out.contains("Hash Algorithm: sha256"), "{query:#?}");
        assert!(query.out.contains("Certificate required: yes"), "{query:#?}");

        let said = attach(&plant, &reply, &authority.ca()).exits(0);
        assert!(said.out.contains("by CN=clock"), "{said:#?}");
        // Attaching it again is no harm; the files stay as they are.
        attach(&plant, &reply, &authority.ca()).exits(0);
        let entries = plant.query(&["--type", "anchor"]);
        let entry = entries.last().unwrap();
        assert_eq!(entry["act"], "checkpoint.anchor");
        assert!(entry["text"].as_str().unwrap().starts_with("RFC 3161: 20"), "{entry}");
        let said = plant.audit_verify().exits(0);
        assert_eq!(said.out.matches("time-stamped: ").count(), number + 1, "{said:#?}");
    }
    let ca = plant.beside("tsa-0/ca.pem").display().to_string();
    // The other authority's stamp has no path to this CA.
    let said = run(&mut plant.avow(&["audit", "verify", "--tsa-ca", &ca])).exits(1);
    assert!(said.out.contains("no path"), "{said:#?}");
}

#[test]
fn a_stamp_that_does_not_hold_is_refused_or_found() {
    if !has_openssl() {
        return;
    }
    let plant = recorded();
    let key = "ec -pkeyopt ec_paramgen_curve:P-256";
    let good = Authority::new(&plant, "good", key, "timeStamping");
    let other = Authority::new(&plant, "other", key, "timeStamping");
    let (checkpoint, request) = ask(&plant);
    let reply = good.stamp(&request, "reply.tsr");
    let said = attach(&plant, &reply, &other.ca()).exits(1);
    assert!(said.err.contains("no path"), "{said:#?}");
    let said = attach(&plant, &reply, &plant.beside("good/serial").display().to_string()).exits(2);
    assert!(said.err.contains("holds no certificate"), "{said:#?}");
    let said = attach(&plant, &request, &good.ca()).exits(1);
    assert!(said.err.contains("no time-stamp reply"), "{said:#?}");
    attach(&plant, &plant.beside("nothing.tsr"), &good.ca()).exits(2);

    // A stamp over something else, and one that answers another request over the same note.
    let (note, again) = (plant.beside("note"), plant.beside("again.tsq"));
    std::fs::write(&note, "something else").unwrap();
    for (data, expected, code) in [(&note, "over no checkpoint", 2), (&checkpoint, "nonce", 1)] {
        let words =
            format!("ts -query -data {} -sha256 -cert -out {}", data.display(), again.display());
        good.openssl(&words.split(' ').collect::<Vec<_>>()).exits(0);
        let said = attach(&plant, &good.stamp(&again, "again.tsr"), &good.ca()).exits(code);
        assert!(said.err.contains(expected), "{said:#?}");
    }
    assert!(plant.query(&["--type", "anchor"]).is_empty());

    // Once it is attached, a changed byte of it or of what it is over is found, or changes nothing.
    attach(&plant, &reply, &good.ca()).exits(0);
    let whole = plant.audit_verify().exits(0);
    let kept = request.with_extension("tsr");
    for path in [&kept, &checkpoint] {
        let before = std::fs::read(path).unwrap();
        let mut found = 0;
        for place in (0..before.len()).step_by(before.len() / 12) {
            let mut after = before.clone();
            after[place] ^= 0x20;
            std::fs::write(path, &after).unwrap();
            let said = plant.audit_verify();
            // The status around the token, and versions within it, are under no signature.
            let is_harmless = path == &kept && said.code == Some(0) && said.out == whole.out;
            assert!(said.code == Some(1) || is_harmless, "{} {place}: {said:#?}", path.display());
            found += u32::from(!is_harmless);
        }
        assert!(found >= 9, "{found} at {}", path.display());
        std::fs::write(path, before).unwrap();
    }
    let said = plant.audit_verify().exits(0);
    assert!(said.out.contains("time-stamped: "), "{said:#?}");
}

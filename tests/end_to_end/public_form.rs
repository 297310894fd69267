//! The log as others read it: a copy of its checkpoint and tiles verifies with the verifier key
//! alone, by `avow audit verify --directory` and by `docs/verify.py`, which shares no code with it;
//! and both name the place where such a copy was changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Bundle, Plant, Said, run};
use crate::raw::{Raw, Version};
use crate::strangers::is_there;

/// A copy of the public part of a log, and beside it the log, a checkpoint from before, and the key.
struct Public {
    plant: Plant,
    copy: PathBuf,
}

impl Public {
    /// A log of more than two tiles.
    fn new() -> Self {
        let plant = Plant::new();
        // Each within what the limits let through at once.
        let devices: Vec<_> = (0..11).map(|number| plant.device(&format!("a-{number}"))).collect();
        let broker = plant.serve();
        let publish = |device: &Bundle| {
            let mut raw = Raw::connected(broker.address, device, Version::V5);
            let topic = format!("plant/{}/sealed/x", device.name);
            for id in 1..=50 {
                assert!(raw.publish(&topic, 1, id, b"x"));
                assert_eq!(raw.acknowledged(id), (0, None));
            }
        };
        let (first, rest) = devices.split_first().unwrap();
        publish(first);
        broker.wait_for_metric("avow_log_entries_signed_total", 50);
        let evidence = plant.dir().join("evidence");
        std::fs::copy(evidence.join("checkpoint"), plant.beside("old")).unwrap();
        rest.iter().for_each(publish);
        assert!(broker.stop().success());
        let copy = plant.beside("copy");
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(evidence.join("checkpoint"), copy.join("checkpoint")).unwrap();
        run(Command::new("cp").arg("-r").arg(evidence.join("tile")).arg(&copy)).exits(0);
        Self { plant, copy }
    }

    fn key(&self) -> PathBuf {
        self.plant.dir().join("log.vkey")
    }

    /// `avow audit verify` of the copy, without any directory of a broker.
    fn verify(&self, more: &[&str]) -> Said {
        let mut avow = crate::harness::avow();
        avow.current_dir(&self.copy).args(["audit", "verify", "--directory"]).arg(&self.copy);
        run(avow.arg("--key").arg(self.key()).args(more))
    }

    /// The copy by `verify.py`.
    fn python(&self) -> Said {
        run(verify_py().arg("log").arg(&self.copy).arg(self.key()))
    }
}

pub(crate) fn verify_py() -> Command {
    let mut python = Command::new(python3());
    python.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.py"));
    python
}

fn python3() -> String {
    std::env::var("AVOW_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

pub(crate) fn has_python() -> bool {
    is_there("python3", Command::new(python3()).arg("--version"), "verify.py is not run")
}

#[test]
fn a_copy_of_the_tiles_verifies_with_the_key_alone() {
    let public = Public::new();
    let said = public.verify(&[]).exits(0);
    assert!(said.out.contains("entries (0 to ") && said.out.contains("entries/s"), "{said:#?}");
    let old = public.plant.beside("old");
    let kept = ["--checkpoint", old.to_str().unwrap()];
    public.verify(&kept).exits(0);
    // The same of the plant's own, from its segments and from its tiles.
    for more in [&[][..], &["--tiles"]] {
        let arguments = [&["audit", "verify", "--json"], &kept[..], more].concat();
        let said = run(&mut public.plant.avow(&arguments)).exits(0);
        assert!(said.out.contains(r#""entries_per_second""#), "{said:#?}");
    }
    // An older copy is not whole for whoever kept the newer checkpoint, and no note is no checkpoint.
    let newest = public.copy.join("checkpoint");
    let newer = public.plant.beside("newer");
    std::fs::copy(&newest, &newer).unwrap();
    std::fs::copy(&old, &newest).unwrap();
    public.verify(&[]).exits(0);
    public.verify(&["--checkpoint", newer.to_str().unwrap()]).exits(1);
    public.verify(&["--checkpoint", public.key().to_str().unwrap()]).exits(2);
    std::fs::remove_file(&newest).unwrap();
    public.verify(&[]).exits(1);
    // Without the key there is nothing to verify with.
    let mut keyless = crate::harness::avow();
    run(keyless.args(["audit", "verify", "--directory"]).arg(&public.copy)).exits(2);
}

#[test]
fn a_changed_copy_is_found_and_the_place_named() {
    let public = Public::new();
    let has_python = has_python();
    let checks = |what: &str, name: &str| {
        let mut said = vec![public.verify(&[])];
        said.extend(has_python.then(|| public.python()));
        for said in said {
            assert_eq!(said.code, Some(1), "{what}: {said:#?}");
            assert!(said.out.contains(name), "{what}: {name} is not named: {said:#?}");
        }
    };
    let files: Vec<PathBuf> = {
        let mut find = Command::new("find");
        let said = run(find.arg(&public.copy).args(["-type", "f"])).exits(0);
        said.out.lines().map(PathBuf::from).collect()
    };
    assert!(files.len() >= 8, "{files:?}");
    // Only the partial tiles of the newest checkpoint are asked for.
    let size: u64 = {
        let note = std::fs::read_to_string(public.copy.join("checkpoint")).unwrap();
        note.lines().nth(1).unwrap().parse().unwrap()
    };
    let wanted = |path: &str| match path.split_once(".p/") {
        None => true,
        Some(("tile/1/000", width)) => width == (size / 256).to_string(),
        Some((_, width)) => width == (size % 256).to_string(),
    };
    let mut tried = 0;
    for file in files {
        let name = file.strip_prefix(&public.copy).unwrap().to_str().unwrap().to_owned();
        if !wanted(&name) {
            continue;
        }
        tried += 1;
        let whole = std::fs::read(&file).unwrap();
        // A changed entry shows at its hash, unless its length was changed.
        let named = |offset: usize| match name.strip_prefix("tile/entries/") {
            Some(number) if offset > 1 => format!("tile/0/{number}"),
            _ => name.clone(),
        };
        for offset in [0, 1, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[offset] ^= 1;
            std::fs::write(&file, changed).unwrap();
            let is_text = name == "checkpoint";
            let named = if is_text || offset < 2 { name.clone() } else { named(offset) };
            let is_length = name.starts_with("tile/entries/") && offset == whole.len() / 2;
            checks(&format!("{name}, byte {offset}"), if is_length { "tile/" } else { &named });
        }
        std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        checks(&format!("{name} cut"), &name);
        std::fs::remove_file(&file).unwrap();
        if name != "checkpoint" {
            checks(&format!("{name} missing"), &name);
        }
        std::fs::write(&file, &whole).unwrap();
    }
    assert!(tried >= 8, "{tried}");
    public.verify(&[]).exits(0);
}

#[test]
fn a_stranger_verifies_with_the_standard_library_of_python() {
    if !has_python() {
        return;
    }
    let public = Public::new();
    let said = public.python().exits(0);
    assert!(said.out.contains("give the signed root hash"), "{said:#?}");
    let (plant, key) = (&public.plant, public.key());
    let (old, new) = (plant.beside("old"), public.copy.join("checkpoint"));
    run(verify_py().arg("log").arg(&public.copy).arg(&key).arg(&old)).exits(0);
    // A proof of one entry, and what it does not prove.
    let out = plant.beside("proof");
    run(plant.avow(&["audit", "prove", "300", "--out"]).arg(&out)).exits(0);
    let [entry, proof] = ["entry.json", "entry.tlog-proof"].map(|name| out.join(name));
    let check = |entry: &Path, proof: &Path, key: &Path| {
        run(verify_py().arg("proof").args([entry, proof, key]))
    };
    assert!(check(&entry, &proof, &key).exits(0).out.contains("entry 300 is in the log"));
    assert!(check(&old, &proof, &key).exits(1).out.contains("root hash"));
    let other = Plant::new();
    check(&entry, &proof, &other.dir().join("log.vkey")).exits(1);
    check(&entry, &entry, &key).exits(1);
    check(&plant.beside("nothing"), &proof, &key).exits(2);
    let text = std::fs::read_to_string(&proof).unwrap();
    let forged = plant.beside("forged");
    for (from, to) in [("index 300", "index 301"), ("\n\n", "\nAAAA\n\n"), ("\u{2014} ", "- ")] {
        std::fs::write(&forged, text.replacen(from, to, 1)).unwrap();
        check(&entry, &forged, &key).exits(1);
    }
    // That the log only grew.
    let grown = run(plant.avow(&["audit", "consistency", "--from"]).arg(&old)).exits(0);
    let hashes = plant.beside("consistency");
    std::fs::write(&hashes, &grown.out).unwrap();
    let grew = |old: &Path, new: &Path| {
        run(verify_py().arg("consistency").args([old, new, hashes.as_path(), key.as_path()]))
    };
    grew(&old, &new).exits(0);
    grew(&new, &old).exits(1);
    std::fs::write(&hashes, grown.out.replacen(char::is_alphabetic, "+", 1)).unwrap();
    grew(&old, &new).exits(1);
    run(&mut verify_py()).exits(2);
    run(&mut plant.avow(&["audit", "consistency", "9", "3"])).exits(2);
    run(&mut plant.avow(&["audit", "consistency"])).exits(2);
}

#[test]
fn the_ed25519_of_verify_py_is_that_of_rfc_8032() {
    if !has_python() {
        return;
    }
    // Tests 1 to 3 and SHA(abc) of RFC 8032 section 7.1; then what each may not be.
    let code = r#"
import sys
sys.path.insert(0, sys.argv[1])
from verify import L, verify_ed25519
h = bytes.fromhex
for key, message, signature in [
    ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
]:
    key, message, signature = h(key), h(message), h(signature)
    assert verify_ed25519(key, message, signature)
    for place in range(64):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not verify_ed25519(key, message, bytes(changed)), place
    assert not verify_ed25519(key, message + b"x", signature)
    assert not verify_ed25519(key[::-1], message, signature)
    # The same scalar, written a second way.
    s = int.from_bytes(signature[32:], "little") + L
    assert not verify_ed25519(key, message, signature[:32] + s.to_bytes(32, "little"))
    assert not verify_ed25519(key, message, signature[:63])
print("fine")
"#;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let said = run(Command::new(python3()).args(["-I", "-B", "-c", code]).arg(docs)).exits(0);
    assert_eq!(said.out.trim(), "fine");
}

#[test]
fn fsck_names_what_differs_and_repairs_it_from_the_segments() {
    let plant = Plant::new();
    let device = plant.device("a-1");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    for id in 1..=50 {
        assert!(raw.publish("plant/a-1/sealed/x", 1, id, b"x"));
        assert_eq!(raw.acknowledged(id), (0, None));
    }
    let fsck = |more: &[&str]| run(&mut plant.avow(&[&["audit", "fsck"], more].concat()));
    broker.wait_for_metric("avow_log_entries_signed_total", 50);
    // Beside a running broker it reads; it does not write.
    fsck(&[]).exits(0);
    fsck(&["--repair"]).exits(2);
    assert!(broker.stop().success());
    fsck(&[]).exits(0);
    let evidence = plant.dir().join("evidence");
    let size = {
        let note = std::fs::read_to_string(evidence.join("checkpoint")).unwrap();
        note.lines().nth(1).unwrap().to_owned()
    };
    let [bundle, hashes] = ["entries", "0"].map(|kind| format!("tile/{kind}/000.p/{size}"));
    let mut bytes = std::fs::read(evidence.join(&bundle)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(evidence.join(&bundle), bytes).unwrap();
    std::fs::remove_file(evidence.join(&hashes)).unwrap();
    let kept = ["checkpoint", "history", "segments/00000000.seg"].map(|file| evidence.join(file));
    let before = kept.each_ref().map(|file| std::fs::read(file).unwrap());
    let said = fsck(&[]).exits(1);
    assert!(said.out.contains(&format!("{bundle}, byte 100, entry 0")), "{said:#?}");
    assert!(said.out.contains(&format!("{hashes}, byte 0, entry 0: the tile is missing")));
    assert_eq!(run(&mut plant.avow(&["audit", "verify", "--tiles"])).code, Some(1));
    let said = fsck(&["--repair", "--json"]).exits(0);
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["differing"], &told["written"]), (&2.into(), &2.into()), "{said:#?}");
    fsck(&[]).exits(0);
    run(&mut plant.avow(&["audit", "verify", "--tiles"])).exits(0);
    assert!(kept.each_ref().map(|file| std::fs::read(file).unwrap()) == before);
    // Segments that are damaged have no view.
    let mut segment = before[2].clone();
    segment[2000] ^= 1;
    std::fs::write(&kept[2], segment).unwrap();
    fsck(&["--repair"]).exits(1);
    fsck(&["--nonsense"]).exits(2);
}

//! Whoever changes the log is found out: a flipped byte, a shortened or missing segment, a forged
//! checkpoint. What lies past the last signed checkpoint is reported as an unsigned tail.

use std::path::{Path, PathBuf};

use crate::harness::{Plant, Said, run};
use crate::raw::{Raw, Version};

/// Offsets that are tried in every segment.
const FLIPS_PER_SEGMENT: usize = 16;
/// Three devices with fifteen of these fill more than two segments of 1 MiB, within their limits.
const PAYLOAD_BYTES: usize = 60_000;

/// A plant that recorded some messages over several segments, and was stopped in order.
fn recorded() -> Plant {
    let plant = Plant::new();
    let devices = ["a-1", "a-2", "a-3"].map(|name| plant.device(name));
    let broker = plant.serve();
    for device in &devices {
        let mut raw = Raw::connected(broker.address, device, Version::V5);
        let topic = format!("plant/{}/sealed/x", device.name);
        for id in 1..=15 {
            assert!(raw.publish(&topic, 1, id, &vec![b'x'; PAYLOAD_BYTES]));
            assert_eq!(raw.acknowledged(id), (0, None));
        }
    }
    assert!(broker.stop().success());
    plant.audit_verify().exits(0);
    plant
}

/// The segments that hold anything, oldest first.
fn segments(plant: &Plant) -> Vec<PathBuf> {
    let directory = plant.dir().join("evidence/segments");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| used_bytes(path) > 0).collect();
    files.sort();
    files
}

/// Where the zeros at the end begin.
fn used_bytes(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Verifies with `change` made to a file, then puts the file back.
fn with(plant: &Plant, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Said {
    let before = std::fs::read(path).unwrap();
    let mut after = before.clone();
    change(&mut after);
    std::fs::write(path, after).unwrap();
    let said = plant.audit_verify();
    std::fs::write(path, before).unwrap();
    said
}

/// Fails unless the log was said to be tampered with, at this file.
#[track_caller]
fn names(said: &Said, path: &Path, what: &str) {
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(said.code, Some(1), "{what}: {said:#?}");
    assert!(said.all().contains(name), "{what}: {name} is not named: {said:#?}");
}

#[test]
fn every_flipped_byte_is_found() {
    let plant = recorded();
    let segments = segments(&plant);
    assert!(segments.len() >= 3, "{segments:?}");
    for path in &segments {
        let used = used_bytes(path);
        let spread = (0..FLIPS_PER_SEGMENT).map(|n| n * (used - 1) / (FLIPS_PER_SEGMENT - 1));
        for offset in spread {
            let what = format!("byte {offset} of {used} in {}", path.display());
            names(&with(&plant, path, |bytes| bytes[offset] ^= 0x40), path, &what);
        }
        // The zeros after the last batch: no checkpoint covers them, and yet they are watched.
        let length = usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
        if used < length {
            let said = with(&plant, path, |bytes| bytes[length - 1] = 1);
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_past = said.out.contains("unsigned tail: ");
            assert!(said.code == Some(1) || is_past, "padding of {name}: {said:#?}");
            assert!(said.all().contains(name), "padding of {name}: {said:#?}");
        }
    }
    plant.audit_verify().exits(0);
}

#[test]
fn a_shortened_or_missing_segment_is_found() {
    let plant = recorded();
    let segments = segments(&plant);
    for path in &segments {
        let used = used_bytes(path);
        for keep in [used / 2, 100, 0] {
            let what = format!("{} cut to {keep} bytes", path.display());
            names(&with(&plant, path, |bytes| bytes.truncate(keep)), path, &what);
            let what = format!("{} zeroed after {keep} bytes", path.display());
            names(&with(&plant, path, |bytes| bytes[keep..].fill(0)), path, &what);
        }
        let aside = plant.beside("aside");
        std::fs::rename(path, &aside).unwrap();
        let said = plant.audit_verify();
        std::fs::rename(&aside, path).unwrap();
        assert_eq!(said.code, Some(1), "without {}: {said:#?}", path.display());
    }
    plant.audit_verify().exits(0);
}

#[test]
fn segments_in_another_order_and_forged_checkpoints_are_found() {
    let plant = recorded();
    let segments = segments(&plant);
    let second = std::fs::read(&segments[1]).unwrap();
    let said = with(&plant, &segments[0], |bytes| *bytes = second);
    names(&said, &segments[0], "the second segment in place of the first");
    let checkpoint = plant.dir().join("evidence/checkpoint");
    let text = std::fs::read_to_string(&checkpoint).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // Its size, its root hash and its signature: another character, where each of them has bits.
    for line in [1, 2, lines.len() - 1] {
        let mut forged: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let at = forged[line].len() - if line == 1 { 1 } else { 20 };
        let other = if &forged[line][at..=at] == "1" { "2" } else { "1" };
        forged[line].replace_range(at..=at, other);
        let said = with(&plant, &checkpoint, |bytes| *bytes = (forged.join("\n") + "\n").into());
        let what = format!("line {line} of the checkpoint: {:?}", forged[line]);
        assert_eq!(said.code, Some(1), "{what}: {said:#?}");
        assert!(said.all().contains("checkpoint"), "{what}: {said:#?}");
    }
    plant.audit_verify().exits(0);

    // Another log's key does not open it, and without its checkpoints nothing is signed.
    let other = Plant::new();
    let key = other.dir().join("log.vkey");
    let foreign = ["audit", "verify", "--key", key.to_str().unwrap()];
    run(&mut plant.avow(&foreign)).exits(1);
    std::fs::remove_file(&checkpoint).unwrap();
    std::fs::remove_file(plant.dir().join("evidence/history")).unwrap();
    let said = plant.audit_verify().exits(1);
    assert!(said.out.contains("nothing is signed"), "{said:#?}");
}

#[test]
fn what_no_checkpoint_covers_is_an_unsigned_tail() {
    let plant = Plant::new();
    plant.set("checkpoint_interval = \"1s\"", "checkpoint_interval = \"1m\"");
    let device = plant.device("a-1");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    for id in 1..=10 {
        assert!(raw.publish("plant/a-1/sealed/x", 1, id, b"x"));
        assert_eq!(raw.acknowledged(id), (0, None));
    }
    broker.kill();
    let tail = |said: &Said| -> Option<u64> {
        let count = said.all().split("unsigned tail: ").nth(1)?.split(' ').next()?.to_owned();
        count.parse().ok()
    };
    let said = plant.audit_verify().exits(0);
    let whole = tail(&said).unwrap_or_else(|| panic!("no unsigned tail: {said:#?}"));
    // Whoever reads is told that there is more, beside what they asked for.
    let note = format!("note: {whole} newer entries are not yet under a checkpoint");
    for verb in ["tail", "query"] {
        let read = run(&mut plant.avow(&["audit", verb, "--json"]));
        assert!(read.err.contains(&note), "{note}: {read:#?}");
        assert!(!read.out.contains("newer"), "{read:#?}");
    }
    assert!(whole >= 10, "{said:#?}");
    let segments = segments(&plant);
    let path = segments.last().unwrap();
    let used = used_bytes(path);
    let said = with(&plant, path, |bytes| bytes[used - 1] ^= 0x40);
    let is_shorter = tail(&said).unwrap_or(0) < whole;
    assert!(said.code == Some(1) || is_shorter, "a changed tail went unseen: {said:#?}");
}

//! A disk that fills up, as a real file system of a few megabytes: the broker says so while it still
//! serves, ends with its exit code when the log needs what is not there, and has lost nothing that it
//! acknowledged when it starts again with space.
//!
//! It takes a mount, so root; without, it is skipped aloud. The simulated disk tries the same at
//! every write (`tests/simulation/points.rs`).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Plant, run};
use crate::kill_nine::all_recorded;
use crate::raw::{Answer, Raw, Version};
use crate::strangers::say_skipped;

/// Of the file system. The broker wants 8 MiB free beside a segment of 1 MiB when it makes one ahead.
const DISK_MIB: u64 = 32;
/// Taken by something else, while the broker runs.
const BALLAST_MIB: u64 = 27;
/// More than what is left can hold.
const MESSAGES_MAX: u16 = 20_000;
const PAYLOAD: [u8; 2048] = [b'x'; 2048];

/// A small file system, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` if we may not.
    fn new(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={DISK_MIB}m,mode=700");
        let mut mount = Command::new("mount");
        let said = run(mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at));
        (said.code == Some(0)).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

#[test]
fn a_full_disk_is_told_before_it_ends_the_broker_and_costs_nothing_acknowledged() {
    let plant = Plant::new();
    plant.set("bytes_per_second = 262_144", "bytes_per_second = 1_000_000_000");
    plant.set("bytes_burst = 1_048_576", "bytes_burst = 1_000_000_000");
    plant.set("messages_per_second = 100", "messages_per_second = 1_000_000");
    plant.set("messages_burst = 200", "messages_burst = 1_000_000");
    let evidence = plant.dir().join("evidence");
    let Some(_mount) = Mount::new(&evidence) else {
        return say_skipped("mount", "no file system can be mounted here");
    };
    let device = plant.device("press-7");
    let broker = plant.serve();
    assert_eq!(broker.metric("avow_log_segments_unprepared_total"), 0);
    let ballast = evidence.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    for _ in 0..BALLAST_MIB {
        file.write_all(&[7; 1 << 20]).unwrap();
    }
    let mut raw = Raw::connected(broker.address, &device, Version::V3);
    let (mut acknowledged, mut told_while_serving) = (Vec::new(), false);
    for number in 1..MESSAGES_MAX {
        let topic = format!("plant/press-7/sealed/{number}");
        if !raw.publish(&topic, 1, number, &PAYLOAD) {
            break;
        }
        let Answer::Packet(0x40, body) = raw.answer() else { break };
        assert_eq!(body, number.to_be_bytes());
        acknowledged.push(topic);
        if number.is_multiple_of(100) && !told_while_serving {
            told_while_serving = broker.metric("avow_log_segments_unprepared_total") > 0;
        }
    }
    let said = broker.said();
    let status = broker.ended_within(Duration::from_secs(20));
    assert_eq!(status.code(), Some(70), "{said}");
    assert!(told_while_serving, "nobody was told while it served:\n{said}");
    let told = "the next segment of the log is not made";
    assert!(said.contains(told), "no line of it:\n{said}");
    println!("{} messages were acknowledged before the disk was full", acknowledged.len());
    assert!(acknowledged.len() > 500, "{said}");

    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let broker = plant.serve();
    let ended = broker.said();
    assert!(ended.contains("No space left on device"), "{ended}");
    all_recorded(&plant, &acknowledged, acknowledged.len() + 100, "with space");
    plant.audit_verify().exits(0);
    let mut raw = Raw::connected(broker.address, &device, Version::V3);
    assert!(raw.publish("plant/press-7/sealed/again", 1, 1, &PAYLOAD));
    assert_eq!(raw.answer(), Answer::Packet(0x40, vec![0, 1]));
    assert!(broker.stop().success());
    plant.audit_verify().exits(0);
}

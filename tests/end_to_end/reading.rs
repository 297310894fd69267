//! What one can ask of the log while it grows: searches, pages, followers.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Plant, run};
use crate::raw::{Raw, Version};

/// Longest wait for a line of a follower: a checkpoint comes every second.
const LINE_WITHIN: Duration = Duration::from_secs(20);

/// A topic that press-7 may write, and one that it may not.
const OWN: &str = "plant/press-7/sealed/x";
const OTHERS: &str = "plant/press-8/sealed/x";

fn indices(said: &str) -> Vec<u64> {
    let index = |line: &str| line.split(' ').next().and_then(|index| index.parse().ok());
    said.lines().map(|line| index(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn a_search_takes_conditions_and_goes_page_by_page() {
    let plant = Plant::new();
    let device = plant.device("press-7");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    for id in 1..=9 {
        assert!(raw.publish(OWN, 1, id, b"x"));
        assert_eq!(raw.acknowledged(id).0, 0);
    }
    assert!(raw.publish(OTHERS, 1, 10, b"x"));
    assert_eq!(raw.acknowledged(10).0, 0x87);
    let recorded = broker.metric("avow_log_entries_total");
    broker.wait_for_metric("avow_log_entries_signed_total", recorded);

    let ask = |arguments: &[&str], code| {
        let mut command = plant.avow(&["audit", "query"]);
        indices(&run(command.args(arguments)).exits(code).out)
    };
    let all = ask(&["--type", "publish", "--device", "press-7"], 0);
    assert_eq!(all.len(), 9);
    assert!(all.is_sorted(), "the newest last");
    let of = ["--type", "publish", "--limit", "4"];
    let page = |more: &[&str]| ask(&[&of[..], more].concat(), 0);
    assert_eq!(page(&[]), all[5..]);
    assert_eq!(page(&["--before", &all[5].to_string()]), all[1..5]);
    assert_eq!(page(&["--after", &all[1].to_string()]), all[2..6]);
    assert_eq!(page(&["--order", "oldest"]), all[..4]);
    let mut newest = all[5..].to_vec();
    newest.reverse();
    assert_eq!(page(&["--order", "newest"]), newest);

    let refused = ask(&["--decision", "deny"], 0);
    assert_eq!(refused.len(), 1);
    for more in [
        ["--why", "policy.*"],
        ["--topic", "plant/press-8/#"],
        ["--who", "device/press-7"],
        ["--since", "10m"],
    ] {
        assert_eq!(ask(&[&["--decision", "deny"], &more[..]].concat(), 0), refused, "{more:?}");
    }
    assert_eq!(ask(&["--level", "A0"], 0), all);
    for none in [["--why", "limit.*"], ["--level", "A0"], ["--until", "1h"], ["--topic", "a/+"]] {
        assert!(ask(&[&["--decision", "deny"], &none[..]].concat(), 1).is_empty(), "{none:?}");
    }
    for wrong in [["--topic", "a/#/b"], ["--why", "*"], ["--limit", "10001"], ["--since", "soon"]] {
        ask(&wrong, 2);
    }
    // Every one of these searches is in the log, each before its first line was shown.
    let recorded = broker.metric("avow_log_entries_total");
    broker.wait_for_metric("avow_log_entries_signed_total", recorded);
    let readings = plant.query(&["--type", "query", "--limit", "1000"]);
    assert!(readings.iter().any(|entry| {
        entry["request"].as_str().is_some_and(|request| request.contains("plant/press-8/#"))
    }));
}

/// A command whose lines come one by one.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn new(plant: &Plant, arguments: &[&str]) -> Self {
        let mut command = plant.avow(&["audit", "tail", "-f", "--json"]);
        let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let lines = lines(child.stdout.take().unwrap());
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(LINE_WITHIN).expect("a line in time");
        serde_json::from_str(&line).expect("a whole entry")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(out: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            if line.is_ok_and(|line| sender.send(line).is_err()) {
                return;
            }
        }
    });
    lines
}

#[test]
fn a_follower_sees_what_fits_across_checkpoints_and_brokers_and_ends_when_told() {
    let plant = Plant::new();
    let device = plant.device("press-7");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    let refused = |raw: &mut Raw, id| {
        assert!(raw.publish(OWN, 1, id, b"x"));
        assert!(raw.publish(OTHERS, 1, id + 1, b"x"));
        raw.acknowledged(id);
        raw.acknowledged(id + 1);
    };
    refused(&mut raw, 1);
    let recorded = broker.metric("avow_log_entries_total");
    broker.wait_for_metric("avow_log_entries_signed_total", recorded);
    let mut follower = Follower::new(&plant, &["--decision", "deny", "--topic", "plant/#"]);
    let first = follower.next();
    assert_eq!((&first["topic"], &first["pid"]), (&OTHERS.into(), &2.into()));
    // Each behind a checkpoint of its own.
    for id in [3, 5] {
        refused(&mut raw, id);
        assert_eq!(follower.next()["pid"], u64::from(id + 1));
    }

    // What happens while no broker runs, or another one does, is seen as well.
    drop(raw);
    assert!(broker.stop().success());
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    refused(&mut raw, 7);
    assert_eq!(follower.next()["pid"], 8);
    assert!(follower.lines.try_recv().is_err(), "nothing twice, and nothing else");

    let id = rustix::process::Pid::from_child(&follower.child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let status = follower.child.wait().unwrap();
    assert!(!status.success() && status.code().is_none(), "ended by the signal: {status}");
    assert!(follower.lines.recv_timeout(LINE_WITHIN).is_err(), "no half line");

    // A reader that has enough.
    let mut shell = std::process::Command::new("sh");
    let avow = env!("CARGO_BIN_EXE_avow");
    let line = format!("'{avow}' --dir '{}' audit tail -f -n 5 | head -n 2", plant.dir().display());
    let said = run(shell.args(["-c", &line]));
    assert_eq!((said.code, said.out.lines().count()), (Some(0), 2), "{said:?}");
    assert!(said.err.is_empty(), "{}", said.err);
}

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

/// A plant with nine messages of press-7, one of them refused, and a broker that has stopped or not.
fn lived(stops: bool) -> (Plant, Option<crate::harness::Broker>) {
    let plant = Plant::new();
    let device = plant.device("press-7");
    plant.device("press-8");
    let broker = plant.serve();
    let mut raw = Raw::connected(broker.address, &device, Version::V5);
    for id in 1..=8 {
        assert!(raw.publish(OWN, 1, id, b"secret-payload"));
        assert_eq!(raw.acknowledged(id).0, 0);
    }
    assert!(raw.publish(OTHERS, 1, 9, b"secret-payload"));
    assert_eq!(raw.acknowledged(9).0, 0x87);
    drop(raw);
    if stops {
        assert!(broker.stop().success());
        return (plant, None);
    }
    let recorded = broker.metric("avow_log_entries_total");
    broker.wait_for_metric("avow_log_entries_signed_total", recorded);
    (plant, Some(broker))
}

#[test]
fn a_timeline_tells_the_life_of_a_device_in_order() {
    let (plant, _none) = lived(true);
    let said = run(&mut plant.avow(&["audit", "timeline", "press-7", "--json"])).exits(0);
    let lines: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kind = |line: &Value| match line["entry"]["type"].as_str() {
        Some(kind) => kind.to_owned(),
        None => "messages".to_owned(),
    };
    let kinds: Vec<String> = lines.iter().map(kind).collect();
    let place = |kind: &str| kinds.iter().position(|one| one == kind).expect(kind);
    assert!(place("policy") < place("connect"), "{kinds:?}");
    assert!(place("connect") < place("messages") && place("messages") < place("disconnect"));
    assert!(place("disconnect") < place("stop"), "{kinds:?}");
    let groups = lines[place("messages")]["groups"].as_array().unwrap();
    let counts: Vec<_> = groups.iter().map(|group| (&group["type"], &group["count"])).collect();
    assert_eq!(counts, [(&"publish".into(), &8.into()), (&"publish.refused".into(), &1.into())]);
    let text = run(&mut plant.avow(&["audit", "timeline", "device/press-7"])).exits(0).out;
    assert!(text.contains("8 publishes allowed by ") && text.contains("1 publishes refused by "));
    // The other one was given a certificate, and nobody knows a third.
    run(&mut plant.avow(&["audit", "timeline", "press-9"])).exits(1);
    run(&mut plant.avow(&["audit", "timeline", "robot/press-7"])).exits(2);
}

#[test]
fn stats_count_what_a_search_finds() {
    let (plant, _broker) = lived(false);
    let stats = |more: &[&str], code| {
        let arguments = [&["audit", "stats", "--json"], more].concat();
        let said = run(&mut plant.avow(&arguments)).exits(code);
        serde_json::from_str::<Value>(&said.out).unwrap_or_default()
    };
    let of_device = stats(&["--device", "press-7", "--per", "day"], 0);
    let row = |table: &str, name: &str| {
        let rows = of_device[table].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name);
        row.map(|row| (row["entries"].as_u64().unwrap(), row["denied"].as_u64().unwrap()))
    };
    assert_eq!(row("by_type", "publish"), Some((8, 0)));
    assert_eq!(row("by_type", "publish.refused"), Some((1, 1)));
    assert_eq!(row("by_who", "device/press-7").map(|(_, denied)| denied), Some(1));
    assert_eq!(row("by_who", "device/press-8"), None);
    assert_eq!(
        row("by_why", "policy.no_rule").or(row("by_why", "policy.forbidden")).unwrap(),
        (1, 1)
    );
    assert_eq!(row("by_level", "A0"), Some((8, 0)));
    assert_eq!(of_device["payload_bytes"], 9 * 14);
    assert_eq!(of_device["by_time"][0]["entries"], of_device["entries"]);
    let found = plant.query(&["--device", "press-7", "--limit", "1000"]);
    assert_eq!(of_device["entries"], found.len());
    stats(&["--topic", "nowhere/#"], 1);
    stats(&["--per", "minute"], 2);
    let text = run(&mut plant.avow(&["audit", "stats", "--device", "press-7"])).exits(0).out;
    assert!(text.contains("publish.refused 1, 1 denied"), "{text}");
}

#[test]
fn an_export_is_read_by_other_programs_and_stands_in_the_log() {
    for stops in [false, true] {
        let (plant, broker) = lived(stops);
        let export = |format: &str, more: &[&str], code| {
            let out = plant.beside(&format!("out.{format}"));
            let line = ["audit", "export", "--format", format, "--json", "--device", "press-7"];
            let mut command = plant.avow(&[&line[..], more].concat());
            let said = run(command.arg("--out").arg(&out)).exits(code);
            let text = std::fs::read_to_string(&out).unwrap_or_default();
            assert!(!text.contains("secret-payload"), "an entry holds no payload");
            (said, text)
        };
        let (said, ndjson) = export("ndjson", &[], 0);
        let entries = ndjson.lines().count();
        assert!(said.out.contains(&format!("\"entries\":{entries}")) && entries >= 11, "{said:?}");
        let first: Value = serde_json::from_str(ndjson.lines().next().unwrap()).unwrap();
        let shown = run(&mut plant.avow(&["audit", "show", &first["index"].to_string(), "--json"]));
        let shown: Value = serde_json::from_str(&shown.exits(0).out).unwrap();
        assert_eq!(shown["entry"], first["entry"]);
        // Nothing is overwritten, and nothing is left of an export that fails.
        export("ndjson", &[], 2);
        let (_, ocsf) = export("ocsf", &["--type", "publish"], 0);
        assert_eq!(ocsf.lines().count(), 8);
        assert!(ocsf.lines().all(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["class_uid"] == 6003 && event["metadata"]["version"] == "1.3.0"
        }));
        export("csv", &["--type", "will"], 1);
        std::fs::remove_file(plant.beside("out.csv")).unwrap();
        let (_, csv) = export("csv", &[], 0);
        read_by_python(&plant, &csv, entries);
        if let Some(broker) = &broker {
            // The traces of a running broker are searched once a checkpoint covers them.
            let recorded = broker.metric("avow_log_entries_total");
            broker.wait_for_metric("avow_log_entries_signed_total", recorded);
        }
        let trace = plant.query(&["--type", "export", "--limit", "100"]);
        assert!(!trace.is_empty() && trace.iter().all(|entry| entry["act"] == "log.export"));
    }
}

/// Somebody else's reader of CSV finds as many rows, and the entry in the last column.
fn read_by_python(plant: &Plant, csv: &str, entries: usize) {
    const SCRIPT: &str = "import csv, json, sys\n\
        rows = list(csv.DictReader(open(sys.argv[1], newline='')))\n\
        assert all(json.loads(row['entry'])['type'] == row['type'] for row in rows)\n\
        assert {row['who'] for row in rows} == {'device/press-7'}\n\
        print(len(rows))";
    assert!(csv.split("\r\n").count() == entries + 2, "CRLF after the header and each entry");
    let mut python = std::process::Command::new("python3");
    if python.arg("--version").output().is_err() {
        assert!(std::env::var_os("AVOW_REQUIRE_CLIENTS").is_none(), "python3 is missing");
        println!("SKIPPED: python3 is missing");
        return;
    }
    let mut python = std::process::Command::new("python3");
    let said = run(python.args(["-c", SCRIPT]).arg(plant.beside("out.csv"))).exits(0);
    assert_eq!(said.out.trim(), entries.to_string());
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

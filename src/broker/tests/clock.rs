//! The wall clock is set.

use super::*;

fn step_entries(rig: &Rig) -> Vec<String> {
    let steps = rig.log.iter().filter(|record| record.head.starts_with(STEP));
    steps.map(|record| String::from_utf8(record.head.clone()).unwrap()).collect()
}

const STEP: &[u8] = br#"{"v":1,"type":"time.step""#;

#[test]
fn a_step_of_the_wall_clock_is_an_entry_a_count_and_nothing_else() {
    let mut rig = Rig::new();
    let count = rig.log.len();
    let expected = rig.now.unix;
    rig.now.unix = UnixNanos::new(expected.as_nanos() + 3_600_000_000_000);
    rig.input(Input::ClockStepped { expected });
    let expected = rig.now.unix;
    rig.now.unix = UnixNanos::new(expected.as_nanos() - 1_500_000_000);
    rig.input(Input::ClockStepped { expected });
    rig.sync();
    assert_eq!(rig.log.len(), count + 2);
    assert_eq!(rig.broker.counters().clock_steps, 2);
    let id = |entry: &str| serde_json::from_str::<Value>(entry).unwrap()["id"].to_string();
    let entries = step_entries(&rig).into_iter().map(|entry| entry.replace(&id(&entry), "\"\""));
    insta::assert_snapshot!(entries.collect::<Vec<_>>().join("\n"), @r#"
    {"v":1,"type":"time.step","t":1003600000000000,"node":"plant","id":"","found":"running","step":"forward","nanos":3600000000000,"expected":1000000000000000}
    {"v":1,"type":"time.step","t":1003598500000000,"node":"plant","id":"","found":"running","step":"back","nanos":1500000000,"expected":1003600000000000}
    "#);
}

#[test]
fn a_start_before_the_newest_entry_says_that_the_clock_was_set_back() {
    let start = |ended_at: u64, now: Now| {
        let mut replay = Replay::new(super::super::testing::settings(), now);
        let newest = format!(r#"{{"v":1,"type":"stop","t":{ended_at},"node":"n","id":"x"}}"#);
        replay.ended_with(newest.as_bytes()).unwrap();
        let mut rig = Rig::new();
        rig.now = now;
        rig.go_on_with(replay.finish(now), 0);
        (step_entries(&rig), rig.log.first().cloned().unwrap().head)
    };
    let now = Rig::new().now;
    let (steps, _) = start(now.unix.as_nanos(), now);
    assert_eq!(steps, Vec::<String>::new(), "the same nanosecond is not before");
    let (steps, first) = start(now.unix.as_nanos() + 1, now);
    assert_eq!(steps.len(), 1);
    assert!(first.starts_with(STEP), "before every entry that has the new time");
    let step: Value = serde_json::from_str(&steps[0]).unwrap();
    assert_eq!((&step["found"], &step["step"]), (&"start".into(), &"back".into()));
    assert_eq!((&step["nanos"], &step["t"]), (&1.into(), &now.unix.as_nanos().into()));
    let mut replay = Replay::new(super::super::testing::settings(), now);
    assert!(replay.ended_with(b"{}").is_err());
}

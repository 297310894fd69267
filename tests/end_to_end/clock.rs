//! The wall clock of the machine is set while the broker runs, by libfaketime: the broker says so in
//! an entry, a line and a metric, and serves on.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::Plant;
use crate::raw::{Raw, Version};
use crate::strangers::is_there;

/// Where Debian has it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_wall_clock_that_is_set_leaves_an_entry_a_line_and_a_count() {
    if !is_there("libfaketime", Command::new("test").args(["-e", LIBRARY]), "it is not installed") {
        return;
    }
    let plant = Plant::new();
    let device = plant.device("press-7");
    let offset = plant.beside("offset");
    std::fs::write(&offset, "+0s\n").unwrap();
    let broker = plant.serve_with(&[
        ("LD_PRELOAD", LIBRARY.as_ref()),
        ("FAKETIME_TIMESTAMP_FILE", offset.as_os_str()),
        ("FAKETIME_NO_CACHE", "1".as_ref()),
        // Only the wall clock moves.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
    ]);
    let mut raw = Raw::connected(broker.address, &device, Version::V3);
    let publish = |raw: &mut Raw, id: u16| {
        assert!(raw.publish("plant/press-7/sealed/x", 1, id, b"still here"));
        assert!(matches!(raw.answer(), crate::raw::Answer::Packet(0x40, _)));
    };
    publish(&mut raw, 1);
    assert_eq!(broker.metric("avow_clock_steps_total"), 0);
    for (steps, set) in [(1, "+3600s\n"), (2, "-60s\n")] {
        // In one step: the broker reads the file whenever it looks at the clock.
        let next = plant.beside("offset.next");
        std::fs::write(&next, set).unwrap();
        std::fs::rename(&next, &offset).unwrap();
        let began = Instant::now();
        while broker.metric("avow_clock_steps_total") < steps {
            assert!(began.elapsed() < WITHIN, "step {steps} was not seen:\n{}", broker.said());
            publish(&mut raw, 2);
        }
    }
    let said = broker.said();
    assert!(said.contains("time.step"), "{said}");
    assert!(broker.stop().success());
    let steps = plant.query(&["--type", "time.step"]);
    assert_eq!(steps.len(), 2, "{steps:#?}");
    for (way, seconds) in [("forward", 3_600), ("back", 3_660)] {
        let step = steps.iter().find(|step| step["step"] == way).expect("one each way");
        let nanos = step["nanos"].as_u64().unwrap();
        // The two clocks are not looked at at the very same moment.
        assert!(nanos.abs_diff(seconds * 1_000_000_000) < 500_000_000, "{steps:#?}");
    }
    plant.audit_verify().exits(0);
}

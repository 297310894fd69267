//! The command of the README: a plant that needs nothing else on the machine, and that tells a
//! broken expectation from a kept one by its exit code.

use std::time::Duration;

use crate::harness::{avow, run_within};

const WITHIN: Duration = Duration::from_secs(90);

#[test]
fn the_demo_shows_its_plant_verifies_its_log_and_exits_zero() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = avow();
    demo.args(["serve", "--demo", "--for", "6s"]).current_dir(scratch.path());
    let said = run_within(&mut demo, WITHIN).exits(0);
    let all = said.all();
    for word in ["accepted", "refused", "verif"] {
        assert!(all.to_lowercase().contains(word), "no `{word}` in {said:#?}");
    }
    assert!(!all.contains('\u{1b}'), "colours without a terminal: {said:#?}");
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 0, "it left something in the current directory");
}

#[test]
fn a_broken_expectation_makes_the_demo_exit_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = avow();
    // The plant's policy lets the trespasser in, and the demo must notice.
    demo.args(["serve", "--demo", "--for", "6s", "--demo-break", "trespass"]);
    run_within(demo.current_dir(scratch.path()), WITHIN).exits(1);
}

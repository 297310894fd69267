//! The command of the README: a plant that needs nothing else on the machine, and that tells a
//! broken expectation from a kept one by its exit code.

use std::time::Duration;

use crate::harness::{Said, avow, run_within};

const WITHIN: Duration = Duration::from_secs(90);

/// Runs the demo for six seconds, its scratch directory and its current one being ours; what it
/// said, and how many files it left in the current one.
fn demo(arguments: &[&str]) -> (Said, usize) {
    let (scratch, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut demo = avow();
    demo.args(["serve", "--demo", "--for", "6s"]).args(arguments);
    demo.env("TMPDIR", scratch.path()).current_dir(here.path());
    let said = run_within(&mut demo, WITHIN);
    (said, std::fs::read_dir(here.path()).unwrap().count())
}

#[test]
fn the_demo_shows_its_plant_verifies_its_log_and_exits_zero() {
    let (said, left) = demo(&[]);
    let said = said.exits(0);
    for words in ["accepted", "refused", "the log verifies", "is proven to be in it"] {
        assert!(said.out.to_lowercase().contains(words), "no `{words}` in {said:#?}");
    }
    assert!(!said.all().contains('\u{1b}'), "colours without a terminal: {said:#?}");
    assert_eq!(left, 0, "it left something in the current directory");
}

#[test]
fn a_broken_expectation_makes_the_demo_exit_one() {
    // The plant's policy lets the trespasser in, and the demo must notice.
    let (said, _) = demo(&["--demo-break", "trespass"]);
    let said = said.exits(1);
    assert!(said.out.contains("did not hold: trespasser"), "{said:#?}");
}

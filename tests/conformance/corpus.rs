//! Every input that fuzzing kept, through the same functions as under libFuzzer (`fuzz/`).

#![expect(clippy::disallowed_methods, reason = "the kept inputs are files")]

use std::path::Path;

#[path = "../../fuzz/harness/mod.rs"]
#[expect(clippy::expect_used, reason = "shared with the fuzz targets")]
mod harness;

/// Runs all inputs of one target; their number.
fn replay(target: &str, run: fn(&[u8])) -> usize {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    for input in &inputs {
        // Shown only if it fails.
        println!("{}", input.display());
        run(&std::fs::read(input).unwrap());
    }
    inputs.len()
}

#[test]
fn the_corpus_of_decode() {
    assert!(replay("decode", harness::decode::run) > 50);
}

#[test]
fn the_corpus_of_round_trip() {
    assert!(replay("round_trip", harness::round_trip::run) > 50);
}

#[test]
fn the_corpus_of_topic_match() {
    assert!(replay("topic_match", harness::topic_match::run) > 20);
}

#[test]
fn the_corpus_of_statement() {
    assert!(replay("statement", harness::statement::run) > 30);
}

#[test]
fn the_corpus_of_log() {
    assert!(replay("log", harness::log::run) > 30);
}

#[test]
fn the_corpus_of_session() {
    assert!(replay("session", harness::session::run) > 20);
}

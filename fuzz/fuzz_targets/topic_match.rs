//! See `harness/topic_match.rs`.
#![no_main]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "one target of six")]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::topic_match::run(data));

//! What the fuzz targets do with one input: plain functions that panic where an invariant breaks.
//!
//! The targets in `fuzz_targets/` call them under libFuzzer, and `tests/conformance/corpus.rs`
//! calls them with every input that was kept, on the stable toolchain. No clock, no file, no
//! randomness: one input is one history.

pub(crate) mod client;
pub(crate) mod decode;
#[path = "../../tests/simulation/disk.rs"]
#[expect(dead_code, reason = "its accidents are the simulation's")]
mod disk;
pub(crate) mod log;
pub(crate) mod plant;
pub(crate) mod round_trip;
pub(crate) mod session;
pub(crate) mod statement;
pub(crate) mod topic_match;

//! The durable log on a disk that forgets what was not synced.
//!
//! A failure prints its seed; `one_history(seed, …)` replays it.

mod crash;
mod disk;
mod tamper;
mod threads;
mod world;

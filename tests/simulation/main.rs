//! The core and its durable log on a disk that forgets what was not synced.
//!
//! A failure prints its seed; `one_history(seed, …)` replays it.

#[cfg(test)]
mod batches;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod erasing;
#[cfg(test)]
mod history;
#[cfg(test)]
mod lies;
#[cfg(test)]
mod line;
#[cfg(test)]
mod points;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod tamper;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod tiles;
#[cfg(test)]
mod unfound;
#[cfg(test)]
mod witness;
#[cfg(test)]
mod world;

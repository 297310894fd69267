//! Replay against the running broker.

//! One client's conversation with the broker: phase, both directions of QoS, timers, Will.

mod received;

pub use received::{Author, Received};

//! One client's conversation with the broker: phase, both directions of QoS, timers, Will.

mod bounds;
mod received;

pub use bounds::Bounds;
pub use received::{Author, Received};

//! One client's conversation with the broker: which packet may come when, both directions of
//! QoS, timers, the Will.
//!
//! Sections 3.1 and 4.1 to 4.4 of the specification. What is received here is not yet judged:
//! policy, limits and schemas come later on the line.

mod aliases;
mod bounds;
mod inbound;
mod outbound;
mod outbound_aliases;
mod phase;
mod received;
mod timers;

pub use aliases::Aliases;
pub use bounds::Bounds;
pub use inbound::Inbound;
pub use outbound::{Acknowledged, Outbound, QueueFull, Resend, Send};
pub use outbound_aliases::OutboundAliases;
pub use phase::{Arrival, Phase, Verdict};
pub use received::{Author, Received};
pub use timers::{Timer, Timers};

//! How much an identity may send, subscribe and hold; how often an address may connect.
//!
//! Every identity has one bucket for messages, one for bytes and one for subscriptions, shared by
//! all its Client Identifiers and kept when it reconnects. The arithmetic is governor's (GCRA);
//! the clock is ours: time comes in as an argument and nothing here reads another. The room does
//! not know what a message means, and does not close connections: it says what should be done.
//!
//! Invariants: an [`Admitted`] is made only here, from an [`crate::policy::Authorized`]; every
//! table has a bound; an entry is forgotten only when forgetting it changes no decision (its
//! buckets are full and it holds no session), so nobody gets fresh buckets by going away or by
//! crowding the table.
//!
//! What is counted as bytes is the topic and the payload of a message. A message that is refused
//! for its bytes has been counted as a message.
//!
//! Specification: MQTT 5.0 sections 4.13 (0x96, 0x97) and 5.4.

mod address;
mod admit;
mod bucket;
mod config;
mod network;

pub use address::AddressLimiter;
pub use admit::{Admission, Admitted, Charge, Limits};
pub use config::{
    ClassConfig, ClassLimits, LimitsConfig, OnLimit, PAUSE_SECONDS_MAX, RATE_MAX, TABLE_MAX,
};
pub use network::Network;

#[cfg(test)]
mod tests;

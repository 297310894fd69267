//! Avow: an MQTT broker whose devices cannot disavow what they sent.
//!
//! A PUBLISH walks one straight line. Every step consumes the proof of the step before it, so a
//! check that is skipped does not compile:
//!
//! ```text
//!  bytes ─► Identity ─► Received ─► Authorized ─► Admitted ─► Conforming ─► Attested ─► append ═fdatasync═► Recorded ─► deliver ─► ack
//!           identity    session     policy        limits      schema        evidence    evidence           evidence    routing    broker
//!                          │            │             │           │             │
//!                          └────────────┴── Refusal ──┴───────────┴─────────────┘   recorded too, then answered with a Reason Code
//! ```
//!
//! The rooms below stand in the order a message meets them; each knows only what came before it
//! (`tests/architecture.rs` holds it to that). Everything down to [`broker`] is pure: time is an
//! argument, nothing touches a socket, a file or a thread. The shell, from [`storage`] on, does.
//! Start reading in [`broker`], where the line is two short functions.

// What everybody speaks.
//
// One `mod` to a paragraph keeps rustfmt from sorting them.
pub mod time;

pub mod source;

// The line.
pub mod mqtt;

pub mod refusal;

pub mod identity;

pub mod session;

pub mod policy;

pub mod limits;

pub mod schema;

pub mod evidence;

pub mod routing;

pub mod broker;

// The shell.
pub mod storage;

pub mod telemetry;

pub mod server;

pub mod config;

pub mod cli;

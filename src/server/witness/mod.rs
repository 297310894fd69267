//! Witnesses over HTTP: the running broker asks them ([`courier`]), and `avow witness serve` is
//! one ([`serve`]).
//!
//! ```text
//! broker                                       witness
//! checkpoint ─► courier ── add-checkpoint ───► judge ─► keep, fsync ─► cosign
//!                  │   ◄── cosignature ──────────────────────────────────┘
//!                  └─► DIR/witness/checkpoint
//! ```
//!
//! What a request and an answer mean is [`crate::evidence`]'s. Here are sockets, deadlines and
//! threads. The invariant: no witness, however slow or hostile, delays an acknowledgement; it is
//! asked on a thread of its own, and everything it says is bounded.

pub mod board;
pub mod courier;
mod http;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod url;

pub use board::{WitnessBoard, WitnessStatus};
pub use courier::{Courier, CourierOptions, WitnessTarget};
pub use serve::{Witness, WitnessFrontFault, serve};
pub use url::{SubmissionUrl, UrlProblem};

/// A runtime for one thread.
///
/// # Errors
/// If the system refuses.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

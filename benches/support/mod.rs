//! What the benches share: a certificate authority, brokers as child processes, a load generator
//! and a table.
//!
//! A bench never says "fast enough in seconds": it runs a rival and Avow one after the other, on
//! the same core with the same load, and reports their ratio. Invariant: a run in which a message
//! was lost, refused or not acknowledged fails, whatever its speed was.
#![expect(clippy::disallowed_methods, reason = "a bench owns clocks, sockets, files and threads")]

pub(crate) mod arguments;
pub(crate) mod broker;
pub(crate) mod failure;
pub(crate) mod field;
pub(crate) mod link;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod publisher;
pub(crate) mod report;
pub(crate) mod wire;

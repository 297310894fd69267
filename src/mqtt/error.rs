//! Violations: what a peer did wrong on the wire.

use super::ReasonCode;

/// A Malformed Packet or a Protocol Error. It ends the Network Connection of the peer that
/// committed it, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({})", statement.unwrap_or("no single statement"))]
pub struct Violation {
    /// The Reason Code of the DISCONNECT (or CONNACK) that says so to a 5.0 peer.
    pub reason: ReasonCode,
    /// What was wrong, in words; never the peer's bytes.
    pub what: &'static str,
    /// The normative statement that was broken, `MQTT-x.y.z-n`, where one says it.
    pub statement: Option<&'static str>,
}

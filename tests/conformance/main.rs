//! Conformance: the codec against the documents, byte by byte, and against another codec.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod abuse_rows;
mod codec_differential;
mod codec_round_trip;
mod codec_rules;
mod codec_vectors;
mod corpus;
mod packets;
mod rewriters;
mod rumqttd_differential;
mod rumqttd_meaning;
mod statements;
mod wire;

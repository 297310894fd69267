//! Conformance: the codec against the documents, byte by byte, and against another codec.

mod codec_round_trip;
mod codec_vectors;
mod packets;
mod rumqttd_differential;

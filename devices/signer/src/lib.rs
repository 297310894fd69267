//! Signs what a device publishes.
//!
//! Mutual TLS authenticates a connection, not a message: whoever ends the connection could have
//! written every byte of it. A statement is the device's own signature over one message, made with
//! the key of the device's certificate, and anybody can check it later. Avow checks it before it
//! accepts the message and keeps it in its log (`lvl` `A2`).
//!
//! ```text
//! payload ─► C = SHA-256(salt ‖ payload) ─► COSE_Sign1 over C, topic, time, epoch, seq, … ─► user property
//! ```
//!
//! This crate depends on nothing of the broker. It has no clock, no socket and no file: the device
//! says what time it is, sends what comes out, and remembers its boot counter. The bytes are
//! described in `WIRE.md`, which whoever writes for another language needs alone.
//!
//! ```
//! # use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
//! use avow_signer::{Message, STATEMENT_PROPERTY, Signer, SigningKey, SignerOptions};
//!
//! # let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
//! # let (key_der, certificate_der) = (pkcs8.as_ref(), b"DER");
//! let mut signer = Signer::new(SignerOptions {
//!     key: SigningKey::from_pkcs8(key_der)?,
//!     certificate_der,
//!     identity: "spiffe://plant.example/device/press-7",
//!     audience: "plant.example/plant-1",
//!     epoch: 41, // counted up in flash at every boot
//! });
//! let message = Message { topic: "plant/press-7/telemetry", payload: b"{}", qos: 1, retain: false };
//! let statement = signer.sign(&message, 1_800_000_000)?;
//! let user_property = (STATEMENT_PROPERTY, statement.property());
//! # Ok::<(), avow_signer::SignError>(())
//! ```

mod batch;
mod cbor;
mod key;
mod signer;
mod statement;

pub use batch::{
    BATCH_MESSAGES_MAX, BatchBounds, BatchSigner, COVER_TOPIC, COVER_TYPE, CoverClaims, Head,
    LINK_PROPERTY, Link, UnsignedCover,
};
pub use key::{Algorithm, SignError, SigningKey};
pub use signer::{Signer, SignerOptions};
pub use statement::{CTI_BYTES, Claims, MESSAGE_TYPE, Message, SALT_BYTES, Signed, Unsigned};

/// Name of the MQTT 5.0 user property that carries a statement.
pub const STATEMENT_PROPERTY: &str = "avow-statement";

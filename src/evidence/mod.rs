//! Evidence: what was decided, in a form that cannot be changed unseen.
//!
//! Pure: entries are written here, hashed here and proven here; the bytes reach a disk in
//! [`crate::storage`]. The invariant of the room: an effect that a peer can see is released only
//! against a [`Synced`], and a [`Synced`] exists only for bytes that are on disk.

mod attested;
mod batch;
pub mod chain;
pub mod checkpoint;
pub mod cosignature;
mod covered;
mod entry;
pub mod erasure;
mod note;
pub mod proof;
mod pseudonym;
pub mod receipt;
mod recorded;
pub mod statement;
mod synced;
pub mod tile;
pub mod tile_proof;
pub mod timestamp;
pub mod tree;
pub mod verdict;
pub mod window;
pub mod witness;
pub mod witness_policy;

pub use attested::{
    Attested, Examined, LinkOrigin, Origin, Resolved, Surroundings, Unattested, Unverified,
};
pub use batch::{Batch, BatchId, Body, RecordKind, RecordRef, SALT_BYTES, is_erased};
pub use checkpoint::{Checkpoint, LogKey, VerifierKey};
pub use cosignature::{WitnessKey, WitnessVerifierKey};
pub use covered::{CoverSigned, Examination, RefusedCover, UnverifiedCover};
pub use entry::{Decision, DecisionIds, ENTRY_VERSION, EntryType, EntryWriter, commitment};
pub use proof::TlogProof;
pub use pseudonym::{PSEUDONYM_KEY_BYTES, Privacy, PseudonymKey, Shown, pseudonym_key_id};
pub use receipt::{Receipt, ReceiptKey, ReceiptSigner};
pub use recorded::Recorded;
pub use statement::{Cover, STATEMENT_PROPERTY, Statement, Verified, VerifyJob};
pub use synced::Synced;
pub use window::{Sequence, Windows};
pub use witness_policy::WitnessPolicy;

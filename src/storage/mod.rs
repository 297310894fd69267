//! The one durable log: evidence entries, message bodies and changes of state, in segments that
//! one thread writes and anybody may verify.
//!
//! ```text
//! DIR/segments/00000000.seg …   batches of records: see [`segment`]
//! DIR/checkpoint                the newest signed tree head, a C2SP signed note
//! DIR/history                   every signed tree head: see [`checkpoint_store`]
//! DIR/witness/                  the newest cosigned checkpoint: see [`cosigned`]
//! DIR/tile/                     the same entries as C2SP tiles: see [`tiles`]
//! DIR/state/                    snapshots of sessions: see [`snapshot`]
//! DIR/index/                    sled, rebuilt from the segments whenever in doubt
//! ```
//!
//! This is shell: it owns files and threads, and decides nothing about messages. The invariant
//! of the room: a [`crate::evidence::Synced`] exists only for bytes that an `fdatasync`
//! returned for, and after a failed one the log gives out nothing more until a restart.

mod block;
pub mod checkpoint_store;
pub mod cosigned;
pub mod disk;
pub mod erasure;
pub mod facts;
pub mod fault;
pub mod fsck;
pub mod index;
pub mod log;
mod pack;
mod posting;
mod prove;
mod query;
pub mod reader;
mod record;
pub mod recovery;
mod scan;
pub mod search;
pub mod segment;
pub mod snapshot;
pub mod tiles;
pub mod verify;
pub mod verify_tiles;
pub mod witness_store;
pub mod writer;

pub use block::BLOCK_ENTRIES;
pub use disk::{Disk, DiskFile, RealDisk};
pub use facts::Facts;
pub use fault::{Damage, Defect, StorageFault};
pub use index::{Index, IndexFeed, IndexState, RebuildCause};
pub use log::{Log, LogOptions, Place};
pub use prove::{ConsistencyProof, ProveError};
pub use query::{Order, Outcome, Query};
pub use reader::{Entry, Reader, Until};
pub use recovery::{Recovered, Recovery};
pub use search::{Found, find, search};
pub use snapshot::{SnapshotFault, SnapshotPlace, Snapshots};
pub use verify::{VerifyFault, VerifyReport, verify};
pub use verify_tiles::{TilesReport, verify_tiles};
pub use writer::{Writer, WriterHooks, WriterOptions, WriterStats};

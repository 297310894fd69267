//! The proof that a batch is on disk.

use super::BatchId;

/// The token of one batch that is on disk. Whoever holds it may release what waited for the
/// batch: deliveries, acknowledgements, answers.
///
/// Neither `Clone` nor `Default`: it is made in two places only, the writer after its
/// `fdatasync` and recovery, and it is used up by the release.
#[derive(Debug, PartialEq, Eq)]
pub struct Synced {
    batch: BatchId,
    first_index: u64,
}

impl Synced {
    /// Asserts that every byte of `batch` is on disk, its first entry standing at `first_index`
    /// of the log. Whoever calls this has just seen the sync succeed, or read the batch back
    /// after a restart.
    pub(crate) fn assertion(batch: BatchId, first_index: u64) -> Self {
        Self { batch, first_index }
    }

    /// The batch.
    pub fn batch(&self) -> BatchId {
        self.batch
    }

    /// Index in the log of the first entry of the batch; the others follow without a gap.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }
}

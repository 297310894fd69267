//! The last proof value of the line: a message that is on disk with its evidence.

use super::{Attested, Synced};
use crate::schema::Conforming;

/// A PUBLISH whose entry and body are on disk. Routing and acknowledgements accept nothing else.
#[derive(Debug)]
pub struct Recorded {
    attested: Attested,
    index: u64,
}

impl Recorded {
    /// The message whose entry is the `offset`-th of the batch that `synced` proves.
    pub fn new(attested: Attested, offset: u64, synced: &Synced) -> Self {
        Self { attested, index: synced.first_index() + offset }
    }

    /// What was recorded.
    pub fn conforming(&self) -> &Conforming {
        self.attested.conforming()
    }

    /// The same, with the evidence that it came with.
    pub fn attested(&self) -> &Attested {
        &self.attested
    }

    /// Index of its entry in the log.
    pub fn index(&self) -> u64 {
        self.index
    }
}

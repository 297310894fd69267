//! Replay of what devices signed: into the windows and chains that say what was seen of each.
//!
//! Nothing is judged again: what the log tells of was judged when it was written. The invariant: each
//! record stands behind the entry that caused it, so what is entered here is on disk.

use super::change::Change;
use super::replay::Replay;

impl Replay {
    /// Takes a record of the log about a device that signs.
    pub(super) fn of_signer(&mut self, change: Change) {
        match change {
            Change::Linked { identity, epoch, linked } => {
                self.broker.chains.enter(&identity, epoch, linked);
            }
            Change::Settled { identity, sequence } => {
                self.broker.chains.settle(&identity, sequence.epoch, sequence.seq);
            }
            Change::Signed { identity, sequence, c } => {
                let index = self.position().checked_sub(1);
                self.broker.windows.enter(&identity, sequence, c, index);
            }
            // All others are of somebody else.
            _ => {}
        }
    }
}

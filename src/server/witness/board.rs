//! What is known of each witness: for status and metrics.
//!
//! It decides nothing. The invariant: there is one row per witness of the policy, so no peer can
//! make one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::evidence::verdict::WitnessAlarm;

/// One witness, as the broker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WitnessStatus {
    /// Its name in the policy.
    pub name: String,
    /// Entries under the newest checkpoint that it cosigned, if any.
    pub cosigned_entries: Option<u64>,
    /// When it did, in seconds since 1970.
    pub cosigned_unix_seconds: Option<u64>,
    /// Cosignatures since the start.
    pub cosignatures: u64,
    /// Requests since the start that brought none.
    pub failures: u64,
    /// Alarms since the start: it holds another tree of this log.
    pub alarms: u64,
    /// What it or the way to it said last, if that was no cosignature.
    pub trouble: Option<String>,
    /// The alarm that stands, if one does.
    #[serde(skip)]
    pub alarm: Option<WitnessAlarm>,
}

/// The rows. Clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct WitnessBoard(Arc<Mutex<Vec<WitnessStatus>>>);

impl WitnessBoard {
    /// Every row, as it is now.
    pub fn rows(&self) -> Vec<WitnessStatus> {
        self.lock().clone()
    }

    /// Begins with one empty row per name.
    pub(super) fn begin(&self, names: impl Iterator<Item = String>) {
        *self.lock() =
            names.map(|name| WitnessStatus { name, ..WitnessStatus::default() }).collect();
    }

    /// Changes the row of the witness called `name`.
    pub(super) fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut WitnessStatus) -> T,
    ) -> Option<T> {
        self.lock().iter_mut().find(|row| row.name == name).map(change)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<WitnessStatus>> {
        // Nobody panics while holding the lock, and each row is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

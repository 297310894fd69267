//! A disk that lies: its sync answers well and did nothing. No program can know at that moment, and
//! an acknowledgement is then worth what the disk is worth. What is left to hold is what a start
//! says afterwards, and it depends on what the lie was about:
//!
//! | the lie is about | after power loss |
//! | --- | --- |
//! | the segments | the start refuses when anything that a checkpoint covers is missing; what was acknowledged since, at most a second's worth, can be missing unseen |
//! | the history of checkpoints | the start refuses: a checkpoint is published that the history does not know |
//! | everything | the log may be an older one of itself, whole, and nothing here can know: only a witness, or somebody who kept a checkpoint or a receipt |
//!
//! In no case is there a record that nobody wrote, or one that differs.

use avow::evidence::RecordKind;

use crate::disk::{Accident, Kept};
use crate::points::{Point, Script, open};
use crate::world::Record;

/// What starts made of a lie, counted over the moments of a life.
#[derive(Debug, Default)]
struct Outcomes {
    /// Everything that was promised is there.
    whole: usize,
    /// The start refused, because more was signed than is there.
    refused: usize,
    /// Acknowledged, not signed yet, and gone.
    tail_lost: usize,
    /// Signed, and gone with its signature.
    rolled_back: usize,
}

/// Loses the power at every operation of the life, on a disk that lies about `files`.
fn outcomes(script: &Script, files: &str) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let operations = script.points.iter().map(|point| point.operation).max().unwrap_or_default();
    for operation in 0..=operations {
        let kept = Some(Kept::Nothing);
        let point = Point { operation, accident: Accident::PowerLossBefore, kept };
        let (world, promised) = script.disturbed(point, Some(files));
        let newest = promised.roots.last_key_value().map_or(0, |(size, _)| *size);
        match open(&world) {
            Err(fault) => {
                assert!(fault.is_damage(), "operation {operation}: {fault}");
                outcomes.refused += 1;
            }
            Ok((up, found)) => {
                assert_is_a_beginning(script, &found, operation);
                let records: usize = script.appends().take(promised.appends).map(Vec::len).sum();
                let whole = found.len() >= records;
                let signed = up.recovery.tree.tree_size() >= newest;
                *match (whole, signed) {
                    (true, _) => &mut outcomes.whole,
                    (false, true) => &mut outcomes.tail_lost,
                    (false, false) => &mut outcomes.rolled_back,
                } += 1;
            }
        }
    }
    outcomes
}

/// What is left is what was written, from the first record on.
fn assert_is_a_beginning(script: &Script, found: &[Record], operation: u64) {
    let written = script.appends().flatten();
    for (piece, (is_entry, head, payload)) in written.zip(found) {
        let body = piece.body.as_ref().map(|body| body.payload.to_vec());
        assert_eq!((&piece.head, &body), (head, payload), "operation {operation}");
        assert_eq!(piece.kind == RecordKind::Entry, *is_entry, "operation {operation}");
    }
}

#[test]
fn a_lie_about_the_segments_costs_at_most_what_no_checkpoint_covers() {
    let outcomes = outcomes(&Script::new(), "segments");
    assert_eq!(outcomes.rolled_back, 0, "{outcomes:?}");
    assert!(outcomes.refused > 100 && outcomes.tail_lost > 4, "{outcomes:?}");
}

#[test]
fn a_lie_about_the_history_is_seen_at_the_next_start() {
    let outcomes = outcomes(&Script::new(), "history");
    assert_eq!((outcomes.tail_lost, outcomes.rolled_back), (0, 0), "{outcomes:?}");
    assert!(outcomes.refused > 100, "{outcomes:?}");
}

#[test]
fn a_lie_about_everything_is_not_seen_without_a_witness() {
    let outcomes = outcomes(&Script::new(), "");
    assert!(outcomes.rolled_back > 100, "{outcomes:?}");
}

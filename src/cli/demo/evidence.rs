//! What the log of the demo must hold of devices that sign, and of one that sends what is old.

use memchr::memmem;
use serde_json::Value;

use avow_devices::PlantReport;

use crate::storage::{Disk, Reader, StorageFault};

/// The device that signs each message.
pub(super) const SIGNER: &str = "signer-1";
/// The device that signs batches, and forwards what it stored.
pub(super) const BATCHER: &str = "batch-1";
/// Messages that a batch of it has, and that may still be on their way behind the last cover.
const UNCOVERED_MAX: u64 = 2 * avow_devices::signing::BATCH_MESSAGES;

/// What entries of these kinds alone have; texts of clients are escaped.
const SIGNED_FIELD: &[u8] = br#""lvl":"A2""#;
const COVER_FIELD: &[u8] = br#""type":"cover""#;
const LATE_FIELD: &[u8] = br#""flags":["late""#;

/// Whether the log holds what it must, and a line about each.
pub(super) fn judge<D: Disk>(
    reader: &Reader<D>,
    report: &PlantReport,
) -> Result<(bool, Vec<String>), StorageFault> {
    let (mut signed, mut covered, mut covers, mut late) = (0_u64, 0_u64, 0_u64, 0_u64);
    for entry in reader.entries(0) {
        let json = entry?.json;
        let has = |field: &[u8]| memmem::find(&json, field).is_some();
        signed += u64::from(has(SIGNED_FIELD));
        late += u64::from(has(LATE_FIELD));
        if has(COVER_FIELD) {
            let cover: Value = serde_json::from_slice(&json).unwrap_or_default();
            covered += cover.get("count").and_then(Value::as_u64).unwrap_or(0);
            covers += 1;
        }
    }
    let device = |name: &str| report.devices.iter().find(|device| device.name == name);
    let accepted = |name: &str| device(name).map_or(0, |device| device.proper.accepted);
    let refused = device(SIGNER).map_or(0, |device| device.improper.refused_total());
    let by_signer = accepted(SIGNER);
    // The other stream of it is what it had stored: each of those was flagged.
    let by_batcher = accepted(BATCHER).saturating_sub(late);
    let lines = vec![
        format!(
            "{signed} messages stand in the log as signed by their device (lvl A2), of {by_signer} \
             that were acknowledged to {SIGNER}; {refused} bent or replayed ones were refused"
        ),
        format!(
            "{covered} messages of {by_batcher} that were acknowledged to {BATCHER} are covered by \
             {covers} signatures of their device (A1)"
        ),
        format!("{late} messages that {BATCHER} had stored for an hour are flagged late"),
    ];
    let is_signed = by_signer > 0 && signed >= by_signer;
    let is_covered = covered > 0 && covered + UNCOVERED_MAX >= by_batcher;
    Ok((is_signed && is_covered && late > 0, lines))
}

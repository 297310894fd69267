//! What others have signed about the log, held against it by `audit verify`: the cosigned checkpoint
//! and the time-stamps.
//!
//! That none is there is no failure: it is said. The invariant: what is reported as cosigned or
//! stamped is a tree that this very log contains.

use std::path::Path;

use serde_json::{Value, json};

use super::answer::AnswerFault;
use super::stamps;
use super::timestamp::{describe, shown};
use crate::cli::CliFailure;
use crate::config::Config;
use crate::evidence::{Checkpoint, VerifierKey};
use crate::storage::cosigned::{COSIGNED_FILE, read_cosigned};
use crate::storage::{Reader, RealDisk, Until};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Vouched {
    /// For people.
    pub(super) lines: Vec<String>,
    /// The same as JSON.
    pub(super) cosigned: Value,
    /// The same as JSON.
    pub(super) stamps: Vec<Value>,
    /// The first thing that is not of this log.
    pub(super) damage: Option<String>,
}

/// Checks all of it. `tsa_ca` replaces the CAs that the stamps were attached with.
pub(super) fn check(
    config: &Config,
    key: &VerifierKey,
    tsa_ca: Option<&Path>,
) -> Result<Vouched, CliFailure> {
    let disk = RealDisk::new(&config.evidence.directory);
    let reader = Reader::open(disk.clone(), key, Until::Checkpoint)?;
    let mut vouched = Vouched::default();
    if let Some(note) = read_cosigned(&disk)? {
        cosigned(config, key, &reader, &note, &mut vouched)?;
    }
    for stamp in stamps::all(&config.evidence.directory)? {
        if !stamps::is_there(&stamp.reply())? {
            continue;
        }
        let (note, checkpoint) = match stamp.open(key) {
            Err(failure) if failure.exit_code() == 1 => return vouched.damaged(&failure),
            opened => opened?,
        };
        let file = stamp.checkpoint().display().to_string();
        if !is_of(&reader, &checkpoint)? {
            return vouched.damaged(&format!("{file}: a tree that this log does not contain"));
        }
        let kept = stamp.ca();
        let stamped = match stamp.verify(&note, tsa_ca.unwrap_or(&kept)) {
            Err(failure) if failure.exit_code() == 1 => return vouched.damaged(&failure),
            stamped => stamped?,
        };
        let entries = checkpoint.tree_size;
        vouched.lines.push(format!("time-stamped: {entries} entries, {}", describe(&stamped)));
        vouched.stamps.push(shown(&checkpoint, &stamped));
    }
    Ok(vouched)
}

impl Vouched {
    fn damaged(mut self, what: &dyn std::fmt::Display) -> Result<Self, CliFailure> {
        self.damage = Some(what.to_string());
        Ok(self)
    }
}

fn cosigned(
    config: &Config,
    key: &VerifierKey,
    reader: &Reader<RealDisk>,
    note: &str,
    vouched: &mut Vouched,
) -> Result<(), CliFailure> {
    let checkpoint = match Checkpoint::open(note, key) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            vouched.damage = Some(format!("{COSIGNED_FILE}: {error}"));
            return Ok(());
        }
    };
    if !is_of(reader, &checkpoint)? {
        let what = "a tree that this log does not contain: it was rolled back, or forked";
        vouched.damage = Some(format!("{COSIGNED_FILE}: {what}"));
        return Ok(());
    }
    let entries = checkpoint.tree_size;
    let Some(section) = &config.evidence.witness else {
        let what = "no policy of avow.toml says whose signatures these are";
        vouched.lines.push(format!("cosigned: {entries} entries, {what}"));
        vouched.cosigned = json!({ "entries": entries });
        return Ok(());
    };
    let policy = crate::cli::witnesses::policy_of(config, section)?;
    let judged = match policy.judge(note) {
        Ok(judged) => judged,
        Err(error) => {
            vouched.damage = Some(format!("{COSIGNED_FILE}: {error}"));
            return Ok(());
        }
    };
    let by: Vec<&str> = judged.cosigned.iter().map(|(name, _)| name.as_str()).collect();
    let enough = if judged.is_enough { "enough" } else { "NOT enough" };
    let names = by.join(", ");
    vouched.lines.push(format!("cosigned: {entries} entries, by {names}: {enough} for the policy"));
    vouched.cosigned = json!({ "entries": entries, "by": by, "is_enough": judged.is_enough });
    Ok(())
}

/// Whether the log contains the tree of `checkpoint`.
fn is_of(reader: &Reader<RealDisk>, checkpoint: &Checkpoint) -> Result<bool, CliFailure> {
    let signed = reader.checkpoint().map_or(0, |newest| newest.tree_size);
    if checkpoint.tree_size > signed {
        return Ok(false);
    }
    let proof = reader.prove_consistency(checkpoint.tree_size, signed);
    Ok(proof.map_err(AnswerFault::from)?.old_root == checkpoint.root_hash)
}

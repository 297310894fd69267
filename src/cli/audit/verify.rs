//! `avow audit verify`.
#![expect(clippy::disallowed_methods, reason = "shows progress a few times a second")]

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::VerifyArguments;
use super::vouched::{self, Vouched};
use crate::cli::plant::hex;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure};
use crate::storage::verify::VerifyProgress;
use crate::storage::{Defect, VerifyFault, VerifyReport, verify};

pub(super) fn run(dir: &Path, arguments: &VerifyArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier_key(dir, arguments.key.as_deref())?;
    let mut progress = Progress::new();
    let verified = verify(&config.evidence.directory, &key, &mut |at| progress.show(at));
    progress.clear();
    match verified {
        Ok(report) if report.checkpoint.is_none() && !is_empty(&report) => {
            not_whole("nothing is signed: the file `checkpoint` is missing", arguments.json);
            Ok(Answer::No)
        }
        Ok(report) => {
            let vouched = vouched::check(&config, &key, arguments.tsa_ca.as_deref())?;
            if let Some(damage) = &vouched.damage {
                not_whole(damage, arguments.json);
                return Ok(Answer::No);
            }
            good(&report, &vouched, key.name(), arguments.json);
            Ok(Answer::Yes)
        }
        Err(VerifyFault::Defect(defect)) => {
            tampered(&defect, arguments.json);
            Ok(Answer::No)
        }
        Err(VerifyFault::Fault(fault)) if fault.is_damage() => {
            not_whole(&fault.to_string(), arguments.json);
            Ok(Answer::No)
        }
        Err(fault @ VerifyFault::Fault(_)) => Err(fault.into()),
    }
}

fn good(report: &VerifyReport, vouched: &Vouched, origin: &str, as_json: bool) {
    let root = report.checkpoint.as_ref().map(|checkpoint| hex(&checkpoint.root_hash));
    let tail_defect = report.tail_defect.as_ref().map(ToString::to_string);
    if as_json {
        return show::json(&json!({
            "verified": true,
            "origin": origin,
            "signed_entries": report.signed_entries,
            "unsigned_tail_entries": report.unsigned_tail_entries,
            "tail_defect": tail_defect,
            "records": report.records,
            "bytes": report.bytes,
            "segments": report.segments,
            "checkpoints": report.checkpoints,
            "root_hash": root,
            "cosigned": vouched.cosigned,
            "timestamps": vouched.stamps,
        }));
    }
    let mut lines = vec![format!(
        "{}: {} entries of {origin} give the signed root hash; {} checkpoints, {} segments, {}",
        paint(Tone::Good, "verified"),
        report.signed_entries,
        report.checkpoints,
        report.segments,
        crate::config::format_bytes(report.bytes),
    )];
    lines.extend(root.map(|root| format!("root hash {root}")));
    let unsigned = report.unsigned_tail_entries;
    match tail_defect {
        None if unsigned == 0 => {}
        None => lines.push(format!("unsigned tail: {unsigned} entries")),
        Some(defect) => {
            lines.push(format!("unsigned tail: {unsigned} entries, and behind them: {defect}"));
        }
    }
    lines.extend(vouched.lines.iter().cloned());
    show::line(&lines.join("\n"));
}

/// Whether there is nothing that could have been signed.
fn is_empty(report: &VerifyReport) -> bool {
    report.records == 0 && report.unsigned_tail_entries == 0 && report.tail_defect.is_none()
}

fn not_whole(why: &str, as_json: bool) {
    if as_json {
        return show::json(&json!({ "verified": false, "damage": why }));
    }
    show::line(&format!("{}: {why}", paint(Tone::Bad, "does not verify")));
}

fn tampered(defect: &Defect, as_json: bool) {
    if as_json {
        return show::json(&json!({
            "verified": false,
            "file": defect.file,
            "offset": defect.offset,
            "index": defect.index,
            "damage": defect.damage.to_string(),
        }));
    }
    show::line(&format!("{}: {defect}", paint(Tone::Bad, "does not verify")));
}

/// A line on standard error, if that is a terminal.
struct Progress {
    shown: Option<Instant>,
    is_wanted: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: None, is_wanted: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, at: VerifyProgress) {
        let is_due = self.shown.is_none_or(|shown| shown.elapsed() > Duration::from_millis(200));
        if self.is_wanted && is_due {
            self.shown = Some(Instant::now());
            eprint!("\r\x1b[K{} of {} entries", at.entries, at.signed_entries);
            let _ = std::io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

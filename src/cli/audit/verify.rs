//! `avow audit verify`.
#![expect(clippy::disallowed_methods, reason = "says how fast it was")]

use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::VerifyArguments;
use super::vouched::{self, Vouched};
use crate::cli::plant::hex;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure};
use crate::evidence::{Checkpoint, VerifierKey};
use crate::storage::verify::{VerifyProgress, verify_against};
use crate::storage::{Defect, RealDisk, TilesReport, VerifyFault, VerifyReport, verify_tiles};

pub(super) fn run(dir: &Path, arguments: &VerifyArguments) -> Result<Answer, CliFailure> {
    let key = verifier_key(dir, arguments.key.as_deref())?;
    let older = arguments.checkpoint.as_deref();
    let older = older.map(|path| older_checkpoint(path, &key)).transpose()?;
    let mut progress = Progress::new();
    if let Some(directory) = &arguments.directory {
        let verified = verify_tiles(directory, &key, older.as_ref(), &mut |at| progress.show(at));
        return judge_tiles(verified, &progress, arguments.json);
    }
    let config = crate::cli::configuration(dir)?;
    let directory = &config.evidence.directory;
    if arguments.tiles {
        let verified = verify_tiles(directory, &key, older.as_ref(), &mut |at| progress.show(at));
        return judge_tiles(verified, &progress, arguments.json);
    }
    let disk = RealDisk::new(directory);
    let verified = verify_against(&disk, &key, older.as_ref(), &mut |at| progress.show(at));
    progress.bar.finish_and_clear();
    match verified {
        Ok(report) if report.checkpoint.is_some() || is_empty(&report) => {
            let vouched = vouched::check(&config, &key, arguments.tsa_ca.as_deref())?;
            if let Some(damage) = &vouched.damage {
                not_whole(damage, arguments.json);
                return Ok(Answer::No);
            }
            good(&report, &vouched, key.name(), &progress, arguments.json);
            Ok(Answer::Yes)
        }
        verified => judge(verified.map(|_| false), arguments.json),
    }
}

fn judge_tiles(
    verified: Result<Option<TilesReport>, VerifyFault>,
    progress: &Progress,
    as_json: bool,
) -> Result<Answer, CliFailure> {
    progress.bar.finish_and_clear();
    let verified = verified.map(|report| {
        let told = report.map(|report| tiles_good(&report, progress, as_json));
        told.is_some()
    });
    judge(verified, as_json)
}

/// A checkpoint that somebody kept, signed by `key`.
pub(super) fn older_checkpoint(path: &Path, key: &VerifierKey) -> Result<Checkpoint, CliFailure> {
    let opened = Checkpoint::open(&crate::cli::files::read(path)?, key);
    opened.map_err(|source| CliFailure::KeptCheckpoint { path: path.to_owned(), source })
}

/// What a verification came to; whether anything was signed, if it held.
fn judge(verified: Result<bool, VerifyFault>, as_json: bool) -> Result<Answer, CliFailure> {
    match verified {
        Ok(true) => Ok(Answer::Yes),
        Ok(false) => {
            not_whole("nothing is signed: the file `checkpoint` is missing", as_json);
            Ok(Answer::No)
        }
        Err(VerifyFault::Defect(defect)) => {
            tampered(&defect, as_json);
            Ok(Answer::No)
        }
        Err(VerifyFault::Fault(fault)) if fault.is_damage() => {
            not_whole(&fault.to_string(), as_json);
            Ok(Answer::No)
        }
        Err(fault @ VerifyFault::Fault(_)) => Err(fault.into()),
    }
}

fn tiles_good(report: &TilesReport, progress: &Progress, as_json: bool) {
    let TilesReport { checkpoint, tiles, bytes } = report;
    let (size, root) = (checkpoint.tree_size, hex(&checkpoint.root_hash));
    let per_second = progress.entries_per_second(size);
    if as_json {
        return show::json(&json!({
            "verified": true,
            "origin": checkpoint.origin,
            "signed_entries": size,
            "tiles": tiles,
            "bytes": bytes,
            "entries_per_second": per_second,
            "root_hash": root,
        }));
    }
    show::line(&format!(
        "{}: {} of {} give the signed root hash; {tiles} tiles, {}; {per_second} entries/s\n\
         root hash {root}",
        paint(Tone::Good, "verified"),
        range(size),
        checkpoint.origin,
        crate::config::format_bytes(*bytes),
    ));
}

/// The validated range in words.
fn range(size: u64) -> String {
    match size.checked_sub(1) {
        None => "0 entries".to_owned(),
        Some(last) => format!("{size} entries (0 to {last})"),
    }
}

fn good(
    report: &VerifyReport,
    vouched: &Vouched,
    origin: &str,
    progress: &Progress,
    as_json: bool,
) {
    let per_second = progress.entries_per_second(report.signed_entries);
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
            "entries_per_second": per_second,
            "erased_bodies": report.erased_bodies,
            "unfinished_erasures": report.unfinished_erasures,
            "root_hash": root,
            "cosigned": vouched.cosigned,
            "timestamps": vouched.stamps,
        }));
    }
    let mut lines = vec![format!(
        "{}: {} of {origin} give the signed root hash; {} checkpoints, {} segments, {}; \
         {per_second} entries/s",
        paint(Tone::Good, "verified"),
        range(report.signed_entries),
        report.checkpoints,
        report.segments,
        crate::config::format_bytes(report.bytes),
    )];
    lines.extend(root.map(|root| format!("root hash {root}")));
    if report.erased_bodies > 0 {
        let bodies = report.erased_bodies;
        lines.push(format!("{bodies} bodies were erased, as entries say"));
    }
    if report.unfinished_erasures > 0 {
        lines.push("an erasure began and is not done; the next start finishes it".to_owned());
    }
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

/// A bar on standard error, which draws on a terminal only, and the time that it took.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    fn new() -> Self {
        const FORM: &str = "{bar:30} {pos} of {len} entries, {per_sec}, {eta} to go";
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(FORM);
        let bar = style.map_or(bar.clone(), |style| bar.with_style(style));
        Self { bar, begun: Instant::now() }
    }

    fn show(&mut self, at: VerifyProgress) {
        self.bar.set_length(at.signed_entries.max(at.entries));
        self.bar.set_position(at.entries);
    }

    fn entries_per_second(&self, entries: u64) -> u64 {
        (entries as f64 / self.begun.elapsed().as_secs_f64().max(1e-9)).round() as u64
    }
}

//! `audit tail`, `query`, `show`, `prove` and `reindex`: asks the running broker, or reads alone.
#![expect(clippy::disallowed_methods, reason = "`tail -f` waits")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{AnswerFault, FOLLOW_EVERY, Lines, LogReader, open_reader};
use super::{OrderArgument, ProveArguments, QueryArguments, ShowArguments, TailArguments, print};
use crate::cli::files::{Access, create, create_dir, require_absent};
use crate::cli::record::verifier_key;
use crate::cli::show::{self, escape, escape_bytes};
use crate::cli::{Answer, CliFailure, check, setting};
use crate::server::admin::{Client, ClientError, Lock, LogOrder, LogRequest, Request};
use crate::storage::{Index, Reader, RealDisk};

/// One line of an answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Entry(Box<Line>),
    /// How many entries stand past the newest checkpoint.
    Newer {
        newer: u64,
    },
}

/// An entry.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) index: u64,
    pub(super) entry: String,
    proof: Option<String>,
    verifier: Option<String>,
    leaf_hash: Option<String>,
    segment: Option<u64>,
    offset: Option<u64>,
    body_bytes: Option<u64>,
    body: Option<String>,
    cover: Option<u64>,
    erased: Option<Value>,
    covered: Option<bool>,
    covered_entries: Option<u64>,
}

/// Lines of a reading without broker.
struct Local<'f> {
    dir: &'f Path,
    take: &'f mut dyn FnMut(&str),
}

impl Lines for Local<'_> {
    fn line(&mut self, line: &str) -> Result<(), AnswerFault> {
        (self.take)(line);
        Ok(())
    }

    fn wait(&mut self, duration: Duration) -> Result<(), AnswerFault> {
        std::thread::sleep(duration);
        // What reads beside a broker asks it, so that the reading is in the log.
        if Lock::is_held(self.dir).unwrap_or(false) { Err(AnswerFault::Gone) } else { Ok(()) }
    }
}

/// Reads the log of `dir`, calling `each` with every entry. That there are newer ones is noted on
/// standard error.
pub(super) fn read(
    dir: &Path,
    request: LogRequest,
    each: &mut dyn FnMut(Line),
) -> Result<(), CliFailure> {
    let (mut broken, mut beyond) = (false, 0);
    read_raw(dir, request, &mut |line: &str| match serde_json::from_str(line) {
        Ok(Told::Entry(line)) => each(*line),
        Ok(Told::Newer { newer }) => beyond = newer,
        Err(_) => broken = true,
    })?;
    match beyond {
        0 => {}
        1 => eprintln!("note: 1 newer entry is not yet under a checkpoint"),
        _ => eprintln!("note: {beyond} newer entries are not yet under a checkpoint"),
    }
    if broken { Err(CliFailure::Answer) } else { Ok(()) }
}

/// Reads the log of `dir`, calling `take` with every line of the answer.
pub(super) fn read_raw(
    dir: &Path,
    request: LogRequest,
    take: &mut dyn FnMut(&str),
) -> Result<(), CliFailure> {
    if let Some(mut client) = Client::connect(dir)? {
        client.ask(&Request::Log(request), |line| {
            take(line);
            Ok(())
        })?;
        return Ok(());
    }
    let config = crate::cli::configuration(dir)?;
    let verifier = verifier_key(dir, None)?;
    let directory = &config.evidence.directory;
    let reader = open_reader(directory, &verifier).map_err(setting::of_log(&config))?;
    let opened = match request {
        LogRequest::Query { .. }
        | LogRequest::Timeline { .. }
        | LogRequest::Stats { .. }
        | LogRequest::Export { .. } => own_index(dir, directory, &reader),
        _ => None,
    };
    let index = opened.as_ref().map(|(_, index)| index.clone());
    let is_show = matches!(request, LogRequest::Show { .. });
    let schemas = is_show.then(|| check::load_schemas(&config)).transpose()?.map(Arc::new);
    let mut log = LogReader { reader, verifier, index, schemas };
    Ok(log.answer(&request, &mut Local { dir, take })?)
}

/// The index, and the lock of the directory that opening it takes, for it writes. A copy that may
/// only be read is searched without.
fn own_index(dir: &Path, directory: &Path, reader: &Reader<RealDisk>) -> Option<(Lock, Index)> {
    let told = |fault: &dyn std::fmt::Display| {
        eprintln!("note: without the query index, the whole log is read: {fault}");
    };
    let lock = Lock::acquire(dir).map_err(|fault| told(&fault)).ok()?;
    let (index, _) = Index::open(directory, reader).map_err(|fault| told(&fault)).ok()?;
    Some((lock, index))
}

/// The newest entries; with `-f` those that come, also past the end of a broker and the start of the
/// next: until somebody ends it, or nobody reads what it prints.
pub(super) fn tail(dir: &Path, arguments: &TailArguments) -> Result<Answer, CliFailure> {
    let mut filter = arguments.filter.filter(crate::cli::unix_now())?;
    let (last, follow) = (arguments.lines, arguments.follow);
    let mut told = false;
    loop {
        let request = LogRequest::Tail { filter: filter.clone(), last, follow };
        let ended = read(dir, request, &mut |line| {
            filter.after = Some(line.index);
            print::entry(line.index, line.entry.as_bytes(), arguments.json);
        });
        match ended {
            Err(CliFailure::Admin(ClientError::Io(_)) | CliFailure::Read(AnswerFault::Gone))
                if follow =>
            {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("note: a broker stopped or started; following the log on");
                }
                std::thread::sleep(FOLLOW_EVERY);
            }
            ended => return ended.map(|()| Answer::Yes),
        }
    }
}

pub(super) fn query(dir: &Path, arguments: &QueryArguments) -> Result<Answer, CliFailure> {
    let filter = arguments.filter.filter(crate::cli::unix_now())?;
    let order = match arguments.order {
        Some(OrderArgument::Newest) => LogOrder::Newest,
        Some(OrderArgument::Oldest) => LogOrder::Oldest,
        None if filter.after.is_some() => LogOrder::Oldest,
        None => LogOrder::Latest,
    };
    let request = LogRequest::Query { filter, limit: Some(arguments.limit), order };
    let mut found = false;
    read(dir, request, &mut |line| {
        found = true;
        print::entry(line.index, line.entry.as_bytes(), arguments.json);
    })?;
    Ok(if found { Answer::Yes } else { Answer::No })
}

/// The one line that answers `request`.
fn read_one(dir: &Path, request: LogRequest, index: u64) -> Result<Line, CliFailure> {
    let mut found = None;
    read(dir, request, &mut |line| found = Some(line))?;
    found.ok_or(CliFailure::NoEntry(index))
}

pub(super) fn show_entry(dir: &Path, arguments: &ShowArguments) -> Result<Answer, CliFailure> {
    let index = arguments.index;
    let line = read_one(dir, LogRequest::Show { index }, index)?;
    let fields: Value = serde_json::from_str(&line.entry).unwrap_or(Value::Null);
    if arguments.json {
        show::json(&json!({
            "index": index,
            "entry": fields,
            "leaf_hash": line.leaf_hash,
            "segment": line.segment,
            "offset": line.offset,
            "body_bytes": line.body_bytes,
            "body": line.body,
            "cover": line.cover,
            "erased": line.erased,
            "covered": line.covered,
        }));
        return Ok(Answer::Yes);
    }
    let mut lines =
        vec![format!("entry {index}, leaf hash {}", line.leaf_hash.unwrap_or_default())];
    if line.covered == Some(false) {
        lines.push("no checkpoint covers it yet: nothing signed protects it so far".to_owned());
    }
    if let Some(cover) = line.cover {
        lines.push(format!("level A1: its device has signed for it in the cover at entry {cover}"));
    }
    if let (Some(segment), Some(offset)) = (line.segment, line.offset) {
        lines.push(format!("segment {segment}, byte {offset}"));
    }
    if let Some(nanos) = fields.get("t").and_then(Value::as_u64) {
        lines.push(format!("time {}", print::time(nanos)));
    }
    match fields.as_object() {
        Some(fields) => {
            lines.extend(fields.iter().map(|(name, value)| print::field(name, value)));
        }
        None => lines.push(escape_bytes(line.entry.as_bytes())),
    }
    if let (Some(body), Some(bytes)) = (&line.body, line.body_bytes) {
        lines.push(format!("body, {bytes} bytes, fits its commitment"));
        lines.push(format!("  {}", escape(body)));
    }
    if line.body.is_none() && line.body_bytes.is_some() {
        lines.push(erased(line.erased.as_ref()));
    }
    show::line(&lines.join("\n"));
    Ok(Answer::Yes)
}

/// When and why a body was erased, and which entry says so.
fn erased(by: Option<&Value>) -> String {
    let Some(by) = by.filter(|by| by.is_object()) else {
        return "body: being erased; `avow serve` or `avow audit erase` finishes that".to_owned();
    };
    let number = |field: &str| by.get(field).and_then(Value::as_u64).unwrap_or_default();
    let reason = by.get("reason").and_then(Value::as_str).unwrap_or_default();
    let (index, time) = (number("index"), print::time(number("t")));
    format!("body: erased at {time}, entry {index} says so; reason: {}", escape(reason))
}

pub(super) fn prove(dir: &Path, arguments: &ProveArguments) -> Result<Answer, CliFailure> {
    let index = arguments.index;
    let line = match super::witnessed::policy(dir, arguments.unwitnessed)? {
        Some(witnessed) => {
            let line = read_one(dir, LogRequest::Prove { index, witnessed: true }, index)?;
            if witnessed.is_enough(line.proof.as_deref()) {
                line
            } else {
                witnessed.wait_for(dir, index)?;
                read_one(dir, LogRequest::Prove { index, witnessed: true }, index)?
            }
        }
        None => read_one(dir, LogRequest::Prove { index, witnessed: false }, index)?,
    };
    if line.covered == Some(false) {
        let covered = line.covered_entries.unwrap_or_default();
        let interval = crate::cli::configuration(dir)?.evidence.checkpoint_interval;
        return Err(CliFailure::NotCovered { index, covered, interval });
    }
    let (Some(proof), Some(key)) = (line.proof, line.verifier) else {
        return Err(CliFailure::Answer);
    };
    if let Some(out) = &arguments.out {
        let paths = ["entry.json", "entry.tlog-proof", "log.vkey"].map(|name| out.join(name));
        require_absent(&paths)?;
        create_dir(out)?;
        let [entry_path, proof_path, key_path] = &paths;
        create(entry_path, Access::Public, line.entry.as_bytes())?;
        create(proof_path, Access::Public, proof.as_bytes())?;
        create(key_path, Access::Public, format!("{key}\n").as_bytes())?;
        show::line(&format!("entry {index} and its proof are in {}", out.display()));
    } else if arguments.json {
        let entry = line.entry;
        show::json(&json!({ "index": index, "entry": entry, "proof": proof, "verifier": key }));
    } else {
        show::write_out(proof.as_bytes());
    }
    Ok(Answer::Yes)
}

pub(super) fn reindex(dir: &Path) -> Result<Answer, CliFailure> {
    let mut applied = None;
    if let Some(mut client) = Client::connect(dir)? {
        client.ask(&Request::Log(LogRequest::Reindex), |line| {
            let fields: Value = serde_json::from_str(line).unwrap_or_default();
            applied = fields.get("applied").and_then(Value::as_u64);
            Ok(())
        })?;
    } else {
        // Nobody has it open, so one that does not even open can be deleted.
        let config = crate::cli::configuration(dir)?;
        let _lock = Lock::acquire(dir)?;
        let reader = open_reader(&config.evidence.directory, &verifier_key(dir, None)?)?;
        applied = Some(Index::rebuild(&config.evidence.directory, &reader)?.applied_upto()?);
    }
    let applied = applied.ok_or(CliFailure::Answer)?;
    show::line(&format!("the index was built again; {applied} entries are in whole blocks"));
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_copy_that_cannot_be_locked_is_searched() {
        let dir = crate::cli::setting::tests::plant();
        let arguments = |kind: &str| {
            let line = format!("avow audit query --json --type {kind}");
            match crate::cli::Cli::try_parse_from(line.split(' ')).unwrap().verb {
                crate::cli::Verb::Audit(crate::cli::audit::AuditVerb::Query(arguments)) => {
                    arguments
                }
                other => panic!("{other:?}"),
            }
        };
        // Not even root opens a directory for writing.
        let lock = dir.path().join("lock");
        std::fs::remove_file(&lock).unwrap();
        std::fs::create_dir(&lock).unwrap();
        assert_eq!(query(dir.path(), &arguments("admin")).unwrap(), Answer::Yes);
        assert_eq!(query(dir.path(), &arguments("publish")).unwrap(), Answer::No);
        assert!(!dir.path().join("log/index").exists());
    }
}

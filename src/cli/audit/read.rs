//! `audit tail`, `query`, `show`, `prove` and `reindex`.
#![expect(clippy::disallowed_methods, reason = "`tail -f` waits")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DecisionArgument, ProveArguments, QueryArguments, ShowArguments, TailArguments, print};
use crate::cli::client::ClientFailure;
use crate::cli::files::{Access, create, create_dir, require_absent};
use crate::cli::lock::DirLock;
use crate::cli::plant::hex;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, escape, escape_bytes};
use crate::cli::{Answer, CliFailure};
use crate::config::Config;
use crate::evidence::VerifierKey;
use crate::evidence::tree::leaf_hash;
use crate::identity::Role;
use crate::mqtt::TopicFilter;
use crate::storage::{Index, Order, Outcome, Query, Reader, RealDisk, Until};
use crate::time::UnixNanos;

/// How often `tail -f` looks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// The log, read up to its newest checkpoint.
struct Open {
    config: Config,
    key: VerifierKey,
    reader: Reader<RealDisk>,
}

fn open(dir: &Path) -> Result<Open, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier_key(dir, None)?;
    let disk = RealDisk::new(&config.evidence.directory);
    let reader = Reader::open(disk, &key, Until::Checkpoint)?;
    Ok(Open { config, key, reader })
}

pub(super) fn tail(dir: &Path, arguments: &TailArguments) -> Result<Answer, CliFailure> {
    let Open { key, mut reader, .. } = open(dir)?;
    let size = |reader: &Reader<RealDisk>| reader.checkpoint().map_or(0, |signed| signed.tree_size);
    let mut next = size(&reader).saturating_sub(arguments.lines);
    loop {
        for entry in reader.entries(next) {
            let entry = entry?;
            print::entry(entry.index, &entry.json, arguments.json);
            next = entry.index + 1;
        }
        if !arguments.follow {
            return Ok(Answer::Yes);
        }
        std::thread::sleep(FOLLOW_EVERY);
        reader.refresh(&key)?;
    }
}

pub(super) fn query(dir: &Path, arguments: &QueryArguments) -> Result<Answer, CliFailure> {
    let now = crate::cli::unix_now();
    let topic = arguments.topic.as_deref().map(|text| {
        TopicFilter::parse(text).map_err(|source| ClientFailure::Topic {
            topic: text.to_owned(),
            doing: "search",
            source,
        })
    });
    let device = arguments.device.as_ref();
    let who = device.map(|name| format!("{}/{name}", Role::Device.as_str()));
    let query = Query {
        who: who.or_else(|| arguments.who.clone()),
        topic: topic.transpose()?,
        kind: arguments.kind.clone(),
        outcome: arguments.decision.map(|decision| match decision {
            DecisionArgument::Allow => Outcome::Allow,
            DecisionArgument::Deny => Outcome::Deny,
        }),
        since: arguments.since.as_deref().map(|text| parse_time(text, now)).transpose()?,
        until: arguments.until.as_deref().map(|text| parse_time(text, now)).transpose()?,
        limit: usize::try_from(arguments.limit).unwrap_or(usize::MAX),
        order: Order::NewestFirst,
    };
    let Open { config, reader, .. } = open(dir)?;
    let _lock = DirLock::take(dir)?;
    let (index, _) = Index::open(&config.evidence.directory, &reader)?;
    let found = index.query(&reader, &query)?;
    for entry in found.iter().rev() {
        print::entry(entry.index, &entry.json, arguments.json);
    }
    Ok(if found.is_empty() { Answer::No } else { Answer::Yes })
}

pub(super) fn show_entry(dir: &Path, arguments: &ShowArguments) -> Result<Answer, CliFailure> {
    let Open { reader, .. } = open(dir)?;
    let index = arguments.index;
    let entry = reader.entry(index)?.ok_or(CliFailure::NoEntry(index))?;
    let fields: Value = serde_json::from_slice(&entry.json).unwrap_or(Value::Null);
    let leaf = hex(&leaf_hash(&entry.json));
    let place = entry.place;
    if arguments.json {
        show::json(&json!({
            "index": index,
            "entry": fields,
            "leaf_hash": leaf,
            "segment": place.segment,
            "offset": place.offset,
            "body_bytes": entry.body.as_ref().map(|body| body.payload.len()),
        }));
        return Ok(Answer::Yes);
    }
    let mut lines = vec![format!("entry {index}, leaf hash {leaf}")];
    lines.push(format!("segment {}, byte {}", place.segment, place.offset));
    if let Some(nanos) = fields.get("t").and_then(Value::as_u64) {
        lines.push(format!("time {}", print::time(nanos)));
    }
    match serde_json::to_string_pretty(&fields) {
        Ok(pretty) if !fields.is_null() => {
            lines.extend(pretty.lines().map(|line| escape(line).replace("\\\\", "\\")));
        }
        _ => lines.push(escape_bytes(&entry.json)),
    }
    if let Some(body) = &entry.body {
        lines.push(format!("body {} bytes, fits its commitment", body.payload.len()));
    }
    show::line(&lines.join("\n"));
    Ok(Answer::Yes)
}

pub(super) fn prove(dir: &Path, arguments: &ProveArguments) -> Result<Answer, CliFailure> {
    let Open { key, reader, .. } = open(dir)?;
    let index = arguments.index;
    let proof = reader.prove(index)?;
    let entry = reader.entry(index)?.ok_or(CliFailure::NoEntry(index))?;
    // What we hand out, somebody else will check: so do we.
    proof.verify(&entry.json, &key)?;
    let text = proof.to_string();
    if let Some(out) = &arguments.out {
        let paths = ["entry.json", "entry.tlog-proof", "log.vkey"].map(|name| out.join(name));
        require_absent(&paths)?;
        create_dir(out)?;
        let [entry_path, proof_path, key_path] = &paths;
        create(entry_path, Access::Public, &entry.json)?;
        create(proof_path, Access::Public, text.as_bytes())?;
        create(key_path, Access::Public, format!("{key}\n").as_bytes())?;
        show::line(&format!("entry {index} and its proof are in {}", out.display()));
    } else if arguments.json {
        let entry = String::from_utf8_lossy(&entry.json);
        let key = key.to_string();
        show::json(&json!({ "index": index, "entry": entry, "proof": text, "verifier": key }));
    } else {
        show::write_out(text.as_bytes());
    }
    Ok(Answer::Yes)
}

pub(super) fn reindex(dir: &Path) -> Result<Answer, CliFailure> {
    let Open { config, reader, .. } = open(dir)?;
    let _lock = DirLock::take(dir)?;
    let index = Index::rebuild(&config.evidence.directory, &reader)?;
    let applied = index.applied_upto()?;
    show::line(&format!("the index was built again; {applied} entries are in whole blocks"));
    Ok(Answer::Yes)
}

/// Reads an RFC 3339 time, or an age before `now`.
fn parse_time(text: &str, now: UnixNanos) -> Result<UnixNanos, CliFailure> {
    if let Some(age) = crate::config::parse_duration(text) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        return Ok(UnixNanos::new(now.as_nanos().saturating_sub(age)));
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok())
        .map(UnixNanos::new)
        .ok_or_else(|| CliFailure::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_an_age() {
        let now = UnixNanos::from_seconds(1_000_000);
        assert_eq!(parse_time("10m", now).unwrap(), UnixNanos::from_seconds(999_400));
        let date = parse_time("1970-01-02T00:00:00Z", now).unwrap();
        assert_eq!(date, UnixNanos::from_seconds(86_400));
        assert!(parse_time("yesterday", now).is_err());
    }
}

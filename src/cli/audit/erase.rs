//! `avow audit erase`.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::filter::{name, who};
use crate::cli::privacy::PrivacyFault;
use crate::cli::privacy::erase::{self, Found, REASON_BYTES_MAX};
use crate::cli::record::verifier_key;
use crate::cli::{Answer, CliFailure, check, show};
use crate::identity::Role;
use crate::server::admin::{Client, EraseRequest, Request};

/// Erase payloads and salts for good: bodies, queues, retained messages, snapshots (exit 1: none)
#[derive(Args, Debug)]
pub(in crate::cli) struct EraseArguments {
    /// What this device published
    #[arg(long, value_name = "NAME", value_parser = name, group = "whose")]
    device: Option<String>,
    /// What this peer published, as role/name
    #[arg(long, value_name = "ROLE/NAME", value_parser = who, group = "whose")]
    who: Option<String>,
    /// What the schemas' `subject` says is data of this person; opaque payloads are not searched
    #[arg(long, value_name = "TEXT", group = "whose")]
    subject: Option<String>,
    /// The body of this entry, or of those from the first to the last, both included
    #[arg(long, value_name = "N[..M]", value_parser = indices, group = "whose")]
    index: Option<(u64, u64)>,
    /// Why: stands in the log
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// Only say what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn indices(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{text}` is not an index or a range: write 12, or 12..20");
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first <= last { Ok((first, last)) } else { Err(wrong()) }
}

fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        1..=REASON_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("a reason has 1 to {REASON_BYTES_MAX} bytes, and names nobody")),
    }
}

pub(in crate::cli) fn run(dir: &Path, arguments: &EraseArguments) -> Result<Answer, CliFailure> {
    let device = arguments.device.as_ref();
    let device = device.map(|name| format!("{}/{name}", Role::Device.as_str()));
    let request = EraseRequest {
        who: device.or_else(|| arguments.who.clone()),
        subject: arguments.subject.clone(),
        first: arguments.index.map(|(first, _)| first),
        last: arguments.index.map(|(_, last)| last),
        reason: arguments.reason.clone(),
        dry_run: arguments.dry_run,
    };
    let answer = match Client::connect(dir)? {
        Some(mut client) => {
            let mut answer = Value::Null;
            client.ask(&Request::Erase(request), |line| {
                answer = serde_json::from_str(line)?;
                Ok(())
            })?;
            answer
        }
        None => {
            let config = crate::cli::configuration(dir)?;
            let schemas = Arc::new(check::load_schemas(&config)?);
            let finder = erase::finder(&config, verifier_key(dir, None)?, schemas);
            let erased = erase::alone(&finder, &request, &config)?;
            erased.map_or(Value::Null, |(found, entries)| line(&found, &entries, request.dry_run))
        }
    };
    if arguments.json {
        show::json(&answer);
    } else {
        tell(&answer);
    }
    let has_found = answer.get("bodies").and_then(Value::as_u64).is_some_and(|bodies| bodies > 0);
    Ok(if has_found { Answer::Yes } else { Answer::No })
}

/// What was erased, as JSON.
pub(in crate::cli) fn line(found: &Found, entries: &[u64], is_dry: bool) -> Value {
    json!({
        "dry_run": is_dry,
        "bodies": found.bodies,
        "bytes": found.bytes,
        "indices": found.ranges.to_string(),
        "unsearched": found.unsearched,
        "searched_entries": found.covered,
        "erased_entries": entries,
    })
}

/// Answers in the broker.
pub(in crate::cli) fn answer(
    finder: &erase::Finder,
    request: &EraseRequest,
    broker: &crate::server::Handle,
    now: crate::time::UnixNanos,
) -> Result<Value, PrivacyFault> {
    if !(1..=REASON_BYTES_MAX).contains(&request.reason.len()) {
        return Err(PrivacyFault::Reason);
    }
    let whose = erase::Whose::try_from(request)?;
    let found = finder.find(&whose)?;
    let entries = match request.dry_run || found.bodies == 0 {
        true => Vec::new(),
        false => {
            let acts = &mut erase::Acts::Broker(broker);
            erase::erase(finder, &found, (&whose, &request.reason), acts, now)?
        }
    };
    Ok(line(&found, &entries, request.dry_run))
}

fn tell(answer: &Value) {
    let number = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or_default();
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    let (bodies, bytes) = (number("bodies"), number("bytes"));
    let bytes = crate::config::format_bytes(bytes);
    let entries = answer.get("erased_entries").map(Value::to_string).unwrap_or_default();
    let mut lines = match (bodies, answer.get("dry_run").and_then(Value::as_bool)) {
        (0, _) => vec!["nothing to erase".to_owned()],
        (_, Some(true)) => vec![format!("would erase {bodies} bodies of {bytes}")],
        (_, Some(false) | None) => {
            vec![format!("erased {bodies} bodies of {bytes}; the log says so in {entries}")]
        }
    };
    if bodies > 0 {
        let mut indices = text("indices").to_owned();
        if indices.len() > 200 {
            indices.truncate(200);
            indices.push('…');
        }
        lines.push(format!("of the entries {indices}"));
    }
    if number("unsearched") > 0 {
        let count = number("unsearched");
        lines.push(format!("{count} bodies could not be searched: no schema says where"));
    }
    let covered = number("searched_entries");
    lines.push(format!("looked through the {covered} entries that a checkpoint covers"));
    show::line(&lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_both_ends_in_it() {
        assert_eq!(indices("12"), Ok((12, 12)));
        assert_eq!(indices("12..20"), Ok((12, 20)));
        for bad in ["", "..", "12..", "20..12", "-1", "a", "1..2..3"] {
            assert!(indices(bad).is_err(), "{bad}");
        }
        assert!(reason("").is_err() && reason(&"x".repeat(REASON_BYTES_MAX + 1)).is_err());
        assert!(reason(&"x".repeat(REASON_BYTES_MAX)).is_ok());
    }
}

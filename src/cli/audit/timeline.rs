//! `avow audit timeline`: one peer's life in order.
//!
//! What happens once (certificates, connections, subscriptions, gaps, a new policy) is shown as it is;
//! messages are grouped by five minutes, by what was decided and by whom. The invariant: every entry
//! that concerns the peer is shown or counted, in the order of the log.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::filter::{name, parse_time, who};
use super::print;
use super::read::read;
use crate::cli::show::{self, escape};
use crate::cli::{Answer, CliFailure};
use crate::identity::Role;
use crate::server::admin::{LogFilter, LogRequest};
use crate::time::UnixNanos;

/// Messages within so many nanoseconds share a line.
const WINDOW_NANOS: u64 = 300_000_000_000;
/// Most groups of one window; a peer that has more reasons at once begins another window.
const GROUPS_MAX: usize = 64;

#[derive(Args, Debug)]
pub(in crate::cli) struct TimelineArguments {
    /// The device's name, or role/name of another peer
    #[arg(value_parser = peer)]
    peer: String,
    /// Not before: a time (2026-11-22T10:00:00Z) or an age (10m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: likewise
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print JSON: one object per line, an event or a window of messages
    #[arg(long)]
    json: bool,
}

fn peer(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return who(text);
    }
    let device = |name| format!("{}/{name}", Role::Device.as_str());
    name(text).map(device).map_err(|error| error.to_string())
}

pub(super) fn run(dir: &Path, arguments: &TimelineArguments) -> Result<Answer, CliFailure> {
    let now = crate::cli::unix_now();
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(|text| parse_time(text, now)).transpose();
        time.map(|time| time.map(UnixNanos::as_nanos))
    };
    let filter = LogFilter {
        about: Some(arguments.peer.clone()),
        since_unix_nanos: time(&arguments.since)?,
        until_unix_nanos: time(&arguments.until)?,
        ..LogFilter::default()
    };
    let mut timeline = Timeline::default();
    let mut is_known = false;
    read(dir, LogRequest::Timeline { filter }, &mut |line| {
        let fields: Value = serde_json::from_str(&line.entry).unwrap_or_default();
        is_known |= concerns(&fields, &arguments.peer);
        for shown in timeline.add(line.index, &line.entry, &fields) {
            show_one(&shown, arguments.json);
        }
    })?;
    if let Some(window) = timeline.close() {
        show_one(&window, arguments.json);
    }
    Ok(if is_known { Answer::Yes } else { Answer::No })
}

fn concerns(fields: &Value, peer: &str) -> bool {
    ["who", "subject"].iter().any(|name| fields.get(name).is_some_and(|value| value == peer))
}

/// A line of the timeline.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Event { index: u64, entry: String },
    Window(Window),
}

/// Messages of some minutes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Window {
    first_index: u64,
    last_index: u64,
    first: u64,
    last: u64,
    /// By type, result, and the rule or the reason: how many, and bytes of payload.
    groups: BTreeMap<(String, String, String), (u64, u64)>,
}

#[derive(Debug, Default)]
struct Timeline {
    window: Option<Window>,
}

impl Timeline {
    /// Takes the next entry; what can be shown by now.
    fn add(&mut self, index: u64, entry: &str, fields: &Value) -> Vec<Shown> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let kind = text("type");
        if !matches!(kind, "publish" | "publish.refused" | "publish.dup") {
            let event = Shown::Event { index, entry: entry.to_owned() };
            return self.close().into_iter().chain([event]).collect();
        }
        let t = number("t").unwrap_or_default();
        let why = if text("why").is_empty() { text("rule") } else { text("why") };
        let key = (kind.to_owned(), text("result").to_owned(), why.to_owned());
        let belongs = |window: &Window| {
            window.first / WINDOW_NANOS == t / WINDOW_NANOS
                && (window.groups.len() < GROUPS_MAX || window.groups.contains_key(&key))
        };
        let closed = if self.window.as_ref().is_some_and(belongs) { None } else { self.close() };
        let window = self.window.get_or_insert_with(|| Window {
            first_index: index,
            first: t,
            ..Window::default()
        });
        (window.last_index, window.last) = (index, t);
        let (count, bytes) = window.groups.entry(key).or_default();
        // An entry that closes an interval of a limit stands for as many.
        *count += number("count").unwrap_or(1);
        *bytes += number("len").unwrap_or_default();
        closed.into_iter().collect()
    }

    fn close(&mut self) -> Option<Shown> {
        self.window.take().map(Shown::Window)
    }
}

fn show_one(shown: &Shown, as_json: bool) {
    match shown {
        Shown::Event { index, entry } if as_json => {
            let fields: Value = serde_json::from_str(entry).unwrap_or_default();
            show::json(&json!({ "index": index, "entry": fields }));
        }
        Shown::Event { index, entry } => show::line(&print::line(*index, entry.as_bytes())),
        Shown::Window(window) if as_json => show::json(&window.json()),
        Shown::Window(window) => show::line(&window.line()),
    }
}

impl Window {
    fn json(&self) -> Value {
        let groups = self.groups.iter().map(|((kind, result, by), (count, bytes))| {
            json!({ "type": kind, "result": result, "by": by, "count": count, "bytes": bytes })
        });
        json!({
            "first_index": self.first_index,
            "last_index": self.last_index,
            "from": print::time(self.first),
            "to": print::time(self.last),
            "groups": groups.collect::<Vec<_>>(),
        })
    }

    fn line(&self) -> String {
        let groups = self.groups.iter().map(|((kind, result, by), (count, bytes))| {
            let by = escape(by);
            let what = match (kind.as_str(), result.as_str()) {
                ("publish.dup", _) => "resent".to_owned(),
                (_, "deny") => format!("refused by {by}"),
                _ => format!("allowed by {by}"),
            };
            format!("{count} publishes {what} ({bytes} bytes)")
        });
        let (from, to) = (print::time(self.first), print::time(self.last));
        let groups = groups.collect::<Vec<_>>().join(", ");
        format!("{}–{} {from} – {to} {groups}", self.first_index, self.last_index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(timeline: &mut Timeline, index: u64, seconds: u64, rest: &str) -> Vec<Shown> {
        let t = seconds * 1_000_000_000;
        let entry = format!(r#"{{"v":1,"t":{t},"who":"device/a",{rest}}}"#);
        let fields = serde_json::from_str(&entry).unwrap();
        timeline.add(index, &entry, &fields)
    }

    #[test]
    fn messages_are_counted_until_something_else_happens_or_five_minutes_end() {
        let allowed = r#""type":"publish","result":"allow","rule":"own","len":10"#;
        let refused = r#""type":"publish.refused","result":"deny","why":"limit.rate""#;
        let counted = r#""type":"publish.refused","result":"deny","why":"limit.rate","count":40"#;
        let timeline = &mut Timeline::default();
        assert!(add(timeline, 1, 600, allowed).is_empty());
        assert!(add(timeline, 2, 601, allowed).is_empty());
        assert!(add(timeline, 3, 602, refused).is_empty());
        assert!(add(timeline, 4, 899, counted).is_empty());
        let [Shown::Window(window)] = &add(timeline, 5, 900, allowed)[..] else { panic!() };
        insta::assert_snapshot!(window.line(), @"1–4 1970-01-01T00:10:00Z – 1970-01-01T00:14:59Z 2 publishes allowed by own (20 bytes), 41 publishes refused by limit.rate (0 bytes)");
        let shown = add(timeline, 6, 901, r#""type":"disconnect","why":"client""#);
        let [Shown::Window(window), Shown::Event { index: 6, .. }] = &shown[..] else { panic!() };
        assert_eq!((window.first_index, window.last_index), (5, 5));
        assert_eq!(timeline.close(), None);
    }

    #[test]
    fn the_groups_of_a_window_are_bounded() {
        let timeline = &mut Timeline::default();
        let of = |n: usize| format!(r#""type":"publish","result":"allow","rule":"r{n}""#);
        for n in 0..GROUPS_MAX {
            assert!(add(timeline, n as u64, 600, &of(n)).is_empty());
        }
        assert!(add(timeline, 90, 600, &of(0)).is_empty(), "one that it has");
        assert_eq!(add(timeline, 91, 600, &of(GROUPS_MAX)).len(), 1, "one past the bound");
    }
}

//! `avow audit stats`: how many entries of which kind, whose, how decided, when, and how large.
//!
//! Counted where the log is read, so that only sums travel. Every table has a bound; what comes on
//! top is counted under `others`. An entry that stands for many events (refusals by a limit share one)
//! is one entry and as many events.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::filter::FilterArguments;
use super::print;
use super::read::read_raw;
use crate::cli::show::{self, escape};
use crate::cli::{Answer, CliFailure};
use crate::server::admin::{LogPeriod, LogRequest};
use crate::storage::index::IndexFault;
use crate::storage::{Facts, Index, Query, Reader, RealDisk, search};

/// Rows of one table.
const ROWS_MAX: usize = 10_000;
/// Rows of one table that people are shown; JSON has all.
const ROWS_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct StatsArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How time is divided
    #[arg(long, value_enum, default_value_t = PeriodArgument::Hour)]
    per: PeriodArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PeriodArgument {
    Hour,
    Day,
}

pub(super) fn run(dir: &Path, arguments: &StatsArguments) -> Result<Answer, CliFailure> {
    let filter = arguments.filter.filter(crate::cli::unix_now())?;
    let per = match arguments.per {
        PeriodArgument::Hour => LogPeriod::Hour,
        PeriodArgument::Day => LogPeriod::Day,
    };
    let mut counted = Value::Null;
    read_raw(dir, LogRequest::Stats { filter, per }, &mut |line| {
        counted = serde_json::from_str(line).unwrap_or_default();
    })?;
    let entries = counted.get("entries").and_then(Value::as_u64).ok_or(CliFailure::Answer)?;
    if arguments.json {
        show::json(&counted);
    } else {
        show::line(&lines(&counted));
    }
    Ok(if entries > 0 { Answer::Yes } else { Answer::No })
}

fn lines(counted: &Value) -> String {
    let number = |name: &str| counted.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = |name: &str| counted.get(name).and_then(Value::as_str).unwrap_or("-");
    let mut lines = vec![
        format!("{} entries, {} events", number("entries"), number("events")),
        format!("{} – {}", text("first"), text("last")),
        format!(
            "{} bytes of entries, {} of payloads",
            number("entry_bytes"),
            number("payload_bytes")
        ),
    ];
    for (table, title) in TABLES {
        let Some(Value::Array(rows)) = counted.get(table) else { continue };
        lines.push(String::new());
        lines.push(format!("by {title}:"));
        for row in rows.iter().take(ROWS_SHOWN) {
            let name = row.get("name").and_then(Value::as_str).unwrap_or_default();
            let count = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
            let (entries, denied) = (count("entries"), count("denied"));
            let denied = if denied > 0 { format!(", {denied} denied") } else { String::new() };
            lines.push(format!("  {} {entries}{denied}", escape(name)));
        }
        if rows.len() > ROWS_SHOWN {
            lines.push(format!("  and {} more; --json has all", rows.len() - ROWS_SHOWN));
        }
    }
    lines.join("\n")
}

const TABLES: [(&str, &str); 6] = [
    ("by_type", "type"),
    ("by_who", "peer"),
    ("by_result", "decision"),
    ("by_why", "reason"),
    ("by_level", "level"),
    ("by_time", "time"),
];

/// Counts of one row.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    entries: u64,
    denied: u64,
}

/// One table, bounded.
#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<String, Row>,
    others: Row,
}

impl Table {
    fn add(&mut self, name: &str, denied: bool) {
        let row = if let Some(row) = self.rows.get_mut(name) {
            row
        } else if self.rows.len() < ROWS_MAX {
            self.rows.entry(name.to_owned()).or_default()
        } else {
            &mut self.others
        };
        row.entries += 1;
        row.denied += u64::from(denied);
    }

    /// The rows, the largest first, or in the order of their names.
    fn json(&self, by_size: bool) -> Value {
        let mut rows: Vec<_> = self.rows.iter().map(|(name, row)| (name.as_str(), *row)).collect();
        if by_size {
            rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.entries));
        }
        if self.others.entries > 0 {
            rows.push(("others", self.others));
        }
        let row = |(name, row): (&str, Row)| json!({ "name": name, "entries": row.entries, "denied": row.denied });
        rows.into_iter().map(row).collect()
    }
}

/// Counts the entries that fit `query`.
pub(super) fn count(
    reader: &Reader<RealDisk>,
    index: Option<&Index>,
    query: &Query,
    per: LogPeriod,
) -> Result<Value, IndexFault> {
    let mut tables: [Table; TABLES.len()] = Default::default();
    let (mut entries, mut events, mut entry_bytes, mut payload_bytes) =
        (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut first, mut last) = (u64::MAX, 0);
    search(reader, index, query, &mut |found| {
        let Some(facts) = Facts::read(&found.json) else { return ControlFlow::Continue(()) };
        entries += 1;
        events = events.saturating_add(facts.count.unwrap_or(1));
        entry_bytes += found.json.len() as u64;
        payload_bytes = payload_bytes.saturating_add(facts.len.unwrap_or_default());
        (first, last) = (facts.t.min(first), facts.t.max(last));
        let denied = facts.result.as_deref() == Some("deny");
        let period = period(facts.t, per);
        let values = [
            Some(facts.kind.as_ref()),
            facts.who.as_deref(),
            facts.result.as_deref(),
            facts.why.as_deref(),
            facts.lvl.as_deref(),
            Some(period.as_str()),
        ];
        for (table, value) in tables.iter_mut().zip(values) {
            if let Some(value) = value {
                table.add(value, denied);
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut counted = json!({
        "entries": entries,
        "events": events,
        "entry_bytes": entry_bytes,
        "payload_bytes": payload_bytes,
        "first": (entries > 0).then(|| print::time(first)),
        "last": (entries > 0).then(|| print::time(last)),
    });
    if let Value::Object(counted) = &mut counted {
        for ((name, _), table) in TABLES.iter().zip(&tables) {
            counted.insert((*name).to_owned(), table.json(*name != "by_time"));
        }
    }
    Ok(counted)
}

/// The beginning of the hour or the day of a time.
fn period(nanos: u64, per: LogPeriod) -> String {
    let seconds = match per {
        LogPeriod::Hour => 3_600,
        LogPeriod::Day => 86_400,
    };
    let length = seconds * 1_000_000_000_u64;
    print::time(nanos - nanos % length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_bound_and_counts_the_rest() {
        let mut table = Table::default();
        for n in 0..=ROWS_MAX {
            table.add(&n.to_string(), n % 2 == 0);
        }
        table.add("7", true);
        let Value::Array(rows) = table.json(true) else { panic!() };
        assert_eq!(rows.len(), ROWS_MAX + 1);
        assert_eq!(rows[0], json!({ "name": "7", "entries": 2, "denied": 1 }));
        assert_eq!(rows[ROWS_MAX], json!({ "name": "others", "entries": 1, "denied": 1 }));
    }

    #[test]
    fn a_period_begins_where_the_clock_shows_it() {
        let nanos = 1_790_000_123_456_789_012;
        assert_eq!(period(nanos, LogPeriod::Hour), "2026-09-21T14:00:00Z");
        assert_eq!(period(nanos, LogPeriod::Day), "2026-09-21T00:00:00Z");
    }
}

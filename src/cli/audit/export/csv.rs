//! Entries as comma-separated values: RFC 4180, and nothing that a spreadsheet would compute.
//!
//! A cell that begins as a formula does (`=`, `+`, `-`, `@`, a tab, a carriage return, or the full-width
//! forms of these signs) gets an apostrophe before it: peers choose topics and client ids. The whole
//! entry stands in the last column, so nothing is lost by that.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::audit::print;

/// The fields of an entry that have a column.
const FIELDS: [&str; 20] = [
    "type", "who", "result", "why", "by", "rule", "lvl", "topic", "qos", "retain", "dup", "len",
    "conn", "n", "id", "client", "peer", "act", "subject", "count",
];

/// The first line.
pub(super) fn header() -> String {
    format!("index,time,{},entry\r\n", FIELDS.join(","))
}

/// One entry.
pub(super) fn row(index: u64, entry: &str) -> String {
    let fields: Value = serde_json::from_str(entry).unwrap_or(Value::Null);
    let time = fields.get("t").and_then(Value::as_u64).map(print::time).unwrap_or_default();
    let mut row = format!("{index},{time}");
    for name in FIELDS {
        let value = match fields.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let _ = write!(row, ",{}", cell(&value));
    }
    let _ = write!(row, ",{}\r\n", cell(entry));
    row
}

fn cell(text: &str) -> Cow<'_, str> {
    let begins_formula = text.starts_with([
        '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]);
    let text = if begins_formula { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) };
    if text.contains(['"', ',', '\r', '\n']) {
        return Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_as_rfc_4180_wants_and_never_formulas() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell(r#"a,"b"#), r#""a,""b""#);
        assert_eq!(cell("a\nb"), "\"a\nb\"");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\u{ff1d}1"] {
            assert_eq!(cell(formula), format!("'{formula}"));
        }
        assert_eq!(cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(cell("\r=1"), "\"'\r=1\"");
    }

    #[test]
    fn a_row_has_a_cell_for_every_column() {
        let entry = r#"{"v":1,"type":"publish","t":1000000000,"topic":"=x","qos":1,"dup":true}"#;
        insta::assert_snapshot!(row(7, entry), @r#"7,1970-01-01T00:00:01Z,publish,,,,,,,'=x,1,,true,,,,,,,,,,"{""v"":1,""type"":""publish"",""t"":1000000000,""topic"":""=x"",""qos"":1,""dup"":true}""#);
        let commas = |line: &str| line.split("\"{").next().unwrap().matches(',').count();
        assert_eq!(commas(&row(7, entry)), header().matches(',').count());
    }
}

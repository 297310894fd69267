//! Entries for people: one line each, every text from a device escaped.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::show::{self, Tone, escape, escape_bytes, paint};

/// Longest encoding that a line shows in full, in characters: a signature or a certificate says nothing
/// to the eye. `audit show` has all of it.
const ENCODING_CHARS_MAX: usize = 64;

/// Prints one entry: as it is, or as a line for people.
pub(super) fn entry(index: u64, json: &[u8], as_json: bool) {
    if as_json {
        let mut line = json.to_vec();
        line.push(b'\n');
        return show::write_out(&line);
    }
    show::line(&line(index, json));
}

/// `index time type result who topic …`, then whatever else the entry says.
pub(super) fn line(index: u64, json: &[u8]) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(json) else {
        return format!("{index} {}", escape_bytes(json));
    };
    let text = |name: &str| fields.get(name).map(plain).unwrap_or_default();
    let result = match text("result").as_str() {
        "deny" => paint(Tone::Bad, "deny"),
        "allow" => paint(Tone::Good, "allow"),
        other => other.to_owned(),
    };
    let shown = ["v", "type", "t", "node", "lvl", "result", "who", "topic"];
    let rest = fields.iter().filter(|(name, _)| !shown.contains(&name.as_str()));
    let rest: Vec<_> =
        rest.map(|(name, value)| format!("{}={}", escape(name), brief(value))).collect();
    let time = fields.get("t").and_then(Value::as_u64).map(time).unwrap_or_default();
    let words = [time, text("type"), result, text("who"), text("topic")];
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    format!("{index} {} {}", words.join(" "), paint(Tone::Quiet, &rest.join(" "))).trim_end().into()
}

/// One field on a line of its own.
pub(super) fn field(name: &str, value: &Value) -> String {
    format!("  {} = {}", escape(name), plain(value))
}

/// A time of an entry, as RFC 3339 in UTC with milliseconds.
pub(super) fn time(nanos: u64) -> String {
    let whole = nanos - nanos % 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(whole))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| nanos.to_string())
}

/// As [`plain`], but of a long encoding, or of a list of some, only its beginning.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(brief).collect();
            format!("[{}]", items.join(","))
        }
        Value::String(text) if is_long_encoding(text) => {
            let beginning: String = text.chars().take(16).collect();
            format!("{beginning}…({} characters)", text.len())
        }
        other => plain(other),
    }
}

/// Whether it is base64url, and long.
fn is_long_encoding(text: &str) -> bool {
    let is_of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.len() > ENCODING_CHARS_MAX && text.bytes().all(is_of_base64)
}

/// Strings without quotes, everything else as JSON; escaped.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text).into_owned(),
        other => escape(&other.to_string()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_cannot_move_the_cursor() {
        let json = br#"{"v":1,"type":"publish.refused","t":1790000000123456789,"result":"deny",
            "who":"device/a","topic":"x/\u001b[2J","why":"policy.no_rule"}"#;
        insta::assert_snapshot!(
            line(7, json),
            @r#"
    7 2026-09-21T14:13:20.123Z publish.refused deny device/a x/\u{1b}[2J why=policy.no_rule
    "#
        );
    }

    #[test]
    fn a_long_encoding_is_cut_short_and_a_long_text_is_not() {
        let brief_of = |text: &str| brief(&Value::from(text));
        assert_eq!(brief_of(&"A".repeat(64)), "A".repeat(64));
        assert_eq!(brief_of(&"A".repeat(65)), "AAAAAAAAAAAAAAAA…(65 characters)");
        let text = "a sentence ".repeat(20);
        assert_eq!(brief_of(&text), text);
        let list = Value::from(vec!["x".to_owned(), "b".repeat(100)]);
        assert_eq!(brief(&list), "[x,bbbbbbbbbbbbbbbb…(100 characters)]");
    }

    #[test]
    fn what_is_no_entry_is_shown_as_bytes() {
        assert_eq!(line(1, b"\xffnot json"), "1 \\xffnot json");
    }
}

//! How the command line prints: what comes from devices is escaped, colours go to terminals only.
//!
//! The invariant: no byte that a device chose reaches a terminal as a control.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

#[cfg(feature = "demo")]
use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// `text` with every control, line separator and bidirectional or invisible format character
/// written as `\u{…}` (or `\n`, `\t`, …), so that it can neither move the cursor nor reorder what
/// stands beside it. A backslash is doubled, so that the result reads back one way only.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            '\\' => safe.push_str("\\\\"),
            c if is_unsafe(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// As [`escape`], for bytes that may not be UTF-8: a byte that is not is written as `\xNN`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            safe.push_str(&format!("\\x{byte:02x}"));
        }
    }
    safe
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || c == '\\'
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'         // soft hyphen, Arabic mark, vowel separator
            | '\u{200b}'..='\u{200f}'                 // zero width, left-to-right and back
            | '\u{2028}'..='\u{202e}'                 // separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'                 // word joiner, isolates, deprecated formats
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'    // byte order mark, interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// Whether standard output is a terminal.
pub(super) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether colours may be used on standard output: a terminal, and NO_COLOR is not set.
pub(super) fn stdout_has_colours() -> bool {
    stdout_is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What a word means, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Allowed, whole, good.
    Good,
    /// Denied, broken.
    Bad,
    /// Beside the point.
    Quiet,
}

/// `text` in the colour of `tone`, if standard output takes colours.
pub(super) fn paint(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Quiet => "2",
    };
    if stdout_has_colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints `text` and a line end. A reader that went away (`| head`) ends the program quietly, as
/// other tools do.
pub(super) fn line(text: &str) {
    write_out(format!("{text}\n").as_bytes());
}

/// Prints one JSON value on a line of its own.
pub(super) fn json(value: &serde_json::Value) {
    line(&value.to_string());
}

/// Writes bytes as they are.
pub(super) fn write_out(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A table without borders, its cells already escaped.
#[cfg(feature = "demo")]
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|text| text.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let cases = [
            ("plant/a", "plant/a"),
            ("\x1b[2J\x1b[H", "\\u{1b}[2J\\u{1b}[H"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("user\u{202e}txt.exe", "user\\u{202e}txt.exe"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\\n", "a\\\\n"),
            ("Größe 5 µm 温度", "Größe 5 µm 温度"),
        ];
        for (text, expected) in cases {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_bytes() {
        assert_eq!(escape_bytes(b"ok\xff\xfe\x00"), "ok\\xff\\xfe\\u{0}");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left(text in "\\PC*|.*") {
            let safe = escape(&text);
            prop_assert!(!safe.chars().any(|c| is_unsafe(c) && c != '\\'));
        }
    }
}

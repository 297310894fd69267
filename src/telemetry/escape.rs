//! Text that a peer chose, made safe to show.
//!
//! A client identifier or a topic may hold anything that is UTF-8: terminal escapes, line breaks
//! that forge a second log line, marks that turn the reading direction around. Shown as they are,
//! they let a device write into an operator's terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every control character, line separator, bidirectional mark and backslash as an
/// escape (`\u{1b}`, `\\`). Text without any is given back as it is.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\\' => safe.push_str("\\\\"),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            character if is_unsafe(character) => {
                // Writing to a String does not fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
            }
            character => safe.push(character),
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal or a log reader may do something else with it than show it.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\\'
            | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(escaped("plant/press-7/temperatur-°C"), "plant/press-7/temperatur-°C");
        assert_eq!(escaped("\u{1b}[2Jgone"), "\\u{1b}[2Jgone");
        assert_eq!(escaped("a\nINFO forged"), "a\\nINFO forged");
        assert_eq!(escaped("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        assert_eq!(escaped("c:\\u{1b}"), "c:\\\\u{1b}");
        assert_eq!(escaped("\u{9b}31m"), "\\u{9b}31m");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_but_the_escape_itself_remains(text in any::<String>()) {
            let safe = escaped(&text);
            prop_assert!(!safe.chars().any(|c| is_unsafe(c) && c != '\\'));
        }

        #[test]
        fn two_texts_never_look_the_same(a in "[\\\\u{}1b\u{1b}]{0,6}", b in "[\\\\u{}1b\u{1b}]{0,6}") {
            prop_assert_eq!(a == b, escaped(&a) == escaped(&b));
        }
    }
}

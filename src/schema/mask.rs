//! Payloads as people may see them: sensitive values masked, nothing that acts on a terminal.

use serde_json::Value;

use super::{Schema, Schemas, json};
use crate::mqtt::TopicName;

/// What stands in place of a sensitive value.
const MASK: &str = "***";

impl Schemas {
    /// `payload` of `topic` for a screen or a log line: JSON with its sensitive values masked and
    /// deceptive characters escaped. What has no schema or cannot be read is not shown, only its
    /// length: where its sensitive values are could not be told.
    pub fn mask(&self, topic: &TopicName, payload: &[u8]) -> String {
        let Some(schema) = self.schema_of_shown(topic.as_str()) else {
            return format!("<{} bytes>", payload.len());
        };
        let read = (payload.len() <= schema.bytes_max).then(|| json::read(payload, &schema.bounds));
        let Some(Ok(mut value)) = read else {
            return format!("<{} bytes, not as its schema says>", payload.len());
        };
        for pointer in &schema.sensitive {
            hide(&mut value, pointer);
        }
        shown(&value.to_string())
    }

    /// A quarantined payload is shown as its schema says, although it does not satisfy it.
    fn schema_of_shown(&self, topic: &str) -> Option<&Schema> {
        let Some(quarantined) = topic.strip_prefix("$quarantine/") else { return self.find(topic) };
        let (id, _topic) = quarantined.split_once('/')?;
        self.schemas.iter().find(|schema| *schema.id == *id)
    }
}

/// Masks what the `rest` of a pointer leads to. Where it ends early at a text, a number or an array
/// of another shape, that is masked: it may hold what the pointer is meant to hide.
fn hide(value: &mut Value, rest: &str) {
    let Some((key, rest)) = split_pointer(rest) else {
        *value = Value::from(MASK);
        return;
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Object(fields) => {
            if let Some(next) = fields.get_mut(&key) {
                hide(next, rest);
            }
        }
        Value::Array(items) => match key.parse().ok().and_then(|at: usize| items.get_mut(at)) {
            Some(next) => hide(next, rest),
            None => *value = Value::from(MASK),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = Value::from(MASK);
        }
    }
}

/// The first key of a pointer, and what follows it; `None` at its end.
fn split_pointer(pointer: &str) -> Option<(&str, &str)> {
    let pointer = pointer.strip_prefix('/')?;
    let end = pointer.find('/').unwrap_or(pointer.len());
    pointer.split_at_checked(end)
}

/// `text` with control, bidirectional and invisible characters as `\u{…}` escapes.
pub(super) fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Whether `c` can act on a terminal or make a text look like another one: control characters,
/// bidirectional marks and overrides, zero-width characters, line and paragraph separators.
pub(super) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

//! One schema file: checked, compiled, and never a reason to fetch another.

use std::ops::Range;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::SCHEMA_FILE_BYTES_MAX;
use super::problem::SchemaProblem;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Memory of one compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Compiles the schema in `text`; a problem comes with its place in `text`.
pub(super) fn compile(text: &str) -> Result<Validator, (Range<usize>, SchemaProblem)> {
    if text.len() > SCHEMA_FILE_BYTES_MAX {
        return Err((0..0, SchemaProblem::FileTooLarge));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| {
        let at = offset(text, error.line(), error.column());
        (at..at, SchemaProblem::NotJson(error.to_string()))
    })?;
    if let Some(dialect) = schema.get("$schema") {
        let dialect = dialect.as_str().unwrap_or("not a string");
        if dialect.trim_end_matches('#') != DIALECT {
            return Err((place(text, 0, dialect), SchemaProblem::Draft(dialect.to_owned())));
        }
    }
    check_references(&schema, text)?;
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(
            PatternOptions::regex().size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX),
        )
        .offline()
        .build(&schema)
        .map_err(|error| {
            let at = place_of_pointer(text, error.instance_path().as_str());
            (at, SchemaProblem::Invalid(error.to_string()))
        })
}

/// Refuses every reference that is not a fragment of the same file. An `$id` below the root would
/// give fragments another base, and is refused for the same reason.
fn check_references(schema: &Value, text: &str) -> Result<(), (Range<usize>, SchemaProblem)> {
    let mut open = vec![(schema, true)];
    while let Some((value, is_root)) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, false))),
            Value::Object(fields) => {
                for keyword in ["$ref", "$dynamicRef", "$id"] {
                    let Some(uri) = fields.get(keyword).and_then(Value::as_str) else { continue };
                    let leads_out = if keyword == "$id" { !is_root } else { !uri.starts_with('#') };
                    if leads_out {
                        let problem = SchemaProblem::Reference { keyword, uri: uri.to_owned() };
                        return Err((place(text, 0, uri), problem));
                    }
                }
                open.extend(fields.values().map(|item| (item, false)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

/// Where the string `wanted` first stands in `text` at or after `from`.
fn place(text: &str, from: usize, wanted: &str) -> Range<usize> {
    let quoted = Value::from(wanted).to_string();
    let found = text.get(from..).and_then(|rest| rest.find(&quoted));
    found.map_or(from..from, |at| from + at..from + at + quoted.len())
}

/// About where a JSON Pointer leads: its keys, each looked for behind the one before. serde_json
/// keeps no places; a caret in the right line is what a person needs.
fn place_of_pointer(text: &str, pointer: &str) -> Range<usize> {
    let mut at = 0..0;
    for key in pointer.split('/').skip(1) {
        if key.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        at = place(text, at.end, &key.replace("~1", "/").replace("~0", "~"));
    }
    at
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = before.saturating_add(column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

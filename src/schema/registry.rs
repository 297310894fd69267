//! The registry file. Its format is described in [`super`].

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::compile::compile;
use super::json::Bounds;
use super::problem::{SchemaError, SchemaProblem};
use super::{OnFailure, SCHEMAS_MAX, Schema, Schemas, SequenceBounds, fresh};
use crate::policy::{Pattern, Trie};
use crate::source::{Fields, Problems, named};

type Found = Problems<SchemaProblem>;

const BYTES_MAX: u64 = 16 << 20;
const FIELDS: &[&str] = &[
    "id",
    "filter",
    "file",
    "on_failure",
    "bytes_max",
    "depth_max",
    "nodes_max",
    "sensitive",
    "subject",
    "reject_markup",
    "time",
    "sequence",
];

/// What one `[[schema]]` says, before its file is read.
struct Entry<'t> {
    id: &'t str,
    filter: Pattern,
    file: Spanned<&'t str>,
    on_failure: OnFailure,
    bytes_max: usize,
    bounds: Bounds,
    sensitive: Vec<String>,
    subject: Option<String>,
    fresh: fresh::Rules,
}

/// Reads the registry and, through `read_file`, its schemas.
pub(super) fn read<E: Display>(
    registry_file: &str,
    text: &str,
    read_file: impl Fn(&str) -> Result<String, E>,
) -> Result<Schemas, SchemaError> {
    let mut problems = Found::of(registry_file, text);
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    add_text(&mut hash, text);
    let mut schemas = Schemas {
        hash: [0; 32],
        unchecked_bytes_max: 65_536,
        sequence_bounds: SequenceBounds::default(),
        schemas: Vec::new(),
        by_topic: Trie::default(),
    };
    let table = problems.parse_toml(text);
    if problems.is_empty() {
        const TABLES: &[&str] = &["version", "defaults", "schema"];
        let file = Fields::new(table.get_ref(), 0..0, "the registry", TABLES, &mut problems);
        file.integer("version", 1..=1, &mut problems);
        if let Some((table, span)) = file.table("defaults", &mut problems) {
            let known = &["unchecked_bytes_max", "sequences_max", "sequences_per_device_max"];
            let defaults = Fields::new(table, span, "[defaults]", known, &mut problems);
            if let Some(max) = bytes(&defaults, "unchecked_bytes_max", &mut problems) {
                schemas.unchecked_bytes_max = max;
            }
            schemas.sequence_bounds = fresh::read_bounds(&defaults, &mut problems);
        }
        let mut taken = HashMap::new();
        for (index, (table, span)) in file.tables("schema", &mut problems).into_iter().enumerate() {
            if index >= SCHEMAS_MAX {
                problems.push(span, SchemaProblem::TooManySchemas);
                break;
            }
            let Some(entry) = read_entry(table, span, &mut taken, &mut problems) else { continue };
            let Some(text) = read_schema(&entry, &read_file, &mut problems) else { continue };
            add_text(&mut hash, &text);
            add_schema(entry, registry_file, &text, &mut schemas, &mut problems);
        }
    }
    for (to, from) in schemas.hash.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    problems.finish(schemas)
}

/// Each text with its length before it, so that no two lists of texts hash alike.
fn add_text(hash: &mut aws_lc_rs::digest::Context, text: &str) {
    hash.update(&(text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

fn read_entry<'t>(
    table: &'t DeTable<'t>,
    span: Range<usize>,
    taken: &mut HashMap<String, usize>,
    problems: &mut Found,
) -> Option<Entry<'t>> {
    let fields = Fields::new(table, span, "[[schema]]", FIELDS, problems);
    for field in ["id", "filter", "file"] {
        if fields.span_of(field).is_none() {
            fields.missing(field, problems);
        }
    }
    let on_failure = [("refuse", OnFailure::Refuse), ("quarantine", OnFailure::Quarantine)];
    let number =
        |value: Option<u64>, default| value.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
    let on_failure = fields.choice("on_failure", &on_failure, problems);
    let bytes_max = bytes(&fields, "bytes_max", problems).unwrap_or(16_384);
    let bounds = Bounds {
        // Below the depth at which the JSON parser itself gives up.
        depth_max: number(fields.integer("depth_max", 1..=100, problems), 16),
        nodes_max: number(fields.integer("nodes_max", 1..=1_000_000, problems), 1_000),
        reject_markup: fields.boolean("reject_markup", problems).unwrap_or(false),
    };
    let sensitive = read_sensitive(&fields, problems);
    let subject = fields.string("subject", problems);
    let subject = subject.and_then(|pointer| fresh::check_pointer(&pointer, problems));
    let fresh = fresh::read_rules(&fields, problems);
    let id = fields.string("id", problems);
    let filter = fields.string("filter", problems);
    let file = fields.string("file", problems);
    let (id, filter, file) = (id?, filter?, file?);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&id.get_ref().len()) || !id.get_ref().bytes().all(plain) {
        problems.push(id.span(), SchemaProblem::Id((*id.get_ref()).to_owned()));
        return None;
    }
    let filter_text = *filter.get_ref();
    let pattern = read_filter(&filter, problems)?;
    for (text, span) in [
        (format!("id {}", id.get_ref()), id.span()),
        (format!("filter {filter_text}"), filter.span()),
    ] {
        let line = problems.line(span.start);
        if let Some(line) = taken.insert(text.clone(), line) {
            problems.push(span, SchemaProblem::Duplicate { text, line });
        }
    }
    Some(Entry {
        id: id.get_ref(),
        filter: pattern,
        file,
        on_failure: on_failure.unwrap_or(OnFailure::Refuse),
        bytes_max,
        bounds,
        sensitive,
        subject,
        fresh,
    })
}

fn bytes(fields: &Fields<'_>, field: &'static str, problems: &mut Found) -> Option<usize> {
    fields.integer(field, 1..=BYTES_MAX, problems).and_then(|n| usize::try_from(n).ok())
}

fn read_filter(filter: &Spanned<&str>, problems: &mut Found) -> Option<Pattern> {
    let text = *filter.get_ref();
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => {
            problems.push(filter.span(), error);
            return None;
        }
    };
    let problem = if pattern.variables().next().is_some() {
        SchemaProblem::FilterVariable(text.to_owned())
    } else if text.starts_with('$') {
        SchemaProblem::FilterReserved(text.to_owned())
    } else {
        return Some(pattern);
    };
    problems.push(filter.span(), problem);
    None
}

fn read_sensitive(fields: &Fields<'_>, problems: &mut Found) -> Vec<String> {
    let mut pointers = Vec::new();
    for pointer in fields.strings("sensitive", problems).unwrap_or_default() {
        pointers.extend(fresh::check_pointer(&pointer, problems));
    }
    pointers
}

fn read_schema<E: Display>(
    entry: &Entry<'_>,
    read_file: impl Fn(&str) -> Result<String, E>,
    problems: &mut Found,
) -> Option<String> {
    let (file, span) = (*entry.file.get_ref(), entry.file.span());
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if file.contains(['\\', '\0', ':']) || !file.split('/').all(plain) {
        problems.push(span, SchemaProblem::FilePath(file.to_owned()));
        return None;
    }
    match read_file(file) {
        Ok(text) => Some(text),
        Err(error) => {
            let (file, error) = (file.to_owned(), error.to_string());
            problems.push(span, SchemaProblem::FileMissing { file, error });
            None
        }
    }
}

fn add_schema(
    entry: Entry<'_>,
    registry_file: &str,
    text: &str,
    schemas: &mut Schemas,
    problems: &mut Found,
) {
    match compile(text) {
        Ok(validator) => {
            schemas.by_topic.insert(&entry.filter, schemas.schemas.len());
            schemas.schemas.push(Schema {
                id: Arc::from(entry.id),
                on_failure: entry.on_failure,
                bytes_max: entry.bytes_max,
                bounds: entry.bounds,
                sensitive: entry.sensitive,
                subject: entry.subject,
                fresh: entry.fresh,
                validator,
            });
        }
        Err((span, problem)) => {
            let directory = registry_file.rsplit_once('/').map(|(directory, _)| directory);
            let file = entry.file.get_ref();
            let name = directory.map_or_else(|| (*file).to_owned(), |at| format!("{at}/{file}"));
            problems.push_in(&named(&name, text), span, problem);
        }
    }
}

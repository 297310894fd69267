//! What a `[[schema]]` says of freshness. Its format is described in [`crate::schema`].

use std::time::Duration;

use toml::Spanned;

use super::sequence::{SequenceBounds, SequenceRule, WINDOW_MAX};
use super::time::{TimeRule, Unit};
use super::{OnStale, Rules};
use crate::schema::problem::SchemaProblem;
use crate::source::{Fields, Problems};

type Found = Problems<SchemaProblem>;

/// Longest span that a schema may ask for: a leap year.
const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);
const PAST: Duration = Duration::from_secs(600);
const FUTURE: Duration = Duration::from_secs(30);
const ON_FAILURE: [(&str, OnStale); 2] = [("flag", OnStale::Flag), ("refuse", OnStale::Refuse)];

/// What one `[[schema]]` asks for.
pub(in crate::schema) fn read_rules(schema: &Fields<'_>, problems: &mut Found) -> Rules {
    Rules { time: read_time(schema, problems), sequence: read_sequence(schema, problems) }
}

/// The bounds in `[defaults]`.
pub(in crate::schema) fn read_bounds(
    defaults: &Fields<'_>,
    problems: &mut Found,
) -> SequenceBounds {
    let mut bounds = SequenceBounds::default();
    let read = |field, problems: &mut Found| {
        defaults.integer(field, 1..=1 << 24, problems).and_then(|n| usize::try_from(n).ok())
    };
    if let Some(max) = read("sequences_max", problems) {
        bounds.topics_max = max;
    }
    if let Some(max) = read("sequences_per_device_max", problems) {
        bounds.device_topics_max = max;
    }
    bounds
}

/// The table `sequence` of a schema.
fn read_sequence(schema: &Fields<'_>, problems: &mut Found) -> Option<SequenceRule> {
    const KNOWN: &[&str] = &["pointer", "window", "on_failure"];
    let (table, span) = schema.table("sequence", problems)?;
    let fields = Fields::new(table, span, "`sequence`", KNOWN, problems);
    let window = fields.integer("window", 1..=WINDOW_MAX, problems).unwrap_or(WINDOW_MAX);
    let on_failure = fields.choice("on_failure", &ON_FAILURE, problems).unwrap_or(OnStale::Flag);
    Some(SequenceRule { pointer: read_pointer(&fields, problems)?, window, on_failure })
}

/// The table `time` of a schema.
fn read_time(schema: &Fields<'_>, problems: &mut Found) -> Option<TimeRule> {
    const KNOWN: &[&str] = &["pointer", "unit", "past", "future", "on_failure"];
    const UNITS: [(&str, Unit); 5] = [
        ("s", Unit::Seconds),
        ("ms", Unit::Millis),
        ("us", Unit::Micros),
        ("ns", Unit::Nanos),
        ("rfc3339", Unit::Rfc3339),
    ];
    let (table, span) = schema.table("time", problems)?;
    let fields = Fields::new(table, span, "`time`", KNOWN, problems);
    if fields.span_of("unit").is_none() {
        fields.missing("unit", problems);
    }
    let unit = fields.choice("unit", &UNITS, problems);
    let past = read_span(&fields, "past", problems).unwrap_or(PAST);
    let future = read_span(&fields, "future", problems).unwrap_or(FUTURE);
    let on_failure = fields.choice("on_failure", &ON_FAILURE, problems);
    let pointer = read_pointer(&fields, problems)?;
    let on_failure = on_failure.unwrap_or(OnStale::Flag);
    Some(TimeRule { pointer, unit: unit?, past, future, on_failure })
}

fn read_pointer(fields: &Fields<'_>, problems: &mut Found) -> Option<String> {
    if fields.span_of("pointer").is_none() {
        fields.missing("pointer", problems);
    }
    let pointer = fields.string("pointer", problems)?;
    check_pointer(&pointer, problems)
}

/// The text of a JSON Pointer to a value below the root.
pub(in crate::schema) fn check_pointer(
    pointer: &Spanned<&str>,
    problems: &mut Found,
) -> Option<String> {
    let text = *pointer.get_ref();
    let escapes_right = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && escapes_right {
        return Some(text.to_owned());
    }
    problems.push(pointer.span(), SchemaProblem::Pointer(text.to_owned()));
    None
}

fn read_span(fields: &Fields<'_>, field: &'static str, problems: &mut Found) -> Option<Duration> {
    let text = fields.string(field, problems)?;
    let read = humantime::parse_duration(text.get_ref().trim()).ok();
    let fits = read.filter(|span| !span.is_zero() && *span <= SPAN_MAX);
    if fits.is_none() {
        let found = (*text.get_ref()).to_owned();
        problems.push(text.span(), SchemaProblem::Span { field, found });
    }
    fits
}

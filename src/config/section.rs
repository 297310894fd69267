//! One table of `avow.toml`, read field by field: values with units, bounds and defaults.
//!
//! Reading never stops at a problem: the default stands in, so that one run reports all of them.
//! Which fields there are is the business of [`super::sections`].

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::ConfigProblem;
use super::value::{self, Secret, clip};
use crate::source::{FieldProblem, Fields, Problems};

/// A table being read.
pub(super) struct Section<'t, 'p> {
    table: &'t DeTable<'t>,
    fields: Fields<'t>,
    problems: &'p mut Problems<ConfigProblem>,
}

impl<'t, 'p> Section<'t, 'p> {
    /// Begins to read `table`, called `name` in messages.
    pub(super) fn new(
        table: &'t DeTable<'t>,
        span: Range<usize>,
        name: &'static str,
        known: &'static [&'static str],
        problems: &'p mut Problems<ConfigProblem>,
    ) -> Self {
        let fields = Fields::new(table, span, name, known, problems);
        Self { table, fields, problems }
    }

    /// A number without unit.
    pub(super) fn count(
        &mut self,
        field: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.fields.integer(field, range, self.problems).unwrap_or(default)
    }

    /// A number of bytes: `"64 MiB"` or `65536`.
    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        const EXAMPLE: &str = "\"64 KiB\"";
        let Some(value) = self.table.get(field) else { return default };
        let bytes = match value.get_ref() {
            DeValue::String(text) => value::parse_bytes(text),
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            other => {
                let (expected, found) = ("a size", other.type_str());
                let wrong = FieldProblem::Type { field, expected, found, example: EXAMPLE };
                self.report(value.span(), wrong);
                return default;
            }
        };
        match bytes {
            Some(bytes) => self.ranged(field, value, bytes, range, value::format_bytes),
            None => {
                self.unreadable(field, value, "a size in B, KiB, MiB or GiB", EXAMPLE);
                None
            }
        }
        .unwrap_or(default)
    }

    /// A duration: `"10s"`.
    pub(super) fn duration(
        &mut self,
        field: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        const EXAMPLE: &str = "\"10s\"";
        let Some(value) = self.table.get(field) else { return default };
        let Some(text) = value.get_ref().as_str() else {
            let (expected, found) = ("a duration", value.get_ref().type_str());
            self.report(
                value.span(),
                FieldProblem::Type { field, expected, found, example: EXAMPLE },
            );
            return default;
        };
        match value::parse_duration(text) {
            Some(read) => self.ranged(field, value, read, range, value::format_duration),
            None => {
                self.unreadable(field, value, "a duration in ms, s, m, h or d", EXAMPLE);
                None
            }
        }
        .unwrap_or(default)
    }

    /// A duration of whole seconds, as the wire counts it.
    pub(super) fn seconds(
        &mut self,
        field: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let (low, high) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
        self.duration(field, Duration::from_secs(default), low..=high).as_secs()
    }

    /// A text that must satisfy `check`; `None` if it is absent or does not.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        expected: &'static str,
        example: &'static str,
        check: impl FnOnce(&str) -> bool,
    ) -> Option<String> {
        let text = self.fields.string(field, self.problems)?;
        if check(text.get_ref()) {
            return Some((*text.get_ref()).to_owned());
        }
        let text = clip(text.get_ref());
        self.report(
            self.span_of(field),
            ConfigProblem::Unreadable { field, text, expected, example },
        );
        None
    }

    /// As [`Section::text`], and absence is a problem. After a problem it is empty.
    pub(super) fn required_text(
        &mut self,
        field: &'static str,
        expected: &'static str,
        example: &'static str,
        check: impl FnOnce(&str) -> bool,
    ) -> String {
        if !self.table.contains_key(field) {
            self.fields.missing(field, self.problems);
        }
        self.text(field, expected, example, check).unwrap_or_default()
    }

    /// Several texts; none if the field is absent.
    pub(super) fn texts(&mut self, field: &'static str) -> Vec<Spanned<&'t str>> {
        self.fields.strings(field, self.problems).unwrap_or_default()
    }

    /// One of `choices`.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: &'static str,
        default: T,
        choices: &[(&str, T)],
    ) -> T {
        self.fields.choice(field, choices, self.problems).unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, field: &'static str, default: bool) -> bool {
        self.fields.boolean(field, self.problems).unwrap_or(default)
    }

    /// An address and port.
    pub(super) fn address(&mut self, field: &'static str) -> Option<SocketAddr> {
        let text = self.fields.string(field, self.problems)?;
        let address = text.get_ref().parse().ok();
        if address.is_none() {
            let problem = ConfigProblem::Unreadable {
                field,
                text: clip(text.get_ref()),
                expected: "an address and a port",
                example: "\"127.0.0.1:8883\"",
            };
            self.report(text.span(), problem);
        }
        address
    }

    /// A path, relative to `dir`.
    pub(super) fn path(&mut self, field: &'static str, default: &str, dir: &Path) -> PathBuf {
        let text = self.fields.string(field, self.problems);
        dir.join(text.map_or(default, Spanned::into_inner))
    }

    /// Where a secret stands.
    pub(super) fn secret(&mut self, field: &'static str, default: &str, dir: &Path) -> Secret {
        let fallback = Secret::File(dir.join(default));
        let Some(text) = self.fields.string(field, self.problems) else { return fallback };
        Secret::parse(text.get_ref(), dir).unwrap_or_else(|| {
            self.report(text.span(), ConfigProblem::SecretInline { field });
            fallback
        })
    }

    /// A table within this one.
    pub(super) fn table(&mut self, field: &'static str) -> Option<(&'t DeTable<'t>, Range<usize>)> {
        self.fields.table(field, self.problems)
    }

    /// The tables of an array within this one; none if it is absent.
    pub(super) fn tables(&mut self, field: &'static str) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        self.fields.tables(field, self.problems)
    }

    /// Where a value stands, if it is written.
    pub(super) fn place_of(&self, field: &str) -> Option<Range<usize>> {
        self.fields.span_of(field)
    }

    /// Where a value stands; the whole table where it is absent.
    pub(super) fn span_of(&self, field: &str) -> Range<usize> {
        self.fields.span_of(field).unwrap_or_else(|| self.fields.span())
    }

    /// Notes a problem.
    pub(super) fn report(&mut self, span: Range<usize>, problem: impl Into<ConfigProblem>) {
        self.problems.push(span, problem);
    }

    fn ranged<T: PartialOrd + Copy>(
        &mut self,
        field: &'static str,
        at: &Spanned<DeValue<'_>>,
        value: T,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let (value, min, max) = (show(value), show(*range.start()), show(*range.end()));
        self.report(at.span(), ConfigProblem::OutOfRange { field, value, min, max });
        None
    }

    fn unreadable(
        &mut self,
        field: &'static str,
        at: &Spanned<DeValue<'_>>,
        expected: &'static str,
        example: &'static str,
    ) {
        let text = clip(at.get_ref().as_str().unwrap_or_default());
        self.report(at.span(), ConfigProblem::Unreadable { field, text, expected, example });
    }
}

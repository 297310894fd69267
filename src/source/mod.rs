//! Files that people write, and what is wrong with them: a span, a line, a caret, the fix.
//!
//! The rooms that read a file (policy, schema) collect every problem in it instead of stopping at
//! the first. This module holds the places of problems and prints them; what a problem *is* stays
//! a closed enum of the room. It opens no file: texts come in as arguments.
//!
//! Invariant: a [`SourceErrors`] holds at least one problem.

mod fields;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

pub use fields::FieldProblem;
pub(crate) use fields::Fields;

/// Most problems that one load reports; a file with more is not read better by a longer list.
pub const PROBLEMS_MAX: usize = 64;

/// One problem and where it is.
#[derive(Clone, Debug)]
pub struct Located<P> {
    source: Arc<NamedSource<String>>,
    span: Range<usize>,
    problem: P,
}

/// Every problem of a load; at least one.
#[derive(Clone, Debug)]
pub struct SourceErrors<P> {
    /// Boxed, so that results that carry it stay small.
    first: Box<Located<P>>,
    rest: Vec<Located<P>>,
}

impl<P> Located<P> {
    /// The name of the file, as it was given.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Where it is, in bytes from the beginning of the file.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Its line, from 1.
    pub fn line(&self) -> usize {
        line_and_column(self.source.inner(), self.span.start).0
    }

    /// Its column in characters, from 1.
    pub fn column(&self) -> usize {
        line_and_column(self.source.inner(), self.span.start).1
    }

    /// What is wrong.
    pub fn problem(&self) -> &P {
        &self.problem
    }
}

impl<P> SourceErrors<P> {
    /// One problem at `span` of a text, found after the text was read.
    pub(crate) fn one(file_name: &str, text: &str, span: Range<usize>, problem: P) -> Self {
        let first = Located { source: named(file_name, text), span, problem };
        Self { first: Box::new(first), rest: Vec::new() }
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Located<P>> {
        std::iter::once(&*self.first).chain(&self.rest)
    }

    /// How many; at least one, at most [`PROBLEMS_MAX`].
    pub fn count(&self) -> usize {
        self.rest.len() + 1
    }
}

impl<P: Diagnostic> SourceErrors<P> {
    /// All problems as plain lines, `file:line:column: message` and an indented fix: for logs and
    /// terminals without carets.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for found in self.iter() {
            let (line, column) = line_and_column(found.source.inner(), found.span.start);
            text.push_str(&format!("{}:{line}:{column}: {}\n", found.file(), found.problem));
            if let Some(help) = found.problem.help() {
                text.push_str(&format!("    help: {help}\n"));
            }
        }
        text
    }
}

impl<P: fmt::Display> fmt::Display for Located<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl<P: fmt::Display> fmt::Display for SourceErrors<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, count) = (&self.first, self.count());
        write!(f, "{}:{}:{}: {first}", first.file(), first.line(), first.column())?;
        if count > 1 { write!(f, " (and {} more)", count - 1) } else { Ok(()) }
    }
}

impl<P: Diagnostic> std::error::Error for Located<P> {}
impl<P: Diagnostic> std::error::Error for SourceErrors<P> {}

impl<P: Diagnostic> Diagnostic for Located<P> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(std::iter::once(LabeledSpan::underline(self.span.clone()))))
    }
}

impl<P: Diagnostic> Diagnostic for SourceErrors<P> {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.iter().map(|found| found as &dyn Diagnostic)))
    }
}

/// Collects the problems of one load.
pub(crate) struct Problems<P> {
    source: Arc<NamedSource<String>>,
    found: Vec<Located<P>>,
}

impl<P> Problems<P> {
    pub(crate) fn of(file_name: &str, text: &str) -> Self {
        Self { source: named(file_name, text), found: Vec::new() }
    }

    pub(crate) fn push(&mut self, span: Range<usize>, problem: impl Into<P>) {
        self.push_in(&Arc::clone(&self.source), span, problem);
    }

    /// A problem in a second file, one that the first one names.
    pub(crate) fn push_in(
        &mut self,
        source: &Arc<NamedSource<String>>,
        span: Range<usize>,
        problem: impl Into<P>,
    ) {
        if self.found.len() < PROBLEMS_MAX {
            let source = Arc::clone(source);
            self.found.push(Located { source, span, problem: problem.into() });
        }
    }

    /// How many so far.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn line(&self, offset: usize) -> usize {
        line_and_column(self.source.inner(), offset).0
    }

    /// `value` if nothing was found.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, SourceErrors<P>> {
        // In the order of the file that was asked for, then what other files hold.
        let own = &self.source;
        self.found.sort_by_key(|at| (!Arc::ptr_eq(&at.source, own), at.span.start));
        let mut found = self.found.into_iter();
        match found.next() {
            None => Ok(value),
            Some(first) => Err(SourceErrors { first: Box::new(first), rest: found.collect() }),
        }
    }
}

impl<P: From<FieldProblem>> Problems<P> {
    /// The text as a TOML table; syntax errors are collected, all of them.
    pub(crate) fn parse_toml<'t>(&mut self, text: &'t str) -> toml::Spanned<toml::de::DeTable<'t>> {
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            self.push(span, FieldProblem::Syntax(error.message().to_owned()));
        }
        table
    }
}

pub(crate) fn named(file_name: &str, text: &str) -> Arc<NamedSource<String>> {
    Arc::new(NamedSource::new(file_name, text.to_owned()))
}

pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

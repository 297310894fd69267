//! Where a value of `avow.toml` stands, for what turns out wrong only when the value is used: a
//! file that is not there, a port that is taken.
//!
//! It keeps the text that was read, so that a problem points at the line the operator sees. What
//! a problem *is* belongs to whoever uses the value. The invariant: a place is always inside the
//! file; a value that is not written points at its section, or at the file's first byte.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use crate::source::{SourceErrors, line_and_column};

/// A value whose use can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `mqtt` of `[listen]`.
    Listen,
    /// `address` of `[metrics]`.
    Metrics,
    /// `address` of `[audit_api]`.
    AuditApi,
    /// `certificate` of `[tls]`.
    Certificate,
    /// `key` of `[tls]`.
    TlsKey,
    /// `anchors` of one `[[issuer]]`, counted from 0.
    Anchors(usize),
    /// `public_key` of one `[[token_key]]`, counted from 0.
    TokenKey(usize),
    /// `signing_key` of one `[[token_key]]`, counted from 0.
    TokenSigningKey(usize),
    /// `policy` of `[files]`.
    Policy,
    /// `schemas` of `[files]`.
    Schemas,
    /// `origin` of `[evidence]`.
    Origin,
    /// `directory` of `[evidence]`.
    LogDirectory,
    /// `key` of `[evidence]`.
    LogKey,
    /// `policy` of `[evidence.witness]`.
    WitnessPolicy,
    /// `ca` of `[evidence.witness]`.
    WitnessCa,
    /// `receipt_key` of `[evidence]`.
    ReceiptKey,
}

/// The file as it was read.
#[derive(Clone)]
pub(super) struct FileText {
    name: Arc<str>,
    text: Arc<str>,
}

impl Setting {
    /// The name of its section.
    pub const fn section(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Metrics => "metrics",
            Self::AuditApi => "audit_api",
            Self::Certificate | Self::TlsKey => "tls",
            Self::Anchors(_) => "issuer",
            Self::TokenKey(_) | Self::TokenSigningKey(_) => "token_key",
            Self::Policy | Self::Schemas => "files",
            Self::WitnessPolicy | Self::WitnessCa => "evidence",
            Self::Origin | Self::LogDirectory | Self::LogKey | Self::ReceiptKey => "evidence",
        }
    }

    /// The name of its field.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Listen => "mqtt",
            Self::Metrics | Self::AuditApi => "address",
            Self::Certificate => "certificate",
            Self::TlsKey | Self::LogKey => "key",
            Self::Anchors(_) => "anchors",
            Self::TokenKey(_) => "public_key",
            Self::TokenSigningKey(_) => "signing_key",
            Self::Policy | Self::WitnessPolicy => "policy",
            Self::WitnessCa => "ca",
            Self::Schemas => "schemas",
            Self::Origin => "origin",
            Self::LogDirectory => "directory",
            Self::ReceiptKey => "receipt_key",
        }
    }

    fn span(self, root: &DeTable<'_>) -> Range<usize> {
        let Some(section) = root.get(self.section()) else { return 0..0 };
        let section = match (self, section.get_ref().as_array()) {
            (
                Self::Anchors(number) | Self::TokenKey(number) | Self::TokenSigningKey(number),
                Some(tables),
            ) => tables.get(number).unwrap_or(section),
            _ => section,
        };
        let within = match self {
            Self::WitnessPolicy | Self::WitnessCa => {
                section.get_ref().as_table().and_then(|table| table.get("witness"))
            }
            _ => None,
        };
        let section = within.unwrap_or(section);
        let field = section.get_ref().as_table().and_then(|table| table.get(self.field()));
        field.map_or_else(|| section.span(), Spanned::<DeValue<'_>>::span)
    }
}

impl FileText {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// Its name only: the text may be long.
impl fmt::Debug for FileText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Config {
    /// `problem` at the place of `setting`.
    pub fn problem_at<P>(&self, setting: Setting, problem: P) -> SourceErrors<P> {
        let FileText { name, text } = &self.text;
        let (root, _) = DeTable::parse_recoverable(text);
        SourceErrors::one(name, text, setting.span(root.get_ref()), problem)
    }

    /// The line of `setting`, from 1, for a problem that has two places.
    pub fn line_of(&self, setting: Setting) -> usize {
        let text = &self.text.text;
        let (root, _) = DeTable::parse_recoverable(text);
        line_and_column(text, setting.span(root.get_ref()).start).0
    }
}

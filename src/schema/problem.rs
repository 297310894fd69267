//! What can be wrong with a registry or a schema.

use super::{SCHEMA_FILE_BYTES_MAX, SCHEMAS_MAX};
use crate::policy::PatternError;
use crate::source::{FieldProblem, SourceErrors};

/// Everything that is wrong with a registry and its files.
pub type SchemaError = SourceErrors<SchemaProblem>;

/// One thing that is wrong with a registry or one of its schemas.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum SchemaProblem {
    /// See [`FieldProblem`].
    #[error(transparent)]
    #[diagnostic(transparent)]
    Field(#[from] FieldProblem),
    /// More schemas than the bound.
    #[error("more than {SCHEMAS_MAX} schemas")]
    #[diagnostic(help("let one filter speak of many topics with `+` and `#`"))]
    TooManySchemas,
    /// An id with other characters.
    #[error("`{0}` cannot be the id of a schema")]
    #[diagnostic(help("an id has 1 to 64 characters of a-z, 0-9 and '-'"))]
    Id(String),
    /// An id or a filter twice.
    #[error("`{text}` is taken by the schema on line {line}")]
    #[diagnostic(help("each schema has an id and a filter of its own"))]
    Duplicate {
        /// The id or the filter.
        text: String,
        /// Where the first one stands.
        line: usize,
    },
    /// Not a Topic Filter.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Filter(#[from] PatternError),
    /// A filter with a variable in it.
    #[error("`{0}` has a variable in it")]
    #[diagnostic(help("a filter of a schema speaks of all devices: write `+` for that level"))]
    FilterVariable(String),
    /// A filter for topics that no client publishes to.
    #[error("`{0}` speaks of topics that only the broker writes")]
    #[diagnostic(help("clients never publish to topics that begin with `$`"))]
    FilterReserved(String),
    /// Not a JSON Pointer.
    #[error("`{0}` is not a JSON Pointer")]
    #[diagnostic(help("write `/operator/name`; `~1` stands for `/` in a key and `~0` for `~`"))]
    Pointer(String),
    /// A span of time that cannot be read, or is too long.
    #[error("`{field}` cannot be `{found}`")]
    #[diagnostic(help("write `{field} = \"10m\"`: a duration in ms, s, m, h or d, up to 366d"))]
    Span {
        /// The field.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// A file elsewhere.
    #[error("`{0}` is not a file beside the registry")]
    #[diagnostic(help(
        "name a file in the registry's own directory, without `..` or a leading `/`"
    ))]
    FilePath(String),
    /// A file that cannot be read.
    #[error("`{file}` cannot be read: {error}")]
    #[diagnostic(help("put the schema there, or correct `file`"))]
    FileMissing {
        /// The file.
        file: String,
        /// What the system said.
        error: String,
    },
    /// A file beyond the bound.
    #[error("the schema has more than {SCHEMA_FILE_BYTES_MAX} bytes")]
    #[diagnostic(help("split it by topic"))]
    FileTooLarge,
    /// Not JSON.
    #[error("this is not JSON: {0}")]
    #[diagnostic(help("correct the file at this place"))]
    NotJson(String),
    /// Another draft.
    #[error("`$schema` is `{0}`")]
    #[diagnostic(help("use `https://json-schema.org/draft/2020-12/schema`"))]
    Draft(String),
    /// A reference out of the file.
    #[error("`{keyword}` leads to `{uri}`, out of this file")]
    #[diagnostic(help(
        "schemas are never fetched, neither over the network nor from other files: copy it under \
         `$defs` and refer to it as `#/$defs/…`"
    ))]
    Reference {
        /// `$ref` or `$dynamicRef`.
        keyword: &'static str,
        /// Where it leads.
        uri: String,
    },
    /// Not a valid schema.
    #[error("this is not a valid schema: {0}")]
    #[diagnostic(help(
        "see JSON Schema Draft 2020-12; patterns have no look-around and no back-references, so \
         that they take linear time"
    ))]
    Invalid(String),
}

//! What a payload may be: JSON Schemas by topic, and bounds that hold before anything is parsed.
//!
//! The last room before the log. It reads payloads and never changes them (that would break a
//! device's signature); it does not fetch, and opens no file: texts are handed in. Schemas are
//! JSON Schema Draft 2020-12 with `format` asserted, references only within their own file, and
//! regular expressions on an engine that is linear in the payload.
//!
//! Invariants: a [`Conforming`] is made only by [`Schemas::check`]; a payload is parsed only after
//! its bytes were bounded, and validated only after its depth, its values and its keys were; what
//! a refusal says names places and keywords, never values.
//!
//! # The registry
//!
//! `registry.toml` holds `[[schema]]` tables: `id` (a-z 0-9 -), `filter` (a Topic Filter), `file`
//! (beside the registry), `on_failure` (`refuse`, or `quarantine`: deliver to
//! `$quarantine/<id>/<topic>` instead), `bytes_max` (16,384), `depth_max` (16 nested arrays and
//! objects), `nodes_max` (1,000 values), `sensitive` (JSON Pointers that are masked wherever a
//! payload is shown) and `reject_markup` (refuses `<`, `>`, control and bidirectional characters in
//! any text). `[defaults] unchecked_bytes_max` (65,536) bounds payloads of rules with
//! `schema = "none"` or `"opaque"`.
//!
//! Of several filters that match a topic, the most specific one counts, compared level by level
//! from the left: a literal before `+` before `#`. So for `a/b/c`, `a/+/c` counts before `a/#`, and
//! `a/b/#` before `a/+/c`.
//!
//! `time = { pointer = "/ts", unit = "ms", past = "10m", future = "30s", on_failure = "flag" }` says
//! where a payload states its own time (units `s`, `ms`, `us`, `ns` since 1970, or `rfc3339`), and
//! how far from the broker's clock it may be: older than `past` (10m) is `late`, ahead by more than
//! `future` (30s) is `early`, no time there is `undated`. `on_failure` is `flag` (the entry says so,
//! the message goes on) or `refuse`.
//!
//! `sequence = { pointer = "/seq", window = 64, on_failure = "flag" }` says where a payload states its
//! number, counted up by its device for each topic. `gap`, `first` and `resend` are flagged and never
//! refused; `replay` (seen before, or further behind the highest than `window`), `conflict` (seen
//! before, with another payload) and `unnumbered` are flagged or refused. `[defaults] sequences_max`
//! (65,536) bounds the topics whose numbers are remembered, `sequences_per_device_max` (64) those of
//! one device.
//!
//! What is refused rather than quarantined, whatever the schema says: a payload over its bytes, and
//! one that contradicts its own Payload Format Indicator. The empty payload that clears a retained
//! message has no schema: clearing is a permission of the policy.
//!
//! Specification: MQTT 5.0 section 3.3.2.3.2 (Payload Format Indicator), 4.13 (0x83, 0x99).

mod check;
mod compile;
mod fresh;
mod json;
mod mask;
mod problem;
mod registry;
mod subject;

use std::sync::Arc;

use jsonschema::Validator;

pub use check::{Conforming, Outcome};
pub use fresh::{Flag, Freshness, SequenceBounds, Sequences, StoredWindow};
pub use problem::{SchemaError, SchemaProblem};

use crate::identity::Grants;
use crate::mqtt::TopicName;
use crate::policy::{Bindings, Trie};

/// Most schemas of a registry.
pub const SCHEMAS_MAX: usize = 1_000;
/// Largest schema file, in bytes.
pub const SCHEMA_FILE_BYTES_MAX: usize = 1 << 20;

/// All schemas, compiled.
pub struct Schemas {
    hash: [u8; 32],
    unchecked_bytes_max: usize,
    sequence_bounds: SequenceBounds,
    schemas: Vec<Schema>,
    by_topic: Trie<usize>,
}

/// One schema and its bounds.
struct Schema {
    id: Arc<str>,
    on_failure: OnFailure,
    bytes_max: usize,
    bounds: json::Bounds,
    sensitive: Vec<String>,
    /// Where a payload says whose data it is.
    subject: Option<String>,
    fresh: fresh::Rules,
    validator: Validator,
}

/// What happens to a payload that does not satisfy its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    Refuse,
    Quarantine,
}

impl Schemas {
    /// Reads a registry. `read` is asked for each file that it names, by the name that stands in
    /// it; the caller opens them beside the registry.
    ///
    /// # Errors
    /// Every problem of the registry and of its files, with its place and its fix.
    pub fn parse<E: std::fmt::Display>(
        registry_file: &str,
        registry_toml: &str,
        read: impl Fn(&str) -> Result<String, E>,
    ) -> Result<Self, SchemaError> {
        registry::read(registry_file, registry_toml, read)
    }

    /// SHA-256 over the registry and its files, for the log.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// A table for the numbers of payloads, with nothing in it. `seed` is of this start, and secret.
    pub fn sequences(&self, seed: &[u8; 32]) -> Sequences {
        Sequences::new(self.sequence_bounds, seed)
    }

    /// Enters a number that an entry of the log tells of, of a message of `who` (`role/name`) on
    /// `topic`; nothing if no schema asks for it any more. `payload` may be erased.
    pub fn enter_again(
        &self,
        who: &str,
        topic: &str,
        number: u64,
        payload: Option<&[u8]>,
        sequences: &mut Sequences,
    ) {
        if let Some(schema) = self.find(topic).filter(|schema| schema.fresh.has_sequence()) {
            schema.fresh.enter_again((who, topic), number, payload, sequences);
        }
    }

    /// How many schemas it has.
    pub fn count(&self) -> usize {
        self.schemas.len()
    }

    /// The id of the schema that counts for `topic`, if there is one.
    pub fn id_for(&self, topic: &TopicName) -> Option<&Arc<str>> {
        self.find(topic.as_str()).map(|schema| &schema.id)
    }

    fn find(&self, topic: &str) -> Option<&Schema> {
        // Filters of the registry have no variables.
        let nothing = Bindings { device: "", issuer: "", client_id: "", grants: Grants::NONE };
        let mut found = None;
        let _first = self.by_topic.walk(topic, &nothing, &mut |at| {
            found = self.schemas.get(*at);
            std::ops::ControlFlow::Break(())
        });
        found
    }
}

impl std::fmt::Debug for Schemas {
    /// Names them; compiled schemas are too large to print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.schemas.iter().map(|schema| &schema.id)).finish()
    }
}

#[cfg(test)]
mod tests;

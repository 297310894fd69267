//! Who may publish, subscribe and receive what: `policy.toml`, decided and explained.
//!
//! Nothing is permitted that no rule permits; a `forbid` rule wins over every `permit` rule; an
//! empty policy denies everything. Decisions are pure: no clock, no file, no memory between them.
//! The room does not know payloads (see [`crate::schema`]) and does not count ([`crate::limits`]).
//!
//! Invariant: an [`Authorized`] is made only by [`Policy::authorize`], so what the later rooms
//! hold was permitted by a rule that has a name.
//!
//! # The file
//!
//! `version = 1`; `[defaults] v3_refusal`; then `[[permit]]` and `[[forbid]]` rules and `[[test]]`
//! blocks, in any order. A rule has a unique `id` and `who` (`device`, `device/press-7`,
//! `device/press-*`; likewise `dashboard`, `operator`), may ask for an `issuer`, and speaks of
//! topics by patterns in `publish`, `subscribe` and `receive`:
//!
//! - A pattern is a Topic Filter in which a whole level may be `${device}` (the identity's name,
//!   whatever its role), `${issuer}`, `${client_id}` or `${claim.NAME}`, a topic variable of the
//!   token. A value with `+`, `#` or `/` in it, or none, never substitutes: then the pattern covers
//!   nothing. No wildcard or variable in a first level reaches a `$` topic.
//! - `role = ["viewer"]` makes a rule speak only of whoever's token grants one of these roles. A
//!   certificate grants none. The issuer of a token is called `token:` and its `iss`.
//! - A filter is permitted if *one* pattern covers it: matches every topic it can match. A forbid
//!   rule refuses the filters that it covers; of a wider filter it takes its topics out at
//!   delivery, where each message is judged again by `receive`.
//! - `subscribe` implies `receive` of the same patterns, in permit and in forbid rules, unless the
//!   rule has a `receive` of its own (which may be empty).
//! - `client_id` lets the identity use such Client Identifiers, and makes the whole rule speak
//!   only of sessions under them. Without any such rule an identity cannot connect.
//!   `${client_id}` in a pattern needs a `client_id` in the same rule under which no two
//!   identities can have the same one: `${device}`, or `${device}` and a character that names do
//!   not have, as in `${device}:*`.
//! - `qos_max` (2), `retain` (false), `clear_retained` (false: the empty retained payload),
//!   `schema` (`required`, `none` or `opaque`), `v3_refusal` (`close` or `drop`) and `receipt`
//!   (`none`, `properties` or `topic`) belong to a rule's `publish`; `qos_max` also bounds what a
//!   subscription is granted.
//! - `evidence` (`asserted`, `batched` or `signed`) says which level the messages of a rule's
//!   `publish` must have: with `signed` a message without its device's statement is refused.
//!   `clock` (`flag` or `refuse`) says what becomes of a statement of another time than ours.
//! - `$receipts/<name>/<client id>` is readable by the identity of that name whatever the rules say,
//!   and no rule may speak of it ([`receipts`]).
//! - Where several permit rules match, the first of the file that permits QoS and RETAIN decides.
//!
//! A `[[test]]` names one identity (`who = "device/press-7"`, optionally `issuer`, `client_id`,
//! and `role` and `vars` of its token),
//! asks one question (`publish`, `subscribe` or `receive` = topic, with `qos`, `retain`, `clear`;
//! or only a `client_id`), and states `expect = "allow"` or `"deny"`, optionally the `rule`
//! and, of a publish, the `evidence` that it asks for. A
//! policy whose tests fail is not loaded.
//!
//! Specification: MQTT 5.0 sections 4.7 (topics), 5.4.2 (authorisation).

mod authorize;
mod decide;
mod document;
mod explain;
mod index;
mod pattern;
mod problem;
mod receipts;
mod rule;
mod trial;
mod who;

use std::sync::Arc;

pub use authorize::{Authorized, SubscribePermit};
pub use decide::Operation;
pub use explain::{ClosestMiss, Considered, Decision, Explanation, Query, RuleSite};
pub(crate) use index::Trie;
pub(crate) use pattern::Bindings;
pub use pattern::{PATTERN_LEVELS_MAX, Pattern, PatternError, Variable};
pub use problem::{PolicyError, PolicyProblem};
pub use receipts::RECEIPTS_ROOT;
pub use rule::{ClockRule, Effect, EvidenceRule, PayloadRule, ReceiptRule, RuleId, V3Refusal};
pub use who::{Who, WhoError};

use crate::source::Problems;

/// Most rules of a policy.
pub const RULES_MAX: usize = 10_000;
/// Most patterns in one field of a rule.
pub const PATTERNS_PER_RULE_MAX: usize = 256;

/// A policy: checked, indexed, its own tests passed.
#[derive(Clone, Debug)]
pub struct Policy {
    file_name: Arc<str>,
    hash: [u8; 32],
    v3_refusal: V3Refusal,
    index: decide::Index,
}

impl Policy {
    /// Reads a policy. `file_name` is what problems and explanations call it; nothing is opened.
    ///
    /// # Errors
    /// Every problem of the file, with its place and its fix; the file's own tests run when there
    /// is no other problem.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, PolicyError> {
        let mut problems = Problems::of(file_name, text);
        let document = document::read(text, &mut problems);
        let policy = Self {
            file_name: Arc::from(file_name),
            hash: sha256(text.as_bytes()),
            v3_refusal: document.v3_refusal,
            index: decide::Index::new(document.rules),
        };
        if problems.is_empty() {
            for trial in &document.trials {
                trial.run(&policy, &mut problems);
            }
        }
        problems.finish(policy)
    }

    /// SHA-256 of the text, for the log.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// How many rules it has.
    pub fn rule_count(&self) -> usize {
        self.index.rules().len()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod tests;

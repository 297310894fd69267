//! What can be wrong with a policy.

use super::pattern::{PATTERN_LEVELS_MAX, PatternError};
use super::who::WhoError;
use super::{PATTERNS_PER_RULE_MAX, RULES_MAX};
use crate::identity::grants::GrantsError;
use crate::source::{FieldProblem, SourceErrors};

/// Everything that is wrong with one policy file.
pub type PolicyError = SourceErrors<PolicyProblem>;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum PolicyProblem {
    /// See [`FieldProblem`].
    #[error(transparent)]
    #[diagnostic(transparent)]
    Field(#[from] FieldProblem),
    /// See [`PatternError`].
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pattern(#[from] PatternError),
    /// See [`WhoError`].
    #[error(transparent)]
    #[diagnostic(transparent)]
    Who(#[from] WhoError),
    /// The file does not say which version of the format it is.
    #[error("the policy does not say its version")]
    #[diagnostic(help("begin it with `version = 1`"))]
    NoVersion,
    /// More rules than the bound.
    #[error("more than {RULES_MAX} rules")]
    #[diagnostic(help("let one rule speak of a role or of a prefix: who = [\"device/press-*\"]"))]
    TooManyRules,
    /// More patterns in a rule than the bound.
    #[error("more than {PATTERNS_PER_RULE_MAX} patterns in one field")]
    #[diagnostic(help("use `+`, `#` or ${{device}}, or split the rule"))]
    TooManyPatterns,
    /// An id with other characters.
    #[error("`{0}` cannot be the id of a rule")]
    #[diagnostic(help("an id has 1 to 64 characters of a-z, 0-9 and '-'"))]
    RuleId(String),
    /// An id twice.
    #[error("the id `{id}` is taken by the rule on line {line}")]
    #[diagnostic(help("ids name rules in the log: give this one another id"))]
    DuplicateId {
        /// The id.
        id: String,
        /// Where the first rule with it is.
        line: usize,
    },
    /// A rule about nobody.
    #[error("the rule speaks of nobody")]
    #[diagnostic(help("name at least one role: who = [\"device\"]"))]
    Nobody,
    /// A list of roles of tokens without any.
    #[error("`role` is empty: no token has it")]
    #[diagnostic(help("name a role, role = [\"viewer\"], or take the field out"))]
    NoTokenRole,
    /// A role of tokens in another form.
    #[error("`{0}` cannot be a role of a token")]
    #[diagnostic(help(
        "a role has 1 to 32 characters of a-z, 0-9, '-', '_'; whether somebody is a device, a \
         dashboard or an operator is for `who` to say"
    ))]
    TokenRole(String),
    /// Roles or topic variables of a test that no token can have.
    #[error("no token grants this: {0}")]
    #[diagnostic(help("write role = [\"viewer\"] and vars = {{ plant = \"3\" }}"))]
    TestGrants(#[from] GrantsError),
    /// A rule that says nothing.
    #[error("the rule says nothing")]
    #[diagnostic(help("give it `publish`, `subscribe`, `receive` or `client_id`"))]
    Nothing,
    /// A field that has no effect in this rule.
    #[error("`{field}` has no effect in this rule: {why}")]
    #[diagnostic(help("take `{field}` out"))]
    NoEffect {
        /// The field.
        field: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A client id pattern of another form.
    #[error("`{0}` is not a pattern of client ids")]
    #[diagnostic(help(
        "write `${{device}}`, `${{device}}*`, `${{device}}:*`, a text, or a text and `*`"
    ))]
    ClientId(String),
    /// A forbid rule that a client could walk around.
    #[error("a forbid rule with topics cannot depend on the client id, which the client chooses")]
    #[diagnostic(help("take `client_id` out, or make it a forbid rule of its own without topics"))]
    ForbidByClientId,
    /// `${client_id}` without a binding.
    #[error("`${{client_id}}` in a rule that does not bind the client id to the identity")]
    #[diagnostic(help("{}", binding_help(.bound)))]
    UnboundClientId {
        /// The rule's `client_id`, if it has one.
        bound: Option<String>,
    },
    /// A permission to publish what nobody may publish.
    #[error("`{0}` would permit clients to publish to the broker's own topics")]
    #[diagnostic(help("topics that begin with `$` are written by the broker only"))]
    PublishReserved(String),
    /// A permission for devices to read what the broker says of itself.
    #[error("`{0}` would permit devices to read what the broker says of itself")]
    #[diagnostic(help("`$SYS` is for dashboards and operators: give it a rule of its own"))]
    DeviceReadsSys(String),
    /// A rule about topics that no rule is asked about.
    #[error("`{0}` is for receipts, and no rule says who reads those")]
    #[diagnostic(help(
        "take it out: each identity may subscribe to `$receipts/` and its own name, and nobody else"
    ))]
    Receipts(String),
    /// A test without a question.
    #[error("the test asks nothing, or more than one thing")]
    #[diagnostic(help("give it one of `publish`, `subscribe`, `receive`, or only a `client_id`"))]
    TestQuestion,
    /// A test about nobody in particular.
    #[error("`{0}` names no single identity")]
    #[diagnostic(help("a test speaks of one identity: who = \"device/press-7\""))]
    TestWho(String),
    /// A test that did not come out.
    #[error("this test expects {expected}, the rules say {decided}")]
    #[diagnostic(help("{help}"))]
    TestFailed {
        /// What the test expects.
        expected: String,
        /// What was decided instead.
        decided: String,
        /// Which rule to look at.
        help: String,
    },
}

fn binding_help(bound: &Option<String>) -> String {
    match bound {
        None => "a client chooses its client id: add `client_id = \"${device}:*\"`, or use \
                 ${device}"
            .to_owned(),
        Some(bound) => format!(
            "under `{bound}` two identities can have the same client id (`press-1` and \
             `press-10`): write `${{device}}:*`, or use ${{device}}"
        ),
    }
}

const _: () = assert!(PATTERN_LEVELS_MAX < 128, "walks recurse once per level of a pattern");

//! One rule of a policy, checked.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::decide::{Operation, Subject};
use super::pattern::Pattern;
use super::who::Who;
use crate::identity::{Grants, Identity};
use crate::mqtt::QoS;
use crate::refusal::Refusal;

/// The id of a rule: `a-z 0-9 -`, unique in its policy. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared: what [`crate::refusal::Refused::by`] holds.
    pub fn as_arc(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    pub(super) fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl Serialize for RuleId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It permits.
    Permit,
    /// It forbids, whatever else permits.
    Forbid,
}

/// What the rule that permits a PUBLISH asks of its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadRule {
    /// It must satisfy the schema of its topic, and its topic must have one.
    Schema,
    /// Nothing is asked.
    None,
    /// It is encrypted end to end: bounded and committed, never read.
    Opaque,
}

/// What the rule that permits a PUBLISH asks of it as evidence: the level that it must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvidenceRule {
    /// A0: the word of the broker. A statement that comes all the same must be good.
    #[default]
    Asserted,
    /// A1: its device signs for it later, with others.
    Batched,
    /// A2: its device's statement comes with it.
    Signed,
}

impl EvidenceRule {
    /// Its name in the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asserted => "asserted",
            Self::Batched => "batched",
            Self::Signed => "signed",
        }
    }
}

/// What becomes of a statement whose device has another time than the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockRule {
    /// Its entry says so: devices without a connection store what they measure.
    #[default]
    Flag,
    /// It is refused.
    Refuse,
}

/// What a 3.x client sees when one of its PUBLISH packets is refused: it has no negative
/// acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum V3Refusal {
    /// The refusal is recorded, then the connection closed.
    #[default]
    Close,
    /// The message is acknowledged, recorded as withheld, and goes nowhere.
    Drop,
}

/// What whoever publishes under a rule is given besides an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiptRule {
    /// Nothing, unless it asks.
    #[default]
    None,
    /// A receipt in a User Property of PUBACK or PUBREC; by its topic, where that cannot be.
    Properties,
    /// A receipt on `$receipts/<name>/<client id>`.
    Topic,
}

impl ReceiptRule {
    /// The receipt called `text`, in a policy and by clients.
    pub fn parse(text: &str) -> Option<Self> {
        RECEIPTS.into_iter().find(|(name, _)| *name == text).map(|(_, receipt)| receipt)
    }
}

/// Their names.
pub(super) const RECEIPTS: [(&str, ReceiptRule); 3] = [
    ("none", ReceiptRule::None),
    ("properties", ReceiptRule::Properties),
    ("topic", ReceiptRule::Topic),
];

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: RuleId,
    pub(super) line: usize,
    pub(super) effect: Effect,
    pub(super) who: Vec<Who>,
    /// Empty: any issuer.
    pub(super) issuers: Vec<Box<str>>,
    /// Roles of tokens, one of which is needed. Empty: none is.
    pub(super) roles: Vec<Box<str>>,
    pub(super) publish: Vec<Pattern>,
    pub(super) subscribe: Vec<Pattern>,
    pub(super) receive: Vec<Pattern>,
    pub(super) client_id: Option<ClientIdPattern>,
    pub(super) qos_max: QoS,
    pub(super) retain: bool,
    pub(super) clear_retained: bool,
    pub(super) payload: PayloadRule,
    pub(super) evidence: EvidenceRule,
    pub(super) clock: ClockRule,
    pub(super) v3_refusal: V3Refusal,
    pub(super) receipt: ReceiptRule,
}

impl Rule {
    pub(super) fn patterns(&self, operation: Operation) -> &[Pattern] {
        match operation {
            Operation::Publish => &self.publish,
            Operation::Subscribe => &self.subscribe,
            Operation::Receive => &self.receive,
        }
    }

    pub(super) fn names(&self, identity: &Identity) -> bool {
        self.who.iter().any(|who| who.matches(identity))
    }

    pub(super) fn trusts_issuer_of(&self, identity: &Identity) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|issuer| **issuer == *identity.issuer())
    }

    /// A rule with a `role` speaks only of whoever holds one of its roles.
    pub(super) fn takes_roles_of(&self, grants: &Grants) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|role| grants.has_role(role))
    }

    /// A rule with a `client_id` speaks only of sessions under such a Client Identifier.
    pub(super) fn takes_client_id(&self, subject: &Subject<'_>) -> bool {
        self.client_id
            .as_ref()
            .is_none_or(|pattern| pattern.matches(subject.client_id, subject.identity))
    }

    pub(super) fn speaks_of(&self, subject: &Subject<'_>) -> bool {
        self.names(subject.identity)
            && self.trusts_issuer_of(subject.identity)
            && self.takes_roles_of(subject.grants)
            && self.takes_client_id(subject)
    }
}

/// The parts of a PUBLISH that a rule may limit besides its topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// RETAIN on an empty payload: it clears the retained message of its topic.
    pub(super) clear: bool,
}

impl Manner {
    /// What `rule` misses, if it does not permit a PUBLISH of this manner.
    pub(super) fn shortfall(self, rule: &Rule) -> Option<Shortfall> {
        if self.clear && !rule.clear_retained {
            return Some(Shortfall::Clear);
        }
        if self.retain && !self.clear && !rule.retain {
            return Some(Shortfall::Retain);
        }
        (self.qos > rule.qos_max).then_some(Shortfall::Qos)
    }
}

/// What a rule misses that permits the topic, but not the manner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortfall {
    Qos,
    Retain,
    Clear,
}

impl Shortfall {
    pub(super) const fn refusal(self) -> Refusal {
        match self {
            Self::Qos => Refusal::QosNotPermitted,
            Self::Retain => Refusal::RetainNotPermitted,
            Self::Clear => Refusal::ClearNotPermitted,
        }
    }
}

/// Client Identifiers: an optional `${device}`, a text, an optional last `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientIdPattern {
    text: Box<str>,
    device: bool,
    literal: Box<str>,
    open: bool,
}

impl ClientIdPattern {
    /// `None` if `text` has another form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (rest, device) = match text.strip_prefix("${device}") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (literal, open) = match rest.strip_suffix('*') {
            Some(literal) => (literal, true),
            None => (rest, false),
        };
        let says_something = device || open || !literal.is_empty();
        let plain = !literal.contains('*') && !literal.contains("${");
        (says_something && plain).then(|| Self {
            text: text.into(),
            device,
            literal: literal.into(),
            open,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Compared as text, never as a regular expression or a topic.
    pub(super) fn matches(&self, client_id: &str, identity: &Identity) -> bool {
        let rest = if self.device {
            let Some(rest) = client_id.strip_prefix(identity.name()) else { return false };
            rest
        } else {
            client_id
        };
        if self.open { rest.starts_with(&*self.literal) } else { *rest == *self.literal }
    }

    /// Whether no two identities of a role can both have the same matching Client Identifier, so
    /// that `${client_id}` may stand in a topic. `${device}*` does not tell `press-1` and
    /// `press-10` apart; a character that no name has, after the name, does.
    pub(super) fn binds(&self) -> bool {
        let in_names = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        match self.literal.chars().next() {
            None => self.device && !self.open,
            Some(separator) => self.device && !in_names(separator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    #[test]
    fn c02_a_client_id_is_compared_as_text() {
        let press = Identity::new("p", Role::Device, "press-1", "i").unwrap();
        let takes =
            |pattern: &str, id: &str| ClientIdPattern::parse(pattern).unwrap().matches(id, &press);
        assert!(takes("${device}", "press-1"));
        assert!(!takes("${device}", "press-10"));
        assert!(takes("${device}*", "press-10"));
        assert!(takes("${device}:*", "press-1:a"));
        assert!(!takes("${device}:*", "press-10:a"));
        assert!(takes("tool-*", "tool-"));
        assert!(takes("*", ""));
        for hostile in [".*", "#", "+", "press-.", "", "${device}"] {
            assert!(!takes("${device}*", hostile), "{hostile}");
        }
    }

    #[test]
    fn c01_only_a_separated_name_binds() {
        let binds = |pattern: &str| ClientIdPattern::parse(pattern).unwrap().binds();
        assert!(binds("${device}"));
        assert!(binds("${device}:*"));
        assert!(binds("${device}@x"));
        assert!(!binds("${device}*"));
        assert!(!binds("${device}-*"));
        assert!(!binds("x*"));
        assert!(!binds("*"));
    }

    #[test]
    fn other_forms_are_no_client_id_patterns() {
        for bad in ["", "a*b", "x${device}", "${device}${device}", "${issuer}*"] {
            assert_eq!(ClientIdPattern::parse(bad), None, "{bad}");
        }
    }
}

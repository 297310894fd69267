//! Decisions: which rule permits or forbids.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::Serialize;

use super::index::Trie;
use super::pattern::{Bindings, Pattern};
use super::receipts;
use super::rule::{Effect, EvidenceRule, Manner, Rule, Shortfall};
use crate::identity::{Grants, Identity, Role};
use crate::refusal::{Refusal, Refused};

/// What a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// To send a PUBLISH, or to leave a Will.
    Publish,
    /// To hold a subscription.
    Subscribe,
    /// To be sent a message: asked at every delivery.
    Receive,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Receive];

    /// Its name in the policy and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Receive => "receive",
        }
    }

    /// The operation called `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text)
    }
}

/// About whom is decided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) identity: &'a Identity,
    pub(super) client_id: &'a str,
    pub(super) grants: &'a Grants,
}

impl<'a> Subject<'a> {
    pub(super) fn bindings(&self) -> Bindings<'a> {
        Bindings {
            device: self.identity.name(),
            issuer: self.identity.issuer(),
            client_id: self.client_id,
            grants: self.grants,
        }
    }
}

/// What the rules say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict<'p> {
    /// The first forbid rule of the file that matches.
    Forbidden(&'p Arc<Rule>),
    /// The first permit rule of the file that matches and permits the manner.
    Permitted(&'p Arc<Rule>),
    /// The first permit rule of the file that matches the topic; none permits the manner.
    Short(&'p Arc<Rule>, Shortfall),
    /// Nothing matches.
    NoRule,
}

impl<'p> Verdict<'p> {
    /// The rule that permits, or the refusal with the rule that it is due to.
    pub(super) fn permitted(self) -> Result<&'p Arc<Rule>, Refused> {
        let refused =
            |refusal, rule: &Rule| Refused { refusal, by: Some(rule.id.as_arc()), detail: None };
        match self {
            Self::Permitted(rule) => Ok(rule),
            Self::Forbidden(rule) => Err(refused(Refusal::Forbidden, rule)),
            Self::Short(rule, shortfall) => Err(refused(shortfall.refusal(), rule)),
            Self::NoRule => Err(Refusal::NoRule.into()),
        }
    }
}

/// The rules, indexed by whom they speak of and then by their patterns.
#[derive(Clone, Debug)]
pub(super) struct Index {
    rules: Vec<Arc<Rule>>,
    asks_for_statements: bool,
    /// The rule of [`receipts`], which is in no file.
    receipts: Arc<Rule>,
    roles: [RoleIndex; Role::ALL.len()],
}

/// Rules that name one identity stand apart, so that a fleet with a rule for each device does not
/// read all of them for each.
#[derive(Clone, Debug, Default)]
struct RoleIndex {
    wide: Group,
    named: HashMap<Box<str>, Group, FixedState>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    publish: Trie<usize>,
    subscribe: Trie<usize>,
    receive: Trie<usize>,
    client_ids: Vec<usize>,
}

impl Index {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let mut index = Self {
            rules: Vec::new(),
            asks_for_statements: false,
            receipts: Arc::new(receipts::rule()),
            roles: Default::default(),
        };
        for (position, rule) in rules.iter().enumerate() {
            for who in &rule.who {
                let Some(role) = index.roles.get_mut(role_index(who.role())) else { continue };
                let group = match who.only_name() {
                    Some(name) => role.named.entry(name.into()).or_default(),
                    None => &mut role.wide,
                };
                group.insert(position, rule);
            }
        }
        let is_signed = |rule: &Rule| rule.evidence == EvidenceRule::Signed;
        index.asks_for_statements = rules.iter().any(is_signed);
        index.rules = rules.into_iter().map(Arc::new).collect();
        index
    }

    pub(super) fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Whether any rule asks for statements.
    pub(super) fn asks_for_statements(&self) -> bool {
        self.asks_for_statements
    }

    /// Decides. Forbid wins; among permit rules the first of the file does, so that which schema
    /// and which limits hold never depends on the index.
    pub(super) fn judge(
        &self,
        subject: &Subject<'_>,
        operation: Operation,
        topic: &str,
        manner: Manner,
    ) -> Verdict<'_> {
        let bindings = subject.bindings();
        if receipts::is_receipts(topic) {
            let covers = |pattern: &Pattern| pattern.covers(topic, &bindings).is_ok();
            return match self.receipts.patterns(operation).iter().any(covers) {
                true => Verdict::Permitted(&self.receipts),
                false => Verdict::NoRule,
            };
        }
        let mut forbid: Option<usize> = None;
        let mut permit: Option<usize> = None;
        let mut short: Option<(usize, Shortfall)> = None;
        for group in self.groups(subject.identity) {
            let _complete = group.trie(operation).walk(topic, &bindings, &mut |&at| {
                let rule = self.rules.get(at).filter(|rule| rule.speaks_of(subject));
                let Some(rule) = rule else { return ControlFlow::Continue(()) };
                match (rule.effect, manner.shortfall(rule)) {
                    (Effect::Forbid, _) => first(&mut forbid, at),
                    (Effect::Permit, None) => first(&mut permit, at),
                    (Effect::Permit, Some(shortfall)) => {
                        if short.is_none_or(|(known, _)| at < known) {
                            short = Some((at, shortfall));
                        }
                    }
                }
                ControlFlow::Continue(())
            });
        }
        let rule = |at: usize| self.rules.get(at);
        if let Some(rule) = forbid.and_then(rule) {
            return Verdict::Forbidden(rule);
        }
        if let Some(rule) = permit.and_then(rule) {
            return Verdict::Permitted(rule);
        }
        match short.and_then(|(at, shortfall)| Some((rule(at)?, shortfall))) {
            Some((rule, shortfall)) => Verdict::Short(rule, shortfall),
            None => Verdict::NoRule,
        }
    }

    /// Decides whether the subject may use its Client Identifier.
    pub(super) fn judge_client_id(&self, subject: &Subject<'_>) -> Verdict<'_> {
        let mut matching: Vec<_> = self
            .groups(subject.identity)
            .flat_map(|group| &group.client_ids)
            .filter_map(|at| Some((*at, self.rules.get(*at)?)))
            .filter(|(_, rule)| rule.speaks_of(subject))
            .collect();
        matching.sort_unstable_by_key(|(at, rule)| (rule.effect == Effect::Permit, *at));
        match matching.first() {
            None => Verdict::NoRule,
            Some((_, rule)) if rule.effect == Effect::Forbid => Verdict::Forbidden(rule),
            Some((_, rule)) => Verdict::Permitted(rule),
        }
    }

    fn groups(&self, identity: &Identity) -> impl Iterator<Item = &Group> {
        let role = self.roles.get(role_index(identity.role()));
        let named = role.and_then(|role| role.named.get(identity.name()));
        role.map(|role| &role.wide).into_iter().chain(named)
    }
}

impl Group {
    fn insert(&mut self, position: usize, rule: &Rule) {
        for operation in Operation::ALL {
            for pattern in rule.patterns(operation) {
                self.trie_mut(operation).insert(pattern, position);
            }
        }
        if rule.client_id.is_some() {
            self.client_ids.push(position);
        }
    }

    fn trie(&self, operation: Operation) -> &Trie<usize> {
        match operation {
            Operation::Publish => &self.publish,
            Operation::Subscribe => &self.subscribe,
            Operation::Receive => &self.receive,
        }
    }

    fn trie_mut(&mut self, operation: Operation) -> &mut Trie<usize> {
        match operation {
            Operation::Publish => &mut self.publish,
            Operation::Subscribe => &mut self.subscribe,
            Operation::Receive => &mut self.receive,
        }
    }
}

fn first(known: &mut Option<usize>, at: usize) {
    if known.is_none_or(|known| at < known) {
        *known = Some(at);
    }
}

const fn role_index(role: Role) -> usize {
    match role {
        Role::Device => 0,
        Role::Dashboard => 1,
        Role::Operator => 2,
        Role::Auditor => 3,
    }
}

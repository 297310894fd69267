//! Why a decision is what it is: the rule and its line, the closest miss, what to try next.
//!
//! The decision itself comes from the same index as every other decision; the story around it
//! from asking each rule by itself. Tests hold the two together.

use std::fmt;

use serde::Serialize;

use super::Policy;
use super::decide::{Operation, Subject, Verdict};
use super::pattern::Miss;
use super::receipts::is_receipts;
use super::rule::{Effect, EvidenceRule, Manner, Rule, RuleId, Shortfall};
use crate::identity::{Grants, Identity, Role};
use crate::mqtt::{ClientId, QoS, TopicFilter, TopicName};
use crate::refusal::Refusal;

/// What would be decided about.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// Under which Client Identifier.
    pub client_id: &'a ClientId,
    /// What its token grants besides.
    pub grants: &'a Grants,
    /// What it wants to do.
    pub operation: Operation,
    /// With which topic: a Topic Name, or for a subscription a Topic Filter.
    pub topic: &'a str,
    /// At which QoS (publish only).
    pub qos: QoS,
    /// With RETAIN (publish only).
    pub retain: bool,
    /// With an empty payload, so as to clear a retained message (publish with RETAIN only).
    pub clear: bool,
}

/// The file of the rule that is in none; its line is 0.
const BUILT_IN: &str = "built in";

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Permitted by a rule and forbidden by none.
    Allow,
    /// Anything else.
    Deny,
}

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSite {
    /// Its id.
    pub id: RuleId,
    /// Permit or forbid.
    pub effect: Effect,
    /// The file, as it was called when it was loaded.
    pub file: String,
    /// The line of its id, from 1.
    pub line: usize,
}

/// The rule that came closest to permitting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClosestMiss {
    /// The rule.
    pub rule: RuleSite,
    /// Its pattern that came closest, if it was about the topic.
    pub pattern: Option<String>,
    /// The level where pattern and topic part, from 1, if they do.
    pub level: Option<usize>,
    /// What would have matched, in words.
    pub wanted: String,
    /// A topic that would have matched as far as this level.
    pub topic: Option<String>,
}

/// One rule and what it said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// The rule.
    pub rule: RuleSite,
    /// Whether it matches.
    pub matches: bool,
    /// Why, in words.
    pub because: String,
}

/// A decision and its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// Who asked.
    pub identity: String,
    /// Under which Client Identifier.
    pub client_id: String,
    /// What it wanted to do.
    pub operation: Operation,
    /// With which topic.
    pub topic: String,
    /// The name of the refusal, as it stands in the log.
    pub refusal: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<RuleSite>,
    /// The level of evidence that the rule asks for: of a publish that is permitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'static str>,
    /// The decision in one sentence.
    pub reason: String,
    /// For a denial without a forbid rule: what came closest.
    pub closest: Option<ClosestMiss>,
    /// Every rule that speaks of the operation, in the order of the file.
    pub considered: Vec<Considered>,
    /// The command to try next.
    pub next: String,
}

impl Policy {
    /// Explains what `identity` would be answered, under its own name as Client Identifier.
    pub fn explain(
        &self,
        identity: &Identity,
        operation: Operation,
        topic: &str,
        qos: QoS,
        retain: bool,
    ) -> Explanation {
        let client_id = &ClientId::new(identity.name());
        let (clear, grants) = (false, Grants::NONE);
        let about = Query { identity, client_id, grants, operation, topic, qos, retain, clear };
        self.explain_query(&about)
    }

    /// Explains what `query` would be answered.
    pub fn explain_query(&self, query: &Query<'_>) -> Explanation {
        let (rule, evidence, outcome) = self.decide(query);
        let mut considered = Vec::new();
        let mut closest: Option<(Closeness, ClosestMiss)> = None;
        for rule in self.index.rules() {
            if rule.patterns(query.operation).is_empty() {
                continue;
            }
            let told = tell(rule, query, || self.site(rule));
            if rule.effect == Effect::Permit
                && let Some((closeness, miss)) = told.miss
                && closest.as_ref().is_none_or(|(known, _)| closeness > *known)
            {
                closest = Some((closeness, miss));
            }
            considered.push(told.considered);
        }
        let closest = closest.filter(|_| matches!(outcome, Err(Denial::NoRule | Denial::Short(_))));
        let closest = closest.map(|(_, miss)| miss);
        let decision = if outcome.is_ok() { Decision::Allow } else { Decision::Deny };
        Explanation {
            decision,
            identity: query.identity.uri().to_owned(),
            client_id: query.client_id.as_str().to_owned(),
            operation: query.operation,
            topic: query.topic.to_owned(),
            refusal: outcome.err().and_then(Denial::refusal).map(Refusal::name),
            evidence: evidence.map(EvidenceRule::as_str),
            reason: reason(&outcome, rule.as_ref()),
            next: next(query, &outcome, closest.as_ref()),
            rule,
            closest,
            considered,
        }
    }

    /// The decision as the broker would make it.
    fn decide(&self, query: &Query<'_>) -> (Option<RuleSite>, Option<EvidenceRule>, Outcome) {
        let dollar = query.topic.starts_with('$');
        let valid = match query.operation {
            Operation::Publish | Operation::Receive => TopicName::parse(query.topic).is_ok(),
            Operation::Subscribe => TopicFilter::parse(query.topic).is_ok(),
        };
        if !valid {
            return (None, None, Err(Denial::NoTopic));
        }
        if query.topic != judged(query) && is_receipts(judged(query)) {
            return (None, None, Err(Denial::NoRule));
        }
        if query.operation == Operation::Publish && dollar {
            return (None, None, Err(Denial::Reserved));
        }
        let subject = subject(query);
        let topic = judged(query);
        match self.index.judge(&subject, query.operation, topic, manner(query)) {
            Verdict::Permitted(rule) => {
                let publishes = query.operation == Operation::Publish;
                (Some(self.site(rule)), publishes.then_some(rule.evidence), Ok(()))
            }
            Verdict::Forbidden(rule) => (Some(self.site(rule)), None, Err(Denial::Forbidden)),
            Verdict::Short(rule, short) => (Some(self.site(rule)), None, Err(Denial::Short(short))),
            Verdict::NoRule => (None, None, Err(Denial::NoRule)),
        }
    }

    fn site(&self, rule: &Rule) -> RuleSite {
        RuleSite {
            id: rule.id.clone(),
            effect: rule.effect,
            file: if rule.line == 0 { BUILT_IN } else { &self.file_name }.to_owned(),
            line: rule.line,
        }
    }
}

type Outcome = Result<(), Denial>;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    /// The topic is none.
    NoTopic,
    Reserved,
    Forbidden,
    NoRule,
    Short(Shortfall),
}

impl Denial {
    fn refusal(self) -> Option<Refusal> {
        match self {
            Self::NoTopic => None,
            Self::Reserved => Some(Refusal::ReservedTopic),
            Self::Forbidden => Some(Refusal::Forbidden),
            Self::NoRule => Some(Refusal::NoRule),
            Self::Short(shortfall) => Some(shortfall.refusal()),
        }
    }
}

/// How close a rule came, nearer ones greater: first whether it speaks of the identity at all,
/// then how many levels of the topic agree, then whether only QoS or RETAIN were missing.
type Closeness = (bool, usize, bool);

struct Told {
    considered: Considered,
    miss: Option<(Closeness, ClosestMiss)>,
}

/// What one rule says by itself.
fn tell(rule: &Rule, query: &Query<'_>, site: impl Fn() -> RuleSite) -> Told {
    let subject = subject(query);
    let told = |matches, because: String, miss| Told {
        considered: Considered { rule: site(), matches, because },
        miss,
    };
    let missed = |closeness, wanted: String| {
        let (pattern, level, topic) = (None, None, None);
        Some((closeness, ClosestMiss { rule: site(), pattern, level, wanted, topic }))
    };
    let (pattern, missed_at) = match nearest(rule, query, &subject) {
        Ok(pattern) => (pattern, None),
        Err((pattern, miss)) => (pattern, Some(miss)),
    };
    let depth = missed_at.as_ref().map_or(usize::MAX, |miss| miss.level);
    if let Some(because) = stranger(rule, query, &subject) {
        // Another's rule is a near miss only if the topic itself would be right.
        let near = missed_at.is_none().then(|| missed((false, depth, false), because.clone()));
        return told(false, because, near.flatten());
    }
    if let Some(miss) = missed_at {
        let wanted = told_miss(&miss);
        let because = format!("`{pattern}` does not cover it: {wanted}");
        let near = ClosestMiss {
            rule: site(),
            pattern: Some(pattern.to_owned()),
            level: Some(miss.level + 1),
            topic: mended(query.topic, &miss),
            wanted,
        };
        return told(false, because, Some(((true, depth, false), near)));
    }
    match (rule.effect, manner(query).shortfall(rule)) {
        (Effect::Permit, Some(shortfall)) => {
            let wanted = told_shortfall(shortfall, rule);
            let because = format!("`{pattern}` covers it, but {wanted}");
            told(false, because, missed((true, depth, true), wanted))
        }
        (Effect::Permit, None) | (Effect::Forbid, _) => {
            told(true, format!("`{pattern}` covers it"), None)
        }
    }
}

/// The pattern of `rule` that agrees longest with the topic.
fn nearest<'r>(
    rule: &'r Rule,
    query: &Query<'_>,
    subject: &Subject<'_>,
) -> Result<&'r str, (&'r str, Miss)> {
    let bindings = subject.bindings();
    let mut best: Option<(&str, Miss)> = None;
    for pattern in rule.patterns(query.operation) {
        match pattern.covers(judged(query), &bindings) {
            Ok(()) => return Ok(pattern.as_str()),
            Err(miss) if best.as_ref().is_none_or(|(_, known)| miss.level > known.level) => {
                best = Some((pattern.as_str(), miss));
            }
            Err(_) => {}
        }
    }
    // Rules without a pattern for the operation are not asked.
    best.map_or(Ok(""), Err)
}

fn subject<'a>(query: &Query<'a>) -> Subject<'a> {
    let (identity, grants) = (query.identity, query.grants);
    Subject { identity, client_id: query.client_id.as_str(), grants }
}

fn stranger(rule: &Rule, query: &Query<'_>, subject: &Subject<'_>) -> Option<String> {
    if !rule.names(query.identity) {
        let who: Vec<_> = rule.who.iter().map(ToString::to_string).collect();
        return Some(format!("it speaks of {}", who.join(", ")));
    }
    if !rule.trusts_issuer_of(query.identity) {
        return Some(format!("it speaks of issuer {}", rule.issuers.join(", ")));
    }
    if !rule.takes_roles_of(query.grants) {
        return Some(format!("it speaks of tokens with the role {}", rule.roles.join(" or ")));
    }
    let pattern = rule.client_id.as_ref().filter(|_| !rule.takes_client_id(subject))?;
    Some(format!("it speaks of client ids `{}`", pattern.as_str()))
}

fn manner(query: &Query<'_>) -> Manner {
    match query.operation {
        Operation::Publish => {
            Manner { qos: query.qos, retain: query.retain, clear: query.retain && query.clear }
        }
        Operation::Subscribe | Operation::Receive => Manner::default(),
    }
}

/// What the rules are asked about: the filter without its share prefix.
fn judged<'a>(query: &Query<'a>) -> &'a str {
    let shared = query.topic.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    match (query.operation, shared) {
        (Operation::Subscribe, Some((_, filter))) => filter,
        _ => query.topic,
    }
}

fn told_miss(miss: &Miss) -> String {
    let level = miss.level + 1;
    match (&miss.wanted, &miss.value, &miss.found) {
        (None, _, _) => format!("it ends before level {level}"),
        (Some(wanted), None, Some(found)) if wanted.starts_with("${") => {
            format!("at level {level} it wants `{wanted}`, which stands for nothing, not `{found}`")
        }
        (Some(wanted), Some(value), Some(found)) => {
            format!("at level {level} it wants `{wanted}`, here `{value}`, not `{found}`")
        }
        (Some(wanted), None, Some(found)) => {
            format!("at level {level} it wants `{wanted}`, not `{found}`")
        }
        (Some(wanted), _, None) => format!("the topic ends before level {level}, `{wanted}`"),
    }
}

fn told_shortfall(shortfall: Shortfall, rule: &Rule) -> String {
    match shortfall {
        Shortfall::Qos => format!("only to QoS {}", rule.qos_max as u8),
        Shortfall::Retain => "without `retain = true`".to_owned(),
        Shortfall::Clear => "without `clear_retained = true`".to_owned(),
    }
}

/// `topic` with the level mended at which it left the pattern.
fn mended(topic: &str, miss: &Miss) -> Option<String> {
    let wanted = miss.value.as_ref().or(miss.wanted.as_ref())?;
    if wanted.starts_with(['+', '#']) || wanted.starts_with("${") {
        return None;
    }
    let mut levels: Vec<&str> = topic.split('/').collect();
    match levels.get_mut(miss.level) {
        Some(level) => *level = wanted,
        None => levels.push(wanted),
    }
    Some(levels.join("/"))
}

fn reason(outcome: &Outcome, rule: Option<&RuleSite>) -> String {
    let by = rule.map_or_else(String::new, |rule| format!("`{}` ({rule})", rule.id));
    match outcome {
        Ok(()) => format!("{by} permits it"),
        Err(Denial::NoTopic) => "this is no topic that MQTT knows".to_owned(),
        Err(Denial::NoRule) => "no rule permits it".to_owned(),
        Err(Denial::Forbidden) => format!("{by} forbids it, and forbid wins"),
        Err(Denial::Reserved) => "only the broker writes `$` topics".to_owned(),
        Err(Denial::Short(Shortfall::Qos)) => format!("{by} permits it only at a lower QoS"),
        Err(Denial::Short(Shortfall::Retain)) => format!("{by} permits it only without RETAIN"),
        Err(Denial::Short(Shortfall::Clear)) => {
            format!("{by} does not let it clear a retained message")
        }
    }
}

/// A command that parses, with everything of the query that still matters in it.
fn next(query: &Query<'_>, outcome: &Outcome, closest: Option<&ClosestMiss>) -> String {
    let topic = quoted(query.topic);
    match (outcome, closest.and_then(|miss| miss.topic.as_deref())) {
        (Ok(()), _) if query.operation == Operation::Publish => {
            let (role, name) = (query.identity.role().as_str(), query.identity.name());
            format!("avow audit query --who {role}/{name} --topic {topic}")
        }
        (Ok(()), _) => format!("avow sub --connect connect.json -t {topic}"),
        (Err(Denial::NoRule), Some(mended)) => {
            again(&Query { topic: mended, ..*query }, &quoted(mended))
        }
        (Err(Denial::Short(Shortfall::Qos)), _) => {
            again(&Query { qos: QoS::AtMostOnce, ..*query }, &topic)
        }
        (Err(Denial::Short(Shortfall::Retain)), _) => {
            again(&Query { retain: false, clear: false, ..*query }, &topic)
        }
        (Err(_), _) => format!("{} --with changed-policy.toml", again(query, &topic)),
    }
}

/// The command that asks `query`; what is the command's default is left out.
fn again(query: &Query<'_>, topic: &str) -> String {
    let identity = query.identity;
    let (name, operation) = (identity.name(), query.operation);
    let mut command = format!("avow policy explain {name} {} {topic}", operation.as_str());
    if identity.role() != Role::Device {
        command.push_str(&format!(" --role {}", identity.role().as_str()));
    }
    for role in query.grants.roles() {
        command.push_str(&format!(" --token-role {role}"));
    }
    for (name, value) in query.grants.variables() {
        command.push_str(&format!(" --var {}", quoted(&format!("{name}={value}"))));
    }
    if query.client_id.as_str() != name {
        command.push_str(&format!(" --client-id {}", quoted(query.client_id.as_str())));
    }
    if operation == Operation::Publish {
        if query.qos != QoS::AtMostOnce {
            command.push_str(&format!(" --qos {}", query.qos as u8));
        }
        if query.retain {
            command.push_str(if query.clear { " --retain --clear" } else { " --retain" });
        }
    }
    command
}

/// `text` as one word for a shell. A quote within is written without a backslash, so that nobody
/// who shows the command escaped doubles it.
fn quoted(text: &str) -> String {
    let mut word = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => word.push_str("'\"'\"'"),
            c if c.is_control() => word.extend(c.escape_debug()),
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for RuleSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.topic.escape_debug();
        let operation = self.operation.as_str();
        writeln!(f, "{}: {} {operation} '{topic}'", self.decision, self.identity)?;
        writeln!(f, "  as client id '{}'", self.client_id.escape_debug())?;
        writeln!(f, "  {}", self.reason.escape_debug())?;
        if let Some(level) = self.evidence.filter(|level| *level != EvidenceRule::Asserted.as_str())
        {
            writeln!(f, "  evidence: {level}")?;
        }
        if let Some(miss) = &self.closest {
            let wanted = miss.wanted.escape_debug();
            write!(f, "  closest: `{}` ({})", miss.rule.id, miss.rule)?;
            match &miss.pattern {
                Some(pattern) => writeln!(f, " `{pattern}`: {wanted}")?,
                None => writeln!(f, ": {wanted}")?,
            }
        }
        if !self.considered.is_empty() {
            writeln!(f, "  considered:")?;
        }
        for considered in &self.considered {
            let mark = if considered.matches { '+' } else { '-' };
            let because = considered.because.escape_debug();
            writeln!(f, "    {mark} `{}` ({}): {because}", considered.rule.id, considered.rule)?;
        }
        write!(f, "  next: {}", self.next)
    }
}

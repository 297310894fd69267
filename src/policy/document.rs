//! The file: TOML to checked rules. The format is described in [`super`].

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeTable;

use super::pattern::{Pattern, Variable};
use super::problem::PolicyProblem;
use super::receipts::is_receipts;
use super::rule::{
    ClientIdPattern, ClockRule, Effect, EvidenceRule, PayloadRule, RECEIPTS, Rule, RuleId,
    V3Refusal,
};
use super::trial::{self, Trial};
use super::who::Who;
use super::{PATTERNS_PER_RULE_MAX, RULES_MAX};
use crate::identity::Role;
use crate::identity::grants::is_grant_name;
use crate::mqtt::QoS;
use crate::source::{Fields, Problems};

/// A policy file, read.
pub(super) struct Document {
    pub(super) v3_refusal: V3Refusal,
    pub(super) rules: Vec<Rule>,
    pub(super) trials: Vec<Trial>,
}

type Found = Problems<PolicyProblem>;

const RULE_FIELDS: &[&str] = &[
    "id",
    "who",
    "issuer",
    "role",
    "publish",
    "subscribe",
    "receive",
    "client_id",
    "qos_max",
    "retain",
    "clear_retained",
    "schema",
    "evidence",
    "clock",
    "v3_refusal",
    "receipt",
];
const V3_REFUSALS: [(&str, V3Refusal); 2] =
    [("close", V3Refusal::Close), ("drop", V3Refusal::Drop)];
const SCHEMAS: [(&str, PayloadRule); 3] = [
    ("required", PayloadRule::Schema),
    ("none", PayloadRule::None),
    ("opaque", PayloadRule::Opaque),
];

pub(super) const EVIDENCE: [(&str, EvidenceRule); 3] = [
    ("asserted", EvidenceRule::Asserted),
    ("batched", EvidenceRule::Batched),
    ("signed", EvidenceRule::Signed),
];
const CLOCKS: [(&str, ClockRule); 2] = [("flag", ClockRule::Flag), ("refuse", ClockRule::Refuse)];

/// Reads `text`; what is wrong goes into `problems`.
pub(super) fn read(text: &str, problems: &mut Found) -> Document {
    let empty =
        Document { v3_refusal: V3Refusal::default(), rules: Vec::new(), trials: Vec::new() };
    let table = problems.parse_toml(text);
    // A file without a single field is the empty policy: it permits nothing.
    if !problems.is_empty() || table.get_ref().is_empty() {
        return empty;
    }
    const FIELDS: &[&str] = &["version", "defaults", "permit", "forbid", "test"];
    let file = Fields::new(table.get_ref(), 0..0, "the policy", FIELDS, problems);
    if file.integer("version", 1..=1, problems).is_none() && file.span_of("version").is_none() {
        problems.push(0..0, PolicyProblem::NoVersion);
    }
    let v3_refusal = read_defaults(&file, problems);
    let mut tables: Vec<_> =
        file.tables("permit", problems).into_iter().map(|at| (Effect::Permit, at)).collect();
    tables.extend(file.tables("forbid", problems).into_iter().map(|at| (Effect::Forbid, at)));
    tables.sort_by_key(|(_, (_, span))| span.start);
    if let Some((_, (_, span))) = tables.get(RULES_MAX) {
        problems.push(span.clone(), PolicyProblem::TooManyRules);
        tables.truncate(RULES_MAX);
    }
    let mut ids = HashMap::new();
    let rules = tables
        .into_iter()
        .filter_map(|(effect, (table, span))| {
            read_rule(effect, table, span, v3_refusal, &mut ids, problems)
        })
        .collect();
    let trials = file
        .tables("test", problems)
        .into_iter()
        .filter_map(|(table, span)| trial::read(table, span, problems))
        .collect();
    Document { v3_refusal, rules, trials }
}

fn read_defaults(file: &Fields<'_>, problems: &mut Found) -> V3Refusal {
    let Some((table, span)) = file.table("defaults", problems) else { return V3Refusal::default() };
    let fields = Fields::new(table, span, "[defaults]", &["v3_refusal"], problems);
    fields.choice("v3_refusal", &V3_REFUSALS, problems).unwrap_or_default()
}

fn read_rule(
    effect: Effect,
    table: &DeTable<'_>,
    span: Range<usize>,
    v3_default: V3Refusal,
    ids: &mut HashMap<String, usize>,
    problems: &mut Found,
) -> Option<Rule> {
    let name = match effect {
        Effect::Permit => "[[permit]]",
        Effect::Forbid => "[[forbid]]",
    };
    let fields = Fields::new(table, span, name, RULE_FIELDS, problems);
    let (id, line) = read_id(&fields, ids, problems)?;
    let publish = read_patterns("publish", &fields, problems).unwrap_or_default();
    let subscribe = read_patterns("subscribe", &fields, problems).unwrap_or_default();
    // What may be subscribed to may be received, unless the rule says otherwise.
    let receive = read_patterns("receive", &fields, problems).unwrap_or_else(|| subscribe.clone());
    let qos_max = fields.integer("qos_max", 0..=2, problems).unwrap_or(2);
    let qos_max = u8::try_from(qos_max).ok().and_then(QoS::from_bits);
    let rule = Rule {
        id,
        line,
        effect,
        who: read_who(&fields, problems),
        issuers: read_issuers(&fields, problems),
        roles: read_roles(&fields, problems),
        publish,
        subscribe,
        receive,
        client_id: read_client_id(&fields, problems),
        qos_max: qos_max.unwrap_or_default(),
        retain: fields.boolean("retain", problems).unwrap_or(false),
        clear_retained: fields.boolean("clear_retained", problems).unwrap_or(false),
        payload: fields.choice("schema", &SCHEMAS, problems).unwrap_or(PayloadRule::Schema),
        evidence: fields.choice("evidence", &EVIDENCE, problems).unwrap_or_default(),
        clock: fields.choice("clock", &CLOCKS, problems).unwrap_or_default(),
        v3_refusal: fields.choice("v3_refusal", &V3_REFUSALS, problems).unwrap_or(v3_default),
        receipt: fields.choice("receipt", &RECEIPTS, problems).unwrap_or_default(),
    };
    check_sense(&rule, &fields, problems);
    check_sys(&rule, &fields, problems);
    Some(rule)
}

fn read_id(
    fields: &Fields<'_>,
    ids: &mut HashMap<String, usize>,
    problems: &mut Found,
) -> Option<(RuleId, usize)> {
    let Some(id) = fields.string("id", problems) else {
        if fields.span_of("id").is_none() {
            fields.missing("id", problems);
        }
        return None;
    };
    let (span, id) = (id.span(), *id.get_ref());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&id.len()) || !id.bytes().all(plain) {
        problems.push(span, PolicyProblem::RuleId(id.to_owned()));
        return None;
    }
    let line = problems.line(span.start);
    if let Some(first) = ids.get(id) {
        let problem = PolicyProblem::DuplicateId { id: id.to_owned(), line: *first };
        problems.push(span, problem);
        return None;
    }
    ids.insert(id.to_owned(), line);
    Some((RuleId::new(id), line))
}

fn read_who(fields: &Fields<'_>, problems: &mut Found) -> Vec<Who> {
    let Some(texts) = fields.strings("who", problems) else {
        fields.missing("who", problems);
        return Vec::new();
    };
    if texts.is_empty() {
        problems.push(fields.span_of("who").unwrap_or_default(), PolicyProblem::Nobody);
    }
    let mut who = Vec::new();
    for text in texts {
        match Who::parse(text.get_ref()) {
            Ok(names) => who.push(names),
            Err(error) => problems.push(text.span(), error),
        }
    }
    who
}

fn read_issuers(fields: &Fields<'_>, problems: &mut Found) -> Vec<Box<str>> {
    let Some(texts) = fields.strings("issuer", problems) else { return Vec::new() };
    // An empty list would read as "none" and act as "any".
    if texts.is_empty() {
        problems.push(fields.span_of("issuer").unwrap_or_default(), PolicyProblem::Nobody);
    }
    texts.into_iter().map(|text| Box::from(*text.get_ref())).collect()
}

/// Roles that a token grants, one of which is needed.
fn read_roles(fields: &Fields<'_>, problems: &mut Found) -> Vec<Box<str>> {
    let before = problems.count();
    let texts = fields.strings("role", problems);
    // An empty list would read as "none" and act as "any".
    if texts.as_ref().is_some_and(Vec::is_empty) && problems.count() == before {
        problems.push(fields.span_of("role").unwrap_or_default(), PolicyProblem::NoTokenRole);
    }
    let mut roles = Vec::new();
    for text in texts.unwrap_or_default() {
        if is_grant_name(text.get_ref()) {
            roles.push(Box::from(*text.get_ref()));
        } else {
            problems.push(text.span(), PolicyProblem::TokenRole((*text.get_ref()).to_owned()));
        }
    }
    roles
}

fn read_client_id(fields: &Fields<'_>, problems: &mut Found) -> Option<ClientIdPattern> {
    let text = fields.string("client_id", problems)?;
    let pattern = ClientIdPattern::parse(text.get_ref());
    if pattern.is_none() {
        problems.push(text.span(), PolicyProblem::ClientId((*text.get_ref()).to_owned()));
    }
    pattern
}

fn read_patterns(
    field: &'static str,
    fields: &Fields<'_>,
    problems: &mut Found,
) -> Option<Vec<Pattern>> {
    let texts = fields.strings(field, problems)?;
    if let Some(text) = texts.get(PATTERNS_PER_RULE_MAX) {
        problems.push(text.span(), PolicyProblem::TooManyPatterns);
    }
    let mut patterns = Vec::new();
    for text in texts.iter().take(PATTERNS_PER_RULE_MAX) {
        if let Some(pattern) = read_pattern(field, text, fields, problems) {
            patterns.push(pattern);
        }
    }
    Some(patterns)
}

fn read_pattern(
    field: &'static str,
    text: &Spanned<&str>,
    fields: &Fields<'_>,
    problems: &mut Found,
) -> Option<Pattern> {
    let pattern = match Pattern::parse(text.get_ref()) {
        Ok(pattern) => pattern,
        Err(error) => {
            problems.push(text.span(), error);
            return None;
        }
    };
    if field == "publish"
        && pattern.as_str().starts_with('$')
        && !pattern.as_str().starts_with("${")
    {
        let problem = PolicyProblem::PublishReserved(pattern.as_str().to_owned());
        problems.push(text.span(), problem);
        return None;
    }
    if is_receipts(pattern.as_str()) {
        problems.push(text.span(), PolicyProblem::Receipts(pattern.as_str().to_owned()));
        return None;
    }
    if pattern.uses(&Variable::ClientId) {
        // Wrong types are reported where the field itself is read.
        let mut unheard = Found::of("", "");
        let client_id = fields.string("client_id", &mut unheard);
        let bound = client_id.and_then(|text| ClientIdPattern::parse(text.get_ref()));
        if !bound.as_ref().is_some_and(ClientIdPattern::binds) {
            let bound = bound.map(|pattern| pattern.as_str().to_owned());
            problems.push(text.span(), PolicyProblem::UnboundClientId { bound });
        }
    }
    Some(pattern)
}

/// What no rule may permit: devices do not read what the broker says of itself.
fn check_sys(rule: &Rule, fields: &Fields<'_>, problems: &mut Found) {
    if rule.effect == Effect::Forbid || !rule.who.iter().any(|who| who.role() == Role::Device) {
        return;
    }
    for (field, patterns) in [("subscribe", &rule.subscribe), ("receive", &rule.receive)] {
        let is_sys = |pattern: &&Pattern| pattern.as_str().split('/').next() == Some("$SYS");
        if let Some(pattern) = patterns.iter().find(is_sys) {
            let problem = PolicyProblem::DeviceReadsSys(pattern.as_str().to_owned());
            problems.push(fields.span_of(field).unwrap_or_default(), problem);
        }
    }
}

/// Fields that would look as if they did something.
fn check_sense(rule: &Rule, fields: &Fields<'_>, problems: &mut Found) {
    let topics = !(rule.publish.is_empty() && rule.subscribe.is_empty() && rule.receive.is_empty());
    let asks = ["publish", "subscribe", "receive", "client_id"];
    if asks.iter().all(|field| fields.span_of(field).is_none()) {
        problems.push(fields.span(), PolicyProblem::Nothing);
    }
    if rule.effect == Effect::Forbid && rule.client_id.is_some() && topics {
        let span = fields.span_of("client_id").unwrap_or_default();
        problems.push(span, PolicyProblem::ForbidByClientId);
    }
    let publishes = fields.span_of("publish").is_some();
    let subscribes = fields.span_of("subscribe").is_some();
    let forbids = rule.effect == Effect::Forbid;
    let limits = [("qos_max", publishes || subscribes), ("retain", publishes)];
    let more = [("clear_retained", publishes), ("schema", publishes)];
    let proof = [("evidence", publishes), ("clock", publishes), ("receipt", publishes)];
    for (field, has_effect) in limits.into_iter().chain(more).chain(proof) {
        let Some(span) = fields.span_of(field) else { continue };
        if forbids {
            let why = "a forbid rule forbids in every manner";
            problems.push(span, PolicyProblem::NoEffect { field, why });
        } else if !has_effect {
            let why = "it permits nothing that the field limits";
            problems.push(span, PolicyProblem::NoEffect { field, why });
        }
    }
    if let (Some(span), false) = (fields.span_of("v3_refusal"), publishes) {
        let why = "it says nothing about publishing";
        problems.push(span, PolicyProblem::NoEffect { field: "v3_refusal", why });
    }
}

//! The policy's own tests: `[[test]]` blocks.

use std::ops::Range;

use toml::de::DeTable;

use super::Policy;
use super::decide::{Operation, Subject};
use super::document::EVIDENCE;
use super::explain::{Decision, Query};
use super::problem::PolicyProblem;
use super::rule::EvidenceRule;
use crate::identity::grants::GrantsError;
use crate::identity::{Grants, Identity, Role};
use crate::mqtt::{ClientId, QoS};
use crate::refusal::Refused;
use crate::source::{FieldProblem, Fields, Problems};

/// One question and the answer that is expected.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    span: Range<usize>,
    identity: Identity,
    client_id: String,
    grants: Grants,
    question: Question,
    expect: Decision,
    rule: Option<String>,
    evidence: Option<EvidenceRule>,
}

#[derive(Clone, Debug)]
enum Question {
    Topic { operation: Operation, topic: String, qos: QoS, retain: bool, clear: bool },
    ClientId,
}

const FIELDS: &[&str] = &[
    "who",
    "issuer",
    "role",
    "vars",
    "client_id",
    "publish",
    "subscribe",
    "receive",
    "qos",
    "retain",
    "clear",
    "expect",
    "rule",
    "evidence",
];

/// Reads one `[[test]]`.
pub(super) fn read(
    table: &DeTable<'_>,
    span: Range<usize>,
    problems: &mut Problems<PolicyProblem>,
) -> Option<Trial> {
    let fields = Fields::new(table, span.clone(), "[[test]]", FIELDS, problems);
    let identity = read_identity(&fields, problems);
    let grants = read_grants(&fields, problems);
    let client_id = fields.string("client_id", problems).map(|text| (*text.get_ref()).to_owned());
    let asked: Vec<_> = Operation::ALL
        .into_iter()
        .filter_map(|operation| Some((operation, fields.string(operation.as_str(), problems)?)))
        .collect();
    let qos = fields.integer("qos", 0..=2, problems).unwrap_or(0);
    let qos = u8::try_from(qos).ok().and_then(QoS::from_bits).unwrap_or_default();
    let retain = fields.boolean("retain", problems).unwrap_or(false);
    let clear = fields.boolean("clear", problems).unwrap_or(false);
    let question = match (asked.as_slice(), &client_id) {
        ([(operation, topic)], _) => {
            let topic = (*topic.get_ref()).to_owned();
            Question::Topic { operation: *operation, topic, qos, retain, clear }
        }
        ([], Some(_)) => Question::ClientId,
        _ => {
            problems.push(span, PolicyProblem::TestQuestion);
            return None;
        }
    };
    let expectations = [("allow", Decision::Allow), ("deny", Decision::Deny)];
    if fields.span_of("expect").is_none() {
        fields.missing("expect", problems);
    }
    let expect = fields.choice("expect", &expectations, problems)?;
    let rule = fields.string("rule", problems).map(|text| (*text.get_ref()).to_owned());
    let evidence = fields.choice("evidence", &EVIDENCE, problems);
    let asks_publish = asked.iter().any(|(operation, _)| *operation == Operation::Publish);
    if let (Some(span), false) = (fields.span_of("evidence"), asks_publish) {
        let why = "only a publish comes with evidence";
        problems.push(span, PolicyProblem::NoEffect { field: "evidence", why });
    }
    let identity = identity?;
    let client_id = client_id.unwrap_or_else(|| identity.name().to_owned());
    Some(Trial { span, identity, client_id, grants, question, expect, rule, evidence })
}

fn read_identity(fields: &Fields<'_>, problems: &mut Problems<PolicyProblem>) -> Option<Identity> {
    let issuer = fields.string("issuer", problems);
    let issuer = issuer.as_ref().map_or("test", |issuer| issuer.get_ref());
    let Some(who) = fields.string("who", problems) else {
        if fields.span_of("who").is_none() {
            fields.missing("who", problems);
        }
        return None;
    };
    let identity = who.get_ref().split_once('/').and_then(|(role, name)| {
        Identity::new("policy.test", Role::parse(role)?, name, issuer).ok()
    });
    if identity.is_none() {
        problems.push(who.span(), PolicyProblem::TestWho((*who.get_ref()).to_owned()));
    }
    identity
}

/// What the identity's token grants: `role = ["viewer"]`, `vars = { plant = "3" }`.
fn read_grants(fields: &Fields<'_>, problems: &mut Problems<PolicyProblem>) -> Grants {
    let roles = fields.strings("role", problems).unwrap_or_default();
    let mut variables = Vec::new();
    let table = fields.table("vars", problems);
    for (name, value) in table.iter().flat_map(|(table, _)| table.iter()) {
        match value.get_ref().as_str() {
            Some(text) => variables.push((name.get_ref().as_ref(), text)),
            None => {
                let (field, expected, example) =
                    ("vars", "a table of strings", "{ plant = \"3\" }");
                let found = value.get_ref().type_str();
                let wrong = FieldProblem::Type { field, expected, found, example };
                problems.push(value.span(), wrong);
            }
        }
    }
    let roles = roles.iter().map(|role| *role.get_ref());
    Grants::new(roles, variables).unwrap_or_else(|error| {
        let at = if error == GrantsError::Roles { "role" } else { "vars" };
        problems.push(fields.span_of(at).unwrap_or_default(), error);
        Grants::default()
    })
}

impl Trial {
    /// Asks `policy`; another answer than the expected one is a problem.
    pub(super) fn run(&self, policy: &Policy, problems: &mut Problems<PolicyProblem>) {
        let mut level = None;
        let (decided, rule, help) = match &self.question {
            Question::ClientId => self.ask_client_id(policy),
            Question::Topic { operation, topic, qos, retain, clear } => {
                let client_id = ClientId::new(&self.client_id);
                let explanation = policy.explain_query(&Query {
                    identity: &self.identity,
                    client_id: &client_id,
                    grants: &self.grants,
                    operation: *operation,
                    topic,
                    qos: *qos,
                    retain: *retain || *clear,
                    clear: *clear,
                });
                level = explanation.evidence;
                let rule = explanation.rule.as_ref().map(|site| site.id.as_str().to_owned());
                (explanation.decision, rule, explanation.reason)
            }
        };
        let ruled = self.rule.is_none() || self.rule == rule;
        let wanted = self.evidence.map(EvidenceRule::as_str);
        let proven = wanted.is_none() || wanted == level;
        if decided == self.expect && ruled && proven {
            return;
        }
        let level = level.filter(|_| wanted.is_some());
        let problem = PolicyProblem::TestFailed {
            expected: said(self.expect, self.rule.as_deref(), wanted),
            decided: said(decided, rule.as_deref(), level),
            help,
        };
        problems.push(self.span.clone(), problem);
    }

    fn ask_client_id(&self, policy: &Policy) -> (Decision, Option<String>, String) {
        let subject =
            Subject { identity: &self.identity, client_id: &self.client_id, grants: &self.grants };
        match policy.index.judge_client_id(&subject).permitted() {
            Ok(rule) => {
                let help = format!("`{}` permits this client id", rule.id);
                (Decision::Allow, Some(rule.id.as_str().to_owned()), help)
            }
            Err(Refused { by: Some(rule), .. }) => {
                (Decision::Deny, Some(rule.to_string()), format!("`{rule}` forbids this client id"))
            }
            Err(Refused { by: None, .. }) => {
                (Decision::Deny, None, "no rule permits this client id".to_owned())
            }
        }
    }
}

fn said(decision: Decision, rule: Option<&str>, evidence: Option<&str>) -> String {
    let mut text = match rule {
        Some(rule) => format!("`{decision}` by `{rule}`"),
        None => format!("`{decision}`"),
    };
    if let Some(evidence) = evidence {
        text.push_str(&format!(" with evidence `{evidence}`"));
    }
    text
}

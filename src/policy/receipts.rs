//! `$receipts/<name>/<client id>`: the one part of the topics that no policy file speaks of.
//!
//! Each identity may read what is below its own name there, and nobody else can be given it or kept
//! from it: a receipt is a promise to whoever published. The broker alone writes there, as to all
//! `$` topics. Names of different roles can be equal, so that who a receipt goes to is decided by
//! the identity where it is sent, and this is only the second lock. The invariant: for a topic that
//! begins so, no rule of a file is asked.

use super::pattern::Pattern;
use super::rule::{
    ClockRule, Effect, EvidenceRule, PayloadRule, ReceiptRule, Rule, RuleId, V3Refusal,
};
use super::who::Who;
use crate::identity::Role;
use crate::mqtt::QoS;

/// The first level of the topics of receipts.
pub const RECEIPTS_ROOT: &str = "$receipts";

/// Whom it permits what: the identity's own name, and any of its Client Identifiers.
const PATTERN: &str = "$receipts/${device}/+";

/// Whether `topic`, a Topic Name or a Topic Filter without its share prefix, is one of receipts.
pub(super) fn is_receipts(topic: &str) -> bool {
    topic.split('/').next() == Some(RECEIPTS_ROOT)
}

/// The rule that holds there. It stands on no line.
pub(super) fn rule() -> Rule {
    let own: Vec<Pattern> = Pattern::parse(PATTERN).into_iter().collect();
    Rule {
        id: RuleId::new("receipts"),
        line: 0,
        effect: Effect::Permit,
        who: Role::ALL.map(Who::all).into(),
        issuers: Vec::new(),
        roles: Vec::new(),
        publish: Vec::new(),
        subscribe: own.clone(),
        receive: own,
        client_id: None,
        qos_max: QoS::ExactlyOnce,
        retain: false,
        clear_retained: false,
        payload: PayloadRule::None,
        evidence: EvidenceRule::default(),
        clock: ClockRule::default(),
        v3_refusal: V3Refusal::Close,
        receipt: ReceiptRule::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::mqtt::{ClientId, ProtocolVersion, TopicFilter, TopicName};
    use crate::policy::{Decision, Operation, Policy};
    use crate::refusal::Refusal;
    use crate::session::Author;

    fn policy(rules: &str) -> Result<Policy, String> {
        let text = format!("version = 1\n[[permit]]\nid='a'\nwho=['device','operator']\n{rules}\n");
        Policy::parse("policy.toml", &text).map_err(|error| error.plain())
    }

    fn author(role: Role, name: &str) -> Author {
        let identity = Identity::new("plant.example", role, name, "plant").unwrap();
        Author::new(identity, ClientId::new("any"), ProtocolVersion::V5)
    }

    #[test]
    fn each_identity_reads_what_is_below_its_own_name_and_nobody_else_does() {
        let policy = policy("subscribe=['#','+/+/+']\nqos_max=0").unwrap();
        let may = |role, name, filter: &str| {
            let filter = TopicFilter::parse(filter).unwrap();
            policy.may_subscribe(&author(role, name), &filter).map_err(|refused| refused.refusal)
        };
        for role in Role::ALL {
            for filter in ["$receipts/press-7/x", "$receipts/press-7/+"] {
                assert_eq!(may(role, "press-7", filter).unwrap().rule.as_str(), "receipts");
                assert_eq!(may(role, "press-8", filter), Err(Refusal::NoRule));
            }
        }
        for wider in [
            "$receipts/#",
            "$receipts/+/+",
            "$receipts/+/x",
            "$receipts/press-7",
            "$receipts/press-7/#",
            "$receipts/press-7/x/y",
            "$share/g/$receipts/press-7/x",
        ] {
            let refused = may(Role::Device, "press-7", wider);
            assert_eq!(refused, Err(Refusal::NoRule), "{wider}");
        }
        let receives = |name| {
            let topic = TopicName::parse("$receipts/press-7/x").unwrap();
            policy.may_receive(&author(Role::Operator, name), &topic).is_ok()
        };
        assert!(receives("press-7") && !receives("press-8"));
    }

    #[test]
    fn no_rule_speaks_of_receipts() {
        for rules in ["subscribe=['$receipts/#']", "receive=['$receipts/${device}/+']"] {
            let found = policy(rules).unwrap_err();
            assert!(found.contains("no rule says who reads those"), "{found}");
            assert!(found.contains("policy.toml:5:"), "{found}");
        }
        let found = policy("publish=['$receipts/x']").unwrap_err();
        assert!(found.contains("would permit clients to publish"), "{found}");
    }

    #[test]
    fn what_is_built_in_is_explained_as_such() {
        let policy = policy("publish=['x']\nschema='none'\nreceipt='topic'").unwrap();
        let press = author(Role::Device, "press-7");
        let explain = |topic| {
            policy.explain(press.identity(), Operation::Subscribe, topic, QoS::AtMostOnce, false)
        };
        let own = explain("$receipts/press-7/x");
        assert_eq!(own.decision, Decision::Allow);
        assert_eq!(own.reason, "`receipts` (built in) permits it");
        assert_eq!(explain("$receipts/press-8/x").decision, Decision::Deny);
        assert_eq!(explain("$share/g/$receipts/press-7/x").decision, Decision::Deny);
    }

    #[test]
    fn a_receipt_is_for_rules_that_let_publish() {
        let found = policy("subscribe=['x']\nreceipt='topic'").unwrap_err();
        assert!(found.contains("`receipt` has no effect"), "{found}");
        let found = policy("publish=['x']\nreceipt='mail'").unwrap_err();
        assert!(found.contains("properties"), "{found}");
    }
}

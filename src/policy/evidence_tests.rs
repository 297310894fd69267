//! What rules say of evidence.

use super::*;
use crate::identity::{Identity, Role};
use crate::mqtt::QoS;

const POLICY: &str = r#"version = 1
[[permit]]
id = "signed"
who = ["device"]
publish = ["a/#"]
qos_max = 1
evidence = "signed"
[[permit]]
id = "plain"
who = ["device"]
publish = ["a/#", "b"]
"#;

fn explained(policy: &Policy, topic: &str, qos: QoS) -> Option<&'static str> {
    let press = Identity::new("p", Role::Device, "press-7", "i").unwrap();
    policy.explain(&press, Operation::Publish, topic, qos, false).evidence
}

#[test]
fn the_rule_that_permits_says_which_level_it_wants() {
    let policy = Policy::parse("policy.toml", POLICY).unwrap();
    assert_eq!(explained(&policy, "a/x", QoS::AtLeastOnce), Some("signed"));
    assert_eq!(explained(&policy, "a/x", QoS::ExactlyOnce), Some("asserted"));
    assert_eq!(explained(&policy, "b", QoS::AtMostOnce), Some("asserted"));
    assert_eq!(explained(&policy, "c", QoS::AtMostOnce), None);
    let press = Identity::new("p", Role::Device, "press-7", "i").unwrap();
    let shown = policy.explain(&press, Operation::Publish, "a/x", QoS::AtMostOnce, false);
    assert!(shown.to_string().contains("\n  evidence: signed\n"), "{shown}");
}

#[test]
fn a_test_may_ask_for_the_level() {
    let with = |expect: &str| {
        let test = "[[test]]\nwho = \"device/a\"\npublish = \"a/x\"\nexpect = \"allow\"\n";
        Policy::parse("policy.toml", &format!("{POLICY}{test}evidence = \"{expect}\"\n"))
    };
    assert!(with("signed").is_ok());
    let failed = with("asserted").unwrap_err().plain();
    assert!(failed.contains("by `signed` with evidence `signed`"), "{failed}");
    assert!(failed.contains("`allow` with evidence `asserted`"), "{failed}");
}

#[test]
fn what_is_no_level_or_says_nothing_is_a_problem_of_the_file() {
    let text = r#"version = 1
[[permit]]
id = "one"
who = ["device"]
publish = ["a"]
evidence = "sworn"
clock = "ignore"
[[permit]]
id = "two"
who = ["device"]
subscribe = ["a"]
evidence = "signed"
[[forbid]]
id = "three"
who = ["device"]
publish = ["b"]
clock = "refuse"
[[test]]
who = "device/a"
subscribe = "a"
expect = "allow"
evidence = "signed"
"#;
    let found = Policy::parse("policy.toml", text).unwrap_err().plain();
    insta::assert_snapshot!(found, @r#"
    policy.toml:6:12: `evidence` cannot be `sworn`
        help: choose one of `asserted`, `batched`, `signed`
    policy.toml:7:9: `clock` cannot be `ignore`
        help: choose one of `flag`, `refuse`
    policy.toml:12:12: `evidence` has no effect in this rule: it permits nothing that the field limits
        help: take `evidence` out
    policy.toml:17:9: `clock` has no effect in this rule: a forbid rule forbids in every manner
        help: take `clock` out
    policy.toml:22:12: `evidence` has no effect in this rule: only a publish comes with evidence
        help: take `evidence` out
    "#);
}

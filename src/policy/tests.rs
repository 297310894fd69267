use super::*;
use crate::identity::{Grants, Identity, Role};
use crate::mqtt::{
    ClientId, ProtocolVersion, Publish, PublishProperties, QoS, TopicFilter, TopicName,
};
use crate::refusal::Refusal;
use crate::session::{Author, Received};
use proptest::prelude::*;

const SHIPPED: &str = include_str!("../../config/policy.toml");

fn policy(rules: &str) -> Policy {
    let text = format!("version = 1\n{rules}");
    Policy::parse("policy.toml", &text).unwrap_or_else(|error| panic!("{}", error.plain()))
}

fn wrong(text: &str) -> String {
    Policy::parse("policy.toml", text).unwrap_err().plain()
}

fn identity(who: &str) -> Identity {
    let (role, name) = who.split_once('/').unwrap();
    Identity::new("plant.example", Role::parse(role).unwrap(), name, "plant").unwrap()
}

fn author(who: &str, client_id: &str) -> Author {
    Author::new(identity(who), ClientId::new(client_id), ProtocolVersion::V5)
}

fn received(author: &Author, topic: &str, qos: QoS, retain: bool, payload: &str) -> Received {
    let topic = TopicName::parse(topic).unwrap();
    let publish = Publish {
        dup: false,
        qos,
        retain,
        topic: Some(topic.clone()),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: payload.to_owned().into(),
    };
    Received::new(author.clone(), topic, Box::new(publish))
}

fn publish(policy: &Policy, who: &str, topic: &str) -> Result<String, Refusal> {
    let author = author(who, who.split_once('/').unwrap().1);
    match policy.authorize(received(&author, topic, QoS::AtMostOnce, false, "x")) {
        Ok(authorized) => Ok(authorized.rule().to_string()),
        Err((_, refused)) => Err(refused.refusal),
    }
}

fn subscribe(policy: &Policy, who: &str, filter: &str) -> Result<String, Refusal> {
    let filter = TopicFilter::parse(filter).unwrap();
    match policy.may_subscribe(&author(who, "x"), &filter) {
        Ok(permit) => Ok(permit.rule.to_string()),
        Err(refused) => Err(refused.refusal),
    }
}

fn receive(policy: &Policy, who: &str, topic: &str) -> Result<String, Refusal> {
    let topic = TopicName::parse(topic).unwrap();
    match policy.may_receive(&author(who, "x"), &topic) {
        Ok(rule) => Ok(rule.to_string()),
        Err(refused) => Err(refused.refusal),
    }
}

#[test]
fn the_shipped_policy_loads_and_passes_its_own_tests() {
    let shipped = Policy::parse("config/policy.toml", SHIPPED);
    let shipped = shipped.unwrap_or_else(|error| panic!("{}", error.plain()));
    assert_eq!(shipped.rule_count(), 12);
    let telemetry = publish(&shipped, "device/press-7", "plant/press-7/telemetry/t");
    assert_eq!(telemetry, Ok("device-telemetry".to_owned()));
}

#[test]
fn c14_an_empty_policy_denies_everything() {
    for text in ["", "\n# nothing\n", "version = 1\n"] {
        let empty = Policy::parse("policy.toml", text).unwrap();
        assert_eq!(publish(&empty, "operator/alice", "a"), Err(Refusal::NoRule));
        assert_eq!(subscribe(&empty, "operator/alice", "#"), Err(Refusal::NoRule));
        assert_eq!(receive(&empty, "operator/alice", "a"), Err(Refusal::NoRule));
        let refused = empty.may_use_client_id(&author("operator/alice", "alice"));
        assert_eq!(refused.unwrap_err().refusal, Refusal::ClientIdNotPermitted);
    }
}

#[test]
fn c14_a_malformed_line_is_an_error_and_permits_nothing() {
    for text in [
        "version = 1\n[[permit]\nid = \"a\"",
        "version = 1\npermit everything",
        "version = 1\n[[permit]]\nid = \"a\"\nwho = [\"device\"]\npublish = \"#\"",
        "version = 2",
        "[[permit]]\nid = \"a\"\nwho = [\"device\"]\npublish = [\"#\"]",
        "version = 1\n[[permit]]\nid = \"a\"\nwho = []\npublish = [\"#\"]",
        "version = 1\n[[permit]]\nid = \"a\"\nwho = [\"device\"]\nissuer = []\npublish = [\"#\"]",
    ] {
        assert!(Policy::parse("policy.toml", text).is_err(), "{text}");
    }
}

#[test]
fn every_problem_is_found_at_once_with_its_place_and_fix() {
    let text = r##"version = 1
[[permit]]
id = "one"
who = ["devise"]
publsh = ["a/#"]
publish = ["a/#/b", "$SYS/x", "a/x-${device}"]

[[permit]]
id = "one"
who = ["device"]
subscribe = ["a"]
retain = true

[[forbid]]
id = "two"
who = ["device"]
publish = ["b"]
qos_max = 1
"##;
    insta::assert_snapshot!(wrong(text), @r"
policy.toml:4:8: `devise` is not a role
    help: the roles are device, dashboard, operator, auditor; a name follows as `device/name`
policy.toml:5:1: unknown field `publsh` in [[permit]]
    help: did you mean `publish`?
policy.toml:6:12: `a/#/b` is not a topic pattern: `#` must be the last level and stand alone in it
    help: write levels between slashes; `+` and a last `#` stand alone in theirs
policy.toml:6:21: `$SYS/x` would permit clients to publish to the broker's own topics
    help: topics that begin with `$` are written by the broker only
policy.toml:6:31: in `x-${device}` a variable fills only a part of the level
    help: give the variable a level of its own, as in `plant/${device}/status`; in a part of a level, the names `a` and `ab` could not be told apart
policy.toml:9:6: the id `one` is taken by the rule on line 3
    help: ids name rules in the log: give this one another id
policy.toml:18:11: `qos_max` has no effect in this rule: a forbid rule forbids in every manner
    help: take `qos_max` out
");
}

#[test]
fn a_problem_can_be_drawn_with_a_caret() {
    let error = Policy::parse("policy.toml", "version = 1\n[[permit]]\nid = \"A\"\n").unwrap_err();
    let found = error.iter().next().unwrap();
    assert_eq!((found.file(), found.line(), found.column()), ("policy.toml", 3, 6));
    let mut drawn = String::new();
    let theme = miette::GraphicalTheme::none();
    miette::GraphicalReportHandler::new_themed(theme).render_report(&mut drawn, &error).unwrap();
    assert!(drawn.contains("[policy.toml:3:6]"), "{drawn}");
    assert!(drawn.contains("^^^"), "{drawn}");
}

#[test]
fn c11_the_rule_sees_the_topic_that_is_routed() {
    // An alias is resolved before: the rules never see the packet's own, absent topic.
    let rules = policy("[[permit]]\nid='a'\nwho=['device']\npublish=['ok']\nschema='none'");
    let author = author("device/d", "d");
    let mut message = received(&author, "ok", QoS::AtMostOnce, false, "x").publish().clone();
    message.topic = None;
    let other = TopicName::parse("other").unwrap();
    let refused = rules.authorize(Received::new(author, other, Box::new(message)));
    assert_eq!(refused.unwrap_err().1.refusal, Refusal::NoRule);
}

#[test]
fn c12_an_empty_level_is_matched_as_any_other() {
    let rules = policy("[[permit]]\nid='a'\nwho=['device']\npublish=['a/+']\nschema='none'");
    assert!(publish(&rules, "device/d", "a/").is_ok());
    assert_eq!(publish(&rules, "device/d", "a"), Err(Refusal::NoRule));
}

#[test]
fn c13_a_share_prefix_is_not_part_of_what_is_judged() {
    let rules = policy("[[permit]]\nid='a'\nwho=['dashboard']\nsubscribe=['a/#']");
    assert!(subscribe(&rules, "dashboard/d", "$share/g/a/b").is_ok());
    assert_eq!(subscribe(&rules, "dashboard/d", "$share/g/b"), Err(Refusal::NoRule));
    assert_eq!(subscribe(&rules, "dashboard/d", "$share/g/#"), Err(Refusal::NoRule));
    assert!(
        wrong("version=1\n[[permit]]\nid='a'\nwho=['device']\nsubscribe=['$share/g/a']")
            .contains("no `$share")
    );
}

#[test]
fn c03_nobody_publishes_to_dollar_topics() {
    let rules = policy("[[permit]]\nid='a'\nwho=['operator']\npublish=['#','+/x']\nschema='none'");
    for topic in ["$SYS/x", "$quarantine/a/b", "$receipts/x", "$anything", "$"] {
        assert_eq!(publish(&rules, "operator/o", topic), Err(Refusal::ReservedTopic), "{topic}");
    }
}

#[test]
fn c03_wildcards_do_not_reach_dollar_topics() {
    let rules = policy("[[permit]]\nid='a'\nwho=['dashboard']\nsubscribe=['#','+/+']");
    assert_eq!(subscribe(&rules, "dashboard/d", "$SYS/#"), Err(Refusal::NoRule));
    assert_eq!(receive(&rules, "dashboard/d", "$SYS/x"), Err(Refusal::NoRule));
    assert_eq!(receive(&rules, "dashboard/d", "$quarantine/s/a"), Err(Refusal::NoRule));
}

#[test]
fn no_rule_lets_devices_read_what_the_broker_says_of_itself() {
    let rule = |effect: &str, who: &str, field: &str| {
        format!("version=1\n[[{effect}]]\nid='a'\nwho=[{who}]\n{field}=['a', '$SYS/#']")
    };
    for field in ["subscribe", "receive"] {
        for who in ["'device'", "'operator', 'device/press-*'"] {
            let found = wrong(&rule("permit", who, field));
            assert!(found.contains("would permit devices to read"), "{found}");
            assert!(Policy::parse("policy.toml", &rule("forbid", who, field)).is_ok());
        }
        let others = rule("permit", "'operator', 'dashboard'", field);
        assert!(Policy::parse("policy.toml", &others).is_ok());
    }
    // A pattern that takes its first level from the client cannot come to it either.
    let text = "version=1\n[[permit]]\nid='a'\nwho=['device']\nclient_id='${device}'\n\
                subscribe=['${client_id}/#','#','+/#']";
    let rules = Policy::parse("policy.toml", text).unwrap();
    assert_eq!(receive(&rules, "device/d", "$SYS/broker/uptime"), Err(Refusal::NoRule));
}

#[test]
fn c01_a_wildcard_as_client_id_reaches_nothing() {
    let rules = policy(
        "[[permit]]\nid='a'\nwho=['device']\nclient_id='${device}:*'\n\
         subscribe=['in/${client_id}/#']\npublish=['out/${client_id}']\nschema='none'",
    );
    for id in ["#", "+", "d:#", "d:+", "d:/x", "d:a/b"] {
        let author = author("device/d", id);
        for filter in ["in/#", "in/+/#", "in/d/#", "in/other/#", "#", "in/d:a/b/#"] {
            let filter = TopicFilter::parse(filter).unwrap();
            assert!(rules.may_subscribe(&author, &filter).is_err(), "{id} {filter}");
        }
        for topic in ["in/x/y", "in/d/x", "in/d:a/b"] {
            let topic = TopicName::parse(topic).unwrap();
            assert!(rules.may_receive(&author, &topic).is_err(), "{id} {topic}");
        }
    }
    let author = author("device/d", "d:a");
    assert!(rules.may_subscribe(&author, &TopicFilter::parse("in/d:a/#").unwrap()).is_ok());
}

#[test]
fn c01_a_client_id_in_a_topic_must_be_bound_to_the_identity() {
    let rule = |binding: &str| {
        format!(
            "version=1\n[[permit]]\nid='a'\nwho=['device']\n{binding}\n\
             subscribe=['x/${{client_id}}']"
        )
    };
    assert!(wrong(&rule("")).contains("does not bind"));
    assert!(wrong(&rule("client_id='*'")).contains("does not bind"));
    assert!(wrong(&rule("client_id='${device}*'")).contains("`press-10`"));
    assert!(Policy::parse("p", &rule("client_id='${device}'")).is_ok());
    assert!(Policy::parse("p", &rule("client_id='${device}:*'")).is_ok());
}

#[test]
fn client_ids_are_permitted_and_forbidden_by_rules() {
    let rules = policy(
        "[[permit]]\nid='ids'\nwho=['device']\nclient_id='${device}*'\n\
         [[forbid]]\nid='old'\nwho=['device']\nclient_id='${device}-old'",
    );
    let ask = |who: &str, id: &str| rules.may_use_client_id(&author(who, id)).cloned();
    assert_eq!(ask("device/d", "d1").unwrap().as_str(), "ids");
    let refused = ask("device/d", "d-old").unwrap_err();
    assert_eq!(refused.refusal, Refusal::ClientIdNotPermitted);
    assert_eq!(refused.by.as_deref(), Some("old"));
    assert!(ask("device/d", "x").is_err());
    assert!(ask("device/d", "").is_err());
    assert!(ask("operator/d", "d").is_err());
}

#[test]
fn forbid_wins_and_subscribe_speaks_for_receive() {
    let rules = policy(
        "[[permit]]\nid='all'\nwho=['dashboard']\nsubscribe=['plant/#']\n\
         [[forbid]]\nid='not'\nwho=['dashboard/guest-*']\nsubscribe=['plant/+/secret/#']\n\
         [[permit]]\nid='quiet'\nwho=['dashboard']\nsubscribe=['quiet/#']\nreceive=[]",
    );
    assert!(subscribe(&rules, "dashboard/guest-1", "plant/#").is_ok());
    assert_eq!(subscribe(&rules, "dashboard/guest-1", "plant/a/secret/x"), Err(Refusal::Forbidden));
    assert_eq!(receive(&rules, "dashboard/guest-1", "plant/a/secret/x"), Err(Refusal::Forbidden));
    assert!(receive(&rules, "dashboard/guest-1", "plant/a/public").is_ok());
    assert!(receive(&rules, "dashboard/staff", "plant/a/secret/x").is_ok());
    assert!(subscribe(&rules, "dashboard/staff", "quiet/#").is_ok());
    assert_eq!(receive(&rules, "dashboard/staff", "quiet/x"), Err(Refusal::NoRule));
}

#[test]
fn qos_retain_and_clearing_have_permissions_of_their_own() {
    let rules = policy(
        "[[permit]]\nid='low'\nwho=['device']\npublish=['t']\nqos_max=0\nschema='opaque'\n\
         [[permit]]\nid='kept'\nwho=['device']\npublish=['t']\nqos_max=1\nretain=true\n\
         schema='none'\n\
         [[permit]]\nid='wipe'\nwho=['device']\npublish=['w']\nclear_retained=true\n\
         v3_refusal='drop'",
    );
    let author = author("device/d", "d");
    let ask = |topic: &str, qos, retain, payload: &str| {
        let authorized = rules.authorize(received(&author, topic, qos, retain, payload));
        authorized.map(|a| a.rule().to_string()).map_err(|(_, refused)| refused.refusal)
    };
    assert_eq!(ask("t", QoS::AtMostOnce, false, "x"), Ok("low".to_owned()));
    assert_eq!(ask("t", QoS::AtLeastOnce, false, "x"), Ok("kept".to_owned()));
    assert_eq!(ask("t", QoS::AtMostOnce, true, "x"), Ok("kept".to_owned()));
    assert_eq!(ask("t", QoS::ExactlyOnce, false, "x"), Err(Refusal::QosNotPermitted));
    assert_eq!(ask("t", QoS::AtMostOnce, true, ""), Err(Refusal::ClearNotPermitted));
    assert_eq!(ask("t", QoS::AtMostOnce, false, ""), Ok("low".to_owned()));
    assert_eq!(ask("w", QoS::AtMostOnce, true, ""), Ok("wipe".to_owned()));
    assert_eq!(ask("w", QoS::AtMostOnce, true, "x"), Err(Refusal::RetainNotPermitted));
    let topic = |text| TopicName::parse(text).unwrap();
    assert_eq!(rules.v3_refusal_for(&author, &topic("w")), V3Refusal::Drop);
    assert_eq!(rules.v3_refusal_for(&author, &topic("unknown")), V3Refusal::Close);
}

#[test]
fn an_issuer_narrows_a_rule() {
    let rules =
        policy("[[permit]]\nid='a'\nwho=['device']\nissuer=['maker']\nsubscribe=['${issuer}/#']");
    let maker = Identity::new("plant.example", Role::Device, "d", "maker").unwrap();
    let maker = Author::new(maker, ClientId::new("d"), ProtocolVersion::V3_1);
    assert!(rules.may_subscribe(&maker, &TopicFilter::parse("maker/#").unwrap()).is_ok());
    assert_eq!(subscribe(&rules, "device/d", "plant/#"), Err(Refusal::NoRule));
    assert_eq!(subscribe(&rules, "device/d", "maker/#"), Err(Refusal::NoRule));
}

#[test]
fn a_failing_test_keeps_the_policy_from_loading() {
    let text = "version = 1\n\n[[permit]]\nid = 'a'\nwho = ['device']\nsubscribe = ['a/#']\n\n\
                [[test]]\nwho = 'device/d'\nsubscribe = 'a/b'\nexpect = 'deny'\n\n\
                [[test]]\nwho = 'device/d'\nsubscribe = 'b'\nexpect = 'allow'\n\n\
                [[test]]\nwho = 'device/d'\nsubscribe = 'a'\nexpect = 'allow'\nrule = 'z'\n";
    insta::assert_snapshot!(wrong(text), @r"
policy.toml:8:1: this test expects `deny`, the rules say `allow` by `a`
    help: `a` (policy.toml:4) permits it
policy.toml:13:1: this test expects `allow`, the rules say `deny`
    help: no rule permits it
policy.toml:18:1: this test expects `allow` by `z`, the rules say `allow` by `a`
    help: `a` (policy.toml:4) permits it
");
}

#[test]
fn an_explanation_names_the_rule_its_line_and_the_closest_miss() {
    let shipped = Policy::parse("policy.toml", SHIPPED).unwrap();
    let press = identity("device/press-7");
    let explain = |topic, qos| shipped.explain(&press, Operation::Publish, topic, qos, false);
    let told = explain("plant/press-8/telemetry/t", QoS::AtLeastOnce);
    assert_eq!(told.decision, Decision::Deny);
    insta::assert_snapshot!(told, @r"
    deny: spiffe://plant.example/device/press-7 publish 'plant/press-8/telemetry/t'
      as client id 'press-7'
      no rule permits it
      closest: `device-telemetry` (policy.toml:31) `plant/${device}/telemetry/#`: at level 2 it wants `${device}`, here `press-7`, not `press-8`
      considered:
        - `device-telemetry` (policy.toml:31): `plant/${device}/telemetry/#` does not cover it: at level 2 it wants `${device}`, here `press-7`, not `press-8`
        - `device-status` (policy.toml:43): `plant/${device}/status` does not cover it: at level 2 it wants `${device}`, here `press-7`, not `press-8`
        - `device-sealed` (policy.toml:51): `plant/${device}/sealed/#` does not cover it: at level 2 it wants `${device}`, here `press-7`, not `press-8`
        - `operator-commands` (policy.toml:82): it speaks of operator
        - `device-signed` (policy.toml:107): `plant/${device}/signed/#` does not cover it: at level 2 it wants `${device}`, here `press-7`, not `press-8`
        - `device-batched` (policy.toml:113): `plant/${device}/batched/#` does not cover it: at level 2 it wants `${device}`, here `press-7`, not `press-8`
      next: avow policy explain press-7 publish 'plant/press-7/telemetry/t' --qos 1
    ");
    let allowed = explain("plant/press-7/sealed/a", QoS::AtMostOnce);
    insta::assert_snapshot!(allowed, @r"
    allow: spiffe://plant.example/device/press-7 publish 'plant/press-7/sealed/a'
      as client id 'press-7'
      `device-sealed` (policy.toml:51) permits it
      considered:
        - `device-telemetry` (policy.toml:31): `plant/${device}/telemetry/#` does not cover it: at level 3 it wants `telemetry`, not `sealed`
        - `device-status` (policy.toml:43): `plant/${device}/status` does not cover it: at level 3 it wants `status`, not `sealed`
        + `device-sealed` (policy.toml:51): `plant/${device}/sealed/#` covers it
        - `operator-commands` (policy.toml:82): it speaks of operator
        - `device-signed` (policy.toml:107): `plant/${device}/signed/#` does not cover it: at level 3 it wants `signed`, not `sealed`
        - `device-batched` (policy.toml:113): `plant/${device}/batched/#` does not cover it: at level 3 it wants `batched`, not `sealed`
      next: avow audit query --who device/press-7 --topic 'plant/press-7/sealed/a'
    ");
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["refusal"], "policy.no_rule");
    assert_eq!(json["closest"]["topic"], "plant/press-7/telemetry/t");
    let retained = shipped.explain(
        &press,
        Operation::Publish,
        "plant/press-7/telemetry/t",
        QoS::AtMostOnce,
        true,
    );
    assert_eq!(retained.closest.unwrap().wanted, "without `retain = true`");
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "d", "+", "${device}", "${issuer}"])
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let pattern =
        (prop::collection::vec(level(), 1..4), any::<bool>()).prop_map(|(levels, multi)| {
            let joined = levels.join("/");
            if multi { format!("{joined}/#") } else { joined }
        });
    prop::collection::vec(pattern, 0..3)
}

fn rule() -> impl Strategy<Value = (bool, &'static str, Vec<String>, Vec<String>, u8, bool)> {
    let who =
        prop::sample::select(vec!["device", "device/d", "device/e", "device/d*", "dashboard"]);
    (any::<bool>(), who, patterns(), patterns(), 0..=2u8, any::<bool>())
}

proptest! {
    #[test]
    fn the_index_decides_as_the_list_of_rules_does(
        rules in prop::collection::vec(rule(), 0..8),
        who in prop::sample::select(vec!["device/d", "device/e", "device/dd", "dashboard/d"]),
        levels in prop::collection::vec(prop::sample::select(vec!["a", "b", "d", "plant"]), 1..4),
        qos in 0..=2u8,
        retain in any::<bool>(),
    ) {
        use std::fmt::Write;
        let mut text = "version = 1\n".to_owned();
        for (index, (permit, who, publish, receive, qos_max, retain)) in rules.iter().enumerate() {
            let effect = if *permit { "permit" } else { "forbid" };
            writeln!(text, "[[{effect}]]\nid = 'r{index}'\nwho = ['{who}']").unwrap();
            writeln!(text, "publish = {publish:?}\nsubscribe = []\nreceive = {receive:?}").unwrap();
            if *permit {
                writeln!(text, "qos_max = {qos_max}\nretain = {retain}\nschema = 'none'").unwrap();
            }
        }
        let policy = Policy::parse("policy.toml", &text).unwrap();
        let topic = levels.join("/");
        let identity = identity(who);
        let qos = QoS::from_bits(qos).unwrap();
        for operation in [Operation::Publish, Operation::Receive] {
            let told = policy.explain(&identity, operation, &topic, qos, retain);
            let says = |effect| {
                told.considered.iter().find(|rule| rule.matches && rule.rule.effect == effect)
            };
            let wanted = match (says(Effect::Forbid), says(Effect::Permit)) {
                (Some(forbid), _) => (Decision::Deny, Some(&forbid.rule)),
                (None, Some(permit)) => (Decision::Allow, Some(&permit.rule)),
                (None, None) => (Decision::Deny, None),
            };
            prop_assert_eq!(told.decision, wanted.0, "{}\n{}", text, told);
            if wanted.1.is_some() {
                prop_assert_eq!(told.rule.as_ref(), wanted.1, "{}\n{}", text, told);
            }
        }
    }
}

const BY_TOKEN: &str = r##"
[[permit]]
id = "viewers"
who = ["dashboard"]
role = ["viewer", "planner"]
issuer = ["token:idp"]
subscribe = ["hall/${claim.hall}/#"]
[[permit]]
id = "planners"
who = ["dashboard"]
role = ["planner"]
publish = ["hall/${claim.hall}/plan"]
client_id = "plan-*"
schema = "none"
[[forbid]]
id = "no-guests"
who = ["dashboard"]
role = ["guest"]
receive = ["hall/+/plan"]
[[test]]
who = "dashboard/wall"
issuer = "token:idp"
role = ["viewer"]
vars = { hall = "3" }
subscribe = "hall/3/#"
expect = "allow"
rule = "viewers"
[[test]]
who = "dashboard/wall"
issuer = "token:idp"
vars = { hall = "3" }
subscribe = "hall/3/#"
expect = "deny"
[[test]]
who = "dashboard/wall"
issuer = "token:idp"
role = ["planner"]
client_id = "plan-1"
expect = "allow"
"##;

fn holder(roles: &[&str], hall: Option<&str>) -> Author {
    let identity = Identity::new("plant.example", Role::Dashboard, "wall", "token:idp").unwrap();
    let variables = hall.map(|hall| ("hall", hall));
    let grants = Grants::new(roles.iter().copied(), variables).unwrap();
    Author::new(identity, ClientId::new("plan-1"), ProtocolVersion::V5)
        .with_grants(Some(grants.into()))
}

#[test]
fn a_rule_with_a_role_speaks_of_whoever_holds_it() {
    let rules = policy(BY_TOKEN);
    let asks = |author: &Author, filter: &str| {
        let filter = TopicFilter::parse(filter).unwrap();
        rules.may_subscribe(author, &filter).map(|permit| permit.rule.to_string()).ok()
    };
    let viewer = holder(&["viewer"], Some("3"));
    assert_eq!(asks(&viewer, "hall/3/#"), Some("viewers".to_owned()));
    assert_eq!(asks(&viewer, "hall/4/#"), None);
    assert_eq!(asks(&viewer, "hall/+/#"), None);
    assert_eq!(asks(&holder(&["viewer"], None), "hall/3/#"), None);
    assert_eq!(asks(&holder(&["viewer"], Some("+")), "hall/+/#"), None);
    assert_eq!(asks(&holder(&["view"], Some("3")), "hall/3/#"), None);
    assert_eq!(asks(&holder(&[], Some("3")), "hall/3/#"), None);
    // A certificate's identity of the same name has no role, and is another's.
    assert_eq!(asks(&author("dashboard/wall", "plan-1"), "hall/3/#"), None);
    let plan = TopicName::parse("hall/3/plan").unwrap();
    let receives = |author: &Author| rules.may_receive(author, &plan).is_ok();
    assert!(receives(&viewer));
    assert!(!receives(&holder(&["viewer", "guest"], Some("3"))), "forbid wins");
    assert!(rules.may_use_client_id(&holder(&["planner"], None)).is_ok());
    assert!(rules.may_use_client_id(&viewer).is_err());
}

#[test]
fn a_role_that_is_missing_is_explained() {
    let rules = policy(BY_TOKEN);
    let identity = Identity::new("plant.example", Role::Dashboard, "wall", "token:idp").unwrap();
    let grants = Grants::new(["guest"], [("hall", "3")]).unwrap();
    let explained = rules.explain_query(&Query {
        identity: &identity,
        client_id: &ClientId::new("wall"),
        grants: &grants,
        operation: Operation::Subscribe,
        topic: "hall/3/#",
        qos: QoS::AtMostOnce,
        retain: false,
        clear: false,
    });
    insta::assert_snapshot!(explained, @r#"
    deny: spiffe://plant.example/dashboard/wall subscribe 'hall/3/#'
      as client id 'wall'
      no rule permits it
      closest: `viewers` (policy.toml:4): it speaks of tokens with the role viewer or planner
      considered:
        - `viewers` (policy.toml:4): it speaks of tokens with the role viewer or planner
      next: avow policy explain wall subscribe 'hall/3/#' --role dashboard --token-role guest --var 'hall=3' --with changed-policy.toml
    "#);
}

#[test]
fn what_no_token_grants_is_a_problem_of_the_file() {
    let text = r##"version = 1
[[permit]]
id = "one"
who = ["dashboard"]
role = "viewer"
subscribe = ["a/${claim.Plant}"]
[[permit]]
id = "two"
who = ["dashboard"]
role = ["Viewer"]
subscribe = ["a"]
[[permit]]
id = "three"
who = ["dashboard"]
role = []
subscribe = ["a"]
[[test]]
who = "dashboard/a"
role = ["a b"]
vars = { plant = 3 }
subscribe = "a"
expect = "deny"
"##;
    insta::assert_snapshot!(wrong(text), @r#"
    policy.toml:5:8: `role` must be a list of strings, this is string
        help: write `role = ["…"]`
    policy.toml:6:14: `${claim.Plant}` is not a variable
        help: the variables are ${device} (the identity's name), ${issuer}, ${client_id} and ${claim.NAME} (a topic variable of the token; NAME of a-z 0-9 - _)
    policy.toml:10:9: `Viewer` cannot be a role of a token
        help: a role has 1 to 32 characters of a-z, 0-9, '-', '_'; whether somebody is a device, a dashboard or an operator is for `who` to say
    policy.toml:15:8: `role` is empty: no token has it
        help: name a role, role = ["viewer"], or take the field out
    policy.toml:19:8: no token grants this: roles: at most 16, each 1 to 32 of a-z 0-9 - _
        help: write role = ["viewer"] and vars = { plant = "3" }
    policy.toml:20:18: `vars` must be a table of strings, this is integer
        help: write `vars = { plant = "3" }`
    "#);
}

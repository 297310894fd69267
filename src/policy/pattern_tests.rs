use super::*;

const PRESS: Bindings<'_> =
    Bindings { device: "press-7", issuer: "plant", client_id: "press-7:a", grants: Grants::NONE };

fn covers(pattern: &str, topic: &str) -> bool {
    Pattern::parse(pattern).unwrap().covers(topic, &PRESS).is_ok()
}

#[test]
fn names_are_matched_as_mqtt_says() {
    assert!(covers("a/+/c", "a/b/c"));
    assert!(covers("a/#", "a"));
    assert!(covers("a/#", "a/b/c"));
    assert!(covers("/", "/"));
    assert!(covers("+/+", "/"));
    assert!(!covers("a/+", "a"));
    assert!(!covers("a/b", "a/b/c"));
    assert!(!covers("+", "$SYS"));
    assert!(!covers("#", "$SYS/broker"));
    assert!(covers("$SYS/#", "$SYS/broker"));
}

#[test]
fn a_filter_is_covered_only_with_all_its_topics() {
    assert!(covers("#", "#"));
    assert!(covers("a/#", "a/+/c"));
    assert!(covers("a/#", "a/b/#"));
    assert!(covers("a/+/#", "a/b/#"));
    assert!(!covers("a/+/#", "a/#"));
    assert!(!covers("a/+", "a/#"));
    assert!(!covers("a/b", "a/+"));
    assert!(!covers("#", "$SYS/#"));
    assert!(!covers("plant/${device}/#", "plant/+/#"));
    assert!(covers("plant/${device}/#", "plant/press-7/#"));
}

#[test]
fn c01_a_value_with_a_wildcard_or_slash_never_substitutes() {
    let pattern = Pattern::parse("plant/${client_id}/#").unwrap();
    for hostile in ["#", "+", "a/b", "", "a#", "+a", "\0"] {
        let bindings = Bindings { client_id: hostile, ..PRESS };
        assert_eq!(bindings.value(&Variable::ClientId), None);
        for topic in ["plant/#", "plant/+/#", "plant/x/y", "plant//x", "plant/a/b"] {
            assert!(pattern.covers(topic, &bindings).is_err(), "{hostile:?} reached {topic}");
        }
    }
}

#[test]
fn c01_a_variable_in_a_first_level_never_reaches_a_dollar_topic() {
    let pattern = Pattern::parse("${client_id}/#").unwrap();
    let bindings = Bindings { client_id: "$SYS", ..PRESS };
    assert!(pattern.covers("$SYS/broker", &bindings).is_err());
}

#[test]
fn a_miss_names_the_level_and_what_would_have_matched() {
    let miss = Pattern::parse("plant/${device}/x").unwrap().covers("plant/press-8/x", &PRESS);
    let wanted = Miss {
        level: 1,
        wanted: Some("${device}".to_owned()),
        value: Some("press-7".to_owned()),
        found: Some("press-8".to_owned()),
    };
    assert_eq!(miss, Err(wanted));
}

#[test]
fn what_is_no_pattern_is_refused() {
    let error = |text: &str| Pattern::parse(text).unwrap_err();
    assert!(matches!(error("a/#/b"), PatternError::Topic { .. }));
    assert!(matches!(error(""), PatternError::Topic { .. }));
    assert!(matches!(error("$share/g/a"), PatternError::Share));
    assert!(matches!(error("a/${group}"), PatternError::UnknownVariable { .. }));
    assert!(matches!(error("a/x-${device}"), PatternError::PartialVariable { .. }));
    assert!(matches!(error("a/${device}${issuer}"), PatternError::PartialVariable { .. }));
    assert!(matches!(error("a/${device"), PatternError::PartialVariable { .. }));
    let deep = vec!["a"; PATTERN_LEVELS_MAX].join("/");
    assert!(Pattern::parse(&deep).is_ok());
    assert!(matches!(error(&format!("{deep}/a")), PatternError::TooDeep { .. }));
}

#[test]
fn c01_a_topic_variable_of_a_token_fills_one_level_or_nothing() {
    let pattern = Pattern::parse("plant/${claim.hall}/#").unwrap();
    let grants = Grants::new([], [("hall", "3")]).unwrap();
    let granted = Bindings { grants: &grants, ..PRESS };
    assert!(pattern.covers("plant/3/x", &granted).is_ok());
    assert!(pattern.covers("plant/4/x", &granted).is_err());
    assert!(pattern.covers("plant/+/x", &granted).is_err());
    // Whoever has no such variable is not spoken of.
    assert!(pattern.covers("plant/3/x", &PRESS).is_err());
    assert!(pattern.covers("plant//x", &PRESS).is_err());
    for hostile in ["#", "+", "a/b", "", "3/#", "\0"] {
        let grants = Grants::new([], [("hall", hostile)]).unwrap();
        let bindings = Bindings { grants: &grants, ..PRESS };
        for topic in ["plant/#", "plant/+/#", "plant/x/y", "plant//x", "plant/a/b", "plant/3/x"] {
            assert!(pattern.covers(topic, &bindings).is_err(), "{hostile:?} reached {topic}");
        }
    }
    for bad in ["a/${claim.}", "a/${claim.Hall}", "a/${claim.a.b}", "a/${claim}"] {
        let error = Pattern::parse(bad).unwrap_err();
        assert!(matches!(error, PatternError::UnknownVariable { .. }), "{bad}");
    }
}

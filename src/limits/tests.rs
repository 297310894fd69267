use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::identity::{Identity, Role};
use crate::mqtt::{ClientId, ProtocolVersion, Publish, PublishProperties, QoS, TopicName};
use crate::policy::{Authorized, Policy};
use crate::refusal::Refusal;
use crate::session::{Author, Received};
use crate::time::{Instant, Now, UnixNanos};

const SMALL: ClassLimits = ClassLimits {
    messages_per_second: 10,
    messages_burst: 5,
    bytes_per_second: 1_000,
    bytes_burst: 100,
    subscribes_per_second: 1,
    subscribes_burst: 4,
    sessions_max: 2,
    on_limit: OnLimit::Refuse,
};

fn limits(class: ClassLimits) -> Limits {
    Limits::new(LimitsConfig { default: class, ..LimitsConfig::default() })
}

fn at(millis: u64) -> Now {
    Now { instant: Instant::from_nanos(millis * 1_000_000), unix: UnixNanos::default() }
}

fn device(name: &str) -> Identity {
    Identity::new("plant.example", Role::Device, name, "plant").unwrap()
}

/// A message of `bytes` bytes, topic and payload.
fn message(name: &str, client_id: &str, version: ProtocolVersion, bytes: usize) -> Authorized {
    let rules = "version=1\n[[permit]]\nid='a'\nwho=['device']\npublish=['#']\nschema='none'";
    let author = Author::new(device(name), ClientId::new(client_id), version);
    let topic = TopicName::parse("t").unwrap();
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Some(topic.clone()),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: vec![b'x'; bytes - 1].into(),
    };
    let received = Received::new(author, topic, Box::new(publish));
    Policy::parse("p", rules).unwrap().authorize(received).unwrap()
}

fn v5(name: &str) -> Authorized {
    message(name, name, ProtocolVersion::V5, 2)
}

fn is_admitted(admission: &Admission) -> bool {
    matches!(admission, Admission::Admitted(_))
}

fn refusal(admission: Admission) -> (Refusal, bool) {
    match admission {
        Admission::Refused { refused, disconnect, .. } => (refused.refusal, disconnect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_pass_up_to_the_burst_and_not_one_past_it() {
    let mut limits = limits(SMALL);
    for _ in 0..5 {
        assert!(is_admitted(&limits.admit(at(0), v5("a"))));
    }
    assert_eq!(refusal(limits.admit(at(0), v5("a"))), (Refusal::MessageRate, false));
    assert_eq!(refusal(limits.admit(at(99), v5("a"))), (Refusal::MessageRate, false));
    assert!(is_admitted(&limits.admit(at(100), v5("a"))));
    assert!(is_admitted(&limits.admit(at(100), v5("b"))), "another identity has its own");
}

#[test]
fn bytes_pass_up_to_the_burst_and_not_one_past_it() {
    let mut limits = limits(SMALL);
    let of = |bytes| message("a", "a", ProtocolVersion::V5, bytes);
    assert!(is_admitted(&limits.admit(at(0), of(99))));
    assert_eq!(refusal(limits.admit(at(0), of(2))), (Refusal::ByteRate, false));
    assert!(is_admitted(&limits.admit(at(1), of(2))));
}

#[test]
fn client_ids_and_reconnects_share_the_buckets_of_their_identity() {
    let mut limits = limits(SMALL);
    for client_id in ["a", "b", "c", "d", "e"] {
        limits.open_session(&device("a")).unwrap();
        let sent = message("a", client_id, ProtocolVersion::V5, 2);
        assert!(is_admitted(&limits.admit(at(0), sent)));
        limits.close_session(&device("a"));
    }
    let sent = message("a", "f", ProtocolVersion::V5, 2);
    assert_eq!(refusal(limits.admit(at(0), sent)).0, Refusal::MessageRate);
}

#[test]
fn a_v3_client_is_slowed_where_a_v5_client_is_refused() {
    let mut limits = limits(SMALL);
    let sent = || message("a", "a", ProtocolVersion::V3_1_1, 2);
    for _ in 0..5 {
        assert!(is_admitted(&limits.admit(at(0), sent())));
    }
    for pause in [100, 200, 300] {
        match limits.admit(at(0), sent()) {
            Admission::Slowed { pause: slowed, .. } => {
                assert_eq!(slowed, Duration::from_millis(pause));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_reader_is_slowed_up_to_the_longest_pause_and_not_past_it() {
    let class = ClassLimits { on_limit: OnLimit::Slow, messages_per_second: 1, ..SMALL };
    let config = LimitsConfig { default: class, pause_seconds_max: 2, ..LimitsConfig::default() };
    let mut limits = Limits::new(config);
    for _ in 0..5 {
        assert!(is_admitted(&limits.admit(at(0), v5("a"))));
    }
    assert!(matches!(limits.admit(at(0), v5("a")), Admission::Slowed { .. }));
    assert!(matches!(limits.admit(at(0), v5("a")), Admission::Slowed { .. }));
    for _ in 0..100 {
        assert_eq!(refusal(limits.admit(at(0), v5("a"))), (Refusal::MessageRate, true));
    }
    // The refused ones left no debt behind.
    assert!(is_admitted(&limits.admit(at(3_000), v5("a"))));
}

#[test]
fn on_limit_disconnect_says_so() {
    let mut limits = limits(ClassLimits { on_limit: OnLimit::Disconnect, ..SMALL });
    for _ in 0..5 {
        assert!(is_admitted(&limits.admit(at(0), v5("a"))));
    }
    assert_eq!(refusal(limits.admit(at(0), v5("a"))), (Refusal::MessageRate, true));
}

#[test]
fn what_was_refused_before_is_charged_and_ends_as_the_action_says() {
    let beyond = |pause: u64, disconnect| Charge::Beyond {
        refused: Refusal::MessageRate.into(),
        pause: Duration::from_millis(pause),
        disconnect,
    };
    let name = device("a");
    for (on_limit, told, past) in [
        (OnLimit::Refuse, true, beyond(0, false)),
        (OnLimit::Refuse, false, beyond(100, false)),
        (OnLimit::Slow, true, beyond(100, false)),
        (OnLimit::Disconnect, false, beyond(0, true)),
    ] {
        let mut limits = limits(ClassLimits { on_limit, ..SMALL });
        for _ in 0..5 {
            assert_eq!(limits.charge(at(0), &name, 1, told), Charge::Within);
        }
        assert_eq!(limits.charge(at(0), &name, 1, told), past, "{on_limit:?}");
    }
    let config = LimitsConfig { default: SMALL, pause_seconds_max: 1, ..LimitsConfig::default() };
    let mut limits = Limits::new(config);
    let charges: Vec<Charge> = (0..16).map(|_| limits.charge(at(0), &name, 1, false)).collect();
    assert_eq!(charges[14], beyond(1_000, false), "at the longest pause");
    assert_eq!(charges[15], beyond(0, true), "one past it");
}

#[test]
fn b06_subscriptions_pass_up_to_the_burst_and_not_one_past_it() {
    let mut limits = limits(SMALL);
    assert!(limits.admit_subscribe(at(0), &device("a"), 5).is_err(), "more than ever fits");
    assert!(limits.admit_subscribe(at(0), &device("a"), 3).is_ok());
    assert!(limits.admit_subscribe(at(0), &device("a"), 2).is_err());
    assert!(limits.admit_subscribe(at(0), &device("a"), 1).is_ok());
    let refused = limits.admit_subscribe(at(999), &device("a"), 1).unwrap_err();
    assert_eq!(refused.refusal, Refusal::SubscribeRate);
    assert!(limits.admit_subscribe(at(1_000), &device("a"), 1).is_ok());
}

#[test]
fn d05_sessions_are_counted_per_identity() {
    let mut limits = limits(SMALL);
    assert!(limits.open_session(&device("a")).is_ok());
    assert!(limits.open_session(&device("a")).is_ok());
    let refused = limits.open_session(&device("a")).unwrap_err();
    assert_eq!(refused.refusal, Refusal::SessionCount);
    assert!(limits.open_session(&device("b")).is_ok());
    limits.close_session(&device("a"));
    assert!(limits.open_session(&device("a")).is_ok());
    limits.close_session(&device("nobody"));
}

#[test]
fn the_table_forgets_the_idle_and_refuses_newcomers_while_all_are_active() {
    let config = LimitsConfig { default: SMALL, identities_max: 2, ..LimitsConfig::default() };
    let mut limits = Limits::new(config);
    limits.open_session(&device("a")).unwrap();
    assert!(is_admitted(&limits.admit(at(0), v5("b"))));
    assert_eq!(refusal(limits.admit(at(0), v5("c"))).0, Refusal::SessionCount);
    assert_eq!(limits.identity_count(), 2);
    // b's buckets are full again, a still has a session.
    assert!(is_admitted(&limits.admit(at(5_000), v5("c"))));
    assert_eq!(limits.identity_count(), 2);
    assert!(limits.open_session(&device("a")).is_ok());
    assert!(limits.open_session(&device("a")).is_err());
}

#[test]
fn the_first_class_that_names_an_identity_holds() {
    let burst = |messages_burst| ClassLimits { messages_burst, ..ClassLimits::default() };
    let class = |who: &str, messages_burst| ClassConfig {
        who: vec![crate::policy::Who::parse(who).unwrap()],
        limits: burst(messages_burst),
    };
    let config = LimitsConfig {
        default: burst(1),
        classes: vec![class("device/press-*", 2), class("device", 3)],
        ..LimitsConfig::default()
    };
    assert_eq!(config.class_of(&device("press-7")).messages_burst, 2);
    assert_eq!(config.class_of(&device("saw-1")).messages_burst, 3);
    let wall = Identity::new("plant.example", Role::Dashboard, "wall", "plant").unwrap();
    assert_eq!(config.class_of(&wall).messages_burst, 1);
}

#[test]
fn a_reload_keeps_sessions_and_refills_only_changed_classes() {
    let mut limits = limits(SMALL);
    limits.open_session(&device("a")).unwrap();
    for _ in 0..5 {
        assert!(is_admitted(&limits.admit(at(0), v5("a"))));
    }
    limits.reload(LimitsConfig { default: SMALL, ..LimitsConfig::default() });
    assert_eq!(refusal(limits.admit(at(0), v5("a"))).0, Refusal::MessageRate);
    let wider = ClassLimits { messages_burst: 6, sessions_max: 1, ..SMALL };
    limits.reload(LimitsConfig { default: wider, ..LimitsConfig::default() });
    assert!(is_admitted(&limits.admit(at(0), v5("a"))));
    assert!(limits.open_session(&device("a")).is_err());
}

#[test]
fn d11_connects_are_counted_per_address_and_the_table_is_bounded() {
    let config = LimitsConfig {
        connects_per_second: 1,
        connects_burst: 2,
        addresses_max: 2,
        ..LimitsConfig::default()
    };
    let mut limiter = AddressLimiter::new(&config);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(limiter.admit(at(0), ip("2001:db8::1")));
    assert!(limiter.admit(at(0), ip("2001:db8::ffff:2")));
    assert!(!limiter.admit(at(0), ip("2001:db8:0:0:1::3")), "one /64");
    assert!(limiter.admit(at(0), ip("10.0.0.1")));
    assert!(limiter.admit(at(0), ip("::ffff:10.0.0.1")));
    assert!(!limiter.admit(at(0), ip("10.0.0.1")));
    // The table is full: others share a bucket of two.
    assert!(limiter.admit(at(0), ip("10.0.0.2")));
    assert!(limiter.admit(at(0), ip("10.0.0.3")));
    assert!(!limiter.admit(at(0), ip("10.0.0.4")));
    assert_eq!(limiter.address_count(), 2);
    // The old ones are idle by now and make room.
    assert!(limiter.admit(at(60_000), ip("10.0.0.4")));
    assert_eq!(limiter.address_count(), 1);
}

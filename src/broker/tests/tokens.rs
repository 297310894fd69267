//! Tokens: who may come with one, how it is renewed, and that it ends.

use super::*;
use crate::identity::token::testing::Mint;
use crate::identity::{Grants, TokenKeys};
use crate::mqtt::{Auth, AuthProperties};

const V5: ProtocolVersion = ProtocolVersion::V5;
const T: &str = "plant/a/telemetry/x";
/// What comes without a certificate.
const NAMELESS: &str = "";

const POLICY: &str = r#"
version = 1
[[permit]]
id = "client-ids"
who = ["device", "dashboard"]
client_id = "${device}*"
[[permit]]
id = "telemetry"
who = ["device"]
publish = ["plant/#"]
schema = "none"
[[permit]]
id = "halls"
who = ["dashboard"]
role = ["viewer"]
issuer = ["token:idp"]
subscribe = ["plant/${claim.hall}/#"]
[[permit]]
id = "pages"
who = ["dashboard"]
publish = ["pages/${device}"]
schema = "none"
"#;

fn rig_of(keys: TokenKeys) -> Rig {
    let policy = crate::policy::Policy::parse("policy.toml", POLICY).unwrap();
    Rig::of(Settings {
        tokens: Arc::new(keys),
        policy: Arc::new(policy),
        ..crate::broker::testing::settings()
    })
}

fn rig(mint: &Mint) -> Rig {
    rig_of(mint.keys())
}

fn viewer(hall: &str) -> Grants {
    Grants::new(["viewer"], [("hall", hall)]).unwrap()
}

fn by_password(version: ProtocolVersion, client_id: &str, token: &str) -> Connect {
    let mut packet = connect(version, client_id);
    packet.user_name = Some("whoever".to_owned());
    packet.password = Some(Bytes::copy_from_slice(token.as_bytes()));
    packet
}

fn by_method(client_id: &str, method: &str, token: Option<&str>) -> Connect {
    let mut packet = connect(V5, client_id);
    packet.properties.authentication_method = Some(method.to_owned());
    packet.properties.authentication_data =
        token.map(|token| Bytes::copy_from_slice(token.as_bytes()));
    packet
}

fn auth(reason: ReasonCode, method: &str, token: &str) -> Packet {
    let properties = AuthProperties {
        authentication_method: Some(method.to_owned()),
        authentication_data: Some(Bytes::copy_from_slice(token.as_bytes())),
        ..Default::default()
    };
    Packet::Auth(Box::new(Auth { reason, properties }))
}

fn renew(rig: &mut Rig, id: ConnectionId, token: &str) {
    rig.packet(id, auth(ReasonCode::ReAuthenticate, "JWT", token));
    rig.sync();
}

fn connack(rig: &mut Rig, id: ConnectionId) -> crate::mqtt::ConnAck {
    match rig.take(id).into_iter().next() {
        Some(Packet::ConnAck(ack)) => *ack,
        other => panic!("{other:?}"),
    }
}

fn told_to_go(rig: &mut Rig, id: ConnectionId) -> ReasonCode {
    match rig.take(id).pop() {
        Some(Packet::Disconnect(told)) => told.reason,
        other => panic!("{other:?}"),
    }
}

/// A dashboard with a token by the method, connected.
fn wall(rig: &mut Rig, mint: &Mint, seconds: u64, grants: &Grants) -> ConnectionId {
    let token = mint.token_with("wall", rig.now.unix, seconds, grants);
    let id = rig.connect(NAMELESS, by_method("wall", "JWT", Some(&token)));
    let ack = connack(rig, id);
    assert_eq!(ack.reason, ReasonCode::Success);
    // [MQTT-4.12.0-5]
    assert_eq!(ack.properties.authentication_method.as_deref(), Some("JWT"));
    id
}

#[test]
fn a_token_names_whoever_has_no_certificate() {
    let mint = Mint::new();
    for version in [V5, ProtocolVersion::V3_1_1, ProtocolVersion::V3_1] {
        let mut rig = rig(&mint);
        let token = mint.token_with("wall", rig.now.unix, 60, &viewer("3"));
        rig.entries.clear();
        let id = rig.connect(NAMELESS, by_password(version, "wall", &token));
        let ack = connack(&mut rig, id);
        assert_eq!(ack.reason, ReasonCode::Success);
        // [MQTT-4.12.0-6]
        assert_eq!(ack.properties.authentication_method, None);
        let entry = rig.entries.pop().unwrap();
        assert_eq!(entry["type"], "connect");
        assert_eq!(entry["who"], "dashboard/wall");
        assert_eq!((&entry["trust"], &entry["kid"]), (&"token:idp".into(), &"k1".into()));
        assert_eq!((&entry["jti"], &entry["to"]), (&"j-1".into(), &1_000_060.into()));
        assert_eq!(
            (&entry["roles"], &entry["vars"]),
            (&"viewer".into(), &r#"{"hall":"3"}"#.into())
        );
        assert_eq!(entry["x5t"], Value::Null);
        assert!(!entry.to_string().contains(&token), "a token is never recorded");
    }
}

#[test]
fn c15_a_device_listener_never_accepts_a_token_instead_of_its_certificate() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let token = mint.token("wall", rig.now.unix, 60);
    // Whoever has a certificate is whoever that says; a password beside it is no credential.
    let id = rig.connect("device/a", by_password(V5, "wall", &token));
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::ClientIdentifierNotValid);
    let id = rig.connect("device/a", by_password(V5, "a", "hunter2"));
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::Success);
    assert_eq!(rig.entries.pop().unwrap()["who"], "device/a");
    // A method is refused, with a right token and with none.
    for data in [Some(&*token), None] {
        let id = rig.connect("device/a", by_method("a", "JWT", data));
        assert_eq!(connack(&mut rig, id).reason, ReasonCode::BadAuthenticationMethod);
    }
}

#[test]
fn who_has_neither_certificate_nor_token_is_nobody() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let now = rig.now.unix;
    let past = UnixNanos::from_seconds(now.as_seconds() - 100);
    let good = mint.token("wall", now, 60);
    let cases = [
        (connect(V5, "wall"), ReasonCode::NotAuthorized, "token.missing"),
        (connect(ProtocolVersion::V3_1_1, "wall"), ReasonCode::NotAuthorized, "token.missing"),
        (by_password(V5, "wall", ""), ReasonCode::NotAuthorized, "token.missing"),
        (by_password(V5, "wall", "hunter2"), ReasonCode::NotAuthorized, "token.malformed"),
        (
            by_password(V5, "wall", &mint.token("wall", past, 60)),
            ReasonCode::NotAuthorized,
            "token.expired",
        ),
        (by_method("wall", "JWT", None), ReasonCode::NotAuthorized, "token.missing"),
        // [MQTT-4.12.0-1]
        (
            by_method("wall", "SCRAM-SHA-256", Some(&good)),
            ReasonCode::BadAuthenticationMethod,
            "auth.method",
        ),
        (by_method("wall", "jwt", Some(&good)), ReasonCode::BadAuthenticationMethod, "auth.method"),
    ];
    for (packet, reason, why) in cases {
        // Each has an interval of its own, else the first would count for the others.
        rig.advance(Duration::from_secs(11));
        rig.entries.clear();
        let shown = format!("{packet:?}");
        let id = rig.connect(NAMELESS, packet);
        assert_eq!(connack(&mut rig, id).reason, reason, "{shown}");
        assert_eq!(rig.closed.pop(), Some(id));
        let entry = rig.entries.first().unwrap();
        assert_eq!((&entry["type"], &entry["why"]), (&"connect.refused".into(), &why.into()));
        assert_eq!(entry["who"], Value::Null);
    }
    // The method counts, if there is one: the password beside it is not asked.
    let mut both = by_method("wall", "JWT", Some("hunter2"));
    both.password = Some(Bytes::from(good));
    let id = rig.connect(NAMELESS, both);
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::NotAuthorized);
    assert_eq!(rig.broker.sessions.len(), 0);
}

#[test]
fn a_flood_of_bad_tokens_has_one_entry_and_a_count() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    rig.entries.clear();
    for _ in 0..50 {
        let id = rig.connect(NAMELESS, by_password(V5, "wall", "hunter2"));
        rig.close(id);
    }
    rig.advance(Duration::from_secs(11));
    let counted: Vec<_> = rig.entries.iter().map(|entry| entry["count"].as_u64()).collect();
    assert_eq!(counted, [None, Some(49)]);
}

#[test]
fn c15_a_session_ends_when_its_token_does() {
    let mint = Mint::new();
    for packet in [by_password, |_, id: &str, token: &str| by_method(id, "JWT", Some(token))] {
        let mut rig = rig(&mint);
        let token = mint.token("wall", rig.now.unix, 100);
        let id = rig.connect(NAMELESS, packet(V5, "wall", &token));
        assert_eq!(connack(&mut rig, id).reason, ReasonCode::Success);
        rig.advance(Duration::from_secs(60));
        rig.packet(id, Packet::PingReq);
        rig.advance(Duration::from_secs(39));
        assert_eq!(rig.closed, []);
        rig.advance(Duration::from_secs(1));
        assert_eq!(rig.closed, [id]);
        assert_eq!(told_to_go(&mut rig, id), ReasonCode::NotAuthorized);
        let entry = rig.entries.pop().unwrap();
        assert_eq!(
            (&entry["type"], &entry["how"]),
            (&"disconnect".into(), &"token.expired".into())
        );
        let again = rig.connect(NAMELESS, packet(V5, "wall", &token));
        assert_eq!(connack(&mut rig, again).reason, ReasonCode::NotAuthorized);
    }
}

#[test]
fn a_new_token_moves_the_end_once_its_entry_is_on_disk() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let id = wall(&mut rig, &mint, 100, Grants::NONE);
    rig.advance(Duration::from_secs(50));
    let token = mint.token("wall", rig.now.unix, 100);
    rig.packet(id, auth(ReasonCode::ReAuthenticate, "JWT", &token));
    assert_eq!(rig.take(id), [], "nothing is answered that is not on disk");
    rig.sync();
    let sent = rig.take(id);
    let [Packet::Auth(answer)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(answer.reason, ReasonCode::Success);
    // [MQTT-4.12.0-5]
    assert_eq!(answer.properties.authentication_method.as_deref(), Some("JWT"));
    let entry = rig.entries.pop().unwrap();
    assert_eq!((&entry["type"], &entry["result"]), (&"reauth".into(), &"allow".into()));
    assert_eq!((&entry["who"], &entry["to"]), (&"dashboard/wall".into(), &1_000_150.into()));
    assert!(!entry.to_string().contains(&token));
    rig.packet(id, Packet::PingReq);
    rig.advance(Duration::from_secs(80));
    assert_eq!(rig.closed, [], "the old end has passed");
    rig.packet(id, Packet::PingReq);
    rig.advance(Duration::from_secs(20));
    assert_eq!(rig.closed, [id]);
}

#[test]
fn subscriptions_are_judged_by_the_new_grants_at_the_next_delivery() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let id = wall(&mut rig, &mint, 600, &viewer("a"));
    rig.subscribe(id, "plant/a/#", QoS::AtLeastOnce);
    let device = rig.client("device/a", V5);
    let mut next = 0;
    let mut reaches = |rig: &mut Rig| {
        next += 1;
        rig.packet(device, publish(T, &next.to_string(), QoS::AtMostOnce, 0));
        rig.sync();
        rig.payloads(id) == [next.to_string()]
    };
    assert!(reaches(&mut rig));
    let token = mint.token_with("wall", rig.now.unix, 600, &viewer("b"));
    renew(&mut rig, id, &token);
    rig.take(id);
    assert!(!reaches(&mut rig), "another hall");
    let token = mint.token("wall", rig.now.unix, 600);
    renew(&mut rig, id, &token);
    rig.take(id);
    assert!(!reaches(&mut rig), "no role");
    let token = mint.token_with("wall", rig.now.unix, 600, &viewer("a"));
    renew(&mut rig, id, &token);
    rig.take(id);
    assert!(reaches(&mut rig), "the subscription itself was never touched");
}

#[test]
fn a_renewal_that_fails_ends_the_connection() {
    let mint = Mint::new();
    let other = Mint::new();
    let now = UnixNanos::from_seconds(1_000_000);
    let cases = [
        (mint.token("desk", now, 60), "token.other_identity"),
        (other.token("wall", now, 60), "token.signature"),
        ("hunter2".to_owned(), "token.malformed"),
        (String::new(), "token.missing"),
    ];
    for (token, why) in cases {
        let mut rig = rig(&mint);
        let id = wall(&mut rig, &mint, 100, Grants::NONE);
        rig.entries.clear();
        renew(&mut rig, id, &token);
        // [MQTT-4.12.1-2]
        assert_eq!(told_to_go(&mut rig, id), ReasonCode::NotAuthorized, "{why}");
        assert_eq!(rig.closed, [id]);
        let [refused, ended] = &rig.entries[..] else { panic!("{:?}", rig.entries) };
        assert_eq!((&refused["type"], &refused["why"]), (&"reauth".into(), &why.into()));
        assert_eq!(
            (&ended["type"], &ended["how"]),
            (&"disconnect".into(), &"token.refused".into())
        );
    }
}

#[test]
fn auth_that_was_not_agreed_on_is_a_protocol_error() {
    let mint = Mint::new();
    let now = UnixNanos::from_seconds(1_000_000);
    let token = mint.token("wall", now, 60);
    let right = || auth(ReasonCode::ReAuthenticate, "JWT", &token);
    let ended_by = |rig: &mut Rig, id| told_to_go(rig, id);
    // Whoever came by password, or by certificate, has no method. [MQTT-4.12.0-7]
    let mut rig = rig(&mint);
    let id = rig.connect(NAMELESS, by_password(V5, "wall", &token));
    rig.packet(id, right());
    rig.sync();
    assert_eq!(ended_by(&mut rig, id), ReasonCode::ProtocolError);
    let id = rig.client("device/a", V5);
    rig.packet(id, right());
    rig.sync();
    assert_eq!(ended_by(&mut rig, id), ReasonCode::ProtocolError);
    // Another method than CONNECT's [MQTT-4.12.1-1], or nothing to continue.
    for packet in [
        auth(ReasonCode::ReAuthenticate, "SCRAM", &token),
        auth(ReasonCode::ContinueAuthentication, "JWT", &token),
    ] {
        let id = wall(&mut rig, &mint, 100, Grants::NONE);
        rig.packet(id, packet);
        rig.sync();
        assert_eq!(ended_by(&mut rig, id), ReasonCode::ProtocolError);
    }
    // Before CONNECT nobody is anybody.
    let id = rig.open(NAMELESS);
    rig.packet(id, right());
    rig.sync();
    assert!(rig.closed.contains(&id));
}

#[test]
fn renewals_are_limited() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let id = wall(&mut rig, &mint, 600, Grants::NONE);
    rig.entries.clear();
    let token = mint.token("wall", rig.now.unix, 600);
    for _ in 0..1_000 {
        if !rig.closed.is_empty() {
            break;
        }
        renew(&mut rig, id, &token);
    }
    assert_eq!(rig.closed, [id]);
    assert_eq!(told_to_go(&mut rig, id), ReasonCode::MessageRateTooHigh);
    let burst = LimitsConfig::default().default.subscribes_burst as usize;
    assert!(rig.entry_types().len() <= burst + 1);
}

#[test]
fn c10_a_token_never_takes_the_session_of_a_certificate() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let certified = rig.client("dashboard/wall", V5);
    let token = mint.token("wall", rig.now.unix, 600);
    let id = rig.connect(NAMELESS, by_password(V5, "wall", &token));
    let ack = connack(&mut rig, id);
    assert_eq!((ack.reason, ack.session_present), (ReasonCode::Success, false));
    assert_eq!(rig.closed, [], "nobody was taken over");
    rig.packet(certified, Packet::PingReq);
    assert_eq!(rig.take(certified), [Packet::PingResp]);
    // Its own it takes, with another token.
    let token = mint.token("wall", rig.now.unix, 300);
    let again = rig.connect(NAMELESS, by_method("wall", "JWT", Some(&token)));
    assert_eq!(connack(&mut rig, again).reason, ReasonCode::Success);
    assert_eq!(rig.closed, [id]);
}

#[test]
fn without_keys_no_token_is_accepted() {
    let mint = Mint::new();
    let mut rig = rig_of(TokenKeys::none());
    let token = mint.token("wall", rig.now.unix, 60);
    for packet in [by_password(V5, "wall", &token), by_method("wall", "JWT", Some(&token))] {
        let id = rig.connect(NAMELESS, packet);
        assert_eq!(connack(&mut rig, id).reason, ReasonCode::NotAuthorized);
    }
}

#[test]
fn the_will_of_a_token_is_published_when_that_ends_if_its_author_still_may() {
    let mint = Mint::new();
    let mut rig = rig(&mint);
    let token = mint.token("wall", rig.now.unix, 60);
    let mut packet = by_password(V5, "wall", &token);
    packet.will = Some(will("pages/wall", "gone", 0));
    let id = rig.connect(NAMELESS, packet);
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::Success);
    rig.entries.clear();
    rig.advance(Duration::from_secs(60));
    assert_eq!(rig.closed, [id]);
    assert_eq!(rig.entry_types(), ["disconnect", "will"]);
    // One that its author may not publish is refused at CONNECT, as ever.
    let token = mint.token("wall", rig.now.unix, 60);
    let mut packet = by_password(V5, "wall", &token);
    packet.will = Some(will("pages/desk", "gone", 0));
    let id = rig.connect(NAMELESS, packet);
    assert_eq!(connack(&mut rig, id).reason, ReasonCode::NotAuthorized);
}

use std::path::Path;

use super::*;

const SHIPPED: &str = include_str!("../../config/avow.toml");

/// The least that is valid; every other value is the default.
const LEAST: &str = r#"
[node]
name = "plant-1"
trust_domain = "plant.example"
[[issuer]]
id = "plant"
anchors = "certs/ca.pem"
roles = ["device", "dashboard", "operator", "auditor"]
"#;

fn problems(text: &str) -> String {
    let errors = Config::parse(text, "avow.toml", Path::new("/d")).unwrap_err();
    render(&errors)
}

fn render(errors: &dyn miette::Diagnostic) -> String {
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100);
    let mut text = String::new();
    for problem in errors.related().into_iter().flatten() {
        handler.render_report(&mut text, problem).unwrap();
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let dir = Path::new("/d");
    let shipped = Config::parse(SHIPPED, "avow.toml", dir).unwrap();
    let least = Config::parse(LEAST, "avow.toml", dir).unwrap();
    assert_eq!(shipped.bounds, Bounds::default());
    // `[metrics]` and `[[token_key]]` alone have no default: they are there because the file says so.
    assert!(least.metrics.is_none() && shipped.metrics.is_some());
    assert!(least.tokens.keys.is_empty() && shipped.tokens.keys.len() == 1);
    let plain = |mut config: Config| {
        config.metrics = None;
        config.tokens.keys.clear();
        format!("{config:#?}")
    };
    assert_eq!(plain(shipped), plain(least));
}

#[test]
fn the_shipped_file_holds_every_field() {
    let (fields, commented) = sections::every_field();
    for field in fields {
        let line = format!("\n{field} = ");
        assert!(SHIPPED.contains(&line), "config/avow.toml does not show `{field}`");
    }
    for (section, fields) in commented {
        let heading = format!("\n# [{section}]\n");
        let (_, shown) = SHIPPED.split_once(&heading).unwrap();
        for field in fields {
            let line = format!("\n# {field} = ");
            assert!(shown.contains(&line), "config/avow.toml does not show `{field}`");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"
[node]
name = "plant 1"
[listen]
mqtt = "localhost:8883"
connect_timeout = 10
conections_max = 5
[tls]
key = "-----BEGIN PRIVATE KEY-----"
[[issuer]]
id = "plant"
anchors = "certs/ca.pem"
roles = ["devices"]
[metrics]
address = "0.0.0.0:9464"
[mqtt]
packet_bytes_max = "128 MB"
connect_bytes_max = "4 GiB"
keep_alive_min = "1h"
[evidence]
on_evidence_failure = "continue"
"#;
    let errors = Config::parse(text, "avow.toml", Path::new("/d")).unwrap_err();
    insta::assert_snapshot!(errors.plain(), @r#"
    avow.toml:2:1: [node] has no `trust_domain`
        help: add `trust_domain = …`
    avow.toml:3:8: `plant 1` is not 1 to 128 of A-Z a-z 0-9 . - _
        help: write `name = "plant-1"`
    avow.toml:5:8: `localhost:8883` is not an address and a port
        help: write `mqtt = "127.0.0.1:8883"`
    avow.toml:6:19: `connect_timeout` must be a duration, this is integer
        help: write `connect_timeout = "10s"`
    avow.toml:7:1: unknown field `conections_max` in [listen]
        help: did you mean `connections_max`?
    avow.toml:9:7: `key` names no place: secrets stand outside this file
        help: write "file:PATH" (relative to this file) or "env:NAME", and put the secret there
    avow.toml:13:10: `roles` cannot be `devices`
        help: choose one of `device`, `dashboard`, `operator`, `auditor`
    avow.toml:15:11: `address` is not a loopback address: metrics have no authentication
        help: use 127.0.0.1 or [::1]; if something else guards the port, say `allow_remote = true`
    avow.toml:17:20: `128 MB` is not a size in B, KiB, MiB or GiB
        help: write `packet_bytes_max = "64 KiB"`
    avow.toml:18:21: `connect_bytes_max` is 4 GiB, outside 1 KiB to 1 MiB
        help: choose a value from 1 KiB to 1 MiB; nothing here is unlimited
    avow.toml:19:18: `keep_alive_min` is above `keep_alive_max`
        help: lower `keep_alive_min`, or raise `keep_alive_max`
    avow.toml:21:23: `on_evidence_failure` cannot be `continue`
        help: write `on_evidence_failure = "refuse"`
    "#);
}

#[test]
fn a_problem_shows_its_line_a_caret_and_the_fix() {
    let text = format!("{LEAST}[mqtt]\nrecieve_maximum = 10\n");
    insta::assert_snapshot!(problems(&text), @r#"
     × unknown field `recieve_maximum` in [mqtt]
       ╭─[avow.toml:10:1]
     9 │ [mqtt]
    10 │ recieve_maximum = 10
       · ───────────────
       ╰────
     help: did you mean `receive_maximum`?
    "#);
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    insta::assert_snapshot!(problems("[node\nname = \"a\"\n"), @r#"
     × this is not TOML: unclosed table, expected `]`
      ╭─[avow.toml:1:6]
    1 │ [node
      ·      ▲
    2 │ name = "a"
      ╰────
     help: see https://toml.io for the syntax; the rest of the file was not read
    "#);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let with = |more: &str| format!("{LEAST}{more}");
    let cases = [
        ("[mqtt]\npacket_bytes_max = \"16 KiB\"\n", "`connect_bytes_max` is above"),
        ("[session]\nqueue_bytes_max = \"64 KiB\"\n", "`queue_bytes_max` is below"),
        ("[mqtt]\nkeep_alive_max = \"1h\"\n", "`idle_max` is below"),
        ("[session]\nsessions_total_max = 9_999\n", "`sessions_total_max` is below"),
        ("[evidence]\nsegment_bytes = \"31 MiB\"\n", "`segment_bytes` is below"),
        ("[evidence]\nbacklog_bytes_max = \"256 KiB\"\n", "`backlog_bytes_max` is below"),
        ("[[issuer]]\nid = \"plant\"\nanchors = \"x\"\nroles = [\"device\"]\n", "another issuer"),
        ("[metrics]\naddress = \"192.0.2.1:1\"\n", "not a loopback address"),
        ("[limits.default]\nbytes_burst = 1000\n", "less than the largest packet"),
        ("[mqtt]\npacket_bytes_max = \"2 MiB\"\n", "less than the largest packet"),
        ("[limits]\ncolour = 1\n", "unknown field `colour`"),
        ("[evidence]\norigin = \"a b\"\n", "is not a name without spaces"),
        ("[listen]\nproxy_protocol = \"v1\"\n", "`trusted_proxies` is empty"),
        ("[listen]\ntrusted_proxies = [\"::1\"]\n", "`proxy_protocol` is off"),
        ("[listen.websocket]\n", "has no `origins`"),
        ("[listen.websocket]\nallow_no_origin = true\nmessage_bytes_max = 9000\n", "is below"),
    ];
    for (more, expected) in cases {
        let found = problems(&with(more));
        assert!(found.contains(expected), "{more} gave {found}");
    }
}

#[test]
fn bounds_hold_at_the_edge_and_one_past_it() {
    let with = |value: &str| format!("{LEAST}[listen]\nconnections_max = {value}\n");
    assert!(Config::parse(&with("1"), "f", Path::new("/")).is_ok());
    assert!(problems(&with("0")).contains("`connections_max` must be 1 to 1000000"));
    assert!(problems(&with("1000001")).contains("must be 1 to 1000000"));
    let with = |value: &str| format!("{LEAST}[mqtt]\npacket_bytes_max = {value}\n");
    assert!(Config::parse(&with("\"1 MiB\""), "f", Path::new("/")).is_ok());
    assert!(problems(&with("16777217")).contains("outside 1 KiB to 16 MiB"));
    let with = |field: &str| format!("{LEAST}[evidence]\n{field}\n");
    for right in [
        "device_clock_tolerance = \"1d\"",
        "cover_within = \"1s\"",
        "links_max = 1024",
        "signers_max = 1",
        "verify_threads = 64",
    ] {
        assert!(Config::parse(&with(right), "f", Path::new("/")).is_ok(), "{right}");
    }
    for (wrong, why) in [
        ("device_clock_tolerance = \"999ms\"", "`device_clock_tolerance`"),
        ("cover_within = \"999ms\"", "`cover_within`"),
        ("links_max = 1023", "`links_max` must be 1024 to 67108864"),
        ("signers_max = 0", "`signers_max` must be 1 to 10000000"),
        ("verify_threads = 65", "`verify_threads` must be 0 to 64"),
    ] {
        assert!(problems(&with(wrong)).contains(why), "{wrong}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = Config::parse(LEAST, "avow.toml", Path::new("/srv/plant")).unwrap();
    assert_eq!(config.files.policy, Path::new("/srv/plant/policy.toml"));
    assert_eq!(config.tls.key, Secret::File("/srv/plant/certs/server.key".into()));
    assert_eq!(config.evidence.origin, "plant.example/plant-1");
}

#[test]
fn every_problem_of_the_limits_is_reported_at_its_field() {
    let text = format!(
        "{LEAST}[limits]\nconnects_burst = 0\ncolour = 1\n[limits.default]\n\
         bytes_burst = 1000\non_limit = \"wait\"\n[[limits.class]]\nwho = [\"press-7\"]\n\
         messages_burst = 2_000_000_000\n[[limits.class]]\n"
    );
    let errors = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap_err();
    insta::assert_snapshot!(errors.plain(), @r#"
    avow.toml:10:18: `connects_burst` must be 1 to 1000000000
        help: choose a value from 1 to 1000000000
    avow.toml:11:1: unknown field `colour` in [limits]
        help: known fields are identities_max, addresses_max, connects_per_second, connects_burst, pause_seconds_max, default, class
    avow.toml:13:15: `bytes_burst` of [limits.default] is 1000 B, less than the largest packet: `packet_bytes_max` is 128 KiB
        help: write `bytes_burst = 131072` or more in [limits.default]
    avow.toml:14:12: `on_limit` cannot be `wait`
        help: choose one of `refuse`, `slow`, `disconnect`
    avow.toml:16:8: `press-7` is not a role
        help: the roles are device, dashboard, operator, auditor; a name follows as `device/name`
    avow.toml:17:18: `messages_burst` must be 1 to 1000000000
        help: choose a value from 1 to 1000000000
    avow.toml:18:1: `who` is empty: the class names nobody
        help: name a role or a name: `who = ["device/press-*"]`
    "#);
}

#[test]
fn a_burst_that_the_packet_size_outgrew_points_at_the_packet_size() {
    let text = format!("{LEAST}[mqtt]\npacket_bytes_max = \"2 MiB\"\n");
    let errors = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap_err();
    assert_eq!(errors.iter().next().unwrap().line(), 10);
    // What it proposes holds.
    let fixed = format!("{text}[limits.default]\nbytes_burst = 2097152\n");
    assert!(Config::parse(&fixed, "avow.toml", Path::new("/d")).is_ok());
}

#[test]
fn the_limits_that_are_written_are_the_limits() {
    let text = format!(
        "{LEAST}[limits]\npause_seconds_max = 7\n[limits.default]\nbytes_burst = \"2 MiB\"\n\
         [[limits.class]]\nwho = [\"device/press-*\"]\non_limit = \"slow\"\n"
    );
    let limits = Config::parse(&text, "f", Path::new("/")).unwrap().limits;
    assert_eq!((limits.pause_seconds_max, limits.default.bytes_burst), (7, 2 << 20));
    let [class] = &limits.classes[..] else { panic!("{limits:?}") };
    assert_eq!(
        (class.who[0].to_string().as_str(), class.limits.bytes_burst),
        ("device/press-*", 1 << 20)
    );
    assert_eq!(class.limits.on_limit, crate::limits::OnLimit::Slow);
}

#[test]
fn a_value_that_fails_in_use_is_pointed_at() {
    #[derive(Debug, Clone, thiserror::Error, miette::Diagnostic)]
    #[error("wrong")]
    struct Wrong;
    let text =
        format!("{LEAST}[[issuer]]\nid = \"b\"\nanchors = \"b.pem\"\nroles = [\"device\"]\n");
    let config = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap();
    let line = |setting| config.problem_at(setting, Wrong).iter().next().unwrap().line();
    assert_eq!((line(Setting::Anchors(0)), line(Setting::Anchors(1))), (7, 11));
    assert_eq!(line(Setting::LogKey), 1, "not written: the first byte");
}

#[test]
fn every_problem_of_the_tokens_is_reported_at_its_field() {
    let text = format!(
        "{LEAST}[token]\nbytes_max = \"1 MiB\"\nleeway = \"5m\"\n[[token_key]]\nkid = \"1\"\n\
         algorithm = \"HS256\"\npublic_key = \"secret\"\nissuer = \"\"\nnames = \"device\"\n\
         lifetime_max = \"30d\"\n[[token_key]]\nkid = \"1\"\nissuer = \"a b\"\naudience = \"p\"\n"
    );
    let errors = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap_err();
    insta::assert_snapshot!(errors.plain(), @r#"
    avow.toml:10:13: `bytes_max` is 1 MiB, outside 256 B to 16 KiB
        help: choose a value from 256 B to 16 KiB; nothing here is unlimited
    avow.toml:11:10: `leeway` is 5m, outside 0s to 1m
        help: choose a value from 0s to 1m; nothing here is unlimited
    avow.toml:12:1: [[token_key]] has no `audience`
        help: add `audience = …`
    avow.toml:14:13: `algorithm` cannot be `HS256`
        help: choose one of `ES256`, `ES384`, `EdDSA`, `RS256`, `PS256`
    avow.toml:15:14: `public_key` names no place: secrets stand outside this file
        help: write "file:PATH" (relative to this file) or "env:NAME", and put the secret there
    avow.toml:16:10: `` is not 1 to 128 printable characters
        help: write `issuer = "plant-1"`
    avow.toml:17:9: `names` cannot be `device`
        help: choose one of `dashboard`, `operator`
    avow.toml:18:16: `lifetime_max` is 30days, outside 10s to 1day
        help: choose a value from 10s to 1day; nothing here is unlimited
    avow.toml:20:7: another [[token_key]] has the kid `1`
        help: a token says by `kid` which key signed it: give each key its own
    avow.toml:21:10: `a b` is not 1 to 128 printable characters
        help: write `issuer = "plant-1"`
    "#);
}

#[test]
fn a_websocket_listener_reads_with_its_proxies() {
    let text = format!(
        "{LEAST}[listen.websocket]\naddress = \"[::1]:8884\"\npath = \"/live\"\n\
         origins = [\"https://wall.example\"]\nclient_certificate = \"optional\"\n\
         proxy_protocol = \"v2\"\ntrusted_proxies = [\"10.0.0.5\", \"fd00::/8\"]\n"
    );
    let config = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap();
    let networks = ["10.0.0.5/32", "fd00::/8"].map(|text| Network::parse(text).unwrap());
    assert_eq!(
        config.listen.websocket,
        Some(WebSocketListen {
            address: "[::1]:8884".parse().unwrap(),
            path: "/live".to_owned(),
            origins: vec!["https://wall.example".to_owned()],
            allow_no_origin: false,
            client_certificate: ClientCertificate::Optional,
            message_bytes_max: 1 << 20,
            proxy: Some(Proxy { protocol: ProxyProtocol::V2, trusted: networks.to_vec() }),
        })
    );
    assert_eq!(config.listen.proxy, None);
}

#[test]
fn what_a_websocket_listener_must_not_be_says_its_fix() {
    let text = format!(
        "{LEAST}[listen.websocket]\norigins = [\"*\", \"https://Wall.example/\"]\n\
         path = \"mqtt?x\"\nclient_certificate = \"maybe\"\nproxy_protocol = \"v1\"\n\
         trusted_proxies = [\"0.0.0.0/0\", \"10.0.0.1/8\"]\n"
    );
    let errors = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap_err();
    insta::assert_snapshot!(errors.plain(), @r#"
    avow.toml:10:12: `*` is not an Origin that may connect
        help: write scheme, host and port as the browser's address bar shows them, in lower case, without path, default port or wildcard: "https://wall.example:8443"; `http` only for localhost
    avow.toml:10:17: `https://Wall.example/` is not an Origin that may connect
        help: write scheme, host and port as the browser's address bar shows them, in lower case, without path, default port or wildcard: "https://wall.example:8443"; `http` only for localhost
    avow.toml:11:8: `mqtt?x` is not a path of A-Z a-z 0-9 / . - _
        help: write `path = "/mqtt"`
    avow.toml:12:22: `client_certificate` cannot be `maybe`
        help: choose one of `required`, `optional`, `none`
    avow.toml:14:20: `trusted_proxies` holds every address: anybody could claim to be anybody
        help: list the addresses of the proxies alone, such as "10.0.0.5/32"
    avow.toml:14:33: `10.0.0.1/8` is not an address or a block of addresses
        help: write `trusted_proxies = ["127.0.0.1/32"]`
    "#);
}

#[test]
fn every_problem_of_privacy_is_reported_at_its_field() {
    let text = format!(
        "{LEAST}[privacy]\npeer_address = \"hashed\"\nclient_id = \"none\"\nrotate = \"23h\"\n\
         connection_facts = \"3651d\"\ncolour = 1\n"
    );
    let errors = Config::parse(&text, "avow.toml", Path::new("/d")).unwrap_err();
    insta::assert_snapshot!(errors.plain(), @r"
    avow.toml:10:16: `peer_address` cannot be `hashed`
        help: choose one of `pseudonym`, `plain`, `none`
    avow.toml:11:13: `client_id` cannot be `none`
        help: choose one of `plain`, `pseudonym`
    avow.toml:12:10: `rotate` is 23h, outside 1day to 365days
        help: choose a value from 1day to 365days; nothing here is unlimited
    avow.toml:13:20: `connection_facts` is 3651days, outside 1day to 3650days
        help: choose a value from 1day to 3650days; nothing here is unlimited
    avow.toml:14:1: unknown field `colour` in [privacy]
        help: known fields are peer_address, client_id, keys, rotate, connection_facts
    ");
    let edge = format!("{LEAST}[privacy]\nrotate = \"1d\"\nconnection_facts = \"3650d\"\n");
    assert!(Config::parse(&edge, "avow.toml", Path::new("/d")).is_ok());
}

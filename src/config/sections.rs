//! The sections of `avow.toml`: which fields there are, their units, bounds and defaults.
//!
//! The shipped `config/avow.toml` writes every one of them out; a test holds the two together.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::listen::listen;
#[cfg(test)]
use super::listen::{LISTEN, WEBSOCKET};
use super::place::FileText;
use super::problem::ConfigProblem;
use super::section::Section;
use super::{
    Config, Evidence, Files, IssuerConfig, Log, LogFormat, LogLevel, Metrics, Node,
    OnEvidenceFailure, Tls,
};
use crate::identity::Role;
use crate::identity::name::{check_name, check_trust_domain};
use crate::session::Bounds;
use crate::source::{FieldProblem, Fields, Problems};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
pub(super) const DAY: u64 = 24 * 60 * 60;

const SECTIONS: &[&str] = &[
    "node",
    "listen",
    "tls",
    "issuer",
    "token",
    "token_key",
    "files",
    "metrics",
    "audit_api",
    "server",
    "mqtt",
    "session",
    "limits",
    "evidence",
    "privacy",
    "log",
];

const NODE: &[&str] = &["name", "trust_domain"];
const TLS: &[&str] = &["certificate", "key"];
const ISSUER: &[&str] = &["id", "anchors", "trust_domain", "roles", "name_prefix"];
const FILES: &[&str] = &["policy", "schemas"];
const METRICS: &[&str] = &["address", "allow_remote"];
const LOG: &[&str] = &["format", "level"];

/// Every field of every section, for the test that the shipped file shows them all; beside them
/// the sections that are shown as comments.
#[cfg(test)]
pub(super) fn every_field() -> (Vec<&'static str>, [(&'static str, &'static [&'static str]); 3]) {
    let [limits, class] = super::limits::EVERY_FIELD;
    let sections = [NODE, LISTEN, TLS, ISSUER, FILES, METRICS, MQTT, SESSION, limits, class];
    let more = [
        EVIDENCE,
        LOG,
        super::server::EVERY_FIELD,
        super::privacy::EVERY_FIELD,
        super::tokens::TOKEN,
        super::tokens::TOKEN_KEY,
    ];
    let fields = sections.into_iter().chain(more).flatten().copied();
    // Tables, not values.
    let is_value = |field: &&str| !["default", "class", "websocket", "witness"].contains(field);
    let commented = [
        ("listen.websocket", WEBSOCKET),
        ("evidence.witness", super::witness::WITNESS),
        ("audit_api", super::audit_api::AUDIT_API),
    ];
    (fields.filter(is_value).collect(), commented)
}

pub(super) type Found = Problems<ConfigProblem>;

/// Reads the whole file. After a problem the result holds defaults and must be thrown away.
pub(super) fn read(
    root: &Spanned<DeTable<'_>>,
    dir: &Path,
    text: FileText,
    problems: &mut Found,
) -> Config {
    let table = root.get_ref();
    // A missing section has no place of its own: problems in it point at the file's first byte.
    let top = Fields::new(table, 0..0, "the file", SECTIONS, problems);
    let empty = DeTable::new();
    let mut at = |name| top.table(name, problems).unwrap_or((&empty, 0..0));
    let (at_node, at_listen, at_tls) = (at("node"), at("listen"), at("tls"));
    let (at_files, at_mqtt, at_session) = (at("files"), at("mqtt"), at("session"));
    let (at_evidence, at_log, at_token) = (at("evidence"), at("log"), at("token"));
    let at_metrics = top.table("metrics", problems);
    let at_audit_api = top.table("audit_api", problems);
    let at_limits = top.table("limits", problems);
    let at_server = top.table("server", problems);
    let at_privacy = top.table("privacy", problems);
    let at_issuers = top.tables("issuer", problems);
    let at_token_keys = top.tables("token_key", problems);
    let at_packet = at_mqtt.0.get("packet_bytes_max").map(Spanned::span);

    let node = node(at_node, problems);
    let mut bounds = mqtt(at_mqtt, problems);
    let listen = listen(at_listen, bounds.packet_bytes_max, problems);
    session(at_session, &mut bounds, listen.connections_max, problems);
    let largest = (bounds.packet_bytes_max, at_packet);
    let limits = super::limits::read(at_limits, largest, problems);
    Config {
        dir: dir.to_owned(),
        tls: tls(at_tls, dir, problems),
        issuers: issuers(&at_issuers, &node, dir, problems),
        tokens: super::tokens::read(at_token, &at_token_keys, &node, dir, problems),
        files: files(at_files, dir, problems),
        metrics: at_metrics.and_then(|at| metrics(at, problems)),
        audit_api: at_audit_api.and_then(|at| super::audit_api::read(at, problems)),
        evidence: evidence(at_evidence, dir, &node, &bounds, problems),
        limits,
        privacy: super::privacy::read(at_privacy, dir, problems),
        about: super::server::read(at_server, problems),
        log: log(at_log, problems),
        node,
        listen,
        bounds,
        text,
    }
}

pub(super) type At<'t> = (&'t DeTable<'t>, Range<usize>);

fn node((table, span): At<'_>, problems: &mut Found) -> Node {
    let mut s = Section::new(table, span, "[node]", NODE, problems);
    Node {
        name: s.required_text("name", "1 to 128 of A-Z a-z 0-9 . - _", "\"plant-1\"", |text| {
            check_name(text).is_ok()
        }),
        trust_domain: s.required_text("trust_domain", TRUST_DOMAIN, "\"plant.example\"", |text| {
            check_trust_domain(text).is_ok()
        }),
    }
}

pub(super) const TRUST_DOMAIN: &str = "a trust domain, 1 to 255 of a-z 0-9 . - _";

fn tls((table, span): At<'_>, dir: &Path, problems: &mut Found) -> Tls {
    let mut s = Section::new(table, span, "[tls]", TLS, problems);
    Tls {
        certificate: s.path("certificate", "certs/server.pem", dir),
        key: s.secret("key", "certs/server.key", dir),
    }
}

fn issuers(at: &[At<'_>], node: &Node, dir: &Path, problems: &mut Found) -> Vec<IssuerConfig> {
    if at.is_empty() {
        problems.push(0..0, ConfigProblem::NoIssuer);
    }
    let mut issuers: Vec<IssuerConfig> = Vec::new();
    for (table, span) in at {
        let mut s = Section::new(table, span.clone(), "[[issuer]]", ISSUER, problems);
        let id = s.required_text("id", "1 to 128 of A-Z a-z 0-9 . - _", "\"plant\"", |text| {
            check_name(text).is_ok()
        });
        if issuers.iter().any(|issuer| issuer.id == id) && !id.is_empty() {
            s.report(s.span_of("id"), ConfigProblem::IssuerTwice { id: id.clone() });
        }
        let anchors = s.required_text("anchors", "a path", "\"certs/ca.pem\"", |_| true);
        let trust_domain = s.text("trust_domain", TRUST_DOMAIN, "\"plant.example\"", |text| {
            check_trust_domain(text).is_ok()
        });
        let name_prefix = s.text("name_prefix", "the beginning of a name", "\"press-\"", |text| {
            text.is_empty() || check_name(&format!("{text}x")).is_ok()
        });
        issuers.push(IssuerConfig {
            roles: roles(&mut s, &id),
            anchors: dir.join(anchors),
            trust_domain: trust_domain.unwrap_or_else(|| node.trust_domain.clone()),
            name_prefix: name_prefix.unwrap_or_default(),
            id,
        });
    }
    issuers
}

fn roles(s: &mut Section<'_, '_>, id: &str) -> Vec<Role> {
    let mut roles = Vec::new();
    let texts = s.texts("roles");
    let count = texts.len();
    for text in texts {
        match Role::parse(text.get_ref()) {
            Some(role) if roles.contains(&role) => {}
            Some(role) => roles.push(role),
            None => {
                let allowed = Role::ALL.map(|role| role.as_str().to_owned()).to_vec();
                let found = super::value::clip(text.get_ref());
                s.report(text.span(), FieldProblem::Choice { field: "roles", found, allowed });
            }
        }
    }
    if count == 0 {
        s.report(s.span_of("roles"), ConfigProblem::IssuerWithoutRole { id: id.to_owned() });
    }
    roles
}

fn files((table, span): At<'_>, dir: &Path, problems: &mut Found) -> Files {
    let mut s = Section::new(table, span, "[files]", FILES, problems);
    Files {
        policy: s.path("policy", "policy.toml", dir),
        schemas: s.path("schemas", "schemas", dir),
    }
}

fn metrics((table, span): At<'_>, problems: &mut Found) -> Option<Metrics> {
    let mut s = Section::new(table, span, "[metrics]", METRICS, problems);
    let allow_remote = s.switch("allow_remote", false);
    let address = s.address("address")?;
    if !address.ip().is_loopback() && !allow_remote {
        s.report(s.span_of("address"), ConfigProblem::MetricsRemote);
    }
    Some(Metrics { address })
}

const MQTT: &[&str] = &[
    "packet_bytes_max",
    "connect_bytes_max",
    "client_id_bytes_max",
    "topic_levels_max",
    "topic_bytes_max",
    "filter_bytes_max",
    "filters_per_subscribe_max",
    "user_properties_max",
    "receive_maximum",
    "send_window_messages_max",
    "topic_alias_maximum",
    "topic_alias_outbound_max",
    "keep_alive_min",
    "keep_alive_max",
    "idle_max",
    "outbound_bytes_max",
];

fn mqtt((table, span): At<'_>, problems: &mut Found) -> Bounds {
    let mut s = Section::new(table, span, "[mqtt]", MQTT, problems);
    let d = Bounds::default();
    let bounds = Bounds {
        packet_bytes_max: narrow(s.bytes(
            "packet_bytes_max",
            d.packet_bytes_max.into(),
            KIB..=16 * MIB,
        )),
        connect_bytes_max: narrow(s.bytes(
            "connect_bytes_max",
            d.connect_bytes_max.into(),
            KIB..=MIB,
        )),
        client_id_bytes_max: narrow(s.count("client_id_bytes_max", 128, 23..=4_096)),
        topic_levels_max: narrow(s.count("topic_levels_max", 16, 1..=128)),
        topic_bytes_max: narrow(s.count("topic_bytes_max", 256, 1..=4_096)),
        filter_bytes_max: narrow(s.count("filter_bytes_max", 256, 1..=4_096)),
        filters_per_subscribe_max: narrow(s.count("filters_per_subscribe_max", 8, 1..=1_024)),
        user_properties_max: narrow(s.count("user_properties_max", 16, 0..=256)),
        receive_maximum: narrow(s.count("receive_maximum", 64, 1..=65_535)),
        send_window_messages_max: narrow(s.count("send_window_messages_max", 64, 1..=65_535)),
        topic_alias_maximum: narrow(s.count("topic_alias_maximum", 16, 0..=1_024)),
        topic_alias_outbound_max: narrow(s.count("topic_alias_outbound_max", 16, 0..=1_024)),
        keep_alive_seconds_min: narrow(s.seconds("keep_alive_min", 5, 1..=3_600)),
        keep_alive_seconds_max: narrow(s.seconds("keep_alive_max", 1_200, 5..=18 * 3_600)),
        idle_seconds_max: narrow(s.seconds("idle_max", 1_800, 10..=DAY)),
        outbound_bytes_max: narrow(s.bytes(
            "outbound_bytes_max",
            d.outbound_bytes_max.into(),
            16 * KIB..=64 * MIB,
        )),
        ..d
    };
    if bounds.connect_bytes_max > bounds.packet_bytes_max {
        s.report(s.span_of("connect_bytes_max"), ConfigProblem::ConnectAbovePacket);
    }
    if bounds.keep_alive_seconds_min > bounds.keep_alive_seconds_max {
        s.report(s.span_of("keep_alive_min"), ConfigProblem::KeepAliveOrder);
    }
    if bounds.idle_seconds_max < u32::from(bounds.keep_alive_seconds_max) {
        s.report(s.span_of("idle_max"), ConfigProblem::IdleBelowKeepAlive);
    }
    bounds
}

const SESSION: &[&str] = &[
    "subscriptions_max",
    "queue_messages_max",
    "queue_bytes_max",
    "session_expiry_max",
    "message_expiry_max",
    "will_delay_max",
    "sessions_total_max",
    "subscriptions_total_max",
    "queue_total_messages_max",
    "queue_total_bytes_max",
    "retained_messages_max",
    "retained_bytes_max",
];

fn session((table, span): At<'_>, b: &mut Bounds, connections_max: u32, problems: &mut Found) {
    let mut s = Section::new(table, span, "[session]", SESSION, problems);
    b.subscriptions_max = narrow(s.count("subscriptions_max", 50, 1..=100_000));
    b.queue_messages_max = narrow(s.count("queue_messages_max", 1_000, 1..=1_000_000));
    b.queue_bytes_max = s.bytes("queue_bytes_max", b.queue_bytes_max, KIB..=GIB);
    b.session_expiry_seconds_max = narrow(s.seconds("session_expiry_max", 7 * DAY, 0..=90 * DAY));
    b.message_expiry_seconds_max = narrow(s.seconds("message_expiry_max", 7 * DAY, 1..=90 * DAY));
    b.will_delay_seconds_max = narrow(s.seconds("will_delay_max", DAY, 0..=90 * DAY));
    b.sessions_total_max = narrow(s.count("sessions_total_max", 50_000, 1..=10_000_000));
    b.subscriptions_total_max =
        narrow(s.count("subscriptions_total_max", 500_000, 1..=100_000_000));
    b.queue_total_messages_max =
        s.count("queue_total_messages_max", b.queue_total_messages_max, 1..=100_000_000);
    b.queue_total_bytes_max =
        s.bytes("queue_total_bytes_max", b.queue_total_bytes_max, MIB..=1_024 * GIB);
    b.retained_messages_max = narrow(s.count("retained_messages_max", 100_000, 0..=10_000_000));
    b.retained_bytes_max = s.bytes("retained_bytes_max", b.retained_bytes_max, 0..=64 * GIB);
    if b.queue_bytes_max < u64::from(b.packet_bytes_max) {
        s.report(s.span_of("queue_bytes_max"), ConfigProblem::QueueBelowPacket);
    }
    if b.sessions_total_max < connections_max {
        let connections_max = b.sessions_total_max;
        let problem = ConfigProblem::SessionsBelowConnections { connections_max };
        s.report(s.span_of("sessions_total_max"), problem);
    }
}

const EVIDENCE: &[&str] = &[
    "origin",
    "directory",
    "key",
    "receipt_key",
    "segment_bytes",
    "tiles",
    "checkpoint_interval",
    "backlog_bytes_max",
    "backlog_entries_max",
    "on_evidence_failure",
    "device_clock_tolerance",
    "cover_within",
    "links_max",
    "signers_max",
    "verify_threads",
    "witness",
];

fn evidence(
    (table, span): At<'_>,
    dir: &Path,
    node: &Node,
    bounds: &Bounds,
    problems: &mut Found,
) -> Evidence {
    let mut s = Section::new(table, span, "[evidence]", EVIDENCE, problems);
    let origin =
        s.text("origin", "a name without spaces and `+`", "\"plant.example/log\"", |text| {
            let plain = |b: u8| b.is_ascii_graphic() && b != b'+';
            (1..=255).contains(&text.len()) && text.bytes().all(plain)
        });
    let millis = Duration::from_millis;
    let mut evidence = Evidence {
        origin: origin.unwrap_or_else(|| format!("{}/{}", node.trust_domain, node.name)),
        directory: s.path("directory", "log", dir),
        key: s.secret("key", "certs/log.key", dir),
        receipt_key: s.secret("receipt_key", "certs/receipt.key", dir),
        segment_bytes: s.bytes("segment_bytes", 64 * MIB, MIB..=GIB),
        tiles: s.switch("tiles", true),
        checkpoint_interval: s.duration(
            "checkpoint_interval",
            millis(1_000),
            millis(100)..=millis(60_000),
        ),
        backlog_bytes_max: s.bytes("backlog_bytes_max", 16 * MIB, 64 * KIB..=512 * MIB),
        backlog_entries_max: narrow(s.count("backlog_entries_max", 65_536, 64..=4_194_304)),
        on_evidence_failure: s.choice(
            "on_evidence_failure",
            OnEvidenceFailure::Refuse,
            &[("refuse", OnEvidenceFailure::Refuse)],
        ),
        device_clock_tolerance: s.duration(
            "device_clock_tolerance",
            millis(300_000),
            millis(1_000)..=millis(86_400_000),
        ),
        cover_within: s.duration(
            "cover_within",
            millis(600_000),
            millis(1_000)..=millis(86_400_000),
        ),
        links_max: narrow(s.count("links_max", 1 << 20, 1_024..=1 << 26)),
        signers_max: narrow(s.count("signers_max", 65_536, 1..=10_000_000)),
        verify_threads: usize::try_from(s.count("verify_threads", 0, 0..=64))
            .ok()
            .filter(|threads| *threads > 0),
        witness: None,
    };
    if evidence.segment_bytes < 2 * evidence.backlog_bytes_max {
        s.report(s.span_of("segment_bytes"), ConfigProblem::SegmentBelowBacklog);
    }
    if evidence.backlog_bytes_max < 4 * u64::from(bounds.packet_bytes_max) {
        s.report(s.span_of("backlog_bytes_max"), ConfigProblem::BacklogBelowPackets);
    }
    let at_witness = s.table("witness");
    evidence.witness = at_witness.map(|at| super::witness::read(at, dir, problems));
    evidence
}

fn log((table, span): At<'_>, problems: &mut Found) -> Log {
    let mut s = Section::new(table, span, "[log]", LOG, problems);
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug]
        .map(|level| (level.as_str(), level));
    Log {
        format: s.choice("format", LogFormat::Text, &formats),
        level: s.choice("level", LogLevel::Info, &levels),
    }
}

/// A value whose range was checked, in the type of its field.
pub(super) fn narrow<T: TryFrom<u64> + From<u16>>(value: u64) -> T {
    T::try_from(value).unwrap_or_else(|_| T::from(u16::MAX))
}

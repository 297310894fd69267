use super::*;
use crate::identity::{Identity, Role};
use crate::limits::Admitted;
use crate::mqtt::{ClientId, ProtocolVersion, Publish, PublishProperties, QoS};
use crate::policy::Policy;
use crate::refusal::{Refusal, Refused};
use crate::session::{Author, Received};
use crate::time::UnixNanos;
use proptest::prelude::*;

const REGISTRY: &str = include_str!("../../config/schemas/registry.toml");

fn shipped_file(name: &str) -> Result<String, String> {
    match name {
        "telemetry.schema.json" => {
            Ok(include_str!("../../config/schemas/telemetry.schema.json").to_owned())
        }
        "status.schema.json" => {
            Ok(include_str!("../../config/schemas/status.schema.json").to_owned())
        }
        other => Err(format!("no file {other}")),
    }
}

fn shipped() -> Schemas {
    let schemas = Schemas::parse("config/schemas/registry.toml", REGISTRY, shipped_file);
    schemas.unwrap_or_else(|error| panic!("{}", error.plain()))
}

/// One schema for `t`, with more fields of the registry.
fn one(fields: &str, schema: &str) -> Result<Schemas, SchemaError> {
    let registry = format!("[[schema]]\nid = 's'\nfilter = 't'\nfile = 's.json'\n{fields}");
    Schemas::parse("schemas/registry.toml", &registry, |_| Ok::<_, String>(schema.to_owned()))
}

fn wrong(fields: &str, schema: &str) -> String {
    one(fields, schema).unwrap_err().plain()
}

struct Sent<'a> {
    topic: &'a str,
    payload: &'a [u8],
    retain: bool,
    says_utf8: Option<bool>,
    rule: &'a str,
    dup: bool,
}

const SENT: Sent<'_> =
    Sent { topic: "t", payload: b"", retain: false, says_utf8: None, rule: "required", dup: false };

/// When every message of these tests comes.
const NOW: UnixNanos = UnixNanos::from_seconds(1_764_000_000);

fn check(schemas: &Schemas, sent: Sent<'_>) -> Result<Outcome, Refused> {
    let mut sequences = schemas.sequences(&[0; 32]);
    walk(schemas, sent, &mut sequences).map(|conforming| conforming.outcome().clone())
}

fn walk(
    schemas: &Schemas,
    sent: Sent<'_>,
    sequences: &mut Sequences,
) -> Result<Conforming, Refused> {
    let rules = format!(
        "version=1\n[[permit]]\nid='a'\nwho=['device']\npublish=['#']\nretain=true\n\
         clear_retained=true\nschema='{}'",
        sent.rule
    );
    let identity = Identity::new("plant.example", Role::Device, "press-7", "plant").unwrap();
    let author = Author::new(identity, ClientId::new("press-7"), ProtocolVersion::V5);
    let topic = TopicName::parse(sent.topic).unwrap();
    let properties =
        PublishProperties { payload_is_utf8: sent.says_utf8, ..PublishProperties::default() };
    let publish = Publish {
        dup: sent.dup,
        qos: QoS::AtLeastOnce,
        retain: sent.retain,
        topic: Some(topic.clone()),
        packet_id: None,
        properties,
        payload: sent.payload.to_vec().into(),
    };
    let received = Received::new(author, topic, Box::new(publish));
    let authorized = Policy::parse("p", &rules).unwrap().authorize(received).unwrap();
    let checked = schemas.check(Admitted::for_will(authorized), NOW, sequences);
    checked.map_err(|(_, refused)| refused)
}

fn refusal(schemas: &Schemas, payload: &[u8]) -> Option<Refusal> {
    check(schemas, Sent { payload, ..SENT }).err().map(|refused| refused.refusal)
}

const TELEMETRY: &str = "plant/press-7/telemetry/temperature";

#[test]
fn a_payload_that_satisfies_its_schema_conforms() {
    let payload = br#"{"ts": 1, "seq": 2, "values": {"t": 21.5}, "unit": "C"}"#;
    let outcome = check(&shipped(), Sent { topic: TELEMETRY, payload, ..SENT });
    assert_eq!(outcome, Ok(Outcome::Conforms { schema: "telemetry".into() }));
}

#[test]
fn a_refusal_names_the_place_and_the_keyword_and_never_a_value() {
    let payload = br#"{"ts": 1, "seq": 2, "values": {"t": 1}, "operator": {"name": ""}}"#;
    let refused = check(&shipped(), Sent { topic: TELEMETRY, payload, ..SENT }).unwrap_err();
    assert_eq!(refused.refusal, Refusal::SchemaMismatch);
    assert_eq!(refused.by.as_deref(), Some("telemetry"));
    assert_eq!(refused.detail.as_deref(), Some("/operator/name: minLength"));
    let dated = one("", r#"{"properties": {"at": {"format": "date-time"}}}"#).unwrap();
    let payload = br#"{"at": "secret-4711"}"#;
    let refused = check(&dated, Sent { payload, ..SENT }).unwrap_err();
    assert_eq!(refused.detail.as_deref(), Some("/at: format"), "format is asserted");
}

#[test]
fn a_failure_goes_into_quarantine_where_the_schema_says_so() {
    let sent = Sent { topic: "plant/press-7/status", payload: br#"{"state": "happy"}"#, ..SENT };
    let Ok(Outcome::Quarantined { topic, refused }) = check(&shipped(), sent) else {
        panic!("not quarantined")
    };
    assert_eq!(topic.as_str(), "$quarantine/status/plant/press-7/status");
    assert_eq!(refused.refusal, Refusal::SchemaMismatch);
    let big = vec![b' '; 1025];
    let sent = Sent { topic: "plant/press-7/status", payload: &big, ..SENT };
    assert_eq!(check(&shipped(), sent).unwrap_err().refusal, Refusal::PayloadTooLarge);
}

#[test]
fn a_topic_without_a_schema_needs_a_rule_that_says_so() {
    let schemas = shipped();
    let ask = |rule| check(&schemas, Sent { topic: "x", payload: b"\xff", rule, ..SENT });
    assert_eq!(ask("required").unwrap_err().refusal, Refusal::NoSchema);
    assert_eq!(ask("none"), Ok(Outcome::Unchecked));
    assert_eq!(ask("opaque"), Ok(Outcome::Opaque));
}

#[test]
fn unchecked_payloads_are_bounded() {
    let schemas = Schemas::parse("r", "[defaults]\nunchecked_bytes_max = 3", shipped_file).unwrap();
    for rule in ["none", "opaque"] {
        let ask = |payload| check(&schemas, Sent { payload, rule, ..SENT });
        assert!(ask(b"abc").is_ok());
        assert_eq!(ask(b"abcd").unwrap_err().refusal, Refusal::PayloadTooLarge);
    }
}

#[test]
fn a_lying_payload_format_indicator_is_refused_whatever_the_rule_asks() {
    for rule in ["required", "none", "opaque"] {
        let sent = Sent { payload: b"\"\xff\"", says_utf8: Some(true), rule, ..SENT };
        let refused = check(&one("", "true").unwrap(), sent).unwrap_err();
        assert_eq!(refused.refusal, Refusal::PayloadNotUtf8);
        assert_eq!(refused.refusal.reason_code().as_u8(), 0x99);
    }
}

#[test]
fn clearing_a_retained_message_has_no_schema() {
    let clear = Sent { topic: TELEMETRY, retain: true, ..SENT };
    assert_eq!(check(&shipped(), clear), Ok(Outcome::Unchecked));
    let empty = check(&shipped(), Sent { topic: TELEMETRY, ..SENT });
    assert_eq!(empty.unwrap_err().refusal, Refusal::PayloadNotJson);
}

#[test]
fn f01_a_depth_bomb_is_refused_at_its_bound() {
    let schemas = one("bytes_max = 200000\ndepth_max = 3", "true").unwrap();
    assert_eq!(refusal(&schemas, b"[[[1]]]"), None);
    assert_eq!(refusal(&schemas, b"[{\"a\":[]}]"), None);
    assert_eq!(refusal(&schemas, b"[[[[]]]]"), Some(Refusal::PayloadTooDeep));
    assert_eq!(refusal(&schemas, "[".repeat(100_000).as_bytes()), Some(Refusal::PayloadTooDeep));
    let bomb = "{\"a\":".repeat(40_000);
    assert_eq!(refusal(&schemas, bomb.as_bytes()), Some(Refusal::PayloadTooDeep));
}

#[test]
fn f01_values_are_counted() {
    let schemas = one("nodes_max = 4", "true").unwrap();
    assert_eq!(refusal(&schemas, b"[1,2,3]"), None);
    assert_eq!(refusal(&schemas, b"[1,2,3,4]"), Some(Refusal::PayloadTooManyNodes));
    assert_eq!(refusal(&schemas, br#"{"a":{"b":[1]}}"#), None);
    assert_eq!(refusal(&schemas, br#"{"a":{"b":[1,2]}}"#), Some(Refusal::PayloadTooManyNodes));
}

#[test]
fn f01_bytes_are_bounded_before_anything_is_read() {
    let schemas = one("bytes_max = 4", "true").unwrap();
    assert_eq!(refusal(&schemas, b"\"ab\""), None);
    assert_eq!(refusal(&schemas, b"not j"), Some(Refusal::PayloadTooLarge));
}

#[test]
fn f01_a_key_twice_is_refused_with_its_place() {
    let schemas = one("", "true").unwrap();
    let payload = br#"{"a": [1, {"b/c": 1, "b/c": 2}]}"#;
    let refused = check(&schemas, Sent { payload, ..SENT }).unwrap_err();
    assert_eq!(refused.refusal, Refusal::PayloadDuplicateKey);
    assert_eq!(refused.detail.as_deref(), Some("/a/1/b~1c"));
    assert_eq!(refusal(&schemas, br#"{"a": 1, "\u0061": 2}"#), Some(Refusal::PayloadDuplicateKey));
}

#[test]
fn f01_huge_numbers_are_refused_or_read_in_linear_time() {
    let schemas = one("", "{\"type\": \"number\", \"maximum\": 10}").unwrap();
    assert_eq!(refusal(&schemas, b"1e400"), Some(Refusal::PayloadNotJson));
    let digits = "9".repeat(16_000);
    assert!(refusal(&schemas, digits.as_bytes()).is_some());
    assert_eq!(refusal(&schemas, b"NaN"), Some(Refusal::PayloadNotJson));
}

#[test]
fn f02_a_regular_expression_takes_linear_time() {
    // A backtracking engine would take 2^16000 steps here.
    let schemas = one("", r#"{"type": "string", "pattern": "^(a+)+$"}"#).unwrap();
    let payload = format!("\"{}!\"", "a".repeat(16_000));
    assert_eq!(refusal(&schemas, payload.as_bytes()), Some(Refusal::SchemaMismatch));
}

#[test]
fn f02_patterns_that_need_backtracking_do_not_load() {
    for pattern in ["(?=a)b", r"(a)\\1"] {
        let problem = wrong("", &format!(r#"{{"pattern": "{pattern}"}}"#));
        assert!(problem.contains("not a valid schema"), "{problem}");
    }
}

#[test]
fn f03_markup_and_deceptive_characters_are_refused_where_asked() {
    let (strict, lax) = (one("reject_markup = true", "true").unwrap(), one("", "true").unwrap());
    for payload in [
        r#"{"a": ["<script>"]}"#,
        r#"{"a": "\u001b[2J"}"#,
        "\"\u{202e}cod.exe\"",
        r#"{"a\u0000": 1}"#,
    ] {
        assert_eq!(
            refusal(&strict, payload.as_bytes()),
            Some(Refusal::SchemaMismatch),
            "{payload}"
        );
        assert_eq!(refusal(&lax, payload.as_bytes()), None);
    }
    let payload = r#"{"a": ["é", "<b>"]}"#.as_bytes();
    let refused = check(&strict, Sent { payload, ..SENT }).unwrap_err();
    assert_eq!(refused.detail.as_deref(), Some("/a/1: reject_markup"));
}

#[test]
fn f03_a_masked_payload_shows_nothing_sensitive_and_cannot_act() {
    let fields = "sensitive = ['/operator/name', '/a~1b/0']";
    let schemas = one(fields, "true").unwrap();
    let topic = TopicName::parse("t").unwrap();
    let mask = |payload: &str| schemas.mask(&topic, payload.as_bytes());
    assert_eq!(
        mask(r#"{"operator": {"name": "Ada", "x": 1}}"#),
        r#"{"operator":{"name":"***","x":1}}"#
    );
    assert_eq!(mask(r#"{"a/b": ["x", "y"]}"#), r#"{"a/b":["***","y"]}"#);
    assert_eq!(mask(r#"{"operator": "Ada"}"#), r#"{"operator":"***"}"#);
    assert_eq!(mask(r#"{"operator": ["Ada"]}"#), r#"{"operator":"***"}"#);
    assert_eq!(mask(r#"{"x": 1}"#), r#"{"x":1}"#);
    assert_eq!(mask("{\"x\": \"\u{202e}\u{9b}\"}"), r#"{"x":"\u{202e}\u{9b}"}"#);
    assert_eq!(mask("Ada"), "<3 bytes, not as its schema says>");
    assert_eq!(mask(r#"{"operator": 1, "operator": "Ada"}"#), "<34 bytes, not as its schema says>");
    let sealed = TopicName::parse("plant/a/sealed").unwrap();
    assert_eq!(schemas.mask(&sealed, b"abc"), "<3 bytes>");
    let quarantined = TopicName::parse("$quarantine/s/t").unwrap();
    assert_eq!(schemas.mask(&quarantined, br#"{"operator": "Ada"}"#), r#"{"operator":"***"}"#);
}

#[test]
fn the_most_specific_filter_counts() {
    let registry: String = ["#", "a/#", "a/+/c", "a/b/#", "+/b/c"]
        .iter()
        .enumerate()
        .map(|(i, filter)| format!("[[schema]]\nid='s{i}'\nfilter='{filter}'\nfile='s.json'\n"))
        .collect();
    let schemas = Schemas::parse("r", &registry, |_| Ok::<_, String>("true".to_owned())).unwrap();
    let id = |topic: &str| schemas.id_for(&TopicName::parse(topic).unwrap()).unwrap().to_string();
    assert_eq!(id("a/b/c"), "s3");
    assert_eq!(id("a/x/c"), "s2");
    assert_eq!(id("a/x"), "s1");
    assert_eq!(id("x/b/c"), "s4");
    assert_eq!(id("x"), "s0");
}

#[test]
fn references_out_of_the_file_do_not_load() {
    for uri in ["https://example.com/s.json", "file:///etc/passwd", "other.json", "other.json#/a"] {
        let problem = wrong("", &format!("{{\n  \"$ref\": \"{uri}\"\n}}"));
        let wanted = format!("schemas/s.json:2:11: `$ref` leads to `{uri}`, out of this file");
        assert!(problem.contains(&wanted), "{problem}");
    }
    assert!(one("", r##"{"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"}"##).is_ok());
    let schema = r#"{"$defs": {"a": {"$id": "https://example.com/a"}}}"#;
    assert!(wrong("", schema).contains("out of this file"));
}

#[test]
fn problems_have_a_file_a_line_and_a_fix() {
    assert!(wrong("", "{\n \"a\": }").contains("schemas/s.json:2:7: this is not JSON"));
    assert!(
        wrong("", "{\n\"type\": \"strin\"}").contains("schemas/s.json:2:1: this is not a valid")
    );
    assert!(wrong("", r#"{"format": "colour"}"#).contains("not a valid schema"));
    assert!(
        wrong("", r#"{"$schema": "http://json-schema.org/draft-07/schema#"}"#).contains("2020-12")
    );
    let registry = "[[schema]]\nid = 'A'\nfilter = 'a/${device}'\nfile = 'x'\n\n\
                    [[schema]]\nid = 'a'\nfilter = 'a/${device}'\nfile = 'x'\n\n\
                    [[schema]]\nid = 'b'\nfilter = 'b'\nfile = '../x'\nsensitiv = []\n\n\
                    [[schema]]\nid = 'b'\nfilter = 'b'\nfile = 'gone.json'\nsensitive = ['x']\n\n\
                    [[schema]]\nid = 'c'\nfilter = '$SYS/#'\nfile = 'x'\ndepth_max = 101\n";
    let error = Schemas::parse("schemas/registry.toml", registry, shipped_file);
    insta::assert_snapshot!(error.unwrap_err().plain(), @r"
    schemas/registry.toml:2:6: `A` cannot be the id of a schema
        help: an id has 1 to 64 characters of a-z, 0-9 and '-'
    schemas/registry.toml:8:10: `a/${device}` has a variable in it
        help: a filter of a schema speaks of all devices: write `+` for that level
    schemas/registry.toml:14:8: `../x` is not a file beside the registry
        help: name a file in the registry's own directory, without `..` or a leading `/`
    schemas/registry.toml:15:1: unknown field `sensitiv` in [[schema]]
        help: did you mean `sensitive`?
    schemas/registry.toml:18:6: `id b` is taken by the schema on line 12
        help: each schema has an id and a filter of its own
    schemas/registry.toml:19:10: `filter b` is taken by the schema on line 13
        help: each schema has an id and a filter of its own
    schemas/registry.toml:20:8: `gone.json` cannot be read: no file gone.json
        help: put the schema there, or correct `file`
    schemas/registry.toml:21:14: `x` is not a JSON Pointer
        help: write `/operator/name`; `~1` stands for `/` in a key and `~0` for `~`
    schemas/registry.toml:25:10: `$SYS/#` speaks of topics that only the broker writes
        help: clients never publish to topics that begin with `$`
    schemas/registry.toml:27:13: `depth_max` must be 1 to 100
        help: choose a value from 1 to 100
    ");
}

/// What is flagged, or why it is refused, when a payload comes at [`NOW`].
fn freshness(schemas: &Schemas, payload: &str) -> String {
    say_freshness(walk(
        schemas,
        Sent { payload: payload.as_bytes(), ..SENT },
        &mut schemas.sequences(&[0; 32]),
    ))
}

fn say_freshness(judged: Result<Conforming, Refused>) -> String {
    match judged {
        Ok(conforming) => {
            let flags: Vec<_> = conforming.freshness().flags().map(Flag::as_str).collect();
            format!("goes on, flags: {}", flags.join(" "))
        }
        Err(Refused { refusal, by, detail }) => format!("{} {by:?} {detail:?}", refusal.name()),
    }
}

#[test]
fn a_payload_is_fresh_by_its_own_time_or_flagged_or_refused_as_its_schema_says() {
    let flags = one("time = {pointer = '/at', unit = 's'}", "true").unwrap();
    let refuses = "time = {pointer='/at', unit='s', past='1h', on_failure='refuse'}";
    let refuses = one(refuses, "true").unwrap();
    let mut table = String::new();
    for payload in [
        r#"{"at": 1764000000}"#,
        r#"{"at": 1763999400}"#,
        r#"{"at": 1763999399}"#,
        r#"{"at": 1764000031}"#,
        r#"{"at": "now"}"#,
        "[]",
    ] {
        let (flagged, refused) = (freshness(&flags, payload), freshness(&refuses, payload));
        table.push_str(&format!("{payload} | {flagged} | {refused}\n"));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn numbers_are_flagged_or_refused_as_their_schema_says() {
    let flags = one("sequence = {pointer = '/n', window = 2}", "true").unwrap();
    let refuses = "sequence = {pointer = '/n', window = 2, on_failure = 'refuse'}";
    let refuses = one(refuses, "true").unwrap();
    let (mut of_flags, mut of_refuses) = (flags.sequences(&[0; 32]), refuses.sequences(&[0; 32]));
    let mut table = String::new();
    for (payload, dup) in [
        (r#"{"n": 7}"#, false),
        (r#"{"n": 8}"#, false),
        (r#"{"n": 8}"#, true),
        (r#"{"n": 8}"#, false),
        (r#"{"n": 8 }"#, true),
        (r#"{"n": 6}"#, false),
        (r#"{"n": 11}"#, false),
        (r#"{"n": 10}"#, false),
        (r#"{"n": 9}"#, false),
        (r#"{"n": "12"}"#, false),
        (r#"{"n": -1}"#, false),
        (r#"{"n": 12.0}"#, false),
    ] {
        let sent = || Sent { payload: payload.as_bytes(), dup, ..SENT };
        let flagged = walk(&flags, sent(), &mut of_flags);
        let missing = flagged.as_ref().map_or(0, |message| message.freshness().missing());
        let refused = say_freshness(walk(&refuses, sent(), &mut of_refuses));
        let flagged = say_freshness(flagged);
        table
            .push_str(&format!("{payload} dup {dup} | {flagged}, {missing} missing | {refused}\n"));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_message_that_is_refused_for_its_time_uses_no_number() {
    let fields = "time = {pointer='/t', unit='s', on_failure='refuse'}\nsequence = {pointer='/n'}";
    let schemas = one(fields, "true").unwrap();
    let mut sequences = schemas.sequences(&[0; 32]);
    let late = br#"{"t": 1, "n": 5}"#;
    assert!(walk(&schemas, Sent { payload: late, ..SENT }, &mut sequences).is_err());
    assert!(sequences.is_empty());
    let fresh = br#"{"t": 1764000000, "n": 5}"#;
    let said = say_freshness(walk(&schemas, Sent { payload: fresh, ..SENT }, &mut sequences));
    assert_eq!((said.as_str(), sequences.len()), ("goes on, flags: first", 1));
}

#[test]
fn a_payload_that_fails_its_schema_is_not_asked_for_its_time() {
    let fields = "on_failure = 'quarantine'\ntime = {pointer='/t', unit='s', on_failure='refuse'}";
    let schemas = one(fields, r#"{"type": "object", "required": ["x"]}"#).unwrap();
    let outcome = check(&schemas, Sent { payload: br#"{"t": 1}"#, ..SENT });
    assert!(matches!(outcome, Ok(Outcome::Quarantined { .. })), "{outcome:?}");
    assert_eq!(refusal(&schemas, br#"{"t": 1, "x": 1}"#), Some(Refusal::PayloadLate));
}

#[test]
fn what_a_schema_says_of_freshness_wrongly_has_a_line_and_a_fix() {
    let fields =
        "time = {pointer = 'at', past = '10 parsecs', future = '367d', on_failure = 'x'}\n";
    insta::assert_snapshot!(wrong(fields, "true"));
    insta::assert_snapshot!(wrong("time = 5", "true"));
    let sequence = "sequence = {pointer = '', window = 65, on_failure = 'quarantine', per = 'x'}";
    insta::assert_snapshot!("sequence", wrong(sequence, "true"));
    let bounds = "[defaults]\nsequences_max = 0\nsequences_per_device_max = 16777217";
    let error = Schemas::parse("r", bounds, shipped_file).unwrap_err().plain();
    insta::assert_snapshot!("sequence_bounds", error);
    insta::assert_snapshot!(wrong("time = {unit = 'h', since = 1, past = 10}", "true"));
    assert!(
        one("time = {pointer = '/t', unit = 's', past = '366d', future = '1ms'}", "true").is_ok()
    );
    assert!(one("sequence = {pointer = '/n', window = 64}", "true").is_ok());
}

#[test]
fn the_hash_covers_the_files() {
    let (first, second) = (one("", "true").unwrap(), one("", "false").unwrap());
    assert_ne!(first.hash(), second.hash());
    assert_eq!(first.hash(), one("", "true").unwrap().hash());
}

proptest! {
    #[test]
    fn what_is_read_is_what_serde_json_reads(text in "[\\[\\]{}:,\"a1-9 .e\\\\-]{0,40}") {
        let bounds = json::Bounds { depth_max: 64, nodes_max: 1_000, reject_markup: false };
        let ours = json::read(text.as_bytes(), &bounds);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err((refusal, _)), theirs) => {
                let twice = refusal == Refusal::PayloadDuplicateKey;
                prop_assert!(twice || theirs.is_err());
            }
            (Ok(_), Err(error)) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn no_payload_panics_or_passes_a_bound(payload in prop::collection::vec(any::<u8>(), 0..64)) {
        let schemas = one("bytes_max = 32", "{\"type\": \"object\"}").unwrap();
        let outcome = check(&schemas, Sent { payload: &payload, ..SENT });
        prop_assert!(payload.len() <= 32 || outcome.is_err());
    }
}

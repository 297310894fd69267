//! Entries as events of the Open Cybersecurity Schema Framework, version 1.3.0.
//!
//! Sessions are Authentication (3002), messages and subscriptions API Activity (6003), what is managed
//! is Entity Management (3004), the process is Application Lifecycle (6002). The exact bytes of the
//! entry stand in `raw_data`, its index in `metadata.sequence`. What the framework has no field for is
//! not invented: it stays in `raw_data`.

use serde_json::{Map, Value, json};

/// The version of the schema that the events follow.
const SCHEMA_VERSION: &str = "1.3.0";

/// Activities beyond what a class lists.
const OTHER: u64 = 99;

/// A class of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Authentication,
    EntityManagement,
    ApplicationLifecycle,
    ApiActivity,
}

impl Class {
    /// Its number and that of its category.
    const fn uids(self) -> (u64, u64) {
        match self {
            Self::Authentication => (3002, 3),
            Self::EntityManagement => (3004, 3),
            Self::ApplicationLifecycle => (6002, 6),
            Self::ApiActivity => (6003, 6),
        }
    }
}

/// The class and the activity of an entry.
fn classify(kind: &str, act: &str) -> (Class, u64) {
    match kind {
        "connect" | "connect.refused" => (Class::Authentication, 1),
        "disconnect" => (Class::Authentication, 2),
        "reauth" => (Class::Authentication, OTHER),
        "start" => (Class::ApplicationLifecycle, 3),
        "stop" => (Class::ApplicationLifecycle, 4),
        "time.step" => (Class::ApplicationLifecycle, OTHER),
        "publish" | "publish.refused" | "publish.dup" | "will" => (Class::ApiActivity, 1),
        "subscribe" | "query" | "export" => (Class::ApiActivity, 2),
        "retain.set" => (Class::ApiActivity, 3),
        "retain.clear" | "unsubscribe" => (Class::ApiActivity, 4),
        "cover" | "gap" => (Class::ApiActivity, OTHER),
        "cert" | "anchor" => (Class::EntityManagement, 1),
        "erased" => (Class::EntityManagement, 4),
        "admin" if act.ends_with(".issue") => (Class::EntityManagement, 1),
        "admin" if act.ends_with(".revoke") => (Class::EntityManagement, 4),
        // The configuration, the policy, the schemas, the key of the log, further acts.
        _ => (Class::EntityManagement, 3),
    }
}

/// One entry as one line of JSON.
pub(super) fn event(index: u64, entry: &str) -> String {
    let fields: Map<String, Value> = serde_json::from_str(entry).unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let kind = text("type").unwrap_or_default();
    let (class, activity) = classify(kind, text("act").unwrap_or_default());
    let (class_uid, category_uid) = class.uids();
    let denied = text("result") == Some("deny");
    let nanos = fields.get("t").and_then(Value::as_u64).unwrap_or_default();
    let mut event = json!({
        "activity_id": activity,
        "activity_name": kind,
        "category_uid": category_uid,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "severity_id": if denied { 2 } else { 1 },
        "status_id": if denied { 2 } else { 1 },
        "time": nanos / 1_000_000,
        "message": message(kind, &fields),
        "metadata": {
            "version": SCHEMA_VERSION,
            "product": {
                "name": "Avow",
                "vendor_name": "Avow",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "log_name": text("node"),
            "uid": text("id"),
            "sequence": index,
            "event_code": kind,
        },
        "raw_data": entry,
    });
    if let Value::Object(event) = &mut event {
        if let Some(why) = text("why") {
            event.insert("status_code".to_owned(), why.into());
            event.insert("status_detail".to_owned(), text("detail").unwrap_or(why).into());
        }
        if let Some(count) = fields.get("count") {
            event.insert("count".to_owned(), count.clone());
        }
        specify(class, event, &fields);
        remove_nulls(event);
    }
    event.to_string()
}

fn message(kind: &str, fields: &Map<String, Value>) -> String {
    let words = ["who", "result", "why", "topic", "act", "subject"];
    let words = words.iter().filter_map(|name| fields.get(*name)?.as_str());
    std::iter::once(kind).chain(words).collect::<Vec<_>>().join(" ")
}

/// Adds what the class wants.
fn specify(class: Class, event: &mut Map<String, Value>, fields: &Map<String, Value>) {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let kind = text("type").unwrap_or_default();
    let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
    match class {
        Class::Authentication => {
            put("user", user(text("who")));
            put("service", json!({ "name": "Avow", "uid": text("node") }));
            put("is_remote", true.into());
            put("src_endpoint", endpoint(fields));
            put("session", json!({ "uid": text("client") }));
        }
        Class::ApiActivity => {
            put("actor", json!({ "user": user(text("who").or(text("subject"))) }));
            let operation = text("act").unwrap_or(kind);
            let service = json!({ "name": "Avow", "uid": text("node") });
            put("api", json!({ "operation": operation, "service": service }));
            put("src_endpoint", endpoint(fields));
            if let Some(topic) = text("topic").or(text("filter")) {
                put("resources", json!([{ "name": topic, "type": "MQTT topic" }]));
            }
        }
        Class::EntityManagement => {
            let name = text("subject").or(text("who")).unwrap_or(kind);
            let version = text("sha256").or(text("x5t"));
            let what = text("act").unwrap_or(kind);
            put("entity", json!({ "name": name, "type": what, "version": version }));
            put("comment", json!(text("reason").or(text("text"))));
        }
        Class::ApplicationLifecycle => {
            put(
                "app",
                json!({
                    "name": "Avow",
                    "vendor_name": "Avow",
                    "version": text("version").unwrap_or(env!("CARGO_PKG_VERSION")),
                }),
            );
        }
    }
}

/// Who it was, as the log says it; a handshake that failed has no name yet.
fn user(who: Option<&str>) -> Value {
    let who = who.unwrap_or("unknown");
    let (role, name) = who.split_once('/').unwrap_or(("", who));
    json!({ "name": name, "uid": who, "type": (!role.is_empty()).then_some(role) })
}

/// Where it came from: an address, if the log has one and it is no pseudonym, or else the name of the
/// peer and the entry of its connection.
fn endpoint(fields: &Map<String, Value>) -> Value {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let peer = text("peer");
    let ip = peer.filter(|peer| peer.parse::<std::net::IpAddr>().is_ok());
    let name = text("who").or(text("subject")).unwrap_or("unknown");
    let conn = fields.get("conn").and_then(Value::as_u64).map(|conn| format!("connect/{conn}"));
    let uid = peer.filter(|_| ip.is_none()).map(str::to_owned).or(conn);
    json!({ "name": name, "ip": ip, "uid": uid })
}

fn remove_nulls(fields: &mut Map<String, Value>) {
    fields.retain(|_, value| !value.is_null());
    for value in fields.values_mut() {
        if let Value::Object(fields) = value {
            remove_nulls(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::EntryType;

    /// What every event must have in version 1.3.0 of the schema, and what each class adds: from
    /// `events/` and `objects/` of the framework's repository, required attributes and the
    /// "at least one" constraints, written as `object: one|other`.
    const ALWAYS: [&str; 11] = [
        "activity_id",
        "category_uid",
        "class_uid",
        "metadata",
        "metadata.product",
        "metadata.product.vendor_name",
        "metadata.product.name",
        "metadata.version",
        "severity_id",
        "time",
        "type_uid",
    ];
    const CLASSES: [(u64, &[&str]); 4] = [
        (
            3002,
            &[
                "user",
                "user.name|user.uid",
                "service|dst_endpoint",
                "service.name|service.uid",
                "src_endpoint.ip|src_endpoint.uid|src_endpoint.name|src_endpoint.hostname",
            ],
        ),
        (3004, &["entity", "entity.name|entity.uid"]),
        (6002, &["app", "app.vendor_name", "app.name|app.uid"]),
        (
            6003,
            &[
                "actor",
                "actor.user|actor.process|actor.session",
                "actor.user.name|actor.user.uid",
                "api",
                "api.operation",
                "src_endpoint",
                "src_endpoint.ip|src_endpoint.uid|src_endpoint.name|src_endpoint.hostname",
            ],
        ),
    ];
    /// The activities that the classes list, beside 0 (unknown) and 99 (other).
    const ACTIVITIES: [(u64, u64); 4] = [(3002, 7), (3004, 14), (6002, 8), (6003, 4)];

    fn has(event: &Value, names: &str) -> bool {
        names.split('|').any(|name| {
            let value = name.split('.').try_fold(event, |value, field| value.get(field));
            value.is_some_and(|value| !value.is_null() && *value != "" && *value != json!({}))
        })
    }

    fn check(event: &Value) {
        let class = event["class_uid"].as_u64().unwrap();
        let (_, wanted) = CLASSES.iter().find(|(uid, _)| *uid == class).unwrap();
        for names in ALWAYS.iter().chain(*wanted) {
            assert!(has(event, names), "{names} is missing in {event}");
        }
        let activity = event["activity_id"].as_u64().unwrap();
        let listed = ACTIVITIES.iter().find(|(uid, _)| *uid == class).unwrap().1;
        assert!(activity == OTHER || (1..=listed).contains(&activity), "{event}");
        assert_eq!(event["type_uid"], class * 100 + activity);
        assert_eq!(event["category_uid"], class / 1000);
        assert!(event["time"].is_u64() && event["metadata"]["sequence"].is_u64());
    }

    #[test]
    fn every_type_of_entry_has_what_its_class_requires() {
        for kind in EntryType::ALL {
            let kind = kind.as_str();
            let bare = format!(
                r#"{{"v":1,"type":"{kind}","t":1790000000123456789,"node":"n","id":"r-1"}}"#
            );
            let full = bare.replace('}', r#","who":"device/press-7","conn":4,"peer":"192.0.2.7","result":"deny","why":"limit.rate","topic":"a/b","act":"certificate.issue","subject":"device/x","count":3}"#);
            for entry in [&bare, &full] {
                let event: Value = serde_json::from_str(&event(7, entry)).unwrap();
                check(&event);
                assert_eq!(event["raw_data"], **entry);
                assert_eq!(event["time"], 1_790_000_000_123_u64);
            }
        }
    }

    #[test]
    fn a_refused_message_reads_like_this() {
        let entry = r#"{"v":1,"type":"publish.refused","t":1790000000123456789,"node":"n","id":"r-1","who":"device/press-7","conn":4,"result":"deny","why":"policy.no_rule","topic":"a"}"#;
        let event: Value = serde_json::from_str(&event(7, entry)).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&event).unwrap());
    }
}

//! Settings of a small plant, for the tests of this room and of the shell.

use std::sync::Arc;

use super::{Backlog, Settings};
use crate::identity::TokenKeys;
use crate::limits::LimitsConfig;
use crate::policy::Policy;
use crate::schema::Schemas;
use crate::session::Bounds;

const POLICY: &str = r#"
version = 1

[[permit]]
id = "device-client-id"
who = ["device", "dashboard"]
client_id = "${device}*"

[[permit]]
id = "telemetry"
who = ["device"]
publish = ["plant/${device}/telemetry/#"]
qos_max = 2
retain = true
clear_retained = true
schema = "required"

[[permit]]
id = "sealed"
who = ["device"]
publish = ["plant/${device}/sealed/#"]
qos_max = 2
retain = true
clear_retained = true
schema = "opaque"

[[permit]]
id = "commands"
who = ["device"]
subscribe = ["plant/${device}/commands/#"]

[[permit]]
id = "dashboards"
who = ["dashboard"]
subscribe = ["plant/#", "$quarantine/#"]
"#;

const REGISTRY: &str = r#"
version = 1

[defaults]
sequences_max = 5
sequences_per_device_max = 3

[[schema]]
id = "telemetry"
filter = "plant/+/telemetry/#"
file = "telemetry.schema.json"
on_failure = "refuse"

[[schema]]
id = "odd"
filter = "plant/+/telemetry/odd"
file = "telemetry.schema.json"
on_failure = "quarantine"

[[schema]]
id = "counted"
filter = "plant/+/telemetry/counted/+"
file = "telemetry.schema.json"
sequence = { pointer = "/t", window = 8 }

[[schema]]
id = "strict"
filter = "plant/+/telemetry/strict/+"
file = "telemetry.schema.json"
sequence = { pointer = "/t", window = 8, on_failure = "refuse" }
"#;

const SCHEMA: &str = r#"{"type":"object","required":["t"],"properties":{"t":{"type":"number"}}}"#;

/// Settings with default bounds and limits, and a seed that is no secret.
pub(crate) fn settings() -> Settings {
    let read = |_: &str| -> std::io::Result<String> { Ok(SCHEMA.to_owned()) };
    Settings {
        node: "plant".into(),
        shard: 0,
        bounds: Bounds::default(),
        tokens: Arc::new(TokenKeys::none()),
        backlog: Backlog::default(),
        policy: Arc::new(Policy::parse("policy.toml", POLICY).unwrap()),
        schemas: Arc::new(Schemas::parse("registry.toml", REGISTRY, read).unwrap()),
        limits: LimitsConfig::default(),
        privacy: crate::evidence::Privacy::PLAIN,
        about: Default::default(),
        statements: Default::default(),
        receipts: None,
        config_sha256: [1; 32],
        seed: [7; 32],
    }
}

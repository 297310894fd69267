//! What a kind of device does and what must come of it, as data: `profiles/*.toml`.
//!
//! A profile is read whole or not at all: an unknown field, a missing one or a value out of its
//! range is a [`ProfileError`] that names the file and the field. Topics may use `{name}` (the
//! device) and `{victim}` (another device of the plant).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::client::{Qos, Version};
use crate::generator::Generator;

/// Values in one payload, at most; the telemetry schema has the same bound.
pub const VALUES_MAX: usize = 16;

/// Streams of one device, at most.
pub const STREAMS_MAX: usize = 16;

/// Messages per second of one stream, at most.
pub const MESSAGES_PER_SECOND_MAX: u64 = 2_000;

/// Longest `unit`, in characters; the telemetry schema has the same bound.
pub const UNIT_CHARS_MAX: usize = 16;

/// A kind of device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, for example `press`.
    pub name: String,
    /// One sentence for people.
    pub summary: String,
    /// The MQTT version it speaks.
    pub version: Version,
    /// Keep alive, in seconds.
    pub keep_alive_secs: u16,
    /// What it publishes periodically.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// Its retained status, if it has one; a Will says `fault`.
    pub status: Option<Status>,
    /// What must come of it.
    pub expect: Expect,
}

/// Messages of one topic, at a period.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// The Topic Name, with `{name}` or `{victim}`.
    pub topic: String,
    /// Quality of service.
    pub qos: Qos,
    /// Milliseconds from one message (or burst) to the next.
    pub period_ms: u64,
    /// Messages per period.
    #[serde(default = "one")]
    pub burst: u16,
    /// Only at times; always, if absent.
    pub active: Option<Active>,
    /// How the payload is made.
    #[serde(default)]
    pub form: Form,
    /// Whether the device signs these messages, and how well.
    pub sign: Option<Sign>,
    /// How many seconds ago they were read: a device that stores and forwards.
    #[serde(default)]
    pub stored_secs: u32,
    /// Whether the device is entitled to these messages.
    #[serde(default)]
    pub intent: Intent,
    /// Some of the payloads are invalid.
    pub faults: Option<Faults>,
    /// The `unit` of the payload.
    pub unit: Option<String>,
    /// The `operator.name` of the payload, which schemas mark as sensitive.
    pub operator: Option<String>,
    /// The `values` of the payload.
    pub values: BTreeMap<String, Generator>,
}

/// When a stream runs: rest, then active, and again.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// Seconds of rest first.
    pub rest_secs: u64,
    /// Seconds of activity then.
    pub for_secs: u64,
}

/// How a payload is made from the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// JSON that the telemetry schema accepts.
    #[default]
    Json,
    /// The same JSON, end-to-end encrypted with AES-256-GCM for the dashboard.
    Sealed,
}

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// As it should be.
    Good,
    /// A good statement about another payload.
    Forged,
    /// A good statement of before the last restart.
    Replayed,
    /// Later, together with others.
    Batched,
}

/// Whether a device is entitled to what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// It must be accepted.
    #[default]
    Proper,
    /// It must be refused.
    Improper,
}

/// Invalid payloads among valid ones. An invalid message is [`Intent::Improper`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Each n-th message is invalid, n at least 1.
    pub every: u64,
    /// In turn.
    pub kinds: Vec<Fault>,
}

/// A way for a payload to be invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A value is a string where the schema wants a number.
    WrongType,
    /// `seq` is missing.
    MissingField,
    /// There is a field that the schema does not know.
    UnknownField,
    /// The text ends in the middle of an object.
    NotJson,
}

/// A retained status message at every change of state.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The Topic Name.
    pub topic: String,
    /// The first state.
    pub first: State,
    /// How each state goes on.
    pub states: BTreeMap<State, Dwell>,
}

/// A state of a machine: the whole enum of the status schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Warming up.
    Starting,
    /// Producing.
    Running,
    /// Waiting for work.
    Idle,
    /// Switched off.
    Stopped,
    /// Out of order.
    Fault,
}

impl State {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Fault => "fault",
        }
    }
}

/// How long a state lasts, and what follows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dwell {
    /// Shortest stay, in milliseconds.
    pub min_ms: u32,
    /// Longest stay, in milliseconds.
    pub max_ms: u32,
    /// The states that may follow, with their weights.
    pub next: BTreeMap<State, f64>,
}

/// What must come of a device; [`crate::report`] holds the report against it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Whether CONNECT must succeed, or must always end before CONNACK.
    pub connects: bool,
    /// Every proper message must be accepted.
    #[serde(default)]
    pub proper_accepted: bool,
    /// Every accepted proper message of QoS 1 or 2 must reach the dashboard unchanged.
    #[serde(default)]
    pub proper_delivered: bool,
    /// No message of QoS 2 may reach the dashboard twice.
    #[serde(default)]
    pub exactly_once: bool,
    /// Every improper message must be refused with this Reason Code and reach nobody.
    pub improper_refused_with: Option<u8>,
    /// Some proper messages must be accepted, others refused with one of these Reason Codes.
    #[serde(default)]
    pub some_refused_with: Vec<u8>,
    /// Every sealed payload must open at the dashboard.
    #[serde(default)]
    pub sealed_opens: bool,
}

/// Why a profile was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, or not of this shape.
    #[error("{file}: {detail}")]
    Shape {
        /// The file.
        file: String,
        /// Line, column, the offending line and what is wrong with it.
        detail: String,
    },
    /// A field's value is out of its range.
    #[error("{file}: {field}: {fix}")]
    Value {
        /// The file.
        file: String,
        /// The path of the field.
        field: String,
        /// What it must be.
        fix: &'static str,
    },
    /// There is no shipped profile of this name.
    #[error("no profile {name:?}; there are {}", Profile::NAMES.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
    },
}

/// The embedded files: name and text.
const SHIPPED: [(&str, &str); 10] = [
    ("press", include_str!("../profiles/press.toml")),
    ("pump", include_str!("../profiles/pump.toml")),
    ("furnace", include_str!("../profiles/furnace.toml")),
    ("meter", include_str!("../profiles/meter.toml")),
    ("trespasser", include_str!("../profiles/trespasser.toml")),
    ("broken", include_str!("../profiles/broken.toml")),
    ("flooder", include_str!("../profiles/flooder.toml")),
    ("stranger", include_str!("../profiles/stranger.toml")),
    ("signer", include_str!("../profiles/signer.toml")),
    ("batch", include_str!("../profiles/batch.toml")),
];

impl Profile {
    /// The names of the shipped profiles.
    pub const NAMES: [&'static str; 10] = [
        "press",
        "pump",
        "furnace",
        "meter",
        "trespasser",
        "broken",
        "flooder",
        "stranger",
        "signer",
        "batch",
    ];

    /// Reads a profile; `file` is for error messages.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(|error| ProfileError::Shape {
            file: file.to_owned(),
            detail: error.to_string(),
        })?;
        match profile.fault() {
            None => Ok(profile),
            Some((field, fix)) => Err(ProfileError::Value { file: file.to_owned(), field, fix }),
        }
    }

    /// The shipped profile of that name.
    ///
    /// # Errors
    /// There is none, or its file is damaged.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let found = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
        let (_, text) = found.ok_or_else(|| ProfileError::Unknown { name: name.to_owned() })?;
        Self::parse(&format!("profiles/{name}.toml"), text)
    }

    /// All shipped profiles.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn shipped() -> Result<Vec<Self>, ProfileError> {
        Self::NAMES.iter().map(|name| Self::named(name)).collect()
    }

    /// Whether a stream needs the key that it shares with the dashboard.
    pub(crate) fn seals(&self) -> bool {
        self.streams.iter().any(|stream| stream.form == Form::Sealed)
    }

    /// Whether the device signs messages.
    pub(crate) fn signs(&self) -> bool {
        self.streams.iter().any(|stream| stream.sign.is_some())
    }

    /// The first field out of its range: its path, and the fix.
    fn fault(&self) -> Option<(String, &'static str)> {
        if self.name.is_empty() {
            return Some(("name".to_owned(), "must not be empty"));
        }
        if self.streams.len() > STREAMS_MAX {
            return Some(("streams".to_owned(), "must be at most 16"));
        }
        let is_v5 = self.version == Version::V5_0;
        let unsayable = self.streams.iter().position(|stream| stream.sign.is_some() && !is_v5);
        if let Some(index) = unsayable {
            let fix = "needs version 5.0: a statement is a user property";
            return Some((format!("streams[{index}].sign"), fix));
        }
        let in_stream = self.streams.iter().enumerate().find_map(|(index, stream)| {
            stream.fault().map(|(field, fix)| (format!("streams[{index}].{field}"), fix))
        });
        let unseen = self.streams.iter().position(|stream| {
            let refusable = stream.qos > Qos::AtMostOnce && self.version == Version::V5_0;
            (stream.intent == Intent::Improper || stream.faults.is_some()) && !refusable
        });
        let unseen = unseen.map(|index| {
            let fix = "and version must be 1 or 2 and 5.0, or no refusal can be seen";
            (format!("streams[{index}].qos"), fix)
        });
        in_stream.or(unseen).or_else(|| self.status.as_ref().and_then(Status::fault))
    }
}

impl Stream {
    fn fault(&self) -> Option<(String, &'static str)> {
        let named = |field: &str, fix| Some((field.to_owned(), fix));
        if self.topic.is_empty() || self.topic.contains(['+', '#']) {
            return named("topic", "must be a Topic Name, without wildcards");
        }
        if self.period_ms == 0 || self.burst == 0 {
            return named("period_ms", "and burst must be above 0");
        }
        if u64::from(self.burst) * 1_000 > self.period_ms * MESSAGES_PER_SECOND_MAX {
            return named("burst", "must make at most 2000 messages per second");
        }
        if self.active.as_ref().is_some_and(|active| active.for_secs == 0) {
            return named("active.for_secs", "must be above 0");
        }
        let faults = self.faults.as_ref();
        if faults.is_some_and(|faults| faults.every == 0 || faults.kinds.is_empty()) {
            return named("faults", "must have a kind, and every above 0");
        }
        if self.unit.as_ref().is_some_and(|unit| unit.chars().count() > UNIT_CHARS_MAX) {
            return named("unit", "must have at most 16 characters");
        }
        if self.values.is_empty() || self.values.len() > VALUES_MAX {
            return named("values", "must be 1 to 16");
        }
        self.values.iter().find_map(|(name, generator)| {
            generator.fault().map(|(field, fix)| (format!("values.{name}.{field}"), fix))
        })
    }
}

impl Status {
    fn fault(&self) -> Option<(String, &'static str)> {
        if !self.states.contains_key(&self.first) {
            return Some(("status.first".to_owned(), "must be one of status.states"));
        }
        self.states.iter().find_map(|(state, dwell)| {
            let path = |field: &str| format!("status.states.{}.{field}", state.name());
            if dwell.min_ms == 0 || dwell.min_ms > dwell.max_ms {
                return Some((path("min_ms"), "must be above 0 and at most max_ms"));
            }
            let known = dwell.next.keys().all(|next| self.states.contains_key(next));
            let weights = dwell.next.values().all(|weight| *weight > 0.0);
            (!known || !weights || dwell.next.is_empty())
                .then(|| (path("next"), "must name states of status.states, weights above 0"))
        })
    }
}

const fn one() -> u16 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        name = "probe"
        summary = "A probe."
        version = "5.0"
        keep_alive_secs = 10
        [[streams]]
        topic = "plant/{name}/telemetry/level"
        qos = 1
        period_ms = 500
        values.level = { walk = { mean = 1.0, step = 0.1, pull = 0.1, min = 0.0, max = 2.0 } }
        [expect]
        connects = true
    "#;

    fn error_of(from: &str, to: &str) -> String {
        assert!(MINIMAL.contains(from), "{from}");
        Profile::parse("probe.toml", &MINIMAL.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_profiles_read_and_carry_their_names() {
        let names = Profile::shipped().unwrap().into_iter().map(|profile| profile.name);
        assert_eq!(names.collect::<Vec<_>>(), Profile::NAMES);
        assert_eq!(SHIPPED.map(|(name, _)| name), Profile::NAMES);
    }

    #[test]
    fn an_error_of_shape_names_file_line_and_field() {
        for (from, to, field) in [
            ("keep_alive_secs = 10", "keep_alive = 10", "keep_alive"),
            ("qos = 1", "qos = 3", "a QoS is 0, 1 or 2, not 3"),
            ("pull = 0.1,", "pool = 0.1,", "pool"),
            ("step = 0.1,", "", "step"),
            ("walk =", "stroll =", "stroll"),
            ("version = \"5.0\"", "version = \"6\"", "version"),
        ] {
            let error = error_of(from, to);
            assert!(error.starts_with("probe.toml: "), "{error}");
            assert!(error.contains(field) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn an_error_of_value_names_file_and_path() {
        for (from, to, error) in [
            ("period_ms = 500", "period_ms = 0", "streams[0].period_ms: and burst must be above 0"),
            (
                "max = 2.0",
                "max = -2.0",
                "streams[0].values.level.max: must be finite and above the smallest value",
            ),
            ("pull = 0.1", "pull = 1.1", "streams[0].values.level.pull: must be between 0 and 1"),
            ("telemetry/level", "#", "streams[0].topic: must be a Topic Name, without wildcards"),
            (
                "qos = 1",
                "qos = 1\nburst = 1001",
                "streams[0].burst: must make at most 2000 messages per second",
            ),
        ] {
            assert_eq!(error_of(from, to), format!("probe.toml: {error}"));
        }
        assert!(Profile::parse("p", &MINIMAL.replace("qos = 1", "qos = 1\nburst = 1000")).is_ok());
        let improper = "qos = 0\nintent = \"improper\"";
        assert!(error_of("qos = 1", improper).contains("streams[0].qos: and version must be"));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Profile::named("robot").unwrap_err().to_string();
        assert!(error.contains("\"robot\"") && error.contains("furnace"), "{error}");
    }
}

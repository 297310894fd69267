//! The `[limits]` of the configuration.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer};

use crate::identity::Identity;
use crate::policy::Who;

/// All limits. Every field has a safe default; none can be unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Identities remembered at once; a further one is refused while all of them are active.
    pub identities_max: u32,
    /// Addresses remembered at once; further ones share one bucket.
    pub addresses_max: u32,
    /// Connections per second and address (for IPv6: per /64 network), before TLS.
    pub connects_per_second: u32,
    /// Connections at once and address.
    pub connects_burst: u32,
    /// Longest pause, in seconds, that a slowed reader is given; who would need a longer one is
    /// disconnected.
    pub pause_seconds_max: u32,
    /// The limits of identities that no class names.
    pub default: ClassLimits,
    /// Classes; the first one that names an identity holds for it.
    #[serde(rename = "class")]
    pub classes: Vec<ClassConfig>,
}

/// A class and whom it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Whom, as in the policy: `device`, `device/press-*`, `dashboard/wall`.
    pub who: Vec<Who>,
    /// Its limits; a field that is left out has its default, not that of `[limits.default]`.
    pub limits: ClassLimits,
}

/// The limits of one class, each per identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassLimits {
    /// Messages per second.
    pub messages_per_second: u32,
    /// Messages at once.
    pub messages_burst: u32,
    /// Bytes of topic and payload per second.
    pub bytes_per_second: u32,
    /// Bytes of topic and payload at once.
    pub bytes_burst: u32,
    /// Filters subscribed to per second.
    pub subscribes_per_second: u32,
    /// Filters subscribed to at once.
    pub subscribes_burst: u32,
    /// Sessions with a Network Connection at once.
    pub sessions_max: u32,
    /// What is done about a PUBLISH past a limit.
    pub on_limit: OnLimit,
}

/// What is done about a PUBLISH past a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLimit {
    /// It is refused with 0x97. A 3.x client cannot be told so and is slowed instead.
    #[default]
    Refuse,
    /// It is admitted, and nothing more is read until it would have been in time.
    Slow,
    /// It is refused and the connection closed with 0x96.
    Disconnect,
}

/// Why limits cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum LimitsConfigError {
    /// A limit of zero.
    #[error("`{field}` is 0: nothing could ever pass")]
    #[diagnostic(help("set `{field}` to 1 or more"))]
    Zero {
        /// The field, with its table.
        field: String,
    },
    /// A burst that the largest packet can never fit into.
    #[error("`{field}` is {burst} bytes, less than the largest packet of {packet_bytes_max} bytes")]
    #[diagnostic(help(
        "set `{field}` to {packet_bytes_max} or more, or lower `packet_bytes_max` to {burst}"
    ))]
    BurstBelowPacket {
        /// The field, with its table.
        field: String,
        /// Its value.
        burst: u32,
        /// The largest packet.
        packet_bytes_max: u32,
    },
    /// A rate too high to be told apart from none.
    #[error("`{field}` is {value}, more than {max}")]
    #[diagnostic(help("set `{field}` to {max} or less"))]
    TooHigh {
        /// The field, with its table.
        field: String,
        /// Its value.
        value: u32,
        /// The bound.
        max: u32,
    },
    /// A class that names nobody.
    #[error("`limits.class[{index}].who` is empty: the class names nobody")]
    #[diagnostic(help("name a role or a name: who = [\"device/press-*\"]"))]
    Nobody {
        /// Which class, from 0.
        index: usize,
    },
}

/// Rates above this are less than a nanosecond each way from one another.
const PER_SECOND_MAX: u32 = 1_000_000_000;
/// Longer pauses would outlast any Keep Alive.
const PAUSE_SECONDS_MAX: u32 = 3_600;
/// More classes would make the choice of one slow.
const TABLE_MAX: u32 = 10_000_000;

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            identities_max: 100_000,
            addresses_max: 100_000,
            connects_per_second: 20,
            connects_burst: 200,
            pause_seconds_max: 30,
            default: ClassLimits::default(),
            classes: Vec::new(),
        }
    }
}

impl Default for ClassLimits {
    fn default() -> Self {
        Self {
            messages_per_second: 100,
            messages_burst: 200,
            bytes_per_second: 262_144,
            bytes_burst: 1_048_576,
            subscribes_per_second: 10,
            subscribes_burst: 50,
            sessions_max: 4,
            on_limit: OnLimit::Refuse,
        }
    }
}

impl LimitsConfig {
    /// Checks what types cannot. `packet_bytes_max` is the largest packet that the broker takes.
    ///
    /// # Errors
    /// The first limit that cannot hold, with its name and the fix.
    pub fn check(&self, packet_bytes_max: u32) -> Result<(), LimitsConfigError> {
        for (field, value, max) in [
            ("identities_max", self.identities_max, TABLE_MAX),
            ("addresses_max", self.addresses_max, TABLE_MAX),
            ("connects_per_second", self.connects_per_second, PER_SECOND_MAX),
            ("connects_burst", self.connects_burst, PER_SECOND_MAX),
            ("pause_seconds_max", self.pause_seconds_max, PAUSE_SECONDS_MAX),
        ] {
            check_bounds(&format!("limits.{field}"), value, max)?;
        }
        self.default.check("limits.default", packet_bytes_max)?;
        for (index, class) in self.classes.iter().enumerate() {
            if class.who.is_empty() {
                return Err(LimitsConfigError::Nobody { index });
            }
            class.limits.check(&format!("limits.class[{index}]"), packet_bytes_max)?;
        }
        Ok(())
    }

    /// The limits of `identity`.
    pub fn class_of(&self, identity: &Identity) -> ClassLimits {
        let named = |class: &&ClassConfig| class.who.iter().any(|who| who.matches(identity));
        self.classes.iter().find(named).map_or(self.default, |class| class.limits)
    }
}

impl ClassLimits {
    fn check(&self, table: &str, packet_bytes_max: u32) -> Result<(), LimitsConfigError> {
        for (field, value) in [
            ("messages_per_second", self.messages_per_second),
            ("messages_burst", self.messages_burst),
            ("bytes_per_second", self.bytes_per_second),
            ("bytes_burst", self.bytes_burst),
            ("subscribes_per_second", self.subscribes_per_second),
            ("subscribes_burst", self.subscribes_burst),
            ("sessions_max", self.sessions_max),
        ] {
            check_bounds(&format!("{table}.{field}"), value, PER_SECOND_MAX)?;
        }
        if self.bytes_burst < packet_bytes_max {
            let field = format!("{table}.bytes_burst");
            let burst = self.bytes_burst;
            return Err(LimitsConfigError::BurstBelowPacket { field, burst, packet_bytes_max });
        }
        Ok(())
    }
}

fn check_bounds(field: &str, value: u32, max: u32) -> Result<(), LimitsConfigError> {
    match value {
        0 => Err(LimitsConfigError::Zero { field: field.to_owned() }),
        value if value > max => {
            Err(LimitsConfigError::TooHigh { field: field.to_owned(), value, max })
        }
        _ => Ok(()),
    }
}

/// A checked configuration has no zero; an unchecked one gets the smallest limit, never none.
pub(super) fn positive(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

impl<'de> Deserialize<'de> for ClassConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde cannot both flatten and deny unknown fields, so the fields are named again.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            who: Vec<String>,
            messages_per_second: Option<u32>,
            messages_burst: Option<u32>,
            bytes_per_second: Option<u32>,
            bytes_burst: Option<u32>,
            subscribes_per_second: Option<u32>,
            subscribes_burst: Option<u32>,
            sessions_max: Option<u32>,
            on_limit: Option<OnLimit>,
        }
        let fields = Fields::deserialize(deserializer)?;
        let who = fields.who.iter().map(|text| Who::parse(text)).collect::<Result<_, _>>();
        let base = ClassLimits::default();
        Ok(Self {
            who: who.map_err(serde::de::Error::custom)?,
            limits: ClassLimits {
                messages_per_second: fields.messages_per_second.unwrap_or(base.messages_per_second),
                messages_burst: fields.messages_burst.unwrap_or(base.messages_burst),
                bytes_per_second: fields.bytes_per_second.unwrap_or(base.bytes_per_second),
                bytes_burst: fields.bytes_burst.unwrap_or(base.bytes_burst),
                subscribes_per_second: fields
                    .subscribes_per_second
                    .unwrap_or(base.subscribes_per_second),
                subscribes_burst: fields.subscribes_burst.unwrap_or(base.subscribes_burst),
                sessions_max: fields.sessions_max.unwrap_or(base.sessions_max),
                on_limit: fields.on_limit.unwrap_or(base.on_limit),
            },
        })
    }
}

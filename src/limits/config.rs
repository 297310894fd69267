//! What limits there are and their safe values. That none is 0 or beyond its bound, and that
//! every burst holds the largest packet, is seen to where `[limits]` is read (`config`).

use std::num::NonZeroU32;

use crate::identity::Identity;
use crate::policy::Who;

/// All limits. Every field has a safe default; none can be unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLimit {
    /// It is refused with 0x97. A 3.x client cannot be told so and is slowed instead.
    #[default]
    Refuse,
    /// It is admitted, and nothing more is read until it would have been in time.
    Slow,
    /// It is refused and the connection closed with 0x96.
    Disconnect,
}

/// The highest rate or burst that a limit may be given: rates above it are less than a nanosecond
/// each way from one another.
pub const RATE_MAX: u32 = 1_000_000_000;
/// The longest pause that may be configured, in seconds: longer ones would outlast any Keep Alive.
pub const PAUSE_SECONDS_MAX: u32 = 3_600;
/// The largest table of identities or of addresses that may be configured.
pub const TABLE_MAX: u32 = 10_000_000;

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
    /// The limits of `identity`.
    pub fn class_of(&self, identity: &Identity) -> ClassLimits {
        let named = |class: &&ClassConfig| class.who.iter().any(|who| who.matches(identity));
        self.classes.iter().find(named).map_or(self.default, |class| class.limits)
    }
}

/// A checked configuration has no zero; an unchecked one gets the smallest limit, never none.
pub(super) fn positive(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN)
}

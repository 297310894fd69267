//! The third proof value of the line, and the table of identities.

use std::collections::HashMap;
use std::time::Duration;

use super::bucket::{Bucket, Drawn, DrivenClock};
use super::config::{ClassLimits, LimitsConfig, OnLimit, positive};
use crate::identity::Identity;
use crate::mqtt::ProtocolVersion;
use crate::policy::Authorized;
use crate::refusal::{Refusal, Refused};
use crate::time::{Instant, Now};

/// A message that its author's limits admit. Made only by [`Limits::admit`], and for Wills.
#[derive(Clone, Debug)]
pub struct Admitted {
    authorized: Authorized,
}

impl Admitted {
    /// The message with the rule that permits it.
    pub fn authorized(&self) -> &Authorized {
        &self.authorized
    }

    /// Gives the message back, for an entry about a later refusal.
    pub fn into_authorized(self) -> Authorized {
        self.authorized
    }

    /// Admits a Will: authorised and checked as every message, but not counted. There is one per
    /// session, whose opening was counted, and its author cannot be asked to wait any more.
    pub(crate) fn for_will(authorized: Authorized) -> Self {
        Self { authorized }
    }
}

/// What the limits say to one message.
#[derive(Debug)]
pub enum Admission {
    /// It is within them.
    Admitted(Admitted),
    /// It is past one, and admitted with a pause.
    Slowed {
        /// The message.
        admitted: Admitted,
        /// How long nothing more should be read from its author's connection.
        pause: Duration,
    },
    /// It is past one, and refused.
    Refused {
        /// The message.
        authorized: Authorized,
        /// Why.
        refused: Refused,
        /// Whether its connection should be closed (0x96 in MQTT 5.0).
        disconnect: bool,
    },
}

/// What the limits say to a message that was refused before they saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It is within them.
    Within,
    /// It is past one: more of the same is counted, not listed.
    Beyond {
        /// Which.
        refused: Refused,
        /// How long nothing more should be read from its author's connection; zero where the
        /// author is told of each refusal.
        pause: Duration,
        /// Whether its connection should be closed (0x96 in MQTT 5.0).
        disconnect: bool,
    },
}

/// The limits of all identities of one shard.
#[derive(Debug)]
pub struct Limits {
    config: LimitsConfig,
    clock: DrivenClock,
    /// Std's keyed hash: identities are named by whoever holds a certificate.
    table: HashMap<Identity, Entry>,
    sweep_at: Instant,
}

#[derive(Debug)]
struct Entry {
    class: ClassLimits,
    messages: Bucket,
    bytes: Bucket,
    subscribes: Bucket,
    sessions: u32,
}

/// Looking through a full table costs its size, so it is not done at each newcomer's will.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

impl Limits {
    /// Limits with nobody in them yet. `config` should be one that was read and
    /// checked.
    pub fn new(config: LimitsConfig) -> Self {
        let (clock, table) = (DrivenClock::default(), HashMap::new());
        Self { config, clock, table, sweep_at: Instant::ZERO }
    }

    /// Takes a changed configuration. Sessions stay counted; buckets whose class changed are full
    /// again.
    pub fn reload(&mut self, config: LimitsConfig) {
        for (identity, entry) in &mut self.table {
            let class = config.class_of(identity);
            if class != entry.class {
                let sessions = entry.sessions;
                *entry = Entry { sessions, ..Entry::new(class, &self.clock) };
            }
        }
        self.config = config;
    }

    /// Counts a message.
    pub fn admit(&mut self, now: Now, authorized: Authorized) -> Admission {
        self.clock.set(now.instant);
        let author = authorized.received().author().clone();
        let (topic, publish) = (authorized.received().topic(), authorized.received().publish());
        let bytes = topic.as_str().len().saturating_add(publish.payload.len());
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let pause_max = Duration::from_secs(self.config.pause_seconds_max.into());
        let entry = match self.entry(author.identity()) {
            Ok(entry) => entry,
            Err(refused) => return Admission::Refused { authorized, refused, disconnect: false },
        };
        let slow = match (entry.class.on_limit, author.version()) {
            (OnLimit::Slow, _) => true,
            (OnLimit::Refuse, version) => !negative_acknowledgements(version),
            (OnLimit::Disconnect, _) => false,
        };
        if !slow {
            let disconnect = entry.class.on_limit == OnLimit::Disconnect;
            return match entry.draw(bytes) {
                Ok(()) => Admission::Admitted(Admitted { authorized }),
                Err(refused) => Admission::Refused { authorized, refused, disconnect },
            };
        }
        let latest = now.instant.after(pause_max);
        let Some(at) = entry.draw_ahead(bytes, latest) else {
            let refused = refused(Refusal::MessageRate, "slowed beyond pause_seconds_max");
            return Admission::Refused { authorized, refused, disconnect: true };
        };
        let pause = at.since(now.instant);
        let admitted = Admitted { authorized };
        if pause.is_zero() {
            Admission::Admitted(admitted)
        } else {
            Admission::Slowed { admitted, pause }
        }
    }

    /// Counts a message that was refused before, so that a flood of those is a flood too. `told`:
    /// its author hears of the refusal, and can be asked to stop by it. Nobody hears of one at
    /// QoS 0, and a 3.x client has no negative acknowledgement: those are slowed, past that closed.
    pub fn charge(&mut self, now: Now, identity: &Identity, bytes: usize, told: bool) -> Charge {
        self.clock.set(now.instant);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let pause_max = Duration::from_secs(self.config.pause_seconds_max.into());
        let beyond = |refused, pause, disconnect| Charge::Beyond { refused, pause, disconnect };
        let entry = match self.entry(identity) {
            Ok(entry) => entry,
            Err(refused) => return beyond(refused, Duration::ZERO, false),
        };
        let slow = match entry.class.on_limit {
            OnLimit::Slow => true,
            OnLimit::Refuse => !told,
            OnLimit::Disconnect => false,
        };
        if !slow {
            let disconnect = entry.class.on_limit == OnLimit::Disconnect;
            return match entry.draw(bytes) {
                Ok(()) => Charge::Within,
                Err(refused) => beyond(refused, Duration::ZERO, disconnect),
            };
        }
        match entry.draw_ahead(bytes, now.instant.after(pause_max)) {
            None => beyond(Refusal::MessageRate.into(), Duration::ZERO, true),
            Some(at) if at <= now.instant => Charge::Within,
            Some(at) => beyond(Refusal::MessageRate.into(), at.since(now.instant), false),
        }
    }

    /// Counts a SUBSCRIBE of `filters` filters: all of them or none.
    ///
    /// # Errors
    /// [`Refusal::SubscribeRate`].
    pub fn admit_subscribe(
        &mut self,
        now: Now,
        identity: &Identity,
        filters: u32,
    ) -> Result<(), Refused> {
        self.clock.set(now.instant);
        let entry = self.entry(identity)?;
        if filters > entry.subscribes.burst() {
            return Err(refused(Refusal::SubscribeRate, "more filters than subscribes_burst"));
        }
        match entry.subscribes.draw(filters) {
            Drawn::Taken => Ok(()),
            Drawn::NotUntil(_) => Err(Refusal::SubscribeRate.into()),
        }
    }

    /// Counts a session that gets a Network Connection. Each one that is opened is closed once.
    ///
    /// # Errors
    /// [`Refusal::SessionCount`]: the identity has as many as it may, or the table is full.
    pub fn open_session(&mut self, identity: &Identity) -> Result<(), Refused> {
        let entry = self.entry(identity)?;
        if entry.sessions >= entry.class.sessions_max {
            return Err(refused(Refusal::SessionCount, "sessions_max"));
        }
        entry.sessions += 1;
        Ok(())
    }

    /// Counts that a session of `identity` lost its Network Connection.
    pub fn close_session(&mut self, identity: &Identity) {
        if let Some(entry) = self.table.get_mut(identity) {
            entry.sessions = entry.sessions.saturating_sub(1);
        }
    }

    /// How many identities are remembered; at most `identities_max`.
    pub fn identity_count(&self) -> usize {
        self.table.len()
    }

    fn entry(&mut self, identity: &Identity) -> Result<&mut Entry, Refused> {
        if !self.table.contains_key(identity) {
            self.make_room()?;
        }
        let (config, clock) = (&self.config, &self.clock);
        let entry = self.table.entry(identity.clone());
        Ok(entry.or_insert_with(|| Entry::new(config.class_of(identity), clock)))
    }

    fn make_room(&mut self) -> Result<(), Refused> {
        let identities_max = usize::try_from(self.config.identities_max).unwrap_or(usize::MAX);
        let now = self.clock.shown();
        if self.table.len() >= identities_max && now >= self.sweep_at {
            self.sweep_at = now.after(SWEEP_PERIOD);
            self.table.retain(|_, entry| entry.is_active(now));
        }
        if self.table.len() < identities_max {
            Ok(())
        } else {
            Err(refused(Refusal::SessionCount, "identities_max, all of them active"))
        }
    }
}

impl Entry {
    fn new(class: ClassLimits, clock: &DrivenClock) -> Self {
        let bucket = |per_second, burst| Bucket::new(positive(per_second), positive(burst), clock);
        Self {
            class,
            messages: bucket(class.messages_per_second, class.messages_burst),
            bytes: bucket(class.bytes_per_second, class.bytes_burst),
            subscribes: bucket(class.subscribes_per_second, class.subscribes_burst),
            sessions: 0,
        }
    }

    fn draw(&mut self, bytes: u32) -> Result<(), Refused> {
        if self.messages.draw(1) != Drawn::Taken {
            return Err(Refusal::MessageRate.into());
        }
        if self.bytes.draw(bytes) != Drawn::Taken {
            return Err(Refusal::ByteRate.into());
        }
        Ok(())
    }

    /// When the tokens are there; `None` if that is after `latest`.
    fn draw_ahead(&mut self, bytes: u32, latest: Instant) -> Option<Instant> {
        let at = self.messages.draw_ahead(1, latest)?;
        Some(at.max(self.bytes.draw_ahead(bytes, latest)?))
    }

    fn is_active(&self, now: Instant) -> bool {
        let buckets = [&self.messages, &self.bytes, &self.subscribes];
        self.sessions > 0 || buckets.iter().any(|bucket| bucket.full_at() > now)
    }
}

fn negative_acknowledgements(version: ProtocolVersion) -> bool {
    match version {
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => false,
        ProtocolVersion::V5 => true,
    }
}

fn refused(refusal: Refusal, detail: &str) -> Refused {
    Refused { refusal, by: None, detail: Some(detail.into()) }
}

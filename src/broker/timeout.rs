//! Timers that are due.

use std::time::Duration;

use super::Broker;
use super::disconnect::Ending;
use super::input::ConnectionId;
use super::output::Output;
use crate::evidence::EntryType;
use crate::routing::SessionKey;
use crate::session::{Phase, Timer};
use crate::time::{Instant, Now, UnixNanos};

/// How often expired retained messages are looked for.
pub(super) const RETAINED_WALK: Duration = Duration::from_secs(60);
/// The timer of it.
pub(super) const RETAINED: Timer<ConnectionId, SessionKey> = Timer::RetainedExpiry;
/// The wall clock can step, so the end of a credential is looked at anew at least this often.
const CREDENTIAL_CHECK_MAX: Duration = Duration::from_secs(60);

/// How long a client may be silent. [MQTT-3.1.2-22]
pub(super) fn silence_max(keep_alive_seconds: u32) -> Duration {
    Duration::from_millis(u64::from(keep_alive_seconds) * 1_500)
}

/// When a credential that ends at `end` must be looked at.
pub(super) fn credential_check(now: Now, end: UnixNanos) -> Instant {
    now.instant.after(end.since(now.unix).min(CREDENTIAL_CHECK_MAX))
}

impl Broker {
    /// Lets every timer that is due at `now` fire. Call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        // A walk sets itself again at `now`, to let others in between: so the timers that are due
        // at the beginning are taken, not those that they set.
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(now.instant) {
            due.push(timer);
        }
        for timer in due {
            self.fire(now, timer);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer<ConnectionId, SessionKey>) {
        match timer {
            Timer::ConnectDeadline(id) => {
                let waiting = self.connections.get(&id);
                if waiting.is_some_and(|known| known.phase == Phase::AwaitingConnect) {
                    self.end(now, id, Ending::ConnectTimeout);
                }
            }
            Timer::KeepAlive(id) => self.check_keep_alive(now, id),
            Timer::CredentialEnd(id) => self.check_credential(now, id),
            Timer::Unpause(id) => {
                self.resume(now, id);
            }
            Timer::SessionExpiry(key) => self.check_session(now, key),
            Timer::WillDelay(key) => {
                let due = self.sessions.get(&key).and_then(|session| session.will_due);
                if due.is_some_and(|due| due <= now.instant) {
                    self.publish_will(now, key);
                }
            }
            Timer::RetainedWalk(key) => self.walk_retained(now, key),
            Timer::RefusalsDue => self.close_refusal_counts(now, false),
            Timer::SysDue => self.publish_sys(now),
            Timer::RetainedExpiry => {
                self.expire_retained(now);
                self.timers.set(now.instant.after(RETAINED_WALK), RETAINED);
            }
        }
    }

    /// Lets a client go on, unless something else holds it up.
    pub(super) fn resume(&mut self, now: Now, id: ConnectionId) {
        let Some(known) = self.connections.get(&id) else { return };
        let is_held = known.held_back || known.paused_for_verdict;
        if known.phase == Phase::Connected && !is_held && known.unread_until <= now.instant {
            self.outputs.push_back(Output::Resume { connection: id });
        }
    }

    fn expire_retained(&mut self, now: Now) {
        for topic in self.retained.expire(now.instant) {
            let decision = self.decide();
            self.record(now, EntryType::RetainClear, &decision, |entry| {
                entry.text("topic", topic.as_str()).plain("why", "expired")
            });
        }
    }

    fn check_keep_alive(&mut self, now: Now, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.phase != Phase::Connected {
            return;
        }
        let silence = silence_max(connection.keep_alive_seconds);
        // Silence is the client's. While we do not read it, there is nothing to be heard.
        let mut due = connection.last_heard.max(connection.unread_until).after(silence);
        if self.is_backlogged() || connection.held_back || connection.paused_for_verdict {
            due = due.max(now.instant.after(silence));
        }
        if due <= now.instant {
            self.end(now, id, Ending::KeepAlive);
        } else {
            self.timers.set(due, Timer::KeepAlive(id));
        }
    }
}

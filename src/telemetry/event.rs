//! Events of the core as log lines.
//!
//! The lines are for people who watch; whoever needs every single refusal asks the evidence log,
//! where the same decision id stands. So each kind may write [`LINES_PER_SECOND_MAX`] lines a
//! second, and what was left out is counted in the next line that is written.

use tracing::Level;

use super::escape::escaped;
use crate::broker::{Event, EventKind};
use crate::time::Instant;

/// Lines of one kind of event within a second.
pub const LINES_PER_SECOND_MAX: u32 = 20;

const SECOND_NANOS: u64 = 1_000_000_000;
const KINDS: usize = 13;

/// Bounds how many events become lines.
#[derive(Debug, Default)]
pub struct EventLog {
    windows: [Window; KINDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    second: u64,
    lines: u32,
    suppressed: u64,
}

impl EventLog {
    /// Logs `event`, unless its kind has had its lines of this second.
    pub fn record(&mut self, now: Instant, event: &Event) {
        if let Some(suppressed) = self.admit(now, event.kind) {
            if suppressed > 0 {
                tracing::warn!(
                    event = kind_name(event.kind),
                    suppressed,
                    "events of this kind were not logged"
                );
            }
            log_event(event);
        }
    }

    /// `None` if no line may be written; otherwise how many were left out before.
    fn admit(&mut self, now: Instant, kind: EventKind) -> Option<u64> {
        let window = self.windows.get_mut(kind_row(kind).0)?;
        let second = now.as_nanos() / SECOND_NANOS;
        if window.second != second {
            window.second = second;
            window.lines = 0;
        }
        if window.lines >= LINES_PER_SECOND_MAX {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

/// Logs `event`, unconditionally.
pub fn log_event(event: &Event) {
    let (_, name, level) = kind_row(event.kind);
    let identity = event.identity.as_ref().map(|identity| identity.uri());
    let client_id = event.client_id.as_deref().map(escaped);
    let topic = event.topic.as_deref().map(escaped);
    let peer = event.peer.as_deref();
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: "avow::event",
                $level,
                event = name,
                decision = event.decision.as_str(),
                identity,
                client_id = client_id.as_deref(),
                peer,
                topic = topic.as_deref(),
                reason = event.reason,
                by = event.by.as_deref(),
            )
        };
    }
    if level == Level::WARN { line!(Level::WARN) } else { line!(Level::INFO) }
}

fn kind_name(kind: EventKind) -> &'static str {
    kind_row(kind).1
}

/// The table: place in the windows, name, level.
fn kind_row(kind: EventKind) -> (usize, &'static str, Level) {
    match kind {
        EventKind::Connected => (0, "connect", Level::INFO),
        EventKind::ConnectRefused => (1, "connect.refused", Level::WARN),
        EventKind::HandshakeRefused => (2, "handshake.refused", Level::WARN),
        EventKind::Disconnected => (3, "disconnect", Level::INFO),
        EventKind::SubscribeRefused => (4, "subscribe.refused", Level::WARN),
        EventKind::PublishRefused => (5, "publish.refused", Level::WARN),
        EventKind::Quarantined => (6, "publish.quarantined", Level::WARN),
        EventKind::WillPublished => (7, "will", Level::INFO),
        EventKind::WillRefused => (8, "will.refused", Level::WARN),
        EventKind::Violated => (9, "violation", Level::WARN),
        EventKind::Reauthenticated => (10, "reauth", Level::INFO),
        EventKind::ReauthRefused => (11, "reauth.refused", Level::WARN),
        EventKind::ClockStepped => (12, "time.step", Level::WARN),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_one_kind_costs_a_bounded_number_of_lines_and_is_counted() {
        let mut log = EventLog::default();
        let flood = EventKind::PublishRefused;
        let admitted = (0..1_000).filter(|_| log.admit(Instant::ZERO, flood).is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND_MAX as usize);
        assert_eq!(log.admit(Instant::ZERO, EventKind::Connected), Some(0), "others go on");
        let later = Instant::ZERO.after(Duration::from_secs(1));
        assert_eq!(log.admit(later, flood), Some(1_000 - u64::from(LINES_PER_SECOND_MAX)));
        assert_eq!(log.admit(later, flood), Some(0));
    }
}

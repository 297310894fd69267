//! A PUBLISH that stops on the line: why, and what it costs its client.

use std::time::Duration;

use super::answer::acknowledgement;
use super::cover::{cover_fields, link_fields};
use super::entry::{origin_fields, publish_fields};
use crate::broker::Broker;
use crate::broker::disconnect::Ending;
use crate::broker::effect::{Acknowledge, Effect};
use crate::broker::input::ConnectionId;
use crate::broker::output::{EventKind, Output};
use crate::broker::record::{RefusalKey, beginning, refusal_fields};
use crate::evidence::{Cover, EntryType, Origin};
use crate::limits::Charge;
use crate::mqtt::{QoS, ReasonCode};
use crate::policy::V3Refusal;
use crate::refusal::{Refusal, Refused};
use crate::session::{Received, Timer};
use crate::time::Now;

/// Where the line ended for a message that was refused.
pub(super) struct Stopped {
    pub(super) received: Received,
    pub(super) refused: Refused,
    /// What its device signed, if that is known to be good.
    pub(super) origin: Option<Box<Origin>>,
    /// The same of a cover.
    pub(super) cover: Option<Box<Cover>>,
    /// What a 3.x client gets, which has no negative acknowledgement.
    v3: V3Refusal,
    /// Whether a limit said so, and more of the same is only counted.
    by_limit: bool,
    /// How long the limit wants nothing more read.
    pub(super) pause: Duration,
    /// Whether the limit ends the connection.
    pub(super) disconnect: bool,
}

impl Stopped {
    pub(super) fn at(
        received: Received,
        refused: Refused,
        v3: V3Refusal,
        by_limit: bool,
    ) -> Box<Self> {
        let (pause, disconnect) = (Duration::ZERO, false);
        let (origin, cover) = (None, None);
        Box::new(Self { received, refused, origin, cover, v3, by_limit, pause, disconnect })
    }
}

impl Broker {
    /// The bounds that need no policy: levels, bytes, User Properties, room for retained messages.
    pub(super) fn check_bounds(&self, received: Received) -> Result<Received, Box<Stopped>> {
        let bounds = &self.settings.bounds;
        let (topic, publish) = (received.topic(), received.publish());
        let refusal = if topic.as_str().len() > usize::from(bounds.topic_bytes_max) {
            Refusal::TopicTooLong
        } else if topic.levels().count() > usize::from(bounds.topic_levels_max) {
            Refusal::TopicTooDeep
        } else if publish.properties.user_properties.len() > bounds.user_properties_max as usize {
            Refusal::UserPropertyCount
        } else if publish.retain
            && !publish.payload.is_empty()
            && !self.has_retained_room(topic, publish)
        {
            Refusal::RetainedFull
        } else {
            return Ok(received);
        };
        let v3 = self.settings.policy.v3_refusal_for(received.author(), received.topic());
        Err(Stopped::at(received, refusal.into(), v3, false))
    }

    /// Charges a message that was refused before the limiter saw it: a flood of what is forbidden
    /// costs as much as any other, and ends as any other.
    pub(super) fn charge(&mut self, now: Now, mut stopped: Box<Stopped>) -> Box<Stopped> {
        let (author, publish) = (stopped.received.author(), stopped.received.publish());
        let bytes = stopped.received.topic().as_str().len() + publish.payload.len();
        let told = author.version().is_v5() && publish.qos > QoS::AtMostOnce;
        match self.limits.charge(now, author.identity(), bytes, told) {
            Charge::Within => {}
            Charge::Beyond { pause, disconnect, .. } => {
                (stopped.by_limit, stopped.pause) = (true, pause);
                stopped.disconnect = disconnect;
            }
        }
        stopped
    }

    /// Answers a PUBLISH that stopped on the line.
    pub(super) fn refuse_publish(&mut self, now: Now, id: ConnectionId, stopped: Stopped) {
        let Stopped { received, refused, origin, cover, v3, by_limit, pause, disconnect } = stopped;
        self.counters.refuse(refused.refusal);
        let decision = self.decide();
        let identity = received.author().identity().clone();
        let counted = by_limit
            && !self.is_first_refusal(now, RefusalKey::Identity(identity, refused.refusal));
        if !counted {
            let link = match &origin {
                Some(_) => None,
                None => self.link_of_refused(&received),
            };
            self.record_of(now, id, EntryType::PublishRefused, &decision, None, |entry| {
                let topic = beginning(received.topic().as_str());
                let entry = publish_fields(refusal_fields(entry, &refused), &received, topic);
                match (&origin, &cover, &link) {
                    (Some(origin), _, _) => {
                        origin_fields(entry.hash("c", origin.statement().commitment()), origin)
                    }
                    (None, Some(cover), _) => cover_fields(entry, cover),
                    (None, None, Some(link)) => {
                        link_fields(entry.hash("c", link.commitment()), link)
                    }
                    (None, None, None) => entry,
                }
            });
            if let Some(link) = link {
                self.note_link(now, received.author().identity(), &link);
            }
            let topic = received.topic().as_str();
            self.tell(EventKind::PublishRefused, &decision, id, Some(topic), Some(&refused));
        }
        if disconnect {
            return self.end(now, id, Ending::RateTooHigh);
        }
        self.slow_down(now, id, pause);
        let publish = received.publish();
        let (Some(packet_id), Some(connection)) = (publish.packet_id, self.connections.get(&id))
        else {
            return;
        };
        let (reason, reason_string) = if connection.is_v5() {
            let code = refused.refusal.reason_code();
            (code, self.reason_string(id, &decision, refused.refusal))
        } else if v3 == V3Refusal::Close {
            return self.end(now, id, Ending::PublishRefused);
        } else {
            (ReasonCode::Success, None)
        };
        // Only an id of a message that was taken waits for PUBREL; 3.x cannot tell the difference.
        let qos = publish.qos;
        let answer = Acknowledge { connection: id, packet_id, qos, reason, reason_string };
        let packet = acknowledgement(&answer, None);
        self.ledger.wait(Effect::Answer { connection: id, packet, frees_quota: true });
    }

    /// Stops reading from a connection for a while.
    pub(super) fn slow_down(&mut self, now: Now, id: ConnectionId, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let until = now.instant.after(pause);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread_until = until;
        }
        self.outputs.push_back(Output::Pause { connection: id });
        self.timers.set(until, Timer::Unpause(id));
    }
}

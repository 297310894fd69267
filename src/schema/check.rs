//! The fourth proof value of the line.

use std::sync::Arc;

use serde_json::Value;

use super::fresh::Looked;
use super::{Freshness, OnFailure, Schema, Schemas, Sequences, json};
use crate::limits::Admitted;
use crate::mqtt::TopicName;
use crate::policy::PayloadRule;
use crate::refusal::{Refusal, Refused};
use crate::session::Received;
use crate::time::UnixNanos;

/// A message whose payload is what its rule asks for, or goes into quarantine. Made only by
/// [`Schemas::check`].
#[derive(Clone, Debug)]
pub struct Conforming {
    admitted: Admitted,
    outcome: Outcome,
    freshness: Freshness,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The payload satisfies this schema.
    Conforms {
        /// Its id.
        schema: Arc<str>,
    },
    /// Nothing was asked: the rule says `schema = "none"`, or the message clears a retained one.
    Unchecked,
    /// It is encrypted end to end and was not read.
    Opaque,
    /// It failed its schema, which wants it delivered to another topic.
    Quarantined {
        /// Where it goes: `$quarantine/<schema id>/<topic>`.
        topic: TopicName,
        /// Why; also the answer to its publisher.
        refused: Refused,
    },
}

impl Conforming {
    /// The message with everything that was decided before.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// Gives the message back, for an entry about a later refusal.
    pub fn into_admitted(self) -> Admitted {
        self.admitted
    }

    /// What was found.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What its own time and number gave reason to note.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// The topic that it is routed to: its own, or the one of its quarantine.
    pub fn topic(&self) -> &TopicName {
        match &self.outcome {
            Outcome::Quarantined { topic, .. } => topic,
            Outcome::Conforms { .. } | Outcome::Unchecked | Outcome::Opaque => {
                self.admitted.authorized().received().topic()
            }
        }
    }
}

impl Schemas {
    /// Holds the payload of a message that came at `now` against what the rule that permits it asks
    /// for. Its number, if it states one, is looked for in `sequences`, and entered.
    ///
    /// # Errors
    /// The message, and why it is refused.
    pub fn check(
        &self,
        admitted: Admitted,
        now: UnixNanos,
        sequences: &mut Sequences,
    ) -> Result<Conforming, (Admitted, Refused)> {
        self.check_as(admitted, Some((now, sequences)))
    }

    /// As [`Self::check`], for a Will, of which nobody can ask that it be fresh.
    ///
    /// # Errors
    /// The message, and why it is refused.
    pub fn check_will(&self, admitted: Admitted) -> Result<Conforming, (Admitted, Refused)> {
        self.check_as(admitted, None)
    }

    fn check_as(
        &self,
        admitted: Admitted,
        fresh: Option<(UnixNanos, &mut Sequences)>,
    ) -> Result<Conforming, (Admitted, Refused)> {
        let authorized = admitted.authorized();
        match self.judge(authorized.received(), authorized.payload_rule(), fresh) {
            Ok((outcome, freshness)) => Ok(Conforming { admitted, outcome, freshness }),
            Err(refused) => Err((admitted, refused)),
        }
    }

    fn judge(
        &self,
        received: &Received,
        rule: PayloadRule,
        fresh: Option<(UnixNanos, &mut Sequences)>,
    ) -> Result<(Outcome, Freshness), Refused> {
        let publish = received.publish();
        let payload = &publish.payload;
        if publish.retain && payload.is_empty() {
            return Ok((Outcome::Unchecked, Freshness::default()));
        }
        // [MQTT-3.3.2-4] lets a receiver check what the indicator says; opaque payloads have to
        // keep to it as well, because subscribers rely on it.
        let says_utf8 = publish.properties.payload_is_utf8 == Some(true);
        if says_utf8 && std::str::from_utf8(payload).is_err() {
            return Err(Refusal::PayloadNotUtf8.into());
        }
        let outcome = match rule {
            PayloadRule::Schema => return self.judge_by_schema(received, fresh),
            PayloadRule::None => Outcome::Unchecked,
            PayloadRule::Opaque => Outcome::Opaque,
        };
        if payload.len() > self.unchecked_bytes_max {
            let detail = format!("unchecked_bytes_max {}", self.unchecked_bytes_max);
            let (refusal, by) = (Refusal::PayloadTooLarge, None);
            return Err(Refused { refusal, by, detail: Some(detail.into()) });
        }
        Ok((outcome, Freshness::default()))
    }

    fn judge_by_schema(
        &self,
        received: &Received,
        fresh: Option<(UnixNanos, &mut Sequences)>,
    ) -> Result<(Outcome, Freshness), Refused> {
        let topic = received.topic().as_str();
        let schema = self.find(topic).ok_or(Refusal::NoSchema)?;
        let payload = &received.publish().payload;
        let by = |refusal, detail: Box<str>| Refused {
            refusal,
            by: Some(Arc::clone(&schema.id)),
            detail: Some(detail),
        };
        if payload.len() > schema.bytes_max {
            let detail = format!("bytes_max {}", schema.bytes_max);
            return Err(by(Refusal::PayloadTooLarge, detail.into()));
        }
        let (refusal, detail) = match schema.hold(payload) {
            Ok(value) => {
                let freshness = match fresh {
                    None => Freshness::default(),
                    Some((now, sequences)) => schema
                        .judge_freshness(&value, received, now, sequences)
                        .map_err(|(refusal, detail)| by(refusal, detail))?,
                };
                return Ok((Outcome::Conforms { schema: Arc::clone(&schema.id) }, freshness));
            }
            Err(why) => why,
        };
        let refused = by(refusal, detail);
        match schema.on_failure {
            OnFailure::Refuse => Err(refused),
            OnFailure::Quarantine => {
                // Only a topic that would be too long to be one cannot be quarantined.
                match TopicName::parse(&format!("$quarantine/{}/{topic}", schema.id)) {
                    Ok(topic) => {
                        Ok((Outcome::Quarantined { topic, refused }, Freshness::default()))
                    }
                    Err(_too_long) => Err(refused),
                }
            }
        }
    }
}

impl Schema {
    fn judge_freshness(
        &self,
        value: &Value,
        received: &Received,
        now: UnixNanos,
        sequences: &mut Sequences,
    ) -> Result<Freshness, (Refusal, Box<str>)> {
        let (publish, identity) = (received.publish(), received.author().identity());
        let who = match self.fresh.has_sequence() {
            true => format!("{}/{}", identity.role().as_str(), identity.name()),
            false => String::new(),
        };
        let looked = Looked {
            value,
            payload: &publish.payload,
            who: &who,
            topic: received.topic().as_str(),
            dup: publish.dup,
            now,
        };
        self.fresh.judge(&looked, sequences)
    }

    fn hold(&self, payload: &[u8]) -> Result<Value, (Refusal, Box<str>)> {
        let value = json::read(payload, &self.bounds)?;
        // Asking whether is much cheaper than asking why, and nearly always enough.
        if self.validator.is_valid(&value) {
            return Ok(value);
        }
        let detail = match self.validator.validate(&value) {
            Err(error) => format!("{}: {}", error.instance_path(), error.kind().keyword()),
            Ok(()) => String::new(),
        };
        let detail = super::mask::shown(&detail);
        Err((Refusal::SchemaMismatch, json::clip(&detail).into()))
    }
}

//! The time that a payload says of itself.

use std::time::Duration;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde_json::Value;

use super::{Flag, OnStale};
use crate::refusal::Refusal;
use crate::time::UnixNanos;

/// Where the time stands, and how far from the broker's clock it may be.
#[derive(Clone, Debug)]
pub(super) struct TimeRule {
    pub(super) pointer: String,
    pub(super) unit: Unit,
    /// How old a message may be.
    pub(super) past: Duration,
    /// How far ahead the device's clock may be.
    pub(super) future: Duration,
    pub(super) on_failure: OnStale,
}

/// How the time is written: a number of units since 1970, or a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
    Rfc3339,
}

impl TimeRule {
    /// Judges the payload `value` that came at `now`.
    pub(super) fn judge(
        &self,
        value: &Value,
        now: UnixNanos,
    ) -> Result<Option<Flag>, (Refusal, Box<str>)> {
        let at = value.pointer(&self.pointer).and_then(|value| self.unit.read(value));
        let flag = match at {
            None => Flag::Undated,
            Some(at) if now.since(at) > self.past => Flag::Late,
            Some(at) if at.since(now) > self.future => Flag::Early,
            Some(_) => return Ok(None),
        };
        match (self.on_failure, flag.refusal()) {
            (OnStale::Refuse, Some(refusal)) => Err((refusal, self.detail(flag))),
            (OnStale::Refuse | OnStale::Flag, _) => Ok(Some(flag)),
        }
    }

    fn detail(&self, flag: Flag) -> Box<str> {
        let bound = match flag {
            Flag::Late => format!("past {}", humantime::format_duration(self.past)),
            Flag::Early => format!("future {}", humantime::format_duration(self.future)),
            _ => "no time".to_owned(),
        };
        super::detail(&self.pointer, &bound)
    }
}

impl Unit {
    /// The time that `value` says; `None` if it says none after 1970 that a clock could show.
    fn read(self, value: &Value) -> Option<UnixNanos> {
        let nanos_per_unit: u64 = match self {
            Self::Seconds => 1_000_000_000,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
            Self::Nanos => 1,
            Self::Rfc3339 => {
                let at = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
                return u64::try_from(at.unix_timestamp_nanos()).ok().map(UnixNanos::new);
            }
        };
        if let Some(whole) = value.as_u64() {
            return whole.checked_mul(nanos_per_unit).map(UnixNanos::new);
        }
        #[expect(clippy::cast_precision_loss, reason = "a fraction is no more exact than that")]
        let nanos = value.as_f64()? * nanos_per_unit as f64;
        // From here on a float could not be told from the next one that is too large.
        const NANOS_MAX: f64 = 9e18;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "its range was looked at"
        )]
        (0.0..NANOS_MAX).contains(&nanos).then(|| UnixNanos::new(nanos as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_is_read_in_the_unit_of_its_schema() {
        const EACH: [Unit; 5] =
            [Unit::Seconds, Unit::Millis, Unit::Micros, Unit::Nanos, Unit::Rfc3339];
        let values = [
            json!(0),
            json!(1_764_000_000),
            json!(1_764_000_000_000_u64),
            json!(u64::MAX),
            json!(1.5),
            json!(-1),
            json!(-0.1),
            json!(1e300),
            json!("2025-11-24T16:00:00Z"),
            json!("2025-11-24T17:00:00.000000001+01:00"),
            json!("1969-12-31T23:59:59Z"),
            json!("2025-11-24 16:00"),
            json!(true),
            json!(null),
            json!([1]),
        ];
        let mut table = String::new();
        for value in values {
            let read = EACH.map(|unit| {
                unit.read(&value).map_or("-".to_owned(), |at| at.as_nanos().to_string())
            });
            table.push_str(&format!("{value} | {}\n", read.join(" ")));
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_time_is_fresh_up_to_its_bounds_and_not_one_past_them() {
        let now = UnixNanos::from_seconds(1_000_000);
        let rule = |on_failure| TimeRule {
            pointer: "/a/t".into(),
            unit: Unit::Nanos,
            past: Duration::from_secs(600),
            future: Duration::from_secs(30),
            on_failure,
        };
        let mut table = String::new();
        for (what, at) in [
            ("now", json!(now.as_nanos())),
            ("at the past bound", json!(now.as_nanos() - 600_000_000_000)),
            ("one past it", json!(now.as_nanos() - 600_000_000_001)),
            ("at the future bound", json!(now.as_nanos() + 30_000_000_000)),
            ("one past it", json!(now.as_nanos() + 30_000_000_001)),
            ("none", json!("soon")),
        ] {
            let payload = json!({"a": {"t": at}});
            let flagged = rule(OnStale::Flag).judge(&payload, now);
            let flag = flagged.unwrap().map_or("fresh", Flag::as_str);
            let refused = match rule(OnStale::Refuse).judge(&payload, now) {
                Ok(None) => "goes on".to_owned(),
                Ok(Some(flag)) => format!("flagged {}", flag.as_str()),
                Err((refusal, detail)) => format!("{} ({detail})", refusal.name()),
            };
            table.push_str(&format!("{what} | {flag} | {refused}\n"));
        }
        insta::assert_snapshot!(table);
    }
}

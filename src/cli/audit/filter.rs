//! Which entries a verb is about: the same arguments for `query`, `tail`, `stats` and `export`.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::CliFailure;
use crate::evidence::EntryType;
use crate::identity::name::check_name;
use crate::identity::{NameError, Role};
use crate::mqtt::{TopicError, TopicFilter};
use crate::server::admin::LogFilter;
use crate::time::UnixNanos;

/// Conditions on entries; all that are given must hold.
#[derive(Args, Debug)]
#[command(next_help_heading = "Which entries")]
pub(super) struct FilterArguments {
    /// Only this device
    #[arg(long, value_name = "NAME", value_parser = name)]
    device: Option<String>,
    /// Only this peer, as role/name
    #[arg(long, value_name = "ROLE/NAME", conflicts_with = "device", value_parser = who)]
    who: Option<String>,
    /// Only topics that match this Topic Filter
    #[arg(long, value_name = "FILTER", value_parser = topic)]
    topic: Option<String>,
    /// Only this type of entry
    #[arg(long = "type", value_name = "TYPE",
        value_parser = PossibleValuesParser::new(EntryType::ALL.map(EntryType::as_str)))]
    kind: Option<String>,
    /// Only what was allowed, or denied
    #[arg(long, value_enum)]
    decision: Option<DecisionArgument>,
    /// Only what has this reason, or one of a family: limit.rate, 'limit.*'
    #[arg(long, value_name = "REASON", value_parser = reason)]
    why: Option<String>,
    /// Only this level of evidence, as the entry states it
    #[arg(long, value_name = "LEVEL",
        value_parser = PossibleValuesParser::new(["A0", "A1", "A2"]))]
    level: Option<String>,
    /// Not before: a time (2026-11-22T10:00:00Z) or an age (10m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: likewise
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only behind the entry of this index
    #[arg(long, value_name = "INDEX")]
    pub(super) after: Option<u64>,
    /// Only before the entry of this index
    #[arg(long, value_name = "INDEX")]
    before: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecisionArgument {
    Allow,
    Deny,
}

impl FilterArguments {
    /// The conditions, as the broker takes them.
    pub(super) fn filter(&self, now: UnixNanos) -> Result<LogFilter, CliFailure> {
        let time = |text: &Option<String>| {
            let time = text.as_deref().map(|text| parse_time(text, now)).transpose();
            time.map(|time| time.map(UnixNanos::as_nanos))
        };
        let device = self.device.as_ref();
        let device = device.map(|name| format!("{}/{name}", Role::Device.as_str()));
        let decision = self.decision.map(|decision| match decision {
            DecisionArgument::Allow => "allow".to_owned(),
            DecisionArgument::Deny => "deny".to_owned(),
        });
        Ok(LogFilter {
            who: device.or_else(|| self.who.clone()),
            about: None,
            kind: self.kind.clone(),
            topic: self.topic.clone(),
            decision,
            why: self.why.clone(),
            level: self.level.clone(),
            since_unix_nanos: time(&self.since)?,
            until_unix_nanos: time(&self.until)?,
            after: self.after,
            before: self.before,
        })
    }
}

/// A name that a certificate can have.
pub(super) fn name(text: &str) -> Result<String, NameError> {
    check_name(text).map(|()| text.to_owned())
}

/// `role/name`, as entries have it.
pub(super) fn who(text: &str) -> Result<String, String> {
    let roles = Role::ALL.map(Role::as_str).join(", ");
    let Some((role, peer)) = text.split_once('/') else {
        return Err(format!("write ROLE/NAME, for example device/press-7; roles are {roles}"));
    };
    if Role::parse(role).is_none() {
        return Err(format!("`{role}` is not a role; roles are {roles}"));
    }
    name(peer).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn topic(text: &str) -> Result<String, TopicError> {
    TopicFilter::parse(text).map(|_| text.to_owned())
}

/// A reason's name, of which a family may leave the end open.
fn reason(text: &str) -> Result<String, String> {
    let name = text.strip_suffix(".*").unwrap_or(text);
    let is_name = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("write a reason as entries have it in `why`: limit.rate, or limit.*".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads an RFC 3339 time, or an age before `now`.
pub(super) fn parse_time(text: &str, now: UnixNanos) -> Result<UnixNanos, CliFailure> {
    if let Some(age) = crate::config::parse_duration(text) {
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        return Ok(UnixNanos::new(now.as_nanos().saturating_sub(age)));
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok())
        .map(UnixNanos::new)
        .ok_or_else(|| CliFailure::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_time_is_a_date_or_an_age() {
        let now = UnixNanos::from_seconds(1_000_000);
        assert_eq!(parse_time("10m", now).unwrap(), UnixNanos::from_seconds(999_400));
        let date = parse_time("1970-01-02T00:00:00Z", now).unwrap();
        assert_eq!(date, UnixNanos::from_seconds(86_400));
        assert!(parse_time("yesterday", now).is_err());
    }

    #[test]
    fn a_search_for_what_no_entry_has_is_a_usage_error_that_lists_what_there_is() {
        let said = |arguments: &str| {
            let line = format!("avow audit query {arguments}");
            let error = Cli::try_parse_from(line.split(' ')).err()?;
            assert_eq!(error.exit_code(), 2);
            Some(error.to_string())
        };
        assert!(said("--type nonsense").unwrap().contains("publish.refused"));
        assert!(said("--level A3").unwrap().contains("A2"));
        for who in ["press-7", "devices/press-7", "device/", "device/a/b", "device/*"] {
            assert!(said(&format!("--who {who}")).is_some(), "{who}");
        }
        assert!(said("--who press-7").unwrap().contains("device/press-7"));
        for wrong in ["--device a/b", "--topic a/#/b", "--why *", "--why limit*", "--why LIMIT"] {
            assert!(said(wrong).is_some(), "{wrong}");
        }
        for right in [
            "--type will --who operator/x",
            "--type publish.dup --device press-7",
            "--why limit.* --level A2 --after 7 --before 9 --order newest",
        ] {
            assert_eq!(said(right), None, "{right}");
        }
    }
}

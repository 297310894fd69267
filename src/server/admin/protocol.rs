//! What can be asked over the admin socket, as JSON.
//!
//! The names of acts and facts come from closed lists: what stands in the log is named here, not
//! by whoever sends a line.

use serde::{Deserialize, Serialize};

use super::REQUEST_BYTES_MAX;
use super::filter::{LogFilter, LogOrder, LogPeriod};
use crate::broker::Administration;

/// Acts that may be recorded.
pub const ACTS: [&str; 17] = [
    "certificate.issue",
    "certificate.renew",
    "certificate.revoke",
    "token.issue",
    "identity.approve",
    "policy.reload",
    "log.read",
    "log.export",
    "log.reindex",
    "key.rotate",
    "checkpoint.anchor",
    "body.erase",
    "pseudonym.rotate",
    "pseudonym.erase",
    "pseudonym.resolve",
    "witness.alarm",
    "note",
];

/// Names of the facts of an act.
pub const FACTS: [&str; 15] = [
    "identity",
    "issuer",
    "serial",
    "x5t",
    "kid",
    "jti",
    "roles",
    "spki_sha256",
    "not_before",
    "not_after",
    "reason",
    "request",
    "sha256",
    "index",
    "text",
];

/// Facts of one act.
const FACTS_MAX: usize = 16;
/// Longest subject or value of a fact, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the broker counts and how it is.
    Status,
    /// Record an operator's act; answered by its index once it is on disk.
    Record(RecordRequest),
    /// Read the log.
    Log(LogRequest),
    /// Erase bodies.
    Erase(EraseRequest),
}

/// Bodies to erase: exactly one of `who`, `subject` and `first` says which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    /// Of what this peer published, as `role/name`.
    #[serde(default)]
    pub who: Option<String>,
    /// Whose schemas say that they are data of this subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// Of this entry.
    #[serde(default)]
    pub first: Option<u64>,
    /// Of those up to this one.
    #[serde(default)]
    pub last: Option<u64>,
    /// Why, for the log.
    pub reason: String,
    /// Only say what would be erased.
    #[serde(default)]
    pub dry_run: bool,
}

/// An act to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordRequest {
    /// One of [`ACTS`].
    pub act: String,
    /// What it was done to.
    pub subject: String,
    /// Names of [`FACTS`], and values.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
}

/// A reading of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "read", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogRequest {
    /// Entries that satisfy every condition.
    Query {
        /// The conditions.
        #[serde(default)]
        filter: LogFilter,
        /// How many at most.
        #[serde(default)]
        limit: Option<u64>,
        /// Which of them, and in which order.
        #[serde(default)]
        order: LogOrder,
    },
    /// One entry and its body.
    Show {
        /// Its index.
        index: u64,
    },
    /// The proof that an entry is in the log.
    Prove {
        /// Its index.
        index: u64,
        /// Under the cosigned checkpoint, and not under the newest.
        #[serde(default)]
        witnessed: bool,
    },
    /// The newest entries that satisfy every condition, and with `follow` those that come.
    Tail {
        /// The conditions.
        #[serde(default)]
        filter: LogFilter,
        /// How many of the newest to begin with.
        #[serde(default)]
        last: u64,
        /// Whether to go on.
        #[serde(default)]
        follow: bool,
    },
    /// Everything that concerns one peer, oldest first, and what concerned everybody meanwhile.
    Timeline {
        /// Whom, and when.
        filter: LogFilter,
    },
    /// Counts of the entries that satisfy every condition, as one object.
    Stats {
        /// The conditions.
        #[serde(default)]
        filter: LogFilter,
        /// How time is divided.
        #[serde(default)]
        per: LogPeriod,
    },
    /// All entries that satisfy every condition, oldest first, to leave the house.
    Export {
        /// The conditions.
        #[serde(default)]
        filter: LogFilter,
        /// What they are made into, for the log: `ndjson`, `csv` or `ocsf`.
        format: String,
    },
    /// The query index, built again from the log.
    Reindex,
}

/// Why a request cannot be answered as it stands.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The line is no request.
    #[error("not a request: {0}")]
    Json(#[from] serde_json::Error),
    /// The line is too long.
    #[error("the request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// The act is not one of the list.
    #[error("`{0}` is not an act that can be recorded")]
    Act(String),
    /// A fact is not one of the list.
    #[error("`{0}` is not a fact of an act")]
    Fact(String),
    /// Too many facts, or too long texts.
    #[error("an act has at most {FACTS_MAX} facts, and texts of at most {TEXT_BYTES_MAX} bytes")]
    Bound,
}

impl Request {
    /// Reads one line.
    ///
    /// # Errors
    /// [`RequestError::TooLong`], [`RequestError::Json`].
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        if line.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        Ok(serde_json::from_slice(line)?)
    }
}

impl LogRequest {
    /// The act that the reading is, one of [`ACTS`].
    pub fn act(&self) -> &'static str {
        match self {
            Self::Export { .. } => "log.export",
            _ => "log.read",
        }
    }
}

impl TryFrom<RecordRequest> for Administration {
    type Error = RequestError;

    /// Checks names and bounds. The ticket is the server's to choose.
    fn try_from(request: RecordRequest) -> Result<Self, RequestError> {
        let RecordRequest { act, subject, facts } = request;
        let long = subject.len() > TEXT_BYTES_MAX
            || facts.len() > FACTS_MAX
            || facts.iter().any(|(_, value)| value.len() > TEXT_BYTES_MAX);
        if long {
            return Err(RequestError::Bound);
        }
        let act = listed(&ACTS, &act).ok_or(RequestError::Act(act))?;
        let facts = facts
            .into_iter()
            .map(|(name, value)| match listed(&FACTS, &name) {
                Some(name) => Ok((name, value)),
                None => Err(RequestError::Fact(name)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { ticket: 0, act, subject, facts })
    }
}

fn listed(list: &[&'static str], name: &str) -> Option<&'static str> {
    list.iter().copied().find(|listed| *listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_look_like_this_on_the_wire() {
        let requests = [
            Request::Status,
            Request::Record(RecordRequest {
                act: "certificate.issue".to_owned(),
                subject: "device/press-7".to_owned(),
                facts: vec![("serial".to_owned(), "0a".to_owned())],
            }),
            Request::Log(LogRequest::Tail {
                filter: LogFilter {
                    who: Some("device/press-7".to_owned()),
                    ..LogFilter::default()
                },
                last: 10,
                follow: true,
            }),
        ];
        let lines = requests.each_ref().map(|request| serde_json::to_string(request).unwrap());
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"request":"status"}
        {"request":"record","act":"certificate.issue","subject":"device/press-7","facts":[["serial","0a"]]}
        {"request":"log","read":"tail","filter":{"who":"device/press-7"},"last":10,"follow":true}
        "#);
        for (line, request) in lines.iter().zip(requests) {
            assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
        }
    }

    #[test]
    fn only_listed_names_reach_the_log() {
        let request = |act: &str, fact: &str| RecordRequest {
            act: act.to_owned(),
            subject: "x".to_owned(),
            facts: vec![(fact.to_owned(), "1".to_owned())],
        };
        assert!(Administration::try_from(request("note", "text")).is_ok());
        let act = Administration::try_from(request("publish", "text")).unwrap_err();
        assert!(matches!(act, RequestError::Act(_)));
        let fact = Administration::try_from(request("note", "prev")).unwrap_err();
        assert!(matches!(fact, RequestError::Fact(_)));
        let mut long = request("note", "text");
        long.subject = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(matches!(Administration::try_from(long).unwrap_err(), RequestError::Bound));
    }
}

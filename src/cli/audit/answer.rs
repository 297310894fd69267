//! Answers a reading of the log: the same code in the running broker, behind its admin socket,
//! and in a command that reads alone.
//!
//! Each answer is one JSON object on a line. `entry` holds the exact bytes of the entry as a
//! text, so that its leaf hash can be computed again; the body is masked as its schema says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::cli::plant::hex;
use crate::evidence::VerifierKey;
use crate::evidence::proof::TlogProofError;
use crate::evidence::tree::leaf_hash;
use crate::mqtt::{TopicError, TopicFilter, TopicName};
use crate::schema::Schemas;
use crate::server::admin::LogRequest;
use crate::storage::index::IndexFault;
use crate::storage::reader::ProveError;
use crate::storage::{Entry, Index, Order, Outcome, Query, Reader, RealDisk, StorageFault, Until};
use crate::time::UnixNanos;

/// How often `tail -f` looks for more.
pub(in crate::cli) const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Entries that a query answers with unless it says otherwise.
const LIMIT_DEFAULT: u64 = 100;

/// The log and what it takes to read it.
#[derive(Clone)]
pub(in crate::cli) struct LogReader {
    pub(in crate::cli) reader: Reader<RealDisk>,
    pub(in crate::cli) verifier: VerifierKey,
    /// Absent where a query is not wanted: it can be open once only.
    pub(in crate::cli) index: Option<Index>,
    pub(in crate::cli) schemas: Arc<Schemas>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    /// Whoever asked has gone.
    #[error("nobody waits for the answer")]
    Gone,
    /// No such entry.
    #[error("there is no entry {0} in the log")]
    NoEntry(u64),
    /// A condition that is none.
    #[error("the topic filter: {0}")]
    Topic(#[from] TopicError),
    /// A decision that is none.
    #[error("a decision is `allow` or `deny`")]
    Decision,
    /// The log.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexFault),
    /// No proof.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// A proof of ours that does not hold.
    #[error("the proof does not hold: {0}; `avow audit verify` names the place")]
    Proof(#[from] TlogProofError),
}

/// Where lines go.
pub(in crate::cli) trait Lines {
    /// Hands over one line.
    fn line(&mut self, line: &str) -> Result<(), AnswerFault>;
    /// Waits before a follower looks again.
    fn wait(&mut self, duration: Duration) -> Result<(), AnswerFault>;
}

impl LogReader {
    /// Answers `request`, line by line.
    pub(in crate::cli) fn answer(
        &mut self,
        request: &LogRequest,
        lines: &mut impl Lines,
    ) -> Result<(), AnswerFault> {
        self.reader.refresh(&self.verifier)?;
        match request {
            LogRequest::Query { .. } => {
                let query = query(request)?;
                let Some(index) = &self.index else { return Err(IndexFault::InUse.into()) };
                for entry in index.query(&self.reader, &query)?.iter().rev() {
                    lines.line(&short(entry))?;
                }
                Ok(())
            }
            LogRequest::Show { index } => {
                let entry = self.reader.entry(*index)?.ok_or(AnswerFault::NoEntry(*index))?;
                lines.line(&self.long(&entry))
            }
            LogRequest::Prove { index } => {
                let proof = self.reader.prove(*index)?;
                let entry = self.reader.entry(*index)?.ok_or(AnswerFault::NoEntry(*index))?;
                // What we hand out, somebody else will check: so do we.
                proof.verify(&entry.json, &self.verifier)?;
                let answer = json!({
                    "index": index,
                    "entry": text(&entry),
                    "proof": proof.to_string(),
                    "verifier": self.verifier.to_string(),
                });
                lines.line(&answer.to_string())
            }
            LogRequest::Tail { last, follow } => self.tail(*last, *follow, lines),
            LogRequest::Reindex => {
                let Some(index) = &self.index else { return Err(IndexFault::InUse.into()) };
                index.refill(&self.reader)?;
                lines.line(&json!({ "applied": index.applied_upto()? }).to_string())
            }
        }
    }

    fn tail(&mut self, last: u64, follow: bool, lines: &mut impl Lines) -> Result<(), AnswerFault> {
        let size = self.reader.checkpoint().map_or(0, |signed| signed.tree_size);
        let mut next = size.saturating_sub(last);
        loop {
            for entry in self.reader.entries(next) {
                let entry = entry?;
                lines.line(&short(&entry))?;
                next = entry.index + 1;
            }
            if !follow {
                return Ok(());
            }
            lines.wait(FOLLOW_EVERY)?;
            self.reader.refresh(&self.verifier)?;
        }
    }

    fn long(&self, entry: &Entry) -> String {
        let fields: serde_json::Value = serde_json::from_slice(&entry.json).unwrap_or_default();
        let topic = fields.get("topic").and_then(|topic| topic.as_str());
        let topic = topic.and_then(|topic| TopicName::parse(topic).ok());
        let body = entry.body.as_ref().map(|body| match &topic {
            Some(topic) => self.schemas.mask(topic, &body.payload),
            None => format!("<{} bytes>", body.payload.len()),
        });
        json!({
            "index": entry.index,
            "entry": text(entry),
            "leaf_hash": hex(&leaf_hash(&entry.json)),
            "segment": entry.place.segment,
            "offset": entry.place.offset,
            "body_bytes": entry.body.as_ref().map(|body| body.payload.len()),
            "body": body,
        })
        .to_string()
    }
}

/// Opens the log in `directory` up to its newest checkpoint.
pub(in crate::cli) fn open_reader(
    directory: &std::path::Path,
    verifier: &VerifierKey,
) -> Result<Reader<RealDisk>, StorageFault> {
    Reader::open(RealDisk::new(directory), verifier, Until::Checkpoint)
}

fn short(entry: &Entry) -> String {
    json!({ "index": entry.index, "entry": text(entry) }).to_string()
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.json).into_owned()
}

fn query(request: &LogRequest) -> Result<Query, AnswerFault> {
    let LogRequest::Query { who, kind, topic, decision, since_unix_nanos, until_unix_nanos, limit } =
        request
    else {
        return Ok(Query::default());
    };
    let outcome = match decision.as_deref() {
        None => None,
        Some("allow") => Some(Outcome::Allow),
        Some("deny") => Some(Outcome::Deny),
        Some(_) => return Err(AnswerFault::Decision),
    };
    Ok(Query {
        who: who.clone(),
        topic: topic.as_deref().map(TopicFilter::parse).transpose()?,
        kind: kind.clone(),
        outcome,
        since: since_unix_nanos.map(UnixNanos::new),
        until: until_unix_nanos.map(UnixNanos::new),
        limit: usize::try_from(limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(usize::MAX),
        order: Order::NewestFirst,
    })
}

//! Answers a reading of the log: the same code in the running broker, behind its admin socket,
//! and in a command that reads alone.
//!
//! Each answer is one JSON object on a line. `entry` holds the exact bytes of the entry as a
//! text, so that its leaf hash can be computed again; the body is masked as its schema says.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use serde_json::json;

use super::cover::cover_of;
use super::stats;
use crate::cli::plant::hex;
use crate::evidence::erasure::Erasure;
use crate::evidence::proof::TlogProofError;
use crate::evidence::tree::leaf_hash;
use crate::evidence::{EntryType, VerifierKey};
use crate::mqtt::{TopicError, TopicFilter, TopicName};
use crate::schema::Schemas;
use crate::server::admin::{LogFilter, LogOrder, LogRequest};
use crate::storage::index::IndexFault;
use crate::storage::{
    Entry, Found, Index, Order, Outcome, ProveError, Query, Reader, RealDisk, StorageFault, Until,
    find, search,
};
use crate::time::UnixNanos;

/// What concerns every peer.
const COMMON_TYPES: [EntryType; 5] =
    [EntryType::Start, EntryType::Stop, EntryType::Policy, EntryType::Schema, EntryType::TimeStep];

/// How often `tail -f` looks for more.
pub(in crate::cli) const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Entries that a query answers with unless it says otherwise.
const LIMIT_DEFAULT: u64 = 100;
/// Most entries that one query answers with; an export has no such bound.
const QUERY_ENTRIES_MAX: u64 = 10_000;

/// The log and what it takes to read it.
#[derive(Clone)]
pub(in crate::cli) struct LogReader {
    pub(in crate::cli) reader: Reader<RealDisk>,
    pub(in crate::cli) verifier: VerifierKey,
    /// Absent where it cannot be had; a query reads the whole log then.
    pub(in crate::cli) index: Option<Index>,
    /// Absent where no body is wanted.
    pub(in crate::cli) schemas: Option<Arc<Schemas>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFault {
    /// Whoever asked has gone.
    #[error("nobody waits for the answer")]
    Gone,
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
    /// Answers `request`, line by line; without a line, if it is about an entry that is not there.
    pub(in crate::cli) fn answer(
        &mut self,
        request: &LogRequest,
        lines: &mut impl Lines,
    ) -> Result<(), AnswerFault> {
        self.reader.refresh(&self.verifier)?;
        match request {
            LogRequest::Query { filter, limit, order } => {
                let limit = limit.unwrap_or(LIMIT_DEFAULT).min(QUERY_ENTRIES_MAX);
                self.query(query(filter, limit, *order)?, *order, lines)?;
                self.tell_newer(lines)
            }
            LogRequest::Show { index } => {
                let Some(entry) = self.written(*index)? else { return Ok(()) };
                let cover = cover_of(&self.reader, self.index.as_ref(), &entry)?;
                lines.line(&self.long(&entry, cover))
            }
            LogRequest::Prove { index, witnessed } => self.prove(*index, *witnessed, lines),
            LogRequest::Tail { filter, last, follow } => {
                // Whoever goes on from an entry wants all that came since.
                let (limit, order) = match filter.after {
                    Some(_) if *follow => (u64::MAX, LogOrder::Oldest),
                    _ => ((*last).min(QUERY_ENTRIES_MAX), LogOrder::Latest),
                };
                self.tail(query(filter, limit, order)?, order, *follow, lines)
            }
            LogRequest::Export { filter, .. } => {
                let order = LogOrder::Oldest;
                self.query(query(filter, u64::MAX, order)?, order, lines)?;
                self.tell_newer(lines)
            }
            LogRequest::Timeline { filter } => self.timeline(filter, lines),
            LogRequest::Stats { filter, per } => {
                let query = query(filter, u64::MAX, LogOrder::Oldest)?;
                let counted = stats::count(&self.reader, self.index.as_ref(), &query, *per)?;
                lines.line(&counted.to_string())
            }
            LogRequest::Reindex => {
                let Some(index) = &self.index else { return Err(IndexFault::InUse.into()) };
                index.refill(&self.reader)?;
                lines.line(&json!({ "applied": index.applied_upto()? }).to_string())
            }
        }
    }

    fn query(
        &self,
        query: Query,
        order: LogOrder,
        lines: &mut impl Lines,
    ) -> Result<(), AnswerFault> {
        let index = self.index.as_ref();
        if order == LogOrder::Latest {
            for found in find(&self.reader, index, &query)?.iter().rev() {
                lines.line(&short(found.index, &found.json))?;
            }
            return Ok(());
        }
        let mut told = Ok(());
        search(&self.reader, index, &query, &mut |found| {
            told = lines.line(&short(found.index, &found.json));
            if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        told
    }

    /// What concerns one peer, and between it what concerned everybody.
    fn timeline(&self, filter: &LogFilter, lines: &mut impl Lines) -> Result<(), AnswerFault> {
        let order = LogOrder::Oldest;
        let mut common = Vec::new();
        for kind in COMMON_TYPES {
            let kind = Some(kind.as_str().to_owned());
            let of_kind = LogFilter { about: None, kind, ..filter.clone() };
            let query = query(&of_kind, QUERY_ENTRIES_MAX, LogOrder::Newest)?;
            common.extend(find(&self.reader, self.index.as_ref(), &query)?);
        }
        common.sort_unstable_by_key(|found| found.index);
        let mut common = common.into_iter().peekable();
        let mut told = Ok(());
        let whole = query(filter, u64::MAX, order)?;
        search(&self.reader, self.index.as_ref(), &whole, &mut |found| {
            while let Some(before) = common.next_if(|common| common.index < found.index) {
                told = std::mem::replace(&mut told, Ok(()))
                    .and_then(|()| lines.line(&line_of(&before)));
            }
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| lines.line(&line_of(&found)));
            if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        told?;
        for behind in common {
            lines.line(&line_of(&behind))?;
        }
        self.tell_newer(lines)
    }

    fn tail(
        &mut self,
        query: Query,
        order: LogOrder,
        follow: bool,
        lines: &mut impl Lines,
    ) -> Result<(), AnswerFault> {
        let mut next = self.covered();
        self.query(query.clone(), order, lines)?;
        if !follow {
            return self.tell_newer(lines);
        }
        let mut hint = None;
        loop {
            lines.wait(FOLLOW_EVERY)?;
            self.reader.refresh(&self.verifier)?;
            let mut told = Ok(());
            self.reader.visit(next, u64::MAX, hint, &mut |entry| {
                (next, hint) = (entry.index + 1, Some(entry.batch));
                if query.fits(entry.index, entry.json) {
                    told = lines.line(&short(entry.index, entry.json));
                }
                if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            told?;
        }
    }

    /// Says how many entries stand past the newest checkpoint, if any do. The traces that readings
    /// leave are not counted: each would find its own.
    fn tell_newer(&self, lines: &mut impl Lines) -> Result<(), AnswerFault> {
        let mut reader = self.reader.clone();
        reader.set_until(Until::Written);
        let mut newer = 0_u64;
        // Damage past the checkpoint is for `audit verify` to name: what was asked for is answered.
        let _ = reader.visit(self.covered(), u64::MAX, None, &mut |entry| {
            newer += u64::from(!is_reading(entry.json));
            ControlFlow::Continue(())
        });
        if newer > 0 { lines.line(&json!({ "newer": newer }).to_string()) } else { Ok(()) }
    }

    fn prove(
        &mut self,
        index: u64,
        witnessed: bool,
        lines: &mut impl Lines,
    ) -> Result<(), AnswerFault> {
        let Some(entry) = self.written(index)? else { return Ok(()) };
        let proof = if witnessed {
            let cosigned = self.reader.cosigned(&self.verifier)?;
            // It may be newer than what was read at first.
            self.reader.refresh(&self.verifier)?;
            let covered = cosigned.as_ref().map_or(0, |(_, checkpoint)| checkpoint.tree_size);
            match cosigned.filter(|_| index < covered) {
                Some((note, checkpoint)) => self.reader.prove_under(index, &note, &checkpoint)?,
                None => {
                    let (entry, covered_entries) = (text(&entry), covered);
                    let answer = json!({
                        "index": index,
                        "entry": entry,
                        "covered": false,
                        "covered_entries": covered_entries,
                    });
                    return lines.line(&answer.to_string());
                }
            }
        } else if index >= self.covered() {
            return lines.line(&self.long(&entry, None));
        } else {
            self.reader.prove(index)?
        };
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

    /// Number of entries that the newest checkpoint covers.
    fn covered(&self) -> u64 {
        self.reader.checkpoint().map_or(0, |signed| signed.tree_size)
    }

    /// Entry `index`, also one that no checkpoint covers yet.
    fn written(&self, index: u64) -> Result<Option<Entry>, StorageFault> {
        if index < self.covered() {
            return self.reader.entry(index);
        }
        let mut reader = self.reader.clone();
        reader.set_until(Until::Written);
        reader.entry(index)
    }

    /// The entry that says that the body of entry `index` was erased, and what else it says. Null while
    /// the erasure is not done.
    fn erased_by(&self, index: u64) -> serde_json::Value {
        let mut reader = self.reader.clone();
        reader.set_until(Until::Written);
        let mut said = serde_json::Value::Null;
        // It stands behind what it is about. What cannot be read is for `audit verify` to name.
        let _ = reader.visit(index, u64::MAX, None, &mut |entry| {
            let erasure = Erasure::read(entry.json).filter(|it| it.is_done);
            let Some(erasure) = erasure.filter(|it| it.indices.contains(index)) else {
                return ControlFlow::Continue(());
            };
            let fields: serde_json::Value = serde_json::from_slice(entry.json).unwrap_or_default();
            let (t, reason) = (fields.get("t"), erasure.reason);
            said = json!({ "index": entry.index, "t": t, "reason": reason });
            ControlFlow::Break(())
        });
        said
    }

    fn long(&self, entry: &Entry, cover: Option<u64>) -> String {
        let fields: serde_json::Value = serde_json::from_slice(&entry.json).unwrap_or_default();
        let topic = fields.get("topic").and_then(|topic| topic.as_str());
        let topic = topic.and_then(|topic| TopicName::parse(topic).ok());
        let erased = entry.body.as_ref().filter(|body| body.is_erased());
        let erased = erased.map(|_| self.erased_by(entry.index));
        let body = entry.body.as_ref().filter(|body| !body.is_erased());
        let body = body.map(|body| match (&topic, &self.schemas) {
            (Some(topic), Some(schemas)) => schemas.mask(topic, &body.payload),
            _ => format!("<{} bytes>", body.payload.len()),
        });
        json!({
            "index": entry.index,
            "entry": text(entry),
            "leaf_hash": hex(&leaf_hash(&entry.json)),
            "segment": entry.place.segment,
            "offset": entry.place.offset,
            "body_bytes": entry.body.as_ref().map(|body| body.payload.len()),
            "body": body,
            "cover": cover,
            "erased": erased,
            "covered": entry.index < self.covered(),
            "covered_entries": self.covered(),
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

/// Whether an entry is the trace of a reading. Seen without reading it: of a busy second there are
/// tens of thousands, and what peers send is escaped in them.
fn is_reading(entry: &[u8]) -> bool {
    memmem::find(entry, br#""act":"log.read""#).is_some()
}

fn line_of(found: &Found) -> String {
    short(found.index, &found.json)
}

fn short(index: u64, json: &[u8]) -> String {
    json!({ "index": index, "entry": String::from_utf8_lossy(json) }).to_string()
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.json).into_owned()
}

fn query(filter: &LogFilter, limit: u64, order: LogOrder) -> Result<Query, AnswerFault> {
    let outcome = match filter.decision.as_deref() {
        None => None,
        Some("allow") => Some(Outcome::Allow),
        Some("deny") => Some(Outcome::Deny),
        Some(_) => return Err(AnswerFault::Decision),
    };
    Ok(Query {
        who: filter.who.clone(),
        about: filter.about.clone(),
        topic: filter.topic.as_deref().map(TopicFilter::parse).transpose()?,
        kind: filter.kind.clone(),
        outcome,
        why: filter.why.clone(),
        level: filter.level.clone(),
        since: filter.since_unix_nanos.map(UnixNanos::new),
        until: filter.until_unix_nanos.map(UnixNanos::new),
        after: filter.after,
        before: filter.before,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        order: match order {
            LogOrder::Latest | LogOrder::Newest => Order::NewestFirst,
            LogOrder::Oldest => Order::OldestFirst,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::evidence::{Batch, BatchId, Checkpoint, EntryType, EntryWriter, LogKey, RecordKind};
    use crate::storage::{Log, LogOptions};

    struct Kept(Vec<Value>);

    impl Lines for Kept {
        fn line(&mut self, line: &str) -> Result<(), AnswerFault> {
            self.0.push(serde_json::from_str(line).unwrap());
            Ok(())
        }
        fn wait(&mut self, _: Duration) -> Result<(), AnswerFault> {
            Err(AnswerFault::Gone)
        }
    }

    fn append(
        log: &mut Log<RealDisk>,
        number: u64,
        (field, value): (&'static str, &str),
    ) -> Vec<u8> {
        let mut head = Vec::new();
        let now = UnixNanos::from_seconds(number + 1);
        let entry = EntryWriter::begin(&mut head, EntryType::Connect, now, "n", "d");
        entry.text(field, value).finish();
        let mut batch = Batch::default();
        batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&head));
        log.append(&[(BatchId { shard: 0, number }, batch)]).unwrap();
        head
    }

    /// A log of four entries, of which the newest checkpoint covers two and the last is the trace of
    /// a reading; nobody has an index.
    fn reader(directory: &std::path::Path) -> LogReader {
        let key = LogKey::from_seed("n/log", &[7; 32]).unwrap();
        let verifier = key.verifier().clone();
        let options =
            LogOptions { verifier: verifier.clone(), segment_bytes: 1 << 20, tiles: true };
        let (mut log, mut recovery) =
            Log::open(RealDisk::new(directory), options, &mut |_| {}).unwrap();
        for (number, who) in [(0, "device/a"), (1, "device/b")] {
            recovery.tree.push(leaf_hash(&append(&mut log, number, ("who", who))));
        }
        let tree = &recovery.tree;
        let origin = verifier.name().to_owned();
        let checkpoint = Checkpoint { origin, tree_size: tree.tree_size(), root_hash: tree.root() };
        recovery.checkpoints.publish(&key, checkpoint).unwrap();
        append(&mut log, 2, ("who", "device/a"));
        append(&mut log, 3, ("act", "log.read"));
        let reader = open_reader(directory, &verifier).unwrap();
        LogReader { reader, verifier, index: None, schemas: None }
    }

    fn ask(log: &mut LogReader, request: &LogRequest) -> Vec<Value> {
        let mut kept = Kept(Vec::new());
        log.answer(request, &mut kept).unwrap();
        kept.0
    }

    fn tail(last: u64, follow: bool) -> LogRequest {
        LogRequest::Tail { filter: LogFilter::default(), last, follow }
    }

    #[test]
    fn an_entry_that_no_checkpoint_covers_is_shown_as_such_and_not_proven() {
        let dir = tempfile::tempdir().unwrap();
        let log = &mut reader(dir.path());
        let [covered] = &ask(log, &LogRequest::Show { index: 1 })[..] else { panic!() };
        assert_eq!(covered["covered"], true);
        for request in
            [LogRequest::Show { index: 2 }, LogRequest::Prove { index: 2, witnessed: false }]
        {
            let [young] = &ask(log, &request)[..] else { panic!() };
            assert_eq!((&young["covered"], &young["covered_entries"]), (&false.into(), &2.into()));
            assert!(young["entry"].as_str().unwrap().contains("device/a"));
            assert!(young["proof"].is_null());
        }
        assert!(
            ask(log, &LogRequest::Prove { index: 1, witnessed: false })[0]["proof"].is_string()
        );
        for request in
            [LogRequest::Show { index: 4 }, LogRequest::Prove { index: 4, witnessed: false }]
        {
            assert!(ask(log, &request).is_empty(), "there is none");
        }
    }

    #[test]
    fn what_no_checkpoint_covers_is_counted_behind_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = &mut reader(dir.path());
        let [first, second, newer] = &ask(log, &tail(9, false))[..] else { panic!() };
        assert_eq!((&first["index"], &second["index"]), (&0.into(), &1.into()));
        // Index 2, and not the trace behind it.
        assert_eq!(*newer, json!({ "newer": 1 }));
        // A follower sees them come.
        let mut kept = Kept(Vec::new());
        let followed = log.answer(&tail(1, true), &mut kept);
        assert!(matches!(followed, Err(AnswerFault::Gone)));
        assert_eq!(kept.0.len(), 1);
    }

    #[test]
    fn a_log_without_index_is_searched_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let log = &mut reader(dir.path());
        let mut of = |who: &str, limit| {
            let filter = LogFilter { who: Some(who.to_owned()), ..LogFilter::default() };
            let order = LogOrder::Latest;
            let request = LogRequest::Query { filter, limit: Some(limit), order };
            let found = ask(log, &request);
            let indices = found.iter().filter_map(|line| line["index"].as_u64());
            indices.collect::<Vec<_>>()
        };
        // As far as it is signed.
        assert_eq!(of("device/a", 10), [0]);
        assert_eq!(of("device/b", 10), [1]);
        assert_eq!(of("device/b", 0), [0; 0]);
        assert!(!dir.path().join("index").exists());
    }
}

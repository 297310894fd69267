//! Erasing bodies: which, in which order, and what is recorded of it.
//!
//! ```text
//! select ─► the broker forgets them, entry `erase.begin` ─► journal ─► segments, snapshots ─► entry `erased`
//! ```
//!
//! The same code in the running broker, behind its admin socket, and in a command that has the log to
//! itself. The invariant: the entry `erased` is written when no file of the log and nothing in the broker
//! holds a byte of what it names.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::PrivacyFault;
use super::keys::PseudonymKeys;
use crate::broker::Administration;
use crate::cli::CliFailure;
use crate::cli::record::Recorder;
use crate::evidence::VerifierKey;
use crate::evidence::erasure::{ERASE_ACT, ERASE_BEGIN_ACT, Erasure, IndexRanges};
use crate::mqtt::TopicName;
use crate::schema::Schemas;
use crate::server::Handle;
use crate::server::admin::EraseRequest;
use crate::storage::erasure::{self, FoundBody};
use crate::storage::{Reader, RealDisk, Until};
use crate::time::UnixNanos;

/// Longest reason, in bytes.
pub(in crate::cli) const REASON_BYTES_MAX: usize = 512;

/// What it takes to find bodies.
#[derive(Clone)]
pub(in crate::cli) struct Finder {
    pub(in crate::cli) disk: RealDisk,
    pub(in crate::cli) verifier: VerifierKey,
    pub(in crate::cli) schemas: Arc<Schemas>,
    /// The directory of the keys of pseudonyms.
    pub(in crate::cli) keys: std::path::PathBuf,
}

/// Who forgets and records.
pub(in crate::cli) enum Acts<'a> {
    /// The running broker.
    Broker(&'a Handle),
    /// The log, which nobody else has.
    Alone(&'a mut Recorder),
}

/// Whose bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Whose {
    /// A peer's, as `role/name`.
    Peer(String),
    /// A subject's, as schemas say.
    Subject(String),
    /// These entries'.
    Entries(u64, u64),
}

/// What is to be erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Found {
    /// Of which entries.
    pub(in crate::cli) ranges: IndexRanges,
    /// Bodies of them that are there.
    pub(in crate::cli) bodies: u64,
    /// Their bytes.
    pub(in crate::cli) bytes: u64,
    /// Bodies that no schema says how to search.
    pub(in crate::cli) unsearched: u64,
    /// Entries that the newest checkpoint covers: what was looked through.
    pub(in crate::cli) covered: u64,
}

/// The fields of an entry that say whose its body is.
#[derive(Default, serde::Deserialize)]
struct Fields {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    who: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    conn: Option<u64>,
    #[serde(default)]
    will: Option<String>,
}

impl TryFrom<&EraseRequest> for Whose {
    type Error = PrivacyFault;

    fn try_from(request: &EraseRequest) -> Result<Self, PrivacyFault> {
        let first = request.first;
        match (&request.who, &request.subject, first) {
            (Some(who), None, None) => Ok(Self::Peer(who.clone())),
            (None, Some(subject), None) if !subject.is_empty() => {
                Ok(Self::Subject(subject.clone()))
            }
            (None, None, Some(first)) if request.last.is_none_or(|last| last >= first) => {
                Ok(Self::Entries(first, request.last.unwrap_or(first)))
            }
            _ => Err(PrivacyFault::Whose),
        }
    }
}

impl Finder {
    /// Looks through what the newest checkpoint covers.
    pub(in crate::cli) fn find(&self, whose: &Whose) -> Result<Found, PrivacyFault> {
        let reader = Reader::open(self.disk.clone(), &self.verifier, Until::Checkpoint)?;
        let covered = reader.checkpoint().map_or(0, |signed| signed.tree_size);
        let mut found = Found { covered, ..Found::default() };
        let mut owners = self.connects(&reader, whose)?;
        erasure::bodies(&self.disk, covered, &mut |body| {
            let is_wanted = match self.is_wanted(whose, &body, &owners) {
                Some(is_wanted) => is_wanted,
                None => {
                    found.unsearched += 1;
                    false
                }
            };
            if is_wanted {
                found.bodies += 1;
                found.bytes += (body.body.payload.len() + body.body.properties.len()) as u64;
                owners.push(body.owner);
                // A Will stands beside the record of its CONNECT as well.
                owners.extend(body.entry.map(fields).and_then(|it| it.will_of()));
            }
        })?;
        if found.bodies > 0 {
            found.ranges = IndexRanges::of(owners);
        }
        Ok(found)
    }

    /// The `connect` entries of a peer that brought a Will: its body stands in no entry.
    fn connects(&self, reader: &Reader<RealDisk>, whose: &Whose) -> Result<Vec<u64>, PrivacyFault> {
        let Whose::Peer(who) = whose else { return Ok(Vec::new()) };
        let mut connects = Vec::new();
        reader.visit(0, u64::MAX, None, &mut |entry| {
            if entry.json.starts_with(br#"{"v":1,"type":"connect""#) {
                let fields = fields(entry.json);
                if fields.who == *who && fields.will.is_some() {
                    connects.push(entry.index);
                }
            }
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(connects)
    }

    /// `None` if that cannot be told.
    fn is_wanted(&self, whose: &Whose, found: &FoundBody<'_>, owners: &[u64]) -> Option<bool> {
        match (whose, found.entry) {
            (Whose::Entries(first, last), _) => Some((*first..=*last).contains(&found.owner)),
            (Whose::Peer(who), Some(entry)) => Some(fields(entry).who == *who),
            (Whose::Peer(_), None) => Some(owners.contains(&found.owner)),
            (Whose::Subject(subject), Some(entry)) => {
                let topic = TopicName::parse(&fields(entry).topic).ok()?;
                self.schemas.is_of_subject(&topic, found.body.payload, subject)
            }
            (Whose::Subject(subject), None) => {
                Some(self.schemas.may_be_of_subject(found.body.payload, subject))
            }
        }
    }

    /// What stands in the log for whose bodies they are: of a person no more than a pseudonym.
    fn subject(&self, whose: &Whose, now: UnixNanos) -> Result<String, PrivacyFault> {
        Ok(match whose {
            Whose::Peer(who) => who.clone(),
            Whose::Entries(first, last) if first == last => format!("entry/{first}"),
            Whose::Entries(first, last) => format!("entry/{first}-{last}"),
            Whose::Subject(subject) => {
                let key = PseudonymKeys::open(&self.keys)?.newest(now)?.key;
                format!("subject/{}", key.of_subject(subject))
            }
        })
    }
}

impl Fields {
    /// The `connect` entry that a published Will came with.
    fn will_of(&self) -> Option<u64> {
        self.conn.filter(|_| self.kind == "will")
    }
}

fn fields(entry: &[u8]) -> Fields {
    serde_json::from_slice(entry).unwrap_or_default()
}

/// Erases what was found; the entries that say so.
///
/// # Errors
/// If the disk or the broker fails. Then it is unfinished, and the next start goes on with it.
pub(in crate::cli) fn erase(
    finder: &Finder,
    found: &Found,
    (whose, reason): (&Whose, &str),
    acts: &mut Acts<'_>,
    now: UnixNanos,
) -> Result<Vec<u64>, PrivacyFault> {
    let subject = finder.subject(whose, now)?;
    erase_as(&finder.disk, &found.ranges, (&subject, reason), acts)
}

/// As [`erase`], with the subject as the log has it.
pub(in crate::cli) fn erase_as(
    disk: &RealDisk,
    ranges: &IndexRanges,
    (subject, reason): (&str, &str),
    acts: &mut Acts<'_>,
) -> Result<Vec<u64>, PrivacyFault> {
    static ONE: Mutex<()> = Mutex::new(());
    // The journal is of one erasure at a time.
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (subject, reason) = (subject.to_owned(), reason.to_owned());
    let parts = ranges.parts().into_iter().map(|indices| {
        let (subject, reason) = (subject.clone(), reason.clone());
        Erasure { is_done: false, subject, indices, reason }
    });
    let parts: Vec<Erasure> = parts.collect();
    for part in &parts {
        // A crash before the first is on disk leaves everything as it was; after it, the next start
        // erases what it names.
        acts.begin(part)?;
    }
    erasure::erase(disk, ranges)?;
    // A crash from here on leaves bodies of zeroes that `erase.begin` accounts for; the next start
    // writes these entries.
    let entries = parts.iter().map(|part| acts.end(part)).collect::<Result<Vec<_>, _>>()?;
    erasure::end_journal(disk)?;
    Ok(entries)
}

/// Ends erasures that a crash left, once their bodies are gone from the disk and from the broker.
pub(in crate::cli) fn end_unfinished(
    disk: &RealDisk,
    unfinished: &[Erasure],
    acts: &mut Acts<'_>,
) -> Result<(), PrivacyFault> {
    for erasure in unfinished {
        acts.end(erasure)?;
    }
    // Also where a crash left nothing but the journal.
    Ok(erasure::end_journal(disk)?)
}

/// The bodies of all of them.
pub(in crate::cli) fn ranges_of(unfinished: &[Erasure]) -> IndexRanges {
    IndexRanges::of_ranges(unfinished.iter().flat_map(|it| it.indices.ranges().to_vec()))
}

impl Acts<'_> {
    fn begin(&mut self, erasure: &Erasure) -> Result<u64, PrivacyFault> {
        match self {
            Acts::Broker(broker) => {
                let ranges = Arc::new(erasure.indices.clone());
                Ok(broker.erase(ranges, administration(ERASE_BEGIN_ACT, erasure))?)
            }
            Acts::Alone(recorder) => record(recorder, ERASE_BEGIN_ACT, erasure),
        }
    }

    fn end(&mut self, erasure: &Erasure) -> Result<u64, PrivacyFault> {
        match self {
            Acts::Broker(broker) => Ok(broker.record(administration(ERASE_ACT, erasure))?),
            Acts::Alone(recorder) => record(recorder, ERASE_ACT, erasure),
        }
    }
}

fn administration(act: &'static str, erasure: &Erasure) -> Administration {
    Administration { ticket: 0, act, subject: erasure.subject.clone(), facts: facts(erasure) }
}

fn facts(erasure: &Erasure) -> Vec<(&'static str, String)> {
    vec![("indices", erasure.indices.to_string()), ("reason", erasure.reason.clone())]
}

fn record(
    recorder: &mut Recorder,
    act: &'static str,
    erasure: &Erasure,
) -> Result<u64, PrivacyFault> {
    let recorded = recorder.record(act, &erasure.subject, &facts(erasure));
    recorded.map_err(|failure| PrivacyFault::Record(Box::new(failure)))
}

/// Erases without a broker, which must not run.
pub(in crate::cli) fn alone(
    finder: &Finder,
    request: &EraseRequest,
    config: &crate::config::Config,
) -> Result<Option<(Found, Vec<u64>)>, CliFailure> {
    let whose = Whose::try_from(request)?;
    let mut recorder = Recorder::open(config)?;
    let unfinished = recorder.unfinished_erasures();
    if !request.dry_run {
        if !unfinished.is_empty() {
            erasure::erase(&finder.disk, &ranges_of(&unfinished))?;
        }
        end_unfinished(&finder.disk, &unfinished, &mut Acts::Alone(&mut recorder))?;
    }
    let found = finder.find(&whose)?;
    let entries = match request.dry_run || found.bodies == 0 {
        true => Vec::new(),
        false => {
            let now = crate::cli::unix_now();
            let acts = &mut Acts::Alone(&mut recorder);
            erase(finder, &found, (&whose, &request.reason), acts, now)?
        }
    };
    recorder.close()?;
    Ok(Some((found, entries)))
}

/// What a finder of this broker is made of.
pub(in crate::cli) fn finder(
    config: &crate::config::Config,
    verifier: VerifierKey,
    schemas: Arc<Schemas>,
) -> Finder {
    let directory: &Path = &config.evidence.directory;
    Finder { disk: RealDisk::new(directory), verifier, schemas, keys: config.privacy.keys.clone() }
}

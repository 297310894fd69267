//! Puts what an operator does into the log: through the running broker, or directly while none
//! runs.
//!
//! The invariant: [`Recorder::record`] returns only once the entry is on disk.

use std::path::Path;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use super::CliFailure;
use super::plant::Layout;
use super::setting::{self, SettingProblem};
use crate::config::{Config, Setting};
use crate::evidence::checkpoint::KeyError;
use crate::evidence::erasure::Erasure;
use crate::evidence::{
    Batch, BatchId, DecisionIds, EntryType, EntryWriter, LogKey, RecordKind, VerifierKey,
};
use crate::server::admin::{Client, Lock, RecordRequest, Request};
use crate::storage::{Log, LogOptions, RealDisk, Recovery};

/// Where entries go.
pub(super) enum Recorder {
    /// To the broker that runs.
    Broker(Client),
    /// No broker runs: we hold its lock and write its log.
    Alone(Box<Alone>),
}

/// The log, held by this process.
pub(super) struct Alone {
    _lock: Lock,
    log: Log<RealDisk>,
    recovery: Recovery<RealDisk>,
    key: LogKey,
    node: String,
    decisions: DecisionIds,
    batches: u64,
}

/// The key that signs the checkpoints of `config`'s log, which is not another one's.
pub(super) fn log_key(config: &Config) -> Result<LogKey, CliFailure> {
    let pem = setting::read_secret(config, Setting::LogKey, &config.evidence.key)?;
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Private);
    let key = der.and_then(|der| LogKey::from_pkcs8(&config.evidence.origin, der.secret_der()));
    let key =
        key.map_err(|fault| config.problem_at(Setting::LogKey, SettingProblem::NoLogKey(fault)))?;
    setting::check_log_key(config, &key)?;
    Ok(key)
}

/// The public half of it: from `path`, or `DIR/log.vkey`.
pub(super) fn verifier_key(dir: &Path, path: Option<&Path>) -> Result<VerifierKey, CliFailure> {
    let path = path.map_or_else(|| Layout(dir).verifier_key(), Path::to_owned);
    let text = super::files::read(&path)?;
    text.trim().parse().map_err(|source| CliFailure::VerifierKey { path, source })
}

impl Recorder {
    /// Reaches the broker that runs on `config`'s directory, or takes the lock itself.
    pub(super) fn open(config: &Config) -> Result<Self, CliFailure> {
        if let Some(client) = Client::connect(&config.dir)? {
            return Ok(Self::Broker(client));
        }
        let lock = Lock::acquire(&config.dir)?;
        let key = log_key(config)?;
        let segment_bytes = config.evidence.segment_bytes;
        let options = LogOptions {
            verifier: key.verifier().clone(),
            segment_bytes,
            tiles: config.evidence.tiles,
        };
        let disk = RealDisk::new(&config.evidence.directory);
        let (log, recovery) =
            Log::open(disk, options, &mut |_| {}).map_err(setting::of_log(config))?;
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| CliFailure::Randomness)?;
        Ok(Self::Alone(Box::new(Alone {
            _lock: lock,
            log,
            recovery,
            key,
            node: config.node.name.clone(),
            decisions: DecisionIds::new(u64::from_ne_bytes(seed), 0),
            batches: 0,
        })))
    }

    /// Records that `act` was done to `subject`; the index of the entry.
    pub(super) fn record(
        &mut self,
        act: &'static str,
        subject: &str,
        facts: &[(&'static str, String)],
    ) -> Result<u64, CliFailure> {
        match self {
            Self::Broker(client) => ask(client, act, subject, facts),
            Self::Alone(alone) => alone.append(act, subject, facts),
        }
    }

    /// Erasures that a crash left unfinished, where the log is ours alone.
    pub(super) fn unfinished_erasures(&mut self) -> Vec<Erasure> {
        match self {
            Self::Broker(_) => Vec::new(),
            Self::Alone(alone) => std::mem::take(&mut alone.recovery.unfinished_erasures),
        }
    }

    /// Signs what was recorded, if that is for us to do.
    pub(super) fn close(self) -> Result<(), CliFailure> {
        match self {
            Self::Broker(_) => Ok(()),
            Self::Alone(alone) => alone.close(),
        }
    }
}

fn ask(
    client: &mut Client,
    act: &str,
    subject: &str,
    facts: &[(&'static str, String)],
) -> Result<u64, CliFailure> {
    let facts = facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.clone())).collect();
    let (act, subject) = (act.to_owned(), subject.to_owned());
    let request = Request::Record(RecordRequest { act, subject, facts });
    let mut index = None;
    client.ask(&request, |line| {
        let answer: Value = serde_json::from_str(line)?;
        index = answer.get("index").and_then(Value::as_u64);
        Ok(())
    })?;
    index.ok_or(CliFailure::Answer)
}

impl Alone {
    fn append(
        &mut self,
        act: &'static str,
        subject: &str,
        facts: &[(&'static str, String)],
    ) -> Result<u64, CliFailure> {
        let index = self.log.next_index();
        let mut head = Vec::new();
        let (now, decision) = (super::unix_now(), self.decisions.issue());
        // The form of the entry is the running broker's (`broker::record`).
        let kind = EntryType::of_act(act);
        let mut entry = EntryWriter::begin(&mut head, kind, now, &self.node, &decision)
            .plain("act", act)
            .text("subject", subject);
        for (name, value) in facts {
            entry = entry.text(name, value);
        }
        entry.finish();
        let mut batch = Batch::default();
        batch.push(RecordKind::Entry, None, |out| out.extend_from_slice(&head));
        let id = BatchId { shard: 0, number: self.batches };
        self.batches += 1;
        self.log.append(&[(id, batch)])?;
        self.recovery.integrate(&head)?;
        Ok(index)
    }

    fn close(mut self) -> Result<(), CliFailure> {
        self.recovery.sign(&self.key)?;
        Ok(self.recovery.finish()?)
    }
}

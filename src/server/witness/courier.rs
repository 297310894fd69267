//! Brings each new checkpoint to the witnesses, and their cosignatures home.
//!
//! A thread of its own looks at the published checkpoint once an interval; no shard and no writer
//! waits for it. A witness that fails is asked again after a pause that doubles; one that holds
//! another tree raises an alarm, once, and is asked on. The invariant: what is published in
//! [`COSIGNED_FILE`] carries cosignatures that were verified, and a note that satisfies the policy
//! is never replaced by one that does not.
#![expect(clippy::disallowed_methods, reason = "paces the rounds, and asks at once")]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::board::WitnessBoard;
use super::http::post;
use super::url::SubmissionUrl;
use crate::evidence::tree::Hash;
use crate::evidence::verdict::{Verdict, WitnessAlarm, WitnessFailure};
use crate::evidence::witness::AddCheckpoint;
use crate::evidence::{Checkpoint, VerifierKey, WitnessPolicy, WitnessVerifierKey};
use crate::server::Clock;
use crate::storage::cosigned::{COSIGNED_FILE, publish_cosigned, read_cosigned};
use crate::storage::{ProveError, Reader, RealDisk, StorageFault, Until};
use crate::time::Instant;

/// Longest pause before a witness that failed is asked again.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How often a witness is asked within a round, each time from the size that it named.
const ASKS_PER_ROUND_MAX: u32 = 3;

/// A witness to ask.
#[derive(Clone, Debug)]
pub struct WitnessTarget {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: WitnessVerifierKey,
    /// Where it takes checkpoints.
    pub url: SubmissionUrl,
}

/// Hears of an alarm, and of which witness.
pub type Alarmed = Box<dyn Fn(&str, WitnessAlarm) + Send>;

/// What a courier is made of.
pub struct CourierOptions {
    /// The directory of the log.
    pub directory: PathBuf,
    /// The key of the log.
    pub verifier: VerifierKey,
    /// Which witnesses are enough.
    pub policy: WitnessPolicy,
    /// Those who are asked.
    pub targets: Vec<WitnessTarget>,
    /// TLS for those behind https.
    pub tls: Option<Arc<ClientConfig>>,
    /// Shortest time between two rounds.
    pub interval: Duration,
    /// Longest time for one answer.
    pub timeout: Duration,
    /// The process's clock.
    pub clock: Clock,
    /// Where the state of each witness is shown.
    pub board: WitnessBoard,
    /// Told once of each alarm, with the name of the witness.
    pub alarmed: Alarmed,
}

/// A courier that runs until dropped.
#[derive(Debug)]
pub struct Courier {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system refuses one.
    pub fn start(options: CourierOptions) -> io::Result<Self> {
        options.board.begin(options.targets.iter().map(|target| target.name.clone()));
        let (stop, stopped) = oneshot::channel();
        let runtime = crate::server::witness::runtime()?;
        let thread = std::thread::Builder::new().name("avow-courier".to_owned());
        let thread = thread.spawn(move || {
            let mut rounds = Rounds::new(options);
            runtime.block_on(async {
                let is_last_wanted = tokio::select! {
                    stopped = stopped => stopped.is_ok(),
                    () = rounds.run() => false,
                };
                if is_last_wanted {
                    let timeout = rounds.options.timeout;
                    // Whoever does not answer in time is asked at the next start.
                    let _ = tokio::time::timeout(timeout, rounds.round()).await;
                }
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Asks about the last checkpoint of a log that was stopped, for as long as one answer may
    /// take, and ends.
    pub fn finish(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the thread has ended.
            let _ = stop.send(());
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // Without a word: no last round, unless one was asked for.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It holds nothing that must be written: a panic in it was told on standard error.
            let _ = thread.join();
        }
    }
}

/// One witness, between two rounds.
struct Asked {
    target: WitnessTarget,
    /// The size that it is taken to know.
    known: u64,
    /// Since when it may be asked again, and how long the last pause was.
    pause: Option<(Instant, Duration)>,
}

struct Rounds {
    options: CourierOptions,
    disk: RealDisk,
    reader: Option<Reader<RealDisk>>,
    asked: Vec<Asked>,
    /// The note that is being cosigned, and the lines for it, by the name of the witness.
    note: String,
    lines: BTreeMap<String, String>,
    /// Whether what is published satisfies the policy.
    is_enough: bool,
    /// What was said last of the log itself, so that it is said once.
    trouble: Option<String>,
}

/// What a round cannot do anything about.
#[derive(Debug, thiserror::Error)]
enum RoundFault {
    #[error(transparent)]
    Storage(#[from] StorageFault),
    #[error(transparent)]
    Prove(#[from] ProveError),
}

impl Rounds {
    fn new(options: CourierOptions) -> Self {
        let disk = RealDisk::new(&options.directory);
        let targets = options.targets.clone().into_iter();
        let asked = targets.map(|target| Asked { target, known: 0, pause: None }).collect();
        let (note, lines) = (String::new(), BTreeMap::new());
        let mut rounds = Self {
            options,
            disk,
            reader: None,
            asked,
            note,
            lines,
            is_enough: false,
            trouble: None,
        };
        rounds.remember();
        rounds
    }

    /// Takes up what the run before this one has published.
    fn remember(&mut self) {
        let note = match read_cosigned(&self.disk) {
            Ok(Some(note)) => note,
            Ok(None) => return,
            Err(fault) => return tracing::warn!(%fault, "the cosigned checkpoint is not read"),
        };
        let opened = Checkpoint::open(&note, &self.options.verifier);
        let (Ok(checkpoint), Ok(judged)) = (opened, self.options.policy.judge(&note)) else {
            return tracing::warn!(file = COSIGNED_FILE, "not a cosigned checkpoint of this log");
        };
        self.is_enough = judged.is_enough;
        for (name, unix_seconds) in judged.cosigned {
            if let Some(asked) = self.asked.iter_mut().find(|asked| asked.target.name == name) {
                asked.known = checkpoint.tree_size;
            }
            self.options.board.change(&name, |row| {
                row.cosigned_entries = Some(checkpoint.tree_size);
                row.cosigned_unix_seconds = Some(unix_seconds);
            });
        }
    }

    async fn run(&mut self) {
        loop {
            match self.round().await {
                Ok(()) => self.trouble = None,
                Err(fault) => {
                    let text = fault.to_string();
                    if self.trouble.as_ref() != Some(&text) {
                        tracing::error!(%fault, "no witness is asked");
                        self.trouble = Some(text);
                    }
                }
            }
            tokio::time::sleep(self.options.interval).await;
        }
    }

    /// Asks every witness whose turn it is about the newest checkpoint.
    async fn round(&mut self) -> Result<(), RoundFault> {
        let Some((note, checkpoint)) = self.newest()? else { return Ok(()) };
        if note != self.note {
            self.lines.clear();
            self.note.clone_from(&note);
        }
        let now = self.options.clock.instant();
        let is_due = |asked: &Asked| {
            !self.lines.contains_key(&asked.target.name)
                && asked.pause.is_none_or(|(until, _)| until <= now)
        };
        let mut due: Vec<usize> =
            (0..).zip(&self.asked).filter(|(_, a)| is_due(a)).map(|(n, _)| n).collect();
        if due.is_empty() {
            return Ok(());
        }
        let had = self.lines.len();
        for ask in 1..=ASKS_PER_ROUND_MAX {
            let mut answers = JoinSet::new();
            for number in std::mem::take(&mut due) {
                let Some(asked) = self.asked.get(number) else { continue };
                // A witness that knows more than there is names its size, and that is an alarm.
                let old_size = if asked.known > checkpoint.tree_size { 0 } else { asked.known };
                let proof = self.consistency(old_size, &checkpoint)?;
                let sent = AddCheckpoint { old_size, proof, note: note.clone() };
                let (target, tls) = (asked.target.clone(), self.options.tls.clone());
                let (timeout, checkpoint) = (self.options.timeout, checkpoint.clone());
                answers.spawn(async move {
                    let answer = post(&target.url, tls.as_ref(), sent.to_string(), timeout).await;
                    let verdict = match answer {
                        Ok(answer) => Verdict::of(&answer, &sent, &checkpoint, &target.key),
                        Err(fault) => {
                            Verdict::Failed(WitnessFailure::Unreachable(fault.to_string()))
                        }
                    };
                    (number, verdict)
                });
            }
            while let Some(answered) = answers.join_next().await {
                // A task that panicked brings no verdict: its witness is asked in the next round.
                let Ok((number, verdict)) = answered else { continue };
                if self.hear(number, verdict, &checkpoint, ask) {
                    due.push(number);
                }
            }
        }
        if self.lines.len() > had { self.publish() } else { Ok(()) }
    }

    /// The newest checkpoint, as it was published.
    fn newest(&mut self) -> Result<Option<(String, Checkpoint)>, StorageFault> {
        let verifier = &self.options.verifier;
        match &mut self.reader {
            Some(reader) => reader.refresh(verifier)?,
            None => {
                let reader = Reader::open(self.disk.clone(), verifier, Until::Checkpoint)?;
                self.reader = Some(reader);
            }
        }
        let reader = self.reader.as_ref();
        Ok(reader
            .and_then(|reader| Some((reader.note()?.to_owned(), reader.checkpoint()?.clone()))))
    }

    /// The proof that `new` contains the tree of `old_size`, checked as the witness will.
    fn consistency(&self, old_size: u64, new: &Checkpoint) -> Result<Vec<Hash>, ProveError> {
        let reader = self.reader.as_ref().ok_or(ProveError::RootMismatch)?;
        let proof = reader.prove_consistency(old_size, new.tree_size)?;
        if proof.new_root == new.root_hash {
            Ok(proof.hashes)
        } else {
            Err(ProveError::RootMismatch)
        }
    }

    /// Takes note of a verdict; whether the witness is to be asked again at once.
    fn hear(&mut self, number: usize, verdict: Verdict, about: &Checkpoint, ask: u32) -> bool {
        let size = about.tree_size;
        let Some(asked) = self.asked.get_mut(number) else { return false };
        let name = asked.target.name.clone();
        let board = &self.options.board;
        match verdict {
            Verdict::Cosigned { line, unix_seconds } => {
                (asked.known, asked.pause) = (size, None);
                self.lines.insert(name.clone(), line);
                board.change(&name, |row| {
                    row.cosigned_entries = Some(size);
                    row.cosigned_unix_seconds = Some(unix_seconds);
                    row.cosignatures += 1;
                    if row.trouble.take().is_some() {
                        tracing::info!(witness = name, entries = size, "the witness cosigns again");
                    }
                    row.alarm = None;
                });
                return false;
            }
            Verdict::AskFrom(known) if ask < ASKS_PER_ROUND_MAX => {
                asked.known = known;
                return true;
            }
            Verdict::AskFrom(known) => {
                asked.known = known;
                Self::fail(board, &name, &WitnessFailure::BadSize);
            }
            Verdict::Failed(failure) => Self::fail(board, &name, &failure),
            Verdict::Alarm(alarm) => {
                let is_new = board.change(&name, |row| {
                    row.alarms += 1;
                    row.trouble = Some(alarm.to_string());
                    let before = row.alarm.replace(alarm);
                    before.is_none_or(|before| !before.is_same(&alarm))
                });
                if is_new == Some(true) {
                    tracing::error!(witness = name, %alarm, "ALARM of a witness");
                    (self.options.alarmed)(&name, alarm);
                }
            }
        }
        let pause =
            asked.pause.map_or(self.options.interval, |(_, last)| (last * 2).min(PAUSE_MAX));
        asked.pause = Some((self.options.clock.instant().after(pause), pause));
        false
    }

    fn fail(board: &WitnessBoard, name: &str, failure: &WitnessFailure) {
        let text = failure.to_string();
        board.change(name, |row| {
            row.failures += 1;
            // Once, not at every try.
            if row.trouble.as_ref() != Some(&text) {
                tracing::warn!(witness = name, %failure, "no cosignature");
            }
            row.trouble = Some(text);
        });
    }

    /// Publishes the note with the lines that it has, unless a better one stands there.
    fn publish(&mut self) -> Result<(), RoundFault> {
        let of_policy = self.options.policy.witnesses().iter();
        let lines = of_policy.filter_map(|witness| self.lines.get(&witness.name));
        let note = lines.fold(self.note.clone(), |note, line| note + line);
        // Every line was verified as it came.
        let is_enough = self.options.policy.judge(&note).is_ok_and(|judged| judged.is_enough);
        if is_enough || !self.is_enough {
            publish_cosigned(&self.disk, &note)?;
            self.is_enough = is_enough;
        }
        Ok(())
    }
}

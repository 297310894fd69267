//! C2SP tlog-policy: which logs are known, which witnesses, and how many of them must have
//! cosigned a checkpoint before it is believed.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <name>…
//! quorum <name>|none
//! ```
//!
//! It asks nobody: a note comes in, an answer goes out. The invariant: [`Witnessed::is_enough`]
//! holds only if the quorum's witnesses themselves signed that very text; a witness counts once,
//! whatever the groups say, because a key and a name can each stand in one place alone.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checkpoint::{Checkpoint, NoteError, VerifierKey};
use super::cosignature::WitnessVerifierKey;
use super::note::split;
use crate::source::{Problems, SourceErrors};

/// Most logs of a policy.
pub const POLICY_LOGS_MAX: usize = 32;
/// Most witnesses of a policy. With them a note stays below
/// [`super::checkpoint::SIGNATURES_MAX`] signature lines.
pub const POLICY_WITNESSES_MAX: usize = 32;
/// Most groups of a policy.
pub const POLICY_GROUPS_MAX: usize = 32;

/// A policy that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    /// Witnesses and groups in the order of the file: members stand before their groups.
    named: Vec<Named>,
    quorum: Option<usize>,
}

/// A log whose checkpoints are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key; the name of the key is its origin.
    pub key: VerifierKey,
    /// Where it can be read, in words of whoever wrote the policy.
    pub url: Option<String>,
}

/// A witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// What the policy calls it.
    pub name: String,
    /// Its key.
    pub key: WitnessVerifierKey,
    /// Where it takes checkpoints: its submission prefix.
    pub url: Option<String>,
}

/// What can witness a checkpoint, by its place in `named`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// One witness, by its place in `witnesses`.
    Witness(usize),
    /// At least so many of these.
    Group { threshold: usize, members: Vec<usize> },
}

/// What a note has of what a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Which witnesses cosigned it, by their names in the policy, and when, in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
    /// Which did not.
    pub missing: Vec<String>,
    /// Whether those who did are enough.
    pub is_enough: bool,
}

/// Why a note is not believed under a policy. That too few witnesses cosigned it is no error but
/// an answer: [`Witnessed::is_enough`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// No log of the policy has the origin of the checkpoint, or signed it.
    #[error("no log of the policy signed the checkpoint")]
    UnknownLog,
    /// A signature does not fit, or it is no note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// What can be wrong with a policy file, each with its fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum PolicyProblem {
    /// A line of no known kind.
    #[error("`{0}` is none of `log`, `witness`, `group`, `quorum`")]
    #[diagnostic(help(
        "a line is one of: log VKEY [URL]; witness NAME VKEY [URL]; group NAME all|any|K MEMBER…; \
         quorum NAME|none; or begins with #"
    ))]
    Keyword(String),
    /// Too few or too many words.
    #[error("`{keyword}` does not have the words that it needs")]
    #[diagnostic(help("write `{form}`"))]
    Words {
        /// The first word.
        keyword: &'static str,
        /// What the line looks like.
        form: &'static str,
    },
    /// A control character.
    #[error("a control character")]
    #[diagnostic(help(
        "between words stand spaces and tabs, and lines end with a line feed alone"
    ))]
    Control,
    /// The key of a log.
    #[error("this is not the verifier key of a log")]
    #[diagnostic(help("it stands in DIR/log.vkey: NAME+8 hex digits+base64, type Ed25519"))]
    LogKey,
    /// The key of a witness.
    #[error("this is not the verifier key of a witness")]
    #[diagnostic(help(
        "`avow witness init` prints it: NAME+8 hex digits+base64, of the type cosignature/v1; the \
         key of a log will not do"
    ))]
    WitnessKey,
    /// One key twice.
    #[error("this key stands in line {line} already")]
    #[diagnostic(help("a key counts once: remove one of the two lines"))]
    SameKey {
        /// The line of the first one.
        line: usize,
    },
    /// One name twice, or `none`.
    #[error("the name `{0}` is taken")]
    #[diagnostic(help(
        "witnesses and groups share their names, and `none` is nobody's: choose another"
    ))]
    SameName(String),
    /// A name that stands nowhere above.
    #[error("`{0}` is neither a witness nor a group of a line above")]
    #[diagnostic(help("define it above this line"))]
    UnknownName(String),
    /// A member of two groups, or twice of one.
    #[error("`{0}` is a member already")]
    #[diagnostic(help("each name may be a member once, so that nobody counts twice"))]
    MemberTwice(String),
    /// A threshold that the group cannot have.
    #[error("`{threshold}` is no threshold of a group of {members}")]
    #[diagnostic(help("write `all`, `any`, or a number from 1 to {members}"))]
    Threshold {
        /// What was written.
        threshold: String,
        /// Number of members.
        members: usize,
    },
    /// No quorum line.
    #[error("there is no `quorum` line")]
    #[diagnostic(help("end the file with `quorum NAME`, or `quorum none` to ask for no witness"))]
    NoQuorum,
    /// A second quorum line.
    #[error("a second `quorum` line")]
    #[diagnostic(help("remove one of the two"))]
    QuorumTwice,
    /// More lines of a kind than the bound.
    #[error("more than {max} lines `{keyword}`")]
    #[diagnostic(help("keep to {max}"))]
    TooMany {
        /// The first word.
        keyword: &'static str,
        /// The bound.
        max: usize,
    },
}

impl WitnessPolicy {
    /// Reads the text of a file called `file_name`.
    ///
    /// # Errors
    /// Every problem of the file, up to [`crate::source::PROBLEMS_MAX`].
    pub fn parse(file_name: &str, text: &str) -> Result<Self, SourceErrors<PolicyProblem>> {
        let mut reading = Reading::new(file_name, text);
        reading.lines(text);
        if reading.quorum.is_none() && reading.problems.is_empty() {
            reading.problems.push(0..0, PolicyProblem::NoQuorum);
        }
        reading.finish()
    }

    /// The logs that it knows. None: whoever asks knows the log from elsewhere.
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses that it knows, in the order of the file.
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Opens a signed note as the checkpoint of one of its logs.
    ///
    /// # Errors
    /// [`PolicyRefusal`] if none of them signed it.
    pub fn open(&self, note: &str) -> Result<(Checkpoint, &PolicyLog), PolicyRefusal> {
        for log in &self.logs {
            match Checkpoint::open(note, &log.key) {
                Err(NoteError::UnknownKey | NoteError::OtherOrigin) => {}
                opened => return Ok((opened?, log)),
            }
        }
        Err(PolicyRefusal::UnknownLog)
    }

    /// Which witnesses cosigned `note`, and whether they are enough. Who signed it as its log is
    /// not looked at.
    ///
    /// # Errors
    /// [`NoteError`] if it is no note, or a line of a known witness is false.
    pub fn judge(&self, note: &str) -> Result<Witnessed, NoteError> {
        split(note)?;
        let times: Vec<Option<u64>> = self
            .witnesses
            .iter()
            .map(|witness| witness.key.cosigned_at(note))
            .collect::<Result<_, _>>()?;
        let mut has_witnessed: Vec<bool> = Vec::with_capacity(self.named.len());
        for named in &self.named {
            let has = match named {
                Named::Witness(place) => times.get(*place).is_some_and(Option::is_some),
                Named::Group { threshold, members } => {
                    let is_in = |member: &&usize| has_witnessed.get(**member) == Some(&true);
                    members.iter().filter(is_in).count() >= *threshold
                }
            };
            has_witnessed.push(has);
        }
        let is_enough = self.quorum.is_none_or(|place| has_witnessed.get(place) == Some(&true));
        let (mut cosigned, mut missing) = (Vec::new(), Vec::new());
        for (witness, time) in self.witnesses.iter().zip(times) {
            match time {
                Some(time) => cosigned.push((witness.name.clone(), time)),
                None => missing.push(witness.name.clone()),
            }
        }
        Ok(Witnessed { cosigned, missing, is_enough })
    }
}

/// Reads a list of logs, `log <vkey>` lines alone: whom a witness serves.
///
/// # Errors
/// Every problem of the file.
pub fn parse_logs(
    file_name: &str,
    text: &str,
) -> Result<Vec<PolicyLog>, SourceErrors<PolicyProblem>> {
    let mut reading = Reading::new(file_name, text);
    reading.logs_only = true;
    reading.lines(text);
    reading.finish().map(|policy| policy.logs)
}

/// A policy in the making.
struct Reading {
    problems: Problems<PolicyProblem>,
    logs_only: bool,
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    named: Vec<Named>,
    /// Place in `named`, by name.
    names: BTreeMap<String, usize>,
    members: Vec<usize>,
    groups: usize,
    /// Public keys of logs and of witnesses, with the line that they stand in.
    log_keys: BTreeMap<String, usize>,
    witness_keys: BTreeMap<[u8; 32], usize>,
    quorum: Option<Option<usize>>,
}

/// One word, and where it is.
#[derive(Clone)]
struct Word<'t> {
    text: &'t str,
    at: Range<usize>,
}

impl Reading {
    fn new(file_name: &str, text: &str) -> Self {
        Self {
            problems: Problems::of(file_name, text),
            logs_only: false,
            logs: Vec::new(),
            witnesses: Vec::new(),
            named: Vec::new(),
            names: BTreeMap::new(),
            members: Vec::new(),
            groups: 0,
            log_keys: BTreeMap::new(),
            witness_keys: BTreeMap::new(),
            quorum: None,
        }
    }

    fn finish(self) -> Result<WitnessPolicy, SourceErrors<PolicyProblem>> {
        let Self { problems, logs, witnesses, named, quorum, .. } = self;
        problems.finish(WitnessPolicy { logs, witnesses, named, quorum: quorum.flatten() })
    }

    fn lines(&mut self, text: &str) {
        let mut start = 0;
        for line in text.split('\n') {
            if let Some(at) = line.find(|c: char| c.is_ascii_control() && c != '\t') {
                self.problems.push(start + at..start + at + 1, PolicyProblem::Control);
            }
            let words = words(line, start);
            if let Some((first, rest)) = words.split_first()
                && !first.text.starts_with('#')
            {
                self.line(first, rest);
            }
            start += line.len() + 1;
        }
    }

    fn line(&mut self, first: &Word<'_>, rest: &[Word<'_>]) {
        match (first.text, rest) {
            ("log", [key, url @ ..]) if url.len() <= 1 => self.log(key, url.first()),
            ("log", _) => self.words(first, "log", "log VKEY [URL]"),
            ("witness", [name, key, url @ ..]) if url.len() <= 1 && !self.logs_only => {
                self.witness(name, key, url.first());
            }
            ("group", [name, threshold, members @ ..])
                if !members.is_empty() && !self.logs_only =>
            {
                self.group(name, threshold, members);
            }
            ("quorum", [name]) if !self.logs_only => self.quorum(first, name),
            ("witness", _) if !self.logs_only => {
                self.words(first, "witness", "witness NAME VKEY [URL]");
            }
            ("group", _) if !self.logs_only => {
                self.words(first, "group", "group NAME all|any|K MEMBER…");
            }
            ("quorum", _) if !self.logs_only => self.words(first, "quorum", "quorum NAME|none"),
            (other, _) => {
                let other = other.chars().take(40).collect();
                self.problems.push(first.at.clone(), PolicyProblem::Keyword(other));
            }
        }
    }

    fn words(&mut self, first: &Word<'_>, keyword: &'static str, form: &'static str) {
        self.problems.push(first.at.clone(), PolicyProblem::Words { keyword, form });
    }

    fn log(&mut self, key: &Word<'_>, url: Option<&Word<'_>>) {
        let Ok(verifier) = key.text.parse::<VerifierKey>() else {
            return self.problems.push(key.at.clone(), PolicyProblem::LogKey);
        };
        // The key without its name: one key under two names is one log.
        let bare = key.text.rsplit('+').next().unwrap_or_default().to_owned();
        let line = self.problems.line(key.at.start);
        if let Some(line) = self.log_keys.insert(bare, line) {
            self.problems.push(key.at.clone(), PolicyProblem::SameKey { line });
        }
        if self.within(key, "log", self.logs.len(), POLICY_LOGS_MAX) {
            let url = url.map(|url| url.text.to_owned());
            self.logs.push(PolicyLog { key: verifier, url });
        }
    }

    fn witness(&mut self, name: &Word<'_>, key: &Word<'_>, url: Option<&Word<'_>>) {
        let Ok(verifier) = key.text.parse::<WitnessVerifierKey>() else {
            // The name counts as taken, so that lines below that use it bring up nothing new.
            self.define(name, Named::Witness(usize::MAX));
            return self.problems.push(key.at.clone(), PolicyProblem::WitnessKey);
        };
        let line = self.problems.line(key.at.start);
        if let Some(line) = self.witness_keys.insert(*verifier.public(), line) {
            self.problems.push(key.at.clone(), PolicyProblem::SameKey { line });
        }
        if self.within(name, "witness", self.witnesses.len(), POLICY_WITNESSES_MAX) {
            self.define(name, Named::Witness(self.witnesses.len()));
            let url = url.map(|url| url.text.to_owned());
            self.witnesses.push(PolicyWitness { name: name.text.to_owned(), key: verifier, url });
        }
    }

    fn group(&mut self, name: &Word<'_>, threshold: &Word<'_>, members: &[Word<'_>]) {
        let count = members.len();
        let wanted = match threshold.text {
            "all" => Some(count),
            "any" => Some(1),
            number => super::checkpoint::parse_decimal(number)
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| (1..=count).contains(number)),
        };
        if wanted.is_none() {
            let written = threshold.text.chars().take(40).collect();
            let problem = PolicyProblem::Threshold { threshold: written, members: count };
            self.problems.push(threshold.at.clone(), problem);
        }
        let places: Vec<usize> = members.iter().filter_map(|member| self.member(member)).collect();
        if self.within(name, "group", self.groups, POLICY_GROUPS_MAX) {
            self.groups += 1;
            // Where a member is unknown the file is refused anyway.
            let threshold = wanted.unwrap_or(count);
            self.define(name, Named::Group { threshold, members: places });
        }
    }

    fn member(&mut self, member: &Word<'_>) -> Option<usize> {
        let place = self.find(member)?;
        if self.members.contains(&place) {
            let name = member.text.to_owned();
            self.problems.push(member.at.clone(), PolicyProblem::MemberTwice(name));
        }
        self.members.push(place);
        Some(place)
    }

    fn quorum(&mut self, first: &Word<'_>, name: &Word<'_>) {
        if self.quorum.is_some() {
            return self.problems.push(first.at.clone(), PolicyProblem::QuorumTwice);
        }
        self.quorum = Some(if name.text == "none" { None } else { self.find(name) });
    }

    fn find(&mut self, name: &Word<'_>) -> Option<usize> {
        let place = self.names.get(name.text).copied();
        if place.is_none() {
            let unknown = PolicyProblem::UnknownName(name.text.to_owned());
            self.problems.push(name.at.clone(), unknown);
        }
        place
    }

    fn define(&mut self, name: &Word<'_>, named: Named) {
        let is_taken = name.text == "none" || self.names.contains_key(name.text);
        if is_taken {
            let taken = PolicyProblem::SameName(name.text.to_owned());
            return self.problems.push(name.at.clone(), taken);
        }
        self.names.insert(name.text.to_owned(), self.named.len());
        self.named.push(named);
    }

    /// Whether one more of a kind is within its bound.
    fn within(&mut self, at: &Word<'_>, keyword: &'static str, count: usize, max: usize) -> bool {
        if count >= max {
            self.problems.push(at.at.clone(), PolicyProblem::TooMany { keyword, max });
        }
        count < max
    }
}

/// The words of a line that begins at `start` of the file.
fn words(line: &str, start: usize) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = start;
    for text in line.split([' ', '\t']) {
        if !text.is_empty() {
            words.push(Word { text, at: at..at + text.len() });
        }
        at += text.len() + 1;
    }
    words
}

#[cfg(test)]
mod tests;

//! What a log makes of a witness's answer: a cosignature, another try, an alarm, or a failure.
//!
//! A table over the answers of tlog-witness, and nothing else: who waits how long is
//! [`crate::server::witness`]'s. The invariant: an alarm means that the witness holds another tree
//! than this log does, so that one of the two was rolled back or forked; a failure means nothing
//! about the log.

use super::checkpoint::{Checkpoint, NoteError};
use super::cosignature::WitnessVerifierKey;
use super::note::split;
use super::witness::{AddCheckpoint, parse_size_body};

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessAnswer {
    /// The status.
    pub status: u16,
    /// Whether its content type says that it names a size.
    pub names_size: bool,
    /// The body.
    pub body: String,
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The witness cosigned.
    Cosigned {
        /// The signature line, with its line end.
        line: String,
        /// When, in seconds since 1970.
        unix_seconds: u64,
    },
    /// It knows another size than it was asked from: ask again from there.
    AskFrom(u64),
    /// It holds another tree.
    Alarm(WitnessAlarm),
    /// It did not cosign, for a reason that says nothing about the tree.
    Failed(WitnessFailure),
}

/// A tree of this log that is not the one that we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessAlarm {
    /// A larger tree was cosigned than there is here.
    #[error(
        "the witness has cosigned {theirs} entries of this log, and there are {ours} here: the \
         log was rolled back, or somebody else signs with its key"
    )]
    RolledBack {
        /// Entries that the witness knows.
        theirs: u64,
        /// Entries under our checkpoint.
        ours: u64,
    },
    /// Another tree was cosigned.
    #[error(
        "the witness has cosigned another tree of {size} entries: the log was forked, or somebody \
         else signs with its key"
    )]
    Forked {
        /// The size at which the two differ.
        size: u64,
    },
}

impl WitnessAlarm {
    /// Whether it tells nothing new after `self`: the same tree of the witness, whatever was added
    /// here meanwhile.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RolledBack { theirs, .. }, Self::RolledBack { theirs: again, .. }) => {
                theirs == again
            }
            (Self::Forked { .. }, Self::Forked { .. }) => true,
            (Self::RolledBack { .. } | Self::Forked { .. }, _) => false,
        }
    }
}

/// Why there is no cosignature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessFailure {
    /// Nobody told the witness about this log.
    #[error("the witness does not know the origin of this log: give it the line of log.vkey")]
    UnknownLog,
    /// It knows the log by another key.
    #[error("the witness knows this log by another key: give it the line of log.vkey")]
    UnknownKey,
    /// It takes the request for none.
    #[error("the witness does not take the request")]
    BadRequest,
    /// It cannot, for now.
    #[error("the witness answers with HTTP status {0}")]
    Status(u16),
    /// It answers with something that is no cosignature of its key over this checkpoint.
    #[error("the answer holds no cosignature of the key that the policy names: {0}")]
    BadCosignature(NoteError),
    /// It contradicts itself.
    #[error("the witness contradicts itself about the size that it knows")]
    BadSize,
    /// It could not be reached, or not in time; the text is the shell's.
    #[error("{0}")]
    Unreachable(String),
}

impl Verdict {
    /// Reads the answer of the witness with this key to `sent`, which asked about `checkpoint`.
    pub fn of(
        answer: &WitnessAnswer,
        sent: &AddCheckpoint,
        checkpoint: &Checkpoint,
        key: &WitnessVerifierKey,
    ) -> Self {
        let (old, ours) = (sent.old_size, checkpoint.tree_size);
        match answer.status {
            200 => cosigned(answer, sent, key),
            409 if answer.names_size => match parse_size_body(&answer.body) {
                Some(theirs) if theirs > ours => {
                    Self::Alarm(WitnessAlarm::RolledBack { theirs, ours })
                }
                Some(theirs) if theirs != old => Self::AskFrom(theirs),
                // Some witnesses name the size also where the roots differ.
                Some(_) if old == ours => Self::Alarm(WitnessAlarm::Forked { size: ours }),
                Some(_) | None => Self::Failed(WitnessFailure::BadSize),
            },
            409 if old == ours => Self::Alarm(WitnessAlarm::Forked { size: ours }),
            409 => Self::Failed(WitnessFailure::BadSize),
            // The proof was checked before it was sent, so it is the trees that differ; from no tree
            // at all nothing can differ.
            422 if old > 0 => Self::Alarm(WitnessAlarm::Forked { size: old }),
            400 | 422 => Self::Failed(WitnessFailure::BadRequest),
            403 => Self::Failed(WitnessFailure::UnknownKey),
            404 => Self::Failed(WitnessFailure::UnknownLog),
            status => Self::Failed(WitnessFailure::Status(status)),
        }
    }
}

fn cosigned(answer: &WitnessAnswer, sent: &AddCheckpoint, key: &WitnessVerifierKey) -> Verdict {
    let text = split(&sent.note).map(|(text, _)| text);
    match text.and_then(|text| key.cosignature(text, &answer.body)) {
        Ok((line, unix_seconds)) => Verdict::Cosigned { line, unix_seconds },
        Err(error) => Verdict::Failed(WitnessFailure::BadCosignature(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{LogKey, WitnessKey};

    #[test]
    fn the_whole_table() {
        let log = LogKey::from_seed("plant.example/log", &[7; 32]).unwrap();
        let witness = WitnessKey::from_seed("w/1", &[8; 32]).unwrap();
        let checkpoint =
            Checkpoint { origin: "plant.example/log".into(), tree_size: 9, root_hash: [9; 32] };
        let text = checkpoint.to_string();
        let good = witness.cosign_text(&text, 7);
        let of_other = witness.cosign_text("other\n9\n", 7);
        let answers = [
            (200, false, good.as_str()),
            (200, false, of_other.as_str()),
            (200, false, ""),
            (409, true, "5\n"),
            (409, true, "9\n"),
            (409, true, "10\n"),
            (409, true, "0\n"),
            (409, true, "many\n"),
            (409, false, ""),
            (422, false, ""),
            (400, false, ""),
            (403, false, ""),
            (404, false, ""),
            (500, false, ""),
            (302, false, ""),
        ];
        let mut table = String::new();
        for old_size in [0, 5, 9] {
            let note = log.sign(&checkpoint);
            let sent = AddCheckpoint { old_size, proof: Vec::new(), note };
            for (status, names_size, body) in answers {
                let answer = WitnessAnswer { status, names_size, body: body.to_owned() };
                let verdict = Verdict::of(&answer, &sent, &checkpoint, witness.verifier());
                let shown = match verdict {
                    Verdict::Cosigned { line, unix_seconds } => {
                        assert_eq!(line, good);
                        format!("cosigned at {unix_seconds}")
                    }
                    other => format!("{other:?}"),
                };
                let size = if names_size { body.trim_end() } else { "" };
                table += &format!("from {old_size} of 9: {status} {size:4} => {shown}\n");
            }
        }
        insta::assert_snapshot!(table);
    }
}

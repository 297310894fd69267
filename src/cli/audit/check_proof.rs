//! `avow audit check-proof`: believes a proof, or says why not, from three files and no broker.
//!
//! It trusts the key or the policy that it is given and nothing that came with the proof, so both may
//! come from whoever must be convinced.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::print;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure, files};
use crate::evidence::witness_policy::Witnessed;
use crate::evidence::{Checkpoint, TlogProof, WitnessPolicy};
use crate::time::UnixNanos;

#[derive(Args, Debug)]
pub(in crate::cli) struct CheckProofArguments {
    /// The entry: entry.json of `audit prove --out`
    #[arg(value_name = "ENTRY")]
    entry: PathBuf,
    /// The proof: entry.tlog-proof
    #[arg(value_name = "PROOF")]
    proof: PathBuf,
    /// Verifier key of the log, which you have from elsewhere than the proof
    #[arg(long, value_name = "FILE", required_unless_present = "policy")]
    key: Option<PathBuf>,
    /// Policy (C2SP tlog-policy): whose log, and how many witnesses must have cosigned
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a proof cannot be checked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CheckProofFailure {
    /// The policy knows no log, and no key was given.
    #[error("{} has no `log` line, and no --key was given", .0.display())]
    #[diagnostic(help("give --key FILE, or write `log VKEY` into the policy"))]
    NoLog(PathBuf),
}

/// A policy in a file that was named on the command line.
pub(super) fn policy(path: &Path) -> Result<WitnessPolicy, CliFailure> {
    Ok(WitnessPolicy::parse(&path.display().to_string(), &files::read(path)?)?)
}

pub(super) fn run(dir: &Path, arguments: &CheckProofArguments) -> Result<Answer, CliFailure> {
    let entry = files::read_bytes(&arguments.entry)?;
    let text = files::read(&arguments.proof)?;
    let policy = arguments.policy.as_deref().map(|path| Ok::<_, CliFailure>((path, policy(path)?)));
    let policy = policy.transpose()?;
    let key = match (&arguments.key, &policy) {
        (Some(path), _) => Some(verifier_key(dir, Some(path))?),
        (None, Some((path, policy))) if policy.logs().is_empty() => {
            return Err(CheckProofFailure::NoLog((*path).to_owned()).into());
        }
        (None, _) => None,
    };
    let policy = policy.map(|(_, policy)| policy);
    let checked = check(&entry, &text, key.as_ref(), policy.as_ref());
    Ok(tell(checked, arguments.json))
}

/// What a proof proves.
#[derive(Debug)]
struct Proven {
    index: u64,
    checkpoint: Checkpoint,
    witnessed: Option<Witnessed>,
}

/// Checks everything; an error is why the proof is not believed.
fn check(
    entry: &[u8],
    text: &str,
    key: Option<&crate::evidence::VerifierKey>,
    policy: Option<&WitnessPolicy>,
) -> Result<Proven, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let proof: TlogProof = text.parse().map_err(|error| said(&error))?;
    let key = match (key, policy) {
        (Some(key), _) => key,
        (None, Some(policy)) => {
            &policy.open(&proof.checkpoint).map_err(|error| said(&error))?.1.key
        }
        (None, None) => return Err("nothing says whose log this is".to_owned()),
    };
    let checkpoint = proof.verify(entry, key).map_err(|error| said(&error))?;
    let witnessed = policy.map(|policy| policy.judge(&proof.checkpoint)).transpose();
    let witnessed = witnessed.map_err(|error| said(&error))?;
    if let Some(Witnessed { is_enough: false, missing, .. }) = &witnessed {
        return Err(format!(
            "too few witnesses have cosigned its checkpoint; missing: {}",
            missing.join(", ")
        ));
    }
    Ok(Proven { index: proof.index, checkpoint, witnessed })
}

fn tell(checked: Result<Proven, String>, as_json: bool) -> Answer {
    match checked {
        Ok(proven) => {
            let Checkpoint { origin, tree_size, .. } = &proven.checkpoint;
            let by = proven.witnessed.map(|witnessed| witnessed.cosigned).unwrap_or_default();
            if as_json {
                show::json(&json!({
                    "proven": true,
                    "origin": origin,
                    "index": proven.index,
                    "entries": tree_size,
                    "cosigned": by.iter().map(|(name, at)| json!({"by": name, "unix_seconds": at}))
                        .collect::<Vec<_>>(),
                }));
                return Answer::Yes;
            }
            let word = paint(Tone::Good, "proven");
            let index = proven.index;
            let mut lines =
                vec![format!("{word}: it is entry {index} of {origin}, of {tree_size} entries")];
            lines.extend(by.iter().map(|(name, at)| {
                let at = print::time(UnixNanos::from_seconds(*at).as_nanos());
                format!("cosigned by {} at {at}", show::escape(name))
            }));
            show::line(&lines.join("\n"));
            Answer::Yes
        }
        Err(why) => {
            if as_json {
                show::json(&json!({ "proven": false, "why": why }));
            } else {
                show::line(&format!("{}: {why}", paint(Tone::Bad, "not proven")));
            }
            Answer::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tree::{inclusion_proof, leaf_hash, root_of};
    use crate::evidence::{LogKey, WitnessKey};

    #[test]
    fn a_proof_is_believed_under_its_key_and_its_policy_alone() {
        let log = LogKey::from_seed("plant.example/log", &[7; 32]).unwrap();
        let other = LogKey::from_seed("plant.example/log", &[8; 32]).unwrap();
        let witness = WitnessKey::from_seed("w.example/1", &[9; 32]).unwrap();
        let leaves: Vec<_> = (0..5_u8).map(|entry| leaf_hash(&[entry])).collect();
        let (origin, root_hash) = ("plant.example/log".to_owned(), root_of(&leaves));
        let checkpoint = log.sign(&Checkpoint { origin, tree_size: 5, root_hash });
        let proof =
            TlogProof { index: 3, hashes: inclusion_proof(3, &leaves).unwrap(), checkpoint };
        let text = proof.to_string();
        let policy = |quorum: &str, log: &LogKey| {
            let text = format!(
                "log {}\nwitness w1 {}\nquorum {quorum}\n",
                log.verifier(),
                witness.verifier()
            );
            WitnessPolicy::parse("w.policy", &text).unwrap()
        };
        let why = |entry: &[u8], key: Option<&LogKey>, policy: Option<&WitnessPolicy>| {
            check(entry, &text, key.map(LogKey::verifier), policy).err()
        };
        assert_eq!(why(&[3], Some(&log), None), None);
        assert_eq!(why(&[3], None, Some(&policy("none", &log))), None);
        assert!(why(&[4], Some(&log), None).unwrap().contains("another root"));
        assert!(why(&[3], Some(&other), None).unwrap().contains("not signed by the expected key"));
        assert!(why(&[3], None, Some(&policy("none", &other))).unwrap().contains("no log"));
        let missing = why(&[3], None, Some(&policy("w1", &log))).unwrap();
        assert!(missing.contains("missing: w1"), "{missing}");
        assert!(check(&[3], "no proof", Some(log.verifier()), None).is_err());
    }
}

//! Whether enough witnesses have cosigned what `audit prove` hands out.
//!
//! With `[evidence.witness]` a proof is one under the cosigned checkpoint, and there is none while the
//! quorum of the policy is missing; `--unwitnessed` asks for one under the newest checkpoint alone.
#![expect(clippy::disallowed_methods, reason = "waits for witnesses")]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::CliFailure;
use crate::cli::record::verifier_key;
use crate::cli::witnesses::policy_of;
use crate::config::Config;
use crate::evidence::{Checkpoint, TlogProof, WitnessPolicy};
use crate::server::admin::Lock;
use crate::storage::RealDisk;
use crate::storage::cosigned::read_cosigned;

/// How often the cosigned checkpoint is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a proof needs.
pub(super) struct Witnessing {
    config: Config,
    policy: WitnessPolicy,
    wait_max: Duration,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error(
    "the witnesses have not cosigned entry {index} yet: {cosigned} entries are cosigned{}",
    missing_of(missing)
)]
#[diagnostic(help(
    "a running broker asks them; its metrics and lines say what they answer. `--unwitnessed` proves \
     under the log's own signature alone"
))]
pub struct NotWitnessed {
    /// The entry.
    pub index: u64,
    /// Entries under the cosigned checkpoint.
    pub cosigned: u64,
    /// Witnesses of the policy whose signatures it lacks, if they are too few.
    pub missing: Vec<String>,
}

fn missing_of(missing: &[String]) -> String {
    if missing.is_empty() { String::new() } else { format!(", not by {}", missing.join(", ")) }
}

/// The policy that proofs of the broker in `dir` must satisfy, if there is one.
pub(super) fn policy(dir: &Path, unwitnessed: bool) -> Result<Option<Witnessing>, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let Some(section) = config.evidence.witness.as_ref().filter(|_| !unwitnessed) else {
        return Ok(None);
    };
    let policy = policy_of(&config, section)?;
    // A checkpoint, the next round, an answer.
    let wait_max = config.evidence.checkpoint_interval + section.interval + section.timeout;
    Ok(Some(Witnessing { config, policy, wait_max }))
}

impl Witnessing {
    /// Whether `proof` is there and has enough cosignatures.
    pub(super) fn is_enough(&self, proof: Option<&str>) -> bool {
        let proof = proof.and_then(|proof| proof.parse::<TlogProof>().ok());
        let judged = proof.and_then(|proof| self.policy.judge(&proof.checkpoint).ok());
        judged.is_some_and(|judged| judged.is_enough)
    }

    /// Waits, as long as a running broker should need, until the cosigned checkpoint covers entry
    /// `index`. Nobody is asked meanwhile: each reading of the log would be one more entry in it.
    pub(super) fn wait_for(&self, dir: &Path, index: u64) -> Result<(), CliFailure> {
        let key = verifier_key(dir, None)?;
        let disk = RealDisk::new(&self.config.evidence.directory);
        let began = Instant::now();
        loop {
            let (mut cosigned, mut missing) = (0, Vec::new());
            if let Some(note) = read_cosigned(&disk)?
                && let (Ok(checkpoint), Ok(judged)) =
                    (Checkpoint::open(&note, &key), self.policy.judge(&note))
            {
                cosigned = checkpoint.tree_size;
                if judged.is_enough && index < cosigned {
                    return Ok(());
                }
                if !judged.is_enough {
                    missing = judged.missing;
                }
            }
            if began.elapsed() > self.wait_max || !Lock::is_held(dir)? {
                return Err(NotWitnessed { index, cosigned, missing }.into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

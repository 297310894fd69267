//! `avow audit consistency`: that the log only grew between two sizes.
//!
//! It reads the files itself, also beside a running broker, and no entry: what it prints are hashes.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::ConsistencyArguments;
use super::answer::{AnswerFault, open_reader};
use super::verify::older_checkpoint;
use crate::cli::plant::hex;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure, setting};

pub(super) fn run(dir: &Path, arguments: &ConsistencyArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier_key(dir, None)?;
    let reader = open_reader(&config.evidence.directory, &key).map_err(setting::of_log(&config))?;
    let from = arguments.from.as_deref().map(|path| older_checkpoint(path, &key)).transpose()?;
    let covered = reader.checkpoint().map_or(0, |signed| signed.tree_size);
    let old_size = from.as_ref().map(|from| from.tree_size).or(arguments.old).unwrap_or(0);
    let new_size = arguments.new.unwrap_or(covered);
    let proof = reader.prove_consistency(old_size, new_size).map_err(AnswerFault::Prove)?;
    if from.is_some_and(|from| from.root_hash != proof.old_root) {
        let why = format!("that checkpoint of {old_size} entries is no prefix of this log");
        if arguments.json {
            show::json(&json!({ "consistent": false, "damage": why }));
        } else {
            show::line(&format!("{}: {why}", paint(Tone::Bad, "not consistent")));
        }
        return Ok(Answer::No);
    }
    let hashes: Vec<String> = proof.hashes.iter().map(|hash| STANDARD.encode(hash)).collect();
    if arguments.json {
        show::json(&json!({
            "consistent": true,
            "old_size": proof.old_size,
            "old_root_hash": hex(&proof.old_root),
            "new_size": proof.new_size,
            "new_root_hash": hex(&proof.new_root),
            "proof": hashes,
        }));
    } else {
        let lines: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
        show::write_out(lines.as_bytes());
    }
    Ok(Answer::Yes)
}

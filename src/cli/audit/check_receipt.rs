//! `avow audit check-receipt F`: whether the log kept the promise of a receipt.
//!
//! It reads the files of the log as far as a checkpoint covers them, also beside a running broker, and
//! decides by the leaf alone: the receipt names index and leaf hash, the signed tree has one leaf there.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::files::read_bytes;
use crate::cli::plant::hex;
use crate::cli::receipt::verifier;
use crate::cli::record::verifier_key;
use crate::cli::show::{self, Tone, paint};
use crate::cli::{Answer, CliFailure, receipt, setting};
use crate::evidence::Receipt;
use crate::evidence::receipt::ReceiptError;
use crate::evidence::tree::leaf_hash;

#[derive(Args, Debug)]
pub(in crate::cli) struct CheckReceiptArguments {
    /// The receipt, as `avow pub --receipt` stored it
    file: PathBuf,
    /// Public half of the receipt key, PEM [default: DIR/certs/receipt.pub]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, arguments: &CheckReceiptArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier(dir, arguments.key.as_deref())?;
    let log_key = verifier_key(dir, None)?;
    let bytes = read_bytes(&arguments.file)?;
    let promised = match key.open(&bytes) {
        Ok(receipt) => receipt,
        Err(source @ (ReceiptError::OtherKey | ReceiptError::BadSignature)) => {
            return Ok(broken(arguments, None, &source.to_string()));
        }
        Err(source) => {
            let path = arguments.file.clone();
            return Err(receipt::ReceiptFailure::NotOne { path, source }.into());
        }
    };
    if promised.origin != log_key.name() {
        let why = format!("it is of the log {}, this is {}", promised.origin, log_key.name());
        return Ok(broken(arguments, Some(&promised), &why));
    }
    let reader = crate::cli::audit::answer::open_reader(&config.evidence.directory, &log_key)
        .map_err(setting::of_log(&config))?;
    let covered = reader.checkpoint().map_or(0, |signed| signed.tree_size);
    if promised.index >= covered {
        let interval = config.evidence.checkpoint_interval;
        let index = promised.index;
        return Err(receipt::ReceiptFailure::NotYet { index, covered, interval }.into());
    }
    let Some(entry) = reader.entry(promised.index)? else {
        let why = "a checkpoint covers it, and it is not there";
        return Ok(broken(arguments, Some(&promised), why));
    };
    let found = leaf_hash(&entry.json);
    if found != promised.leaf_hash {
        let why = format!("the log has the leaf {} there", hex(&found));
        return Ok(broken(arguments, Some(&promised), &why));
    }
    // The entry that was read is also the one that the checkpoint signs.
    let proof = reader.prove(promised.index).map_err(super::answer::AnswerFault::from)?;
    proof.verify(&entry.json, &log_key).map_err(super::answer::AnswerFault::from)?;
    kept(arguments, &promised);
    Ok(Answer::Yes)
}

fn kept(arguments: &CheckReceiptArguments, promised: &Receipt) {
    if arguments.json {
        return show::json(&json!({
            "kept": true,
            "origin": promised.origin,
            "index": promised.index,
            "leaf_hash": hex(&promised.leaf_hash),
            "level": promised.level,
        }));
    }
    show::line(&format!(
        "{}: {} has the leaf {} at index {} (level {})",
        paint(Tone::Good, "kept"),
        promised.origin,
        hex(&promised.leaf_hash),
        promised.index,
        promised.level
    ));
}

fn broken(arguments: &CheckReceiptArguments, promised: Option<&Receipt>, why: &str) -> Answer {
    if arguments.json {
        show::json(&json!({
            "kept": false,
            "index": promised.map(|promised| promised.index),
            "leaf_hash": promised.map(|promised| hex(&promised.leaf_hash)),
            "why": why,
        }));
        return Answer::No;
    }
    let what = promised.map_or_else(String::new, |promised| {
        format!(" the leaf {} at index {}:", hex(&promised.leaf_hash), promised.index)
    });
    show::line(&format!("{}:{what} {why}", paint(Tone::Bad, "not kept")));
    Answer::No
}

//! `avow audit timestamp`: asks for an RFC 3161 time-stamp over a checkpoint, and attaches the reply.
//!
//! The files are carried to the authority by whoever likes (`curl`, a USB stick): the broker's
//! machine needs no way out.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::print;
use super::stamps::{self, StampFailure, StampFiles, anchors, is_there};
use crate::cli::bundle::quote;
use crate::cli::files::{self, Access, create, create_dir};
use crate::cli::plant::{base64url, hex, sha256};
use crate::cli::record::{Recorder, verifier_key};
use crate::cli::show;
use crate::cli::{Answer, CliFailure};
use crate::evidence::timestamp::{NONCE_BYTES, Stamped, TimeStamp, request};
use crate::evidence::{Checkpoint, VerifierKey};
use crate::storage::cosigned::read_cosigned;
use crate::storage::{Reader, RealDisk, Until};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TimestampVerb {
    /// Write a request over the newest checkpoint, the cosigned one if there is one
    Request(RequestArguments),
    /// Verify an authority's reply, keep it beside the log, and record that
    Attach(AttachArguments),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RequestArguments {
    /// Write a copy of the request here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AttachArguments {
    /// The reply: a TimeStampResp or the token in it, in DER
    #[arg(value_name = "FILE")]
    reply: PathBuf,
    /// PEM of the CA that the authority's certificate must chain to
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &Path, verb: &TimestampVerb) -> Result<Answer, CliFailure> {
    match verb {
        TimestampVerb::Request(arguments) => ask(dir, arguments),
        TimestampVerb::Attach(arguments) => attach(dir, arguments),
    }
}

fn ask(dir: &Path, arguments: &RequestArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let log = &config.evidence.directory;
    let (note, checkpoint) = newest(log, &verifier_key(dir, None)?)?;
    let stamp = StampFiles::of(log, checkpoint.tree_size, &note);
    let path = stamp.request();
    if !is_there(&path)? {
        let mut nonce = [0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| CliFailure::Randomness)?;
        let query = request(note.as_bytes(), nonce)
            .map_err(|source| StampFailure::Stamp { path: path.clone(), source })?;
        create_dir(&stamps::directory(log))?;
        // A crash between the two leaves a note without a request: the next call makes it.
        if !is_there(&stamp.checkpoint())? {
            create(&stamp.checkpoint(), Access::Public, note.as_bytes())?;
        }
        create(&path, Access::Public, &query)?;
    }
    if let Some(out) = &arguments.out {
        create(out, Access::Public, &files::read_bytes(&path)?)?;
    }
    let entries = checkpoint.tree_size;
    if arguments.json {
        show::json(&json!({
            "entries": entries,
            "checkpoint": stamp.checkpoint(),
            "request": path,
        }));
        return Ok(Answer::Yes);
    }
    let shown = arguments.out.as_ref().unwrap_or(&path).display().to_string();
    show::line(&format!(
        "a request over the checkpoint of {entries} entries is in {shown}\n\nask        curl -sS -H \
         'Content-Type: application/timestamp-query' --data-binary @{} -o reply.tsr \
         https://YOUR-AUTHORITY\nattach it  avow audit timestamp attach reply.tsr --ca CA.pem",
        quote(&shown)
    ));
    Ok(Answer::Yes)
}

/// The newest checkpoint: that with cosignatures, if there is one.
fn newest(log: &Path, key: &VerifierKey) -> Result<(String, Checkpoint), CliFailure> {
    let disk = RealDisk::new(log);
    if let Some(note) = read_cosigned(&disk)? {
        let path = log.join(crate::storage::cosigned::COSIGNED_FILE);
        let opened = Checkpoint::open(&note, key);
        let checkpoint = opened.map_err(|source| StampFailure::Note { path, source })?;
        return Ok((note, checkpoint));
    }
    let reader = Reader::open(disk, key, Until::Checkpoint)?;
    let newest = reader.note().map(str::to_owned).zip(reader.checkpoint().cloned());
    Ok(newest.ok_or(StampFailure::NoCheckpoint)?)
}

fn attach(dir: &Path, arguments: &AttachArguments) -> Result<Answer, CliFailure> {
    let config = crate::cli::configuration(dir)?;
    let key = verifier_key(dir, None)?;
    let path = &arguments.reply;
    let failed = |source| StampFailure::Stamp { path: path.clone(), source };
    let reply = files::read_bytes(path)?;
    let stamp = TimeStamp::parse(&reply).map_err(failed)?;
    let mut asked = None;
    for files in stamps::all(&config.evidence.directory)? {
        let (note, checkpoint) = files.open(&key)?;
        if stamp.is_over(note.as_bytes()) {
            asked = Some((files, note, checkpoint));
            break;
        }
    }
    let (files, note, checkpoint) = asked.ok_or_else(|| StampFailure::Unasked(path.clone()))?;
    stamp.answers(&files::read_bytes(&files.request())?).map_err(failed)?;
    let anchors = anchors(&arguments.ca)?;
    let stamped = stamp.verify(note.as_bytes(), &anchors).map_err(failed)?;
    keep(&files, &reply, &arguments.ca)?;
    // A crash before the entry: the stamp stands there and verifies. Attaching it again records it.
    let authority = anchors.first().map(|anchor| base64url(sha256(anchor).as_ref()));
    let facts = [
        ("sha256", hex(sha256(&reply).as_ref())),
        ("serial", stamped.serial.clone()),
        ("x5t", authority.unwrap_or_default()),
        ("text", format!("RFC 3161: {}", describe(&stamped))),
    ];
    let mut recorder = Recorder::open(&config)?;
    let subject = format!("checkpoint/{}", checkpoint.tree_size);
    let index = recorder.record("checkpoint.anchor", &subject, &facts)?;
    recorder.close()?;
    if arguments.json {
        let mut shown = shown(&checkpoint, &stamped);
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("entry".to_owned(), index.into());
        }
        show::json(&shown);
    } else {
        show::line(&format!(
            "attached: the checkpoint of {} entries existed at {}; entry {index} says so",
            checkpoint.tree_size,
            describe(&stamped)
        ));
    }
    Ok(Answer::Yes)
}

/// Puts the reply and its CA beside the note. The same ones may be there already.
fn keep(stamp: &StampFiles, reply: &[u8], ca: &Path) -> Result<(), CliFailure> {
    let ca = files::read_bytes(ca)?;
    // The reply last: it counts once it is there, and then its CA is.
    for (path, content) in [(stamp.ca(), ca.as_slice()), (stamp.reply(), reply)] {
        if !is_there(&path)? || files::read_bytes(&path)? != content {
            create(&path, Access::Public, content)?;
        }
    }
    Ok(())
}

/// A stamp in words.
pub(super) fn describe(stamped: &Stamped) -> String {
    let time = print::time(stamped.time.as_nanos());
    let accuracy = stamped.accuracy.map_or_else(String::new, |accuracy| {
        format!(" \u{b1}{}", humantime::format_duration(accuracy))
    });
    format!("{time}{accuracy} by {}", show::escape(&stamped.authority))
}

/// A stamp as JSON.
pub(super) fn shown(checkpoint: &Checkpoint, stamped: &Stamped) -> serde_json::Value {
    json!({
        "entries": checkpoint.tree_size,
        "unix_nanos": stamped.time.as_nanos(),
        "accuracy_micros": stamped.accuracy.map(|accuracy| accuracy.as_micros() as u64),
        "authority": stamped.authority,
        "serial": stamped.serial,
        "policy": stamped.policy,
    })
}

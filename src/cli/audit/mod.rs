//! `avow audit`: verify, search, show and prove the log of evidence.
//!
//! `verify` trusts nothing but the files and the verifier key, so it always reads the files
//! itself, also beside a running broker. The others read what the newest checkpoint covers.

pub(super) mod answer;
mod bundle;
pub(super) mod check_proof;
mod check_receipt;
mod consistency;
mod cover;
pub(super) mod erase;
mod export;
mod filter;
mod fsck;
mod print;
mod read;
pub(super) mod stamps;
mod statement;
mod stats;
mod timeline;
mod timestamp;
mod verify;
mod vouched;
pub(super) mod witnessed;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use self::check_proof::CheckProofArguments;
use self::filter::FilterArguments;
use self::timestamp::TimestampVerb;
use super::privacy::who_is::{self, WhoIsArguments};
use super::{Answer, CliFailure};

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Derive the tree again from the bytes and check every checkpoint (exit 0 or 1)
    Verify(VerifyArguments),
    /// Show the newest entries, and those that come
    Tail(TailArguments),
    /// Search entries
    Query(QueryArguments),
    /// Show the life of one peer in order, its messages grouped
    Timeline(timeline::TimelineArguments),
    /// Count entries by type, peer, decision, reason, level and time
    Stats(stats::StatsArguments),
    /// Write entries into a file for other programs
    Export(Box<export::ExportArguments>),
    /// Show one entry, its place and its body
    Show(ShowArguments),
    /// Prove that one entry is in the signed log, for a checker that trusts nobody
    Prove(ProveArguments),
    /// Check a proof, and the cosignatures that a policy asks for (exit 0 or 1)
    CheckProof(CheckProofArguments),
    /// Prove that the log only grew between two sizes (exit 1: a kept checkpoint is no prefix)
    Consistency(ConsistencyArguments),
    /// Ask who stands behind a pseudonym, or what somebody's pseudonym is (exit 0 or 1)
    WhoIs(WhoIsArguments),
    /// Have an authority say when a checkpoint existed (RFC 3161)
    #[command(subcommand)]
    Timestamp(TimestampVerb),
    /// Compare the tiles with the segments; write them and the query index again (exit 0 or 1)
    Fsck(FsckArguments),
    /// Erase payloads and salts for good, and say so in the log (exit 1: there are none)
    Erase(erase::EraseArguments),
    /// Build the query index again from the log
    Reindex,
    /// Tell whether the log kept the promise of a receipt (exit 0, 1; 2 if nothing signed says so yet)
    CheckReceipt(check_receipt::CheckReceiptArguments),
    /// Write everything that a dispute about one entry needs, to be checked without us
    Bundle(bundle::BundleArguments),
    /// Make the key that signs receipts, where there is none yet
    ReceiptKey,
}

#[derive(Args, Debug)]
pub(super) struct VerifyArguments {
    /// Verifier key that the checkpoints must be signed with [default: DIR/log.vkey]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// PEM of the CA of time-stamps [default: the one that each was attached with]
    #[arg(long, value_name = "FILE")]
    tsa_ca: Option<PathBuf>,
    /// Verify the public form of the log alone: checkpoint, tiles and entry bundles
    #[arg(long)]
    tiles: bool,
    /// That form in another directory, a copy for example: nothing else is read, no avow.toml
    #[arg(long, value_name = "PATH", requires = "key")]
    directory: Option<PathBuf>,
    /// A checkpoint of this log that you kept: it must be a prefix
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct FsckArguments {
    /// Write what is missing or differs, and build the query index again; no broker may run
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ConsistencyArguments {
    /// Entries of the older tree
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    old: Option<u64>,
    /// Entries of the newer tree [default: those that the newest checkpoint covers]
    new: Option<u64>,
    /// Take the older tree from a checkpoint that you kept
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TailArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Wait for more
    #[arg(short, long)]
    follow: bool,
    /// How many to begin with; with --after and -f, all that came since
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=10_000))]
    lines: u64,
    /// Print the entries as they are: one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct QueryArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Which come first [default: the newest N, the newest last; with --after the oldest]
    #[arg(long, value_enum)]
    order: Option<OrderArgument>,
    /// Print the entries as they are: one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderArgument {
    Newest,
    Oldest,
}

#[derive(Args, Debug)]
pub(super) struct ShowArguments {
    /// Index of the entry
    index: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct ProveArguments {
    /// Index of the entry
    index: u64,
    /// Write entry.json, entry.tlog-proof and log.vkey into this directory instead
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Prove under the newest checkpoint, whoever has cosigned it
    #[arg(long)]
    unwitnessed: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "out")]
    json: bool,
}

/// One entry as a line for people.
#[cfg(feature = "demo")]
pub(super) fn describe(index: u64, json: &[u8]) -> String {
    print::line(index, json)
}

pub(super) fn run(dir: &Path, verb: &AuditVerb) -> Result<Answer, CliFailure> {
    match verb {
        AuditVerb::Verify(arguments) => verify::run(dir, arguments),
        AuditVerb::Tail(arguments) => read::tail(dir, arguments),
        AuditVerb::Query(arguments) => read::query(dir, arguments),
        AuditVerb::Timeline(arguments) => timeline::run(dir, arguments),
        AuditVerb::Stats(arguments) => stats::run(dir, arguments),
        AuditVerb::Export(arguments) => export::run(dir, arguments),
        AuditVerb::Show(arguments) => read::show_entry(dir, arguments),
        AuditVerb::Prove(arguments) => read::prove(dir, arguments),
        AuditVerb::CheckProof(arguments) => check_proof::run(dir, arguments),
        AuditVerb::Consistency(arguments) => consistency::run(dir, arguments),
        AuditVerb::WhoIs(arguments) => who_is::run(dir, arguments),
        AuditVerb::Timestamp(verb) => timestamp::run(dir, verb),
        AuditVerb::Fsck(arguments) => fsck::run(dir, arguments),
        AuditVerb::Erase(arguments) => erase::run(dir, arguments),
        AuditVerb::Reindex => read::reindex(dir),
        AuditVerb::CheckReceipt(arguments) => check_receipt::run(dir, arguments),
        AuditVerb::Bundle(arguments) => bundle::run(dir, arguments),
        AuditVerb::ReceiptKey => super::receipt::make(dir),
    }
}

//! `avow audit`: verify, search, show and prove the log of evidence.
//!
//! `verify` trusts nothing but the files and the verifier key, so it always reads the files
//! itself, also beside a running broker. The others read what the newest checkpoint covers.

pub(super) mod answer;
mod print;
mod read;
mod verify;

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::privacy::who_is::{self, WhoIsArguments};
use super::{Answer, CliFailure};
use crate::evidence::EntryType;
use crate::identity::name::check_name;
use crate::identity::{NameError, Role};

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// Derive the tree again from the bytes and check every checkpoint (exit 0 or 1)
    Verify(VerifyArguments),
    /// Show the newest entries
    Tail(TailArguments),
    /// Search entries
    Query(QueryArguments),
    /// Show one entry, its place and its body
    Show(ShowArguments),
    /// Prove that one entry is in the signed log, for a checker that trusts nobody
    Prove(ProveArguments),
    /// Ask who stands behind a pseudonym, or what somebody's pseudonym is (exit 0 or 1)
    WhoIs(WhoIsArguments),
    /// Build the query index again from the log
    Reindex,
}

#[derive(Args, Debug)]
pub(super) struct VerifyArguments {
    /// Verifier key that the checkpoints must be signed with [default: DIR/log.vkey]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct TailArguments {
    /// Wait for more
    #[arg(short, long)]
    follow: bool,
    /// How many
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    lines: u64,
    /// Print the entries as they are: one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct QueryArguments {
    /// Only this device
    #[arg(long, value_name = "NAME", value_parser = name)]
    device: Option<String>,
    /// Only this peer, as role/name
    #[arg(long, value_name = "ROLE/NAME", conflicts_with = "device", value_parser = who)]
    who: Option<String>,
    /// Only topics that match this Topic Filter
    #[arg(long, value_name = "FILTER")]
    topic: Option<String>,
    /// Only this type of entry
    #[arg(long = "type", value_name = "TYPE",
        value_parser = PossibleValuesParser::new(EntryType::ALL.map(EntryType::as_str)))]
    kind: Option<String>,
    /// Only what was allowed, or denied
    #[arg(long, value_enum)]
    decision: Option<DecisionArgument>,
    /// Not before: a time (2026-11-22T10:00:00Z) or an age (10m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before: likewise
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 100, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Print the entries as they are: one JSON object per line
    #[arg(long)]
    json: bool,
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
    /// Print JSON
    #[arg(long, conflicts_with = "out")]
    json: bool,
}

/// A name that a certificate can have.
fn name(text: &str) -> Result<String, NameError> {
    check_name(text).map(|()| text.to_owned())
}

/// `role/name`, as entries have it.
fn who(text: &str) -> Result<String, String> {
    let roles = Role::ALL.map(Role::as_str).join(", ");
    let Some((role, peer)) = text.split_once('/') else {
        return Err(format!("write ROLE/NAME, for example device/press-7; roles are {roles}"));
    };
    if Role::parse(role).is_none() {
        return Err(format!("`{role}` is not a role; roles are {roles}"));
    }
    name(peer).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecisionArgument {
    Allow,
    Deny,
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
        AuditVerb::Show(arguments) => read::show_entry(dir, arguments),
        AuditVerb::Prove(arguments) => read::prove(dir, arguments),
        AuditVerb::WhoIs(arguments) => who_is::run(dir, arguments),
        AuditVerb::Reindex => read::reindex(dir),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn a_search_for_what_no_entry_has_is_a_usage_error_that_lists_what_there_is() {
        let said = |arguments: &str| {
            let line = format!("avow audit query {arguments}");
            let error = Cli::try_parse_from(line.split(' ')).err()?;
            assert_eq!(error.exit_code(), 2);
            Some(error.to_string())
        };
        assert!(said("--type nonsense").unwrap().contains("publish.refused"));
        for who in ["press-7", "devices/press-7", "device/", "device/a/b", "device/*"] {
            assert!(said(&format!("--who {who}")).is_some(), "{who}");
        }
        assert!(said("--who press-7").unwrap().contains("device/press-7"));
        assert!(said("--device a/b").is_some());
        assert_eq!(said("--type will --who operator/x"), None);
        assert_eq!(said("--type publish.dup --device press-7"), None);
    }
}

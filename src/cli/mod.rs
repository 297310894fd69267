//! The command line: arguments to a verb, a verb to an exit code.
//!
//! One file per verb; what they print goes through [`show`]. Errors are typed here and rendered
//! once, by `main`. Nothing is ever asked interactively. Exit codes: 0 yes, 1 no (denied,
//! refused, tampered), 2 it could not be done as asked (usage, bad files).

mod add;
mod audit;
mod bundle;
mod check;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod failure;
mod files;
mod init;
mod plant;
mod policy;
mod privacy;
mod receipt;
mod record;
mod serve;
mod setting;
pub mod show;
mod token;
mod witness;
mod witnesses;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use failure::{CliFailure, report};

use crate::config::{self, Config};
use crate::identity::Role;
use crate::time::UnixNanos;

/// An MQTT broker whose devices cannot disavow what they sent.
#[derive(Debug, Parser)]
#[command(name = "avow", version, max_term_width = 100)]
pub struct Cli {
    /// Directory of the broker [default: $AVOW_DIR, or the current directory]
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the directory of a new broker: CA, keys, configuration, policy, first clients
    Init(init::InitArguments),
    /// Serve until SIGINT or SIGTERM
    Serve(serve::ServeArguments),
    /// Give a device a certificate
    #[command(subcommand)]
    Device(add::Registry),
    /// Give a dashboard a certificate
    #[command(subcommand)]
    Dashboard(add::Registry),
    /// Give an operator a certificate
    #[command(subcommand)]
    Operator(add::Registry),
    /// Give an auditor a certificate
    #[command(subcommand)]
    Auditor(add::Registry),
    /// Issue a token for a dashboard, or explain one
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Ask the policy
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Check avow.toml and the files that it names
    #[command(subcommand)]
    Config(check::ConfigVerb),
    /// Verify, search and show the log of evidence
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Be a witness of logs: cosign checkpoints, and refuse forks
    #[command(subcommand)]
    Witness(witness::WitnessVerb),
    /// Publish, with mosquitto_pub's short flags
    Pub(Box<client::PublishArguments>),
    /// Subscribe, with mosquitto_sub's short flags
    Sub(Box<client::SubscribeArguments>),
}

/// What a verb that succeeded has to say by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, done, whole: 0.
    Yes,
    /// No, denied, tampered: 1.
    No,
}

impl Answer {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
        }
    }
}

impl Cli {
    /// Runs the verb.
    ///
    /// # Errors
    /// See [`CliFailure`], which knows its exit code.
    pub fn run(self) -> Result<Answer, CliFailure> {
        let named = self.dir.or_else(|| std::env::var_os("AVOW_DIR").map(PathBuf::from));
        let dir = named.unwrap_or_else(|| PathBuf::from("."));
        match self.verb {
            Verb::Init(arguments) => init::run(&arguments).map(|()| Answer::Yes),
            Verb::Serve(arguments) => serve::run(&dir, &arguments),
            Verb::Device(verb) => add::run(&dir, Role::Device, &verb).map(|()| Answer::Yes),
            Verb::Auditor(verb) => add::run(&dir, Role::Auditor, &verb).map(|()| Answer::Yes),
            Verb::Dashboard(verb) => add::run(&dir, Role::Dashboard, &verb).map(|()| Answer::Yes),
            Verb::Operator(verb) => add::run(&dir, Role::Operator, &verb).map(|()| Answer::Yes),
            Verb::Token(verb) => token::run(&dir, &verb),
            Verb::Policy(verb) => policy::run(&dir, &verb),
            Verb::Config(verb) => check::run(&dir, &verb),
            Verb::Audit(verb) => audit::run(&dir, &verb),
            Verb::Witness(verb) => witness::run(&verb),
            Verb::Pub(arguments) => Ok(client::publish(&arguments).map(|()| Answer::Yes)?),
            Verb::Sub(arguments) => Ok(client::subscribe(&arguments).map(|()| Answer::Yes)?),
        }
    }
}

/// The configuration of the broker in `dir`.
fn configuration(dir: &std::path::Path) -> Result<Config, CliFailure> {
    Ok(config::load(dir)?)
}

/// A runtime for one thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Wall-clock time.
#[expect(clippy::disallowed_methods, reason = "the command line's one look at the clock")]
fn unix_now() -> UnixNanos {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    UnixNanos::new(nanos)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mosquittos_short_flags_mean_the_same_here() {
        let line = "avow pub -h plant -p 1883 -t a/b -m -5 -q 1 -r -i me -V mqttv311 -u n -P p \
                    --cafile a --cert b --key c -k 30 -c -x 60";
        let parsed = Cli::try_parse_from(line.split(' ').filter(|word| !word.is_empty()));
        assert!(parsed.is_ok(), "{:?}", parsed.err());
        let line = "avow sub -h plant -t a/# -t b -v -C 3 -W 5 -q 2 -V 311 --connect c.json";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        // One source of messages, no more and no less.
        assert!(Cli::try_parse_from("avow pub -t a -m x -n".split(' ')).is_err());
        assert!(Cli::try_parse_from("avow pub -t a".split(' ')).is_err());
        assert!(Cli::try_parse_from("avow pub -t a -m x -q 3".split(' ')).is_err());
    }
}

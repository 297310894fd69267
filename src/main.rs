//! Arguments, then a verb, then an exit code.

use std::process::ExitCode;

use clap::Parser as _;

use avow::cli::{Cli, report};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(answer) => ExitCode::from(answer.code()),
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

//! Arguments, then a verb, then an exit code.

use std::process::ExitCode;

use clap::Parser as _;

use avow::cli::{Cli, report};
use mimalloc::MiMalloc;

/// A message takes some dozens of short-lived blocks (`docs/BENCHMARKS.md` has the ratio).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(answer) => ExitCode::from(answer.code()),
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

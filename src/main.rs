//! Arguments, then a verb, then an exit code.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use miette::{GraphicalReportHandler, GraphicalTheme};

use avow::cli::{Cli, CliFailure};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(answer) => ExitCode::from(answer.code()),
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Colours only for a terminal, and only if NO_COLOR is not set.
fn report(failure: &CliFailure) {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !is_plain;
    let theme =
        if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    match handler.render_report(&mut text, failure) {
        Ok(()) => eprint!("{text}"),
        Err(_) => eprintln!("{failure}"),
    }
}

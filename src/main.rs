//! The `walcast` program: arguments, exit code; nothing else.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use walcast::cli::{self, Arguments};
use walcast::logging;

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::from(error.code())
        }
    }
}

/// Prints an error and what caused it.
#[expect(clippy::print_stderr, reason = "this is where a command's errors are shown")]
fn report(error: &dyn Error) {
    // systemd takes this from a line and lets the journal know that it is an error.
    let level = if logging::is_journal() { "<3>" } else { "" };
    eprintln!("{level}walcast: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("{level}  because: {error}");
        cause = error.source();
    }
}

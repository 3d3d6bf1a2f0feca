//! The `walcast` program: arguments, exit code; nothing else.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use walcast::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error and what caused it.
#[expect(clippy::print_stderr, reason = "this is where a command's errors are shown")]
fn report(error: &dyn Error) {
    eprintln!("walcast: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

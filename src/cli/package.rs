//! `walcast completions` and `walcast man`: what a package puts beside the program, made by the
//! program itself, so that it says what the program does.

use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::cli::Arguments;
use crate::cli::CliError;

/// Prints what a shell completes the command line by
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast completions bash > /usr/share/bash-completion/completions/walcast\n  \
    walcast completions zsh > /usr/share/zsh/vendor-completions/_walcast\n  \
    walcast completions fish > /usr/share/fish/vendor_completions.d/walcast.fish")]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "walcast", &mut script);
        print(&script)
    }
}

/// Prints the manual page, or writes one for each command into a folder
#[derive(Debug, Args)]
pub struct Man {
    /// A folder that is there
    folder: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let command = Arguments::command();
        if let Some(folder) = self.folder {
            clap_mangen::generate_to(command, folder).map_err(CliError::Output)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut page = Vec::new();
        Page::new(command).render(&mut page).map_err(CliError::Output)?;
        print(&page)
    }
}

fn print(text: &[u8]) -> Result<ExitCode, CliError> {
    io::stdout().write_all(text).map_err(CliError::Output)?;
    Ok(ExitCode::SUCCESS)
}

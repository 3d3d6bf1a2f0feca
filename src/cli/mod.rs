//! The commands of the `walcast` program, one file per command.

pub mod check;
pub mod config;
pub mod demo;
pub mod explain;
pub mod package;
pub mod serve;
pub mod setup;
pub mod tail;
pub mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Layers};
use crate::daemon::DaemonError;
use crate::logging;

/// Where the configuration is when nobody says where it is.
const CONFIG_FILE: &str = "/etc/walcast/walcast.toml";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "walcast",
    version,
    about = "Pushes every committed row change of a Postgres database to the clients that asked \
             for it and may see it",
    arg_required_else_help = true,
    propagate_version = true,
    after_help = "Examples:\n  \
                  walcast demo                  see it work, on a Postgres of its own\n  \
                  walcast setup --tables orders what a DBA applies, printed or run\n  \
                  walcast check --online        is the configuration right, and the database?\n  \
                  walcast serve                 deliver changes until stopped\n  \
                  walcast tail orders           watch a table in the terminal\n\n\
                  Exit codes: 0 done, 1 an error, 2 wrong arguments (check: warnings)."
)]
pub struct Arguments {
    /// What is logged on stderr: error, warn, info, debug, or per module (`info,walcast::ingest=debug`)
    /// [default: info, or the configuration's log.level]
    #[arg(long, global = true, value_name = "LEVEL", env = "WALCAST_LOG")]
    log: Option<String>,

    /// How the log looks
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "WALCAST_LOG_FORMAT",
        default_value = "auto"
    )]
    log_format: logging::Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Setup(setup::Setup),
    Check(check::Check),
    Config(config::ConfigCommand),
    Demo(demo::Demo),
    Explain(explain::Explain),
    Tail(tail::Tail),
    Token(token::Token),
    #[command(hide = true)]
    Completions(package::Completions),
    #[command(hide = true)]
    Man(package::Man),
}

/// Where the configuration is.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArguments {
    /// The configuration file [default: /etc/walcast/walcast.toml, where it exists]
    #[arg(long, short, value_name = "FILE", env = "WALCAST_CONFIG")]
    config: Option<PathBuf>,

    /// Overrides one key of it, as in --set window.seconds=30; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,

    /// Lets keys pass that do not exist, with a warning
    #[arg(long)]
    allow_unknown: bool,
}

impl ConfigArguments {
    /// Whether the user named a configuration.
    fn is_given(&self) -> bool {
        self.config.is_some() || !self.set.is_empty()
    }

    /// Reads the configuration: file, environment, and what was overridden.
    fn load(&self) -> Result<Config, ConfigError> {
        let usual = PathBuf::from(CONFIG_FILE);
        let file = self.config.clone().or_else(|| usual.exists().then_some(usual));
        let layers = Layers::of_process(file, self.set.clone());
        Config::load(&Layers { allow_unknown: self.allow_unknown, ..layers })
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// There is no good configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The same for `check`, whose exit code says what it found.
    #[error(transparent)]
    Unchecked(ConfigError),
    /// It can't be logged as asked for.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// Traces can't be sent.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Traces(#[from] crate::trace::export::ExportError),
    /// The daemon stopped by itself.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The demo ended.
    #[error(transparent)]
    Demo(#[from] demo::DemoError),
    /// Nothing could be explained.
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
    /// Nothing was set up.
    #[error(transparent)]
    Setup(#[from] setup::SetupError),
    /// Following a table ended.
    #[error(transparent)]
    Tail(#[from] tail::TailError),
    /// No token was made.
    #[error(transparent)]
    Token(#[from] token::TokenCommandError),
    /// The runtime or a signal handler did not start.
    #[error("the process could not be set up")]
    Process(#[source] std::io::Error),
    /// What was to be printed could not be.
    #[error("standard output cannot be written")]
    Output(#[source] std::io::Error),
}

/// The exit code of a configuration that is no good: `EX_CONFIG` of sysexits.h. Another try brings
/// the same, so the systemd unit does not start walcast again after it. (`tests/units.rs`.)
pub const EXIT_CONFIGURATION: u8 = 78;

impl CliError {
    /// The exit code: [`EXIT_CONFIGURATION`], or 1.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            CliError::Config(_)
            | CliError::Logging(_)
            | CliError::Daemon(
                DaemonError::Settings(_) | DaemonError::Auth(_) | DaemonError::Certificate(_),
            ) => EXIT_CONFIGURATION,
            _ => 1,
        }
    }
}

/// Does what the command line says; gives the exit code.
///
/// # Errors
///
/// [`CliError`], for `main` to print with its causes.
pub fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    logging::start(arguments.log.as_deref().unwrap_or("info"), arguments.log_format)?;
    match arguments.command {
        Command::Serve(serve) => serve.run(arguments.log),
        Command::Setup(setup) => setup.run(),
        Command::Check(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Demo(demo) => demo.run(),
        Command::Explain(explain) => explain.run(),
        Command::Tail(tail) => tail.run(),
        Command::Token(token) => token.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

//! `walcast serve`: the daemon, until it is told to stop.

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{CliError, ConfigArguments};
use crate::daemon;
use crate::daemon::Signal;
use crate::inherit;
use crate::logging;
#[cfg(feature = "otlp")]
use crate::trace::export;

/// Delivers changes until stopped (SIGTERM, or Ctrl-C)
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast serve --config walcast.toml\n  \
    walcast serve --set listen.address=0.0.0.0:4480 --log debug\n  \
    WALCAST__DATABASE__URL=postgres://walcast@db/app walcast serve\n\n\
    docs/configuration.md has every key; `walcast check` says what is wrong with them.")]
pub struct Serve {
    #[command(flatten)]
    config: ConfigArguments,
}

impl Serve {
    /// Runs it; `log` is what the command line says is logged.
    pub(super) fn run(mut self, log: Option<String>) -> Result<ExitCode, CliError> {
        // As any other key that is given there, so that a reload leaves it alone.
        self.config.set.extend(log.map(|levels| format!("log.level={levels}")));
        inherit::prepare();
        let config = self.config.load()?;
        // Sent to its end when this function ends.
        #[cfg(feature = "otlp")]
        let _traces = config.otlp.as_ref().map(export::start).transpose()?;
        logging::change(&config.log)?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Process)?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Process)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Process)?;
            let mut hangup = signal(SignalKind::hangup()).map_err(CliError::Process)?;
            let signals = async || {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                    _ = hangup.recv() => {
                        tracing::info!(signal = "SIGHUP", "asked to reload");
                        return Signal::Reload;
                    }
                };
                tracing::info!(signal = name, "asked to stop");
                Signal::Stop
            };
            daemon::run(config, signals).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

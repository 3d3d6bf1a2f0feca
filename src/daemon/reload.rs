//! Reading the configuration again while the daemon runs.

use crate::config::Config;
use crate::config::ConfigError;
use crate::control::ControlError;
use crate::control::Reloaded;

/// Reads the configuration again from where `old` was read, and says what is different.
pub(super) fn read(old: &Config) -> Result<(Config, Reloaded), ControlError> {
    match Config::load(&old.layers) {
        Ok(new) => {
            let mut changes = old.values.changes(&new.values);
            for change in &mut changes {
                change.applied = false;
            }
            let warnings = new.warnings.clone();
            Ok((new, Reloaded { changes, warnings }))
        }
        Err(ConfigError::Mistakes(mistakes)) => {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            tracing::error!(?mistakes, "the configuration was not reloaded");
            Err(ControlError::Refused { mistakes })
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            let mistake = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            tracing::error!(mistake, "the configuration was not reloaded");
            Err(ControlError::Refused { mistakes: vec![mistake] })
        }
    }
}

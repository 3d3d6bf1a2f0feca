//! The log: on stderr, by `--log`, and without what must not be in it.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};

/// Libraries that write whole requests and frames into their debug log. A token is in the first
/// frame of a session, so these say nothing below `info` whatever level is asked for.
const TALKATIVE: &[&str] = &["tungstenite", "tokio_tungstenite", "tokio_postgres", "hyper"];

/// `--log` is not a level, nor levels by module.
#[derive(Debug, thiserror::Error)]
#[error("--log is not understood (expected info, or info,walcast::ingest=debug)")]
pub struct LoggingError(#[from] ParseError);

/// What is logged when `levels` is asked for.
///
/// # Errors
///
/// [`LoggingError`] when `levels` is not understood.
pub fn filter(levels: &str) -> Result<EnvFilter, LoggingError> {
    let ours = levels
        .split(',')
        .filter(|level| !TALKATIVE.iter().any(|library| level.trim().starts_with(library)));
    let theirs = TALKATIVE.iter().map(|library| format!("{library}=info"));
    let all: Vec<String> = ours.map(str::to_owned).chain(theirs).collect();
    Ok(EnvFilter::builder().parse(all.join(","))?)
}

/// Begins to log. Does nothing when somebody does already, as in a test.
///
/// # Errors
///
/// [`LoggingError`] when `levels` is not understood.
pub fn start(levels: &str) -> Result<(), LoggingError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(levels)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The journal has a clock of its own.
    let started = if std::env::var_os("JOURNAL_STREAM").is_some() {
        subscriber.without_time().try_init()
    } else {
        subscriber.try_init()
    };
    drop(started);
    Ok(())
}

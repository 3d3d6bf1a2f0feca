//! The log: on stderr or in the journal, by `--log` and `--log-format`, and without what must not be
//! in it.
//!
//! ```text
//! tracing ─▶ levels (can be changed) ─▶ repeats ─▶ human | json | journal
//! ```
//!
//! It is the process's own, as `tracing` is: begun once, by `cli`.

use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::filter::ParseError;
#[cfg(feature = "otlp")]
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::logging::journal::Journal;
use crate::logging::json::Json;
use crate::logging::repeat::Repeats;
use crate::trace;

pub mod notice;
mod fields;
mod repeat;
mod json;
mod journal;

/// Libraries that write whole requests and frames into their debug log. A token is in the first
/// frame of a session, and a password in the first messages to Postgres and to the console, so these
/// say nothing below `info` whatever level is asked for.
const TALKATIVE: &[&str] =
    &["tungstenite", "tokio_tungstenite", "tokio_postgres", "hyper", "pgwire"];

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The journal under systemd, lines to read everywhere else
    Auto,
    /// Lines to read
    Human,
    /// A JSON object on each line
    Json,
    /// The journal, with fields and message ids
    Journald,
}

/// Why it can't be logged as asked for.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The levels are not levels, nor levels by module.
    #[error("--log is not understood (expected info, or info,walcast::ingest=debug)")]
    Levels(#[from] ParseError),
    /// The journal was asked for by name.
    #[error("journald does not answer")]
    Journal(#[source] io::Error),
}

/// What changes the levels of the log that was begun.
static LEVELS: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

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
    let spans = format!("{}={}", trace::TARGET, if spans_are_wanted() { "info" } else { "off" });
    let all: Vec<String> = ours.map(str::to_owned).chain(theirs).chain([spans]).collect();
    Ok(EnvFilter::builder().parse(all.join(","))?)
}

/// Begins to log. Does nothing when somebody does already, as in a test.
///
/// # Errors
///
/// [`LoggingError`] when `levels` is not understood, or the journal was asked for and is not there.
pub fn start(levels: &str, format: Format) -> Result<(), LoggingError> {
    let (levels, handle) = reload::Layer::new(filter(levels)?);
    let subscriber = tracing_subscriber::registry().with(levels);
    #[cfg(feature = "otlp")]
    let subscriber = subscriber.with(trace::export::layer());
    let subscriber = subscriber.with(Repeats::default()).with(output(format)?);
    if subscriber.try_init().is_ok() {
        let _first = LEVELS.set(handle);
    }
    Ok(())
}

/// Logs by other levels from now on; does nothing where no log was begun.
///
/// # Errors
///
/// [`LoggingError`] when `levels` is not understood. The levels from before count on then.
pub fn change(levels: &str) -> Result<(), LoggingError> {
    let filter = filter(levels)?;
    if let Some(handle) = LEVELS.get() {
        // It can't be gone: the subscriber is the process's.
        let _changed = handle.reload(filter);
    }
    Ok(())
}

/// Whether somebody takes spans. They are off for everybody else.
fn spans_are_wanted() -> bool {
    #[cfg(feature = "otlp")]
    return trace::export::is_started();
    #[cfg(not(feature = "otlp"))]
    false
}

/// Where the events go, as the format says.
fn output<S>(format: Format) -> Result<Box<dyn Layer<S> + Send + Sync>, LoggingError>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let human = || {
        let human = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        // The journal has a clock of its own.
        if is_journal() { human.without_time().boxed() } else { human.boxed() }
    };
    let journal = || Journal::open(Path::new(journal::SOCKET));
    let output: Box<dyn Layer<S> + Send + Sync> = match format {
        Format::Auto if is_journal() => journal().map_or_else(|_| human(), Journal::boxed),
        Format::Auto | Format::Human => human(),
        Format::Json => stderr.event_format(Json).boxed(),
        Format::Journald => journal().map_err(LoggingError::Journal)?.boxed(),
    };
    // Spans would stand in front of each line that is logged inside of them.
    #[cfg(feature = "otlp")]
    let output = output.with_filter(filter_fn(|it| !trace::export::is_span(it))).boxed();
    Ok(output)
}

/// Whether journald reads our stderr: systemd says which file that is, and it may not be stderr any
/// more, where somebody's script redirects it.
#[must_use]
pub fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    let Ok(stderr) = File::from(stderr).metadata() else { return false };
    stream.to_str() == Some(&*format!("{}:{}", stderr.dev(), stderr.ino()))
}

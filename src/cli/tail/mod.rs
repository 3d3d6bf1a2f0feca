//! `walcast tail`: a table's changes in the terminal.
//!
//! Rows go to standard output, everything else to standard error, so that the one can be piped.

pub mod client;
pub mod frame;
pub mod print;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli::CliError;
use crate::cli::demo::running;
use crate::cli::tail::client::{Client, ClientError, Progress, Settings, TokenSource};
use crate::cli::tail::frame::{Content, Frame};
use crate::cli::tail::print::{Colours, Printer};

/// Where a daemon listens unless it is told otherwise.
const URL: &str = "ws://127.0.0.1:4480";

/// Prints a table's changes as they are committed
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast tail orders\n  \
    walcast tail orders --where \"status in ('open', 'assigned')\" --columns id,status\n  \
    walcast tail public.locations --filter 'driver_id=eq.7' --json\n  \
    walcast tail orders --token-file token.txt --url wss://live.example.com\n\n\
    A row that comes to match is an `enter`, one that no longer does a `leave`. A lost connection\n\
    is taken up again where it was lost.\n\n\
    Exit codes: 0 stopped (Ctrl-C, --count), 1 refused, 2 wrong arguments.")]
pub struct Tail {
    /// The table: orders, or schema.orders
    table: String,

    /// Only rows for which this SQL condition holds
    #[arg(long = "where", value_name = "SQL", conflicts_with = "filter")]
    condition: Option<String>,

    /// Only rows that this filter admits, as in status=in.(open,live)
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,

    /// Only these columns, separated by commas [default: all that the role may read]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,

    /// Only these kinds of change, separated by commas [default: all]
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    events: Vec<ChangeKind>,

    /// Who you are; better in `$WALCAST_TOKEN` or a file, where `ps` does not show it
    #[arg(long, env = "WALCAST_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// A file that holds the token, read again at every connection; goes before --token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Where the daemon is [default: the running demo, as its admin, else this machine, port 4480]
    #[arg(long, env = "WALCAST_URL")]
    url: Option<String>,

    /// Resumes from a cursor, as --json shows them
    #[arg(long, value_name = "CURSOR")]
    since: Option<String>,

    /// Begins with the rows that are there
    #[arg(long)]
    snapshot: bool,

    /// Prints the rows' frames as they come, one a line
    #[arg(long)]
    json: bool,

    /// Ends after this many rows
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChangeKind {
    Insert,
    Update,
    Delete,
    Enter,
    Leave,
    Truncate,
}

impl ChangeKind {
    fn name(self) -> &'static str {
        match self {
            ChangeKind::Insert => "insert",
            ChangeKind::Update => "update",
            ChangeKind::Delete => "delete",
            ChangeKind::Enter => "enter",
            ChangeKind::Leave => "leave",
            ChangeKind::Truncate => "truncate",
        }
    }
}

/// Why following a table ended.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The daemon cannot be followed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Tail {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Process)?;
        let client = Client::new(self.settings()).map_err(TailError::from)?;
        runtime.block_on(self.follow(client))
    }

    fn settings(&self) -> Settings {
        let demo = if self.url.is_none() { running::find() } else { None };
        let token = match (&self.token, &self.token_file, &demo) {
            (_, Some(path), _) => TokenSource::File(path.clone()),
            (Some(token), None, _) => TokenSource::Text(token.trim().to_owned()),
            (None, None, Some(demo)) => {
                status("as the admin of the running demo");
                TokenSource::File(demo.token_file.clone())
            }
            (None, None, None) => TokenSource::Anonymous,
        };
        let url = self.url.clone().or(demo.map(|demo| demo.url));
        Settings {
            url: url.unwrap_or_else(|| URL.to_owned()),
            token,
            table: self.table.clone(),
            condition: self.condition.clone(),
            filter: self.filter.clone(),
            columns: self.columns.clone(),
            events: self.events.iter().map(|kind| kind.name().to_owned()).collect(),
            since: self.since.clone(),
            snapshot: self.snapshot,
        }
    }

    async fn follow(&self, mut client: Client) -> Result<ExitCode, CliError> {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut printer = Printer::new(if colours { Colours::On } else { Colours::Off });
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let progress = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => break,
                progress = client.next() => progress.map_err(TailError::from)?,
            };
            match progress {
                Progress::Connected => {}
                Progress::Waiting { reason, pause } => {
                    let seconds = pause.as_secs_f32();
                    status(&format!("{reason}; next attempt in {seconds:.1} s"));
                }
                Progress::Frame(frame) => match self.show(&mut printer, &frame) {
                    Ok(rows) => left = left.saturating_sub(rows),
                    // Whoever read the rows has seen enough of them.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(CliError::Output(error)),
                },
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Prints what there is to print of a frame; says how many rows that was.
    fn show(&self, printer: &mut Printer, frame: &Frame) -> io::Result<u64> {
        match &frame.content {
            Content::Row(row) => {
                let line = if self.json { frame.text.clone() } else { printer.line(row) };
                let mut out = io::stdout().lock();
                writeln!(out, "{line}")?;
                out.flush()?;
                return Ok(1);
            }
            Content::Subscribed { columns, key, hint, .. } => {
                printer.describe(columns, key);
                status(&format!("subscribed to {}", self.table));
                if let Some(hint) = hint {
                    status(&format!("hint: {hint}"));
                }
            }
            Content::Resync { reason, message, .. } => {
                let reason = message.as_deref().unwrap_or(reason);
                let rest = if self.snapshot {
                    "the rows that are there follow"
                } else {
                    "changes before this are not shown"
                };
                status(&format!("resync: {reason}; {rest}"));
            }
            Content::Welcome { .. }
            | Content::Authenticated { .. }
            | Content::Synced { .. }
            | Content::Heartbeat { .. }
            | Content::Restart { .. }
            | Content::Error { .. }
            | Content::Other => {}
        }
        Ok(0)
    }
}

#[expect(clippy::print_stderr, reason = "progress belongs on the terminal, not among the rows")]
fn status(text: &str) {
    eprintln!("walcast tail: {text}");
}

//! The end-to-end load harness: `make bench`, or `cargo bench --bench load -- --help`.
//!
//! ```text
//!  writer ──▶ Postgres ──▶ server under test ──▶ load client
//!    └───────────────────▶ limit-relay ────────▶     │
//!    └── seq, sent_at_us in every row ───────────────┘ counted, checked, timed
//! ```
//!
//! It starts a private Postgres, then each server in turn, opens thousands of connections to it,
//! writes rows at a known pace, and checks that every connection got each of its rows once and in
//! order. What walcast shows is held against limits and against servers that one would write
//! instead, all measured in the same run; `docs/benchmarks.md` says what each figure means.
//!
//! Everything listens on loopback, every wait has an end, and every child ends with this process.

#![expect(
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "counts become ratios, the wall clock is the subject, and the output is for a person"
)]

mod histogram;
mod process;
mod frame;
mod script;
mod tally;
mod connection;
mod client;
mod sql;
mod rows;
mod writer;
mod database;
mod relay;
mod limits;
mod servers;
mod stage;
mod ledger;
mod scenario;
mod goals;

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use clap::Parser;
use clap::Subcommand;

use crate::database::Database;
use crate::ledger::Ledger;
use crate::relay::Writes;
use crate::scenario::Run;
use crate::scenario::Scenario;
use crate::servers::Ground;
use crate::servers::Server;

/// What may go wrong is shown to a person, who reads it.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The wall clock in microseconds: what the writer stamps and the clients subtract.
fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Measures walcast against its limits and its peers.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
struct Arguments {
    /// Which scenarios to run; all of them when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Which servers to measure; all that a scenario knows when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Server>,
    /// Short stages, small crowds, few steps: shows that all works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Seconds of writing in each stage.
    #[arg(long)]
    secs: Option<f64>,
    /// How often each measurement is repeated; the tables show medians.
    #[arg(long, default_value_t = 1)]
    reps: u32,
    /// Ends with an error when a must was measured and not met.
    #[arg(long)]
    strict: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    mode: Option<Mode>,
}

/// What this program does when it is its own child.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Mode {
    /// Serves as `limit-relay`.
    #[command(hide = true)]
    Relay { clients: SocketAddr, control: SocketAddr, writes: Writes },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.mode {
        Some(Mode::Relay { clients, control, writes }) => {
            raise_open_files().and_then(|()| relay::serve(clients, control, writes)).map(|()| true)
        }
        None => measure(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios and prints the table of goals; whether the exit code may be 0.
fn measure(arguments: &Arguments) -> Fallible<bool> {
    raise_open_files()?;
    let program = Path::new(env!("CARGO_BIN_EXE_walcast"));
    let target = program.ancestors().nth(2).ok_or("the program lies in no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let results = folder.join(format!("{}.jsonl", now_us() / 1_000_000));
    let mut ledger = Ledger::create(&results)?;
    let ground = Ground { database: Database::start()?, folder };
    let run = Run {
        ground: &ground,
        peers: &arguments.peers,
        quick: arguments.quick,
        seconds: arguments.secs,
        reps: arguments.reps,
    };
    let rounds = if arguments.quick { 10 } else { 100 };
    ledger.note("limit-kernel", "bare_send_us", limits::bare_send_us(1_000, rounds)?)?;
    let mut failed = Vec::new();
    for scenario in Scenario::ALL {
        if !arguments.scenario.is_empty() && !arguments.scenario.contains(&scenario) {
            continue;
        }
        for server in scenario.servers() {
            if !arguments.peers.is_empty() && !arguments.peers.contains(server) {
                continue;
            }
            println!("\n{}: {}", scenario.title(), server.name());
            if let Err(error) = scenario.run(&run, *server, &mut ledger) {
                println!("    failed: {error}");
                failed.push(format!("{} {}: {error}", scenario.title(), server.name()));
            }
        }
    }
    let musts_met = goals::print(&ledger);
    for line in &failed {
        println!("failed: {line}");
    }
    println!("every measurement: {}", results.display());
    Ok(!arguments.strict || (musts_met && failed.is_empty()))
}

/// Ten thousand connections are ten thousand files.
fn raise_open_files() -> Fallible<()> {
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limits.maximum, maximum: limits.maximum };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?)
}

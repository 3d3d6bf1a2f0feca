//! `walcast demo`: everything that walcast does, on this machine, in one command.
//!
//! ```text
//! PrivateServer ─▶ database ─▶ settings, people ─▶ daemon ◀─ view (clients)
//!   (initdb)       (schema)    (files beside it)      ▲
//!                      ▲───────────── simulator ──────┘ (through Postgres)
//! ```
//!
//! Nothing in here is special: the daemon reads a configuration file, the views are clients, the
//! traffic is SQL. It ends in the order view, simulator, daemon, Postgres, and leaves nothing.

pub mod database;
pub mod people;
pub mod postgres;
pub mod running;
pub mod settings;
pub mod simulator;
pub mod view;

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use crate::cli::CliError;
use crate::cli::tail::client::ClientError;
use crate::cli::token::duration;
use crate::config::ConfigError;
use crate::daemon;
use crate::daemon::DaemonError;
use crate::daemon::Signal;

use people::Person;
use postgres::Afterwards;
use postgres::Listen;
use postgres::Options;
use postgres::PrivateServer;
use postgres::ServerError;
use simulator::SimulatorError;

/// Shows all of it here: a private Postgres, live traffic, the daemon, and what clients see
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast demo\n  \
    walcast demo --rate 200 --seed 7 --duration 1m\n  \
    walcast tail orders --where \"status in ('open', 'assigned')\"     in another terminal\n\n\
    It needs Postgres's server programs (on Debian the package postgresql), and leaves nothing\n\
    behind. As root, Postgres runs as the user postgres.")]
pub struct Demo {
    /// Where the daemon listens, at 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 4480)]
    port: u16,

    /// How much happens: steps per second, most of them drivers moving
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// The same seed makes the same traffic
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Ends by itself after this time: 90s, 15m [default: when Ctrl-C is pressed]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// Leaves the server's folder when it ends: data, log, configuration
    #[arg(long)]
    keep: bool,

    /// Writes no changes to the terminal, only what is needed to watch them elsewhere
    #[arg(long)]
    silent: bool,

    /// The folder of initdb and postgres [default: the newest that is installed]
    #[arg(long, value_name = "FOLDER", env = "WALCAST_PG_BIN")]
    pg_bin: Option<PathBuf>,
}

/// Why the demo does not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no private server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The database could not be built.
    #[error("the demo's database could not be built")]
    Database(#[source] tokio_postgres::Error),
    /// A file of the demo could not be written.
    #[error("a file of the demo could not be written")]
    File(#[source] io::Error),
    /// The configuration that it wrote is not good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon ended.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The traffic ended.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
    /// A view ended.
    #[error(transparent)]
    View(#[from] ClientError),
}

/// All that was set up, for as long as it lasts.
struct Stage {
    server: PrivateServer,
    config_file: PathBuf,
    people: Vec<Person>,
    url: String,
    _shown: running::Shown,
}

impl Demo {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(CliError::Process)?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Process)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Process)?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            tokio::pin!(stop);
            // Whoever stops it while initdb runs need not wait for the rest.
            let stage = tokio::select! {
                () = &mut stop => return Ok(ExitCode::SUCCESS),
                stage = self.set_up() => stage?,
            };
            self.introduce(&stage);
            let ended = Box::pin(self.perform(&stage, stop)).await;
            status("stopping Postgres");
            if self.keep {
                status(&format!("everything stays in {}", stage.server.socket_folder().display()));
            }
            tokio::task::spawn_blocking(move || drop(stage)).await.ok();
            ended?;
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn set_up(&self) -> Result<Stage, DemoError> {
        let options = self.options();
        status("initialising a private Postgres, which takes a few seconds");
        let start = tokio::task::spawn_blocking(move || PrivateServer::start(options));
        let server = start.await.map_err(io::Error::other).map_err(DemoError::File)??;
        if let Some(version) = server.installation().version() {
            status(&format!("started {version}"));
        }
        let progress = |what: &str| status(&format!("creating {what}"));
        database::build(&server, progress).await.map_err(DemoError::Database)?;
        let folder = server.socket_folder().to_owned();
        let secret = people::new_secret().map_err(DemoError::File)?;
        let people = people::with_tokens(&folder, &secret).map_err(DemoError::File)?;
        let config_file =
            settings::write(&folder, &server, self.port, &secret).map_err(DemoError::File)?;
        let url = format!("ws://127.0.0.1:{}", self.port);
        let shown = running::show(&folder, &url).map_err(DemoError::File)?;
        Ok(Stage { server, config_file, people, url, _shown: shown })
    }

    /// Durable, because a demo may be asked what happens when the server is killed; by its socket
    /// only, because its superuser has no password.
    fn options(&self) -> Options {
        let afterwards = if self.keep { Afterwards::Keep } else { Afterwards::Remove };
        let options = Options {
            binaries: self.pg_bin.clone(),
            listen: Listen::Socket,
            afterwards,
            ..Options::default()
        };
        options.parameter("max_slot_wal_keep_size", "1GB")
    }

    fn introduce(&self, stage: &Stage) {
        let walcast = program();
        let folder = stage.server.socket_folder().display();
        say("\nEverything is up. In another terminal:\n");
        say(&format!("  {walcast} tail orders --where \"status in ('open', 'assigned')\""));
        for person in &stage.people {
            let table = if person.role == "customer" { "locations" } else { "orders" };
            let file = person.token_file.display();
            let url =
                if self.port == 4480 { String::new() } else { format!(" --url {}", stage.url) };
            say(&format!("  {walcast} tail {table} --token-file {file}{url}"));
        }
        let database = stage.server.connection_string(database::NAME);
        say(&format!("  psql \"{database}\"    changes by hand count, too\n"));
        for Person { role, name, token_file, .. } in &stage.people {
            let token = std::fs::read_to_string(token_file).unwrap_or_default();
            say(&format!("  Token of {name}, {role}:\n  {}\n", token.trim()));
        }
        say(&format!("  Daemon         {}/v1/ws", stage.url));
        say(&format!("  Configuration  {}", stage.config_file.display()));
        say(&format!("  Postgres log   {folder}/log"));
        say("\nWhat three of its people see, as it happens; Ctrl-C ends the demo.\n");
    }

    /// Runs daemon, traffic and views until `stop`, the end of the duration, or the first that ends.
    async fn perform(
        &self,
        stage: &Stage,
        stop: impl Future<Output = ()>,
    ) -> Result<(), DemoError> {
        let config = settings::load(&stage.config_file)?;
        let stop_traffic = CancellationToken::new();
        let stop_daemon = CancellationToken::new();
        let traffic = simulator::Settings {
            connection_string: stage.server.connection_string(database::NAME),
            seed: self.seed,
            rate: self.rate,
        };
        let stopped = async || {
            stop_daemon.cancelled().await;
            Signal::Stop
        };
        let daemon = Box::pin(daemon::run(config, stopped));
        let traffic = Box::pin(simulator::run(traffic, stop_traffic.clone().cancelled_owned()));
        let time_is_up = async {
            match self.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let (mut daemon, mut traffic) = (daemon, traffic);
        let (mut daemon_ended, mut traffic_ended) = (None, None);
        let ended = {
            let views = self.views(stage);
            tokio::select! {
                () = stop => Ok(()),
                () = time_is_up => Ok(()),
                ended = views => ended,
                ended = &mut daemon => { daemon_ended = Some(ended); Ok(()) }
                ended = &mut traffic => { traffic_ended = Some(ended); Ok(()) }
            }
        };
        status("stopping the traffic and the daemon");
        stop_traffic.cancel();
        let traffic_ended = match traffic_ended {
            Some(ended) => ended,
            None => traffic.await,
        };
        stop_daemon.cancel();
        let daemon_ended = match daemon_ended {
            Some(ended) => ended,
            None => daemon.await,
        };
        daemon_ended?;
        let changes = traffic_ended?;
        ended?;
        status(&format!("{changes} rows were changed"));
        Ok(())
    }

    async fn views(&self, stage: &Stage) -> Result<(), DemoError> {
        if self.silent {
            return std::future::pending().await;
        }
        Ok(view::show(&stage.url, &stage.people).await?)
    }
}

/// How to call this program again, from where the user is.
fn program() -> String {
    let Ok(program) = std::env::current_exe() else { return "walcast".to_owned() };
    if program.parent().is_some_and(|folder| folder == Path::new("/usr/bin")) {
        return "walcast".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    program.strip_prefix(&here).unwrap_or(&program).display().to_string()
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress belongs on the terminal, not in a pipe")]
fn status(text: &str) {
    eprintln!("walcast demo: {text}");
}

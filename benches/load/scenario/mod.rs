//! The scenarios, one file each; their names and meanings are those of `docs/benchmarks.md`.

mod asked;
mod drain;
mod fanout;
mod idle;
mod latency;
mod secured;
mod selective;
mod slow;
mod sweep;
mod watched;

use std::time::Duration;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Ground;
use crate::servers::Server;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Every change to 1,000 and to 5,000 clients.
    Fanout,
    /// Each change to the one of 10,000 clients whose filter it passes.
    Selective,
    /// 100 clients, 50 changes/s.
    Latency,
    /// 10,000 clients to whom nothing happens.
    Idle,
    /// A backlog of a million changes that nobody wants.
    Drain,
    /// One of 100 clients stops reading.
    Slow,
    /// Each change to the one of up to 10,000 clients whom row-level security lets see it.
    Secured,
    /// The same where Postgres has to be asked who that is.
    Asked,
    /// Every change to 1,000 clients, as fast as it goes, while an operator asks.
    Watched,
}

/// What a run was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) peers: &'a [Server],
    pub(crate) quick: bool,
    pub(crate) seconds: Option<f64>,
    pub(crate) reps: u32,
}

impl Run<'_> {
    /// How long a stage writes: what was asked for, else `usually`, else a second for a quick run.
    fn duration(&self, usually: f64) -> Duration {
        let unasked = if self.quick { usually.min(1.0) } else { usually };
        Duration::from_secs_f64(self.seconds.unwrap_or(unasked))
    }

    /// A size that a quick run takes a tenth of.
    fn size(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }
}

impl Scenario {
    /// In the order in which they run.
    pub(crate) const ALL: [Scenario; 9] = [
        Scenario::Latency,
        Scenario::Idle,
        Scenario::Drain,
        Scenario::Selective,
        Scenario::Fanout,
        Scenario::Slow,
        Scenario::Watched,
        Scenario::Secured,
        Scenario::Asked,
    ];

    /// Its short name and what it does.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Scenario::Fanout => "S1 fan-out to all",
            Scenario::Selective => "S2 one filter each",
            Scenario::Latency => "S3 latency",
            Scenario::Idle => "S4 idle connections",
            Scenario::Drain => "S5 drain of a backlog",
            Scenario::Slow => "S6 one slow reader",
            Scenario::Watched => "S7 watched by an operator",
            Scenario::Secured => "S8 row-level security",
            Scenario::Asked => "S9 policies that are asked",
        }
    }

    /// The servers that it makes sense for.
    pub(crate) fn servers(self) -> &'static [Server] {
        const ALL: &[Server] = &[
            Server::LimitRelay,
            Server::LimitRelay1,
            Server::Walcast,
            Server::NodePgoutputWs,
            Server::SocketioNotify,
            Server::SocketioAction,
        ];
        const WITHOUT_PER_MESSAGE: &[Server] = &[
            Server::LimitRelay,
            Server::Walcast,
            Server::NodePgoutputWs,
            Server::SocketioNotify,
            Server::SocketioAction,
        ];
        match self {
            Scenario::Fanout => ALL,
            Scenario::Selective | Scenario::Latency => WITHOUT_PER_MESSAGE,
            Scenario::Idle | Scenario::Slow => {
                &[Server::LimitRelay, Server::Walcast, Server::NodePgoutputWs]
            }
            Scenario::Drain => &[Server::Walcast, Server::NodePgoutputWs],
            Scenario::Watched | Scenario::Secured | Scenario::Asked => &[Server::Walcast],
        }
    }

    /// Measures `server`.
    pub(crate) fn run(self, run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
        for _ in 0..run.reps.max(1) {
            match self {
                Scenario::Fanout => fanout::run(run, server, ledger)?,
                Scenario::Selective => selective::run(run, server, ledger)?,
                Scenario::Latency => latency::run(run, server, ledger)?,
                Scenario::Idle => idle::run(run, server, ledger)?,
                Scenario::Drain => drain::run(run, server, ledger)?,
                Scenario::Slow => slow::run(run, server, ledger)?,
                Scenario::Watched => watched::run(run, server, ledger)?,
                Scenario::Secured => secured::run(run, server, ledger)?,
                Scenario::Asked => asked::run(run, server, ledger)?,
            }
        }
        Ok(())
    }
}

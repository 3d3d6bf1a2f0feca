//! What walcast must reach and what it aims for, held against the limits and peers of this run.
//!
//! A row without a peer's figure, or without walcast's, is shown with a dash and judged as neither.

use crate::ledger::Ledger;
use crate::servers::Server;

const WALCAST: &str = "walcast";
const NODE: &[&str] = &["node-pgoutput-ws", "socketio-notify", "socketio-action"];

/// What walcast's figure is divided by.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// Nothing: the bound is on the figure itself.
    Itself,
    /// The best of these servers' own figure of that name.
    Best(&'static [&'static str]),
    /// Another figure.
    Of(&'static str, &'static str),
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Goal {
    name: &'static str,
    what: &'static str,
    figure: &'static str,
    against: Against,
    better: Better,
    /// Bounds of the ratio, or of the figure where there is nothing to divide by.
    must: Option<f64>,
    goal: Option<f64>,
}

const RELAY: Against = Against::Best(&["limit-relay"]);
const RELAY_1: Against = Against::Best(&["limit-relay-1"]);
const NODE_WS: Against = Against::Best(&["node-pgoutput-ws"]);
const NOTIFY: Against = Against::Best(&["socketio-notify"]);
const ONE_BY_ONE: Against = Against::Best(&["one-by-one"]);
const INGEST: Against = Against::Of("limit-ingest", "drain");

#[rustfmt::skip]
const GOALS: &[Goal] = &[
    more("G1", "deliveries/s, 1,000 clients", "fanout.1000", Against::Best(NODE), (Some(10.0), None)),
    more("G1", "deliveries/s, 1,000 clients", "fanout.1000", RELAY, (Some(0.5), Some(0.8))),
    less("G1", "p99 ms there", "fanout_p99_ms.1000", RELAY, (None, Some(2.0))),
    more("G1", "deliveries/s, 5,000 clients", "fanout.5000", Against::Best(NODE), (Some(10.0), None)),
    more("G1", "deliveries/s, 5,000 clients", "fanout.5000", RELAY, (Some(0.5), Some(0.8))),
    less("G1", "p99 ms there", "fanout_p99_ms.5000", RELAY, (None, Some(2.0))),
    less("G2", "CPU us/delivery at 50 k/s, 1,000", "calm_cpu_us.1000", NODE_WS, (Some(0.5), None)),
    less("G2", "CPU us/delivery at 50 k/s, 1,000", "calm_cpu_us.1000", RELAY_1, (None, Some(1.2))),
    less("G2", "CPU us/delivery at 50 k/s, 5,000", "calm_cpu_us.5000", NODE_WS, (Some(0.5), None)),
    less("G2", "CPU us/delivery at 50 k/s, 5,000", "calm_cpu_us.5000", RELAY_1, (None, Some(1.2))),
    more("G3", "changes/s, 10,000 filters", "selective", NOTIFY, (Some(1.5), None)),
    more("G3", "changes/s, 10,000 filters", "selective", NODE_WS, (Some(20.0), None)),
    more("G3", "changes/s, 10,000 filters", "selective", RELAY, (None, Some(0.4))),
    less("G3", "p99 ms there", "selective_p99_ms", Against::Itself, (None, Some(10.0))),
    more("G4", "changes/s, 10,000 filters to 100", "filters.10000", Against::Of(WALCAST, "filters.100"), (Some(0.8), Some(0.9))),
    more("G5", "changes/s, 5,000 owners, RLS", "owner.5000", Against::Itself, (Some(15_000.0), Some(75_000.0))),
    more("G5", "changes/s, 5,000 members, RLS", "member.5000", Against::Itself, (Some(15_000.0), Some(75_000.0))),
    less("G5", "CPU us/delivery, 10,000 owners", "owner.10000_cpu_us", Against::Of(WALCAST, "owner.5000_cpu_us"), (None, Some(1.25))),
    less("G5", "CPU us/delivery, 10,000 members", "member.10000_cpu_us", Against::Of(WALCAST, "member.5000_cpu_us"), (None, Some(1.25))),
    more("G5", "verdicts/s asked, known, 100 clients", "verdicts_known.100", ONE_BY_ONE, (None, Some(50.0))),
    more("G5", "verdicts/s asked, known, 1,000", "verdicts_known.1000", ONE_BY_ONE, (None, Some(50.0))),
    more("G5", "verdicts/s asked, new, 100 clients", "verdicts_new.100", ONE_BY_ONE, (None, Some(50.0))),
    more("G6", "drain, changes/s, cold", "drain_cold", INGEST, (Some(0.5), Some(0.85))),
    more("G6", "drain, changes/s, cold", "drain_cold", NODE_WS, (Some(2.0), Some(3.4))),
    more("G6", "drain, changes/s, resumed", "drain_resumed", INGEST, (Some(0.5), Some(0.85))),
    more("G6", "drain, changes/s, resumed", "drain_resumed", NODE_WS, (Some(2.0), Some(3.4))),
    less("G6", "own CPU us/change, resumed", "drain_resumed_cpu_us", Against::Itself, (None, Some(1.5))),
    less("G7", "p50 ms, 100 clients, 50/s", "latency_p50_ms", NOTIFY, (Some(1.0), None)),
    less("G7", "p99 ms, 100 clients, 50/s", "latency_p99_ms", NOTIFY, (Some(1.0), None)),
    less("G7", "p50 ms, 100 clients, 50/s", "latency_p50_ms", NODE_WS, (None, Some(0.5))),
    less("G7", "p99 ms, 100 clients, 50/s", "latency_p99_ms", NODE_WS, (None, Some(0.6))),
    less("G8", "KiB/connection, idle", "idle_kib", Against::Itself, (Some(4.0), Some(3.0))),
    less("G8", "KiB/connection, after a burst", "idle_after_burst_kib", Against::Itself, (Some(4.0), Some(3.0))),
    less("G8", "MiB in all, idle", "idle_all_mib", Against::Itself, (None, Some(35.0))),
    less("G9", "s until all are subscribed", "connect_seconds", NODE_WS, (Some(1.0), None)),
    less("G9", "s until all are subscribed", "connect_seconds", Against::Itself, (Some(0.9), None)),
    less("G9", "s until all are subscribed", "connect_seconds", RELAY, (None, Some(2.0))),
    less("G10", "p99 of the others, with to without", "slow_others_p99_ratio", Against::Itself, (Some(1.2), Some(1.0))),
    less("G10", "MiB grown by one slow client", "slow_growth_mib", Against::Itself, (Some(2.0), None)),
    less("G10", "MiB grown by one slow client", "slow_growth_mib", NODE_WS, (None, Some(0.1))),
    less("G10", "rows that clients missed", "slow_missing", Against::Itself, (Some(0.0), Some(0.0))),
    less("G11", "p99 ms of /metrics, 1,000 clients", "metrics_p99_ms", Against::Itself, (Some(100.0), None)),
    less("G11", "p99 ms of /readyz, 1,000 clients", "readyz_p99_ms", Against::Itself, (Some(100.0), None)),
    less("G11", "longest ms of /metrics there", "metrics_max_ms", Against::Itself, (None, Some(100.0))),
    less("G11", "longest ms of /readyz there", "readyz_max_ms", Against::Itself, (None, Some(100.0))),
    less("G11", "p99 ms of the console, 1,000 clients", "console_p99_ms", Against::Itself, (Some(100.0), None)),
    less("G11", "longest ms of the console there", "console_max_ms", Against::Itself, (None, Some(100.0))),
    more("G11", "deliveries/s, counted to not, in pairs", "watched_pair", Against::Itself, (Some(0.97), Some(0.99))),
    less("G11", "CPU us/delivery, counted to not", "watched_pair_cpu", Against::Itself, (Some(1.03), Some(1.01))),
];

const fn more(
    name: &'static str,
    what: &'static str,
    figure: &'static str,
    against: Against,
    (must, goal): (Option<f64>, Option<f64>),
) -> Goal {
    Goal { name, what, figure, against, better: Better::More, must, goal }
}

const fn less(
    name: &'static str,
    what: &'static str,
    figure: &'static str,
    against: Against,
    (must, goal): (Option<f64>, Option<f64>),
) -> Goal {
    Goal { name, what, figure, against, better: Better::Less, must, goal }
}

/// Prints the table; false when a must was measured and not met.
pub(crate) fn print(ledger: &Ledger) -> bool {
    println!(
        "\n{:<4} {:<36} {:>12} {:<18} {:>12} {:>8} {:>8} {:>8}  verdict",
        "", "what", "walcast", "against", "its figure", "ratio", "must", "goal"
    );
    let mut all_met = true;
    for goal in GOALS {
        all_met &= goal.print(ledger);
    }
    for server in [Server::Walcast, Server::LimitRelay, Server::NodePgoutputWs] {
        let Some(faults) = ledger.faults(server.name()) else { continue };
        let verdict = if faults == 0 { "met" } else { "NOT MET" };
        let what = format!("rows lost, twice or out of order, {}", server.name());
        println!("{:<4} {what:<55} {faults:>12} {verdict:>30}", "G12");
        all_met &= server != Server::Walcast || faults == 0;
    }
    all_met
}

impl Goal {
    fn print(&self, ledger: &Ledger) -> bool {
        let own = ledger.median(WALCAST, self.figure);
        let (name, other) = self.other(ledger);
        let judged = match self.against {
            Against::Itself => own,
            Against::Best(_) | Against::Of(..) => own.zip(other).map(|(own, other)| own / other),
        };
        let verdict = match judged {
            None => "-",
            Some(ratio) if self.must.is_some_and(|must| !self.reaches(ratio, must)) => "NOT MET",
            Some(ratio) if self.goal.is_some_and(|goal| self.reaches(ratio, goal)) => "goal met",
            Some(_) if self.must.is_some() => "must met",
            Some(_) => "goal not met",
        };
        println!(
            "{:<4} {:<36} {:>12} {name:<18} {:>12} {:>8} {:>8} {:>8}  {verdict}",
            self.name,
            self.what,
            number(own),
            number(other),
            number(other.and(judged)),
            number(self.must),
            number(self.goal),
        );
        verdict != "NOT MET"
    }

    /// What it is held against: a name and a figure.
    fn other(&self, ledger: &Ledger) -> (&'static str, Option<f64>) {
        match self.against {
            Against::Itself => ("", None),
            Against::Of(server, figure) => {
                let name = if server == WALCAST { figure } else { server };
                (name, ledger.median(server, figure))
            }
            Against::Best(servers) => {
                let figures = servers.iter().filter_map(|server| {
                    ledger.median(server, self.figure).map(|figure| (*server, figure))
                });
                let best = match self.better {
                    Better::More => figures.max_by(|a, b| a.1.total_cmp(&b.1)),
                    Better::Less => figures.min_by(|a, b| a.1.total_cmp(&b.1)),
                };
                let unmeasured = servers.first().copied().unwrap_or_default();
                best.map_or((unmeasured, None), |(server, figure)| (server, Some(figure)))
            }
        }
    }

    fn reaches(&self, ratio: f64, bound: f64) -> bool {
        match self.better {
            Better::More => ratio >= bound,
            Better::Less => ratio <= bound,
        }
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
    }
}

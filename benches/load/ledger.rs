//! What was measured, by server and figure: medians over the repetitions, and a line of JSON each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::Fallible;
use crate::stage::Outcome;

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Ledger {
    figures: BTreeMap<(String, String), Vec<f64>>,
    faults: BTreeMap<String, u64>,
    lines: File,
}

#[derive(Serialize)]
struct Line<'a, T> {
    at_us: u64,
    scenario: &'a str,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize)]
struct Figure<'a> {
    server: &'a str,
    figure: &'a str,
    value: f64,
}

impl Ledger {
    /// An empty one that writes its lines to `path`.
    pub(crate) fn create(path: &Path) -> Fallible<Ledger> {
        let lines = File::create(path)?;
        Ok(Ledger { figures: BTreeMap::new(), faults: BTreeMap::new(), lines })
    }

    /// Notes one measurement of `figure`.
    pub(crate) fn note(&mut self, server: &str, figure: &str, value: f64) -> Fallible<()> {
        println!("    {server:<18} {figure:<32} {value:.3}");
        self.figures.entry((server.to_owned(), figure.to_owned())).or_default().push(value);
        self.write("figure", &Figure { server, figure, value })
    }

    /// Notes a whole stage; its faults count against the server.
    pub(crate) fn stage(&mut self, scenario: &str, outcome: &Outcome) -> Fallible<()> {
        *self.faults.entry(outcome.server.to_owned()).or_default() += outcome.faults();
        println!(
            "    {:<18} {:>6} conns {:>8.0}/s asked {:>8.0}/s written {:>9.0} deliveries/s  \
             p50 {:>8.2} p99 {:>8.2} max {:>8.2} ms  cpu {:>5.2} us/delivery, cores: server {:.2} \
             postgres {:.2} client {:.2} others {:.2}{}",
            outcome.server,
            outcome.connections,
            outcome.wanted_rows_per_second.unwrap_or(f64::INFINITY),
            outcome.rows_per_second,
            outcome.deliveries_per_second,
            outcome.p50_ms,
            outcome.p99_ms,
            outcome.max_ms,
            outcome.cpu_us_per_delivery(),
            outcome.server_cpu_seconds / outcome.seconds.max(1e-3),
            outcome.postgres_cpu_seconds / outcome.seconds.max(1e-3),
            outcome.client_cpu_seconds / outcome.seconds.max(1e-3),
            outcome.other_cores,
            faults_of(outcome),
        );
        self.write(scenario, outcome)
    }

    /// The median of what was noted; absent when nothing was.
    pub(crate) fn median(&self, server: &str, figure: &str) -> Option<f64> {
        let values = self.figures.get(&(server.to_owned(), figure.to_owned()))?;
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        if values.len() % 2 == 1 {
            return Some(upper);
        }
        Some(f64::midpoint(*values.get(middle - 1)?, upper))
    }

    /// Prints the median of what was noted, and between what it lies.
    pub(crate) fn spread(&self, server: &str, figure: &str) {
        let key = (server.to_owned(), figure.to_owned());
        let (Some(values), Some(median)) = (self.figures.get(&key), self.median(server, figure))
        else {
            return;
        };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let count = values.len();
        println!("    {server:<18} {figure:<32} {median:.3} of {count}, {least:.3} to {most:.3}");
    }

    /// Rows of a server's clients that were missing, twice, out of order, or somebody else's.
    pub(crate) fn faults(&self, server: &str) -> Option<u64> {
        self.faults.get(server).copied()
    }

    fn write(&mut self, scenario: &str, content: &impl Serialize) -> Fallible<()> {
        let line = Line { at_us: crate::now_us(), scenario, content };
        writeln!(self.lines, "{}", serde_json::to_string(&line)?)?;
        Ok(())
    }
}

fn faults_of(outcome: &Outcome) -> String {
    if outcome.is_whole() {
        return String::new();
    }
    format!(
        "  MISSING {} UNFINISHED {} TWICE {} OUT OF ORDER {} FOREIGN {} CLOSED {}",
        outcome.missing,
        outcome.unfinished,
        outcome.duplicates,
        outcome.out_of_order,
        outcome.foreign,
        outcome.closed
    )
}

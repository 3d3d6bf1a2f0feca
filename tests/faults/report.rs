//! What is printed: the counts of each seed, and of all of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::run::Outcome;

/// The sums over the seeds that were run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seeds: u64,
    faults: BTreeMap<String, u64>,
    counts: BTreeMap<&'static str, u64>,
    guarded: BTreeMap<String, u64>,
    connections: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    resyncs: BTreeMap<String, u64>,
    refusals: BTreeMap<String, u64>,
    ended: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
}

impl Report {
    /// Adds a seed, and prints it.
    pub(crate) fn add(&mut self, seed: u64, outcome: &Outcome) {
        let mut one = Report { seeds: 1, ..Report::default() };
        let number = |count: usize| u64::try_from(count).unwrap();
        let findings = &outcome.findings;
        for (name, count) in [
            ("transactions", number(outcome.transactions)),
            ("changes", number(outcome.changes)),
            ("deliveries", findings.deliveries),
            ("resumes", findings.resumes),
            ("changes skipped with a resync", findings.skipped),
            ("shifts of memberships", findings.shifts),
            ("snapshot rows", findings.snapshot_rows),
            ("tables compared", findings.tables_compared),
        ] {
            one.counts.insert(name, count);
        }
        for (fault, count) in &outcome.faults {
            one.faults.insert(format!("{fault:?}"), *count);
        }
        one.guarded.clone_from(&findings.guarded);
        one.connections.clone_from(&findings.connections);
        one.lost.clone_from(&findings.lost);
        one.resyncs.clone_from(&findings.resyncs);
        one.refusals.clone_from(&findings.refusals);
        for status in &outcome.ended {
            *one.ended.entry(status.clone()).or_default() += 1;
        }
        one.violations.extend(findings.violations.iter().map(|it| format!("seed {seed}: {it}")));
        println!("{one}");
        for violation in &one.violations {
            println!("  VIOLATION {violation}");
        }
        self.sum(one);
    }

    fn sum(&mut self, other: Report) {
        self.seeds += other.seeds;
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        for (sum, more) in [
            (&mut self.faults, other.faults),
            (&mut self.guarded, other.guarded),
            (&mut self.connections, other.connections),
            (&mut self.lost, other.lost),
            (&mut self.resyncs, other.resyncs),
            (&mut self.refusals, other.refusals),
            (&mut self.ended, other.ended),
        ] {
            for (name, count) in more {
                *sum.entry(name).or_default() += count;
            }
        }
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} seed(s):", self.seeds)?;
        for (name, count) in &self.counts {
            write!(f, " {name} {count};")?;
        }
        for (title, map) in [
            ("faults", &self.faults),
            ("deliveries by policies", &self.guarded),
            ("connections", &self.connections),
            ("connections lost", &self.lost),
            ("resyncs", &self.resyncs),
            ("refusals", &self.refusals),
            ("walcast ended by itself", &self.ended),
        ] {
            write!(f, "\n  {title}:")?;
            for (name, count) in map {
                write!(f, " {name} {count};")?;
            }
        }
        write!(f, "\n  violations: {}", self.violations.len())
    }
}

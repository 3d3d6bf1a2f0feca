//! The faults ring: writers write, clients watch, and everything that can go wrong does, while an
//! independent checker asks afterwards whether the contract was kept.
//!
//! ```text
//! writers ──▶ Postgres ──▶ proxy ──▶ walcast ──▶ proxy ──▶ clients
//!                │                                            │
//!                └ second slot: the truth ──▶ checker ◀── their logs
//! ```
//!
//! A run follows from its seed, which is printed. `make faults` does many; here is one short one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the report is printed")]

mod dice;
mod plan;
mod schema;
mod filter;
mod guard;
mod server;
mod program;
mod proxy;
mod writers;
mod log;
mod clients;
mod inject;
mod run;
mod truth;
mod due;
mod held;
mod throttled;
mod shift;
mod check;
mod report;
mod pause;
#[path = "../postgres/program.rs"]
#[expect(dead_code, reason = "the other ring uses all of it")]
mod command;
#[path = "../postgres/support.rs"]
#[expect(dead_code, reason = "the other ring uses all of it")]
mod support;

use std::time::Duration;

use plan::Plan;

/// `WALCAST_SEED` is the first seed, `WALCAST_FAULT_SEEDS` says how many follow it,
/// `WALCAST_FAULT_SECONDS` how long each runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_whatever_goes_wrong() {
    let first = setting("WALCAST_SEED", 1);
    let seconds = Duration::from_secs(setting("WALCAST_FAULT_SECONDS", 15));
    let mut total = report::Report::default();
    for seed in first..first + setting("WALCAST_FAULT_SEEDS", 1) {
        let plan = Plan::new(seed, seconds);
        println!("seed {seed}, {seconds:?}: {:?}", plan.profile);
        let outcome = run::run(&plan).await;
        total.add(seed, &outcome);
    }
    println!("{total}");
    assert!(total.violations.is_empty(), "the contract was violated; see above");
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var_os(name).and_then(|text| text.into_string().ok());
    text.map_or(default, |text| text.parse().unwrap())
}

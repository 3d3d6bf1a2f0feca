//! The simulation: shards and WebSocket sessions over connections in memory, on a clock that only
//! moves when nothing is left to do. A seed makes a schedule of what clients, the database and the
//! daemon's own restarts do; a naive model says what each subscriber must have been told: exactly
//! its visible changes in commit order, once each, or a part of them and a `resync` with the right
//! reason, and never anything else.
//!
//! `schedule` is what happens, `sight` what must be told of a change, `client` holds every frame
//! against it. `WALCAST_SEED` runs one seed again and prints what happened; `WALCAST_SEEDS` sets
//! how many are tried from there, or from one that the clock gives (`make simulation SEEDS=10000`).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic; JSON is read by index")]
#![expect(clippy::print_stdout, reason = "whoever reads of a failure needs the seed")]

mod client;
mod history;
mod pipe;
mod random;
mod schedule;
mod sight;
mod tables;
mod world;

use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::client::Seen;

/// How many seeds are tried where nobody says: some seconds.
const SEEDS: u64 = 300;
/// A seed takes some hundredths of a second.
const STUCK: Duration = Duration::from_secs(20);
/// What so many seeds must have seen, or the schedules have lost something.
const MUST_BE_SEEN: [&str; 24] = [
    "row insert",
    "row update",
    "row enter",
    "row leave",
    "row delete",
    "row truncate",
    "synced ",
    "heartbeat ",
    "restart ",
    "unsubscribed ",
    "authenticated ",
    "resync too_old",
    "resync other_history",
    "resync ahead",
    "error column_forbidden",
    "error table_forbidden",
    "error subject_changed",
    "close 1012 restart",
    "expiring ",
    "expired token_expired",
    "error token_expired",
    "close 4401 token_expired",
    "close 4401 token_required",
    "metric fell_behind",
];

#[test]
fn every_subscriber_is_told_exactly_what_it_must_be() {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let given = number("WALCAST_SEED");
    let first = given.unwrap_or_else(|| now() * 1_000_000);
    let count = number("WALCAST_SEEDS").unwrap_or(if given.is_some() { 1 } else { SEEDS });
    println!("WALCAST_SEED={first} WALCAST_SEEDS={count}");
    let mut seen = Seen::new();
    let mut failed = Vec::new();
    let at = Arc::new(AtomicU64::new(first));
    watch(&at);
    for seed in first..first + count {
        at.store(seed, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| run(seed, count == 1))) {
            Ok(of) => {
                for (what, count) in of {
                    *seen.entry(what).or_default() += count;
                }
            }
            Err(panic) => {
                println!("failed: WALCAST_SEED={seed}");
                failed.push(panic);
            }
        }
    }
    println!("{seen:#?}");
    println!("{} of {count} seeds failed", failed.len());
    if let Some(panic) = failed.pop() {
        resume_unwind(panic);
    }
    let missing: Vec<_> = MUST_BE_SEEN.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(count < SEEDS || missing.is_empty(), "never seen: {missing:?}");
}

#[test]
fn a_seed_makes_the_same_run_each_time() {
    assert_eq!(run(1, false), run(1, false));
}

/// Ends the process where a seed takes for ever: the simulated clock stands still while somebody is
/// busy, so nothing in the simulation would notice.
fn watch(at: &Arc<AtomicU64>) {
    let at = Arc::clone(at);
    std::thread::spawn(move || {
        loop {
            let before = at.load(Ordering::Relaxed);
            std::thread::sleep(STUCK);
            if at.load(Ordering::Relaxed) == before {
                println!("stuck: WALCAST_SEED={before}");
                std::process::exit(1);
            }
        }
    });
}

fn run(seed: u64, told: bool) -> Seen {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, schedule::run(seed, told))
}

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|text| text.to_str().unwrap().parse().unwrap())
}

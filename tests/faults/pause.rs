//! What a `kill -9` costs a subscriber under a thousand changes a second: a pause, and nothing
//! else. How long it is, is printed.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::log::Entry;
use crate::log::Seen;
use crate::plan::Fault;
use crate::plan::Plan;
use crate::run;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_a_thousand_changes_a_second_costs_a_pause_and_nothing_else() {
    let seconds = Duration::from_secs;
    let kills = [2, 5, 8].map(|at| (seconds(at), Fault::WalcastKilled));
    let plan = Plan::steady(1, seconds(11), kills.to_vec());
    let outcome = run::run(&plan).await;
    println!("{:#?}", outcome.findings);
    assert!(outcome.findings.violations.is_empty(), "the contract was violated; see above");
    assert_eq!(outcome.done.len(), 3);
    assert!(outcome.findings.resumes >= 3);
    assert!(outcome.findings.resyncs.is_empty(), "a resync where nothing was too old");
    let rate = outcome.changes / 11;
    for done in &outcome.done {
        let (pause, late) = after(&outcome.logs[0], done.began_at);
        println!(
            "{rate} changes a second, kill -9 and start: the next row after {pause:?}, as late as ever after {late:?}"
        );
    }
}

/// How long no row came because of a kill, and how long after it rows came in time again.
fn after(log: &[Entry], kill: Instant) -> (Duration, Duration) {
    let is_lost = |entry: &Entry| entry.at > kill && matches!(entry.seen, Seen::Lost(_));
    let lost = log.iter().position(is_lost).unwrap();
    let last = log[..lost].iter().rfind(|entry| is_row(entry)).unwrap();
    let mut later = log[lost..].iter().filter(|entry| is_row(entry)).map(|entry| entry.at);
    let resumed = later.next().unwrap();
    // What was missed comes in a burst; then rows come as they are written.
    let (mut count, mut from) = (0_u64, resumed);
    for at in later {
        count += 1;
        if at - from > Duration::from_millis(100) {
            if count < 150 {
                break;
            }
            (count, from) = (0, at);
        }
    }
    (resumed - last.at, from - kill)
}

fn is_row(entry: &Entry) -> bool {
    let Seen::Frame(text) = &entry.seen else { return false };
    serde_json::from_str::<Value>(text).unwrap()["type"] == "row"
}

//! Raises the rate until a server no longer keeps up, then closes in on the point.

use std::time::Duration;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::stage::Outcome;
use crate::stage::Stage;
use crate::writer::End;
use crate::writer::Pace;

/// Above this, a rate does not count as served.
const P99_MAX_MS: f64 = 200.0;
/// Below this share of what was asked for, the writer was the limit.
const PACE_MIN: f64 = 0.9;
/// How often the interval between the last rate that was served and the first that was not is cut.
const CUTS: u32 = 2;

/// The steps of a sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    /// Rows per second.
    pub(super) first: f64,
    pub(super) factor: f64,
    pub(super) last: f64,
    pub(super) rows_per_transaction: u64,
    pub(super) each: Duration,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The highest rate that was served: everything delivered, p99 below the bound.
    pub(super) best: Option<Outcome>,
    /// The most deliveries per second of any stage, served or not.
    pub(super) peak: f64,
}

/// Runs the sweep.
pub(super) fn sweep(
    stage: &mut Stage<'_>,
    scenario: &str,
    steps: Steps,
    ledger: &mut Ledger,
) -> Fallible<Found> {
    let mut found = Found::default();
    let mut rate = steps.first;
    let mut refused = None;
    let mut cuts = 0;
    while rate <= steps.last && cuts <= CUTS {
        let pace = Pace {
            rows_per_second: Some(rate),
            rows_per_transaction: steps.rows_per_transaction,
            end: End::After(steps.each),
        };
        let outcome = stage.run(pace)?;
        ledger.stage(scenario, &outcome)?;
        found.peak = found.peak.max(outcome.deliveries_per_second);
        let recovered = outcome.is_whole();
        if is_served(&outcome) {
            found.best = Some(outcome);
        } else {
            refused = Some(rate);
        }
        if !recovered {
            break; // what is still under way would spoil the next stage
        }
        let served = found.best.as_ref().and_then(|best| best.wanted_rows_per_second);
        rate = match (served, refused) {
            (Some(served), Some(refused)) => {
                cuts += 1;
                (served * refused).sqrt()
            }
            (_, None) => rate * steps.factor,
            // Not even the first: look below it, within reason.
            (None, Some(refused)) => {
                cuts += 1;
                refused / steps.factor
            }
        };
    }
    Ok(found)
}

fn is_served(outcome: &Outcome) -> bool {
    let asked = outcome.wanted_rows_per_second.unwrap_or(0.0);
    outcome.is_whole() && outcome.p99_ms < P99_MAX_MS && outcome.rows_per_second > PACE_MIN * asked
}

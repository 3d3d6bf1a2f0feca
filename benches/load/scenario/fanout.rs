//! S1: everybody wants everything. How many deliveries a second, and what each costs.

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Server;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;
use super::sweep::Steps;
use super::sweep::sweep;

/// Deliveries per second at which a delivery's cost is taken: too few to coalesce anything.
const CALM: f64 = 50_000.0;
/// The sizes of the crowd.
pub(crate) const CROWDS: [usize; 2] = [1_000, 5_000];

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    for full in CROWDS {
        let connections = run.size(full);
        let shop = Shop::new(Wanted::Everything, connections);
        let mut stage = Stage::open(run.ground, server, &shop)?;
        let calm = CALM / connections as f64;
        for _ in 0..if run.quick { 1 } else { 3 } {
            let outcome = stage.run(Pace {
                rows_per_second: Some(calm),
                rows_per_transaction: 1,
                end: End::After(run.duration(3.0)),
            })?;
            ledger.stage("fanout-calm", &outcome)?;
            let cost = outcome.cpu_us_per_delivery();
            ledger.note(server.name(), &format!("calm_cpu_us.{full}"), cost)?;
        }
        let (start, factor) = if server.coalesces() { (4.0, 1.6) } else { (1.35, 1.35) };
        let steps = Steps {
            first: calm * start,
            factor,
            last: calm * 300.0,
            rows_per_transaction: 1,
            each: run.duration(3.0),
        };
        let found = sweep(&mut stage, "fanout", steps, ledger)?;
        let deliveries = found.best.as_ref().map_or(0.0, |best| best.deliveries_per_second);
        ledger.note(server.name(), &format!("fanout.{full}"), deliveries)?;
        ledger.note(server.name(), &format!("fanout_peak.{full}"), found.peak)?;
        if let Some(best) = found.best {
            ledger.note(server.name(), &format!("fanout_p99_ms.{full}"), best.p99_ms)?;
        }
    }
    Ok(())
}

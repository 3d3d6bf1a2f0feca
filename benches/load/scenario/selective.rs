//! S2: each change is for one of 10,000 clients. How many changes a second, and whether that
//! depends on how many filters there are.

use crate::Fallible;
use crate::ledger::Ledger;
use crate::script::KEY_STRIDE;
use crate::servers::Server;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;

use super::Run;
use super::sweep::Steps;
use super::sweep::sweep;

/// One filter each.
const CONNECTIONS: usize = 10_000;
/// With fewer, the inserts cost Postgres more than the rest costs the server.
const ROWS_PER_TRANSACTION: u64 = 50;
/// Subscriptions on each of 100 connections, for the flatness.
const FILTERS: [u64; 2] = [1, 100];

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let connections = run.size(CONNECTIONS);
    let keys = u64::try_from(connections)?;
    let shop = Shop::new(Wanted::Own { keys }, connections);
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let found = sweep(&mut stage, "selective", steps(run, server), ledger)?;
    drop(stage);
    let rate = found.best.as_ref().map_or(0.0, |best| best.deliveries_per_second);
    ledger.note(server.name(), "selective", rate)?;
    ledger.note(server.name(), "selective_peak", found.peak)?;
    if let Some(best) = found.best {
        ledger.note(server.name(), "selective_p99_ms", best.p99_ms)?;
        ledger.note(server.name(), "selective_cpu_us", best.cpu_us_per_delivery())?;
    }
    if server == Server::Walcast { flatness(run, ledger) } else { Ok(()) }
}

/// The same rows to the same 100 connections, each with one filter or with a hundred.
///
/// A row goes to the same connection both times, so the sends are equal and only the number of
/// filters differs: 100 or 10,000.
fn flatness(run: &Run<'_>, ledger: &mut Ledger) -> Fallible<()> {
    let server = Server::Walcast;
    for subscriptions in FILTERS {
        let mut shop = Shop::new(Wanted::Own { keys: KEY_STRIDE }, usize::try_from(KEY_STRIDE)?);
        shop.subscriptions = subscriptions;
        shop.row_keys = Some(KEY_STRIDE * subscriptions);
        let mut stage = Stage::open(run.ground, server, &shop)?;
        let found = sweep(&mut stage, "flatness", steps(run, server), ledger)?;
        let rate = found.best.as_ref().map_or(0.0, |best| best.deliveries_per_second);
        let filters = KEY_STRIDE * subscriptions;
        ledger.note(server.name(), &format!("filters.{filters}"), rate)?;
        if let Some(best) = found.best {
            let cost = best.cpu_us_per_delivery();
            ledger.note(server.name(), &format!("filters_cpu_us.{filters}"), cost)?;
        }
    }
    Ok(())
}

fn steps(run: &Run<'_>, server: Server) -> Steps {
    let (first, factor) = if server.coalesces() { (8_000.0, 1.5) } else { (1_000.0, 1.5) };
    let each = run.duration(3.0);
    Steps { first, factor, last: 500_000.0, rows_per_transaction: ROWS_PER_TRANSACTION, each }
}

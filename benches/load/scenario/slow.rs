//! S6: one of 100 clients stops reading for most of the time. Whether the others notice, what it
//! costs in memory, and whether the slow one gets everything in the end.

use std::time::Duration;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Server;
use crate::stage::Outcome;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;

const CONNECTIONS: usize = 100;
const CHANGES_PER_SECOND: f64 = 200.0;
/// Rows that make frames of some 3.2 kB.
const NOTE_BYTES: usize = 3_000;
/// The kernel's share of what is withheld, kept small.
const RECEIVE_BYTES: usize = 16 * 1024;
/// How much of the time the slow one does not read.
const PAUSED_SHARE: f64 = 0.75;

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let without = measure(run, server, 0)?;
    ledger.stage("slow-none", &without)?;
    let with = measure(run, server, 1)?;
    ledger.stage("slow-one", &with)?;
    let grown = with.server_resident_peak_kib as f64 - without.server_resident_peak_kib as f64;
    ledger.note(server.name(), "slow_others_p99_ratio", with.p99_ms / without.p99_ms)?;
    ledger.note(server.name(), "slow_others_p99_ms", with.p99_ms)?;
    ledger.note(server.name(), "slow_growth_mib", grown / 1024.0)?;
    ledger.note(server.name(), "slow_rows", with.slow_rows as f64)?;
    ledger.note(server.name(), "slow_missing", with.missing as f64)
}

/// Both runs take equally long, so that a ring holds as much in one as in the other.
fn measure(run: &Run<'_>, server: Server, slow: usize) -> Fallible<Outcome> {
    let duration = if run.quick { Duration::from_secs(4) } else { run.duration(40.0) };
    let resume = duration.mul_f64(PAUSED_SHARE);
    let mut shop = Shop::new(Wanted::Everything, CONNECTIONS);
    shop.note_bytes = NOTE_BYTES;
    shop.receive_bytes = Some(RECEIVE_BYTES);
    shop.slow = slow;
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let pace = |duration| Pace {
        rows_per_second: Some(CHANGES_PER_SECOND),
        rows_per_transaction: 1,
        end: End::After(duration),
    };
    stage.run(pace(Duration::from_secs(1)))?;
    stage.clients.pause(true)?;
    let mut paused = true;
    stage.run_with(pace(duration), |clients, elapsed| {
        if paused && elapsed >= resume {
            paused = false;
            clients.pause(false)?;
        }
        Ok(())
    })
}

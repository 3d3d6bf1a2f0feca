//! S4: ten thousand connections with one filter each, to whom nothing happens. What each keeps in
//! memory, before and after a burst, and how long it takes until all are subscribed.
//!
//! A burst leaves something behind that is no connection's: walcast's ring, a heap that has grown.
//! So it is run twice, once with a single connection, and the difference is what the others keep.

use std::thread;
use std::time::Duration;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::process;
use crate::servers::Server;
use crate::servers::Tuning;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;

const CONNECTIONS: usize = 10_000;
/// Rows for each connection in the burst.
const BURST: u64 = 20;
/// What a server gets to put its house in order.
const SETTLE: Duration = Duration::from_secs(3);
/// Small, so that both runs fill it.
const RING_BYTES: u64 = 4 << 20;

/// Resident memory of the server at three moments.
struct Memory {
    fresh_kib: f64,
    subscribed_kib: f64,
    after_burst_kib: f64,
    connect_seconds: f64,
}

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let connections = run.size(CONNECTIONS);
    let alone = memory(run, server, 1, ledger)?;
    let all = memory(run, server, connections, ledger)?;
    let others = (connections - 1) as f64;
    let idle = (all.subscribed_kib - all.fresh_kib) / connections as f64;
    let after_burst = (all.after_burst_kib - alone.after_burst_kib) / others;
    ledger.note(server.name(), "idle_kib", idle)?;
    ledger.note(server.name(), "idle_after_burst_kib", after_burst)?;
    ledger.note(server.name(), "idle_all_mib", all.subscribed_kib / 1024.0)?;
    ledger.note(server.name(), "connect_seconds", all.connect_seconds)
}

fn memory(
    run: &Run<'_>,
    server: Server,
    connections: usize,
    ledger: &mut Ledger,
) -> Fallible<Memory> {
    // The keys are the same in both runs; with one connection most rows are nobody's.
    let keys = u64::try_from(run.size(CONNECTIONS))?;
    let mut shop = Shop::new(Wanted::Own { keys }, connections);
    shop.tuning = Tuning { ring_bytes: RING_BYTES, ..Tuning::default() };
    let running = server.start(run.ground, shop.tuning)?;
    thread::sleep(SETTLE.min(run.duration(3.0)));
    let resident = |id: u32| process::usage(id).resident_kib as f64;
    let fresh_kib = resident(running.process.id());
    let mut stage = Stage::join(run.ground, running, &shop)?;
    thread::sleep(SETTLE.min(run.duration(3.0)));
    let subscribed_kib = resident(stage.running.process.id());
    let outcome = stage.run(Pace {
        rows_per_second: Some(keys as f64 * 2.0),
        rows_per_transaction: 50,
        end: End::Rows(keys * BURST),
    })?;
    ledger.stage("idle-burst", &outcome)?;
    thread::sleep(SETTLE.min(run.duration(3.0)));
    Ok(Memory {
        fresh_kib,
        subscribed_kib,
        after_burst_kib: resident(stage.running.process.id()),
        connect_seconds: stage.clients.connect_seconds,
    })
}

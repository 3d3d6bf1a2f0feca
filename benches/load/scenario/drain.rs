//! S5: a million changes wait in the log, and nobody wants any of them but the last.
//!
//! Measured twice. *Cold*: the server starts with the backlog before it; the clock runs from its
//! start. *Resumed*: the server runs with its subscriber, is stopped by a signal while the backlog
//! is written, and goes on; the clock runs from there. Either way a last row, the only one that
//! passes the subscriber's filter, ends it.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Signal;

use crate::Fallible;
use crate::client::Clients;
use crate::client::Crowd;
use crate::ledger::Ledger;
use crate::limits;
use crate::process;
use crate::rows::Shape;
use crate::rows::Table;
use crate::servers::Running;
use crate::servers::Server;
use crate::servers::Tuning;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;
use crate::writer::Writer;

use super::Run;

const CHANGES: usize = 1_000_000;
const ROWS_PER_TRANSACTION: u64 = 100;
/// The backlog's customers are 0 to 999; the subscriber is this one.
const SENTINEL: u64 = 1_000_003;
const WITHIN: Duration = Duration::from_secs(180);

/// What the limit and the servers are noted under.
const LIMIT: &str = "limit-ingest";

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let changes = u64::try_from(run.size(CHANGES))?;
    if server == Server::Walcast || !run.peers.is_empty() {
        run.ground.database.reset()?;
        run.ground.database.create_slot()?;
        backlog(run, changes)?;
        let limit = limits::ingest(run.ground)?;
        ledger.note(LIMIT, "drain", changes as f64 / limit.seconds)?;
        ledger.note(LIMIT, "drain_cpu_us", limit.cpu_seconds * 1e6 / changes as f64)?;
    }
    cold(run, server, changes, ledger)?;
    resumed(run, server, changes, ledger)
}

fn cold(run: &Run<'_>, server: Server, changes: u64, ledger: &mut Ledger) -> Fallible<()> {
    run.ground.database.reset()?;
    run.ground.database.create_slot()?;
    backlog(run, changes)?;
    let began = Instant::now();
    let running = server.start_as_is(run.ground, Tuning::default())?;
    let clients = subscribe(&running)?;
    sentinel(run)?;
    arrival(&clients)?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = process::usage(running.process.id()).cpu_seconds;
    ledger.note(server.name(), "drain_cold", changes as f64 / seconds)?;
    ledger.note(server.name(), "drain_cold_cpu_us", cpu * 1e6 / changes as f64)
}

fn resumed(run: &Run<'_>, server: Server, changes: u64, ledger: &mut Ledger) -> Fallible<()> {
    let running = server.start(run.ground, Tuning::default())?;
    let clients = subscribe(&running)?;
    let deadline = Instant::now() + WITHIN;
    while !run.ground.database.slot_is_read()? {
        if Instant::now() > deadline {
            return Err("nobody reads the slot".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    running.process.signal(Signal::STOP)?;
    backlog(run, changes)?;
    sentinel(run)?;
    let before = process::usage(running.process.id());
    let began = Instant::now();
    running.process.signal(Signal::CONT)?;
    arrival(&clients)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = process::usage(running.process.id());
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let mib = after.resident_kib as f64 / 1024.0;
    ledger.note(server.name(), "drain_resumed", changes as f64 / seconds)?;
    ledger.note(server.name(), "drain_resumed_cpu_us", cpu * 1e6 / changes as f64)?;
    ledger.note(server.name(), "drain_resumed_mib", mib)
}

fn backlog(run: &Run<'_>, changes: u64) -> Fallible<()> {
    let shape = Shape::new(Table::Orders, 1_000, 60);
    let mut writer = Writer::connect(&run.ground.database.target(), shape)?;
    writer.run(Pace {
        rows_per_second: None,
        rows_per_transaction: ROWS_PER_TRANSACTION,
        end: End::Rows(changes),
    })?;
    Ok(())
}

/// One client who wants the sentinel's rows only.
fn subscribe(running: &Running) -> Fallible<Clients> {
    let crowd = Crowd {
        to: running.address,
        script: running.server.script(Wanted::Own { keys: 1 }).with_key(SENTINEL),
        wanted: Wanted::Own { keys: 1 },
        connections: 1,
        threads: 1,
        slow: 0,
        receive_bytes: None,
    };
    Clients::open(&crowd, WITHIN)
}

/// Writes the row that the client waits for.
fn sentinel(run: &Run<'_>) -> Fallible<()> {
    run.ground.database.sql()?.run(&format!(
        "insert into orders (customer_id, status, seq, sent_at_us) \
         values ({SENTINEL}, 'sentinel', 1, 1)"
    ))
}

fn arrival(clients: &Clients) -> Fallible<()> {
    let began = Instant::now();
    while clients.rows() == 0 {
        if began.elapsed() > WITHIN || clients.closed() > 0 {
            return Err("the last row does not come".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

//! One stage: the writer writes for a while, the clients count, and what it cost is read off.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use crate::Fallible;
use crate::client::Clients;
use crate::client::Crowd;
use crate::process;
use crate::process::Usage;
use crate::servers;
use crate::servers::Ground;
use crate::servers::Running;
use crate::servers::Secured;
use crate::servers::Server;
use crate::servers::Tuning;
use crate::tally::Tally;
use crate::tally::Wanted;
use crate::writer::Pace;
use crate::writer::Writer;
use crate::writer::Written;

/// How long all connections may take to subscribe.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(60);
/// How long rows may still come in after the last was written.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// Nothing came for so long, and rows are missing: they are not coming.
const SILENCE: Duration = Duration::from_secs(2);
/// How long to wait for duplicates after every row has come.
const LINGER: Duration = Duration::from_millis(100);

/// What to open against a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shop {
    pub(crate) wanted: Wanted,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) note_bytes: usize,
    /// Different customers in the rows; absent: as many as there are keys.
    pub(crate) row_keys: Option<u64>,
    /// Subscriptions of each connection.
    pub(crate) subscriptions: u64,
    pub(crate) slow: usize,
    pub(crate) receive_bytes: Option<usize>,
    /// Whether the database says who sees what, and how, instead of a filter.
    pub(crate) secured: Option<Secured>,
    pub(crate) tuning: Tuning,
}

impl Shop {
    /// `connections` that all want `wanted`, of rows that make frames of some 300 bytes.
    pub(crate) fn new(wanted: Wanted, connections: usize) -> Shop {
        let tuning = Tuning::default();
        Shop {
            wanted,
            connections,
            threads: 1,
            note_bytes: 60,
            row_keys: None,
            subscriptions: 1,
            slow: 0,
            receive_bytes: None,
            secured: None,
            tuning,
        }
    }
}

/// A server, its clients, and the writer.
pub(crate) struct Stage<'a> {
    ground: &'a Ground,
    pub(crate) writer: Writer,
    pub(crate) clients: Clients,
    pub(crate) running: Running,
}

/// What a stage showed; one JSON line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) server: &'static str,
    pub(crate) connections: usize,
    pub(crate) closed: usize,
    pub(crate) wanted_rows_per_second: Option<f64>,
    pub(crate) rows_per_transaction: u64,
    pub(crate) rows_written: u64,
    pub(crate) rows_per_second: f64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    /// Rows that did not come although nothing came for a while.
    pub(crate) missing: u64,
    /// Rows that had not come when the wait for them was given up while others still came.
    pub(crate) unfinished: u64,
    pub(crate) duplicates: u64,
    pub(crate) out_of_order: u64,
    pub(crate) foreign: u64,
    pub(crate) slow_rows: u64,
    pub(crate) seconds: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) commit_p50_ms: f64,
    pub(crate) server_cpu_seconds: f64,
    pub(crate) server_resident_kib: u64,
    pub(crate) server_resident_peak_kib: u64,
    pub(crate) postgres_cpu_seconds: f64,
    pub(crate) client_cpu_seconds: f64,
    /// Cores that processes outside of the run used meanwhile.
    pub(crate) other_cores: f64,
}

impl Outcome {
    /// Every connection had each of its rows once and in order, and kept its connection.
    pub(crate) fn is_whole(&self) -> bool {
        self.faults() == 0 && self.unfinished == 0 && self.closed == 0
    }

    /// Rows missing, twice, out of order, or of somebody else.
    pub(crate) fn faults(&self) -> u64 {
        self.missing + self.duplicates + self.out_of_order + self.foreign
    }

    /// Server CPU of one delivery, in microseconds.
    pub(crate) fn cpu_us_per_delivery(&self) -> f64 {
        self.server_cpu_seconds * 1e6 / (self.delivered as f64).max(1.0)
    }
}

/// What was used when a stage began.
struct Before {
    server: Usage,
    postgres: Usage,
    client: f64,
    machine: f64,
    began: Instant,
    began_us: u64,
    closed: usize,
}

impl<'a> Stage<'a> {
    /// Starts `server` on an empty database and opens the connections.
    pub(crate) fn open(ground: &'a Ground, server: Server, shop: &Shop) -> Fallible<Stage<'a>> {
        Stage::join(ground, server.start(ground, shop.tuning)?, shop)
    }

    /// Opens the connections to a server that runs.
    pub(crate) fn join(ground: &'a Ground, running: Running, shop: &Shop) -> Fallible<Stage<'a>> {
        let target = running.target(ground, shop.wanted);
        let mut shape = servers::shape(shop.wanted, shop.note_bytes);
        shape.keys = shop.row_keys.unwrap_or(shape.keys);
        let writer = Writer::connect(&target, shape)?;
        let crowd = Crowd {
            to: running.address,
            script: match shop.secured {
                Some(secured) => servers::secured_script(secured),
                None => running.server.script(shop.wanted).with_subscriptions(shop.subscriptions),
            },
            wanted: shop.wanted,
            connections: shop.connections,
            threads: shop.threads,
            slow: shop.slow,
            receive_bytes: shop.receive_bytes,
        };
        let clients = Clients::open(&crowd, SUBSCRIBE_WITHIN)?;
        let mut stage = Stage { ground, writer, clients, running };
        stage.wait_for_slot()?;
        Ok(stage)
    }

    /// Writes at `pace` and waits until every row has come, or is not coming.
    pub(crate) fn run(&mut self, pace: Pace) -> Fallible<Outcome> {
        self.run_with(pace, |_, _| Ok(()))
    }

    /// The same; `watch` is called some hundred times a second with the time since the beginning.
    pub(crate) fn run_with(
        &mut self,
        pace: Pace,
        mut watch: impl FnMut(&Clients, Duration) -> Fallible<()>,
    ) -> Fallible<Outcome> {
        self.clients.begin(self.writer.next_seq)?;
        let before = self.before();
        let mut peak_kib = before.server.resident_kib;
        let mut sampled = Instant::now();
        let (clients, writer, process) =
            (&self.clients, &mut self.writer, &mut self.running.process);
        let (written, over) = thread::scope(|scope| -> Fallible<(Written, Over)> {
            let writing = scope.spawn(move || writer.run(pace).map_err(|error| error.to_string()));
            let mut written = None;
            let mut wait = Wait::new();
            let mut writing = Some(writing);
            loop {
                thread::sleep(Duration::from_millis(5));
                watch(clients, before.began.elapsed())?;
                process.check()?;
                if sampled.elapsed() > Duration::from_millis(250) {
                    sampled = Instant::now();
                    peak_kib = peak_kib.max(process::usage(process.id()).resident_kib);
                }
                if let Some(done) = writing.take_if(|writing| writing.is_finished()) {
                    written = Some(done.join().map_err(|_| "the writer panicked")??);
                }
                let Some(done) = &written else { continue };
                if let Some(over) = wait.over(clients, expected_rows(clients, done)) {
                    return Ok((written.expect("it was there a moment ago"), over));
                }
            }
        })?;
        let after = process::usage(self.running.process.id());
        let tally = self.clients.collect()?;
        let mut outcome = self.outcome(&before, after, &written, &tally);
        outcome.wanted_rows_per_second = pace.rows_per_second;
        outcome.rows_per_transaction = pace.rows_per_transaction;
        if over == Over::GivenUp {
            outcome.unfinished = std::mem::take(&mut outcome.missing);
        }
        outcome.server_resident_peak_kib = peak_kib.max(after.resident_kib);
        Ok(outcome)
    }

    fn wait_for_slot(&mut self) -> Fallible<()> {
        let began = Instant::now();
        while self.running.server.reads_slot() && !self.ground.database.slot_is_read()? {
            self.running.process.check()?;
            if began.elapsed() > SUBSCRIBE_WITHIN {
                return Err("nobody reads the slot".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn before(&self) -> Before {
        Before {
            server: process::usage(self.running.process.id()),
            postgres: process::usage(self.ground.database.process_id()),
            client: process::own_cpu_seconds(),
            machine: process::machine_cpu_seconds(),
            began: Instant::now(),
            began_us: crate::now_us(),
            closed: self.clients.closed(),
        }
    }

    fn outcome(&self, before: &Before, after: Usage, written: &Written, tally: &Tally) -> Outcome {
        let postgres = process::usage(self.ground.database.process_id());
        let machine = process::machine_cpu_seconds() - before.machine;
        let server_cpu = after.cpu_seconds - before.server.cpu_seconds;
        let postgres_cpu = postgres.cpu_seconds - before.postgres.cpu_seconds;
        let client_cpu = process::own_cpu_seconds() - before.client;
        let all = before.began.elapsed().as_secs_f64();
        let latest = self.clients.progress.latest_us.load(Relaxed);
        let seconds = latest.saturating_sub(before.began_us) as f64 / 1e6;
        let (expected, missing) = self.missing(written, tally);
        let ms = |us: u64| us as f64 / 1e3;
        Outcome {
            server: self.running.server.name(),
            connections: self.clients.ready(),
            closed: self.clients.closed() - before.closed,
            wanted_rows_per_second: None,
            rows_per_transaction: 0,
            rows_written: written.rows,
            rows_per_second: written.rows_per_second(),
            expected,
            delivered: tally.rows,
            missing,
            unfinished: 0,
            duplicates: tally.duplicates,
            out_of_order: tally.out_of_order,
            foreign: tally.foreign,
            slow_rows: tally.slow_rows,
            seconds,
            deliveries_per_second: tally.rows as f64 / seconds.max(1e-3),
            p50_ms: ms(tally.latency.quantile_us(0.5)),
            p95_ms: ms(tally.latency.quantile_us(0.95)),
            p99_ms: ms(tally.latency.quantile_us(0.99)),
            max_ms: ms(tally.latency.max_us()),
            commit_p50_ms: ms(written.commit.quantile_us(0.5)),
            server_cpu_seconds: server_cpu,
            server_resident_kib: after.resident_kib,
            server_resident_peak_kib: after.resident_kib,
            postgres_cpu_seconds: postgres_cpu,
            client_cpu_seconds: client_cpu,
            other_cores: (machine - server_cpu - postgres_cpu - client_cpu).max(0.0) / all,
        }
    }

    /// How many rows the connections should have had, and how many of those they did not have.
    fn missing(&self, written: &Written, tally: &Tally) -> (u64, u64) {
        let (mut expected, mut missing) = (0, 0);
        for (key, distinct) in &tally.connections {
            let rows = self.clients.wanted.rows_of(*key, written.first_seq, written.rows);
            expected += rows;
            missing += rows.saturating_sub(*distinct);
        }
        (expected, missing)
    }
}

/// How many rows all connections together should get.
fn expected_rows(clients: &Clients, written: &Written) -> u64 {
    let connections = u64::try_from(clients.ready()).expect("64 bits");
    match clients.wanted {
        Wanted::Everything => written.rows * connections,
        // Fewer connections than keys: the rows of the other keys are nobody's.
        Wanted::Own { .. } => (0..clients.ready())
            .map(|number| clients.wanted.key(number))
            .map(|key| clients.wanted.rows_of(key, written.first_seq, written.rows))
            .sum(),
    }
}

/// Decides when a stage is over, once everything is written.
struct Wait {
    began: Option<Instant>,
    rows: u64,
    changed: Instant,
    complete: Option<Instant>,
}

impl Wait {
    fn new() -> Wait {
        Wait { began: None, rows: 0, changed: Instant::now(), complete: None }
    }

    fn over(&mut self, clients: &Clients, expected: u64) -> Option<Over> {
        let began = *self.began.get_or_insert_with(Instant::now);
        let rows = clients.progress.rows.load(Relaxed);
        if rows != self.rows {
            (self.rows, self.changed) = (rows, Instant::now());
        }
        if rows >= expected {
            let complete = self.complete.get_or_insert_with(Instant::now);
            return (complete.elapsed() >= LINGER).then_some(Over::Complete);
        }
        if self.changed.elapsed() > SILENCE && began.elapsed() > SILENCE {
            return Some(Over::Silent);
        }
        (began.elapsed() > DRAIN_WITHIN).then_some(Over::GivenUp)
    }
}

/// Why a stage was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Everything has come.
    Complete,
    /// Nothing came for a while, though not everything has come.
    Silent,
    /// It still came, too slowly to wait for.
    GivenUp,
}

//! S7: everybody wants everything, as fast as it goes, while an operator asks by HTTP and by SQL: how
//! long the answers take, and what it costs that the daemon counts.
//!
//! The cost is taken from pairs of runs, one that counts and one that does not, asked alike and one
//! right after the other: what else changes on the machine changes both of a pair, and which of the
//! two is first alternates. A pair's ratio is a figure; the median of them is what is judged, and
//! the spread of runs that are the same says what it is worth.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::Fallible;
use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::servers::Server;
use crate::servers::Tuning;
use crate::sql::Sql;
use crate::stage::Outcome;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;

/// The size of the crowd.
const CROWD: usize = 1_000;
/// What is asked by HTTP, again and again.
const PATHS: [&str; 2] = ["/metrics", "/readyz"];
/// What is asked by SQL, again and again.
const STATEMENTS: [&str; 4] = ["SHOW CLIENTS", "SHOW GROUPS", "SHOW LAG", "SHOW SLOTS"];
/// How often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// An answer that takes longer does not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Pairs of runs.
const PAIRS: u32 = 7;

/// How long answers took.
struct Asked {
    http: [Histogram; PATHS.len()],
    /// For each statement, and for all of them.
    console: [Histogram; 5],
}

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    for pair in 0..if run.quick { 1 } else { PAIRS } {
        let first = pair % 2 == 0;
        let a = measure(run, server, first, ledger)?;
        let b = measure(run, server, !first, ledger)?;
        let (counted, not) = if first { (a, b) } else { (b, a) };
        let ratio = counted.deliveries_per_second / not.deliveries_per_second.max(1.0);
        ledger.note(server.name(), "watched_pair", ratio)?;
        let ratio = counted.cpu_us_per_delivery() / not.cpu_us_per_delivery().max(1e-9);
        ledger.note(server.name(), "watched_pair_cpu", ratio)?;
    }
    for figure in ["watched.counted", "watched.uncounted", "watched_pair", "watched_pair_cpu"] {
        ledger.spread(server.name(), figure);
    }
    Ok(())
}

fn measure(run: &Run<'_>, server: Server, counts: bool, ledger: &mut Ledger) -> Fallible<Outcome> {
    let tuning = Tuning { counts, ..Tuning::default() };
    let shop = Shop { tuning, ..Shop::new(Wanted::Everything, run.size(CROWD)) };
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let pace =
        Pace { rows_per_second: None, rows_per_transaction: 1, end: End::After(run.duration(5.0)) };
    let (operators, console) = (stage.running.operators(), stage.running.console(run.ground));
    let over = AtomicBool::new(false);
    let (outcome, asked) = thread::scope(|scope| -> Fallible<_> {
        let http = scope.spawn(|| ask(operators, &over));
        let sql = scope.spawn(|| query(&console, &over));
        let outcome = stage.run(pace);
        over.store(true, Relaxed);
        let http = http.join().map_err(|_| "the operator panicked")??;
        let console = sql.join().map_err(|_| "the operator at the console panicked")??;
        Ok((outcome?, Asked { http, console }))
    })?;
    drop(stage);
    fs::remove_file(&console).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let word = if counts { "counted" } else { "uncounted" };
    ledger.stage(&format!("watched-{word}"), &outcome)?;
    ledger.note(server.name(), &format!("watched.{word}"), outcome.deliveries_per_second)?;
    ledger.note(server.name(), &format!("watched_cpu_us.{word}"), outcome.cpu_us_per_delivery())?;
    if counts {
        let http = PATHS.map(|path| path.trim_start_matches('/').to_owned());
        let console = STATEMENTS.map(|it| format!("console {it}")).into_iter();
        let console = console.chain(["console".to_owned()]).zip(&asked.console);
        for (of, times) in http.into_iter().zip(&asked.http).chain(console) {
            let ms = |us: u64| us as f64 / 1e3;
            ledger.note(server.name(), &format!("{of}_p99_ms"), ms(times.quantile_us(0.99)))?;
            ledger.note(server.name(), &format!("{of}_max_ms"), ms(times.max_us()))?;
        }
    }
    Ok(outcome)
}

/// Asks by HTTP until it is over; how long the answers took, by path.
fn ask(operator: SocketAddr, over: &AtomicBool) -> Result<[Histogram; PATHS.len()], String> {
    let mut times = [Histogram::new(), Histogram::new()];
    while !over.load(Relaxed) {
        for (path, times) in PATHS.iter().zip(&mut times) {
            let began = Instant::now();
            get(operator, path).map_err(|error| format!("{path}: {error}"))?;
            times.add(micros(began));
            thread::sleep(ASK_EVERY);
        }
    }
    Ok(times)
}

/// Asks by SQL until it is over, over one connection as psql does.
fn query(console: &Path, over: &AtomicBool) -> Result<[Histogram; 5], String> {
    let mut sql = Sql::connect(console, "root", "walcast").map_err(|error| error.to_string())?;
    let mut times: [Histogram; 5] = std::array::from_fn(|_| Histogram::new());
    while !over.load(Relaxed) {
        let [of_each @ .., of_all] = &mut times;
        for (statement, times) in STATEMENTS.iter().zip(of_each) {
            let began = Instant::now();
            sql.run(statement).map_err(|error| format!("{statement}: {error}"))?;
            times.add(micros(began));
            of_all.add(micros(began));
            thread::sleep(ASK_EVERY);
        }
    }
    Ok(times)
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// One question on a connection of its own, read to its end.
fn get(operator: SocketAddr, path: &str) -> Fallible<()> {
    let mut socket = TcpStream::connect_timeout(&operator, ANSWER_WITHIN)?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: walcast\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&answer).into_owned().into())
    }
}

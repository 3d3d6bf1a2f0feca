//! S7: everybody wants everything, as fast as it goes, while an operator asks: how long the answers
//! take, and what it costs that the daemon counts.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
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
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;

/// The size of the crowd.
const CROWD: usize = 1_000;
/// What is asked, again and again.
const PATHS: [&str; 2] = ["/metrics", "/readyz"];
/// How often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// An answer that takes longer does not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let rounds = if run.quick { 1 } else { 3 };
    // By turns, so that what else changes on the machine changes both.
    for _ in 0..rounds {
        for counts in [false, true] {
            measure(run, server, counts, ledger)?;
        }
    }
    Ok(())
}

fn measure(run: &Run<'_>, server: Server, counts: bool, ledger: &mut Ledger) -> Fallible<()> {
    let tuning = Tuning { counts, ..Tuning::default() };
    let shop = Shop { tuning, ..Shop::new(Wanted::Everything, run.size(CROWD)) };
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let pace =
        Pace { rows_per_second: None, rows_per_transaction: 1, end: End::After(run.duration(5.0)) };
    let operator = stage.running.operators();
    let over = AtomicBool::new(false);
    let (outcome, asked) = thread::scope(|scope| -> Fallible<_> {
        let asking = counts.then(|| scope.spawn(|| ask(operator, &over)));
        let outcome = stage.run(pace);
        over.store(true, Relaxed);
        let asked = asking.map(|it| it.join().map_err(|_| "the operator panicked")).transpose()?;
        Ok((outcome?, asked))
    })?;
    let word = if counts { "counted" } else { "uncounted" };
    ledger.stage(&format!("watched-{word}"), &outcome)?;
    ledger.note(server.name(), &format!("watched.{word}"), outcome.deliveries_per_second)?;
    ledger.note(server.name(), &format!("watched_cpu_us.{word}"), outcome.cpu_us_per_delivery())?;
    for (path, times) in PATHS.iter().zip(asked.transpose()?.into_iter().flatten()) {
        let of = path.trim_start_matches('/');
        let ms = |us: u64| us as f64 / 1e3;
        ledger.note(server.name(), &format!("{of}_p99_ms"), ms(times.quantile_us(0.99)))?;
        ledger.note(server.name(), &format!("{of}_max_ms"), ms(times.max_us()))?;
    }
    Ok(())
}

/// Asks until it is over; how long the answers took, by path.
fn ask(operator: SocketAddr, over: &AtomicBool) -> Result<[Histogram; 2], String> {
    let mut times = [Histogram::new(), Histogram::new()];
    while !over.load(Relaxed) {
        for (path, times) in PATHS.iter().zip(&mut times) {
            let began = Instant::now();
            get(operator, path).map_err(|error| format!("{path}: {error}"))?;
            times.add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            thread::sleep(ASK_EVERY);
        }
    }
    Ok(times)
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

//! The limits that need no server: the walsender itself, and the kernel's sends.

use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Instant;

use crate::Fallible;
use crate::database::DATABASE;
use crate::database::PUBLICATION;
use crate::database::SLOT;
use crate::process;
use crate::process::guarded;
use crate::servers::Ground;

/// What reading a backlog with `pg_recvlogical` took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ingest {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

/// Reads the slot up to the log's present end and throws everything away.
pub(crate) fn ingest(ground: &Ground) -> Fallible<Ingest> {
    let mut sql = ground.database.sql()?;
    let end = sql.first_column("select pg_current_wal_lsn()")?.concat();
    // Something must come after the end, or the walsender does not get there.
    sql.run("insert into orders (customer_id, seq, sent_at_us) values (0, 0, 0)")?;
    let mut command = guarded(ground.database.program("pg_recvlogical")?);
    ground.database.introduce(&mut command);
    command.args(["--dbname", DATABASE, "--slot", SLOT, "--start", "--no-loop"]);
    command.args(["--file", "/dev/null", "--fsync-interval", "0", "--endpos", &end]);
    command.args(["--option", "proto_version=1"]);
    command.args(["--option", &format!("publication_names={PUBLICATION}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (began, cpu) = (Instant::now(), process::waited_cpu_seconds());
    let status = command.status()?;
    if !status.success() {
        return Err(format!("pg_recvlogical ended with {status}").into());
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Ingest { seconds, cpu_seconds: process::waited_cpu_seconds() - cpu })
}

/// Microseconds of one 300-byte send over loopback, both ends in one thread and nobody to wake,
/// each of `pairs` connections in turn.
pub(crate) fn bare_send_us(pairs: usize, rounds: u32) -> Fallible<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut connections = Vec::with_capacity(pairs);
    for _ in 0..pairs {
        let receiver = TcpStream::connect(address)?;
        let (sender, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        connections.push((sender, receiver));
    }
    let (frame, mut chunk) = ([b'x'; 300], vec![0; 64 * 1024]);
    let mut sending = 0.0;
    for _ in 0..rounds {
        let began = Instant::now();
        for (sender, _) in &mut connections {
            sender.write_all(&frame)?;
        }
        sending += began.elapsed().as_secs_f64();
        for (_, receiver) in &mut connections {
            let _ = receiver.read(&mut chunk)?;
        }
    }
    Ok(sending * 1e6 / (pairs as f64 * f64::from(rounds)))
}

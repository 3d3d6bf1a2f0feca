//! The writer: rows at a given pace, into Postgres or, for what has no database, straight in.
//!
//! The pace is an open loop: transaction `i` is due at a time that does not depend on how long the
//! ones before it took, so a slow server does not slow down its own measurement. A writer that
//! cannot keep the pace shows in [`Written::rows_per_second`].

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::Fallible;
use crate::histogram::Histogram;
use crate::now_us;
use crate::rows::Shape;
use crate::sql::Sql;

/// Where rows go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A Postgres server's unix socket.
    Postgres { socket: PathBuf, user: String, database: String },
    /// The peer's own HTTP action, which writes the row and tells its clients.
    Http(SocketAddr),
    /// `limit-relay`: a line per row, the receiver's key (or `*`) and the finished frame.
    Lines { to: SocketAddr, selective: bool },
}

/// When to write how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Absent: as fast as possible.
    pub(crate) rows_per_second: Option<f64>,
    pub(crate) rows_per_transaction: u64,
    pub(crate) end: End,
}

/// When a stage's writing is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    After(Duration),
    Rows(u64),
}

/// What was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) first_seq: u64,
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    /// How long each transaction (or post, or write) took the writer.
    pub(crate) commit: Histogram,
}

impl Written {
    /// What the writer managed.
    pub(crate) fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.seconds.max(1e-9)
    }
}

enum Sink {
    Postgres(Sql),
    Http(TcpStream),
    Lines { stream: TcpStream, selective: bool },
}

/// Writes rows with ever growing `seq`.
pub(crate) struct Writer {
    sink: Sink,
    pub(crate) shape: Shape,
    pub(crate) next_seq: u64,
}

impl Writer {
    /// Connects to `target`.
    pub(crate) fn connect(target: &Target, shape: Shape) -> Fallible<Writer> {
        let tcp = |to: &SocketAddr| -> Fallible<TcpStream> {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(Duration::from_secs(60)))?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            Ok(stream)
        };
        let sink = match target {
            Target::Postgres { socket, user, database } => {
                Sink::Postgres(Sql::connect(socket, user, database)?)
            }
            Target::Http(to) => Sink::Http(tcp(to)?),
            Target::Lines { to, selective } => {
                Sink::Lines { stream: tcp(to)?, selective: *selective }
            }
        };
        Ok(Writer { sink, shape, next_seq: 1 })
    }

    /// Writes at `pace` and returns when all of it is committed.
    pub(crate) fn run(&mut self, pace: Pace) -> Fallible<Written> {
        let began = Instant::now();
        let (first_seq, mut commit) = (self.next_seq, Histogram::new());
        loop {
            let rows = self.next_seq - first_seq;
            let due = pace.rows_per_second.map_or(0.0, |rate| rows as f64 / rate);
            let count = match pace.end {
                End::After(end) if due >= end.as_secs_f64() || began.elapsed() >= end => 0,
                End::After(_) => pace.rows_per_transaction,
                End::Rows(all) => pace.rows_per_transaction.min(all - rows),
            };
            if count == 0 {
                let seconds = began.elapsed().as_secs_f64();
                return Ok(Written { first_seq, rows, seconds, commit });
            }
            let early = due - began.elapsed().as_secs_f64();
            if early > 0.0 {
                thread::sleep(Duration::from_secs_f64(early));
            }
            let sent = Instant::now();
            self.transaction(count)?;
            commit.add(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn transaction(&mut self, rows: u64) -> Fallible<()> {
        let first = self.next_seq;
        self.next_seq += rows;
        let (shape, now) = (&self.shape, now_us());
        match &mut self.sink {
            Sink::Postgres(sql) => sql.run(&shape.insert(first, rows, now)),
            Sink::Http(stream) => {
                let rows = (first..first + rows).map(|seq| shape.json(seq, now));
                let rows = rows.collect::<Vec<_>>().join(",");
                post(stream, &format!("{{\"table\":\"{}\",\"rows\":[{rows}]}}", shape.table.name()))
            }
            Sink::Lines { stream, selective } => {
                let mut lines = String::new();
                for seq in first..first + rows {
                    if *selective {
                        lines.push_str(&(seq % shape.keys).to_string());
                    } else {
                        lines.push('*');
                    }
                    lines.push(' ');
                    lines.push_str(&shape.frame(seq, now));
                    lines.push('\n');
                }
                Ok(stream.write_all(lines.as_bytes())?)
            }
        }
    }
}

/// Posts `body` and waits for the answer, which has none and is 204 when all is well.
fn post(stream: &mut TcpStream, body: &str) -> Fallible<()> {
    let length = body.len();
    let request = format!(
        "POST /rows HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 2048]);
    while !answer.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut chunk)?;
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        if read == 0 || answer.len() > 16 * 1024 {
            return Err("the action's answer does not end".into());
        }
    }
    if answer.starts_with(b"HTTP/1.1 204") {
        return Ok(());
    }
    Err(format!("the action answered {}", String::from_utf8_lossy(&answer)).into())
}

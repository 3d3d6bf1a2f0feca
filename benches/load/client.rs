//! The load client: threads that hold many connections and count what comes in on them.
//!
//! A thread waits in one `epoll` for all its connections. It counts into memory of its own; the
//! totals that the stage watches while it runs are published once per wake-up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::Waker;

use crate::Fallible;
use crate::connection;
use crate::connection::Common;
use crate::connection::Connection;
use crate::connection::Turn;
use crate::now_us;
use crate::script::Script;
use crate::tally::Reader;
use crate::tally::Tally;
use crate::tally::Wanted;

/// The waker's token; connections have theirs from 0.
const WAKER: Token = Token(usize::MAX);
/// How many connections of a thread may be between connect and subscribed.
const OPENING_MAX: usize = 200;

/// Which connections to open.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    pub(crate) to: SocketAddr,
    pub(crate) script: Script,
    pub(crate) wanted: Wanted,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// The first so many of them stop reading when told to.
    pub(crate) slow: usize,
    /// The kernel's receive buffer of every connection, where it matters.
    pub(crate) receive_bytes: Option<usize>,
}

/// What all threads have seen so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Subscribed connections.
    pub(crate) ready: AtomicUsize,
    /// Connections that ended.
    pub(crate) closed: AtomicUsize,
    /// Rows since the stage began.
    pub(crate) rows: AtomicU64,
    /// When the latest row came in.
    pub(crate) latest_us: AtomicU64,
    stopping: AtomicBool,
}

enum Command {
    Begin { first_seq: u64, done: mpsc::Sender<()> },
    Collect(mpsc::Sender<Tally>),
    Pause(bool),
}

/// The connections of one server under test. Dropping it closes them.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) progress: Arc<Progress>,
    pub(crate) wanted: Wanted,
    /// From the first connect to the last subscription.
    pub(crate) connect_seconds: f64,
    threads: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// Opens the connections and waits until every one of them is subscribed.
    pub(crate) fn open(crowd: &Crowd, within: Duration) -> Fallible<Clients> {
        let progress = Arc::new(Progress::default());
        let began = Instant::now();
        let threads = (0..crowd.threads)
            .map(|thread| start(crowd.clone(), thread, Arc::clone(&progress)))
            .collect::<Fallible<Vec<_>>>()?;
        let wanted = crowd.wanted;
        let mut clients = Clients { progress, wanted, connect_seconds: 0.0, threads };
        while clients.ready() < crowd.connections {
            if began.elapsed() > within || clients.closed() > 0 {
                let (ready, closed) = (clients.ready(), clients.closed());
                let all = crowd.connections;
                return Err(
                    format!("of {all} connections {ready} subscribed, {closed} closed").into()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
        clients.connect_seconds = began.elapsed().as_secs_f64();
        Ok(clients)
    }

    /// How many connections are subscribed.
    pub(crate) fn ready(&self) -> usize {
        self.progress.ready.load(Relaxed)
    }

    /// How many connections have ended.
    pub(crate) fn closed(&self) -> usize {
        self.progress.closed.load(Relaxed)
    }

    /// How many rows have come in since the stage began.
    pub(crate) fn rows(&self) -> u64 {
        self.progress.rows.load(Relaxed)
    }

    /// Begins a stage whose first row is `first_seq`.
    pub(crate) fn begin(&self, first_seq: u64) -> Fallible<()> {
        let (done, wait) = mpsc::channel();
        for thread in &self.threads {
            thread.tell(Command::Begin { first_seq, done: done.clone() })?;
        }
        for _ in &self.threads {
            wait.recv_timeout(Duration::from_secs(20))?;
        }
        self.progress.rows.store(0, Relaxed);
        Ok(())
    }

    /// What came in since the stage began.
    pub(crate) fn collect(&self) -> Fallible<Tally> {
        let (answer, answers) = mpsc::channel();
        for thread in &self.threads {
            thread.tell(Command::Collect(answer.clone()))?;
        }
        let mut sum = Tally::new();
        for _ in &self.threads {
            sum.merge(answers.recv_timeout(Duration::from_secs(20))?);
        }
        Ok(sum)
    }

    /// Makes the slow connections stop reading, or go on.
    pub(crate) fn pause(&self, stop: bool) -> Fallible<()> {
        self.threads.iter().try_for_each(|thread| thread.tell(Command::Pause(stop)))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.progress.stopping.store(true, Relaxed);
        for handle in &mut self.threads {
            let _ = handle.waker.wake();
            if let Some(thread) = handle.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Handle {
    fn tell(&self, command: Command) -> Fallible<()> {
        self.commands.send(command).map_err(|_| "a client thread has ended")?;
        Ok(self.waker.wake()?)
    }
}

fn start(crowd: Crowd, thread: usize, progress: Arc<Progress>) -> Fallible<Handle> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    let (commands, inbox) = mpsc::channel();
    let numbers: Vec<usize> = (thread..crowd.connections).step_by(crowd.threads).collect();
    let common = Common::new(crowd.script.clone(), crowd.wanted);
    let worker = Worker {
        poll,
        common,
        numbers,
        crowd,
        progress,
        connections: Vec::new(),
        opening: 0,
        published: 0,
        again: VecDeque::new(),
    };
    let thread = thread::Builder::new().name("client".to_owned());
    let thread = thread.spawn(move || worker.run(&inbox))?;
    Ok(Handle { commands, waker, thread: Some(thread) })
}

struct Worker {
    poll: Poll,
    common: Common,
    /// The numbers, among all threads' connections, of this thread's.
    numbers: Vec<usize>,
    crowd: Crowd,
    progress: Arc<Progress>,
    connections: Vec<Connection>,
    opening: usize,
    /// How many of the tally's rows `progress` knows of.
    published: u64,
    /// Connections with more to read than one turn allowed.
    again: VecDeque<usize>,
}

impl Worker {
    fn run(mut self, inbox: &mpsc::Receiver<Command>) {
        let mut events = Events::with_capacity(1024);
        while !self.progress.stopping.load(Relaxed) {
            self.open_more();
            let patience = if self.again.is_empty() { 100 } else { 0 };
            match self.poll.poll(&mut events, Some(Duration::from_millis(patience))) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return,
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                if event.token() == WAKER {
                    continue;
                }
                if event.is_writable() {
                    self.writable(event.token().0);
                }
                if event.is_readable() || event.is_read_closed() {
                    self.read(event.token().0);
                }
            }
            for _ in 0..self.again.len() {
                if let Some(at) = self.again.pop_front() {
                    self.read(at);
                }
            }
            self.publish();
            while let Ok(command) = inbox.try_recv() {
                self.obey(command);
            }
        }
    }

    fn open_more(&mut self) {
        while self.opening < OPENING_MAX {
            let at = self.connections.len();
            let Some(number) = self.numbers.get(at).copied() else { return };
            let Ok(mut stream) =
                connection::connect(self.crowd.to, number, self.crowd.receive_bytes)
            else {
                // Out of ports or files: the count of those closed stops the run.
                self.progress.closed.fetch_add(1, Relaxed);
                self.numbers.truncate(at);
                return;
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut stream, Token(at), interest);
            registered.expect("a new socket can be registered");
            let reader = Reader::new(self.crowd.wanted.key(number), number < self.crowd.slow);
            self.connections.push(Connection::new(stream, reader));
            self.opening += 1;
        }
    }

    fn writable(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        if let Err(reason) = connection.writable(&self.common.script) {
            self.closed(&reason);
        }
    }

    fn read(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        let was_ready = connection.is_ready();
        match connection.readable(&mut self.common) {
            Turn::Drained => {}
            Turn::More => self.again.push_back(at),
            Turn::BecameReady => {
                self.opening -= 1;
                self.progress.ready.fetch_add(1, Relaxed);
            }
            Turn::Closed(reason) => {
                if was_ready {
                    self.progress.ready.fetch_sub(1, Relaxed);
                } else {
                    self.opening -= 1;
                }
                self.closed(&reason);
            }
        }
    }

    fn closed(&self, reason: &str) {
        if self.progress.closed.fetch_add(1, Relaxed) == 0 {
            eprintln!("  the first connection that ended: {reason}");
        }
    }

    fn publish(&mut self) {
        let rows = self.common.tally.rows;
        if rows != self.published {
            self.progress.rows.fetch_add(rows - self.published, Relaxed);
            self.progress.latest_us.store(now_us(), Relaxed);
            self.published = rows;
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { first_seq, done } => {
                self.common.tally = Tally::new();
                self.published = 0;
                for connection in &mut self.connections {
                    connection.reader.begin(first_seq);
                }
                let _ = done.send(());
            }
            Command::Collect(answer) => {
                let readers = self.connections.iter().map(|connection| connection.reader);
                let counted = readers.map(|reader| (reader.key, reader.distinct()));
                self.common.tally.connections = counted.collect();
                let _ = answer.send(self.common.tally.clone());
            }
            Command::Pause(stop) => {
                for at in 0..self.connections.len() {
                    let Some(connection) = self.connections.get_mut(at) else { continue };
                    if connection.reader.slow {
                        connection.paused = stop;
                        self.again.push_back(at);
                    }
                }
            }
        }
    }
}

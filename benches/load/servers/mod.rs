//! The servers under test: how each is started, how clients ask it, and where its rows come from.

mod node;
mod relay;
mod walcast;

pub(crate) use walcast::Secured;
pub(crate) use walcast::secured_script;

use std::fs::File;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::Fallible;
use crate::database::Database;
use crate::process::Process;
use crate::relay::Writes;
use crate::rows::Shape;
use crate::rows::Table;
use crate::script::Script;
use crate::tally::Wanted;
use crate::writer::Target;

/// Node takes a while, and compiles on the way.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Server {
    /// The program this project is about.
    Walcast,
    /// Node: the slot, `ws`, and a loop over all subscribers.
    NodePgoutputWs,
    /// Node: trigger, LISTEN/NOTIFY, Socket.IO rooms.
    SocketioNotify,
    /// Node: an action that writes the row and emits it.
    SocketioAction,
    /// The limit: no database, one write per client and pass.
    LimitRelay,
    /// The same with one write per message.
    LimitRelay1,
}

/// Where a run keeps its things, and the database.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) database: Database,
    /// `target/bench`: logs, generated settings, Node packages, results.
    pub(crate) folder: PathBuf,
}

/// What scenarios may want of a server's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// How much walcast's ring may hold; what it holds is no connection's memory.
    pub(crate) ring_bytes: u64,
    /// Whether walcast counts what it delivers.
    pub(crate) counts: bool,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning { ring_bytes: 128 << 20, counts: true }
    }
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    control: SocketAddr,
}

impl Server {
    /// As it is written on the command line and in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Walcast => "walcast",
            Server::NodePgoutputWs => "node-pgoutput-ws",
            Server::SocketioNotify => "socketio-notify",
            Server::SocketioAction => "socketio-action",
            Server::LimitRelay => "limit-relay",
            Server::LimitRelay1 => "limit-relay-1",
        }
    }

    /// Whether it writes once per client for all that is pending, and so goes far higher.
    pub(crate) fn coalesces(self) -> bool {
        match self {
            Server::Walcast | Server::LimitRelay => true,
            Server::NodePgoutputWs
            | Server::SocketioNotify
            | Server::SocketioAction
            | Server::LimitRelay1 => false,
        }
    }

    /// Whether it reads a slot, which it then finds ready.
    pub(crate) fn reads_slot(self) -> bool {
        match self {
            Server::Walcast | Server::NodePgoutputWs => true,
            Server::SocketioNotify
            | Server::SocketioAction
            | Server::LimitRelay
            | Server::LimitRelay1 => false,
        }
    }

    /// How its clients subscribe.
    pub(crate) fn script(self, wanted: Wanted) -> Script {
        match self {
            Server::Walcast => walcast::script(wanted),
            Server::NodePgoutputWs => node::plain_script(wanted),
            Server::SocketioNotify | Server::SocketioAction => node::socketio_script(wanted),
            Server::LimitRelay | Server::LimitRelay1 => relay::script(wanted),
        }
    }

    /// Starts it on an empty database with a fresh slot.
    pub(crate) fn start(self, ground: &Ground, tuning: Tuning) -> Fallible<Running> {
        ground.database.reset()?;
        if self.reads_slot() {
            ground.database.create_slot()?;
        }
        self.start_as_is(ground, tuning)
    }

    /// Starts it on the database and the slot as they are, and waits until its port is open.
    pub(crate) fn start_as_is(self, ground: &Ground, tuning: Tuning) -> Fallible<Running> {
        let (address, control) = (free_address()?, free_address()?);
        let mut command = match self {
            Server::Walcast => walcast::command(ground, (address, control), tuning)?,
            Server::NodePgoutputWs | Server::SocketioNotify | Server::SocketioAction => {
                node::command(self, ground, address)?
            }
            Server::LimitRelay => relay::command(address, control, Writes::PerPass)?,
            Server::LimitRelay1 => relay::command(address, control, Writes::PerMessage)?,
        };
        let log = File::options().create(true).append(true).open(self.log(ground))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::start(&mut command)?;
        let mut running = Running { server: self, process, address, control };
        running.wait_until_open()?;
        Ok(running)
    }

    fn log(self, ground: &Ground) -> PathBuf {
        ground.folder.join(format!("{}.log", self.name()))
    }
}

impl Running {
    /// Where rows for its clients are to be written.
    pub(crate) fn target(&self, ground: &Ground, wanted: Wanted) -> Target {
        match self.server {
            Server::Walcast | Server::NodePgoutputWs | Server::SocketioNotify => {
                ground.database.target()
            }
            Server::SocketioAction => Target::Http(self.address),
            Server::LimitRelay | Server::LimitRelay1 => {
                Target::Lines { to: self.control, selective: wanted != Wanted::Everything }
            }
        }
    }

    /// Where walcast answers operators.
    pub(crate) const fn operators(&self) -> SocketAddr {
        self.control
    }

    /// Where walcast answers operators by SQL: a socket, whose file goes with what it is for.
    pub(crate) fn console(&self, ground: &Ground) -> PathBuf {
        walcast::console(ground, self.control)
    }

    fn wait_until_open(&mut self) -> Fallible<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            self.process.check()?;
            if began.elapsed() > START_WITHIN {
                return Err(format!("{} does not open its port", self.server.name()).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// The rows that clients with these wishes are sent.
pub(crate) fn shape(wanted: Wanted, note_bytes: usize) -> Shape {
    match wanted {
        Wanted::Everything => Shape::new(Table::Locations, 1_000, note_bytes),
        Wanted::Own { keys } => Shape::new(Table::Orders, keys, note_bytes),
    }
}

/// A loopback port that was free a moment ago.
fn free_address() -> Fallible<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// `command` with the variables that tell a Node peer where it is.
fn at_port(command: &mut Command, address: SocketAddr) {
    command.env("PORT", address.port().to_string());
}

//! One WebSocket connection of the load client: upgrade, subscribe, then rows.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use mio::net::TcpStream;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::frame;
use crate::frame::RowFinder;
use crate::now_us;
use crate::script::Script;
use crate::script::Step;
use crate::tally::Reader;
use crate::tally::Tally;
use crate::tally::Wanted;

/// How many connections leave from one loopback address; the kernel has some 28,000 ports for each.
const CONNECTIONS_PER_ADDRESS: usize = 20_000;
/// The largest frame that can be read, and how much is read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How many full buffers one connection may read before the others have their turn.
const READS_PER_TURN: usize = 4;

/// What is the same for all connections of a thread, and the memory they share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) script: Script,
    pub(crate) wanted: Wanted,
    pub(crate) finder: RowFinder,
    pub(crate) tally: Tally,
    buffer: Vec<u8>,
}

impl Common {
    pub(crate) fn new(script: Script, wanted: Wanted) -> Common {
        let (finder, tally) = (RowFinder::new(), Tally::new());
        Common { script, wanted, finder, tally, buffer: vec![0; BUFFER_BYTES] }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) reader: Reader,
    state: State,
    /// Subscriptions that stand.
    answers: u64,
    /// The beginning of a frame (or of the upgrade's answer) whose end has not come yet.
    held: Vec<u8>,
    /// A slow reader that does not read at present.
    pub(crate) paused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Upgrading,
    Subscribing,
    Ready,
    Closed,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing is left to read.
    Drained,
    /// More is there; go on after the others.
    More,
    /// The subscription stands since this turn, and nothing is left to read.
    BecameReady,
    /// The connection ended, or the server broke the protocol.
    Closed(String),
}

/// Starts to connect from an address of its own share; `receive_bytes` bounds the kernel's buffer.
pub(crate) fn connect(
    to: SocketAddr,
    number: usize,
    receive_bytes: Option<usize>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if number >= CONNECTIONS_PER_ADDRESS {
        let host = u8::try_from(number / CONNECTIONS_PER_ADDRESS).unwrap_or(u8::MAX - 1) + 1;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, reader: Reader) -> Connection {
        Connection {
            stream,
            reader,
            state: State::Connecting,
            answers: 0,
            held: Vec::new(),
            paused: false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// To be called when the socket can be written: the first time it is connected then.
    pub(crate) fn writable(&mut self, script: &Script) -> Result<(), String> {
        if self.state != State::Connecting {
            return Ok(());
        }
        if let Some(error) = self.stream.take_error().map_err(|error| error.to_string())? {
            return Err(error.to_string());
        }
        self.state = State::Upgrading;
        self.say(script.upgrade(self.reader.key).as_bytes())
    }

    /// Reads what is there, up to a bound that keeps one connection from holding up the others.
    pub(crate) fn readable(&mut self, common: &mut Common) -> Turn {
        if self.paused || matches!(self.state, State::Closed | State::Connecting) {
            return Turn::Drained;
        }
        let was_ready = self.is_ready();
        let mut turns = 0;
        let end = loop {
            if turns == READS_PER_TURN {
                break Turn::More;
            }
            turns += 1;
            match self.read_once(common) {
                Ok(true) => {}
                Ok(false) => break Turn::Drained,
                Err(reason) => {
                    self.state = State::Closed;
                    return Turn::Closed(reason);
                }
            }
        };
        if self.is_ready() && !was_ready { Turn::BecameReady } else { end }
    }

    /// One read; whether there may be more.
    fn read_once(&mut self, common: &mut Common) -> Result<bool, String> {
        let mut buffer = std::mem::take(&mut common.buffer);
        let (head, room) = buffer.split_at_mut(self.held.len());
        head.copy_from_slice(&self.held);
        let more = match self.stream.read(room) {
            Ok(0) => Err("closed by the server".to_owned()),
            Ok(bytes) => {
                let full = bytes == room.len();
                common.tally.bytes += u64::try_from(bytes).expect("64 bits");
                let filled = self.held.len() + bytes;
                let (filled, _) = buffer.split_at(filled);
                self.take(filled, common).map(|()| full)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.to_string()),
        };
        common.buffer = buffer;
        more
    }

    /// Takes every whole frame from `bytes` and holds on to the rest.
    fn take(&mut self, bytes: &[u8], common: &mut Common) -> Result<(), String> {
        let mut rest = bytes;
        if self.state == State::Upgrading {
            let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
                self.hold(rest);
                return Ok(());
            };
            let (head, tail) = rest.split_at(end + 4);
            if !head.starts_with(b"HTTP/1.1 101") {
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(format!("upgrade refused: {}", String::from_utf8_lossy(line)));
            }
            rest = tail;
            self.state = State::Subscribing;
            let step = common.script.opening(self.reader.key);
            self.follow(step, &common.script)?;
        }
        let now = now_us();
        while let Some(frame) = frame::split(rest) {
            rest = frame.rest;
            match frame.opcode {
                frame::CLOSE => {
                    let reason = frame.payload.get(2..).unwrap_or_default();
                    return Err(format!("close frame: {}", String::from_utf8_lossy(reason)));
                }
                frame::PING => {
                    let mut pong = Vec::new();
                    frame::write_masked(frame::PONG, frame.payload, &mut pong);
                    self.say(&pong)?;
                }
                _ if self.state == State::Ready => self.row(frame.payload, now, common)?,
                _ => {
                    let step = common.script.hear(self.reader.key, frame.payload);
                    self.follow(step, &common.script)?;
                }
            }
        }
        if rest.len() >= BUFFER_BYTES / 2 {
            return Err("a frame longer than the load client takes".to_owned());
        }
        self.hold(rest);
        Ok(())
    }

    fn row(&mut self, payload: &[u8], now: u64, common: &mut Common) -> Result<(), String> {
        let mut rest = payload;
        let mut rows = false;
        while let Some((row, tail)) = common.finder.next(rest) {
            common.tally.count(common.wanted, &mut self.reader, row, now);
            rest = tail;
            rows = true;
        }
        match (rows, common.script.answer(payload)) {
            (false, Some(answer)) => self.say_text(answer),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, step: Step, script: &Script) -> Result<(), String> {
        match step {
            Step::Wait => {}
            Step::Say(texts) => {
                let mut frames = Vec::new();
                for text in texts {
                    frame::write_masked(frame::TEXT, text.as_bytes(), &mut frames);
                }
                self.say(&frames)?;
            }
            Step::Answered => {
                self.answers += 1;
                if self.answers == script.answers() {
                    self.state = State::Ready;
                }
            }
            Step::Ready => self.state = State::Ready,
            Step::Refused(answer) => return Err(format!("subscription refused: {answer}")),
        }
        Ok(())
    }

    fn say_text(&mut self, text: &str) -> Result<(), String> {
        let mut frame = Vec::new();
        frame::write_masked(frame::TEXT, text.as_bytes(), &mut frame);
        self.say(&frame)
    }

    /// Requests are a few hundred bytes, which an idle socket always has room for.
    fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.stream.write(bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err("no room for a request".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn hold(&mut self, rest: &[u8]) {
        self.held.clear();
        self.held.extend_from_slice(rest);
    }
}

//! `limit-relay`: the least that a server can do, as a yardstick for one that does more.
//!
//! One thread, one `epoll`, no database and no filter: lines come in on a control port, each is
//! framed once and copied to those it is for. With [`Writes::PerPass`] a client gets everything
//! that one pass found in one write; with [`Writes::PerMessage`] it gets one write for each
//! message, which is what most servers do.

use std::collections::HashMap;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Registry;
use mio::Token;
use mio::net::TcpListener;
use mio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use crate::Fallible;
use crate::frame;

const CLIENTS: Token = Token(usize::MAX - 1);
const CONTROL: Token = Token(usize::MAX - 2);
const LINES: Token = Token(usize::MAX - 3);
/// How much of the control connection one pass reads at most.
const PASS_BYTES: usize = 256 * 1024;

/// How often a client is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Writes {
    /// Once for everything that is pending.
    PerPass,
    /// Once for each message.
    PerMessage,
}

/// Serves until the process is told to end.
pub(crate) fn serve(clients: SocketAddr, control: SocketAddr, writes: Writes) -> Fallible<()> {
    let mut poll = Poll::new()?;
    let (mut accept, mut accept_control) = (listen(clients)?, listen(control)?);
    poll.registry().register(&mut accept, CLIENTS, Interest::READABLE)?;
    poll.registry().register(&mut accept_control, CONTROL, Interest::READABLE)?;
    let mut relay = Relay {
        writes,
        clients: Vec::new(),
        by_key: HashMap::new(),
        lines: None,
        partial: Vec::new(),
        unread: false,
        chunk: vec![0; PASS_BYTES],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        let patience = relay.unread.then_some(std::time::Duration::ZERO);
        match poll.poll(&mut events, patience) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        for event in &events {
            match event.token() {
                CLIENTS => relay.accept(&accept, poll.registry())?,
                CONTROL => {
                    let (mut stream, _) = accept_control.accept()?;
                    poll.registry().register(&mut stream, LINES, Interest::READABLE)?;
                    relay.lines = Some(stream);
                }
                LINES => relay.unread = true,
                Token(at) => relay.client_event(at, event.is_readable(), event.is_writable()),
            }
        }
        if relay.unread {
            relay.pass();
        }
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(at);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

struct Relay {
    writes: Writes,
    clients: Vec<Client>,
    by_key: HashMap<u64, Vec<usize>>,
    lines: Option<TcpStream>,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// The control connection may have more to read.
    unread: bool,
    chunk: Vec<u8>,
}

struct Client {
    stream: Option<TcpStream>,
    /// The request so far; empty once it was answered.
    request: Vec<u8>,
    upgraded: bool,
    /// What the kernel would not take yet.
    pending: Vec<u8>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, Token(self.clients.len()), interest)?;
            let stream = Some(stream);
            let (request, pending) = (Vec::new(), Vec::new());
            self.clients.push(Client { stream, request, upgraded: false, pending });
        }
        Ok(())
    }

    fn client_event(&mut self, at: usize, readable: bool, writable: bool) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if writable {
            client.drain();
        }
        if readable && let Some(key) = client.read(&mut self.chunk) {
            self.by_key.entry(key).or_default().push(at);
        }
    }

    /// Reads what the control connection has, up to a bound, and hands it on.
    fn pass(&mut self) {
        let Some(stream) = self.lines.as_mut() else { return };
        match stream.read(&mut self.chunk) {
            Ok(0) => {
                self.lines = None;
                self.unread = false;
            }
            Ok(read) => {
                self.unread = read == self.chunk.len();
                self.partial.extend_from_slice(self.chunk.get(..read).unwrap_or_default());
                let whole = memchr::memrchr(b'\n', &self.partial).map_or(0, |last| last + 1);
                let rest = self.partial.split_off(whole);
                let lines = std::mem::replace(&mut self.partial, rest);
                self.hand_on(&lines);
            }
            Err(error) => self.unread = error.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn hand_on(&mut self, lines: &[u8]) {
        let mut for_all = Vec::new();
        let mut touched = Vec::new();
        for line in lines.split(|byte| *byte == b'\n') {
            let Some(blank) = memchr::memchr(b' ', line) else { continue };
            let (receiver, text) = line.split_at(blank);
            let text = text.trim_ascii_start();
            if receiver != b"*" {
                self.queue_for(receiver, text, &mut touched);
                continue;
            }
            frame::write_plain(text, &mut for_all);
            if self.writes == Writes::PerMessage {
                self.clients.iter_mut().for_each(|client| client.send(&for_all));
                for_all.clear();
            }
        }
        if !for_all.is_empty() {
            self.clients.iter_mut().for_each(|client| client.send(&for_all));
        }
        for at in touched {
            if let Some(client) = self.clients.get_mut(at) {
                client.drain();
            }
        }
    }

    /// Queues for the clients of one key; they are written to at the end of the pass.
    fn queue_for(&mut self, receiver: &[u8], text: &[u8], touched: &mut Vec<usize>) {
        let key = str::from_utf8(receiver).ok().and_then(|key| key.parse::<u64>().ok());
        for at in key.and_then(|key| self.by_key.get(&key)).into_iter().flatten() {
            let Some(client) = self.clients.get_mut(*at) else { continue };
            if client.pending.is_empty() {
                touched.push(*at);
            }
            frame::write_plain(text, &mut client.pending);
            if self.writes == Writes::PerMessage {
                client.drain();
            }
        }
    }
}

impl Client {
    /// Reads and, when the request is complete, answers it; the key when its path names one.
    fn read(&mut self, chunk: &mut [u8]) -> Option<u64> {
        loop {
            match self.stream.as_mut()?.read(chunk) {
                Ok(0) => self.stream = None,
                Ok(_) if self.upgraded => {}
                Ok(read) => {
                    self.request.extend_from_slice(chunk.get(..read).unwrap_or_default());
                    if self.request.ends_with(b"\r\n\r\n") {
                        return self.answer();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => self.stream = None,
            }
        }
    }

    fn answer(&mut self) -> Option<u64> {
        let request = String::from_utf8_lossy(&std::mem::take(&mut self.request)).into_owned();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.upgraded = true;
        self.send(answer.as_bytes());
        let path = request.split(' ').nth(1)?;
        path.strip_prefix("/key/")?.parse().ok()
    }

    /// Writes `bytes` behind what is pending.
    fn send(&mut self, bytes: &[u8]) {
        if !self.upgraded {
            return;
        }
        let mut bytes = bytes;
        if self.pending.is_empty() {
            let Some(stream) = self.stream.as_mut() else { return };
            match stream.write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.stream = None,
            }
        }
        if self.stream.is_some() {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Writes what is pending, as far as the kernel takes it.
    fn drain(&mut self) {
        let Some(stream) = self.stream.as_mut() else { return };
        let mut done = 0;
        while let Some(rest) = self.pending.get(done..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending.drain(..done);
                    return;
                }
                Err(_) => {
                    self.stream = None;
                    break;
                }
            }
        }
        self.pending = Vec::new();
    }
}

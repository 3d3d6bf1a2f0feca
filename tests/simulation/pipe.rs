//! A connection in memory: bounded towards the client, who decides how much it reads and when.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;

use tokio::sync::Notify;
use walcast::serve::wire::Socket;

/// What both ends share.
#[derive(Debug, Default)]
struct Shared {
    to_server: RefCell<VecDeque<u8>>,
    to_client: RefCell<VecDeque<u8>>,
    room: usize,
    client_gone: Cell<bool>,
    server_gone: Cell<bool>,
    readable: Notify,
    writable: Notify,
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct ServerEnd(Rc<Shared>);

/// The client's end.
#[derive(Debug)]
pub(crate) struct ClientEnd {
    shared: Rc<Shared>,
    received: Vec<u8>,
}

/// What a server sends over WebSocket.
#[derive(Debug)]
pub(crate) enum Message {
    Text(serde_json::Value),
    Ping,
    Close { code: u16, reason: String },
}

/// A connection that holds so many bytes on their way to the client.
pub(crate) fn pipe(room: usize) -> (ServerEnd, ClientEnd) {
    let shared = Rc::new(Shared { room, ..Shared::default() });
    (ServerEnd(Rc::clone(&shared)), ClientEnd { shared, received: Vec::new() })
}

impl Socket for ServerEnd {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waiting = self.0.to_server.borrow_mut();
        if waiting.is_empty() && !self.0.client_gone.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        io::Read::read(&mut *waiting, buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.client_gone.get() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mut waiting = self.0.to_client.borrow_mut();
        let before = waiting.len();
        for byte in slices.iter().flat_map(|slice| slice.iter()) {
            if waiting.len() < self.0.room {
                waiting.push_back(*byte);
            }
        }
        match waiting.len() - before {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        while self.0.to_server.borrow().is_empty() && !self.0.client_gone.get() {
            self.0.readable.notified().await;
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        while self.0.to_client.borrow().len() >= self.0.room && !self.0.client_gone.get() {
            self.0.writable.notified().await;
        }
        Ok(())
    }

    fn shutdown_write(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.server_gone.set(true);
    }
}

impl ClientEnd {
    /// Sends one text message, masked as a client's must be.
    pub(crate) fn send(&self, text: &str) {
        self.frame(0x1, text.as_bytes());
    }

    pub(crate) fn pong(&self) {
        self.frame(0xa, b"");
    }

    fn frame(&self, opcode: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut waiting = self.shared.to_server.borrow_mut();
        waiting.push_back(0x80 | opcode);
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => waiting.push_back(0x80 | length),
            _ => {
                waiting.push_back(0x80 | 126);
                waiting.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        waiting.extend(MASK);
        waiting.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.shared.readable.notify_one();
    }

    /// Takes up to `bytes_max` from the connection; how many there were.
    pub(crate) fn receive(&mut self, bytes_max: usize) -> usize {
        let mut waiting = self.shared.to_client.borrow_mut();
        let count = waiting.len().min(bytes_max);
        self.received.extend(waiting.drain(..count));
        if count > 0 {
            self.shared.writable.notify_one();
        }
        count
    }

    /// The next message that is there as a whole.
    pub(crate) fn next(&mut self) -> Option<Message> {
        let bytes = &self.received;
        let (length, header) = match *bytes.get(1)? {
            126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
            127 => panic!("no frame is this large"),
            length => (usize::from(length), 2),
        };
        if bytes.len() < header + length {
            return None;
        }
        let frame: Vec<u8> = self.received.drain(..header + length).collect();
        let payload = &frame[header..];
        Some(match frame[0] {
            0x81 => Message::Text(serde_json::from_slice(payload).unwrap()),
            0x89 => Message::Ping,
            0x88 => Message::Close {
                code: u16::from_be_bytes([payload[0], payload[1]]),
                reason: String::from_utf8(payload[2..].to_vec()).unwrap(),
            },
            other => panic!("a frame that begins with {other:#x}"),
        })
    }

    /// Whether the daemon has closed its end and nothing is on the way any more.
    pub(crate) fn ended(&self) -> bool {
        self.shared.server_gone.get() && self.shared.to_client.borrow().is_empty()
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.shared.client_gone.set(true);
        self.shared.readable.notify_one();
        self.shared.writable.notify_one();
    }
}

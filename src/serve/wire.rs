//! A TCP socket as the two sides of a session see it: the shard writes to it directly, and the
//! WebSocket state machine reads from it and answers through the outbox.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::route::outbox::Wire;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct SocketWire {
    pub(crate) socket: TcpStream,
    pub(crate) woken: Notify,
}

impl Wire for SocketWire {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            // The common case; the system call for one slice is the cheaper one.
            [only] => self.socket.try_write(only),
            several => self.socket.try_write_vectored(several),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn wake(&self) {
        self.woken.notify_one();
    }
}

/// What the WebSocket state machine takes for its stream. It writes whole frames only, so its
/// answers land between the frames that the shard writes, in order.
pub(crate) struct Half<'a> {
    pub(crate) wire: &'a SocketWire,
    pub(crate) shard: &'a RefCell<Shard>,
    pub(crate) key: SessionKey,
}

impl Read for Half<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.socket.try_read(buffer)
    }
}

impl Write for Half<'_> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.shard.borrow_mut().send(self.key, &Bytes::copy_from_slice(frames));
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

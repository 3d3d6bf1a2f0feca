//! A client's socket as the two sides of a session see it: the shard writes to it directly, and the
//! WebSocket state machine reads from it and answers through the outbox.

use std::cell::RefCell;
use std::fmt::Debug;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::route::outbox::Wire;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::serve::framing::Framing;

/// What a session needs of its connection: TCP, or a pipe where the network is simulated.
#[expect(async_fn_in_trait, reason = "a session never leaves its shard's thread")]
pub trait Socket: Debug + 'static {
    /// Reads what has come.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where nothing has; else the connection is of no more use.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what is taken at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where nothing is; else the connection is of no more use.
    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Waits until something may have come.
    async fn readable(&self) -> io::Result<()>;

    /// Waits until something may be taken.
    async fn writable(&self) -> io::Result<()>;

    /// Writes what the connection itself still holds of what it took; `false` where the system takes
    /// no more now.
    ///
    /// # Errors
    ///
    /// The connection's, where it is of no more use.
    fn flush(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether it holds nothing.
    fn is_flushed(&self) -> bool {
        true
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    ///
    /// The connection's, where it is of no more use.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Lets the system forget what was written and not yet taken, when the connection is dropped.
    fn give_up(&self) {}
}

impl Socket for TcpStream {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::try_read(self, buffer)
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            // The common case; the system call for one slice is the cheaper one.
            [only] => TcpStream::try_write(self, only),
            several => self.try_write_vectored(several),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        TcpStream::readable(self).await
    }

    async fn writable(&self) -> io::Result<()> {
        TcpStream::writable(self).await
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    fn give_up(&self) {
        let _closed_as_usual = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// A client's socket, and what wakes its session.
#[derive(Debug)]
pub(crate) struct SocketWire<S> {
    pub(crate) socket: S,
    pub(crate) woken: Notify,
}

impl<S: Socket> Wire for SocketWire<S> {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.socket.try_write(slices) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Ok(written) => {
                // What was taken as a whole waits for nobody but the socket. Where something is
                // left the outbox wakes, and a session that drains it must not wake itself for ever.
                if !self.socket.is_flushed() && written == offered(slices) {
                    self.woken.notify_one();
                }
                Ok(written)
            }
            result => result,
        }
    }

    fn wake(&self) {
        self.woken.notify_one();
    }
}

fn offered(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

/// What the WebSocket state machine takes for its stream. It writes whole frames only, so its
/// answers land between the frames that the shard writes, in order.
pub(crate) struct Half<'a, S> {
    pub(crate) wire: &'a SocketWire<S>,
    pub(crate) shard: &'a RefCell<Shard>,
    pub(crate) key: SessionKey,
    /// Follows what is read.
    pub(crate) framing: &'a mut Framing,
    /// How many bytes may be read before others have their turn.
    pub(crate) left: &'a mut usize,
}

impl<S: Socket> Read for Half<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.wire.socket.try_read(buffer)?;
        self.framing.take(buffer.get(..count).unwrap_or_default());
        *self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

impl<S: Socket> Write for Half<'_, S> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.shard.borrow_mut().send(self.key, &Bytes::copy_from_slice(frames));
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

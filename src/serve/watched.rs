//! A socket of which it is known whether it takes what it is given.
//!
//! What an answer has handed on waits in hyper, and in TLS, while its client does not read; nobody
//! takes it out from there again. Where it must not go out any more the connection is cut off.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

/// The socket.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    waiting: Waiting,
}

/// Whether something waits for the socket that it was given. Only its connection's task writes and
/// reads it; hyper wants sockets that could move to another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting(Arc<AtomicBool>);

impl Waiting {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn note<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.0.store(polled.is_pending(), Relaxed);
        polled
    }
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S) -> (Watched<S>, Waiting) {
        let waiting = Waiting::default();
        (Watched { socket, waiting: waiting.clone() }, waiting)
    }

    pub(crate) fn into_inner(self) -> S {
        self.socket
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Watched { socket, waiting } = self.get_mut();
        waiting.note(Pin::new(socket).poll_write(context, bytes))
    }

    /// What TLS has encrypted waits in TLS, and a flush waits for it.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Watched { socket, waiting } = self.get_mut();
        waiting.note(Pin::new(socket).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Watched { socket, waiting } = self.get_mut();
        waiting.note(Pin::new(socket).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

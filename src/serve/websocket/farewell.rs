//! How a WebSocket session ends: what waits goes out, then the close frame, then the socket.

use bytes::Bytes;
use tokio::task::yield_now;

use crate::route::session::Close;
use crate::serve::end::End;
use crate::serve::end::goodbye;
use crate::serve::websocket::Session;
use crate::serve::wire::Socket;

impl<S: Socket> Session<S> {
    /// Ends the session of a peer that is most likely gone: it is told, and not waited for.
    pub(super) fn abandon(&self) {
        let mut shard = self.front.shard.borrow_mut();
        let frame = close_frame(goodbye(Close::Silent));
        shard.send_last(self.key, &Bytes::from(frame));
        let drained = matches!(shard.drain(self.key), Ok(true));
        if !drained || !self.wire.socket.is_flushed() {
            self.wire.socket.give_up();
        }
    }

    /// Sends what waits and a close frame, and lets the peer answer it.
    pub(super) async fn farewell(&mut self, end: End) {
        let frame = close_frame(end);
        self.front.shard.borrow_mut().send_last(self.key, &Bytes::from(frame));
        loop {
            let drained = self.front.shard.borrow_mut().drain(self.key);
            match (drained, self.wire.socket.flush()) {
                (Ok(true), Ok(true)) => break,
                (Ok(_), Ok(_)) => {}
                _ => return,
            }
            if self.wire.socket.writable().await.is_err() {
                return;
            }
        }
        // The peer waits for this before it closes its side (RFC 6455, section 7.1.1).
        if self.wire.socket.shutdown_write().is_err() {
            return;
        }
        // Closing a socket with unread bytes would reset the connection and lose the close frame.
        let mut unread = [0; 512];
        loop {
            match self.wire.socket.try_read(&mut unread) {
                Ok(0) => return,
                // Whoever floods us goes on; the others must have their turn.
                Ok(_) => yield_now().await,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.wire.socket.readable().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

/// A close frame (RFC 6455, section 5.5.1): the code, then the reason.
fn close_frame(end: End) -> Vec<u8> {
    let length = u8::try_from(2 + end.reason.len()).expect("every reason is short");
    let mut frame = vec![0x88, length];
    frame.extend_from_slice(&end.code.to_be_bytes());
    frame.extend_from_slice(end.reason.as_bytes());
    frame
}

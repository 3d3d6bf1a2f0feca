//! A socket that operators connect to, of either kind.

use std::io;

use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::inherit::Listener;

/// One that is waited for.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who has connected.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listening {
    pub(super) fn new(listener: Listener) -> io::Result<Listening> {
        match listener {
            Listener::Tcp(listener) => TcpListener::from_std(listener).map(Listening::Tcp),
            Listener::Unix(listener) => UnixListener::from_std(listener).map(Listening::Unix),
        }
    }

    /// Waits for the next. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Listening::Tcp(listener) => {
                listener.accept().await.map(|(socket, _)| Connection::Tcp(socket))
            }
            Listening::Unix(listener) => {
                listener.accept().await.map(|(socket, _)| Connection::Unix(socket))
            }
        }
    }
}

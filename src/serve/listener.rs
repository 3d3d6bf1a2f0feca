//! The listening socket: bound early, so that a port in use is found at the start, listened on
//! late, so that nobody waits in a queue for a daemon that is not ready.
//!
//! Or sockets that systemd holds, which are listened on before, between and after our processes:
//! there it is the point that clients wait. Every shard accepts on all of them, by descriptors of
//! its own. Whoever has time takes the next connection, so one `ListenStream=` is enough for any
//! number of shards, and none waits in a queue whose shard is busy.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// Connections that may wait to be accepted: a reconnect storm comes at once.
const BACKLOG: i32 = 4096;

/// Finds out whether somebody listens at the address already. Shards share their address by
/// `SO_REUSEPORT`, and so could two daemons of one user, each with some of the clients.
///
/// Two that start at the same moment don't see each other here. Where they have the same slot, the
/// second waits for it and never listens.
///
/// # Errors
///
/// The system's: the address is in use, or not ours.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a daemon that ended just now don't count.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Binds a socket that other shards may bind, too.
///
/// # Errors
///
/// The system's: the address is in use by another program, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a shard will accept on.
#[derive(Debug)]
pub enum Source {
    /// A socket of its own, bound and not listened on.
    Own(Socket),
    /// Its descriptors of the sockets that systemd holds.
    Held(Vec<std::net::TcpListener>),
}

/// What a shard accepts on.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    held: bool,
}

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn listen(source: Source) -> io::Result<Listener> {
        match source {
            Source::Own(socket) => {
                socket.listen(BACKLOG)?;
                let socket = TcpListener::from_std(socket.into())?;
                Ok(Listener { sockets: vec![socket], held: false })
            }
            Source::Held(sockets) => {
                let sockets = sockets.into_iter().map(TcpListener::from_std);
                Ok(Listener { sockets: sockets.collect::<io::Result<_>>()?, held: true })
            }
        }
    }

    /// The next connection; of any of the sockets. Cancel safe.
    ///
    /// # Errors
    ///
    /// The system's: want of descriptors or memory.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| {
            let mut accepted = self.sockets.iter().map(|socket| socket.poll_accept(context));
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Whether who waits in the queue is served by the next process.
    #[must_use]
    pub const fn outlives_us(&self) -> bool {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_shared_by_shards_and_refused_to_another_daemon() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        probe(any).unwrap();
        let first = bind(any).unwrap();
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let listener = Listener::listen(Source::Own(first)).unwrap();
        let second = Listener::listen(Source::Own(bind(address).unwrap())).unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = TcpStream::connect(address).await.unwrap();
        drop((listener, second, client));
        probe(address).unwrap();
    }

    #[tokio::test]
    async fn shards_share_the_sockets_that_are_held() {
        let held: Vec<_> =
            (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = held.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let copies = || {
            let copies = held.iter().map(|socket| socket.try_clone().unwrap());
            copies.inspect(|socket| socket.set_nonblocking(true).unwrap()).collect()
        };
        let first = Listener::listen(Source::Held(copies())).unwrap();
        let second = Listener::listen(Source::Held(copies())).unwrap();
        let mut clients = Vec::new();
        for address in &addresses {
            for shard in [&first, &second] {
                let client = TcpStream::connect(address).await.unwrap();
                let (_socket, peer) = shard.accept().await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                clients.push(client);
            }
        }
        drop((first, second));
        // The queue is still there: who comes now waits for the next process.
        let waiting = TcpStream::connect(addresses[1]).await.unwrap();
        let next = Listener::listen(Source::Held(copies())).unwrap();
        assert_eq!(next.accept().await.unwrap().1, waiting.local_addr().unwrap());
    }
}

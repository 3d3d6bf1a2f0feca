//! The listening socket: bound early, so that a port in use is found at the start, listened on
//! late, so that nobody waits in a queue for a daemon that is not ready.

use std::io;
use std::net::SocketAddr;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;

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

/// Begins to listen.
///
/// # Errors
///
/// The system's.
pub fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
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
        let listener = listen(first).unwrap();
        let second = listen(bind(address).unwrap()).unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = tokio::net::TcpStream::connect(address).await.unwrap();
        drop((listener, second, client));
        probe(address).unwrap();
    }
}

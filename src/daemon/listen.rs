//! Where clients will connect: the address of the settings, or the sockets that systemd holds.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;

use crate::daemon::DaemonError;
use crate::inherit;
use crate::serve::listener;
use crate::serve::listener::Source;

/// A place that no other program has, not listened on by us yet.
#[derive(Debug)]
pub(super) struct Place {
    address: SocketAddr,
    held: Vec<TcpListener>,
}

impl Place {
    /// Takes the sockets that systemd holds for clients; without one, sees that nobody listens at
    /// the address.
    pub(super) fn take(address: SocketAddr) -> Result<Place, DaemonError> {
        let at = |source| DaemonError::Listen { address, source };
        let mut held = Vec::new();
        for socket in inherit::sockets(inherit::PUBLIC) {
            match socket {
                inherit::Listener::Tcp(socket) => held.push(socket),
                inherit::Listener::Unix(_) => {
                    let reason = "systemd's socket `public` is a path, and clients come by TCP";
                    return Err(at(io::Error::new(io::ErrorKind::InvalidInput, reason)));
                }
            }
        }
        let Some(first) = held.first() else {
            listener::probe(address).map_err(at)?;
            return Ok(Place { address, held });
        };
        let place = Place { address: first.local_addr().map_err(at)?, held };
        if place.address != address {
            tracing::info!(
                address = %place.address,
                instead_of = %address,
                "clients connect to systemd's socket"
            );
        }
        Ok(place)
    }

    /// The address, with the port that was found where the settings say 0.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What one more shard accepts on. The first finds the port where the settings say 0.
    pub(super) fn share(&mut self) -> Result<Source, DaemonError> {
        let at = |source| DaemonError::Listen { address: self.address, source };
        if !self.held.is_empty() {
            let copies = self.held.iter().map(TcpListener::try_clone);
            return Ok(Source::Held(copies.collect::<io::Result<_>>().map_err(at)?));
        }
        let socket = listener::bind(self.address).map_err(at)?;
        if let Some(bound) = socket.local_addr().ok().and_then(|it| it.as_socket()) {
            self.address = bound;
        }
        Ok(Source::Own(socket))
    }
}

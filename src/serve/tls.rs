//! A client's socket with TLS in between, as a session sees it.
//!
//! The session writes when there is something to write and never waits, as without TLS. What the
//! system does not take at once of a record stays here, and is written before anything else: at most
//! [`HELD_MAX`] bytes, which is what a slow client costs more than without TLS.

use std::cell::RefCell;
use std::cell::RefMut;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;

use rustls::ServerConnection;
use smallvec::SmallVec;
use tokio::net::TcpStream;

use crate::serve::wire::Socket;

/// Bytes that are encrypted at once: one record.
const HELD_MAX: usize = 16 << 10;

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    socket: TcpStream,
    connection: RefCell<ServerConnection>,
}

/// The system's side of it.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsSocket {
    pub(crate) fn new(socket: TcpStream, mut connection: ServerConnection) -> TlsSocket {
        connection.set_buffer_limit(Some(HELD_MAX));
        TlsSocket { socket, connection: RefCell::new(connection) }
    }

    /// Writes what is encrypted; `false` where the system takes no more.
    fn write_out(&self, connection: &mut RefMut<'_, ServerConnection>) -> io::Result<bool> {
        while connection.wants_write() {
            match connection.write_tls(&mut Raw(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Socket for TlsSocket {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut connection = self.connection.borrow_mut();
        loop {
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            connection.read_tls(&mut Raw(&self.socket))?;
            let processed = connection.process_new_packets();
            // An alert, where it was wrong; or what the protocol wants to be answered.
            let written = self.write_out(&mut connection);
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            written?;
        }
    }

    fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut connection = self.connection.borrow_mut();
        if !self.write_out(&mut connection)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut rest: SmallVec<[IoSlice<'_>; 4]> =
            slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = rest.as_mut_slice();
        let mut taken = 0;
        while !rest.is_empty() {
            let count = connection.writer().write_vectored(rest)?;
            taken += count;
            IoSlice::advance_slices(&mut rest, count);
            if count == 0 || !self.write_out(&mut connection)? {
                break;
            }
        }
        Ok(taken)
    }

    async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    fn flush(&self) -> io::Result<bool> {
        self.write_out(&mut self.connection.borrow_mut())
    }

    fn is_flushed(&self) -> bool {
        !self.connection.borrow().wants_write()
    }

    fn shutdown_write(&self) -> io::Result<()> {
        let mut connection = self.connection.borrow_mut();
        connection.send_close_notify();
        // Where it does not go out at once the client learns of the end by the connection's.
        let _written = self.write_out(&mut connection)?;
        self.socket.shutdown_write()
    }

    fn give_up(&self) {
        self.socket.give_up();
    }
}

//! Whether a TCP connection is encrypted, which is settled before anything else.
//!
//! A client first sends `SSLRequest` or `GSSENCRequest`, eight bytes each, and gets one byte back
//! (PostgreSQL documentation, "SSL Session Encryption"). Exactly eight are read, so that nothing that
//! was sent in the clear can be taken for something that came encrypted (CVE-2021-23214).

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::console::settings::Tls;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
/// How often somebody may ask.
const REQUESTS_MAX: usize = 2;

/// A connection on which the start of a session is to come.
pub(super) enum Line {
    /// In the clear, and its first bytes.
    Plain(TcpStream, BytesMut),
    /// Encrypted.
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// Settles it.
///
/// # Errors
///
/// Where the connection is of no more use.
pub(super) async fn line(mut socket: TcpStream, tls: Option<&Tls>) -> io::Result<Line> {
    for _ in 0..=REQUESTS_MAX {
        let mut first = [0; 8];
        socket.read_exact(&mut first).await?;
        match (first, tls) {
            (SSL_REQUEST, Some(tls)) => {
                socket.write_all(b"S").await?;
                let acceptor = TlsAcceptor::from(std::sync::Arc::clone(&tls.config));
                return Ok(Line::Encrypted(Box::new(acceptor.accept(socket).await?)));
            }
            (SSL_REQUEST, None) | (GSS_REQUEST, _) => socket.write_all(b"N").await?,
            _ => return Ok(Line::Plain(socket, BytesMut::from(&first[..]))),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

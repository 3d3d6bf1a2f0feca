//! The PROXY protocol: for whom a proxy opened a connection, told before its first byte.
//!
//! Read only from proxies that the settings name, and only where these are said to speak it
//! (`listen.forwarded_header = "proxy-protocol"`); such a proxy must. From everybody else it is
//! what it looks like, no HTTP. Source: HAProxy's `proxy-protocol.txt`, versions 1 and 2; what it
//! carries beside the address is passed over.
//!
//! # Invariants
//!
//! - Not one byte behind the header is taken from the socket.

use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The beginning of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_MAX: usize = 107;
/// What version 2 may carry: addresses and some notes.
const BODY_MAX: u16 = 4096;

/// Reads the header; whom the connection is for, `None` where it is the proxy's own.
///
/// # Errors
///
/// Where something else comes, or nothing more.
pub(crate) async fn read(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut first = [0; SIGNATURE.len()];
    socket.read_exact(&mut first).await?;
    if first == SIGNATURE { binary(socket).await } else { line(socket, &first).await }
}

async fn binary(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (socket.read_u8().await?, socket.read_u8().await?);
    let length = socket.read_u16().await?;
    if length > BODY_MAX {
        return Err(wrong());
    }
    let mut body = vec![0; length.into()];
    socket.read_exact(&mut body).await?;
    let pair = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    match (command, family) {
        // LOCAL: a health check.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => {
            let address: [u8; 4] = first_of(&body)?;
            let port = pair(8).ok_or_else(wrong)?;
            Ok(Some(SocketAddr::new(Ipv4Addr::from(address).into(), port)))
        }
        (0x21, 0x21) => {
            let address: [u8; 16] = first_of(&body)?;
            let port = pair(32).ok_or_else(wrong)?;
            Ok(Some(SocketAddr::new(IpAddr::from(Ipv6Addr::from(address)).to_canonical(), port)))
        }
        _ => Err(wrong()),
    }
}

/// `PROXY TCP4 203.0.113.7 192.0.2.1 4711 443`, of which the beginning was read.
async fn line(socket: &mut TcpStream, first: &[u8]) -> io::Result<Option<SocketAddr>> {
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        // Byte by byte: what comes behind it is the client's. It has the TCP stack's memory only.
        if line.len() >= LINE_MAX || !line.starts_with(b"PROXY ") {
            return Err(wrong());
        }
        line.push(socket.read_u8().await?);
    }
    let text = str::from_utf8(&line).map_err(|_| wrong())?;
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    match *words {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4" | "TCP6", source, _, port, _] => {
            let address: IpAddr = source.parse().map_err(|_| wrong())?;
            let port = port.parse().map_err(|_| wrong())?;
            Ok(Some(SocketAddr::new(address.to_canonical(), port)))
        }
        _ => Err(wrong()),
    }
}

fn first_of<const N: usize>(body: &[u8]) -> io::Result<[u8; N]> {
    body.first_chunk().copied().ok_or_else(wrong)
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// What is made of these bytes, and what is left behind them.
    async fn read_of(bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut socket = listener.accept().await.unwrap().0;
        let header = read(&mut socket).await;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        (header, rest)
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body, b"GET /"].concat()
    }

    #[tokio::test]
    async fn whom_a_connection_is_for_is_read_and_nothing_behind_it() {
        let v4 = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb];
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 1]);
        let noted = [&v4[..], &[4, 0, 1, 0]].concat();
        for (bytes, expected) in [
            (
                b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\nGET /".to_vec(),
                Some("203.0.113.7:4711"),
            ),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\nGET /".to_vec(), Some("[2001:db8::1]:4711")),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (binary(0x21, 0x11, &v4), Some("203.0.113.7:4711")),
            (binary(0x21, 0x11, &noted), Some("203.0.113.7:4711")),
            (binary(0x21, 0x21, &v6), Some("[2001::]:0")),
            (binary(0x20, 0, &[]), None),
        ] {
            let (header, rest) = read_of(&bytes).await;
            assert_eq!(header.unwrap(), expected.map(|it| it.parse().unwrap()));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 somebody 192.0.2.1 4711 443\r\n".to_vec(),
            [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
            binary(0x21, 0x11, &[1, 2, 3]),
            binary(0x21, 0x31, &[0; 12]),
            binary(0x31, 0x11, &[0; 12]),
            b"\r\n\r\n".to_vec(),
            Vec::new(),
        ] {
            assert!(read_of(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}

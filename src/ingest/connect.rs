//! A byte stream to the server: unix socket or TCP, TLS where it is asked for.

use std::io;
use std::sync::Arc;

use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;

use crate::ingest::Settings;
use crate::ingest::end_point::server_end_point;
use crate::ingest::frames::Transport;
use crate::tls;
use crate::tls::TlsError;
use crate::tls::TlsMode;

/// Why no host of the settings could be reached: what happened at the last one.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection.
    #[error("no connection to {host}")]
    Io {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No TLS.
    #[error("no TLS with the server")]
    Tls(#[from] TlsError),
    /// The server does not offer TLS.
    #[error("the server does not offer TLS, which sslmode demands")]
    TlsNotOffered,
    /// The host has no name that a certificate could be for.
    #[error("{host} is not a name that a certificate can be for")]
    HostName {
        /// The host.
        host: String,
    },
}

/// An open stream, before anything of the protocol was said.
pub(crate) struct Opened {
    /// The stream.
    pub(crate) transport: Box<dyn Transport>,
    /// What a password exchange can be bound to; absent without TLS.
    pub(crate) end_point: Option<Vec<u8>>,
}

/// Tries the server's hosts in their order.
pub(crate) async fn open(settings: &Settings) -> Result<Opened, ConnectError> {
    let config = &settings.connection;
    let mut failed = ConnectError::Io {
        host: "any host".to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "no host is named"),
    };
    for (index, host) in config.get_hosts().iter().enumerate() {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let address = config.get_hostaddrs().get(index).map(ToString::to_string);
        let name = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let attempt = timeout(settings.patience, open_one(settings, host, address, port)).await;
        let attempt = attempt.unwrap_or_else(|_| {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            Err(ConnectError::Io { host: name.clone(), source })
        });
        match attempt {
            Ok(opened) => return Ok(opened),
            Err(ConnectError::Io { source, .. }) => {
                failed = ConnectError::Io { host: name, source };
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn open_one(
    settings: &Settings,
    host: &Host,
    address: Option<String>,
    port: u16,
) -> Result<Opened, ConnectError> {
    let io = |source| ConnectError::Io { host: String::new(), source };
    let name = match host {
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(io)?;
            return Ok(Opened { transport: Box::new(stream), end_point: None });
        }
        Host::Tcp(name) => name,
    };
    let address = address.unwrap_or_else(|| name.clone());
    let mut stream = TcpStream::connect((address.as_str(), port)).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    let direct = settings.connection.get_ssl_negotiation() == SslNegotiation::Direct;
    match settings.tls_mode {
        TlsMode::Disable => return Ok(Opened { transport: Box::new(stream), end_point: None }),
        _ if direct => {}
        mode => {
            if !tls_offered(&mut stream).await.map_err(io)? {
                if mode == TlsMode::Prefer {
                    return Ok(Opened { transport: Box::new(stream), end_point: None });
                }
                return Err(ConnectError::TlsNotOffered);
            }
        }
    }
    secured(settings, name, stream).await
}

/// Asks for TLS; nothing was said before.
async fn tls_offered(stream: &mut TcpStream) -> io::Result<bool> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    Ok(stream.read_u8().await? == b'S')
}

async fn secured(
    settings: &Settings,
    name: &str,
    stream: TcpStream,
) -> Result<Opened, ConnectError> {
    let ca_file = settings.tls_ca_file.as_deref();
    let mut config = tls::client_config(ca_file, settings.tls_mode.verify(ca_file))?;
    // Servers from 17 on want to hear it; to others it says nothing.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| ConnectError::HostName { host: name.to_owned() })?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await
        .map_err(|source| ConnectError::Io { host: String::new(), source })?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let end_point = certificate.and_then(|certificate| server_end_point(certificate));
    Ok(Opened { transport: Box::new(stream), end_point })
}

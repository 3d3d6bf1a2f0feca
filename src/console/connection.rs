//! One connection, from its first byte to its last.
//!
//! `pgwire` knows the messages and what follows what; how long is waited, how much is read, and when
//! it is over is decided here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::SinkExt;
use futures_util::StreamExt;
use pgwire::api::ClientInfo;
use pgwire::api::DefaultClient;
use pgwire::api::NoopHandler;
use pgwire::api::PgWireConnectionState;
use pgwire::api::cancel::DefaultCancelHandler;
use pgwire::error::ErrorInfo;
use pgwire::error::PgWireError;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::PgWireFrontendMessage;
use pgwire::tokio::server::PgWireMessageServerCodec;
use pgwire::tokio::server::process_error;
use pgwire::tokio::server::process_message;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;
use tokio_util::codec::Framed;
use tokio_util::codec::FramedParts;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::console::answer::Refused;
use crate::console::handler::Session;
use crate::console::login::Door;
use crate::console::negotiate;
use crate::console::negotiate::Line;
use crate::console::parameter::Prepared;
use crate::console::wire;

/// Bytes of one message of a client.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What a connection is told that ends has this long to leave.
const FAREWELL: Duration = Duration::from_secs(2);

type Talk<S> = Framed<Bounded<S>, PgWireMessageServerCodec<Arc<Prepared>>>;

/// Serves a connection over TCP.
pub(super) async fn serve_tcp(
    console: Arc<Console>,
    socket: TcpStream,
    seated: bool,
    stop: CancellationToken,
) {
    let deadline = Instant::now() + console.settings.startup;
    let Ok(address) = socket.peer_addr() else { return };
    let session = Arc::new(Session::new(Arc::clone(&console), Door::Tcp, seated));
    let line = negotiate::line(socket, console.settings.tls.as_ref());
    match timeout_at(deadline, line).await {
        Ok(Ok(Line::Plain(socket, first))) => {
            let talk = talk(socket, first, DefaultClient::new(address, false));
            Connection { session, stop }.serve(talk, deadline).await;
        }
        Ok(Ok(Line::Encrypted(socket))) => {
            let talk = talk(socket, BytesMut::new(), DefaultClient::new(address, true));
            Connection { session, stop }.serve(talk, deadline).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the console ended early"),
        Err(_late) => {}
    }
}

/// Serves a connection over a Unix socket.
pub(super) async fn serve_unix(
    console: Arc<Console>,
    socket: UnixStream,
    (owner, seated): (bool, bool),
    stop: CancellationToken,
) {
    let deadline = Instant::now() + console.settings.startup;
    let session = Arc::new(Session::new(console, Door::Unix { owner }, seated));
    // Only a password's exchange would look at it, and does not.
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let talk = talk(socket, BytesMut::new(), DefaultClient::new(address, false));
    Connection { session, stop }.serve(talk, deadline).await;
}

fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    first: BytesMut,
    client: DefaultClient<Arc<Prepared>>,
) -> Talk<S> {
    let bounded = Bounded { socket, read: 0 };
    let mut parts =
        FramedParts::new::<PgWireBackendMessage>(bounded, PgWireMessageServerCodec::new(client));
    parts.read_buf = first;
    let mut talk = Framed::from_parts(parts);
    talk.codec_mut().client_info.set_state(PgWireConnectionState::AwaitingStartup);
    talk
}

struct Connection {
    session: Arc<Session>,
    stop: CancellationToken,
}

impl Connection {
    async fn serve<S>(self, mut talk: Talk<S>, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let over = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Some(Refused::new("57P01", "walcast is stopping"))
            }
            over = self.converse(&mut talk, deadline) => over,
        };
        if let Some(refused) = over {
            end(&mut talk, wire::fatal(refused)).await;
        }
    }

    /// Takes messages until the connection is over; returns what is to be said of that.
    async fn converse<S>(&self, talk: &mut Talk<S>, deadline: Instant) -> Option<Refused>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let idle = self.session.console.settings.idle;
        loop {
            talk.get_mut().read = 0;
            let starting = matches!(
                talk.state(),
                PgWireConnectionState::AwaitingStartup
                    | PgWireConnectionState::AuthenticationInProgress
            );
            let until = if starting { deadline } else { Instant::now() + idle };
            let message = match timeout_at(until, talk.next()).await {
                Ok(Some(Ok(PgWireFrontendMessage::Terminate(_))) | None) => return None,
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a message to the console can't be read");
                    return Some(Refused::new("08P01", "the message can't be read"));
                }
                Err(_late) if starting => {
                    self.session.console.view.metrics.logins_refused.one("late");
                    return Some(Refused::new("57014", "the login took too long"));
                }
                Err(_late) => {
                    let message = "nothing was asked for too long (console.idle_seconds)";
                    return Some(Refused::new("57P05", message));
                }
            };
            if !self.take(talk, message, starting.then_some(deadline)).await {
                return None;
            }
        }
    }

    /// Does what a message says; `false` where the connection is over.
    async fn take<S>(
        &self,
        talk: &mut Talk<S>,
        message: PgWireFrontendMessage,
        deadline: Option<Instant>,
    ) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
    {
        let is_cancel = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let extended = message.is_extended_query();
        let session = &self.session;
        let cancels = DefaultCancelHandler::new(Arc::clone(&session.console.cancels));
        let taking = process_message(
            message,
            talk,
            Arc::clone(session),
            Arc::clone(session),
            Arc::clone(session),
            Arc::new(NoopHandler),
            Arc::new(cancels),
        );
        let taken = match deadline {
            Some(deadline) => match timeout_at(deadline, taking).await {
                Ok(taken) => taken,
                Err(_late) => return false,
            },
            None => taking.await,
        };
        if is_cancel {
            return false;
        }
        let Err(error) = taken else { return true };
        if error.is_fatal() {
            end(talk, error).await;
            return false;
        }
        process_error(talk, error, extended).await.is_ok()
    }
}

/// Says why a connection ends, and nothing after it.
async fn end<S>(talk: &mut Talk<S>, error: PgWireError)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let error = PgWireBackendMessage::ErrorResponse(ErrorInfo::from(error).into());
    let farewell = async {
        talk.send(error).await?;
        talk.close().await
    };
    let _gone = timeout(FAREWELL, farewell).await;
}

/// A socket of which only so much is read before a message is whole.
#[derive(Debug)]
struct Bounded<S> {
    socket: S,
    /// Bytes since the last message.
    read: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bounded = self.get_mut();
        if bounded.read > MESSAGE_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut bounded.socket).poll_read(context, into))?;
        bounded.read += into.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}

//! One WebSocket session of the native dialect: requests in, answers and what waits out.
//!
//! The session's future is alive for as long as its client is connected, ten thousand times over,
//! so what is rare in it is boxed and what is read is small.

use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper::upgrade::Parts;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Sleep;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tungstenite::Message;
use tungstenite::error::CapacityError;
use tungstenite::error::Error;
use tungstenite::protocol::Role;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::WebSocketContext;

use crate::auth::Claims;
use crate::auth::claims::Succession;
use crate::dialect::native::request;
use crate::dialect::native::request::Request;
use crate::dialect::native::websocket::WEBSOCKET;
use crate::dialect::native::websocket::framed;
use crate::dialect::native::write;
use crate::dialect::native::write::Welcome;
use crate::gate::Limit;
use crate::gate::rates::Pace;
use crate::gate::rates::Paced;
use crate::route::outbox::Wire;
use crate::route::session::Close;
use crate::route::session::SessionKey;
use crate::serve::Doubt;
use crate::serve::Front;
use crate::serve::end::End;
use crate::serve::end::goodbye;
use crate::serve::framing::Framing;
use crate::serve::guest::Guest;
use crate::serve::tls::TlsSocket;
use crate::serve::watched::Watched;
use crate::serve::wire::Half;
use crate::serve::wire::Socket;
use crate::serve::wire::SocketWire;

mod farewell;

/// Bytes read at once. It is what an idle session holds; a larger request makes it grow.
const READ_BUFFER: usize = 128;
/// Messages taken before other sessions get their turn.
const MESSAGES_STEP: usize = 32;
/// Bytes taken before other sessions get their turn: very many small frames, or fragments of a
/// message that never ends, would keep the thread to themselves.
const BYTES_STEP: usize = 64 << 10;
/// How long a session that ends may take to send what it must.
const FAREWELL: Duration = Duration::from_secs(3);

/// How the session of a client ends that began a message and did not end it.
const TOO_LATE: End = End { code: 4408, reason: "the request did not end in time" };

/// After what time a client comes back whose session began when the daemon was about to stop.
const LATE_RETRY: Duration = Duration::from_secs(2);

/// Takes over a connection that was upgraded.
pub(crate) async fn begin(front: Rc<Front>, upgrade: OnUpgrade, who: (Option<Claims>, Guest)) {
    let Ok(upgraded) = upgrade.await else { return };
    match upgraded.downcast::<TokioIo<Watched<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let socket = io.into_inner().into_inner();
            unbound_silence(&socket);
            start(&front, socket, early(read_buf), who);
        }
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<Watched<TlsStream<TcpStream>>>>();
            let Ok(parts) = parts else { return };
            let (socket, connection) = parts.io.into_inner().into_inner().into_inner();
            unbound_silence(&socket);
            start(&front, TlsSocket::new(socket, connection), early(parts.read_buf), who);
        }
    }
}

/// Pings tell whether the peer lives, and give it longer.
fn unbound_silence(socket: &TcpStream) {
    let _unset = SockRef::from(socket).set_tcp_user_timeout(None);
}

/// The client's first requests may have come with its handshake. They are copied, because the buffer
/// that they lie in is eight KiB and would live as long as the session.
#[expect(clippy::needless_pass_by_value, reason = "it is freed here")]
fn early(read: Bytes) -> Vec<u8> {
    read.to_vec()
}

/// Lets a connection be a session, of which `early` was read already. It has a task of its own: the
/// caller's future also has room for the handshake.
pub(crate) fn start(
    front: &Rc<Front>,
    socket: impl Socket,
    early: Vec<u8>,
    who: (Option<Claims>, Guest),
) {
    let session = Session::open(Rc::clone(front), socket, early, who);
    front.tasks.spawn_local(session.run());
}

struct Session<S: Socket> {
    front: Rc<Front>,
    wire: Rc<SocketWire<S>>,
    key: SessionKey,
    context: WebSocketContext,
    guest: Box<Guest>,
    framing: Framing,
    /// A token that was shown and not looked at yet.
    shown: Option<Box<str>>,
    /// Until when the message must have come that was begun.
    late: Option<Pin<Box<Sleep>>>,
}

enum Step {
    /// Everything that has come was read.
    Blocked,
    /// There is more, but others have waited.
    More,
    /// A token was shown. It comes before the requests after it.
    Shown(Box<str>),
    /// The session is over; `None` where the peer has gone.
    Over(Option<End>),
}

impl<S: Socket> Session<S> {
    fn open(
        front: Rc<Front>,
        socket: S,
        early: Vec<u8>,
        (claims, guest): (Option<Claims>, Guest),
    ) -> Session<S> {
        let wire = Rc::new(SocketWire { socket, woken: Notify::new() });
        let settings = front.settings();
        let welcome = write::welcome(&Welcome {
            role: claims.as_ref().map(Claims::role),
            request_bytes_max: settings.request_bytes_max,
            subscriptions_max: settings.subscriptions_max,
            ping_seconds: settings.ping_seconds,
        });
        let shared: Rc<dyn Wire> = Rc::<SocketWire<S>>::clone(&wire);
        let key = {
            let key = front.open(shared, claims, &WEBSOCKET, &guest);
            let mut shard = front.shard.borrow_mut();
            shard.send(key, &Bytes::from(framed(&welcome)));
            if front.closing.is_cancelled() {
                // Its handshake was answered in the last moment before.
                shard.dismiss(key, LATE_RETRY);
            }
            key
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(settings.request_bytes_max))
            .max_frame_size(Some(settings.request_bytes_max));
        let mut framing = Framing::default();
        framing.take(&early);
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        Session {
            front,
            wire,
            key,
            context,
            guest: Box::new(guest),
            framing,
            shown: None,
            late: None,
        }
    }

    async fn run(mut self) {
        let end = loop {
            let closing = self.front.shard.borrow().closing(self.key);
            match closing {
                Some(Close::Silent) => return self.abandon(),
                Some(close) => break Some(goodbye(close)),
                None => {}
            }
            if !self.is_flooded() {
                match self.read() {
                    Step::Over(end) => break end,
                    Step::More => yield_now().await,
                    Step::Shown(token) => {
                        if let Some(end) = Box::pin(self.authenticate(&token)).await {
                            break Some(end);
                        }
                        yield_now().await;
                        continue;
                    }
                    Step::Blocked => {}
                }
            }
            let drained = self.front.shard.borrow_mut().drain(self.key);
            let Ok(drained) = drained else { break None };
            let Ok(flushed) = self.wire.socket.flush() else { break None };
            let drained = drained && flushed;
            let flooded = self.is_flooded();
            self.watch(flooded);
            let (socket, late) = (&self.wire.socket, self.late.as_mut());
            tokio::select! {
                ready = socket.readable(), if !flooded => if ready.is_err() { break None },
                ready = socket.writable(), if !drained => if ready.is_err() { break None },
                () = self.wire.woken.notified() => {}
                () = reached(late) => break Some(TOO_LATE),
            }
        };
        if let Some(end) = end {
            let farewell = Box::pin(timeout(FAREWELL, self.farewell(end)));
            let _too_slow = farewell.await.is_err();
        }
    }

    /// Whether the client does not read the answers to its requests, so that more must wait.
    fn is_flooded(&self) -> bool {
        self.front.shard.borrow().is_flooded(self.key)
    }

    /// Sees to it that a message that was begun comes to its end. While requests wait nothing is read,
    /// and that is not the client's fault.
    fn watch(&mut self, flooded: bool) {
        if flooded || self.framing.is_whole() {
            self.late = None;
        } else if self.late.is_none() {
            self.late = Some(Box::pin(sleep(self.front.settings().handshake)));
        }
    }

    /// Takes messages until there are none, or enough.
    fn read(&mut self) -> Step {
        let mut left = BYTES_STEP;
        for _ in 0..MESSAGES_STEP {
            let Session { front, wire, framing, context, key, .. } = self;
            let (shard, key) = (&front.shard, *key);
            let mut half = Half { wire: &**wire, shard, key, framing, left: &mut left };
            match context.read(&mut half) {
                Ok(message) => {
                    shard.borrow_mut().heard(key);
                    if let Some(end) = self.take(&message) {
                        return Step::Over(Some(end));
                    }
                    // Sends the pong to a ping, and the answer to a close.
                    let Session { front, wire, framing, context, .. } = self;
                    let (shard, wire) = (&front.shard, &**wire);
                    let mut half = Half { wire, shard, key, framing, left: &mut left };
                    if context.flush(&mut half).is_err() {
                        return Step::Over(None);
                    }
                    if let Some(token) = self.shown.take() {
                        return Step::Shown(token);
                    }
                }
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return if left == 0 { Step::More } else { Step::Blocked };
                }
                Err(error) => return Step::Over(end_of(&error)),
            }
        }
        Step::More
    }

    fn take(&mut self, message: &Message) -> Option<End> {
        match self.guest.pace.as_ref().map_or(Paced::Served, Pace::take) {
            Paced::Served => {}
            Paced::TooSoon => return self.too_soon(message),
            Paced::Abused => {
                self.front.settings().gate.count(Limit::Requests);
                return Some(End { code: 4429, reason: "too_many_requests" });
            }
        }
        match message {
            Message::Text(text) => self.request(text.as_str()),
            Message::Binary(_) => Some(End { code: 1003, reason: "requests are text" }),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
        }
    }

    /// Refuses a message that came too soon after those before it.
    fn too_soon(&self, message: &Message) -> Option<End> {
        // Pings are answered already, and are counted.
        let Message::Text(text) = message else { return None };
        let limit = Limit::Requests;
        self.front.settings().gate.count(limit);
        let id = request::id_of(text.as_str());
        let frame = write::error(id.as_deref(), limit.code(), limit.message(), None);
        self.front.shard.borrow_mut().send(self.key, &Bytes::from(framed(&frame)));
        None
    }

    fn request(&mut self, text: &str) -> Option<End> {
        let mut shard = self.front.shard.borrow_mut();
        let parsed = request::parse(text);
        let renews = matches!(parsed, Err(_) | Ok(Request::Ping | Request::Auth { .. }));
        let answer = match parsed {
            _ if !renews && shard.is_expired(self.key) => {
                let message = "the session's token is over; send another by `auth` first";
                let id = request::id_of(text);
                write::error(id.as_deref(), "token_expired", message, None)
            }
            Err(wrong) => write::bad_request(&wrong),
            Ok(Request::Ping) => write::pong(),
            Ok(Request::Auth { token }) => {
                self.shown = Some(token.into());
                return None;
            }
            Ok(Request::Unsubscribe { id }) => match shard.unsubscribe(self.key, &id) {
                Ok(()) => return None,
                Err(refusal) => write::refusal(&id, &refusal),
            },
            Ok(Request::Pause { id }) => match shard.pause(self.key, &id) {
                Ok(()) => return None,
                Err(refusal) => write::refusal(&id, &refusal),
            },
            Ok(Request::Resume { id }) => match shard.unpause(self.key, &id) {
                Ok(()) => return None,
                Err(refusal) => write::refusal(&id, &refusal),
            },
            Ok(Request::Subscribe(subscribe)) => {
                let id = subscribe.id.clone();
                match shard.subscribe(self.key, subscribe) {
                    Ok(()) => return None,
                    Err(refusal) => {
                        shard.count_refusal(&refusal);
                        write::refusal(&id, &refusal)
                    }
                }
            }
        };
        shard.send(self.key, &Bytes::from(framed(&answer)));
        None
    }

    async fn authenticate(&mut self, token: &str) -> Option<End> {
        let believed = self.front.believe(self.guest.caller, token).await;
        let mut shard = self.front.shard.borrow_mut();
        let claims = match believed {
            Ok(claims) => claims,
            Err(doubt) => {
                let frame = match doubt {
                    Doubt::Token(error) => write::session_error("bad_token", &error.to_string()),
                    Doubt::TooMany(refused) => {
                        write::session_error("too_many_bad_tokens", refused.limit.message())
                    }
                };
                shard.send(self.key, &Bytes::from(framed(&frame)));
                // A session that has claims keeps them; one that has none may try again until its
                // time is over.
                return None;
            }
        };
        let follows = shard.claims(self.key).map_or(Ok(()), |before| claims.may_follow(before));
        if let Err(wrong) = follows {
            let message = wrong.to_string();
            let frame = match wrong {
                Succession::OtherSubject => write::session_error("subject_changed", &message),
                Succession::Older => write::session_error("token_older", &message),
            };
            shard.send(self.key, &Bytes::from(framed(&frame)));
            return None;
        }
        if self.guest.claim(&self.front.settings().gate, &claims).is_err() {
            return Some(End { code: 4429, reason: "too_many_of_subject" });
        }
        let role = claims.role().to_owned();
        shard.send(self.key, &Bytes::from(framed(&write::authenticated(&role))));
        shard.authenticate(self.key, claims);
        None
    }
}

impl<S: Socket> Drop for Session<S> {
    fn drop(&mut self) {
        self.front.shard.borrow_mut().close(self.key);
    }
}

/// Waits for a time, where there is one.
async fn reached(late: Option<&mut Pin<Box<Sleep>>>) {
    match late {
        Some(late) => late.await,
        None => pending().await,
    }
}

fn end_of(error: &Error) -> Option<End> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Some(End { code: 1009, reason: "the request is too large" })
        }
        Error::Utf8(_) => Some(End { code: 1007, reason: "the request is not UTF-8" }),
        Error::Protocol(_) => Some(End { code: 1002, reason: "not the WebSocket protocol" }),
        _ => None,
    }
}

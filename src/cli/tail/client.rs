//! A client of the native dialect with one subscription that goes on across lost connections.
//!
//! ```text
//! Client::next ─▶ connect ─▶ auth, subscribe {since: last cursor} ─▶ frames …
//!      ▲                                                               │ lost, or told to come back
//!      └──────────── Waiting (full jitter, or what the daemon says) ◀──┘
//! ```
//!
//! The cursor is kept here, so the one who calls [`Client::next`] gets each change once, in order,
//! or a `resync` frame.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Map, Value};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::cli::tail::frame::{Content, Frame};

/// The name of the one subscription.
const ID: &str = "tail";

/// The WebSocket subprotocol of the native dialect.
const SUBPROTOCOL: &str = "walcast.v1";

/// How long connecting and the WebSocket handshake may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The pause after the first failure is at most this; each further one may double it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// No pause is longer, unless the daemon asks for it.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What the daemon may ask for at the most.
const RETRY_MAX_MS: u64 = 600_000;

/// How long the daemon may be silent before it has told how often it pings.
const SILENCE: Duration = Duration::from_secs(90);

/// What a client subscribes to, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ws://host:port`, `wss://…`; without a path it is `/v1/ws`.
    pub url: String,
    /// Where the token comes from.
    pub token: TokenSource,
    /// The table, as `orders` or `schema.orders`.
    pub table: String,
    /// A SQL condition.
    pub condition: Option<String>,
    /// A filter in PostgREST's form.
    pub filter: Option<String>,
    /// The columns; empty for all.
    pub columns: Vec<String>,
    /// The kinds of change; empty for all.
    pub events: Vec<String>,
    /// Where to resume.
    pub since: Option<String>,
    /// Whether to begin with the rows that are there.
    pub snapshot: bool,
}

/// Where the token comes from. `Debug` does not show it.
#[derive(Clone)]
pub enum TokenSource {
    /// There is none: the daemon must admit anonymous clients.
    Anonymous,
    /// It is given.
    Text(String),
    /// A file holds it, and is read again at every connection, because tokens expire.
    File(PathBuf),
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSource::Anonymous => f.write_str("Anonymous"),
            TokenSource::Text(_) => f.write_str("Text(..)"),
            TokenSource::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why a client does not try again. None holds the token.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one of a WebSocket.
    #[error("not an address (expected ws://host:port or wss://host:port)")]
    Url,
    /// The token's file cannot be read.
    #[error("cannot read the token from {}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Whatever listens there does not want this client, or is no walcast.
    #[error("{url} answers {status} instead of a WebSocket")]
    Http {
        /// Where.
        url: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// The daemon refused the token or the subscription.
    #[error("refused: {message} ({code}){}", hint.as_deref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default())]
    Refused {
        /// The code that the protocol defines.
        code: String,
        /// What the daemon says.
        message: String,
        /// What would be right, as the daemon says.
        hint: Option<String>,
    },
    /// The daemon ended the session for a reason that stays.
    #[error("the daemon ended the session: {reason} (close code {code})")]
    Closed {
        /// The WebSocket close code.
        code: u16,
        /// The reason that came with it.
        reason: String,
    },
}

/// What happened next.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// There is a connection; the subscription has been asked for.
    Connected,
    /// A frame came.
    Frame(Frame),
    /// There is no connection; the next one is tried after a pause, by the next call.
    Waiting {
        /// Why there is none.
        reason: String,
        /// How long the pause is.
        pause: Duration,
    },
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One subscription, kept alive.
pub struct Client {
    settings: Settings,
    url: Uri,
    cursor: Option<String>,
    socket: Option<Box<Socket>>,
    /// How long to wait before connecting.
    pause: Duration,
    /// How long to wait where the connection ends, as the daemon said.
    asked: Option<Duration>,
    /// Connections in a row that did not come as far as `subscribed`.
    failures: u32,
    silence: Duration,
}

impl Client {
    /// Connects at the first call of [`Client::next`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Url`].
    pub fn new(settings: Settings) -> Result<Client, ClientError> {
        let url = endpoint(&settings.url).ok_or(ClientError::Url)?;
        let cursor = settings.since.clone();
        Ok(Client {
            settings,
            url,
            cursor,
            socket: None,
            pause: Duration::ZERO,
            asked: None,
            failures: 0,
            silence: SILENCE,
        })
    }

    /// Where the client would resume.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Waits for what happens next.
    ///
    /// Not cancel safe while it connects: dropped then, it connects anew. A frame is never lost.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when another attempt would end in the same way.
    pub async fn next(&mut self) -> Result<Progress, ClientError> {
        loop {
            let Some(socket) = self.socket.as_mut() else { return self.connect().await };
            return match timeout(self.silence, socket.next()).await {
                Err(_) => Ok(self.lost("the daemon has been silent for too long")),
                Ok(None) => Ok(self.lost("the connection was lost")),
                Ok(Some(Err(error))) => Ok(self.lost(&cause(&error))),
                Ok(Some(Ok(Message::Text(text)))) => self.frame(&text),
                Ok(Some(Ok(Message::Close(close)))) => self.closed(close),
                Ok(Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_),
                ))) => continue,
            };
        }
    }

    async fn connect(&mut self) -> Result<Progress, ClientError> {
        tokio::time::sleep(self.pause).await;
        let token = self.token()?;
        let mut request = self.url.clone().into_client_request().map_err(|_| ClientError::Url)?;
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        let connecting = Box::pin(tokio_tungstenite::connect_async(request));
        let mut socket = match timeout(CONNECT_WITHIN, connecting).await {
            Err(_) => return Ok(self.lost("no answer within 10 s")),
            Ok(Ok((socket, _))) => Box::new(socket),
            Ok(Err(tungstenite::Error::Http(answer))) if lasts(answer.status()) => {
                let (url, status) = (self.url.to_string(), answer.status());
                return Err(ClientError::Http { url, status });
            }
            Ok(Err(tungstenite::Error::Http(answer))) => {
                let seconds = answer.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
                let seconds = seconds.and_then(|it| it.parse::<u64>().ok());
                self.asked = seconds.map(|it| come_back(it.saturating_mul(1000)));
                return Ok(self.lost(&format!("the daemon answers {}", answer.status())));
            }
            Ok(Err(error)) => {
                let reason = format!("cannot reach {}: {}", self.url, cause(&error));
                return Ok(self.lost(&reason));
            }
        };
        let requests = token.map(|token| auth(&token)).into_iter().chain([self.subscribe()]);
        for request in requests {
            if let Err(error) = socket.send(Message::text(request.to_string())).await {
                return Ok(self.lost(&cause(&error)));
            }
        }
        self.socket = Some(socket);
        Ok(Progress::Connected)
    }

    fn token(&self) -> Result<Option<String>, ClientError> {
        match &self.settings.token {
            TokenSource::Anonymous => Ok(None),
            TokenSource::Text(token) => Ok(Some(token.clone())),
            TokenSource::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ClientError::TokenFile { path: path.clone(), source })?;
                Ok(Some(text.trim().to_owned()))
            }
        }
    }

    fn subscribe(&self) -> Value {
        let settings = &self.settings;
        let mut request = Map::new();
        let mut set = |name: &str, value: Value| request.insert(name.to_owned(), value);
        set("type", Value::from("subscribe"));
        set("id", Value::from(ID));
        set("table", Value::from(settings.table.as_str()));
        for (name, text) in
            [("where", &settings.condition), ("filter", &settings.filter), ("since", &self.cursor)]
        {
            if let Some(text) = text {
                set(name, Value::from(text.as_str()));
            }
        }
        for (name, list) in [("columns", &settings.columns), ("events", &settings.events)] {
            if !list.is_empty() {
                set(name, Value::from(list.clone()));
            }
        }
        if settings.snapshot {
            request.insert("snapshot".to_owned(), Value::from(true));
        }
        Value::Object(request)
    }

    fn frame(&mut self, text: &str) -> Result<Progress, ClientError> {
        let Some(frame) = Frame::parse(text) else {
            return Ok(self.lost("what the daemon sends is not the native dialect"));
        };
        match (frame.cursor(), &frame.content) {
            (Some(cursor), _) => self.cursor = Some(cursor.to_owned()),
            // A snapshot follows, and until it is there is nowhere to resume from.
            (None, Content::Resync { .. }) => self.cursor = None,
            (None, _) => {}
        }
        match &frame.content {
            Content::Error { code, message, hint } => Err(ClientError::Refused {
                code: code.clone(),
                message: message.clone(),
                hint: hint.clone(),
            }),
            Content::Welcome { ping_seconds } => {
                if let Some(seconds) = ping_seconds {
                    self.silence = Duration::from_secs(seconds.saturating_mul(2).clamp(10, 7200));
                }
                Ok(Progress::Frame(frame))
            }
            Content::Subscribed { .. } => {
                self.failures = 0;
                Ok(Progress::Frame(frame))
            }
            Content::Restart { retry_ms, .. } => {
                self.asked = Some(come_back(*retry_ms));
                Ok(Progress::Frame(frame))
            }
            Content::Authenticated { .. }
            | Content::Row(_)
            | Content::Synced { .. }
            | Content::Resync { .. }
            | Content::Heartbeat { .. }
            | Content::Other => Ok(Progress::Frame(frame)),
        }
    }

    fn closed(&mut self, close: Option<CloseFrame>) -> Result<Progress, ClientError> {
        let Some(close) = close else {
            return Ok(self.lost("the daemon closed the connection"));
        };
        let code = u16::from(close.code);
        // 1002, 1003, 1007 to 1010: it would be the same again. 4400 to 4403: bad request, no
        // token, not allowed. All others (restart, overload, too slow) pass.
        if matches!(code, 1002 | 1003 | 1007..=1010 | 4400..=4403) {
            return Err(ClientError::Closed { code, reason: close.reason.to_string() });
        }
        Ok(self.lost(&format!("the daemon closed the connection ({code})")))
    }

    /// Gives the connection up, and chooses the pause before the next one.
    fn lost(&mut self, reason: &str) -> Progress {
        self.socket = None;
        self.pause = self.asked.take().unwrap_or_else(|| pause(self.failures, random()));
        self.failures = self.failures.saturating_add(1);
        Progress::Waiting { reason: reason.to_owned(), pause: self.pause }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("settings", &self.settings)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

fn auth(token: &str) -> Value {
    Value::Object(Map::from_iter([
        ("type".to_owned(), Value::from("auth")),
        ("token".to_owned(), Value::from(token)),
    ]))
}

/// The address with the native dialect's path, if it has none.
fn endpoint(url: &str) -> Option<Uri> {
    let url = match url.split_once("://") {
        Some(("ws" | "http", rest)) => format!("ws://{rest}"),
        Some(("wss" | "https", rest)) => format!("wss://{rest}"),
        Some(_) => return None,
        None => format!("ws://{url}"),
    };
    let uri: Uri = url.parse().ok()?;
    uri.host().filter(|host| !host.is_empty())?;
    if uri.path() != "/" {
        return Some(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = Some("/v1/ws".parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether the answer would be the same again.
fn lasts(status: StatusCode) -> bool {
    let passing =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !passing.contains(&status)
}

fn come_back(millis: u64) -> Duration {
    Duration::from_millis(millis.min(RETRY_MAX_MS))
}

/// Full jitter: anything from nothing to a bound that doubles with each failure.
fn pause(failures: u32, random: u64) -> Duration {
    let bound = PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
    let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(random % (millis + 1))
}

/// A number that nobody can foresee: the standard library seeds every `RandomState` anew.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The innermost cause, which says more than the outer ones.
fn cause(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_gets_the_dialects() {
        let endpoint = |url: &str| endpoint(url).map(|uri| uri.to_string());
        assert_eq!(endpoint("ws://h:1").as_deref(), Some("ws://h:1/v1/ws"));
        assert_eq!(endpoint("https://h/").as_deref(), Some("wss://h/v1/ws"));
        assert_eq!(endpoint("127.0.0.1:4480").as_deref(), Some("ws://127.0.0.1:4480/v1/ws"));
        assert_eq!(endpoint("wss://h/a/b").as_deref(), Some("wss://h/a/b"));
        for url in ["", "ftp://h", "ws://", "ws://a b"] {
            assert_eq!(endpoint(url), None, "{url}");
        }
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        for failures in 0..80 {
            for random in [0, 1, u64::MAX] {
                assert!(pause(failures, random) <= PAUSE_MAX);
            }
        }
        assert_eq!(pause(0, 500), Duration::from_millis(500));
        assert_eq!(pause(0, 501), Duration::ZERO);
        assert_eq!(pause(2, 2000), Duration::from_millis(2000));
    }
}

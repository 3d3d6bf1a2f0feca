//! The HTTP side of a connection: routes, handshakes, and when it ends.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::Method;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use hyper::header::SEC_WEBSOCKET_ACCEPT;
use hyper::header::SEC_WEBSOCKET_KEY;
use hyper::header::SEC_WEBSOCKET_PROTOCOL;
use hyper::header::SEC_WEBSOCKET_VERSION;
use hyper::header::UPGRADE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use socket2::SockRef;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::Instrument;
use tracing::field::Empty;
use tungstenite::handshake::derive_accept_key;

use crate::gate::Entry;
use crate::route::session::Close;
use crate::route::session::Transport;
use crate::serve::Front;
use crate::serve::answer;
use crate::serve::answer::Answer;
use crate::serve::answer::refuse;
use crate::serve::answer::set;
use crate::serve::asked;
use crate::serve::changes;
use crate::serve::credentials;
use crate::serve::events;
use crate::serve::origin;
use crate::serve::origin::Asker;
use crate::serve::rows;
use crate::serve::visit::Line;
use crate::serve::watched::Watched;
use crate::serve::websocket;
use crate::trace::span;
use crate::trace::traced;

/// The longest head of a request, and what hyper holds back for a client that does not read.
const BUFFER: usize = 64 << 10;
/// How long an answer may take to end when its session is over.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a request may take to come in when the daemon stops.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// Serves one connection until it ends or becomes a WebSocket.
pub(crate) async fn connection(front: Rc<Front>, socket: TcpStream, entry: Entry) {
    bound_silence(&front, &socket);
    let settings = front.settings();
    let Some(config) = &settings.tls else {
        return Box::pin(serve(front, socket, entry)).await;
    };
    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(socket);
    let handshake = traced(span!("serve.tls"), handshake);
    match Box::pin(timeout(settings.handshake, handshake)).await {
        Ok(Ok(stream)) => Box::pin(serve(front, stream, entry)).await,
        Ok(Err(error)) => {
            settings.gate.count_failed_tls();
            tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_) => {
            settings.gate.count_failed_tls();
            tracing::debug!("a TLS handshake did not end in time");
        }
    }
}

/// The same after the TLS handshake, where there is one.
async fn serve<S>(front: Rc<Front>, socket: S, entry: Entry)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Rc::new(Line::new(entry));
    let service = service_fn(|request| {
        let (front, line) = (Rc::clone(&front), Rc::clone(&line));
        async move {
            let span = span!("serve.request", route = route(request.uri().path()), status = Empty);
            let answer = respond(&front, &line, request).instrument(span.clone()).await;
            span.record("status", answer.status().as_u16());
            Ok::<_, Infallible>(answer)
        }
    });
    let (socket, waiting) = Watched::new(socket);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(front.settings().handshake)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut stopping = false;
    let served = loop {
        tokio::select! {
            biased;
            // First: what waits may not go out any more.
            () = line.woken.notified() => match line.closing(&front) {
                None => {}
                Some(Close::Expired) if waiting.is_so() => break Ok(()),
                Some(_) => {
                    connection.as_mut().graceful_shutdown();
                    break timeout(FAREWELL, connection).await.unwrap_or(Ok(()));
                }
            },
            served = connection.as_mut() => break served,
            () = front.closing.cancelled(), if !stopping => {
                stopping = true;
                // An idle connection ends at once; one with an answer under way, after it.
                connection.as_mut().graceful_shutdown();
                if !line.has_session() {
                    break timeout(LAST_REQUEST, connection).await.unwrap_or(Ok(()));
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Lets the system end a connection whose other end has vanished. There is something to acknowledge
/// at least every `ping_seconds`, so it is gone within `silence_seconds`.
fn bound_silence(front: &Front, socket: &TcpStream) {
    let settings = front.settings();
    let ping = Duration::from_secs(settings.ping_seconds.into());
    let unanswered = settings.silence.saturating_sub(ping).max(Duration::from_secs(1));
    if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(unanswered)) {
        tracing::debug!(%error, "a socket takes no TCP_USER_TIMEOUT");
    }
}

/// What is asked for, in our own words.
fn route(path: &str) -> &'static str {
    match path {
        "/v1/ws" => "ws",
        "/v1/events" => "events",
        "/v1/changes" => "changes",
        "/v1/rows" => "rows",
        _ => "other",
    }
}

async fn respond(front: &Rc<Front>, line: &Rc<Line>, request: Request<Incoming>) -> Answer {
    let settings = front.settings();
    let asker = origin::asker(&settings.origins, request.headers());
    if let Err(refused) = line.ask(&settings.gate, request.headers()) {
        let mut answer = answer::refuse_limit(refused);
        asker.admit(&mut answer);
        return answer;
    }
    let path = request.uri().path();
    let is_websocket = path == "/v1/ws";
    let may_ask = match asker {
        Asker::Own | Asker::Named(_) => true,
        Asker::Stranger => is_websocket,
        Asker::Refused => false,
    };
    if !may_ask {
        let message = "the page's origin is not in listen.origins";
        return refuse(StatusCode::FORBIDDEN, "origin", message);
    }
    let is_asked = matches!(*request.method(), Method::GET | Method::POST);
    let answered = match path {
        "/v1/ws" if request.method() == Method::GET => upgrade(front, line, request, &asker).await,
        "/v1/ws" => Ok(answer::refuse_method("GET")),
        "/v1/events" if is_asked => events::answer(front, line, request).await,
        "/v1/changes" if is_asked => changes::answer(front, line, request).await,
        "/v1/rows" if is_asked => rows::answer(front, line, request).await,
        "/v1/events" | "/v1/changes" | "/v1/rows" => match *request.method() {
            Method::OPTIONS => Ok(preflight()),
            _ => Ok(answer::refuse_method("GET, POST")),
        },
        _ => {
            let message = "there are /v1/ws, /v1/events, /v1/changes and /v1/rows";
            Ok(refuse(StatusCode::NOT_FOUND, "not_found", message))
        }
    };
    let mut answer = answered.unwrap_or_else(|refused| *refused);
    asker.admit(&mut answer);
    answer
}

fn preflight() -> Answer {
    let mut answer = answer::empty(StatusCode::NO_CONTENT);
    origin::preflight(&mut answer);
    answer
}

async fn upgrade(
    front: &Rc<Front>,
    line: &Line,
    mut request: Request<Incoming>,
    asker: &Asker,
) -> Result<Answer, Box<Answer>> {
    let headers = request.headers();
    let Some(accept) = accept_key(headers) else {
        let message = "this is a WebSocket (RFC 6455, version 13)";
        let mut answer = refuse(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
        set(&mut answer, UPGRADE, "websocket");
        set(&mut answer, SEC_WEBSOCKET_VERSION, "13");
        return Ok(answer);
    };
    if front.closing.is_cancelled() {
        return Ok(answer::refuse_restart());
    }
    let mut claims = asked::claims(front, line, headers, request.uri()).await?;
    if *asker == Asker::Stranger && credentials::token(headers, request.uri()).is_none() {
        // It may still send a token.
        claims = None;
    }
    let guest = line.guest(&front.settings().gate, claims.as_ref(), Transport::WebSocket);
    let guest = guest.map_err(|refused| Box::new(answer::refuse_limit(refused)))?;
    let mut response = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    set(&mut response, UPGRADE, "websocket");
    set(&mut response, CONNECTION, "Upgrade");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if credentials::offers_native(headers) {
        set(&mut response, SEC_WEBSOCKET_PROTOCOL, credentials::SUBPROTOCOL);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    // A task of its own, so that what HTTP needed is freed.
    front.tasks.spawn_local(websocket::begin(Rc::clone(front), upgrade, (claims, guest)));
    Ok(response)
}

fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case(wanted))
    };
    let asked =
        has(UPGRADE, "websocket") && has(CONNECTION, "upgrade") && has(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

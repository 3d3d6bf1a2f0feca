//! The HTTP side of a connection: routes, handshakes, refusals.

use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::header::CONTENT_TYPE;
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
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use crate::auth::Claims;
use crate::serve::Front;
use crate::serve::credentials;
use crate::serve::websocket;

/// Serves one connection until it ends or becomes a WebSocket.
pub(crate) async fn connection(front: Rc<Front>, socket: TcpStream) {
    let settings = front.settings;
    let service = service_fn(move |request| {
        let front = Rc::clone(&front);
        async move { Ok::<_, Infallible>(respond(&front, request)) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.handshake)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended before it became a session");
    }
}

fn respond(front: &Rc<Front>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/ws") => upgrade(front, request),
        (_, "/v1/ws") => refuse(StatusCode::METHOD_NOT_ALLOWED, "method", "use GET"),
        _ => refuse(StatusCode::NOT_FOUND, "not_found", "the WebSocket is at /v1/ws"),
    }
}

fn upgrade(front: &Rc<Front>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let Some(accept) = accept_key(headers) else {
        let message = "this is a WebSocket (RFC 6455, version 13)";
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message);
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    };
    let claims = match claims(front, headers, request.uri()) {
        Ok(claims) => claims,
        Err(response) => return response,
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if credentials::offers_native(headers) {
        let native = HeaderValue::from_static(credentials::SUBPROTOCOL);
        answer.insert(SEC_WEBSOCKET_PROTOCOL, native);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    // A task of its own, so that what HTTP needed is freed.
    front.tasks.spawn_local(websocket::begin(Rc::clone(front), upgrade, claims));
    response
}

/// Whose connection it is; nobody's yet where it brings no token and none is made for it.
#[expect(clippy::result_large_err, reason = "the response is made once and sent at once")]
fn claims(
    front: &Front,
    headers: &HeaderMap,
    uri: &hyper::Uri,
) -> Result<Option<Claims>, Response<Full<Bytes>>> {
    match credentials::token(headers, uri) {
        None => Ok(front.verifier.anonymous()),
        Some(token) => front
            .verifier
            .verify(token)
            .map(Some)
            .map_err(|error| refuse(StatusCode::UNAUTHORIZED, "bad_token", &error.to_string())),
    }
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

fn refuse(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let json = serde_json::json!({ "code": code, "message": message });
    let mut response = Response::new(Full::from(json.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

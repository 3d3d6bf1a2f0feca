//! What an HTTP request asks for, and who asks.

use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Limited;
use hyper::HeaderMap;
use hyper::Method;
use hyper::Request;
use hyper::StatusCode;
use hyper::Uri;
use hyper::body::Incoming;
use serde_json::Map;
use serde_json::Value;
use tokio::time::timeout;

use crate::auth::Claims;
use crate::dialect::native::query;
use crate::dialect::native::request;
use crate::route::subscription::Subscribe;
use crate::serve::Doubt;
use crate::serve::Front;
use crate::serve::answer;
use crate::serve::answer::Answer;
use crate::serve::answer::refuse;
use crate::serve::credentials;
use crate::serve::visit::Line;

/// A request's fields by name, as a `subscribe` request over WebSocket has them.
pub(crate) type Fields = Map<String, Value>;

/// Whose connection it is; nobody's yet where it brings no token and none is made for it.
pub(crate) async fn claims(
    front: &Front,
    line: &Line,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Option<Claims>, Box<Answer>> {
    match credentials::token(headers, uri) {
        None => Ok(front.verifier().anonymous()),
        Some(token) => front.believe(line.caller(), token).await.map(Some).map_err(|doubt| {
            Box::new(match doubt {
                Doubt::Token(error) => {
                    refuse(StatusCode::UNAUTHORIZED, "bad_token", &error.to_string())
                }
                Doubt::TooMany(refused) => answer::refuse_limit(refused),
            })
        }),
    }
}

/// The same where there is no other place for a token.
pub(crate) async fn required_claims(
    front: &Front,
    line: &Line,
    request: &Request<Incoming>,
) -> Result<Claims, Box<Answer>> {
    let claims = claims(front, line, request.headers(), request.uri()).await?;
    claims.ok_or_else(|| {
        let message = "send a token, in `Authorization: Bearer` or in the parameter `token`";
        Box::new(refuse(StatusCode::UNAUTHORIZED, "unauthenticated", message))
    })
}

/// The fields of a request: its parameters, or the JSON object in its body.
pub(crate) async fn fields(
    front: &Front,
    request: Request<Incoming>,
) -> Result<Fields, Box<Answer>> {
    if request.method() == Method::GET {
        let parameters = query::fields(request.uri().query().unwrap_or_default());
        return parameters.map_err(|wrong| Box::new(answer::refuse_request(&wrong)));
    }
    let settings = front.settings();
    let body = Limited::new(request.into_body(), settings.request_bytes_max);
    let bad = |status, message: &str| Box::new(refuse(status, "bad_request", message));
    let late = |_| bad(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
    let read = timeout(settings.handshake, body.collect()).await.map_err(late)?;
    let large = |_| bad(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut off or too large");
    let body = read.map_err(large)?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| {
        bad(StatusCode::BAD_REQUEST, &format!("the body is not a JSON object: {error}"))
    })
}

/// The subscription that the fields describe.
pub(crate) fn subscription(fields: Fields) -> Result<Subscribe, Box<Answer>> {
    request::of_http(fields).map_err(|wrong| Box::new(answer::refuse_request(&wrong)))
}

/// Takes a field out that is a number of seconds, at most `max` of them.
pub(crate) fn seconds(
    fields: &mut Fields,
    name: &str,
    max: u64,
) -> Result<Option<Duration>, Box<Answer>> {
    let Some(value) = fields.remove(name) else { return Ok(None) };
    let seconds = value.as_u64().filter(|seconds| *seconds <= max).ok_or_else(|| {
        let message = format!("`{name}` is a whole number of seconds up to {max}");
        Box::new(refuse(StatusCode::BAD_REQUEST, "bad_request", &message))
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}

//! HTTP answers that are not a stream of changes: refusals, and JSON.

use bytes::Bytes;
use http_body_util::Either;
use http_body_util::Full;
use hyper::Response;
use hyper::StatusCode;
use hyper::header::ALLOW;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderName;
use hyper::header::HeaderValue;
use hyper::header::RETRY_AFTER;
use hyper::header::WWW_AUTHENTICATE;
use serde::Deserialize;

use crate::dialect::native::request::RequestError;
use crate::dialect::native::write;
use crate::gate::Limit;
use crate::gate::Refused;
use crate::route::plan::Refusal;
use crate::route::session::Close;
use crate::serve::stream::Stream;

/// An answer: whole, or sent while its session lives.
pub(crate) type Answer = Response<Either<Full<Bytes>, Stream>>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

/// An answer of JSON, which nobody may keep: it is what is new for one client.
pub(crate) fn json(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(text.into())));
    *answer.status_mut() = status;
    set(&mut answer, CONTENT_TYPE, "application/json");
    set(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

/// A refusal, with a code that clients can rely on.
pub(crate) fn refuse(status: StatusCode, code: &str, message: &str) -> Answer {
    refuse_with(status, code, message, None)
}

/// The refusal of a method, where these are allowed.
pub(crate) fn refuse_method(allowed: &'static str) -> Answer {
    let message = format!("use {allowed}");
    let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "method", &message);
    set(&mut answer, ALLOW, allowed);
    answer
}

/// The refusal of a request that comes too late: the daemon stops.
pub(crate) fn refuse_restart() -> Answer {
    let message = "walcast is about to stop: come back";
    let mut answer = refuse(StatusCode::SERVICE_UNAVAILABLE, "restart", message);
    set(&mut answer, RETRY_AFTER, "2");
    answer
}

/// The refusal of a request at a limit.
pub(crate) fn refuse_limit(refused: Refused) -> Answer {
    let (status, limit) = (status_of_limit(refused.limit), refused.limit);
    let mut answer = refuse(status, limit.code(), limit.message());
    answer.headers_mut().insert(RETRY_AFTER, whole_seconds(refused).into());
    answer
}

/// The same as it goes out to somebody whose request is not read.
pub(crate) fn unasked(refused: Refused) -> String {
    let (status, limit) = (status_of_limit(refused.limit), refused.limit);
    let body = write::http_error(limit.code(), limit.message(), None).to_string();
    format!(
        "HTTP/1.1 {status}\r\nretry-after: {}\r\ncontent-type: application/json\r\n\
         cache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        whole_seconds(refused),
        body.len()
    )
}

const fn status_of_limit(limit: Limit) -> StatusCode {
    match limit {
        Limit::Connections => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn whole_seconds(refused: Refused) -> u64 {
    refused.retry.as_secs().saturating_add(1)
}

/// The refusal of a request whose session ended before there was something to answer.
pub(crate) fn refuse_closed(close: Close, retry_ms: Option<u64>) -> Answer {
    match close {
        Close::Expired | Close::Unauthenticated => {
            refuse(StatusCode::UNAUTHORIZED, "bad_token", "the token expired")
        }
        Close::Killed => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "killed", "an operator ended the session")
        }
        Close::Silent | Close::Restart => {
            let mut answer = refuse_restart();
            if let Some(retry_ms) = retry_ms {
                answer.headers_mut().insert(RETRY_AFTER, retry_ms.div_ceil(1000).into());
            }
            answer
        }
    }
}

/// The refusal of a request that can't be read.
pub(crate) fn refuse_request(wrong: &RequestError) -> Answer {
    refuse_with(StatusCode::BAD_REQUEST, wrong.code, &wrong.message, wrong.hint)
}

/// The refusal of a subscription.
pub(crate) fn refuse_subscription(refusal: &Refusal) -> Answer {
    let code = refusal.code();
    let hint = refusal.hint();
    refuse_with(status_of(code), code, &refusal.to_string(), hint.as_deref())
}

/// The refusal of a subscription that has ended with this `error` frame.
pub(crate) fn refuse_ended(json: &[u8]) -> Answer {
    #[derive(Default, Deserialize)]
    struct Ended {
        code: String,
        message: String,
        hint: Option<String>,
    }
    let Ended { code, message, hint } = serde_json::from_slice(json).unwrap_or_default();
    refuse_with(status_of(&code), &code, &message, hint.as_deref())
}

/// The status of a subscription's refusal.
fn status_of(code: &str) -> StatusCode {
    match code {
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "unknown_table" => StatusCode::NOT_FOUND,
        "bad_filter" | "bad_throttle" | "snapshot_too_large" => StatusCode::BAD_REQUEST,
        "snapshot_busy" | "snapshot_failed" | "snapshot_overtaken" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "snapshot_timeout" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::FORBIDDEN,
    }
}

fn refuse_with(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Answer {
    let mut answer = json(status, write::http_error(code, message, hint).to_string());
    if status == StatusCode::UNAUTHORIZED {
        set(&mut answer, WWW_AUTHENTICATE, "Bearer");
    }
    answer
}

/// Sets a header.
pub(crate) fn set<B>(answer: &mut Response<B>, name: HeaderName, value: &'static str) {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
}

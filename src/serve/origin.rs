//! Which web pages may connect.
//!
//! A browser says in `Origin` whose page asks, and lets the page read an answer of another origin
//! only where the answer allows it (CORS); a WebSocket it opens without asking. So the header is
//! judged here for both. Clients that are no browsers send none and are not concerned.
//!
//! A page attaches nothing to a connection but what it holds itself: there are no cookies. What it
//! could gain without a token is what the network gives away, so a page of an origin that nobody
//! named is never anonymous.

use hyper::HeaderMap;
use hyper::Response;
use hyper::header::ACCESS_CONTROL_ALLOW_HEADERS;
use hyper::header::ACCESS_CONTROL_ALLOW_METHODS;
use hyper::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use hyper::header::ACCESS_CONTROL_EXPOSE_HEADERS;
use hyper::header::ACCESS_CONTROL_MAX_AGE;
use hyper::header::HOST;
use hyper::header::HeaderValue;
use hyper::header::ORIGIN;
use hyper::header::VARY;

/// Whose page asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Our own origin's, or no page at all.
    Own,
    /// That of an origin that the settings name.
    Named(HeaderValue),
    /// That of another origin, where the settings name none.
    Stranger,
    /// That of another origin than those that the settings name.
    Refused,
}

/// Judges a request by its `Origin`, where `origins` are those of the settings.
pub(crate) fn asker(origins: &[Box<str>], headers: &HeaderMap) -> Asker {
    let Some(value) = headers.get(ORIGIN) else { return Asker::Own };
    let origin = value.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
    let mut known = origins.iter().map(AsRef::<str>::as_ref);
    if known.any(|known| known == "*" || known == origin) {
        Asker::Named(value.clone())
    } else if is_own(&origin, headers) {
        Asker::Own
    } else if origins.is_empty() {
        Asker::Stranger
    } else {
        Asker::Refused
    }
}

/// Whether the page came from where it connects to: its origin's host and port are those in `Host`.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.to_ascii_lowercase();
    host.strip_suffix(port).unwrap_or(&host) == authority
}

impl Asker {
    /// Lets a page of a named origin read the answer.
    pub(crate) fn admit<B>(self, response: &mut Response<B>) {
        let Asker::Named(origin) = self else { return };
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let exposed = HeaderValue::from_static("ETag, Retry-After");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
}

/// What a browser is told that asks beforehand which requests it may send for a page.
pub(crate) fn preflight<B>(response: &mut Response<B>) {
    const ALLOWED: &str =
        "Authorization, Last-Event-ID, If-None-Match, Content-Type, Cache-Control";
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &[&str], origin: &'static str, host: &'static str, expected: &Asker) {
        let origins: Vec<Box<str>> = origins.iter().map(|origin| (*origin).into()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        assert_eq!(asker(&origins, &headers), *expected, "{origin} at {host} with {origins:?}");
    }

    #[test]
    fn a_page_is_ours_named_or_a_stranger_s() {
        let named = |origin| Asker::Named(HeaderValue::from_static(origin));
        let app = "https://app.example.com";
        check(&[], "https://Live.example.com", "live.example.com", &Asker::Own);
        check(&[], "http://localhost:4480", "localhost:4480", &Asker::Own);
        check(&[], "http://a", "a:80", &Asker::Own);
        check(&[], "http://localhost:3000", "localhost:4480", &Asker::Stranger);
        check(&[], "null", "localhost:4480", &Asker::Stranger);
        check(&[app], app, "live.example.com", &named(app));
        check(&[app], "https://evil.example.com", "live.example.com", &Asker::Refused);
        check(&[app], "https://live.example.com", "live.example.com", &Asker::Own);
        check(&["*"], "null", "live.example.com", &named("null"));
        assert_eq!(asker(&[app.into()], &HeaderMap::new()), Asker::Own);
    }
}

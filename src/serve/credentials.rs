//! Where a token may be in a handshake.

use hyper::HeaderMap;
use hyper::Uri;
use hyper::header::AUTHORIZATION;
use hyper::header::SEC_WEBSOCKET_PROTOCOL;

/// The subprotocol of the native dialect.
pub(crate) const SUBPROTOCOL: &str = "walcast.v1";
/// What a subprotocol begins with that carries a token: browsers can set no header, and a query
/// ends in logs.
const TOKEN_SUBPROTOCOL: &str = "walcast.token.";

/// The token of a request: from `Authorization`, from a subprotocol, or from the query parameter
/// `token`, in this order. It is never logged.
pub(crate) fn token<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    bearer(headers).or_else(|| offered(headers)).or_else(|| query(uri))
}

/// Whether the client offers the native subprotocol, so that the answer must choose it.
pub(crate) fn offers_native(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|offer| offer == SUBPROTOCOL)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn offered(headers: &HeaderMap) -> Option<&str> {
    subprotocols(headers).find_map(|offer| offer.strip_prefix(TOKEN_SUBPROTOCOL))
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn query(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(header: Option<(&'static str, &'static str)>, uri: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        token(&headers, &Uri::from_static(uri)).map(str::to_owned)
    }

    #[test]
    fn a_token_is_found_in_each_place() {
        let expected = Some("a.b.c".to_owned());
        assert_eq!(found(Some(("authorization", "bearer a.b.c")), "/v1/ws"), expected);
        let offer = "walcast.v1, walcast.token.a.b.c";
        assert_eq!(found(Some(("sec-websocket-protocol", offer)), "/v1/ws"), expected);
        assert_eq!(found(None, "/v1/ws?x=1&token=a.b.c"), expected);
        assert_eq!(found(None, "/v1/ws?tokens=a.b.c"), None);
    }
}

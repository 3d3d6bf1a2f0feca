//! One `GET` of a set of keys.
//!
//! It is bounded in time and in bytes. No redirect is followed: the address that the configuration
//! names is the one that is believed. What is over `https` is believed by its certificate and its
//! name.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::HeaderMap;
use hyper::Request;
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::header::ACCEPT;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONNECTION;
use hyper::header::HOST;
use hyper::header::USER_AGENT;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls;
use crate::tls::TlsError;
use crate::tls::Verify;

use super::jwk::SetError;
use super::settings::Published;

/// How many bytes a set may have.
const BODY_MAX: usize = 256 << 10;
/// How long all of it may take.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Why a set of keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address has no host.
    #[error("the address has no host")]
    Address,
    /// Nobody answers there.
    #[error("connecting")]
    Connect(#[source] io::Error),
    /// The settings for TLS can't be used.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// It does not speak HTTP, or the connection broke.
    #[error("HTTP")]
    Http(#[from] hyper::Error),
    /// It answers with something else than a set.
    #[error("the answer is {0}, not 200")]
    Status(StatusCode),
    /// The answer is cut off, or too large.
    #[error("the answer is cut off, or larger than 256 KiB")]
    Body,
    /// It took too long.
    #[error("no answer within {} s", TIME_MAX.as_secs())]
    TooSlow,
    /// The answer is no set of keys.
    #[error(transparent)]
    Set(#[from] SetError),
}

impl FetchError {
    /// The word for it in metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            FetchError::Address | FetchError::Connect(_) => "connect",
            FetchError::Tls(_) => "tls",
            FetchError::Http(_) | FetchError::Body => "http",
            FetchError::Status(_) => "status",
            FetchError::TooSlow => "timeout",
            FetchError::Set(_) => "set",
        }
    }
}

/// What an address answered.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// For how long it says that holds.
    pub(super) max_age: Option<Duration>,
}

/// Asks the address.
pub(super) async fn get(settings: &Published) -> Result<Fetched, FetchError> {
    timeout(TIME_MAX, ask(settings)).await.unwrap_or(Err(FetchError::TooSlow))
}

async fn ask(settings: &Published) -> Result<Fetched, FetchError> {
    let url = &settings.url;
    let is_secure = url.scheme_str() == Some("https");
    let host = url.host().ok_or(FetchError::Address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let socket = TcpStream::connect((host, port)).await.map_err(FetchError::Connect)?;
    if !is_secure {
        return exchange(socket, settings).await;
    }
    let config = tls::client_config(settings.ca_file.as_deref(), Verify::AuthorityAndHost)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Address)?;
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let socket = connector.connect(name, socket).await.map_err(FetchError::Connect)?;
    exchange(socket, settings).await
}

async fn exchange<S>(socket: S, settings: &Published) -> Result<Fetched, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let url = &settings.url;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().ok_or(FetchError::Address)?.as_str();
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("walcast/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Address)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let max_age = max_age(response.headers());
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
        Ok(Fetched { body: body.map_err(|_| FetchError::Body)?.to_bytes(), max_age })
    };
    // The connection is driven beside the exchange, and ends with it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        fetched = exchange.as_mut() => fetched,
        _ended = connection.as_mut() => exchange.await,
    }
}

/// What `Cache-Control` says of the answer's age.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(',')).map(str::trim);
    let seconds = words
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))
        .find_map(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok());
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_answer_is_what_it_says() {
        for (value, seconds) in [
            ("max-age=60", Some(60)),
            ("public, MAX-AGE = \"7\" , must-revalidate", Some(7)),
            ("s-maxage=9", None),
            ("max-age=-1", None),
            ("no-store", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{value}");
        }
    }
}

//! What takes time and happens seldom, as spans: for OTLP, where the program is built with the
//! feature `otlp` and told where to send them.
//!
//! ```text
//! span!("catalog.read") ─▶ tracing ─▶ (off)                    nobody asked
//!                                  └▶ export ─▶ OTLP/HTTP      otlp.endpoint
//! ```
//!
//! There is no span for a change, a frame or a delivery: metrics count those. What is traced is
//! connecting to the slot, reading the catalogue, answering a snapshot, reloading, a statement of
//! the console, and letting a client in. A span has no row, no token and no claim's value in it, as
//! the log has none.
//!
//! # Invariants
//!
//! - Spans are off unless `export` was begun, and then cost one look at a flag. They never stand
//!   in the log. (`logging::filter`.)

use std::error::Error;

use tracing::Instrument;
use tracing::Span;

#[cfg(feature = "otlp")]
pub mod export;

/// What spans are told apart by from the log's events.
pub const TARGET: &str = "walcast::span";

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address, of scheme `http` or `https`, with the path.
    pub uri: hyper::Uri,
}

impl Endpoint {
    /// Reads an address, as in `http://127.0.0.1:4318`. One without a path has OTLP's own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Endpoint> {
        let bare = text.trim_end_matches('/');
        let uri: hyper::Uri = bare.parse().ok()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || uri.host().is_none_or(str::is_empty) {
            return None;
        }
        let uri = match uri.path() {
            "" | "/" => format!("{bare}/v1/traces").parse().ok()?,
            _ => uri,
        };
        Some(Endpoint { uri })
    }
}

/// A span; its fields are given as in `tracing`'s own macros.
macro_rules! span {
    ($name:literal $(, $($fields:tt)+)?) => {
        tracing::info_span!(
            target: "walcast::span",
            $name,
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty
            $(, $($fields)+)?
        )
    };
}
pub(crate) use span;

/// Does `work` inside of a span, which tells whether it failed. In a box: what is traced is seldom,
/// and the futures around it have room for it all the time.
pub(crate) fn traced<T, E: Error>(
    span: Span,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    let work = Box::pin(work.instrument(span.clone()));
    async move {
        let done = work.await;
        if let Err(error) = &done {
            failed(&span, error);
        }
        done
    }
}

/// Notes that what the span is about failed.
pub(crate) fn failed(span: &Span, error: &dyn Error) {
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", tracing::field::display(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_path_has_otlp_s() {
        let path = |text: &str| Endpoint::parse(text).map(|it| it.uri.to_string());
        let own = Some("http://127.0.0.1:4318/v1/traces".to_owned());
        assert_eq!(path("http://127.0.0.1:4318"), own);
        assert_eq!(path("http://127.0.0.1:4318/"), own);
        assert_eq!(path("https://t.example/otlp"), Some("https://t.example/otlp".to_owned()));
        for wrong in ["", "127.0.0.1:4318", "ftp://h", "http://", "/v1/traces"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_macro_s_target_is_the_one_that_is_looked_for() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let span = span!("a.span");
            assert_eq!(span.metadata().map(tracing::Metadata::target), Some(TARGET));
        });
    }
}

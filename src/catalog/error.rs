//! Why the catalogue has no answer, and whether it may have one later.

use std::error::Error;
use std::io;

use crate::tls::TlsError;

/// Why Postgres did not answer. The next call tries again, on a new connection where needed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// TLS can't be had as it was asked for.
    #[error("TLS for the asking role's connection")]
    Tls(#[from] TlsError),
    /// There is no connection.
    #[error("connecting as the asking role")]
    Connect(#[source] tokio_postgres::Error),
    /// A statement was refused, or the connection broke.
    #[error("reading {what}")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// The refusal.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No answer in time.
    #[error("no answer to {what} within {seconds} s")]
    Late {
        /// What was asked for.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Who is asked has not come as far as the stream: a standby.
    #[error("the server that is asked has been behind the stream for {seconds} s")]
    Behind {
        /// For how long it was waited.
        seconds: u64,
    },
    /// The audit's answer is not of the form that it was asked for.
    #[error("the answer to the audit")]
    Facts(#[source] serde_json::Error),
    /// The answer about policies is not of the form that it was asked for.
    #[error("the answer about row-level security")]
    Policies(#[source] serde_json::Error),
    /// The runtime that drives the connection is stopping.
    #[error("the runtime of the catalogue is stopping")]
    Stopping,
}

impl CatalogError {
    /// The error and its causes as one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }

    /// Whether the same question may be answered another time with nothing changed here, in the
    /// database's roles or in its access rules: the server is down, starting, stopping, or full.
    #[must_use]
    pub fn heals(&self) -> bool {
        match self {
            CatalogError::Connect(error) | CatalogError::Query { source: error, .. } => {
                is_passing(error)
            }
            CatalogError::Late { .. } | CatalogError::Behind { .. } => true,
            CatalogError::Tls(_)
            | CatalogError::Facts(_)
            | CatalogError::Policies(_)
            | CatalogError::Stopping => false,
        }
    }
}

/// Whether a connection that ended like this may do better another time.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        // Who we are, the database, privileges and names, what the version can't, values.
        let ours = ["28", "3D", "42", "0A", "22"];
        return !ours.iter().any(|class| code.code().starts_with(class));
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            // A certificate that is not believed, an exchange of passwords that makes no sense.
            let ours = [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput];
            return !ours.contains(&error.kind()) && error.kind() != io::ErrorKind::Other;
        }
        cause = error.source();
    }
    error.is_closed()
}

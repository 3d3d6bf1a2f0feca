//! TLS by rustls. Towards Postgres, here: how far a server is believed, and the client side of both
//! kinds of connection (the walsender's own, and tokio-postgres's). Towards clients, in `server`: the
//! certificate that is shown.
//!
//! The modes are libpq's (PostgreSQL documentation, "SSL Support", table "SSL Mode
//! Descriptions"). A CA file that is named makes `require` verify the chain, as libpq does.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::InvalidDnsNameError;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_postgres::tls::ChannelBinding;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::tls::TlsConnect;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

mod believe;
pub mod server;
mod validity;

/// `sslmode`: whether a connection is encrypted, and whom it believes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Where the server can; any certificate is believed. (`allow` is read as this.)
    #[default]
    Prefer,
    /// Always; any certificate is believed, unless a CA file is named.
    Require,
    /// Always, and the certificate comes from a known authority.
    VerifyCa,
    /// Always, and the certificate comes from a known authority and is of this host.
    VerifyFull,
}

/// What of a server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: the connection is private only from those who merely listen.
    Nothing,
    /// That a known authority signed it.
    Authority,
    /// That a known authority signed it, for the host that was asked for.
    AuthorityAndHost,
}

/// Why TLS can't be had as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The mode is none of libpq's.
    #[error("unknown sslmode {0:?} (expected disable, prefer, require, verify-ca or verify-full)")]
    Mode(String),
    /// The file of the authorities can't be read.
    #[error("the CA file {} holds no readable PEM certificate", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate is checked, but there is no authority to check it against.
    #[error("no certificate authority is known: name one in tls_ca_file")]
    NoAuthority,
    /// rustls refused the settings.
    #[error("TLS settings")]
    Rustls(#[from] rustls::Error),
    /// rustls refused the authorities.
    #[error("certificate authorities")]
    Authorities(#[from] rustls::client::VerifierBuilderError),
}

impl FromStr for TlsMode {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<TlsMode, TlsError> {
        match text {
            "disable" => Ok(TlsMode::Disable),
            "allow" | "prefer" => Ok(TlsMode::Prefer),
            "require" => Ok(TlsMode::Require),
            "verify-ca" => Ok(TlsMode::VerifyCa),
            "verify-full" => Ok(TlsMode::VerifyFull),
            _ => Err(TlsError::Mode(text.to_owned())),
        }
    }
}

impl TlsMode {
    /// What is checked in this mode, where a CA file is named or not.
    #[must_use]
    pub fn verify(self, ca_file: Option<&Path>) -> Verify {
        match self {
            TlsMode::Require if ca_file.is_some() => Verify::Authority,
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Verify::Nothing,
            TlsMode::VerifyCa => Verify::Authority,
            TlsMode::VerifyFull => Verify::AuthorityAndHost,
        }
    }

    /// Takes `sslmode` out of a connection string (a URL, or `key=value` words), because
    /// tokio-postgres knows only three of the modes; returns the rest and the mode, the default
    /// where the string has none.
    ///
    /// # Errors
    ///
    /// [`TlsError::Mode`].
    pub fn take_from(connection: &str) -> Result<(String, TlsMode), TlsError> {
        let mut mode = TlsMode::default();
        let mut keep = |word: &str| match word.strip_prefix("sslmode=") {
            Some(value) => {
                mode = value.trim_matches('\'').parse()?;
                Ok::<bool, TlsError>(false)
            }
            None => Ok(true),
        };
        let url = connection.contains("://");
        let (head, words, separator) = match connection.split_once('?') {
            Some((head, query)) if url => (Some(head), query, '&'),
            _ if url => return Ok((connection.to_owned(), mode)),
            _ => (None, connection, ' '),
        };
        let mut kept = Vec::new();
        for word in words.split(separator) {
            if keep(word)? {
                kept.push(word);
            }
        }
        let words = kept.join(&separator.to_string());
        let rest = match head {
            Some(head) if words.is_empty() => head.to_owned(),
            Some(head) => format!("{head}?{words}"),
            None => words,
        };
        Ok((rest, mode))
    }
}

/// The client's side of a TLS connection to Postgres.
///
/// The authorities are those of `ca_file`, else the operating system's.
///
/// # Errors
///
/// [`TlsError`], when a certificate is to be checked and there is nothing to check it against.
pub fn client_config(ca_file: Option<&Path>, verify: Verify) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let config = match verify {
        Verify::AuthorityAndHost => {
            builder.with_root_certificates(authorities(ca_file)?).with_no_client_auth()
        }
        Verify::Authority => {
            let roots = Arc::new(authorities(ca_file)?);
            let checks = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
            let verifier = Arc::new(believe::AnyHost::new(checks));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        Verify::Nothing => {
            let verifier = Arc::new(believe::Anyone::new(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(config)
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let failed = |source| TlsError::CaFile { path: path.to_owned(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(TlsError::NoAuthority) } else { Ok(roots) }
}

/// TLS for tokio-postgres.
#[derive(Clone, Debug)]
pub struct MakeTls {
    config: Arc<ClientConfig>,
}

impl MakeTls {
    /// TLS with these settings.
    #[must_use]
    pub const fn new(config: Arc<ClientConfig>) -> MakeTls {
        MakeTls { config }
    }
}

/// One TLS connection about to be made.
#[derive(Debug)]
pub struct ConnectTls {
    config: Arc<ClientConfig>,
    /// Only an error when it is used: over a unix socket there is neither a name nor TLS.
    host: Result<ServerName<'static>, InvalidDnsNameError>,
}

/// A TLS connection, for tokio-postgres.
#[derive(Debug)]
pub struct PostgresTls<S>(TlsStream<S>);

impl<S> MakeTlsConnect<S> for MakeTls
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = PostgresTls<S>;
    type TlsConnect = ConnectTls;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<ConnectTls, Infallible> {
        let host = ServerName::try_from(host.to_owned());
        Ok(ConnectTls { config: Arc::clone(&self.config), host })
    }
}

impl<S> TlsConnect<S> for ConnectTls
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = PostgresTls<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PostgresTls<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connector = TlsConnector::from(self.config);
            let host = self.host.map_err(io::Error::other)?;
            connector.connect(host, stream).await.map(PostgresTls)
        })
    }
}

impl<S> tokio_postgres::tls::TlsStream for PostgresTls<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// None: SCRAM goes without it, inside TLS.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PostgresTls<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PostgresTls<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_taken_out_of_a_connection_string() {
        let cases = [
            ("postgres://u@h/d", "postgres://u@h/d", TlsMode::Prefer),
            ("postgres://h/d?sslmode=verify-full", "postgres://h/d", TlsMode::VerifyFull),
            ("postgres://h/d?a=1&sslmode=require&b=2", "postgres://h/d?a=1&b=2", TlsMode::Require),
            ("host=h sslmode=disable user=u", "host=h user=u", TlsMode::Disable),
        ];
        for (text, rest, mode) in cases {
            assert_eq!(TlsMode::take_from(text).unwrap(), (rest.to_owned(), mode), "{text}");
        }
        assert!(TlsMode::take_from("host=h sslmode=on").is_err());
    }

    #[test]
    fn each_degree_of_belief_makes_a_config() {
        let folder = std::env::temp_dir();
        assert!(client_config(None, Verify::Nothing).is_ok());
        let missing = folder.join("no-such-file.pem");
        let result = client_config(Some(&missing), Verify::AuthorityAndHost);
        assert!(matches!(result, Err(TlsError::CaFile { .. })));
    }
}

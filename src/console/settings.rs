//! What the console wants to be told.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgwire::api::auth::AuthSource;
use pgwire::api::auth::LoginInfo;
use pgwire::api::auth::Password;
use pgwire::api::auth::sasl::scram::ScramAuth;
use pgwire::error::PgWireError;
use pgwire::error::PgWireResult;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::console::users::Users;

/// Where the console listens, and whom it lets in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address for TCP; absent: none.
    pub address: Option<SocketAddr>,
    /// The path of a Unix socket; absent: none.
    pub socket: Option<PathBuf>,
    /// Who may log in, and what for.
    pub users: Arc<Users>,
    /// The certificate to show over TCP; absent: no TLS.
    pub tls: Option<Tls>,
    /// How many connections each of the two may have at once.
    pub connections_max: usize,
    /// How long a login may take. Default 10 s.
    pub startup: Duration,
    /// How long a connection may ask nothing.
    pub idle: Duration,
}

/// A certificate, ready to be shown.
#[derive(Clone)]
pub struct Tls {
    /// What connections are accepted with.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificates in PEM, for channel binding.
    pub certificates: Arc<[u8]>,
}

impl Tls {
    /// Takes certificates and their key in PEM.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<Tls, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("no certificates in PEM: {error}"))?;
        if chain.is_empty() {
            return Err("there is no certificate in the file".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("tls_key_file has no key in PEM: {error}"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("certificate and key don't go together: {error}"))?;
        let mut bound = ScramAuth::<()>::new(Arc::new(Nobody));
        bound
            .configure_certificate(certificates)
            .map_err(|error| format!("the certificate can't bind a channel: {error}"))?;
        Ok(Tls { config: Arc::new(config), certificates: certificates.into() })
    }
}

/// Knows no password: to find out whether a certificate can be used.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl AuthSource for Nobody {
    async fn get_password(&self, _login: &LoginInfo) -> PgWireResult<Password> {
        Err(PgWireError::ApiError("nobody is known here".into()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

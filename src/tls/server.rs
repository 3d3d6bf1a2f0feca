//! TLS towards clients: the certificate that a listener shows, which can be changed while it runs.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::crypto::ring::default_provider;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::tls::validity::not_after;

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of the certificates.
    #[error("{} holds no readable PEM certificate", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The file of the key.
    #[error("{} holds no readable PEM private key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The two don't belong together, or are of a kind that is not known.
    #[error("certificate and key can't be used together")]
    Rustls(#[from] rustls::Error),
}

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those that lead to an authority, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    expires_at: Option<SystemTime>,
}

impl Identity {
    /// Reads it from its files.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where a file can't be read, or the two don't belong together.
    pub fn read(files: &Files) -> Result<Identity, CertificateError> {
        let chain = chain(&files.certificate).map_err(|source| CertificateError::Certificate {
            path: files.certificate.clone(),
            source,
        })?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|source| CertificateError::Key { path: files.key.clone(), source })?;
        let expires_at = chain.first().and_then(|certificate| not_after(certificate));
        let key = CertifiedKey::from_der(chain, key, &default_provider())?;
        Ok(Identity { key: Arc::new(key), expires_at })
    }

    /// From when on clients don't believe it; absent where that can't be read.
    #[must_use]
    pub const fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }
}

/// An empty file is an error, too.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if chain.is_empty() { Err(rustls_pki_types::pem::Error::NoItemsFound) } else { Ok(chain) }
}

/// The certificate that is shown now.
pub struct Shown(ArcSwap<Identity>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(..)")
    }
}

impl Shown {
    /// Shows this one.
    #[must_use]
    pub fn new(identity: Identity) -> Shown {
        Shown(ArcSwap::from_pointee(identity))
    }

    /// Shows another one to those who come from now on.
    pub fn show(&self, identity: Identity) {
        self.0.store(Arc::new(identity));
    }

    /// From when on clients don't believe the one that is shown.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.0.load().expires_at
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

/// The server's side of TLS 1.2 and 1.3 for HTTP/1.1. Who comes back resumes without a signature: a
/// storm of reconnects costs little.
///
/// # Errors
///
/// rustls', where the system has no random numbers.
pub fn server_config(shown: &Arc<Shown>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Shown>::clone(shown);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn files(certificate: &str, key: &str) -> Files {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
        Files { certificate: folder.join(certificate), key: folder.join(key) }
    }

    #[test]
    fn a_certificate_is_read_with_its_key_and_its_end() {
        let identity = Identity::read(&files("server.pem", "server.key")).unwrap();
        assert!(identity.expires_at().unwrap() > SystemTime::now());
        let expired = Identity::read(&files("expired.pem", "expired.key")).unwrap();
        // 2020-02-01T00:00:00Z
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_580_515_200);
        assert_eq!(expired.expires_at(), Some(end));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let wrong = |certificate, key| Identity::read(&files(certificate, key)).unwrap_err();
        assert!(matches!(wrong("server.pem", "renewed.key"), CertificateError::Rustls(_)));
        let key_first = wrong("server.key", "server.key");
        assert!(matches!(key_first, CertificateError::Certificate { .. }));
        assert!(matches!(wrong("server.pem", "server.pem"), CertificateError::Key { .. }));
        assert!(matches!(wrong("none.pem", "server.key"), CertificateError::Certificate { .. }));
    }
}

//! Opens connections of the asking role.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::Config;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;

use crate::catalog::CatalogError;
use crate::catalog::Settings;
use crate::tls::MakeTls;
use crate::tls::TlsMode;
use crate::tls::client_config;

/// How long Postgres may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whom to call, and whom to believe that it is.
#[derive(Clone, Debug)]
pub struct Dial {
    config: Config,
    tls: Option<MakeTls>,
}

/// What moves a connection's bytes; it ends when the client is dropped.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Dial {
    /// Prepares to connect; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Tls`] where the settings of TLS can't be used.
    pub fn new(settings: &Settings) -> Result<Dial, CatalogError> {
        let mode = settings.tls_mode;
        let ca_file = settings.tls_ca_file.as_deref();
        let mut config = settings.connection.clone();
        config.connect_timeout(PATIENCE);
        config.ssl_mode(match mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        if config.get_application_name().is_none() {
            config.application_name("walcast asking");
        }
        let tls = match mode {
            TlsMode::Disable => None,
            _ => Some(MakeTls::new(Arc::new(client_config(ca_file, mode.verify(ca_file))?))),
        };
        Ok(Dial { config, tls })
    }

    /// The role that connects.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// Connects. The driver must be polled until it ends; a connection that breaks is noticed, and
    /// reported, by the next question.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] where there is no connection in time.
    pub async fn open(&self) -> Result<(Client, Driver), CatalogError> {
        let opening = Box::pin(timeout(PATIENCE, self.connect()));
        let late = |_| CatalogError::Late { what: "connecting", seconds: PATIENCE.as_secs() };
        opening.await.map_err(late)?
    }

    async fn connect(&self) -> Result<(Client, Driver), CatalogError> {
        match &self.tls {
            None => {
                let connected = self.config.connect(NoTls).await;
                let (client, driver) = connected.map_err(CatalogError::Connect)?;
                Ok((client, Box::pin(async { drop(driver.await) })))
            }
            Some(tls) => {
                let connected = self.config.connect(tls.clone()).await;
                let (client, driver) = connected.map_err(CatalogError::Connect)?;
                Ok((client, Box::pin(async { drop(driver.await) })))
            }
        }
    }
}

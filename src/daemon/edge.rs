//! What clients meet first: who is let in, and the certificate that is shown. All shards share it, and
//! it follows a reload.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::settings;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::tls::server::CertificateError;
use crate::tls::server::Identity;
use crate::tls::server::Shown;
use crate::tls::server::server_config;

/// What all shards share towards clients.
#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) gate: Arc<Gate>,
    shown: Option<Arc<Shown>>,
    pub(super) tls: Option<Arc<ServerConfig>>,
}

impl Edge {
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>) -> Result<Edge, DaemonError> {
        let gate = Arc::new(Gate::new(settings::gate(config), Arc::clone(metrics)));
        let Some(files) = &config.listen.tls else {
            return Ok(Edge { gate, shown: None, tls: None });
        };
        let shown = Arc::new(Shown::new(Identity::read(files)?));
        let tls = server_config(&shown).map_err(CertificateError::from)?;
        Ok(Edge { gate, shown: Some(shown), tls: Some(Arc::new(tls)) })
    }

    /// Lets other settings hold for those who come from now on. Whether TLS is spoken at all stays as
    /// it was at the start.
    pub(super) fn apply(&self, config: &Config) {
        self.gate.set(settings::gate(config));
        let (Some(shown), Some(files)) = (&self.shown, &config.listen.tls) else { return };
        match Identity::read(files) {
            Ok(identity) => shown.show(identity),
            // It was good a moment ago, when the configuration was read.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the certificate can't be read; the old one is shown on");
            }
        }
    }
}

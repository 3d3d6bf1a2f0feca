//! The tables that policies read: which they are, and who reads them.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::catalog::dial::Dial;
use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::settings;
use crate::metrics::Metrics;
use crate::replica::Settings;
use crate::replica::Store;
use crate::replica::load::Loader;

/// The store; nothing is held yet.
pub(super) fn store(config: &Config, catalog: &Arc<Catalog>, metrics: &Arc<Metrics>) -> Arc<Store> {
    let settings = Settings {
        slot: config.database.slot.as_str().into(),
        cell_bytes_max: config.limits.frame_bytes_max,
        ..config.replicas.clone()
    };
    Arc::new(Store::new(settings, Arc::clone(catalog)).counted_by(metrics))
}

/// Who reads the tables; not started yet.
pub(super) fn loader(config: &Config, store: &Arc<Store>) -> Result<Loader, DaemonError> {
    let dial = Dial::new(&settings::catalog(config)?)?;
    Ok(Loader::new(Arc::clone(store), dial))
}

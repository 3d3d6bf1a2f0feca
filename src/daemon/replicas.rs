//! The tables that policies read: which they are, and who reads them.

use std::sync::Arc;

use crate::catalog::dial::Dial;
use crate::config::Config;
use crate::daemon::DaemonError;
use crate::daemon::settings;
use crate::replica::Settings;
use crate::replica::Store;
use crate::replica::load::Loader;

/// Lets the store hold what the policies of today read.
pub(super) fn look(store: &Store) {
    let snapshot = store.catalog().current();
    store.want(&snapshot.replicas(), &snapshot);
}

/// What bounds the store.
pub(super) fn settings(config: &Config) -> Settings {
    Settings { cell_bytes_max: config.limits.frame_bytes_max, ..Settings::default() }
}

/// Who reads the tables; not started yet.
pub(super) fn loader(config: &Config, store: &Arc<Store>) -> Result<Loader, DaemonError> {
    let dial = Dial::new(&settings::catalog(config)?)?;
    Ok(Loader::new(Arc::clone(store), dial, &config.database.publication))
}

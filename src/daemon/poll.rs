//! The catalogue, read again and again, so that grants, new tables and changed keys are seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::catalog::Catalog;

/// How often the catalogue is looked at: a grant that is revoked counts after this time.
const EVERY: Duration = Duration::from_secs(2);

/// Looks for ever.
pub(super) async fn catalog(catalog: Arc<Catalog>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        // Whoever waits for the database looks first.
        if catalog.current().generation == 0 {
            continue;
        }
        match catalog.refresh().await {
            Ok(_) => failing = false,
            Err(error) if !failing => {
                failing = true;
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the catalogue can't be read; what was read last counts");
            }
            Err(_) => {}
        }
    }
}

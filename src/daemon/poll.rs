//! The catalogue, read again and again, so that grants, new tables and changed keys are seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;

use crate::metrics::Metrics;
use crate::replica::Store;

/// How often the catalogue is looked at: a grant that is revoked counts after this time.
const EVERY: Duration = Duration::from_secs(2);

/// After what time it is looked once more where a transaction was held back for a look: somebody who
/// commits is seen in the log a moment before he is seen.
const SOON: Duration = Duration::from_millis(100);

/// Looks for ever. What was read last counts where it can't be read.
pub(super) async fn catalog(store: Arc<Store>, metrics: Arc<Metrics>) {
    let catalog = Arc::clone(store.catalog());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = catalog.wanted_again() => sleep(SOON).await,
        }
        // Whoever waits for the database looks first.
        if catalog.current().generation == 0 {
            continue;
        }
        metrics.catalog.polls.one();
        let read = catalog.refresh().await;
        // The stream may have read it, too.
        store.follow();
        match read {
            Ok(_) => {
                failing = false;
                metrics.health.clear("catalog_unreadable");
            }
            Err(error) => {
                metrics.catalog.failures.one();
                if failing {
                    continue;
                }
                failing = true;
                let error: &dyn std::error::Error = &error;
                let message = "the catalogue can't be read; what was read last counts";
                metrics.health.warn("catalog_unreadable", message);
                tracing::warn!(error, "{message}");
            }
        }
    }
}

//! Looks after the keys that issuers publish: each address is looked at when it is time, and what
//! comes of it is told.
//!
//! A reload that changes the addresses begins anew; what was fetched from one that stays is kept
//! with it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::auth::fetch::FetchError;
use crate::auth::source::Look;
use crate::auth::source::Source;
use crate::auth::source::Standing;
use crate::daemon::reload::Revision;
use crate::metrics::Metrics;

/// Raised where keys of before count, because the address can't be read.
const STALE: &str = "keys_stale";
/// Raised where an address has brought no keys.
const MISSING: &str = "keys_missing";

/// Looks for ever, at the addresses of what holds.
pub(super) async fn look(mut revisions: watch::Receiver<Arc<Revision>>, metrics: Arc<Metrics>) {
    loop {
        let sources: Arc<[Arc<Source>]> = {
            let revision = revisions.borrow_and_update();
            revision.verifier.sources().into()
        };
        let mut looking = JoinSet::new();
        for source in sources.iter() {
            let keeper = Keeper {
                source: Arc::clone(source),
                all: Arc::clone(&sources),
                metrics: Arc::clone(&metrics),
            };
            looking.spawn(keeper.run());
        }
        report(&sources, &metrics);
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at one address.
struct Keeper {
    source: Arc<Source>,
    all: Arc<[Arc<Source>]>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    async fn run(self) {
        let mut failing = false;
        loop {
            self.source.due().await;
            let look = self.source.look().await;
            match look {
                Ok(look) => {
                    self.metrics.auth.looks.one();
                    self.tell(&look, failing);
                    failing = false;
                }
                Err(error) => {
                    self.metrics.auth.failed_looks.one(error.code());
                    self.complain(&error, failing);
                    failing = true;
                }
            }
            report(&self.all, &self.metrics);
        }
    }

    fn tell(&self, look: &Look, failing: bool) {
        let url = &self.source.settings().url;
        let Look { keys, unused, withdrawn } = look;
        for (position, why) in unused {
            tracing::debug!(%url, position, %why, "a published key is not used");
        }
        if *keys == 0 {
            tracing::warn!(%url, unused = unused.len(), "no published key can be used");
        }
        if *withdrawn > 0 || failing {
            tracing::info!(%url, keys, withdrawn, unused = unused.len(), "the published keys were read");
        }
    }

    fn complain(&self, error: &FetchError, failing: bool) {
        if failing {
            return;
        }
        let url = &self.source.settings().url;
        let error: &dyn std::error::Error = error;
        tracing::warn!(%url, error, "published keys can't be read; those of before count for a while");
    }
}

/// Tells how all addresses are.
fn report(sources: &[Arc<Source>], metrics: &Metrics) {
    let (mut keys, mut stale, mut missing) = (0, Vec::new(), Vec::new());
    for source in sources {
        keys += source.len();
        match source.standing() {
            Standing::Current => {}
            Standing::Kept { left } => {
                stale.push(format!("{} (for {} s more)", source.settings().url, left.as_secs()));
            }
            Standing::Missing => missing.push(source.settings().url.to_string()),
        }
    }
    metrics.auth.published_keys.set_len(keys);
    if stale.is_empty() {
        metrics.health.clear(STALE);
    } else {
        let message = format!("keys of before count for {}", stale.join(", "));
        metrics.health.warn(STALE, message);
    }
    if missing.is_empty() {
        metrics.health.clear(MISSING);
    } else {
        let message = format!("no keys could be had from {}", missing.join(", "));
        metrics.health.unready(MISSING, message);
    }
}

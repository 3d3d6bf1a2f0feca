//! The console's part of the daemon: what it may look at, and whom it gives orders.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::catalog::dial::Dial;
use crate::config::Config;
use crate::console::Check;
use crate::console::Console;
use crate::console::Judge;
use crate::console::Judging;
use crate::console::View;
use crate::console::listener;
use crate::console::listener::Listeners;
use crate::daemon::Daemon;
use crate::daemon::DaemonError;
use crate::daemon::check;
use crate::daemon::reload::Revision;
use crate::daemon::settings;
use crate::replica::Store;
use crate::serve::inspect::Inspector;

/// Signs of life to a client that follows changes, for each ping to a client of a shard: two are
/// needed until a vanished one is noticed.
const HEARTBEATS: u32 = 5;

/// What the console is started with.
pub(super) struct Stage {
    console: Console,
    listeners: Listeners,
    stop: CancellationToken,
}

impl Daemon {
    /// Who asks the shards what they are doing.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        self.inspector.clone()
    }

    /// Where the console is reached over TCP, with the port that was found where the settings say 0.
    #[must_use]
    pub const fn console_address(&self) -> Option<SocketAddr> {
        self.console
    }

    /// The console, where the settings or systemd have a place for it.
    pub(super) fn console(
        &mut self,
        config: &Config,
        replicas: &Arc<Store>,
    ) -> Result<Option<Stage>, DaemonError> {
        let listeners = Listeners::bind(&config.console).map_err(DaemonError::Console)?;
        if listeners.is_empty() {
            return Ok(None);
        }
        self.console = listeners.address();
        let (asked, catalog) = (settings::catalog(config)?, replicas.catalog());
        let view = View {
            inspector: self.inspector.clone(),
            control: self.control.clone(),
            catalog: Arc::clone(catalog),
            replicas: Arc::clone(replicas),
            judging: self.judging(),
            publication: config.database.publication.as_str().into(),
            slot: config.database.slot.as_str().into(),
            roles: asked.roles.clone(),
            metrics: Arc::clone(&self.metrics),
            standing: self.standing(),
            check: check(self.revisions.clone(), Arc::clone(catalog)),
            asking: Dial::new(&asked)?,
            heartbeat: config.limits.ping / HEARTBEATS,
        };
        let console = Console::new(config.console.clone(), view).map_err(DaemonError::Console)?;
        let stop = self.stop_operators.clone();
        Ok(Some(Stage { console, listeners, stop }))
    }

    /// Who judges by what the last reload made of policies and keys.
    fn judging(&self) -> Judging {
        let revisions = self.revisions.clone();
        Arc::new(move || {
            let revision = Arc::clone(&revisions.borrow());
            let (policies, verifier) = (&revision.policies, &revision.verifier);
            Judge { policies: Arc::clone(policies), verifier: Arc::clone(verifier) }
        })
    }
}

/// Serves the console until it is stopped.
pub(super) async fn run(stage: Stage) -> Result<(), DaemonError> {
    let console = Arc::new(stage.console);
    listener::run(console, stage.listeners, stage.stop).await.map_err(DaemonError::Console)
}

/// Looks for what is wrong, by the configuration that holds then.
fn check(revisions: watch::Receiver<Arc<Revision>>, catalog: Arc<Catalog>) -> Check {
    Arc::new(move || {
        let (revision, catalog) = (Arc::clone(&revisions.borrow()), Arc::clone(&catalog));
        Box::pin(async move { check::running(&revision.config, catalog).await })
    })
}

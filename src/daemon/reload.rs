//! What holds in a running daemon, and how another configuration comes to hold.
//!
//! ```text
//! Control::reload ─▶ Config::reload ─▶ keys, policies ─▶ Revision ─────────▶ every shard's thread
//!                    all mistakes at once, or            (whole)  ─▶ the catalogue, the pool of
//!                    what is different                               those who ask
//! ```
//!
//! A shard hears of a revision on its own thread, between two passes: nothing is locked where rows
//! are delivered. Other threads may follow it, too ([`Daemon::revisions`](super::Daemon::revisions)).
//!
//! # Invariants
//!
//! - A configuration with a mistake changes nothing: everything is read and made ready before
//!   anything is told. (`tests/postgres/reload.rs`.)
//! - Keys that are not reloadable are in every revision as they were at the start.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ask::Asker;
use crate::auth::AuthError;
use crate::auth::Verifier;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::config::ConfigError;
use crate::control::Change;
use crate::control::ControlError;
use crate::control::Reloaded;
use crate::daemon::DaemonError;
use crate::daemon::edge::Edge;
use crate::daemon::settings;
use crate::daemon::systemd;
use crate::ingest::orders::Orders;
use crate::logging;
use crate::logging::notice;
use crate::replica::Store;
use crate::route::policy::Policies;
use crate::serve::inspect::Inspector;
use crate::trace::span;
use crate::trace::traced;

/// How long the database may take to say what it knows of roles and tables that are new. Later it
/// is asked again, as always.
const CATALOG_WAIT: Duration = Duration::from_secs(2);

/// How often a shard is told, where it does not answer. It takes two seconds each time, and a pass,
/// which it has to end before, a millisecond.
const ATTEMPTS_MAX: usize = 5;

/// What holds, as a whole.
#[derive(Debug)]
pub struct Revision {
    /// Its own, counted from the start.
    pub number: u64,
    /// The configuration.
    pub config: Config,
    /// Who may see what.
    pub policies: Arc<Policies>,
    /// Whose tokens are believed.
    pub verifier: Arc<Verifier>,
}

impl Revision {
    /// Makes ready what the configuration says.
    pub(super) fn new(config: Config, number: u64) -> Result<Revision, AuthError> {
        let verifier = Verifier::new(config.auth.clone())?;
        Ok(Revision::with(config, number, verifier))
    }

    /// The same for what takes its place.
    fn following(&self, config: Config) -> Result<Revision, AuthError> {
        let verifier = Verifier::after(&self.verifier, config.auth.clone())?;
        Ok(Revision::with(config, self.number + 1, verifier))
    }

    fn with(config: Config, number: u64, verifier: Verifier) -> Revision {
        let policies = Arc::new(settings::policies(&config));
        Revision { number, config, policies, verifier: Arc::new(verifier) }
    }
}

/// Lets another configuration hold.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) revisions: watch::Sender<Arc<Revision>>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) asker: Asker,
    /// Of each shard, whether it accepts clients.
    pub(super) live: Vec<watch::Receiver<bool>>,
    /// What the stream from Postgres is asked to do.
    pub(super) stream: Orders,
    /// What clients meet first.
    pub(super) edge: Edge,
    /// The shards.
    pub(super) shards: Inspector,
    /// The tables that policies read.
    pub(super) replicas: Arc<Store>,
}

impl Reloader {
    /// What holds.
    pub(super) fn current(&self) -> Arc<Revision> {
        Arc::clone(&self.revisions.borrow())
    }

    /// Reads the configuration again and lets it hold, or says all that is wrong with it. Where it
    /// is done, it holds in every shard.
    pub(super) async fn reload(&self) -> Result<Reloaded, ControlError> {
        // systemd waits for the end of a reload only from a daemon that was ready before.
        let is_ready = self.live.iter().all(|live| *live.borrow());
        if is_ready {
            let now = NotifyState::monotonic_usec_now();
            let began = now.into_iter().chain([NotifyState::Reloading]);
            systemd(&began.collect::<Vec<_>>());
        }
        let reloaded = traced(span!("daemon.reload"), self.read_and_adopt()).await;
        if is_ready {
            systemd(&[NotifyState::Ready]);
        }
        reloaded
    }

    async fn read_and_adopt(&self) -> Result<Reloaded, ControlError> {
        let reloaded = match self.read() {
            Ok((revision, changes)) => Ok(self.adopt(revision, changes).await),
            Err(mistakes) => Err(ControlError::Refused { mistakes }),
        };
        match &reloaded {
            Ok(reloaded) => report(reloaded),
            Err(ControlError::Refused { mistakes }) => {
                for mistake in mistakes {
                    tracing::error!(mistake, "a mistake in the configuration");
                }
                let (code, mistakes) = (notice::RELOAD_FAILED, mistakes.len());
                tracing::error!(code, mistakes, "the configuration was not reloaded");
            }
            Err(ControlError::Stopping) => {}
        }
        reloaded
    }

    fn read(&self) -> Result<(Revision, Vec<Change>), Vec<String>> {
        let current = self.current();
        let (config, changes) = current.config.reload().map_err(texts)?;
        let revision = current.following(config);
        Ok((revision.map_err(|error| vec![chain(&DaemonError::Auth(error))])?, changes))
    }

    async fn adopt(&self, revision: Revision, changes: Vec<Change>) -> Reloaded {
        let warnings = revision.config.warnings.clone();
        // A certificate is another one without another word in the configuration.
        self.edge.apply(&revision.config);
        if changes.iter().any(|change| change.applied) {
            if let Ok(wanted) = settings::catalog(&revision.config) {
                self.catalog.look_for(wanted.roles, wanted.tables);
                // Whoever comes with a new role shall not be refused for want of a look.
                if !matches!(timeout(CATALOG_WAIT, self.catalog.refresh()).await, Ok(Ok(_))) {
                    tracing::warn!("the catalogue can't be read; new roles have to wait for it");
                }
            }
            self.asker.reconfigure(settings::ask(&revision.config));
            let wanted = &revision.config.replicas;
            self.replicas.reconfigure(wanted.role.clone(), wanted.bytes_max);
            if let Err(error) = logging::change(&revision.config.log) {
                tracing::warn!(%error, "the log keeps its level");
            }
            // Parts that fit the ring come before a ring that holds less.
            self.stream.hold(settings::held(&revision.config));
            let revision = Arc::new(revision);
            let before = self.revisions.send_replace(Arc::clone(&revision));
            for shard in 0..self.shards.shards() {
                self.tell(shard, &revision).await;
            }
            before.verifier.give_way_to(&revision.verifier);
        }
        Reloaded { changes, warnings }
    }

    /// Lets one shard follow.
    async fn tell(&self, shard: usize, revision: &Arc<Revision>) {
        for _ in 0..ATTEMPTS_MAX {
            let (revision, edge) = (Arc::clone(revision), self.edge.clone());
            let told = self.shards.ask(shard, move |front| {
                let Revision { config, policies, verifier, .. } = &*revision;
                let serve = settings::serve(config, config.listen.address, &edge);
                front.reconfigure(Arc::clone(verifier), serve);
                front.judge_by(settings::shard(config), Arc::clone(policies));
            });
            if told.await.is_ok() {
                return;
            }
        }
        tracing::error!(shard, "a shard does not answer; it keeps the configuration of before");
    }
}

/// Tells the log what is different.
fn report(reloaded: &Reloaded) {
    for Change { name, old, new, applied } in &reloaded.changes {
        let (old, new) = (old.as_deref().unwrap_or("none"), new.as_deref().unwrap_or("none"));
        if *applied {
            tracing::info!(key = name, old, new, "the configuration has changed");
        } else {
            tracing::warn!(key = name, old, new, "this change waits for the next start");
        }
    }
    for warning in &reloaded.warnings {
        tracing::warn!("{warning}");
    }
    let applied = reloaded.changes.iter().filter(|change| change.applied);
    let changed = applied.map(|change| change.name.as_str()).collect::<Vec<_>>().join(" ");
    tracing::info!(code = notice::RELOADED, changed, "the configuration was reloaded");
}

fn texts(error: ConfigError) -> Vec<String> {
    match error {
        ConfigError::Mistakes(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
        ConfigError::Unreadable { .. } => vec![chain(&error)],
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

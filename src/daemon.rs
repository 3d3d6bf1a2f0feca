//! Builds the stages, owns every thread, and stops them in order.
//!
//! ```text
//! control (the caller's runtime) ── orders; the catalogue, polled ─┐
//! ingest  (a thread) ── Feed ──▶ shard (a thread each) ────────────┘── sessions
//! ```
//!
//! Nothing is served before the configuration is good, the address is bound and the database answers:
//! for that it is waited (`daemon/begin.rs`). A stage that ends although nobody asked it to ends the
//! daemon: half a daemon would look alive.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ask::Asker;
use crate::ask::Pool;
use crate::auth::AuthError;
use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::config::Config;
use crate::control::Control;
use crate::control::Stop;
use crate::daemon::control::Desk;
use crate::daemon::control::told_to_stop;
use crate::daemon::edge::Edge;
use crate::daemon::files::Watch;
use crate::daemon::listen::Place;
use crate::daemon::reload::Reloader;
use crate::daemon::reload::Revision;
use crate::daemon::stopping::STOP_STEP;
use crate::ingest::Standing;
use crate::ingest::budget;
use crate::ingest::error::IngestError;
use crate::ingest::orders::Orders;
use crate::ingest::state::Board;
use crate::logging::notice;
use crate::metrics::Metrics;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;
use crate::route::shard::Shared;
use crate::serve;
use crate::serve::inspect;
use crate::serve::inspect::Inspector;
use crate::tls::server::CertificateError;

pub mod check;
mod descriptors;
mod edge;
pub mod settings;
mod console;
mod control;
mod poll;
mod keys;
mod replicas;
pub mod reload;
mod begin;
mod listen;
mod wal;
mod files;
mod notify;
mod operators;
mod stopping;
mod shard;

/// Feeds that may wait for one shard. Each is a pointer; what they point to is bounded by ingest.
const FEEDS_MAX: usize = 4096;

/// Why the daemon can't start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A connection string or a name in the configuration can't be used.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// A key can't be used.
    #[error("section auth")]
    Auth(#[from] AuthError),
    /// The certificate for clients can't be used.
    #[error("section listen")]
    Certificate(#[from] CertificateError),
    /// The database does not answer as the asking role.
    #[error("the database does not answer")]
    Catalog(#[from] CatalogError),
    /// The address can't be bound.
    #[error("binding {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The console's address or path can't be bound, or its certificate not be used.
    #[error("opening the console")]
    Console(#[source] std::io::Error),
    /// A thread can't be started.
    #[error("starting a thread")]
    Thread(#[source] std::io::Error),
    /// The stream from Postgres can't go on.
    #[error("the stream from Postgres ended")]
    Ingest(#[from] IngestError),
    /// A stage ended although nobody asked it to.
    #[error("{stage} ended unexpectedly")]
    Ended {
        /// The stage.
        stage: String,
    },
}

/// A running daemon. Dropped, it stops without order; [`Daemon::stop`] stops it in order.
#[derive(Debug)]
pub struct Daemon {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    board: Board,
    orders: Orders,
    wal: watch::Receiver<budget::Report>,
    admin: Option<SocketAddr>,
    live: Vec<watch::Receiver<bool>>,
    inspector: Inspector,
    console: Option<SocketAddr>,
    stages: JoinSet<Result<(), DaemonError>>,
    /// What is done on the caller's runtime.
    tasks: JoinSet<()>,
    control: Control,
    /// The operator's thread, which ends last.
    operators: JoinSet<Result<(), DaemonError>>,
    revisions: watch::Receiver<Arc<Revision>>,
    stop_serving: serve::Stop,
    stop_ingest: CancellationToken,
    stop_operators: CancellationToken,
}

/// What the process is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Stop in order; at once, when it comes once more.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Runs a daemon until a signal or an order stops it, then stops it in order; faster when it is
/// told once more.
///
/// `signals` gives one at each call, and loses none when it is given up.
///
/// # Errors
///
/// [`DaemonError`]; everything that was started is stopped then.
pub async fn run(
    config: Config,
    mut signals: impl AsyncFnMut() -> Signal,
) -> Result<(), DaemonError> {
    tracing::info!(code = notice::STARTED, version = env!("CARGO_PKG_VERSION"), "starting");
    let mut daemon = Daemon::start(&config)?;
    let control = daemon.control();
    let lives = async {
        if let Err(error) = daemon.live().await {
            return error;
        }
        tracing::info!(code = notice::READY, address = %daemon.address, "ready");
        systemd(&[sd_notify::NotifyState::Ready]);
        daemon.ended().await
    };
    let result = tokio::select! {
        () = told_to_stop(&control, &mut signals, |stop| stop.is_some()) => Ok(()),
        error = lives => Err(error),
    };
    let window = daemon.revisions.borrow().config.drain;
    tracing::info!(code = notice::DRAINING, seconds = window.as_secs(), "draining");
    // Counts only where it is later than the unit's TimeoutStopSec=.
    let longest = window.saturating_add(3 * STOP_STEP);
    let longest = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
    systemd(&[
        sd_notify::NotifyState::Stopping,
        sd_notify::NotifyState::ExtendTimeoutUsec(longest),
    ]);
    daemon.drain(told_to_stop(&control, &mut signals, |stop| stop == Some(Stop::Now))).await;
    tracing::info!(code = notice::STOPPED, "stopped");
    result
}

impl Daemon {
    /// Starts every stage, in the runtime of the caller. Clients are accepted when [`Daemon::live`]
    /// returns.
    ///
    /// # Errors
    ///
    /// [`DaemonError`] where the configuration, the database or the address can't be used.
    pub fn start(config: &Config) -> Result<Daemon, DaemonError> {
        let ingest_settings = settings::ingest(config)?;
        let revision = Arc::new(Revision::new(config.clone(), 0)?);
        let catalog = Arc::new(Catalog::new(settings::catalog(config)?)?);
        let metrics = begin_metrics(config);
        let replicas = replicas::store(config, &catalog, &metrics);
        let loader = replicas::loader(config, &replicas)?;
        let edge = Edge::new(config, &metrics)?;
        let (asker, pool) = pool(config, &metrics)?;
        let (control, orders) = Control::new();
        let (wal, kept) = watch::channel(budget::Report::new(config.wal));
        let (inspector, mailboxes) = inspect::inspector(settings::shards(config));
        let (revisions, receiver) = watch::channel(Arc::clone(&revision));
        let mut daemon = Daemon::new(config, Arc::clone(&metrics), control, inspector, receiver);
        daemon.wal = kept;
        let console = daemon.console(config, &replicas)?;
        daemon.serve_operators(config.admin, console)?;
        let (mut feeds, mut routed) = (Vec::new(), Vec::new());
        let mut place = Place::take(daemon.address)?;
        for (number, mailbox) in mailboxes.into_iter().enumerate() {
            let source = place.share()?;
            daemon.address = place.address();
            let (feed, fed) = mpsc::channel::<Feed>(FEEDS_MAX);
            let (live, is_live) = watch::channel(false);
            let shared = Shared {
                catalog: Arc::clone(&catalog),
                policies: Arc::clone(&revision.policies),
                replicas: Arc::clone(&replicas),
                asker: asker.clone(),
                metrics: Arc::clone(&metrics),
                routed: Routed::new(),
            };
            routed.push(shared.routed.clone());
            let stage = shard::Stage {
                source,
                feeds: fed,
                live,
                shared,
                verifier: Arc::clone(&revision.verifier),
                settings: settings::shard(config),
                serve: settings::serve(config, daemon.address, &edge),
                stop: daemon.stop_serving.clone(),
                mailbox,
            };
            daemon.spawn(format!("shard-{number}"), move || shard::run(stage))?;
            feeds.push(feed);
            daemon.live.push(is_live);
        }
        let stage = daemon.stage(ingest_settings, Arc::clone(&replicas), feeds, routed);
        daemon.stages.spawn(begin::read_then_stream(stage));
        daemon.tasks.spawn(wal::Watcher::new(config, Arc::clone(&catalog), &daemon, wal).run());
        let (shards, live) = (daemon.inspector.clone(), daemon.live.clone());
        let stream = daemon.orders.clone();
        let (kept, catalog) = (Arc::clone(&replicas), Arc::clone(&catalog));
        let reloader =
            Reloader { revisions, catalog, asker, edge, shards, live, stream, replicas: kept };
        let desk = Desk { orders, reloader, metrics: Arc::clone(&metrics) };
        daemon.tasks.spawn(keys::look(daemon.revisions(), Arc::clone(&metrics)));
        daemon.tasks.spawn(poll::catalog(replicas, Arc::clone(&metrics)));
        daemon.tasks.spawn(loader.run());
        daemon.tasks.spawn(pool.run());
        daemon.watch_files(config);
        daemon.tasks.spawn(notify::run(metrics));
        daemon.tasks.spawn(desk.run());
        Ok(daemon)
    }

    /// A daemon of which nothing runs yet.
    fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        control: Control,
        inspector: Inspector,
        revisions: watch::Receiver<Arc<Revision>>,
    ) -> Daemon {
        Daemon {
            address: config.listen.address,
            board: Board::new(Arc::clone(&metrics)),
            metrics,
            orders: Orders::new(),
            wal: watch::channel(budget::Report::new(config.wal)).1,
            admin: None,
            console: None,
            live: Vec::new(),
            inspector,
            stages: JoinSet::new(),
            tasks: JoinSet::new(),
            control,
            operators: JoinSet::new(),
            revisions,
            stop_serving: serve::Stop::default(),
            stop_ingest: CancellationToken::new(),
            stop_operators: CancellationToken::new(),
        }
    }

    /// The address that clients connect to, with the port that was found where the settings say 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A way to give orders.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What holds, and each reload of it.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<Arc<Revision>> {
        self.revisions.clone()
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the stream from Postgres is doing.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.board.watch()
    }

    /// How much log the slot keeps, and what is done about it.
    #[must_use]
    pub fn wal(&self) -> watch::Receiver<budget::Report> {
        self.wal.clone()
    }

    /// What the stream from Postgres is asked to do.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Where operators ask, with the port that was found where the settings say 0.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns when every shard has caught up with the log and accepts clients.
    ///
    /// # Errors
    ///
    /// [`DaemonError`] where a stage ended before.
    pub async fn live(&mut self) -> Result<(), DaemonError> {
        let mut shards = self.live.clone();
        let all = async {
            for shard in &mut shards {
                if shard.wait_for(|live| *live).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = all => {
                self.metrics.health.clear("starting");
                Ok(())
            }
            error = ended(&mut self.stages, &mut self.operators) => Err(error),
        }
    }

    /// Returns when a stage ends although nobody asked it to, and says why.
    pub async fn ended(&mut self) -> DaemonError {
        ended(&mut self.stages, &mut self.operators).await
    }

    /// Begins to reload when a file of the configuration changes, where that is wanted.
    fn watch_files(&mut self, config: &Config) {
        if config.watch
            && let Some(watch) = Watch::start(&config.layers, self.control())
        {
            self.tasks.spawn(watch.run());
        }
    }

    /// Starts a stage's thread and watches its end.
    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() -> Result<(), DaemonError> + Send + 'static,
    ) -> Result<(), DaemonError> {
        let ended = begin::thread(name.clone(), work)?;
        // A thread that panics drops its sender.
        self.stages
            .spawn(async move { ended.await.unwrap_or(Err(DaemonError::Ended { stage: name })) });
        Ok(())
    }
}

/// Metrics of a daemon that starts.
fn begin_metrics(config: &Config) -> Arc<Metrics> {
    let metrics = Metrics::recording(config.admin.metrics);
    metrics.health.unready("starting", "the daemon starts");
    Arc::new(metrics)
}

/// Who asks Postgres for rows, and who answers; not started yet.
fn pool(config: &Config, metrics: &Arc<Metrics>) -> Result<(Asker, Pool), DaemonError> {
    let dial = Dial::new(&settings::catalog(config)?)?;
    Ok(Pool::new(settings::ask(config), dial, Arc::clone(metrics)))
}

async fn ended(
    stages: &mut JoinSet<Result<(), DaemonError>>,
    operators: &mut JoinSet<Result<(), DaemonError>>,
) -> DaemonError {
    let first = tokio::select! {
        Some(ended) = stages.join_next() => Some(ended),
        Some(ended) = operators.join_next() => Some(ended),
        else => None,
    };
    match first {
        Some(Ok(Err(error))) => error,
        _ => DaemonError::Ended { stage: "a stage".to_owned() },
    }
}

/// Tells systemd, where it has started us.
fn systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

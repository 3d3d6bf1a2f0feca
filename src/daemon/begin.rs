//! The beginning: the database is waited for, and only then the stream is read.
//!
//! A daemon that is started before its database, or while that is down, starting or full, waits for
//! it in process, and says so: in the log once for each reason, in the standing of the stream, and to
//! systemd, whose patience it asks for. What no waiting mends ends the daemon at once, with its
//! reason: a password or a role that is refused, a database that does not exist, TLS that can't be
//! had, a `wal_level` that is not `logical`, a publication that is missing, a slot that is not ours
//! to make.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::daemon::Daemon;
use crate::daemon::DaemonError;
use crate::ingest;
use crate::ingest::State;
use crate::ingest::error::back_off;
use crate::ingest::state::Board;
use crate::replica::Store;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;

/// The longest wait between two attempts: an attempt costs nothing while nobody is served.
const TRY_EVERY: Duration = Duration::from_secs(1);

impl Daemon {
    /// The stage that reads the stream, for the shards that it feeds.
    pub(super) fn stage(
        &self,
        settings: ingest::Settings,
        replicas: Arc<Store>,
        feeds: Vec<mpsc::Sender<Feed>>,
        routed: Vec<Routed>,
    ) -> ingest::Stage {
        ingest::Stage {
            settings,
            catalog: Arc::clone(replicas.catalog()),
            replicas,
            feeds,
            routed,
            board: self.board.clone(),
            orders: self.orders.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: self.stop_ingest.clone(),
        }
    }
}

/// Reads the catalogue for the first time, as soon as the database lets us; then runs the stage on a
/// thread of its own, to its end.
pub(super) async fn read_then_stream(stage: ingest::Stage) -> Result<(), DaemonError> {
    let stop = stage.stop.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {
            stage.board.enter(State::Stopped { why: None });
            return Ok(());
        }
        read = first_look(&stage.catalog, &stage.board) => read?,
    }
    stage.replicas.follow();
    let name = "ingest".to_owned();
    let ended = thread(name.clone(), move || ingest::run_thread(stage).map_err(Into::into))?;
    ended.await.unwrap_or(Err(DaemonError::Ended { stage: name }))
}

async fn first_look(catalog: &Catalog, board: &Board) -> Result<(), CatalogError> {
    for attempt in 0.. {
        let Err(error) = catalog.refresh().await else { break };
        let why = error.chain().into();
        if !error.heals() {
            board.enter(State::Stopped { why: Some(why) });
            return Err(error);
        }
        board.enter(State::WaitingForDatabase { why });
        let after = back_off(attempt).min(TRY_EVERY);
        tracing::debug!("trying again in {after:?}");
        sleep(after).await;
    }
    Ok(())
}

/// Starts a thread; what it came to is received when it ends. One that panics drops its sender.
pub(super) fn thread(
    name: String,
    work: impl FnOnce() -> Result<(), DaemonError> + Send + 'static,
) -> Result<oneshot::Receiver<Result<(), DaemonError>>, DaemonError> {
    let (done, ended) = oneshot::channel();
    let started = thread::Builder::new().name(name).spawn(move || {
        let _nobody_waits = done.send(work());
    });
    started.map_err(DaemonError::Thread)?;
    Ok(ended)
}

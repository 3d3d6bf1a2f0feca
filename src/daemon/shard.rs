//! A shard's thread: one runtime for its routing and its sessions.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::auth::Verifier;
use crate::daemon::DaemonError;
use crate::ring::feed::Feed;
use crate::route;
use crate::route::shard::Shard;
use crate::route::shard::Shared;
use crate::serve;
use crate::serve::Front;
use crate::serve::inspect;
use crate::serve::inspect::Mailbox;
use crate::serve::listener::Source;

/// What a shard's thread is started with.
pub(super) struct Stage {
    pub(super) source: Source,
    pub(super) feeds: mpsc::Receiver<Feed>,
    /// Becomes true when clients are accepted, and false when all of them are gone.
    pub(super) live: watch::Sender<bool>,
    pub(super) shared: Shared,
    pub(super) verifier: Arc<Verifier>,
    pub(super) settings: route::shard::Settings,
    pub(super) serve: serve::Settings,
    pub(super) stop: serve::Stop,
    /// Where questions of operators come in.
    pub(super) mailbox: Mailbox,
}

/// Runs a shard until ingest is gone and all that it sent is routed.
pub(super) fn run(stage: Stage) -> Result<(), DaemonError> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(DaemonError::Thread)?;
    LocalSet::new().block_on(&runtime, drive(stage))
}

async fn drive(stage: Stage) -> Result<(), DaemonError> {
    let address = stage.serve.address;
    let shard = Rc::new(RefCell::new(Shard::new(stage.settings, stage.shared)));
    let front = Rc::new(Front::new(Rc::clone(&shard), stage.verifier, stage.serve));
    let serving = serve::run(Rc::clone(&front), stage.source, stage.live, stage.stop);
    let routing = route::run::run(Rc::clone(&shard), stage.feeds, SystemTime::now);
    let served = tokio::select! {
        (served, ()) = async { tokio::join!(serving, routing) } => served,
        () = inspect::answer(&front, stage.mailbox) => Ok(()),
    };
    served.map_err(|source| DaemonError::Listen { address, source })
}

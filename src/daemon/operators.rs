//! The operator's thread: one runtime for all that operators ask, apart from the data's way.

use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config;
use crate::daemon::Daemon;
use crate::daemon::DaemonError;
use crate::daemon::begin;
use crate::daemon::console;
use crate::inherit;

/// What the thread is started with.
struct Stage {
    /// Metrics and health over HTTP; absent where the settings have no address for it.
    http: Option<admin::Stage>,
    /// The console; absent where the settings have no place for it.
    console: Option<console::Stage>,
    /// Ends it.
    stop: CancellationToken,
}

impl Daemon {
    /// Starts the operator's thread.
    pub(super) fn serve_operators(
        &mut self,
        settings: config::Admin,
        console: Option<console::Stage>,
    ) -> Result<(), DaemonError> {
        let stop = self.stop_operators.clone();
        let listeners = self.operators_sockets(settings)?;
        let http = (!listeners.is_empty()).then(|| {
            let (metrics, stop) = (Arc::clone(&self.metrics), stop.clone());
            admin::Stage::new(listeners, metrics, stop)
        });
        let stage = Stage { http, console, stop };
        let name = "operators".to_owned();
        let ended = begin::thread(name.clone(), move || run(stage))?;
        // A thread that panics drops its sender.
        self.operators
            .spawn(async move { ended.await.unwrap_or(Err(DaemonError::Ended { stage: name })) });
        Ok(())
    }

    /// What systemd holds for them, else the address of the settings, else none.
    fn operators_sockets(
        &mut self,
        settings: config::Admin,
    ) -> Result<Vec<inherit::Listener>, DaemonError> {
        let inherited = inherit::sockets(inherit::ADMIN);
        if let Some(inherit::Listener::Tcp(first)) = inherited.first() {
            self.admin = first.local_addr().ok();
        }
        let Some(address) = settings.address.filter(|_| inherited.is_empty()) else {
            return Ok(inherited);
        };
        let listen = |source| DaemonError::Listen { address, source };
        let listener = admin::bind(address).map_err(listen)?;
        self.admin = Some(listener.local_addr().map_err(listen)?);
        Ok(vec![inherit::Listener::Tcp(listener)])
    }
}

/// Runs what operators ask until it is stopped.
fn run(stage: Stage) -> Result<(), DaemonError> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(DaemonError::Thread)?;
    LocalSet::new().block_on(&runtime, drive(stage))
}

async fn drive(stage: Stage) -> Result<(), DaemonError> {
    let http = async {
        match stage.http {
            Some(http) => admin::run(http).await.map_err(DaemonError::Thread),
            None => {
                stage.stop.cancelled().await;
                Ok(())
            }
        }
    };
    let console = async {
        match stage.console {
            Some(console) => console::run(console).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(http, console).map(drop)
}

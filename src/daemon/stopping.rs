//! The end, against the data's direction: sessions, the stream, the shards, and last those who watch.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use crate::daemon::Daemon;

/// How long each step of a stop may take, beyond the time that sessions are given.
pub(super) const STOP_STEP: Duration = Duration::from_secs(8);

impl Daemon {
    /// Stops every stage against the data's direction: sessions, over the time that the settings
    /// give them, then the stream, whose last status tells Postgres what was routed, then the
    /// shards, which empty their channels.
    pub async fn stop(self) {
        self.drain(std::future::pending()).await;
    }

    /// The same; when `hurry` returns, sessions that are left get no more time.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) {
        self.metrics.health.unready("draining", "the daemon was asked to stop");
        self.stop_serving.asked.cancel();
        let hurried = self.stop_serving.hurried.clone();
        let hurry = async {
            hurry.await;
            hurried.cancel();
            std::future::pending::<()>().await;
        };
        let sessions = async {
            for shard in &mut self.live {
                let _gone = shard.wait_for(|live| !*live).await;
            }
        };
        let closed = async {
            tokio::select! {
                () = sessions => {}
                () = hurry => {}
            }
        };
        let window = self.revisions.borrow().config.drain;
        if timeout(window.saturating_add(STOP_STEP), closed).await.is_err() {
            tracing::warn!("sessions were not closed in time");
        }
        self.stop_ingest.cancel();
        let stages = async {
            while let Some(stage) = self.stages.join_next().await {
                if let Ok(Err(error)) = stage {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "a stage failed while stopping");
                }
            }
        };
        if timeout(STOP_STEP, stages).await.is_err() {
            tracing::warn!("stages did not end in time");
        }
        self.tasks.shutdown().await;
        self.stop_operators.cancel();
        let operators = async { while self.operators.join_next().await.is_some() {} };
        if timeout(STOP_STEP, operators).await.is_err() {
            tracing::warn!("the operators' thread did not end in time");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop_serving.asked.cancel();
        self.stop_serving.hurried.cancel();
        self.stop_ingest.cancel();
        self.stop_operators.cancel();
    }
}

//! What systemd is told while the daemon runs: how it is (`STATUS=`), that every stage turns
//! (`WATCHDOG=1`), and that a long start or stop goes on (`EXTEND_TIMEOUT_USEC=`): a start is not
//! given up because the database is not there yet.
//!
//! # Invariants
//!
//! - The watchdog is told nothing while a stage is stalled. The loop here runs where signals are
//!   taken, so it tells nothing either where that is blocked.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::daemon::systemd;
use crate::logging::notice;
use crate::metrics::Metrics;

/// How often the status is told, and the watchdog where its time is not shorter.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// For how long systemd is asked to wait on, from each time that it is told.
const PATIENCE_US: u32 = 30_000_000;

/// Tells systemd for as long as the daemon runs, where it has started us; and the log of stages that
/// are stalled in any case.
pub(super) async fn run(metrics: Arc<Metrics>) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(TELL_EVERY, |limit| (limit / 4).min(TELL_EVERY));
    let mut ticks = interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watched = Watched { watchdog: watchdog.is_some(), stalled: Vec::new() };
    loop {
        ticks.tick().await;
        let status = status(&metrics, SystemTime::now());
        let mut states = vec![NotifyState::Status(&status)];
        states.extend(watched.states(&metrics));
        systemd(&states);
    }
}

/// What is watched, and what was last said of it in the log.
struct Watched {
    watchdog: bool,
    stalled: Vec<Arc<str>>,
}

impl Watched {
    /// What is told beside the status.
    fn states(&mut self, metrics: &Metrics) -> Vec<NotifyState<'static>> {
        let stalled: Vec<Arc<str>> =
            metrics.health.stalled().into_iter().map(|(stage, _)| stage).collect();
        if stalled != self.stalled {
            for stage in stalled.iter().filter(|stage| !self.stalled.contains(stage)) {
                tracing::error!(code = notice::STALLED, stage = &**stage, "a stage is stalled");
            }
            for stage in self.stalled.iter().filter(|stage| !stalled.contains(stage)) {
                tracing::warn!(stage = &**stage, "a stage that was stalled goes on");
            }
            self.stalled = stalled;
        }
        let mut states = Vec::new();
        if !self.stalled.is_empty() {
            return states;
        }
        if self.watchdog {
            states.push(NotifyState::Watchdog);
        }
        if metrics.health.is_raised("draining") || metrics.health.is_raised("starting") {
            states.push(NotifyState::ExtendTimeoutUsec(PATIENCE_US));
        }
        states
    }
}

/// How the daemon is, in a line: what keeps clients away first.
fn status(metrics: &Metrics, now: SystemTime) -> String {
    let mut text = String::new();
    let conditions = metrics.health.conditions();
    let (unready, warnings): (Vec<_>, Vec<_>) = conditions.iter().partition(|it| it.is_unready);
    if !unready.is_empty() {
        text.push_str("not ready: ");
        push_all(&mut text, unready.iter().map(|it| &*it.message));
        text.push_str("; ");
    }
    let lag = metrics.ingest.lag(now);
    let _infallible = write!(
        text,
        "lag {}, {:.1} s; {} {}, {} behind",
        Size(metrics.ingest.lag_bytes()),
        lag.as_secs_f64(),
        metrics.sessions(),
        if metrics.sessions() == 1 { "client" } else { "clients" },
        metrics.behind(),
    );
    if !warnings.is_empty() {
        text.push_str("; warning: ");
        push_all(&mut text, warnings.iter().map(|it| &*it.message));
    }
    // A line end would begin another assignment.
    text.replace(['\n', '\r'], " ")
}

fn push_all<'a>(text: &mut String, messages: impl Iterator<Item = &'a str>) {
    text.push_str(&messages.collect::<Vec<_>>().join(", "));
}

/// Bytes as a person says them.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes @ 0..1000 => write!(f, "{bytes} B"),
            bytes @ 1000..1_000_000 => write!(f, "{} kB", bytes / 1000),
            bytes @ 1_000_000..1_000_000_000 => write!(f, "{} MB", bytes / 1_000_000),
            bytes => write!(f, "{} GB", bytes / 1_000_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::health::STALLED_AFTER;
    use tokio::time::advance;

    fn told(watched: &mut Watched, metrics: &Metrics) -> Vec<String> {
        watched.states(metrics).iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_nothing_while_any_stage_is_stalled() {
        let metrics = Metrics::default();
        let (ingest, accept) = (metrics.health.stage("ingest"), metrics.health.stage("accept-0"));
        let mut watched = Watched { watchdog: true, stalled: Vec::new() };
        assert_eq!(told(&mut watched, &metrics), ["WATCHDOG=1"]);
        advance(STALLED_AFTER).await;
        accept.tick();
        metrics.health.unready("draining", "asked to stop");
        assert_eq!(told(&mut watched, &metrics), <[&str; 0]>::default());
        ingest.tick();
        let patience = "EXTEND_TIMEOUT_USEC=30000000";
        assert_eq!(told(&mut watched, &metrics), ["WATCHDOG=1", patience]);
        let mut unwatched = Watched { watchdog: false, stalled: Vec::new() };
        assert_eq!(told(&mut unwatched, &metrics), [patience]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_says_what_keeps_clients_away_and_how_far_behind_they_are() {
        let (metrics, now) = (Metrics::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        metrics.ingest.enter("streaming");
        assert_eq!(status(&metrics, now), "lag 0 B, 0.0 s; 0 clients, 0 behind");
        metrics.ingest.received_lsn.set(1_012_345);
        metrics.ingest.routed_lsn.set(1_000_000);
        metrics.ingest.handed_over(8_600_000, now);
        metrics.session_opened();
        metrics.shard().crowd().behind.set(3);
        metrics.health.warn("reload_failed", "the last reload was refused:\nline 3");
        metrics.health.unready("draining", "the daemon was asked to stop");
        assert_eq!(
            status(&metrics, now),
            "not ready: the daemon was asked to stop; lag 12 kB, 0.4 s; 1 client, 3 behind; \
             warning: the last reload was refused: line 3"
        );
    }

    #[test]
    fn sizes_are_said_in_their_own_unit() {
        let said = [0, 999, 12_345, 5_000_000, 7_999_999_999].map(|bytes| Size(bytes).to_string());
        assert_eq!(said, ["0 B", "999 B", "12 kB", "5 MB", "7 GB"]);
    }
}

//! Whether the daemon does its work, and if not, why.
//!
//! Two things speak for it. **Conditions** are what a component knows of itself: raised with a text
//! for a person, and cleared by whoever raised them. **Stages** are loops that have to turn: each
//! notes that it did, and one that has not for [`STALLED_AFTER`] is stalled, whatever it is busy with
//! or waits for. Readiness, the status line and the watchdog all read this.
//!
//! # Invariants
//!
//! - A stage notes a turn from its own loop, on its own thread, also while it has nothing to do: who
//!   notes it for another would say that a blocked thread lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// After how long without a turn a stage is stalled.
pub const STALLED_AFTER: Duration = Duration::from_secs(10);
/// How often a stage that has nothing to do turns.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The state of the daemon as its parts tell it.
#[derive(Debug)]
pub struct Health {
    began_at: Instant,
    conditions: Mutex<BTreeMap<&'static str, Raised>>,
    stages: Mutex<Vec<(Arc<str>, Weak<AtomicU64>)>>,
}

#[derive(Clone, Debug)]
struct Raised {
    message: Arc<str>,
    is_unready: bool,
    since: Instant,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The word for it, which does not change.
    pub code: &'static str,
    /// What it is, for a person.
    pub message: Arc<str>,
    /// Whether clients should go elsewhere meanwhile.
    pub is_unready: bool,
    /// For how long it has been so.
    pub lasted: Duration,
}

/// A stage's sign of life. The stage is watched until this is dropped.
#[derive(Debug)]
pub struct Beat {
    began_at: Instant,
    turned_at_ms: Arc<AtomicU64>,
}

impl Default for Health {
    fn default() -> Health {
        Health { began_at: Instant::now(), conditions: Mutex::default(), stages: Mutex::default() }
    }
}

impl Health {
    /// Says that clients should not come now, and why.
    pub fn unready(&self, code: &'static str, message: impl Into<Arc<str>>) {
        self.raise(code, message.into(), true);
    }

    /// Says that something should be looked at, although the daemon does its work.
    pub fn warn(&self, code: &'static str, message: impl Into<Arc<str>>) {
        self.raise(code, message.into(), false);
    }

    /// Says that it is over. Does nothing where it was not raised.
    pub fn clear(&self, code: &'static str) {
        self.raised().remove(code);
    }

    /// Everything that is raised, and every stage that is stalled.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let raised = self.raised();
        let raised = raised.iter().map(|(code, raised)| Condition {
            code,
            message: Arc::clone(&raised.message),
            is_unready: raised.is_unready,
            lasted: raised.since.elapsed(),
        });
        let stalled = self.stalled().into_iter().map(|(stage, lasted)| Condition {
            code: "stalled",
            message: format!("{stage} has not turned for {} s", lasted.as_secs()).into(),
            is_unready: true,
            lasted,
        });
        raised.chain(stalled).collect()
    }

    /// Whether a condition of that word is raised.
    #[must_use]
    pub fn is_raised(&self, code: &str) -> bool {
        self.raised().contains_key(code)
    }

    /// Begins to watch a stage.
    #[must_use]
    pub fn stage(&self, name: impl Into<Arc<str>>) -> Beat {
        let turned_at_ms = Arc::default();
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.retain(|(_, stage)| stage.strong_count() > 0);
        stages.push((name.into(), Arc::downgrade(&turned_at_ms)));
        let beat = Beat { began_at: self.began_at, turned_at_ms };
        beat.tick();
        beat
    }

    /// Every stage with the time since its last turn.
    #[must_use]
    pub fn stages(&self) -> Vec<(Arc<str>, Duration)> {
        let now = self.began_at.elapsed();
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |turned_at_ms: Arc<AtomicU64>| {
            now.saturating_sub(Duration::from_millis(turned_at_ms.load(Ordering::Relaxed)))
        };
        let alive = |(name, stage): &(Arc<str>, Weak<AtomicU64>)| {
            Some((Arc::clone(name), since(stage.upgrade()?)))
        };
        stages.iter().filter_map(alive).collect()
    }

    /// Every stage that does not turn, with the time since its last turn.
    #[must_use]
    pub fn stalled(&self) -> Vec<(Arc<str>, Duration)> {
        let mut stages = self.stages();
        stages.retain(|(_, since)| *since >= STALLED_AFTER);
        stages
    }

    fn raise(&self, code: &'static str, message: Arc<str>, is_unready: bool) {
        let mut raised = self.raised();
        let since = raised.get(code).map_or_else(Instant::now, |before| before.since);
        raised.insert(code, Raised { message, is_unready, since });
    }

    fn raised(&self) -> MutexGuard<'_, BTreeMap<&'static str, Raised>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beat {
    /// Notes that the stage's loop has turned.
    pub fn tick(&self) {
        let now = u64::try_from(self.began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned_at_ms.store(now, Ordering::Relaxed);
    }

    /// Notes turns while a future is waited for: it, and so the thread, is looked at again at least
    /// every [`BEAT_EVERY`].
    pub async fn while_waiting<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            self.tick();
            if let Ok(done) = tokio::time::timeout(BEAT_EVERY, future.as_mut()).await {
                return done;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_does_not_turn_is_stalled_until_it_does_or_ends() {
        let health = Health::default();
        let (turning, stuck) = (health.stage("turning"), health.stage("stuck"));
        advance(STALLED_AFTER).await;
        turning.tick();
        assert_eq!(health.stalled(), [("stuck".into(), STALLED_AFTER)]);
        let [condition] = &health.conditions()[..] else { panic!() };
        assert!(condition.is_unready && condition.code == "stalled");
        assert_eq!(&*condition.message, "stuck has not turned for 10 s");
        stuck.tick();
        assert_eq!(health.conditions(), []);
        advance(STALLED_AFTER).await;
        drop((turning, stuck));
        assert_eq!(health.conditions(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_waits_turns() {
        let health = Health::default();
        let beat = health.stage("waiting");
        let watching = async {
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                assert_eq!(health.stalled(), []);
            }
        };
        let waiting = beat.while_waiting(sleep(Duration::from_mins(1)));
        tokio::join!(waiting, watching);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_keeps_its_age_when_its_text_changes() {
        let health = Health::default();
        health.unready("slot_busy", "by 1");
        advance(Duration::from_secs(3)).await;
        health.unready("slot_busy", "by 2");
        health.warn("reload_failed", "line 1");
        let conditions = health.conditions();
        let told = conditions.iter().map(|it| (it.code, &*it.message, it.is_unready, it.lasted));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("reload_failed", "line 1", false, Duration::ZERO),
                ("slot_busy", "by 2", true, Duration::from_secs(3)),
            ]
        );
        health.clear("slot_busy");
        assert!(!health.is_raised("slot_busy") && health.is_raised("reload_failed"));
    }
}

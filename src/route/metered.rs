//! What a shard tells its meters: at a pass's end what it came to, and each second what is there.
//!
//! While a pass is matched its counts are plain numbers beside it, so that neither a change nor a
//! member costs more than an addition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use crate::change::transaction::Timestamp;
use crate::metrics::Metrics;
use crate::metrics::health::Beat;
use crate::metrics::shard::Matched;
use crate::route::pass::Routing;
use crate::route::shard::Shard;

/// From 1970 to 2000, where PostgreSQL's count of time begins.
const EPOCH_SECONDS: u64 = 946_684_800;

/// What a pass is counted as.
#[derive(Debug, Default)]
pub(crate) struct PassCount {
    pub(crate) matched: Matched,
    /// Frames for members of the transaction at hand.
    pub(crate) frames: u64,
    /// The same of those that are matched, with when they were committed.
    committed: Vec<(Timestamp, u64)>,
}

impl PassCount {
    /// What comes next is of another transaction.
    pub(crate) fn end_transaction(&mut self, committed_at: Timestamp) {
        if self.frames > 0 {
            self.committed.push((committed_at, std::mem::take(&mut self.frames)));
        }
    }
}

impl Shard {
    /// Counts a pass that was matched and written. `clock` is asked once, and only where somebody got
    /// something.
    pub(crate) fn count_pass(&mut self, clock: impl Fn() -> SystemTime) {
        if let Some(routing) = &self.routing {
            self.pass.count.end_transaction(Routing::committed_at(routing));
        }
        let count = &mut self.pass.count;
        if count.matched.changes > 0 {
            self.meter.matched(std::mem::take(&mut count.matched));
        }
        if count.committed.is_empty() {
            return;
        }
        if self.meter.records() {
            let now = clock();
            for (committed_at, frames) in &count.committed {
                self.meter.committed(since(*committed_at, now), *frames);
            }
        }
        count.committed.clear();
    }

    /// Begins to watch one of the loops on the shard's thread.
    #[must_use]
    pub fn stage(&self, name: &str) -> Beat {
        self.shared.metrics.health.stage(format!("{name}-{}", self.meter.number()))
    }

    /// What all of the daemon counts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Tells who is there, and what stands in the ring.
    pub(crate) fn count_all(&self) {
        let mut sessions = BTreeMap::new();
        let (mut behind, mut subscriptions) = (0, 0);
        for (_, session) in &self.sessions {
            *sessions.entry(session.dialect.name()).or_default() += 1;
            subscriptions += session.subscriptions.len();
            behind += usize::from(!session.readers.is_empty());
        }
        let crowd = self.meter.crowd();
        crowd.sessions.set(sessions);
        crowd.behind.set_len(behind);
        crowd.subscriptions.set_len(subscriptions);
        crowd.paused.set_len(self.paused.len());
        crowd.groups.set_len(self.groups.len());
        if let Some(ring) = &self.ring {
            let gauges = self.meter.ring();
            let age = ring.ages().map_or(Duration::ZERO, |(oldest, _)| oldest);
            gauges.bytes.set_len(ring.bytes());
            gauges.transactions.set_len(ring.transactions());
            gauges.tail_age_ms.set(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

/// How long ago a commit was; none where the clocks differ so that it lies ahead.
fn since(committed_at: Timestamp, now: SystemTime) -> Duration {
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS);
    let committed = Duration::from_micros(u64::try_from(committed_at.0).unwrap_or(0));
    now.duration_since(epoch).unwrap_or_default().saturating_sub(committed)
}

/// A length as a count.
pub(crate) fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_s_age_is_counted_from_its_server_s_epoch() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS + 10);
        assert_eq!(since(Timestamp(7_500_000), now), Duration::from_millis(2500));
        assert_eq!(since(Timestamp(11_000_000), now), Duration::ZERO);
    }
}

//! What ingest counts. Positions are bytes of log since its beginning.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::SystemTime;

use crate::metrics::instrument::Counter;
use crate::metrics::instrument::Gauge;

/// The words for where the stream stands. `ingest::state` says what they mean.
pub const STATES: [&str; 10] = [
    "waiting_for_database",
    "connecting",
    "catching_up",
    "streaming",
    "paused",
    "interrupted",
    "busy",
    "lost",
    "recreated",
    "stopped",
];

/// What the stream from Postgres counts. Written by its thread alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IngestMeter {
    /// Bytes of the stream's messages.
    pub bytes: Counter,
    /// Messages of the stream, keepalives included.
    pub messages: Counter,
    /// Transactions handed to the shards, each when its last part was.
    pub transactions: Counter,
    /// Changes in them.
    pub changes: Counter,
    /// Transactions that came again after a reconnect and were dropped.
    pub repeated: Counter,
    /// Connections that streamed.
    pub connections: Counter,
    /// Streams, and attempts to begin one, that ended otherwise than they should.
    pub interruptions: Counter,
    /// Memory of what is handed over and not yet routed, in bytes.
    pub in_flight_bytes: Gauge,
    /// Up to where the log was received.
    pub received_lsn: Gauge,
    /// Up to where every shard has routed.
    pub routed_lsn: Gauge,
    /// Up to where the slot was confirmed.
    pub confirmed_lsn: Gauge,
    /// How far the confirmed position is held back.
    pub window_bytes: Gauge,
    /// The commit time of the last transaction handed over, in microseconds since 1970; 0: none.
    pub committed_at_us: Gauge,
    /// How old that transaction was then, in microseconds, and when that was, since 1970.
    delay_us: Gauge,
    told_at_us: Gauge,
    /// The place of its word in [`STATES`].
    state: AtomicUsize,
}

impl IngestMeter {
    /// Notes where the stream stands, by its word in [`STATES`].
    pub fn enter(&self, state: &str) {
        let at = STATES.iter().position(|known| *known == state).unwrap_or(1);
        self.state.store(at, Ordering::Relaxed);
    }

    /// Where the stream stands.
    #[must_use]
    pub fn state(&self) -> &'static str {
        STATES.get(self.state.load(Ordering::Relaxed)).copied().unwrap_or("connecting")
    }

    /// Counts a message of the stream.
    pub fn received(&self, bytes: usize) {
        self.messages.add_alone(1);
        self.bytes.add_alone(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Notes that a transaction of this commit time was handed over now.
    pub fn handed_over(&self, committed_at_us: u64, now: SystemTime) {
        let now_us = micros(now);
        self.committed_at_us.set(committed_at_us);
        self.delay_us.set(now_us.saturating_sub(committed_at_us));
        self.told_at_us.set(now_us);
    }

    /// Notes that nothing is under way, and nothing was for a while: what Postgres sent is routed.
    pub fn quiet(&self, now: SystemTime) {
        self.delay_us.set(0);
        self.told_at_us.set(micros(now));
    }

    /// How much log was received and is not yet routed.
    #[must_use]
    pub fn lag_bytes(&self) -> u64 {
        self.received_lsn.get().saturating_sub(self.routed_lsn.get())
    }

    /// How much log is routed and not confirmed: what the window holds back, and what is in it.
    #[must_use]
    pub fn unconfirmed_bytes(&self) -> u64 {
        self.routed_lsn.get().saturating_sub(self.confirmed_lsn.get())
    }

    /// How far clients are behind the database: the age, at its arrival, of what came last; and where
    /// nothing can come, the time since.
    #[must_use]
    pub fn lag(&self, now: SystemTime) -> Duration {
        let told_at = self.told_at_us.get();
        let delay = Duration::from_micros(self.delay_us.get());
        if told_at == 0 || self.state() == "streaming" {
            return delay;
        }
        delay + Duration::from_micros(micros(now).saturating_sub(told_at))
    }
}

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_age_of_what_came_last_and_grows_only_where_nothing_can_come() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let meter = IngestMeter::default();
        assert_eq!(meter.lag(at(1000)), Duration::ZERO, "nothing is known");
        meter.enter("streaming");
        meter.handed_over(990_000_000, at(1000));
        assert_eq!(meter.lag(at(1001)), Duration::from_secs(10));
        meter.quiet(at(1002));
        assert_eq!(meter.lag(at(1100)), Duration::ZERO);
        meter.enter("interrupted");
        assert_eq!(meter.lag(at(1102)), Duration::from_secs(100));
    }

    #[test]
    fn a_clock_that_is_behind_the_server_s_makes_no_lag() {
        let meter = IngestMeter::default();
        meter.handed_over(5_000_000, SystemTime::UNIX_EPOCH);
        assert_eq!(meter.lag(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }
}

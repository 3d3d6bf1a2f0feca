//! What the daemon counts, what it holds, and how it is.
//!
//! ```text
//! ingest, shards, pool, catalogue ──numbers, conditions, beats──▶ Metrics ──▶ /metrics, /readyz,
//!                                                                             STATUS=, console
//! ```
//!
//! One of these is shared by all. Who counts makes a relaxed addition; who reads disturbs nobody.
//! What happens often is counted by each shard on cache lines of its own ([`shard`]).
//!
//! To add a metric: a field, and an entry in one of the tables of [`table`], which says its name, unit
//! and meaning and how it is read. `docs/metrics.md` is compared with the tables by a test.

pub mod instrument;
pub mod shard;
pub mod ingest;
pub mod health;
pub mod family;
pub mod table;
mod process;
pub mod exposition;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use crate::metrics::health::Health;
use crate::metrics::ingest::IngestMeter;
use crate::metrics::instrument::Counter;
use crate::metrics::instrument::Gauge;
use crate::metrics::instrument::Histogram;
use crate::metrics::instrument::Tally;
use crate::metrics::shard::ShardMeter;

/// Everything that the daemon counts since its start, and how it is now.
#[derive(Debug)]
pub struct Metrics {
    /// Whether it does its work, and if not, why.
    pub health: Health,
    /// The stream from Postgres.
    pub ingest: IngestMeter,
    /// What the server keeps for the slot.
    pub slot: SlotGauges,
    /// Rows asked of Postgres.
    pub snapshots: SnapshotMeter,
    /// Whether changes may be seen, asked of Postgres.
    pub verdicts: VerdictMeter,
    /// Looks at the catalogue.
    pub catalog: CatalogMeter,
    /// The tables that policies read.
    pub replicas: ReplicaMeter,
    /// Tokens.
    pub auth: AuthMeter,
    /// Logins to the console that were refused, by the reason.
    pub logins_refused: Tally,
    /// Reloads of the configuration.
    pub reloads: ReloadMeter,
    records: bool,
    shards: Mutex<Vec<Arc<ShardMeter>>>,
    fell_behind: Counter,
    /// How many bytes may wait in all outboxes together.
    pub outbox_budget_bytes: Gauge,
    outbox_bytes: AtomicUsize,
    sessions: AtomicUsize,
    sessions_opened: Counter,
    paused: Counter,
    resynced: Tally,
    refused: Tally,
}

/// What the server keeps for the slot, as it said when it was asked last.
#[derive(Debug, Default)]
pub struct SlotGauges {
    /// Log that it keeps.
    pub retained_bytes: Gauge,
    /// How much Postgres keeps before it gives the slot up; 0: there is no such bound.
    pub keep_bytes: Gauge,
    /// How much may be kept before something is done about it.
    pub budget_bytes: Gauge,
    /// How often nothing was held back any more, because too much was kept.
    pub sheds: Gauge,
    /// How often the log was let go.
    pub let_goes: Gauge,
}

/// Rows asked of Postgres.
#[derive(Debug, Default)]
pub struct SnapshotMeter {
    /// Queries.
    pub asked: Counter,
    /// Snapshots whose rows an earlier, equal question brings.
    pub shared: Counter,
    /// Rows that queries brought.
    pub rows: Counter,
    /// Questions that were not answered, by the reason.
    pub failed: Tally,
    /// Questions that wait for a connection.
    pub waiting: Gauge,
    /// Questions that are being answered.
    pub running: Gauge,
    /// How long answers took, from when a connection was free.
    pub duration: Histogram,
}

/// Questions whether a change may be seen, for policies that are not decided here.
#[derive(Debug, Default)]
pub struct VerdictMeter {
    /// Inquiries: round trips, each for some names.
    pub asked: Counter,
    /// Questions in them: one for each name.
    pub questions: Counter,
    /// Images that were judged, each for one name.
    pub words: Counter,
    /// Changes, each for one subscription, that waited for such a word.
    pub changes: Counter,
    /// Images whose word an equal image of the same inquiry brought.
    pub shared: Counter,
    /// Images whose word was known from an answer before.
    pub memo_hits: Counter,
    /// Images whose word would have been kept, and was not known.
    pub memo_misses: Counter,
    /// Words that made room for others.
    pub memo_evictions: Counter,
    /// Questions that raised an error.
    pub errors: Counter,
    /// Inquiries that were not answered, by the reason.
    pub failed: Tally,
    /// Inquiries that wait for a connection, or for the rate.
    pub waiting: Gauge,
    /// How long answers took, from when they were asked.
    pub duration: Histogram,
}

/// Looks at the catalogue.
#[derive(Debug, Default)]
pub struct CatalogMeter {
    /// How often it was looked at.
    pub polls: Counter,
    /// How often that did not work.
    pub failures: Counter,
    /// How often the stream waited for a look.
    pub fences: Counter,
}

/// The tables that policies read.
#[derive(Debug, Default)]
pub struct ReplicaMeter {
    /// Rows that they have now.
    pub rows: Gauge,
    /// Versions of rows that are kept for who looks back.
    pub past_rows: Gauge,
    /// Their memory.
    pub bytes: Gauge,
    /// How much of it they may take.
    pub bytes_max: Gauge,
    /// Tables that are wanted and not held.
    pub unheld: Gauge,
    /// How often one was read.
    pub loads: Counter,
    /// How often one could not be read, or was dropped, by the reason.
    pub failures: Tally,
    /// Questions for their rows.
    pub lookups: Counter,
}

/// Reloads of the configuration.
#[derive(Debug, Default)]
pub struct ReloadMeter {
    /// Those that were carried out.
    pub done: Counter,
    /// Those that were refused.
    pub refused: Counter,
}

/// Tokens.
#[derive(Debug, Default)]
pub struct AuthMeter {
    /// Those that were believed.
    pub accepted: Counter,
    /// Those that were not, by the reason.
    pub rejected: Tally,
    /// Looks at published keys.
    pub looks: Counter,
    /// Those that brought nothing, by the reason.
    pub failed_looks: Tally,
    /// How many published keys count.
    pub published_keys: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::recording(true)
    }
}

impl Metrics {
    /// Metrics whose shards count, or don't: that is for measuring what counting costs.
    #[must_use]
    pub fn recording(records: bool) -> Metrics {
        Metrics {
            health: Health::default(),
            ingest: IngestMeter::default(),
            slot: SlotGauges::default(),
            snapshots: SnapshotMeter::default(),
            verdicts: VerdictMeter::default(),
            catalog: CatalogMeter::default(),
            replicas: ReplicaMeter::default(),
            auth: AuthMeter::default(),
            logins_refused: Tally::default(),
            reloads: ReloadMeter::default(),
            records,
            shards: Mutex::default(),
            fell_behind: Counter::default(),
            outbox_budget_bytes: Gauge::default(),
            outbox_bytes: AtomicUsize::default(),
            sessions: AtomicUsize::default(),
            sessions_opened: Counter::default(),
            paused: Counter::default(),
            resynced: Tally::default(),
            refused: Tally::default(),
        }
    }

    /// The meters of one more shard.
    #[must_use]
    pub fn shard(&self) -> Arc<ShardMeter> {
        let mut shards = self.lock_shards();
        let shard = Arc::new(ShardMeter::new(shards.len(), self.records));
        shards.push(Arc::clone(&shard));
        shard
    }

    /// The meters of all shards, in the order in which they began.
    #[must_use]
    pub fn shards(&self) -> Vec<Arc<ShardMeter>> {
        self.lock_shards().clone()
    }

    /// Counts a session whose outbox was full.
    pub fn fell_behind(&self) {
        self.fell_behind.one();
    }

    /// Notes that a session began.
    pub fn session_opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.sessions_opened.one();
    }

    /// Notes that one ended.
    pub fn session_closed(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// How many of them read the ring, as the shards said within the last second.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.sum(|shard| shard.crowd.behind.get())
    }

    /// Notes that an outbox that had `before` bytes waiting now has `after`.
    pub fn outbox_moved(&self, before: usize, after: usize) {
        // Wraps where it shrinks, and comes out right.
        self.outbox_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// How many bytes wait in all outboxes together.
    #[must_use]
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes.load(Ordering::Relaxed)
    }

    /// Counts a subscription that its client let rest.
    pub fn paused(&self) {
        self.paused.one();
    }

    /// Counts a token: believed, or why not.
    pub fn count_token(&self, rejected: Option<&'static str>) {
        match rejected {
            None => self.auth.accepted.one(),
            Some(reason) => self.auth.rejected.one(reason),
        }
    }

    /// Counts a `resync` by its reason.
    pub fn resynced(&self, reason: &'static str) {
        self.resynced.one(reason);
    }

    /// Counts a subscription that was refused or ended, by its code.
    pub fn refused(&self, code: &'static str) {
        self.refused.one(code);
    }

    /// What became of deliveries, each count with a short name, in a fixed order.
    #[must_use]
    pub fn read(&self) -> Vec<(String, u64)> {
        let len = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let all = [
            ("delivered", self.sum(|shard| shard.frames.get())),
            ("fell_behind", self.fell_behind.get()),
            ("undecided", self.sum(|shard| shard.undecided.get())),
            ("snapshots_asked", self.snapshots.asked.get()),
            ("snapshots_shared", self.snapshots.shared.get()),
            ("snapshot_rows", self.snapshots.rows.get()),
            ("referenced", self.sum(|shard| shard.referenced.get())),
            ("sessions", len(self.sessions())),
            ("outbox_bytes", len(self.outbox_bytes())),
            ("conflated", self.sum(|shard| shard.conflated.get())),
            ("hurried", self.sum(|shard| shard.hurried.get())),
            ("paused", self.paused.get()),
        ];
        let mut all: Vec<_> = all.map(|(name, count)| (name.to_owned(), count)).into();
        for (name, tally) in [("resynced", &self.resynced), ("refused", &self.refused)] {
            let counts = tally.get().into_iter();
            all.extend(counts.map(|(reason, count)| (format!("{name}.{reason}"), count)));
        }
        all
    }

    /// A number of every shard, added up.
    pub(crate) fn sum(&self, of: impl Fn(&ShardMeter) -> u64) -> u64 {
        self.lock_shards().iter().map(|shard| of(shard)).sum()
    }

    fn lock_shards(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ShardMeter>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What one shard counts: on cache lines of its own, written by its thread alone, so that counting
//! costs a shard an addition and the others nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::instrument::Counter;
use crate::metrics::instrument::Gauge;
use crate::metrics::instrument::Histogram;
use crate::metrics::instrument::Tally;

/// The meters of one shard.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMeter {
    number: usize,
    /// Whether it counts; not so only where it is measured what counting costs.
    records: bool,
    /// Changes that were held against the subscriptions of their table.
    pub(super) matched: Counter,
    /// Groups for which they had to be decided.
    pub(super) candidates: Counter,
    /// Groups that saw them.
    pub(super) shown: Counter,
    /// Groups for which they could not be decided.
    pub(super) undecided: Counter,
    /// Rows told as a reference, because they are too large.
    pub(super) referenced: Counter,
    /// Frames that a throttle dropped, and keys that it let go before their time.
    pub(super) conflated: Counter,
    pub(super) hurried: Counter,
    /// Passes that had something to match.
    pub(super) passes: Counter,
    /// Row frames that went into outboxes.
    pub(super) frames: Counter,
    /// Calls to the system that wrote to a socket, and the bytes that it took.
    pub(super) writes: Counter,
    pub(super) written_bytes: Counter,
    /// From a commit to the end of the pass that wrote it to its live subscribers.
    pub(super) commit_to_socket: Histogram,
    /// What stands in the ring.
    pub(super) ring: RingGauges,
    /// Who is there.
    pub(super) crowd: CrowdGauges,
}

/// What stands in a shard's ring.
#[derive(Debug, Default)]
pub struct RingGauges {
    /// Memory, in bytes.
    pub bytes: Gauge,
    /// Transactions, and parts of large ones.
    pub transactions: Gauge,
    /// How long ago the oldest of them came, in milliseconds.
    pub tail_age_ms: Gauge,
}

/// Who is at a shard.
#[derive(Debug, Default)]
pub struct CrowdGauges {
    /// Sessions by their dialect.
    pub sessions: Tally,
    /// Sessions that read the ring, because they were too slow or came with a cursor.
    pub behind: Gauge,
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// Those that rest.
    pub paused: Gauge,
    /// Groups, which share what is decided and encoded.
    pub groups: Gauge,
}

/// What a pass did to the changes that it looked at. Kept by the pass, told once at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matched {
    /// Changes of tables that somebody is subscribed to.
    pub changes: u64,
    /// Groups for which they had to be decided.
    pub candidates: u64,
    /// Groups that saw them.
    pub shown: u64,
}

impl ShardMeter {
    pub(super) fn new(number: usize, records: bool) -> ShardMeter {
        ShardMeter { number, records, ..ShardMeter::default() }
    }

    /// The shard's number, from 0.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Counts what a pass matched.
    pub fn matched(&self, pass: Matched) {
        if self.records {
            self.passes.add_alone(1);
            self.matched.add_alone(pass.changes);
            self.candidates.add_alone(pass.candidates);
            self.shown.add_alone(pass.shown);
        }
    }

    /// Notes that so many frames of a transaction are with their live subscribers so long after its
    /// commit.
    pub fn committed(&self, ago: Duration, frames: u64) {
        if self.records {
            self.commit_to_socket.observe_alone(ago, frames);
        }
    }

    /// Whether anybody wants to know how long something took.
    #[must_use]
    pub const fn records(&self) -> bool {
        self.records
    }

    /// Counts row frames that went into outboxes.
    pub fn delivered(&self, frames: usize) {
        if self.records {
            self.frames.add_alone(u64::try_from(frames).unwrap_or(u64::MAX));
        }
    }

    /// Counts a call that wrote so many bytes to a socket.
    pub fn wrote(&self, bytes: usize) {
        if self.records {
            self.writes.add_alone(1);
            self.written_bytes.add_alone(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// Counts a change that could not be decided for some group, because the stream does not tell
    /// what its rule reads, and so was not delivered to it.
    pub fn undecided(&self) {
        self.undecided.add_alone(1);
    }

    /// Counts a row that was told to some group as a reference, because it is too large.
    pub fn referenced(&self) {
        self.referenced.add_alone(1);
    }

    /// Counts frames that a throttle dropped because a newer one took their place.
    pub fn conflated(&self, frames: usize) {
        self.conflated.add_alone(u64::try_from(frames).unwrap_or(u64::MAX));
    }

    /// Counts keys that a throttle let go before their time, because too much was held.
    pub fn hurried(&self, keys: usize) {
        self.hurried.add_alone(u64::try_from(keys).unwrap_or(u64::MAX));
    }

    /// What stands in the ring, to be told.
    #[must_use]
    pub const fn ring(&self) -> &RingGauges {
        &self.ring
    }

    /// Who is there, to be told.
    #[must_use]
    pub const fn crowd(&self) -> &CrowdGauges {
        &self.crowd
    }
}

/// The sessions of all shards by dialect.
pub(super) fn sessions_of<'a>(
    shards: impl Iterator<Item = &'a ShardMeter>,
) -> BTreeMap<&'static str, u64> {
    let mut all = BTreeMap::new();
    for shard in shards {
        for (dialect, count) in shard.crowd.sessions.get() {
            *all.entry(dialect).or_default() += count;
        }
    }
    all
}

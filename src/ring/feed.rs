//! What the ring is fed with: the one way from ingest (or a cluster) to a shard.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::change::transaction::Transaction;

/// One thing that a shard must know, in order.
#[derive(Clone, Debug)]
pub enum Feed {
    /// The history that what follows is of. Comes first, and again when it changed (failover, slot
    /// made anew): everything before is void then, and clients must resync.
    Start {
        /// Whose positions these are.
        source: Source,
        /// Everything that ended after this position will be fed.
        tail: Lsn,
    },
    /// The next transaction in commit order, or the next part of one. The parts of one follow each
    /// other; after the first may come a `Start`, and then no more of them.
    Transaction(Arc<Transaction>),
    /// Nothing more ended up to here. Never between two parts.
    Advance(Lsn),
    /// The ring has caught up with where the log stood at the start: clients may come.
    Live,
    /// The stream is interrupted; it will go on, or start anew.
    Interrupted,
    /// The stream goes on.
    Resumed,
}

/// How many of the transactions (and parts of them) that one shard was fed it has routed: written by
/// the shard, read by what confirms the slot.
#[derive(Clone, Debug, Default)]
pub struct Routed(Arc<AtomicU64>);

impl Routed {
    /// A shard that has routed nothing.
    #[must_use]
    pub fn new() -> Routed {
        Routed::default()
    }

    /// Notes that the next `count` that were fed are in the outboxes.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Release);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

//! What waits in all outboxes of all shards together, and how much may.
//!
//! A shard never waits for memory either: where the budget is used up, whoever would have to queue
//! falls behind, which costs nothing, and goes on in small steps when its socket takes something.

use std::cell::Cell;
use std::sync::Arc;

use crate::metrics::Metrics;
use crate::metrics::shard::ShardMeter;

/// How many bytes may wait in all outboxes together. The count itself is the daemon's; every shard
/// has one of these.
#[derive(Debug)]
pub struct Budget {
    metrics: Arc<Metrics>,
    meter: Arc<ShardMeter>,
    bytes_max: Cell<usize>,
}

impl Budget {
    /// A budget over what `metrics` counts. What the shard's outboxes write is counted by its
    /// `meter`.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>, meter: Arc<ShardMeter>, bytes_max: usize) -> Budget {
        Budget { metrics, meter, bytes_max: Cell::new(bytes_max) }
    }

    /// Whether so much waits that nobody who can wait should queue more.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.metrics.outbox_bytes() >= self.bytes_max.get()
    }

    /// Lets another number of bytes wait from now on.
    pub fn allow(&self, bytes_max: usize) {
        self.bytes_max.set(bytes_max);
    }

    /// Where what waits is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Notes that a socket took so many bytes at once.
    pub fn wrote(&self, bytes: usize) {
        self.meter.wrote(bytes);
    }

    /// Notes that an outbox that had `before` bytes waiting now has `after`.
    pub fn moved(&self, before: usize, after: usize) {
        if before != after {
            self.metrics.outbox_moved(before, after);
        }
    }
}

//! Counters of what the daemon does, and what it holds. One relaxed addition each; reading them disturbs nobody.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// The daemon's counters, all since its start; `sessions` and `outbox_bytes` are what there
/// is now.
#[derive(Debug, Default)]
pub struct Metrics {
    delivered: AtomicU64,
    fell_behind: AtomicU64,
    undecided: AtomicU64,
    snapshots_asked: AtomicU64,
    snapshots_shared: AtomicU64,
    snapshot_rows: AtomicU64,
    referenced: AtomicU64,
    outbox_bytes: AtomicUsize,
    sessions: AtomicUsize,
    conflated: AtomicU64,
    hurried: AtomicU64,
    paused: AtomicU64,
    resynced: Mutex<BTreeMap<&'static str, u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    /// Counts row frames that went into outboxes.
    pub fn delivered(&self, frames: usize) {
        add(&self.delivered, frames);
    }

    /// Counts a session whose outbox was full.
    pub fn fell_behind(&self) {
        self.fell_behind.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a change that could not be decided for some group, because the stream does not tell
    /// what its rule reads, and so was not delivered to it.
    pub fn undecided(&self) {
        self.undecided.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a query for a snapshot's rows.
    pub fn snapshot_asked(&self) {
        self.snapshots_asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts rows that a query brought.
    pub fn snapshot_rows(&self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.snapshot_rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts a snapshot whose rows an earlier, equal question brings.
    pub fn snapshot_shared(&self) {
        self.snapshots_shared.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a row that was told to some group as a reference, because it is too large.
    pub fn referenced(&self) {
        self.referenced.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a session began.
    pub fn session_opened(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
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

    /// Counts frames that a throttle dropped because a newer one took their place.
    pub fn conflated(&self, frames: usize) {
        add(&self.conflated, frames);
    }

    /// Counts keys that a throttle let go before their time, because too much was held.
    pub fn hurried(&self, keys: usize) {
        add(&self.hurried, keys);
    }

    /// Counts a subscription that its client let rest.
    pub fn paused(&self) {
        self.paused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a `resync` by its reason.
    pub fn resynced(&self, reason: &'static str) {
        count(&self.resynced, reason);
    }

    /// Counts a subscription that was refused or ended, by its code.
    pub fn refused(&self, code: &'static str) {
        count(&self.refused, code);
    }

    /// Every counter with its name, in a fixed order.
    #[must_use]
    pub fn read(&self) -> Vec<(String, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut all = vec![
            ("delivered".to_owned(), load(&self.delivered)),
            ("fell_behind".to_owned(), load(&self.fell_behind)),
            ("undecided".to_owned(), load(&self.undecided)),
            ("snapshots_asked".to_owned(), load(&self.snapshots_asked)),
            ("snapshots_shared".to_owned(), load(&self.snapshots_shared)),
            ("snapshot_rows".to_owned(), load(&self.snapshot_rows)),
            ("referenced".to_owned(), load(&self.referenced)),
            ("sessions".to_owned(), self.sessions().try_into().unwrap_or(u64::MAX)),
            ("outbox_bytes".to_owned(), self.outbox_bytes().try_into().unwrap_or(u64::MAX)),
            ("conflated".to_owned(), load(&self.conflated)),
            ("hurried".to_owned(), load(&self.hurried)),
            ("paused".to_owned(), load(&self.paused)),
        ];
        for (name, by) in [("resynced", &self.resynced), ("refused", &self.refused)] {
            let by = by.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.extend(by.iter().map(|(reason, count)| (format!("{name}.{reason}"), *count)));
        }
        all
    }
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Ordering::Relaxed);
}

fn count(by: &Mutex<BTreeMap<&'static str, u64>>, reason: &'static str) {
    let mut by = by.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    *by.entry(reason).or_default() += 1;
}

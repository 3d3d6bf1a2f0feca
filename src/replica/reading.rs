//! The store's side of reading tables: what is to be read, and what becomes of it.

use std::sync::atomic::Ordering;

use crate::replica::Store;
use crate::replica::shape::Kept;
use crate::replica::slot::Loaded;
use crate::replica::unheld::Unheld;

/// A table to read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) kept: Kept,
}

/// What became of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adopted {
    Held {
        rows: usize,
        bytes: usize,
    },
    /// The query has not seen what the stream had brought before.
    TooEarly,
    /// It is no longer wanted, or did not fit what has happened since.
    InVain,
}

impl Store {
    /// The next table to read, for whoever reads them.
    pub(super) fn next_job(&self) -> Option<Job> {
        let slots = self.slots.load();
        slots.values().find_map(|slot| {
            let mut state = slot.write();
            let loading = state.loading.as_mut().filter(|loading| !loading.taken)?;
            loading.taken = true;
            Some(Job { number: loading.number, kept: loading.kept.clone() })
        })
    }

    /// Whether the table is still to be read.
    pub(super) fn is_wanted(&self, job: &Job) -> bool {
        let slot = self.slot(job.kept.table());
        slot.is_some_and(|slot| {
            slot.read().loading.as_ref().is_some_and(|loading| loading.number == job.number)
        })
    }

    /// Takes what a query brought.
    pub(super) fn adopt(&self, job: &Job, loaded: Loaded) -> Adopted {
        let stream = self.stream();
        self.metrics.replicas.loads.one();
        let Some(slot) = self.slot(job.kept.table()) else { return Adopted::InVain };
        let mut state = slot.write();
        let Some(loading) = state.loading.as_ref().filter(|it| it.number == job.number) else {
            return Adopted::InVain;
        };
        if !stream.is_seen(&loaded.saw, loading.after) {
            return Adopted::TooEarly;
        }
        state.adopt(loaded);
        let adopted = state.held.as_ref().map_or(Adopted::InVain, |held| Adopted::Held {
            rows: held.table.living(),
            bytes: held.table.bytes(),
        });
        if let Some(held) = &state.held {
            self.settles_at.fetch_max(held.settles_at.bytes(), Ordering::Relaxed);
        }
        drop(state);
        self.reach(self.reached());
        self.turn();
        self.count_pending();
        adopted
    }

    /// Notes that a table can't be read.
    pub(super) fn fail(&self, job: &Job, why: Unheld) {
        let _stream = self.stream();
        self.metrics.replicas.failures.one(why.code());
        if let Some(slot) = self.slot(job.kept.table()) {
            let mut state = slot.write();
            if state.loading.as_ref().is_some_and(|loading| loading.number == job.number) {
                if matches!(why, Unheld::TooLarge { .. }) {
                    state.note_too_large();
                }
                (state.loading, state.unheld) = (None, Some(why));
            }
        }
        self.turn();
        self.count_pending();
    }

    /// Tries once more what could not be read; what was too large only where it may fit now
    /// ([`Store::too_large`]).
    pub(super) fn retry(&self) {
        let mut stream = self.stream();
        for slot in self.slots.load().values() {
            let mut state = slot.write();
            let is_idle = state.unheld.is_some() && state.loading.is_none();
            if stream.begun && is_idle && state.too_large.is_none() {
                self.read_again(&mut state, &mut stream);
            }
        }
        drop(stream);
        self.count_pending();
    }
}

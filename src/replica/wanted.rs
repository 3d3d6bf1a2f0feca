//! What is to be held: what the policies of the catalogue's newest snapshot read, and whether what is
//! held is still that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::PoisonError;

use crate::catalog::snapshot::Snapshot;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::replica::Store;
use crate::replica::shape::Kept;
use crate::replica::slot::Slot;
use crate::replica::slot::State;
use crate::replica::stream::Stream;
use crate::replica::unheld::Unheld;
use crate::rule::Wanted;

impl Store {
    /// Takes what the policies of the catalogue's newest snapshot want to know, where it is another
    /// than the one before.
    pub fn follow(&self) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.catalog.current();
        if followed.replace(snapshot.generation) != Some(snapshot.generation) {
            self.want(&snapshot.replicas(), &snapshot);
        }
    }

    /// The same, once somebody has let it follow. To be called where the catalogue may have been read
    /// for the sake of a transaction, before that is applied.
    pub fn keep_up(&self) {
        let follows = self.followed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if follows {
            self.follow();
        }
    }

    /// Takes what policies want to know, as the catalogue has it now. Tables that are not held, or
    /// not enough of them, will be read; those that nobody wants are given up.
    pub fn want(&self, wanted: &[Wanted], snapshot: &Snapshot) {
        let mut stream = self.stream();
        let before = self.slots.load();
        let mut slots = HashMap::new();
        for wanted in wanted {
            let table = snapshot.by_id(wanted.table);
            let relation = table.filter(|table| table.published).map(|table| &table.relation);
            let slot = before.get(&wanted.table).cloned();
            let slot = slot.unwrap_or_else(|| Arc::new(Slot::new(State::new(wanted.clone()))));
            {
                let mut state = slot.write();
                let version = |relation: Option<&Arc<Relation>>| relation.map(|it| it.version);
                let same = state.wanted == *wanted
                    && version(state.relation.as_ref()) == version(relation);
                state.wanted = wanted.clone();
                state.relation = relation.cloned();
                state.stamp = table.map(|table| table.stamp(&wanted.columns)).unwrap_or_default();
                // What was too large is thought of when it is its time.
                if !same || state.too_large.is_none() || state.held.is_some() {
                    self.look_at(&mut state, &mut stream);
                }
            }
            slots.insert(wanted.table, slot);
        }
        self.slots.store(Arc::new(slots));
        self.turn();
        self.count_pending();
    }

    /// Has a table read where what is held is not what is wanted.
    fn look_at(&self, state: &mut State, stream: &mut Stream) {
        let Some(relation) = state.relation.clone() else {
            (state.held, state.loading) = (None, None);
            state.unheld = Some(Unheld::NotPublished);
            return;
        };
        // Rows that were rewritten, or not followed for a while, are not what is held.
        if state.held.as_ref().is_some_and(|held| held.stamp != state.stamp) {
            state.held = None;
            self.metrics.replicas.failures.one("rewritten");
        }
        if let Some(held) = &mut state.held {
            let fits = held.learn(&relation).is_some();
            if fits && held.kept.covers(&state.wanted) {
                (state.loading, state.unheld) = (None, None);
                return;
            }
            if !fits {
                state.held = None;
            }
        }
        let is_being_read = state.loading.as_ref().is_some_and(|loading| {
            loading.kept.covers(&state.wanted)
                && loading.kept.mapping(&relation).whole
                && loading.stamp == state.stamp
        });
        if stream.begun && !is_being_read {
            self.read_again(state, stream);
        }
    }

    /// Begins to keep what happens to a table, and has it read.
    pub(super) fn read_again(&self, state: &mut State, stream: &mut Stream) {
        state.loading = None;
        let Some(relation) = &state.relation else {
            state.unheld = Some(Unheld::NotPublished);
            return;
        };
        match Kept::new(&state.wanted, relation) {
            Ok(kept) => {
                stream.readings += 1;
                // All that has come so far was over before the query.
                let since = stream.open.unwrap_or_else(|| before(self.reached()));
                state.begin(stream.readings, kept, since, stream.count);
            }
            Err(why) => (state.held, state.unheld) = (None, Some(why)),
        }
    }
}

/// The last position before one.
const fn before(lsn: Lsn) -> Lsn {
    Lsn::new(lsn.bytes().saturating_sub(1))
}

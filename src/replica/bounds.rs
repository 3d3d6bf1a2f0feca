//! How much memory the tables may take together, while they are read and while they grow.
//!
//! ```text
//! reading:  more than fits beside the others ─▶ it is given up in the middle
//! growing:  each second, all together ─▶ one is given up, until the others fit
//! later:    the planner says that it fits with an eighth to spare ─▶ it is read again
//! ```
//!
//! What is given up is unknown, never empty: what depends on it is asked of Postgres or refused, as
//! for any table that is not held. The eighth, and a wait that doubles where the planner was wrong,
//! keep a table at the bound from coming and going.

use std::sync::Arc;

use crate::change::id::RelationId;
use crate::replica::Store;
use crate::replica::shape::Kept;
use crate::replica::slot::Slot;
use crate::replica::slot::State;
use crate::replica::stream::Stream;
use crate::replica::unheld::Unheld;

/// What part of the bound must stay free for a table that was too large to come back.
const SPARE: usize = 8;
/// The longest wait for it, in tries.
const WAIT_MAX: u32 = 64;

/// A table that was too large: when it is thought of again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TooLarge {
    /// Tries that are still to pass.
    wait: u32,
    /// How many it will be the next time that it is read in vain.
    next: u32,
}

impl TooLarge {
    /// The wait after it was too large once more.
    fn again(self) -> TooLarge {
        TooLarge { wait: self.next, next: (self.next * 2).clamp(1, WAIT_MAX) }
    }
}

impl Store {
    /// Whether a table that is being read may have this many bytes beside the others.
    pub(super) fn admits(&self, table: RelationId, bytes: usize) -> Result<(), Unheld> {
        let bytes_max = self.settings().bytes_max;
        if self.bytes_beside(table).saturating_add(bytes) > bytes_max {
            return Err(Unheld::TooLarge { bytes_max });
        }
        Ok(())
    }

    /// Whether a table that was too large fits again, and will for a while.
    pub(super) fn has_room(&self, table: RelationId, bytes: usize) -> bool {
        let bytes_max = self.settings().bytes_max;
        self.bytes_beside(table).saturating_add(bytes) <= bytes_max - bytes_max / SPARE
    }

    /// The bytes of all other tables.
    fn bytes_beside(&self, table: RelationId) -> usize {
        let slots = self.slots.load();
        slots.iter().filter(|(id, _)| **id != table).map(|(_, slot)| bytes(slot).0).sum()
    }

    /// Gives tables up until the others fit; which they were.
    pub(super) fn shed(&self) -> Vec<Kept> {
        let mut shed = Vec::new();
        let stream = self.stream();
        let slots = self.slots.load();
        let bytes_max = self.settings().bytes_max;
        loop {
            let sizes: Vec<(&Arc<Slot>, usize, usize)> = slots
                .values()
                .map(|slot| {
                    let (now, grown) = bytes(slot);
                    (slot, now, grown)
                })
                .collect();
            let all: usize = sizes.iter().map(|(_, now, _)| *now).sum();
            let Some(excess) = all.checked_sub(bytes_max).filter(|excess| *excess > 0) else {
                break;
            };
            let enough = sizes.iter().filter(|(_, now, _)| *now >= excess);
            let grown = enough.max_by_key(|(_, now, grown)| (*grown, *now));
            let largest = || sizes.iter().max_by_key(|(_, now, _)| *now);
            let Some((slot, ..)) = grown.or_else(largest) else { break };
            let mut state = slot.write();
            let Some(held) = state.held.take() else { break };
            let why = Unheld::TooLarge { bytes_max };
            self.metrics.replicas.failures.one(why.code());
            (state.loading, state.unheld) = (None, Some(why));
            state.note_too_large();
            shed.push(held.kept);
        }
        drop(stream);
        if !shed.is_empty() {
            self.turn();
            self.count_pending();
        }
        shed
    }

    /// The tables that were too large, and of which it is time to ask how large they are now.
    pub(super) fn too_large(&self) -> Vec<Kept> {
        let slots = self.slots.load();
        let due = |slot: &Arc<Slot>| {
            let mut state = slot.write();
            let too_large = state.too_large.as_mut()?;
            if too_large.wait > 0 {
                too_large.wait -= 1;
                return None;
            }
            let relation = state.relation.as_ref()?;
            Kept::new(&state.wanted, relation).ok()
        };
        slots.values().filter_map(due).collect()
    }

    /// Has a table read that was too large.
    pub(super) fn read_smaller(&self, table: RelationId) {
        let mut stream = self.stream();
        let Some(slot) = self.slot(table) else { return };
        let mut state = slot.write();
        if stream.begun && state.too_large.is_some() && state.loading.is_none() {
            self.read_again(&mut state, &mut stream);
        }
        drop(state);
        drop(stream);
        self.count_pending();
    }

    /// Takes up other settings: what could not be read because of those before is tried at once.
    /// Tables that no longer fit are given up by whoever reads them.
    pub fn reconfigure(&self, role: Option<Box<str>>, bytes_max: usize) {
        let before = self.settings();
        if before.role == role && before.bytes_max == bytes_max {
            return;
        }
        let (more, other) = (bytes_max > before.bytes_max, before.role != role);
        self.replace_settings(role, bytes_max);
        let mut stream = self.stream();
        for slot in self.slots.load().values() {
            let mut state = slot.write();
            let is_worth = match (&state.unheld, state.too_large) {
                (Some(_), Some(_)) => more,
                (Some(_), None) => other,
                (None, _) => false,
            };
            if is_worth {
                self.try_again(&mut state, &mut stream);
            }
        }
        drop(stream);
        self.count_pending();
        self.work.notify_one();
    }

    fn try_again(&self, state: &mut State, stream: &mut Stream) {
        state.too_large = None;
        if stream.begun && state.loading.is_none() {
            self.read_again(state, stream);
        }
    }
}

impl State {
    /// Notes that it did not fit.
    pub(super) fn note_too_large(&mut self) {
        self.too_large = Some(self.too_large.unwrap_or_default().again());
    }
}

/// What a table takes, and how much of that it did not when it was read.
fn bytes(slot: &Slot) -> (usize, usize) {
    slot.read().held.as_ref().map_or((0, 0), |held| {
        let now = held.table.bytes();
        (now, now.saturating_sub(held.bytes_read))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::catalog::Catalog;
    use crate::catalog::snapshot::Snapshot;
    use crate::replica::Settings;

    #[test]
    fn what_was_too_large_comes_back_with_an_eighth_to_spare() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let catalog = runtime.block_on(async { Catalog::read_once(Snapshot::default()) });
        let settings = Settings { bytes_max: 800, ..Settings::default() };
        let store = Store::new(settings, Arc::new(catalog));
        let table = RelationId(7);
        assert!(store.admits(table, 800).is_ok());
        assert_eq!(store.admits(table, 801), Err(Unheld::TooLarge { bytes_max: 800 }));
        assert!(store.has_room(table, 700));
        assert!(!store.has_room(table, 701));
        store.reconfigure(None, 1600);
        assert!(store.admits(table, 1600).is_ok() && store.has_room(table, 1400));
    }

    #[test]
    fn what_is_read_in_vain_waits_longer_each_time() {
        let mut waits = Vec::new();
        let mut too_large = TooLarge::default();
        for _ in 0..9 {
            too_large = too_large.again();
            waits.push(too_large.wait);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
    }
}

//! One table's place: what is held of it, what is being read, and why it is not held.

#![expect(
    clippy::disallowed_types,
    reason = "all shards read what one thread writes, a few rows at a time: a snapshot of a million \
              rows for each change can't be made, and a mutex would let shards wait for each other"
)]

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;

use crate::change::id::RelationId;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::transaction::Change;
use crate::change::transaction::Transaction;
use crate::change::transaction::TransactionBuilder;
use crate::change::visibility::Visibility;
use crate::replica::bounds::TooLarge;
use crate::replica::shape::Kept;
use crate::replica::shape::Mapping;
use crate::replica::table::Misfit;
use crate::replica::table::Moment;
use crate::replica::table::Table;
use crate::replica::unheld::Unheld;
use crate::rule::Wanted;

/// Shapes of a table that are remembered, as many as the catalogue remembers.
const MAPPINGS_MAX: usize = 16;
/// Changes that are applied before somebody else may look.
const STEP: usize = 256;

/// One table's place in the store.
#[derive(Debug)]
pub(super) struct Slot(RwLock<State>);

/// What is known of a table.
#[derive(Debug)]
pub(super) struct State {
    pub(super) wanted: Wanted,
    /// How the catalogue last described it; absent where it does not know it.
    pub(super) relation: Option<Arc<Relation>>,
    /// What is another where rows are others without the stream saying so.
    pub(super) stamp: Box<str>,
    pub(super) held: Option<Held>,
    /// What is being read, to take the place of what is held.
    pub(super) loading: Option<Loading>,
    /// Why nothing is held, or could not be read again.
    pub(super) unheld: Option<Unheld>,
    /// Where that is its size: when it is thought of again. Stays until it is held.
    pub(super) too_large: Option<TooLarge>,
}

/// The rows, from some position on.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kept: Kept,
    pub(super) table: Table,
    /// Its own among all that were ever held.
    pub(super) number: u64,
    /// The bytes that it had when it was read.
    pub(super) bytes_read: usize,
    /// The stamp that was known before it was read.
    pub(super) stamp: Box<str>,
    /// What was the case after everything that committed at this position or before is known, and
    /// whatever came later.
    pub(super) since: Lsn,
    /// Before the stream has come to this position, what the query saw may still come with it.
    pub(super) settles_at: Lsn,
    /// Which transactions the query saw, while they may still come.
    saw: Option<Visibility>,
    mappings: Vec<Mapping>,
    /// Versions that died before this position are gone.
    pub(super) collected: Lsn,
}

/// A table that is being read, and what happened to it meanwhile.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) number: u64,
    pub(super) kept: Kept,
    /// Everything that committed at this position or before was over when reading began.
    pub(super) since: Lsn,
    /// How many transactions had come.
    pub(super) after: u64,
    /// The stamp that was known when reading began.
    pub(super) stamp: Box<str>,
    /// Whether somebody reads.
    pub(super) taken: bool,
    buffer: Vec<Transaction>,
    bytes: usize,
}

/// What a query brought.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) table: Table,
    /// Which transactions it saw.
    pub(super) saw: Visibility,
    /// Where the log ended after that.
    pub(super) insert_lsn: Lsn,
    /// Of what committed before nothing is known by it.
    pub(super) since: Lsn,
}

impl Slot {
    pub(super) const fn new(state: State) -> Slot {
        Slot(RwLock::new(state))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the transaction did to the table. `false`: what is held does not fit it any more,
    /// and was dropped.
    pub(super) fn apply(
        &self,
        table: RelationId,
        transaction: &Transaction,
        buffer_bytes_max: usize,
    ) -> bool {
        let mut changes = transaction.changes().filter(|change| change.relation.id == table);
        let mut fits = true;
        let mut state = self.write();
        if state.loading.is_some() {
            state.buffer(table, transaction, buffer_bytes_max);
        }
        loop {
            let mut count = 0;
            for change in changes.by_ref().take(STEP) {
                count += 1;
                fits &= state.apply(&change, transaction);
            }
            if count < STEP {
                return fits;
            }
            // Nobody sees a part of it: versions count from the transaction's position on.
            drop(state);
            state = self.write();
        }
    }
}

impl State {
    pub(super) fn new(wanted: Wanted) -> State {
        State {
            wanted,
            relation: None,
            stamp: Box::default(),
            held: None,
            loading: None,
            unheld: None,
            too_large: None,
        }
    }

    fn apply(&mut self, change: &Change<'_>, transaction: &Transaction) -> bool {
        let Some(held) = &mut self.held else { return true };
        match held.apply(change, transaction) {
            Ok(()) => true,
            Err(why) => {
                // The newest shape that is known, be it the catalogue's or the stream's.
                let known = self.relation.as_ref().map_or(0, |relation| relation.version);
                if change.relation.version > known {
                    self.relation = Some(Arc::clone(change.relation));
                }
                self.held = None;
                self.unheld = Some(why);
                false
            }
        }
    }

    /// Keeps what the transaction does to the table until it is read.
    fn buffer(&mut self, table: RelationId, transaction: &Transaction, bytes_max: usize) {
        let Some(loading) = &mut self.loading else { return };
        let Transaction { xid, commit_lsn, committed_at, .. } = *transaction;
        let mut builder = TransactionBuilder::new(xid, commit_lsn, committed_at);
        for change in transaction.changes().filter(|change| change.relation.id == table) {
            if builder.push(change.relation, change.kind).is_err() {
                loading.bytes = usize::MAX;
            }
        }
        let part = builder.commit(commit_lsn);
        loading.bytes = loading.bytes.saturating_add(part.bytes());
        loading.buffer.push(part);
        if loading.bytes > bytes_max {
            self.loading = None;
            self.unheld = Some(Unheld::Overrun);
        }
    }

    /// Begins to keep what happens, for a query that begins after this.
    pub(super) fn begin(&mut self, number: u64, kept: Kept, since: Lsn, after: u64) {
        let (buffer, bytes, taken) = (Vec::new(), 0, false);
        let stamp = self.stamp.clone();
        self.loading = Some(Loading { number, kept, since, after, stamp, taken, buffer, bytes });
    }

    /// Takes what a query brought, and what happened since.
    pub(super) fn adopt(&mut self, loaded: Loaded) {
        let Some(loading) = self.loading.take() else { return };
        let mut held = Held {
            mappings: vec![loading.kept.mapping(&loading.kept.relation)],
            kept: loading.kept,
            bytes_read: loaded.table.bytes(),
            stamp: loading.stamp,
            table: loaded.table,
            number: loading.number,
            since: loading.since.max(loaded.since),
            settles_at: reachable(loaded.insert_lsn),
            saw: Some(loaded.saw),
            collected: Lsn::ZERO,
        };
        for transaction in &loading.buffer {
            for change in transaction.changes() {
                if let Err(why) = held.apply(&change, transaction) {
                    self.unheld = Some(why);
                    return;
                }
            }
        }
        (self.held, self.unheld, self.too_large) = (Some(held), None, None);
    }
}

impl Held {
    fn apply(&mut self, change: &Change<'_>, transaction: &Transaction) -> Result<(), Unheld> {
        let at = transaction.commit_lsn;
        if self.saw.is_some() && at >= self.settles_at {
            self.saw = None;
        }
        if self.saw.as_ref().is_some_and(|saw| saw.sees(transaction.xid)) {
            self.since = self.since.max(at);
            return Ok(());
        }
        let Some(mapping) = self.learn(change.relation) else { return Err(Unheld::Changed) };
        let Some(mapping) = self.mappings.get(mapping) else { return Err(Unheld::Changed) };
        let taken = self.table.apply(mapping, change.kind, at);
        taken.map_err(|Misfit| Unheld::Diverged)
    }

    /// The place of the mapping of this shape, made where it is not known; `None` where the shape
    /// has not all that is kept.
    pub(super) fn learn(&mut self, relation: &Relation) -> Option<usize> {
        let known = self.mappings.iter().rposition(|it| it.version == relation.version);
        let place = known.unwrap_or_else(|| {
            if self.mappings.len() >= MAPPINGS_MAX {
                self.mappings.remove(0);
            }
            self.mappings.push(self.kept.mapping(relation));
            self.mappings.len() - 1
        });
        self.mappings.get(place).filter(|mapping| mapping.whole)?;
        Some(place)
    }

    /// Where the columns stand in a shape, where it is known.
    pub(super) fn mapping(&self, version: u64) -> Option<&Mapping> {
        self.mappings.iter().rev().find(|mapping| mapping.version == version)
    }

    /// Whether what was the case at a moment is known, where the stream has come to `reached`.
    pub(super) fn knows(&self, at: Lsn, moment: Moment, reached: Lsn) -> bool {
        let known = match moment {
            Moment::Before => at > self.since && at <= reached,
            Moment::After => at >= self.since && at < reached,
        };
        known && reached >= self.settles_at && at >= self.collected
    }

    /// Gives up what nobody can look at any more; tells whether there is more to do.
    pub(super) fn collect(&mut self, until: Lsn, most: usize) -> bool {
        self.collected = self.collected.max(until);
        self.table.forget(self.collected, most)
    }
}

/// Where everything has ended that ended before the log's end was at `insert_lsn`: at the beginning of
/// a page the end stands behind the page's header.
fn reachable(insert_lsn: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    const HEADER_MAX: u64 = 40;
    let into = insert_lsn.bytes() % PAGE;
    if into <= HEADER_MAX { Lsn::new(insert_lsn.bytes() - into) } else { insert_lsn }
}

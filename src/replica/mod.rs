//! What is the case: tables that policies read, kept in memory as they were at each commit.
//!
//! ```text
//! catalog ──Wanted──▶ Store ◀──rows, and what they include── load ◀── Postgres
//! ingest ──apply, before the shards get it──▶ │
//! route  ◀──View: the rows before or after a commit──┘
//! ```
//!
//! There is one store for all shards. Each version of a row has the commit that made it and the one
//! that ended it, so that every shard finds what was the case at the commit that it is routing, and
//! a session that is behind what was the case then. Versions that no ring leads back to are given
//! up. Only columns that somebody reads are kept, and those by which a change finds its row.
//!
//! A table is read in one query at one moment; what the query saw, and what comes after it, is told
//! by the numbers of the transactions, as for snapshots (`route::handover`).
//!
//! # Invariants
//!
//! - What is visited is what Postgres would say of that moment, or it is unknown
//!   ([`Undecided::Unheld`]), never less. (Tests `every_moment_is_as_a_naive_model_has_it`, and
//!   `tests/postgres/replica.rs`.)
//! - A transaction that came only in part is seen by nobody.
//! - What does not fit the rows that are kept is not guessed: the table is read again.
//!
//! [`Undecided::Unheld`]: crate::rule::Undecided::Unheld

mod chunks;
mod cells;
mod index;
mod shape;
mod table;
mod slot;
mod view;
mod unheld;
mod copy;
mod stream;
mod wanted;
mod reading;
mod bounds;
mod report;
mod facts;
pub mod load;
pub mod forecast;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::change::id::RelationId;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::transaction::Transaction;
use crate::metrics::Metrics;
use crate::replica::slot::Held;
use crate::replica::slot::Slot;
use crate::replica::stream::Stream;
use crate::rule::Source;

pub use report::Report;
pub use table::Moment;
pub use unheld::Unheld;
pub use view::Touched;
pub use view::View;

/// Versions given up before somebody else may look.
const STEP: usize = 1024;

/// What bounds the store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The role under which tables are read; absent: the asking connection's own.
    pub role: Option<Box<str>>,
    /// The slot that the stream reads.
    pub slot: Box<str>,
    /// Bytes that all tables together may have.
    pub bytes_max: usize,
    /// Bytes of changes that may wait while a table is read.
    pub buffer_bytes_max: usize,
    /// Bytes of one value; a larger one is left out, as the stream leaves it out.
    pub cell_bytes_max: usize,
    /// How often what could not be read is tried again.
    pub retry_every: Duration,
}

impl Default for Settings {
    /// A gibibyte is eight million memberships.
    fn default() -> Settings {
        Settings {
            role: None,
            slot: "walcast".into(),
            bytes_max: 1 << 30,
            buffer_bytes_max: 64 << 20,
            cell_bytes_max: 1 << 20,
            retry_every: Duration::from_mins(1),
        }
    }
}

/// The tables that policies read.
#[derive(Debug)]
pub struct Store {
    settings: ArcSwap<Settings>,
    catalog: Arc<Catalog>,
    metrics: Arc<Metrics>,
    slots: ArcSwap<HashMap<RelationId, Arc<Slot>>>,
    /// What ended at or before it was applied; while a transaction is applied, where that commits.
    reached: AtomicU64,
    /// Held by whoever moves the store.
    stream: Mutex<Stream>,
    tails: Mutex<Vec<Arc<AtomicU64>>>,
    /// The generation of the snapshot that says what is wanted, where somebody follows the catalogue;
    /// held while it is followed.
    followed: Mutex<Option<u64>>,
    /// Tables that are being read, or are to be.
    pending: watch::Sender<usize>,
    /// Wakes who reads tables.
    work: Notify,
    /// How often it changed what is known.
    epoch: AtomicU64,
    /// The position at which what is held and not yet known will be known; 0 where nothing is.
    settles_at: AtomicU64,
}

/// What is known of a table at a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// What was the case before it, and after it.
    Held,
    /// Nothing yet: the table is being read, or more of the transaction is to come.
    Awaited,
    /// Nothing, and waiting does not help: the commit lies too far back, or the table can't be held.
    Lost,
}

/// The oldest position that a shard may ask about, which it notes here.
#[derive(Clone, Debug)]
pub struct Tail(Arc<AtomicU64>);

impl Tail {
    /// Notes that the shard will not ask about what committed before `lsn` any more.
    pub fn set(&self, lsn: Lsn) {
        self.0.store(lsn.bytes(), Ordering::Relaxed);
    }
}

impl Store {
    /// A store that holds nothing.
    #[must_use]
    pub fn new(settings: Settings, catalog: Arc<Catalog>) -> Store {
        Store {
            settings: ArcSwap::from_pointee(settings),
            catalog,
            metrics: Arc::default(),
            slots: ArcSwap::default(),
            reached: AtomicU64::new(0),
            stream: Mutex::default(),
            tails: Mutex::default(),
            followed: Mutex::default(),
            pending: watch::Sender::new(0),
            work: Notify::new(),
            epoch: AtomicU64::new(0),
            settles_at: AtomicU64::new(0),
        }
    }

    /// The same, counted by these metrics.
    #[must_use]
    pub fn counted_by(self, metrics: &Arc<Metrics>) -> Store {
        Store { metrics: Arc::clone(metrics), ..self }
    }

    /// A store of which nothing is wanted.
    #[must_use]
    pub fn empty(catalog: &Arc<Catalog>) -> Arc<Store> {
        Arc::new(Store::new(Settings::default(), Arc::clone(catalog)))
    }

    /// Who says what tables look like.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// A shard's place to note its tail. Until it does, nothing is given up.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let tail = Arc::new(AtomicU64::new(0));
        self.tails.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&tail));
        Tail(tail)
    }

    /// The tables before or after a commit.
    #[must_use]
    pub const fn view(&self, at: Lsn, moment: Moment) -> View<'_> {
        View { store: self, at, moment }
    }

    /// What is known of a table at a moment of a commit, or both before and after it, for who counts
    /// its columns in this version of its shape.
    #[must_use]
    pub fn outlook(&self, source: &Source, at: Lsn, moment: Option<Moment>) -> Outlook {
        let (table, version) = (source.table, source.version);
        let Some(slot) = self.slot(table) else { return Outlook::Lost };
        let reached = self.reached();
        self.learn(&slot, table, version);
        let state = slot.read();
        let is_awaited = state.loading.is_some();
        let held = state.held.as_ref().filter(|held| held.mapping(version).is_some());
        match held {
            Some(held) if moment.is_some_and(|moment| held.knows(at, moment, reached)) => {
                Outlook::Held
            }
            Some(held) if held.knows(at, Moment::Before, reached) => {
                if held.knows(at, Moment::After, reached) {
                    Outlook::Held
                } else {
                    Outlook::Awaited
                }
            }
            Some(held) if reached < held.settles_at || at > reached => Outlook::Awaited,
            _ if is_awaited => Outlook::Awaited,
            _ => Outlook::Lost,
        }
    }

    /// Whether what a source reads is known, or will be.
    #[must_use]
    pub fn can_hold(&self, source: &Source) -> bool {
        // Of a time to come nothing is lost that there will ever be.
        self.outlook(source, Lsn::new(u64::MAX), None) != Outlook::Lost
    }

    /// Grows whenever a table becomes held, or is no longer, and when the last part of a transaction
    /// has come.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether a change of this table may change what is visited.
    #[must_use]
    pub fn has(&self, table: RelationId) -> bool {
        self.slots.load().contains_key(&table)
    }

    /// A history begins: everything that ends after `tail` will be applied, and nothing that is held
    /// counts any more.
    pub fn begin(&self, tail: Lsn) {
        let mut stream = self.stream();
        *stream = Stream { begun: true, readings: stream.readings, ..Stream::default() };
        self.reached.store(tail.bytes(), Ordering::Release);
        for slot in self.slots.load().values() {
            let mut state = slot.write();
            (state.held, state.unheld, state.too_large) = (None, None, None);
            self.read_again(&mut state, &mut stream);
        }
        self.turn();
        self.count_pending();
    }

    /// Takes the next transaction, or the next part of one, before anybody judges by it.
    pub fn apply(&self, transaction: &Transaction) {
        let mut stream = self.stream();
        stream.deliver(transaction.xid);
        stream.open = Some(transaction.commit_lsn);
        self.reached.fetch_max(transaction.commit_lsn.bytes(), Ordering::AcqRel);
        let slots = self.slots.load();
        if !slots.is_empty() {
            self.apply_to(&slots, transaction, &mut stream);
        }
        if let Some(end_lsn) = transaction.end_lsn {
            stream.open = None;
            self.reach(end_lsn);
            if transaction.first_index > 0 && !slots.is_empty() {
                self.turn();
            }
        }
    }

    fn apply_to(
        &self,
        slots: &HashMap<RelationId, Arc<Slot>>,
        transaction: &Transaction,
        stream: &mut Stream,
    ) {
        let relations = transaction.relations();
        for (place, Relation { id, .. }) in relations.iter().map(Arc::as_ref).enumerate() {
            let Some(slot) = slots.get(id) else { continue };
            // A table whose shape changed in the transaction is there more than once.
            if relations.iter().take(place).any(|before| before.id == *id) {
                continue;
            }
            if !slot.apply(*id, transaction, self.settings.load().buffer_bytes_max) {
                let mut state = slot.write();
                let why = state.unheld.as_ref().map_or("diverged", Unheld::code);
                self.metrics.replicas.failures.one(why);
                self.read_again(&mut state, stream);
                self.turn();
            }
            self.count_pending();
        }
    }

    /// Notes that nothing more ended up to `lsn`.
    pub fn advance(&self, lsn: Lsn) {
        self.reach(lsn);
    }

    fn reach(&self, lsn: Lsn) {
        self.reached.fetch_max(lsn.bytes(), Ordering::AcqRel);
        let settles_at = self.settles_at.load(Ordering::Relaxed);
        if settles_at > 0 && lsn.bytes() >= settles_at {
            self.settles_at.store(0, Ordering::Relaxed);
            self.turn();
        }
    }

    /// Notes that something else is known now.
    fn turn(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives up what no shard can ask about any more.
    pub fn collect(&self) {
        let tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = tails.iter().map(|tail| tail.load(Ordering::Relaxed)).min();
        drop(tails);
        let Some(oldest) = oldest.map(Lsn::new) else { return };
        for slot in self.slots.load().values() {
            while slot.write().held.as_mut().is_some_and(|held| held.collect(oldest, STEP)) {}
        }
    }

    /// Waits until no table is being read. Cancel safe.
    pub async fn settled(&self) {
        let mut pending = self.pending.subscribe();
        // The sender is ours.
        let _is_none = pending.wait_for(|pending| *pending == 0).await;
    }

    /// From which position on everything that is held is known.
    #[must_use]
    pub fn settles_at(&self) -> Lsn {
        let slots = self.slots.load();
        let at = slots.values().filter_map(|slot| Some(slot.read().held.as_ref()?.settles_at));
        at.max().unwrap_or(Lsn::ZERO)
    }

    pub(in crate::replica) fn reached(&self) -> Lsn {
        Lsn::new(self.reached.load(Ordering::Acquire))
    }

    pub(in crate::replica) fn slot(&self, table: RelationId) -> Option<Arc<Slot>> {
        self.slots.load().get(&table).cloned()
    }

    /// Takes up a shape that is not known, where it is the catalogue's newest.
    fn learn(&self, slot: &Slot, table: RelationId, version: u64) {
        let is_new = |held: &Held| held.mapping(version).is_none();
        if !slot.read().held.as_ref().is_some_and(is_new) {
            return;
        }
        let snapshot = self.catalog.current();
        if let Some(table) = snapshot.by_id(table)
            && table.relation.version == version
            && let Some(held) = &mut slot.write().held
        {
            held.learn(&table.relation);
        }
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    fn replace_settings(&self, role: Option<Box<str>>, bytes_max: usize) {
        let before = self.settings();
        self.settings.store(Arc::new(Settings { role, bytes_max, ..Settings::clone(&before) }));
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_pending(&self) {
        let slots = self.slots.load();
        let count = slots.values().filter(|slot| slot.read().loading.is_some()).count();
        let differs = |pending: &mut usize| std::mem::replace(pending, count) != count;
        self.pending.send_if_modified(differs);
        if count > 0 {
            self.work.notify_one();
        }
    }
}

//! What just happened: the recent transactions by position, read forward from a cursor.
//!
//! A large transaction comes in parts and is held in parts: each is evicted by itself, so that the
//! tail may lie inside a transaction, and so may the head. What is said of transactions here is
//! true of parts.
//!
//! Reconnect, slow consumer and restart are one thing here: a cursor read forward through the
//! ring. Each shard keeps a ring of its own. The transactions are shared by reference, so a second
//! ring costs a pointer a transaction and no lock, and its head is by construction where its shard
//! is: a session that has read to the head has missed nothing and repeats nothing.
//!
//! # Invariants
//!
//! - Every change after [`Ring::tail`] and not after [`Ring::head`] is in the ring.
//!   (Tests `a_cursor_is_served_exactly_or_refused`, `a_cursor_inside_a_large_transaction_is_served`.)
//! - Positions only grow: an append that does not end after the head is a repetition and ignored.
//! - The newest transaction stays, however large.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::change::transaction::Transaction;
use crate::change::visibility::Visibility;
use crate::ring::seen::Seen;

pub mod feed;
mod seen;

/// What the ring may hold. Whichever is passed first evicts the oldest transactions.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Memory of the transactions held, in bytes. The rings of all shards share it.
    pub bytes_max: usize,
    /// Age since arrival: what is older helps nobody who is still there.
    pub age_max: Duration,
}

impl Default for Settings {
    /// 128 MiB and 10 minutes: twice the window that is held back in Postgres, so that a client
    /// which a restart could serve is never refused by a daemon that did not restart.
    fn default() -> Settings {
        Settings { bytes_max: 128 << 20, age_max: Duration::from_mins(10) }
    }
}

/// The recent transactions of one source.
#[derive(Debug)]
pub struct Ring {
    settings: Settings,
    source: Source,
    begin: Lsn,
    tail: Position,
    head: Position,
    bytes: usize,
    first: u64,
    held: VecDeque<(Instant, Arc<Transaction>)>,
    seen: Seen,
}

/// A place in the ring: the first change that was not read yet. Places of one ring are ordered as
/// the log is; they say nothing to another ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the transaction (or part), counted from the ring's beginning.
    pub transaction: u64,
    /// How many of the changes that it holds were read.
    pub change: usize,
}

/// Why a cursor can't be read on from. The words reach the client in `resync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The position was evicted.
    #[error("the position is older than what is kept")]
    TooOld,
    /// The cursor was made by another cluster, or on another timeline.
    #[error("the position is of another history of the database")]
    OtherHistory,
    /// The position was never reached here: the database lost it, or the cursor is made up.
    #[error("the position is ahead of the database")]
    Ahead,
    /// The table had another shape then, for which the subscription can't be decided.
    #[error("the table had another shape at the position")]
    SchemaChanged,
    /// The subscription was judged anew while its snapshot was read.
    #[error("the snapshot was begun again under other claims, grants or columns")]
    Restarted,
    /// Rows that did not change themselves can be seen now, because others did.
    #[error("more rows may be seen than before, without a change of theirs")]
    ScopeEntered,
    /// Rows that did not change themselves can't be seen any more, because others did.
    #[error("fewer rows may be seen than before, without a change of theirs")]
    ScopeLeft,
    /// Other rows than before can be seen.
    #[error("other rows may be seen than before, without a change of theirs")]
    ScopeChanged,
    /// A policy reads other tables, and their rows are not known of that time.
    #[error("what the policies read of other tables is not known of the position")]
    StateUnknown,
    /// Postgres had to be asked who may see a change, and could not say it for that moment.
    #[error("who may see the changes could not be told for their moment")]
    Undecided,
}

impl Gap {
    /// The word for it in a frame: `too_old`, `other_history`, `ahead`, `schema_changed`,
    /// `restarted`, `scope_entered`, `scope_left`, `scope_changed`, `state_unknown` or `undecided`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Gap::TooOld => "too_old",
            Gap::OtherHistory => "other_history",
            Gap::Ahead => "ahead",
            Gap::SchemaChanged => "schema_changed",
            Gap::Restarted => "restarted",
            Gap::ScopeEntered => "scope_entered",
            Gap::ScopeLeft => "scope_left",
            Gap::ScopeChanged => "scope_changed",
            Gap::StateUnknown => "state_unknown",
            Gap::Undecided => "undecided",
        }
    }
}

impl Ring {
    /// An empty ring of `source`, to which everything that ends after `tail` will be appended.
    #[must_use]
    pub const fn new(settings: Settings, source: Source, tail: Lsn) -> Ring {
        let (begin, tail) = (tail, Position::after(tail));
        Ring {
            settings,
            source,
            begin,
            tail,
            head: tail,
            bytes: 0,
            first: 0,
            held: VecDeque::new(),
            seen: Seen::new(),
        }
    }

    /// The history whose positions these are.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// Where it began when it was empty.
    #[must_use]
    pub const fn begin(&self) -> Lsn {
        self.begin
    }

    /// The oldest position that can be read on from.
    #[must_use]
    pub const fn tail(&self) -> Position {
        self.tail
    }

    /// The newest position reached.
    #[must_use]
    pub const fn head(&self) -> Position {
        self.head
    }

    /// The memory of the transactions held, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many transactions (or parts of them) are held.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.held.len()
    }

    /// How long ago the oldest that is held arrived, and the newest; none where none is held.
    #[must_use]
    pub fn ages(&self) -> Option<(Duration, Duration)> {
        let (oldest, newest) = (self.held.front()?, self.held.back()?);
        Some((oldest.0.elapsed(), newest.0.elapsed()))
    }

    /// What it may hold.
    #[must_use]
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// Lets it hold more or less, from the next transaction on.
    pub const fn resize(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// The number of the oldest transaction (or part of one) that is held.
    #[must_use]
    pub const fn begins(&self) -> u64 {
        self.first
    }

    /// The place after the newest change.
    #[must_use]
    pub fn end(&self) -> Place {
        let held = u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        Place { transaction: self.first.saturating_add(held), change: 0 }
    }

    /// Takes the next transaction in commit order; `false` where it is a repetition.
    pub fn append(&mut self, transaction: Arc<Transaction>) -> bool {
        let end = transaction.ends_at();
        if end <= self.head {
            return false;
        }
        self.head = end;
        self.bytes += transaction.bytes();
        self.held.push_back((Instant::now(), transaction));
        self.evict();
        true
    }

    /// Notes that nothing more ended up to `lsn`.
    pub fn advance(&mut self, lsn: Lsn) {
        self.head = self.head.max(Position::after(lsn));
    }

    /// The transaction at a place; `None` where it was evicted or is not there yet.
    #[must_use]
    pub fn get(&self, transaction: u64) -> Option<&Arc<Transaction>> {
        let offset = usize::try_from(transaction.checked_sub(self.first)?).ok()?;
        self.held.get(offset).map(|(_, transaction)| transaction)
    }

    /// Whether what stands at `place` was evicted.
    #[must_use]
    pub const fn evicted(&self, place: Place) -> bool {
        place.transaction < self.first
    }

    /// Where to read on from after `cursor`.
    ///
    /// # Errors
    ///
    /// [`Gap`] where the ring can't tell everything that came after `cursor`.
    pub fn place_after(&self, cursor: Cursor) -> Result<Place, Gap> {
        if cursor.source != self.source {
            return Err(Gap::OtherHistory);
        }
        let Position { lsn, index } = cursor.position;
        if cursor.position > self.head {
            return Err(Gap::Ahead);
        }
        if cursor.position < self.tail {
            return Err(Gap::TooOld);
        }
        let offset = self.held.partition_point(|(_, held)| held.ends_at() <= cursor.position);
        let transaction = self.first.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
        let change = match self.held.get(offset) {
            Some((_, held)) if held.commit_lsn == lsn => {
                let read = index.saturating_sub(held.first_index);
                usize::try_from(read).unwrap_or(usize::MAX).min(held.len())
            }
            // Between two transactions.
            Some((_, held)) if index == 0 && held.first_index == 0 => 0,
            None if index == 0 || cursor.position == self.head => 0,
            // It was published then, and is not now.
            _ => return Err(Gap::TooOld),
        };
        Ok(Place { transaction, change })
    }

    /// The place of the first transaction that a query did not see; the end where it saw them all.
    ///
    /// # Errors
    ///
    /// [`Gap::TooOld`] where one that it did not see, or may not have seen, was evicted.
    pub fn first_unseen(&mut self, visibility: &Arc<Visibility>) -> Result<Place, Gap> {
        let end = self.end().transaction;
        let held = &self.held;
        let xid_at = |number: u64| {
            let offset = usize::try_from(number.checked_sub(self.first)?).ok()?;
            held.get(offset).map(|(_, transaction)| transaction.xid)
        };
        let first = self.seen.first_unseen(visibility, self.first..end, xid_at);
        first.map(|transaction| Place { transaction, change: 0 }).ok_or(Gap::TooOld)
    }

    /// How many evicted transactions are not yet known to be seen by every later query.
    #[must_use]
    pub fn evicted_unsettled(&self) -> u64 {
        self.seen.unsettled(self.first)
    }

    fn evict(&mut self) {
        let oldest = Instant::now().checked_sub(self.settings.age_max);
        while self.held.len() > 1 {
            let Some((arrived, transaction)) = self.held.front() else { return };
            let aged = oldest.is_some_and(|oldest| *arrived < oldest);
            if self.bytes <= self.settings.bytes_max && !aged {
                return;
            }
            self.tail = transaction.ends_at();
            self.seen.evict(transaction.xid);
            self.bytes -= transaction.bytes();
            self.first += 1;
            self.held.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::id::RelationId;
    use crate::change::id::Xid;
    use crate::change::relation::Relation;
    use crate::change::relation::ReplicaIdentity;
    use crate::change::transaction::ChangeKind;
    use crate::change::transaction::Timestamp;
    use crate::change::transaction::TransactionBuilder;

    const SOURCE: Source = Source { system: 7, timeline: 1 };

    fn relation() -> Arc<Relation> {
        Arc::new(Relation {
            id: RelationId(1),
            version: 1,
            schema: "public".into(),
            name: "orders".into(),
            identity: ReplicaIdentity::Default,
            columns: Vec::new(),
            primary_key: Vec::new(),
        })
    }

    /// Two changes, whose commit record is one byte long and ends at `end`.
    fn transaction(end: u64) -> Arc<Transaction> {
        let mut builder = TransactionBuilder::new(Xid(1), Lsn::new(end - 1), Timestamp(0));
        for _ in 0..2 {
            builder.push(&relation(), ChangeKind::Truncate).unwrap();
        }
        Arc::new(builder.commit(Lsn::new(end)))
    }

    fn ring(ends: &[u64], holds: usize) -> Ring {
        let bytes_max = holds * transaction(2).bytes();
        let settings = Settings { bytes_max, ..Settings::default() };
        let mut ring = Ring::new(settings, SOURCE, Lsn::new(100));
        for end in ends {
            assert!(ring.append(transaction(*end)));
        }
        ring
    }

    fn cursor(lsn: u64, index: u32) -> Cursor {
        Cursor { source: SOURCE, position: Position { lsn: Lsn::new(lsn), index } }
    }

    #[test]
    fn a_cursor_is_served_exactly_or_refused() {
        let mut ring = ring(&[110, 120, 130, 140], 3);
        ring.advance(Lsn::new(150));
        let at = |transaction, change| Ok(Place { transaction, change });
        for (cursor, expected) in [
            (cursor(100, 0), Err(Gap::TooOld)),
            (cursor(109, 1), Err(Gap::TooOld)),
            (cursor(110, 0), at(1, 0)),
            (cursor(115, 0), at(1, 0)),
            (cursor(115, 1), Err(Gap::TooOld)),
            (cursor(119, 1), at(1, 1)),
            (cursor(119, 9), at(1, 2)),
            (cursor(120, 0), at(2, 0)),
            (cursor(140, 0), at(4, 0)),
            (cursor(145, 0), at(4, 0)),
            (cursor(150, 0), at(4, 0)),
            (cursor(150, 1), Err(Gap::Ahead)),
            (cursor(151, 0), Err(Gap::Ahead)),
        ] {
            assert_eq!(ring.place_after(cursor), expected, "{cursor}");
        }
        let elsewhere = Source { system: 7, timeline: 2 };
        let foreign = Cursor::after(elsewhere, Lsn::new(120));
        assert_eq!(ring.place_after(foreign), Err(Gap::OtherHistory));
    }

    /// A transaction of three parts of two changes, as `transaction` makes it, in a ring that holds
    /// two of them.
    fn ring_with_parts(parts: usize) -> Ring {
        let mut ring = ring(&[110], 2);
        for part in 0..parts {
            let before = u32::try_from(2 * part).unwrap();
            let builder = TransactionBuilder::new(Xid(2), Lsn::new(119), Timestamp(0));
            let mut builder = builder.skipping(before);
            for _ in 0..before + 2 {
                builder.push(&relation(), ChangeKind::Truncate).unwrap();
            }
            let last = part == 2;
            let part = if last { builder.commit(Lsn::new(120)) } else { builder.cut() };
            assert!(ring.append(Arc::new(part)));
        }
        ring
    }

    #[test]
    fn a_cursor_inside_a_large_transaction_is_served() {
        let within = |count| Position::within(Lsn::new(119), count);
        let at = |transaction, change| Ok(Place { transaction, change });

        let ring = ring_with_parts(2);
        assert_eq!((ring.tail(), ring.head()), (Position::after(Lsn::new(110)), within(4)));
        for (cursor, expected) in [
            (cursor(110, 0), at(1, 0)),
            (cursor(119, 0), at(1, 0)),
            (cursor(119, 1), at(1, 1)),
            (cursor(119, 2), at(2, 0)),
            (cursor(119, 3), at(2, 1)),
            (cursor(119, 4), at(3, 0)),
            (cursor(119, 5), Err(Gap::Ahead)),
            (cursor(120, 0), Err(Gap::Ahead)),
        ] {
            assert_eq!(ring.place_after(cursor), expected, "{cursor} of an unfinished one");
        }

        let ring = ring_with_parts(3);
        assert_eq!((ring.tail(), ring.head()), (within(2), Position::after(Lsn::new(120))));
        for (cursor, expected) in [
            (cursor(110, 0), Err(Gap::TooOld)),
            (cursor(119, 0), Err(Gap::TooOld)),
            (cursor(119, 1), Err(Gap::TooOld)),
            (cursor(119, 2), at(2, 0)),
            (cursor(119, 5), at(3, 1)),
            (cursor(119, 6), at(3, 2)),
            (cursor(120, 0), at(4, 0)),
        ] {
            assert_eq!(ring.place_after(cursor), expected, "{cursor} of one that lost its begin");
        }
    }

    #[test]
    fn a_repetition_is_ignored() {
        let mut ring = ring(&[110, 120], 9);
        assert!(!ring.append(transaction(120)));
        assert!(!ring.append(transaction(110)));
        assert_eq!(ring.end(), Place { transaction: 2, change: 0 });
    }

    #[test]
    fn the_newest_transaction_stays_however_large() {
        let ring = ring(&[110, 120, 130], 0);
        assert_eq!(ring.tail(), Position::after(Lsn::new(120)));
        assert_eq!(ring.get(2).and_then(|held| held.end_lsn), Some(Lsn::new(130)));
        assert!(ring.get(1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_evicted() {
        let mut ring = ring(&[110], 9);
        tokio::time::advance(Duration::from_secs(601)).await;
        ring.append(transaction(120));
        assert_eq!(ring.tail(), Position::after(Lsn::new(110)));
    }
}

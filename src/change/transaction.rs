//! The changes between Begin and Commit: the unit of order.
//!
//! A large transaction comes in parts, so that nobody has to hold it whole: all have its number,
//! its commit position and its time, and only the last one tells where it ends. The server sends
//! nothing of a transaction that did not commit, so a part is as good as the whole.
//!
//! A transaction keeps the wire form of its tuples in one allocation and 24 bytes a change beside
//! it, so that a million changes cost no million allocations, a transaction's memory is known
//! exactly, and it is shared by reference between the ring and every shard.

use std::sync::Arc;

use crate::change::cursor::Position;
use crate::change::id::RelationId;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::tuple::Tuple;

/// A committed transaction, or a part of one.
#[derive(Debug)]
pub struct Transaction {
    /// Its number.
    pub xid: Xid,
    /// Where its commit record begins: the position in its changes' cursors.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: the position after it. Absent: more parts follow.
    pub end_lsn: Option<Lsn>,
    /// When it committed, by the server's clock.
    pub committed_at: Timestamp,
    /// How many of its changes were in the parts before this one.
    pub first_index: u32,
    relations: Vec<Arc<Relation>>,
    records: Vec<Record>,
    tuples: Vec<u8>,
}

/// Microseconds since 2000-01-01 00:00 UTC, PostgreSQL's own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// One insert, update, delete or truncate.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Its place among the transaction's changes, from 0. The index in its cursor is one more.
    pub index: u32,
    /// The table, as it was then.
    pub relation: &'a Arc<Relation>,
    /// What happened.
    pub kind: ChangeKind<'a>,
}

/// What happened to the row, with the images that the stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind<'a> {
    /// A row was inserted.
    Insert {
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The row before, where the replica identity makes the stream carry it.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The row before.
        old: OldTuple<'a>,
    },
    /// The table was emptied. A statement that names several tables makes one change for each.
    Truncate,
}

/// An old image, and how much of the row it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
    /// The identity's columns only; NULL in every other column means "not sent".
    Key(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The tuple, whatever it holds.
    #[must_use]
    pub const fn tuple(self) -> Tuple<'a> {
        match self {
            OldTuple::Full(tuple) | OldTuple::Key(tuple) => tuple,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    tuples_at: usize,
    old_len: u32,
    new_len: u32,
    relation: u32,
    kind: RecordKind,
    /// Whether the old and the new tuple are condensed.
    condensed: (bool, bool),
}

#[derive(Clone, Copy, Debug)]
enum RecordKind {
    Insert,
    Update,
    UpdateWithKey,
    UpdateWithFull,
    DeleteByKey,
    DeleteByFull,
    Truncate,
}

impl Transaction {
    /// The memory that it holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Transaction>()
            + self.tuples.capacity()
            + self.records.capacity() * size_of::<Record>()
            + self.relations.capacity() * size_of::<Arc<Relation>>()
    }

    /// Whether it is not the whole of its transaction.
    #[must_use]
    pub const fn is_part(&self) -> bool {
        self.first_index > 0 || self.end_lsn.is_none()
    }

    /// Whether it holds changes of a table.
    #[must_use]
    pub fn touches(&self, table: RelationId) -> bool {
        self.relations.iter().any(|relation| relation.id == table)
    }

    /// How many changes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds no change (it touched no published table, or only carried a message).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The position before its first change.
    #[must_use]
    pub const fn begins_at(&self) -> Position {
        Position::within(self.commit_lsn, self.first_index)
    }

    /// The position after its last change.
    #[must_use]
    pub fn ends_at(&self) -> Position {
        match self.end_lsn {
            Some(end_lsn) => Position::after(end_lsn),
            None => self.position_after(self.len()),
        }
    }

    /// The position after the first `count` changes that it holds.
    #[must_use]
    pub fn position_after(&self, count: usize) -> Position {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Position::within(self.commit_lsn, self.first_index.saturating_add(count))
    }

    /// The tables that it changed, each shape once.
    #[must_use]
    pub fn relations(&self) -> &[Arc<Relation>] {
        &self.relations
    }

    /// The changes that it holds, in the order in which they were made.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes_from(0)
    }

    /// The same without the first `count`.
    pub fn changes_from(&self, count: usize) -> impl Iterator<Item = Change<'_>> {
        let records = self.records.iter().enumerate().skip(count);
        records.filter_map(|(at, record)| self.view(at, record))
    }

    fn view(&self, at: usize, record: &Record) -> Option<Change<'_>> {
        let relation = self.relations.get(usize::try_from(record.relation).ok()?)?;
        let tuples = self.tuples.get(record.tuples_at..)?;
        let (old, rest) = tuples.split_at_checked(usize::try_from(record.old_len).ok()?)?;
        let new = rest.get(..usize::try_from(record.new_len).ok()?)?;
        let new = Tuple::checked(new, record.condensed.1);
        let old = Tuple::checked(old, record.condensed.0);
        let kind = match record.kind {
            RecordKind::Insert => ChangeKind::Insert { new },
            RecordKind::Update => ChangeKind::Update { old: None, new },
            RecordKind::UpdateWithKey => ChangeKind::Update { old: Some(OldTuple::Key(old)), new },
            RecordKind::UpdateWithFull => {
                ChangeKind::Update { old: Some(OldTuple::Full(old)), new }
            }
            RecordKind::DeleteByKey => ChangeKind::Delete { old: OldTuple::Key(old) },
            RecordKind::DeleteByFull => ChangeKind::Delete { old: OldTuple::Full(old) },
            RecordKind::Truncate => ChangeKind::Truncate,
        };
        let index = self.first_index.checked_add(u32::try_from(at).ok()?)?;
        Some(Change { index, relation, kind })
    }
}

/// A transaction between its Begin and its Commit.
#[derive(Debug)]
pub struct TransactionBuilder {
    xid: Xid,
    commit_lsn: Lsn,
    committed_at: Timestamp,
    first_index: u32,
    /// How many changes are still to be left out.
    to_skip: u32,
    relations: Vec<Arc<Relation>>,
    records: Vec<Record>,
    tuples: Vec<u8>,
}

/// The transaction can't be held: it has 2^32 changes, or a tuple of 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction {xid} does not fit: a tuple or the count of changes is over 32 bits")]
pub struct TooLarge {
    /// The transaction.
    pub xid: Xid,
}

impl TransactionBuilder {
    /// Begins a transaction with what its Begin message says.
    #[must_use]
    pub const fn new(xid: Xid, commit_lsn: Lsn, committed_at: Timestamp) -> TransactionBuilder {
        TransactionBuilder {
            xid,
            commit_lsn,
            committed_at,
            first_index: 0,
            to_skip: 0,
            relations: Vec::new(),
            records: Vec::new(),
            tuples: Vec::new(),
        }
    }

    /// Leaves out the first `count` changes, which others hold already.
    #[must_use]
    pub const fn skipping(mut self, count: u32) -> TransactionBuilder {
        self.first_index = count;
        self.to_skip = count;
        self
    }

    /// Where the commit record begins.
    #[must_use]
    pub const fn commit_lsn(&self) -> Lsn {
        self.commit_lsn
    }

    /// How many changes are still to be left out.
    #[must_use]
    pub const fn to_skip(&self) -> u32 {
        self.to_skip
    }

    /// The size of what is held so far, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.tuples.len() + self.records.len() * size_of::<Record>()
    }

    /// Adds one change; its tuples are copied.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] where a length or a count does not fit. The transaction is as it was.
    pub fn push(
        &mut self,
        relation: &Arc<Relation>,
        change: ChangeKind<'_>,
    ) -> Result<(), TooLarge> {
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return Ok(());
        }
        let none = Tuple::checked(&[], false);
        let (kind, old, new) = match change {
            ChangeKind::Insert { new } => (RecordKind::Insert, none, new),
            ChangeKind::Update { old: None, new } => (RecordKind::Update, none, new),
            ChangeKind::Update { old: Some(OldTuple::Key(old)), new } => {
                (RecordKind::UpdateWithKey, old, new)
            }
            ChangeKind::Update { old: Some(OldTuple::Full(old)), new } => {
                (RecordKind::UpdateWithFull, old, new)
            }
            ChangeKind::Delete { old: OldTuple::Key(old) } => (RecordKind::DeleteByKey, old, none),
            ChangeKind::Delete { old: OldTuple::Full(old) } => {
                (RecordKind::DeleteByFull, old, none)
            }
            ChangeKind::Truncate => (RecordKind::Truncate, none, none),
        };
        let condensed = (old.is_condensed(), new.is_condensed());
        let (old, new) = (old.wire(), new.wire());
        let too_large = TooLarge { xid: self.xid };
        let narrow = |length: usize| u32::try_from(length).map_err(|_| too_large.clone());
        let count = narrow(self.records.len() + 1)?;
        self.first_index.checked_add(count).ok_or_else(|| too_large.clone())?;
        let (old_len, new_len) = (narrow(old.len())?, narrow(new.len())?);
        let tuples_at = self.tuples.len();
        let relation = self.position_of(relation).ok_or_else(|| too_large.clone())?;
        self.tuples.extend_from_slice(old);
        self.tuples.extend_from_slice(new);
        self.records.push(Record { tuples_at, old_len, new_len, relation, kind, condensed });
        Ok(())
    }

    /// Ends the transaction where its commit record ends.
    #[must_use]
    pub fn commit(mut self, end_lsn: Lsn) -> Transaction {
        self.take(Some(end_lsn))
    }

    /// Hands out what is held so far as a part; the builder goes on with the next one.
    #[must_use]
    pub fn cut(&mut self) -> Transaction {
        let part = self.take(None);
        self.first_index = part.position_after(part.len()).index;
        part
    }

    fn take(&mut self, end_lsn: Option<Lsn>) -> Transaction {
        let mut relations = std::mem::take(&mut self.relations);
        let mut records = std::mem::take(&mut self.records);
        let mut tuples = std::mem::take(&mut self.tuples);
        relations.shrink_to_fit();
        records.shrink_to_fit();
        tuples.shrink_to_fit();
        let &mut TransactionBuilder { xid, commit_lsn, committed_at, first_index, .. } = self;
        Transaction {
            xid,
            commit_lsn,
            end_lsn,
            committed_at,
            first_index,
            relations,
            records,
            tuples,
        }
    }

    /// Most changes are of the table that the one before was of, so the search begins at the end.
    fn position_of(&mut self, relation: &Arc<Relation>) -> Option<u32> {
        let known = self.relations.iter().rposition(|known| Arc::ptr_eq(known, relation));
        let position = known.unwrap_or_else(|| {
            self.relations.push(Arc::clone(relation));
            self.relations.len() - 1
        });
        u32::try_from(position).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::id::RelationId;
    use crate::change::relation::ReplicaIdentity;

    fn relation(name: &str) -> Arc<Relation> {
        Arc::new(Relation {
            id: RelationId(1),
            version: 1,
            schema: "public".into(),
            name: name.into(),
            identity: ReplicaIdentity::Default,
            columns: Vec::new(),
            primary_key: Vec::new(),
        })
    }

    fn tuple(wire: &[u8]) -> Tuple<'_> {
        Tuple::take(wire).unwrap().0
    }

    #[test]
    fn changes_come_back_as_they_were_pushed() {
        let (orders, sessions) = (relation("orders"), relation("sessions"));
        let (one, two) = (tuple(b"\0\x01n"), tuple(b"\0\x01t\0\0\0\x011"));
        let pushed = [
            (&orders, ChangeKind::Insert { new: two }),
            (&sessions, ChangeKind::Update { old: None, new: one }),
            (&orders, ChangeKind::Update { old: Some(OldTuple::Key(one)), new: two }),
            (&orders, ChangeKind::Update { old: Some(OldTuple::Full(two)), new: one }),
            (&orders, ChangeKind::Delete { old: OldTuple::Key(one) }),
            (&sessions, ChangeKind::Delete { old: OldTuple::Full(two) }),
            (&orders, ChangeKind::Truncate),
        ];
        let mut builder = TransactionBuilder::new(Xid(7), Lsn::new(10), Timestamp(1));
        for (relation, kind) in pushed {
            builder.push(relation, kind).unwrap();
        }
        let transaction = builder.commit(Lsn::new(20));
        assert_eq!(transaction.relations().len(), 2);
        assert_eq!(transaction.len(), pushed.len());
        for (index, (change, (relation, kind))) in transaction.changes().zip(pushed).enumerate() {
            assert_eq!(usize::try_from(change.index).unwrap(), index);
            assert_eq!(change.relation.name, relation.name);
            assert_eq!(change.kind, kind);
        }
        assert_eq!(transaction.changes_from(5).count(), 2);
    }

    #[test]
    fn parts_go_on_where_the_one_before_ended() {
        let orders = relation("orders");
        let mut builder = TransactionBuilder::new(Xid(7), Lsn::new(10), Timestamp(1));
        let push = |builder: &mut TransactionBuilder| {
            builder.push(&orders, ChangeKind::Insert { new: tuple(b"\0\x01n") }).unwrap();
        };
        push(&mut builder);
        push(&mut builder);
        let first = builder.cut();
        push(&mut builder);
        let last = builder.commit(Lsn::new(20));
        assert_eq!((first.len(), first.end_lsn), (2, None));
        assert_eq!(first.ends_at(), last.begins_at());
        assert_eq!(last.ends_at(), Position::after(Lsn::new(20)));
        assert_eq!(last.changes().map(|change| change.index).collect::<Vec<_>>(), [2]);

        let mut again = TransactionBuilder::new(Xid(7), Lsn::new(10), Timestamp(1)).skipping(2);
        for _ in 0..3 {
            push(&mut again);
        }
        let again = again.commit(Lsn::new(20));
        assert_eq!((again.begins_at(), again.len()), (last.begins_at(), 1));
    }
}

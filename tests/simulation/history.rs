//! What was committed, by history of the database, and what of it a shard was told.

use std::sync::Arc;

use walcast::change::cursor::Position;
use walcast::change::cursor::Source;
use walcast::change::lsn::Lsn;
use walcast::change::transaction::Transaction;
use walcast::ring::feed::Feed;

use crate::tables::Change;

/// A transaction, and the catalogue's generation when the stream had it.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) commit_lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    /// As it is streamed: whole, or in parts.
    pub(crate) parts: Vec<Arc<Transaction>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) generation: u64,
}

/// One history of the database: what committed in it, in order, whether it was streamed or not.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) source: Source,
    pub(crate) committed: Vec<Committed>,
    pub(crate) head: Lsn,
    /// Where the slot began: what ended before can't be streamed any more.
    pub(crate) slot_at: Lsn,
}

/// A change with its place.
pub(crate) struct Placed<'a> {
    pub(crate) transaction: &'a Committed,
    pub(crate) change: &'a Change,
    /// After it.
    pub(crate) position: Position,
}

impl History {
    pub(crate) const fn new(source: Source, head: Lsn) -> History {
        History { source, committed: Vec::new(), head, slot_at: head }
    }

    /// The changes that lie after a position.
    pub(crate) fn after(&self, position: Position) -> impl Iterator<Item = Placed<'_>> {
        let all = self.committed.iter().flat_map(|transaction| {
            transaction.changes.iter().enumerate().map(move |(index, change)| {
                let count = u32::try_from(index).unwrap() + 1;
                let position = Position::within(transaction.commit_lsn, count);
                Placed { transaction, change, position }
            })
        });
        all.filter(move |placed| placed.is_after(position))
    }
}

impl Placed<'_> {
    /// By what `docs/protocol.md` and `change::cursor` say of positions.
    pub(crate) fn is_after(&self, position: Position) -> bool {
        match position.index {
            0 => self.transaction.end_lsn > position.lsn,
            _ => self.position > position,
        }
    }
}

/// What one shard was told: enough to say what its ring must still hold.
#[derive(Debug)]
pub(crate) struct Told {
    bytes_max: usize,
    pub(crate) source: Option<Source>,
    pub(crate) head: Position,
    started_at: Position,
    transactions: Vec<Arc<Transaction>>,
    /// How often another history began.
    pub(crate) starts: usize,
}

impl Told {
    pub(crate) const fn nothing(bytes_max: usize) -> Told {
        let zero = Position::after(Lsn::ZERO);
        Told {
            bytes_max,
            source: None,
            head: zero,
            started_at: zero,
            transactions: Vec::new(),
            starts: 0,
        }
    }

    pub(crate) fn note(&mut self, feed: &Feed) {
        match feed {
            Feed::Start { source, tail } => {
                self.starts += usize::from(self.source.is_some());
                self.source = Some(*source);
                self.head = Position::after(*tail);
                self.started_at = self.head;
                self.transactions.clear();
            }
            Feed::Transaction(transaction) if transaction.ends_at() > self.head => {
                self.head = transaction.ends_at();
                self.transactions.push(Arc::clone(transaction));
            }
            Feed::Advance(lsn) => self.head = self.head.max(Position::after(*lsn)),
            Feed::Transaction(_) | Feed::Live | Feed::Interrupted | Feed::Resumed => {}
        }
    }

    /// The oldest position that the ring must be able to tell everything after: as many of the
    /// newest transactions as fit, and one at least.
    pub(crate) fn tail(&self) -> Position {
        let mut bytes = 0;
        for (count, transaction) in self.transactions.iter().rev().enumerate() {
            bytes += transaction.bytes();
            if bytes > self.bytes_max && count > 0 {
                return transaction.ends_at();
            }
        }
        self.started_at
    }
}

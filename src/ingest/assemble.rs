//! Messages in, transactions out.
//!
//! One assembler per connection: what a `Relation` message says holds for the tuples that follow
//! it on the same connection, and the server repeats it on the next one.
//!
//! A `Relation` message needs the catalogue, which takes a query where the table's shape is new.
//! The assembler does not wait: it gives [`Step::Resolve`] back and goes on after
//! [`Assembler::learn`].
//!
//! # Invariants
//!
//! - A change is read with the shape that the stream announced before it, also where DDL changed
//!   the shape in the middle of a transaction.
//! - A transaction leaves at its Commit; one that is large leaves in parts, each as soon as it is
//!   full, and the last one at the Commit. (No transaction comes that did not commit.)
//! - After a reconnect in the middle of a transaction, what left before is left out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::cursor::Position;
use crate::change::id::RelationId;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::change::relation::RelationDescription;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::OldTuple;
use crate::change::transaction::TooLarge;
use crate::change::transaction::Transaction;
use crate::change::transaction::TransactionBuilder;
use crate::change::tuple::Tuple;
use crate::ingest::pgoutput;
use crate::ingest::pgoutput::DecodeError;
use crate::ingest::pgoutput::Message;

/// How large a part of a transaction becomes, in bytes of memory.
pub const PART_BYTES: usize = 8 << 20;

/// Makes transactions of one connection's messages.
#[derive(Debug)]
pub struct Assembler {
    relations: HashMap<RelationId, Arc<Relation>>,
    open: Option<TransactionBuilder>,
    part_bytes: usize,
    /// The position in the middle of a transaction up to which its changes left before.
    left_before: Option<Position>,
}

/// What a message led to.
#[derive(Debug)]
pub enum Step {
    /// Nothing yet.
    More,
    /// A table's shape was announced. Whatever comes next may need it: it must be resolved and
    /// given to [`Assembler::learn`] before the next message is pushed.
    Resolve(RelationDescription),
    /// The transaction says (by `sql/06-fence.sql`) that the rules by which it is judged may be others
    /// now: they must be read before anything more of it is pushed.
    Reread,
    /// A transaction is complete, or a part of it is full.
    Made(Transaction),
}

/// Why messages don't make a transaction. The connection can't be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A payload is not a message.
    #[error("undecodable message")]
    Decode(#[from] DecodeError),
    /// A change came outside a transaction.
    #[error("{message} outside a transaction")]
    Outside {
        /// The message, in the documentation's words.
        message: &'static str,
    },
    /// A transaction began inside another one.
    #[error("Begin inside the transaction that commits at {commit_lsn}")]
    Nested {
        /// Where the outer one's commit record begins.
        commit_lsn: Lsn,
    },
    /// Begin and Commit are not of the same transaction.
    #[error("Commit at {found} ends a transaction that was to commit at {expected}")]
    OtherCommit {
        /// What the Begin said.
        expected: Lsn,
        /// What the Commit said.
        found: Lsn,
    },
    /// A change is of a table that was not announced.
    #[error("change of relation {relation}, which was not announced")]
    UnknownRelation {
        /// Its OID.
        relation: RelationId,
    },
    /// A tuple has not the columns that were announced.
    #[error("tuple of {found} columns in {relation}, which has {expected}")]
    ColumnCount {
        /// The table, as schema and name.
        relation: String,
        /// How many columns were announced.
        expected: usize,
        /// How many the tuple has.
        found: usize,
    },
    /// The connection before broke in the middle of a transaction, and it did not come again.
    #[error("the transaction that commits at {commit_lsn} did not come again after a reconnect")]
    Torn {
        /// Where its commit record begins.
        commit_lsn: Lsn,
    },
    /// The transaction can't be held.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl Assembler {
    /// An assembler for a new connection, which makes parts of about `part_bytes`. Where the one
    /// before broke in the middle of a transaction, its changes up to `left_before` are left out.
    #[must_use]
    pub fn new(part_bytes: usize, left_before: Option<Position>) -> Assembler {
        Assembler { relations: HashMap::new(), open: None, part_bytes, left_before }
    }

    /// Makes parts of about so many bytes from now on.
    pub const fn make_parts_of(&mut self, part_bytes: usize) {
        self.part_bytes = part_bytes;
    }

    /// Where the commit record of the transaction begins that has begun and not ended.
    #[must_use]
    pub fn commit_lsn(&self) -> Option<Lsn> {
        self.open.as_ref().map(TransactionBuilder::commit_lsn)
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the shape that tuples of this table have from here on.
    pub fn learn(&mut self, relation: Arc<Relation>) {
        self.relations.insert(relation.id, relation);
    }

    /// Takes the next message.
    ///
    /// # Errors
    ///
    /// [`AssembleError`]; the assembler is of no more use then.
    pub fn push(&mut self, payload: &[u8]) -> Result<Step, AssembleError> {
        match pgoutput::decode(payload)? {
            Message::Insert { relation, new } => {
                let step = self.cut();
                self.change("Insert", relation, ChangeKind::Insert { new })?;
                Ok(step)
            }
            Message::Update { relation, old, new } => {
                let step = self.cut();
                self.change("Update", relation, ChangeKind::Update { old, new })?;
                Ok(step)
            }
            Message::Delete { relation, old } => {
                let step = self.cut();
                self.change("Delete", relation, ChangeKind::Delete { old })?;
                Ok(step)
            }
            Message::Truncate { relations } => {
                for relation in relations.iter() {
                    self.change("Truncate", relation, ChangeKind::Truncate)?;
                }
                Ok(Step::More)
            }
            Message::Begin { commit_lsn, committed_at, xid } => {
                self.begin(TransactionBuilder::new(xid, commit_lsn, committed_at))
            }
            Message::Commit { commit_lsn, end_lsn, .. } => self.commit(commit_lsn, end_lsn),
            Message::Relation(description) => Ok(Step::Resolve(description)),
            Message::Logical {
                transactional: true,
                prefix: "walcast",
                content: b"catalog",
                ..
            } => Ok(Step::Reread),
            Message::Type { .. } | Message::Origin { .. } | Message::Logical { .. } => {
                Ok(Step::More)
            }
        }
    }

    fn begin(&mut self, transaction: TransactionBuilder) -> Result<Step, AssembleError> {
        if let Some(open) = &self.open {
            return Err(AssembleError::Nested { commit_lsn: open.commit_lsn() });
        }
        let commit_lsn = transaction.commit_lsn();
        self.open = Some(match self.left_before {
            Some(position) if position.lsn < commit_lsn => {
                return Err(AssembleError::Torn { commit_lsn: position.lsn });
            }
            Some(position) if position.lsn == commit_lsn => {
                self.left_before = None;
                transaction.skipping(position.index)
            }
            _ => transaction,
        });
        Ok(Step::More)
    }

    /// Lets a part go that is full. Asked before a change is added, so that the last part of a
    /// transaction is never empty.
    fn cut(&mut self) -> Step {
        match &mut self.open {
            Some(open) if open.bytes() >= self.part_bytes => Step::Made(open.cut()),
            _ => Step::More,
        }
    }

    fn change(
        &mut self,
        message: &'static str,
        relation: RelationId,
        change: ChangeKind<'_>,
    ) -> Result<(), AssembleError> {
        let open = self.open.as_mut().ok_or(AssembleError::Outside { message })?;
        let Some(relation) = self.relations.get(&relation) else {
            return Err(AssembleError::UnknownRelation { relation });
        };
        let (old, new) = tuples(change);
        for tuple in old.into_iter().chain(new) {
            if tuple.len() != relation.columns.len() {
                return Err(AssembleError::ColumnCount {
                    relation: format!("{}.{}", relation.schema, relation.name),
                    expected: relation.columns.len(),
                    found: tuple.len(),
                });
            }
        }
        open.push(relation, change)?;
        Ok(())
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<Step, AssembleError> {
        let open = self.open.take().ok_or(AssembleError::Outside { message: "Commit" })?;
        if open.commit_lsn() != commit_lsn {
            let expected = open.commit_lsn();
            return Err(AssembleError::OtherCommit { expected, found: commit_lsn });
        }
        if open.to_skip() > 0 {
            return Err(AssembleError::Torn { commit_lsn });
        }
        Ok(Step::Made(open.commit(end_lsn)))
    }
}

/// The images that a change carries.
const fn tuples(change: ChangeKind<'_>) -> (Option<Tuple<'_>>, Option<Tuple<'_>>) {
    match change {
        ChangeKind::Insert { new } | ChangeKind::Update { old: None, new } => (None, Some(new)),
        ChangeKind::Update { old: Some(OldTuple::Full(old) | OldTuple::Key(old)), new } => {
            (Some(old), Some(new))
        }
        ChangeKind::Delete { old: OldTuple::Full(old) | OldTuple::Key(old) } => (Some(old), None),
        ChangeKind::Truncate => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::id::TypeId;
    use crate::change::relation::Column;
    use crate::change::types::Collation;
    use crate::change::types::Kind;
    use crate::change::types::Type;

    const BEGIN: &[u8] = b"B\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\x07";
    const COMMIT: &[u8] = b"C\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0\0";
    const INSERT: &[u8] = b"I\0\0\0\x01N\0\x01t\0\0\0\x015";

    /// Table 1 with `columns` columns of type text.
    fn table(version: u64, columns: usize) -> Arc<Relation> {
        let of = Arc::new(Type { id: TypeId(25), name: "text".into(), kind: Kind::Text });
        let column = Column {
            name: "a".into(),
            of,
            modifier: -1,
            collation: Collation::Bytes,
            in_identity: false,
        };
        Arc::new(Relation {
            id: RelationId(1),
            version,
            schema: "public".into(),
            name: "one".into(),
            identity: crate::change::relation::ReplicaIdentity::Default,
            columns: vec![column; columns],
            primary_key: Vec::new(),
        })
    }

    fn knowing(relation: Arc<Relation>) -> Assembler {
        let mut assembler = Assembler::new(PART_BYTES, None);
        assembler.learn(relation);
        assembler
    }

    #[test]
    fn what_is_small_leaves_at_commit() {
        let mut assembler = knowing(table(1, 1));
        for payload in [BEGIN, INSERT, INSERT] {
            assert!(matches!(assembler.push(payload), Ok(Step::More)));
        }
        assert!(assembler.is_open());
        let Ok(Step::Made(transaction)) = assembler.push(COMMIT) else { panic!() };
        assert_eq!((transaction.len(), transaction.end_lsn), (2, Some(Lsn::new(0x20))));
        assert!(!assembler.is_open());
    }

    #[test]
    fn a_shape_announced_in_mid_transaction_holds_from_there_on() {
        let mut assembler = knowing(table(1, 1));
        assembler.push(BEGIN).unwrap();
        assembler.push(INSERT).unwrap();
        assembler.learn(table(2, 2));
        assembler.push(b"I\0\0\0\x01N\0\x02nn").unwrap();
        let Ok(Step::Made(transaction)) = assembler.push(COMMIT) else { panic!() };
        let versions: Vec<_> =
            transaction.changes().map(|change| change.relation.version).collect();
        assert_eq!(versions, [1, 2]);
    }

    /// The indexes of the changes in the parts of a transaction of five inserts.
    fn parts(assembler: &mut Assembler) -> Vec<Vec<u32>> {
        let mut parts = Vec::new();
        for payload in [BEGIN, INSERT, INSERT, INSERT, INSERT, INSERT, COMMIT] {
            if let Step::Made(part) = assembler.push(payload).unwrap() {
                parts.push(part.changes().map(|change| change.index).collect());
            }
        }
        parts
    }

    #[test]
    fn what_is_large_leaves_in_parts_and_not_again_after_a_reconnect() {
        let resumed = |left_before| {
            let mut assembler = Assembler::new(60, left_before);
            assembler.learn(table(1, 1));
            assembler
        };
        let part = |indexes: &[u32]| indexes.to_vec();
        let mut assembler = resumed(None);
        assert_eq!(parts(&mut assembler), [part(&[0, 1]), part(&[2, 3]), part(&[4])]);
        let mut assembler = resumed(Some(Position::within(Lsn::new(0x10), 3)));
        assert_eq!(parts(&mut assembler), [part(&[3, 4])]);
        assert_eq!(parts(&mut assembler).concat().len(), 5, "only the first is a repetition");

        let mut assembler = resumed(Some(Position::within(Lsn::new(0x9), 3)));
        let result = assembler.push(BEGIN).unwrap_err();
        assert_eq!(result, AssembleError::Torn { commit_lsn: Lsn::new(0x9) });
        let mut assembler = resumed(Some(Position::within(Lsn::new(0x10), 3)));
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(COMMIT).unwrap_err();
        assert_eq!(result, AssembleError::Torn { commit_lsn: Lsn::new(0x10) });
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let result = Assembler::new(PART_BYTES, None).push(INSERT).unwrap_err();
        assert_eq!(result, AssembleError::Outside { message: "Insert" });

        let mut assembler = Assembler::new(PART_BYTES, None);
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(INSERT).unwrap_err();
        assert_eq!(result, AssembleError::UnknownRelation { relation: RelationId(1) });

        let mut assembler = knowing(table(1, 2));
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(INSERT).unwrap_err();
        assert!(matches!(result, AssembleError::ColumnCount { expected: 2, found: 1, .. }));

        let mut assembler = Assembler::new(PART_BYTES, None);
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(BEGIN).unwrap_err();
        assert_eq!(result, AssembleError::Nested { commit_lsn: Lsn::new(0x10) });
    }

    #[test]
    fn only_our_own_mark_in_a_transaction_asks_for_the_rules() {
        let message = |transactional: u8, prefix: &[u8], content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            [b"M", &[transactional][..], &[0; 8], prefix, b"\0", &length, content].concat()
        };
        let mut assembler = knowing(table(1, 1));
        assembler.push(BEGIN).unwrap();
        let step = assembler.push(&message(1, b"walcast", b"catalog"));
        assert!(matches!(step, Ok(Step::Reread)));
        assert_eq!(assembler.commit_lsn(), Some(Lsn::new(0x10)));
        for other in [
            message(0, b"walcast", b"catalog"),
            message(1, b"walcast", b""),
            message(1, b"other", b"catalog"),
        ] {
            assert!(matches!(assembler.push(&other), Ok(Step::More)));
        }
    }

    #[test]
    fn a_message_outside_a_transaction_leads_to_nothing() {
        let result = Assembler::new(PART_BYTES, None).push(b"M\0\0\0\0\0\0\0\0\x01p\0\0\0\0\0");
        assert!(matches!(result, Ok(Step::More)));
    }
}

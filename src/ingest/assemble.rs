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
//! - Nothing of a transaction leaves before its Commit.

use std::collections::HashMap;
use std::sync::Arc;

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

/// Makes transactions of one connection's messages.
#[derive(Debug, Default)]
pub struct Assembler {
    relations: HashMap<RelationId, Arc<Relation>>,
    open: Option<TransactionBuilder>,
}

/// What a message led to.
#[derive(Debug)]
pub enum Step {
    /// Nothing yet.
    More,
    /// A table's shape was announced. Whatever comes next may need it: it must be resolved and
    /// given to [`Assembler::learn`] before the next message is pushed.
    Resolve(RelationDescription),
    /// A transaction is complete.
    Committed(Transaction),
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
    /// The transaction can't be held.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl Assembler {
    /// An assembler for a new connection.
    #[must_use]
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The memory that the open transaction holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, TransactionBuilder::bytes)
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
                self.change("Insert", relation, ChangeKind::Insert { new })
            }
            Message::Update { relation, old, new } => {
                self.change("Update", relation, ChangeKind::Update { old, new })
            }
            Message::Delete { relation, old } => {
                self.change("Delete", relation, ChangeKind::Delete { old })
            }
            Message::Truncate { relations } => {
                for relation in relations.iter() {
                    self.change("Truncate", relation, ChangeKind::Truncate)?;
                }
                Ok(Step::More)
            }
            Message::Begin { commit_lsn, committed_at, xid } => {
                if let Some(open) = &self.open {
                    return Err(AssembleError::Nested { commit_lsn: open.commit_lsn() });
                }
                self.open = Some(TransactionBuilder::new(xid, commit_lsn, committed_at));
                Ok(Step::More)
            }
            Message::Commit { commit_lsn, end_lsn, .. } => self.commit(commit_lsn, end_lsn),
            Message::Relation(description) => Ok(Step::Resolve(description)),
            Message::Type { .. } | Message::Origin { .. } | Message::Logical { .. } => {
                Ok(Step::More)
            }
        }
    }

    fn change(
        &mut self,
        message: &'static str,
        relation: RelationId,
        change: ChangeKind<'_>,
    ) -> Result<Step, AssembleError> {
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
        Ok(Step::More)
    }

    fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<Step, AssembleError> {
        let open = self.open.take().ok_or(AssembleError::Outside { message: "Commit" })?;
        if open.commit_lsn() != commit_lsn {
            let expected = open.commit_lsn();
            return Err(AssembleError::OtherCommit { expected, found: commit_lsn });
        }
        Ok(Step::Committed(open.commit(end_lsn)))
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
        let mut assembler = Assembler::new();
        assembler.learn(relation);
        assembler
    }

    #[test]
    fn nothing_leaves_before_commit() {
        let mut assembler = knowing(table(1, 1));
        for payload in [BEGIN, INSERT, INSERT] {
            assert!(matches!(assembler.push(payload), Ok(Step::More)));
        }
        assert!(assembler.is_open());
        let Ok(Step::Committed(transaction)) = assembler.push(COMMIT) else { panic!() };
        assert_eq!((transaction.len(), transaction.end_lsn), (2, Lsn::new(0x20)));
        assert!(!assembler.is_open());
    }

    #[test]
    fn a_shape_announced_in_mid_transaction_holds_from_there_on() {
        let mut assembler = knowing(table(1, 1));
        assembler.push(BEGIN).unwrap();
        assembler.push(INSERT).unwrap();
        assembler.learn(table(2, 2));
        assembler.push(b"I\0\0\0\x01N\0\x02nn").unwrap();
        let Ok(Step::Committed(transaction)) = assembler.push(COMMIT) else { panic!() };
        let versions: Vec<_> =
            transaction.changes().map(|change| change.relation.version).collect();
        assert_eq!(versions, [1, 2]);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let result = Assembler::new().push(INSERT).unwrap_err();
        assert_eq!(result, AssembleError::Outside { message: "Insert" });

        let mut assembler = Assembler::new();
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(INSERT).unwrap_err();
        assert_eq!(result, AssembleError::UnknownRelation { relation: RelationId(1) });

        let mut assembler = knowing(table(1, 2));
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(INSERT).unwrap_err();
        assert!(matches!(result, AssembleError::ColumnCount { expected: 2, found: 1, .. }));

        let mut assembler = Assembler::new();
        assembler.push(BEGIN).unwrap();
        let result = assembler.push(BEGIN).unwrap_err();
        assert_eq!(result, AssembleError::Nested { commit_lsn: Lsn::new(0x10) });
    }

    #[test]
    fn a_message_outside_a_transaction_leads_to_nothing() {
        let result = Assembler::new().push(b"M\0\0\0\0\0\0\0\0\x01p\0\0\0\0\0");
        assert!(matches!(result, Ok(Step::More)));
    }
}

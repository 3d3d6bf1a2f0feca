//! A table, as it was when a change to it was made.

use std::sync::Arc;

use crate::change::id::{RelationId, TypeId};
use crate::change::types::{Collation, Type};

/// A table's shape as a `Relation` message of the stream describes it, types unresolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationDescription {
    /// The table's OID; of the partitioned root where the publication says so.
    pub id: RelationId,
    /// The schema's name, unquoted. (The stream sends an empty text for `pg_catalog`; it is
    /// filled in by the decoder.)
    pub schema: Box<str>,
    /// The table's name, unquoted.
    pub name: Box<str>,
    /// Which old values the stream carries.
    pub identity: ReplicaIdentity,
    /// The published columns, in the order of every tuple that follows.
    pub columns: Vec<ColumnDescription>,
}

/// One column of a [`RelationDescription`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Its name, unquoted.
    pub name: Box<str>,
    /// Its type's OID (a domain's own, not its base type's).
    pub type_id: TypeId,
    /// `pg_attribute.atttypmod`.
    pub modifier: i32,
    /// Whether it belongs to the replica identity; with [`ReplicaIdentity::Full`] all do.
    pub in_identity: bool,
}

/// `pg_class.relreplident`: which old values an UPDATE and a DELETE carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key (`d`); nothing where the table has none.
    Default,
    /// The whole old row (`f`).
    Full,
    /// The columns of a chosen unique index (`i`).
    Index,
    /// Nothing (`n`).
    Nothing,
}

/// A table with its types resolved: what tuples are read with, and rules are bound to.
///
/// Immutable. DDL makes a new one with another [`version`](Relation::version); changes made before
/// it keep the old one.
#[derive(Clone, Debug)]
pub struct Relation {
    /// The table's OID.
    pub id: RelationId,
    /// Different for every shape that a table has had in this process, and never used twice.
    pub version: u64,
    /// The schema's name, unquoted.
    pub schema: Box<str>,
    /// The table's name, unquoted.
    pub name: Box<str>,
    /// Which old values the stream carries.
    pub identity: ReplicaIdentity,
    /// The columns, in the order of every tuple.
    pub columns: Vec<Column>,
    /// The positions in [`columns`](Relation::columns) of the key that clients tell rows apart by:
    /// the primary key, in the key's order, or, where the replica identity is another index, that
    /// one's columns, because old rows come with these alone. Empty where the table has none or it
    /// is not published whole.
    pub primary_key: Vec<usize>,
}

/// One column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, unquoted.
    pub name: Box<str>,
    /// Its resolved type.
    pub of: Arc<Type>,
    /// `pg_attribute.atttypmod`.
    pub modifier: i32,
    /// How its texts compare.
    pub collation: Collation,
    /// Whether it belongs to the replica identity.
    pub in_identity: bool,
}

impl Relation {
    /// The position of the column called `name` (unquoted, exact).
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| &*column.name == name)
    }
}

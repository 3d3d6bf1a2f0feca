//! The tables that policies may read, and what guards their own rows, as binding wants to know it.
//! The catalogue knows it.

use std::fmt;

use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::rule::error::RuleError;
use crate::rule::policy::Kind;
use crate::rule::policy::Policy;

/// All tables that are known.
pub trait Tables: fmt::Debug {
    /// The table of this name, unquoted and exact.
    fn named(&self, schema: &str, name: &str) -> Option<&dyn Guarded>;

    /// The table of this OID.
    fn by_id(&self, id: RelationId) -> Option<&dyn Guarded>;
}

/// A table, and who may see what of it.
pub trait Guarded: fmt::Debug {
    /// Its shape, as the stream has it.
    fn relation(&self) -> &Relation;

    /// Columns that it has, and that the stream does not carry.
    fn unpublished(&self) -> &[Box<str>];

    /// Why its rows can't be known from the stream; absent where they can.
    fn unheld(&self) -> Option<Unheld>;

    /// Which of its columns a role may select, by position; absent where none.
    fn granted(&self, role: &str) -> Option<&[bool]>;

    /// The policies that concern a role; absent where the role sees every row.
    fn guards<'a>(&'a self, role: &str) -> Option<Vec<Guard<'a>>>;
}

/// Why the rows of a table are not known from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheld {
    /// The publication does not have it.
    Unpublished,
    /// The publication has only some of its rows, or of the changes to them.
    Filtered,
    /// Its rows are in other tables, too.
    Partitioned,
}

/// A policy of a table.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// What it says, or why that is not decided here.
    pub read: &'a Result<Policy, RuleError>,
    /// How it goes together with others.
    pub kind: Kind,
    /// The tables (`pg_class.oid`) that it reads, those that its functions read not included.
    pub reads: &'a [u32],
}

impl Guard<'_> {
    /// Whether it admits every row, and PostgreSQL sees that before it looks at any other of its
    /// kind.
    pub(in crate::rule) fn is_open(&self) -> bool {
        self.kind == Kind::Permissive && self.read.as_ref().is_ok_and(Policy::is_true)
    }
}

/// No table is known beside the one that is judged.
#[derive(Clone, Copy, Debug)]
pub struct NoTables;

impl Tables for NoTables {
    fn named(&self, _: &str, _: &str) -> Option<&dyn Guarded> {
        None
    }

    fn by_id(&self, _: RelationId) -> Option<&dyn Guarded> {
        None
    }
}

//! Numbers that PostgreSQL gives to things. Each has a type of its own, because all are 32 bits
//! wide and a mistake between them would compile.

use std::fmt;

/// A table's OID (`pg_class.oid`): the same through renames and every other `ALTER TABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// A type's OID (`pg_type.oid`). Below 16,384 it is the same on every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// A top-level transaction's number, 32 bits wide as the stream sends it: it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xid(pub u32);

impl Xid {
    /// The one that was given out later, where they are less than half a round apart.
    #[must_use]
    pub const fn later(self, other: Xid) -> Xid {
        if self.0.wrapping_sub(other.0) < 1 << 31 { self } else { other }
    }
}

impl fmt::Display for RelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

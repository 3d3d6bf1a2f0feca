//! What the values of a column are, as far as delivery and rules need to know it.

use std::sync::Arc;

use crate::change::id::TypeId;

/// A column's type, resolved: a domain has the [`Kind`] of its base type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// `pg_type.oid`; of the domain itself where the column is of a domain.
    pub id: TypeId,
    /// `pg_type.typname` (`int8`, `_text`, `order_status`).
    pub name: Box<str>,
    /// How its values are written and compared.
    pub kind: Kind,
}

/// How the values of a type are written and compared.
///
/// Only what differs somewhere in the daemon is told apart; every other type is [`Kind::Other`],
/// whose values are delivered as PostgreSQL prints them and are opaque to rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`: `t` or `f` on the wire.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `float4`, with `NaN` and `Infinity`.
    Float4,
    /// `float8`, with `NaN` and `Infinity`.
    Float8,
    /// `numeric`, of any precision, with `NaN` and `Infinity`.
    Numeric,
    /// `oid`: unsigned 32 bits.
    Oid,
    /// `text` and `varchar`.
    Text,
    /// `bpchar`, that is `char(n)`: padded on the wire, compared without trailing blanks.
    Bpchar,
    /// `name`.
    Name,
    /// `"char"`: one byte.
    Char,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timetz`.
    TimeTz,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`, on the wire in UTC.
    TimestampTz,
    /// `interval`.
    Interval,
    /// `json`: text that is kept as it was written.
    Json,
    /// `jsonb`.
    Jsonb,
    /// `bytea`, on the wire as `\x` and hexadecimal digits.
    Bytea,
    /// An enum with its labels in sort order (`pg_enum.enumsortorder`, not alphabetical).
    Enum(Arc<[Box<str>]>),
    /// An array, also of more than one dimension.
    Array {
        /// The type of the elements.
        element: Arc<Type>,
        /// What stands between two elements in the text form: a comma, but `;` for `box`, and a
        /// blank for the built-in `int2vector` and `oidvector`, whose form has no braces either.
        delimiter: u8,
    },
    /// A row type, with its attributes in order.
    Composite(Arc<[Attribute]>),
    /// A type that is not built in and has a cast to `json`, which `to_jsonb` would use. Of these
    /// only `hstore` is known here; every other one is written as text.
    JsonCast,
    /// Every other type.
    Other,
}

/// One attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: Box<str>,
    /// Its type.
    pub of: Arc<Type>,
}

/// How texts of a column compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// The type has no collation.
    None,
    /// `C` or `POSIX`: every comparison is by bytes.
    Bytes,
    /// Equality is by bytes, order is the locale's: it can't be decided here.
    Locale,
    /// A non-deterministic ICU collation: not even equality is by bytes.
    Nondeterministic,
}

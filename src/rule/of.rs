//! The types that rules know, and how they go together.

use std::fmt;
use std::fmt::Display;
use std::sync::Arc;

use crate::change::types::Kind;
use crate::change::types::Type;
use crate::rule::value::Read;

/// OIDs of `pg_type` that the [`Kind`] does not tell apart.
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;

/// A type of the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rule) enum Of {
    /// A quoted constant or NULL whose type its place decides.
    Unknown,
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Oid,
    Text,
    Varchar,
    Bpchar,
    Name,
    Uuid,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// Only of what a policy computes of the claims: columns of it are opaque.
    Json,
    Jsonb,
    Bytea,
    Enum(Arc<Type>),
    Array(Arc<Of>),
}

impl Of {
    /// The type of a column; `None` for those whose values are opaque here.
    pub(in crate::rule) fn column(of: &Arc<Type>) -> Option<Of> {
        Some(match &of.kind {
            Kind::Bool => Of::Bool,
            Kind::Int2 => Of::Int2,
            Kind::Int4 => Of::Int4,
            Kind::Int8 => Of::Int8,
            Kind::Float4 => Of::Float4,
            Kind::Float8 => Of::Float8,
            Kind::Numeric => Of::Numeric,
            Kind::Oid => Of::Oid,
            Kind::Text => {
                if of.id.0 == VARCHAR {
                    Of::Varchar
                } else {
                    Of::Text
                }
            }
            Kind::Bpchar => Of::Bpchar,
            Kind::Name => Of::Name,
            Kind::Uuid => Of::Uuid,
            Kind::Date => Of::Date,
            Kind::Time => Of::Time,
            Kind::TimeTz => Of::TimeTz,
            Kind::Timestamp => Of::Timestamp,
            Kind::TimestampTz => Of::TimestampTz,
            Kind::Interval => Of::Interval,
            Kind::Jsonb => Of::Jsonb,
            Kind::Bytea => Of::Bytea,
            Kind::Enum(_) => Of::Enum(Arc::clone(of)),
            Kind::Array { element, delimiter: b',' } => Of::Array(Arc::new(Of::element(element)?)),
            Kind::Array { .. }
            | Kind::Char
            | Kind::Json
            | Kind::Composite(_)
            | Kind::JsonCast
            | Kind::Other => return None,
        })
    }

    /// An array's element. Operators of arrays want the same type on both sides, so one that cannot
    /// be told from another (a domain) is refused; `bpchar` compares unlike its text.
    fn element(of: &Arc<Type>) -> Option<Of> {
        let element = Of::column(of)?;
        match (&element, of.id.0) {
            (Of::Text, TEXT) | (Of::Varchar, VARCHAR) => Some(element),
            (Of::Text | Of::Varchar | Of::Bpchar | Of::Array(_), _) => None,
            _ if element.name() == &*of.name => Some(element),
            _ => None,
        }
    }

    /// The type that SQL calls `name` (already without synonyms), but for enums.
    pub(in crate::rule) fn named(name: &str) -> Option<Of> {
        if let Some(element) = name.strip_suffix("[]") {
            return Of::named(element).map(|element| Of::Array(Arc::new(element)));
        }
        let all = [
            Of::Bool,
            Of::Int2,
            Of::Int4,
            Of::Int8,
            Of::Float4,
            Of::Float8,
            Of::Numeric,
            Of::Oid,
            Of::Text,
            Of::Varchar,
            Of::Name,
            Of::Uuid,
            Of::Date,
            Of::Time,
            Of::TimeTz,
            Of::Timestamp,
            Of::TimestampTz,
            Of::Interval,
            Of::Jsonb,
            Of::Bytea,
        ];
        all.into_iter().find(|of| of.name() == name)
    }

    /// `pg_type.typname`.
    pub(in crate::rule) fn name(&self) -> &str {
        match self {
            Of::Unknown => "unknown",
            Of::Bool => "bool",
            Of::Int2 => "int2",
            Of::Int4 => "int4",
            Of::Int8 => "int8",
            Of::Float4 => "float4",
            Of::Float8 => "float8",
            Of::Numeric => "numeric",
            Of::Oid => "oid",
            Of::Text => "text",
            Of::Varchar => "varchar",
            Of::Bpchar => "bpchar",
            Of::Name => "name",
            Of::Uuid => "uuid",
            Of::Date => "date",
            Of::Time => "time",
            Of::TimeTz => "timetz",
            Of::Timestamp => "timestamp",
            Of::TimestampTz => "timestamptz",
            Of::Interval => "interval",
            Of::Json => "json",
            Of::Jsonb => "jsonb",
            Of::Bytea => "bytea",
            Of::Enum(of) => &of.name,
            Of::Array(_) => "array",
        }
    }

    /// `pg_type.oid`; absent where it is not the same in every database.
    pub(in crate::rule) fn oid(&self) -> Option<u32> {
        Some(match self {
            Of::Bool => 16,
            Of::Int2 => 21,
            Of::Int4 => 23,
            Of::Int8 => 20,
            Of::Float4 => 700,
            Of::Float8 => 701,
            Of::Numeric => 1700,
            Of::Oid => 26,
            Of::Text => TEXT,
            Of::Varchar => VARCHAR,
            Of::Bpchar => 1042,
            Of::Name => 19,
            Of::Uuid => 2950,
            Of::Date => 1082,
            Of::Time => 1083,
            Of::TimeTz => 1266,
            Of::Timestamp => 1114,
            Of::TimestampTz => 1184,
            Of::Interval => 1186,
            Of::Json => 114,
            Of::Jsonb => 3802,
            Of::Bytea => 17,
            Of::Enum(of) => of.id.0,
            Of::Array(element) => match **element {
                Of::Bool => 1000,
                Of::Int2 => 1005,
                Of::Int4 => 1007,
                Of::Int8 => 1016,
                Of::Text => 1009,
                Of::Varchar => 1015,
                Of::Uuid => 2951,
                Of::Numeric => 1231,
                Of::Date => 1182,
                _ => return None,
            },
            Of::Unknown => return None,
        })
    }

    /// How values of the type are read from what PostgreSQL prints.
    pub(in crate::rule) fn read(&self) -> Read {
        match self {
            Of::Bool => Read::Bool,
            Of::Int2 | Of::Int4 | Of::Int8 | Of::Oid => Read::Int,
            Of::Float4 => Read::Float4,
            Of::Float8 => Read::Float8,
            Of::Numeric => Read::Numeric,
            Of::Bpchar => Read::Trimmed,
            Of::Unknown
            | Of::Text
            | Of::Varchar
            | Of::Name
            | Of::Uuid
            | Of::Bytea
            | Of::Enum(_) => Read::Text,
            Of::Date => Read::Day,
            Of::Timestamp | Of::TimestampTz => Read::Moment,
            Of::Time => Read::Clock,
            Of::TimeTz => Read::Zoned,
            Of::Interval => Read::Span,
            Of::Json | Of::Jsonb => Read::Json,
            Of::Array(element) => Read::Array(Box::new(element.read())),
        }
    }

    pub(in crate::rule) const fn is_integer(&self) -> bool {
        matches!(self, Of::Int2 | Of::Int4 | Of::Int8)
    }

    pub(in crate::rule) const fn is_float(&self) -> bool {
        matches!(self, Of::Float4 | Of::Float8)
    }

    pub(in crate::rule) const fn is_number(&self) -> bool {
        self.is_integer() || self.is_float() || matches!(self, Of::Numeric)
    }

    /// Text of any kind, `bpchar` and `name` included.
    pub(in crate::rule) const fn is_text(&self) -> bool {
        matches!(self, Of::Text | Of::Varchar | Of::Bpchar | Of::Name)
    }

    pub(in crate::rule) const fn is_moment(&self) -> bool {
        matches!(self, Of::Date | Of::Timestamp | Of::TimestampTz)
    }

    /// Whether two texts of the type on the wire are the same exactly when the values are equal.
    pub(in crate::rule) const fn is_canonical(&self) -> bool {
        matches!(
            self,
            Of::Bool
                | Of::Int2
                | Of::Int4
                | Of::Int8
                | Of::Oid
                | Of::Text
                | Of::Varchar
                | Of::Name
                | Of::Uuid
                | Of::Bytea
                | Of::Enum(_)
                | Of::Date
        )
    }
}

impl Display for Of {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Of::Array(element) => write!(out, "{element}[]"),
            other => out.write_str(other.name()),
        }
    }
}

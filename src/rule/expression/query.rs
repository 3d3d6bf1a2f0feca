//! What only the policies of a database have in them: queries over other tables, and calls of
//! functions.

use crate::rule::expression::Comparison;
use crate::rule::expression::Node;

/// A call of a function of the database, and what the function does.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) struct Inlined {
    pub(in crate::rule) name: Box<str>,
    pub(in crate::rule) parameters: Box<[Parameter]>,
    pub(in crate::rule) arguments: Vec<Node>,
    pub(in crate::rule) body: Node,
    pub(in crate::rule) result: Parameter,
    /// Whether it is NULL where an argument is.
    pub(in crate::rule) is_strict: bool,
    /// Whether a name that is a column's and a parameter's is the column's; else it is an error.
    pub(in crate::rule) columns_first: bool,
    /// With whose rights it runs, where these are not the caller's.
    pub(in crate::rule) owner: Option<Box<str>>,
    /// Who may call it.
    pub(in crate::rule) callers: Box<[Box<str>]>,
}

/// What a function takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rule) struct Parameter {
    pub(in crate::rule) name: Box<str>,
    /// `pg_type.oid`, and the name by which is cast to the type, where it has one.
    pub(in crate::rule) of: u32,
    pub(in crate::rule) type_name: Option<Box<str>>,
}

/// What is asked of the rows of a query.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) enum Asked {
    /// Whether there are any.
    Exists,
    /// `operand op ANY (…)`, or ALL.
    Quantified { op: Comparison, all: bool, operand: Box<Node> },
    /// Their only value.
    Value,
}

/// A query: tables that are joined, a condition, and what is selected.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) struct Query {
    pub(in crate::rule) from: Vec<From>,
    pub(in crate::rule) condition: Node,
    pub(in crate::rule) outputs: Vec<Node>,
    /// `LIMIT 1`.
    pub(in crate::rule) limited: bool,
}

/// A table of a query, and the name that it has in it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) struct From {
    pub(in crate::rule) schema: Option<Box<str>>,
    pub(in crate::rule) table: Box<str>,
    pub(in crate::rule) alias: Box<str>,
}

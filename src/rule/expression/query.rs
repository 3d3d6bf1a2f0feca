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
    /// The variables of the body, in the order in which they get their values.
    pub(in crate::rule) locals: Vec<(Box<str>, Node)>,
    pub(in crate::rule) body: Node,
    pub(in crate::rule) returns: Returns,
    /// Whether it is NULL where an argument is.
    pub(in crate::rule) is_strict: bool,
    /// Whether a name that is a column's and a parameter's is the column's; else it is an error.
    pub(in crate::rule) columns_first: bool,
    /// With whose rights it runs, where these are not the caller's.
    pub(in crate::rule) owner: Option<Box<str>>,
    /// Who may call it.
    pub(in crate::rule) callers: Box<[Box<str>]>,
}

/// What comes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rule) enum Returns {
    /// One value.
    Value(Parameter),
    /// Rows, with these columns.
    Rows(Box<[Parameter]>),
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
    /// `operand op ANY (…)`, or ALL. `or_null`: where there are no rows, it is NULL.
    Quantified { op: Comparison, all: bool, operand: Box<Node>, or_null: bool },
    /// `(…, …) IN (…)`: each is compared with the output in its place.
    Row { operands: Vec<Node> },
    /// Their only value.
    Value,
    /// An array of their values. `or_null`: where there are no rows, it is NULL, not empty.
    Array { or_null: bool },
    /// How many there are; where a value is selected, without those where it is NULL.
    Count,
}

/// A query: what is joined, a condition, and what is selected.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) struct Query {
    pub(in crate::rule) from: Vec<From>,
    pub(in crate::rule) condition: Node,
    pub(in crate::rule) outputs: Vec<Node>,
    /// `LIMIT 1`.
    pub(in crate::rule) limited: bool,
    /// `DISTINCT`, which matters only to who counts.
    pub(in crate::rule) distinct: bool,
}

/// What a query reads, and the name that it has in it.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) struct From {
    pub(in crate::rule) what: Origin,
    pub(in crate::rule) alias: Box<str>,
}

/// What rows come from.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) enum Origin {
    Table {
        schema: Option<Box<str>>,
        table: Box<str>,
    },
    /// A call of a function, with the names that its columns have here; none where they have their
    /// own.
    Call {
        call: Node,
        columns: Vec<Box<str>>,
    },
}

impl Default for Query {
    /// One row of nothing.
    fn default() -> Query {
        let (from, outputs) = (Vec::new(), Vec::new());
        Query { from, condition: Node::All(Vec::new()), outputs, limited: false, distinct: false }
    }
}

impl Returns {
    /// The names of its columns, where it is read by the name `alias`.
    pub(in crate::rule) fn columns<'a>(&'a self, alias: &'a str) -> Option<Vec<&'a str>> {
        match self {
            Returns::Value(_) => None,
            Returns::Rows(columns) => {
                let name = |it: &'a Parameter| if it.name.is_empty() { alias } else { &*it.name };
                Some(columns.iter().map(name).collect())
            }
        }
    }
}

impl From {
    /// The call whose rows it is.
    pub(in crate::rule) const fn call(&self) -> Option<&Node> {
        match &self.what {
            Origin::Table { .. } => None,
            Origin::Call { call, .. } => Some(call),
        }
    }
}

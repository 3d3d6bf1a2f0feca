//! What a rule says, before it is known which relation it is about.
//!
//! Both front ends ([`parse_where`](crate::rule::parse_where) and
//! [`parse_filter`](crate::rule::parse_filter)) make the same tree; `bind` gives it types. `Display`
//! writes a part of the tree as SQL, for messages.

mod print;
pub(in crate::rule) mod query;

use crate::rule::error::RuleError;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Inlined;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Query;

/// The bytes of a rule's text. Enough for a list of 400 uuids; a request is bounded anyway.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// How deep parentheses and operators may nest. Every walk over the tree recurses this far at most.
pub const DEPTH_MAX: usize = 48;
/// The elements of one IN list or array in SQL: what can be answered by one binary search per row.
pub const LIST_MAX: usize = 1000;
/// The elements of one `in.(…)` of a filter, as the clients that know this form expect it.
pub const FILTER_LIST_MAX: usize = 100;
/// The nodes of the tree: what one row image may cost.
pub const NODES_MAX: usize = 4000;

/// What stands between schema and name of a type in [`Node::Cast`]; and, in the name by which the
/// stored form of a policy speaks of a table, before what no name has: see
/// [`ROW`].
pub(in crate::rule) const QUALIFIED: char = '\0';

/// The name of the judged row's own table in the stored form of a policy.
pub(in crate::rule) const ROW: &str = "\0row";

/// A boolean expression over a row and claims, not yet bound to a relation.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub(in crate::rule) node: Node,
}

impl Expression {
    /// The parts that must all hold.
    #[must_use]
    pub fn clauses(&self) -> Vec<Expression> {
        let (mut clauses, mut open) = (Vec::new(), vec![&self.node]);
        while let Some(node) = open.pop() {
            match node {
                Node::All(nodes) if !nodes.is_empty() => open.extend(nodes.iter().rev()),
                node => clauses.push(Expression { node: node.clone() }),
            }
        }
        clauses
    }
}

impl std::fmt::Display for Expression {
    /// As SQL, to be read by people.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(out)
    }
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The binary operators that are not comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Operator {
    Add,
    Subtract,
    Multiply,
    Concat,
    Get,
    GetText,
    GetPath,
    GetPathText,
    Contains,
    ContainedBy,
    HasKey,
    HasAnyKey,
    HasAllKeys,
    Overlaps,
}

/// A function of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Function {
    Lower,
    Upper,
    Length,
    Coalesce,
    Nullif,
}

/// How a pattern is written and matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Pattern {
    Like,
    Ilike,
    Regex,
    RegexFold,
}

/// What `IS` asks of a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Known {
    True,
    False,
    Unknown,
}

/// One node of the tree. Negated forms are a `Not` around the plain one.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rule) enum Node {
    Column {
        qualifier: Option<Box<str>>,
        name: Box<str>,
    },
    Claims,
    Null,
    Boolean(bool),
    Number(Box<str>),
    Text(Box<str>),
    Cast {
        operand: Box<Node>,
        to: Box<str>,
    },
    Collate {
        operand: Box<Node>,
        collation: Box<str>,
    },
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
    Compare {
        op: Comparison,
        left: Box<Node>,
        right: Box<Node>,
    },
    Distinct {
        left: Box<Node>,
        right: Box<Node>,
    },
    IsNull(Box<Node>),
    Is {
        operand: Box<Node>,
        known: Known,
    },
    In {
        operand: Box<Node>,
        list: Vec<Node>,
    },
    Match {
        operand: Box<Node>,
        pattern: Box<Node>,
        how: Pattern,
    },
    Quantified {
        op: Comparison,
        left: Box<Node>,
        right: Box<Node>,
        all: bool,
    },
    Array(Vec<Node>),
    Binary {
        op: Operator,
        left: Box<Node>,
        right: Box<Node>,
    },
    Call {
        function: Function,
        arguments: Vec<Node>,
    },
    Case {
        operand: Option<Box<Node>>,
        arms: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    /// `current_setting(name)`. Only in policies of the database, like all that follow.
    Setting {
        name: Box<str>,
        missing_ok: bool,
    },
    /// `current_user`.
    CurrentUser,
    /// A function of the database; its body takes its place before it is bound. Without a schema
    /// where none is written.
    User {
        schema: Option<Box<str>>,
        name: Box<str>,
        arguments: Vec<Node>,
    },
    /// A function of the database with its body.
    Inlined(Box<Inlined>),
    /// A parameter of the function that this is the body of, by number, from 1.
    Parameter(usize),
    /// An operand that has this type (`pg_type.oid`), or the rule is refused.
    Exactly {
        operand: Box<Node>,
        of: u32,
    },
    /// All columns, of one table or of all. Only what a query selects.
    Star {
        qualifier: Option<Box<str>>,
    },
    /// A query over other tables.
    Subquery {
        asks: Asked,
        query: Box<Query>,
    },
}

impl Expression {
    /// Both must be true of a row.
    #[must_use]
    pub fn and(self, other: Expression) -> Expression {
        Expression { node: Node::All(vec![self.node, other.node]) }
    }

    /// The names of the columns that it reads, as often as it names them.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let mut open = vec![&self.node];
        std::iter::from_fn(move || {
            while let Some(node) = open.pop() {
                node.for_each_child(|child| open.push(child));
                if let Node::Column { name, .. } = node {
                    return Some(&**name);
                }
            }
            None
        })
    }

    /// Checks the bounds that hold for every rule, whichever front end made it.
    pub(in crate::rule) fn checked(node: Node) -> Result<Expression, RuleError> {
        let mut level = vec![&node];
        let mut nodes = 0;
        for _ in 0..DEPTH_MAX {
            if level.is_empty() {
                return Ok(Expression { node });
            }
            nodes += level.len();
            if nodes > NODES_MAX {
                return Err(RuleError::TooLarge { what: "its number of parts", limit: NODES_MAX });
            }
            let mut next = Vec::new();
            for node in level {
                node.for_each_child(|child| next.push(child));
            }
            level = next;
        }
        Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX })
    }
}

impl Node {
    pub(in crate::rule) fn compare(op: Comparison, left: Node, right: Node) -> Node {
        Node::Compare { op, left: Box::new(left), right: Box::new(right) }
    }

    pub(in crate::rule) fn not(self) -> Node {
        Node::Not(Box::new(self))
    }

    pub(in crate::rule) fn not_if(self, negated: bool) -> Node {
        if negated { self.not() } else { self }
    }

    /// Changes every node of the tree, from the leaves up.
    pub(in crate::rule) fn rewrite(
        &mut self,
        change: &mut dyn FnMut(&mut Node) -> Result<(), RuleError>,
    ) -> Result<(), RuleError> {
        let mut outcome = Ok(());
        self.for_each_child_mut(&mut |child| {
            if outcome.is_ok() {
                outcome = child.rewrite(change);
            }
        });
        outcome?;
        change(self)
    }

    fn for_each_child_mut(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        match self {
            Node::Column { .. }
            | Node::Claims
            | Node::Null
            | Node::Boolean(_)
            | Node::Number(_)
            | Node::Text(_)
            | Node::Setting { .. }
            | Node::CurrentUser
            | Node::Star { .. }
            | Node::Parameter(_) => {}
            Node::Cast { operand, .. }
            | Node::Collate { operand, .. }
            | Node::Not(operand)
            | Node::IsNull(operand)
            | Node::Is { operand, .. }
            | Node::Exactly { operand, .. } => visit(operand),
            Node::All(nodes)
            | Node::Any(nodes)
            | Node::Array(nodes)
            | Node::User { arguments: nodes, .. }
            | Node::Call { arguments: nodes, .. } => nodes.iter_mut().for_each(visit),
            Node::Inlined(inlined) => {
                inlined.arguments.iter_mut().for_each(&mut *visit);
                inlined.locals.iter_mut().for_each(|(_, value)| visit(value));
                visit(&mut inlined.body);
            }
            Node::Compare { left, right, .. }
            | Node::Distinct { left, right }
            | Node::Quantified { left, right, .. }
            | Node::Binary { left, right, .. }
            | Node::Match { operand: left, pattern: right, .. } => {
                visit(left);
                visit(right);
            }
            Node::In { operand, list } => {
                visit(operand);
                list.iter_mut().for_each(visit);
            }
            Node::Case { operand, arms, otherwise } => {
                operand.iter_mut().for_each(|node| visit(node));
                for (condition, result) in arms {
                    visit(condition);
                    visit(result);
                }
                otherwise.iter_mut().for_each(|node| visit(node));
            }
            Node::Subquery { asks, query } => {
                match asks {
                    Asked::Quantified { operand, .. } => visit(operand),
                    Asked::Row { operands } => operands.iter_mut().for_each(&mut *visit),
                    Asked::Exists | Asked::Value | Asked::Array { .. } | Asked::Count => {}
                }
                for from in &mut query.from {
                    if let Origin::Call { call, .. } = &mut from.what {
                        visit(call);
                    }
                }
                visit(&mut query.condition);
                query.outputs.iter_mut().for_each(visit);
            }
        }
    }

    /// Whether it is a call of a function of the database, cast or not.
    pub(in crate::rule) fn is_call(&self) -> bool {
        match self {
            Node::User { .. } => true,
            Node::Cast { operand, .. } | Node::Exactly { operand, .. } => operand.is_call(),
            _ => false,
        }
    }

    /// Whether some node of the tree is one that `wanted` tells.
    pub(in crate::rule) fn has(&self, wanted: &dyn Fn(&Node) -> bool) -> bool {
        let mut found = wanted(self);
        self.for_each_child(|child| found = found || child.has(wanted));
        found
    }

    pub(in crate::rule) fn for_each_child<'a>(&'a self, mut visit: impl FnMut(&'a Node)) {
        match self {
            Node::Column { .. }
            | Node::Claims
            | Node::Null
            | Node::Boolean(_)
            | Node::Number(_)
            | Node::Text(_)
            | Node::Setting { .. }
            | Node::CurrentUser
            | Node::Star { .. }
            | Node::Parameter(_) => {}
            Node::Cast { operand, .. }
            | Node::Collate { operand, .. }
            | Node::Not(operand)
            | Node::IsNull(operand)
            | Node::Is { operand, .. }
            | Node::Exactly { operand, .. } => visit(operand),
            Node::All(nodes) | Node::Any(nodes) | Node::Array(nodes) => {
                nodes.iter().for_each(visit);
            }
            Node::Call { arguments, .. } | Node::User { arguments, .. } => {
                arguments.iter().for_each(visit);
            }
            Node::Inlined(inlined) => {
                inlined.arguments.iter().for_each(&mut visit);
                inlined.locals.iter().for_each(|(_, value)| visit(value));
                visit(&inlined.body);
            }
            Node::Compare { left, right, .. }
            | Node::Distinct { left, right }
            | Node::Quantified { left, right, .. }
            | Node::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Node::Match { operand, pattern, .. } => {
                visit(operand);
                visit(pattern);
            }
            Node::In { operand, list } => {
                visit(operand);
                list.iter().for_each(visit);
            }
            Node::Case { operand, arms, otherwise } => {
                operand.iter().for_each(|node| visit(node));
                for (condition, result) in arms {
                    visit(condition);
                    visit(result);
                }
                otherwise.iter().for_each(|node| visit(node));
            }
            Node::Subquery { asks, query } => {
                match asks {
                    Asked::Quantified { operand, .. } => visit(operand),
                    Asked::Row { operands } => operands.iter().for_each(&mut visit),
                    Asked::Exists | Asked::Value | Asked::Array { .. } | Asked::Count => {}
                }
                query.from.iter().filter_map(From::call).for_each(&mut visit);
                visit(&query.condition);
                query.outputs.iter().for_each(visit);
            }
        }
    }
}

impl Operator {
    /// Whether the result may be out of range.
    pub(in crate::rule) const fn is_arithmetic(self) -> bool {
        matches!(self, Operator::Add | Operator::Subtract | Operator::Multiply)
    }
}

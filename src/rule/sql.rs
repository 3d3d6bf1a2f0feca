//! A rule written as SQL, so that Postgres can look for the rows that it admits.
//!
//! What is written is the tree that was parsed, never a client's text: names are quoted, constants
//! are literals, and what the claims come to is put in. Postgres is known to give the same answer
//! (that is what a rule is held to), but whoever uses the text still asks the rule of every row.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::change::relation::Relation;
use crate::rule::bind;
use crate::rule::expression::Expression;
use crate::rule::expression::Known;
use crate::rule::expression::Node;
use crate::rule::expression::Operator;
use crate::rule::of::Of;
use crate::rule::value::Value;

/// What of a rule could be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// True of every row that the rule admits; absent where there is nothing to write.
    pub sql: Option<String>,
    /// Whether it is true of no other row.
    pub whole: bool,
}

impl Expression {
    /// The expression as a condition over the relation's columns, with these claims put in. The
    /// session must have `standard_conforming_strings` on.
    ///
    /// What could raise for some row is left out: the error would tell of a row that the policy
    /// hides, and what is undecided for one row must not fail for all.
    #[must_use]
    pub fn to_sql(&self, relation: &Relation, claims: &Json) -> Condition {
        let mut arms = Vec::new();
        let mut open = vec![&self.node];
        while let Some(node) = open.pop() {
            match node {
                Node::All(nodes) => open.extend(nodes.iter().rev()),
                node => arms.push(node),
            }
        }
        let write = |node: &&Node| {
            let mut writer = Writer { relation, claims, out: String::new() };
            if may_raise(node) { None } else { writer.node(node).map(|()| writer.out) }
        };
        let written: Vec<String> = arms.iter().filter_map(write).collect();
        let whole = written.len() == arms.len();
        Condition { sql: (!written.is_empty()).then(|| written.join(" AND ")), whole }
    }
}

/// A name in double quotes.
#[must_use]
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes; `None` for one that Postgres can't hold.
#[must_use]
pub fn quoted_text(text: &str) -> Option<String> {
    (!text.contains('\0')).then(|| format!("'{}'", text.replace('\'', "''")))
}

struct Writer<'a> {
    relation: &'a Relation,
    claims: &'a Json,
    out: String,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> Option<()> {
        if let Some(constant) = self.constant(node) {
            self.out.push_str(&constant);
            return Some(());
        }
        match node {
            Node::Column { name, .. } => self.out.push_str(&quoted_name(name)),
            Node::Claims => {
                self.text(&self.claims.to_string())?;
                self.out.push_str("::pg_catalog.jsonb");
            }
            Node::Null => self.out.push_str("NULL"),
            Node::Boolean(value) => self.out.push_str(if *value { "TRUE" } else { "FALSE" }),
            // The sign of a negative one binds less tightly than a cast.
            Node::Number(text) => self.around(|it| it.push(text))?,
            Node::Text(text) => self.text(text)?,
            Node::Cast { operand, to } => self.cast(operand, to)?,
            Node::Collate { operand, collation } => self.around(|it| {
                it.node(operand)?;
                it.push(" COLLATE pg_catalog.")?;
                it.push(&quoted_name(collation))
            })?,
            Node::Not(operand) => self.around(|it| {
                it.push("NOT ")?;
                it.node(operand)
            })?,
            Node::All(nodes) if nodes.is_empty() => self.push("TRUE")?,
            Node::Any(nodes) if nodes.is_empty() => self.push("FALSE")?,
            Node::All(nodes) => self.around(|it| it.joined(nodes, " AND "))?,
            Node::Any(nodes) => self.around(|it| it.joined(nodes, " OR "))?,
            Node::Compare { op, left, right } => self.infix(left, &op.to_string(), right)?,
            Node::Distinct { left, right } => self.infix(left, "IS DISTINCT FROM", right)?,
            Node::Match { operand, pattern, how } => {
                self.infix(operand, &how.to_string(), pattern)?;
            }
            Node::Binary { op, left, right } => self.infix(left, &op.to_string(), right)?,
            _ => self.rarer(node)?,
        }
        Some(())
    }

    fn rarer(&mut self, node: &Node) -> Option<()> {
        match node {
            Node::IsNull(operand) => self.postfix(operand, " IS NULL"),
            Node::Is { operand, known: Known::True } => self.postfix(operand, " IS TRUE"),
            Node::Is { operand, known: Known::False } => self.postfix(operand, " IS FALSE"),
            Node::Is { operand, known: Known::Unknown } => self.postfix(operand, " IS UNKNOWN"),
            Node::In { operand, list } => self.around(|it| {
                it.node(operand)?;
                it.push(" IN (")?;
                it.joined(list, ", ")?;
                it.push(")")
            }),
            Node::Quantified { op, left, right, all } => self.around(|it| {
                it.node(left)?;
                it.push(&format!(" {op} {} (", if *all { "ALL" } else { "ANY" }))?;
                it.node(right)?;
                it.push(")")
            }),
            Node::Array(nodes) => {
                self.push("ARRAY[")?;
                self.joined(nodes, ", ")?;
                self.push("]")
            }
            Node::Call { function, arguments } => {
                self.push(&format!("{function}("))?;
                self.joined(arguments, ", ")?;
                self.push(")")
            }
            Node::Case { operand, arms, otherwise } => self.around(|it| {
                it.push("CASE ")?;
                operand.as_ref().map_or(Some(()), |operand| it.node(operand))?;
                for (condition, result) in arms {
                    it.push(" WHEN ")?;
                    it.node(condition)?;
                    it.push(" THEN ")?;
                    it.node(result)?;
                }
                if let Some(otherwise) = otherwise {
                    it.push(" ELSE ")?;
                    it.node(otherwise)?;
                }
                it.push(" END")
            }),
            _ => None,
        }
    }

    /// What a node comes to that reads claims and no column: so that only what a rule takes from
    /// the claims is in the text, and equal questions are equal texts.
    fn constant(&self, node: &Node) -> Option<String> {
        if !reads_claims_only(node) {
            return None;
        }
        let (value, of) = bind::constant(node, self.relation, self.claims)?;
        let of = match of {
            Of::Text | Of::Varchar | Of::Uuid | Of::Int2 | Of::Int4 | Of::Int8 | Of::Bool => of,
            _ => return None,
        };
        let literal = match value {
            None => "NULL".to_owned(),
            Some(Value::Text(text)) => quoted_text(std::str::from_utf8(&text).ok()?)?,
            Some(Value::Int(value)) => format!("'{value}'"),
            Some(Value::Bool(value)) => format!("'{value}'"),
            Some(_) => return None,
        };
        Some(format!("{literal}::pg_catalog.{}", quoted_name(of.name())))
    }

    fn cast(&mut self, operand: &Node, to: &str) -> Option<()> {
        let (element, array) = match to.strip_suffix("[]") {
            Some(element) => (element, "[]"),
            None => (to, ""),
        };
        if Of::named(element).is_none() {
            // An enum's schema is not known; a constant takes its type from its place.
            let Node::Text(text) = operand else { return None };
            return self.text(text);
        }
        self.push("CAST(")?;
        self.node(operand)?;
        self.push(&format!(" AS pg_catalog.{}{array})", quoted_name(element)))
    }

    fn infix(&mut self, left: &Node, op: &str, right: &Node) -> Option<()> {
        self.around(|it| {
            it.node(left)?;
            write!(it.out, " {op} ").ok()?;
            it.node(right)
        })
    }

    fn postfix(&mut self, operand: &Node, op: &str) -> Option<()> {
        self.around(|it| {
            it.node(operand)?;
            it.push(op)
        })
    }

    fn joined(&mut self, nodes: &[Node], between: &str) -> Option<()> {
        for (index, node) in nodes.iter().enumerate() {
            if index > 0 {
                self.out.push_str(between);
            }
            self.node(node)?;
        }
        Some(())
    }

    fn around(&mut self, inside: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.out.push('(');
        inside(self)?;
        self.out.push(')');
        Some(())
    }

    fn text(&mut self, text: &str) -> Option<()> {
        let literal = quoted_text(text)?;
        self.push(&literal)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands among others that can fail")]
    fn push(&mut self, text: &str) -> Option<()> {
        self.out.push_str(text);
        Some(())
    }
}

/// Whether the node's value can be an error for some row.
fn may_raise(node: &Node) -> bool {
    let here = match node {
        Node::Cast { to, .. } => !matches!(&**to, "text" | "varchar"),
        Node::Binary { op, .. } => {
            matches!(op, Operator::Add | Operator::Subtract | Operator::Multiply)
        }
        _ => false,
    };
    let mut raises = here && reads_column(node);
    node.for_each_child(|child| raises = raises || may_raise(child));
    raises
}

fn reads_column(node: &Node) -> bool {
    let mut found = matches!(node, Node::Column { .. });
    node.for_each_child(|child| found = found || reads_column(child));
    found
}

/// Whether a node reads claims, and no column.
fn reads_claims_only(node: &Node) -> bool {
    let mut claims = false;
    let mut open = vec![node];
    while let Some(node) = open.pop() {
        claims = claims || matches!(node, Node::Claims);
        node.for_each_child(|child| open.push(child));
    }
    claims && !reads_column(node)
}

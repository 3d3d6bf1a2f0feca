//! Parts of the tree as SQL, for messages. Not meant to be read again.

use std::fmt;
use std::fmt::Display;

use crate::rule::expression::Comparison;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::Operator;
use crate::rule::expression::Pattern;
use crate::rule::expression::QUALIFIED;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Query;

impl Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "<>",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Operator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Concat => "||",
            Operator::Get => "->",
            Operator::GetText => "->>",
            Operator::GetPath => "#>",
            Operator::GetPathText => "#>>",
            Operator::Contains => "@>",
            Operator::ContainedBy => "<@",
            Operator::HasKey => "?",
            Operator::HasAnyKey => "?|",
            Operator::HasAllKeys => "?&",
            Operator::Overlaps => "&&",
        })
    }
}

impl Display for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Length => "length",
            Function::Coalesce => "coalesce",
            Function::Nullif => "nullif",
        })
    }
}

impl Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Pattern::Like => "LIKE",
            Pattern::Ilike => "ILIKE",
            Pattern::Regex => "~",
            Pattern::RegexFold => "~*",
        })
    }
}

impl Display for Query {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SELECT {}", Joined(&self.outputs, ", "))?;
        for (index, From { what, alias }) in self.from.iter().enumerate() {
            out.write_str(if index == 0 { " FROM " } else { ", " })?;
            let alias = shown(alias);
            match what {
                Origin::Table { table, .. } if alias == &**table => out.write_str(alias)?,
                Origin::Table { table, .. } => write!(out, "{table} {alias}")?,
                Origin::Call { call, .. } => write!(out, "{call} {alias}")?,
            }
        }
        write!(out, " WHERE {}", self.condition)
    }
}

/// A table's name without what the stored form of a policy puts behind it.
fn shown(table: &str) -> &str {
    table.split(QUALIFIED).next().unwrap_or_default()
}

/// Shows a list of nodes with something between them.
struct Joined<'a>(&'a [Node], &'static str);

impl Display for Joined<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str(self.1)?;
            }
            write!(out, "{node}")?;
        }
        Ok(())
    }
}

impl Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Column { qualifier: Some(table), name } => match shown(table) {
                "" => out.write_str(name),
                table => write!(out, "{table}.{name}"),
            },
            Node::Column { qualifier: None, name } => out.write_str(name),
            Node::Claims => out.write_str("claims"),
            Node::Null => out.write_str("NULL"),
            Node::Boolean(value) => write!(out, "{value}"),
            Node::Number(text) => out.write_str(text),
            Node::Text(text) => write!(out, "'{text}'"),
            Node::Cast { operand, to } => write!(out, "({operand})::{to}"),
            Node::Collate { operand, collation } => {
                write!(out, "{operand} COLLATE \"{collation}\"")
            }
            Node::Not(operand) => write!(out, "NOT ({operand})"),
            Node::All(nodes) => write!(out, "({})", Joined(nodes, " AND ")),
            Node::Any(nodes) => write!(out, "({})", Joined(nodes, " OR ")),
            Node::Compare { op, left, right } => write!(out, "{left} {op} {right}"),
            Node::Distinct { left, right } => write!(out, "{left} IS DISTINCT FROM {right}"),
            Node::IsNull(operand) => write!(out, "{operand} IS NULL"),
            Node::Is { operand, known } => write!(out, "{operand} IS {known:?}"),
            Node::In { operand, list } => write!(out, "{operand} IN ({})", Joined(list, ", ")),
            Node::Match { operand, pattern, how } => write!(out, "{operand} {how} {pattern}"),
            Node::Quantified { op, left, right, all } => {
                write!(out, "{left} {op} {} ({right})", if *all { "ALL" } else { "ANY" })
            }
            Node::Array(nodes) => write!(out, "ARRAY[{}]", Joined(nodes, ", ")),
            Node::Binary { op, left, right } => write!(out, "{left} {op} {right}"),
            Node::Call { function, arguments } => {
                write!(out, "{function}({})", Joined(arguments, ", "))
            }
            Node::Case { .. } => out.write_str("CASE … END"),
            Node::Setting { name, .. } => write!(out, "current_setting('{name}')"),
            Node::CurrentUser => out.write_str("current_user"),
            Node::User { schema, name, arguments } => {
                if let Some(schema) = schema {
                    write!(out, "{schema}.")?;
                }
                write!(out, "{name}({})", Joined(arguments, ", "))
            }
            Node::Inlined(call) => write!(out, "{}({})", call.name, Joined(&call.arguments, ", ")),
            Node::Parameter(number) => write!(out, "${number}"),
            Node::Exactly { operand, .. } => write!(out, "{operand}"),
            Node::Star { .. } => out.write_str("*"),
            Node::Subquery { asks, query } => match asks {
                Asked::Exists => write!(out, "EXISTS ({query})"),
                Asked::Quantified { op, all, operand, .. } => {
                    write!(out, "{operand} {op} {} ({query})", if *all { "ALL" } else { "ANY" })
                }
                Asked::Row { operands } => write!(out, "({}) IN ({query})", Joined(operands, ", ")),
                Asked::Value | Asked::Count => write!(out, "({query})"),
                Asked::Array { .. } => write!(out, "ARRAY({query})"),
            },
        }
    }
}

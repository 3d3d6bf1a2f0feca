//! Queries over other tables, as the expressions of a database have them: tables that are joined, a
//! condition, and what is selected. What else a query can have is refused.

use sqlparser::ast::Distinct;
use sqlparser::ast::Expr;
use sqlparser::ast::JoinConstraint;
use sqlparser::ast::JoinOperator;
use sqlparser::ast::Query;
use sqlparser::ast::Select;
use sqlparser::ast::SelectItem;
use sqlparser::ast::SetExpr;
use sqlparser::ast::TableFactor;
use sqlparser::ast::TableWithJoins;

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Query as Asking;
use crate::rule::parse::convert::column;
use crate::rule::parse::convert::operand;

/// `EXISTS (SELECT …)`.
pub(super) fn exists(query: &Query, depth: usize) -> Result<Node, RuleError> {
    let (select, limited) = select(query)?;
    Ok(Node::Subquery { asks: Asked::Exists, query: asking(query, select, limited, depth)? })
}

/// `operand op ANY (SELECT …)`, or ALL.
pub(super) fn quantified(
    (op, all): (Comparison, bool),
    operand: Box<Node>,
    query: &Query,
    depth: usize,
) -> Result<Node, RuleError> {
    let (select, limited) = select(query)?;
    if select.from.is_empty() {
        return Ok(Node::compare(op, *operand, scalar(query, depth)?));
    }
    let asks = Asked::Quantified { op, all, operand };
    Ok(Node::Subquery { asks, query: asking(query, select, limited, depth)? })
}

/// `(SELECT …)`, which has one value. From nothing it is the expression itself.
pub(super) fn scalar(query: &Query, depth: usize) -> Result<Node, RuleError> {
    let (select, limited) = select(query)?;
    if !select.from.is_empty() {
        let query = asking(query, select, limited, depth)?;
        return Ok(Node::Subquery { asks: Asked::Value, query });
    }
    match select.projection.as_slice() {
        [item] if query.to_string() == format!("SELECT {item}") => output(item, depth),
        _ => Err(refused(query, "it selects one value from nothing, and does nothing else")),
    }
}

fn refused(query: &Query, reason: &str) -> RuleError {
    RuleError::unsupported(query, reason, "")
}

/// The one SELECT that the query is, and whether `LIMIT 1` stands behind it.
fn select(query: &Query) -> Result<(&Select, bool), RuleError> {
    let SetExpr::Select(select) = &*query.body else {
        return Err(refused(query, "only a plain SELECT is decided here"));
    };
    let limited = query.limit_clause.is_some();
    // Whatever else the query has would be printed, too.
    let whole = if limited { format!("{select} LIMIT 1") } else { select.to_string() };
    if query.to_string() != whole {
        return Err(refused(query, "only a plain SELECT is decided here"));
    }
    Ok((select, limited))
}

fn asking(
    query: &Query,
    select: &Select,
    limited: bool,
    depth: usize,
) -> Result<Box<Asking>, RuleError> {
    if depth > DEPTH_MAX {
        return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
    }
    check_nothing_else(query, select)?;
    let mut tables = Tables { query, depth, from: Vec::new(), conditions: Vec::new() };
    for item in &select.from {
        tables.item(item)?;
    }
    let Tables { from, mut conditions, .. } = tables;
    if let Some(condition) = &select.selection {
        conditions.push(operand(condition, 0, depth)?);
    }
    let outputs = select.projection.iter().map(|item| output(item, depth));
    let outputs = outputs.collect::<Result<_, _>>()?;
    Ok(Box::new(Asking { from, condition: Node::All(conditions), outputs, limited }))
}

/// Checks that the SELECT is made of a list, tables and a condition: written from these it must be
/// what the parser writes.
fn check_nothing_else(query: &Query, select: &Select) -> Result<(), RuleError> {
    let list = |items: Vec<String>| items.join(", ");
    let mut whole = String::from("SELECT");
    match &select.distinct {
        None => {}
        // Whether rows are told apart does not matter where all are looked at.
        Some(Distinct::Distinct) if query.limit_clause.is_none() => whole.push_str(" DISTINCT"),
        Some(_) => return Err(refused(query, "DISTINCT is not decided here")),
    }
    if !select.projection.is_empty() {
        whole.push(' ');
        whole.push_str(&list(select.projection.iter().map(ToString::to_string).collect()));
    }
    whole.push_str(" FROM ");
    whole.push_str(&list(select.from.iter().map(ToString::to_string).collect()));
    if let Some(condition) = &select.selection {
        whole.push_str(&format!(" WHERE {condition}"));
    }
    if select.from.is_empty() || select.to_string() != whole {
        let reason = "only tables, joins and a condition are decided here";
        return Err(refused(query, reason));
    }
    Ok(())
}

fn output(item: &SelectItem, depth: usize) -> Result<Node, RuleError> {
    match item {
        SelectItem::UnnamedExpr(tree) | SelectItem::ExprWithAlias { expr: tree, .. } => {
            operand(tree, 0, depth)
        }
        _ => Err(RuleError::unsupported(item, "expressions are selected, one by one", "")),
    }
}

/// The tables of a query, and the conditions of their joins.
struct Tables<'a> {
    query: &'a Query,
    depth: usize,
    from: Vec<From>,
    conditions: Vec<Node>,
}

impl Tables<'_> {
    fn item(&mut self, item: &TableWithJoins) -> Result<(), RuleError> {
        self.table(&item.relation)?;
        for join in &item.joins {
            self.table(&join.relation)?;
            match &join.join_operator {
                JoinOperator::Join(JoinConstraint::On(on))
                | JoinOperator::Inner(JoinConstraint::On(on))
                    if !join.global =>
                {
                    self.condition(on)?;
                }
                JoinOperator::CrossJoin(JoinConstraint::None) if !join.global => {}
                _ => return Err(refused(self.query, "only inner joins with ON are decided here")),
            }
        }
        Ok(())
    }

    fn condition(&mut self, on: &Expr) -> Result<(), RuleError> {
        self.conditions.push(operand(on, 0, self.depth)?);
        Ok(())
    }

    fn table(&mut self, factor: &TableFactor) -> Result<(), RuleError> {
        let other = || refused(self.query, "only tables, joins and a condition are decided here");
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.item(table_with_joins)
            }
            TableFactor::Table { name, alias, .. } => {
                let written = match alias {
                    Some(alias) => format!("{name} {alias}"),
                    None => name.to_string(),
                };
                if factor.to_string() != written {
                    return Err(other());
                }
                let parts: Option<Vec<_>> = name.0.iter().map(|part| part.as_ident()).collect();
                let (schema, table) = match parts.as_deref() {
                    Some([table]) => (None, column(table)?),
                    Some([schema, table]) => (Some(column(schema)?), column(table)?),
                    _ => return Err(other()),
                };
                let alias = match alias {
                    Some(alias) if alias.columns.is_empty() && alias.at.is_none() => {
                        column(&alias.name)?
                    }
                    Some(_) => return Err(other()),
                    None => table.clone(),
                };
                self.from.push(From { schema, table, alias });
                Ok(())
            }
            _ => Err(other()),
        }
    }
}

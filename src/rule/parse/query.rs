//! Queries over other tables, as the expressions of a database have them: tables that are joined, a
//! condition, and what is selected. What else a query can have is refused.

use sqlparser::ast::Distinct;
use sqlparser::ast::Expr;
use sqlparser::ast::Function as Call;
use sqlparser::ast::JoinConstraint;
use sqlparser::ast::JoinOperator;
use sqlparser::ast::Query;
use sqlparser::ast::Select;
use sqlparser::ast::SelectItem;
use sqlparser::ast::SelectItemQualifiedWildcardKind;
use sqlparser::ast::SetExpr;
use sqlparser::ast::TableAliasColumnDef;
use sqlparser::ast::TableFactor;
use sqlparser::ast::TableWithJoins;

use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Origin;
use crate::rule::expression::query::Query as Asking;
use crate::rule::parse::convert::column;
use crate::rule::parse::convert::one_name;
use crate::rule::parse::convert::operand;
use crate::rule::parse::precedence::BETWEEN;
use crate::rule::parse::stored;

/// `EXISTS (SELECT …)`.
pub(super) fn exists(query: &Query, depth: usize) -> Result<Node, RuleError> {
    asked(Asked::Exists, query, depth)
}

/// `operand op ANY (SELECT …)`, or ALL. From nothing it is a plain comparison.
pub(super) fn quantified(
    (op, all): (Comparison, bool),
    operand: Box<Node>,
    query: &Query,
    depth: usize,
) -> Result<Node, RuleError> {
    match alone(query, depth)? {
        Some(output) => Ok(Node::compare(op, *operand, output)),
        None => asked(Asked::Quantified { op, all, operand, or_null: false }, query, depth),
    }
}

/// `operand IN (SELECT …)`, or several operands as a row.
pub(super) fn among(tree: &Expr, query: &Query, depth: usize) -> Result<Node, RuleError> {
    let Expr::Tuple(trees) = tree else {
        let operand = Box::new(operand(tree, BETWEEN + 1, depth)?);
        return quantified((Comparison::Equal, false), operand, query, depth);
    };
    let operands = trees.iter().map(|tree| operand(tree, 0, depth));
    asked(Asked::Row { operands: operands.collect::<Result<_, _>>()? }, query, depth)
}

/// `(SELECT …)`, which has one value. From nothing it is the expression itself.
pub(super) fn scalar(query: &Query, depth: usize) -> Result<Node, RuleError> {
    if let Some(output) = alone(query, depth)? {
        return Ok(output);
    }
    match aggregated(query, depth)? {
        Some(node) => Ok(node),
        None => asked(Asked::Value, query, depth),
    }
}

/// `ARRAY(SELECT …)`.
pub(super) fn array(query: &Query, depth: usize) -> Result<Node, RuleError> {
    asked(Asked::Array { or_null: false }, query, depth)
}

/// What the query selects, where that is one value from nothing. Of a call it is not known here
/// whether it has one.
fn alone(query: &Query, depth: usize) -> Result<Option<Node>, RuleError> {
    let (select, _) = select(query)?;
    if !select.from.is_empty() {
        return Ok(None);
    }
    Ok(Some(from_nothing(query, select, depth)?).filter(|output| !output.is_call()))
}

fn from_nothing(query: &Query, select: &Select, depth: usize) -> Result<Node, RuleError> {
    match select.projection.as_slice() {
        [item] if query.to_string() == format!("SELECT {item}") => output(item, depth),
        _ => Err(refused(query, "it selects one value from nothing, and does nothing else")),
    }
}

fn asked(asks: Asked, query: &Query, depth: usize) -> Result<Node, RuleError> {
    let (select, limited) = select(query)?;
    let outputs = if select.from.is_empty() {
        vec![from_nothing(query, select, depth)?]
    } else {
        let outputs = select.projection.iter().map(|item| output(item, depth));
        outputs.collect::<Result<_, _>>()?
    };
    let query = Asking { outputs, limited, ..asking(query, select, depth)? };
    Ok(Node::Subquery { asks, query: Box::new(query) })
}

/// What a query that selects nothing but an aggregate comes to; perhaps with what stands for NULL.
fn aggregated(query: &Query, depth: usize) -> Result<Option<Node>, RuleError> {
    let SetExpr::Select(select) = &*query.body else { return Ok(None) };
    let [SelectItem::UnnamedExpr(tree) | SelectItem::ExprWithAlias { expr: tree, .. }] =
        select.projection.as_slice()
    else {
        return Ok(None);
    };
    let Expr::Function(call) = tree else { return Ok(None) };
    let arguments = stored::called_with(call, "coalesce");
    let Some([Expr::Function(call), otherwise]) = arguments.as_deref() else {
        return aggregate(query, call, depth);
    };
    let Some(node) = aggregate(query, call, depth)? else { return Ok(None) };
    let otherwise = operand(otherwise, 0, depth)?;
    if otherwise.has(&|node| matches!(node, Node::Column { .. } | Node::Subquery { .. })) {
        return Err(refused(query, "beside an aggregate, only constants are decided here"));
    }
    let (function, arguments) = (Function::Coalesce, vec![node, otherwise]);
    Ok(Some(Node::Call { function, arguments }))
}

fn aggregate(query: &Query, call: &Call, depth: usize) -> Result<Option<Node>, RuleError> {
    let counted = || stored::called_with(call, "count");
    let gathered = || stored::called_with(call, "array_agg");
    let (asks, outputs) = if stored::counts_rows(call) {
        (Asked::Count, Vec::new())
    } else if let Some([argument]) = counted().as_deref() {
        (Asked::Count, vec![operand(argument, 0, depth)?])
    } else if let Some([argument]) = gathered().as_deref() {
        (Asked::Array { or_null: true }, vec![operand(argument, 0, depth)?])
    } else {
        return Ok(None);
    };
    let (select, limited) = select(query)?;
    let query = Asking { outputs, limited, ..asking(query, select, depth)? };
    Ok(Some(Node::Subquery { asks, query: Box::new(query) }))
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

/// What is joined, and the condition.
fn asking(query: &Query, select: &Select, depth: usize) -> Result<Asking, RuleError> {
    if depth > DEPTH_MAX {
        return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
    }
    if select.from.is_empty() {
        return Ok(Asking::default());
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
    let (condition, distinct) = (Node::All(conditions), select.distinct.is_some());
    Ok(Asking { from, condition, distinct, ..Asking::default() })
}

/// Checks that the SELECT is made of a list, tables and a condition: written from these it must be
/// what the parser writes.
fn check_nothing_else(query: &Query, select: &Select) -> Result<(), RuleError> {
    let list = |items: Vec<String>| items.join(", ");
    let mut whole = String::from("SELECT");
    match &select.distinct {
        None => {}
        // Where all are looked at, it matters only to who counts them.
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
    if select.to_string() != whole {
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
        SelectItem::Wildcard(_) if item.to_string() == "*" => Ok(Node::Star { qualifier: None }),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _)
            if item.to_string() == format!("{name}.*") =>
        {
            let name = one_name(name).ok_or_else(|| {
                RuleError::unsupported(item, "the name of a table stands before a star", "")
            })?;
            Ok(Node::Star { qualifier: Some(column(name)?) })
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
            TableFactor::Table { name, alias, args, .. } => {
                let called = args.as_ref().map(|args| stored::call(name, &args.args, self.depth));
                let called = called.transpose()?;
                let mut written = name.to_string();
                if let Some((_, arguments)) = &called {
                    written.push_str(arguments);
                }
                if let Some(alias) = alias {
                    written.push_str(&format!(" {alias}"));
                }
                if factor.to_string() != written {
                    return Err(other());
                }
                let parts: Option<Vec<_>> = name.0.iter().map(|part| part.as_ident()).collect();
                let (schema, table) = match parts.as_deref() {
                    Some([table]) => (None, column(table)?),
                    Some([schema, table]) => (Some(column(schema)?), column(table)?),
                    _ => return Err(other()),
                };
                let (alias, columns) = match alias {
                    Some(alias) if alias.at.is_none() => {
                        (column(&alias.name)?, names(&alias.columns).ok_or_else(other)?)
                    }
                    Some(_) => return Err(other()),
                    None => (table.clone(), Vec::new()),
                };
                let what = match called {
                    Some((call, _)) => Origin::Call { call, columns },
                    None if columns.is_empty() => Origin::Table { schema, table },
                    None => return Err(other()),
                };
                self.from.push(From { what, alias });
                Ok(())
            }
            _ => Err(other()),
        }
    }
}

/// The names that a query gives columns, without types.
fn names(columns: &[TableAliasColumnDef]) -> Option<Vec<Box<str>>> {
    let name =
        |it: &TableAliasColumnDef| it.data_type.is_none().then(|| column(&it.name).ok()).flatten();
    columns.iter().map(name).collect()
}

//! Queries over other tables: sources, how their rows are found, and what is asked of them.
//!
//! Where FALSE and NULL come to the same, whatever is compared with the rows of a query becomes part
//! of its condition: so `x IN (SELECT y …)` finds its rows by `y`.

use std::sync::Arc;

use crate::rule::bind::ANYTHING;
use crate::rule::bind::Binder;
use crate::rule::bind::InPolicy;
use crate::rule::bind::Typed;
use crate::rule::bind::compare::comparison;
use crate::rule::bind::logic::junction;
use crate::rule::bind::names::Named;
use crate::rule::bind::names::Names;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Query;
use crate::rule::of::Of;
use crate::rule::policy::tables::Guarded;
use crate::rule::policy::tables::Unheld;
use crate::rule::subquery::Asks;
use crate::rule::subquery::Key;
use crate::rule::subquery::Lookup;
use crate::rule::subquery::Source;
use crate::rule::subquery::Subquery;
use crate::rule::term::Term;
use crate::rule::value::Read;

/// A table that a query reads.
struct Opened<'a> {
    named: Named<'a>,
    table: &'a dyn Guarded,
}

impl Binder<'_> {
    pub(in crate::rule::bind) fn subquery(
        &self,
        asks: &Asked,
        query: &Query,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let Some(policy) = self.policy else {
            return Err(RuleError::unsupported(token, "a rule reads one row and the claims", ""));
        };
        if query.from.is_empty() {
            return Err(RuleError::unsupported(token, "it reads no table", ""));
        }
        let mut opened = Vec::new();
        let mut height = policy.height;
        for from in &query.from {
            let table = policy.open(from, height)?;
            height += table.1;
            opened.push(table.0);
        }
        let tables = opened.iter().map(|opened| opened.named).collect();
        let names = Names { outer: Some(self.names), tables, frame: None };
        let policy = InPolicy { height, ..policy };
        let inside =
            Binder { names: &names, policy: Some(policy), is_positive: true, claims: self.claims };
        let mut arms = vec![inside.boolean(&query.condition)?];
        for Opened { named, table } in &opened {
            arms.push(inside.guarded(*table, *named)?);
        }
        let condition = junction(arms, false);
        let sources = || opened.iter().map(|opened| opened.source(policy)).collect();
        self.asked_of(asks, query, (&inside, sources, condition), token)
    }

    fn asked_of(
        &self,
        asks: &Asked,
        query: &Query,
        (inside, sources, condition): (&Binder<'_>, impl Fn() -> Vec<Source>, Term),
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let plain = Binder { is_positive: false, ..*inside };
        let output = || match query.outputs.as_slice() {
            [output] => Ok(output),
            _ => Err(RuleError::unsupported(token, "it selects several values", "")),
        };
        match asks {
            Asked::Exists => {
                for output in &query.outputs {
                    inside.may_select(output)?;
                }
                Ok(Typed::new(exists(sources(), condition), Of::Bool))
            }
            Asked::Quantified { op, all, operand } => {
                if query.limited {
                    return Err(RuleError::unsupported(token, "a limit takes rows away", ""));
                }
                let output = output()?;
                let outside = Binder { is_positive: false, ..*self };
                let sides = (outside.node(operand)?, plain.node(output)?);
                let (left, right) = plain.align(*op, sides, (operand, output), token)?;
                let term = if self.is_positive && !all {
                    exists(
                        sources(),
                        junction(vec![condition, comparison(*op, left, right)], false),
                    )
                } else {
                    let (operand, output) = (left.term, right.term);
                    let asks = Asks::Quantified { op: *op, all: *all, operand, output };
                    Term::Subquery(Arc::new(made(asks, sources(), condition)))
                };
                Ok(Typed::new(term, Of::Bool))
            }
            Asked::Value => {
                let output = plain.node(output()?)?;
                let asks = Asks::Value { output: output.term.clone() };
                let subquery = made(asks, sources(), condition);
                if !inside.is_single(&subquery) {
                    let reason = "it may have several rows, for which PostgreSQL raises an error";
                    let hint = "compare the whole primary key in it, or write EXISTS or IN";
                    return Err(RuleError::unsupported(token, reason, hint));
                }
                let term = if self.is_positive && output.of == Of::Bool {
                    narrowed(&subquery, output.term)
                } else {
                    Term::Subquery(Arc::new(subquery))
                };
                Ok(Typed { term, ..output })
            }
        }
    }

    /// Checks that what is selected, though nobody looks at it, may be selected.
    fn may_select(&self, node: &Node) -> Result<(), RuleError> {
        let mut outcome = match node {
            Node::Subquery { .. } | Node::User { .. } | Node::Inlined(_) => {
                Err(RuleError::unsupported(node, "EXISTS asks for rows, not for values", ""))
            }
            Node::Column { qualifier, name } => {
                let found = self.names.find(qualifier.as_deref(), name)?;
                found.table.check(found.position)
            }
            _ => Ok(()),
        };
        node.for_each_child(|child| {
            if outcome.is_ok() {
                outcome = self.may_select(child);
            }
        });
        outcome
    }

    /// Whether there is one row at most: all of a unique key is looked for.
    fn is_single(&self, subquery: &Subquery) -> bool {
        subquery.sources.iter().zip(&self.names.tables).all(|(source, named)| {
            let key = &named.relation.primary_key;
            let looked_for = |position: &usize| {
                let place = source.columns.iter().position(|column| column == position);
                source.lookups.iter().any(|lookup| Some(lookup.column) == place)
            };
            !key.is_empty() && key.iter().all(looked_for)
        })
    }

    /// Where one side is the value of a query, and it does not matter whether the comparison is false
    /// or NULL: whether the query has a row for which it is true.
    pub(in crate::rule::bind) fn of_its_row(
        op: Comparison,
        left: &Typed,
        right: &Typed,
    ) -> Option<Term> {
        let reads_others = |term: &Term| {
            let mut sources = Vec::new();
            term.sources(&mut sources);
            !sources.is_empty()
        };
        let value = |typed: &Typed| match &typed.term {
            Term::Subquery(subquery) => match &subquery.asks {
                Asks::Value { output } => {
                    let output = Typed { term: output.clone(), ..typed.clone() };
                    Some((Arc::clone(subquery), output))
                }
                _ => None,
            },
            _ => None,
        };
        match (value(left), value(right)) {
            (Some((subquery, output)), _) if !reads_others(&right.term) => {
                Some(narrowed(&subquery, comparison(op, output, right.clone())))
            }
            (_, Some((subquery, output))) if !reads_others(&left.term) => {
                Some(narrowed(&subquery, comparison(op, left.clone(), output)))
            }
            _ => None,
        }
    }
}

impl<'a> InPolicy<'a> {
    /// Finds a table and gives its cells a place in the stack; how many they are.
    fn open(self, from: &'a From, base: usize) -> Result<(Opened<'a>, usize), RuleError> {
        let other = |reason| RuleError::unsupported(&*from.table, reason, "");
        let Some(schema) = &from.schema else {
            return Err(other("which schema it is in is not certain"));
        };
        let table = self.tables.named(schema, &from.table);
        let table = table.ok_or_else(|| other("it is not known here, or no plain table"))?;
        match table.unheld() {
            None => {}
            Some(Unheld::Unpublished) => {
                let reason = "its changes are not in the publication";
                let hint = "ALTER PUBLICATION … ADD TABLE …, with this table";
                return Err(RuleError::unsupported(&*from.table, reason, hint));
            }
            Some(Unheld::Filtered) => {
                return Err(other("the publication has only some of its rows or changes"));
            }
            Some(Unheld::Partitioned) => return Err(other("it is partitioned, or inherited from")),
        }
        let granted = table.granted(self.role).ok_or_else(|| {
            RuleError::raises(&*from.table, format!("{} may not select from it", self.role))
        })?;
        let relation = table.relation();
        let (source, width) = self.layout.open(relation);
        let named = Named {
            alias: &from.alias,
            relation,
            unpublished: table.unpublished(),
            granted: Some(granted),
            base,
            source: Some(source),
        };
        Ok((Opened { named, table }, width))
    }
}

impl Opened<'_> {
    fn source(&self, policy: InPolicy<'_>) -> Source {
        let Named { relation, base, source, .. } = self.named;
        let columns = source.map(|source| policy.layout.columns(source, relation));
        let columns = columns.unwrap_or_default();
        let (table, version, lookups) = (relation.id, relation.version, Box::default());
        Source { table, version, columns, base, lookups }
    }
}

/// Whether there is a row for which this is true, too.
fn narrowed(subquery: &Subquery, more: Term) -> Term {
    let condition = junction(vec![subquery.condition.clone(), more], false);
    exists(subquery.sources.to_vec(), condition)
}

fn exists(sources: Vec<Source>, condition: Term) -> Term {
    if condition.is_constant() && condition != Term::boolean(true) {
        return Term::boolean(false);
    }
    Term::Subquery(Arc::new(made(Asks::Exists, sources, condition)))
}

/// The subquery, with what its condition says of how rows are found.
fn made(asks: Asks, mut sources: Vec<Source>, condition: Term) -> Subquery {
    let base = sources.first().map_or(0, |source| source.base);
    let arms = match &condition {
        Term::All(arms) => arms,
        term => std::slice::from_ref(term),
    };
    let mut equates = Vec::new();
    let mut lookups = Vec::new();
    for arm in arms {
        match arm {
            Term::Same { column, text } => lookups.push((*column, Key::Text(text.clone()))),
            Term::OneOf { column, texts, .. } => {
                if let [text] = &**texts {
                    lookups.push((*column, Key::Text(text.clone())));
                }
            }
            Term::Compare { op: Comparison::Equal, sides } => {
                lookups.extend(equals_anything(sides).map(|at| (at, Key::Text(Box::default()))));
                if let Some((left, right)) = same_texts(sides) {
                    let (low, high) = (left.min(right), left.max(right));
                    lookups.push((high, Key::Cell(low)));
                    if low < base && high >= base {
                        equates.push((low, high));
                    }
                }
            }
            _ => {}
        }
    }
    for source in &mut sources {
        let own = |(place, key): &(usize, Key)| {
            let column = place.checked_sub(source.base)?;
            let below = match key {
                Key::Cell(at) => *at < source.base,
                Key::Text(_) => true,
            };
            let key = key.clone();
            (below && column < source.columns.len()).then_some(Lookup { column, key })
        };
        source.lookups = lookups.iter().filter_map(own).collect();
    }
    Subquery { asks, sources: sources.into(), condition, equates: equates.into() }
}

/// The column that must equal something of the session, where that is not known.
fn equals_anything([left, right]: &[Term; 2]) -> Option<usize> {
    let is_anything = |term: &Term| {
        let mut places = Vec::new();
        term.places(&mut places);
        !places.is_empty() && places.iter().all(|place| *place == ANYTHING)
    };
    match (left, right) {
        (Term::Column { column, read }, other) | (other, Term::Column { column, read })
            if *column != ANYTHING && has_one_text(read) && is_anything(other) =>
        {
            Some(*column)
        }
        _ => None,
    }
}

/// Whether equal values have equal texts.
const fn has_one_text(read: &Read) -> bool {
    matches!(read, Read::Int | Read::Text | Read::Bool | Read::Day)
}

/// Two columns that are equal exactly where their texts are.
fn same_texts(sides: &[Term; 2]) -> Option<(usize, usize)> {
    match sides {
        [Term::Column { column: left, read: one }, Term::Column { column: right, read: other }]
            if one == other && has_one_text(one) =>
        {
            Some((*left, *right))
        }
        _ => None,
    }
}

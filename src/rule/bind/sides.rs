//! Comparisons of which one side is a query's value: what they say of the query's rows, which can be
//! found by values.

use std::sync::Arc;

use crate::rule::bind::Binder;
use crate::rule::bind::Typed;
use crate::rule::bind::compare::comparison;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::bind::subquery::exists;
use crate::rule::expression::Comparison;
use crate::rule::subquery::Asks;
use crate::rule::subquery::Subquery;
use crate::rule::term::Term;
use crate::rule::value::Value;

impl Binder<'_> {
    /// Where one side is how many rows a query has, and the other says no more than whether there is
    /// one: that, which can be found by values.
    pub(in crate::rule::bind) fn of_some(
        op: Comparison,
        left: &Typed,
        right: &Typed,
    ) -> Option<Term> {
        let counted = |term: &Term| match term {
            Term::Subquery(subquery) if subquery.asks == Asks::Count => Some(Arc::clone(subquery)),
            _ => None,
        };
        let number = |term: &Term| match term {
            Term::Constant(Some(Value::Int(number))) => Some(*number),
            _ => None,
        };
        let (subquery, op, number) = match (counted(&left.term), counted(&right.term)) {
            (Some(subquery), None) => (subquery, op, number(&right.term)?),
            (None, Some(subquery)) => (subquery, op.turned(), number(&left.term)?),
            _ => return None,
        };
        let some = || exists(subquery.sources.to_vec(), subquery.condition.clone());
        match (op, number) {
            (Comparison::Greater | Comparison::NotEqual, 0) | (Comparison::GreaterOrEqual, 1) => {
                Some(some())
            }
            (Comparison::LessOrEqual | Comparison::Equal, 0) | (Comparison::Less, 1) => {
                Some(not(some()))
            }
            _ => None,
        }
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

/// Whether there is a row for which this is true, too.
pub(in crate::rule::bind) fn narrowed(subquery: &Subquery, more: Term) -> Term {
    let condition = junction(vec![subquery.condition.clone(), more], false);
    exists(subquery.sources.to_vec(), condition)
}

//! AND, OR and NOT of bound terms, made as small as they get.

use crate::rule::term::Term;
use crate::rule::value::Value;

pub(in crate::rule::bind) fn not(term: Term) -> Term {
    match term {
        Term::Not(inner) => *inner,
        Term::Constant(Some(Value::Bool(value))) => Term::boolean(!value),
        Term::Constant(None) => Term::NULL,
        other => Term::Not(Box::new(other)),
    }
}

/// AND (`deciding` is false) or OR (true) of boolean terms, without what decides nothing.
pub(in crate::rule) fn junction(terms: Vec<Term>, deciding: bool) -> Term {
    let mut arms = Vec::new();
    for term in terms {
        match term {
            Term::Constant(Some(Value::Bool(value))) if value == deciding => {
                return Term::boolean(deciding);
            }
            Term::Constant(Some(Value::Bool(_))) => {}
            Term::All(inner) if !deciding => arms.extend(inner),
            Term::Any(inner) if deciding => arms.extend(inner),
            other => arms.push(other),
        }
    }
    if deciding && let Some(list) = one_list(&arms) {
        return list;
    }
    match arms.len() {
        0 => Term::boolean(!deciding),
        1 => arms.pop().unwrap_or(Term::NULL),
        _ if deciding => Term::Any(arms.into()),
        _ => Term::All(arms.into()),
    }
}

/// `a = 1 OR a = 2` as the list that it is, so that it can be found by its values.
fn one_list(arms: &[Term]) -> Option<Term> {
    let mut texts = Vec::new();
    let mut only = None;
    for arm in arms {
        let (column, more) = match arm {
            Term::Same { column, text } => (*column, std::slice::from_ref(text)),
            Term::OneOf { column, texts, or_null: false } => (*column, &**texts),
            _ => return None,
        };
        if *only.get_or_insert(column) != column {
            return None;
        }
        texts.extend_from_slice(more);
    }
    if arms.len() < 2 {
        return None;
    }
    texts.sort_unstable();
    texts.dedup();
    Some(Term::OneOf { column: only?, texts: texts.into(), or_null: false })
}

//! A bound rule's tree, and what it answers for a row.
//!
//! # Invariants
//!
//! - NULL, "not in this image" and "PostgreSQL would raise" are three things, and none of them is
//!   FALSE. A missing cell may be anything: the answer is given only if it is the same for every
//!   value. A fault stands in PostgreSQL's order of evaluation: what comes after it is not looked
//!   at, and it is never negated away. (Checked by `tests/postgres/rules.rs`.)
//! - The common comparisons allocate nothing.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::change::tuple::Cell;
use crate::rule::expression::Comparison;
use crate::rule::expression::Known;
use crate::rule::expression::Operator;
use crate::rule::value::Fault;
use crate::rule::value::Read;
use crate::rule::value::Value;
use crate::rule::value::pattern::Compiled;

use crate::rule::subquery::Scope;
use crate::rule::subquery::Source;
use crate::rule::subquery::Subquery;

use super::apply::Apply;

/// Why a rule has no answer for a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// The image does not hold a value that the answer depends on.
    #[error("the row image does not hold column {column}, which the rule reads")]
    Missing {
        /// Its position in the relation.
        column: usize,
    },
    /// PostgreSQL would raise an error, or the value cannot be read.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The same as [`Missing`](Undecided::Missing), where some value would raise an error.
    #[error("the row image does not hold a column that the rule computes with")]
    MissingOperand,
    /// What the rows of another table were at that moment is not known.
    #[error("the rows of another table, which the rule reads, are not known for that moment")]
    Unheld,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Term {
    Constant(Option<Value<'static>>),
    Column {
        column: usize,
        read: Read,
    },
    /// The cell has exactly these bytes.
    Same {
        column: usize,
        text: Box<[u8]>,
    },
    /// The cell has the bytes of one of these, which are sorted.
    OneOf {
        column: usize,
        texts: Box<[Box<[u8]>]>,
        or_null: bool,
    },
    Not(Box<Term>),
    All(Box<[Term]>),
    Any(Box<[Term]>),
    Compare {
        op: Comparison,
        sides: Box<[Term; 2]>,
    },
    Distinct(Box<[Term; 2]>),
    IsNull(Box<Term>),
    Is {
        operand: Box<Term>,
        known: Known,
    },
    In {
        operand: Box<Term>,
        list: Box<[Value<'static>]>,
        or_null: bool,
    },
    /// The right side is an array.
    Quantified {
        op: Comparison,
        all: bool,
        sides: Box<[Term; 2]>,
    },
    Match {
        operand: Box<Term>,
        pattern: Box<Compiled>,
    },
    /// The place of an enum's label in their order.
    Rank {
        operand: Box<Term>,
        labels: Arc<[Box<str>]>,
    },
    Apply {
        function: Box<Apply>,
        operand: Box<Term>,
    },
    Binary {
        op: Operator,
        most: i64,
        sides: Box<[Term; 2]>,
    },
    First(Box<[Term]>),
    Case {
        arms: Box<[[Term; 2]]>,
        otherwise: Box<Term>,
    },
    /// Over other tables.
    Subquery(Arc<Subquery>),
}

/// A value, NULL, or why there is none.
pub(in crate::rule) type Outcome<T> = Result<Option<T>, Undecided>;

impl Comparison {
    pub(in crate::rule) const fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Term {
    pub(in crate::rule) const NULL: Term = Term::Constant(None);

    pub(in crate::rule) const fn boolean(value: bool) -> Term {
        Term::Constant(Some(Value::Bool(value)))
    }

    pub(in crate::rule) const fn is_constant(&self) -> bool {
        matches!(self, Term::Constant(_))
    }

    /// The children, for whoever walks the tree.
    pub(in crate::rule) fn for_each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Term)) {
        match self {
            Term::Constant(_) | Term::Column { .. } | Term::Same { .. } | Term::OneOf { .. } => {}
            Term::Not(operand)
            | Term::IsNull(operand)
            | Term::Is { operand, .. }
            | Term::In { operand, .. }
            | Term::Match { operand, .. }
            | Term::Rank { operand, .. }
            | Term::Apply { operand, .. } => visit(operand),
            Term::All(terms) | Term::Any(terms) | Term::First(terms) => {
                terms.iter().for_each(visit);
            }
            Term::Compare { sides, .. }
            | Term::Distinct(sides)
            | Term::Quantified { sides, .. }
            | Term::Binary { sides, .. } => sides.iter().for_each(visit),
            Term::Case { arms, otherwise } => {
                arms.iter().flatten().for_each(&mut *visit);
                visit(otherwise);
            }
            Term::Subquery(subquery) => subquery.for_each_term(visit),
        }
    }

    /// Collects the places in the stack that it reads, those of subqueries included.
    pub(in crate::rule) fn places(&self, into: &mut Vec<usize>) {
        if let Term::Column { column, .. }
        | Term::Same { column, .. }
        | Term::OneOf { column, .. } = self
        {
            into.push(*column);
        }
        self.for_each_child(&mut |child| child.places(into));
    }

    /// Collects the tables that it reads beside the row.
    pub(in crate::rule) fn sources<'a>(&'a self, into: &mut Vec<&'a Source>) {
        if let Term::Subquery(subquery) = self {
            into.extend(&subquery.sources);
        }
        self.for_each_child(&mut |child| child.sources(into));
    }

    /// Whether PostgreSQL raises an error for some row.
    pub(in crate::rule) fn may_fault(&self) -> bool {
        let mut found = match self {
            Term::Apply { function, .. } => function.may_fault(),
            Term::Binary { op, .. } => op.is_arithmetic(),
            _ => false,
        };
        self.for_each_child(&mut |child| found = found || child.may_fault());
        found
    }

    /// What a boolean term says of a row.
    pub(in crate::rule) fn truth(&self, scope: Scope<'_, '_>) -> Outcome<bool> {
        match self {
            Term::Same { column, text } => {
                Ok(cell(scope.row, *column)?.map(|cell| *cell == **text))
            }
            Term::OneOf { column, texts, or_null } => {
                let Some(cell) = cell(scope.row, *column)? else { return Ok(None) };
                let found = texts.binary_search_by(|text| (**text).cmp(cell)).is_ok();
                Ok(if found || !or_null { Some(found) } else { None })
            }
            Term::Not(operand) => Ok(operand.truth(scope)?.map(|truth| !truth)),
            Term::All(arms) => junction(arms, scope, false),
            Term::Any(arms) => junction(arms, scope, true),
            Term::Compare { op, sides } => {
                let Some((left, right)) = both(sides, scope)? else { return Ok(None) };
                Ok(Some(op.holds(left.compare(&right)?)))
            }
            Term::Distinct(sides) => {
                let [left, right] = &**sides;
                Ok(Some(match pair(left, right, scope)? {
                    (Some(left), Some(right)) => left.compare(&right)? != Ordering::Equal,
                    (left, right) => left.is_some() != right.is_some(),
                }))
            }
            Term::IsNull(operand) => Ok(Some(operand.value(scope)?.is_none())),
            Term::Is { operand, known } => {
                let truth = operand.truth(scope)?;
                Ok(Some(match known {
                    Known::True => truth == Some(true),
                    Known::False => truth == Some(false),
                    Known::Unknown => truth.is_none(),
                }))
            }
            Term::In { operand, list, or_null } => {
                let Some(value) = operand.value(scope)? else { return Ok(None) };
                for element in list {
                    if value.compare(element)? == Ordering::Equal {
                        return Ok(Some(true));
                    }
                }
                Ok(if *or_null { None } else { Some(false) })
            }
            Term::Quantified { op, all, sides } => quantified(*op, *all, sides, scope),
            Term::Match { operand, pattern } => match operand.value(scope)? {
                Some(Value::Text(text)) => Ok(Some(pattern.matches(&text)?)),
                Some(_) => Err(Fault::Unreadable.into()),
                None => Ok(None),
            },
            Term::Subquery(subquery) => subquery.truth(scope),
            Term::Constant(_)
            | Term::Column { .. }
            | Term::Rank { .. }
            | Term::Apply { .. }
            | Term::Binary { .. }
            | Term::First(_)
            | Term::Case { .. } => match self.value(scope)? {
                Some(Value::Bool(value)) => Ok(Some(value)),
                Some(_) => Err(Fault::Unreadable.into()),
                None => Ok(None),
            },
        }
    }

    /// The value of a term for a row.
    pub(in crate::rule) fn value<'a>(&'a self, scope: Scope<'_, 'a>) -> Outcome<Value<'a>> {
        match self {
            Term::Constant(value) => Ok(value.as_ref().map(Value::borrowed)),
            Term::Column { column, read } => match cell(scope.row, *column)? {
                None => Ok(None),
                Some(text) => Ok(Some(read.read(text)?)),
            },
            Term::Rank { operand, labels } => match firm(operand.value(scope))? {
                Some(Value::Text(text)) => {
                    let place = labels.iter().position(|label| label.as_bytes() == &*text);
                    let place = place.and_then(|place| i64::try_from(place).ok());
                    Ok(Some(Value::Int(place.ok_or(Fault::Unreadable)?)))
                }
                Some(_) => Err(Fault::Unreadable.into()),
                None => Ok(None),
            },
            Term::Apply { function, operand } => {
                let value = operand.value(scope);
                let value = if function.may_fault() { firm(value)? } else { value? };
                let Some(value) = value else { return Ok(None) };
                Ok(function.apply(value)?)
            }
            Term::Binary { op, most, sides } => {
                let [left, right] = &**sides;
                let values = pair(left, right, scope);
                let (left, right) = if op.is_arithmetic() { firm(values)? } else { values? };
                let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
                Ok(super::apply::binary(*op, *most, left, right)?)
            }
            Term::First(terms) => {
                for term in terms {
                    if let Some(value) = firm(term.value(scope))? {
                        return Ok(Some(value));
                    }
                }
                Ok(None)
            }
            Term::Case { arms, otherwise } => {
                for [condition, result] in arms {
                    if firm(condition.truth(scope))? == Some(true) {
                        return result.value(scope);
                    }
                }
                otherwise.value(scope)
            }
            Term::Subquery(subquery) => subquery.value(scope),
            Term::Same { .. }
            | Term::OneOf { .. }
            | Term::Not(_)
            | Term::All(_)
            | Term::Any(_)
            | Term::Compare { .. }
            | Term::Distinct(_)
            | Term::IsNull(_)
            | Term::Is { .. }
            | Term::In { .. }
            | Term::Quantified { .. }
            | Term::Match { .. } => Ok(self.truth(scope)?.map(Value::Bool)),
        }
    }
}

impl Value<'static> {
    /// A constant, lent to an evaluation.
    fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            Value::Numeric(text) => Value::Numeric(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }
}

fn cell<'a>(row: &[Cell<'a>], column: usize) -> Outcome<&'a [u8]> {
    match row.get(column) {
        Some(Cell::Text(text)) => Ok(Some(text)),
        Some(Cell::Null) => Ok(None),
        Some(Cell::Unchanged | Cell::Omitted { .. }) | None => Err(Undecided::Missing { column }),
    }
}

/// What is missing may raise in here, so it is no longer just any value.
pub(in crate::rule) fn firm<T>(outcome: Result<T, Undecided>) -> Result<T, Undecided> {
    outcome.map_err(|undecided| match undecided {
        Undecided::Missing { .. } => Undecided::MissingOperand,
        other => other,
    })
}

/// Both values; a fault in either one goes before a missing cell in the other.
fn pair<'a>(
    left: &'a Term,
    right: &'a Term,
    scope: Scope<'_, 'a>,
) -> Result<(Option<Value<'a>>, Option<Value<'a>>), Undecided> {
    match (left.value(scope), right.value(scope)) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(Undecided::Missing { .. }) | Ok(_), Err(other)) | (Err(other), _) => Err(other),
    }
}

/// Both values where neither is NULL.
fn both<'a>(
    sides: &'a [Term; 2],
    scope: Scope<'_, 'a>,
) -> Result<Option<(Value<'a>, Value<'a>)>, Undecided> {
    let [left, right] = sides;
    let (left, right) = pair(left, right, scope)?;
    Ok(left.zip(right))
}

/// AND (`deciding` is false) and OR (true): the first arm that decides ends it, a fault ends it
/// too, and otherwise what is missing goes before NULL.
fn junction(arms: &[Term], scope: Scope<'_, '_>, deciding: bool) -> Outcome<bool> {
    let mut outcome = Ok(Some(!deciding));
    for arm in arms {
        match arm.truth(scope) {
            Ok(Some(truth)) if truth == deciding => return Ok(Some(deciding)),
            Ok(None) if outcome.is_ok() => outcome = Ok(None),
            Ok(_) => {}
            Err(Undecided::Unheld) => outcome = Err(Undecided::Unheld),
            Err(missing @ Undecided::Missing { .. }) => {
                // Whoever hears that a table is not known can ask again; a cell stays missing.
                outcome = outcome.and(Err(missing));
            }
            Err(fault) => return Err(fault),
        }
    }
    outcome
}

fn quantified(op: Comparison, all: bool, sides: &[Term; 2], scope: Scope<'_, '_>) -> Outcome<bool> {
    let [left, right] = sides;
    let (value, array) = pair(left, right, scope)?;
    let array = match array {
        None => return Ok(None),
        Some(Value::Array(array)) => array,
        Some(_) => return Err(Fault::Unreadable.into()),
    };
    if array.elements.is_empty() {
        return Ok(Some(all));
    }
    let Some(value) = value else { return Ok(None) };
    let mut outcome = Some(all);
    for element in &array.elements {
        let Some(element) = element else {
            outcome = None;
            continue;
        };
        if op.holds(value.compare(element)?) != all {
            return Ok(Some(!all));
        }
    }
    Ok(outcome)
}

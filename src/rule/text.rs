//! A bound rule in words, for an operator who looks at it: near to SQL, and nothing that is read again.
//!
//! What stands there is what is decided by, after the claims were put in and what is constant was
//! worked out, not what somebody wrote. Moments and the like stand as the numbers they are compared by.

use std::fmt;
use std::fmt::Write;

use crate::change::relation::Relation;
use crate::rule::apply::Apply;
use crate::rule::compiled::Rule;
use crate::rule::expression::Comparison;
use crate::rule::expression::Known;
use crate::rule::expression::Operator;
use crate::rule::term::Term;
use crate::rule::value::Value;

/// What a text has at most; an operator has a screen.
const CHARACTERS_MAX: usize = 500;

impl Rule {
    /// The rule in words, for somebody who looks at it.
    #[must_use]
    pub fn text(&self, relation: &Relation) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _written = Writer { relation, out: &mut text }.term(self.term());
        if text.chars().count() > CHARACTERS_MAX {
            text = text.chars().take(CHARACTERS_MAX).chain(" …".chars()).collect();
        }
        text
    }
}

struct Writer<'a> {
    relation: &'a Relation,
    out: &'a mut String,
}

impl Writer<'_> {
    fn term(&mut self, term: &Term) -> fmt::Result {
        match term {
            Term::Constant(value) => self.value(value.as_ref()),
            Term::Column { column, .. } => self.column(*column),
            Term::Same { column, text } => {
                self.column(*column)?;
                self.out.write_str(" = ")?;
                self.text(text)
            }
            Term::OneOf { column, texts, or_null } => {
                self.column(*column)?;
                self.out.write_str(" IN (")?;
                self.listed(texts.iter(), |it, text| it.text(text))?;
                self.out.write_str(if *or_null { ", NULL)" } else { ")" })
            }
            Term::Not(operand) => self.call("NOT ", operand),
            Term::All(terms) => self.joined(" AND ", terms),
            Term::Any(terms) => self.joined(" OR ", terms),
            Term::Compare { op, sides } => self.joined(comparison(*op), &**sides),
            Term::Distinct(sides) => self.joined(" IS DISTINCT FROM ", &**sides),
            Term::IsNull(operand) => self.after(operand, " IS NULL"),
            Term::Is { operand, known } => {
                let known = match known {
                    Known::True => " IS TRUE",
                    Known::False => " IS FALSE",
                    Known::Unknown => " IS UNKNOWN",
                };
                self.after(operand, known)
            }
            Term::In { operand, list, or_null } => {
                self.after(operand, " IN (")?;
                self.listed(list.iter(), |it, value| it.value(Some(value)))?;
                self.out.write_str(if *or_null { ", NULL)" } else { ")" })
            }
            Term::Quantified { op, all, sides } => {
                let [left, right] = &**sides;
                self.after(left, comparison(*op))?;
                self.call(if *all { "ALL " } else { "ANY " }, right)
            }
            Term::Match { operand, .. } => self.after(operand, " LIKE …"),
            Term::Rank { operand, .. } => self.term(operand),
            Term::Apply { function, operand } => self.call(applied(function), operand),
            Term::Binary { op, sides, .. } => self.joined(operator(*op), &**sides),
            Term::First(terms) => {
                self.out.write_str("COALESCE(")?;
                self.listed(terms.iter(), Writer::term)?;
                self.out.write_char(')')
            }
            Term::Case { .. } => self.out.write_str("CASE …"),
            Term::Subquery(_) => self.out.write_str("(SELECT …)"),
        }
    }

    fn column(&mut self, position: usize) -> fmt::Result {
        match self.relation.columns.get(position) {
            Some(column) => self.out.write_str(&column.name),
            // A cell of another table's row, inside of a subquery.
            None => write!(self.out, "${position}"),
        }
    }

    fn value(&mut self, value: Option<&Value<'_>>) -> fmt::Result {
        match value {
            None => self.out.write_str("NULL"),
            Some(Value::Bool(value)) => self.out.write_str(if *value { "TRUE" } else { "FALSE" }),
            Some(Value::Int(value)) => write!(self.out, "{value}"),
            Some(Value::Float(value)) => write!(self.out, "{}", value.0),
            Some(Value::Numeric(digits)) => self.out.write_str(&String::from_utf8_lossy(digits)),
            Some(Value::Text(text)) => self.text(text),
            Some(Value::Json(json)) => self.text(json.to_string().as_bytes()),
            Some(Value::Array(array)) => {
                self.out.write_str("ARRAY[")?;
                self.listed(array.elements.iter(), |it, value| it.value(value.as_ref()))?;
                self.out.write_char(']')
            }
            Some(Value::Day(number)) => write!(self.out, "day {number}"),
            Some(Value::Moment(number)) => write!(self.out, "moment {number}"),
            Some(Value::Clock(number) | Value::Zoned(number, _)) => {
                write!(self.out, "time {number}")
            }
            Some(Value::Span(days, rest)) => write!(self.out, "interval {days} {rest}"),
        }
    }

    fn text(&mut self, text: &[u8]) -> fmt::Result {
        write!(self.out, "'{}'", String::from_utf8_lossy(text).replace('\'', "''"))
    }

    fn joined(&mut self, between: &str, terms: &[Term]) -> fmt::Result {
        for (index, term) in terms.iter().enumerate() {
            if index > 0 {
                self.out.write_str(between)?;
            }
            self.inside(term)?;
        }
        Ok(())
    }

    fn after(&mut self, operand: &Term, after: &str) -> fmt::Result {
        self.inside(operand)?;
        self.out.write_str(after)
    }

    fn call(&mut self, name: &str, operand: &Term) -> fmt::Result {
        write!(self.out, "{name}(")?;
        self.term(operand)?;
        self.out.write_char(')')
    }

    /// In parentheses, where it has parts that could be read with what stands around it.
    fn inside(&mut self, term: &Term) -> fmt::Result {
        let parts = matches!(
            term,
            Term::All(_) | Term::Any(_) | Term::Binary { .. } | Term::Case { .. } | Term::Is { .. }
        );
        if parts { self.call("", term) } else { self.term(term) }
    }

    fn listed<T>(
        &mut self,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> fmt::Result,
    ) -> fmt::Result {
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.write_str(", ")?;
            }
            // Thousands may stand there, and nobody reads them.
            if self.out.len() > 4 * CHARACTERS_MAX {
                return self.out.write_char('…');
            }
            write(self, item)?;
        }
        Ok(())
    }
}

const fn comparison(op: Comparison) -> &'static str {
    match op {
        Comparison::Equal => " = ",
        Comparison::NotEqual => " <> ",
        Comparison::Less => " < ",
        Comparison::LessOrEqual => " <= ",
        Comparison::Greater => " > ",
        Comparison::GreaterOrEqual => " >= ",
    }
}

const fn operator(op: Operator) -> &'static str {
    match op {
        Operator::Add => " + ",
        Operator::Subtract => " - ",
        Operator::Multiply => " * ",
        Operator::Concat => " || ",
        Operator::Get => " -> ",
        Operator::GetText => " ->> ",
        Operator::GetPath => " #> ",
        Operator::GetPathText => " #>> ",
        Operator::Contains => " @> ",
        Operator::ContainedBy => " <@ ",
        Operator::HasKey => " ? ",
        Operator::HasAnyKey => " ?| ",
        Operator::HasAllKeys => " ?& ",
        Operator::Overlaps => " && ",
    }
}

const fn applied(function: &Apply) -> &'static str {
    match function {
        Apply::ToDouble => "float8",
        Apply::Narrow(_) => "int",
        Apply::Read(_) => "cast",
        Apply::Print => "text",
        Apply::ToDay => "date",
        Apply::ToMoment => "timestamp",
        Apply::Lower => "lower",
        Apply::Upper => "upper",
        Apply::Length => "length",
        Apply::Path(..) => "json",
    }
}

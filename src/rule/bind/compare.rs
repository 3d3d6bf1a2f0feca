//! Comparisons: which pairs of types compare, and how.

use std::sync::Arc;

use crate::change::types::Kind;
use crate::rule::apply::Apply;
use crate::rule::bind::Binder;
use crate::rule::bind::Typed;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Node;
use crate::rule::of::Of;
use crate::rule::term::Term;
use crate::rule::value::Read;
use crate::rule::value::Value;
use crate::rule::value::datetime;

const CAST_HINT: &str = "cast the text, as in (claims ->> 'sub')::int8";

impl Comparison {
    const fn is_equality(self) -> bool {
        matches!(self, Comparison::Equal | Comparison::NotEqual)
    }

    /// The same with its sides the other way round.
    pub(in crate::rule::bind) const fn turned(self) -> Comparison {
        match self {
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
            same => same,
        }
    }
}

impl Binder<'_> {
    pub(in crate::rule::bind) fn compare(
        &self,
        op: Comparison,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let plain = Binder { is_positive: false, ..*self };
        let sides = (plain.node(left)?, plain.node(right)?);
        let (left, right) = self.align(op, sides, (left, right), token)?;
        if let Some(term) = Binder::of_some(op, &left, &right) {
            return Ok(Typed::new(term, Of::Bool));
        }
        if self.is_positive
            && let Some(term) = Binder::of_its_row(op, &left, &right)
        {
            return Ok(Typed::new(term, Of::Bool));
        }
        self.fold(Typed::new(comparison(op, left, right), Of::Bool), token)
    }

    pub(in crate::rule::bind) fn distinct(
        &self,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let sides = (self.node(left)?, self.node(right)?);
        let (left, right) = self.align(Comparison::Equal, sides, (left, right), token)?;
        let term = Term::Distinct(Box::new([left.term, right.term]));
        self.fold(Typed::new(term, Of::Bool), token)
    }

    /// Makes two sides comparable as PostgreSQL would, or refuses.
    pub(in crate::rule::bind) fn align(
        &self,
        op: Comparison,
        (left, right): (Typed, Typed),
        (left_node, right_node): (&Node, &Node),
        token: &Node,
    ) -> Result<(Typed, Typed), RuleError> {
        let (left, right) = match (&left.of, &right.of) {
            (Of::Unknown, Of::Unknown) => (
                self.coerce(left, &Of::Text, left_node)?,
                self.coerce(right, &Of::Text, right_node)?,
            ),
            (Of::Unknown, of) => {
                let of = of.clone();
                (self.coerce(left, &of, left_node)?, right)
            }
            (of, Of::Unknown) => {
                let of = of.clone();
                (left, self.coerce(right, &of, right_node)?)
            }
            _ => (left, right),
        };
        if !comparable(&left, &right) {
            let reason = format!("operator does not exist: {} {op} {}", left.of, right.of);
            let text = left.of.is_text() || right.of.is_text();
            return Err(RuleError::types(token, reason, if text { CAST_HINT } else { "" }));
        }
        let collated = left.collated.with(right.collated, token)?;
        if !op.is_equality() {
            if left.of.is_text() && !collated.is_bytes() {
                let reason = "the order of texts depends on the locale of the database";
                return Err(RuleError::unsupported(token, reason, "write COLLATE \"C\" behind it"));
            }
            if matches!(left.of, Of::Jsonb | Of::Array(_)) {
                let reason = format!("only = and <> are answered for {}", left.of);
                return Err(RuleError::unsupported(token, reason, ""));
            }
            if let Of::Enum(of) = &left.of
                && let Kind::Enum(labels) = &of.kind
            {
                let rank = |side: Typed| {
                    let (operand, labels) = (Box::new(side.term.clone()), Arc::clone(labels));
                    self.fold(Typed { term: Term::Rank { operand, labels }, ..side }, token)
                };
                return Ok((rank(left.clone())?, rank(right)?));
            }
        }
        if left.of.is_float() != right.of.is_float() {
            return Ok((self.double(left, token)?, self.double(right, token)?));
        }
        Ok((left, right))
    }

    /// A number as a double.
    pub(in crate::rule::bind) fn double(
        &self,
        typed: Typed,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        if typed.of.is_float() {
            return Ok(Typed { of: Of::Float8, ..typed });
        }
        let operand = Box::new(typed.term);
        let term = Term::Apply { function: Box::new(Apply::ToDouble), operand };
        self.fold(Typed::new(term, Of::Float8), token)
    }

    pub(in crate::rule::bind) fn in_list(
        &self,
        operand: &Node,
        list: &[Node],
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let subject = self.node(operand)?;
        let elements = list.iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>()?;
        let constant = elements.iter().all(|element| element.term.is_constant());
        if let [element] = list {
            return self.compare(Comparison::Equal, operand, element, token);
        }
        // PostgreSQL gives operand and constants one type before it compares. With these types
        // that makes no difference to comparing them one by one.
        let mut types: Vec<&Of> = elements.iter().map(|element| &element.of).collect();
        types.push(&subject.of);
        types.retain(|of| **of != Of::Unknown);
        let same = types.windows(2).all(|pair| matches!(pair, [left, right] if left == right));
        let exact = types.iter().all(|of| of.is_integer() || **of == Of::Numeric);
        let double = subject.of == Of::Float8 && types.iter().all(|of| of.is_number());
        let text = types.iter().all(|of| matches!(of, Of::Text | Of::Varchar));
        let oid =
            subject.of == Of::Oid && types.iter().all(|of| of.is_integer() || **of == Of::Oid);
        // A quoted constant would take another type against each element.
        let exact = exact && (constant || subject.of != Of::Unknown);
        if !(same || exact || text || (constant && double) || (constant && oid)) {
            let reason = "the list and what it is compared with have several types";
            return Err(RuleError::types(token, reason, "cast them to one type"));
        }
        let known = types.first().map_or(Of::Text, |of| (*of).clone());
        let unknown = subject.of == Of::Unknown;
        let subject = if unknown { self.coerce(subject, &known, operand)? } else { subject };
        let mut tests = Vec::new();
        let mut values = Vec::new();
        let mut aligned = subject.clone();
        for (element, node) in elements.into_iter().zip(list) {
            let sides = (subject.clone(), element);
            let (left, right) = self.align(Comparison::Equal, sides, (operand, node), token)?;
            match right.term {
                Term::Constant(value) if constant => values.push(value),
                term => {
                    let right = Typed { term, ..right };
                    tests.push(comparison(Comparison::Equal, left.clone(), right));
                }
            }
            aligned = left;
        }
        let term = if constant { one_of(aligned, values) } else { junction(tests, true) };
        self.fold(Typed::new(term, Of::Bool), token)
    }

    /// `x = ANY (array)` and its kin.
    pub(in crate::rule::bind) fn quantified(
        &self,
        (op, all): (Comparison, bool),
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let subject = self.node(left)?;
        let array = self.node(right)?;
        let guess = if subject.of == Of::Unknown { Of::Text } else { subject.of.clone() };
        if matches!(guess, Of::Array(_)) {
            return Err(RuleError::types(token, "an array is no element of an array", ""));
        }
        let array = self.coerce(array, &Of::Array(guess.into()), right)?;
        let Of::Array(element) = &array.of else {
            let reason = format!("ANY and ALL want an array, not {}", array.of);
            return Err(RuleError::types(token, reason, ""));
        };
        let subject = self.coerce(subject, element, left)?;
        // An element is compared like a column of its type with the array's collation.
        let like = Term::Column { column: usize::MAX, read: element.read() };
        let like = Typed { term: like, of: (**element).clone(), collated: array.collated };
        if matches!(element.as_ref(), Of::Enum(_)) && !op.is_equality() {
            let reason = "the order of an enum is not looked at in arrays";
            return Err(RuleError::unsupported(token, reason, ""));
        }
        if element.is_float() != subject.of.is_float() || *element.as_ref() == Of::Oid {
            let reason = format!("{} and {element} are mixed", subject.of);
            return Err(RuleError::types(token, reason, "cast them to one type"));
        }
        self.align(op, (subject.clone(), like), (left, right), token)?;
        let positive = (op == Comparison::Equal && !all) || (op == Comparison::NotEqual && all);
        // Of nothing, ANY is false even for NULL.
        let some = |term: &Term| matches!(term, Term::Constant(Some(Value::Array(array))) if !array.elements.is_empty());
        if positive
            && some(&array.term)
            && let Term::Constant(Some(Value::Array(array))) = array.term
        {
            let list = one_of(subject, array.elements);
            let term = if all { not(list) } else { list };
            return self.fold(Typed::new(term, Of::Bool), token);
        }
        let term = Term::Quantified { op, all, sides: Box::new([subject.term, array.term]) };
        self.fold(Typed::new(term, Of::Bool), token)
    }
}

/// Whether PostgreSQL has the operator, and picks the one whose answer is known here.
fn comparable(left: &Typed, right: &Typed) -> bool {
    match (&left.of, &right.of) {
        (left, right) if left.is_number() && right.is_number() => true,
        (Of::Json, _) | (_, Of::Json) => false,
        (Of::Oid, of) if of.is_integer() => is_oid(&right.term),
        (of, Of::Oid) if of.is_integer() => is_oid(&left.term),
        (Of::Text | Of::Varchar, Of::Text | Of::Varchar)
        | (Of::Text, Of::Name | Of::Bpchar)
        | (Of::Name | Of::Bpchar, Of::Text) => true,
        (left, right) if left.is_moment() && right.is_moment() => true,
        (Of::Enum(left), Of::Enum(right)) => left.id == right.id,
        (left, right) => left == right && *left != Of::Unknown,
    }
}

fn is_oid(term: &Term) -> bool {
    matches!(term, Term::Constant(Some(Value::Int(value))) if u32::try_from(*value).is_ok())
}

/// The cell's text of a constant, where a column of type `of` has exactly one for it.
fn wire(value: &Value<'static>, of: &Of) -> Option<Box<[u8]>> {
    if !of.is_canonical() {
        return None;
    }
    match value {
        Value::Text(text) => Some((**text).into()),
        Value::Int(value) => Some(value.to_string().into_bytes().into()),
        Value::Bool(value) => Some(if *value { (*b"t").into() } else { (*b"f").into() }),
        Value::Day(day) => Some(datetime::print_day(*day).into_bytes().into()),
        _ => None,
    }
}

/// One comparison of two aligned sides; by the bytes of the cell where that is the same.
pub(in crate::rule::bind) fn comparison(op: Comparison, left: Typed, right: Typed) -> Term {
    let direct = match (&left, &right) {
        (
            Typed { term: Term::Column { column, read }, of, .. },
            Typed { term: Term::Constant(Some(value)), .. },
        )
        | (
            Typed { term: Term::Constant(Some(value)), .. },
            Typed { term: Term::Column { column, read }, of, .. },
        ) if op.is_equality() && *read != Read::Trimmed => {
            wire(value, of).map(|text| Term::Same { column: *column, text })
        }
        _ => None,
    };
    match direct {
        Some(same) if op == Comparison::Equal => same,
        Some(same) => not(same),
        None => Term::Compare { op, sides: Box::new([left.term, right.term]) },
    }
}

/// `subject` equals one of the constants.
fn one_of(subject: Typed, values: Vec<Option<Value<'static>>>) -> Term {
    let or_null = values.iter().any(Option::is_none);
    let values: Vec<Value<'static>> = values.into_iter().flatten().collect();
    if let Term::Column { column, read } = &subject.term
        && *read != Read::Trimmed
    {
        let texts: Option<Vec<_>> = values.iter().map(|value| wire(value, &subject.of)).collect();
        if let Some(mut texts) = texts {
            texts.sort_unstable();
            texts.dedup();
            return Term::OneOf { column: *column, texts: texts.into(), or_null };
        }
    }
    Term::In { operand: Box::new(subject.term), list: values.into(), or_null }
}

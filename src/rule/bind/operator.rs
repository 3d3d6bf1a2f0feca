//! Patterns, functions of texts, arithmetic, and the operators of `jsonb` and arrays.

use crate::rule::apply::Apply;
use crate::rule::apply::JsonResult;
use crate::rule::bind::Binder;
use crate::rule::bind::Typed;
use crate::rule::error::RuleError;
use crate::rule::expression::Function;
use crate::rule::expression::Node;
use crate::rule::expression::Operator;
use crate::rule::expression::Pattern;
use crate::rule::of::Of;
use crate::rule::term::Term;
use crate::rule::value::Read;
use crate::rule::value::Value;
use crate::rule::value::array::Array;
use crate::rule::value::json;
use crate::rule::value::pattern;

const LOCALE: &str = "which letters are the same depends on the locale of the database";
const LOCALE_HINT: &str = "write COLLATE \"C\" behind the column: then ASCII letters are folded";

impl Binder<'_> {
    pub(in crate::rule::bind) fn matching(
        &self,
        operand: &Node,
        pattern: &Node,
        how: Pattern,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let subject = self.text(operand, token)?;
        let written = self.text(pattern, token)?;
        let collated = subject.collated.with(written.collated, token)?;
        let folds = matches!(how, Pattern::Ilike | Pattern::RegexFold);
        if folds && !collated.is_bytes() {
            return Err(RuleError::unsupported(token, LOCALE, LOCALE_HINT));
        }
        if written.of == Of::Bpchar {
            return Err(RuleError::unsupported(pattern, "a pattern is a text", ""));
        }
        let written = match written.term {
            Term::Constant(Some(Value::Text(text))) => text,
            Term::Constant(_) => return Ok(Typed::constant(None, Of::Bool)),
            _ => return Err(RuleError::unsupported(pattern, "a pattern is a constant here", "")),
        };
        let written = String::from_utf8_lossy(&written);
        let compiled = match how {
            Pattern::Like | Pattern::Ilike => pattern::like(&written, folds)
                .ok_or_else(|| RuleError::types(pattern, "a pattern must not end with \\", ""))?,
            Pattern::Regex | Pattern::RegexFold => {
                pattern::regex(&written, folds).ok_or_else(|| {
                    let reason = "only plain characters, . .* .+ ^ $ and | are answered here";
                    RuleError::unsupported(pattern, reason, "write LIKE, or several of them")
                })?
            }
        };
        // The padding of a bpchar is part of what a pattern sees.
        let subject = match subject.term {
            Term::Column { column, .. } if subject.of == Of::Bpchar => {
                Term::Column { column, read: Read::Text }
            }
            _ if subject.of == Of::Bpchar => {
                return Err(RuleError::unsupported(token, "cast it to text", ""));
            }
            term => term,
        };
        let term = Term::Match { operand: Box::new(subject), pattern: Box::new(compiled) };
        self.fold(Typed::new(term, Of::Bool), token)
    }

    /// An operand that must be a text.
    fn text(&self, node: &Node, token: &Node) -> Result<Typed, RuleError> {
        let typed = self.node(node)?;
        let typed = self.coerce(typed, &Of::Text, node)?;
        if !typed.of.is_text() {
            let reason = format!("a text is expected, not {}", typed.of);
            return Err(RuleError::types(token, reason, "write (…)::text"));
        }
        Ok(typed)
    }

    pub(in crate::rule::bind) fn text_function(
        &self,
        function: Function,
        argument: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let typed = self.text(argument, token)?;
        let collated = typed.collated.with(typed.collated, token)?;
        let (apply, of) = match function {
            Function::Length => (Apply::Length, Of::Int4),
            Function::Lower | Function::Upper if !collated.is_bytes() => {
                return Err(RuleError::unsupported(token, LOCALE, LOCALE_HINT));
            }
            Function::Lower => (Apply::Lower, Of::Text),
            Function::Upper => (Apply::Upper, Of::Text),
            Function::Coalesce | Function::Nullif => {
                return Err(RuleError::types(token, "not a function of one text", ""));
            }
        };
        if function == Function::Length && typed.of == Of::Name {
            return Err(RuleError::unsupported(token, "write length((…)::text)", ""));
        }
        let term = Term::Apply { function: Box::new(apply), operand: Box::new(typed.term) };
        self.fold(Typed { term, of, collated }, token)
    }

    pub(in crate::rule::bind) fn binary(
        &self,
        op: Operator,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        match op {
            Operator::Add | Operator::Subtract | Operator::Multiply => {
                let sides = (self.node(left)?, self.node(right)?);
                self.arithmetic(op, sides, token)
            }
            Operator::Concat => self.concat(left, right, token),
            Operator::Get | Operator::GetText => self.get(op, left, right, token),
            Operator::GetPath | Operator::GetPathText => self.path(op, left, right, token),
            Operator::HasKey | Operator::HasAnyKey | Operator::HasAllKeys => {
                self.has_key(op, left, right, token)
            }
            Operator::Contains | Operator::ContainedBy | Operator::Overlaps => {
                self.containment(op, left, right, token)
            }
        }
    }

    fn arithmetic(
        &self,
        op: Operator,
        (left, right): (Typed, Typed),
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let (of, most) = match (&left.of, &right.of) {
            (left, right) if !(left.is_integer() && right.is_integer()) => {
                let reason = format!("{left} {op} {right} is not computed here");
                return Err(RuleError::unsupported(token, reason, "integers are"));
            }
            (Of::Int8, _) | (_, Of::Int8) => (Of::Int8, i64::MAX),
            (Of::Int4, _) | (_, Of::Int4) => (Of::Int4, i32::MAX.into()),
            _ => (Of::Int2, i16::MAX.into()),
        };
        let term = Term::Binary { op, most, sides: Box::new([left.term, right.term]) };
        self.fold(Typed::new(term, of), token)
    }

    fn concat(&self, left: &Node, right: &Node, token: &Node) -> Result<Typed, RuleError> {
        let (left, right) = (self.text(left, token)?, self.text(right, token)?);
        if left.of == Of::Name || right.of == Of::Name {
            return Err(RuleError::unsupported(token, "cast the name to text", ""));
        }
        let collated = left.collated.with(right.collated, token)?;
        let op = Operator::Concat;
        let term = Term::Binary { op, most: 0, sides: Box::new([left.term, right.term]) };
        self.fold(Typed { term, of: Of::Text, collated }, token)
    }

    fn jsonb(&self, node: &Node, token: &Node) -> Result<Typed, RuleError> {
        let typed = self.node(node)?;
        if typed.of != Of::Jsonb {
            let reason = format!("a jsonb is expected on the left, not {}", typed.of);
            return Err(RuleError::types(token, reason, ""));
        }
        Ok(typed)
    }

    fn get(
        &self,
        op: Operator,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let json = self.node(left)?;
        if json.of == Of::Json {
            return self.get_json(op, &json.term, right, token);
        }
        let json = self.jsonb(left, token)?;
        let key = self.node(right)?;
        let key = self.coerce(key, &Of::Text, right)?;
        if !matches!(key.of, Of::Text | Of::Varchar | Of::Int4 | Of::Int2) {
            let reason = format!("a key is a text or an int4, not {}", key.of);
            return Err(RuleError::types(token, reason, ""));
        }
        let of = if op == Operator::Get { Of::Jsonb } else { Of::Text };
        let term = Term::Binary { op, most: 0, sides: Box::new([json.term, key.term]) };
        self.fold(Typed::new(term, of), token)
    }

    /// A field of a `json` that is computed from the claims. The text of an object or an array is
    /// as somebody wrote it, so it is not answered.
    fn get_json(
        &self,
        op: Operator,
        json: &Term,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let key = self.node(right)?;
        let key = self.coerce(key, &Of::Text, right)?;
        let of = if op == Operator::Get { Of::Json } else { Of::Text };
        let found = match (json, &key.term) {
            (Term::Constant(None), Term::Constant(_)) | (_, Term::Constant(None)) => None,
            (Term::Constant(Some(Value::Json(json))), Term::Constant(Some(Value::Text(key)))) => {
                let key = std::str::from_utf8(key).unwrap_or_default();
                json::field(json, key)
            }
            _ if self.is_anybody() => return Ok(Typed::anything(of)),
            _ => return Err(RuleError::unsupported(token, "only a named field of a json is", "")),
        };
        let value = match found {
            Some(found) if of == Of::Json => Some(Value::Json(Box::new(found.clone()))),
            Some(found) if found.is_object() || found.is_array() => {
                let reason = "the text of a json object or array is not answered here";
                return Err(RuleError::unsupported(token, reason, "cast to jsonb"));
            }
            Some(found) => json::text(found).map(|text| Value::Text(text.into_bytes().into())),
            None => None,
        };
        Ok(Typed::constant(value, of))
    }

    fn path(
        &self,
        op: Operator,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let json = self.jsonb(left, token)?;
        let (result, of) = match op {
            Operator::GetPath => (JsonResult::Json, Of::Jsonb),
            _ => (JsonResult::Text, Of::Text),
        };
        let Some(array) = self.keys(right, token)? else {
            return Ok(Typed::constant(None, of));
        };
        // Not folded where a key is NULL: PostgreSQL does not, and so keeps what the other arms raise.
        let keys = array.elements.iter().map(|element| match element {
            Some(Value::Text(key)) => Some(Box::from(String::from_utf8_lossy(key))),
            _ => None,
        });
        let keys: Option<Box<[Box<str>]>> = keys.collect();
        // Other spellings of an index are read by some and not by others.
        let odd = |key: &str| key.starts_with('+') || key.contains(char::is_whitespace);
        if keys.iter().flatten().any(|key| odd(key)) {
            return Err(RuleError::unsupported(right, "a key has no sign and no blanks", ""));
        }
        let function = Box::new(Apply::Path(keys, result));
        let term = Term::Apply { function, operand: Box::new(json.term) };
        self.fold(Typed::new(term, of), token)
    }

    /// A constant `text[]`; `None` for NULL.
    fn keys(&self, node: &Node, token: &Node) -> Result<Option<Array<'static>>, RuleError> {
        let typed = self.node(node)?;
        let keys = self.coerce(typed, &Of::Array(Of::Text.into()), node)?;
        match (keys.term, &keys.of) {
            (Term::Constant(value), Of::Array(element)) if **element == Of::Text => match value {
                Some(Value::Array(array)) => Ok(Some(*array)),
                _ => Ok(None),
            },
            _ => Err(RuleError::types(token, "a constant text[] is expected on the right", "")),
        }
    }

    fn has_key(
        &self,
        op: Operator,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let json = self.jsonb(left, token)?;
        let key = match op {
            Operator::HasKey => {
                let key = self.text(right, token)?;
                if !matches!(key.of, Of::Text | Of::Varchar) {
                    return Err(RuleError::types(token, "a key is a text", ""));
                }
                key.term
            }
            _ => {
                Term::Constant(self.keys(right, token)?.map(|array| Value::Array(Box::new(array))))
            }
        };
        let term = Term::Binary { op, most: 0, sides: Box::new([json.term, key]) };
        self.fold(Typed::new(term, Of::Bool), token)
    }

    fn containment(
        &self,
        op: Operator,
        left: &Node,
        right: &Node,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let (first, second) = (self.node(left)?, self.node(right)?);
        let (one, other) = (first.of.clone(), second.of.clone());
        let first = self.coerce(first, &other, left)?;
        let second = self.coerce(second, &one, right)?;
        first.collated.with(second.collated, token)?;
        let fits = match &first.of {
            Of::Jsonb => op != Operator::Overlaps,
            Of::Array(_) => true,
            _ => false,
        };
        if !fits || first.of != second.of {
            let reason = format!("operator does not exist: {} {op} {}", first.of, second.of);
            return Err(RuleError::types(
                token,
                reason,
                "both sides are arrays of one type, or jsonb",
            ));
        }
        let term = Term::Binary { op, most: 0, sides: Box::new([first.term, second.term]) };
        self.fold(Typed::new(term, Of::Bool), token)
    }
}

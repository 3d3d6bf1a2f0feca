//! Functions, casts and operators of values that are not NULL.

use std::borrow::Cow;

use crate::rule::expression::Operator;
use crate::rule::of::Of;
use crate::rule::value::Fault;
use crate::rule::value::Value;
use crate::rule::value::datetime;
use crate::rule::value::input;
use crate::rule::value::json;

/// A function of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rule) enum Apply {
    /// A number to the double that PostgreSQL converts it to.
    ToDouble,
    /// An integer to one whose greatest value this is.
    Narrow(i64),
    /// A text read by a type's input function.
    Read(Of),
    /// An integer, a boolean, a `jsonb` or a text, printed.
    Print,
    /// The day of a moment.
    ToDay,
    /// The midnight at which a day begins.
    ToMoment,
    /// In lower case, by the C locale.
    Lower,
    /// In upper case, by the C locale.
    Upper,
    /// How many characters.
    Length,
    /// `#>` and `#>>` with a constant path; one that holds a NULL leads nowhere.
    Path(Option<Box<[Box<str>]>>, JsonResult),
}

/// Whether a part of a `jsonb` is wanted as it is or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum JsonResult {
    Json,
    Text,
}

impl std::hash::Hash for Apply {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Apply::Narrow(most) => most.hash(state),
            Apply::Read(of) => of.name().hash(state),
            Apply::Path(keys, result) => (keys, result).hash(state),
            Apply::ToDouble
            | Apply::Print
            | Apply::ToDay
            | Apply::ToMoment
            | Apply::Lower
            | Apply::Upper
            | Apply::Length => {}
        }
    }
}

impl Apply {
    /// Whether PostgreSQL raises for some argument.
    pub(in crate::rule) const fn may_fault(&self) -> bool {
        matches!(self, Apply::ToDouble | Apply::Narrow(_) | Apply::Read(_) | Apply::ToMoment)
    }

    pub(in crate::rule) fn apply<'a>(&self, value: Value<'a>) -> Result<Option<Value<'a>>, Fault> {
        Ok(Some(match (self, value) {
            (Apply::ToDouble, value) => Value::Float(value.double()?),
            (Apply::Narrow(most), Value::Int(value)) => Value::Int(bounded(value, *most)?),
            (Apply::Read(of), Value::Text(text)) => {
                let text = std::str::from_utf8(&text).map_err(|_| Fault::Unreadable)?;
                input::input(text, of).ok_or(Fault::Unreadable)?
            }
            (Apply::Print, Value::Json(json)) => text(json::print(&json)),
            (Apply::Print, Value::Int(value)) => text(value.to_string()),
            (Apply::Print, Value::Bool(value)) => text(value.to_string()),
            (Apply::Print, Value::Text(text)) => Value::Text(text),
            (Apply::ToDay, Value::Moment(moment)) => Value::Day(datetime::day_of(moment)),
            (Apply::ToDay, Value::Day(day)) => Value::Day(day),
            (Apply::ToMoment, Value::Moment(moment)) => Value::Moment(moment),
            (Apply::ToMoment, Value::Day(day)) => {
                Value::Moment(datetime::exact_midnight(day).ok_or(Fault::OutOfRange)?)
            }
            (Apply::Lower, Value::Text(text)) => Value::Text(Cow::Owned(text.to_ascii_lowercase())),
            (Apply::Upper, Value::Text(text)) => Value::Text(Cow::Owned(text.to_ascii_uppercase())),
            (Apply::Length, Value::Text(text)) => {
                let characters = text.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
                Value::Int(i64::try_from(characters).map_err(|_| Fault::OutOfRange)?)
            }
            (Apply::Path(keys, result), Value::Json(json)) => {
                let found = keys.as_ref().and_then(|keys| json::path(&json, keys));
                return Ok(part(found, *result));
            }
            _ => return Err(Fault::Unreadable),
        }))
    }
}

/// An operator between two values. `most` is the greatest integer of the result's type.
pub(in crate::rule) fn binary<'a>(
    op: Operator,
    most: i64,
    left: Value<'a>,
    right: Value<'a>,
) -> Result<Option<Value<'a>>, Fault> {
    Ok(Some(match (op, left, right) {
        (Operator::Add, Value::Int(left), Value::Int(right)) => {
            Value::Int(checked(left.checked_add(right), most)?)
        }
        (Operator::Subtract, Value::Int(left), Value::Int(right)) => {
            Value::Int(checked(left.checked_sub(right), most)?)
        }
        (Operator::Multiply, Value::Int(left), Value::Int(right)) => {
            Value::Int(checked(left.checked_mul(right), most)?)
        }
        (Operator::Concat, Value::Text(left), Value::Text(right)) => {
            let mut text = left.into_owned();
            text.extend_from_slice(&right);
            Value::Text(Cow::Owned(text))
        }
        (Operator::Get, Value::Json(json), key) => return get(&json, &key, JsonResult::Json),
        (Operator::GetText, Value::Json(json), key) => {
            return get(&json, &key, JsonResult::Text);
        }
        (Operator::Contains, Value::Json(left), Value::Json(right)) => {
            Value::Bool(json::contains(&left, &right))
        }
        (Operator::ContainedBy, Value::Json(left), Value::Json(right)) => {
            Value::Bool(json::contains(&right, &left))
        }
        (Operator::Contains, Value::Array(left), Value::Array(right)) => {
            Value::Bool(left.contains(&right)?)
        }
        (Operator::ContainedBy, Value::Array(left), Value::Array(right)) => {
            Value::Bool(right.contains(&left)?)
        }
        (Operator::Overlaps, Value::Array(left), Value::Array(right)) => {
            Value::Bool(left.overlaps(&right)?)
        }
        (Operator::HasKey, Value::Json(json), Value::Text(key)) => {
            Value::Bool(json::has_key(&json, utf8(&key)?))
        }
        (Operator::HasAnyKey | Operator::HasAllKeys, Value::Json(json), Value::Array(keys)) => {
            let mut any = false;
            let mut all = true;
            for key in keys.elements.iter().flatten() {
                let Value::Text(key) = key else { return Err(Fault::Unreadable) };
                let has = json::has_key(&json, utf8(key)?);
                any |= has;
                all &= has;
            }
            Value::Bool(if op == Operator::HasAnyKey { any } else { all })
        }
        _ => return Err(Fault::Unreadable),
    }))
}

fn text(text: String) -> Value<'static> {
    Value::Text(Cow::Owned(text.into_bytes()))
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::Unreadable)
}

fn checked(value: Option<i64>, most: i64) -> Result<i64, Fault> {
    bounded(value.ok_or(Fault::OutOfRange)?, most)
}

/// `value` where a signed integer type whose greatest value is `most` holds it.
const fn bounded(value: i64, most: i64) -> Result<i64, Fault> {
    if value > most || value < -1 - most { Err(Fault::OutOfRange) } else { Ok(value) }
}

fn get(
    json: &serde_json::Value,
    key: &Value<'_>,
    result: JsonResult,
) -> Result<Option<Value<'static>>, Fault> {
    let found = match key {
        Value::Text(key) => json::field(json, utf8(key)?),
        Value::Int(index) => json::element(json, *index),
        _ => return Err(Fault::Unreadable),
    };
    Ok(part(found, result))
}

fn part(found: Option<&serde_json::Value>, result: JsonResult) -> Option<Value<'static>> {
    match result {
        JsonResult::Json => found.map(|json| Value::Json(Box::new(json.clone()))),
        JsonResult::Text => found.and_then(json::text).map(text),
    }
}

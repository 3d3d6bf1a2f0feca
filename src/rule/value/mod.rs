//! The values that rules compare: read from a cell's text, ordered as PostgreSQL orders them.
//!
//! A value borrows from the row image it was read from; constants own theirs. Texts, uuids, enum
//! labels and `bytea` are the bytes of the wire: their comparison needs no reading at all.

pub(in crate::rule) mod array;
pub(in crate::rule) mod datetime;
pub(in crate::rule) mod decimal;
pub(in crate::rule) mod input;
pub(in crate::rule) mod interval;
pub(in crate::rule) mod json;
pub(in crate::rule) mod pattern;

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::rule::value::array::Array;

/// Why an expression has no value for a row although every cell it needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A cell does not hold what its column's type prints, or a text not what a cast asks for.
    #[error("a value cannot be read as the type that the rule asks for")]
    Unreadable,
    /// PostgreSQL would raise "out of range".
    #[error("a number is out of range")]
    OutOfRange,
    /// The answer would cost too much.
    #[error("a value is too large for the rule's pattern")]
    TooCostly,
    /// PostgreSQL would raise "more than one row returned by a subquery used as an expression".
    #[error("a subquery that is used as a value has more than one row")]
    SeveralRows,
}

/// A double as PostgreSQL compares it: NaN equals itself and is greater than all others, and both
/// zeros are one.
#[derive(Clone, Copy, Debug)]
pub(in crate::rule) struct Double(pub f64);

impl Double {
    fn key(self) -> u64 {
        if self.0.is_nan() {
            f64::NAN.to_bits()
        } else if self.0 == 0.0 {
            0
        } else {
            self.0.to_bits()
        }
    }
}

impl PartialEq for Double {
    fn eq(&self, other: &Double) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Double {}

impl std::hash::Hash for Double {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Ord for Double {
    fn cmp(&self, other: &Double) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| self.0.is_nan().cmp(&other.0.is_nan()))
    }
}

impl PartialOrd for Double {
    fn partial_cmp(&self, other: &Double) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One value that is not NULL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Value<'a> {
    Bool(bool),
    /// Every integer type and `oid`.
    Int(i64),
    Float(Double),
    /// Decimal digits with a sign and a point at most, or `NaN`, `Infinity`, `-Infinity`.
    Numeric(Cow<'a, [u8]>),
    /// Whatever compares by the bytes of its text: text, uuid, enum, bytea.
    Text(Cow<'a, [u8]>),
    /// Days since 2000-01-01; the ends of `i64` are the infinities.
    Day(i64),
    /// Microseconds since 2000-01-01 (UTC); the ends of `i64` are the infinities.
    Moment(i64),
    /// Microseconds since midnight.
    Clock(i64),
    /// `timetz`: microseconds since midnight in UTC, then seconds west of it.
    Zoned(i64, i64),
    /// Days (months count 30) and the microseconds of the last one.
    Span(i64, i64),
    Json(Box<Json>),
    Array(Box<Array<'a>>),
}

/// How a column's cells are read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Read {
    Bool,
    Int,
    Float4,
    Float8,
    Numeric,
    Text,
    /// Without trailing blanks (`bpchar`).
    Trimmed,
    Day,
    Moment,
    Clock,
    Zoned,
    Span,
    Json,
    Array(Box<Read>),
}

impl Read {
    /// The value in `text`, which is as PostgreSQL prints it.
    pub(in crate::rule) fn read<'a>(&self, text: &'a [u8]) -> Result<Value<'a>, Fault> {
        let value = match self {
            Read::Text => Some(Value::Text(Cow::Borrowed(text))),
            Read::Trimmed => Some(Value::Text(Cow::Borrowed(trimmed(text)))),
            Read::Int => integer(text).map(Value::Int),
            Read::Numeric => {
                decimal::is_decimal(text).then_some(Value::Numeric(Cow::Borrowed(text)))
            }
            Read::Bool => match text {
                b"t" => Some(Value::Bool(true)),
                b"f" => Some(Value::Bool(false)),
                _ => None,
            },
            Read::Array(element) => {
                Array::read(text, element)?.map(|array| Value::Array(Box::new(array)))
            }
            _ => std::str::from_utf8(text).ok().and_then(|text| self.read_rarer(text)),
        };
        value.ok_or(Fault::Unreadable)
    }

    fn read_rarer(&self, text: &str) -> Option<Value<'static>> {
        match self {
            Read::Float4 => float4(text).map(Value::Float),
            Read::Float8 => float8(text).map(Value::Float),
            Read::Day => datetime::day(text).map(Value::Day),
            Read::Moment => datetime::moment(text, datetime::Zone::Optional).map(Value::Moment),
            Read::Clock => datetime::clock(text).map(Value::Clock),
            Read::Zoned => datetime::zoned(text).map(|(micros, west)| Value::Zoned(micros, west)),
            Read::Span => interval::span(text).map(|(days, micros)| Value::Span(days, micros)),
            Read::Json => json::parse(text).map(|json| Value::Json(Box::new(json))),
            Read::Bool
            | Read::Int
            | Read::Numeric
            | Read::Text
            | Read::Trimmed
            | Read::Array(_) => None,
        }
    }
}

impl Value<'_> {
    /// The same value, borrowing from nothing.
    pub(in crate::rule) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Numeric(text) => Value::Numeric(Cow::Owned(text.into_owned())),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Day(day) => Value::Day(day),
            Value::Moment(micros) => Value::Moment(micros),
            Value::Clock(micros) => Value::Clock(micros),
            Value::Zoned(micros, west) => Value::Zoned(micros, west),
            Value::Span(days, micros) => Value::Span(days, micros),
            Value::Json(json) => Value::Json(json),
            Value::Array(array) => Value::Array(Box::new(array.into_owned())),
        }
    }

    /// How two values of comparable types are ordered; for `jsonb` and arrays only whether they
    /// are equal means something.
    ///
    /// # Errors
    ///
    /// A `numeric` that no double holds, compared with one.
    pub(in crate::rule) fn compare(&self, other: &Value<'_>) -> Result<Ordering, Fault> {
        Ok(match (self, other) {
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::Int(left), Value::Int(right))
            | (Value::Day(left), Value::Day(right))
            | (Value::Moment(left), Value::Moment(right))
            | (Value::Clock(left), Value::Clock(right)) => left.cmp(right),
            (Value::Text(left), Value::Text(right)) => left.cmp(right),
            (Value::Numeric(left), Value::Numeric(right)) => decimal::compare(left, right),
            (Value::Int(left), Value::Numeric(right)) => {
                decimal::compare(left.to_string().as_bytes(), right)
            }
            (Value::Numeric(left), Value::Int(right)) => {
                decimal::compare(left, right.to_string().as_bytes())
            }
            (Value::Float(_), _) | (_, Value::Float(_)) => self.double()?.cmp(&other.double()?),
            (Value::Day(left), Value::Moment(right)) => datetime::midnight(*left).cmp(right),
            (Value::Moment(left), Value::Day(right)) => left.cmp(&datetime::midnight(*right)),
            (Value::Zoned(left, west), Value::Zoned(right, other_west)) => {
                left.cmp(right).then(west.cmp(other_west))
            }
            (Value::Span(days, micros), Value::Span(other_days, other_micros)) => {
                days.cmp(other_days).then(micros.cmp(other_micros))
            }
            (Value::Json(left), Value::Json(right)) => unordered(json::equal(left, right)),
            (Value::Array(left), Value::Array(right)) => unordered(left.equal(right)?),
            _ => return Err(Fault::Unreadable),
        })
    }

    /// The double that PostgreSQL converts the number to.
    pub(in crate::rule) fn double(&self) -> Result<Double, Fault> {
        match self {
            Value::Float(value) => Ok(*value),
            Value::Int(value) => Ok(Double(double_of(*value))),
            Value::Numeric(text) => {
                let text = std::str::from_utf8(text).map_err(|_| Fault::Unreadable)?;
                float8(text).ok_or(Fault::OutOfRange)
            }
            _ => Err(Fault::Unreadable),
        }
    }
}

/// An ordering that says only whether two are equal.
const fn unordered(equal: bool) -> Ordering {
    if equal { Ordering::Equal } else { Ordering::Less }
}

/// The nearest double, ties to even, as the processor converts.
fn double_of(value: i64) -> f64 {
    // The upper half is exact when scaled, so that the sum is the only rounding.
    let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let high = i32::try_from(value >> 32).unwrap_or(0);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// A `bpchar` as it is compared.
pub(in crate::rule) fn trimmed(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|byte| **byte == b' ').count();
    text.get(..text.len() - blanks).unwrap_or(text)
}

/// Decimal digits with a minus at most: how integers are printed.
fn integer(text: &[u8]) -> Option<i64> {
    let (digits, negative) = match text.split_first() {
        Some((b'-', rest)) => (rest, true),
        _ => (text, false),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    // Counted below zero, where there is one more.
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// The shapes of a float that PostgreSQL prints, and the plain ones that people write.
fn float_text(text: &str) -> Option<&str> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let plain =
        |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
    (named || (!unsigned.is_empty() && unsigned.bytes().all(plain))).then_some(text)
}

/// A `float8`, or `None` where PostgreSQL raises: malformed, or beyond what a double holds.
fn float8(text: &str) -> Option<Double> {
    let value: f64 = float_text(text)?.parse().ok()?;
    let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
    (named || (value.is_finite() && (value != 0.0 || is_zero(text)))).then_some(Double(value))
}

/// A `float4`, widened.
fn float4(text: &str) -> Option<Double> {
    let value: f32 = float_text(text)?.parse().ok()?;
    let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
    (named || (value.is_finite() && (value != 0.0 || is_zero(text))))
        .then(|| Double(f64::from(value)))
}

/// Whether a number's digits are all zero, so that zero is its value and not what is left of it.
fn is_zero(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(read: (&Read, &str), other: (&Read, &str)) -> Ordering {
        let left = read.0.read(read.1.as_bytes()).unwrap();
        let right = other.0.read(other.1.as_bytes()).unwrap();
        left.compare(&right).unwrap()
    }

    #[test]
    fn integers_are_read_to_their_ends() {
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer(b"9223372036854775808"), None);
        for text in ["", "-", "1a", "+1", " 1", "--1"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn integers_become_the_nearest_double() {
        for value in [0, 1, -1, i64::MAX, i64::MIN, (1 << 53) + 1, -(1 << 53) - 1, 1 << 62] {
            assert_eq!(
                double_of(value).to_string(),
                value.to_string().parse::<f64>().unwrap().to_string()
            );
        }
    }

    #[test]
    fn numbers_of_different_types_compare_as_postgres_does() {
        assert_eq!(compare((&Read::Int, "2"), (&Read::Numeric, "2.0")), Ordering::Equal);
        assert_eq!(compare((&Read::Int, "2"), (&Read::Numeric, "NaN")), Ordering::Less);
        assert_eq!(compare((&Read::Float4, "0.1"), (&Read::Float8, "0.1")), Ordering::Greater);
        assert_eq!(compare((&Read::Float8, "NaN"), (&Read::Float8, "Infinity")), Ordering::Greater);
        assert_eq!(compare((&Read::Float8, "NaN"), (&Read::Float8, "NaN")), Ordering::Equal);
        assert_eq!(compare((&Read::Float8, "-0"), (&Read::Float8, "0")), Ordering::Equal);
        assert_eq!(
            compare((&Read::Int, "9007199254740993"), (&Read::Float8, "9007199254740992")),
            Ordering::Equal
        );
        let huge = Read::Numeric.read(b"1000000000000000000000000000000").unwrap();
        assert!(huge.double().is_ok());
        let text = format!("1{}", "0".repeat(400));
        assert_eq!(Read::Numeric.read(text.as_bytes()).unwrap().double(), Err(Fault::OutOfRange));
    }

    #[test]
    fn a_date_is_the_midnight_it_begins_with() {
        assert_eq!(
            compare((&Read::Day, "2026-01-02"), (&Read::Moment, "2026-01-02 00:00:00")),
            Ordering::Equal
        );
        assert_eq!(
            compare((&Read::Day, "5874897-12-31"), (&Read::Moment, "infinity")),
            Ordering::Less
        );
        assert_eq!(compare((&Read::Day, "infinity"), (&Read::Moment, "infinity")), Ordering::Equal);
    }
}

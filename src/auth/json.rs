//! JSON that has one meaning: what PostgreSQL would read in it, or nothing.
//!
//! Claims are judged here and, by the database's policies, there. Where two readers could
//! disagree (a key given twice, a NUL that `jsonb` refuses, a number out of `numeric`'s range) the
//! text is refused, so that they never do.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How deep objects and arrays may be nested.
const DEPTH_MAX: usize = 32;

/// How many characters a number may have, and the largest power of ten that it may name.
const NUMBER_LEN_MAX: usize = 1000;

/// `serde_json`'s own names for "this object is a number" begin so; a client may not use them.
const RESERVED: &str = "$serde_json::private";

/// The text is not JSON of one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Reads a JSON object.
///
/// # Errors
///
/// [`Ambiguous`] when `text` is anything but one object, or when part of it could be read in two
/// ways.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, Ambiguous> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(|_| Ambiguous)?;
    check(raw, DEPTH_MAX)?;
    match serde_json::from_str(raw.get()) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Ambiguous),
    }
}

/// Checks one value and everything in it.
fn check(raw: &RawValue, depth_left: usize) -> Result<(), Ambiguous> {
    let depth_left = depth_left.checked_sub(1).ok_or(Ambiguous)?;
    let text = raw.get();
    match text.trim_start().bytes().next() {
        Some(b'{') => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let object = reader.deserialize_map(UniqueKeys).map_err(|_| Ambiguous)?;
            object.values().try_for_each(|value| check(value, depth_left))
        }
        Some(b'[') => {
            let values: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Ambiguous)?;
            values.into_iter().try_for_each(|value| check(value, depth_left))
        }
        Some(b'"') => {
            let text: String = serde_json::from_str(text).map_err(|_| Ambiguous)?;
            if text.contains('\0') { Err(Ambiguous) } else { Ok(()) }
        }
        Some(b'-' | b'0'..=b'9') => number(text.trim()),
        Some(_) | None => Ok(()),
    }
}

/// Whether `numeric` can hold the number, with room to spare.
fn number(text: &str) -> Result<(), Ambiguous> {
    if text.len() > NUMBER_LEN_MAX {
        return Err(Ambiguous);
    }
    let Some((_, exponent)) = text.split_once(['e', 'E']) else { return Ok(()) };
    match exponent.parse::<i32>() {
        Ok(power) if usize::try_from(power.unsigned_abs()).is_ok_and(|p| p <= NUMBER_LEN_MAX) => {
            Ok(())
        }
        Ok(_) | Err(_) => Err(Ambiguous),
    }
}

/// Reads an object whose keys all differ.
struct UniqueKeys;

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = BTreeMap<String, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without a key given twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, &RawValue>()? {
            let usable = !key.contains('\0') && !key.starts_with(RESERVED);
            if !usable || object.insert(key, value).is_some() {
                return Err(serde::de::Error::custom("a key twice, or one that is reserved"));
            }
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_two_readers_could_read_differently_is_refused() {
        let refused = [
            "",
            "null",
            "[]",
            "\"x\"",
            "{",
            "{} {}",
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":[{"c":1,"c":1}]}}"#,
            r#"{"a":"\u0000"}"#,
            r#"{"a\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e100000000000}"#,
            r#"{"a":1e1001}"#,
            r#"{"a":-1E-1001}"#,
            r#"{"a":01}"#,
            r#"{"a":NaN}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
            r#"{"$serde_json::private::RawValue":"1"}"#,
        ];
        for text in refused {
            assert_eq!(object(text.as_bytes()), Err(Ambiguous), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(Ambiguous));
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(object(deep.as_bytes()), Err(Ambiguous));
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#" {"a" : 12345678901234567890.10, "b": [1e400, {"c": null}]} "#;
        let object = object(text.as_bytes()).unwrap();
        assert_eq!(object["a"].to_string(), "12345678901234567890.10");
        assert_eq!(object["b"][0].to_string().to_lowercase().replace('+', ""), "1e400");
    }
}

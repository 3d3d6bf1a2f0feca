//! `jsonb`: what its operators answer, and how PostgreSQL prints it.
//!
//! Numbers keep their digits (`serde_json` with `arbitrary_precision`) and compare as `numeric`.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Map;
use serde_json::Number;
use serde_json::Value as Json;

use crate::rule::value::decimal;

/// Reads `jsonb` as PostgreSQL prints it.
pub(in crate::rule) fn parse(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}

/// The value as `jsonb` holds it: numbers without exponents. `None` where `jsonb` refuses it (a NUL
/// in a text) or a number is beyond what is looked at here.
pub(in crate::rule) fn normal(json: Json) -> Option<Json> {
    Some(match json {
        Json::Number(number) => {
            let digits = decimal::parse(number.as_str())?;
            Json::Number(serde_json::from_str::<Number>(&digits).ok()?)
        }
        Json::String(text) if text.contains('\0') => return None,
        Json::Array(elements) => {
            Json::Array(elements.into_iter().map(normal).collect::<Option<_>>()?)
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| {
                if key.contains('\0') { None } else { Some((key, normal(value)?)) }
            });
            Json::Object(fields.collect::<Option<Map<_, _>>>()?)
        }
        plain @ (Json::Null | Json::Bool(_) | Json::String(_)) => plain,
    })
}

/// `->` with a text: a field of an object.
pub(in crate::rule) fn field<'a>(json: &'a Json, key: &str) -> Option<&'a Json> {
    json.as_object()?.get(key)
}

/// `->` with an integer: an element of an array, from the end where negative. A primitive at the
/// top counts as an array of one here, as it is stored (a path does not take it so).
pub(in crate::rule) fn element(json: &Json, index: i64) -> Option<&Json> {
    let elements = match json {
        Json::Array(elements) => elements.as_slice(),
        Json::Object(_) => return None,
        primitive => std::slice::from_ref(primitive),
    };
    let index =
        if index < 0 { i64::try_from(elements.len()).ok()?.checked_add(index)? } else { index };
    elements.get(usize::try_from(index).ok()?)
}

/// `#>`: what a path leads to.
pub(in crate::rule) fn path<'a>(json: &'a Json, keys: &[Box<str>]) -> Option<&'a Json> {
    keys.iter().try_fold(json, |json, key| match json {
        Json::Object(fields) => fields.get(&**key),
        // Only what both readers of numbers take alike.
        Json::Array(_) => element(json, key.parse::<i32>().ok()?.into()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    })
}

/// `->>`: the text of a value; `None` for a JSON null.
pub(in crate::rule) fn text(json: &Json) -> Option<String> {
    match json {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(print(other)),
    }
}

/// `?`: a key of an object, a text of an array, or the text itself.
pub(in crate::rule) fn has_key(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(fields) => fields.contains_key(key),
        Json::Array(elements) => elements.iter().any(|element| element.as_str() == Some(key)),
        Json::String(text) => text == key,
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// `=`.
pub(in crate::rule) fn equal(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => {
            decimal::compare(left.as_str().as_bytes(), right.as_str().as_bytes()) == Ordering::Equal
        }
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// `@>`: at the top an array contains a primitive that is one of its elements.
pub(in crate::rule) fn contains(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Array(elements), other) if !other.is_array() && !other.is_object() => {
            elements.iter().any(|element| equal(element, other))
        }
        _ => contains_below(left, right),
    }
}

fn contains_below(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Object(left), Json::Object(right)) => right
            .iter()
            .all(|(key, wanted)| left.get(key).is_some_and(|value| contains_below(value, wanted))),
        (Json::Array(left), Json::Array(right)) => {
            right.iter().all(|wanted| left.iter().any(|value| contains_below(value, wanted)))
        }
        _ => equal(left, right),
    }
}

/// The text that PostgreSQL prints: keys by length and then by bytes, a blank after `:` and `,`.
pub(in crate::rule) fn print(json: &Json) -> String {
    let mut out = String::new();
    write(json, &mut out);
    out
}

fn write(json: &Json, out: &mut String) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) => out.push_str(number.as_str()),
        Json::String(text) => quote(text, out),
        Json::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(element, out);
            }
            out.push(']');
        }
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(left, _), (right, _)| {
                left.len().cmp(&right.len()).then_with(|| left.cmp(right))
            });
            out.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                quote(key, out);
                out.push_str(": ");
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        normal(parse(text).unwrap()).unwrap()
    }

    #[test]
    fn printing_is_postgres_s() {
        let value = json(r#"{"bb":[1,2.50,1e2],"a":"x\u0001\"\n/é","c":{}, "aa":null}"#);
        assert_eq!(
            print(&value),
            "{\"a\": \"x\\u0001\\\"\\n/é\", \"c\": {}, \"aa\": null, \"bb\": [1, 2.50, 100]}"
        );
    }

    #[test]
    fn containment_is_deep_and_has_one_exception() {
        for (left, right, expected) in [
            ("[1,2]", "1", true),
            ("1", "[1]", false),
            ("{\"a\":[1,2]}", "{\"a\":[1]}", true),
            ("{\"a\":[1,2]}", "{\"a\":1}", false),
            ("[[1,2]]", "[[1]]", true),
            ("[[1]]", "1", false),
            ("{\"a\":1}", "{}", true),
            ("[]", "{}", false),
            ("1", "1.0", true),
            ("[1,[2]]", "[2]", false),
            ("\"a\"", "\"a\"", true),
            ("[\"a\"]", "\"a\"", true),
        ] {
            assert_eq!(contains(&json(left), &json(right)), expected, "{left} @> {right}");
        }
    }

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        let value = json(r#"{"a":[{"b":"x"}]}"#);
        let keys =
            |keys: &[&str]| keys.iter().map(|key| Box::from(*key)).collect::<Vec<Box<str>>>();
        assert_eq!(path(&value, &keys(&["a", "-1", "b"])).and_then(text).as_deref(), Some("x"));
        assert_eq!(path(&value, &keys(&["a", "x"])), None);
        assert_eq!(path(&value, &keys(&["a", "0", "b", "c"])), None);
    }

    #[test]
    fn a_nul_is_refused() {
        assert_eq!(normal(Json::String("a\0".to_owned())), None);
    }
}

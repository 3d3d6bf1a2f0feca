//! A cell's text in, JSON out, as Postgres's own `to_jsonb` would write the value.
//!
//! ```text
//! Tuple::cells ──text──▶ value ──JSON──▶ a frame, written by a dialect
//!                        (here)
//! ```
//!
//! The text is what the type's output function prints under [`SESSION`], the settings that every
//! session of the daemon pins that reads rows. The result has the meaning that `to_jsonb` gives
//! the value, numbers with every digit; blanks and the order of a row type's keys are not part of
//! it.
//!
//! # Invariants
//!
//! - Nothing here fails: what is not of its type's form is written as a JSON string, and bytes
//!   that are not UTF-8 are replaced. What is written is always one JSON value.
//! - The result is equal to `to_jsonb` for every built-in type. (`tests/postgres/values.rs`, with
//!   the server as the oracle.)
//! - A scalar costs one pass and no allocation beyond `out`.
//!
//! Where Postgres has no answer this module still has one: `to_jsonb` refuses a `json` text with
//! the escape `\u0000` or with half a surrogate pair; here the one is kept, and the other replaced
//! by U+FFFD. A type of an extension with its own cast to `json`, other than `hstore`, is written
//! as a string, because the cast's function runs only in the server.

pub mod string;
mod number;
mod time;
mod literal;
mod json;

use crate::change::types::Kind;
use crate::change::types::Type;
use crate::change::value::string::write_string;

/// How values are printed: the settings of each session that reads rows, by the log or by a query.
/// A database or a role may have others.
pub const SESSION: [(&str, &str); 5] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

/// How numbers are written that a JavaScript client would round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BigNumbers {
    /// As JSON numbers with all their digits, as `to_jsonb` does.
    AsNumbers,
    /// As JSON strings, where a double does not hold the number: whole numbers beyond 2^53 - 1,
    /// and a `numeric` with a fraction and more than 15 significant digits. Numbers inside
    /// `json` and `jsonb` stay what they are.
    AsStrings,
}

/// The text is not of the form that its type has.
#[derive(Debug)]
struct Malformed;

/// Appends a cell's value to `out` as JSON, exactly as `to_jsonb` means it.
///
/// `text` is the cell as the stream carries it, `of` its column's type. Never fails; see the
/// module for what becomes of a text that is not of its type's form.
pub fn write_json(text: &[u8], of: &Type, out: &mut Vec<u8>) {
    write_json_with(text, of, BigNumbers::AsNumbers, out);
}

/// [`write_json`], with a choice for numbers that a double does not hold.
pub fn write_json_with(text: &[u8], of: &Type, big: BigNumbers, out: &mut Vec<u8>) {
    let start = out.len();
    let written = match &of.kind {
        Kind::Bool => write_bool(text, out),
        Kind::Int2 | Kind::Int4 => number::write_integer(text, out),
        Kind::Int8 if big == BigNumbers::AsNumbers => number::write_integer(text, out),
        Kind::Numeric if big == BigNumbers::AsNumbers => number::write_decimal(text, out),
        Kind::Int8 | Kind::Numeric => number::write_for_double(text, out),
        Kind::Float4 | Kind::Float8 => number::write_float(text, out),
        Kind::Timestamp => time::write_timestamp(text, out),
        Kind::TimestampTz => time::write_timestamp_with_zone(text, out),
        Kind::Json => json::write_normal(text, out),
        Kind::Jsonb => json::write_as_it_is(text, out),
        Kind::Array { element, delimiter: b' ' } => literal::write_vector(text, element, big, out),
        Kind::Array { element, delimiter } => {
            literal::write_array(text, element, *delimiter, big, out)
        }
        Kind::Composite(attributes) => literal::write_composite(text, attributes, big, out),
        Kind::JsonCast if &*of.name == "hstore" => literal::write_hstore(text, out),
        Kind::Oid
        | Kind::Text
        | Kind::Bpchar
        | Kind::Name
        | Kind::Char
        | Kind::Uuid
        | Kind::Date
        | Kind::Time
        | Kind::TimeTz
        | Kind::Interval
        | Kind::Bytea
        | Kind::Enum(_)
        | Kind::JsonCast
        | Kind::Other => {
            write_string(text, out);
            Ok(())
        }
    };
    if written.is_err() {
        out.truncate(start);
        write_string(text, out);
    }
}

fn write_bool(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let word: &[u8] = match text {
        b"t" => b"true",
        b"f" => b"false",
        _ => return Err(Malformed),
    };
    out.extend_from_slice(word);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::id::TypeId;
    use crate::change::types::Attribute;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn of(kind: Kind) -> Type {
        Type { id: TypeId(0), name: "x".into(), kind }
    }

    fn array(element: Kind) -> Kind {
        Kind::Array { element: Arc::new(of(element)), delimiter: b',' }
    }

    fn pair() -> Kind {
        let attribute = |name: &str, kind| Attribute { name: name.into(), of: Arc::new(of(kind)) };
        Kind::Composite([attribute("a", Kind::Int4), attribute("b", array(Kind::Text))].into())
    }

    fn hstore() -> Type {
        Type { id: TypeId(0), name: "hstore".into(), kind: Kind::JsonCast }
    }

    fn json(text: &str, of: &Type, big: BigNumbers) -> String {
        let mut out = Vec::new();
        write_json_with(text.as_bytes(), of, big, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(kind: Kind, text: &str, expected: &str) {
        assert_eq!(json(text, &of(kind), BigNumbers::AsNumbers), expected, "{text}");
    }

    #[test]
    fn scalars() {
        check(Kind::Bool, "t", "true");
        check(Kind::Int8, "-9223372036854775808", "-9223372036854775808");
        check(Kind::Numeric, "12.340", "12.340");
        check(Kind::Numeric, "-Infinity", r#""-Infinity""#);
        check(Kind::Float8, "NaN", r#""NaN""#);
        check(Kind::Float8, "-0", "0");
        check(Kind::Float8, "1.5e+20", "150000000000000000000");
        check(Kind::Float8, "1.5e-07", "0.00000015");
        check(Kind::Oid, "7", r#""7""#);
        check(Kind::Bytea, "\\x00ff", r#""\\x00ff""#);
        check(Kind::Text, "a\"b\\c\u{1}\u{7f}é\n", "\"a\\\"b\\\\c\\u0001\u{7f}é\\n\"");
    }

    #[test]
    fn times_are_iso() {
        check(Kind::Timestamp, "2026-01-02 03:04:05.12", r#""2026-01-02T03:04:05.12""#);
        check(Kind::Timestamp, "infinity", r#""infinity""#);
        check(Kind::Timestamp, "0044-03-15 00:00:00 BC", r#""0044-03-15T00:00:00 BC""#);
        check(Kind::TimestampTz, "2026-01-02 03:04:05+00", r#""2026-01-02T03:04:05+00:00""#);
        check(Kind::TimestampTz, "0044-03-15 00:00:00+00 BC", r#""0044-03-15T00:00:00+00:00 BC""#);
    }

    #[test]
    fn arrays_nest() {
        check(array(Kind::Int4), "{}", "[]");
        check(array(Kind::Int4), "{1,NULL,3}", "[1,null,3]");
        check(array(Kind::Int4), "[2:3][0:1]={{1,2},{3,4}}", "[[1,2],[3,4]]");
        check(
            array(Kind::Text),
            r#"{a,"b c","q\"\\","NULL",NULL,""}"#,
            r#"["a","b c","q\"\\","NULL",null,""]"#,
        );
        let vector = Kind::Array { element: Arc::new(of(Kind::Int2)), delimiter: b' ' };
        check(vector.clone(), "1 -2 3", "[1,-2,3]");
        check(vector, "", "[]");
    }

    #[test]
    fn row_types_are_objects() {
        check(pair(), r#"(1,"{a,""b c""}")"#, r#"{"a":1,"b":["a","b c"]}"#);
        check(pair(), "(,)", r#"{"a":null,"b":null}"#);
        check(array(pair()), r#"{"(1,\"{x,\"\"\\\\\"\"\"\"}\")"}"#, r#"[{"a":1,"b":["x","\""]}]"#);
        check(Kind::Composite([].into()), "()", "{}");
    }

    #[test]
    fn json_is_made_normal() {
        check(
            Kind::Json,
            r#" { "bb" : 1, "a" : 2 , "a":[1.0E2, -0.0] } "#,
            r#"{"a":[100,0.0],"bb":1}"#,
        );
        check(
            Kind::Json,
            r#""\u0041\/\u00e9\ud83d\ude00\u0007\ud800""#,
            "\"A/é😀\\u0007\u{fffd}\"",
        );
        check(Kind::Json, "01", r#""01""#);
        check(Kind::Json, "{} x", r#""{} x""#);
        check(Kind::Json, r#""\u0000""#, r#""\u0000""#);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check(Kind::Json, &deep, &deep);
    }

    #[test]
    fn hstore_is_an_object() {
        let text = r#""a"=>"1", "q\"\\"=>NULL"#;
        assert_eq!(json(text, &hstore(), BigNumbers::AsNumbers), r#"{"a":"1","q\"\\":null}"#);
        assert_eq!(json("", &hstore(), BigNumbers::AsNumbers), "{}");
    }

    #[test]
    fn what_has_not_its_types_form_becomes_a_string() {
        for kind in [Kind::Bool, Kind::Int4, Kind::Numeric, Kind::Float8, Kind::Timestamp, pair()] {
            check(kind, "1,\"x", r#""1,\"x""#);
        }
        check(array(Kind::Int4), "{1,2", r#""{1,2""#);
        check(array(Kind::Int4), "{{1}", r#""{{1}""#);
        check(Kind::Int4, "", r#""""#);
        check(Kind::Int4, "007", r#""007""#);
        let mut out = Vec::new();
        write_json(b"a\xffb", &of(Kind::Text), &mut out);
        assert_eq!(out, "\"a\u{fffd}b\"".as_bytes());
    }

    #[test]
    fn numbers_that_a_double_does_not_hold_can_be_strings() {
        let cases = [
            (Kind::Int8, "9007199254740991", "9007199254740991"),
            (Kind::Int8, "-9007199254740992", r#""-9007199254740992""#),
            (Kind::Numeric, "0.000000000000000123", "0.000000000000000123"),
            (Kind::Numeric, "123456789.0123456", r#""123456789.0123456""#),
            (Kind::Numeric, "NaN", r#""NaN""#),
            (array(Kind::Int8), "{1,9007199254740992}", r#"[1,"9007199254740992"]"#),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(json(text, &of(kind), BigNumbers::AsStrings), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_the_text_the_result_is_one_json_value(text in r#"[-{}()\[\]",:;=\\0-9.eNUL "a\u{0}é]{0,24}"#) {
            let kinds = [
                Kind::Bool, Kind::Int8, Kind::Numeric, Kind::Float8, Kind::Text, Kind::Timestamp,
                Kind::TimestampTz, Kind::Json, Kind::Other, array(Kind::Float8), array(array(Kind::Json)),
                pair(), array(pair()), Kind::Array { element: Arc::new(of(Kind::Int2)), delimiter: b' ' },
            ];
            let types = kinds.into_iter().map(of).chain([hstore()]);
            for of in types {
                for big in [BigNumbers::AsNumbers, BigNumbers::AsStrings] {
                    let written = json(&text, &of, big);
                    let read = serde_json::from_str::<serde_json::Value>(&written);
                    prop_assert!(read.is_ok(), "{:?} {written}", of.kind);
                }
            }
        }
    }
}

//! Constants: a text in, the value that a type's input function makes of it, or nothing.
//!
//! Never laxer than PostgreSQL, sometimes stricter: a form that some version reads otherwise, or
//! that depends on a setting or on the day, is refused.

use std::borrow::Cow;

use crate::change::types::Kind;
use crate::rule::of::Of;
use crate::rule::value::Value;
use crate::rule::value::array;
use crate::rule::value::array::Array;
use crate::rule::value::datetime;
use crate::rule::value::datetime::Zone;
use crate::rule::value::decimal;
use crate::rule::value::interval;
use crate::rule::value::json;
use crate::rule::value::trimmed;

/// The value of type `of` that `text` writes.
pub(in crate::rule) fn input(text: &str, of: &Of) -> Option<Value<'static>> {
    if text.contains('\0') {
        return None;
    }
    Some(match of {
        Of::Unknown | Of::Text | Of::Varchar => owned(text.as_bytes()),
        Of::Bpchar => owned(trimmed(text.as_bytes())),
        // Longer names are cut off by some paths and refused by others.
        Of::Name => (text.len() < 64).then(|| owned(text.as_bytes()))?,
        Of::Bool => Value::Bool(boolean(text)?),
        Of::Int2 => Value::Int(integer::<i16>(text)?),
        Of::Int4 => Value::Int(integer::<i32>(text)?),
        Of::Int8 => Value::Int(integer::<i64>(text)?),
        Of::Oid => Value::Int(plain(text).then(|| text.parse::<u32>().ok())??.into()),
        Of::Float4 | Of::Float8 => {
            // Not all forms of the exponent and of the names are looked at.
            let named = matches!(text, "NaN" | "Infinity" | "-Infinity");
            (named || decimal_like(text)).then_some(())?;
            of.read().read(text.as_bytes()).ok()?.into_owned()
        }
        Of::Numeric => match text {
            "NaN" | "Infinity" | "-Infinity" => Value::Numeric(Cow::Owned(text.into())),
            _ => Value::Numeric(Cow::Owned(decimal::parse(blank_trimmed(text))?.into_bytes())),
        },
        Of::Uuid => owned(uuid(text)?.as_bytes()),
        Of::Date => Value::Day(datetime::day(text)?),
        Of::Time => Value::Clock(datetime::clock(text)?),
        Of::TimeTz => {
            let (micros, west) = datetime::zoned(text)?;
            Value::Zoned(micros, west)
        }
        Of::Timestamp => Value::Moment(datetime::moment(text, Zone::Refused)?),
        Of::TimestampTz => Value::Moment(datetime::moment(text, Zone::Optional)?),
        Of::Interval => {
            // Infinite intervals are known from version 17 on, and a field overflows at nine digits.
            let digits = text.split(|character: char| !character.is_ascii_digit());
            let small = digits.map(str::len).max().unwrap_or(0) < 9;
            (small && !text.ends_with("infinity")).then_some(())?;
            let (days, micros) = interval::span(text)?;
            Value::Span(days, micros)
        }
        // As it was written, numbers too; what `jsonb` would refuse is refused here.
        Of::Json => {
            let parsed = json::parse(text)?;
            json::normal(parsed.clone())?;
            Value::Json(Box::new(parsed))
        }
        Of::Jsonb => Value::Json(Box::new(json::normal(json::parse(text)?)?)),
        Of::Bytea => owned(bytes(text)?.as_bytes()),
        Of::Enum(of) => match &of.kind {
            Kind::Enum(labels) if labels.iter().any(|label| &**label == text) => {
                owned(text.as_bytes())
            }
            _ => return None,
        },
        Of::Array(element) => Value::Array(Box::new(array_of(text, element)?)),
    })
}

fn owned(bytes: &[u8]) -> Value<'static> {
    Value::Text(Cow::Owned(bytes.into()))
}

/// Blanks as `isspace` of the C locale knows them.
fn blank_trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

fn plain(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decimal digits between blanks; the hexadecimal and underscored forms of version 16 are refused.
fn integer<T: std::str::FromStr + Into<i64>>(text: &str) -> Option<i64> {
    let text = blank_trimmed(text);
    plain(text.strip_prefix(['-', '+']).unwrap_or(text)).then_some(())?;
    text.parse::<T>().ok().map(Into::into)
}

fn decimal_like(text: &str) -> bool {
    decimal::parse(text).is_some()
}

/// Unambiguous beginnings of the words, and `on`, `off`, `1`, `0`, between blanks.
fn boolean(text: &str) -> Option<bool> {
    let text = blank_trimmed(text).to_ascii_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&*text);
    if begins("true") || begins("yes") || text == "on" || text == "1" {
        Some(true)
    } else if begins("false") || begins("no") || text == "of" || text == "off" || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// 32 hexadecimal digits, a hyphen allowed after every four, braces allowed around; as printed.
fn uuid(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut hyphen = false;
    for character in inner.chars() {
        if character == '-' {
            if hyphen || count == 0 || count % 4 != 0 || count == 32 {
                return None;
            }
            hyphen = true;
            continue;
        }
        if !character.is_ascii_hexdigit() {
            return None;
        }
        hyphen = false;
        if matches!(count, 8 | 12 | 16 | 20) {
            digits.push('-');
        }
        digits.push(character.to_ascii_lowercase());
        count += 1;
    }
    (count == 32 && !hyphen).then_some(digits)
}

/// `\x` and pairs of hexadecimal digits, as printed.
fn bytes(text: &str) -> Option<String> {
    let digits = text.strip_prefix("\\x")?;
    let whole = digits.len() % 2 == 0 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| text.to_ascii_lowercase())
}

/// One dimension, without bounds.
fn array_of(text: &str, of: &Of) -> Option<Array<'static>> {
    let (lengths, items) = array::items(text.as_bytes())?;
    if lengths.len() > 1 || matches!(of, Of::Array(_)) {
        return None;
    }
    let elements = items.into_iter().map(|item| match item {
        None => Some(None),
        Some(item) => Some(Some(input(std::str::from_utf8(&item).ok()?, of)?)),
    });
    Some(Array::of(elements.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(of: &Of, text: &str) -> String {
        match input(text, of) {
            Some(Value::Text(text)) => String::from_utf8(text.into_owned()).unwrap(),
            Some(value) => format!("{value:?}"),
            None => "refused".to_owned(),
        }
    }

    #[test]
    fn uuids_are_written_as_postgres_prints_them() {
        let printed = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            printed,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(check(&Of::Uuid, text), printed, "{text}");
        }
        for text in [
            "",
            "a0eebc99",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            "a0-eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(check(&Of::Uuid, text), "refused", "{text}");
        }
    }

    #[test]
    fn integers_have_bounds_and_blanks() {
        assert_eq!(check(&Of::Int2, " 32767\n"), "Int(32767)");
        assert_eq!(check(&Of::Int2, "32768"), "refused");
        assert_eq!(check(&Of::Int4, "+5"), "Int(5)");
        for text in ["", "1.0", "0x1", "1_0", "- 1", "1e2", "\u{a0}1"] {
            assert_eq!(check(&Of::Int8, text), "refused", "{text}");
        }
    }

    #[test]
    fn booleans_have_short_forms() {
        for text in ["t", "TRUE", "ye", " on ", "1"] {
            assert_eq!(check(&Of::Bool, text), "Bool(true)", "{text}");
        }
        for text in ["f", "no", "off", "of", "0"] {
            assert_eq!(check(&Of::Bool, text), "Bool(false)", "{text}");
        }
        assert_eq!(check(&Of::Bool, "o"), "refused");
        assert_eq!(check(&Of::Bool, ""), "refused");
    }

    #[test]
    fn a_text_holds_no_nul() {
        assert_eq!(check(&Of::Text, "a\0"), "refused");
    }
}

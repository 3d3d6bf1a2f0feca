//! `numeric` of any precision, compared in its text form.

use std::cmp::Ordering;

/// The exponent that a literal may have: past it the digits alone would be a burden.
const EXPONENT_MAX: i32 = 1000;

/// Where a `numeric` stands, without its digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    MinusInfinity,
    Negative,
    Zero,
    Positive,
    Infinity,
    Nan,
}

/// Whether `text` is of the form in which PostgreSQL prints a `numeric`.
pub(in crate::rule) fn is_decimal(text: &[u8]) -> bool {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return true;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = split(digits);
    let all = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    all(whole) && all(fraction) && !whole.is_empty()
}

fn split(digits: &[u8]) -> (&[u8], &[u8]) {
    match digits.iter().position(|byte| *byte == b'.') {
        None => (digits, b""),
        Some(point) => {
            let (whole, rest) = digits.split_at(point);
            (whole, rest.get(1..).unwrap_or_default())
        }
    }
}

/// The digits that count, before and after the point.
fn parts(text: &[u8]) -> (Place, &[u8], &[u8]) {
    match text {
        b"NaN" => return (Place::Nan, b"", b""),
        b"Infinity" => return (Place::Infinity, b"", b""),
        b"-Infinity" => return (Place::MinusInfinity, b"", b""),
        _ => {}
    }
    let (sign, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (Place::Negative, digits),
        None => (Place::Positive, text),
    };
    let (whole, fraction) = split(digits);
    let leading = whole.iter().take_while(|byte| **byte == b'0').count();
    let trailing = fraction.iter().rev().take_while(|byte| **byte == b'0').count();
    let whole = whole.get(leading..).unwrap_or_default();
    let fraction = fraction.get(..fraction.len() - trailing).unwrap_or_default();
    let zero = whole.is_empty() && fraction.is_empty();
    (if zero { Place::Zero } else { sign }, whole, fraction)
}

/// The order of two that satisfy [`is_decimal`]; NaN equals itself and is greater than all others.
pub(in crate::rule) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let (place, whole, fraction) = parts(left);
    let (other_place, other_whole, other_fraction) = parts(right);
    let magnitude = || {
        let length = whole.len().cmp(&other_whole.len());
        length.then(whole.cmp(other_whole)).then(fraction.cmp(other_fraction))
    };
    place.cmp(&other_place).then_with(|| match place {
        Place::Positive => magnitude(),
        Place::Negative => magnitude().reverse(),
        _ => Ordering::Equal,
    })
}

/// Reads a number as people and JSON write it, exponent and all, into the form that PostgreSQL
/// prints: the digits of the fraction stay, the exponent goes.
pub(in crate::rule) fn parse(text: &str) -> Option<String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
    };
    if exponent.abs() > EXPONENT_MAX {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mut all = format!("{whole}{fraction}");
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    let point = if exponent >= 0 {
        let missing = (whole.len() + shift).saturating_sub(all.len());
        all.push_str(&"0".repeat(missing));
        whole.len() + shift
    } else {
        let missing = shift.saturating_sub(whole.len());
        all.insert_str(0, &"0".repeat(missing));
        whole.len() + missing - shift
    };
    let (whole, fraction) = all.split_at_checked(point)?;
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let zero = whole == "0" && fraction.bytes().all(|byte| byte == b'0');
    let sign = if negative && !zero { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn special_values_have_their_places() {
        let ascending = [
            "-Infinity",
            "-10",
            "-9.5",
            "-0.001",
            "0",
            "0.0001",
            "0.5",
            "2",
            "10",
            "Infinity",
            "NaN",
        ];
        for (index, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                assert_eq!(compare(left.as_bytes(), right.as_bytes()), index.cmp(&other));
            }
        }
        assert_eq!(compare(b"-0.00", b"0"), Ordering::Equal);
        assert_eq!(compare(b"1.50", b"1.5"), Ordering::Equal);
    }

    #[test]
    fn exponents_are_written_out_as_postgres_does() {
        for (written, printed) in [
            ("1e3", "1000"),
            ("1.50", "1.50"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("1E-3", "0.001"),
            ("12.5e1", "125"),
            ("12.5e-1", "1.25"),
            ("0e5", "0"),
            (".5", "0.5"),
            ("007", "7"),
            ("1.5e3", "1500"),
            ("123e-5", "0.00123"),
            ("1.", "1"),
        ] {
            assert_eq!(parse(written).as_deref(), Some(printed), "{written}");
        }
        for text in ["", "-", ".", "e5", "1e", "1e9999", "1e99999999999", "0x1", "1_0", "NaN"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(left: i64, right: i64) {
            let order = compare(left.to_string().as_bytes(), right.to_string().as_bytes());
            prop_assert_eq!(order, left.cmp(&right));
        }
    }
}

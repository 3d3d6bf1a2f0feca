//! Numbers: copied where their text is JSON already, written out where it has an exponent.
//!
//! `to_jsonb` takes every number through `numeric`, which knows no exponent and no negative zero;
//! so `1.5e-07` of a `float8` is `0.00000015`, and `1.0e2` in a `json` text is `100`.

use crate::change::value::Malformed;
use crate::change::value::string::write_string;

/// The largest whole number up to which a double holds every one: `Number.MAX_SAFE_INTEGER`.
const SAFE_INTEGER: &[u8] = b"9007199254740991";
/// With so many significant digits every decimal number survives a double.
const SAFE_DIGITS: usize = 15;
/// An exponent beyond this stays an exponent (no `float8` has one): a short text must not turn
/// into a long one.
const EXPONENT_MAX: usize = 1_000;

/// The parts of a JSON number.
struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Zero where there is none.
    exponent: Exponent,
}

#[derive(Clone, Copy)]
enum Exponent {
    None,
    Up(usize),
    Down(usize),
    Huge,
}

/// An `int2`, `int4` or `int8`.
pub(super) fn write_integer(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    check_whole(digits)?;
    out.extend_from_slice(text);
    Ok(())
}

/// A `numeric`: no exponent; `NaN` and the infinities become strings.
pub(super) fn write_decimal(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_not_finite(text) {
        write_string(text, out);
        return Ok(());
    }
    let parts = take_apart(text)?;
    if !matches!(parts.exponent, Exponent::None) {
        return Err(Malformed);
    }
    out.extend_from_slice(text);
    Ok(())
}

/// A `float4` or `float8`; `NaN` and the infinities become strings.
pub(super) fn write_float(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_not_finite(text) {
        write_string(text, out);
        return Ok(());
    }
    write_normal(text, out)
}

/// An `int8` or `numeric`; a string where a double does not hold it.
pub(super) fn write_for_double(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if is_not_finite(text) {
        write_string(text, out);
        return Ok(());
    }
    let parts = take_apart(text)?;
    let safe = if parts.fraction.is_empty() {
        let (length, longest) = (parts.whole.len(), SAFE_INTEGER.len());
        length < longest || (length == longest && parts.whole <= SAFE_INTEGER)
    } else {
        let digits = parts.whole.iter().chain(parts.fraction);
        digits.skip_while(|&&digit| digit == b'0').count() <= SAFE_DIGITS
    };
    if safe {
        out.extend_from_slice(text);
    } else {
        write_string(text, out);
    }
    Ok(())
}

/// A JSON number as `jsonb` keeps it: through `numeric`, with the scale that it is written with.
pub(super) fn write_normal(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let parts = take_apart(text)?;
    let zero = parts.whole.iter().chain(parts.fraction).all(|&digit| digit == b'0');
    if parts.negative && !zero {
        out.push(b'-');
    }
    let (whole, fraction) = (parts.whole, parts.fraction);
    match parts.exponent {
        Exponent::None => {
            let unsigned = text.strip_prefix(b"-").unwrap_or(text);
            out.extend_from_slice(unsigned);
        }
        Exponent::Huge => {
            let unsigned = text.strip_prefix(b"-").unwrap_or(text);
            out.extend_from_slice(if zero { b"0" } else { unsigned });
        }
        Exponent::Up(by) => {
            let (moved, left) = fraction.split_at(by.min(fraction.len()));
            let zeros = by - moved.len();
            let digits = whole.iter().chain(moved).copied();
            write_shifted(
                digits.chain(std::iter::repeat_n(b'0', zeros)),
                left.iter().copied(),
                out,
            );
        }
        Exponent::Down(by) => {
            let (left, moved) = whole.split_at(whole.len().saturating_sub(by));
            let zeros = by - moved.len();
            let digits = std::iter::repeat_n(b'0', zeros).chain(moved.iter().copied());
            write_shifted(left.iter().copied(), digits.chain(fraction.iter().copied()), out);
        }
    }
    Ok(())
}

fn write_shifted(
    whole: impl Iterator<Item = u8>,
    fraction: impl Iterator<Item = u8>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.extend(whole.skip_while(|&digit| digit == b'0'));
    if out.len() == start {
        out.push(b'0');
    }
    let point = out.len();
    out.push(b'.');
    out.extend(fraction);
    if out.len() == point + 1 {
        out.truncate(point);
    }
}

/// Every such text, and no finite number's, has one of these letters: Postgres's own test.
fn is_not_finite(text: &[u8]) -> bool {
    matches!(text, b"NaN" | b"Infinity" | b"-Infinity")
}

fn check_whole(digits: &[u8]) -> Result<(), Malformed> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let padded = digits.len() > 1 && digits.first() == Some(&b'0');
    if plain && !padded { Ok(()) } else { Err(Malformed) }
}

fn take_apart(text: &[u8]) -> Result<Parts<'_>, Malformed> {
    let unsigned = text.strip_prefix(b"-");
    let negative = unsigned.is_some();
    let unsigned = unsigned.unwrap_or(text);
    let (mantissa, exponent) = match unsigned.iter().position(|&byte| byte | 0x20 == b'e') {
        None => (unsigned, Exponent::None),
        Some(at) => {
            let (mantissa, exponent) = unsigned.split_at(at);
            (mantissa, read_exponent(exponent.get(1..).unwrap_or_default())?)
        }
    };
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        None => (mantissa, &[][..]),
        Some(at) => {
            let (whole, fraction) = mantissa.split_at(at);
            let fraction = fraction.get(1..).unwrap_or_default();
            if fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
                return Err(Malformed);
            }
            (whole, fraction)
        }
    };
    check_whole(whole)?;
    Ok(Parts { negative, whole, fraction, exponent })
}

fn read_exponent(text: &[u8]) -> Result<Exponent, Malformed> {
    let (down, digits) = match text.split_first() {
        Some((b'-', digits)) => (true, digits),
        Some((b'+', digits)) => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let size = digits.iter().fold(0usize, |size, &digit| {
        size.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
    });
    Ok(match (size > EXPONENT_MAX, down) {
        (true, _) => Exponent::Huge,
        (false, true) => Exponent::Down(size),
        (false, false) => Exponent::Up(size),
    })
}

//! A constant's bytes in, the text that PostgreSQL prints for it out.
//!
//! The bytes are the server's own memory (`src/include/postgres.h`, `varlena`), little-endian: on
//! another machine the lengths don't fit, and the constant is refused. The text of the policy, its
//! other reading, has the same constant in print.

use std::fmt::Write as _;

use crate::rule::error::RuleError;
use crate::rule::policy::jsonb;
use crate::rule::policy::library::Library;
use crate::rule::value::datetime;

/// What stands before the data of a value without a fixed length.
const HEADER_BYTES: usize = 4;

/// The text of a constant of type `of` (`pg_type.oid`).
pub(super) fn text(bytes: &[u8], of: u32, library: &Library) -> Result<String, RuleError> {
    let name = library.type_name(of).unwrap_or("its type");
    let refused = || {
        RuleError::unsupported(
            &format!("a constant of {name}"),
            "such constants are not read from the stored form of a policy",
            "",
        )
    };
    let scalar = scalar(bytes, of, library);
    let printed = scalar.or_else(|| {
        let element = library.element(of)?;
        array(bytes, element, library)
    });
    printed.ok_or_else(refused)
}

fn scalar(bytes: &[u8], of: u32, library: &Library) -> Option<String> {
    Some(match of {
        16 => match bytes.first()? {
            0 => "f".to_owned(),
            1 => "t".to_owned(),
            _ => return None,
        },
        21 => i16::from_le_bytes(head(bytes)?).to_string(),
        23 => i32::from_le_bytes(head(bytes)?).to_string(),
        20 => i64::from_le_bytes(head(bytes)?).to_string(),
        26 => u32::from_le_bytes(head(bytes)?).to_string(),
        25 | 1042 | 1043 => String::from_utf8(varlena(bytes)?.to_vec()).ok()?,
        19 => {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            String::from_utf8(bytes.get(..end)?.to_vec()).ok()?
        }
        701 => f64::from_le_bytes(head(bytes)?).to_string(),
        1700 => numeric(varlena(bytes)?)?,
        1082 => datetime::print_day(finite(i32::from_le_bytes(head(bytes)?).into(), i32::MAX)?),
        1114 => moment(i64::from_le_bytes(head(bytes)?))?,
        1083 => time(i64::from_le_bytes(head(bytes)?), None)?,
        1186 => interval(bytes)?,
        3802 => jsonb::text(varlena(bytes)?)?,
        1184 => format!("{}+00", moment(i64::from_le_bytes(head(bytes)?))?),
        2950 => uuid(bytes)?,
        of => library.label(of, u32::from_le_bytes(head(bytes)?))?.to_owned(),
    })
}

pub(super) fn head<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

/// The data behind a long, uncompressed header that says how much there is.
pub(super) fn varlena(bytes: &[u8]) -> Option<&[u8]> {
    let header = u32::from_le_bytes(head(bytes)?);
    let whole = usize::try_from(header >> 2).ok()?;
    let plain = header & 3 == 0 && whole == bytes.len();
    if plain { bytes.get(HEADER_BYTES..) } else { None }
}

/// A number that is neither infinity.
fn finite(value: i64, most: i32) -> Option<i64> {
    let most = i64::from(most);
    (value != most && value != -most - 1).then_some(value)
}

fn moment(micros: i64) -> Option<String> {
    if micros == i64::MAX || micros == i64::MIN {
        return None;
    }
    let (day, rest) = (micros.div_euclid(datetime::DAY), micros.rem_euclid(datetime::DAY));
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let day = datetime::print_day(day);
    // The era stands behind the time.
    if day.ends_with("BC") {
        return None;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{day} {hour:02}:{minute:02}:{second:02}.{micros:06}"))
}

/// `HH:MM:SS.ffffff`, with any number of hours where a sign may stand before it.
fn time(micros: i64, sign: Option<&str>) -> Option<String> {
    if sign.is_none() && !(0..=datetime::DAY).contains(&micros) {
        return None;
    }
    let micros = micros.checked_abs()?;
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Some(format!("{}{hour:02}:{minute:02}:{second:02}.{micros:06}", sign.unwrap_or_default()))
}

/// `Interval` (`src/include/datatype/timestamp.h`): microseconds, days, months.
fn interval(bytes: &[u8]) -> Option<String> {
    let micros = i64::from_le_bytes(head(bytes)?);
    let days = i32::from_le_bytes(head(bytes.get(8..)?)?);
    let months = i32::from_le_bytes(head(bytes.get(12..)?)?);
    let time = time(micros, Some(if micros < 0 { "-" } else { "" }))?;
    Some(format!("{months} mons {days} days {time}"))
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(36);
    for (at, byte) in head::<16>(bytes)?.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// `NumericData` (`src/backend/utils/adt/numeric.c`): a header, and digits to the base of 10,000.
pub(super) fn numeric(data: &[u8]) -> Option<String> {
    const SHORT: u16 = 0x8000;
    const NEGATIVE: u16 = 0x4000;
    let header = u16::from_le_bytes(head(data)?);
    let (negative, scale, weight, digits) = match header & 0xc000 {
        SHORT => {
            let weight = i32::from(header & 0x3f) - if header & 0x40 == 0 { 0 } else { 0x40 };
            (header & 0x2000 != 0, (header & 0x1f80) >> 7, weight, data.get(2..)?)
        }
        0 | NEGATIVE => {
            let weight = i16::from_le_bytes(head(data.get(2..)?)?);
            (header & 0xc000 == NEGATIVE, header & 0x3fff, i32::from(weight), data.get(4..)?)
        }
        // NaN and the infinities.
        _ => return None,
    };
    let groups: Vec<i16> =
        digits.chunks(2).map(|two| head(two).map(i16::from_le_bytes)).collect::<Option<_>>()?;
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied();
    let mut text = if negative { "-".to_owned() } else { String::new() };
    if weight < 0 {
        text.push('0');
    }
    for at in 0..=weight {
        let digits = group(at).unwrap_or(0);
        let _ = if at == 0 { write!(text, "{digits}") } else { write!(text, "{digits:04}") };
    }
    if scale > 0 {
        let mut fraction = String::new();
        let mut at = weight + 1;
        // The groups between the point and the first digit are zeros that are not stored.
        for _ in weight + 1..0 {
            fraction.push_str("0000");
        }
        at = at.max(0);
        while fraction.len() < usize::from(scale) {
            let _ = write!(fraction, "{:04}", group(at).unwrap_or(0));
            at += 1;
        }
        text.push('.');
        text.push_str(fraction.get(..usize::from(scale))?);
    }
    Some(text)
}

/// `ArrayType` of one dimension that begins at 1 (`src/include/utils/array.h`).
fn array(bytes: &[u8], element: u32, library: &Library) -> Option<String> {
    let data = varlena(bytes)?;
    let word = |at: usize| Some(i32::from_le_bytes(head(data.get(at * 4..)?)?));
    let (dimensions, offset, of) = (word(0)?, word(1)?, word(2)?);
    if of.cast_unsigned() != element || offset != 0 {
        return None;
    }
    match dimensions {
        0 => return Some("{}".to_owned()),
        1 if word(4)? == 1 => {}
        _ => return None,
    }
    let (size, align) = match element {
        21 => (Some(2), 2),
        23 | 26 | 1082 => (Some(4), 4),
        20 | 701 => (Some(8), 8),
        2950 => (Some(16), 1),
        16 => (Some(1), 1),
        25 | 1043 | 1700 => (None, 4),
        of if library.is_enum(of) => (Some(4), 4),
        _ => return None,
    };
    // Alignment counts from the array's own beginning.
    let mut at = HEADER_BYTES + 5 * 4;
    let mut text = "{".to_owned();
    for index in 0..word(3)? {
        at = at.next_multiple_of(align);
        let rest = bytes.get(at..)?;
        let size = match size {
            Some(size) => size,
            None => usize::try_from(u32::from_le_bytes(head(rest)?) >> 2).ok()?,
        };
        let value = scalar(rest.get(..size)?, element, library)?;
        if index > 0 {
            text.push(',');
        }
        text.push('"');
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
        at += size;
    }
    text.push('}');
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(of: u32, bytes: &[u8]) -> String {
        let text = text(bytes, of, &Library::default());
        text.unwrap_or_else(|_| "refused".to_owned())
    }

    #[test]
    fn constants_are_printed_as_postgres_does() {
        assert_eq!(shown(23, &[251, 255, 255, 255, 255, 255, 255, 255]), "-5");
        assert_eq!(shown(16, &[1, 0, 0, 0, 0, 0, 0, 0]), "t");
        assert_eq!(shown(25, &[20, 0, 0, 0, b'x']), "x");
        assert_eq!(shown(1700, &[40, 0, 0, 0, 128, 128, 2, 0, 136, 19]), "2.5");
        assert_eq!(shown(1700, &[32, 0, 0, 0, 255, 128, 232, 3]), "0.1");
        assert_eq!(shown(1082, &[62, 34, 0, 0, 0, 0, 0, 0]), "2024-01-01");
        let bytes = [0, 64, 233, 212, 213, 176, 2, 0];
        assert_eq!(shown(1184, &bytes), "2024-01-01 00:00:00.000000+00");
        assert_eq!(shown(1083, &[0, 164, 147, 214, 0, 0, 0, 0]), "01:00:00.000000");
        let bytes = [0, 92, 108, 41, 255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(shown(1186, &bytes), "2 mons 1 days -01:00:00.000000");
        let array = [
            160, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0,
            97, 0, 0, 0, 20, 0, 0, 0, 98, 0, 0, 0,
        ];
        assert_eq!(shown(1009, &array), "{\"a\",\"b\"}");
    }

    #[test]
    fn what_is_not_what_it_says_is_refused() {
        assert_eq!(shown(25, &[24, 0, 0, 0, b'x']), "refused");
        assert_eq!(shown(25, &[0, 0, 0, 20, b'x']), "refused");
        assert_eq!(shown(2950, &[1, 2, 3]), "refused");
        assert_eq!(shown(3802, &[16, 0, 0, 0]), "refused");
        assert_eq!(shown(3802, &[32, 0, 0, 0, 1, 0, 0, 32]), "refused");
        assert_eq!(shown(1083, &[255; 8]), "refused");
        assert_eq!(shown(1700, &[24, 0, 0, 0, 0, 192]), "refused");
    }
}

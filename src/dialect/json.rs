//! Pieces of JSON that every dialect writes.

use std::io::Write;

use crate::change::transaction::Timestamp;
use crate::change::tuple::Cell;
use crate::change::value::write_json_with;
use crate::route::projection::Projected;
use crate::route::projection::Projection;

/// Appends a row image as a JSON object of the projected columns that it holds. A column whose value
/// is not in the image is left out: it is not null.
pub fn row(image: &[Cell<'_>], projection: &Projection, out: &mut Vec<u8>) {
    columns(image, projection, |_| true, out);
}

/// Appends the key of a row image; the whole image where the key is not delivered.
pub fn key(image: &[Cell<'_>], projection: &Projection, out: &mut Vec<u8>) {
    let whole = !projection.has_key();
    columns(image, projection, |column| whole || column.in_key, out);
}

fn columns(
    image: &[Cell<'_>],
    projection: &Projection,
    wanted: impl Fn(&Projected) -> bool,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let mut first = true;
    for column in projection.columns.iter().filter(|column| wanted(column)) {
        let cell = image.get(column.position).copied().unwrap_or(Cell::Unchanged);
        if cell.is_missing() {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(&column.label);
        value(cell, column, projection, out);
    }
    out.push(b'}');
}

fn value(cell: Cell<'_>, column: &Projected, projection: &Projection, out: &mut Vec<u8>) {
    let of = projection.relation.columns.get(column.position);
    match (cell, of) {
        (Cell::Text(text), Some(of)) => {
            write_json_with(text, &of.of, projection.big_numbers, out);
        }
        _ => out.extend_from_slice(b"null"),
    }
}

/// The names of the projected columns that exist in a new row but are not in its image.
pub fn unchanged<'a>(
    image: &[Cell<'_>],
    projection: &'a Projection,
) -> impl Iterator<Item = &'a Projected> {
    let missing = |column: &&Projected| image.get(column.position) == Some(&Cell::Unchanged);
    let missing: Vec<&Projected> = projection.columns.iter().filter(missing).collect();
    missing.into_iter()
}

/// Appends a time as ISO 8601 in UTC with microseconds, in quotes.
///
/// The date is found by the days-to-civil algorithm over 400-year eras that begin in March
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
///
/// # Panics
///
/// Never: memory can be written to.
pub fn timestamp(at: Timestamp, out: &mut Vec<u8>) {
    const DAY: i64 = 86_400_000_000;
    /// Days from 0000-03-01 to 2000-01-01.
    const EPOCH: i64 = 730_425;
    let days = at.0.div_euclid(DAY) + EPOCH;
    let micros = at.0.rem_euclid(DAY);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(out, "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z\"")
        .expect("memory can be written to");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(micros: i64, expected: &str) {
        let mut out = Vec::new();
        timestamp(Timestamp(micros), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
    }

    #[test]
    fn times_are_iso_8601_in_utc() {
        check(0, "2000-01-01T00:00:00.000000Z");
        check(-1, "1999-12-31T23:59:59.999999Z");
        check(5_097_600_000_000, "2000-02-29T00:00:00.000000Z");
        check(5_184_000_000_000, "2000-03-01T00:00:00.000000Z");
        check(848_534_399_123_456, "2026-11-20T23:59:59.123456Z");
    }
}

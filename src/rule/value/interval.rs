//! `interval` in PostgreSQL's own style (`1 year 2 mons 3 days 04:05:06`).
//!
//! Intervals compare by their length with months of 30 days and days of 24 hours, so that is all
//! that is kept of them.

use crate::rule::value::datetime;
use crate::rule::value::datetime::DAY;

/// How many words are looked at.
const WORDS_MAX: usize = 16;

/// The length in days and the microseconds of the last one.
pub(in crate::rule) fn span(text: &str) -> Option<(i64, i64)> {
    match text {
        "infinity" => return Some((i64::MAX, 0)),
        "-infinity" => return Some((i64::MIN, 0)),
        _ => {}
    }
    let (mut days, mut micros) = (0_i64, 0_i64);
    let mut words = text.split(' ');
    let mut seen = Vec::new();
    while let Some(word) = words.next() {
        if seen.len() > WORDS_MAX {
            return None;
        }
        if word.contains(':') {
            micros = micros.checked_add(time(word)?)?;
            // Nothing may follow the time in what PostgreSQL prints.
            if words.next().is_some() {
                return None;
            }
            break;
        }
        let number = signed(word)?;
        let unit = words.next()?;
        let (unit, in_days, in_micros) = match unit {
            "year" | "years" => ("year", 360, 0),
            "mon" | "mons" | "month" | "months" => ("month", 30, 0),
            "week" | "weeks" => ("week", 7, 0),
            "day" | "days" => ("day", 1, 0),
            "hour" | "hours" => ("hour", 0, 3_600_000_000),
            "min" | "mins" | "minute" | "minutes" => ("minute", 0, 60_000_000),
            "sec" | "secs" | "second" | "seconds" => ("second", 0, 1_000_000),
            _ => return None,
        };
        if seen.contains(&unit) {
            return None;
        }
        seen.push(unit);
        days = days.checked_add(number.checked_mul(in_days)?)?;
        micros = micros.checked_add(number.checked_mul(in_micros)?)?;
    }
    Some((days.checked_add(micros.div_euclid(DAY))?, micros.rem_euclid(DAY)))
}

/// A whole number that no field of an interval overflows by.
fn signed(word: &str) -> Option<i64> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let plain =
        (1..=10).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = plain.then(|| digits.parse().ok())??;
    Some(if word.starts_with('-') { -number } else { number })
}

/// `[-]HH:MM:SS[.ffffff]` with any number of hours.
fn time(word: &str) -> Option<i64> {
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    let (hours, rest) = unsigned.split_once(':')?;
    let plain = (1..=10).contains(&hours.len()) && hours.bytes().all(|byte| byte.is_ascii_digit());
    let hours: i64 = plain.then(|| hours.parse().ok())??;
    let micros = datetime::clock(&format!("00:{rest}"))?;
    // PostgreSQL reads `HH:MM` too, and `00:` before it makes minutes of the hours.
    if rest.split(':').count() != 2 {
        return None;
    }
    let micros = hours.checked_mul(3_600_000_000)?.checked_add(micros)?;
    Some(if word.starts_with('-') { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_has_thirty_days_and_a_day_24_hours() {
        assert_eq!(span("1 mon"), span("30 days"));
        assert_eq!(span("1 day"), span("24:00:00"));
        assert_eq!(span("1 year 2 mons 3 days 04:05:06.5"), Some((423, 14_706_500_000)));
        assert_eq!(span("-1 days +02:03:00"), Some((-1, 7_380_000_000)));
        assert_eq!(span("-00:00:00.000001"), Some((-1, DAY - 1)));
        assert_eq!(span("2 hours 30 minutes"), span("02:30:00"));
    }

    #[test]
    fn other_styles_are_refused() {
        for text in
            ["", "P1D", "1", "1 day 2", "1.5 days", "1 day ago", "1 day 1 day", "1:2", "@ 1 day"]
        {
            assert_eq!(span(text), None, "{text:?}");
        }
    }
}

//! Dates and times in ISO form, as PostgreSQL prints them with `DateStyle` ISO and zone UTC.
//!
//! The same readers take literals: what PostgreSQL prints is what a rule may say, with `T` and `Z`
//! and without seconds too. Other forms that PostgreSQL knows are refused.

/// Microseconds of a day.
pub(in crate::rule) const DAY: i64 = 86_400_000_000;

/// Whether a text may end in a zone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::rule) enum Zone {
    /// It may; without one it is UTC.
    Optional,
    /// It may not.
    Refused,
}

/// 4714-11-24 BC, Julian day 0, counted from 2000-01-01.
const DAY_MIN: i64 = -2_451_545;
/// 5874897-12-31.
const DAY_MAX: i64 = 2_145_031_948;
/// 294276-12-31 23:59:59.999999.
const MOMENT_MAX: i64 = 9_223_371_331_199_999_999;

/// A `date`: days since 2000-01-01.
pub(in crate::rule) fn day(text: &str) -> Option<i64> {
    if let Some(end) = infinity(text) {
        return Some(end);
    }
    let (text, era) = era(text);
    let day = civil(text, era)?;
    (DAY_MIN..=DAY_MAX).contains(&day).then_some(day)
}

/// A `timestamp` or `timestamptz`: microseconds since 2000-01-01, in UTC.
pub(in crate::rule) fn moment(text: &str, zone: Zone) -> Option<i64> {
    if let Some(end) = infinity(text) {
        return Some(end);
    }
    let (text, era) = era(text);
    let Some((date, time)) = text.split_once([' ', 'T']) else {
        return civil(text, era).map(midnight).filter(|moment| is_moment(*moment));
    };
    let (time, west) = split_zone(time)?;
    if west.is_some() && zone == Zone::Refused {
        return None;
    }
    let time = clock(time).filter(|micros| *micros < DAY)?;
    let shift = west.unwrap_or(0).checked_mul(1_000_000)?;
    let moment = civil(date, era)?.checked_mul(DAY)?.checked_add(time)?.checked_add(shift)?;
    is_moment(moment).then_some(moment)
}

/// A `time`: microseconds since midnight, 24:00:00 included.
pub(in crate::rule) fn clock(text: &str) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, 0),
        Some((whole, digits)) => (whole, fraction(digits)?),
    };
    let mut parts = whole.split(':');
    let (hours, minutes) = (two(parts.next()?)?, two(parts.next()?)?);
    let seconds = match parts.next() {
        None if text.contains('.') => return None,
        None => 0,
        Some(part) => two(part)?,
    };
    if parts.next().is_some() || minutes > 59 || seconds > 59 {
        return None;
    }
    let micros = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction;
    (micros <= DAY).then_some(micros)
}

/// A `timetz`: the microseconds since midnight in UTC, and the zone in seconds west.
pub(in crate::rule) fn zoned(text: &str) -> Option<(i64, i64)> {
    let (time, west) = split_zone(text)?;
    let west = west?;
    Some((clock(time)?.checked_add(west.checked_mul(1_000_000)?)?, west))
}

/// The moment at which a day begins. Days that no timestamp reaches lie between the last one and
/// infinity, where PostgreSQL puts them.
pub(in crate::rule) const fn midnight(day: i64) -> i64 {
    if day == i64::MAX || day == i64::MIN {
        return day;
    }
    match day.checked_mul(DAY) {
        Some(moment) => moment,
        None => i64::MAX - 1,
    }
}

/// The moment at which a day begins; `None` where PostgreSQL raises.
pub(in crate::rule) fn exact_midnight(day: i64) -> Option<i64> {
    let moment = midnight(day);
    (day == i64::MAX || day == i64::MIN || is_moment(moment)).then_some(moment)
}

/// The day that a moment lies in.
pub(in crate::rule) const fn day_of(moment: i64) -> i64 {
    if moment == i64::MAX || moment == i64::MIN { moment } else { moment.div_euclid(DAY) }
}

/// A day as PostgreSQL prints it.
pub(in crate::rule) fn print_day(day: i64) -> String {
    if day == i64::MAX {
        return "infinity".to_owned();
    }
    if day == i64::MIN {
        return "-infinity".to_owned();
    }
    // Days since 0000-03-01, in eras of 400 years.
    let days = day.saturating_add(730_425);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year > 0 {
        format!("{year:04}-{month:02}-{day:02}")
    } else {
        format!("{:04}-{month:02}-{day:02} BC", 1 - year)
    }
}

const fn is_moment(moment: i64) -> bool {
    moment >= DAY_MIN * DAY && moment <= MOMENT_MAX
}

fn infinity(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// `YYYY-MM-DD` with four digits of the year or more, as days since 2000-01-01.
fn civil(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, two(parts.next()?)?, two(parts.next()?)?);
    let plain = (4..=7).contains(&year.len()) && year.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !plain {
        return None;
    }
    let year: i64 = year.parse().ok()?;
    let year = match (year, before_christ) {
        (0, _) => return None,
        (year, true) => 1 - year,
        (year, false) => year,
    };
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    // Years begin in March here, so that the odd day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(era * 146_097 + of_era - 730_425)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0
            && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) =>
        {
            29
        }
        2 => 28,
        _ => 31,
    }
}

fn two(text: &str) -> Option<i64> {
    match text.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    }
}

/// Up to six digits after the point, as microseconds.
pub(in crate::rule) fn fraction(digits: &str) -> Option<i64> {
    let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let scale = u32::try_from(6_usize.checked_sub(digits.len())?).ok()?;
    plain.then(|| digits.parse::<i64>().ok()?.checked_mul(10_i64.pow(scale)))?
}

/// Splits `+HH`, `+HH:MM`, `+HH:MM:SS` or `Z` off a time: the seconds west of UTC.
fn split_zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, Some(0)));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let (time, zone) = text.split_at_checked(at)?;
    let (sign, zone) = zone.split_at_checked(1)?;
    let mut seconds = 0;
    let mut unit = 3600;
    for (index, part) in zone.split(':').enumerate() {
        let value = two(part)?;
        let bound = if index == 0 { 15 } else { 59 };
        if index > 2 || value > bound {
            return None;
        }
        seconds += value * unit;
        unit /= 60;
    }
    Some((time, Some(if sign == "+" { -seconds } else { seconds })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_are_counted_from_2000() {
        assert_eq!(day("2000-01-01"), Some(0));
        assert_eq!(day("1999-12-31"), Some(-1));
        assert_eq!(day("1970-01-01"), Some(-10_957));
        assert_eq!(day("4714-11-24 BC"), Some(DAY_MIN));
        assert_eq!(day("5874897-12-31"), Some(DAY_MAX));
        assert_eq!(day("infinity"), Some(i64::MAX));
        assert_eq!(day("0001-12-31 BC").unwrap() + 1, day("0001-01-01").unwrap());
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-1-1",
            "26-01-01",
            "0000-01-01",
            "today",
            "2026-01-01 ",
            "5874898-01-01",
            "4715-01-01 BC",
            "20260101",
            "1900-02-29",
        ] {
            assert_eq!(day(text), None, "{text:?}");
        }
        assert!(day("2000-02-29").is_some() && day("0001-02-29 BC").is_some());
    }

    #[test]
    fn moments_are_read_with_and_without_zone() {
        let second = 1_000_000;
        assert_eq!(moment("2000-01-01 00:00:01", Zone::Refused), Some(second));
        assert_eq!(moment("2000-01-01T00:00:01.5Z", Zone::Optional), Some(second + 500_000));
        assert_eq!(moment("2000-01-01 02:00:00+02", Zone::Optional), Some(0));
        assert_eq!(moment("2000-01-01 00:00-00:30", Zone::Optional), Some(1800 * second));
        assert_eq!(moment("2000-01-01", Zone::Optional), Some(0));
        assert_eq!(moment("2000-01-01 02:00:00+02", Zone::Refused), None);
        assert_eq!(moment("294276-12-31 23:59:59.999999", Zone::Refused), Some(MOMENT_MAX));
        for text in [
            "2000-01-01 24:00:00",
            "2000-01-01 00:60",
            "2000-01-01 1:00",
            "now",
            "294277-01-01 00:00:00",
            "2000-01-01 00:00:00.1234567",
            "2000-01-01 00:00:00+16",
        ] {
            assert_eq!(moment(text, Zone::Optional), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_compared_in_utc() {
        assert_eq!(clock("24:00:00"), Some(DAY));
        assert_eq!(clock("24:00:01"), None);
        assert_eq!(zoned("02:00:00+02").unwrap().0, zoned("00:00:00+00").unwrap().0);
        assert_eq!(zoned("02:00:00"), None);
    }

    proptest! {
        #[test]
        fn a_printed_day_reads_back(number in DAY_MIN..=DAY_MAX) {
            prop_assert_eq!(day(&print_day(number)), Some(number));
        }
    }
}

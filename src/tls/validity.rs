//! Until when a certificate is good: the one thing of it that is not rustls' to say.
//!
//! X.509 (RFC 5280, section 4.1) in DER: a certificate is a sequence whose first part is a sequence
//! of, among others, the version (which may be absent), a number, an algorithm, the issuer, and two
//! times.

use std::time::Duration;
use std::time::SystemTime;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's time; none where it is not one that can be read.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let signed = inside(certificate, SEQUENCE)?.0;
    let mut rest = inside(signed, SEQUENCE)?.0;
    if let Some((_, after)) = inside(rest, VERSION) {
        rest = after;
    }
    // Number, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let times = inside(rest, SEQUENCE)?.0;
    let (tag, text, _) = element(element(times)?.2)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of an element of this kind, and what follows it.
fn inside(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// An element's tag and content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(*first), rest),
        _ => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let bytes = length.len();
            let length = length.iter().fold(0, |all: usize, byte| all << 8 | usize::from(*byte));
            (Some(length).filter(|_| bytes <= 4)?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDhhmmssZ`, or with four digits of the year.
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let digits = rest.strip_suffix('Z').filter(|digits| digits.len() == 10)?;
    let part = |at: usize| digits.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let seconds = part(4)? * 3600 + part(6)? * 60 + part(8)?;
    let days = days_since_1970(year, month, day)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + seconds))
}

/// By the calendar that begins in March, where a leap day is the last of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let in_year = (153 * month + 2) / 5 + day.checked_sub(1)?;
    let all = year * 365 + year / 4 - year / 100 + year / 400 + in_year;
    // The first of March of the year 0 was so long before.
    all.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tag: u8, text: &str, expected: Option<u64>) {
        let found = time(tag, text).map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert_eq!(found.map(|it| it.as_secs()), expected, "{text}");
    }

    #[test]
    fn times_are_read_in_both_forms() {
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "240229235959Z", Some(1_709_251_199));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "21261028044645Z", Some(4_948_836_405));
        check(UTC_TIME, "500101000000Z", None);
        check(UTC_TIME, "2402292359Z", None);
        check(0x04, "700101000000Z", None);
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x84, 255, 255, 255, 255], b"x"] {
            assert_eq!(not_after(bytes), None);
        }
    }
}

//! What a client resumes from.

use std::fmt;
use std::str::FromStr;

use crate::change::lsn::Lsn;

/// The history that a position belongs to: positions of two different sources can't be compared.
///
/// A base backup that was promoted shares the system identifier but not the timeline, so both
/// are kept (`IDENTIFY_SYSTEM` tells them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The cluster's system identifier, made by `initdb`.
    pub system: u64,
    /// The timeline; one more after each promotion.
    pub timeline: u32,
}

/// A place between two changes: everything up to and including change `index` of the transaction
/// that ends at `end_lsn` was delivered, nothing after it.
///
/// A cursor whose `index` is [`Cursor::WHOLE`] stands after the whole transaction (or, on a quiet
/// database, at a position where no transaction ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The history that the position is of.
    pub source: Source,
    /// Where the transaction's commit record ends.
    pub end_lsn: Lsn,
    /// Which change of the transaction was the last, counted from 0 over its row changes.
    pub index: u32,
}

/// The text is not a cursor that this daemon made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor (expected the text of a `cursor` field, unchanged)")]
pub struct ParseCursorError;

impl Cursor {
    /// The index of a cursor that stands after the whole transaction.
    pub const WHOLE: u32 = u32::MAX;

    /// The place after everything that ended at or before `end_lsn`.
    #[must_use]
    pub const fn after(source: Source, end_lsn: Lsn) -> Cursor {
        Cursor { source, end_lsn, index: Cursor::WHOLE }
    }

    /// Whether it stands after the whole transaction.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.index == Cursor::WHOLE
    }
}

impl fmt::Display for Cursor {
    /// Four hexadecimal numbers, joined by points. Clients must take it as opaque.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { system, timeline } = self.source;
        write!(f, "{system:x}.{timeline:x}.{:x}.{:x}", self.end_lsn.bytes(), self.index)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Cursor, ParseCursorError> {
        let mut parts = text.split('.');
        let mut next = |bits: u32| {
            let digits = parts.next().filter(|part| !part.is_empty()).ok_or(ParseCursorError)?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(ParseCursorError);
            }
            let number = u64::from_str_radix(digits, 16).map_err(|_| ParseCursorError)?;
            if bits < 64 && number >> bits != 0 { Err(ParseCursorError) } else { Ok(number) }
        };
        let narrow = |number: u64| u32::try_from(number).map_err(|_| ParseCursorError);
        let system = next(64)?;
        let timeline = narrow(next(32)?)?;
        let end_lsn = Lsn::new(next(64)?);
        let index = narrow(next(32)?)?;
        match parts.next() {
            None => Ok(Cursor { source: Source { system, timeline }, end_lsn, index }),
            Some(_) => Err(ParseCursorError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn printed_cursor_reads_back(system: u64, timeline: u32, end: u64, index: u32) {
            let source = Source { system, timeline };
            let cursor = Cursor { source, end_lsn: Lsn::new(end), index };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn malformed_cursor_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4.5", "1..3.4", "x.1.2.3", "1.100000000.2.3", "+1.1.1.1"] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text:?}");
        }
    }
}

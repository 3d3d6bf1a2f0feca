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

/// A place between two changes in one history. Positions are ordered as the log is.
///
/// A transaction's changes are told by where its commit record begins, because the stream says that
/// before them; where the record ends is known only after the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// With an index of 0: everything that ended at or before it lies before the position. Else:
    /// where the commit record of the transaction begins that the position lies in.
    pub lsn: Lsn,
    /// How many of the transaction's row changes lie before the position.
    pub index: u32,
}

/// What a client resumes from: a position, and the history that it is of. Everything before it was
/// delivered, nothing after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The history that the position is of.
    pub source: Source,
    /// The position.
    pub position: Position,
}

/// The text is not a cursor that this daemon made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor (expected the text of a `cursor` field, unchanged)")]
pub struct ParseCursorError;

impl Position {
    /// After everything that ended at or before `lsn`; before everything that ended after it.
    #[must_use]
    pub const fn after(lsn: Lsn) -> Position {
        Position { lsn, index: 0 }
    }

    /// After the first `count` changes of the transaction whose commit record begins at
    /// `commit_lsn`.
    #[must_use]
    pub const fn within(commit_lsn: Lsn, count: u32) -> Position {
        Position { lsn: commit_lsn, index: count }
    }
}

impl Cursor {
    /// After everything that ended at or before `lsn`.
    #[must_use]
    pub const fn after(source: Source, lsn: Lsn) -> Cursor {
        Cursor { source, position: Position::after(lsn) }
    }
}

impl fmt::Display for Cursor {
    /// Four hexadecimal numbers, joined by points. Clients must take it as opaque.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Source { system, timeline } = self.source;
        let Position { lsn, index } = self.position;
        write!(f, "{system:x}.{timeline:x}.{:x}.{index:x}", lsn.bytes())
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
        let lsn = Lsn::new(next(64)?);
        let index = narrow(next(32)?)?;
        match parts.next() {
            None => Ok(Cursor {
                source: Source { system, timeline },
                position: Position { lsn, index },
            }),
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
        fn printed_cursor_reads_back(system: u64, timeline: u32, lsn: u64, index: u32) {
            let source = Source { system, timeline };
            let cursor = Cursor { source, position: Position { lsn: Lsn::new(lsn), index } };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }

    #[test]
    fn a_position_lies_after_what_ended_there_and_before_what_begins_to_commit_there() {
        let (ended, first, second) = (
            Position::after(Lsn::new(7)),
            Position::within(Lsn::new(7), 1),
            Position::within(Lsn::new(7), 2),
        );
        assert!(ended < first && first < second && second < Position::after(Lsn::new(8)));
    }

    #[test]
    fn malformed_cursor_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4.5", "1..3.4", "x.1.2.3", "1.100000000.2.3", "+1.1.1.1"] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseCursorError), "{text:?}");
        }
    }
}

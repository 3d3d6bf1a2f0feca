//! Positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A log sequence number: a byte position in the write-ahead log.
///
/// Ordered as the log is. Written the way PostgreSQL writes `pg_lsn`, as two hexadecimal halves
/// (`16/B374D848`), by `Debug` too, so that snapshots can be read.
///
/// A bare `Lsn` does not say whether it names the start or the end of a record; a field or an
/// argument that holds one does (`commit_lsn`, `end_lsn`, `confirmed_lsn`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

/// The text is not of the form `XXXXXXXX/XXXXXXXX`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an LSN (expected two hexadecimal halves, as in 16/B374D848)")]
pub struct ParseLsnError;

impl Lsn {
    /// The position before the first byte. PostgreSQL calls it the invalid LSN; in
    /// `START_REPLICATION` it means "from where the slot was last confirmed", in a standby status
    /// "no change".
    pub const ZERO: Lsn = Lsn(0);

    /// The position `bytes` from the beginning of the log.
    #[must_use]
    pub const fn new(bytes: u64) -> Lsn {
        Lsn(bytes)
    }

    /// How many bytes the position is from the beginning of the log: its form on the wire.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many bytes of log lie between `earlier` and this position; 0 where `earlier` is not
    /// earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        let half = |digits: &str| {
            let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !hexadecimal || digits.len() > 8 {
                return Err(ParseLsnError);
            }
            u64::from_str_radix(digits, 16).map_err(|_| ParseLsnError)
        };
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn printed_lsn_reads_back(bytes: u64) {
            let lsn = Lsn::new(bytes);
            prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
    }

    #[test]
    fn malformed_lsn_is_refused() {
        for text in ["", "/", "16", "16/", "/16", "+1/2", "1/2/3", "1/100000000", "g/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
        }
    }
}

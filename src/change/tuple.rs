//! One row image, read where it lies.
//!
//! A tuple stays in the form in which the stream sent it (`replication` chapter "Logical
//! Replication Message Formats", `TupleData`): a count of columns as `Int16`, then for each a kind
//! byte and, for a text, its length as `Int32` and its bytes. Reading a cell costs a few
//! nanoseconds and copies nothing; a change nobody wants is never taken apart.
//!
//! One kind is our own: where a large value was left out on its way in (`ingest::condense`), `o`
//! stands for `t`, and its length is all that there is of it.

use smallvec::SmallVec;

/// One column of a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// The value exists, but this image does not hold it: a large value that the UPDATE did not
    /// touch (`TOAST`), or a column outside the replica identity. Never to be taken for NULL.
    Unchanged,
    /// The value exists and is too large to be kept. Never to be taken for NULL.
    Omitted {
        /// How many bytes it has, as its type's output function prints it.
        bytes: u32,
    },
    /// The value as its type's output function prints it. UTF-8, but for databases in `SQL_ASCII`.
    Text(&'a [u8]),
}

impl Cell<'_> {
    /// Whether the column has a value that this image does not hold.
    #[must_use]
    pub const fn is_missing(self) -> bool {
        matches!(self, Cell::Unchanged | Cell::Omitted { .. })
    }
}

/// The cells of one row image, by column position.
pub type Row<'a> = SmallVec<[Cell<'a>; 16]>;

/// A row image in its wire form, already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<'a> {
    wire: &'a [u8],
    condensed: bool,
}

/// Why bytes are not a tuple.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TupleError {
    /// They end early.
    #[error("tuple ends inside column {column}")]
    Truncated {
        /// The column, counted from 0.
        column: usize,
    },
    /// A column is of no known kind. Binary columns (`b`) count: they are never asked for.
    #[error("column {column} is of unknown kind 0x{kind:02x}")]
    UnknownKind {
        /// The column, counted from 0.
        column: usize,
        /// The kind byte.
        kind: u8,
    },
}

impl<'a> Tuple<'a> {
    /// Checks and takes the tuple that `bytes` begin with; also returns how long it is.
    ///
    /// # Errors
    ///
    /// [`TupleError`] when `bytes` don't begin with a whole tuple.
    pub fn take(bytes: &'a [u8]) -> Result<(Tuple<'a>, usize), TupleError> {
        let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else {
            return Err(TupleError::Truncated { column: 0 });
        };
        let mut condensed = false;
        for column in 0..usize::from(u16::from_be_bytes(*count)) {
            rest = skip_cell(rest, column, &mut condensed)?;
        }
        let length = bytes.len() - rest.len();
        Ok((Tuple { wire: bytes.get(..length).unwrap_or(bytes), condensed }, length))
    }

    /// The tuple in `wire`, which [`Tuple::take`] has accepted before.
    #[must_use]
    pub(in crate::change) const fn checked(wire: &'a [u8], condensed: bool) -> Tuple<'a> {
        Tuple { wire, condensed }
    }

    /// Whether a cell is [`Cell::Omitted`].
    #[must_use]
    pub const fn is_condensed(self) -> bool {
        self.condensed
    }

    /// The wire form.
    #[must_use]
    pub const fn wire(self) -> &'a [u8] {
        self.wire
    }

    /// How many columns it has.
    #[must_use]
    pub fn len(self) -> usize {
        self.wire.first_chunk::<2>().map_or(0, |count| usize::from(u16::from_be_bytes(*count)))
    }

    /// Whether it has no columns.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The cells, in column order.
    pub fn cells(self) -> impl Iterator<Item = Cell<'a>> {
        let mut rest = self.wire.get(2..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (kind, after) = rest.split_first()?;
            match kind {
                b'n' => {
                    rest = after;
                    Some(Cell::Null)
                }
                b't' => {
                    let (length, after) = after.split_first_chunk::<4>()?;
                    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                    let (text, after) = after.split_at_checked(length)?;
                    rest = after;
                    Some(Cell::Text(text))
                }
                b'o' => {
                    let (bytes, after) = after.split_first_chunk::<4>()?;
                    rest = after;
                    Some(Cell::Omitted { bytes: u32::from_be_bytes(*bytes) })
                }
                _ => {
                    rest = after;
                    Some(Cell::Unchanged)
                }
            }
        })
    }

    /// The cell of one column; costs a step for each column before it.
    #[must_use]
    pub fn cell(self, column: usize) -> Option<Cell<'a>> {
        self.cells().nth(column)
    }

    /// All cells at once, for rules that look at several.
    #[must_use]
    pub fn row(self) -> Row<'a> {
        self.cells().collect()
    }
}

fn skip_cell<'a>(
    bytes: &'a [u8],
    column: usize,
    condensed: &mut bool,
) -> Result<&'a [u8], TupleError> {
    let truncated = TupleError::Truncated { column };
    let Some((kind, rest)) = bytes.split_first() else { return Err(truncated) };
    match kind {
        b'n' | b'u' => Ok(rest),
        b't' => {
            let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(truncated) };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            rest.get(length..).ok_or(truncated)
        }
        b'o' => {
            *condensed = true;
            rest.get(4..).ok_or(truncated)
        }
        &kind => Err(TupleError::UnknownKind { column, kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &[u8] = b"\0\x05t\0\0\0\x02abnut\0\0\0\0o\0\0\x01\0";

    #[test]
    fn cells_are_read_where_they_lie() {
        let (tuple, length) = Tuple::take(MIXED).unwrap();
        assert_eq!(length, MIXED.len());
        let cells: Vec<_> = tuple.cells().collect();
        let (ab, empty) = (Cell::Text(&b"ab"[..]), Cell::Text(&b""[..]));
        let omitted = Cell::Omitted { bytes: 256 };
        assert_eq!(cells, [ab, Cell::Null, Cell::Unchanged, empty, omitted]);
        assert!(tuple.is_condensed());
        assert_eq!(tuple.cell(2), Some(Cell::Unchanged));
        assert_eq!(tuple.cell(5), None);
    }

    #[test]
    fn every_proper_prefix_is_truncated() {
        for end in 0..MIXED.len() {
            let result = Tuple::take(&MIXED[..end]);
            assert!(matches!(result, Err(TupleError::Truncated { .. })), "{end}: {result:?}");
        }
    }

    #[test]
    fn what_follows_the_tuple_is_left_alone() {
        let (tuple, length) = Tuple::take(b"\0\x01nrest").unwrap();
        assert_eq!((tuple.wire(), length), (&b"\0\x01n"[..], 3));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let result = Tuple::take(b"\0\x02nb");
        assert_eq!(result, Err(TupleError::UnknownKind { column: 1, kind: b'b' }));
    }
}

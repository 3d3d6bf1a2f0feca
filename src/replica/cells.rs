//! The values of a table's rows, column by column, in as few bytes as their type lets them have.
//!
//! A uuid has 16 bytes and an integer 8; what else there is stays the text that it is, inline where
//! it is short. A cell is written out again as the stream would carry it.
//!
//! # Invariants
//!
//! - What comes out is what went in, byte for byte; a text that would not is missing, never another.
//!   (Test `what_is_packed_comes_out_again`.)

use std::io::Write as _;

use smallvec::SmallVec;

use crate::change::tuple::Cell;
use crate::change::types::Kind;
use crate::replica::chunks::Chunks;

/// How the values of a column are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Uuid,
    Int,
    Bool,
    Text,
}

/// A value, packed. Two of one column are equal exactly where their texts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Packed<'a> {
    /// There is a value, and it is not known.
    Missing,
    Null,
    Uuid(u128),
    Int(i64),
    Bool(bool),
    Text(&'a [u8]),
}

/// Bytes that are written out, most of them a few.
pub(super) type Scratch = SmallVec<[u8; 256]>;

impl Packing {
    pub(super) const fn of(kind: &Kind) -> Packing {
        match kind {
            Kind::Uuid => Packing::Uuid,
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid => Packing::Int,
            Kind::Bool => Packing::Bool,
            _ => Packing::Text,
        }
    }

    /// The bytes of a value, where all have as many; 0 where they don't.
    pub(super) const fn width(self) -> usize {
        match self {
            Packing::Uuid => 16,
            Packing::Int => 8,
            Packing::Bool | Packing::Text => 0,
        }
    }

    /// The cell, packed; absent where it is what it was before.
    pub(super) fn pack(self, cell: Cell<'_>) -> Option<Packed<'_>> {
        Some(match cell {
            Cell::Unchanged => return None,
            Cell::Omitted { .. } => Packed::Missing,
            Cell::Null => Packed::Null,
            Cell::Text(text) => self.pack_text(text).unwrap_or(Packed::Missing),
        })
    }

    /// The text, packed; absent where no value of the type is written like this.
    pub(super) fn pack_text(self, text: &[u8]) -> Option<Packed<'_>> {
        match self {
            Packing::Uuid => uuid(text).map(Packed::Uuid),
            Packing::Int => int(text).map(Packed::Int),
            Packing::Bool => match text {
                b"t" => Some(Packed::Bool(true)),
                b"f" => Some(Packed::Bool(false)),
                _ => None,
            },
            Packing::Text => Some(Packed::Text(text)),
        }
    }
}

impl Packed<'_> {
    /// Appends its text; `None` where it has none.
    pub(super) fn write(self, out: &mut Scratch) -> Option<()> {
        match self {
            Packed::Missing | Packed::Null => return None,
            Packed::Uuid(value) => write_uuid(value, out),
            Packed::Int(value) => write!(out, "{value}").expect("memory can be written to"),
            Packed::Bool(value) => out.push(if value { b't' } else { b'f' }),
            Packed::Text(text) => out.extend_from_slice(text),
        }
        Some(())
    }
}

fn uuid(text: &[u8]) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut value = 0;
    for (at, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'-' if is_hyphen(at) => continue,
            b'0'..=b'9' if !is_hyphen(at) => byte - b'0',
            b'a'..=b'f' if !is_hyphen(at) => byte - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u128::from(digit);
    }
    Some(value)
}

fn write_uuid(value: u128, out: &mut Scratch) {
    let mut shift = 128;
    for at in 0..36 {
        if is_hyphen(at) {
            out.push(b'-');
            continue;
        }
        shift -= 4;
        let digit = u8::try_from(value >> shift & 0xF).unwrap_or(0);
        out.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
    }
}

const fn is_hyphen(at: usize) -> bool {
    matches!(at, 8 | 13 | 18 | 23)
}

fn int(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// One column of all rows.
#[derive(Debug)]
struct Column {
    packing: Packing,
    states: Chunks<State>,
    uuids: Chunks<u128>,
    ints: Chunks<i64>,
    texts: Chunks<SmallVec<[u8; 16]>>,
    /// Rows whose value is missing.
    missing: usize,
    /// Bytes of texts that are not inline.
    spilled: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Null,
    Missing,
    Value,
    True,
}

impl Column {
    const fn new(packing: Packing) -> Column {
        Column {
            packing,
            states: Chunks::new(),
            uuids: Chunks::new(),
            ints: Chunks::new(),
            texts: Chunks::new(),
            missing: 0,
            spilled: 0,
        }
    }

    fn get(&self, row: u32) -> Packed<'_> {
        match (self.states.value(row), self.packing) {
            (State::Null, _) => Packed::Null,
            (State::Missing, _) => Packed::Missing,
            (State::True, _) => Packed::Bool(true),
            (State::Value, Packing::Bool) => Packed::Bool(false),
            (State::Value, Packing::Uuid) => Packed::Uuid(self.uuids.value(row)),
            (State::Value, Packing::Int) => Packed::Int(self.ints.value(row)),
            (State::Value, Packing::Text) => {
                Packed::Text(self.texts.get(row).map(SmallVec::as_slice).unwrap_or_default())
            }
        }
    }

    fn set(&mut self, row: u32, value: Packed<'_>) {
        let state = match value {
            Packed::Null => State::Null,
            Packed::Missing => State::Missing,
            Packed::Bool(true) => State::True,
            Packed::Bool(false) | Packed::Uuid(_) | Packed::Int(_) | Packed::Text(_) => {
                State::Value
            }
        };
        let place = self.states.slot(row);
        self.missing -= usize::from(*place == State::Missing);
        self.missing += usize::from(state == State::Missing);
        *place = state;
        match value {
            Packed::Uuid(value) => *self.uuids.slot(row) = value,
            Packed::Int(value) => *self.ints.slot(row) = value,
            Packed::Text(text) => self.set_text(row, text),
            _ if self.packing == Packing::Text => self.set_text(row, b""),
            _ => {}
        }
    }

    fn set_text(&mut self, row: u32, text: &[u8]) {
        let place = self.texts.slot(row);
        self.spilled -= spilled(place);
        *place = SmallVec::from_slice(text);
        self.spilled += spilled(place);
    }

    fn copy(&mut self, from: u32, to: u32) {
        if self.packing == Packing::Text {
            let text = self.texts.get(from).cloned().unwrap_or_default();
            let value = match self.get(from) {
                Packed::Text(_) => Packed::Text(&text),
                Packed::Missing => Packed::Missing,
                _ => Packed::Null,
            };
            return self.set(to, value);
        }
        let value = match self.get(from) {
            Packed::Uuid(value) => Packed::Uuid(value),
            Packed::Int(value) => Packed::Int(value),
            Packed::Bool(value) => Packed::Bool(value),
            Packed::Missing => Packed::Missing,
            Packed::Null | Packed::Text(_) => Packed::Null,
        };
        self.set(to, value);
    }

    const fn bytes(&self) -> usize {
        let values = self.uuids.bytes() + self.ints.bytes() + self.texts.bytes();
        self.states.bytes() + values + self.spilled
    }
}

fn spilled(text: &SmallVec<[u8; 16]>) -> usize {
    if text.spilled() { text.capacity() } else { 0 }
}

/// All columns of all rows.
#[derive(Debug)]
pub(super) struct Cells(Vec<Column>);

impl Cells {
    pub(super) fn new(packings: impl Iterator<Item = Packing>) -> Cells {
        Cells(packings.map(Column::new).collect())
    }

    pub(super) fn columns(&self) -> usize {
        self.0.len()
    }

    pub(super) fn packing(&self, column: usize) -> Option<Packing> {
        self.0.get(column).map(|column| column.packing)
    }

    /// What is not there is NULL.
    pub(super) fn get(&self, column: usize, row: u32) -> Packed<'_> {
        self.0.get(column).map_or(Packed::Null, |column| column.get(row))
    }

    pub(super) fn set(&mut self, column: usize, row: u32, value: Packed<'_>) {
        if let Some(column) = self.0.get_mut(column) {
            column.set(row, value);
        }
    }

    pub(super) fn copy(&mut self, column: usize, from: u32, to: u32) {
        if let Some(column) = self.0.get_mut(column) {
            column.copy(from, to);
        }
    }

    /// Gives the memory of a row's long texts back.
    pub(super) fn clear(&mut self, row: u32) {
        for column in &mut self.0 {
            column.set(row, Packed::Null);
        }
    }

    /// Whether some row's value of the column is missing.
    pub(super) fn has_missing(&self, column: usize) -> bool {
        self.0.get(column).is_some_and(|column| column.missing > 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Column::bytes).sum::<usize>() + self.0.capacity() * size_of::<Column>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let uuid = b"0123f567-89ab-cdef-0123-456789abcdef";
        for (packing, text, fits) in [
            (Packing::Uuid, &uuid[..], true),
            (Packing::Uuid, &uuid.to_ascii_uppercase()[..], false),
            (Packing::Uuid, b"0123f5678-9ab-cdef-0123-456789abcdef", false),
            (Packing::Uuid, b"", false),
            (Packing::Int, b"0", true),
            (Packing::Int, b"-9223372036854775808", true),
            (Packing::Int, b"9223372036854775808", false),
            (Packing::Int, b"-0", false),
            (Packing::Int, b"+1", false),
            (Packing::Int, b"01", false),
            (Packing::Int, b"", false),
            (Packing::Bool, b"t", true),
            (Packing::Bool, b"f", true),
            (Packing::Bool, b"true", false),
            (Packing::Text, b"", true),
            (Packing::Text, b"a text that is longer than what is inline", true),
        ] {
            let mut cells = Cells::new([packing].into_iter());
            let packed = packing.pack(Cell::Text(text)).unwrap();
            cells.set(0, 700, packed);
            cells.copy(0, 700, 3);
            let mut out = Scratch::new();
            let written = cells.get(0, 3).write(&mut out);
            assert_eq!(written.is_some(), fits, "{packing:?} {text:?}");
            assert!(!fits || out.as_slice() == text, "{packing:?} {text:?} {out:?}");
            assert_eq!(cells.has_missing(0), !fits);
            cells.clear(700);
            cells.clear(3);
            assert_eq!((cells.get(0, 3), cells.has_missing(0)), (Packed::Null, false));
            assert_eq!(cells.0[0].spilled, 0);
        }
    }
}

//! Rows in the text form of COPY.

use smallvec::SmallVec;

use crate::change::tuple::Cell;
use crate::change::tuple::Row;

/// The cells of a row, without the newline at its end. What is escaped is written into `plain`.
pub(super) fn cells<'a>(row: &'a [u8], plain: &'a mut Vec<u8>) -> Row<'a> {
    plain.clear();
    let mut fields: SmallVec<[Field<'a>; 16]> = SmallVec::new();
    for field in row.split(|byte| *byte == b'\t') {
        if field == b"\\N" || !field.contains(&b'\\') {
            fields.push((field, None));
            continue;
        }
        let from = plain.len();
        unescape(field, plain);
        fields.push((field, Some((from, plain.len()))));
    }
    let plain: &[u8] = plain;
    let cell = |(field, place): &Field<'a>| match place {
        Some((from, to)) => Cell::Text(plain.get(*from..*to).unwrap_or_default()),
        None if *field == b"\\N" => Cell::Null,
        None => Cell::Text(field),
    };
    fields.iter().map(cell).collect()
}

/// What stands in the row, and where its meaning stands where that is another.
type Field<'a> = (&'a [u8], Option<(usize, usize)>);

fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => *other,
                None => b'\\',
            },
            byte => *byte,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copy_escapes_comes_out_as_it_was() {
        let mut plain = Vec::new();
        let cells = cells(b"a\\tb\t\\N\t\tc\t\\\\N\t\\b\\f\\n\\r\\v", &mut plain);
        let texts: [&[u8]; 5] = [b"a\tb", b"", b"c", b"\\N", b"\x08\x0c\n\r\x0b"];
        let mut texts = texts.map(Cell::Text).to_vec();
        texts.insert(1, Cell::Null);
        assert_eq!(cells.to_vec(), texts);
    }
}

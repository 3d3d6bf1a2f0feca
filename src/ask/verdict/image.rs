//! An image of a row, as PostgreSQL reads a value of the table's row type.

use std::sync::Arc;

use crate::ask::verdict::Matter;
use crate::change::tuple::Cell;

/// The columns of an image that a condition reads, as an element of an array of rows. Images that are
/// equal in what is read are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image(Arc<str>);

impl Image {
    /// Writes an image; `None` where a column that the condition reads is not in it.
    #[must_use]
    pub fn write(matter: &Matter, row: &[Cell<'_>]) -> Option<Image> {
        let mut out = String::with_capacity(matter.columns.len() * 2 + matter.reads.len() * 16);
        out.push_str("\"(");
        for (at, position) in matter.columns.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            let Some(position) = position else { continue };
            if matter.reads.binary_search(position).is_err() {
                continue;
            }
            match row.get(*position)? {
                Cell::Null => {}
                Cell::Text(text) => field(std::str::from_utf8(text).ok()?, &mut out),
                Cell::Unchanged | Cell::Omitted { .. } => return None,
            }
        }
        out.push_str(")\"");
        Some(Image(out.into()))
    }

    /// How long it is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
impl Image {
    /// An image that is not asked about.
    pub(crate) fn of(text: &str) -> Image {
        Image(text.into())
    }
}

/// A field of a row inside an element of an array: quoted twice.
fn field(text: &str, out: &mut String) {
    out.push_str("\\\"");
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\\\\\"),
            '"' => out.push_str("\\\\\\\""),
            other => out.push(other),
        }
    }
    out.push_str("\\\"");
}

/// The images as an array.
pub(super) fn array<'a>(images: impl Iterator<Item = &'a Image>) -> String {
    let mut out = "{".to_owned();
    for (at, image) in images.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&image.0);
    }
    out.push('}');
    out
}

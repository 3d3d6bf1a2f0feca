//! Frames that would be too large, or whose row is not whole here: they say less.
//!
//! A row is told whole, or without what it was before, or as a reference: its key, and the client
//! fetches it where it needs it. Nothing is left out silently, and no row keeps others back.

use crate::change::tuple::Cell;
use crate::metrics::shard::ShardMeter;
use crate::route::encode::Detail;
use crate::route::encode::Encode;
use crate::route::encode::RowFrame;
use crate::route::projection::Projection;
use crate::route::subscription::Op;

/// What a frame has at the most around its body: its header, `id` and cursor.
pub(crate) const AROUND_BODY: usize = 1 << 10;

/// What encoding a change needs beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) meter: &'a ShardMeter,
    /// How large a body may become.
    pub(crate) body_bytes_max: usize,
}

/// Writes the body of a frame as whole as it can be; `body` holds what was tried before.
#[cold]
pub(crate) fn write_reduced(
    dialect: &dyn Encode,
    mut row: RowFrame<'_>,
    writing: Writing<'_>,
    body: &mut Vec<u8>,
) {
    let bytes = size(&row);
    let whole = is_whole(row.visible.new_row(), row.projection, false);
    let key_only = row.visible.op() == Op::Leave;
    let whole_old = is_whole(row.visible.old_row(), row.projection, key_only);
    let has_key = row.projection.has_key();
    let both = row.visible.new_row().is_some() && row.visible.old_row().is_some();
    let details = [
        (Detail::Whole, whole && whole_old),
        (Detail::OldKey, whole && both && has_key),
        (Detail::Reference { bytes, key: true }, has_key),
        // The key alone is too large, or not delivered.
        (Detail::Reference { bytes, key: false }, true),
    ];
    for (detail, _) in details.into_iter().filter(|(_, possible)| *possible) {
        body.clear();
        row.detail = detail;
        dialect.body(&row, body);
        if body.len() <= writing.body_bytes_max {
            break;
        }
    }
    if matches!(row.detail, Detail::Reference { .. }) {
        writing.meter.referenced();
    }
    body.shrink_to(writing.body_bytes_max);
}

/// Whether every value of the image that is to be shown is here.
fn is_whole(image: Option<&[Cell<'_>]>, projection: &Projection, key_only: bool) -> bool {
    let key_only = key_only && projection.has_key();
    let shown = projection.columns.iter().filter(|column| column.in_key || !key_only);
    let omitted =
        |position| matches!(image?.get(position), Some(Cell::Omitted { .. })).then_some(());
    shown.into_iter().all(|column| omitted(column.position).is_none())
}

/// How large the values to be shown are as text, of the row after the change where there is one.
fn size(row: &RowFrame<'_>) -> u64 {
    let image = row.visible.new_row().or(row.visible.old_row()).unwrap_or_default();
    let cells = row.projection.columns.iter().filter_map(|column| image.get(column.position));
    let bytes = cells.map(|cell| match cell {
        Cell::Text(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
        Cell::Omitted { bytes } => u64::from(*bytes),
        Cell::Null | Cell::Unchanged => 0,
    });
    bytes.sum()
}

//! The row images of one change, as far as the stream tells them.
//!
//! What is known depends on the table's replica identity. What is not known is
//! [`Cell::Unchanged`], never NULL: a rule that would need it is undecided.

use crate::change::relation::Relation;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::OldTuple;
use crate::change::tuple::Cell;
use crate::change::tuple::Row;
use crate::change::tuple::Tuple;
use crate::rule::Alone;
use crate::rule::Others;

/// The images of one change, taken apart once for all groups.
#[derive(Debug)]
pub(crate) struct Images<'a> {
    /// What happened.
    pub(crate) kind: ImageKind,
    /// The row after; absent for a delete and a truncate.
    pub(crate) new: Option<Row<'a>>,
    /// The row before; absent for an insert and a truncate.
    pub(crate) old: Option<Row<'a>>,
    /// Whether the stream sent the old image, or it was inferred from an unchanged key.
    pub(crate) old_sent: bool,
    /// Whether a value was left out as too large.
    pub(crate) condensed: bool,
    /// The rows of other tables: those by which the old image is judged, and those for the new one.
    pub(crate) others: Moments<'a>,
}

/// The rows of other tables before and after a change's transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments<'a> {
    pub(crate) before: &'a dyn Others,
    pub(crate) after: &'a dyn Others,
}

impl Moments<'_> {
    /// Nothing is known of other tables.
    pub(crate) const NONE: Moments<'static> = Moments { before: &Alone, after: &Alone };
}

/// What happened to the row, without its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// Nothing; it is there.
    Snapshot,
    Insert,
    Update,
    Delete,
    Truncate,
}

impl<'a> Images<'a> {
    /// The image of a row that is there.
    pub(crate) fn present(row: Tuple<'a>) -> Images<'a> {
        let (condensed, new) = (row.is_condensed(), Some(row.row()));
        Images {
            kind: ImageKind::Snapshot,
            new,
            old: None,
            old_sent: false,
            condensed,
            others: Moments::NONE,
        }
    }

    /// The image of a row that is there, as far as it is known.
    pub(crate) fn known(row: &[Cell<'a>]) -> Images<'a> {
        let new = Some(row.iter().copied().collect());
        let (kind, condensed) = (ImageKind::Snapshot, false);
        Images { kind, new, old: None, old_sent: false, condensed, others: Moments::NONE }
    }

    /// With the rows of other tables.
    pub(crate) fn among(self, others: Moments<'a>) -> Images<'a> {
        Images { others, ..self }
    }

    /// Takes a change apart.
    pub(crate) fn of(relation: &Relation, change: &ChangeKind<'a>) -> Images<'a> {
        match *change {
            ChangeKind::Insert { new } => {
                let (condensed, new) = (new.is_condensed(), Some(new.row()));
                Images {
                    kind: ImageKind::Insert,
                    new,
                    old: None,
                    old_sent: false,
                    condensed,
                    others: Moments::NONE,
                }
            }
            ChangeKind::Update { old, new } => update(relation, old, new),
            ChangeKind::Delete { old } => {
                let condensed = old.tuple().is_condensed();
                let old = Some(old_row(relation, old));
                Images {
                    kind: ImageKind::Delete,
                    new: None,
                    old,
                    old_sent: true,
                    condensed,
                    others: Moments::NONE,
                }
            }
            ChangeKind::Truncate => {
                let (kind, condensed) = (ImageKind::Truncate, false);
                Images {
                    kind,
                    new: None,
                    old: None,
                    old_sent: false,
                    condensed,
                    others: Moments::NONE,
                }
            }
        }
    }
}

fn update<'a>(relation: &Relation, old: Option<OldTuple<'a>>, new: Tuple<'a>) -> Images<'a> {
    let condensed = new.is_condensed() || old.is_some_and(|old| old.tuple().is_condensed());
    let mut new = new.row();
    let old_row = match old {
        Some(old) => {
            let old = old_row(relation, old);
            fill_unchanged(&mut new, &old);
            old
        }
        // Without an old image the identity's columns did not change.
        None => keep_identity(relation, &new),
    };
    let (new, old_sent) = (Some(new), old.is_some());
    Images {
        kind: ImageKind::Update,
        new,
        old: Some(old_row),
        old_sent,
        condensed,
        others: Moments::NONE,
    }
}

fn old_row<'a>(relation: &Relation, old: OldTuple<'a>) -> Row<'a> {
    match old {
        OldTuple::Full(tuple) => tuple.row(),
        OldTuple::Key(tuple) => keep_identity(relation, &tuple.row()),
    }
}

fn keep_identity<'a>(relation: &Relation, row: &Row<'a>) -> Row<'a> {
    let cells = relation.columns.iter().zip(row);
    cells.map(|(column, cell)| if column.in_identity { *cell } else { Cell::Unchanged }).collect()
}

/// A large value that the UPDATE did not touch is in the old image where that one is whole.
fn fill_unchanged<'a>(new: &mut Row<'a>, old: &Row<'a>) {
    for (new, old) in new.iter_mut().zip(old) {
        if *new == Cell::Unchanged {
            *new = *old;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::change::id::RelationId;
    use crate::change::id::TypeId;
    use crate::change::relation::Column;
    use crate::change::relation::ReplicaIdentity;
    use crate::change::types::Collation;
    use crate::change::types::Kind;
    use crate::change::types::Type;

    const ONE_BIG: &[u8] = b"\0\x02t\0\0\0\x011t\0\0\0\x03big";
    const ONE_UNCHANGED: &[u8] = b"\0\x02t\0\0\0\x011u";
    const TWO_NULL: &[u8] = b"\0\x02t\0\0\0\x012n";

    fn relation(full: bool) -> Relation {
        let column = |name: &str, in_identity| Column {
            name: name.into(),
            of: Arc::new(Type { id: TypeId(25), name: "text".into(), kind: Kind::Text }),
            modifier: -1,
            collation: Collation::Bytes,
            in_identity,
        };
        Relation {
            id: RelationId(1),
            version: 1,
            schema: "public".into(),
            name: "notes".into(),
            identity: if full { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
            columns: vec![column("id", true), column("body", full)],
            primary_key: vec![0],
        }
    }

    fn tuple(wire: &[u8]) -> Tuple<'_> {
        Tuple::take(wire).unwrap().0
    }

    #[test]
    fn an_unchanged_large_value_is_filled_from_a_full_old_image() {
        let old = Some(OldTuple::Full(tuple(ONE_BIG)));
        let change = ChangeKind::Update { old, new: tuple(ONE_UNCHANGED) };
        let relation = relation(true);
        let images = Images::of(&relation, &change);
        assert_eq!(images.new.unwrap().as_slice(), [Cell::Text(b"1"), Cell::Text(b"big")]);
    }

    #[test]
    fn a_key_says_nothing_of_the_other_columns() {
        let change = ChangeKind::Delete { old: OldTuple::Key(tuple(TWO_NULL)) };
        let relation = relation(false);
        let images = Images::of(&relation, &change);
        assert_eq!(images.old.unwrap().as_slice(), [Cell::Text(b"2"), Cell::Unchanged]);
    }

    #[test]
    fn without_an_old_image_the_key_is_what_it_was() {
        let change = ChangeKind::Update { old: None, new: tuple(ONE_BIG) };
        let relation = relation(false);
        let images = Images::of(&relation, &change);
        assert_eq!(images.old.unwrap().as_slice(), [Cell::Text(b"1"), Cell::Unchanged]);
        assert!(!images.old_sent);
    }
}

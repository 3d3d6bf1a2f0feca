//! A throttle bound to one shape of its table: which columns are the key, which ones the place, and
//! what each frame is to the frames that are held back.

use smallvec::SmallVec;

use crate::change::relation::Column;
use crate::change::relation::Relation;
use crate::change::tuple::Cell;
use crate::change::types::Kind;
use crate::route::conflation::Key;
use crate::route::conflation::Subject;
use crate::route::distance::Point;
use crate::route::image::Images;
use crate::route::plan::Refusal;
use crate::route::projection::Projection;
use crate::route::subscription::Op;
use crate::route::subscription::Throttle;

/// By which columns a subscription's frames are told apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keying {
    /// The key's columns.
    key: Box<[usize]>,
    /// Whether rows of equal keys are the same row.
    identifies: bool,
    /// Latitude and longitude.
    place: Option<(usize, usize)>,
}

impl Keying {
    /// Finds the throttle's columns in a table's shape.
    ///
    /// # Errors
    ///
    /// [`Refusal::ColumnForbidden`] where one is not there or `may_select` says no,
    /// [`Refusal::Throttle`] where one does not serve.
    pub(crate) fn bind(
        throttle: &Throttle,
        relation: &Relation,
        may_select: impl Fn(&str) -> bool,
    ) -> Result<Keying, Refusal> {
        let table = || format!("{}.{}", relation.schema, relation.name);
        let find = |name: &str| {
            let position = relation.column(name).filter(|_| may_select(name));
            let column = name.to_owned();
            position.ok_or_else(|| Refusal::ColumnForbidden { column, table: table() })
        };
        let key: Box<[usize]> = match &throttle.key {
            Some(names) => names.iter().map(|name| find(name)).collect::<Result<_, _>>()?,
            None => {
                let position = |at: &usize| relation.columns.get(*at);
                let names = relation.primary_key.iter().filter_map(position);
                names.map(|column| find(&column.name)).collect::<Result<_, _>>()?
            }
        };
        if key.is_empty() {
            let message = format!("{} has no primary key, so `throttle` needs a `key`", table());
            return Err(Refusal::Throttle { message });
        }
        let place = match &throttle.movement {
            Some(movement) => {
                let number = |name| numeric(relation, name, find(name)?);
                Some((number(&movement.latitude)?, number(&movement.longitude)?))
            }
            None => None,
        };
        let primary = &relation.primary_key;
        let identifies = !primary.is_empty() && primary.iter().all(|column| key.contains(column));
        Ok(Keying { key, identifies, place })
    }

    /// What a visible change is to the frames of its subscription that are held back.
    ///
    /// Where the key is the row's own, a row that is gone is just the newest that is known of it.
    /// Where it is not, another row of the key may be the one that counts, so a row that is gone
    /// neither waits nor is replaced. The same goes for a row that changed its key: nothing that
    /// comes later tells that the old one is void.
    pub(crate) fn subject(&self, op: Op, images: &Images<'_>, shown: &Projection) -> Subject {
        let old = || images.old.as_deref().and_then(|row| self.key_of(row));
        let new = || images.new.as_deref().and_then(|row| self.key_of(row));
        match op {
            Op::Truncate => Subject::End,
            Op::Leave | Op::Delete => match old() {
                Some(key) if self.identifies => {
                    Subject::Key { key, point: None, unchanged: SmallVec::new() }
                }
                Some(key) => Subject::Apart(smallvec::smallvec![key]),
                None => Subject::ApartFromAll,
            },
            Op::Snapshot | Op::Insert | Op::Enter => {
                new().map_or(Subject::ApartFromAll, |key| self.row(key, images, shown))
            }
            Op::Update => match (old(), new()) {
                (Some(before), Some(key)) if before == key => self.row(key, images, shown),
                (Some(before), Some(key)) => Subject::Apart(smallvec::smallvec![before, key]),
                _ => Subject::ApartFromAll,
            },
        }
    }

    fn row(&self, key: Key, images: &Images<'_>, shown: &Projection) -> Subject {
        let row = images.new.as_deref().unwrap_or_default();
        let cell = |column: usize| row.get(column).copied().unwrap_or(Cell::Unchanged);
        let place = self.place;
        let point = place.and_then(|(lat, lng)| Point::read(cell(lat), cell(lng)));
        let columns = shown.columns.iter().map(|column| column.position);
        let unchanged = columns.filter(|column| cell(*column) == Cell::Unchanged).collect();
        Subject::Key { key, point, unchanged }
    }

    /// The key of a row image; `None` where the image does not hold it.
    fn key_of(&self, row: &[Cell<'_>]) -> Option<Key> {
        let mut key = Key::new();
        for column in &self.key {
            match row.get(*column)? {
                Cell::Null => key.push(0),
                Cell::Unchanged | Cell::Omitted { .. } => return None,
                Cell::Text(text) => {
                    key.push(1);
                    key.extend_from_slice(&text.len().to_le_bytes());
                    key.extend_from_slice(text);
                }
            }
        }
        Some(key)
    }
}

fn numeric(relation: &Relation, name: &str, position: usize) -> Result<usize, Refusal> {
    let is_number = |column: &Column| {
        matches!(
            column.of.kind,
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric | Kind::Float4 | Kind::Float8
        )
    };
    if relation.columns.get(position).is_some_and(is_number) {
        return Ok(position);
    }
    let message = format!("column {name} is no number, so it can't be a part of `position`");
    Err(Refusal::Throttle { message })
}

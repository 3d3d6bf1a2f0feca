//! Which columns of a table are kept, by which of them its rows are found, and where they stand in
//! each shape that the table has had.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::change::id::RelationId;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::change::types::Type;
use crate::replica::cells::Packing;
use crate::replica::facts::Extent;
use crate::replica::unheld::Unheld;
use crate::rule::Wanted;

/// What a version of a row takes beside its cells, each of which takes one byte more than its value.
const LIFE_BYTES: usize = 16;
/// What it takes in each index.
const INDEX_BYTES: usize = 15;
/// The place of a text, and how long one may be to need no other.
const TEXT_BYTES: usize = 24;
const TEXT_INLINE: usize = 16;

/// What is kept of a table, of the shape that it had when this was decided.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) relation: Arc<Relation>,
    /// The columns: their positions in the relation, in their order. Their place here is their place
    /// wherever the rows are kept.
    columns: Vec<usize>,
    /// Places of the columns by which a change finds its row.
    pub(super) key: Vec<usize>,
    /// Places of the columns by which rows are looked for.
    pub(super) lookups: Vec<usize>,
}

/// Where the columns that are kept stand in one shape of the table.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    /// The shape.
    pub(super) version: u64,
    /// For each position of the shape the place of the column, where it is kept.
    places: Box<[Option<usize>]>,
    /// Whether all that is kept is in the shape.
    pub(super) whole: bool,
}

impl Kept {
    /// What has to be kept of `relation`, so that what is wanted can be answered.
    pub(super) fn new(wanted: &Wanted, relation: &Arc<Relation>) -> Result<Kept, Unheld> {
        let named: BTreeSet<&str> = wanted.columns.iter().map(|name| &**name).collect();
        let position = |name: &str| {
            relation.column(name).ok_or_else(|| Unheld::ColumnNotPublished { column: name.into() })
        };
        let wanted_at =
            named.iter().map(|name| position(name)).collect::<Result<BTreeSet<usize>, Unheld>>()?;
        let key = key(relation, &wanted_at)?;
        let columns: BTreeSet<usize> = wanted_at.iter().chain(&key).copied().collect();
        let columns: Vec<usize> = columns.into_iter().collect();
        let place = |position: &usize| columns.binary_search(position).ok();
        let lookups = wanted.lookups.iter().filter_map(|name| place(&relation.column(name)?));
        Ok(Kept {
            key: key.iter().filter_map(place).collect(),
            lookups: lookups.collect(),
            columns,
            relation: Arc::clone(relation),
        })
    }

    /// The names and types of the columns, in order.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, &Arc<Type>)> {
        let columns = self.columns.iter().filter_map(|at| self.relation.columns.get(*at));
        columns.map(|column| (&*column.name, &column.of))
    }

    /// Whether everything that is wanted is kept, and can be looked for.
    pub(super) fn covers(&self, wanted: &Wanted) -> bool {
        let place = |name: &str| self.columns().position(|(known, _)| known == name);
        wanted.columns.iter().all(|name| place(name).is_some())
            && wanted
                .lookups
                .iter()
                .all(|name| place(name).is_some_and(|place| self.lookups.contains(&place)))
    }

    /// Where the columns stand in a shape of the table. A column of another type is another column.
    pub(super) fn mapping(&self, relation: &Relation) -> Mapping {
        let place = |name: &str, of: &Arc<Type>| {
            self.columns().position(|(known, known_of)| known == name && known_of == of)
        };
        let places: Box<[Option<usize>]> =
            relation.columns.iter().map(|column| place(&column.name, &column.of)).collect();
        let all = places.iter().flatten().count() == self.columns.len();
        let whole = all && self.finds_by(relation, &places);
        Mapping { version: relation.version, places, whole }
    }

    /// Whether the old images of a shape tell their rows by what is the key here.
    fn finds_by(&self, relation: &Relation, places: &[Option<usize>]) -> bool {
        if relation.identity == ReplicaIdentity::Full {
            return true;
        }
        let told = relation.columns.iter().zip(places).filter(|(column, _)| column.in_identity);
        let told: Option<BTreeSet<usize>> = told.map(|(_, place)| *place).collect();
        told.is_some_and(|told| !told.is_empty() && told == self.key.iter().copied().collect())
    }

    pub(super) fn table(&self) -> RelationId {
        self.relation.id
    }

    /// About how many bytes so many rows take.
    pub(super) fn estimate(&self, Extent { rows, width }: Extent) -> usize {
        let packings: Vec<Packing> = self.columns().map(|(_, of)| Packing::of(&of.kind)).collect();
        let texts = packings.iter().filter(|packing| **packing == Packing::Text).count();
        let others: usize = packings.iter().map(|packing| packing.width()).sum();
        // What the planner holds for the width is that of all columns together.
        let text = width.saturating_sub(others).checked_div(texts).unwrap_or(0);
        let texts = texts * (TEXT_BYTES + if text > TEXT_INLINE { text } else { 0 });
        let indexes = (1 + self.lookups.len()) * INDEX_BYTES;
        rows.saturating_mul(LIFE_BYTES + packings.len() + others + texts + indexes)
    }
}

impl Mapping {
    /// The place of the column at a position of the shape.
    pub(super) fn place(&self, position: usize) -> Option<usize> {
        self.places.get(position).copied().flatten()
    }
}

/// The columns by which an old image tells its row.
fn key(relation: &Relation, wanted: &BTreeSet<usize>) -> Result<Vec<usize>, Unheld> {
    let identity = || {
        let columns = relation.columns.iter().enumerate();
        columns.filter(|(_, column)| column.in_identity).map(|(position, _)| position).collect()
    };
    let key: Vec<usize> = match relation.identity {
        ReplicaIdentity::Full if relation.primary_key.is_empty() => {
            wanted.iter().copied().collect()
        }
        ReplicaIdentity::Full => relation.primary_key.clone(),
        ReplicaIdentity::Default | ReplicaIdentity::Index => identity(),
        ReplicaIdentity::Nothing => Vec::new(),
    };
    if key.is_empty() && relation.identity != ReplicaIdentity::Full {
        return Err(Unheld::NoIdentity);
    }
    Ok(key)
}

//! The columns that a subscription gets.

use std::sync::Arc;

use crate::change::relation::Relation;
use crate::change::value::BigNumbers;

/// The columns to deliver of one shape of one table.
///
/// Subscriptions with an equal projection share frames, and the projection itself.
#[derive(Debug)]
pub struct Projection {
    /// The table's shape.
    pub relation: Arc<Relation>,
    /// The columns, in the order in which they are delivered.
    pub columns: Box<[Projected]>,
    /// How big numbers are written.
    pub big_numbers: BigNumbers,
}

/// One delivered column.
#[derive(Debug, PartialEq, Eq)]
pub struct Projected {
    /// Its position in the relation.
    pub position: usize,
    /// Whether it is part of the primary key.
    pub in_key: bool,
    /// Its name as a JSON string and a colon: `"name":`.
    pub label: Box<[u8]>,
}

impl Projection {
    /// Projects `relation` to the columns at `positions`.
    #[must_use]
    pub fn new(
        relation: Arc<Relation>,
        positions: &[usize],
        big_numbers: BigNumbers,
    ) -> Projection {
        let project = |&position: &usize| {
            let column = relation.columns.get(position)?;
            let mut label = serde_json::to_vec(&*column.name).ok()?;
            label.push(b':');
            let in_key = relation.primary_key.contains(&position);
            Some(Projected { position, in_key, label: label.into() })
        };
        let columns = positions.iter().filter_map(project).collect();
        Projection { relation, columns, big_numbers }
    }

    /// Whether the delivered columns identify a row.
    #[must_use]
    pub fn has_key(&self) -> bool {
        let key = &self.relation.primary_key;
        let delivered = self.columns.iter().filter(|column| column.in_key).count();
        !key.is_empty() && delivered == key.len()
    }
}

impl PartialEq for Projection {
    fn eq(&self, other: &Projection) -> bool {
        self.relation.version == other.relation.version
            && self.columns == other.columns
            && self.big_numbers == other.big_numbers
    }
}

//! A question for rows, and how it is written.

use std::fmt::Write;
use std::sync::Arc;

use crate::ask::verdict::UnsetSettings;
use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::change::relation::Relation;
use crate::rule::quoted_name;

/// Rows of one table, for one role. Positions are the relation's.
#[derive(Clone, Debug)]
pub struct Select {
    /// The table, in the shape for which the rows are wanted.
    pub relation: Arc<Relation>,
    /// Whether it is the root of a partitioned table, whose rows are in others.
    pub partitioned: bool,
    /// The role that asks.
    pub role: Box<str>,
    /// The settings that the table's own policies may look at, where it has any.
    pub settings: Vec<(Box<str>, Box<str>)>,
    /// What these may look at beside it: rows are those that a new session and a used one show.
    pub unset: Option<UnsetSettings>,
    /// The columns that are needed; the others are left out of the rows.
    pub columns: Vec<usize>,
    /// Which rows: a condition that was written by `rule`.
    pub condition: Option<Box<str>>,
    /// Of rows that are equal in these columns only the first.
    pub latest_by: Vec<usize>,
    /// In which order.
    pub order: Vec<Order>,
    /// How many at the most; absent: all, and too many are an error.
    pub limit: Option<usize>,
    /// The stream that is to go on from the rows, and where it began. An answer that was asked for
    /// before knows nothing of what was committed in between, and the stream does not bring it.
    pub stream: Option<(Source, Lsn)>,
}

/// One column of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// The column.
    pub column: usize,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// Whether NULL comes first; where absent, NULL is greater than all values.
    pub nulls_first: Option<bool>,
}

impl PartialEq for Select {
    fn eq(&self, other: &Select) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Select {}

impl std::hash::Hash for Select {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Select {
    /// What makes two questions equal: the version stands for the whole shape.
    fn key(&self) -> impl Eq + std::hash::Hash + '_ {
        (
            (self.relation.id.0, self.relation.version, &self.role, &self.settings, &self.columns),
            (&self.condition, &self.latest_by, &self.order, self.limit, self.stream),
            &self.unset,
        )
    }

    /// The statement, for at most `rows_max` rows and one more, which tells that there are more.
    pub(super) fn sql(&self, rows_max: usize) -> String {
        let limit = self.limit.unwrap_or(usize::MAX).min(rows_max.saturating_add(1));
        let from = self.from();
        let columns = self.names(self.columns.iter().copied());
        let order = self.order(&self.order);
        if self.latest_by.is_empty() {
            return format!("SELECT {columns} {from}{order} LIMIT {limit}");
        }
        // Which row is the first of its kind is one order, how the firsts come is another.
        let mut all = self.columns.clone();
        all.extend(self.order.iter().map(|by| by.column));
        all.sort_unstable();
        all.dedup();
        let distinct = self.names(self.latest_by.iter().copied());
        let by = self.latest_by.iter();
        let mut within: Vec<Order> =
            by.map(|&column| Order { column, descending: false, nulls_first: None }).collect();
        within.extend(&self.order);
        let within = self.order(&within);
        let all = self.names(all.into_iter());
        format!(
            "SELECT {columns} FROM (SELECT DISTINCT ON ({distinct}) {all} {from}{within}) AS latest{order} LIMIT {limit}"
        )
    }

    fn from(&self) -> String {
        // What inherits from a table is published under its own name; partitions are not.
        let only = if self.partitioned { "" } else { "ONLY " };
        let (schema, name) = (quoted_name(&self.relation.schema), quoted_name(&self.relation.name));
        let condition = self.condition.as_ref();
        let condition = condition.map(|sql| format!(" WHERE {sql}")).unwrap_or_default();
        format!("FROM {only}{schema}.{name}{condition}")
    }

    fn names(&self, positions: impl Iterator<Item = usize>) -> String {
        let columns = positions.filter_map(|position| self.relation.columns.get(position));
        columns.map(|column| quoted_name(&column.name)).collect::<Vec<_>>().join(", ")
    }

    fn order(&self, order: &[Order]) -> String {
        let mut out = String::new();
        for (index, by) in order.iter().enumerate() {
            let separator = if index == 0 { " ORDER BY " } else { ", " };
            let direction = if by.descending { " DESC" } else { "" };
            let nulls = match by.nulls_first {
                None => "",
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
            };
            let name = self.names(std::iter::once(by.column));
            write!(out, "{separator}{name}{direction}{nulls}").expect("memory can be written to");
        }
        out
    }

    /// Whether the table is, for the statement that asks, of the shape that the rows are wanted in.
    pub(super) fn shape_sql(&self) -> String {
        let columns = self.columns.iter().filter_map(|at| self.relation.columns.get(*at));
        let known: Vec<String> = columns
            .map(|column| {
                let name = column.name.replace('\'', "''");
                format!("('{name}', {}::oid, {})", column.of.id, column.modifier)
            })
            .collect();
        format!(
            "(SELECT count(*) = {} FROM pg_attribute WHERE attrelid = {}::oid AND NOT attisdropped \
             AND (attname::text, atttypid, atttypmod) IN ({}))",
            known.len(),
            self.relation.id,
            known.join(", ")
        )
    }

    /// Whether the rows that the snapshot can see are still where the statement looked for them: a
    /// TRUNCATE or a rewrite takes them away from older snapshots.
    pub(super) fn intact_sql(&self) -> String {
        let id = self.relation.id;
        format!(
            "SELECT pg_relation_filenode({id}::oid) IS NOT DISTINCT FROM \
             (SELECT nullif(relfilenode, 0) FROM pg_class WHERE oid = {id}::oid)"
        )
    }
}

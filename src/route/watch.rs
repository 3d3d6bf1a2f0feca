//! From a changed membership to the groups whose rule reads it.
//!
//! A rule that looks for `members.user_id = 'u7'` is watched for under that text, so that one user's
//! new membership does not concern the groups of all others. A rule that looks for nothing of its
//! own in a table is concerned by each change of it.

use std::collections::HashMap;

use crate::change::id::RelationId;
use crate::change::tuple::Cell;
use crate::route::group::GroupId;
use crate::rule::Key;
use crate::rule::Lookup;
use crate::rule::Rule;
use crate::rule::Source;

type ByText = HashMap<Box<[u8]>, Vec<GroupId>>;

/// The groups whose rules read other tables, by what they read.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    tables: HashMap<(RelationId, u64), Watched>,
}

/// The groups that read one shape of a table.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) table: RelationId,
    version: u64,
    /// By the column's position.
    by_text: Vec<(usize, ByText)>,
    any: Vec<GroupId>,
}

/// Where a source is watched for.
enum Place<'a> {
    Text(usize, &'a [u8]),
    Any,
}

impl Watches {
    /// Whether no rule reads another table.
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The shapes of tables that are read.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Watched> {
        self.tables.values()
    }

    /// Files a group under everything that its rule reads.
    pub(crate) fn insert(&mut self, group: GroupId, rule: &Rule) {
        for source in rule.sources() {
            let (table, version) = (source.table, source.version);
            let watched = self.tables.entry((table, version)).or_insert_with(|| Watched {
                table,
                version,
                by_text: Vec::new(),
                any: Vec::new(),
            });
            let under = match place(source) {
                Place::Any => &mut watched.any,
                Place::Text(column, text) => watched.under(column, text),
            };
            // What a rule reads twice is filed twice in a row.
            if under.last() != Some(&group) {
                under.push(group);
            }
        }
    }

    /// Takes a group out again.
    pub(crate) fn remove(&mut self, group: GroupId, rule: &Rule) {
        for source in rule.sources() {
            let key = (source.table, source.version);
            let Some(watched) = self.tables.get_mut(&key) else { continue };
            match place(source) {
                Place::Any => watched.any.retain(|known| *known != group),
                Place::Text(column, text) => {
                    let known = watched.by_text.iter_mut().find(|(known, _)| *known == column);
                    let Some((_, by_text)) = known else { continue };
                    if let Some(under) = by_text.get_mut(text) {
                        under.retain(|known| *known != group);
                        if under.is_empty() {
                            by_text.remove(text);
                        }
                    }
                }
            }
            watched.by_text.retain(|(_, by_text)| !by_text.is_empty());
            if watched.any.is_empty() && watched.by_text.is_empty() {
                self.tables.remove(&key);
            }
        }
    }
}

impl Watched {
    fn under(&mut self, column: usize, text: &[u8]) -> &mut Vec<GroupId> {
        let known = self.by_text.iter().position(|(known, _)| *known == column);
        let at = known.unwrap_or(self.by_text.len());
        if known.is_none() {
            self.by_text.push((column, HashMap::new()));
        }
        let (_, by_text) = self.by_text.get_mut(at).expect("it was found or made just now");
        by_text.entry(text.into()).or_default()
    }

    /// The table, with the columns by which rows are looked for.
    pub(crate) fn source(&self) -> Source {
        let columns = self.by_text.iter().map(|(column, _)| *column).collect();
        let (table, version) = (self.table, self.version);
        Source { table, version, columns, base: 0, lookups: Box::default() }
    }

    /// Collects the groups that a row concerns, whose cells are those of [`Watched::source`].
    pub(crate) fn concerned(&self, cells: &[Cell<'_>], into: &mut Vec<GroupId>) {
        into.extend(&self.any);
        for ((_, by_text), cell) in self.by_text.iter().zip(cells) {
            match cell {
                Cell::Text(text) => into.extend(by_text.get(*text).into_iter().flatten()),
                Cell::Null => {}
                // What it is can't be told, so it may be anything.
                Cell::Unchanged | Cell::Omitted { .. } => into.extend(by_text.values().flatten()),
            }
        }
    }

    /// Collects every group.
    pub(crate) fn all(&self, into: &mut Vec<GroupId>) {
        into.extend(&self.any);
        into.extend(self.by_text.iter().flat_map(|(_, by_text)| by_text.values().flatten()));
    }
}

fn place(source: &Source) -> Place<'_> {
    for Lookup { column, key } in &source.lookups {
        if let (Some(column), Key::Text(text)) = (source.columns.get(*column), key) {
            return Place::Text(*column, text);
        }
    }
    Place::Any
}

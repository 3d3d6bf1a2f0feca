//! From a change to the groups that may want it.
//!
//! A group whose rule demands that a column equals a value stands under (column, value), where the
//! value is the text that the stream would carry; a probe takes the cell's bytes as they lie. One
//! that demands one of several stands under each of them. The rest is scanned. A change costs what
//! it may match, not what is connected.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::change::tuple::Cell;
use crate::change::tuple::Row;
use crate::route::group::GroupId;
use crate::route::image::Images;
use crate::rule::Cover;
use crate::rule::Equality;

/// The groups that demand a value, by the text that the stream carries for it.
type ByValue = HashMap<Box<[u8]>, SmallVec<[u32; 2]>>;

/// The groups of one table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_value: Vec<(usize, ByValue)>,
    scanned: Vec<u32>,
    /// Those that no row can fulfil now.
    hidden: Vec<u32>,
    /// How many groups stand under values of several columns, so that a change may find one twice.
    spread: usize,
}

impl Index {
    /// Whether no group is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.scanned.is_empty() && self.by_value.is_empty() && self.hidden.is_empty()
    }

    /// Files a group under what its rule can be found by.
    pub(crate) fn insert(&mut self, group: GroupId, cover: &Cover) {
        let group = narrow(group);
        let Cover::Values(columns) = cover else {
            self.scanned.push(group);
            return;
        };
        if columns.is_empty() {
            self.hidden.push(group);
        }
        self.spread += usize::from(columns.len() > 1);
        for Equality { column, texts } in columns {
            let known = self.by_value.iter().position(|(known, _)| known == column);
            let at = known.unwrap_or_else(|| {
                self.by_value.push((*column, HashMap::new()));
                self.by_value.len() - 1
            });
            let Some((_, groups)) = self.by_value.get_mut(at) else { return };
            for value in texts {
                let under = match groups.get_mut(value) {
                    Some(under) => under,
                    None => groups.entry(value.clone()).or_default(),
                };
                // The same value may stand twice in a rule.
                if under.last() != Some(&group) {
                    under.push(group);
                }
            }
        }
    }

    /// Takes a group out again; `cover` is what it was filed under.
    pub(crate) fn remove(&mut self, group: GroupId, cover: &Cover) {
        let group = narrow(group);
        let Cover::Values(columns) = cover else {
            self.scanned.retain(|other| *other != group);
            return;
        };
        if columns.is_empty() {
            self.hidden.retain(|other| *other != group);
        }
        self.spread -= usize::from(columns.len() > 1);
        for Equality { column, texts } in columns {
            let known = self.by_value.iter_mut().find(|(known, _)| known == column);
            let Some((_, groups)) = known else { continue };
            for value in texts {
                if let Some(under) = groups.get_mut(value) {
                    under.retain(|other| *other != group);
                    if under.is_empty() {
                        groups.remove(value);
                    }
                }
            }
        }
        self.by_value.retain(|(_, groups)| !groups.is_empty());
    }

    /// The columns that a probe looks at.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        self.by_value.iter().map(|(column, _)| *column)
    }

    /// Whether every group stands under a value, so that a change without a hit is nobody's.
    pub(crate) fn probes_only(&self) -> bool {
        self.scanned.is_empty()
    }

    /// Whether a group stands, or may stand, under the value that `cell` has in `column`.
    pub(crate) fn hits(&self, column: usize, cell: Cell<'_>) -> bool {
        let Cell::Text(value) = cell else { return cell.is_missing() };
        self.by_value.iter().any(|(at, groups)| *at == column && groups.contains_key(value))
    }

    /// Collects the groups that may want a change, each once.
    pub(crate) fn candidates(&self, images: &Images<'_>, into: &mut Vec<GroupId>) {
        debug_assert!(into.is_empty(), "candidates are of one change");
        into.extend(self.scanned.iter().map(|group| widen(*group)));
        for (column, groups) in &self.by_value {
            let cell = |row: Option<&Row<'_>>| match row?.get(*column)? {
                Cell::Text(value) => groups.get(*value),
                Cell::Null | Cell::Unchanged | Cell::Omitted { .. } => None,
            };
            let (old, new) = (cell(images.old.as_ref()), cell(images.new.as_ref()));
            match (old, new) {
                (Some(old), Some(new)) if !std::ptr::eq(old, new) => {
                    let begin = into.len();
                    into.extend(old.iter().chain(new).map(|group| widen(*group)));
                    // A group that accepts several values may stand under both.
                    let mut both = into.split_off(begin);
                    both.sort_unstable();
                    both.dedup();
                    into.append(&mut both);
                }
                (Some(under), _) | (None, Some(under)) => {
                    into.extend(under.iter().map(|group| widen(*group)));
                }
                (None, None) => {}
            }
        }
        if self.spread > 0 {
            into.sort_unstable();
            into.dedup();
        }
    }

    /// Collects every group.
    pub(crate) fn all(&self, into: &mut Vec<GroupId>) {
        into.extend(self.scanned.iter().chain(&self.hidden).map(|group| widen(*group)));
        let values = self.by_value.iter().flat_map(|(_, groups)| groups.values());
        into.extend(values.flatten().map(|group| widen(*group)));
        into.sort_unstable();
        into.dedup();
    }
}

fn narrow(group: GroupId) -> u32 {
    u32::try_from(group).expect("a shard has fewer than 2^32 groups")
}

fn widen(group: u32) -> GroupId {
    usize::try_from(group).expect("usize has at least 32 bits")
}

//! Rows by the values of some columns.
//!
//! The table of hashes has one row of each value, four bytes; the others of the same value hang on
//! it, in a chain that goes both ways, so that any of them leaves without a search.

use std::hash::BuildHasher;
use std::hash::Hash;
use std::hash::Hasher;

use hashbrown::DefaultHashBuilder;
use hashbrown::HashTable;

use crate::replica::cells::Cells;
use crate::replica::cells::Packed;
use crate::replica::chunks::Chunks;

const NONE: u32 = u32::MAX;

/// Rows by the values of `columns`. A row must leave before one of these values changes.
#[derive(Debug)]
pub(super) struct Index {
    columns: Box<[usize]>,
    first: HashTable<u32>,
    links: Chunks<Link>,
    hashes: DefaultHashBuilder,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    before: u32,
}

impl Default for Link {
    fn default() -> Link {
        Link { next: NONE, before: NONE }
    }
}

impl Index {
    pub(super) fn new(columns: impl Into<Box<[usize]>>) -> Index {
        Index {
            columns: columns.into(),
            first: HashTable::new(),
            links: Chunks::new(),
            hashes: DefaultHashBuilder::default(),
        }
    }

    pub(super) const fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The first row with these values, in the order of the columns.
    pub(super) fn first(&self, cells: &Cells, key: &[Packed<'_>]) -> Option<u32> {
        let hash = hash(&self.hashes, key.iter().copied());
        let same = |row: &u32| {
            let pairs = self.columns.iter().zip(key);
            pairs.into_iter().all(|(column, value)| cells.get(*column, *row) == *value)
        };
        self.first.find(hash, same).copied()
    }

    /// The next row with the same values.
    pub(super) fn next(&self, row: u32) -> Option<u32> {
        Some(self.links.get(row)?.next).filter(|next| *next != NONE)
    }

    pub(super) fn insert(&mut self, cells: &Cells, row: u32) {
        let hash_of = |row: &u32| hash_row(&self.hashes, &self.columns, cells, *row);
        let hash = hash_of(&row);
        let columns = &self.columns;
        let same = |other: &u32| {
            columns.iter().all(|column| cells.get(*column, *other) == cells.get(*column, row))
        };
        match self.first.find_mut(hash, same) {
            Some(first) => {
                *self.links.slot(row) = Link { next: *first, before: NONE };
                self.links.slot(*first).before = row;
                *first = row;
            }
            None => {
                *self.links.slot(row) = Link::default();
                self.first.insert_unique(hash, row, hash_of);
            }
        }
    }

    pub(super) fn remove(&mut self, cells: &Cells, row: u32) {
        let Link { next, before } = std::mem::take(self.links.slot(row));
        if next != NONE {
            self.links.slot(next).before = before;
        }
        if before != NONE {
            self.links.slot(before).next = next;
            return;
        }
        let hash = hash_row(&self.hashes, &self.columns, cells, row);
        if let Ok(mut entry) = self.first.find_entry(hash, |first| *first == row) {
            if next == NONE {
                entry.remove();
            } else {
                *entry.get_mut() = next;
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.links.bytes() + self.first.allocation_size()
    }
}

fn hash_row(hashes: &DefaultHashBuilder, columns: &[usize], cells: &Cells, row: u32) -> u64 {
    hash(hashes, columns.iter().map(|column| cells.get(*column, row)))
}

fn hash<'a>(hashes: &DefaultHashBuilder, values: impl Iterator<Item = Packed<'a>>) -> u64 {
    let mut hasher = hashes.build_hasher();
    values.for_each(|value| value.hash(&mut hasher));
    hasher.finish()
}

//! The rows of one table, each version with the commit that made it and the one that ended it.
//!
//! # Invariants
//!
//! - A version is seen before a commit where it was born at an earlier one and died at this or a
//!   later one, and after it where it was born at this or an earlier one and died at a later one.
//!   What one transaction makes and ends is seen by nobody.
//! - A version that may still be seen stays where it is, so that reading may stop and go on.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::change::lsn::Lsn;
use crate::change::relation::ReplicaIdentity;
use crate::change::transaction::ChangeKind;
use crate::change::tuple::Tuple;
use crate::replica::cells::Cells;
use crate::replica::cells::Packed;
use crate::replica::cells::Packing;
use crate::replica::chunks::Chunks;
use crate::replica::index::Index;
use crate::replica::shape::Kept;
use crate::replica::shape::Mapping;

/// Died at no commit yet.
const ALIVE: u64 = u64::MAX;

/// Before or after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before a transaction that commits at the position. Also: after everything that ended at or
    /// before the position.
    Before,
    /// After it.
    After,
}

/// Which commits a version lived between.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    born: u64,
    died: u64,
}

impl Life {
    const fn is_seen(self, at: u64, moment: Moment) -> bool {
        match moment {
            Moment::Before => self.born < at && self.died >= at,
            Moment::After => self.born <= at && self.died > at,
        }
    }
}

/// The values of one row, by place; absent: as they were.
pub(super) type Image<'a> = SmallVec<[Option<Packed<'a>>; 8]>;

/// A change does not fit: its row is not there, or is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// The rows of one table.
#[derive(Debug)]
pub(super) struct Table {
    cells: Cells,
    lives: Chunks<Life>,
    /// Living versions by what old images tell.
    key: Index,
    /// Whether two living rows may have the same key.
    unique: bool,
    /// All versions by one column each.
    lookups: Vec<Index>,
    /// The first row number that was never used.
    end: u32,
    free: Vec<u32>,
    living: usize,
    /// Dead versions, in the order of their deaths.
    dead: VecDeque<u32>,
    /// Versions that a change made, in that order, with the commit.
    fresh: VecDeque<(u64, u32)>,
}

impl Table {
    pub(super) fn new(kept: &Kept) -> Table {
        let lookups = kept.lookups.iter().map(|column| Index::new([*column])).collect();
        Table {
            cells: Cells::new(kept.columns().map(|(_, of)| Packing::of(&of.kind))),
            lives: Chunks::new(),
            key: Index::new(kept.key.clone()),
            unique: kept.relation.identity != ReplicaIdentity::Full,
            lookups,
            end: 0,
            free: Vec::new(),
            living: 0,
            dead: VecDeque::new(),
            fresh: VecDeque::new(),
        }
    }

    /// How many rows there are now.
    pub(super) const fn living(&self) -> usize {
        self.living
    }

    /// How many versions are kept for who looks back.
    pub(super) fn dead(&self) -> usize {
        self.dead.len()
    }

    /// The memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        let indexes = self.lookups.iter().map(Index::bytes).sum::<usize>() + self.key.bytes();
        self.cells.bytes()
            + self.lives.bytes()
            + indexes
            + (self.free.capacity() + self.dead.capacity()) * size_of::<u32>()
            + self.fresh.capacity() * size_of::<(u64, u32)>()
    }

    /// The image that a tuple is.
    pub(super) fn image<'a>(&self, mapping: &Mapping, tuple: Tuple<'a>) -> Image<'a> {
        let mut image: Image<'a> = SmallVec::from_elem(None, self.cells.columns());
        for (position, cell) in tuple.cells().enumerate() {
            if let Some(place) = mapping.place(position)
                && let Some(packing) = self.cells.packing(place)
                && let Some(slot) = image.get_mut(place)
            {
                *slot = packing.pack(cell);
            }
        }
        image
    }

    /// Takes a row that a query brought: it was there before whatever is known here.
    pub(super) fn load(&mut self, image: &[Option<Packed<'_>>]) -> Result<(), Misfit> {
        self.add(None, image, 0)
    }

    /// Takes a change of the transaction that commits at `at`.
    pub(super) fn apply(
        &mut self,
        mapping: &Mapping,
        change: ChangeKind<'_>,
        at: Lsn,
    ) -> Result<(), Misfit> {
        let at = at.bytes();
        match change {
            ChangeKind::Insert { new } => {
                let image = self.image(mapping, new);
                self.insert(&image, at)
            }
            ChangeKind::Update { old, new } => {
                let image = self.image(mapping, new);
                let old = old.map(|old| self.image(mapping, old.tuple()));
                let row = self.find(old.as_ref().unwrap_or(&image)).ok_or(Misfit)?;
                self.update(row, &image, at)
            }
            ChangeKind::Delete { old } => {
                let image = self.image(mapping, old.tuple());
                let row = self.find(&image).ok_or(Misfit)?;
                self.end_row(row, at);
                Ok(())
            }
            ChangeKind::Truncate => {
                for row in 0..self.end {
                    if self.lives.value(row).died == ALIVE {
                        self.end_row(row, at);
                    }
                }
                Ok(())
            }
        }
    }

    fn insert(&mut self, image: &[Option<Packed<'_>>], at: u64) -> Result<(), Misfit> {
        if self.unique && self.find(image).is_some() {
            return Err(Misfit);
        }
        self.add(None, image, at)
    }

    /// The living row that an old image is of. Where several have its key, one that has its other
    /// values, too, as far as the image holds them.
    fn find(&self, image: &[Option<Packed<'_>>]) -> Option<u32> {
        let key = self.key.columns().iter().map(|column| image.get(*column).copied().flatten());
        let key: Option<SmallVec<[Packed<'_>; 4]>> = key.collect();
        let first = self.key.first(&self.cells, &key?)?;
        if self.unique {
            return Some(first);
        }
        let differs = |row: u32| {
            let values = image.iter().enumerate();
            values
                .into_iter()
                .any(|(at, value)| value.is_some_and(|value| self.cells.get(at, row) != value))
        };
        let mut row = Some(first);
        while let Some(this) = row {
            if !differs(this) {
                return row;
            }
            row = self.key.next(this);
        }
        Some(first)
    }

    fn update(&mut self, row: u32, image: &[Option<Packed<'_>>], at: u64) -> Result<(), Misfit> {
        let mut values = image.iter().enumerate();
        let same =
            values.all(|(at, value)| value.is_none_or(|value| self.cells.get(at, row) == value));
        if same {
            return Ok(());
        }
        if self.lives.value(row).born == at {
            self.replace(row, image);
            return Ok(());
        }
        self.end_row(row, at);
        self.add(Some(row), image, at)
    }

    /// Changes a version that the same transaction made, and that nobody has seen.
    fn replace(&mut self, row: u32, image: &[Option<Packed<'_>>]) {
        self.key.remove(&self.cells, row);
        for lookup in &mut self.lookups {
            lookup.remove(&self.cells, row);
        }
        for (column, value) in image.iter().enumerate() {
            if let Some(value) = value {
                self.cells.set(column, row, *value);
            }
        }
        self.index(row);
    }

    fn index(&mut self, row: u32) {
        self.key.insert(&self.cells, row);
        for lookup in &mut self.lookups {
            lookup.insert(&self.cells, row);
        }
    }

    /// Adds a version; what its image does not hold is as it was in `before`.
    fn add(
        &mut self,
        before: Option<u32>,
        image: &[Option<Packed<'_>>],
        at: u64,
    ) -> Result<(), Misfit> {
        let row = match self.free.pop() {
            Some(row) => row,
            None => {
                let row = self.end;
                // The last number means none.
                self.end = row.checked_add(1).filter(|end| *end < u32::MAX).ok_or(Misfit)?;
                row
            }
        };
        for (column, value) in image.iter().enumerate() {
            match (value, before) {
                (Some(value), _) => self.cells.set(column, row, *value),
                (None, Some(before)) => self.cells.copy(column, before, row),
                (None, None) => self.cells.set(column, row, Packed::Missing),
            }
        }
        *self.lives.slot(row) = Life { born: at, died: ALIVE };
        self.index(row);
        if at > 0 {
            self.fresh.push_back((at, row));
        }
        self.living += 1;
        Ok(())
    }

    fn end_row(&mut self, row: u32, at: u64) {
        self.key.remove(&self.cells, row);
        self.lives.slot(row).died = at;
        self.dead.push_back(row);
        self.living -= 1;
    }

    /// Gives up to `most` versions up that died before `until`; tells whether there are more.
    pub(super) fn forget(&mut self, until: Lsn, most: usize) -> bool {
        let until = until.bytes();
        for _ in 0..most {
            let Some(row) = self.dead.front().copied() else { break };
            if self.lives.value(row).died >= until {
                break;
            }
            self.dead.pop_front();
            for lookup in &mut self.lookups {
                lookup.remove(&self.cells, row);
            }
            self.cells.clear(row);
            *self.lives.slot(row) = Life::default();
            self.free.push(row);
        }
        while self.fresh.front().is_some_and(|(born, _)| *born < until) {
            self.fresh.pop_front();
        }
        self.dead.front().is_some_and(|row| self.lives.value(*row).died < until)
    }

    pub(super) const fn cells(&self) -> &Cells {
        &self.cells
    }

    /// How many row numbers were used.
    pub(super) const fn end(&self) -> u32 {
        self.end
    }

    pub(super) fn is_seen(&self, row: u32, at: Lsn, moment: Moment) -> bool {
        self.lives.value(row).is_seen(at.bytes(), moment)
    }

    /// All versions by this column, where there is such an index.
    pub(super) fn lookup(&self, column: usize) -> Option<&Index> {
        self.lookups.iter().find(|lookup| lookup.columns() == [column])
    }

    /// The versions that died at a commit, and those that were born at it.
    pub(super) fn touched(&self, at: Lsn) -> (Vec<u32>, Vec<u32>) {
        let at = at.bytes();
        let outlives = |row: &&u32| {
            let life = self.lives.value(**row);
            life.born != life.died
        };
        let from = self.dead.partition_point(|row| self.lives.value(*row).died < at);
        let died = self.dead.range(from..).take_while(|row| self.lives.value(**row).died == at);
        let from = self.fresh.partition_point(|(born, _)| *born < at);
        let born = self.fresh.range(from..).take_while(|(born, _)| *born == at);
        let died = died.filter(outlives).copied().collect();
        (died, born.map(|(_, row)| row).filter(outlives).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use tokio::time::Instant;

    use crate::change::id::RelationId;
    use crate::change::id::TypeId;
    use crate::change::relation::Column;
    use crate::change::relation::Relation;
    use crate::change::types::Collation;
    use crate::change::types::Kind;
    use crate::change::types::Type;
    use crate::replica::facts::Extent;
    use crate::rule::Wanted;

    const ROWS: u32 = 100_000;

    #[test]
    fn a_membership_of_two_uuids_takes_at_most_150_bytes() {
        let of = Arc::new(Type { id: TypeId(2950), name: "uuid".into(), kind: Kind::Uuid });
        let column = |name: &str| Column {
            name: name.into(),
            of: Arc::clone(&of),
            modifier: -1,
            collation: Collation::None,
            in_identity: true,
        };
        let relation = Arc::new(Relation {
            id: RelationId(1),
            version: 1,
            schema: "public".into(),
            name: "members".into(),
            identity: ReplicaIdentity::Default,
            columns: vec![column("org"), column("who")],
            primary_key: vec![0, 1],
        });
        let names = || [Box::from("org"), Box::from("who")].into_iter().collect();
        let wanted = Wanted { table: RelationId(1), columns: names(), lookups: names() };
        let kept = Kept::new(&wanted, &relation).unwrap();
        let mut table = Table::new(&kept);
        let began = Instant::now();
        // Every value once: no two rows share what is kept for a value.
        for row in 0..u128::from(ROWS) {
            let image = [Some(Packed::Uuid(row << 64)), Some(Packed::Uuid(row | 1 << 100))];
            table.load(&image).unwrap();
        }
        let (bytes, took) = (table.bytes(), began.elapsed());
        let each = bytes / 100_000;
        println!("{ROWS} rows of two uuids: {each} bytes each, {took:?}");
        assert_eq!(table.living(), 100_000);
        assert!(each <= 150, "{each}");
        let estimate = kept.estimate(Extent { rows: 100_000, width: 32 });
        assert!(estimate.abs_diff(bytes) * 5 < bytes, "{estimate} for {bytes}");
    }
}

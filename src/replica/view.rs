//! The rows as they were at one moment, for whoever judges by them.
//!
//! What is visited is copied out a few rows at a time, and nothing is locked while somebody looks at
//! them: so a subquery may ask inside a subquery, no shard waits for another, and who writes waits
//! for a few rows at the most.

use std::ops::ControlFlow;
use std::ops::Range;

use smallvec::SmallVec;

use crate::change::lsn::Lsn;
use crate::change::tuple::Cell;
use crate::replica::Store;
use crate::replica::cells::Packed;
use crate::replica::cells::Scratch;
use crate::replica::slot::Held;
use crate::replica::slot::Slot;
use crate::replica::table::Moment;
use crate::rule::Others;
use crate::rule::Source;
use crate::rule::Undecided;
use crate::rule::Visit;

/// Rows copied at once: first as many as decide most questions, then more.
const FIRST: usize = 4;
const MORE: usize = 64;
/// Row numbers that are looked at before somebody else may write.
const STEP: u32 = 4096;

/// The tables at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'s> {
    pub(super) store: &'s Store,
    pub(super) at: Lsn,
    pub(super) moment: Moment,
}

/// What a transaction did to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// There was such a row before it, and not after it.
    Gone,
    /// There is such a row after it, and was not before it.
    Come,
}

/// Which rows are next.
enum Walk {
    /// All, from this row number on.
    All(u32),
    /// Those with this value in an indexed column, after this row.
    Chain(Option<u32>),
    /// Those whose value in the column is missing, after this row.
    Missing(Option<u32>),
    Over,
}

/// How rows are looked for: a column and its text.
type By<'a> = Option<(usize, &'a [u8])>;

impl Others for View<'_> {
    fn visit(&self, source: &Source, by: By<'_>, each: &mut Visit<'_>) -> Result<(), Undecided> {
        self.store.metrics.replicas.lookups.one();
        let slot = self.store.slot(source.table).ok_or(Undecided::Unheld)?;
        let mut batch = Batch::default();
        let mut number = None;
        let mut walk = match by {
            Some(_) => Walk::Chain(None),
            None => Walk::All(0),
        };
        let mut most = FIRST;
        while !matches!(walk, Walk::Over) {
            batch.clear();
            self.look(&slot, source, &mut number, |held, places| {
                walk.on(held, places, by, |row| {
                    if held.table.is_seen(row, self.at, self.moment) {
                        batch.take(held, places, row);
                    }
                    batch.rows < most
                })
            })?;
            if batch.visit(each).is_break() {
                return Ok(());
            }
            most = MORE;
        }
        Ok(())
    }

    fn rows(&self, source: &Source) -> usize {
        let slot = self.store.slot(source.table);
        slot.and_then(|slot| Some(slot.read().held.as_ref()?.table.living())).unwrap_or(0)
    }
}

impl View<'_> {
    /// Looks at what is held, where the moment is known and it is the same as the time before.
    fn look<T>(
        &self,
        slot: &Slot,
        source: &Source,
        number: &mut Option<u64>,
        look: impl FnOnce(&Held, &[usize]) -> Option<T>,
    ) -> Result<T, Undecided> {
        // Read first: what was applied when it was stored is found.
        let reached = self.store.reached();
        let mut state = slot.read();
        if state.held.as_ref().is_some_and(|held| held.mapping(source.version).is_none()) {
            drop(state);
            self.store.learn(slot, source.table, source.version);
            state = slot.read();
        }
        let held = state.held.as_ref().ok_or(Undecided::Unheld)?;
        let mapping = held.mapping(source.version).ok_or(Undecided::Unheld)?;
        let places = source.columns.iter().map(|position| mapping.place(*position));
        let places: Option<SmallVec<[usize; 8]>> = places.collect();
        let places = places.ok_or(Undecided::Unheld)?;
        let same = number.replace(held.number).is_none_or(|before| before == held.number);
        if !same || !held.knows(self.at, self.moment, reached) {
            return Err(Undecided::Unheld);
        }
        look(held, &places).ok_or(Undecided::Unheld)
    }

    /// Visits the rows of a source that the transaction committing at this view's position changed:
    /// those that are gone, then those that have come.
    ///
    /// # Errors
    ///
    /// [`Undecided::Unheld`] where they are not known.
    pub fn touched(
        &self,
        source: &Source,
        each: &mut dyn FnMut(Touched, &[Cell<'_>]),
    ) -> Result<(), Undecided> {
        let slot = self.store.slot(source.table).ok_or(Undecided::Unheld)?;
        let mut number = None;
        let after = View { moment: Moment::After, ..*self };
        let (gone, come) =
            after.look(&slot, source, &mut number, |held, _| Some(held.table.touched(self.at)))?;
        let mut batch = Batch::default();
        for (what, rows) in [(Touched::Gone, gone), (Touched::Come, come)] {
            for rows in rows.chunks(MORE) {
                batch.clear();
                after.look(&slot, source, &mut number, |held, places| {
                    rows.iter().for_each(|row| batch.take(held, places, *row));
                    Some(())
                })?;
                let _all: ControlFlow<()> = batch.visit(&mut |cells| {
                    each(what, cells);
                    ControlFlow::Continue(())
                });
            }
        }
        Ok(())
    }
}

impl Walk {
    /// Gives row after row, up to a bound.
    fn all(&mut self, from: u32, end: u32, mut take: impl FnMut(u32) -> bool) {
        let until = end.min(from.saturating_add(STEP));
        for row in from..until {
            if !take(row) {
                *self = Walk::All(row + 1);
                return;
            }
        }
        *self = if until < end { Walk::All(until) } else { Walk::Over };
    }

    /// Gives rows to `take` as long as it wants more; `None` where a column is not held.
    fn on(
        &mut self,
        held: &Held,
        places: &[usize],
        by: By<'_>,
        mut take: impl FnMut(u32) -> bool,
    ) -> Option<()> {
        let (table, cells) = (&held.table, held.table.cells());
        let Some((column, text)) = by else {
            let Walk::All(from) = *self else { return None };
            self.all(from, table.end(), take);
            return Some(());
        };
        let place = *places.get(column)?;
        let key = cells.packing(place)?.pack_text(text);
        let Some(index) = table.lookup(place) else {
            // Nobody asked for an index: every row that may have the value.
            let from = if let Walk::All(from) = *self { from } else { 0 };
            self.all(from, table.end(), |row| {
                let value = cells.get(place, row);
                let fits = Some(value) == key || value == Packed::Missing;
                !fits || take(row)
            });
            return Some(());
        };
        loop {
            let (value, last) = match *self {
                Walk::Chain(last) => (key, last),
                Walk::Missing(last) => (Some(Packed::Missing), last),
                Walk::All(_) | Walk::Over => return Some(()),
            };
            let in_chain = matches!(self, Walk::Chain(_));
            let mut row = match last {
                Some(last) => index.next(last),
                None => value.and_then(|value| index.first(cells, &[value])),
            };
            while let Some(this) = row {
                if !take(this) {
                    *self = if in_chain { Walk::Chain(row) } else { Walk::Missing(row) };
                    return Some(());
                }
                row = index.next(this);
            }
            if !in_chain || !cells.has_missing(place) {
                *self = Walk::Over;
                return Some(());
            }
            *self = Walk::Missing(None);
        }
    }
}

/// Rows that were copied out.
#[derive(Default)]
struct Batch {
    bytes: Scratch,
    pieces: SmallVec<[Piece; 16]>,
    columns: usize,
    rows: usize,
}

#[derive(Clone)]
enum Piece {
    Null,
    Missing,
    Text(Range<usize>),
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
        self.rows = 0;
    }

    fn take(&mut self, held: &Held, places: &[usize], row: u32) {
        self.rows += 1;
        self.columns = places.len();
        for place in places {
            let value = held.table.cells().get(*place, row);
            let from = self.bytes.len();
            self.pieces.push(match value.write(&mut self.bytes) {
                Some(()) => Piece::Text(from..self.bytes.len()),
                None if value == Packed::Null => Piece::Null,
                None => Piece::Missing,
            });
        }
    }

    fn visit(&self, each: &mut Visit<'_>) -> ControlFlow<()> {
        for row in 0..self.rows {
            let from = row * self.columns;
            let pieces = self.pieces.get(from..from + self.columns).unwrap_or_default();
            let cells: SmallVec<[Cell<'_>; 8]> = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Null => Cell::Null,
                    Piece::Missing => Cell::Unchanged,
                    Piece::Text(range) => {
                        Cell::Text(self.bytes.get(range.clone()).unwrap_or_default())
                    }
                })
                .collect();
            each(&cells)?;
        }
        ControlFlow::Continue(())
    }
}

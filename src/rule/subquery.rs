//! Subqueries over other tables, with the claims put in, and where their rows come from.
//!
//! ```text
//! EXISTS (SELECT FROM members m WHERE m.org_id = orders.org_id AND m.user_id = 'u7')
//!
//!   stack:      orders' cells … │ m's org_id, user_id
//!   lookups:    org_id = a cell of the stack; user_id = a text
//!   condition:  a term over the whole stack
//! ```
//!
//! The judged row's cells are the bottom of a stack. Each source puts the cells of one of its rows on
//! it; a subquery inside the condition goes on upwards. So a column of any level is a place in the
//! stack, and a condition is a term like any other.
//!
//! # Invariants
//!
//! - The rows are those of one moment, and what is not known of that moment is undecided, never
//!   absent: no row is a definite answer only where [`Others`] says so.
//! - A lookup leaves out only rows for which the condition is not true.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use smallvec::SmallVec;

use crate::change::id::RelationId;
use crate::change::tuple::Cell;
use crate::change::tuple::Row;
use crate::rule::compiled::collect;
use crate::rule::expression::Comparison;
use crate::rule::term::Outcome;
use crate::rule::term::Term;
use crate::rule::term::Undecided;
use crate::rule::term::firm;
use crate::rule::value::Fault;
use crate::rule::value::Value;

/// Takes the cells of one row, and says whether it wants more.
pub type Visit<'v> = dyn FnMut(&[Cell<'_>]) -> ControlFlow<()> + 'v;

/// The rows of other tables, as they were at one moment.
pub trait Others: fmt::Debug {
    /// Visits rows of a source, each with the cells of the columns that the source names, in their
    /// order. Where `by` names one of these (by its place among them) and a text, only the rows
    /// where the column has that text need be visited.
    ///
    /// # Errors
    ///
    /// [`Undecided::Unheld`] where not all of these rows are known.
    fn visit(
        &self,
        source: &Source,
        by: Option<(usize, &[u8])>,
        each: &mut Visit<'_>,
    ) -> Result<(), Undecided>;

    /// About how many rows there are of a source, where several could be visited first.
    fn rows(&self, _: &Source) -> usize {
        0
    }
}

/// No other table is known.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Others for Alone {
    fn visit(
        &self,
        _: &Source,
        _: Option<(usize, &[u8])>,
        _: &mut Visit<'_>,
    ) -> Result<(), Undecided> {
        Err(Undecided::Unheld)
    }
}

/// One table that a subquery reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The table.
    pub table: RelationId,
    /// The version of its shape that the columns are counted in (`Relation::version`).
    pub version: u64,
    /// The positions of the columns that are read, sorted.
    pub columns: Box<[usize]>,
    /// The place in the stack of the first of them.
    pub base: usize,
    /// Equalities without which the condition is not true; of types where values are equal exactly
    /// where their texts are.
    pub lookups: Box<[Lookup]>,
}

/// `column = …` in a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// The column's place among the source's columns.
    pub column: usize,
    /// What it must equal.
    pub key: Key,
}

/// What a column of a source must equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A text, as the stream would carry it.
    Text(Box<[u8]>),
    /// The cell at this place of the stack, below the source's own.
    Cell(usize),
}

/// What policies want to know of a table: what must be at hand of it so that the subqueries that read
/// it can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The table.
    pub table: RelationId,
    /// The names of the columns that are read.
    pub columns: BTreeSet<Box<str>>,
    /// Those of them by which rows are looked for.
    pub lookups: BTreeSet<Box<str>>,
}

/// What is asked of the rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) enum Asks {
    /// Whether there is one.
    Exists,
    /// `operand op ANY (…)`, or ALL; the output is of the rows.
    Quantified { op: Comparison, all: bool, operand: Term, output: Term },
    /// How many there are.
    Count,
    /// The value of the only one; NULL where there is none, a fault where there are several.
    Value { output: Term },
}

/// A subquery, bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) struct Subquery {
    pub(in crate::rule) asks: Asks,
    /// At least one, in the order of the stack.
    pub(in crate::rule) sources: Box<[Source]>,
    /// What must be true of a row of all sources.
    pub(in crate::rule) condition: Term,
    /// Pairs of places in the stack, the first below the sources' and the second theirs, that hold
    /// the same text wherever the subquery is true of a row.
    pub(in crate::rule) equates: Box<[(usize, usize)]>,
}

/// A stack of cells, and where more rows come from.
#[derive(Clone, Copy, Debug)]
pub(in crate::rule) struct Scope<'r, 'a> {
    pub(in crate::rule) row: &'r [Cell<'a>],
    pub(in crate::rule) others: &'r dyn Others,
}

/// What a column of the rows holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rule) struct Texts {
    /// Sorted, each once.
    pub(in crate::rule) texts: Vec<Box<[u8]>>,
    /// Whether it is NULL in some row.
    pub(in crate::rule) or_null: bool,
}

impl<'r, 'a> Scope<'r, 'a> {
    /// A row, and nothing else.
    pub(in crate::rule) const fn alone(row: &'r [Cell<'a>]) -> Scope<'r, 'a> {
        Scope { row, others: &Alone }
    }
}

impl Subquery {
    /// The place in the stack where it begins: what lies below is not its own.
    pub(in crate::rule) fn base(&self) -> usize {
        self.sources.first().map_or(0, |source| source.base)
    }

    /// The places below its own that it reads, as often as it does.
    pub(in crate::rule) fn outer_columns(&self) -> Vec<usize> {
        let mut places = Vec::new();
        self.for_each_term(&mut |term| collect(term, &mut places));
        places.extend(self.sources.iter().flat_map(Source::cells));
        places.retain(|place| *place < self.base());
        places
    }

    /// Its terms, for whoever walks the tree.
    pub(in crate::rule) fn for_each_term<'a>(&'a self, visit: &mut dyn FnMut(&'a Term)) {
        match &self.asks {
            Asks::Exists | Asks::Count => {}
            Asks::Quantified { operand, output, .. } => {
                visit(operand);
                visit(output);
            }
            Asks::Value { output } => visit(output),
        }
        visit(&self.condition);
    }

    /// What it says as a condition.
    pub(in crate::rule) fn truth(&self, scope: Scope<'_, '_>) -> Outcome<bool> {
        let mut found = Found::none();
        let (asks, otherwise) = match &self.asks {
            Asks::Exists => (None, false),
            Asks::Quantified { op, all, operand, output } => (Some((op, operand, output)), *all),
            Asks::Value { .. } | Asks::Count => {
                return match self.value(scope)? {
                    Some(Value::Bool(value)) => Ok(Some(value)),
                    Some(_) => Err(Fault::Unreadable.into()),
                    None => Ok(None),
                };
            }
        };
        self.for_each_row(scope, &mut |row, is_of_it| {
            let truth = is_of_it.and_then(|()| {
                let Some((op, operand, output)) = asks else { return Ok(Some(true)) };
                // The operand reads what lies below, which is the same here.
                let sides = (operand.value(row)?, output.value(row)?);
                let (Some(left), Some(right)) = sides else { return Ok(None) };
                Ok(Some(op.holds(left.compare(&right)?)))
            });
            found.add(truth, !otherwise)
        })?;
        found.outcome(otherwise)
    }

    /// What it comes to as a value.
    pub(in crate::rule) fn value(&self, scope: Scope<'_, '_>) -> Outcome<Value<'static>> {
        let output = match &self.asks {
            Asks::Value { output } => output,
            Asks::Count => return self.count(scope),
            _ => return Ok(self.truth(scope)?.map(Value::Bool)),
        };
        let mut value = Ok(None);
        let mut rows = 0_usize;
        self.for_each_row(scope, &mut |row, is_of_it| {
            rows += 1;
            value = match is_of_it.and_then(|()| output.value(row)) {
                Ok(_) if rows > 1 => Err(Fault::SeveralRows.into()),
                Ok(value) => Ok(value.map(Value::into_owned)),
                Err(undecided) => Err(undecided),
            };
            if value.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        firm(value)
    }

    fn count(&self, scope: Scope<'_, '_>) -> Outcome<Value<'static>> {
        let (mut rows, mut known) = (0_i64, Ok(()));
        self.for_each_row(scope, &mut |_, is_of_it| {
            rows += 1;
            known = is_of_it;
            if known.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        firm(known)?;
        Ok(Some(Value::Int(rows)))
    }

    /// The texts that the place `at` of the stack has in those rows for which it is true, or may be
    /// true as far as `scope` tells; sorted. `None` where they are not known, or more than `limit`.
    pub(in crate::rule) fn texts(
        &self,
        scope: Scope<'_, '_>,
        at: usize,
        limit: usize,
    ) -> Option<Texts> {
        let (mut texts, mut or_null) = (Vec::new(), false);
        let mut is_known = true;
        let visited = self.for_each_row(scope, &mut |row, is_of_it| {
            match (row.row.get(at), is_of_it) {
                (_, Err(Undecided::Unheld | Undecided::Fault(_))) => is_known = false,
                (Some(Cell::Text(text)), _) => texts.push(Box::from(*text)),
                (Some(Cell::Null), _) => or_null = true,
                _ => is_known = false,
            }
            let goes_on = is_known && texts.len() <= limit;
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        texts.sort_unstable();
        texts.dedup();
        (is_known && visited.is_ok() && texts.len() <= limit).then_some(Texts { texts, or_null })
    }

    /// Calls `each` with every row of the sources for which the condition is true, and with those for
    /// which that is not known, and why.
    fn for_each_row(&self, scope: Scope<'_, '_>, each: &mut EachRow<'_>) -> Result<(), Undecided> {
        let left: Left = (0..self.sources.len()).collect();
        self.descend(&left, scope, each).map(|_| ())
    }

    /// Visits the rows of the sources that are left, for those of the others that are on the stack.
    fn descend(
        &self,
        left: &[usize],
        scope: Scope<'_, '_>,
        each: &mut EachRow<'_>,
    ) -> Result<ControlFlow<()>, Undecided> {
        if left.is_empty() {
            return Ok(match self.condition.truth(scope) {
                Ok(Some(true)) => each(scope, Ok(())),
                Ok(Some(false) | None) => ControlFlow::Continue(()),
                Err(undecided) => each(scope, Err(undecided)),
            });
        }
        // What lies above its own base before its first source is visited is somebody else's.
        let height = if left.len() == self.sources.len() { self.base() } else { self.top() };
        let below = scope.row.get(..height).unwrap_or(scope.row);
        let Some((source, looked)) = self.next(left, Scope { row: below, ..scope }) else {
            return Ok(ControlFlow::Continue(()));
        };
        let by = match looked {
            Looked::Nothing => return Ok(ControlFlow::Continue(())),
            Looked::By(column, text) => Some((column, text)),
            Looked::Everything => None,
        };
        let left: Left = left.iter().copied().filter(|at| *at != source).collect();
        let Some(source) = self.sources.get(source) else { return Ok(ControlFlow::Continue(())) };
        let mut outcome = Ok(ControlFlow::Continue(()));
        scope.others.visit(source, by, &mut |cells| {
            let mut row: Row<'_> = below.iter().copied().collect();
            // A cell that is not there is one that this image does not hold, or comes later.
            row.resize(self.top().max(below.len()), Cell::Unchanged);
            let places = row.iter_mut().skip(source.base);
            places.zip(cells).for_each(|(place, cell)| *place = *cell);
            outcome = self.descend(&left, Scope { row: &row, ..scope }, each);
            match outcome {
                Ok(flow) => flow,
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        outcome
    }

    /// The source to visit next: the first whose rows a text finds, else what is on the stack, else the
    /// one with the fewest rows.
    fn next<'s>(&'s self, left: &[usize], scope: Scope<'s, 's>) -> Option<(usize, Looked<'s>)> {
        let sources = || left.iter().filter_map(|at| Some((*at, self.sources.get(*at)?)));
        let looked = |(at, source): (usize, &'s Source)| match source.lookup(scope.row) {
            Looked::Everything => None,
            looked => Some((at, looked)),
        };
        let by_text = |(_, source): &(usize, &Source)| {
            source.lookups.iter().any(|lookup| matches!(lookup.key, Key::Text(_)))
        };
        let found = sources().filter(by_text).find_map(looked);
        if let Some(found) = found.or_else(|| sources().find_map(looked)) {
            return Some(found);
        }
        let fewest = match left {
            [only] => Some(*only),
            _ => sources().min_by_key(|(_, it)| scope.others.rows(it)).map(|(at, _)| at),
        };
        Some((fewest?, Looked::Everything))
    }

    /// Where the stack ends with the rows of all sources on it.
    fn top(&self) -> usize {
        let tops = self.sources.iter().map(|source| source.base + source.columns.len());
        tops.max().unwrap_or(0)
    }
}

/// The places of sources that were not visited yet.
type Left = SmallVec<[usize; 8]>;

type EachRow<'e> = dyn FnMut(Scope<'_, '_>, Result<(), Undecided>) -> ControlFlow<()> + 'e;

/// How the rows of a source are found.
enum Looked<'a> {
    /// By the column at this place, which has this text.
    By(usize, &'a [u8]),
    /// None fulfils the condition: it equals NULL.
    Nothing,
    /// All have to be looked at.
    Everything,
}

impl Source {
    /// The places in the stack that its lookups read.
    pub(in crate::rule) fn cells(&self) -> impl Iterator<Item = usize> {
        self.lookups.iter().filter_map(|lookup| match lookup.key {
            Key::Cell(at) => Some(at),
            Key::Text(_) => None,
        })
    }

    fn lookup<'a>(&'a self, row: &[Cell<'a>]) -> Looked<'a> {
        let mut found = Looked::Everything;
        for Lookup { column, key } in &self.lookups {
            match key {
                Key::Text(text) => return Looked::By(*column, text),
                Key::Cell(at) => match row.get(*at) {
                    Some(Cell::Text(text)) => found = Looked::By(*column, text),
                    Some(Cell::Null) => return Looked::Nothing,
                    _ => {}
                },
            }
        }
        found
    }
}

/// The outcome over several rows: the first that decides ends it, a fault ends it too, and otherwise
/// what is missing goes before NULL.
struct Found {
    outcome: Outcome<Option<bool>>,
}

impl Found {
    const fn none() -> Found {
        Found { outcome: Ok(Some(None)) }
    }

    fn add(&mut self, row: Outcome<bool>, deciding: bool) -> ControlFlow<()> {
        match row {
            Ok(Some(truth)) if truth == deciding => {
                self.outcome = Ok(Some(Some(truth)));
                return ControlFlow::Break(());
            }
            Ok(None) if self.outcome.is_ok() => self.outcome = Ok(None),
            Ok(_) => {}
            Err(Undecided::Unheld) => self.outcome = Err(Undecided::Unheld),
            Err(missing @ Undecided::Missing { .. }) => {
                self.outcome = self.outcome.and(Err(missing));
            }
            Err(fault) => {
                self.outcome = Err(fault);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// With what is so where no row decided.
    fn outcome(self, otherwise: bool) -> Outcome<bool> {
        Ok(self.outcome?.map(|decided| decided.unwrap_or(otherwise)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::rule::value::Read;

    /// Members: `org_id`, `user_id`, `level`.
    #[derive(Debug)]
    struct Members(&'static [[Option<&'static str>; 3]]);

    impl Others for Members {
        fn visit(
            &self,
            source: &Source,
            by: Option<(usize, &[u8])>,
            each: &mut Visit<'_>,
        ) -> Result<(), Undecided> {
            for row in self.0 {
                let cells: Vec<Cell<'_>> = source
                    .columns
                    .iter()
                    .map(|at| row[*at].map_or(Cell::Null, |text| Cell::Text(text.as_bytes())))
                    .collect();
                let fits = by.is_none_or(|(at, text)| cells[at] == Cell::Text(text));
                if fits && each(&cells).is_break() {
                    return Ok(());
                }
            }
            Ok(())
        }
    }

    const MEMBERS: Members = Members(&[
        [Some("a"), Some("u7"), Some("1")],
        [Some("b"), Some("u7"), None],
        [Some("c"), Some("u8"), Some("3")],
        [None, Some("u9"), None],
    ]);

    fn column(column: usize) -> Term {
        Term::Column { column, read: Read::Text }
    }

    /// Over a row of one column, the organisation; `user` is looked for.
    fn subquery(user: &str, asks: Asks, condition: Term, lookups: Vec<Lookup>) -> Arc<Subquery> {
        let user = Lookup { column: 1, key: Key::Text(user.as_bytes().into()) };
        let lookups = lookups.into_iter().chain([user]).collect();
        let columns = Box::new([0, 1, 2]);
        let source = Source { table: RelationId(9), version: 1, columns, base: 1, lookups };
        let equates = Box::new([(0, 1)]);
        Arc::new(Subquery { asks, sources: Box::new([source]), condition, equates })
    }

    fn same_org() -> Term {
        Term::Compare { op: Comparison::Equal, sides: Box::new([column(0), column(1)]) }
    }

    fn exists(user: &str) -> Arc<Subquery> {
        let org = Lookup { column: 0, key: Key::Cell(0) };
        subquery(user, Asks::Exists, same_org(), vec![org])
    }

    fn is_in(user: &str) -> Arc<Subquery> {
        let (operand, output) = (column(0), column(1));
        let asks = Asks::Quantified { op: Comparison::Equal, all: false, operand, output };
        subquery(user, asks, Term::boolean(true), Vec::new())
    }

    fn ask(subquery: &Subquery, org: Cell<'_>) -> Outcome<bool> {
        subquery.truth(Scope { row: &[org], others: &MEMBERS })
    }

    #[test]
    fn rows_of_another_table_decide() {
        for (user, org, exists_one, is_in_it) in [
            ("u7", Cell::Text(b"a"), Ok(Some(true)), Ok(Some(true))),
            ("u7", Cell::Text(b"c"), Ok(Some(false)), Ok(Some(false))),
            ("u7", Cell::Null, Ok(Some(false)), Ok(None)),
            ("nobody", Cell::Null, Ok(Some(false)), Ok(Some(false))),
            ("u9", Cell::Text(b"a"), Ok(Some(false)), Ok(None)),
            ("nobody", Cell::Unchanged, Ok(Some(false)), Ok(Some(false))),
        ] {
            assert_eq!(ask(&exists(user), org), exists_one, "{user} {org:?}");
            assert_eq!(ask(&is_in(user), org), is_in_it, "{user} {org:?}");
        }
        let missing = Err(Undecided::Missing { column: 0 });
        assert_eq!(ask(&exists("u7"), Cell::Unchanged), missing);
        assert_eq!(ask(&is_in("u7"), Cell::Unchanged), missing);
    }

    #[test]
    fn a_subquery_is_a_value_where_it_has_one_row() {
        let of = |user| {
            let asks = Asks::Value { output: column(1) };
            let subquery = subquery(user, asks, Term::boolean(true), Vec::new());
            subquery.value(Scope { row: &[], others: &MEMBERS })
        };
        assert_eq!(of("u8"), Ok(Some(Value::Text(b"c".to_vec().into()))));
        assert_eq!(of("u9"), Ok(None));
        assert_eq!(of("nobody"), Ok(None));
        assert_eq!(of("u7"), Err(Fault::SeveralRows.into()));
    }

    #[test]
    fn what_is_not_held_is_undecided() {
        let unheld = Err(Undecided::Unheld);
        assert_eq!(exists("u7").truth(Scope::alone(&[Cell::Null])), Ok(Some(false)));
        assert_eq!(exists("u7").truth(Scope::alone(&[Cell::Text(b"a")])), unheld);
        let or = |truth| {
            Term::Any(Box::new([Term::Subquery(exists("u7")), Term::boolean(truth)]))
                .truth(Scope::alone(&[Cell::Text(b"a")]))
        };
        assert_eq!((or(true), or(false)), (Ok(Some(true)), unheld));
    }

    #[test]
    fn the_texts_of_which_it_is_true_are_told() {
        let texts = |subquery: &Subquery, limit| {
            subquery.texts(Scope { row: &[], others: &MEMBERS }, 1, limit)
        };
        let some = |texts: &[&str], or_null| {
            let texts = texts.iter().map(|text| text.as_bytes().into()).collect();
            Some(Texts { texts, or_null })
        };
        let both = some(&["a", "b"], false);
        assert_eq!(texts(&exists("u7"), 2), both);
        assert_eq!(texts(&is_in("u7"), 2), both);
        assert_eq!(texts(&is_in("u9"), 2), some(&[], true));
        assert_eq!(texts(&exists("u7"), 1), None);
    }
}

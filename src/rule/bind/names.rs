//! Which column a name means: the tables of a query go before those of the queries around it.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::change::relation::Column;
use crate::change::relation::Relation;
use crate::rule::bind::Typed;
use crate::rule::bind::inline::Frame;
use crate::rule::error::RuleError;
use crate::rule::expression::ROW;

/// The tables whose columns may be named at one place, those of the innermost query first.
pub(in crate::rule::bind) struct Names<'a> {
    pub(in crate::rule::bind) outer: Option<&'a Names<'a>>,
    pub(in crate::rule::bind) tables: Vec<Named<'a>>,
    /// The functions whose rows the query reads.
    pub(in crate::rule::bind) called: Vec<Called<'a>>,
    /// The call whose body this is.
    pub(in crate::rule::bind) frame: Option<&'a Frame<'a>>,
}

/// A table by its name in a query.
#[derive(Clone, Copy)]
pub(in crate::rule::bind) struct Named<'a> {
    pub(in crate::rule::bind) alias: &'a str,
    pub(in crate::rule::bind) relation: &'a Relation,
    /// Columns of the table that the stream does not carry.
    pub(in crate::rule::bind) unpublished: &'a [Box<str>],
    /// What may be read of it, where that is not certain.
    pub(in crate::rule::bind) granted: Option<&'a [bool]>,
    /// Where its cells stand in the stack.
    pub(in crate::rule::bind) base: usize,
    /// Its number among the sources; absent for the judged row itself.
    pub(in crate::rule::bind) source: Option<usize>,
}

/// The rows of a function by their name in a query.
pub(in crate::rule::bind) struct Called<'a> {
    pub(in crate::rule::bind) alias: &'a str,
    pub(in crate::rule::bind) columns: Vec<(Box<str>, Typed)>,
}

/// A column of a table.
pub(in crate::rule::bind) struct Found<'n, 'a> {
    pub(in crate::rule::bind) table: &'n Named<'a>,
    pub(in crate::rule::bind) position: usize,
    pub(in crate::rule::bind) column: &'a Column,
}

/// Which columns of which source are read. A policy is bound twice: only then it is known where in
/// the stack the columns stand that are read.
#[derive(Debug, Default)]
pub(in crate::rule::bind) struct Layout {
    read: RefCell<Vec<BTreeSet<usize>>>,
    /// The sources that were opened in this round.
    opened: Cell<usize>,
    is_known: Cell<bool>,
}

impl<'a> Names<'a> {
    pub(in crate::rule::bind) fn row(
        relation: &'a Relation,
        unpublished: &'a [Box<str>],
    ) -> Names<'a> {
        let alias = &*relation.name;
        let row = Named { alias, relation, unpublished, granted: None, base: 0, source: None };
        Names { outer: None, tables: vec![row], called: Vec::new(), frame: None }
    }

    /// What the body of a function may name: its parameters, and what it reads itself.
    pub(in crate::rule::bind) const fn of_body(frame: &'a Frame<'a>) -> Names<'a> {
        Names { outer: None, tables: Vec::new(), called: Vec::new(), frame: Some(frame) }
    }

    /// The value that a name means in the rows of a function; absent where it is none of theirs.
    pub(in crate::rule::bind) fn called(
        &self,
        qualifier: Option<&str>,
        name: &str,
    ) -> Result<Option<&Typed>, RuleError> {
        for names in std::iter::successors(Some(self), |names| names.outer) {
            let is_its = |alias: &str| qualifier.is_none_or(|qualifier| qualifier == alias);
            let called = names.called.iter().filter(|called| is_its(called.alias));
            let mut columns = called.flat_map(|called| &called.columns);
            let mut found = columns.by_ref().filter(|(known, _)| **known == *name);
            let of_table = names.tables.iter().any(|table| table.is_meant(names, qualifier, name));
            match (found.next(), found.next().is_some() || of_table) {
                (Some((_, typed)), false) => return Ok(Some(typed)),
                (Some(_), true) => return Err(ambiguous(name)),
                (None, true) => return Ok(None),
                (None, false) => {}
            }
        }
        Ok(None)
    }

    pub(in crate::rule::bind) fn find<'n>(
        &'n self,
        qualifier: Option<&str>,
        name: &str,
    ) -> Result<Found<'n, 'a>, RuleError> {
        let mut level = Some(self);
        while let Some(names) = level {
            let is_meant = |table: &&Named<'_>| table.is_meant(names, qualifier, name);
            let mut here = names.tables.iter().filter(is_meant);
            if let Some(table) = here.next() {
                if here.next().is_some() {
                    return Err(ambiguous(name));
                }
                return table.find(qualifier, name);
            }
            level = names.outer;
        }
        Err(unknown(qualifier, name))
    }

    /// The call in whose body this stands.
    pub(in crate::rule::bind) fn frame(&self) -> Option<&'a Frame<'a>> {
        std::iter::successors(Some(self), |names| names.outer).find_map(|names| names.frame)
    }

    /// Every table, from the inside out.
    pub(in crate::rule::bind) fn all(&self) -> impl Iterator<Item = &Named<'a>> {
        let levels = std::iter::successors(Some(self), |names| names.outer);
        levels.flat_map(|names| &names.tables)
    }

    /// Whether something that is read here has this name.
    pub(in crate::rule::bind) fn has_alias(&self, alias: &str) -> bool {
        let mut levels = std::iter::successors(Some(self), |names| names.outer);
        let is_called = |names: &Names<'_>| names.called.iter().any(|it| it.alias == alias);
        self.all().any(|table| table.alias == alias) || levels.any(is_called)
    }
}

impl<'a> Named<'a> {
    fn has(&self, name: &str) -> bool {
        self.relation.column(name).is_some() || self.unpublished.iter().any(|it| &**it == name)
    }

    /// Whether a column of this name is looked for in it.
    fn is_meant(&self, level: &Names<'_>, qualifier: Option<&str>, name: &str) -> bool {
        match qualifier {
            Some(ROW) => level.outer.is_none(),
            Some(qualifier) => self.alias == qualifier,
            None => self.has(name),
        }
    }

    fn find<'n>(&'n self, qualifier: Option<&str>, name: &str) -> Result<Found<'n, 'a>, RuleError> {
        let position = self.relation.column(name);
        let found = position.and_then(|at| Some((at, self.relation.columns.get(at)?)));
        match found {
            Some((position, column)) => Ok(Found { table: self, position, column }),
            None => Err(unknown(qualifier, name)),
        }
    }
}

impl Named<'_> {
    /// Checks that a column may be selected.
    pub(in crate::rule::bind) fn check(&self, position: usize) -> Result<(), RuleError> {
        if self.granted.is_none_or(|granted| granted.get(position) == Some(&true)) {
            return Ok(());
        }
        let column = self.relation.columns.get(position).map_or("", |column| &column.name);
        let reason = format!("the role may not select column {column} of it");
        Err(RuleError::raises(&*self.relation.name, reason))
    }
}

fn ambiguous(name: &str) -> RuleError {
    let reason = "it could be a column of several tables";
    RuleError::unsupported(name, reason, "name the table")
}

fn unknown(qualifier: Option<&str>, name: &str) -> RuleError {
    let column = match qualifier {
        Some(table) if !table.contains('\0') => format!("{table}.{name}").into(),
        _ => name.into(),
    };
    RuleError::UnknownColumn { column }
}

impl Layout {
    /// Begins the second round, where a source was opened in the first.
    pub(in crate::rule::bind) fn settle(&self) -> bool {
        self.is_known.set(true);
        self.opened.replace(0) > 0
    }

    /// The next source: its number, and how many cells of it stand in the stack.
    pub(in crate::rule::bind) fn open(&self, relation: &Relation) -> (usize, usize) {
        let source = self.opened.get();
        self.opened.set(source + 1);
        let mut read = self.read.borrow_mut();
        if read.len() == source {
            read.push(BTreeSet::new());
        }
        let width = match read.get(source) {
            Some(columns) if self.is_known.get() => columns.len(),
            _ => relation.columns.len(),
        };
        (source, width)
    }

    /// The place of a column among those of its source.
    pub(in crate::rule::bind) fn place(&self, source: usize, position: usize) -> usize {
        let mut read = self.read.borrow_mut();
        let Some(columns) = read.get_mut(source) else { return position };
        if self.is_known.get() {
            return columns.range(..position).count();
        }
        columns.insert(position);
        position
    }

    /// The columns of a source that stand in the stack.
    pub(in crate::rule::bind) fn columns(
        &self,
        source: usize,
        relation: &Relation,
    ) -> Box<[usize]> {
        if !self.is_known.get() {
            return (0..relation.columns.len()).collect();
        }
        let read = self.read.borrow();
        read.get(source).map(|columns| columns.iter().copied().collect()).unwrap_or_default()
    }
}

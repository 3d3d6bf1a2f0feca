//! What a rule can be found by: the values that a row must have so that the rule can admit it.
//!
//! Of most rules this is a matter of the rule alone (`user_id = 'u7'`). Where a rule reads other
//! tables it depends on their rows, too: a member of two organisations is found by these two. So
//! what a rule reaches is that of a moment, and when memberships change it is compared with what it
//! was.
//!
//! # Invariants
//!
//! - A row that the rule admits at the moment has one of the values. (What it has one of need not be
//!   admitted.)
//! - Two moments of which nothing is told apart admit the same rows.

use crate::rule::compiled::Equality;
use crate::rule::compiled::Rule;
use crate::rule::compiled::collect;
use crate::rule::expression::Comparison;
use crate::rule::subquery::Asks;
use crate::rule::subquery::Others;
use crate::rule::subquery::Scope;
use crate::rule::subquery::Subquery;
use crate::rule::subquery::Texts;
use crate::rule::term::Term;
use crate::rule::value::Value;

/// Values that a subquery may come to, before it is taken for one that every row may fulfil.
const TEXTS_MAX: usize = 65_536;

/// The rows that a rule can admit, by their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Any row may be admitted.
    Every,
    /// Only rows in which one of these columns has one of its texts; none where there is no column.
    /// A column stands there once.
    Values(Vec<Equality>),
}

/// What a rule reaches at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    cover: Cover,
    /// What each of its subqueries comes to.
    found: Vec<Found>,
}

/// How what a rule admits differs between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// It admits more.
    Entered,
    /// It admits less.
    Left,
    /// It admits others, or it can't be said.
    Changed,
}

/// What a subquery comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// True of the rows with one of these texts in the one column of the row that it reads.
    Texts(Texts),
    /// The same for every row.
    Truth(Option<bool>),
    /// The same for every row.
    Value(Option<Value<'static>>),
    /// It depends on more of the row than one column, or is not known.
    Unknown,
}

impl Rule {
    /// What the rule reaches where the rows of other tables are these.
    #[must_use]
    pub fn reach(&self, others: &dyn Others) -> Reach {
        let scope = Scope { row: &[], others };
        let mut found = Vec::new();
        self.term.find(scope, &mut found);
        Reach { cover: self.cover(others), found }
    }

    /// By which values the rule can be found where the rows of other tables are these.
    #[must_use]
    pub fn cover(&self, others: &dyn Others) -> Cover {
        self.term.cover(Scope { row: &[], others })
    }
}

impl Reach {
    /// By which values the rule can be found.
    #[must_use]
    pub const fn cover(&self) -> &Cover {
        &self.cover
    }

    /// Whether everything that it depends on was known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.found.contains(&Found::Unknown)
    }

    /// How the rule's rows differ at a later moment; `None` where they are the same.
    #[must_use]
    pub fn shift_to(&self, later: &Reach) -> Option<Shift> {
        let unknown = !self.is_known();
        if self == later && !unknown {
            return None;
        }
        let pairs = || self.found.iter().zip(&later.found).filter(|(then, now)| then != now);
        let mut differ = pairs();
        let is_told = matches!(
            (differ.next(), differ.next()),
            (Some((Found::Texts(_), Found::Texts(_))), None)
        );
        let covers = (&self.cover, &later.cover);
        let (true, false, (Cover::Values(before), Cover::Values(after))) =
            (is_told, unknown, covers)
        else {
            return Some(Shift::Changed);
        };
        Some(match (includes(after, before), includes(before, after)) {
            (true, false) => Shift::Entered,
            (false, true) => Shift::Left,
            _ => Shift::Changed,
        })
    }
}

/// Whether everything in `inner` is in `outer`.
fn includes(outer: &[Equality], inner: &[Equality]) -> bool {
    inner.iter().all(|inner| {
        let same = outer.iter().find(|outer| outer.column == inner.column);
        let has = |text| same.is_some_and(|outer| outer.texts.binary_search(text).is_ok());
        inner.texts.iter().all(has)
    })
}

impl Cover {
    fn none() -> Cover {
        Cover::Values(Vec::new())
    }

    fn of(column: usize, texts: Vec<Box<[u8]>>) -> Cover {
        if texts.is_empty() {
            return Cover::none();
        }
        Cover::Values(vec![Equality { column, texts }])
    }

    /// How many values it has; more than any number of them for every row.
    fn len(&self) -> usize {
        match self {
            Cover::Every => usize::MAX,
            Cover::Values(columns) => columns.iter().map(|column| column.texts.len()).sum(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn or(self, other: Cover) -> Cover {
        let (Cover::Values(mut columns), Cover::Values(more)) = (self, other) else {
            return Cover::Every;
        };
        for Equality { column, texts } in more {
            match columns.iter_mut().find(|known| known.column == column) {
                Some(known) => {
                    known.texts.extend(texts);
                    known.texts.sort_unstable();
                    known.texts.dedup();
                }
                None => columns.push(Equality { column, texts }),
            }
        }
        Cover::Values(columns)
    }
}

impl Term {
    fn cover(&self, scope: Scope<'_, '_>) -> Cover {
        match self {
            Term::Constant(None | Some(Value::Bool(false))) => Cover::none(),
            Term::Same { column, text } => Cover::of(*column, vec![text.clone()]),
            Term::OneOf { column, texts, .. } => Cover::of(*column, texts.to_vec()),
            Term::All(arms) => {
                let covers = arms.iter().map(|arm| arm.cover(scope));
                covers.min_by_key(Cover::len).unwrap_or(Cover::Every)
            }
            Term::Any(arms) => {
                arms.iter().map(|arm| arm.cover(scope)).fold(Cover::none(), Cover::or)
            }
            Term::Subquery(subquery) => subquery.cover(scope),
            _ => Cover::Every,
        }
    }

    /// Collects what its subqueries come to; those within them are part of that.
    fn find(&self, scope: Scope<'_, '_>, into: &mut Vec<Found>) {
        match self {
            Term::Subquery(subquery) => into.push(subquery.found(scope)),
            term => term.for_each_child(&mut |child| child.find(scope, into)),
        }
    }
}

impl Subquery {
    fn found(&self, scope: Scope<'_, '_>) -> Found {
        let mut reads = self.outer_columns();
        reads.sort_unstable();
        reads.dedup();
        match (reads.as_slice(), &self.asks) {
            ([], Asks::Value { .. } | Asks::Count) => {
                self.value(scope).map_or(Found::Unknown, Found::Value)
            }
            ([], _) => self.truth(scope).map_or(Found::Unknown, Found::Truth),
            ([only], _) if self.is_equality_with(*only) => {
                self.texts_found(scope).map_or(Found::Unknown, Found::Texts)
            }
            _ => Found::Unknown,
        }
    }

    /// Whether the row's column decides by nothing but being equal to one of the texts.
    fn is_equality_with(&self, column: usize) -> bool {
        if self.equates.first().is_none_or(|(outer, _)| *outer != column) {
            return false;
        }
        let arms = match &self.condition {
            Term::All(arms) => arms,
            condition => std::slice::from_ref(condition),
        };
        let reads = |term: &Term| {
            let mut columns = Vec::new();
            collect(term, &mut columns);
            columns.contains(&column)
        };
        let mut reading = arms.iter().filter(|arm| reads(arm));
        match (&self.asks, reading.next(), reading.next()) {
            (Asks::Exists, Some(Term::Compare { op: Comparison::Equal, sides }), None) => {
                sides.iter().all(|side| matches!(side, Term::Column { .. }))
            }
            (
                Asks::Quantified {
                    op: Comparison::Equal,
                    all: false,
                    operand: Term::Column { .. },
                    output: Term::Column { .. },
                },
                None,
                None,
            ) => true,
            _ => false,
        }
    }

    /// The values that the row must have one of; `None` where any may do.
    fn texts_found(&self, scope: Scope<'_, '_>) -> Option<Texts> {
        let is_positive = match &self.asks {
            Asks::Exists => true,
            Asks::Quantified { op, all, .. } => *op == Comparison::Equal && !all,
            Asks::Value { .. } | Asks::Count => false,
        };
        let (_, inner) = self.equates.first().filter(|_| is_positive)?;
        self.texts(scope, *inner, TEXTS_MAX)
    }

    fn cover(&self, scope: Scope<'_, '_>) -> Cover {
        let found = match self.found(scope) {
            Found::Truth(Some(true)) | Found::Value(_) => return Cover::Every,
            Found::Truth(_) => return Cover::none(),
            Found::Texts(found) => Some(found),
            Found::Unknown => self.texts_found(scope),
        };
        match (found, self.equates.first()) {
            (Some(found), Some((outer, _))) => Cover::of(*outer, found.texts),
            _ => Cover::Every,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    use crate::change::id::RelationId;
    use crate::change::tuple::Cell;
    use crate::rule::subquery::Alone;
    use crate::rule::subquery::Key;
    use crate::rule::subquery::Lookup;
    use crate::rule::subquery::Source;
    use crate::rule::subquery::Visit;
    use crate::rule::term::Undecided;
    use crate::rule::value::Read;

    fn same(column: usize, text: &str) -> Term {
        Term::Same { column, text: text.as_bytes().into() }
    }

    fn cover(term: Term) -> String {
        told(&Rule::of(term).cover(&Alone))
    }

    fn told(cover: &Cover) -> String {
        let Cover::Values(columns) = cover else { return "every".to_owned() };
        let column = |it: &Equality| {
            let texts: Vec<_> = it.texts.iter().map(|it| String::from_utf8_lossy(it)).collect();
            format!("{}: {}", it.column, texts.join(" "))
        };
        columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_is_demanded_is_what_a_rule_is_found_by() {
        let all = |arms: Vec<Term>| Term::All(arms.into());
        let any = |arms: Vec<Term>| Term::Any(arms.into());
        let odd = || Term::IsNull(Box::new(Term::Column { column: 5, read: Read::Text }));
        let list = Term::OneOf {
            column: 1,
            texts: Box::new([b"x"[..].into(), b"y"[..].into()]),
            or_null: false,
        };
        assert_eq!(cover(same(0, "a")), "0: a");
        assert_eq!(cover(all(vec![list.clone(), same(0, "a"), odd()])), "0: a");
        assert_eq!(cover(any(vec![list.clone(), same(0, "a")])), "1: x y, 0: a");
        assert_eq!(cover(any(vec![list.clone(), same(1, "a"), same(1, "x")])), "1: a x y");
        assert_eq!(cover(all(vec![any(vec![list, same(0, "a")]), same(2, "b")])), "2: b");
        assert_eq!(cover(any(vec![same(0, "a"), odd()])), "every");
        assert_eq!(cover(Term::Not(Box::new(same(0, "a")))), "every");
        assert_eq!(cover(Term::NULL), "");
    }

    /// The organisations of the one user that is asked for.
    #[derive(Debug)]
    struct Orgs(&'static [&'static str]);

    impl Others for Orgs {
        fn visit(
            &self,
            _: &Source,
            _: Option<(usize, &[u8])>,
            each: &mut Visit<'_>,
        ) -> Result<(), Undecided> {
            for org in self.0 {
                if each(&[Cell::Text(org.as_bytes())]) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        }
    }

    /// `EXISTS (SELECT FROM members WHERE org = the row's first column AND …)`.
    fn is_member(more: Vec<Term>) -> Term {
        let column = |column| Term::Column { column, read: Read::Text };
        let sides = Box::new([column(0), column(2)]);
        let equal = Term::Compare { op: Comparison::Equal, sides };
        let condition = Term::All(std::iter::once(equal).chain(more).collect());
        let lookups = Box::new([Lookup { column: 0, key: Key::Cell(0) }]);
        let columns = Box::new([0]);
        let source = Source { table: RelationId(9), version: 1, columns, base: 2, lookups };
        let (asks, equates) = (Asks::Exists, Box::new([(0, 2)]));
        let sources = Box::new([source]);
        Term::Subquery(Subquery { asks, sources, condition, equates }.into())
    }

    #[test]
    fn a_membership_is_found_by_what_it_comes_to() {
        let owner = same(1, "u7");
        let rule = Rule::of(Term::Any(Box::new([is_member(vec![]), owner])));
        let at = |orgs| rule.reach(&Orgs(orgs));
        let (none, one, two) = (at(&[]), at(&["a"]), at(&["b", "a"]));
        assert_eq!(told(none.cover()), "1: u7");
        assert_eq!(told(two.cover()), "0: a b, 1: u7");
        assert_eq!(told(rule.reach(&Alone).cover()), "every");
        assert_eq!(one.shift_to(&one), None);
        assert_eq!(one.shift_to(&two), Some(Shift::Entered));
        assert_eq!(two.shift_to(&none), Some(Shift::Left));
        assert_eq!(one.shift_to(&at(&["c"])), Some(Shift::Changed));
        assert_eq!(one.shift_to(&rule.reach(&Alone)), Some(Shift::Changed));
    }

    #[test]
    fn what_depends_on_more_than_the_texts_is_not_taken_for_the_same() {
        let rule = Rule::of(is_member(vec![same(1, "x")]));
        let at = |orgs| rule.reach(&Orgs(orgs));
        assert_eq!(told(at(&["a"]).cover()), "0: a");
        assert_eq!(at(&["a"]).shift_to(&at(&["a"])), Some(Shift::Changed));
        let hidden = Rule::of(Term::Not(Box::new(is_member(vec![]))));
        let at = |orgs| hidden.reach(&Orgs(orgs));
        assert_eq!(at(&["a"]).shift_to(&at(&["a"])), None);
        assert_eq!(at(&["a"]).shift_to(&at(&["a", "b"])), Some(Shift::Changed));
    }
}

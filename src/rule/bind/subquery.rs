//! Queries over other tables: sources, how their rows are found, and what is asked of them.
//!
//! Where FALSE and NULL come to the same, whatever is compared with the rows of a query becomes part
//! of its condition: so `x IN (SELECT y …)` finds its rows by `y`.

use std::iter::once;
use std::ops::Range;
use std::sync::Arc;

use crate::rule::bind::ANYTHING;
use crate::rule::bind::Binder;
use crate::rule::bind::InPolicy;
use crate::rule::bind::Typed;
use crate::rule::bind::compare::comparison;
use crate::rule::bind::join::Opening;
use crate::rule::bind::logic::junction;
use crate::rule::bind::logic::not;
use crate::rule::bind::names::Names;
use crate::rule::bind::sides::narrowed;
use crate::rule::error::RuleError;
use crate::rule::expression::Comparison;
use crate::rule::expression::Known;
use crate::rule::expression::Node;
use crate::rule::expression::query::Asked;
use crate::rule::expression::query::Query;
use crate::rule::of::Of;
use crate::rule::subquery::Asks;
use crate::rule::subquery::Key;
use crate::rule::subquery::Lookup;
use crate::rule::subquery::Source;
use crate::rule::subquery::Subquery;
use crate::rule::term::Term;
use crate::rule::value::Read;

impl Binder<'_> {
    pub(in crate::rule::bind) fn subquery(
        &self,
        asks: &Asked,
        query: &Query,
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let Some(policy) = self.policy else {
            return Err(RuleError::unsupported(token, "a rule reads one row and the claims", ""));
        };
        if query.from.is_empty() {
            return Err(RuleError::unsupported(token, "it reads no table", ""));
        }
        let mut opening = Opening::at(policy.height);
        let (outer, frame) = (Some(self.names), None);
        let names = Names { outer, tables: Vec::new(), called: Vec::new(), frame };
        let names = self.join(query, names, &mut opening)?;
        let Opening { sources, mut conditions, height, is_distinct } = opening;
        if is_distinct && *asks == Asked::Count {
            return Err(RuleError::unsupported(token, "DISTINCT takes rows away", ""));
        }
        let policy = InPolicy { height, ..policy };
        let inside =
            Binder { names: &names, policy: Some(policy), is_positive: true, claims: self.claims };
        conditions.insert(0, inside.boolean(&query.condition)?);
        let condition = junction(conditions, false);
        self.asked_of(asks, query, (&inside, sources, condition), token)
    }

    fn asked_of(
        &self,
        asks: &Asked,
        query: &Query,
        (inside, sources, condition): (&Binder<'_>, Vec<Source>, Term),
        token: &Node,
    ) -> Result<Typed, RuleError> {
        let plain = Binder { is_positive: false, ..*inside };
        let output = || match query.outputs.as_slice() {
            [output] => Ok(output),
            _ => Err(RuleError::unsupported(token, "it selects several values", "")),
        };
        match asks {
            Asked::Exists => {
                for output in &query.outputs {
                    inside.may_select(output)?;
                }
                Ok(Typed::new(self.exists(sources, condition), Of::Bool))
            }
            Asked::Array { .. } => {
                let reason = "an array of its rows is decided only where it is compared with, by \
                              ANY or ALL";
                Err(RuleError::unsupported(token, reason, ""))
            }
            Asked::Quantified { op, all, operand, or_null } => {
                if query.limited {
                    return Err(RuleError::unsupported(token, "a limit takes rows away", ""));
                }
                let output = output()?;
                let outside = Binder { is_positive: false, ..*self };
                let sides = (outside.node(operand)?, plain.node(output)?);
                let sides = plain.align(*op, sides, (operand, output), token)?;
                let term = self.quantified_of((*op, *all, *or_null), sides, sources, condition);
                self.fold(Typed::new(term, Of::Bool), token)
            }
            Asked::Row { operands } => {
                if query.limited || operands.len() != query.outputs.len() {
                    let reason = "it takes rows away, or has not as many values as are compared";
                    return Err(RuleError::unsupported(token, reason, ""));
                }
                let outside = Binder { is_positive: false, ..*self };
                let mut arms = Vec::new();
                for (operand, output) in operands.iter().zip(&query.outputs) {
                    let sides = (outside.node(operand)?, plain.node(output)?);
                    let op = Comparison::Equal;
                    let (left, right) = plain.align(op, sides, (operand, output), token)?;
                    arms.push(comparison(op, left, right));
                }
                Ok(Typed::new(self.row_of(junction(arms, false), sources, condition), Of::Bool))
            }
            Asked::Count => {
                if query.limited || sources.is_empty() {
                    let reason = "what it counts is no table's rows";
                    return Err(RuleError::unsupported(token, reason, ""));
                }
                let mut arms = vec![condition];
                for output in &query.outputs {
                    arms.push(not(Term::IsNull(Box::new(plain.nullable(output)?))));
                }
                let subquery = made(Asks::Count, sources, junction(arms, false));
                Ok(Typed::new(Term::Subquery(Arc::new(subquery)), Of::Int8))
            }
            Asked::Value => {
                let output = plain.node(output()?)?;
                self.value_of(output, inside, (sources, condition), token)
            }
        }
    }

    /// The one value of the rows.
    fn value_of(
        &self,
        output: Typed,
        inside: &Binder<'_>,
        (sources, condition): (Vec<Source>, Term),
        token: &Node,
    ) -> Result<Typed, RuleError> {
        if sources.is_empty() {
            let term = only(condition, output.term.clone(), Term::NULL);
            return self.fold(Typed { term, ..output }, token);
        }
        let asks = Asks::Value { output: output.term.clone() };
        let subquery = made(asks, sources, condition);
        if !inside.is_single(&subquery) {
            let reason = "it may have several rows, for which PostgreSQL raises an error";
            let hint = "compare the whole primary key in it, or write EXISTS or IN";
            return Err(RuleError::unsupported(token, reason, hint));
        }
        let term = if self.is_positive && output.of == Of::Bool {
            narrowed(&subquery, output.term)
        } else {
            Term::Subquery(Arc::new(subquery))
        };
        Ok(Typed { term, ..output })
    }

    /// `left op ANY (…)`, or ALL, where the right side is of the rows.
    fn quantified_of(
        &self,
        (op, all, or_null): (Comparison, bool, bool),
        (left, right): (Typed, Typed),
        sources: Vec<Source>,
        condition: Term,
    ) -> Term {
        if self.is_positive && !all {
            let arms = vec![condition, comparison(op, left, right)];
            return self.exists(sources, junction(arms, false));
        }
        if sources.is_empty() {
            let otherwise = if or_null { Term::NULL } else { Term::boolean(all) };
            return only(condition, comparison(op, left, right), otherwise);
        }
        let some = or_null.then(|| exists(sources.clone(), condition.clone()));
        let asks = Asks::Quantified { op, all, operand: left.term, output: right.term };
        let compared = Term::Subquery(Arc::new(made(asks, sources, condition)));
        match some {
            Some(some) => only(some, compared, Term::NULL),
            None => compared,
        }
    }

    /// Whether a row equals one of those; NULL where it may equal one but for NULLs.
    fn row_of(&self, equal: Term, sources: Vec<Source>, condition: Term) -> Term {
        if self.is_positive {
            return self.exists(sources, junction(vec![condition, equal], false));
        }
        if sources.is_empty() {
            return only(condition, equal, Term::boolean(false));
        }
        let operand = Box::new(equal.clone());
        let unclear = Term::Is { operand, known: Known::Unknown };
        let some = |more| exists(sources.clone(), junction(vec![condition.clone(), more], false));
        let arms = [[some(equal), Term::boolean(true)], [some(unclear), Term::NULL]];
        Term::Case { arms: Box::new(arms), otherwise: Box::new(Term::boolean(false)) }
    }

    /// Whether there is a row of all sources for which this is true.
    fn exists(&self, sources: Vec<Source>, condition: Term) -> Term {
        match (sources.is_empty(), self.is_positive) {
            (false, _) => exists(sources, condition),
            (true, true) => condition,
            (true, false) => Term::Is { operand: Box::new(condition), known: Known::True },
        }
    }

    /// Checks that what is selected, though nobody looks at it, may be selected.
    pub(in crate::rule::bind) fn may_select(&self, node: &Node) -> Result<(), RuleError> {
        let mut outcome = match node {
            Node::Subquery { .. } | Node::User { .. } | Node::Inlined(_) => {
                Err(RuleError::unsupported(node, "EXISTS asks for rows, not for values", ""))
            }
            Node::Star { .. } => Err(RuleError::unsupported(node, "its columns are not known", "")),
            Node::Column { qualifier, name }
                if self.names.called(qualifier.as_deref(), name)?.is_none() =>
            {
                let found = self.names.find(qualifier.as_deref(), name)?;
                found.table.check(found.position)
            }
            _ => Ok(()),
        };
        node.for_each_child(|child| {
            if outcome.is_ok() {
                outcome = self.may_select(child);
            }
        });
        outcome
    }

    /// Whether there is one row at most: of each source all of a unique key is looked for, by what is
    /// known when those that were found so before are.
    fn is_single(&self, subquery: &Subquery) -> bool {
        let mut known: Vec<Range<usize>> = once(0..subquery.base()).collect();
        let mut left: Vec<&Source> = subquery.sources.iter().collect();
        while let Some(next) = left.iter().position(|source| self.is_one(source, &known)) {
            known.push(places(left.remove(next)));
        }
        left.is_empty()
    }

    /// Whether a source has one row at most where these places are known.
    fn is_one(&self, source: &Source, known: &[Range<usize>]) -> bool {
        let table = self.policy.and_then(|it| it.tables.by_id(source.table));
        let Some(table) = table else { return false };
        let key = &table.relation().primary_key;
        let is_known = |lookup: &Lookup| match lookup.key {
            Key::Text(_) => true,
            Key::Cell(at) => known.iter().any(|range| range.contains(&at)),
        };
        let looked_for = |position: &usize| {
            let place = source.columns.iter().position(|column| column == position);
            let mut lookups = source.lookups.iter();
            lookups.any(|lookup| Some(lookup.column) == place && is_known(lookup))
        };
        !key.is_empty() && key.iter().all(looked_for)
    }
}

/// A value where a condition is true, and another one where it is not.
fn only(condition: Term, value: Term, otherwise: Term) -> Term {
    Term::Case { arms: Box::new([[condition, value]]), otherwise: Box::new(otherwise) }
}

pub(in crate::rule::bind) fn exists(sources: Vec<Source>, condition: Term) -> Term {
    if condition.is_constant() && condition != Term::boolean(true) {
        return Term::boolean(false);
    }
    Term::Subquery(Arc::new(made(Asks::Exists, sources, condition)))
}

/// The subquery, with what its condition says of how rows are found.
fn made(asks: Asks, mut sources: Vec<Source>, condition: Term) -> Subquery {
    let base = sources.first().map_or(0, |source| source.base);
    let arms = match &condition {
        Term::All(arms) => arms,
        term => std::slice::from_ref(term),
    };
    let mut equal = Equal::default();
    for arm in arms {
        equal.note(arm);
    }
    let equates = equal.pairs.iter().map(|(left, right)| (*left.min(right), *left.max(right)));
    let equates = equates.filter(|(low, high)| *low < base && *high >= base).collect();
    equal.look_for(base, &mut sources);
    Subquery { asks, sources: sources.into(), condition, equates }
}

/// What is equal wherever a condition is true, of types where values are equal exactly where their
/// texts are.
#[derive(Default)]
struct Equal {
    /// A place of the stack and a text.
    texts: Vec<(usize, Box<[u8]>)>,
    /// Two places.
    pairs: Vec<(usize, usize)>,
}

impl Equal {
    fn note(&mut self, arm: &Term) {
        match arm {
            Term::Same { column, text } => self.texts.push((*column, text.clone())),
            Term::OneOf { column, texts, .. } => {
                if let [text] = &**texts {
                    self.texts.push((*column, text.clone()));
                }
            }
            Term::Compare { op: Comparison::Equal, sides } => {
                self.texts.extend(equals_anything(sides).map(|at| (at, Box::default())));
                self.pairs.extend(same_texts(sides));
            }
            _ => {}
        }
    }

    /// Says by what the rows of each source are looked for, in an order in which as many as possible
    /// are found by what is known then: first those that a text finds, which is most often who asks.
    /// Where none is, whoever visits them chooses where to begin, and those that are left are found by
    /// each other.
    fn look_for(&self, base: usize, sources: &mut [Source]) {
        let mut left: Vec<usize> = (0..sources.len()).collect();
        let mut known: Vec<Range<usize>> = once(0..base).collect();
        let ranges: Vec<Range<usize>> = sources.iter().map(places).collect();
        while !left.is_empty() {
            let lookups = |at: &usize| sources.get(*at).map(|it| self.lookups(it, &known));
            let by_text = |at: &usize| lookups(at).is_some_and(|them| them.iter().any(is_text));
            let bound = |at: &usize| lookups(at).is_some_and(|them| !them.is_empty());
            let next = left.iter().position(by_text).or_else(|| left.iter().position(bound));
            let Some(next) = next.map(|next| left.remove(next)) else { break };
            if let Some(source) = sources.get_mut(next) {
                source.lookups = self.lookups(source, &known).into();
                known.push(places(source));
            }
        }
        for at in left {
            let others = ranges.iter().enumerate().filter(|(other, _)| *other != at);
            let all: Vec<Range<usize>> =
                others.map(|(_, range)| range.clone()).chain(known.iter().cloned()).collect();
            if let Some(source) = sources.get_mut(at) {
                source.lookups = self.lookups(source, &all).into();
            }
        }
    }

    /// By what rows of a source can be looked for where these places are known; the latest last, which
    /// goes before the others.
    fn lookups(&self, source: &Source, known: &[Range<usize>]) -> Vec<Lookup> {
        let own = places(source);
        let column = |place: usize| place - own.start;
        let texts = self.texts.iter().filter(|(place, _)| own.contains(place));
        let texts = texts.map(|(place, text)| (column(*place), Key::Text(text.clone())));
        let both = || self.pairs.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]);
        let cells = known.iter().flat_map(|range| {
            both().filter(|(place, other)| own.contains(place) && range.contains(other))
        });
        let cells = cells.map(|(place, other)| (column(place), Key::Cell(other)));
        texts.chain(cells).map(|(column, key)| Lookup { column, key }).collect()
    }
}

const fn is_text(lookup: &Lookup) -> bool {
    matches!(lookup.key, Key::Text(_))
}

/// The places of a source's cells in the stack.
fn places(source: &Source) -> Range<usize> {
    source.base..source.base + source.columns.len()
}

/// The column that must equal something of the session, where that is not known.
fn equals_anything([left, right]: &[Term; 2]) -> Option<usize> {
    let is_anything = |term: &Term| {
        let mut places = Vec::new();
        term.places(&mut places);
        !places.is_empty() && places.iter().all(|place| *place == ANYTHING)
    };
    match (left, right) {
        (Term::Column { column, read }, other) | (other, Term::Column { column, read })
            if *column != ANYTHING && has_one_text(read) && is_anything(other) =>
        {
            Some(*column)
        }
        _ => None,
    }
}

/// Whether equal values have equal texts.
const fn has_one_text(read: &Read) -> bool {
    matches!(read, Read::Int | Read::Text | Read::Bool | Read::Day)
}

/// Two columns that are equal exactly where their texts are.
fn same_texts(sides: &[Term; 2]) -> Option<(usize, usize)> {
    match sides {
        [Term::Column { column: left, read: one }, Term::Column { column: right, read: other }]
            if one == other && has_one_text(one) =>
        {
            Some((*left, *right))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::Cell as Counter;

    use crate::change::id::RelationId;
    use crate::change::tuple::Cell;
    use crate::rule::Others;
    use crate::rule::Undecided;
    use crate::rule::Visit;
    use crate::rule::subquery::Scope;

    const TEAMS: RelationId = RelationId(1);
    const MEMBERS: RelationId = RelationId(2);

    /// A thousand teams, `id` and `org`; three members of each, `team` and `who`.
    #[derive(Debug, Default)]
    struct Counted {
        visited: Counter<usize>,
    }

    impl Others for Counted {
        fn visit(
            &self,
            source: &Source,
            by: Option<(usize, &[u8])>,
            each: &mut Visit<'_>,
        ) -> Result<(), Undecided> {
            for number in 0..self.rows(source) {
                let row = if source.table == TEAMS {
                    [number.to_string(), format!("o{}", number % 10)]
                } else {
                    [(number / 3).to_string(), format!("u{}", number % 1000)]
                };
                if by.is_some_and(|(column, text)| row[column].as_bytes() != text) {
                    continue;
                }
                self.visited.set(self.visited.get() + 1);
                if each(&[Cell::Text(row[0].as_bytes()), Cell::Text(row[1].as_bytes())]).is_break()
                {
                    break;
                }
            }
            Ok(())
        }

        fn rows(&self, source: &Source) -> usize {
            if source.table == TEAMS { 1000 } else { 3000 }
        }
    }

    fn source(table: RelationId, base: usize) -> Source {
        Source { table, version: 1, columns: Box::new([0, 1]), base, lookups: Box::default() }
    }

    fn equal(left: usize, right: usize) -> Term {
        let column = |column| Term::Column { column, read: Read::Text };
        Term::Compare { op: Comparison::Equal, sides: Box::new([column(left), column(right)]) }
    }

    /// Whether there is a row, and how many were visited to find it, over a row of one column.
    fn ask(tables: [RelationId; 2], condition: Vec<Term>, org: &str) -> (bool, usize) {
        let sources = vec![source(tables[0], 1), source(tables[1], 3)];
        let subquery = made(Asks::Exists, sources, Term::All(condition.into()));
        let others = Counted::default();
        let row = [Cell::Text(org.as_bytes())];
        let truth = subquery.truth(Scope { row: &row, others: &others });
        (truth == Ok(Some(true)), others.visited.get())
    }

    #[test]
    fn sources_are_visited_by_what_is_known_whatever_their_order() {
        let same = |column, text: &str| Term::Same { column, text: text.as_bytes().into() };
        // FROM teams t, members m WHERE t.id = m.team AND m.who = 'u7' AND t.org = the row's org: u7
        // is a member of 2, 335 and 669.
        let teams_first = || vec![equal(1, 3), same(4, "u7"), equal(0, 2)];
        let members_first = || vec![equal(3, 1), same(2, "u7"), equal(0, 4)];
        let without_org = || vec![equal(1, 3), same(4, "u7")];
        for (tables, condition, org, found, at_most) in [
            ([TEAMS, MEMBERS], teams_first(), "o5", true, 6),
            ([MEMBERS, TEAMS], members_first(), "o5", true, 6),
            ([MEMBERS, TEAMS], members_first(), "o1", false, 6),
            // Where the first can't be looked for, the second is visited first.
            ([TEAMS, MEMBERS], without_org(), "", true, 2),
            ([TEAMS, MEMBERS], vec![equal(1, 3), same(4, "u-1")], "", false, 0),
            // Where none can, the smaller one is.
            ([MEMBERS, TEAMS], vec![equal(1, 3), equal(2, 4)], "", false, 4000),
            ([TEAMS, MEMBERS], vec![equal(1, 3), equal(2, 4)], "", false, 4000),
        ] {
            let (truth, visited) = ask(tables, condition.clone(), org);
            assert_eq!(truth, found, "{tables:?} {condition:?}");
            assert!(visited <= at_most, "{visited} visited, {tables:?} {condition:?}");
        }
    }
}
